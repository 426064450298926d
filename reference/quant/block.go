package quant

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Encode rounds src to type t and writes it to dst.
//
//	src: (n), n a whole number of blocks; dst: at least t.RowBytes(n)
//
// Error per weight of a block with the largest magnitude m, up to the rounding of the scale to 16 bits
// (2^-11 of the weight, or 2^-25·q where the scale is subnormal):
// Q8_0 m/254; Q4_0 m/16, or m/8 for weights near m of the other sign; F16 2^-11 and BF16 2^-8 of the weight.
// Bytes equal those of ggml's reference quantiser, except that a block whose scale rounds to zero gets zero quants.
// A weight that is not finite, or too large for the format, is an error that names its index.
func Encode(t Type, dst []byte, src []float32) error {
	n, err := t.RowBytes(len(src))
	if err != nil {
		return err
	}
	if !t.CanDecode() {
		return fmt.Errorf("encode weights as %v: cannot, want one of %v", t, Supported())
	}
	if len(dst) < n {
		return fmt.Errorf("encode %d weights as %v: need %d bytes, have %d", len(src), t, n, len(dst))
	}
	limit := float64(math.MaxFloat32)
	switch t {
	case F16:
		limit = 65504
	case BF16:
		limit = 0x1.fep127 // largest finite bfloat16
	case Q8_0:
		limit = 65504 * 127
	case Q4_0:
		limit = 65504 * 8
	}
	for i, v := range src {
		if !(math.Abs(float64(v)) <= limit) {
			return fmt.Errorf("encode weights as %v: weight %d is %g, want a finite value within ±%g", t, i, v, limit)
		}
	}
	encode(t, dst, src)
	return nil
}

func encode(t Type, dst []byte, src []float32) {
	switch t {
	case F32:
		for i, v := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		}
	case F16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], F32ToF16(v))
		}
	case BF16:
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], F32ToBF16(v))
		}
	case Q8_0:
		for b := range len(src) / 32 {
			encodeQ8(dst[b*34:b*34+34], src[b*32:b*32+32])
		}
	case Q4_0:
		for b := range len(src) / 32 {
			encodeQ4(dst[b*18:b*18+18], src[b*32:b*32+32])
		}
	}
}

// putScale stores a block's scale and returns its inverse, or 0 if the scale rounds to zero: then every weight
// decodes to zero, and an infinite inverse would make quants that differ between processors.
func putScale(dst []byte, d float32) (inv float32) {
	h := F32ToF16(d)
	binary.LittleEndian.PutUint16(dst, h)
	if h&0x7fff == 0 {
		return 0
	}
	return 1 / d
}

func encodeQ8(dst []byte, x []float32) {
	var m float32
	for _, v := range x {
		m = max(m, v, -v)
	}
	inv := putScale(dst, m/127)
	for i, v := range x {
		q := math.Round(float64(v * inv)) // half away from zero, as C's roundf
		dst[2+i] = byte(int8(max(-127, min(127, q))))
	}
}

func encodeQ4(dst []byte, x []float32) {
	var m float32 // the weight of largest magnitude, with its sign: it becomes q = 0, that is -8
	for _, v := range x {
		if max(v, -v) > max(m, -m) {
			m = v
		}
	}
	inv := putScale(dst, m/-8)
	q := func(v float32) byte { return byte(max(0, min(15, float32(v*inv)+8.5))) }
	for i := range 16 {
		dst[2+i] = q(x[i]) | q(x[i+16])<<4
	}
}

// Decode writes the float32 values of src, bit exact, for all of dst.
//
//	dst: (n), n a whole number of blocks; src: at least t.RowBytes(n)
//
// Panics if t is not one of [Supported] or lengths disagree: a reader checks both when it opens a file.
func Decode(t Type, dst []float32, src []byte) {
	n, err := t.RowBytes(len(dst))
	if err != nil || len(src) < n {
		panic(fmt.Sprintf("quant: decode %d weights of %v from %d bytes: %v", len(dst), t, len(src), err))
	}
	switch t {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case Q8_0:
		for b := range len(dst) / 32 {
			decodeQ8(dst[b*32:b*32+32], src[b*34:b*34+34])
		}
	case Q4_0:
		for b := range len(dst) / 32 {
			decodeQ4(dst[b*32:b*32+32], src[b*18:b*18+18])
		}
	default:
		panic(fmt.Sprintf("quant: decode %v: not supported", t))
	}
}

func decodeQ8(dst []float32, src []byte) {
	d := F16ToF32(binary.LittleEndian.Uint16(src))
	q := src[2:34]
	dst = dst[:len(q)]
	for i, v := range q {
		dst[i] = float32(int8(v)) * d
	}
}

func decodeQ4(dst []float32, src []byte) {
	d := F16ToF32(binary.LittleEndian.Uint16(src))
	q := src[2:18]
	lo, hi := dst[:16], dst[16:32]
	for i, v := range q {
		lo[i] = float32(int(v&15)-8) * d
		hi[i] = float32(int(v>>4)-8) * d
	}
}

// Dot is the product of one encoded row with float32 activations, decoded on the fly: one chain in index order,
// every product rounded, so it equals the generic kernel of package tensor on the decoded row, bit for bit.
//
//	row: t.RowBytes(len(x)) bytes; x: (K), a whole number of blocks
func Dot(t Type, row []byte, x []float32) float32 {
	var buf [32]float32
	var s float32
	block, size := t.Block(), t.BlockBytes()
	step := 32 / block * size
	for k := 0; k < len(x); k += 32 {
		part := x[k:min(k+32, len(x))]
		Decode(t, buf[:len(part)], row[k/32*step:])
		for i, v := range part {
			s += float32(buf[i] * v)
		}
	}
	return s
}

// Matrix is an encoded matrix (N, K) whose rows are decoded when they are read.
type Matrix struct {
	Type Type
	N, K int
	Data []byte // N rows of Type.RowBytes(K)
}

// ReadRow decodes part of row n, from column k on; k is a multiple of the block. See tensor.RowReader.
func (m *Matrix) ReadRow(dst []float32, n, k int) {
	block, size := m.Type.Block(), m.Type.BlockBytes()
	Decode(m.Type, dst, m.Data[(n*m.K+k)/block*size:])
}

package quant

import (
	"fmt"
	"math"
)

// Encode rounds src to type t and writes it to dst.
//
//	src: (n), n a whole number of blocks; dst: at least t.RowBytes(n)
//
// Error per weight of a block with the largest magnitude m, up to the rounding of the scale to 16 bits
// (2^-11 of the weight, or 2^-25·q where the scale is subnormal):
// Q8_0 m/254; Q5_0 m/32 and Q4_0 m/16, or twice that for weights near m of the other sign; with r the range from the
// smallest to the largest weight, Q5_1 r/62 and Q4_1 r/30; F16 2^-11 and BF16 2^-8 of the weight. IQ4_NL and the K types
// minimise a sum of squares over the block instead and promise no bound for a single weight.
// Bytes equal those of ggml's reference quantiser except for Q4_K, Q5_K and Q6_K, whose squared error is smaller, and
// except that a block whose scale rounds to zero gets zero integers.
// A weight that is not finite, or too large for the format, is an error that names its index.
func Encode(t Type, dst []byte, src []float32) error {
	n, err := t.RowBytes(len(src))
	if err != nil {
		return err
	}
	if !t.CanEncode() {
		return fmt.Errorf("encode weights as %v: cannot, want one of %v", t, Encodable())
	}
	if len(dst) < n {
		return fmt.Errorf("encode %d weights as %v: need %d bytes, have %d", len(src), t, n, len(dst))
	}
	f := formats[t]
	most := math.Float32bits(float32(f.most)) // the bits of magnitudes are in their order, and a NaN's are above all
	for i, v := range src {
		if math.Float32bits(v)&^(1<<31) > most {
			return fmt.Errorf("encode weights as %v: weight %d is %g, want a finite value within ±%g", t, i, v, f.most)
		}
	}
	f.encode(dst[:n], src)
	return nil
}

// Decode writes the float32 values of src, bit exact, for all of dst.
//
//	dst: (n), n a whole number of blocks; src: at least t.RowBytes(n)
//
// Panics if t is not one of [Decodable] or lengths disagree: a reader checks both when it opens a file.
func Decode(t Type, dst []float32, src []byte) {
	n, err := t.RowBytes(len(dst))
	if err != nil || len(src) < n {
		panic(fmt.Sprintf("quant: decode %d weights of %v from %d bytes: %v", len(dst), t, len(src), err))
	}
	decode := formats[t].decode
	if decode == nil {
		panic(fmt.Sprintf("quant: decode %v: not supported", t))
	}
	decode(dst, src[:n])
}

// dotStep is how many weights Dot decodes at once: a whole number of blocks of every type.
const dotStep = 256

// Dot is the product of one encoded row with float32 activations, decoded on the fly: one chain in index order,
// every product rounded, so it equals the generic kernel of package tensor on the decoded row, bit for bit.
//
//	row: t.RowBytes(len(x)) bytes; x: (K), a whole number of blocks
func Dot(t Type, row []byte, x []float32) float32 {
	var buf [dotStep]float32
	var s float32
	step := dotStep / t.Block() * t.BlockBytes()
	for k := 0; k < len(x); k += dotStep {
		part := x[k:min(k+dotStep, len(x))]
		Decode(t, buf[:len(part)], row[k/dotStep*step:])
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

// ReadRow decodes part of row n, from column k on; k and len(dst) are multiples of the block. See tensor.RowReader.
func (m *Matrix) ReadRow(dst []float32, n, k int) {
	block, size := m.Type.Block(), m.Type.BlockBytes()
	Decode(m.Type, dst, m.Data[(n*m.K+k)/block*size:])
}

package quant

import (
	"encoding/binary"
	"math"
)

// Blocks whose nibbles are not integers but index 16 values.
//
//	IQ4_NL   18 bytes: d (half), 16 bytes of two nibbles;           weight = d·values[q]
//	IQ4_XS  136 bytes: d (half), 2 bytes of high scale bits, 4 bytes of low ones, 128 of nibbles: 256 weights, of which
//	        each 32 share a scale of 6 bits, s;                     weight = (d·(s-32))·values[q]
//	MXFP4    17 bytes: e, 16 bytes of two nibbles;                  weight = 2^(e-127)·(an E2M1 float)
//
// In each 32 weights the low nibbles are the first 16. Source: the block structs and tables of ggml-common.h; for MXFP4
// the OCP Microscaling Formats specification 1.0, whose NaN (e = 255) ggml and we read as 2^128.

// values of IQ4_NL and IQ4_XS: denser near zero, where weights are. Source: kvalues_iq4nl of ggml-common.h.
var values = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// twiceE2M1 are the sixteen numbers of one sign, two exponent and one mantissa bits, doubled to be integers.
var twiceE2M1 = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// IQ4Values are the sixteen integers that nibbles of IQ4_NL and IQ4_XS stand for.
func IQ4Values() [16]int8 { return integers(values) }

// MXFP4Values are the sixteen integers that nibbles of MXFP4 stand for, to be multiplied by [MXFP4Scale].
func MXFP4Values() [16]int8 { return integers(twiceE2M1) }

func integers(table [16]float32) (list [16]int8) {
	for i, v := range table {
		list[i] = int8(v)
	}
	return list
}

func lookup(dst []float32, d float32, q []byte, table []float32) {
	lo, hi, table := dst[:16], dst[16:32], table[:16]
	for i, v := range q[:16] {
		lo[i] = d * table[v&15]
		hi[i] = d * table[v>>4]
	}
}

func decodeIQ4NL(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[18:] {
		lookup(dst, half(src), src[2:18], values[:])
	}
}

// IQ4XSScale unpacks scale j, 0 to 7, of an IQ4_XS block: -32 to 31, times the block's d for weights 32j and on.
func IQ4XSScale(block []byte, j int) int {
	low := block[4+j/2] >> (4 * (j & 1)) & 15
	high := byte(binary.LittleEndian.Uint16(block[2:])>>(2*j)) & 3
	return int(low|high<<4) - 32
}

func decodeIQ4XS(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[136:] {
		d := half(src)
		for j := range 8 {
			lookup(dst[32*j:], d*float32(IQ4XSScale(src, j)), src[8+16*j:], values[:])
		}
	}
}

// MXFP4Scale is 2^(e-128), half of the scale of an MXFP4 block, since its numbers are doubled to be integers.
func MXFP4Scale(e byte) float32 {
	if e < 2 { // below 2^-126 a float32 is subnormal
		return math.Float32frombits(0x00200000 << e)
	}
	return math.Float32frombits(uint32(e-1) << 23)
}

func decodeMXFP4(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[17:] {
		lookup(dst, MXFP4Scale(src[0]), src[1:17], twiceE2M1[:])
	}
}

// encodeMXFP4 takes the power of two that brings the largest weight into [4, 8), the binade of the largest number, 6,
// and the nearest number for each weight, of two equally near the smaller.
func encodeMXFP4(dst []byte, src []float32) {
	for ; len(src) >= 32; dst, src = dst[17:], src[32:] {
		m := extreme(src[:32])
		dst[0] = 0
		if m != 0 {
			// The logarithm is rounded to float32 as ggml's is: just below a power of two that may round up.
			log := float32(math.Log2(math.Abs(float64(m))))
			dst[0] = byte(max(0, math.Floor(float64(log))-2+127))
		}
		scale := MXFP4Scale(dst[0])
		for i := range 16 {
			dst[1+i] = nearestE2M1(src[i], scale) | nearestE2M1(src[i+16], scale)<<4
		}
	}
}

func nearestE2M1(v, scale float32) (q byte) {
	x := max(v, -v)
	for q < 7 && x > (twiceE2M1[q]+twiceE2M1[q+1])/2*scale {
		q++
	}
	if v < 0 && q > 0 {
		return q | 8
	}
	return q
}

// below[b] is the index of the largest of the values that is not above the integer b-127.
var below = func() (table [241]byte) {
	for b := range table {
		for i, v := range values {
			if int(v) <= b-127 {
				table[b] = byte(i)
			}
		}
	}
	return table
}()

// nearestValue is the index of the value nearest to v.
func nearestValue(v float32) byte {
	if v <= values[0] {
		return 0
	}
	if v >= values[15] {
		return 15
	}
	i := below[min(int(v+127), 239)] // v > -127, so truncation is the floor; the sum may round up to 240
	if v-values[i] < values[i+1]-v {
		return i
	}
	return i + 1
}

// encodeIQ4NL minimises Σ x²·(x - d·value)² over fifteen inverse scales near the one that brings the extreme weight to
// an end of the table, as ggml does, with the scale of each that fits its values best.
func encodeIQ4NL(dst []byte, src []float32) {
	for ; len(src) >= 32; dst, src = dst[18:], src[32:] {
		inverse := putScale(dst, fitValues(src[:32]))
		for i := range 16 {
			dst[2+i] = nearestValue(inverse*src[i]) | nearestValue(inverse*src[i+16])<<4
		}
	}
}

// fitValues returns the best scale, or 0 for weights that no half times a value can reach.
func fitValues(x []float32) (d float32) {
	const tries = 7
	m := extreme(x)
	if max(m, -m) < 1e-15 {
		return 0
	}
	projection, norm := matchValues(x, 1/(m/-values[0]))
	if norm > 0 {
		d = projection / norm
	}
	best := d * projection // how much of the weighted sum of squares is explained
	for try := -tries; try <= tries; try++ {
		projection, norm = matchValues(x, (float32(try)+values[0])/m)
		if norm > 0 && projection*projection > best*norm {
			d = projection / norm
			best = d * projection
		}
	}
	return d
}

// matchValues rounds weights to values and returns the weighted sums of value·x and of value².
func matchValues(x []float32, inverse float32) (projection, norm float32) {
	for _, v := range x {
		q := values[nearestValue(inverse*v)]
		w := float32(v * v)
		projection += float32(float32(w*q) * v)
		norm += float32(float32(w*q) * q)
	}
	return projection, norm
}

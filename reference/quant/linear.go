package quant

import (
	"encoding/binary"
	"math"
)

// Blocks of 32 weights with one scale d, and for the types that end in _1 an offset m, all halves.
//
//	Q4_0  18 bytes: d, 16 bytes of two nibbles;             weight = d·(q-8)
//	Q4_1  20 bytes: d, m, 16 bytes of two nibbles;          weight = d·q + m
//	Q5_0  22 bytes: d, 4 bytes of fifth bits, 16 of nibbles; weight = d·(q-16)
//	Q5_1  24 bytes: d, m, 4 bytes of fifth bits, 16 of nibbles; weight = d·q + m
//	Q8_0  34 bytes: d, 32 x int8 q;                         weight = d·q
//	Q8_1  36 bytes: d, s = d·sum(q), 32 x int8 q;           weight = d·q, an activation type
//
// The low nibbles are weights 0..15, the high ones 16..31; bit i of the fifth bits belongs to weight i.
// Source: the block structs of ggml-common.h; the rounding rules are those of ggml's quantize_row_*_ref.

func decodeQ40(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[18:] {
		d := half(src)
		q, lo, hi := src[2:18], dst[:16], dst[16:32]
		for i, v := range q {
			lo[i] = float32(int(v&15)-8) * d
			hi[i] = float32(int(v>>4)-8) * d
		}
	}
}

func decodeQ41(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[20:] {
		d, m := half(src), half(src[2:])
		q, lo, hi := src[4:20], dst[:16], dst[16:32]
		for i, v := range q {
			lo[i] = float32(float32(v&15)*d) + m
			hi[i] = float32(float32(v>>4)*d) + m
		}
	}
}

func decodeQ50(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[22:] {
		d, fifth := half(src), binary.LittleEndian.Uint32(src[2:])
		q, lo, hi := src[6:22], dst[:16], dst[16:32]
		for i, v := range q {
			lo[i] = float32(int(v&15|byte(fifth>>i<<4)&16)-16) * d
			hi[i] = float32(int(v>>4|byte(fifth>>(i+12))&16)-16) * d
		}
	}
}

func decodeQ51(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[24:] {
		d, m, fifth := half(src), half(src[2:]), binary.LittleEndian.Uint32(src[4:])
		q, lo, hi := src[8:24], dst[:16], dst[16:32]
		for i, v := range q {
			lo[i] = float32(float32(v&15|byte(fifth>>i<<4)&16)*d) + m
			hi[i] = float32(float32(v>>4|byte(fifth>>(i+12))&16)*d) + m
		}
	}
}

func decodeQ80(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[34:] {
		scaled(dst[:32], half(src), src[2:34])
	}
}

func decodeQ81(dst []float32, src []byte) {
	for ; len(dst) >= 32; dst, src = dst[32:], src[36:] {
		scaled(dst[:32], half(src), src[4:36])
	}
}

func scaled(dst []float32, d float32, q []byte) {
	dst = dst[:len(q)]
	for i, v := range q {
		dst[i] = float32(int8(v)) * d
	}
}

// putScale stores a block's scale and returns its inverse, or 0 if the scale rounds to zero: then every weight
// decodes to zero, and an infinite inverse would make integers that differ between processors.
func putScale(dst []byte, d float32) (inverse float32) {
	if putHalf(dst, d) == 0 {
		return 0
	}
	return 1 / d
}

// extreme is the weight of largest magnitude, the first of equals, with its sign.
func extreme(x []float32) (m float32) {
	var most uint32 // the bits of magnitudes are in order of the magnitudes
	for _, v := range x {
		if b := math.Float32bits(v) &^ (1 << 31); b > most {
			m, most = v, b
		}
	}
	return m
}

func encodeQ40(dst []byte, src []float32) {
	for ; len(src) >= 32; dst, src = dst[18:], src[32:] {
		inverse := putScale(dst, extreme(src[:32])/-8) // the extreme becomes q = 0, that is -8
		q := func(v float32) byte { return byte(min(15, int32(float32(v*inverse)+8.5))) }
		for i := range 16 {
			dst[2+i] = q(src[i]) | q(src[i+16])<<4
		}
	}
}

func encodeQ50(dst []byte, src []float32) {
	for ; len(src) >= 32; dst, src = dst[22:], src[32:] {
		inverse := putScale(dst, extreme(src[:32])/-16)
		q := func(v float32) byte { return byte(min(31, int32(float32(v*inverse)+16.5))) }
		putFive(dst[2:22], src, q)
	}
}

// span stores scale and offset of weights between two extremes, of which most more are steps, and returns the
// smallest weight and the inverse of the scale.
func span(dst []byte, x []float32, most float32) (low, inverse float32) {
	low, high := x[0], x[0]
	for _, v := range x {
		low, high = min(low, v), max(high, v)
	}
	putHalf(dst[2:], low)
	return low, putScale(dst, (high-low)/most)
}

func encodeQ41(dst []byte, src []float32) {
	for ; len(src) >= 32; dst, src = dst[20:], src[32:] {
		low, inverse := span(dst, src[:32], 15)
		q := func(v float32) byte { return byte(min(15, int32(float32((v-low)*inverse)+0.5))) }
		for i := range 16 {
			dst[4+i] = q(src[i]) | q(src[i+16])<<4
		}
	}
}

func encodeQ51(dst []byte, src []float32) {
	for ; len(src) >= 32; dst, src = dst[24:], src[32:] {
		low, inverse := span(dst, src[:32], 31)
		putFive(dst[4:24], src, func(v float32) byte { return byte(min(31, int32(float32((v-low)*inverse)+0.5))) })
	}
}

// putFive packs integers of five bits: 4 bytes of fifth bits, 16 of nibbles.
func putFive(dst []byte, x []float32, q func(float32) byte) {
	var fifth uint32
	for i := range 16 {
		a, b := q(x[i]), q(x[i+16])
		fifth |= uint32(a>>4)<<i | uint32(b>>4)<<(i+16)
		dst[4+i] = a&15 | b<<4
	}
	binary.LittleEndian.PutUint32(dst, fifth)
}

func encodeQ80(dst []byte, src []float32) {
	for ; len(src) >= 32; dst, src = dst[34:], src[32:] {
		m := extreme(src[:32])
		inverse := putScale(dst, max(m, -m)/127)
		for i, v := range src[:32] {
			q := float64(v * inverse)
			n := int32(q + math.Copysign(0.5, q)) // half away from zero, as C's roundf; the sum is exact where it matters
			dst[2+i] = byte(int8(max(-127, min(127, n))))
		}
	}
}

// Scale8 is how activations, keys and values are rounded to 8 bits while a model runs: x ≈ scale·q with
// q = round(x·inverse), to nearest even, at most 127 in magnitude.
//
// scale = max|x|/127, in float32. Below the normal range it has no usable inverse: that is 0 then, and so is every q. An
// infinity or NaN in x makes scale NaN, so that it is not lost.
func Scale8(x []float32) (scale, inverse float32) {
	var top, poison float32
	for _, v := range x {
		top = max(top, v, -v)
		poison += v * 0
	}
	scale = top * (1.0 / 127)
	if scale >= 0x1p-126 {
		inverse = 1 / scale
	}
	return scale + poison, inverse
}

package panel

import (
	"encoding/binary"
	"math"

	"meibench/reference/quant"
)

// split takes encoded weights apart: weight = s·q - m, with s and m for 16 columns each.
//
//	src: a row of K weights; q: (K); s, m: (K/16)
//
// Quants come from the decoded weights, which are these integers times s up to the rounding of one product, so no
// second reader of every bit layout is needed; only the scales are read here.
func split(t quant.Type, q []int8, s, m, weights []float32, src []byte) {
	quant.Decode(t, weights, src)
	block, size := t.Block(), t.BlockBytes()
	for b := range len(q) / block {
		scales(t, s[b*block/16:(b+1)*block/16], m[b*block/16:(b+1)*block/16], src[b*size:(b+1)*size])
	}
	for i, w := range weights {
		scale, low := s[i/16], m[i/16]
		q[i] = 0
		if scale != 0 && scale == scale {
			q[i] = int8(max(-128, min(127, math.RoundToEven((float64(w)+float64(low))/float64(scale)))))
		}
	}
}

// scales reads the scales and mins of one block.
func scales(t quant.Type, s, m []float32, block []byte) {
	half := func(at int) float32 { return quant.F16ToF32(binary.LittleEndian.Uint16(block[at:])) }
	fill := func(scale, low float32) {
		for i := range s {
			s[i], m[i] = scale, low
		}
	}
	switch t {
	case quant.Q4_1, quant.Q5_1: // weight = d·q + m
		fill(half(0), -half(2))
	case quant.Q8_1, quant.IQ4_NL:
		fill(half(0), 0)
	case quant.MXFP4: // the table of package quant holds integers, twice the values of E2M1
		fill(quant.MXFP4Scale(block[0]), 0)
	case quant.Q8_K:
		fill(math.Float32frombits(binary.LittleEndian.Uint32(block)), 0)
	case quant.Q2_K: // 16 bytes of 4-bit scale and min, 64 of quants, d, dmin
		for i := range s {
			s[i], m[i] = half(80)*float32(block[i]&15), half(82)*float32(block[i]>>4)
		}
	case quant.Q3_K: // high bits, quants, 12 bytes of scales, d
		for i := range s {
			s[i], m[i] = half(108)*float32(quant.Q3KScale(block[96:108], i)), 0
		}
	case quant.IQ4_XS:
		for i := range s {
			s[i], m[i] = half(0)*float32(quant.IQ4XSScale(block, i/2)), 0
		}
	default:
		panic("panel: no way to take apart " + t.String())
	}
}

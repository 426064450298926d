// Package kivi keeps keys and values in 2, 4 or 8 bits: keys in groups of tokens per channel, because some channels of keys
// are much larger than others; values in groups of channels per token; the last tokens as they are.
//
//	memory, _ := kivi.NewCache(model.Config, kivi.Default(2), 0, model.Layers)
//	r := evict.NewOn(model, memory, 1)
//	logits, _ := r.Prefill(ids)
//	fmt.Println(memory.Bytes())
//
// Source: Liu et al. 2024 (KIVI). A group is stored as codes, a float16 scale and a float16 zero: b + 32/G bits
// an element. Both are rounded outwards, so that no element is further off than half a scale. Attention reads the decoded
// positions: what is saved is memory, not time. Codes are not compressed further.
package kivi

import (
	"fmt"
	"math"

	"meibench/internal/rng"
	"meibench/reference/quant"
)

// Params says how finely keys and values are kept.
type Params struct {
	Bits     int // 2, 4 or 8
	Group    int // elements that share scale and zero, a multiple of 8
	Residual int // last tokens kept as they are, a multiple of Group: keys are rounded so many at a time, values one by one
}

// Default is the setting of the authors' code: groups of 32 and 128 last tokens.
func Default(bits int) Params { return Params{Bits: bits, Group: 32, Residual: 128} }

// Check says what is wrong, or returns nil.
func (p Params) Check() error {
	switch {
	case p.Bits != 2 && p.Bits != 4 && p.Bits != 8:
		return fmt.Errorf("KIVI with %d bits: want 2, 4 or 8", p.Bits)
	case p.Group < 8 || p.Group%8 != 0 || p.Group > 1<<16:
		return fmt.Errorf("KIVI with groups of %d: want a multiple of 8, at most 65536", p.Group)
	case p.Residual < p.Group || p.Residual%p.Group != 0 || p.Residual > 1<<20:
		return fmt.Errorf("KIVI with %d last tokens as they are: want a multiple of the group of %d", p.Residual, p.Group)
	}
	return nil
}

// BitsPerElement of full groups: 3.0 for 2 bits and 5.0 for 4 in groups of 32.
func (p Params) BitsPerElement() float64 { return float64(p.Bits) + 32/float64(p.Group) }

// GroupBytes is what n elements of a group take: codes, scale and zero.
func GroupBytes(n, bits int) int { return (n*bits+7)/8 + 4 }

// Encode writes a group of elements to dst, of GroupBytes(len(x), bits): float16 scale, float16 zero, codes from the low
// bits up. Element i decodes to zero + scale·code, within scale/2 and the rounding of float32. If an element is not
// finite or beyond float16, the group decodes to NaN.
func Encode(dst []byte, x []float32, bits int) {
	lo, hi, ok := x[0], x[0], true
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
		ok = ok && math.Abs(float64(v)) <= 65504 // false for NaN
	}
	levels := float64(int(1)<<bits - 1)
	zero := outwards(float64(lo), -1)
	scale := outwards((float64(hi)-float64(quant.F16ToF32(zero)))/levels, 1)
	if !ok || math.IsInf(float64(quant.F16ToF32(scale)), 0) || math.IsInf(float64(quant.F16ToF32(zero)), 0) {
		scale, zero = 0x7e00, 0x7e00 // NaN
	}
	put16(dst, scale)
	put16(dst[2:], zero)
	codes := dst[4:GroupBytes(len(x), bits)]
	clear(codes)
	s, z := float64(quant.F16ToF32(scale)), float64(quant.F16ToF32(zero))
	if !(s > 0) {
		return // all elements are zero's value, or NaN
	}
	for i, v := range x {
		code := math.RoundToEven((float64(v) - z) / s)
		codes[i*bits/8] |= byte(int(max(0, min(levels, code))) << (i * bits % 8))
	}
}

// Decode reads a group written by [Encode].
func Decode(out []float32, src []byte, bits int) {
	s, z := float64(quant.F16ToF32(get16(src))), float64(quant.F16ToF32(get16(src[2:])))
	codes, mask := src[4:], byte(int(1)<<bits-1)
	for i := range out {
		code := codes[i*bits/8] >> (i * bits % 8) & mask
		out[i] = float32(z + float64(s*float64(code)))
	}
}

// Scale is the scale of a group.
func Scale(src []byte) float32 { return quant.F16ToF32(get16(src)) }

// outwards is the float16 nearest to v on the side of sign.
func outwards(v float64, sign int) uint16 {
	h := quant.F32ToF16(float32(v))
	got := float64(quant.F16ToF32(h))
	if sign > 0 && got >= v || sign < 0 && got <= v {
		return h
	}
	switch { // one step towards sign
	case h&0x7fff == 0:
		return uint16(1) | uint16((1-sign)/2)<<15
	case (h>>15 == 0) == (sign > 0):
		return h + 1
	}
	return h - 1
}

func put16(dst []byte, v uint16) { dst[0], dst[1] = byte(v), byte(v>>8) }
func get16(src []byte) uint16    { return uint16(src[0]) | uint16(src[1])<<8 }

// RoundPerChannel rounds a matrix as KIVI rounds keys: groups of p.Group rows of one column; RoundPerToken as values:
// groups of p.Group columns of one row. The last group may be shorter. Both return what decodes.
//
//	x: (T, W)
func (p Params) RoundPerChannel(x []float32, W int) []float32 {
	out, T := make([]float32, len(x)), len(x)/W
	group, code := make([]float32, p.Group), make([]byte, GroupBytes(p.Group, p.Bits))
	for t := 0; t < T; t += p.Group {
		n := min(p.Group, T-t)
		for c := range W {
			for i := range n {
				group[i] = x[(t+i)*W+c]
			}
			Encode(code, group[:n], p.Bits)
			Decode(group[:n], code, p.Bits)
			for i := range n {
				out[(t+i)*W+c] = group[i]
			}
		}
	}
	return out
}

// RoundPerToken is described at [Params.RoundPerChannel].
func (p Params) RoundPerToken(x []float32, W int) []float32 {
	out, code := make([]float32, len(x)), make([]byte, GroupBytes(p.Group, p.Bits))
	for t := 0; t < len(x); t += W {
		for c := 0; c < W; c += p.Group {
			at, n := t+c, min(p.Group, W-c)
			Encode(code, x[at:at+n], p.Bits)
			Decode(out[at:at+n], code, p.Bits)
		}
	}
	return out
}

// OutlierRatio is how much more accurate the other channels are rounded per channel than per token, as a ratio of root mean
// squares of their errors, if one of W channels of normal numbers is 30 times as large: the reason why keys and values are
// grouped differently. 512 tokens, groups of 32, one fixed stream of numbers.
func OutlierRatio(bits, W int) float64 {
	const tokens, outlier = 512, 5
	p, r := Default(bits), rng.Stream(1, "kivi outlier")
	x := make([]float32, tokens*W)
	for i := range x {
		x[i] = float32(r.NormFloat64())
		if i%W == outlier {
			x[i] *= 30
		}
	}
	perChannel, perToken := p.RoundPerChannel(x, W), p.RoundPerToken(x, W)
	var channel, token float64
	for i, v := range x {
		if i%W != outlier {
			c, t := float64(perChannel[i]-v), float64(perToken[i]-v)
			channel, token = channel+float64(c*c), token+float64(t*t)
		}
	}
	return math.Sqrt(token / channel)
}

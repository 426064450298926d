package quant

import (
	"encoding/binary"
	"math"
)

// F16ToF32 converts an IEEE 754 half, exactly, including subnormals, infinities and NaN.
func F16ToF32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	if h&0x7c00 == 0x7c00 { // infinity or NaN
		f := sign | 0x7f800000 | uint32(h&0x3ff)<<13
		if h&0x3ff != 0 {
			f |= 0x400000 // a quiet NaN, as the processor's own conversion makes it
		}
		return math.Float32frombits(f)
	}
	// Shifted into place the exponent is 112 too small, and a product with 2^112 corrects it. It is exact, and
	// subnormal halves become subnormal floats of the same digits first, so they need no case of their own.
	magnitude := math.Float32frombits(uint32(h&0x7fff)<<13) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(magnitude))
}

// F32ToF16 rounds to the nearest half, ties to even; too large becomes infinity, NaN stays NaN.
func F32ToF16(f float32) uint16 {
	b := math.Float32bits(f)
	sign, b := uint16(b>>16)&0x8000, b&0x7fffffff
	switch {
	case b > 0x7f800000: // NaN, made quiet
		return sign | 0x7e00 | uint16(b>>13)&0x3ff
	case b >= 0x477ff000: // 65520 and above round to infinity
		return sign | 0x7c00
	case b < 0x38800000: // below 2^-14: a subnormal half is an integer multiple of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(b))*0x1p24))
	}
	b += 0xfff + b>>13&1 // round half to even; a carry into the exponent is right
	return sign | uint16((b-0x38000000)>>13)
}

// BF16ToF32 converts a bfloat16, exactly: it is the upper half of a float32.
func BF16ToF32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// F32ToBF16 rounds to the nearest bfloat16, ties to even; NaN stays NaN.
func F32ToBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

func decodeF32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func encodeF32(dst []byte, src []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func decodeF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func encodeF16(dst []byte, src []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToF16(v))
	}
}

func decodeBF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func encodeBF16(dst []byte, src []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToBF16(v))
	}
}

// half reads a 16-bit scale.
func half(src []byte) float32 { return F16ToF32(binary.LittleEndian.Uint16(src)) }

// putHalf stores a number as a half and returns what it became.
func putHalf(dst []byte, v float32) float32 {
	h := F32ToF16(v)
	binary.LittleEndian.PutUint16(dst, h)
	return F16ToF32(h)
}

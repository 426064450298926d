package quant

import (
	"encoding/binary"
	"math"
)

// Super-blocks of 256 weights: sub-blocks of 32 or 16 with small integer scales, times halves d and dmin.
//
//	Q2_K   84 bytes: 16 of scale (low nibble) and min (high), 64 of 2-bit q, d, dmin   weight = (d·sc)·q - dmin·mn
//	Q3_K  110 bytes: 32 of third bits, 64 of 2-bit q, 12 of 6-bit scales, d            weight = (d·(sc-32))·(q-4)
//	Q4_K  144 bytes: d, dmin, 12 of 6-bit scales and mins, 128 of nibbles              weight = (d·sc)·q - dmin·mn
//	Q5_K  176 bytes: d, dmin, 12 of 6-bit scales and mins, 32 of fifth bits, 128       weight = (d·sc)·q - dmin·mn
//	Q6_K  210 bytes: 128 of nibbles, 64 of upper 2 bits, 16 of int8 scales, d          weight = (d·sc)·(q-32)
//	Q8_K  292 bytes: d (a float32), 256 of int8 q, 16 sums (int16); an activation type weight = d·q
//
// Q4_K and Q5_K have 8 sub-blocks of 32, the others 16 of 16. Bits of several weights share a byte so that a vector unit
// can mask them out of one load; each function's comment has its layout. Source: the block structs and dequantize_row_*
// of ggml.

// Q4KScaleMin unpacks scale and min j, 0 to 7, from the 12 bytes of scales of a Q4_K or Q5_K block (bytes 4 to 15): the
// first four have six bits in a byte of their own, the last four a nibble, and their upper two bits on top of those.
func Q4KScaleMin(scales []byte, j int) (sc, mn uint8) {
	if j < 4 {
		return scales[j] & 63, scales[j+4] & 63
	}
	return scales[j+4]&15 | scales[j-4]>>6<<4, scales[j+4]>>4 | scales[j]>>6<<4
}

// putQ4KScaleMin packs what Q4KScaleMin unpacks; entries 0 to 3 come before the others.
func putQ4KScaleMin(scales []byte, j int, sc, mn uint8) {
	if j < 4 {
		scales[j], scales[j+4] = sc, mn
		return
	}
	scales[j+4] = sc&15 | mn<<4
	scales[j-4] |= sc >> 4 << 6
	scales[j] |= mn >> 4 << 6
}

// Q3KScale unpacks scale j, 0 to 15, from the 12 bytes of scales of a Q3_K block (bytes 96 to 107): -32 to 31.
func Q3KScale(scales []byte, j int) int {
	low := scales[j%8] >> (j / 8 * 4) & 15
	high := scales[8+j%4] >> (j / 4 * 2) & 3
	return int(low|high<<4) - 32
}

// decodeQ2K: byte 32h+i of the quants holds weights 128h+i, +32, +64 and +96, from the low bits up.
func decodeQ2K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[84:] {
		scales, quants := src[:16], src[16:80]
		d, dmin := half(src[80:]), half(src[82:])
		for j, sc := range scales { // sub-block j is weights 16j to 16j+15
			q, y := quants[j/8*32+j%2*16:][:16], dst[16*j:][:16]
			scale, low := d*float32(sc&15), dmin*float32(sc>>4)
			shift := j / 2 % 4 * 2
			for i, v := range q {
				y[i] = float32(scale*float32(v>>shift&3)) - low
			}
		}
	}
}

// decodeQ3K: the two low bits lie as in Q2_K; bit k of byte i of the third bits belongs to weight 32k+i, and stands for
// four more, from -4 on.
func decodeQ3K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[110:] {
		third, quants, scales, d := src[:32], src[32:96], src[96:108], half(src[108:])
		for j := range 16 {
			q, h, y := quants[j/8*32+j%2*16:][:16], third[j%2*16:][:16], dst[16*j:][:16]
			scale := d * float32(Q3KScale(scales, j))
			shift := j / 2 % 4 * 2
			for i, v := range q {
				y[i] = scale * float32(int(v>>shift&3|h[i]>>(j/2)&1<<2)-4)
			}
		}
	}
}

// decodeQ4K: byte 32h+i of the quants holds weights 64h+i (low) and 64h+32+i.
func decodeQ4K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[144:] {
		d, dmin, scales := half(src), half(src[2:]), src[4:16]
		for h := range 4 {
			sc, mn := Q4KScaleMin(scales, 2*h)
			scale0, low0 := d*float32(sc), dmin*float32(mn)
			sc, mn = Q4KScaleMin(scales, 2*h+1)
			scale1, low1 := d*float32(sc), dmin*float32(mn)
			q, y0, y1 := src[16+32*h:][:32], dst[64*h:][:32], dst[64*h+32:][:32]
			for i, v := range q {
				y0[i] = float32(scale0*float32(v&15)) - low0
				y1[i] = float32(scale1*float32(v>>4)) - low1
			}
		}
	}
}

// decodeQ5K: nibbles as in Q4_K; bit k of byte i of the fifth bits belongs to weight 32k+i.
func decodeQ5K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[176:] {
		d, dmin, scales, fifth := half(src), half(src[2:]), src[4:16], src[16:48]
		for h := range 4 {
			sc, mn := Q4KScaleMin(scales, 2*h)
			scale0, low0 := d*float32(sc), dmin*float32(mn)
			sc, mn = Q4KScaleMin(scales, 2*h+1)
			scale1, low1 := d*float32(sc), dmin*float32(mn)
			q, y0, y1 := src[48+32*h:][:32], dst[64*h:][:32], dst[64*h+32:][:32]
			for i, v := range q {
				b := fifth[i] >> (2 * h)
				y0[i] = float32(scale0*float32(v&15|b&1<<4)) - low0
				y1[i] = float32(scale1*float32(v>>4|b&2<<3)) - low1
			}
		}
	}
}

// decodeQ6K: in half h, byte 64h+i of the nibbles holds weights 128h+i (low) and 128h+64+i for i below 64, and byte
// 32h+i of the upper bits has those of weights 128h+i, +32, +64 and +96, from the low bits up.
func decodeQ6K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[210:] {
		scales, d := src[192:208], half(src[208:])
		for j := range 8 { // 32 weights 32j..32j+31 of two scales
			q, upper := src[j/4*64+j%2*32:][:32], src[128+j/4*32:][:32]
			nibble, shift := j/2%2*4, j%4*2
			for part := range 2 {
				scale := d * float32(int8(scales[2*j+part]))
				lower, up, y := q[16*part:][:16], upper[16*part:][:16], dst[32*j+16*part:][:16]
				for i, v := range lower {
					y[i] = scale * float32(int(v>>nibble&15|up[i]>>shift&3<<4)-32)
				}
			}
		}
	}
}

func decodeQ8K(dst []float32, src []byte) {
	for ; len(dst) >= 256; dst, src = dst[256:], src[292:] {
		scaled(dst[:256], math.Float32frombits(binary.LittleEndian.Uint32(src)), src[4:260])
	}
}

func encodeQ4K(dst []byte, src []float32) {
	var a affine
	for ; len(src) >= 256; dst, src = dst[144:], src[256:] {
		a.fitAffine(src[:256], 15)
		clear(dst[:16])
		a.put(dst[:16])
		for h := range 4 {
			for i := range 32 {
				dst[16+32*h+i] = a.q[64*h+i] | a.q[64*h+32+i]<<4
			}
		}
	}
}

func encodeQ5K(dst []byte, src []float32) {
	var a affine
	for ; len(src) >= 256; dst, src = dst[176:], src[256:] {
		a.fitAffine(src[:256], 31)
		clear(dst[:48])
		a.put(dst[:16])
		for k := range 8 {
			for i, q := range a.q[32*k : 32*k+32] {
				dst[16+i] |= q >> 4 << k
			}
		}
		for h := range 4 {
			for i := range 32 {
				dst[48+32*h+i] = a.q[64*h+i]&15 | a.q[64*h+32+i]<<4
			}
		}
	}
}

// put writes d, dmin and the packed scales.
func (a *affine) put(dst []byte) {
	putHalf(dst, a.d)
	putHalf(dst[2:], a.dmin)
	for j := range 8 {
		putQ4KScaleMin(dst[4:16], j, a.sc[j], a.mn[j])
	}
}

func encodeQ6K(dst []byte, src []float32) {
	var s signed
	for ; len(src) >= 256; dst, src = dst[210:], src[256:] {
		s.fit(src[:256])
		for h := range 2 {
			q, upper := s.q[128*h:128*h+128], dst[128+32*h:][:32]
			for i := range 64 {
				dst[64*h+i] = q[i]&15 | q[i+64]<<4
			}
			for i := range 32 {
				upper[i] = q[i]>>4 | q[i+32]>>4<<2 | q[i+64]>>4<<4 | q[i+96]>>4<<6
			}
		}
		for j, sc := range s.sc {
			dst[192+j] = byte(sc)
		}
		putHalf(dst[208:], s.d)
	}
}

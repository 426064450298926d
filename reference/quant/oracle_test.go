package quant

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// block is one encoded block, read one weight at a time.
type block []byte

func (b block) bit(at, n int) int      { return int(b[at+n/8]) >> (n % 8) & 1 }
func (b block) half(at int) float32    { return F16ToF32(uint16(b[at]) | uint16(b[at+1])<<8) }
func (b block) int8(at int) float32    { return float32(int8(b[at])) }
func (b block) pair(at, i int) int     { return int(b[at]) / []int{1, 4, 16, 64}[i] % 4 } // of four in a byte
func (b block) two(at, i int) int      { return b.pair(at+i/128*32+i%32, i%128/32) }
func product(a float32, q int) float32 { return float32(a * float32(q)) }

// nibble of 32 weights, halves side by side.
func (b block) nibble(at, i int) int {
	if i < 16 {
		return int(b[at+i]) % 16
	}
	return int(b[at+i-16]) / 16
}

// wide is a nibble of 256 weights, pairs of 32 side by side.
func (b block) wide(at, i int) int {
	if v := int(b[at+i/64*32+i%32]); i%64 < 32 {
		return v % 16
	} else {
		return v / 16
	}
}

// scaleMin is entry j of the scales of Q4_K and Q5_K.
func (b block) scaleMin(j int) (sc, mn int) {
	if j < 4 {
		return int(b[4+j]) % 64, int(b[8+j]) % 64
	}
	return int(b[8+j])%16 + 16*(int(b[j])/64), int(b[8+j])/16 + 16*(int(b[4+j])/64)
}

// weightByDefinition is weight i of one block, straight from the layouts of ggml-common.h: no shift is shared with the
// decoders. Float32 operations come in ggml's order.
func weightByDefinition(t Type, b block, i int) float32 {
	switch t {
	case Q4_0:
		return product(b.half(0), b.nibble(2, i)-8)
	case Q4_1:
		return product(b.half(0), b.nibble(4, i)) + b.half(2)
	case Q5_0:
		return product(b.half(0), b.nibble(6, i)+16*b.bit(2, i)-16)
	case Q5_1:
		return product(b.half(0), b.nibble(8, i)+16*b.bit(4, i)) + b.half(2)
	case Q8_0:
		return b.int8(2+i) * b.half(0)
	case Q8_1:
		return b.int8(4+i) * b.half(0)
	case Q2_K:
		s := int(b[i/16])
		return product(product(b.half(80), s%16), b.two(16, i)) - product(b.half(82), s/16)
	case Q3_K:
		j := i / 16
		low := int(b[96+j%8])
		if j >= 8 {
			low /= 16
		}
		return product(product(b.half(108), low%16+16*b.pair(104+j%4, j/4)-32), b.two(32, i)+4*b.bit(i%32, i/32)-4)
	case Q4_K:
		sc, mn := b.scaleMin(i / 32)
		return product(product(b.half(0), sc), b.wide(16, i)) - product(b.half(2), mn)
	case Q5_K:
		sc, mn := b.scaleMin(i / 32)
		return product(product(b.half(0), sc), b.wide(48, i)+16*b.bit(16+i%32, i/32)) - product(b.half(2), mn)
	case Q6_K:
		low := int(b[i/128*64+i%64])
		if i%128 >= 64 {
			low /= 16
		}
		return product(float32(b.half(208)*b.int8(192+i/16)), low%16+16*b.two(128, i)-32)
	case Q8_K:
		return math.Float32frombits(binary.LittleEndian.Uint32(b)) * b.int8(4+i)
	case IQ4_NL:
		return b.half(0) * values[b.nibble(2, i)]
	case IQ4_XS:
		j := i / 32
		low := []int{int(b[4+j/2]) % 16, int(b[4+j/2]) / 16}[j%2]
		return product(b.half(0), low+16*b.pair(2+j/4, j%4)-32) * values[b.nibble(8+16*j, i%32)]
	case MXFP4:
		return float32(math.Ldexp(e2m1(b.nibble(1, i)), int(b[0])-127))
	}
	panic(t)
}

// e2m1 is a sign, two bits of exponent with bias 1, one of mantissa; subnormal where the exponent is 0.
func e2m1(q int) float64 {
	v := float64(q&1) / 2
	if e := q >> 1 & 3; e > 0 {
		v = math.Ldexp(1+float64(q&1)/2, e-1)
	}
	if q >= 8 {
		return -v
	}
	return v
}

// blocked are the types that weightByDefinition knows.
func blocked() (types []Type) {
	for _, t := range Decodable() {
		if t.Block() > 1 {
			types = append(types, t)
		}
	}
	return types
}

func requireSame(t *testing.T, typ Type, b []byte) {
	t.Helper()
	y := make([]float32, typ.Block())
	Decode(typ, y, b)
	for i, got := range y {
		want := weightByDefinition(typ, b, i)
		if want != want && got != got {
			continue
		}
		if want == 0 && typ == MXFP4 && got == 0 {
			continue // ggml's table has no negative zero
		}
		if math.Float32bits(want) != math.Float32bits(got) {
			t.Fatalf("%v weight %d of % x: %g, want %g", typ, i, b, got, want)
		}
	}
}

// TestDecodeByDefinition: every value of every byte of a block, one at a time, and random blocks, whose scales are now
// and then infinite, NaN or subnormal.
func TestDecodeByDefinition(t *testing.T) {
	for _, typ := range blocked() {
		t.Run(typ.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(11, uint64(typ)))
			b := make([]byte, typ.BlockBytes())
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			for i := range b {
				was := b[i]
				for v := range 256 {
					b[i] = byte(v)
					requireSame(t, typ, b)
				}
				b[i] = was
			}
			for range 200 {
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				requireSame(t, typ, b)
			}
		})
	}
}

// TestSuperBlocksByHand checks weights that were worked out on paper.
func TestSuperBlocksByHand(t *testing.T) {
	decode := func(typ Type, bytes map[int]byte) []float32 {
		b, y := make([]byte, typ.BlockBytes()), make([]float32, 256)
		for i, v := range bytes {
			b[i] = v
		}
		Decode(typ, y, b)
		return y
	}
	// Halves: 0x3c00 is 1, 0x3800 is 0.5, 0x4000 is 2.
	t.Run("Q2_K", func(t *testing.T) { // d = 1, dmin = 0.5; scale byte 0x43 of sub-block 2: scale 3, min 4
		y := decode(Q2_K, map[int]byte{2: 0x43, 16: 0b1100, 81: 0x3c, 83: 0x38})
		require.Equal(t, float32(3*3-0.5*4), y[32], "byte 0 of the quants, bits 2 and 3, is weight 32")
		require.Equal(t, float32(-2), y[33])
		require.Equal(t, float32(0), y[0])
	})
	t.Run("Q3_K", func(t *testing.T) { // d = 2; scale 0 is 0x21 = 33, less 32 is 1; a clear third bit takes 4 off
		y := decode(Q3_K, map[int]byte{0: 1, 32: 0b11, 96: 0x01, 104: 0x02, 109: 0x40})
		require.Equal(t, float32(2*1*3), y[0])
		require.Equal(t, float32(2*1*-4), y[1])
		require.Equal(t, float32(2*-32*-4), y[16], "scale 1 is 0, less 32")
	})
	t.Run("Q4_K", func(t *testing.T) { // d = 1, dmin = 2; entry 0: scale 63, min 1; entry 4: scale 0x35, min 0x27
		y := decode(Q4_K, map[int]byte{1: 0x3c, 3: 0x40, 4: 0xff, 8: 0x81, 12: 0x75, 16: 0xf1, 80: 0x0a})
		require.Equal(t, float32(63*1-2*1), y[0])
		require.Equal(t, float32(0), y[32], "entry 1 is zero")
		require.Equal(t, float32(0x35*10-2*0x27), y[128])
	})
	t.Run("Q5_K", func(t *testing.T) { // d = 1; entry 1 has scale 2; bit 1 of the first byte of fifth bits is weight 32's
		y := decode(Q5_K, map[int]byte{1: 0x3c, 5: 2, 16: 2, 48: 0x7f})
		require.Equal(t, float32(2*(16+7)), y[32])
		require.Equal(t, float32(0), y[0])
	})
	t.Run("Q6_K", func(t *testing.T) { // d = 0.5; scale 6 of weight 96 is -3; nibble 5, upper bits 3: 53 - 32
		y := decode(Q6_K, map[int]byte{32: 0x50, 128: 0xc0, 198: 0xfd, 209: 0x38})
		require.Equal(t, float32(0.5*-3*21), y[96])
	})
	t.Run("Q8_K", func(t *testing.T) { // d = 1.5f = 0x3fc00000
		y := decode(Q8_K, map[int]byte{2: 0xc0, 3: 0x3f, 4: 0x80, 259: 2})
		require.Equal(t, float32(-192), y[0])
		require.Equal(t, float32(3), y[255])
	})
	t.Run("IQ4_XS", func(t *testing.T) { // d = 1; scale 1 is 0x2f = 47, less 32 is 15; nibble 15 is 113, 8 is 1
		y := decode(IQ4_XS, map[int]byte{1: 0x3c, 2: 0b1000, 4: 0xf0, 24: 0x8f})
		require.Equal(t, float32(15*113), y[32])
		require.Equal(t, float32(15*1), y[48])
		require.Equal(t, float32(-32*-127), y[0])
	})
}

// TestQ4KScalesEveryValue packs and unpacks each pair of a scale and a min in each place, neighbours full of ones.
func TestQ4KScalesEveryValue(t *testing.T) {
	for j := range 8 {
		for sc := range uint8(64) {
			for mn := range uint8(64) {
				b := make([]byte, 12)
				for k := range 8 {
					a, b2 := uint8(63), uint8(63)
					if k == j {
						a, b2 = sc, mn
					}
					putQ4KScaleMin(b, k, a, b2)
				}
				for k := range 8 {
					wantSc, wantMn := uint8(63), uint8(63)
					if k == j {
						wantSc, wantMn = sc, mn
					}
					if gotSc, gotMn := Q4KScaleMin(b, k); gotSc != wantSc || gotMn != wantMn {
						t.Fatalf("entry %d of % x: %d, %d, want %d, %d", k, b, gotSc, gotMn, wantSc, wantMn)
					}
				}
			}
		}
	}
}

// TestRepackHelpers: what a repacker reads by the exported helpers is what Decode makes.
func TestRepackHelpers(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 1))
	random := func(typ Type) ([]byte, []float32) {
		b, y := make([]byte, typ.BlockBytes()), make([]float32, typ.Block())
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b, y
	}
	for range 100 {
		b, y := random(IQ4_XS)
		b[1] &= 0xbf // d is finite
		Decode(IQ4_XS, y, b)
		for j := range 8 {
			require.Equal(t, half(b)*float32(IQ4XSScale(b, j))*float32(IQ4Values()[b[8+16*j+5]&15]), y[32*j+5])
		}
		b, y = random(MXFP4)
		Decode(MXFP4, y, b)
		require.Equal(t, MXFP4Scale(b[0])*float32(MXFP4Values()[b[1+3]>>4]), y[16+3])
		b, y = random(Q3_K)
		b[109] &= 0xbf
		b[32+7], b[7] = 3, 1 // q of weight 7 is 3 and its third bit is set
		Decode(Q3_K, y, b)
		require.Equal(t, half(b[108:])*float32(Q3KScale(b[96:108], 0))*3, y[7])
	}
}

// TestEncodeExact: weights that lie on a format's grid come back as they were.
func TestEncodeExact(t *testing.T) {
	for _, tc := range []struct {
		typ    Type
		weight func(i int) float32
	}{
		{Q4_1, func(i int) float32 { return float32(i%16)*0.25 - 1 }},              // d = 1/4, m = -1
		{Q5_0, func(i int) float32 { return float32(i%32-16) * 0.5 }},              // extreme -8 = -16·d
		{Q5_1, func(i int) float32 { return float32(i%32)*2 + 3 }},                 // d = 2, m = 3
		{IQ4_NL, func(i int) float32 { return values[i*7%16] * 0x1p-9 }},           // d = 2^-9
		{MXFP4, func(i int) float32 { return twiceE2M1[i*5%16] * 0x1p-6 }},         // largest 12·2^-6 = 6·2^-5
		{Q4_K, func(i int) float32 { return float32((i*7%16)*(63-i/32))*0.5 - 8 }}, // sc = 63-j, d = 1/2, m constant
		{Q5_K, func(i int) float32 { return float32((i*7%32)*(63-i/32))*0.5 - 8 }},
		{Q6_K, func(i int) float32 { return float32((i*11%64-32)*(128-i/16*8)) * -0.125 }}, // steps coprime: every q
	} {
		t.Run(tc.typ.String(), func(t *testing.T) {
			x, y := make([]float32, 256), make([]float32, 256)
			for i := range x {
				x[i] = tc.weight(i)
			}
			n, err := tc.typ.RowBytes(256)
			require.NoError(t, err)
			b := make([]byte, n)
			require.NoError(t, Encode(tc.typ, b, x))
			Decode(tc.typ, y, b)
			for i := range x {
				require.InDelta(t, x[i], y[i], 0x1p-9*math.Abs(float64(x[i]))+1e-2*exactSlack(tc.typ), "weight %d", i)
			}
		})
	}
}

// exactSlack is 1 for types whose halves cannot hold what the test's grid needs: a low of 8 over 63.
func exactSlack(t Type) float64 {
	if t == Q4_K || t == Q5_K {
		return 1
	}
	return 0
}

// TestFitNoWorseThanSearch: the fit of a sub-block leaves no more than an exhaustive search over a fine grid of lines
// does, but for three parts in a hundred, and far less than the line between the extremes.
func TestFitNoWorseThanSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var ours, grid, plain float64
	for range 40 {
		x, w := make([]float32, 32), make([]float32, 32)
		low, high := float32(0), float32(0)
		for i := range x {
			x[i] = float32(r.NormFloat64())
			low, high = min(low, x[i]), max(high, x[i])
		}
		importance(w, x)
		ours += float64(fitLine(x, w, 15).squares(x, w, 15))
		plain += float64(line{(high - low) / 15, -low}.squares(x, w, 15))
		least := math.Inf(1)
		for s := range 60 {
			for m := range 60 {
				l := line{(high - low) / 15 * (0.8 + 0.4*float32(s)/60), -low * (0.7 + 0.5*float32(m)/60)}
				least = min(least, float64(l.squares(x, w, 15)))
			}
		}
		grid += least
	}
	require.Less(t, ours, grid*1.03)
	require.Less(t, ours, plain*0.9)
}

// random makes the inputs of the comparison with ggml.
func random() (x []float32, raw []byte) {
	r := rand.New(rand.NewPCG(1, 9))
	x = make([]float32, 32*4096)
	for i := range x { // magnitudes from 2^-14 to 2^11, a new one per block: no scale rounds to zero
		x[i] = float32(math.Ldexp(float64(2*r.Float32()-1), i/32%26-14))
	}
	raw = make([]byte, 292*64)
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	return x, raw
}

func hashBytes(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// TestEqualGGML pins encoded bytes and decoded floats to what ggml 0.21.0 (llama.cpp of August 2026, built for
// x86-64 without fused operations) makes of the same input with ggml_quantize_chunk and the types' to_float: the hashes
// were taken of ggml's output. A NaN counts as 0x7fc00000, for its sign differs between processors.
func TestEqualGGML(t *testing.T) {
	x, raw := random()
	for _, tc := range []struct {
		typ             Type
		encoded, decode uint64
	}{
		{F16, 0xb7c0d5b119b6b9ad, 0xd8f3ce1c079dce0a},
		{BF16, 0x61c06a23fd4c7c64, 0x5b75b9cb1c17985e},
		{Q4_0, 0x4bb7ed92c78670f5, 0xdbcb9eb695a16551},
		{Q4_1, 0x69feb8eefc9050f6, 0xf7a953fe0490a605},
		{Q5_0, 0xb06ff69e570fd6b6, 0xd8450411b0757cad},
		{Q5_1, 0xa55c3a24478f905e, 0x903434d80309ea64},
		{Q8_0, 0x893cafa34aa6bb20, 0x3a7d53b22d75041c},
		{Q2_K, 0, 0x3aa63f9a762755ce},
		{Q3_K, 0, 0x146708d35ac6f40f},
		{Q4_K, 0, 0x2ada4472522b9584},
		{Q5_K, 0, 0x921e1e60c21f516f},
		{Q6_K, 0, 0x744808cca3e07055},
		{Q8_K, 0, 0xbe1c5065b68bf41c},
		{IQ4_NL, 0x21af7d9e1238ce16, 0xa85be2141783c98c},
		{IQ4_XS, 0, 0x34a05968a9b48106},
		{MXFP4, 0x76e96292af134232, 0x67848919b39f5f67},
	} {
		t.Run(tc.typ.String(), func(t *testing.T) {
			if tc.encoded != 0 {
				n, err := tc.typ.RowBytes(len(x))
				require.NoError(t, err)
				b := make([]byte, n)
				require.NoError(t, Encode(tc.typ, b, x))
				require.Equal(t, fmt.Sprintf("%#x", tc.encoded), fmt.Sprintf("%#x", hashBytes(b)))
			}
			y := make([]float32, len(raw)/max(tc.typ.BlockBytes(), 256)*tc.typ.Block())
			Decode(tc.typ, y, raw)
			b := make([]byte, 0, 4*len(y))
			for _, v := range y {
				bits := math.Float32bits(v)
				if v != v {
					bits = 0x7fc00000
				}
				b = binary.LittleEndian.AppendUint32(b, bits)
			}
			require.Equal(t, fmt.Sprintf("%#x", tc.decode), fmt.Sprintf("%#x", hashBytes(b)))
		})
	}
}

package codec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// hidden makes rows like a transformer's: normal with a few channels that are far out.
func hidden(r *rand.Rand, tokens, dim int) []float32 {
	x := make([]float32, tokens*dim)
	for i := range x {
		x[i] = float32(rng.Normal(r) * 0.8)
		if i%dim%61 == 7 {
			x[i] *= 20
		}
	}
	return x
}

var shapes = []struct{ tokens, dim int }{{1, 1}, {3, 2}, {5, 7}, {4, 64}, {2, 1000}, {1, 4096}}

func TestI4TableIsSortedAndFound(t *testing.T) {
	var names []string
	for _, c := range Table {
		names = append(names, c.Name())
		found, err := Find(c.Name())
		require.NoError(t, err)
		require.Equal(t, c, found)
	}
	require.True(t, slices.IsSorted(names), names)
	require.Len(t, slices.Compact(slices.Clone(names)), len(names))
	_, err := Find("zip")
	require.EqualError(t, err, `no codec "zip": have f16, f32, int2, int3, int4, int4-gauss, int4-laplace, int5, int6, int7, int8, tabq, topk`)
}

// The formula of the affine codes is d b / 8 + 8 a row; the others follow from their layouts.
func TestI4BytesFormula(t *testing.T) {
	for _, tc := range []struct {
		name string
		want int // for 3 rows of 2048
	}{
		{"f32", 3 * 2048 * 4}, {"f16", 3 * 2048 * 2},
		{"int8", 3 * (2048 + 8)}, {"int4", 3 * (1024 + 8)}, {"int4-laplace", 3 * (1024 + 8)}, {"int3", 3 * (768 + 8)},
		{"topk", 3 * 256 * (2 + 4)},
		{"tabq", 3 * (13 + 2048 + 128*(2+4))}, // at most 2048/4² outliers
	} {
		c, err := Find(tc.name)
		require.NoError(t, err)
		require.Equal(t, tc.want, c.Bytes(3, 2048), tc.name)
	}
}

func TestI4BytesIsTheLengthOfEncode(t *testing.T) {
	r := rng.Stream(1, "codec bytes")
	for _, c := range Table {
		for _, s := range shapes {
			wire := c.Encode([]byte("head"), hidden(r, s.tokens, s.dim), s.dim)
			require.Equal(t, "head", string(wire[:4]))
			if _, adaptive := c.(TabQ); adaptive {
				require.LessOrEqual(t, len(wire)-4, c.Bytes(s.tokens, s.dim))
				continue
			}
			require.Equal(t, c.Bytes(s.tokens, s.dim), len(wire)-4, "%s %v", c.Name(), s)
		}
	}
}

func TestI4RoundTripErrorAtMostHalfAStep(t *testing.T) {
	r := rng.Stream(2, "codec error")
	for bits := 2; bits <= 8; bits++ {
		c := Affine{Bits: bits}
		for n := range 60 {
			s := shapes[n%len(shapes)]
			x := hidden(r, s.tokens, s.dim)
			scale := float32(math.Ldexp(1, []int{0, -140, 100, -20}[n%4])) // subnormal to huge
			for i := range x {
				x[i] = x[i]*scale + []float32{0, 0, 0, 1000}[n%4]
			}
			back, err := c.Decode(nil, c.Encode(nil, x, s.dim), s.dim)
			require.NoError(t, err)
			for at := 0; at < len(x); at += s.dim {
				row := x[at:][:s.dim]
				half := float64(slices.Max(row)-slices.Min(row)) / float64(int(1)<<bits-1) / 2
				for i, v := range row {
					size := math.Abs(float64(v))
					ulp := float64(math.Nextafter32(float32(size), math.MaxFloat32)) - size
					if wrong := math.Abs(float64(back[at+i]) - float64(v)); wrong > half*(1+1e-6)+2*ulp {
						t.Fatalf("%s, shape %v, round %d, number %d: %g came back off by %g, half a step is %g", c.Name(), s, n, at+i, v, wrong, half)
					}
				}
			}
		}
	}
}

// An oracle of one row written out by hand: 0, 1, 2, 3 in 2 bits is lo 0, step 1, and 0b11_10_01_00.
func TestI4AffineLayout(t *testing.T) {
	wire := Affine{Bits: 2}.Encode(nil, []float32{0, 1, 2, 3}, 4)
	require.Equal(t, []byte{0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0b11_10_01_00}, wire)
	wire = Affine{Bits: 3}.Encode(nil, []float32{7, 0, 5}, 3) // 101 000 111 from the low end: 0b01_000_111, 0b1
	require.Equal(t, []byte{0b01_000_111, 1}, wire[8:])
}

func TestI4F32IsBitExact(t *testing.T) {
	r := rng.Stream(3, "codec f32")
	x := []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), math.Float32frombits(0x7fc12345), math.SmallestNonzeroFloat32}
	for range 1000 {
		x = append(x, math.Float32frombits(r.Uint32()))
	}
	back, err := F32{}.Decode(nil, F32{}.Encode(nil, x, 1), 1)
	require.NoError(t, err)
	for i := range x {
		require.Equal(t, math.Float32bits(x[i]), math.Float32bits(back[i]))
	}
}

// Nearest half by search among all finite halves, ties to the even one.
func TestI4F16RoundsToNearest(t *testing.T) {
	r := rng.Stream(4, "codec f16")
	x := []float32{1, 1 + 1./2048, 1 + 3./2048, 65504, 65519, 65520, 2.9802322e-8, 2.9802326e-8, 6e-8, 0}
	for range 300 {
		x = append(x, float32(math.Ldexp(r.Float64()+1, r.IntN(44)-28)))
	}
	var halves [0x7c01]float64 // of the bits 0 to infinity, as IEEE 754 defines them
	for h := range halves {
		exponent, fraction := h>>10, float64(h&0x3ff)
		if halves[h] = math.Ldexp(1024+fraction, exponent-25); exponent == 0 {
			halves[h] = math.Ldexp(fraction, -24)
		}
	}
	wire := F16{}.Encode(nil, x, 1)
	for i, v := range x {
		best := 0
		for h := range halves { // the point after the largest half, 65536, stands for infinity
			d, least := math.Abs(halves[h]-float64(v)), math.Abs(halves[best]-float64(v))
			if d < least || d == least && h%2 == 0 {
				best = h
			}
		}
		require.Equal(t, best, int(wire[2*i])|int(wire[2*i+1])<<8, "%g", v)
	}
}

func TestI5TopKKeepsTheLargest(t *testing.T) {
	r := rng.Stream(5, "codec topk")
	for n := range 200 {
		dim := 1 + n
		x := hidden(r, 1, dim)
		for i := range x {
			if n%3 == 0 {
				x[i] = float32(math.Round(float64(x[i]))) // many ties
			}
		}
		back, err := TopK{Share: 4}.Decode(nil, TopK{Share: 4}.Encode(nil, x, dim), dim)
		require.NoError(t, err)
		order := make([]int, dim)
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int {
			return int(math.Float32bits(x[b])&0x7fffffff) - int(math.Float32bits(x[a])&0x7fffffff)
		})
		want := make([]float32, dim)
		for _, i := range order[:(dim+3)/4] {
			want[i] = x[i]
		}
		require.Equal(t, want, back, "dim %d", dim)
	}
}

func TestI5WideRowsHaveWideIndices(t *testing.T) {
	x := make([]float32, 70001)
	x[70000], x[3] = 5, -2
	for _, c := range []Codec{TopK{Share: 100000}, TabQ{Threshold: 4, Tolerance: 0.02}} {
		back, err := c.Decode(nil, c.Encode(nil, x, len(x)), len(x))
		require.NoError(t, err)
		require.Equal(t, float32(5), back[70000], c.Name())
	}
}

func TestI5TabQKeepsOutliersAndItsBound(t *testing.T) {
	r := rng.Stream(6, "codec tabq")
	c := TabQ{Threshold: 4, Tolerance: 0.02}
	used := map[byte]int{}
	for n := range 100 {
		dim := 256 + n
		x := hidden(r, 1, dim)
		if n%2 == 0 { // half of the rows take few values, which few bits carry
			for i := range x {
				x[i] = float32(math.Round(float64(x[i])))
			}
		}
		wire := c.Encode(nil, x, dim)
		used[wire[0]]++
		back, err := c.Decode(nil, wire, dim)
		require.NoError(t, err)
		var square, wrong float64
		for i := range x {
			square += float64(x[i]) * float64(x[i])
			wrong += math.Pow(float64(x[i])-float64(back[i]), 2)
		}
		require.LessOrEqual(t, math.Sqrt(wrong), 0.02*math.Sqrt(square))
		for i := range x {
			if math.Abs(float64(x[i])) > 4*math.Sqrt(square/float64(dim)) {
				require.Equal(t, x[i], back[i], "outliers travel whole")
			}
		}
	}
	require.Greater(t, len(used), 1, "bits adapt to the row: %v", used)
}

// Fewer bits are never taken than the tolerance allows, and never more.
func TestI5TabQTakesTheFewestBits(t *testing.T) {
	x := hidden(rng.Stream(7, "codec fewest"), 1, 512)
	last := byte(9)
	for _, tolerance := range []float64{0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5} {
		bits := TabQ{Threshold: 4, Tolerance: tolerance}.Encode(nil, x, 512)[0]
		require.LessOrEqual(t, bits, last)
		last = bits
	}
	require.Equal(t, byte(2), last)
}

// A minimum of the expected error, found by looking left and right of it, on the integral itself.
func TestI5ClipFactorIsTheMinimum(t *testing.T) {
	laws := []func(x float64) float64{
		Gauss:   func(x float64) float64 { return math.Exp(-x*x/2) / math.Sqrt(2*math.Pi) },
		Laplace: func(x float64) float64 { return math.Exp(-x) / 2 },
	}
	for _, law := range []Clip{Gauss, Laplace} {
		for bits := 2; bits <= 8; bits++ {
			cost := func(a float64) float64 {
				var tail float64
				const h = 1e-3
				for x := a + h/2; x < a+40; x += h {
					tail += 2 * h * (x - a) * (x - a) * laws[law](x)
				}
				return tail + a*a/(3*math.Pow(4, float64(bits)))
			}
			a := ClipFactor(law, bits)
			require.Less(t, cost(a), cost(a*1.02), "law %d, %d bits", law, bits)
			require.Less(t, cost(a), cost(a*0.98), "law %d, %d bits", law, bits)
		}
	}
}

func TestI5ClippingLowersTheErrorOnItsLaw(t *testing.T) {
	r := rng.Stream(8, "codec clip")
	x := make([]float32, 8192)
	for i := range x {
		x[i] = float32(rng.Exp(r) * float64(1-2*r.IntN(2)))
	}
	wrong := func(c Codec) (sum float64) {
		back, err := c.Decode(nil, c.Encode(nil, x, len(x)), len(x))
		require.NoError(t, err)
		for i := range x {
			sum += math.Pow(float64(x[i])-float64(back[i]), 2)
		}
		return sum
	}
	require.Less(t, wrong(Affine{Bits: 4, Clip: Laplace}), 0.8*wrong(Affine{Bits: 4}))
	require.Less(t, wrong(Affine{Bits: 4, Clip: Laplace}), wrong(Affine{Bits: 4, Clip: Gauss}))
}

func TestI4BrokenRowsArriveBroken(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		for _, c := range Table {
			x := []float32{1, 2, bad, 4, 1, 2, 3, 4} // the second row is sound
			back, err := c.Decode(nil, c.Encode(nil, x, 4), 4)
			require.NoError(t, err, c.Name())
			broken := 0
			for i, v := range back {
				if v-v != 0 {
					broken++
					require.Less(t, i, 4, "%s: the sound row stays sound", c.Name())
				}
			}
			_, affine := c.(Affine)
			if _, tab := c.(TabQ); affine || tab {
				require.Equal(t, 4, broken, c.Name())
			} else {
				require.Equal(t, 1, broken, c.Name())
			}
		}
	}
}

func TestI4RowsAreCodedAlone(t *testing.T) {
	x := hidden(rng.Stream(9, "codec rows"), 5, 96)
	for _, c := range Table {
		var alone []byte
		for i := range 5 {
			alone = c.Encode(alone, x[i*96:][:96], 96)
		}
		require.Equal(t, c.Encode(nil, x, 96), alone, c.Name())
	}
}

func TestI4NoAllocationWithRoom(t *testing.T) {
	x := hidden(rng.Stream(10, "codec room"), 8, 256)
	for _, c := range Table {
		wire := make([]byte, 0, c.Bytes(8, 256))
		back := make([]float32, 0, len(x))
		require.Zero(t, testing.AllocsPerRun(10, func() {
			wire = c.Encode(wire[:0], x, 256)
			if _, err := c.Decode(back, wire, 256); err != nil {
				t.Error(err)
			}
		}), c.Name())
	}
}

func TestI4DecodeRefuses(t *testing.T) {
	nan, one := []byte{0, 0, 0xc0, 0x7f}, []byte{0, 0, 0x80, 0x3f}
	join := slices.Concat[[]byte]
	for _, tc := range []struct {
		codec string
		wire  []byte
		dim   int
		want  string
	}{
		{"f32", make([]byte, 9), 2, "9 bytes are not whole rows of 8 bytes"},
		{"f16", make([]byte, 4), 0, "dim is 0"},
		{"int8", join(one, []byte{0, 0, 0x80, 0xbf, 0}), 1, "steps of -1"},
		{"int8", join(nan, one, []byte{0}), 1, "starts at NaN"},
		{"int4", join(one, one, []byte{0x10}), 1, "padding bits"},
		{"topk", []byte{9, 0, 0, 0, 0, 0}, 8, "index 9"},
		{"topk", []byte{3, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0}, 16, "index 3 after 3"},
		{"tabq", make([]byte, 5), 1, "the message was cut"},
		{"tabq", make([]byte, 14), 1, "0 bits a number"},
		{"tabq", join([]byte{8, 9, 0, 0, 0}, one, one, []byte{0}), 1, "9 outliers: want at most 0"},
		{"tabq", join([]byte{8, 0, 0, 0, 0}, one, one), 1, "it takes 14 bytes and 13 are left"},
	} {
		c, err := Find(tc.codec)
		require.NoError(t, err)
		had := []float32{42}
		back, err := c.Decode(had, tc.wire, tc.dim)
		require.ErrorContains(t, err, tc.want)
		require.Equal(t, []float32{42}, back)
	}
}

// Whatever the bytes, Decode answers or refuses; what it accepts has whole rows and survives a second trip.
func FuzzDecode(f *testing.F) {
	r := rng.Stream(11, "codec fuzz")
	for i, c := range Table {
		f.Add(uint8(i), uint16(24), c.Encode(nil, hidden(r, 2, 24), 24))
	}
	f.Fuzz(func(t *testing.T, which uint8, dim uint16, wire []byte) {
		c, d := Table[int(which)%len(Table)], int(dim)%4096
		x, err := c.Decode(nil, wire, d)
		if err != nil {
			return
		}
		require.Zero(t, len(x)%max(d, 1))
		if len(x) == 0 {
			return
		}
		_, err = c.Decode(nil, c.Encode(nil, x, d), d)
		require.NoError(t, err)
	})
}

func Example() {
	hidden := []float32{-1, 0.5, 0.25, 2} // one token, four channels
	c, _ := Find("int8")
	wire := c.Encode(nil, hidden, 4)
	back, err := c.Decode(nil, wire, 4)
	fmt.Printf("%d bytes instead of 16, %.1f, %v\n", len(wire), back, err)
	// Output: 12 bytes instead of 16, [-1.0 0.5 0.2 2.0], <nil>
}

func BenchmarkEncode(b *testing.B) {
	x := hidden(rng.Stream(12, "codec bench"), 1, 2048)
	for _, c := range Table {
		b.Run("codec="+c.Name(), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x)))
			var wire []byte
			for b.Loop() {
				wire = c.Encode(wire[:0], x, 2048)
			}
		})
	}
}

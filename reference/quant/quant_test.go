package quant

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestF16EveryValue(t *testing.T) {
	prev := math.Inf(-1)
	for h := range 0x7c00 { // non-negative finite halves in order
		f := F16ToF32(uint16(h))
		want := math.Ldexp(float64(h&0x3ff), -24)
		if e := h >> 10; e > 0 {
			want = math.Ldexp(1024+float64(h&0x3ff), e-25)
		}
		require.Equal(t, want, float64(f))
		require.Equal(t, uint16(h), F32ToF16(f))
		require.Equal(t, uint16(h)|0x8000, F32ToF16(-f))
		require.Equal(t, math.Float32bits(-f), math.Float32bits(F16ToF32(uint16(h)|0x8000)))
		if h > 0 { // a midpoint goes to the even neighbour, its neighbours go to the nearer half
			mid := float32((prev + want) / 2)
			even := uint16(h - h&1)
			require.Equal(t, even, F32ToF16(mid))
			require.Equal(t, uint16(h), F32ToF16(math.Nextafter32(mid, 1e9)))
			require.Equal(t, uint16(h-1), F32ToF16(math.Nextafter32(mid, 0)))
		}
		prev = want
	}
}

func TestFloatCorners(t *testing.T) {
	inf := float32(math.Inf(1))
	require.Equal(t, uint16(0x7c00), F32ToF16(65520))
	require.Equal(t, uint16(0x7bff), F32ToF16(65519.99))
	require.Equal(t, inf, F16ToF32(0x7c00))
	require.Equal(t, -inf, F16ToF32(0xfc00))
	nan := float32(math.NaN())
	require.True(t, math.IsNaN(float64(F16ToF32(F32ToF16(nan)))))
	require.True(t, math.IsNaN(float64(BF16ToF32(F32ToBF16(nan)))))
	require.True(t, math.IsNaN(float64(BF16ToF32(F32ToBF16(math.Float32frombits(0x7f800001))))))
	require.Equal(t, uint16(0x7f80), F32ToBF16(inf))
	require.Equal(t, uint16(0x3f80), F32ToBF16(1))
	require.Equal(t, uint16(0x3f80), F32ToBF16(1+0x1p-8)) // tie to even
	require.Equal(t, uint16(0x3f82), F32ToBF16(1+0x3p-8)) // tie to even, upwards
}

// TestBlocksByHand checks whole blocks that were worked out on paper from the format's definition.
func TestBlocksByHand(t *testing.T) {
	t.Run("Q8_0", func(t *testing.T) {
		x := make([]float32, 32)
		x[0], x[1], x[2], x[31] = 127, -3, 2.5, -127 // d = 1 = 0x3c00; 2.5 rounds away from zero
		got := make([]byte, 34)
		require.NoError(t, Encode(Q8_0, got, x))
		want := make([]byte, 34)
		want[1], want[2], want[3], want[4], want[33] = 0x3c, 127, 0xfd, 3, 0x81
		require.Equal(t, want, got)
		y := make([]float32, 32)
		Decode(Q8_0, y, got)
		require.Equal(t, []float32{127, -3, 3, 0}, y[:4])
		require.Equal(t, float32(-127), y[31])
	})
	t.Run("Q4_0", func(t *testing.T) {
		x := make([]float32, 32)
		x[0], x[1], x[16], x[17] = -8, 7, 1, -2.4 // d = -8/-8 = 1; zero is nibble 8
		got := make([]byte, 18)
		require.NoError(t, Encode(Q4_0, got, x))
		want := []byte{0, 0x3c, 0x90, 0x6f}
		for len(want) < 18 {
			want = append(want, 0x88)
		}
		require.Equal(t, want, got)
		y := make([]float32, 32)
		Decode(Q4_0, y, got)
		require.Equal(t, []float32{-8, 7, 0}, y[:3])
		require.Equal(t, []float32{1, -2, 0}, y[16:19])
	})
	t.Run("scale rounds to zero", func(t *testing.T) {
		x := make([]float32, 32)
		x[0], x[1] = 1e-9, -1e-9 // 1e-9/127 and 1e-9/8 are below 2^-25, half of the smallest half
		b := bytes.Repeat([]byte{1}, 34)
		require.NoError(t, Encode(Q8_0, b, x))
		require.Equal(t, make([]byte, 34), b)
		require.NoError(t, Encode(Q4_0, b, x))
		require.Equal(t, append([]byte{0, 0x80}, bytes.Repeat([]byte{0x88}, 16)...), b[:18])
	})
	t.Run("all zero", func(t *testing.T) {
		for _, typ := range Encodable() {
			n, err := typ.RowBytes(256)
			require.NoError(t, err)
			b, y := make([]byte, n), make([]float32, 256)
			require.NoError(t, Encode(typ, b, y))
			y[5] = 9
			Decode(typ, y, b)
			require.Equal(t, make([]float32, 256), y, "%v", typ)
		}
	})
}

// bound is the promised error of weight v in a block whose weights reach from low to high. The K types promise nothing
// for a single weight; theirs is the error of the coarsest line that could be chosen, the whole range in top steps,
// with scale and low each off by half of a 63rd of the largest in the super-block, so range/2top + top·range/126top + m/126,
// doubled for the search may prefer other weights of the block.
func bound(t Type, v, low, high float64) float64 {
	m, r := max(high, -low), high-low
	scaleError := math.Abs(v)*0x1p-11 + 128*0x1p-25 // the scale rounds to 16 bits
	switch t {
	case F16:
		return scaleError
	case BF16:
		return math.Abs(v)*0x1p-8 + 0x1p-133
	case Q8_0:
		return m/254*(1+1e-5) + scaleError*1.01
	case Q5_0:
		return m/16*(1+1e-5) + scaleError*1.01 + m*0x1p-11
	case Q4_0:
		return m/8*(1+1e-5) + scaleError*1.01 + m*0x1p-11
	case Q5_1:
		return r/62*(1+1e-5) + (r+m)*0x1p-11 + 32*0x1p-25
	case Q4_1:
		return r/30*(1+1e-5) + (r+m)*0x1p-11 + 16*0x1p-25
	case MXFP4: // numbers up to 6 for weights up to 8, 2 between the largest: scales have no error
		return m/4*(1+1e-5) + 0x1p-126
	case IQ4_NL: // the widest step is 24 of 113 and the scale is within 7 of 127 of the extreme
		return m/4 + scaleError + 128*0x1p-25
	case Q4_K:
		return 2*m/15 + 2*m/63 + 64*(15+1)*0x1p-25
	case Q5_K:
		return 2*m/31 + 2*m/63 + 64*(31+1)*0x1p-25
	case Q6_K:
		return m/20 + 128*32*0x1p-25
	}
	return 0
}

func checkBound(t *testing.T, typ Type, x []float32) {
	n, err := typ.RowBytes(len(x))
	require.NoError(t, err)
	b, y := make([]byte, n), make([]float32, len(x))
	if Encode(typ, b, x) != nil {
		return
	}
	Decode(typ, y, b)
	step := max(32, typ.Block())
	for blk := 0; blk < len(x); blk += step {
		low, high := float64(x[blk]), float64(x[blk])
		for _, v := range x[blk : blk+step] {
			low, high = min(low, float64(v)), max(high, float64(v))
		}
		for i := blk; i < blk+step; i++ {
			want := bound(typ, float64(x[i]), low, high)
			if e := math.Abs(float64(x[i]) - float64(y[i])); !(e <= want) {
				t.Fatalf("%v weight %d of block from %g to %g: %g became %g, which is off by %g, more than %g", typ, i, low, high, x[i], y[i], e, want)
			}
		}
	}
	again, z := make([]byte, n), make([]float32, len(x)) // decoded values survive a second trip within the same bound
	if Encode(typ, again, y) == nil && (typ == F16 || typ == BF16 || typ == F32) {
		Decode(typ, z, again)
		require.Equal(t, y, z)
	}
}

func TestErrorBounds(t *testing.T) {
	for _, typ := range Encodable() {
		for _, scale := range []float64{1e-9, 1e-4, 0.02, 1, 300} {
			t.Run(fmt.Sprintf("%v/%g", typ, scale), func(t *testing.T) {
				r := rand.New(rand.NewPCG(7, 7))
				x := make([]float32, 256*8)
				for i := range x {
					x[i] = float32(r.NormFloat64() * scale)
				}
				checkBound(t, typ, x)
			})
		}
	}
}

func TestDotAndMatrix(t *testing.T) {
	const N, K = 3, 512
	r := rand.New(rand.NewPCG(1, 2))
	w, x := make([]float32, N*K), make([]float32, K)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for _, typ := range Encodable() {
		t.Run(typ.String(), func(t *testing.T) {
			size, err := typ.RowBytes(K)
			require.NoError(t, err)
			m := &Matrix{typ, N, K, make([]byte, N*size)}
			require.NoError(t, Encode(typ, m.Data, w))
			row := make([]float32, K)
			for n := range N {
				m.ReadRow(row[:256], n, 0)
				m.ReadRow(row[256:], n, 256)
				var want float32
				var exact, size64 float64
				for i := range x {
					want += float32(row[i] * x[i])
					exact += float64(row[i]) * float64(x[i])
					size64 += math.Abs(float64(row[i]) * float64(x[i]))
				}
				got := Dot(typ, m.Data[n*size:], x)
				require.Equal(t, want, got)
				require.InDelta(t, exact, got, K*0x1p-24*size64)
			}
		})
	}
}

func TestReadRowDoesNotAllocate(t *testing.T) {
	row := make([]float32, 256)
	for _, typ := range Decodable() {
		m := &Matrix{typ, 2, 512, make([]byte, 4*256/typ.Block()*typ.BlockBytes())}
		require.Zero(t, testing.AllocsPerRun(10, func() { m.ReadRow(row, 1, 256) }), "%v", typ)
	}
}

func TestRefusals(t *testing.T) {
	ok := make([]float32, 32)
	bad := append([]float32(nil), ok...)
	bad[3] = float32(math.NaN())
	big := append([]float32(nil), ok...)
	big[4] = 1e30
	for _, tc := range []struct {
		name string
		typ  Type
		x    []float32
		size int
		want string
	}{
		{"part of a block", Q8_0, ok[:31], 34, "blocks of 32"},
		{"short destination", Q8_0, ok, 33, "need 34 bytes"},
		{"not a number", F32, bad, 128, "weight 3"},
		{"too large for the scale", Q4_0, big, 34, "weight 4"},
		{"no encoder", Q3_K, make([]float32, 256), 110, "Q3_K: cannot"},
		{"unknown", 77, ok, 999, "type 77"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.ErrorContains(t, Encode(tc.typ, make([]byte, tc.size), tc.x), tc.want)
		})
	}
	require.Panics(t, func() { Decode(Q8_0, ok, make([]byte, 33)) })
	require.Panics(t, func() { Decode(35, make([]float32, 256), make([]byte, 66)) })
	_, err := Q8_0.RowBytes(math.MaxInt &^ 31)
	require.ErrorContains(t, err, "overflows")
	for _, name := range []string{"q8_0", "Q8_0", "bf16"} {
		typ, err := Parse(name)
		require.NoError(t, err)
		require.True(t, typ.CanDecode() && typ.Known())
	}
	_, err = Parse("q9")
	require.ErrorContains(t, err, "Q8_0")
	require.False(t, Type(4).Known()) // Q4_2 was removed from the format
}

// FuzzBlocks takes raw float bits: whatever Encode accepts must come back within the bound, and any bytes decode
// without a panic.
func FuzzBlocks(f *testing.F) {
	f.Add(make([]byte, 1024))
	f.Add([]byte("any bytes will do, they are the bits of two hundred and fifty-six numbers"))
	f.Add(bytes.Repeat([]byte{0xff, 0xff, 0x7f, 0x4a}, 9)) // 4194303.75, near the most that K types take
	f.Add([]byte{0xff, 0xff, 0x7f, 0xff})                  // the largest float, whose logarithm rounds up
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = append(raw, make([]byte, 1024)...)[:1024]
		x, y := make([]float32, 256), make([]float32, 256)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		for _, typ := range Encodable() {
			checkBound(t, typ, x)
		}
		for _, typ := range Decodable() {
			n, err := typ.RowBytes(256)
			require.NoError(t, err)
			Decode(typ, y, append(raw, make([]byte, 256)...)[:n])
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	x := make([]float32, 4096)
	r := rand.New(rand.NewPCG(4, 4))
	for _, typ := range Decodable() {
		n, _ := typ.RowBytes(len(x))
		row := make([]byte, n)
		for i := range row {
			row[i] = byte(r.Uint32())
		}
		b.Run("type="+typ.String(), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x))) // of float32 made
			for b.Loop() {
				Decode(typ, x, row)
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	x := make([]float32, 4096)
	r := rand.New(rand.NewPCG(4, 4))
	for i := range x {
		x[i] = float32(r.NormFloat64() / 30)
	}
	for _, typ := range Encodable() {
		n, _ := typ.RowBytes(len(x))
		row := make([]byte, n)
		b.Run("type="+typ.String(), func(b *testing.B) {
			b.SetBytes(int64(4 * len(x))) // of float32 read
			for b.Loop() {
				if err := Encode(typ, row, x); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleEncode() {
	x := make([]float32, 32)
	x[0], x[1] = 1, -0.5
	block := make([]byte, 34)
	if err := Encode(Q8_0, block, x); err != nil {
		panic(err)
	}
	y := make([]float32, 32)
	Decode(Q8_0, y, block)
	fmt.Printf("%.3f %.3f\n", y[0], y[1])
	// Output: 1.000 -0.504
}

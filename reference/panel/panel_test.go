package panel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// types is every type that can be packed.
var types = []quant.Type{
	quant.F32, quant.F16, quant.BF16, quant.Q8_0, quant.Q4_0, quant.Q4_1, quant.Q5_0, quant.Q5_1, quant.Q2_K, quant.Q3_K,
	quant.Q4_K, quant.Q5_K, quant.Q6_K, quant.Q8_K, quant.IQ4_NL, quant.IQ4_XS, quant.MXFP4,
}

// scalesAt lists the offsets of the float16 scales in a block, which random bytes must not fill with infinities.
var scalesAt = map[quant.Type][]int{
	quant.Q8_0: {0}, quant.Q4_0: {0}, quant.Q4_1: {0, 2}, quant.Q5_0: {0}, quant.Q5_1: {0, 2}, quant.Q2_K: {80, 82},
	quant.Q3_K: {108}, quant.Q4_K: {0, 2}, quant.Q5_K: {0, 2}, quant.Q6_K: {208}, quant.IQ4_NL: {0}, quant.IQ4_XS: {0},
}

// randomRows makes n rows of k weights: every bit pattern of the quants, scales near 2^-6.
func randomRows(t testing.TB, typ quant.Type, n, k int) []byte {
	r := rng.Stream(1, "panel", typ.String(), n, k)
	size, err := typ.RowBytes(k)
	require.NoError(t, err)
	b := make([]byte, n*size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	put16 := func(at int) {
		binary.LittleEndian.PutUint16(b[at:], uint16(r.Uint32()&0x83ff|9<<10))
	}
	for at := 0; at < len(b); at += typ.BlockBytes() {
		switch typ {
		case quant.F16:
			put16(at)
		case quant.BF16:
			binary.LittleEndian.PutUint16(b[at:], uint16(r.Uint32()&0x807f|120<<7))
		case quant.F32:
			binary.LittleEndian.PutUint32(b[at:], math.Float32bits(float32(rng.Normal(r))))
		case quant.Q8_K:
			binary.LittleEndian.PutUint32(b[at:], math.Float32bits(float32(rng.Normal(r)/64)))
		case quant.MXFP4:
			b[at] = byte(120 + r.IntN(5))
		}
		for _, s := range scalesAt[typ] {
			put16(at + s)
		}
	}
	return b
}

func randomActivations(T, k int) []float32 {
	r := rng.Stream(2, "panel", T, k)
	x := make([]float32, T*k)
	for i := range x {
		x[i] = float32(rng.Normal(r))
	}
	return x
}

// rounded is what the definition makes of activations, in float64, read from the package comment and not from round8.
func rounded(x []float32) []float64 {
	out := make([]float64, len(x))
	for b := 0; b < len(x); b += 32 {
		top := 0.0
		for _, v := range x[b : b+32] {
			top = max(top, math.Abs(float64(v)))
		}
		scale := float64(float32(top) * float32(1.0/127))
		for i := b; i < b+32 && scale > 0; i++ {
			out[i] = math.RoundToEven(float64(x[i]*(1/float32(scale)))) * scale
		}
	}
	return out
}

// product computes out = x·Wᵀ with everything at float64.
func product(typ quant.Type, n, k int, src []byte, x []float32) (want, sumAbs []float64) {
	w := make([]float32, n*k)
	quant.Decode(typ, w, src)
	a := make([]float64, len(x))
	for i, v := range x {
		a[i] = float64(v)
	}
	if layouts[layoutOf(typ)].float == 0 {
		a = rounded(x)
	}
	for t := range len(x) / k {
		for row := range n {
			s, abs := 0.0, 0.0
			for i := range k {
				v := float64(w[row*k+i]) * a[t*k+i]
				s += v
				abs += math.Abs(v)
			}
			want, sumAbs = append(want, s), append(sumAbs, abs)
		}
	}
	return want, sumAbs
}

func newProducts(t testing.TB, kernel string, workers int) *Products {
	pool, err := tensor.NewPoolOn(kernel, workers)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return NewProducts(pool)
}

// run multiplies and checks that nothing is written outside out.
func run(t testing.TB, p *Products, m *Matrix, x []float32, T int) []float32 {
	const guard = 77
	memory := make([]float32, T*m.N+32)
	for i := range memory {
		memory[i] = guard
	}
	p.Set(x, T, m.K)
	p.Add(m, memory[16:16+T*m.N])
	p.Run()
	for i := range 16 {
		require.Equal(t, float32(guard), memory[i])
		require.Equal(t, float32(guard), memory[16+T*m.N+i])
	}
	return memory[16 : 16+T*m.N]
}

func TestAgainstFloat64(t *testing.T) {
	for _, kernel := range tensor.Kernels() {
		for _, typ := range types {
			for _, s := range []struct{ n, k, T int }{{1, 256, 1}, {16, 256, 2}, {33, 512, 3}, {96, 768, 1}, {70, 256, 13}, {128, 512, 6}} {
				t.Run(fmt.Sprintf("%s/%v/%dx%dx%d", kernel, typ, s.n, s.k, s.T), func(t *testing.T) {
					src := randomRows(t, typ, s.n, s.k)
					m, err := Pack(typ, s.n, s.k, src, nil)
					require.NoError(t, err)
					x := randomActivations(s.T, s.k)
					want, sumAbs := product(typ, s.n, s.k, src, x)
					got := run(t, newProducts(t, kernel, 2), m, x, s.T)
					for i := range want {
						// A chain of at most K additions in float32, whose terms have two rounded factors.
						require.InDelta(t, want[i], got[i], 1e-5*sumAbs[i]+1e-30, "element %d", i)
					}
				})
			}
		}
	}
}

// TestEqualBits: a result depends neither on the other tokens of the call, nor on threads, nor on the vector kernel.
func TestEqualBits(t *testing.T) {
	const n, k, T = 160, 512, 19
	for _, typ := range types {
		t.Run(typ.String(), func(t *testing.T) {
			m, err := Pack(typ, n, k, randomRows(t, typ, n, k), nil)
			require.NoError(t, err)
			x := randomActivations(T, k)
			vector := map[bool][]float32{}
			for _, kernel := range tensor.Kernels() {
				p := newProducts(t, kernel, 1)
				whole := run(t, p, m, x, T)
				if base := vector[kernel == "generic"]; base != nil {
					require.Equal(t, base, whole, kernel)
				}
				vector[kernel == "generic"] = whole
				require.Equal(t, whole, run(t, newProducts(t, kernel, 3), m, x, T))
				for from := 0; from < T; {
					for _, step := range []int{1, 2, 3, 4, 5} {
						step = min(step, T-from)
						if step > 0 {
							require.Equal(t, whole[from*n:(from+step)*n], run(t, p, m, x[from*k:(from+step)*k], step), "%s tokens %d+%d", kernel, from, step)
						}
						from += step
					}
				}
			}
		})
	}
}

// TestShared: matrices of all types share one set of activations and one run.
func TestShared(t *testing.T) {
	const n, k, T = 48, 256, 5
	for _, kernel := range tensor.Kernels() {
		p := newProducts(t, kernel, 2)
		x := randomActivations(T, k)
		outs := map[quant.Type][]float32{}
		p.Set(x, T, k)
		for _, typ := range types {
			m, err := Pack(typ, n, k, randomRows(t, typ, n, k), nil)
			require.NoError(t, err)
			outs[typ] = make([]float32, T*n)
			p.Add(m, outs[typ])
		}
		p.Run()
		for _, typ := range types {
			m, err := Pack(typ, n, k, randomRows(t, typ, n, k), nil)
			require.NoError(t, err)
			require.Equal(t, run(t, p, m, x, T), outs[typ], "%s %v", kernel, typ)
		}
	}
}

func TestRound8(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, tc := range []struct {
		name string
		fill func(x []float32)
	}{
		{"normal", func(x []float32) {}},
		{"zero", func(x []float32) { clear(x) }},
		{"ties", func(x []float32) {
			for i := range x {
				x[i] = float32(i%9) + 0.5
			}
			x[3] = 127 // scale 1: halves go to even
		}},
		{"tiny", func(x []float32) { x[0], x[1] = 1e-44, 3e-39; clear(x[2:]) }},
		{"denormal scale", func(x []float32) {
			for i := range x {
				x[i] *= 1e-37
			}
		}},
		{"huge", func(x []float32) {
			for i := range x {
				x[i] *= 1e37
			}
		}},
		{"infinite", func(x []float32) { x[5] = inf }},
		{"nan", func(x []float32) { x[31] = float32(math.NaN()) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const T, k = 3, 96
			x := randomActivations(1, k)
			tc.fill(x[32:64])
			plain := make([]byte, k/32*tokenBytes*T)
			round8(x, plain, 1, T)
			for _, name := range tensor.Kernels() {
				set := kernelsOf(name)
				got := make([]byte, len(plain))
				set.round8(x, got, 1, T)
				if tc.name == "infinite" || tc.name == "nan" { // quants of such a block mean nothing; its scale is NaN
					s := tokenBytes*T + 32*T + 4
					require.True(t, math.IsNaN(float64(float(got[s:]))) && math.IsNaN(float64(float(plain[s:]))))
					require.Equal(t, plain[:tokenBytes*T], got[:tokenBytes*T])
					require.Equal(t, plain[2*tokenBytes*T:], got[2*tokenBytes*T:])
					continue
				}
				require.True(t, bytes.Equal(plain, got), "%s", name)
			}
		})
	}
}

// TestNotFinite: a NaN among the activations reaches every output of its token, and no other token.
func TestNotFinite(t *testing.T) {
	for _, kernel := range tensor.Kernels() {
		for _, typ := range types {
			m, err := Pack(typ, 32, 256, randomRows(t, typ, 32, 256), nil)
			require.NoError(t, err)
			x := randomActivations(2, 256)
			x[256+100] = float32(math.NaN())
			out := run(t, newProducts(t, kernel, 1), m, x, 2)
			for i := range 32 {
				require.False(t, math.IsNaN(float64(out[i])), "%s %v", kernel, typ)
				require.True(t, math.IsNaN(float64(out[32+i])), "%s %v", kernel, typ)
			}
		}
	}
}

func TestPackRefuses(t *testing.T) {
	for _, tc := range []struct {
		name    string
		typ     quant.Type
		n, k, b int
		want    string
	}{
		{"short", quant.Q8_0, 2, 32, 34, "have 34 bytes, want 68"},
		{"no rows", quant.Q8_0, 0, 32, 0, "want"},
		{"part of a block", quant.Q8_0, 1, 33, 34, "block"},
		{"unknown type", quant.Type(999), 1, 32, 34, "999"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Pack(tc.typ, tc.n, tc.k, make([]byte, tc.b), nil)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestArena(t *testing.T) {
	a := NewArena()
	sizes := []int{1, 63, 64, 65, 1 << 20, 70 << 20, 5}
	var all [][]byte
	for i, n := range sizes {
		b := a.Take(n)
		require.Len(t, b, n)
		require.Equal(t, make([]byte, min(n, 100)), b[:min(n, 100)])
		for j := range b {
			b[j] = byte(i + 1)
		}
		all = append(all, b)
	}
	for i, b := range all { // nobody wrote into another's
		require.Equal(t, bytes.Repeat([]byte{byte(i + 1)}, len(b)), b)
	}
	require.GreaterOrEqual(t, a.Bytes(), 71<<20)
	a.Free()
	require.Zero(t, a.Bytes())
	require.Len(t, a.Take(10), 10) // and again
	a.Free()
	a.Free()
}

func TestNoAllocations(t *testing.T) {
	p := newProducts(t, tensor.Kernel(), 2)
	m, err := Pack(quant.Q4_0, 256, 512, randomRows(t, quant.Q4_0, 256, 512), nil)
	require.NoError(t, err)
	x, out := randomActivations(3, 512), make([]float32, 3*256)
	step := func() {
		p.Set(x, 3, 512)
		p.Add(m, out)
		p.Run()
	}
	step()
	require.Zero(t, testing.AllocsPerRun(20, step))
}

func TestCopiesAndEarlyRoundingChangeNothing(t *testing.T) {
	const n, k, T = 40, 256, 5
	for _, typ := range []quant.Type{quant.Q4_K, quant.F16} {
		m, err := Pack(typ, n, k, randomRows(t, typ, n, k), nil)
		require.NoError(t, err)
		require.Equal(t, typ == quant.Q4_K, m.Integer())
		p := newProducts(t, tensor.Kernel(), 2)
		want, got := make([]float32, T*n), make([]float32, T*n)
		x := randomActivations(T, k)
		p.Set(x, T, k)
		p.Add(m, want)
		p.Run()
		c := m.Clone(nil)
		clear(m.data)
		p.Set(x, T, k)
		p.Round()
		p.Add(c, got)
		p.Run()
		require.Equal(t, want, got)
		require.NotZero(t, got[n-1])
	}
}

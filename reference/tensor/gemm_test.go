package tensor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
)

// random fills n floats in [-1, 1) from a stream named by seed.
func random(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = 2*r.Float32() - 1
	}
	return x
}

func poolOn(t testing.TB, kernel string, workers int) *Pool {
	p, err := NewPoolOn(kernel, workers)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

// requireChain checks a product against the float64 oracle: |error| <= K·2^-24·Σ|a·b| and a subnormal's worth.
func requireChain(t *testing.T, c Mat, want, sumAbs []float64, K int) {
	t.Helper()
	for i := range c.Rows {
		for n := range c.Cols {
			w, bound := want[i*c.Cols+n], float64(K+1)*math.Exp2(-24)*sumAbs[i*c.Cols+n]+1e-40
			require.InDelta(t, w, c.Data[i*c.RowStride+n], bound, "element (%d, %d)", i, n)
		}
	}
}

func TestGemmAgainstOracle(t *testing.T) {
	for _, kernel := range Kernels() {
		for _, s := range []struct{ m, n, k int }{
			{1, 1, 1}, {1, 33, 7}, {2, 16, 8}, {3, 40, 9}, {5, 31, 300}, {12, 32, 256}, {13, 65, 257}, {25, 48, 513}, {4, 4, 0},
		} {
			for layout := range 8 {
				t.Run(fmt.Sprintf("%s/%dx%dx%d/layout %03b", kernel, s.m, s.n, s.k, layout), func(t *testing.T) {
					p := poolOn(t, kernel, 1)
					a, b := NewMat(random(1, s.m*s.k), s.m, s.k), NewMat(random(2, s.k*s.n), s.k, s.n)
					c := Mat{random(3, s.m*(s.n+3)), s.m, s.n, s.n + 3, 1}
					if layout&1 != 0 {
						a = NewMat(a.Data, s.k, s.m).T()
					}
					if layout&2 != 0 {
						b = NewMat(b.Data, s.n, s.k).T()
					}
					acc := layout&4 != 0
					before := append([]float32(nil), c.Data...)
					want, sumAbs := gemmV0(c, a, b, acc)
					p.Gemm(c, a, b, acc)
					requireChain(t, c, want, sumAbs, s.k)
					for i := range s.m { // the gap between rows of c is not ours to write
						require.Equal(t, before[i*c.RowStride+s.n:(i+1)*c.RowStride], c.Data[i*c.RowStride+s.n:(i+1)*c.RowStride])
					}
				})
			}
		}
	}
}

// TestGemmReadsBWhereItLies: a product of few rows reads B unpacked, and what lies behind its columns, here NaN, stays out.
func TestGemmReadsBWhereItLies(t *testing.T) {
	for _, kernel := range Kernels() {
		for _, s := range []struct{ m, n, k int }{{1, 4, 256}, {1, 33, 7}, {8, 4, 600}, {12, 70, 300}, {13, 4, 256}} {
			for _, acc := range []bool{false, true} {
				p := poolOn(t, kernel, 2)
				a := NewMat(random(1, s.m*s.k), s.m, s.k)
				room := random(2, s.k*s.n+64)
				packed := NewMat(append([]float32(nil), room[:s.k*s.n]...), s.k, s.n)
				for i := s.k * s.n; i < len(room); i++ {
					room[i] = float32(math.NaN())
				}
				want, got := NewMat(random(3, s.m*s.n), s.m, s.n), NewMat(random(3, s.m*s.n), s.m, s.n)
				b := operand{mat: NewMat(room, s.k, s.n), k: s.k, n: s.n}
				panel, _ := b.direct(&p.kern, s.m, &stretch{cols: min(s.n, p.kern.nr), kn: min(s.k, kc)})
				require.Equal(t, s.m <= fewRows || p.kern.narrow != nil, panel != nil)
				p.Gemm(want, a, NewMat(transposed(packed), s.n, s.k).T(), acc)
				p.Gemm(got, a, b.mat, acc)
				require.Equal(t, want.Data, got.Data, "%s %v %v", kernel, s, acc)
			}
		}
	}
}

// requireCausal compares products over t tokens behind past others, in d channels, with whole ones: where the triangle has something
// to say, the bits are the same.
func requireCausal(t *testing.T, p *Pool, tokens, past, d int) {
	t.Helper()
	S := past + tokens
	q, k := NewMat(random(1, tokens*d), tokens, d), NewMat(random(2, S*d), S, d)
	want, got := NewMat(make([]float32, tokens*S), tokens, S), NewMat(random(3, tokens*S), tokens, S)
	p.Gemm(want, q, k.T(), false)
	p.GemmCausal(got, q, k.T(), false, LowerC, past)
	for i := range tokens {
		row := got.Data[i*S : (i+1)*S]
		require.Equal(t, want.Data[i*S:i*S+past+i+1], row[:past+i+1], "%s: scores of %d behind %d", p.Kernel(), tokens, past)
		clear(row[past+i+1:])
	}
	for _, acc := range []bool{false, true} {
		a, b := NewMat(random(4, tokens*d), tokens, d), NewMat(random(4, tokens*d), tokens, d)
		p.Gemm(a, got, k, acc)
		p.GemmCausal(b, got, k, acc, LowerA, past)
		require.Equal(t, a.Data, b.Data, "%s: values of %d behind %d", p.Kernel(), tokens, past)
	}
	a, b := NewMat(random(5, S*d), S, d), NewMat(random(5, S*d), S, d)
	p.Gemm(a, got.T(), q, true)
	p.GemmCausal(b, got.T(), q, true, UpperA, past)
	require.Equal(t, a.Data, b.Data, "%s: transposed, %d behind %d", p.Kernel(), tokens, past)
}

func TestGemmCausal(t *testing.T) {
	for _, kernel := range Kernels() {
		for _, workers := range []int{1, 3} {
			p := poolOn(t, kernel, workers)
			for _, s := range [][3]int{{1, 0, 16}, {5, 3, 4}, {13, 0, 16}, {60, 0, 16}, {60, 5, 16}, {61, 2, 40}, {300, 7, 16}} {
				requireCausal(t, p, s[0], s[1], s[2])
			}
		}
	}
	p := poolOn(t, "generic", 1)
	one := NewMat(make([]float32, 1), 1, 1)
	require.Panics(t, func() { p.GemmCausal(one, one, one, false, UpperA, 0) })
	require.Panics(t, func() { p.GemmCausal(one, one, one, true, LowerA, -1) })
}

func FuzzGemmCausal(f *testing.F) {
	f.Add(uint16(60), uint8(0), uint8(16), uint8(1))
	f.Add(uint16(259), uint8(17), uint8(33), uint8(2))
	f.Fuzz(func(t *testing.T, tokens uint16, past, d, workers uint8) {
		for _, kernel := range Kernels() {
			requireCausal(t, poolOn(t, kernel, 1+int(workers)%4), 1+int(tokens)%600, int(past), 1+int(d)%80)
		}
	})
}

// TestGemmNarrow: columns that a tile of two vectors would waste, at every width, beside memory that is not theirs.
func TestGemmNarrow(t *testing.T) {
	for _, kernel := range Kernels() {
		p := poolOn(t, kernel, 1)
		for n := 1; n <= 33; n++ {
			for _, m := range []int{1, 2, 4, 8, 12, 27} {
				const k = 9
				a, b := NewMat(random(1, m*k), m, k), NewMat(random(2, k*n), k, n)
				want, wide := NewMat(random(3, m*n), m, n), NewMat(random(3, m*64), m, 64)
				for i := range m {
					copy(wide.Data[i*64:], want.Data[i*n:(i+1)*n])
				}
				got, before := wide, append([]float32(nil), wide.Data...)
				got.Cols = n
				for i := range want.Data { // one element at a time is a chain beyond doubt
					row, col := i/n, i%n
					for j := range k {
						p.Gemm(NewMat(want.Data[i:i+1], 1, 1), NewMat(a.Data[row*k+j:row*k+j+1], 1, 1), NewMat(b.Data[j*n+col:j*n+col+1], 1, 1), true)
					}
				}
				p.Gemm(got, a, b, true)
				for i := range m {
					require.Equal(t, want.Data[i*n:(i+1)*n], got.Data[i*64:i*64+n], "%s %dx%d", kernel, m, n)
					require.Equal(t, before[i*64+n:(i+1)*64], got.Data[i*64+n:(i+1)*64], "%s %dx%d", kernel, m, n)
				}
			}
		}
	}
}

// transposed is m's values in the order of mᵀ.
func transposed(m Mat) []float32 {
	var t []float32
	for j := range m.Cols {
		for i := range m.Rows {
			t = append(t, m.Data[i*m.RowStride+j])
		}
	}
	return t
}

// TestGemmIsOneChain pins the property that everything above rests on, with the definition itself as the oracle.
func TestGemmIsOneChain(t *testing.T) {
	const T, N, K = 29, 70, 601
	x, w := random(1, T*K), random(2, N*K)
	rounded, fused := make([]float32, T*N), make([]float32, T*N)
	for i := range T {
		for n := range N {
			var s, f float32
			for k := range K {
				s += float32(x[i*K+k] * w[n*K+k])
				f = fma32(x[i*K+k], w[n*K+k], f)
			}
			rounded[i*N+n], fused[i*N+n] = s, f
		}
	}
	outs := map[string][]float32{}
	for _, kernel := range Kernels() {
		outs[kernel] = make([]float32, T*N)
		poolOn(t, kernel, 1).MatMul(outs[kernel], x, w, T, N, K)
	}
	require.NotEqual(t, rounded, fused)
	for kernel, out := range outs {
		if kernel == "generic" {
			require.Equal(t, rounded, out, "generic rounds every product")
		} else {
			require.Equal(t, fused, out, "%s fuses, on every architecture", kernel)
		}
	}
	// Rows alone, in pieces, and with any number of workers: the same bits.
	for _, kernel := range Kernels() {
		for _, workers := range []int{1, 2, 3, 5} {
			p := poolOn(t, kernel, workers)
			for _, chunk := range []int{1, 2, 3, 7, 12, 28, 29} {
				got := make([]float32, T*N)
				for lo := 0; lo < T; lo += chunk {
					n := min(chunk, T-lo)
					p.MatMul(got[lo*N:], x[lo*K:], w, n, N, K)
				}
				require.Equal(t, outs[kernel], got, "kernel %s, %d workers, chunks of %d", kernel, workers, chunk)
			}
		}
	}
}

// fma32 is a·b + c rounded once: the product is exact in float64, and the sum is rounded there to odd, which keeps what
// the second rounding needs to know (Boldo & Melquiond 2008). Package panel tests its copy against exact arithmetic.
func fma32(a, b, c float32) float32 {
	product := float64(a) * float64(b)
	sum := product + float64(c)
	rest := sum - product // Knuth's error of a sum
	wrong := (product - (sum - rest)) + (float64(c) - rest)
	if wrong != 0 && wrong == wrong && math.Float64bits(sum)&1 == 0 {
		sum = math.Nextafter(sum, math.Copysign(math.Inf(1), wrong))
	}
	return float32(sum)
}

// TestTiles: a tile of every height is the chain of its elements, on matrices with any strides, in both types of b.
func TestTiles(t *testing.T) {
	const k, bRow, cRow, aRow, aK = 37, 50, 40, 3, 29
	for _, kern := range kernels() {
		for _, mr := range kern.mrs {
			for _, acc := range []bool{false, true} {
				a, b, c := random(1, mr*aRow+k*aK), make([]float32, k*bRow), random(3, mr*cRow)
				b16 := make([]uint16, len(b))
				for i, v := range random(2, len(b)) {
					b16[i] = quant.F32ToF16(v)
					b[i] = quant.F16ToF32(b16[i])
				}
				b16[5], b[5] = 0x0001, 0x1p-24 // the smallest number of float16
				want := append([]float32(nil), c...)
				for i := range mr {
					for n := range kern.nr {
						s := want[i*cRow+n]
						if !acc {
							s = 0
						}
						for j := range k {
							if x, y := a[i*aRow+j*aK], b[j*bRow+n]; kern.name == "generic" {
								s += float32(x * y)
							} else {
								s = fma32(x, y, s)
							}
						}
						want[i*cRow+n] = s
					}
				}
				c16 := append([]float32(nil), c...)
				kern.tile(mr, a, aRow, aK, b, bRow, k, c, cRow, acc)
				kern.tile16(mr, a, aRow, aK, b16, bRow, k, c16, cRow, acc)
				require.Equal(t, want, c, "%s, %d rows, acc %v", kern.name, mr, acc)
				require.Equal(t, want, c16, "%s, %d rows, acc %v, float16", kern.name, mr, acc)
			}
		}
	}
}

func TestMatMulFamily(t *testing.T) {
	const T, N, K = 21, 37, 43
	x, w, dy := random(1, T*K), random(2, N*K), random(3, T*N)
	p := poolOn(t, Kernel(), 2)
	t.Run("gradient by x", func(t *testing.T) {
		dx := random(4, T*K)
		for _, acc := range []bool{false, true} {
			want, abs := gemmV0(NewMat(dx, T, K), NewMat(dy, T, N), NewMat(w, N, K), acc)
			p.MatMulGradX(dx, dy, w, T, N, K, acc)
			requireChain(t, NewMat(dx, T, K), want, abs, N)
		}
	})
	t.Run("gradient by w", func(t *testing.T) {
		dw := random(5, N*K)
		want, abs := gemmV0(NewMat(dw, N, K), NewMat(dy, T, N).T(), NewMat(x, T, K), true)
		p.MatMulGradW(dw, dy, x, T, N, K)
		requireChain(t, NewMat(dw, N, K), want, abs, T)
	})
	t.Run("one token and decoded rows", func(t *testing.T) {
		want, got := make([]float32, T*N), make([]float32, T*N)
		p.MatMul(want, x, w, T, N, K)
		p.MatVec(got, x, w, N, K)
		require.Equal(t, want[:N], got[:N])
		p.MatMulRows(got, x, plainRows{w, K}, T, N, K)
		require.Equal(t, want, got)
	})
}

type plainRows struct {
	w []float32
	k int
}

func (r plainRows) ReadRow(dst []float32, n, k int) { copy(dst, r.w[n*r.k+k:]) }

func TestGemmRefusesWrongShapes(t *testing.T) {
	p := poolOn(t, Kernel(), 1)
	m := func(r, c int) Mat { return NewMat(make([]float32, r*c), r, c) }
	short := NewMat(make([]float32, 5), 2, 3)
	for _, tc := range []struct {
		name    string
		c, a, b Mat
	}{
		{"inner dimensions differ", m(2, 4), m(2, 3), m(5, 4)},
		{"rows differ", m(3, 4), m(2, 3), m(3, 4)},
		{"columns differ", m(2, 5), m(2, 3), m(3, 4)},
		{"a is too short", m(2, 4), short, m(3, 4)},
		{"b is too short", m(2, 3), m(2, 2), short},
		{"c is transposed", m(4, 2).T(), m(2, 3), m(3, 4)},
	} {
		t.Run(tc.name, func(t *testing.T) { require.Panics(t, func() { p.Gemm(tc.c, tc.a, tc.b, false) }) })
	}
}

func TestChooseKernel(t *testing.T) {
	have := []kernel{{name: "generic"}, {name: "avx2"}}
	for _, tc := range []struct{ name, ask, want, err string }{
		{"best by default", "", "avx2", ""},
		{"forced", "generic", "generic", ""},
		{"absent", "avx512", "avx2", "have only generic, avx2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, err := choose(tc.ask, have)
			require.Equal(t, tc.want, k.name)
			if tc.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.err)
			}
		})
	}
	_, err := NewPoolOn("abacus", 1)
	require.ErrorContains(t, err, "abacus")
	require.Contains(t, Kernels(), Kernel())
}

func TestProductsDoNotAllocate(t *testing.T) {
	const T, N, K = 16, 96, 96
	x, w, out := random(1, T*K), random(2, N*K), make([]float32, T*N)
	for _, workers := range []int{1, 2} {
		p := poolOn(t, Kernel(), workers)
		require.Zero(t, testing.AllocsPerRun(20, func() { p.MatMul(out, x, w, T, N, K) }))
	}
}

func BenchmarkMatMul(b *testing.B) {
	p := NewPool(1)
	for _, s := range []struct{ t, n, k int }{{1, 512, 512}, {8, 512, 512}, {64, 512, 512}, {256, 128, 128}, {256, 1024, 256}, {512, 512, 512}} {
		x, w, y := random(1, s.t*s.k), random(2, s.n*s.k), random(3, s.t*s.n)
		for _, op := range []struct {
			name string
			run  func()
		}{
			{"f32", func() { p.MatMul(y, x, w, s.t, s.n, s.k) }},
			{"gradx", func() { p.MatMulGradX(x, y, w, s.t, s.n, s.k, false) }},
			{"gradw", func() { p.MatMulGradW(w, y, x, s.t, s.n, s.k) }},
		} {
			b.Run(fmt.Sprintf("op=%s/T=%d/N=%d/K=%d/threads=1/kernel=%s", op.name, s.t, s.n, s.k, p.Kernel()), func(b *testing.B) {
				b.SetBytes(int64(4 * (s.t*s.k + s.n*s.k + s.t*s.n)))
				for b.Loop() {
					clear(w[:1]) // gradw grows without bound otherwise; timing is not touched
					op.run()
				}
				b.ReportMetric(2*float64(s.t*s.n*s.k)*float64(b.N)/b.Elapsed().Seconds(), "FLOP/s")
			})
		}
	}
}

package tensor

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
)

// ulps is the distance of got from want in units of the last place of want.
func ulps(got float32, want float64) float64 {
	exp := math.Ilogb(max(math.Abs(want), 1e-37))
	return math.Abs(float64(got)-want) / math.Exp2(float64(exp-23))
}

func TestExp(t *testing.T) {
	var worst float64
	for x := float32(-87); x < 88.2; x += 0.00317 {
		worst = max(worst, ulps(exp32(x), math.Exp(float64(x))))
	}
	require.Less(t, worst, 2.0)
	require.Equal(t, float32(1), exp32(0))
	require.Zero(t, exp32(float32(math.Inf(-1))))
	require.True(t, math.IsInf(float64(exp32(100)), 1))
	require.True(t, math.IsNaN(float64(exp32(float32(math.NaN())))))
	got := []float32{0, 1}
	Exp(got, got)
	require.InDeltaSlice(t, []float32{1, math.E}, got, 3e-7)
}

// TestVectorEqualsPlain: the assembly performs exactly the operations of the Go code.
func TestVectorEqualsPlain(t *testing.T) {
	x, up := random(1, 1003), random(2, 1003)
	for i := range x {
		x[i] *= 100
	}
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	copy(x, []float32{0, float32(math.Copysign(0, -1)), 88.3, 88.30001, -87, -87.00001, inf, -inf, 1e-30, -1e30})
	for _, k := range kernels() {
		for _, n := range []int{1, 7, 8, 9, 64, 1003} {
			want, got := make([]float32, n), make([]float32, n)
			sum := expSum(nil, want, x[:n], 1.5)
			require.Equal(t, sum, expSum(k.vector, got, x[:n], 1.5), k.name)
			require.Equal(t, want, got, k.name)
			require.Equal(t, largest(nil, x[:n]), largest(k.vector, x[:n]))
			swiGLU(nil, want, x[:n], up)
			swiGLU(k.vector, got, x[:n], up)
			for i := range want {
				require.Equal(t, math.Float32bits(want[i]), math.Float32bits(got[i]), "%s: swiglu of %g", k.name, x[i])
			}
		}
		bad := append(random(3, 20), nan)
		softmax(k.vector, bad, bad)
		require.True(t, math.IsNaN(float64(bad[0])), "NaN must not hide")
	}
}

// bitsOf makes slices comparable to the last bit, signs of zero and NaNs included (all NaNs alike).
func bitsOf(lists ...[]float32) (bits []uint32) {
	for _, x := range lists {
		for _, v := range x {
			if v != v {
				v = float32(math.NaN())
			}
			bits = append(bits, math.Float32bits(v))
		}
	}
	return bits
}

// TestVectorGradients: so do the functions of backward passes and optimisers, on numbers small, large, not finite, and of every length.
func TestVectorGradients(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	draw := func(seed uint64, n int) []float32 {
		x := random(seed, n)
		for i := range x {
			x[i] *= float32(math.Exp2(float64(i%60 - 30)))
		}
		for i, v := range []float32{0, float32(math.Copysign(0, -1)), inf, -inf, nan, 88, -88, 1e-40, 3e38} {
			if at := i*13 + int(seed)%7; n > 60 && at < n {
				x[at] = v
			}
		}
		return x
	}
	for _, k := range kernels() {
		for _, n := range []int{1, 7, 8, 9, 16, 60, 131} {
			run := func(v *vector) []uint32 {
				a, b, c, d, e := draw(1, n), draw(2, n), draw(3, n), draw(4, n), draw(5, n)
				add(v, a, b)
				scale(v, b, 0.3)
				normScale(v, c, d, e, 1.7)
				dgate, dup := make([]float32, n), make([]float32, n)
				swiGLUGrad(v, dgate, dup, a, draw(6, n), e)
				w, g, m, s := draw(7, n), draw(8, n), draw(9, n), draw(10, n)
				for i, x := range s {
					s[i] = abs32(x)
				}
				(&AdamStep{Clip: 0.7, Beta1: 0.9, Beta2: 0.98, Rate: 1e-3, Unbias: 3, Eps: 1e-8, Keep: 0.99}).apply(v, w, g, m, s)
				return bitsOf(a, b, c, d, dgate, dup, w, m, s)
			}
			require.Equal(t, run(nil), run(k.vector), "%s: %d elements", k.name, n)
			for _, T := range []int{1, 4, 7} {
				rows := func(v *vector) []uint32 {
					dx, dw, inv := random(1, T*n), random(2, n), random(3, T)
					rmsNormGrad(v, dx, dw, random(4, T*n), random(5, T*n), random(6, n), inv)
					rmsNormGrad(v, dx, nil, random(4, T*n), random(5, T*n), random(6, n), inv)
					d := random(7, T*(T+n))
					causalSoftmaxGrad(v, d, random(8, T*(T+n)), T, T+n, 0.25)
					return bitsOf(dx, dw, d)
				}
				require.Equal(t, rows(nil), rows(k.vector), "%s: %d rows of %d", k.name, T, n)
			}
		}
		if k.vector == nil {
			continue
		}
		for _, D := range []int{8, 16, 64} {
			const T, H, past = 3, 5, 11
			want, got := random(1, T*H*D), random(1, T*H*D)
			r := Rope{D: D, Base: 1000}
			r.Reserve(past + T)
			for _, sign := range []float32{1, -1} {
				r.turn(nil, want, T, H, past, sign)
				r.turn(k.vector, got, T, H, past, sign)
				require.Equal(t, bitsOf(want), bitsOf(got), "%s: heads of %d", k.name, D)
			}
		}
	}
}

// TestCausalSoftmax: rows of what a token sees, and their gradients in float64; the sum of a row's gradients is nothing.
func TestCausalSoftmax(t *testing.T) {
	for _, s := range [][2]int{{1, 1}, {6, 6}, {7, 12}, {60, 60}} {
		T, S := s[0], s[1]
		x, up := random(1, T*S), random(2, T*S)
		got, grad := append([]float32(nil), x...), append([]float32(nil), up...)
		CausalSoftmax(got, T, S, 2)
		CausalSoftmaxGrad(grad, got, T, S, 2)
		for r := range T {
			seen, row := S-T+r+1, x[r*S:(r+1)*S]
			twice := append([]float32(nil), row[:seen]...)
			Scale(twice, 2)
			want, dot := softmaxV0(twice), 0.0
			for i, w := range want {
				require.InDelta(t, w, got[r*S+i], 1e-6)
				dot += w * float64(up[r*S+i])
			}
			for i, w := range want {
				require.InDelta(t, w*(float64(up[r*S+i])-dot)*2, grad[r*S+i], 2e-6)
			}
			for i := seen; i < S; i++ {
				require.Zero(t, got[r*S+i])
				require.Zero(t, grad[r*S+i])
			}
		}
	}
}

// TestVectorHalves: float32 to float16 as package quant does it, every exponent and every kind of rounding.
func TestVectorHalves(t *testing.T) {
	var x []float32
	for exp := -30; exp <= 17; exp++ { // below the smallest number of float16 to above the largest
		for _, m := range []float64{1, 1 + 0x1p-11, 1 + 0x1p-10, 1 + 0x1p-10 + 0x1p-11, 1 + 0x1p-11 + 0x1p-23, 2 - 0x1p-11, 2 - 0x1p-11 - 0x1p-23, 1.5} {
			x = append(x, float32(math.Ldexp(m, exp)), -float32(math.Ldexp(m, exp)))
		}
	}
	x = append(x, 0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), 65504, 65519.996, 65520, 1e-45)
	require.Zero(t, len(x)%8)
	want := make([]uint16, len(x))
	for i, v := range x {
		want[i] = quant.F32ToF16(v)
	}
	for _, k := range kernels() {
		if k.vector != nil {
			got := make([]uint16, len(x))
			k.vector.halves(got, x)
			require.Equal(t, want, got, k.name)
		}
	}
}

func TestRMSNorm(t *testing.T) {
	const T, C = 5, 129
	x, w, inv := random(1, T*C), random(2, C), make([]float32, T)
	x[7], x[8] = 300, 1e-20
	want := rmsNormV0(x, w, T, C, 1e-5)
	got := make([]float32, T*C)
	RMSNorm(got, x, w, inv, T, C, 1e-5)
	for i := range got {
		require.Less(t, ulps(got[i], want[i]), 3.0)
	}
	require.InEpsilon(t, float64(got[0]), float64(x[0]*inv[0]*w[0]), 1e-6)
	RMSNorm(x, x, w, nil, T, C, 1e-5)
	require.Equal(t, got, x, "in place")
}

func TestRope(t *testing.T) {
	const T, H, D, past = 3, 2, 8, 1000
	for _, style := range []RopeStyle{RopeNorm, RopeNeox} {
		t.Run(fmt.Sprint("style ", style), func(t *testing.T) {
			r := Rope{D: D, Base: 10000, Style: style}
			x := random(1, T*H*D)
			got := append([]float32(nil), x...)
			r.Apply(got, T, H, past)
			for i := range T * H {
				want := ropeV0(x[i*D:(i+1)*D], past+i/H, 10000, style)
				for d, w := range want {
					require.InDelta(t, w, got[i*D+d], 3e-7)
				}
			}
			one := append([]float32(nil), x[2*H*D:]...) // the last token alone
			r.Apply(one, 1, H, past+2)
			require.Equal(t, got[2*H*D:], one)
			r.Unapply(got, T, H, past)
			require.InDeltaSlice(t, x, got, 3e-7)
		})
	}
	// By hand: position 1, first pair turns by one radian.
	x := []float32{1, 0}
	(&Rope{D: 2, Base: 10000}).Apply(x, 1, 1, 1)
	require.InDeltaSlice(t, []float32{0.5403023, 0.8414710}, x, 1e-7)
}

func TestSoftmaxSwiGLUAdd(t *testing.T) {
	x := random(1, 300)
	for i := range x {
		x[i] *= 20
	}
	got, want := make([]float32, len(x)), softmaxV0(x)
	Softmax(got, x)
	var sum float64
	for i, v := range got {
		// x - max is rounded once, by up to 40·2^-24 here, and e^x turns that into a relative error.
		require.InDelta(t, want[i], v, (5e-7+40*0x1p-24)*want[i]+1e-38)
		sum += float64(v)
	}
	require.InDelta(t, 1, sum, 1e-6)
	require.InDelta(t, 1e30, func() float32 { y := []float32{1e30, 1e30}; Softmax(y, y); return y[0] * 2e30 }(), 1e24)

	up := random(2, len(x))
	SwiGLU(got, x, up)
	for i := range x {
		require.InDelta(t, siluV0(x[i])*float64(up[i]), got[i], 1e-6*math.Abs(siluV0(x[i]))+1e-30)
	}
	bias := []float32{1, 2}
	rows := []float32{10, 20, 30, 40}
	AddRow(rows, bias, 2)
	require.Equal(t, []float32{11, 22, 31, 42}, rows)
}

func TestPool(t *testing.T) {
	for workers := range 5 {
		p := poolOn(t, Kernel(), workers)
		require.Equal(t, max(1, workers), p.Workers())
		seen := make([]int, 7)
		p.Rows(len(seen), func(lo, hi int) {
			for i := lo; i < hi; i++ {
				seen[i]++
			}
		})
		require.Equal(t, []int{1, 1, 1, 1, 1, 1, 1}, seen)
		p.Close()
	}
}

func ExamplePool_MatMul() {
	p := NewPool(2)
	defer p.Close()
	x := []float32{1, 2, 3}          // one token, K = 3
	w := []float32{1, 0, 0, 1, 1, 1} // (N, K) = (2, 3)
	out := make([]float32, 2)
	p.MatMul(out, x, w, 1, 2, 3)
	fmt.Println(out)
	// Output: [1 6]
}

// TestRMSNormRows: a row's bits do not depend on the rows beside it.
func TestRMSNormRows(t *testing.T) {
	const C = 37
	for T := 1; T < 10; T++ {
		x, w, got, inv := random(1, T*C), random(2, C), make([]float32, T*C), make([]float32, T)
		RMSNorm(got, x, w, inv, T, C, 1e-5)
		for r := range T {
			one, oneInv := make([]float32, C), make([]float32, 1)
			RMSNorm(one, x[r*C:(r+1)*C], w, oneInv, 1, C, 1e-5)
			require.Equal(t, one, got[r*C:(r+1)*C])
			require.Equal(t, oneInv[0], inv[r])
		}
	}
}

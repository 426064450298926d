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

package portable

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// ulps is how many representable numbers lie between a and b.
func ulps(a, b float64) float64 {
	if a == b || a != a && b != b {
		return 0
	}
	return math.Abs(a-b) / (math.Nextafter(math.Abs(b), math.Inf(1)) - math.Abs(b))
}

// inputs covers the ranges that random variates and heat models use, and beyond.
func inputs(n int, low, high float64, visit func(x float64)) {
	for i := range n { // multiples of the golden ratio fill an interval evenly
		_, u := math.Modf(float64(float64(i) * math.Phi))
		visit(low + float64(u*(high-low)))
	}
}

// math is itself within 1 ulp, hence 3 for functions that promise 2.
func TestCloseToMath(t *testing.T) {
	for _, tc := range []struct {
		name      string
		got, want func(float64) float64
		low, high float64
		within    float64
	}{
		{"exp near 0", Exp, math.Exp, -1, 1, 3},
		{"exp", Exp, math.Exp, -700, 700, 3},
		{"exp of denormals", Exp, math.Exp, -745, -708, 3},
		{"log of a uniform", Log, math.Log, 0, 1, 3},
		{"log near 1", Log, math.Log, 0.999, 1.001, 3},
		{"log", Log, math.Log, 0, 1e6, 3},
		{"log1p of small", Log1p, math.Log1p, -1e-6, 1e-6, 3},
		{"log1p", Log1p, math.Log1p, -0.999, 10, 4},
		{"root", func(x float64) float64 { return Pow(x, 0.37) }, func(x float64) float64 { return math.Pow(x, 0.37) }, 0, 100, 5},
	} {
		worst := 0.0
		inputs(200_000, tc.low, tc.high, func(x float64) { worst = max(worst, ulps(tc.got(x), tc.want(x))) })
		require.LessOrEqual(t, worst, tc.within, tc.name)
		t.Logf("%-18s %.1f ulp", tc.name, worst)
	}
	// math.Cos gets 2πv ≤ 6.3 rounded twice, by 4.4e-16 each
	inputs(200_000, 0, 1, func(v float64) { require.InDelta(t, math.Cos(2*math.Pi*v), CosTurns(v), 9e-16) })
}

func TestSpecialFunctions(t *testing.T) {
	cdf := func(z float64) float64 { return 0.5 * math.Erfc(-z/math.Sqrt2) }
	inputs(100_000, -9, 9, func(z float64) {
		require.InDelta(t, cdf(z), NormalCDF(z), 1e-15)
		require.InEpsilon(t, cdf(z), NormalCDF(z), 1e-12)
	})
	inputs(100_000, 0, 1, func(p float64) {
		if p > 0 {
			require.InDelta(t, math.Sqrt2*math.Erfinv(2*p-1), NormalQuantile(p), 1e-14)
			require.InDelta(t, p, NormalCDF(NormalQuantile(p)), 1e-15)
		}
	})
	for _, p := range []float64{1e-300, 1e-40, 1e-12, 1e-5} {
		require.InEpsilon(t, p, NormalCDF(NormalQuantile(p)), 1e-10, "there and back in the tail")
	}
	inputs(10_000, 0.5, 140, func(x float64) { require.InEpsilon(t, math.Gamma(x), Gamma(x), 5e-13) })
	require.Equal(t, math.Inf(1), NormalQuantile(1))
	require.Equal(t, math.Inf(-1), NormalQuantile(0))
	require.True(t, math.IsNaN(NormalQuantile(1.1)) && math.IsNaN(NormalCDF(math.NaN())))
	require.Equal(t, []float64{0, 0.5, 1}, []float64{NormalCDF(math.Inf(-1)), NormalCDF(0), NormalCDF(math.Inf(1))})
}

func TestExactValues(t *testing.T) {
	for _, tc := range []struct {
		name      string
		got, want float64
	}{
		{"e^0", Exp(0), 1}, {"e^-0", Exp(math.Copysign(0, -1)), 1}, {"e^-inf", Exp(math.Inf(-1)), 0}, {"e^inf", Exp(math.Inf(1)), math.Inf(1)},
		{"overflow", Exp(710), math.Inf(1)}, {"underflow", Exp(-746), 0}, {"e^nan", Exp(math.NaN()), math.NaN()},
		{"log 1", Log(1), 0}, {"log 0", Log(0), math.Inf(-1)}, {"log inf", Log(math.Inf(1)), math.Inf(1)}, {"log -1", Log(-1), math.NaN()},
		{"log 2", Log(2), math.Ln2}, {"log of the smallest", Log(math.SmallestNonzeroFloat64), -1074 * math.Ln2},
		{"log1p 0", Log1p(0), 0}, {"log1p tiny", Log1p(1e-300), 1e-300}, {"log1p -1", Log1p(-1), math.Inf(-1)}, {"log1p inf", Log1p(math.Inf(1)), math.Inf(1)},
		{"0^2", Pow(0, 2), 0}, {"0^-2", Pow(0, -2), math.Inf(1)}, {"3^0", Pow(3, 0), 1}, {"1^inf", Pow(1, math.Inf(1)), 1}, {"2^inf", Pow(2, math.Inf(1)), math.Inf(1)},
		{"cos 0", CosTurns(0), 1}, {"a quarter", CosTurns(0.25), 0}, {"a half", CosTurns(0.5), -1}, {"three quarters", CosTurns(0.75), 0}, {"back", CosTurns(-3), 1},
	} {
		require.Zero(t, ulps(tc.got, tc.want), "%s: got %g, want %g", tc.name, tc.got, tc.want)
	}
}

// The digest pins the bits: it was computed on amd64, and scripts/arm64 runs this
// test on arm64.
func TestBits(t *testing.T) {
	h := sha256.New()
	put := func(x float64) { _ = binary.Write(h, binary.LittleEndian, math.Float64bits(x)) }
	inputs(50_000, 0, 1, func(u float64) {
		for _, x := range []float64{Log(u), Log1p(-u), CosTurns(u), Exp(u), Exp(-40 * u), Pow(u, 2.38), Log(1e9 * u), Exp(700 * u), NormalCDF(float64(9*u) - 5), NormalQuantile(u), Gamma(0.5 + float64(9*u))} {
			put(x)
		}
	})
	require.Equal(t, "ac317bc7cdadc0161af72e00869be5c2", hex.EncodeToString(h.Sum(nil)[:16]))
}

func BenchmarkFunctions(b *testing.B) {
	for _, bc := range []struct {
		name string
		f    func(float64) float64
	}{
		{"fn=exp/by=portable", Exp}, {"fn=exp/by=math", math.Exp}, {"fn=log/by=portable", Log}, {"fn=log/by=math", math.Log},
		{"fn=cos/by=portable", CosTurns}, {"fn=cos/by=math", math.Cos},
	} {
		b.Run(bc.name, func(b *testing.B) {
			x, sum := 0.3, 0.0
			for b.Loop() {
				sum += bc.f(x)
				x += 1e-9
			}
			_ = sum
		})
	}
}

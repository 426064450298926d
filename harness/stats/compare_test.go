package stats

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// Holm (1979) by hand: 0.01×4, then 0.02×3 (0.06), 0.03×2 (0.06, not below the
// one before), 0.04×1 raised to 0.06.
func TestHolm(t *testing.T) {
	got := Holm([]float64{0.04, 0.01, 0.03, 0.02})
	for i, w := range []float64{0.06, 0.04, 0.06, 0.06} {
		require.InDelta(t, w, got[i], 1e-12)
	}
	require.Equal(t, []float64{1, 1}, Holm([]float64{0.6, 0.7}))
	require.Empty(t, Holm(nil))
}

func TestCompare(t *testing.T) {
	four, up := []float64{100, 101, 102, 103}, []float64{110, 111, 112, 113}
	for _, tc := range []struct {
		name     string
		old, new []float64
		want     Verdict
		p        float64
	}{
		{"four a side, apart", four, up, Higher, 2.0 / 70}, // 2 of the 70 orders are as extreme
		{"and the other way", up, four, Lower, 2.0 / 70},
		{"three a side can show nothing", four[:3], up[:3], Unclear, 0.1},
		// interleaved: U = 1+2+3+4+5 = 15 of 36; the table of 6+6 has P(U <= 15) = 0.3496
		{"the same values", []float64{1, 1.001, 1.002, 1.003, 1.004, 1.005}, []float64{1.0005, 1.0015, 1.0025, 1.0035, 1.0045, 1.0055}, Same, 0.6991},
		{"apart by less than the band", []float64{1, 1.0001, 1.0002, 1.0003}, []float64{1.004, 1.0041, 1.0042, 1.0043}, Same, 2.0 / 70},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := Compare(tc.old, tc.new, Rule{})
			require.NoError(t, err)
			require.Equal(t, tc.want, e.Verdict, "%+v", e)
			require.InDelta(t, tc.p, e.P, 1e-3)
		})
	}
	e, err := Compare(four[:3], up[:3], Rule{})
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(e.Warnings), "need >= 4 samples")
	require.Equal(t, []float64{0, math.Inf(1)}, []float64{e.Lo, e.Hi}, "three a side bound no ratio")
	_, err = Compare(four, []float64{0}, Rule{})
	require.ErrorContains(t, err, "0 is not a positive number")
	_, err = Compare(nil, four, Rule{})
	require.ErrorContains(t, err, "no runs")
}

func TestSpread(t *testing.T) {
	require.InDelta(t, math.Log(2)/math.Sqrt2, Spread([]float64{1, 2}), 1e-12)
	require.Zero(t, Spread([]float64{3, 3, 3}))
	require.True(t, math.IsNaN(Spread([]float64{3})))
}

func TestCompareExact(t *testing.T) {
	require.Equal(t, Same, CompareExact(100, 100.5, Rule{}).Verdict)
	require.Equal(t, Higher, CompareExact(100, 102, Rule{}).Verdict)
	require.Equal(t, Lower, CompareExact(100, 98, Rule{}).Verdict)
	require.Equal(t, Same, CompareExact(0, 0, Rule{}).Verdict)
	require.Equal(t, Higher, CompareExact(0, 5, Rule{}).Verdict)
	require.Equal(t, Lower, CompareExact(5, 0, Rule{}).Verdict)
	require.Equal(t, Higher, CompareExact(-5, -4, Rule{}).Verdict)
}

// One of the rows is significant alone (p = 0.0286) but not among three: 0.0857.
func TestFamilyIsStricter(t *testing.T) {
	clear, err := Compare([]float64{1, 2, 3, 4}, []float64{11, 12, 13, 14}, Rule{})
	require.NoError(t, err)
	require.Equal(t, Higher, clear.Verdict)
	noise, err := Compare([]float64{1, 2, 3, 4}, []float64{1.1, 2.1, 2.9, 4.1}, Rule{})
	require.NoError(t, err)
	es := []Effect{clear, noise, noise}
	ps := Family(es)
	require.InDelta(t, 3*2.0/70, ps[0], 1e-12)
	require.Equal(t, Unclear, es[0].Verdict)
}

// Critical values of U, two-sided 0.05, from the usual tables: 4+4 0, 5+5 2, 6+6
// 5, 10+10 23, 20+20 127.
func TestCriticalU(t *testing.T) {
	for n, want := range map[int]int{3: -1, 4: 0, 5: 2, 6: 5, 10: 23, 20: 127} {
		require.Equal(t, want, criticalU(n, n, 0.05), "n=%d", n)
	}
	require.Equal(t, 8, criticalU(5, 9, 0.05)-(-1), "7 for 5+9")
	require.InDelta(t, criticalU(20, 20, 0.05), criticalU(20, 21, 0.05), 8)
}

// The interval of the ratio holds the truth in at least 95 of 100 cases.
func TestRatioIntervalCovers(t *testing.T) {
	const runs, truth = 400, 1.1
	missed := 0
	for seed := range runs {
		r := rng.Stream(uint64(seed), "ratio")
		var old, new []float64
		for range 8 {
			old = append(old, rng.LogNormal(r, 0, 0.1))
			new = append(new, truth*rng.LogNormal(r, 0, 0.1))
		}
		e, err := Compare(old, new, Rule{})
		require.NoError(t, err)
		if e.Lo > truth || e.Hi < truth {
			missed++
		}
	}
	require.LessOrEqual(t, missed, 34) // 20 expected at most, + 3.2 standard deviations of 4.4
}

// Noether: to see 3 % at a spread of 2 % with power 0.8: q = Phi(0.02956/(0.02
// sqrt 2)) - 1/2 = Phi(1.0451) - 0.5 = 0.3520; 7.849/(6 × 0.1239) = 10.6 -> 11.
func TestPlan(t *testing.T) {
	require.Equal(t, 11, Plan(0.03, 0.02, 0.05, 0.8))
	require.Equal(t, 4, Plan(0.5, 0, 0.05, 0.8), "Noether says 6, but sides that lie apart need no more than can be tested")
	require.Equal(t, math.MaxInt32, Plan(0, 0.1, 0.05, 0.8))
	require.Greater(t, Plan(0.01, 0.1, 0.05, 0.8), 1000)
}

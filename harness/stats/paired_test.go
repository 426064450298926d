package stats

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// Critical values of the signed-rank test, two-sided 0.05, from the usual tables:
// 6 pairs 0, 7 2, 8 3, 10 8, 15 25, 20 52.
func TestCriticalW(t *testing.T) {
	for n, want := range map[int]int{5: -1, 6: 0, 7: 2, 8: 3, 10: 8, 15: 25, 20: 52} {
		require.Equal(t, want, criticalW(n, 0.05), "n=%d", n)
	}
	require.InDelta(t, criticalW(60, 0.05), criticalW(61, 0.05), 35, "the approximation goes on where the exact values end")
}

// The exact p equals the share of all 2^n sign patterns whose smaller sum is at
// most that of the data, ties and all.
func TestSignedRankEqualsAllPatterns(t *testing.T) {
	for _, sizes := range [][]float64{{1, 2, 3, 4, 5, 6}, {1, 1, 2, 2, 2, 3}, {5, 5, 5, 5, 5}, {1, 2, 2, 7, 7, 9, 11}} {
		n := len(sizes)
		ranks := make([]float64, n) // mean ranks, the slow way
		for i, a := range sizes {
			below, same := 0.0, 0.0
			for _, b := range sizes {
				if b < a {
					below++
				} else if b == a {
					same++
				}
			}
			ranks[i] = below + (same+1)/2
		}
		low := func(pattern int) float64 {
			up, down := 0.0, 0.0
			for i, r := range ranks {
				if pattern>>i&1 == 1 {
					up += r
				} else {
					down += r
				}
			}
			return min(up, down)
		}
		for pattern := range 1 << n {
			count := 0
			for other := range 1 << n {
				if low(other) <= low(pattern) {
					count++
				}
			}
			var ds []deviation
			for i, s := range sizes {
				ds = append(ds, deviation{s, pattern>>i&1 == 1})
			}
			require.InDelta(t, float64(count)/float64(int(1)<<n), signedRank(ds), 1e-12, "%v pattern %b", sizes, pattern)
		}
	}
}

func TestComparePaired(t *testing.T) {
	old := []float64{100, 200, 300, 400, 500, 600} // the seeds differ sixfold, the pairs by 4 to 6 %
	var new []float64
	for i, o := range old {
		new = append(new, o*(1.04+0.004*float64(i)))
	}
	e, err := ComparePaired(old, new, Rule{})
	require.NoError(t, err)
	require.Equal(t, SignedRank, e.Test)
	require.Equal(t, Higher, e.Verdict)
	require.InDelta(t, 2.0/64, e.P, 1e-12)
	require.InDelta(t, 1.04, e.Lo, 1e-12, "k = 0: the smallest and the largest ratio")
	require.InDelta(t, 1.06, e.Hi, 1e-12)
	require.InDelta(t, 1.05, e.Ratio, 1e-3)
	apart, err := Compare(old, new, Rule{})
	require.NoError(t, err)
	require.Equal(t, Unclear, apart.Verdict, "what the seeds do hides it from the unpaired test")

	five, err := ComparePaired(old[:5], new[:5], Rule{})
	require.NoError(t, err)
	require.Equal(t, Unclear, five.Verdict)
	require.Equal(t, []float64{0, math.Inf(1)}, []float64{five.Lo, five.Hi})
	require.Contains(t, five.Warnings, "need >= 6 pairs to detect a difference at alpha level 0.05")
	_, err = ComparePaired(old, new[:5], Rule{})
	require.ErrorContains(t, err, "6 old and 5 new")
	_, err = ComparePaired([]float64{1}, []float64{-1}, Rule{})
	require.ErrorContains(t, err, "-1 is not a positive number")

	same, err := ComparePaired(old, old, Rule{})
	require.NoError(t, err)
	require.Equal(t, Same, same.Verdict)
	require.Equal(t, 1.0, same.P, "no pair differs")
}

func TestDifferences(t *testing.T) {
	old, new := []float64{0, 0, 0.01, 0.02, 0, 0.01}, []float64{0.1, 0.12, 0.11, 0.1, 0.13, 0.1}
	e, err := CompareDifference(old, new, 1, Rule{})
	require.NoError(t, err)
	require.Equal(t, Higher, e.Verdict)
	require.InDelta(t, 1+0.105-0.005, e.Ratio, 1e-12, "medians 0.105 and 0.005")
	e, err = ComparePairedDifference(old, new, 1, Rule{})
	require.NoError(t, err)
	require.Equal(t, Higher, e.Verdict)
	require.InDelta(t, 1.08, e.Lo, 1e-12)
	require.InDelta(t, 1.13, e.Hi, 1e-12)
	zero := make([]float64, 6)
	e, err = CompareDifference(zero, zero, 1, Rule{})
	require.NoError(t, err)
	require.Equal(t, Same, e.Verdict)
	_, err = CompareDifference(zero, zero, 0, Rule{})
	require.ErrorContains(t, err, "scale")
	_, err = CompareDifference(zero, []float64{math.NaN()}, 1, Rule{})
	require.ErrorContains(t, err, "not a finite number")
}

// Paired intervals hold the truth in at least 95 of 100 cases, whatever the
// seeds do.
func TestPairedIntervalCovers(t *testing.T) {
	const runs, truth = 400, 1.1
	missed := 0
	for seed := range runs {
		r := rng.Stream(uint64(seed), "paired")
		var old, new []float64
		for range 10 {
			workload := rng.LogNormal(r, 0, 1)
			old = append(old, workload*rng.LogNormal(r, 0, 0.05))
			new = append(new, workload*truth*rng.LogNormal(r, 0, 0.05))
		}
		e, err := ComparePaired(old, new, Rule{})
		require.NoError(t, err)
		if e.Lo > truth || e.Hi < truth {
			missed++
		}
	}
	require.LessOrEqual(t, missed, 34) // as in TestRatioIntervalCovers
}

// power is the share of simulated comparisons of n runs a side that find a true
// change at alpha.
func power(t *testing.T, n int, change, spread float64, paired bool) float64 {
	t.Helper()
	const trials = 1500
	found := 0
	r := rng.Stream(7, "power", n)
	for range trials {
		old, new := draw(r, n, spread), draw(r, n, spread)
		for i := range new {
			new[i] *= 1 + change
		}
		compare := Compare
		if paired { // the spread of a ratio is that of its log: only one side is noisy
			compare = ComparePaired
			old = draw(r, n, 0)
		}
		e, err := compare(old, new, Rule{})
		require.NoError(t, err)
		if e.P <= 0.05 && e.Ratio > 1 {
			found++
		}
	}
	return float64(found) / trials
}

func draw(r *rand.Rand, n int, spread float64) (xs []float64) {
	for range n {
		xs = append(xs, rng.LogNormal(r, 0, spread))
	}
	return xs
}

// What Plan promises holds: at a promised power of 0.8, at least 0.78 of the
// simulated comparisons find the change (0.02 is two standard deviations of the
// simulation), and nine tenths of the runs do not promise it already.
func TestPlanKeepsItsPromise(t *testing.T) {
	for _, tc := range []struct{ change, spread float64 }{{0.03, 0.02}, {0.05, 0.05}, {0.1, 0.05}, {0.2, 0.05}, {0.14, 0.05}, {0.11, 0.04}, {0.5, 0.05}} {
		n := Plan(tc.change, tc.spread, 0.05, 0.8)
		require.GreaterOrEqual(t, n, 4)
		require.GreaterOrEqual(t, power(t, n, tc.change, tc.spread, false), 0.78, "%+v n=%d", tc, n)
		m := PlanPaired(tc.change, tc.spread, 0.05, 0.8)
		require.GreaterOrEqual(t, m, 6)
		require.GreaterOrEqual(t, power(t, m, tc.change, tc.spread, true), 0.78, "paired %+v n=%d", tc, m)
	}
	// Not a waste either: with two thirds of the runs the power falls short.
	n := Plan(0.05, 0.05, 0.05, 0.8)
	require.Less(t, power(t, n*2/3, 0.05, 0.05, false), 0.75)
	// Below the least number nothing is ever found.
	require.Zero(t, power(t, 3, 10, 0.01, false))
	require.Zero(t, power(t, 5, 10, 0.01, true))
	require.Equal(t, 7, Plan(0.5, 1, 0.001, 0.0007), "q = 0.113: (3.29 - 3.19)²/0.076 = 0.1 -> 1, which can show nothing at 0.001")
}

func TestFewest(t *testing.T) {
	// 2/(2n over n): 20 orders for 3+3 (0.1), 70 for 4+4, 252 for 5+5, 924 for 6+6, 3432 for 7+7
	for alpha, want := range map[float64]int{0.1: 3, 0.05: 4, 0.01: 5, 0.0025: 6, 0.001: 7} {
		require.Equal(t, want, fewestRuns(alpha), "alpha %g", alpha)
	}
	// 2/2^n
	for alpha, want := range map[float64]int{0.5: 2, 0.05: 6, 0.01: 8, 0.001: 11} {
		require.Equal(t, want, fewestPairs(alpha), "alpha %g", alpha)
	}
}

func TestMore(t *testing.T) {
	one, err := Compare([]float64{1}, []float64{2}, Rule{})
	require.NoError(t, err)
	require.Equal(t, 3, one.More(1, 0.8), "four can be tested")
	require.Equal(t, 7, one.More(100, 0.8), "2/3432 > 0.05/100 = 0.0005 >= 2/12870: eight of sixteen, less one")
	pair, err := ComparePaired([]float64{1}, []float64{2}, Rule{})
	require.NoError(t, err)
	require.Equal(t, 5, pair.More(1, 0.8))
	e := Effect{Ratio: 0.97, Spread: 0.02, NOld: 5, NNew: 8, Test: MannWhitney, rule: Rule{}.orDefault()}
	require.Equal(t, Plan(1/0.97-1, 0.02, 0.05, 0.8)-5, e.More(1, 0.8))
	e.Ratio = 1.004
	require.Equal(t, Plan(0.006, 0.02, 0.05, 0.8)-5, e.More(1, 0.8))
	e.Ratio = 1.0099
	require.Equal(t, Plan(0.0025, 0.02, 0.05, 0.8)-5, e.More(1, 0.8))
	e.Spread = 0
	require.Equal(t, 1, e.More(1, 0.8))
}

package capacity

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// step is a system that holds up to a rate and counts how often it was asked.
func step(limit float64, asked *int) func(float64) (float64, error) {
	return func(rate float64) (float64, error) {
		*asked++
		if rate <= limit {
			return 1, nil
		}
		return 0.5, nil
	}
}

// A known threshold is bracketed within the width asked for, wherever the search
// starts. From a start 2^k away it takes at most floor |k| + 2 probes to bracket a factor of two,
// ceil(log2(ln 2 / ln 1.05)) = 4 to narrow it to 5 %, and two to look beside.
func TestFindBracketsAThreshold(t *testing.T) {
	for _, limit := range []float64{0.013, 0.7, 1, 33, 4000} {
		for _, start := range []float64{0.5, 1, 16} {
			for _, within := range []float64{0.001, 0.05, 1} {
				n := 0
				r, err := Find(Options{0.9, within, start}, step(limit, &n))
				require.NoError(t, err)
				require.LessOrEqual(t, r.Lo, limit)
				require.Greater(t, r.Hi, limit)
				require.LessOrEqual(t, r.Hi, r.Lo*(1+within))
				require.Empty(t, r.Dips)
				require.Len(t, r.Probes, n)
				if within == 0.05 {
					k := math.Abs(math.Log2(limit / start))
					require.LessOrEqual(t, float64(n), math.Floor(k)+2+4+2, "%g from %g", limit, start)
				}
			}
		}
	}
}

func TestFindTheEnds(t *testing.T) {
	n := 0
	never, err := Find(Options{0.9, 0.05, 8}, step(0, &n))
	require.NoError(t, err)
	require.Zero(t, never.Lo, "no rate passes")
	require.Equal(t, 8/math.Exp2(mostHalvings), never.Hi)
	require.Empty(t, never.Dips)

	n = 0
	always, err := Find(Options{0.9, 0.05, 8}, step(math.Inf(1), &n))
	require.NoError(t, err)
	require.Equal(t, 8*math.Exp2(17), always.Lo, "the first power of two times 8 above 1e6")
	slow, err := Find(Options{0.9, 0.05, 1e-3}, step(math.Inf(1), new(int)))
	require.NoError(t, err)
	require.Equal(t, 1e-3*math.Exp2(mostDoublings), slow.Lo)
	require.True(t, math.IsInf(always.Hi, 1))
	require.Equal(t, Estimate{always.Lo, always.Lo, math.Inf(1), n, 0, true}, Over([]Result{always}))
}

// A share of exactly the one asked for passes; a little less does not.
func TestShareIsReached(t *testing.T) {
	for share, want := range map[float64]float64{0.9: 4, math.Nextafter(0.9, 0): 0} {
		r, err := Find(Options{0.9, 0.05, 4}, func(rate float64) (float64, error) {
			if rate <= 4 {
				return share, nil
			}
			return 0, nil
		})
		require.NoError(t, err)
		require.Equal(t, want, r.Lo)
	}
}

// A radio that sleeps between slow requests: below 1/s all fail, up to 5/s all
// pass. From a start that fails the search looks above too, and says what it saw.
func TestDipsBelowAreReported(t *testing.T) {
	radio := func(rate float64) (float64, error) {
		if rate >= 1 && rate <= 5 {
			return 1, nil
		}
		return 0, nil
	}
	r, err := Find(Options{0.9, 0.05, 0.4}, radio)
	require.NoError(t, err)
	require.InEpsilon(t, 5, r.Lo, 0.05)
	require.Greater(t, r.Hi, 5.0)
	require.NotEmpty(t, r.Dips)
	for _, p := range r.Dips {
		require.Less(t, p.Rate, 1.0)
	}
	r, err = Find(Options{0.9, 0.05, 2}, func(rate float64) (float64, error) { // a dip right below what is found
		if rate <= 8 && (rate > 7 || rate < 6) {
			return 1, nil
		}
		return 0, nil
	})
	require.NoError(t, err)
	require.Equal(t, 8.0, r.Lo)
	require.Len(t, r.Dips, 1, "8 / 1.25 = 6.4 fails")
}

// Failures between 4.5 and 5 hide a system that holds up to 40: the look above
// what was found goes on there.
func TestAPassAboveAFailureIsFollowed(t *testing.T) {
	r, err := Find(Options{0.9, 0.05, 1}, func(rate float64) (float64, error) {
		if rate <= 40 && (rate < 7.5 || rate > 8.2) {
			return 1, nil
		}
		return 0, nil
	})
	require.NoError(t, err)
	require.InEpsilon(t, 40, r.Lo, 0.05)
	require.NotEmpty(t, r.Dips)
}

func TestErrors(t *testing.T) {
	boom := errors.New("boom")
	_, err := Find(Options{0.9, 0.05, 1}, func(float64) (float64, error) { return 0, boom })
	require.ErrorIs(t, err, boom)
	_, err = Find(Options{0.9, 0.05, 1}, func(float64) (float64, error) { return math.NaN(), nil })
	require.ErrorContains(t, err, "the share at 1 requests/s is NaN")
	for want, o := range map[string]Options{
		"share: want a share": {0, 0.05, 1}, "share: want": {1.01, 0.05, 1}, "within: want": {0.9, 0, 1}, "start: want": {0.9, 0.05, 0},
	} {
		_, err := Find(o, nil)
		require.ErrorContains(t, err, want)
	}
}

// Of 1, 2, 3 and 9 the median (the lower of two) is 2; the interval takes in all brackets.
func TestOver(t *testing.T) {
	probes := make([]Probe, 5)
	e := Over([]Result{{Lo: 3, Hi: 3.1, Probes: probes}, {Lo: 1, Hi: 1.1, Probes: probes, Dips: probes[:2]}, {Lo: 9, Hi: 9.2}, {Lo: 2, Hi: 2.1}})
	require.Equal(t, Estimate{2, 1, 9.2, 10, 2, false}, e)
	zero := Over([]Result{{Lo: 0, Hi: 0.01}, {Lo: 0, Hi: 0.02}})
	require.Zero(t, zero.Rate)
	require.Equal(t, 0.02, zero.Hi)
}

package orchestrate

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// chain is the stationary law of a birth-death process with arrivals lambda and deaths mu(k), summed numerically.
func chain(lambda float64, mu func(k int) float64) (number, p0 float64) {
	total, weight := 1.0, 1.0
	for k := 1; k < 100_000 && weight > 1e-18*total; k++ {
		weight *= lambda / mu(k)
		total += weight
		number += float64(k) * weight
	}
	return number / total, 1 / total
}

// TestX4QueuesEqualTheirMarkovChains: closed forms against the chains' own stationary laws.
func TestX4QueuesEqualTheirMarkovChains(t *testing.T) {
	for _, c := range []int{1, 2, 3, 7, 20} {
		for _, load := range []float64{0.1, 0.5, 0.9} {
			mu := 1.7
			lambda := load * mu * float64(c)
			want, _ := chain(lambda, func(k int) float64 { return mu * float64(min(k, c)) })
			q := MMC(lambda, mu, c)
			require.InEpsilon(t, want, q.Number, 1e-9, "c=%d load=%g", c, load)
			require.InEpsilon(t, q.Number, lambda*q.Sojourn, 1e-12)
			_, p0 := chain(lambda, func(k int) float64 { return mu * float64(min(k, c)) })
			tail := p0 // chance that fewer than c are there
			sum := p0
			for k := 1; k < c; k++ {
				tail *= lambda / (mu * float64(k))
				sum += tail
			}
			require.InDelta(t, 1-sum, ErlangC(lambda/mu, c), 1e-9)
		}
	}
	require.InDelta(t, 4.0/9, ErlangC(2, 3), 1e-15) // by hand: a^3/3! x 3/(3-2) = 4, over 1 + 2 + 2 + 4 = 9
	require.InDelta(t, 0.4, ErlangB(2, 2), 1e-15)   // 2 / (1 + 2 + 2)
	require.InEpsilon(t, MM1(0.6, 1).Wait, MMC(0.6, 1, 1).Wait, 1e-12)
	require.InEpsilon(t, 1.5, MM1(0.6, 1).Wait, 1e-12)  // rho/(mu-lambda)
	require.InEpsilon(t, 0.75, MD1(0.6, 1).Wait, 1e-12) // half of that
	require.InEpsilon(t, 2.5, PS(0.6, 1).Sojourn, 1e-12)
	require.InEpsilon(t, 1.5, PS(0.6, 1).Wait, 1e-12) // as M/M/1: the same law of the number in the system
	require.True(t, math.IsInf(MM1(2, 1).Wait, 1))
	require.True(t, math.IsInf(MMC(2, 1, 2).Wait, 1))
	require.True(t, math.IsInf(PS(1, 1).Sojourn, 1))
	require.Equal(t, 1.0, ErlangC(3, 3))
	require.Equal(t, 1.0, MMCTail(3, 1, 3, 5))
}

// TestX4WaitsOfLindleysRecursion: the closed forms against waits of customers one by one, W' = max(0, W + S - A).
func TestX4WaitsOfLindleysRecursion(t *testing.T) {
	for _, tc := range []struct {
		name  string
		draw  func(r rng.Source) float64
		queue func(lambda float64) Queue
	}{
		{"exponential", rng.Exp, func(l float64) Queue { return MM1(l, 1) }},
		{"fixed", func(rng.Source) float64 { return 1 }, func(l float64) Queue { return MD1(l, 1) }},
		{"two values", func(r rng.Source) float64 { // 0.5 or 3, mean 1, second moment 2.0
			if rng.Float64(r) < 0.8 {
				return 0.5
			}
			return 3
		}, func(l float64) Queue { return MG1(l, 1, 0.8*0.25+0.2*9) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := rng.Stream(3, "lindley", tc.name)
			w, sum := 0.0, 0.0
			const n, lambda = 400_000, 0.6
			for range n {
				sum += w
				w = max(0, w+tc.draw(r)-rng.Exp(r)/lambda)
			}
			require.InEpsilon(t, tc.queue(lambda).Wait, sum/n, 0.03)
		})
	}
}

// TestX4TheSmallestPool: one server fewer would miss the target.
func TestX4TheSmallestPool(t *testing.T) {
	for _, lambda := range []float64{0, 0.3, 2, 11.5, 40} {
		for _, wait := range []float64{0.001, 0.05, 1} {
			c, err := Servers(lambda, 1.5, wait)
			require.NoError(t, err)
			require.LessOrEqual(t, MMC(lambda, 1.5, c).Wait, wait)
			if c > 1 {
				require.Greater(t, MMC(lambda, 1.5, c-1).Wait, wait, "lambda=%g", lambda)
			}
			c, err = ServersTail(lambda, 1.5, wait, 0.1)
			require.NoError(t, err)
			require.LessOrEqual(t, MMCTail(lambda, 1.5, c, wait), 0.1)
			if c > 1 {
				require.Greater(t, MMCTail(lambda, 1.5, c-1, wait), 0.1)
			}
		}
	}
	require.InEpsilon(t, 0.6*math.Exp(-0.8), MMCTail(0.6, 1, 1, 2), 1e-12) // M/M/1: rho e^-(mu-lambda)t
	for _, bad := range [][3]float64{{1, 0, 1}, {1, 1, 0}, {-1, 1, 1}, {math.Inf(1), 1, 1}, {math.NaN(), 1, 1}} {
		_, err := Servers(bad[0], bad[1], bad[2])
		require.ErrorContains(t, err, "want arrivals >= 0", fmt.Sprint(bad))
	}
	_, err := ServersTail(1, 1, 1, 1)
	require.ErrorContains(t, err, "share in (0, 1)")
}

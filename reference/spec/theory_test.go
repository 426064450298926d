package spec

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// The theory table of Leviathan et al., at a draft that costs nothing.
func TestI10TheoryTable(t *testing.T) {
	for _, tc := range []struct {
		alpha      float64
		gamma      int
		speed, ops float64
	}{{.6, 2, 1.96, 1.53}, {.7, 3, 2.53, 1.58}, {.8, 2, 2.44, 1.23}, {.8, 5, 3.69, 1.63}, {.9, 2, 2.71, 1.11}, {.9, 10, 6.86, 1.60}} {
		require.InDelta(t, tc.speed, SpeedUp(tc.alpha, tc.gamma, 0), 0.005)
		require.InDelta(t, tc.ops, Operations(tc.alpha, tc.gamma, 0), 0.005)
		closed := (1 - math.Pow(tc.alpha, float64(tc.gamma+1))) / (1 - tc.alpha)
		require.InDelta(t, closed, Tokens(tc.alpha, tc.gamma), 1e-12)
		require.InDelta(t, tc.alpha, Alpha(Rate(tc.alpha, tc.gamma), tc.gamma), 1e-12)
	}
	require.Equal(t, 5.0, Tokens(1, 4))
	require.InDelta(t, 7.0/4, SpeedUp(1, 6, 0.5), 1e-12) // 7 tokens in 1 + 6/2 steps
	require.InDelta(t, 0.737, Alpha(0.392, 6), 0.0005)   // the two rates that papers print
}

// Chains whose drafts stay with probability α: the mean of 2e5 rounds is within four standard errors of Tokens.
func TestI10MonteCarloTokensPerRound(t *testing.T) {
	r := rng.Stream(9, "spec monte carlo")
	for _, tc := range []struct {
		alpha float64
		gamma int
	}{{.6, 2}, {.8, 5}, {.9, 10}} {
		p, q := make([][]float64, tc.gamma+1), make([][]float64, tc.gamma)
		for i := range p {
			p[i] = []float64{tc.alpha, 1 - tc.alpha}
		}
		for i := range q {
			q[i] = []float64{1, 0} // the overlap is α
		}
		const rounds = 200_000
		var sum, square float64
		for range rounds {
			k, _ := Chain(p, q, make([]int, tc.gamma), r.Float64)
			sum += float64(k + 1)
			square += float64((k + 1) * (k + 1))
		}
		mean := sum / rounds
		require.InDelta(t, Tokens(tc.alpha, tc.gamma), mean, 4*math.Sqrt((square/rounds-mean*mean)/rounds))
	}
}

func TestI10BestGammaUnderRTT(t *testing.T) {
	var got []int
	for _, rtt := range []float64{0, .02, .05, .1, .2} {
		got = append(got, Law{Alpha: .8, DraftSec: .01, VerifySec: .1, RTTSec: rtt}.BestGamma(30))
	}
	require.Equal(t, []int{6, 6, 7, 8, 9}, got)
	require.Zero(t, Law{Alpha: 0, DraftSec: .01, VerifySec: .1}.BestGamma(30), "a draft that is always wrong")
}

func TestI10BreakEvenRTT(t *testing.T) {
	l := Law{Alpha: .8, DraftSec: .01, VerifySec: .1}
	l.RTTSec = l.BreakEvenRTT(5, .1)
	require.Greater(t, l.RTTSec, 0.0)
	require.InDelta(t, 1/.1, l.PerSec(5), 1e-9, "as fast as the target alone")
}

// The published rows of DSSD: the overhead of one row predicts the others within 1.2 %.
func TestI11SplitSpeedFromOneRow(t *testing.T) {
	row := func(rttMs, perSec, target, draft float64) Measured {
		return Measured{RTTSec: rttMs / 1000, PerSec: perSec, TargetOnly: target, DraftOnly: draft, Gamma: 6, AcceptShare: .392}
	}
	overhead := row(0, 13.86, 7.66, 106.62).Overhead()
	require.InDelta(t, 0.055, overhead, 0.0005)
	require.InEpsilon(t, 13.28, row(20, 13.28, 7.66, 105.3).Predict(overhead), 0.012)
	require.InEpsilon(t, 11.93, row(50, 11.93, 7.59, 85.25).Predict(overhead), 0.012)
	require.InEpsilon(t, 13.86, row(0, 0, 7.66, 106.62).Predict(overhead), 1e-12)
}

// The process itself: rounds in a row, drafts ahead of time if the last round stayed whole and the guess was right.
func TestI10ProactiveRateAgainstItsProcess(t *testing.T) {
	r := rng.Stream(10, "spec proactive")
	for _, l := range []Law{
		{Alpha: .9, DraftSec: .01, VerifySec: .05, RTTSec: .03},
		{Alpha: .8, DraftSec: .03, VerifySec: .02, RTTSec: .01}, // the wait is too short for a round of drafts
	} {
		const gamma, guess, rounds = 4, .7, 200_000
		var tokens int
		var sec, ahead float64
		for range rounds {
			sec += gamma*l.DraftSec - ahead + l.VerifySec + l.RTTSec
			k := 0
			for k < gamma && r.Float64() < l.Alpha {
				k++
			}
			tokens += k + 1
			if ahead = 0; k == gamma && r.Float64() < guess {
				ahead = min(gamma*l.DraftSec, l.VerifySec+l.RTTSec)
			}
		}
		require.InEpsilon(t, float64(tokens)/sec, l.ProactivePerSec(gamma, guess), 0.01)
		require.Equal(t, l.PerSec(gamma), l.ProactivePerSec(gamma, 0))
		require.Greater(t, l.ProactivePerSec(gamma, 1), l.PerSec(gamma))
	}
}

func TestI10PipelinedRate(t *testing.T) {
	l := Law{Alpha: .8, DraftSec: .01, VerifySec: .05, RTTSec: .1}
	require.Equal(t, l.PerSec(5), l.PipelinedPerSec(5, 1))
	require.InDelta(t, Tokens(.8, 5)/.05, l.PipelinedPerSec(5, 50), 1e-12)
}

func TestI10TreesAndStops(t *testing.T) {
	require.InDelta(t, Tokens(.7, 3), TreeTokens([]float64{.7, .7, .7}), 1e-12)
	require.InDelta(t, 1+.9+.9*.6, TopTokens([]float64{.6, .9}, []int{5, 1}), 1e-12)
	require.Equal(t, 1.0, TopTokens([]float64{.6}, []int{0}))
	require.InDelta(t, math.Log(4), Entropy([]float32{.25, .25, .25, .25}), 1e-12)
	require.Zero(t, Entropy([]float64{0, 1}))
	require.True(t, StopsEarly([]float64{.5, .5}, .6))
	require.False(t, StopsEarly([]float64{.9, .1}, .6))
	require.False(t, FallsBack([]float64{.9, .9}, .8))
	require.True(t, FallsBack([]float64{.9, .9, .9}, .8))
}

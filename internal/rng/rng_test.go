package rng

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStreamsAreNamed(t *testing.T) {
	a, b := Stream(1, "ab", "c"), Stream(1, "a", "bc")
	require.NotEqual(t, a.Uint64(), b.Uint64(), "the border between names is part of the key")
	require.Equal(t, Stream(7, "x", 3).Uint64(), Stream(7, "x", int64(3)).Uint64())
	require.NotEqual(t, Stream(7, "x").Uint64(), Stream(8, "x").Uint64())
	require.Panics(t, func() { Stream(1, 2.5) })
}

// The vectors pin the schedule: if one moves, every recorded contract moves.
func TestVectors(t *testing.T) {
	r := Stream(42, "arrivals", "golden")
	k := NewKey(42, "length", "golden")
	l := k.At(3)
	for _, tc := range []struct {
		name string
		got  float64
		want float64
	}{
		{"exp", Exp(r), vecExp}, {"normal", Normal(r), vecNormal}, {"gamma 0.23", Gamma(r, 0.231), vecGammaSmall},
		{"gamma 2", Gamma(r, 2), vecGamma}, {"weibull", Weibull(r, 0.42), vecWeibull}, {"luck", l.Float64(), vecLuck},
	} {
		require.Equal(t, math.Float64bits(tc.want), math.Float64bits(tc.got), "%s: got %#v", tc.name, tc.got)
	}
}

func TestMoments(t *testing.T) {
	const n = 200_000
	for _, tc := range []struct {
		name       string
		draw       func(Source) float64
		mean, vari float64
	}{
		{"exponential", Exp, 1, 1},
		{"normal", Normal, 0, 1},
		{"gamma k=0.231", func(r Source) float64 { return Gamma(r, 0.231) }, 0.231, 0.231},
		{"gamma k=3", func(r Source) float64 { return Gamma(r, 3) }, 3, 3},
		{"weibull c=2", func(r Source) float64 { return Weibull(r, 2) }, math.Sqrt(math.Pi) / 2, 1 - math.Pi/4},
		{"lognormal 0,0.5", func(r Source) float64 { return LogNormal(r, 0, 0.5) }, math.Exp(0.125), (math.Exp(0.25) - 1) * math.Exp(0.25)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, s, q := Stream(5, tc.name), 0.0, 0.0
			for range n {
				x := tc.draw(r)
				s += x
				q += x * x
			}
			mean := s / n
			// five standard errors of the mean; the variance within 5 percent
			require.InDelta(t, tc.mean, mean, 5*math.Sqrt(tc.vari/n))
			require.InEpsilon(t, tc.vari, q/n-mean*mean, 0.05)
		})
	}
}

// Luck of neighbouring counters must look independent: the uniform mean and
// the lag-1 correlation over consecutive counters stay inside 5 sigma.
func TestLuckAcrossCounters(t *testing.T) {
	const n = 100_000
	k := NewKey(1, "luck")
	var s, cross, prev float64
	for i := range n {
		l := k.At(uint64(i))
		u := l.Float64() - 0.5
		s += u
		cross += u * prev
		prev = u
	}
	require.Less(t, math.Abs(s/n), 5*math.Sqrt(1.0/12/n))
	require.Less(t, math.Abs(cross/n), 5.0/12/math.Sqrt(n))
	scratch := new(Luck) // callers keep one: an interface would move a local to the heap
	require.Zero(t, testing.AllocsPerRun(100, func() { *scratch = k.At(9); _ = Gamma(scratch, 2) }))
}

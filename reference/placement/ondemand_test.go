package placement

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

func drawn(seed uint64, n int) ([]Layer, float64) {
	luck := rng.Stream(seed, "layers")
	out := make([]Layer, n)
	for i := range out {
		out[i] = Layer{Device: rng.Float64(luck), Edge: 0.3 * rng.Float64(luck), Fetch: 2 * rng.Float64(luck), Up: 0.5 * rng.Float64(luck), Down: 0.5 * rng.Float64(luck)}
		if luck.IntN(3) == 0 {
			out[i].Fetch = 0
		}
	}
	return out, 0.2 * rng.Float64(luck)
}

// walk is the time of a route, step by step.
func walk(layers []Layer, edge []bool, last float64) (t float64) {
	at := false
	for i, l := range layers {
		switch {
		case edge[i] && !at:
			t += l.Up
		case !edge[i] && at:
			t += l.Down
		}
		if at = edge[i]; at {
			t += l.Edge
		} else {
			t += l.Fetch + l.Device
		}
	}
	if at {
		t += last
	}
	return t
}

// The shortest path is the best of all routes, for up to eight layers, and the route it names takes the time it says.
func TestC9ShortestPathIsBruteForce(t *testing.T) {
	mixed := 0
	for seed := range uint64(300) {
		layers, last := drawn(seed, 1+int(seed%8))
		got, err := Shortest(layers, last)
		require.NoError(t, err)
		best := math.Inf(1)
		for set := range 1 << len(layers) {
			edge := make([]bool, len(layers))
			for i := range edge {
				edge[i] = set>>i&1 != 0
			}
			best = min(best, walk(layers, edge, last))
		}
		require.InDelta(t, best, got.Time, 1e-12, "seed %d", seed)
		require.InDelta(t, got.Time, walk(layers, got.AtEdge, last), 1e-12)
		for i := range got.AtEdge {
			if got.AtEdge[i] != got.AtEdge[0] {
				mixed++
				break
			}
		}
	}
	require.Greater(t, mixed, 30, "partial execution is best at times")
}

// Loading that overlaps takes at least the longer of loading and computing, and at most both.
func TestC9OverlapIsBetweenMaxAndSum(t *testing.T) {
	for seed := range uint64(200) {
		layers, _ := drawn(seed, 1+int(seed%12))
		done, loaded, computed := Overlapped(layers)
		require.GreaterOrEqual(t, done, max(loaded, computed)-1e-12)
		require.LessOrEqual(t, done, loaded+computed+1e-12)
	}
	done, _, _ := Overlapped([]Layer{{Fetch: 1, Device: 3}, {Fetch: 1, Device: 2}, {Fetch: 9, Device: 1}})
	require.Equal(t, 12.0, done)
}

func TestC9Tiers(t *testing.T) {
	tiers := []Tier{{"memory", 0.5, 10e9}, {"disk", 0, 1e9}, {"remote", 0, 1e8}}
	at, s, err := Quickest(tiers, 1e8)
	require.NoError(t, err)
	require.Equal(t, 1, at)
	require.InDelta(t, 0.1, s, 1e-12)
	at, _, err = Quickest(tiers, 1e10)
	require.NoError(t, err)
	require.Zero(t, at)
	_, _, err = Quickest(nil, 1)
	require.ErrorContains(t, err, "no tier")
	_, _, err = Quickest([]Tier{{"x", 0, 0}}, 1)
	require.ErrorContains(t, err, "positive rate")
	_, err = Shortest(nil, 0)
	require.ErrorContains(t, err, "at least one layer")
	_, err = Shortest([]Layer{{Device: math.NaN()}}, 0)
	require.ErrorContains(t, err, "layer 0")
}

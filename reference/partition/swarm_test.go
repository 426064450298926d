package partition

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

func TestI5RouteEqualsEnumeration(t *testing.T) {
	r := rng.Stream(1, "swarm route")
	const blocks = 8
	found := 0
	for range 300 {
		servers := make([]Server, 6)
		for i := range servers {
			start := r.IntN(blocks)
			servers[i] = Server{start, start + 1 + r.IntN(blocks-start), 1 + 100*r.Float64(), r.IntN(6) == 0}
		}
		rtt := make([][]float64, 7)
		for i := range rtt {
			for range 7 {
				rtt[i] = append(rtt[i], r.Float64()*0.2)
			}
		}
		best := math.Inf(1)
		var walk func(at, b int, sec float64)
		walk = func(at, b int, sec float64) {
			if b == blocks {
				best = min(best, sec+rtt[at][6]/2)
				return
			}
			for to, s := range servers {
				if s.Start > b || s.End <= b {
					continue
				}
				cost := rtt[at][to]/2 + 0.018 + float64(s.End-b)/s.BlocksPerSec
				if s.Full {
					cost += 10
				}
				walk(to, s.End, sec+cost)
			}
		}
		walk(6, 0, 0)
		hops, sec, err := Route(blocks, servers, rtt)
		if math.IsInf(best, 1) {
			require.ErrorContains(t, err, "no chain of servers")
			continue
		}
		found++
		require.NoError(t, err)
		require.InDelta(t, best, sec, 1e-12)
		at, b, real := 6, 0, 0.0
		for _, h := range hops {
			require.Equal(t, b, h.Start)
			real += hopSec(servers[h.Server], rtt[at][h.Server]) + float64(h.End-h.Start)/servers[h.Server].BlocksPerSec
			at, b = h.Server, h.End
		}
		require.Equal(t, blocks, b)
		require.InDelta(t, sec, real+rtt[at][6]/2, 1e-12)
	}
	require.Greater(t, found, 100)
}

func TestI5NewServerFillsTheWeakestBlocks(t *testing.T) {
	for _, tc := range []struct {
		name     string
		coverage []float64
		slots    int
		want     int
	}{
		{"an empty swarm", []float64{0, 0, 0, 0}, 2, 0},
		{"the gap", []float64{5, 5, 0, 0, 5}, 2, 2},
		{"the weakest block decides before the sum", []float64{1, 9, 3, 3, 3}, 2, 0},
		{"equal weakest, then the next", []float64{1, 4, 9, 2, 1}, 2, 3},
		{"room for all", []float64{3, 2, 1}, 3, 0},
	} {
		require.Equal(t, tc.want, ChooseBlocks(tc.coverage, tc.slots), tc.name)
	}
	require.Equal(t, []float64{2, 5, 3}, Coverage(3, []Server{{0, 2, 2, false}, {1, 3, 3, false}}))
}

func TestI5Rebalance(t *testing.T) {
	// Blocks 0 and 1 have three servers, 2 and 3 one weak one: moving one of the three lifts the weakest from 1 to 3.
	servers := []Server{{0, 2, 2, false}, {0, 2, 2, false}, {0, 2, 2, false}, {2, 4, 1, false}}
	before := slices.Clone(servers)
	require.True(t, Rebalances(4, servers, 0, 0.75))
	require.False(t, Rebalances(4, servers, 0, 0.3), "the swarm is good enough: 1/3 of what it could be")
	require.False(t, Rebalances(4, servers, 3, 0.75), "nobody else holds its blocks")
	require.False(t, Rebalances(4, []Server{{0, 2, 1, false}, {0, 2, 1, false}, {2, 4, 1, false}, {2, 4, 1, false}}, 0, 0.99), "balanced")
	require.Equal(t, before, servers)
}

// What a longer round trip adds lies between a chain and a star: by hand for three servers and 100 ms more.
func TestI5BracketOfRoundTrips(t *testing.T) {
	require.InDelta(t, 0.2, ExtraChainSec(3, 0.1), 1e-12)
	require.InDelta(t, 0.3, ExtraStarSec(3, 0.1), 1e-12)
	servers := []Server{{0, 1, 1, false}, {1, 2, 1, false}, {2, 3, 1, false}}
	route := func(rttSec float64) float64 {
		rtt := slices.Repeat([][]float64{slices.Repeat([]float64{rttSec}, 4)}, 4)
		_, sec, err := Route(3, servers, rtt)
		require.NoError(t, err)
		return sec
	}
	require.InDelta(t, ExtraChainSec(3, 0.1), route(0.15)-route(0.05), 1e-12, "the router's cost is the chain's")
}

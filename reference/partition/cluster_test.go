package partition

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

func someCluster(r *rand.Rand, layers, devices int) Cluster {
	f := someFleet(r, layers, slices.Repeat([]int{1}, devices))
	c := Cluster{ComputeSec: f.ComputeSec, Out: f.Out, BytesPerSec: f.BytesPerSec, Need: f.Need, Source: r.IntN(devices)}
	for range devices {
		c.Memory = append(c.Memory, 1+2.5*r.Float64())
	}
	return c
}

func bruteForce(c Cluster) float64 {
	best, where := math.Inf(1), make([]int, len(c.Need))
	for code := range int(math.Pow(float64(len(c.Memory)), float64(len(where)))) {
		for i := range where {
			where[i] = code % len(c.Memory)
			code /= len(c.Memory)
		}
		left := slices.Clone(c.Memory)
		sec, at := 0.0, c.Source
		fits := where[0] == c.Source
		for i, j := range where {
			if i > 0 && j != at {
				sec += c.Out[i-1] / c.BytesPerSec[at][j]
			}
			sec, at = sec+c.ComputeSec[i][j], j
			left[j] -= c.Need[i]
			fits = fits && left[j] >= 0
			if !fits {
				break
			}
		}
		if fits {
			if at != c.Source {
				sec += c.Out[len(where)-1] / c.BytesPerSec[at][c.Source]
			}
			best = min(best, sec)
		}
	}
	return best
}

func TestI5LatencyDPEqualsBruteForceWithoutMemoryLimits(t *testing.T) {
	r := rng.Stream(4, "cluster free")
	for range 200 {
		c := someCluster(r, 6, 3)
		c.Memory = []float64{1e9, 1e9, 1e9}
		where, sec, err := c.LatencyDP()
		require.NoError(t, err)
		require.InDelta(t, bruteForce(c), sec, 1e-12)
		require.InDelta(t, sec, c.Sec(where), 1e-12)
	}
}

func TestI5LatencyDPIsAHeuristicWithMemoryLimitsAndTheExactOneIsNot(t *testing.T) {
	r := rng.Stream(5, "cluster limits")
	solved, optimal, lost := 0, 0, 0
	for range 300 {
		c := someCluster(r, 6, 3)
		want := bruteForce(c)
		where, exact, err := c.LatencyExact()
		if math.IsInf(want, 1) {
			require.ErrorIs(t, err, ErrNoRoom)
			continue
		}
		require.NoError(t, err)
		require.InDelta(t, want, exact, 1e-12)
		require.True(t, c.Fits(where))
		require.InDelta(t, exact, c.Sec(where), 1e-12)
		where, sec, err := c.LatencyDP()
		if err != nil {
			lost++
			continue
		}
		require.GreaterOrEqual(t, sec, want-1e-12)
		require.True(t, c.Fits(where))
		solved++
		if sec <= want+1e-12 {
			optimal++
		}
	}
	require.Greater(t, solved, 100)
	require.Less(t, optimal, solved, "with limits the dynamic program misses some optima")
	t.Logf("%d plans of the dynamic program, %d of them optimal; %d feasible instances without a plan", solved, optimal, lost)
}

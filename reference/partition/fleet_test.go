package partition

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

func someFleet(r *rand.Rand, layers int, count []int) Fleet {
	f := Fleet{Count: count, First: -1, Queue: r.Float64()}
	for range layers {
		var row []float64
		for range count {
			row = append(row, 0.1+r.Float64())
		}
		f.ComputeSec = append(f.ComputeSec, row)
		f.Out = append(f.Out, r.Float64())
		f.Need = append(f.Need, 0.5+r.Float64())
	}
	for range count {
		var rate, ping []float64
		for range count {
			rate, ping = append(rate, 0.5+4*r.Float64()), append(ping, r.Float64())
		}
		f.BytesPerSec, f.PingSec = append(f.BytesPerSec, rate), append(f.PingSec, ping)
		f.Memory = append(f.Memory, 2+4*r.Float64())
	}
	return f
}

// everyPipeline visits all runs of layers on all orders of machines, hosts told apart, that fit.
func everyPipeline(f Fleet, visit func([]Stage)) {
	var hosts []int // the type of each host
	for u, n := range f.Count {
		hosts = append(hosts, slices.Repeat([]int{u}, n)...)
	}
	taken := make([]bool, len(hosts))
	var grow func(at int, stages []Stage)
	grow = func(at int, stages []Stage) {
		if at == len(f.Need) {
			visit(stages)
			return
		}
		for h, u := range hosts {
			if taken[h] || at == 0 && f.First >= 0 && u != f.First {
				continue
			}
			taken[h] = true
			need := 0.0
			if at > 0 {
				need += f.Queue * f.Out[at-1]
			}
			for end := at + 1; end <= len(f.Need); end++ {
				need += f.Need[end-1]
				if need+f.Queue*f.Out[end-1] <= f.Memory[u] {
					grow(end, append(slices.Clone(stages), Stage{u, at, end}))
				}
			}
			taken[h] = false
		}
	}
	grow(0, nil)
}

func seconds(f Fleet, stages []Stage) (total, worst float64) {
	for n, s := range stages {
		var sec float64
		for i := s.Lo; i < s.Hi; i++ {
			sec += f.ComputeSec[i][s.Type]
		}
		var send float64
		if n > 0 {
			from := stages[n-1].Type
			send = f.Out[s.Lo-1] / f.BytesPerSec[from][s.Type]
			if f.PingSec != nil {
				send += f.PingSec[from][s.Type]
			}
		}
		total, worst = total+sec+send, max(worst, sec, send)
	}
	return total, worst
}

func againstBruteForce(t *testing.T, f Fleet) (feasible bool) {
	total, worst := math.Inf(1), math.Inf(1)
	everyPipeline(f, func(stages []Stage) {
		a, b := seconds(f, stages)
		total, worst = min(total, a), min(worst, b)
	})
	stages, got, err := f.Throughput()
	if math.IsInf(worst, 1) {
		require.ErrorIs(t, err, ErrNoRoom)
		return false
	}
	require.NoError(t, err)
	require.InDelta(t, worst, got, 1e-12)
	_, real := seconds(f, stages)
	require.InDelta(t, worst, real, 1e-12, "the plan is as quick as it says")
	require.InDelta(t, worst, f.Bottleneck(stages), 1e-12)
	stages, got, err = f.Latency()
	require.NoError(t, err)
	require.InDelta(t, total, got, 1e-12)
	real, _ = seconds(f, stages)
	require.InDelta(t, total, real, 1e-12)
	return true
}

// EdgeShard: 200 instances of 7 layers on 4 different devices, the first layer on the first.
func TestI5ThroughputDPEqualsBruteForce(t *testing.T) {
	r := rng.Stream(1, "fleet edgeshard")
	feasible := 0
	for range 200 {
		f := someFleet(r, 7, []int{1, 1, 1, 1})
		f.First, f.PingSec = 0, nil
		if againstBruteForce(t, f) {
			feasible++
		}
	}
	require.Greater(t, feasible, 100)
}

// PipeEdge: types with several hosts. LinguaLinked's objective is checked on the same fleets, with pings.
func TestI5TypesDPEqualsBruteForceWithSeveralHosts(t *testing.T) {
	r := rng.Stream(2, "fleet pipeedge")
	feasible := 0
	for n := range 120 {
		if againstBruteForce(t, someFleet(r, 6, [][]int{{2, 2}, {3, 1}, {1, 0, 3}}[n%3])) {
			feasible++
		}
	}
	require.Greater(t, feasible, 60)
}

// The fixture that an index by type instead of by host gets wrong: of type 0 there are two, of type 1 one, and all are needed.
func TestI5SeveralHostsOfOneTypeAreAllUsed(t *testing.T) {
	f := Fleet{
		ComputeSec: [][]float64{{1, 1}, {1, 1}, {1, 1}}, Out: []float64{0, 0, 0}, BytesPerSec: [][]float64{{1, 1}, {1, 1}},
		Need: []float64{1, 1, 1}, Memory: []float64{1, 1}, Count: []int{2, 1}, First: 1,
	}
	stages, worst, err := f.Throughput()
	require.NoError(t, err)
	require.Equal(t, 1.0, worst)
	require.Equal(t, []Stage{{1, 0, 1}, {0, 1, 2}, {0, 2, 3}}, stages)
	f.Count[0] = 1
	_, _, err = f.Throughput()
	require.ErrorIs(t, err, ErrNoRoom)
	_, _, err = Fleet{Need: make([]float64, 32), Count: slices.Repeat([]int{1}, 30)}.Throughput()
	require.ErrorContains(t, err, "too many states")
}

func TestI5IdenticalDevicesAreBalancedWithinOneLayer(t *testing.T) {
	for layers := 1; layers <= 13; layers++ {
		for devices := 1; devices <= 5; devices++ {
			f := Fleet{BytesPerSec: [][]float64{{1e9}}, Memory: []float64{1e9}, Count: []int{devices}, First: -1}
			for range layers {
				f.ComputeSec, f.Out, f.Need = append(f.ComputeSec, []float64{1}), append(f.Out, 0), append(f.Need, 1)
			}
			stages, worst, err := f.Throughput()
			require.NoError(t, err)
			require.Equal(t, math.Ceil(float64(layers)/float64(devices)), worst)
			require.Len(t, stages, min(layers, devices))
			for _, s := range stages {
				require.GreaterOrEqual(t, s.Hi-s.Lo, layers/devices)
			}
		}
	}
}

// A pipeline run event by event: a stage serves jobs in the order of (token, micro-batch).
func period(stages []float64, micro int, bubble bool) float64 {
	free := make([]float64, len(stages))
	done := make([]float64, micro) // when each micro-batch's last token was out
	var ends []float64
	for range 400 {
		barrier := most(done)
		for b := range micro {
			at := done[b]
			if bubble {
				at = barrier
			}
			for s, sec := range stages {
				at = max(at, free[s]) + sec
				free[s] = at
			}
			done[b] = at
		}
		ends = append(ends, most(done))
	}
	return (ends[399] - ends[199]) / 200
}

func TestI5BubbleSharesEqualTheirProcess(t *testing.T) {
	r := rng.Stream(3, "fleet bubbles")
	for range 100 {
		stages := make([]float64, 1+r.IntN(5))
		for i := range stages {
			stages[i] = 0.2 + r.Float64()
		}
		micro := 1 + r.IntN(6)
		busy := float64(micro) * sum(stages) / float64(len(stages))
		require.InDelta(t, 1-busy/period(stages, micro, true), BubbleShare(stages, micro), 1e-9)
		require.InDelta(t, 1-busy/period(stages, micro, false), NoBubbleShare(stages, micro), 1e-9)
	}
	require.InDelta(t, 3./(4+8-1), BubbleShare([]float64{2, 2, 2, 2}, 8), 1e-12)
	require.InDelta(t, 0, NoBubbleShare([]float64{2, 2, 2, 2}, 4), 1e-12)
}

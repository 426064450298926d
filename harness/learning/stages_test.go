package learning

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// stagedRounds trains in stages, some steps of micro-batches each.
func staged(t *testing.T, s *School, steps, micros int) {
	n := len(s.stages.all)
	for step := range steps {
		for m := range micros {
			at := hardware.Study{Step: step*micros + m, Count: m}
			var msg []byte
			say := func(verb string, stage int) []byte {
				st := at
				st.Verb, st.Client = verb, stage
				if msg != nil {
					st.In = [][]byte{msg}
				}
				return do(t, s, st)
			}
			for i := range n {
				msg = say("stage", i)
			}
			msg = nil
			for i := n - 1; i >= 0; i-- {
				msg = say("stageback", i)
				if i > 0 && s.Frozen(i-1) {
					break
				}
			}
		}
		for i := range n {
			do(t, s, hardware.Study{Verb: "update", Client: i, Step: step})
		}
	}
}

// T10: stages with micro-batches learn what one device learns from all of them; kept activations change no bit and spare the frozen layers.
func TestT10_StagesAndCache(t *testing.T) {
	j := plain()
	j.Clients, j.Samples = 4, 6 // two passes over six batches
	run := func(bounds []int, cached bool, from int) (*School, []float32) {
		j.Method.From = from
		s := school(t, j)
		require.NoError(t, s.Stages(bounds, 3, cached))
		staged(t, s, 8, 3)
		return s, s.server(0).global
	}
	for _, from := range []int{0, 2, 4} {
		_, want := run([]int{0, 4, 5}, false, from)
		_, other := run([]int{0, 1, 2, 5}, false, from)
		require.Equal(t, want, other, "wherever it is cut")
		s, cached := run([]int{0, 2, 5}, true, from)
		require.Equal(t, want, cached, "from layer %d", from)
		require.Equal(t, from >= 2, s.CacheBytes() > 0)
		require.Equal(t, from >= 2, s.Frozen(0))

		one := school(t, j) // the mean of the micro-batches' gradients, by hand
		p := one.scorer.params
		for step := range 8 {
			sum := make([]float64, len(p.Flat))
			for m := range 3 {
				_, b := one.batchOf(step*3 + m)
				_, g := one.scorer.learner.Gradient([]train.Batch{*b})
				for i, v := range g.Flat {
					sum[i] += float64(v) / 3
				}
			}
			for i, v := range sum {
				p.Flat[i] -= float32(j.Rate * v)
			}
		}
		require.InDeltaSlice(t, p.Flat, want, 2e-4)
	}
	s := school(t, j)
	require.ErrorContains(t, s.Stages([]int{0, 5}, 1, false), "two stages or more")

	j.Clients = 1 // whose device is one of three in the row
	s = school(t, j)
	require.NoError(t, s.Stages([]int{0, 1, 2, 5}, 3, true))
	staged(t, s, 2, 3)
}

// T1: training on pooled data, the same whatever the rounds are cut into.
func TestT1_Central(t *testing.T) {
	j := plain()
	j.Optimizer, j.Rate = "adamw", 0.005
	a, b := school(t, j), school(t, j)
	do(t, a, hardware.Study{Verb: "central", Count: 6})
	do(t, b, hardware.Study{Verb: "central", Count: 2})
	do(t, b, hardware.Study{Verb: "central", Step: 2, Count: 4})
	require.Equal(t, a.server(0).global, b.server(0).global)
	before, err := school(t, j).Score(tasks.Validation, 30)
	require.NoError(t, err)
	after, err := a.Score(tasks.Validation, 30)
	require.NoError(t, err)
	require.Less(t, after.Loss, before.Loss)
}

// T7: FedBuff counts a change that began three versions ago by half, and its other half to nobody; fresh ones are FedAvg's.
func TestT7_StaleUpdates(t *testing.T) {
	j := plain()
	j.Clients = 1
	begun := func(buffer bool, round int) (moved []float32) {
		j.Buffer = buffer
		s := school(t, j)
		down := do(t, s, hardware.Study{Verb: "open"})
		up := do(t, s, hardware.Study{Verb: "local", Count: 2, In: [][]byte{down}})
		do(t, s, hardware.Study{Verb: "combine", Round: round, In: [][]byte{up}, Who: []int{0}})
		for i, v := range s.server(0).global {
			moved = append(moved, v-s.scorer.first[i])
		}
		return moved
	}
	fresh := begun(false, 0)
	buffered := begun(true, 0)
	stale := begun(true, 3)
	require.InDeltaSlice(t, fresh, buffered, 1e-7)
	for i, v := range fresh {
		require.InDelta(t, v/2, stale[i], 1e-7)
	}
}

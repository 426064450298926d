package costmodel

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
)

// TestI10TreesAcceptByTheirWidth: of k siblings one is accepted with 1-(1-a)^k, and
// a path goes on behind its first node only.
func TestI10TreesAcceptByTheirWidth(t *testing.T) {
	roomy := sheet()
	roomy.Memory.Value = 1e9
	span := hardware.Span{Hi: 4}
	on(t, roomy, Options{Seed: 5, Luck: Luck{Accept: 0.5}}, func(_ world.Env, d *Device) {
		const n = 4000
		first, second, chain := 0, 0, 0
		for id := range int64(n) {
			op := pass(hardware.Verify, span, hardware.Seq{ID: id, Context: 9, New: 5, Tree: []int32{-1, 0, 0, 1, 1}})
			out := must(t, d, op).Seqs[0]
			require.Len(t, out.Path, out.Accepted)
			if out.Accepted > 0 {
				first++
			}
			if out.Accepted > 1 {
				second++
				require.Equal(t, int32(1), out.Path[0])
			}
			op.Seqs[0] = hardware.Seq{ID: id, Context: 9, New: 3}
			if c := must(t, d, op).Seqs[0].Accepted; c > 0 {
				chain++
				require.Equal(t, []int32{1}, out.Path[:1], "the same luck: what a chain accepts, a tree does")
			}
			op.Kind = hardware.Drop
			must(t, d, op)
		}
		require.InDelta(t, 0.75, float64(first)/n, 0.03)
		require.InDelta(t, 0.5*0.75, float64(second)/n, 0.03)
		require.InDelta(t, 0.5, float64(chain)/n, 0.03)
	})
}

// TestI11ExitsCostWhatTheyRun: layers, a head at each exit, and the keys and
// values of the layers that are skipped.
func TestI11ExitsCostWhatTheyRun(t *testing.T) {
	l := NewLaw(sheet())
	m := pass(hardware.Decode, hardware.Span{Hi: 4}).Model
	op := &hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{Context: 10, New: 1}}, Exit: &hardware.Exit{Layers: []int{1, 2}}}
	head, kv := float64(2*m.Vocab*m.Dim), float64(4*m.Dim*m.KVHeads*m.HeadDim)
	for depth, want := range map[int]float64{
		1:        float64(m.FLOP(hardware.Span{Hi: 1}, 10, 1, 1)) + head + kv*float64(m.Layers-1),
		2:        float64(m.FLOP(hardware.Span{Hi: 2}, 10, 1, 1)) + 2*head + kv*float64(m.Layers-2),
		m.Layers: float64(m.FLOP(m.All(), 10, 1, 1)) + 2*head,
	} {
		got := l.exitCost(op, []int{depth})
		require.InEpsilon(t, want, float64(got.FLOP), 1e-9, "depth %d", depth)
		require.Positive(t, got.Time)
	}
	require.Equal(t, l.Cost(op), l.exitCost(op, nil))
	require.Less(t, l.exitCost(op, []int{1}).Time, l.exitCost(op, []int{2}).Time)
}

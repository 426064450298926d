package llm

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestD5NeuronsAndFeed: a hook that changes nothing, and a Feed that declines, leave the bits; a network whose neurons are all dropped
// is one whose Feed returns zero; both see rows of the right sizes; and what has an adapter is never offered to Feed.
func TestD5NeuronsAndFeed(t *testing.T) {
	m, err := New(Config{Arch: Llama, Layers: 2, Dim: 32, Heads: 2, KVHeads: 1, HeadDim: 16, FFN: 40, Vocab: 50, Context: 16}, 3)
	require.NoError(t, err)
	adapter, err := m.NewAdapter(2, []Pair{{Name: "blk.0.ffn_up.weight", N: 40, K: 32, Rank: 1, A: slices.Repeat([]float32{0.1}, 32), B: slices.Repeat([]float32{0.2}, 40)}})
	require.NoError(t, err)
	run := func(a *Adapter, prepare func(w *Work)) []float32 {
		w := m.NewWork(1)
		defer w.Close()
		prepare(w)
		c, err := m.NewCache(0, 2, 8)
		require.NoError(t, err)
		seqs := []Seq{{IDs: []int32{1, 2, 3}, Cache: c, Want: AllLogits, Adapter: a}}
		require.NoError(t, w.Forward(0, 2, seqs))
		return slices.Clone(seqs[0].Out)
	}
	want := run(nil, func(*Work) {})
	var layers []int
	require.Equal(t, want, run(nil, func(w *Work) {
		w.Neurons = func(layer int, x, gate, up []float32, T int) {
			layers = append(layers, layer)
			require.Equal(t, []int{3, 96, 120, 120}, []int{T, len(x), len(gate), len(up)})
		}
		w.Feed = func(_ int, out, x []float32, T int) bool {
			require.Equal(t, []int{3, 96, 96}, []int{T, len(out), len(x)})
			return false
		}
	}))
	require.Equal(t, []int{0, 1}, layers)
	none := run(nil, func(w *Work) { w.Neurons = func(_ int, _, _, up []float32, _ int) { clear(up) } })
	require.NotEqual(t, want, none)
	zero := func(w *Work) { w.Feed = func(_ int, out, _ []float32, _ int) bool { clear(out); return true } }
	require.Equal(t, none, run(nil, zero))
	require.Equal(t, run(adapter, func(*Work) {}), run(adapter, zero))
}

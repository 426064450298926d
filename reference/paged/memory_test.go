package paged

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/llm"
	"meibench/reference/quant"
)

func toy(t testing.TB) *llm.Model {
	m, err := llm.New(llm.Config{Arch: llm.Llama, Layers: 2, Dim: 32, Heads: 4, KVHeads: 2, FFN: 40, Vocab: 50, Context: 128}, 7)
	require.NoError(t, err)
	return m
}

// last is the logits behind the last of ids, with a cache of their own.
func last(t testing.TB, w *llm.Work, typ quant.Type, ids []int32) []float32 {
	c, err := w.Model.NewCacheOf(typ, 0, w.Model.Layers, len(ids))
	require.NoError(t, err)
	seqs := []llm.Seq{{IDs: ids, Cache: c}}
	require.NoError(t, w.Forward(0, w.Model.Layers, seqs))
	return slices.Clone(seqs[0].Out)
}

func forward(t testing.TB, w *llm.Work, c *Cache, ids []int32) []float32 {
	seqs := []llm.Seq{{IDs: ids, Store: c}}
	require.NoError(t, w.Forward(0, w.Model.Layers, seqs))
	return slices.Clone(seqs[0].Out)
}

// TestD7PagedLogitsEqualPlain: shared prompts, forks that part ways inside a block, closed and found again, in blocks that
// went through many hands: every logit is that of a cache of its own, bit for bit.
func TestD7PagedLogitsEqualPlain(t *testing.T) {
	m := toy(t)
	w := m.NewWork(1)
	defer w.Close()
	for _, typ := range []quant.Type{quant.F32, quant.F16} {
		a, err := New(14, 4)
		require.NoError(t, err)
		memory, err := NewMemory(m.Config, typ, a, 0, m.Layers)
		require.NoError(t, err)
		r := rand.New(rand.NewPCG(5, 5))
		base := make([]int32, 18)
		for i := range base {
			base[i] = int32(r.IntN(50))
		}
		type talk struct {
			c   *Cache
			ids []int32
		}
		var live []talk
		for range 120 {
			switch k := r.IntN(5); {
			case k == 0 || len(live) == 0:
				ids := append(slices.Clone(base[:1+r.IntN(17)]), int32(r.IntN(3)))
				c, hit, err := memory.Open(ids)
				if err != nil {
					require.ErrorIs(t, err, ErrFull)
					continue
				}
				require.Equal(t, last(t, w, typ, ids), forward(t, w, c, ids[hit:]), "%d of %d found", hit, len(ids))
				live = append(live, talk{c, ids})
			case k == 1 && len(live) < 6:
				old := live[r.IntN(len(live))]
				c, err := old.c.Fork()
				require.NoError(t, err)
				live = append(live, talk{c, slices.Clone(old.ids)})
			case k == 2:
				i := r.IntN(len(live))
				live[i].c.Close()
				live = slices.Delete(live, i, i+1)
			default:
				s := &live[r.IntN(len(live))]
				id := int32(r.IntN(50))
				if err := s.c.Append(id); err != nil {
					require.ErrorIs(t, err, ErrFull)
					continue
				}
				s.ids = append(s.ids, id)
				require.Equal(t, last(t, w, typ, s.ids), forward(t, w, s.c, []int32{id}))
			}
		}
		st := a.Stats()
		require.Positive(t, st.Copied)
		require.Positive(t, st.Hit)
		require.Positive(t, st.Forgotten)
	}
}

func TestMemoryIsChecked(t *testing.T) {
	m := toy(t)
	a, err := New(4, 4)
	require.NoError(t, err)
	_, err = NewMemory(m.Config, quant.Q8_0, a, 0, 2)
	require.ErrorContains(t, err, "want F32 or F16")
	_, err = NewMemory(m.Config, quant.F32, a, 0, 3)
	require.ErrorContains(t, err, "[0, 3)")
	memory, err := NewMemory(m.Config, quant.F32, a, 0, 2)
	require.NoError(t, err)
	one, err := m.NewCache(0, 2, 16)
	require.NoError(t, err)
	require.Equal(t, one.Resident(), memory.Resident(), "as much as a cache of all its tokens")
	w := m.NewWork(1)
	defer w.Close()
	c, _, err := memory.Open([]int32{1, 2, 3})
	require.NoError(t, err)
	_, err = c.Fork()
	require.ErrorContains(t, err, "compute the rest first")
	require.ErrorContains(t, w.Forward(0, 2, []llm.Seq{{IDs: []int32{1, 2, 3, 4}, Store: c}}), "Append them first")
	require.ErrorContains(t, w.Forward(0, 1, []llm.Seq{{IDs: []int32{1}, Store: c}}), "layers [0, 2)")
}

package evict

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/llm"
	"meibench/reference/models"
)

// BenchmarkStep decodes behind 160 tokens of mei-base with a plain cache, and with every policy at a budget of 64.
func BenchmarkStep(b *testing.B) {
	m, err := models.Open("mei-base")
	require.NoError(b, err)
	ids := text(160)
	b.Run("policy=none/budget=256", func(b *testing.B) {
		w := m.Model.NewWork(1)
		defer w.Close()
		c, err := m.Model.NewCache(0, m.Model.Layers, 256)
		require.NoError(b, err)
		seqs := []llm.Seq{{IDs: ids, Cache: c}}
		require.NoError(b, w.Forward(0, m.Model.Layers, seqs))
		for b.Loop() {
			c.Truncate(160)
			seqs[0].IDs = ids[:1]
			require.NoError(b, w.Forward(0, m.Model.Layers, seqs))
		}
	})
	for _, e := range Table[1:] { // full is not bounded
		p := e.New(64)
		b.Run("policy="+e.Name+"/budget=64", func(b *testing.B) {
			r, err := New(m.Model, p, Options{})
			require.NoError(b, err)
			defer r.Close()
			_, err = r.Prefill(ids)
			require.NoError(b, err)
			for b.Loop() {
				_, err := r.Step(1)
				require.NoError(b, err)
			}
		})
	}
}

package llm

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
)

// packable widens a configuration so that rows are whole blocks of every format.
func packable(c Config) Config {
	c.Dim, c.Heads, c.KVHeads, c.HeadDim, c.FFN = 256, 8, 4, 32, 512
	if c.Experts > 0 {
		c.ExpertFFN = 256
	}
	if c.SharedFFN > 0 {
		c.SharedFFN = 256
	}
	return c
}

// TestPack: packed weights give the logits of the weights they were made from: up to the order of float32 sums where
// weights are floats, up to the rounding of activations to 8 bits where they are integers (these random models amplify
// it; see the perplexity test of a trained one for what it costs).
func TestPack(t *testing.T) {
	for _, name := range []string{"llama", "llama experts", "qwen2", "qwen3moe", "gemma2", "phi2"} {
		c := packable(configs()[name])
		base := model(t, c)
		for _, typ := range []quant.Type{quant.F32, quant.F16, quant.BF16, quant.Q8_0, quant.Q4_0, quant.Q5_1, quant.Q4_K, quant.Q6_K} {
			t.Run(fmt.Sprintf("%s/%v", name, typ), func(t *testing.T) {
				m, err := base.As(typ)
				require.NoError(t, err)
				ids := tokens(12, m.Vocab)
				want := all(t, work(t, m, 1), ids)
				require.False(t, m.Packed())
				require.NoError(t, m.Pack(2))
				require.True(t, m.Packed())
				w := work(t, m, 2)
				got := all(t, w, ids)
				if typ.Block() == 1 {
					require.Less(t, distance(want, got), 1e-4)
				} else if c.Experts == 0 { // with experts a rounded activation may choose others
					require.Less(t, distance(want, got), 0.15)
				}

				// In chunks, beside another sequence, on one thread: the same bits.
				one, c1, c2 := work(t, m, 1), cache(t, m, 0, m.Layers), cache(t, m, 0, m.Layers)
				require.NoError(t, one.Forward(0, m.Layers, []Seq{{IDs: ids[:5], Cache: c1}}))
				seqs := []Seq{{IDs: ids[:3], Cache: c2}, {IDs: ids[5:], Cache: c1, Want: AllLogits}}
				require.NoError(t, one.Forward(0, m.Layers, seqs))
				require.Equal(t, got[5*m.Vocab:], seqs[1].Out)

				_, err = m.Params()
				require.ErrorContains(t, err, "packed")
				again, err := m.As(quant.F32)
				require.NoError(t, err)
				require.False(t, again.Packed())
			})
		}
	}
}

// distance is the root mean square difference relative to the spread of want.
func distance(want, got []float32) float64 {
	var diff, spread float64
	for i, v := range want {
		diff += math.Pow(float64(v-got[i]), 2)
		spread += math.Pow(float64(v), 2)
	}
	return math.Sqrt(diff / spread)
}

// TestPackedDecodeDoesNotAllocate covers all the steps of a token on the fast path.
func TestPackedDecodeDoesNotAllocate(t *testing.T) {
	m, err := model(t, packable(configs()["llama"])).As(quant.Q4_K)
	require.NoError(t, err)
	require.NoError(t, m.Pack(1))
	w := work(t, m, 2)
	for _, typ := range []quant.Type{quant.F32, quant.F16, quant.Q8_0} {
		kv, err := m.NewCacheOf(typ, 0, m.Layers, 128)
		require.NoError(t, err)
		seqs := []Seq{{IDs: tokens(40, m.Vocab), Cache: kv}}
		require.NoError(t, w.Forward(0, m.Layers, seqs))
		seqs[0].IDs = seqs[0].IDs[:1]
		require.Zero(t, testing.AllocsPerRun(20, func() {
			if err := w.Forward(0, m.Layers, seqs); err != nil {
				t.Error(err)
			}
		}), typ)
	}
}

// TestCacheTypes: a rounded cache changes logits a little, and by the same bits however a prompt is cut.
func TestCacheTypes(t *testing.T) {
	m := model(t, packable(configs()["llama"]))
	w, ids := work(t, m, 2), tokens(40, m.Vocab)
	want := all(t, w, ids)
	for typ, limit := range map[quant.Type]float64{quant.F32: 0, quant.F16: 2e-3, quant.Q8_0: 0.1} {
		run := func(cuts ...int) []float32 {
			kv, err := m.NewCacheOf(typ, 0, m.Layers, 64)
			require.NoError(t, err)
			from := 0
			var out []float32
			for _, to := range append(cuts, len(ids)) {
				seqs := []Seq{{IDs: ids[from:to], Cache: kv, Want: AllLogits}}
				require.NoError(t, w.Forward(0, m.Layers, seqs))
				out = append(out, seqs[0].Out...)
				from = to
			}
			return out
		}
		whole := run()
		require.LessOrEqual(t, distance(want, whole), limit, typ)
		if typ != quant.F32 {
			require.Positive(t, distance(want, whole), typ)
		}
		require.Equal(t, whole, run(1, 17, 18, 39), typ)
	}
	_, err := m.NewCacheOf(quant.Q4_0, 0, 1, 8)
	require.ErrorContains(t, err, "Q4_0")
}

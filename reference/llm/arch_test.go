package llm

import (
	"bytes"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/gguf"
	"meibench/reference/quant"
)

func TestArchitecturesAreSorted(t *testing.T) {
	names := Architectures()
	require.True(t, slices.IsSorted(names))
	require.Len(t, slices.Compact(names), len(architectures))
	covered := map[string]bool{}
	for _, c := range configs() {
		covered[c.Arch] = true
	}
	for _, name := range names {
		require.True(t, covered[name], "no test configuration of %s", name)
	}
}

// TestGreedyAgainstOracle: 256 tokens of our own choosing are those that the oracle would choose on the same text, and
// logits stay near over the whole length. Random weights tie easily: a choice counts as the same if the oracle gives
// both tokens the same logit to six digits.
func TestGreedyAgainstOracle(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		w, prompt := work(t, m, 1), tokens(5, m.Vocab)
		c, err := m.NewCache(0, m.Layers, 300)
		require.NoError(t, err)
		answer, err := w.Generate(c, prompt, 256, Greedy, nil)
		require.NoError(t, err)
		text := append(slices.Clone(prompt), answer...)
		want := oracle{m: m}.logits(text, m.Layers)
		for i, id := range answer {
			l := want[len(prompt)+i-1]
			best := slices.Max(l)
			require.InDelta(t, best, l[id], 1e-6*math.Abs(best), "token %d", i)
		}
		c, err = m.NewCache(0, m.Layers, 300)
		require.NoError(t, err)
		seqs := []Seq{{IDs: text, Cache: c, Want: AllLogits}}
		require.NoError(t, w.Forward(0, m.Layers, seqs))
		requireClose(t, want, seqs[0].Out, 1e-4)
	})
}

// TestWideScale: the largest gemma2 scales scores by 1/√(C/H); by hand for C = 8, H = 2 that is 1/2.
func TestWideScale(t *testing.T) {
	c := Config{Arch: Gemma2, Layers: 46, Dim: 8, Heads: 2, KVHeads: 2, HeadDim: 16}
	require.EqualValues(t, 0.5, c.attentionScale())
	c.Layers = 42
	require.Zero(t, c.attentionScale(), "1/√D")
}

// TestWindows: which layers of the published models see a window.
func TestWindows(t *testing.T) {
	for _, tc := range []struct {
		arch string
		want []int // first 12 layers
	}{
		{Gemma2, []int{9, 0, 9, 0, 9, 0, 9, 0, 9, 0, 9, 0}},
		{Gemma3, []int{9, 9, 9, 9, 9, 0, 9, 9, 9, 9, 9, 0}},
		{Phi3, []int{9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}},
	} {
		var got []int
		for l := range tc.want {
			got = append(got, Config{Arch: tc.arch, Window: 9}.windowOf(l))
		}
		require.Equal(t, tc.want, got, tc.arch)
	}
}

// TestLongRoPEPicksByContext: the same file turns by short divisors if the context is not longer than the first one.
func TestLongRoPEPicksByContext(t *testing.T) {
	m := model(t, configs()["phi3 longrope"])
	raw, ids := write(t, m), tokens(9, m.Vocab)
	long, err := read(raw, ReadOptions{})
	require.NoError(t, err)
	short, err := read(raw, ReadOptions{Context: 50})
	require.NoError(t, err)
	require.Equal(t, 50, short.Context)
	_, err = short.NewCache(0, short.Layers, 51)
	require.ErrorContains(t, err, "context of 50")
	run := func(m *Model) []float32 {
		c, err := m.NewCache(0, m.Layers, 50)
		require.NoError(t, err)
		s := []Seq{{IDs: ids, Cache: c, Want: AllLogits}}
		require.NoError(t, work(t, m, 1).Forward(0, m.Layers, s))
		return slices.Clone(s[0].Out)
	}
	require.NotEqual(t, run(long), run(short))
	requireClose(t, oracle{m: long}.logits(ids, long.Layers), run(long), 1e-4)
	requireClose(t, oracle{m: short}.logits(ids, short.Layers), run(short), 1e-4)
	_, err = read(edit(t, raw, change("rope_factors_short.weight", func(t *gguf.TensorData) { t.Name = "x" })), ReadOptions{})
	require.ErrorContains(t, err, "rope_factors_short.weight")
	zero := gguf.Bytes(make([]byte, 4*m.RopeDim/2))
	_, err = read(edit(t, raw, change("rope_factors_long.weight", func(t *gguf.TensorData) { t.Data = zero })), ReadOptions{})
	require.ErrorContains(t, err, "divisor 0 is 0")
}

// TestBudget: 4 layers of llama by hand: per layer 2·64 norms, 2·64·64 + 2·64·32 attention, 3·64·96 feed-forward = 30 848
// floats; embedding, head and norm 2·70·64 + 64 = 9 024; in all 132 416 floats of 4 bytes.
func TestBudget(t *testing.T) {
	raw := write(t, model(t, configs()["llama"]))
	_, err := read(raw, ReadOptions{Budget: 4*132416 - 1})
	require.ErrorContains(t, err, "weights take 529664 bytes, the budget is 529663")
	m, err := read(raw, ReadOptions{Budget: 4 * 132416})
	require.NoError(t, err)
	require.EqualValues(t, 4*132416, m.WeightBytes(0, m.Layers))
	_, err = read(raw, ReadOptions{Lo: 1, Hi: 2, Budget: 4 * 30848})
	require.NoError(t, err, "a span takes its own layers only")

	f16, err := m.As(quant.F16)
	require.NoError(t, err)
	small := write(t, f16)
	_, err = read(small, ReadOptions{Budget: 4*132416 - 1})
	require.NoError(t, err)
	_, err = read(small, ReadOptions{Budget: 4*132416 - 1, F32: true})
	require.ErrorContains(t, err, "529664", "decoded to F32 it is as large as before")
}

// TestStackedTensors: what the file holds as one tensor is taken apart by rows.
func TestStackedTensors(t *testing.T) {
	for _, tc := range []struct {
		name, tensor string
		dims         []int
	}{
		{"phi3", "blk.1.attn_qkv.weight", []int{48, 48 + 24 + 24}},
		{"phi3", "blk.1.ffn_up.weight", []int{48, 2 * 64}},
		{"phi2", "blk.0.attn_qkv.bias", []int{3 * 40}},
		{"llama experts", "blk.1.ffn_down_exps.weight", []int{56, 48, 5}},
		{"qwen2moe", "blk.0.ffn_gate_inp_shexp.weight", []int{40}},
	} {
		m := model(t, configs()[tc.name])
		raw := write(t, m)
		f, err := gguf.Read(bytes.NewReader(raw), int64(len(raw)))
		require.NoError(t, err)
		info, err := f.Tensor(tc.tensor)
		require.NoError(t, err)
		require.Equal(t, tc.dims, info.Dims)
	}
	m := model(t, configs()["phi3"])
	q8, err := m.As(quant.F16)
	require.NoError(t, err)
	q8.Blocks[0].K = m.Blocks[0].K
	require.ErrorContains(t, q8.Write(&bytes.Buffer{}), "holds both F16 and F32")
}

// TestHostileShapes: metadata that asks for much more than the file holds fails before anything of that size is made.
func TestHostileShapes(t *testing.T) {
	moe, gemma := write(t, model(t, configs()["qwen2moe"])), write(t, model(t, configs()["gemma2"]))
	for _, tc := range []struct {
		name   string
		raw    []byte
		change func(*[]gguf.KV, *[]gguf.TensorData)
		want   string
	}{
		{"huge expert count", moe, set("qwen2moe.expert_count", uint32(1<<30)), "experts in each of 2 layers"},
		{"absurd expert count", moe, set("qwen2moe.expert_count", uint64(1<<60)), "not a plausible size"},
		{"more experts than the tensor", moe, set("qwen2moe.expert_count", uint32(7)), "blk.0.ffn_gate_inp.weight: shape is [40 6], want [40 7]"},
		{"no experts", moe, set("qwen2moe.expert_count", uint32(0)), "qwen2moe is a mixture of experts"},
		{"experts used", moe, set("qwen2moe.expert_used_count", uint32(7)), "uses 7 of 6 experts"},
		{"no expert used", moe, set("qwen2moe.expert_used_count", uint32(0)), "uses 0 of 6 experts"},
		{"expert width", moe, set("qwen2moe.expert_feed_forward_length", uint32(1<<24)), "shape is [40 24 6], want [40 16777216 6]"},
		{"no expert width", moe, set("qwen2moe.expert_feed_forward_length", uint32(0)), "want [40 72 6]"},
		{"shared width", moe, set("qwen2moe.expert_shared_feed_forward_length", uint32(32)), "ffn_gate_shexp.weight: shape is [40 33], want [40 32]"},
		{"gating function", moe, set("qwen2moe.expert_gating_func", uint32(2)), "gating function 2"},
		{"expert scale", moe, set("qwen2moe.expert_weights_scale", float32(2.5)), "by 2.5"},
		{"expert tensor is flat", moe, change("blk.1.ffn_up_exps.weight", func(t *gguf.TensorData) { t.Dims = []int{40, 24 * 6} }), "shape is [40 144], want [40 24 6]"},
		{"window", gemma, set("gemma2.attention.sliding_window", uint64(1<<40)), "not a plausible size"},
		{"window pattern", gemma, set("gemma2.attention.sliding_window_pattern", uint32(3)), "a multiple of 3"},
		{"window base", gemma, set("gemma2.rope.freq_base_swa", float32(7)), "rotate with base 7"},
		{"cap", gemma, set("gemma2.attn_logit_softcapping", float32(-1)), "capped at -1"},
		{"cap that is no number", gemma, set("gemma2.final_logit_softcapping", float32(math.NaN())), "logits at NaN"},
		{"head width", gemma, set("gemma2.attention.key_length", uint32(1<<24)), "value channels"},
		{"layers", gemma, set("gemma2.block_count", uint32(4096)), "tensors in all"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := edit(t, tc.raw, tc.change)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := read(raw, ReadOptions{})
			runtime.ReadMemStats(&after)
			require.ErrorContains(t, err, tc.want)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20), "bytes taken for a file of %d", len(raw))
		})
	}
}

// TestEveryArchitectureRefusesStrangers: a tensor that an architecture does not read changes nothing silently.
func TestEveryArchitectureRefusesStrangers(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		raw := write(t, m)
		strange := func(_ *[]gguf.KV, tensors *[]gguf.TensorData) {
			*tensors = append(*tensors, gguf.TensorData{Name: "blk.0.attn_sinks.weight", Type: quant.F32, Dims: []int{1}, Data: gguf.Bytes(make([]byte, 4))})
		}
		_, err := read(edit(t, raw, strange), ReadOptions{})
		require.ErrorContains(t, err, `"blk.0.attn_sinks.weight", which `+m.Arch)
		for _, name := range []string{"blk.0.", "output_norm", "token_embd"} { // each one is needed
			f, err := gguf.Read(bytes.NewReader(raw), int64(len(raw)))
			require.NoError(t, err)
			for _, info := range f.Tensors {
				if strings.HasPrefix(info.Name, name) {
					_, err := read(edit(t, raw, change(info.Name, func(t *gguf.TensorData) { t.Name = "x" })), ReadOptions{})
					require.ErrorContains(t, err, info.Name)
				}
			}
		}
	})
}

// TestExpertsDecodeDoesNotAllocate: the memory of a mixture is that of the largest call.
func TestExpertsDecodeDoesNotAllocate(t *testing.T) {
	for _, name := range []string{"qwen2moe", "gemma3", "phi2"} {
		m := model(t, configs()[name])
		w := work(t, m, 2)
		seqs := []Seq{{IDs: tokens(20, m.Vocab), Cache: cache(t, m, 0, m.Layers)}}
		require.NoError(t, w.Forward(0, m.Layers, seqs))
		seqs[0].IDs = seqs[0].IDs[:1]
		require.Zero(t, testing.AllocsPerRun(30, func() {
			if err := w.Forward(0, m.Layers, seqs); err != nil {
				panic(err)
			}
		}), name)
	}
}

// TestPlain: what package train may train is llama and qwen2 without any addition.
func TestPlain(t *testing.T) {
	for name, c := range configs() {
		require.Equal(t, slices.Contains([]string{"llama", "llama tied", "qwen2"}, name), c.Plain(), name)
		require.Equal(t, c.Plain(), c.WithDefaults().Plain(), "%s with defaults", name)
	}
	partial := configs()["llama"]
	partial.RopeDim = 8
	require.False(t, partial.Plain())
}

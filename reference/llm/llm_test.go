package llm

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// configs are tiny, awkward on purpose (widths that are not multiples of a tile) and cover what the formats allow.
func configs() map[string]Config {
	list := map[string]Config{
		"llama":         {Arch: Llama, Layers: 4, Dim: 64, Heads: 4, KVHeads: 2, FFN: 96, Vocab: 70},
		"llama tied":    {Arch: Llama, Layers: 3, Dim: 36, Heads: 3, KVHeads: 3, FFN: 50, Vocab: 41, Tied: true, RopeBase: 500},
		"llama window":  {Arch: Llama, Layers: 2, Dim: 32, Heads: 4, KVHeads: 2, FFN: 40, Vocab: 41, Window: 9},
		"llama linear":  {Arch: Llama, Layers: 2, Dim: 32, Heads: 2, KVHeads: 1, FFN: 40, Vocab: 41, Rope: RopeScaling{Kind: ScaleLinear, Factor: 4}},
		"llama yarn":    {Arch: Llama, Layers: 2, Dim: 64, Heads: 2, KVHeads: 1, FFN: 40, Vocab: 41, Rope: RopeScaling{Kind: ScaleYaRN, Factor: 8, OrigContext: 64}},
		"llama experts": {Arch: Llama, Layers: 2, Dim: 48, Heads: 4, KVHeads: 2, FFN: 56, Vocab: 45, Experts: 5, ExpertsUsed: 2},
		"qwen2":         {Arch: Qwen2, Layers: 3, Dim: 64, Heads: 4, KVHeads: 1, HeadDim: 24, FFN: 80, Vocab: 67, Eps: 1e-6},
		"qwen2moe": {Arch: Qwen2MoE, Layers: 2, Dim: 40, Heads: 4, KVHeads: 2, HeadDim: 10, FFN: 72, Vocab: 43, Experts: 6, ExpertsUsed: 3,
			ExpertFFN: 24, SharedFFN: 33},
		"qwen3":    {Arch: Qwen3, Layers: 3, Dim: 48, Heads: 4, KVHeads: 2, HeadDim: 20, FFN: 72, Vocab: 53, Eps: 1e-6, RopeBase: 1e6, Tied: true},
		"qwen3moe": {Arch: Qwen3MoE, Layers: 2, Dim: 32, Heads: 4, KVHeads: 2, HeadDim: 12, FFN: 72, Vocab: 43, Experts: 8, ExpertsUsed: 3, ExpertFFN: 20},
		"gemma":    {Arch: Gemma, Layers: 2, Dim: 32, Heads: 2, KVHeads: 1, HeadDim: 24, FFN: 56, Vocab: 61, Tied: true, Eps: 1e-6},
		"gemma2": {Arch: Gemma2, Layers: 4, Dim: 36, Heads: 4, KVHeads: 2, HeadDim: 14, FFN: 44, Vocab: 61, Tied: true, Window: 7,
			AttnSoftcap: 5, FinalSoftcap: 3},
		"gemma3": {Arch: Gemma3, Layers: 7, Dim: 36, Heads: 4, KVHeads: 1, HeadDim: 14, FFN: 44, Vocab: 61, Tied: true, Window: 6, RopeBase: 1e6,
			Rope: RopeScaling{Kind: ScaleLinear, Factor: 8}},
		"phi2":          {Arch: Phi2, Layers: 3, Dim: 40, Heads: 4, KVHeads: 4, FFN: 64, Vocab: 51, RopeDim: 4},
		"phi3":          {Arch: Phi3, Layers: 3, Dim: 48, Heads: 4, KVHeads: 2, FFN: 64, Vocab: 51, RopeDim: 8, Window: 20},
		"phi3 longrope": {Arch: Phi3, Layers: 2, Dim: 48, Heads: 4, KVHeads: 4, FFN: 64, Vocab: 51, Rope: RopeScaling{Kind: ScaleLongRoPE, OrigContext: 50, Attention: 1.19}},
	}
	for name, c := range list {
		c.Context = 300
		list[name] = c
	}
	return list
}

// model makes weights large enough for attention to prefer some positions and biases that matter.
func model(t testing.TB, c Config) *Model {
	m, err := New(c, 42)
	require.NoError(t, err)
	params, err := m.Params()
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(3, 4))
	for _, p := range params {
		for i := range p.Data {
			if p.N > 1 {
				p.Data[i] *= 8
			} else {
				p.Data[i] += float32(r.NormFloat64() * 0.3)
			}
		}
	}
	if m.Rope.Kind == ScaleLongRoPE {
		for i := range m.RopeDim / 2 {
			m.RopeFactors, m.RopeLong = append(m.RopeFactors, 1+float32(i)/8), append(m.RopeLong, 2+3*float32(i))
		}
	}
	return m
}

func tokens(n, vocab int) []int32 {
	r := rand.New(rand.NewPCG(5, 6))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(vocab))
	}
	return ids
}

func work(t testing.TB, m *Model, threads int) *Work {
	w := m.NewWork(threads)
	t.Cleanup(w.Close)
	return w
}

func cache(t testing.TB, m *Model, lo, hi int) *Cache {
	c, err := m.NewCache(lo, hi, 128)
	require.NoError(t, err)
	return c
}

// all runs the whole model on ids with a fresh cache and returns the logits of every token.
func all(t testing.TB, w *Work, ids []int32) []float32 {
	m := w.Model
	seqs := []Seq{{IDs: ids, Cache: cache(t, m, 0, m.Layers), Want: AllLogits}}
	require.NoError(t, w.Forward(0, m.Layers, seqs))
	return append([]float32(nil), seqs[0].Out...)
}

func eachConfig(t *testing.T, f func(t *testing.T, m *Model)) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) { f(t, model(t, c)) })
	}
}

// requireClose checks logits against the oracle, relative to the largest logit of the token.
func requireClose(t *testing.T, want [][]float64, got []float32, rel float64) {
	t.Helper()
	V := len(want[0])
	require.Len(t, got, len(want)*V)
	for i := range want {
		top, differ := 0.0, 0.0
		for v, x := range want[i] {
			top, differ = max(top, math.Abs(x)), max(differ, math.Abs(x-float64(got[i*V+v])))
		}
		require.Greater(t, top, 0.1, "logits of a test must not vanish")
		require.Less(t, differ/top, rel, "token %d", i)
	}
}

func TestForwardAgainstOracle(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		ids := tokens(70, m.Vocab) // more than one block of attention
		want := oracle{m: m}.logits(ids, m.Layers)
		requireClose(t, want, all(t, work(t, m, 1), ids), 1e-4)
		m.RopeLong, m.RopeFactors = nil, make([]float32, m.RopeDim/2)
		for i := range m.RopeFactors {
			m.RopeFactors[i] = 1.5 + float32(i)
		}
		scaled := oracle{m: m}.logits(ids, m.Layers)
		require.NotEqual(t, want, scaled)
		requireClose(t, scaled, all(t, work(t, m, 1), ids), 1e-4)
	})
}

func TestEveryKernelAndThreadCount(t *testing.T) {
	m := model(t, configs()["qwen2"])
	ids := tokens(60, m.Vocab)
	want := oracle{m: m}.logits(ids, m.Layers)
	for _, kernel := range tensor.Kernels() {
		var first []float32
		for _, threads := range []int{1, 2, 3} {
			p, err := tensor.NewPoolOn(kernel, threads)
			require.NoError(t, err)
			got := all(t, m.NewWorkOn(p), ids)
			p.Close()
			requireClose(t, want, got, 1e-4)
			if first == nil {
				first = got
			}
			require.Equal(t, first, got, "%s on %d threads", kernel, threads)
		}
	}
}

// TestSplitEqualsWhole runs two halves with a copy of the hidden states between them, as a link would.
func TestSplitEqualsWhole(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		ids := tokens(23, m.Vocab)
		want := all(t, work(t, m, 1), ids)
		device, edge := work(t, m, 1), work(t, m, 2)
		for k := 0; k <= m.Layers; k++ {
			front, back := cache(t, m, 0, k), cache(t, m, k, m.Layers)
			for lo := 0; lo < len(ids); lo += 9 { // prefill in chunks, the cut stays the same
				hi := min(lo+9, len(ids))
				seqs := []Seq{{IDs: ids[lo:hi], Cache: front, Want: Hidden}}
				require.NoError(t, device.Forward(0, k, seqs))
				if k == 0 { // layer 0 takes ids
					seqs = []Seq{{IDs: ids[lo:hi], Cache: back, Want: AllLogits}}
				} else {
					seqs = []Seq{{Hidden: append([]float32(nil), seqs[0].Out...), Cache: back, Want: AllLogits}}
				}
				require.NoError(t, edge.Forward(k, m.Layers, seqs))
				require.Equal(t, want[lo*m.Vocab:hi*m.Vocab], seqs[0].Out, "split at %d, tokens %d to %d", k, lo, hi)
			}
		}
	})
}

// TestUShape keeps embedding and head on the device.
func TestUShape(t *testing.T) {
	m := model(t, configs()["llama"])
	ids := tokens(7, m.Vocab)
	w := work(t, m, 1)
	want := all(t, w, ids)
	s := []Seq{{IDs: ids, Cache: cache(t, m, 0, 1)}}
	require.NoError(t, w.Forward(0, 1, s))
	s = []Seq{{Hidden: append([]float32(nil), s[0].Out...), Cache: cache(t, m, 1, 4), Want: Hidden}}
	require.NoError(t, w.Forward(1, 4, s))
	s = []Seq{{Hidden: append([]float32(nil), s[0].Out...), Want: AllLogits}}
	require.NoError(t, w.Forward(4, 4, s))
	require.Equal(t, want, s[0].Out)
}

func TestEarlyExit(t *testing.T) {
	m := model(t, configs()["llama"])
	ids := tokens(7, m.Vocab)
	s := []Seq{{IDs: ids, Cache: cache(t, m, 0, 2), Want: AllLogits}}
	require.NoError(t, work(t, m, 1).Forward(0, 2, s))
	requireClose(t, oracle{m: m}.logits(ids, 2), s[0].Out, 1e-4)
}

// TestBatchChunksAndDecode: three ways to cut the same work, one result.
func TestBatchChunksAndDecode(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		ids, V := tokens(61, m.Vocab), m.Vocab
		w := work(t, m, 1)
		want := all(t, w, ids)
		for _, chunk := range []int{1, 2, 5, 13, 60} {
			c := cache(t, m, 0, m.Layers)
			for lo := 0; lo < len(ids); lo += chunk {
				hi := min(lo+chunk, len(ids))
				s := []Seq{{IDs: ids[lo:hi], Cache: c}}
				require.NoError(t, w.Forward(0, m.Layers, s))
				require.Equal(t, want[(hi-1)*V:hi*V], s[0].Out, "chunks of %d, after token %d", chunk, hi)
			}
			require.Equal(t, len(ids), c.Len())
		}
		// A batch of prefixes of different lengths, some prefilling and some decoding, on several threads.
		w2 := work(t, m, 2)
		var seqs []Seq
		lengths := []int{1, 61, 7, 30, 12}
		for i, n := range lengths {
			c, past := cache(t, m, 0, m.Layers), 0
			if i%2 == 1 {
				past = n - 1
				require.NoError(t, w2.Forward(0, m.Layers, []Seq{{IDs: ids[:past], Cache: c}}))
			}
			seqs = append(seqs, Seq{IDs: ids[past:n], Cache: c, Want: LastLogits})
		}
		require.NoError(t, w2.Forward(0, m.Layers, seqs))
		for i, n := range lengths {
			require.Equal(t, want[(n-1)*V:n*V], seqs[i].Out, "sequence %d", i)
		}
	})
}

func TestCacheRollbackAndCopy(t *testing.T) {
	m := model(t, configs()["llama"])
	ids, w := tokens(20, m.Vocab), work(t, m, 1)
	want := all(t, w, ids)
	c := cache(t, m, 0, m.Layers)
	require.NoError(t, w.Forward(0, m.Layers, []Seq{{IDs: ids[:15], Cache: c}}))
	require.NoError(t, w.Forward(0, m.Layers, []Seq{{IDs: []int32{1, 2, 3}, Cache: c}})) // a draft
	c.Truncate(15)                                                                       // rejected
	other := cache(t, m, 0, m.Layers)
	require.NoError(t, other.CopyPrefix(c, 12))
	moved := cache(t, m, 0, m.Layers) // by hand, layer by layer, as over a link
	for l := range m.Layers {
		k, v := make([]float32, 15*m.KVDim()), make([]float32, 15*m.KVDim())
		c.Get(l, 0, 15, k, v)
		moved.Put(l, 0, 15, k, v)
	}
	moved.SetLen(15)
	for _, tc := range []struct {
		name string
		c    *Cache
	}{{"rolled back", c}, {"copied prefix", other}, {"moved", moved}} {
		s := []Seq{{IDs: ids[tc.c.Len():], Cache: tc.c}}
		require.NoError(t, w.Forward(0, m.Layers, s))
		require.Equal(t, want[19*m.Vocab:], s[0].Out, tc.name)
	}
	require.EqualValues(t, 20*m.KVBytesPerToken(0, m.Layers), c.Bytes())
	require.GreaterOrEqual(t, c.Resident(), 128*m.KVBytesPerToken(0, m.Layers))
	require.Equal(t, 128, c.Cap())
	require.Panics(t, func() { c.Truncate(21) })
	require.Panics(t, func() { c.SetLen(129) })
	require.Error(t, other.CopyPrefix(c, 21))
	require.Error(t, other.CopyPrefix(cache(t, m, 0, 1), 0))
}

func TestForwardRefuses(t *testing.T) {
	m := model(t, configs()["llama"])
	full, ok := cache(t, m, 0, 4), tokens(3, m.Vocab)
	hidden := make([]float32, 2*m.Dim)
	for _, tc := range []struct {
		name   string
		lo, hi int
		seqs   []Seq
		want   string
	}{
		{"beyond the model", 0, 5, []Seq{{IDs: ok, Cache: full}}, "holds layers [0, 4)"},
		{"backwards", 3, 2, nil, "holds layers"},
		{"no tokens", 0, 4, []Seq{{Cache: full}}, "0 ids"},
		{"hidden at layer 0", 0, 4, []Seq{{Hidden: hidden, Cache: full}}, "want ids only"},
		{"ids above layer 0", 1, 4, []Seq{{IDs: ok, Cache: cache(t, m, 1, 4)}}, "want hidden values only"},
		{"part of a state", 1, 4, []Seq{{Hidden: hidden[:70], Cache: cache(t, m, 1, 4)}}, "multiple of 64"},
		{"id too large", 0, 4, []Seq{{IDs: []int32{1, 70}, Cache: full}}, "token 1 is id 70"},
		{"negative id", 0, 4, []Seq{{IDs: []int32{-1}, Cache: full}}, "id -1"},
		{"no cache", 0, 4, []Seq{{IDs: ok}}, "NewCache(0, 4"},
		{"cache of another span", 0, 4, []Seq{{IDs: ok, Cache: cache(t, m, 0, 3)}}, "layers [0, 3)"},
		{"shared cache", 0, 4, []Seq{{IDs: ok, Cache: full}, {IDs: ok, Cache: full}}, "share a cache"},
		{"too long", 0, 4, []Seq{{IDs: tokens(129, m.Vocab), Cache: full}}, "do not fit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.ErrorContains(t, work(t, m, 1).Forward(tc.lo, tc.hi, tc.seqs), tc.want)
			require.Zero(t, full.Len())
		})
	}
	_, err := m.NewCache(0, 4, 301)
	require.ErrorContains(t, err, "context of 300")
	_, err = m.NewCache(2, 5, 1)
	require.ErrorContains(t, err, "span inside [0, 4)")
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	for _, typ := range []quant.Type{quant.F32, quant.Q8_0} {
		for _, threads := range []int{1, 2} {
			m, err := model(t, Config{Arch: Llama, Layers: 2, Dim: 128, Heads: 4, KVHeads: 2, FFN: 256, Vocab: 300, Context: 256}).As(typ)
			require.NoError(t, err)
			w := work(t, m, threads)
			seqs := []Seq{{IDs: tokens(20, m.Vocab), Cache: cache(t, m, 0, 2)}, {IDs: tokens(9, m.Vocab), Cache: cache(t, m, 0, 2)}}
			require.NoError(t, w.Forward(0, 2, seqs))
			seqs[0].IDs, seqs[1].IDs = seqs[0].IDs[:1], seqs[1].IDs[:1]
			allocs := testing.AllocsPerRun(30, func() {
				if err := w.Forward(0, 2, seqs); err != nil {
					panic(err)
				}
			})
			require.Zero(t, allocs, "%v on %d threads", typ, threads)
		}
	}
}

// TestQuantisedWeights: a quantised model computes exactly what its decoded weights say, and that stays near the original.
func TestQuantisedWeights(t *testing.T) {
	m, err := New(Config{Arch: Qwen2, Layers: 2, Dim: 64, Heads: 4, KVHeads: 2, FFN: 96, Vocab: 64, Context: 256}, 42)
	require.NoError(t, err)
	ids := tokens(17, m.Vocab)
	original := oracle{m: m}.logits(ids, m.Layers)
	for _, tc := range []struct {
		typ   quant.Type
		rel   float64 // of the largest logit; roughly 2^-bits of the format times the depth of the model
		bytes int     // per 32 weights
	}{{quant.F16, 1e-3, 64}, {quant.BF16, 1e-2, 64}, {quant.Q8_0, 2e-2, 34}, {quant.Q4_0, 0.3, 18}} {
		t.Run(tc.typ.String(), func(t *testing.T) {
			q, err := m.As(tc.typ)
			require.NoError(t, err)
			decoded, err := q.As(quant.F32)
			require.NoError(t, err)
			got := all(t, work(t, q, 1), ids)
			require.Equal(t, all(t, work(t, decoded, 2), ids), got, "bit for bit")
			requireClose(t, oracle{m: q}.logits(ids, m.Layers), got, 1e-4)
			requireClose(t, original, got, tc.rel)
			require.EqualValues(t, 64*64/32*tc.bytes, q.Blocks[0].Q.Bytes())
			require.NotEqual(t, all(t, work(t, m, 1), ids), got, "the format must matter")
		})
	}
	_, err = model(t, configs()["llama tied"]).As(quant.Q8_0)
	require.ErrorContains(t, err, "blocks of 32")
}

func TestAsCopies(t *testing.T) {
	m := model(t, configs()["qwen2"])
	c, err := m.As(quant.F32)
	require.NoError(t, err)
	require.Equal(t, m, c)
	params, err := c.Params()
	require.NoError(t, err)
	for _, p := range params {
		p.Data[0]++
	}
	for i, w := range m.Weights() {
		if w.Vector != nil {
			require.NotEqual(t, (*w.Vector)[0], params[i].Data[0], w.Name)
		} else {
			require.NotEqual(t, w.Matrix.F32[0], params[i].Data[0], w.Name)
		}
	}
}

func TestNewIsReproducible(t *testing.T) {
	c := configs()["qwen2"]
	write := func(seed uint64) []byte {
		m, err := New(c, seed)
		require.NoError(t, err)
		var b bytes.Buffer
		require.NoError(t, m.Write(&b))
		return b.Bytes()
	}
	require.Equal(t, write(1), write(1))
	require.NotEqual(t, write(1), write(2))
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"architecture", func(c *Config) { c.Arch = "mamba" }, `"mamba" is not supported`},
		{"heads", func(c *Config) { c.KVHeads = 3 }, "cannot share 3"},
		{"odd head", func(c *Config) { c.HeadDim = 7 }, "even"},
		{"rotation wider than a head", func(c *Config) { c.RopeDim = 26 }, "RopeDim is 26, want 2 to 24"},
		{"negative window", func(c *Config) { c.Window = -1 }, "Window is -1"},
		{"cap", func(c *Config) { c.AttnSoftcap = float32(math.NaN()) }, "capped at NaN"},
		{"experts of a dense model", func(c *Config) { c.Experts, c.ExpertsUsed = 4, 2 }, "qwen2 has no mixture"},
		{"mixture without experts", func(c *Config) { c.Arch = Qwen3MoE }, "qwen3moe is a mixture of experts, but Experts is 0"},
		{"more experts used than there are", func(c *Config) { c.Arch, c.Experts, c.ExpertsUsed = Llama, 4, 5 }, "uses 5 of 4 experts"},
		{"too many experts", func(c *Config) { c.Arch, c.Experts, c.ExpertsUsed = Llama, 1<<15, 5 }, "32768 experts in each of 3 layers, want 1 to 65536 in all"},
		{"scaling", func(c *Config) { c.Rope.Kind = "ntk" }, `scaled by "ntk", want one of "none", "linear", "yarn", "longrope"`},
		{"scaling factor", func(c *Config) { c.Rope = RopeScaling{Kind: ScaleYaRN, Factor: 0.5} }, "factor of 0.5"},
		{"no layers", func(c *Config) { c.Layers = 0 }, "Layers is 0"},
		{"no context", func(c *Config) { c.Context = 0 }, "Context is 0"},
		{"eps", func(c *Config) { c.Eps = 2 }, "Eps is 2"},
		{"rope", func(c *Config) { c.RopeBase = -1 }, "RopeBase"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bad := c
			tc.change(&bad)
			_, err := New(bad, 1)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestAccounting(t *testing.T) {
	for name, c := range configs() {
		m := model(t, c)
		params, err := m.Params()
		require.NoError(t, err)
		total := 0
		for _, p := range params {
			require.Len(t, p.Data, p.N*p.K, p.Name)
			total += p.N * p.K
		}
		require.Equal(t, total, m.TotalParams(), name)
		require.EqualValues(t, 4*total, m.WeightBytes(0, m.Layers), name)
		seen := map[string]bool{}
		for _, p := range params {
			require.False(t, seen[p.Name], "%s: two parameters are called %s", name, p.Name)
			seen[p.Name] = true
		}
		split := m.WeightBytes(0, 1) + m.WeightBytes(1, m.Layers)
		if c.Tied { // both ends need the embedding
			split -= m.Embed.Bytes()
		}
		require.Equal(t, m.WeightBytes(0, m.Layers), split)
	}
	// By hand, C = 2, H = G = 1, D = 2, F = 3: products 4·4 + 3·6 = 34 multiply-adds per token;
	// three tokens behind two see 3 + 4 + 5 = 12 positions of 2·2 multiply-adds.
	c := Config{Arch: Llama, Layers: 1, Dim: 2, Heads: 1, KVHeads: 1, HeadDim: 2, FFN: 3, Vocab: 5, Context: 9}
	require.EqualValues(t, 2*3*34+2*12*4, c.FLOPs(0, 1, 3, 2))
	require.EqualValues(t, 2*3*2*5, c.HeadFLOPs(3))
	c.Window = 4 // of 3, 4 and 5 positions the last is one too many
	require.EqualValues(t, 2*3*34+2*11*4, c.FLOPs(0, 1, 3, 2))
	c.Window, c.Experts, c.ExpertsUsed = 0, 4, 2 // a router of 2·4 and two networks of 3·6 in place of one
	require.EqualValues(t, 2*3*(34+8+18)+2*12*4, c.FLOPs(0, 1, 3, 2))
	require.EqualValues(t, 16, c.KVBytesPerToken(0, 1))
	require.EqualValues(t, 24, c.HiddenBytes(3))
}

func BenchmarkForward(b *testing.B) {
	c := Config{Arch: Llama, Layers: 6, Dim: 256, Heads: 8, KVHeads: 4, FFN: 768, Vocab: 2048, Context: 512}
	for _, typ := range []quant.Type{quant.F32, quant.Q8_0, quant.Q4_0} {
		m, err := model(b, c).As(typ)
		require.NoError(b, err)
		require.NoError(b, m.Pack(1))
		w := work(b, m, 1)
		kv, err := m.NewCache(0, m.Layers, 512)
		require.NoError(b, err)
		for _, T := range []int{1, 256} {
			b.Run(fmt.Sprintf("quant=%v/T=%d/past=128/threads=1/kernel=%s", typ, T, tensor.Kernel()), func(b *testing.B) {
				b.SetBytes(int64(m.WeightBytes(0, m.Layers)) + int64(T+128)*int64(m.KVBytesPerToken(0, m.Layers))) // once, in F32 the cache
				seqs := []Seq{{IDs: tokens(T, m.Vocab), Cache: kv}}
				for b.Loop() {
					kv.SetLen(128)
					if err := w.Forward(0, m.Layers, seqs); err != nil {
						b.Fatal(err)
					}
				}
				perSec := float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(float64(T)*perSec, "tokens/s")
				b.ReportMetric(float64(m.FLOPs(0, m.Layers, T, 128)+m.HeadFLOPs(1))*perSec, "FLOP/s")
			})
		}
	}
}

package llm

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/gguf"
	"meibench/reference/quant"
)

// pairsOf makes changes of every matrix of m that an adapter can change, large enough to matter.
func pairsOf(m *Model, rank int, seed uint64) []Pair {
	r := rand.New(rand.NewPCG(seed, 7))
	var list []Pair
	var probe Adapter
	probe.layers = make([][adapterSites]lowRank, m.Layers)
	for _, parts := range tensors(m.Weights()) {
		if probe.site(m, parts[0].Matrix) == nil {
			continue
		}
		p := Pair{Name: parts[0].Name, K: parts[0].K, Rank: rank}
		for _, w := range parts {
			p.N += w.N
		}
		for range rank * p.K {
			p.A = append(p.A, float32(r.NormFloat64()/math.Sqrt(float64(p.K))))
		}
		for range rank * p.N {
			p.B = append(p.B, float32(r.NormFloat64()*0.2))
		}
		list = append(list, p)
	}
	return list
}

// merged is a copy of m with the changes added to its weights, by the formula and in float64.
func merged(t testing.TB, m *Model, alpha float64, pairs []Pair) *Model {
	c, err := m.As(quant.F32)
	require.NoError(t, err)
	for _, p := range pairs {
		n := 0 // row of the tensor
		for _, w := range c.Weights() {
			if w.Name != p.Name {
				continue
			}
			for i := range w.N * w.K {
				row, k, sum := n+i/w.K, i%w.K, 0.0
				for r := range p.Rank {
					sum += float64(p.B[row*p.Rank+r]) * float64(p.A[r*p.K+k])
				}
				w.Matrix.F32[i] = float32(float64(w.Matrix.F32[i]) + alpha/float64(p.Rank)*sum)
			}
			n += w.N
		}
		require.Equal(t, p.N, n, p.Name)
	}
	return c
}

// TestI3AdapterEqualsMergedWeights: logits of a sequence with an adapter are those of the merged weights, within float32.
func TestI3AdapterEqualsMergedWeights(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		pairs := pairsOf(m, 3, 1)
		a, err := m.NewAdapter(6, pairs)
		require.NoError(t, err)
		ids := tokens(40, m.Vocab)
		want := oracle{m: merged(t, m, 6, pairs)}.logits(ids, m.Layers)
		w := work(t, m, 1)
		plain := all(t, w, ids)
		seqs := []Seq{{IDs: ids, Cache: cache(t, m, 0, m.Layers), Want: AllLogits, Adapter: a}}
		require.NoError(t, w.Forward(0, m.Layers, seqs))
		requireClose(t, want, seqs[0].Out, 1e-4)
		require.False(t, slices.Equal(plain, seqs[0].Out), "the adapter must matter")
	})
}

// TestI3AdaptersInOneBatch: sequences of one call with different adapters, or none, get the bits that each gets alone,
// whatever the chunks and threads.
func TestI3AdaptersInOneBatch(t *testing.T) {
	for _, name := range []string{"llama", "qwen2", "phi3", "phi2", "gemma2", "llama experts"} {
		t.Run(name, func(t *testing.T) {
			m := model(t, configs()[name])
			adapters := []*Adapter{nil}
			for i, rank := range []int{1, 4, 2} {
				a, err := m.NewAdapter(8, pairsOf(m, rank, uint64(i)))
				require.NoError(t, err)
				adapters = append(adapters, a)
			}
			ids := tokens(30, m.Vocab)
			w, w2 := work(t, m, 1), work(t, m, 2)
			var want [][]float32
			for _, a := range adapters {
				s := []Seq{{IDs: ids, Cache: cache(t, m, 0, m.Layers), Adapter: a}}
				require.NoError(t, w.Forward(0, m.Layers, s))
				want = append(want, append([]float32(nil), s[0].Out...))
			}
			order := []int{3, 1, 1, 0, 2, 0, 3, 2, 2}
			var seqs []Seq
			for _, i := range order {
				seqs = append(seqs, Seq{Cache: cache(t, m, 0, m.Layers), Adapter: adapters[i]})
			}
			for lo := 0; lo < len(ids); lo += 14 {
				for i := range seqs {
					seqs[i].IDs = ids[lo:min(lo+14, len(ids))]
				}
				require.NoError(t, w2.Forward(0, m.Layers, seqs))
			}
			for i, a := range order {
				require.Equal(t, want[a], seqs[i].Out, "sequence %d, adapter %d", i, a)
			}
		})
	}
}

func TestAdapterDoesNotAllocate(t *testing.T) {
	m := model(t, configs()["llama"])
	a, err := m.NewAdapter(8, pairsOf(m, 4, 1))
	require.NoError(t, err)
	w := work(t, m, 2)
	seqs := []Seq{{IDs: tokens(20, m.Vocab), Cache: cache(t, m, 0, 4), Adapter: a}, {IDs: tokens(9, m.Vocab), Cache: cache(t, m, 0, 4)}}
	require.NoError(t, w.Forward(0, 4, seqs))
	seqs[0].IDs, seqs[1].IDs = seqs[0].IDs[:1], seqs[1].IDs[:1]
	require.Zero(t, testing.AllocsPerRun(30, func() {
		if err := w.Forward(0, 4, seqs); err != nil {
			panic(err)
		}
	}))
}

// adapterFile writes what ReadAdapter reads.
func adapterFile(t testing.TB, arch string, alpha float32, pairs []Pair) []byte {
	meta := []gguf.KV{{Key: "general.architecture", Value: arch}, {Key: "general.type", Value: "adapter"},
		{Key: "adapter.type", Value: "lora"}, {Key: "adapter.lora.alpha", Value: alpha}}
	var data []gguf.TensorData
	add := func(name string, dims []int, x []float32) {
		data = append(data, gguf.TensorData{Name: name, Type: quant.F32, Dims: dims, Data: func() ([]byte, error) {
			b := make([]byte, 4*len(x))
			return b, quant.Encode(quant.F32, b, x)
		}})
	}
	for _, p := range pairs {
		add(p.Name+".lora_a", []int{p.K, p.Rank}, p.A)
		add(p.Name+".lora_b", []int{p.Rank, p.N}, p.B)
	}
	var b bytes.Buffer
	require.NoError(t, gguf.Write(&b, meta, data))
	return b.Bytes()
}

func readAdapter(c Config, file []byte) (*Adapter, error) {
	f, err := gguf.Read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	return c.ReadAdapter(f)
}

func TestReadAdapter(t *testing.T) {
	m := model(t, configs()["phi3"]) // where one tensor of the file is three matrices
	pairs := pairsOf(m, 2, 1)
	want, err := m.NewAdapter(5, pairs)
	require.NoError(t, err)
	got, err := readAdapter(m.Config, adapterFile(t, Phi3, 5, pairs))
	require.NoError(t, err)
	require.Equal(t, want, got)
	floats := 0
	for _, p := range pairs {
		floats += len(p.A) + len(p.B)
	}
	require.EqualValues(t, 4*floats, got.Bytes())
	other := configs()["phi3"]
	other.FFN = 72
	wrong := func(change func(p *Pair)) []Pair {
		list := pairsOf(m, 2, 1)[:1]
		change(&list[0])
		return list
	}
	for _, tc := range []struct {
		name string
		c    Config
		file []byte
		want string
	}{
		{"architecture", m.Config, adapterFile(t, Llama, 5, pairs), `general.architecture is "llama", want "phi3"`},
		{"another shape", other, adapterFile(t, Phi3, 5, pairs), "made for another model"},
		{"unknown tensor", m.Config, adapterFile(t, Phi3, 5, wrong(func(p *Pair) { p.Name = "blk.9.attn_q.weight" })), "not a tensor of this"},
		{"a vector", m.Config, adapterFile(t, Phi3, 5, wrong(func(p *Pair) {
			*p = Pair{Name: "output_norm.weight", N: 1, K: m.Dim, Rank: 1, A: make([]float32, m.Dim), B: make([]float32, 1)}
		})), "not a matrix that an adapter can change"},
		{"embedding", m.Config, adapterFile(t, Phi3, 5, wrong(func(p *Pair) {
			*p = Pair{Name: "token_embd.weight", N: m.Vocab, K: m.Dim, Rank: 1, A: make([]float32, m.Dim), B: make([]float32, m.Vocab)}
		})), "not a matrix that an adapter can change"},
		{"alpha", m.Config, adapterFile(t, Phi3, float32(math.NaN()), pairs), "alpha is NaN"},
		{"nothing", m.Config, adapterFile(t, Phi3, 5, nil), "changes nothing"},
		{"not an adapter", m.Config, func() []byte {
			var b bytes.Buffer
			require.NoError(t, m.Write(&b))
			return b.Bytes()
		}(), `want "adapter"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := readAdapter(tc.c, tc.file)
			require.ErrorContains(t, err, tc.want)
		})
	}
	s := []Seq{{IDs: []int32{1}, Cache: cache(t, model(t, configs()["llama"]), 0, 4), Adapter: want}}
	require.ErrorContains(t, work(t, model(t, configs()["llama"]), 1).Forward(0, 4, s), "another shape")
}

func FuzzReadAdapter(f *testing.F) {
	m := model(f, Config{Arch: Llama, Layers: 1, Dim: 8, Heads: 2, KVHeads: 1, FFN: 8, Vocab: 9, Context: 16})
	f.Add(adapterFile(f, Llama, 4, pairsOf(m, 2, 1)))
	f.Add(adapterFile(f, Llama, 4, pairsOf(m, 1, 1)[:2]))
	f.Fuzz(func(t *testing.T, file []byte) {
		a, err := readAdapter(m.Config, file)
		if err != nil {
			return
		}
		w := m.NewWork(1)
		defer w.Close()
		c, err := m.NewCache(0, 1, 4)
		require.NoError(t, err)
		require.NoError(t, w.Forward(0, 1, []Seq{{IDs: []int32{1, 2}, Cache: c, Adapter: a}}))
	})
}

func BenchmarkAdapters(b *testing.B) {
	m := model(b, Config{Arch: Llama, Layers: 6, Dim: 256, Heads: 8, KVHeads: 4, FFN: 768, Vocab: 2048, Context: 512})
	require.NoError(b, m.Pack(1))
	w := work(b, m, 1)
	for _, adapters := range []int{0, 1, 8} {
		b.Run(fmt.Sprintf("batch=8/rank=8/adapters=%d", adapters), func(b *testing.B) {
			seqs := make([]Seq, 8)
			list := []*Adapter{nil}
			for i := range adapters {
				a, err := m.NewAdapter(8, pairsOf(m, 8, uint64(i)))
				require.NoError(b, err)
				list = append(list, a)
			}
			for i := range seqs {
				c, err := m.NewCache(0, m.Layers, 256)
				require.NoError(b, err)
				c.SetLen(128)
				seqs[i] = Seq{IDs: []int32{1}, Cache: c}
				if adapters > 0 {
					seqs[i].Adapter = list[1+i*adapters/8]
				}
			}
			for b.Loop() {
				for i := range seqs {
					seqs[i].Cache.Truncate(128)
				}
				if err := w.Forward(0, m.Layers, seqs); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(8*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

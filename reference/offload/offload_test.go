package offload

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/reference/storage"
)

func shape(arch string) llm.Config {
	return llm.Config{Arch: arch, Layers: 5, Dim: 256, Heads: 4, KVHeads: 2, HeadDim: 64, FFN: 512, Vocab: 1000, Context: 64}
}

func mixture() llm.Config {
	c := shape(llm.Llama)
	c.Experts, c.ExpertsUsed, c.ExpertFFN = 8, 2, 256
	return c
}

// write puts a random model into a file.
func write(t *testing.T, c llm.Config, typ quant.Type) string {
	m, err := llm.New(c, 7)
	require.NoError(t, err)
	if typ != quant.F32 {
		m, err = m.As(typ)
		require.NoError(t, err)
	}
	path := filepath.Join(t.TempDir(), "model.gguf")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, m.Write(f))
	require.NoError(t, f.Close())
	return path
}

func ids(n, vocab int, seed uint64) []int32 {
	r, out := rng.Stream(seed, "ids"), make([]int32, n)
	for i := range out {
		out[i] = int32(r.Uint64() % uint64(vocab))
	}
	return out
}

// resident runs a batch on the model whole in memory: a prompt each, then steps of one token; all logits of all steps.
func resident(t *testing.T, path string, batch, steps int) (all [][]float32) {
	m, err := llm.Open(path, llm.ReadOptions{Threads: 2})
	require.NoError(t, err)
	defer m.Close()
	w := m.NewWork(2)
	defer w.Close()
	return drive(t, m, batch, steps, func(s []llm.Seq) error { return w.Forward(0, m.Layers, s) })
}

func streamed(t *testing.T, s *Stream, batch, steps int) [][]float32 {
	return drive(t, s.Model(), batch, steps, s.Forward)
}

func drive(t *testing.T, m *llm.Model, batch, steps int, forward func([]llm.Seq) error) (all [][]float32) {
	seqs := make([]llm.Seq, batch)
	for i := range seqs {
		c, err := m.NewCache(0, m.Layers, 40)
		require.NoError(t, err)
		seqs[i] = llm.Seq{IDs: ids(3+i, m.Vocab, uint64(i)), Cache: c, Want: llm.AllLogits}
	}
	for range steps {
		require.NoError(t, forward(seqs))
		for i := range seqs {
			all = append(all, append([]float32(nil), seqs[i].Out...))
			next := llm.Greedy(seqs[i].Out[len(seqs[i].Out)-m.Vocab:])
			seqs[i].IDs, seqs[i].Want = []int32{next}, llm.LastLogits
		}
	}
	return all
}

// TestD5StreamEqualsResident: for any budget, type of weights, architecture, number of buffers and grouping, the logits of
// prompts and steps are those of the resident model bit for bit; what is held stays within the budget; and what is read is
// the weights that are not kept, once per pass, whatever the batch.
func TestD5StreamEqualsResident(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    llm.Config
		typ  quant.Type
	}{
		{"llama q4_0", shape(llm.Llama), quant.Q4_0}, {"llama q6_k", shape(llm.Llama), quant.Q6_K}, {"llama q5_0", shape(llm.Llama), quant.Q5_0},
		{"llama f32", shape(llm.Llama), quant.F32}, {"qwen2 f16", shape(llm.Qwen2), quant.F16}, {"gemma2 q8_0", shape(llm.Gemma2), quant.Q8_0},
		{"phi2 q4_k", shape(llm.Phi2), quant.Q4_K}, {"phi3 q8_0", shape(llm.Phi3), quant.Q8_0}, {"experts q8_0", mixture(), quant.Q8_0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tied := tc.c
			tied.Tied = tc.c.Arch == llm.Gemma2
			path := write(t, tied, tc.typ)
			const batch, steps = 3, 3
			want := resident(t, path, batch, steps)
			free, err := Open(path, Options{})
			require.NoError(t, err)
			most := free.Plan()
			require.NoError(t, free.Close())
			require.Equal(t, most.Units, most.Pinned)
			for _, o := range []Options{{}, {Budget: most.Least}, {Budget: (most.Least + most.Held()) / 2, Threads: 2}, {Budget: most.Held() - 1, Group: 2},
				{Resident: 2, Group: 1}, {Budget: most.Held(), Mode: storage.Dropped}} {
				s, err := Open(path, o)
				require.NoError(t, err)
				p := s.Plan()
				if o.Budget > 0 {
					require.LessOrEqual(t, p.Held(), o.Budget)
				}
				got := streamed(t, s, batch, steps)
				require.True(t, equal(want, got), "%+v", p)
				checkBytes(t, s, p, steps)
				require.NoError(t, s.Close())
			}
		})
	}
}

// checkBytes compares what was read with the plan: the index and vectors once, kept units once, the rest once per pass, with at
// most a ring more of read-ahead.
func checkBytes(t *testing.T, s *Stream, p Plan, passes int) {
	s.ring.close() // the reader stops, so that the count is whole
	weights := units.Bytes(s.reader.Payload()-s.indexBytes) - units.Bytes((3+4+5+3*(passes-1))*s.rowBytes())
	once := p.File - p.PerPass
	low := once + units.Bytes(passes)*p.PerPass
	require.GreaterOrEqual(t, weights, low)
	require.LessOrEqual(t, weights, low+units.Bytes(int64(p.Slots+1)*s.slotBytes()))
	if p.Pinned == p.Units {
		require.Equal(t, p.File, weights)
	}
}

func equal(a, b [][]float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if len(a[i]) != len(b[i]) {
			return false
		}
		for j := range a[i] {
			if a[i][j] != b[i][j] {
				return false
			}
		}
	}
	return true
}

// TestD5Refusals: what cannot be is refused by name, and a stream whose storage fails says so and stays failed.
func TestD5Refusals(t *testing.T) {
	path := write(t, shape(llm.Llama), quant.Q8_0)
	for want, o := range map[string]Options{
		"raise it to that at least": {Budget: 1 << 20}, "below 0": {Threads: -1}, "the model has 5": {Resident: 6}, "the model has none": {Experts: &ExpertOptions{Cached: 1}},
	} {
		_, err := Open(path, o)
		require.ErrorContains(t, err, want)
	}
	_, err := Open(filepath.Join(t.TempDir(), "none.gguf"), Options{})
	require.Error(t, err)
	moe := write(t, mixture(), quant.Q8_0)
	_, err = Open(moe, Options{Experts: &ExpertOptions{Cached: 9}})
	require.ErrorContains(t, err, "want 1 to all 8")
	_, err = Open(moe, Options{Experts: &ExpertOptions{Cached: 1, Policy: "mru"}})
	require.ErrorContains(t, err, "[lfu lru]")

	s, err := Open(path, Options{Resident: 1, Slots: 1})
	require.NoError(t, err)
	defer s.Close()
	c, err := s.Model().NewCache(0, 5, 8)
	require.NoError(t, err)
	for want, q := range map[string][]llm.Seq{
		"at least one": nil, "ids and a cache": {{IDs: []int32{1}}}, "want 0 to 999": {{IDs: []int32{1000}, Cache: c}}, "do not fit": {{IDs: make([]int32, 9), Cache: c}},
		"share a cache": {{IDs: []int32{1}, Cache: c}, {IDs: []int32{1}, Cache: c}}, "parents": {{IDs: []int32{1}, Cache: c, Parents: []int32{0}}},
		"all 5": {{IDs: []int32{1}, Cache: c.Span(0, 2)}},
	} {
		require.ErrorContains(t, s.Forward(q), want)
	}
	require.NoError(t, s.Forward([]llm.Seq{{IDs: []int32{1}, Cache: c}}), "a refused call leaves the stream whole")
	require.NoError(t, os.Truncate(path, 4096))
	var failed error
	for range 3 {
		if failed = s.Forward([]llm.Seq{{IDs: []int32{1}, Cache: c}}); failed != nil {
			break
		}
	}
	require.Error(t, failed)
	require.LessOrEqual(t, c.Len(), 3)
	require.ErrorContains(t, s.Forward([]llm.Seq{{IDs: []int32{1}, Cache: c}}), "earlier pass failed")
}

// TestD5LargestSet: the deal reads as few bytes per pass as the best of all subsets, for drawn sizes and budgets.
func TestD5LargestSet(t *testing.T) {
	r := rng.Stream(3, "deal")
	for range 300 {
		list := make([]*unit, 1+r.IntN(9))
		kinds := [][2]int64{{int64(1 + r.IntN(9)), int64(1 + r.IntN(9))}, {int64(1 + r.IntN(9)), int64(1 + r.IntN(9))}, {int64(1 + r.IntN(9)), int64(1 + r.IntN(9))}}
		for i := range list {
			k := kinds[r.IntN(3)]
			list[i] = &unit{file: k[0], memory: k[1]}
		}
		slots, room := 1+r.IntN(2), int64(r.IntN(60))
		best := int64(-1)
		for set := range 1 << len(list) {
			var kept, saved, slot int64
			for i, u := range list {
				if set>>i&1 == 1 {
					kept, saved = kept+u.memory, saved+u.file
				} else {
					slot = max(slot, u.memory)
				}
			}
			if kept+int64(slots)*slot <= room {
				best = max(best, saved)
			}
		}
		keep, ok := choose(list, slots, room)
		require.Equal(t, best >= 0, ok)
		if !ok {
			continue
		}
		pin(list, keep)
		var saved int64
		for _, u := range list {
			if u.pinned {
				saved += u.file
			}
		}
		require.Equal(t, best, saved)
	}
}

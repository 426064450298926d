package offload

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// Two kinds of sequences, of which the first layers tell which one is at hand: the later layers are foreseen from the past of that kind,
// and without a past from what the sequence itself has done.
func TestC3TracesForeseeByLikeness(t *testing.T) {
	tr := NewTraces(3, 8, 4)
	require.Empty(t, tr.Likely(2, 2), "nothing is known")
	play := func(kind int) {
		for range 5 {
			for layer := range 3 {
				tr.Note(layer, kind+2*layer)
			}
		}
		tr.Note(2, kind) // once
	}
	play(0)
	require.Equal(t, []int{4, 0}, tr.Likely(2, 3), "from itself")
	tr.End()
	play(1)
	tr.End()
	require.Empty(t, tr.Likely(2, 2), "a new sequence has shown nothing")
	tr.Note(0, 1)
	require.Equal(t, []int{5, 1}, tr.Likely(2, 2))
	require.Equal(t, []int{5}, tr.Likely(2, 1))
	require.Greater(t, tr.Score(2, 5), tr.Score(2, 1))
	require.Zero(t, tr.Score(2, 4))
	tr.End()
	tr.Note(0, 0)
	require.Equal(t, []int{4, 0}, tr.Likely(2, 2))
	for range 10 {
		tr.End()
		play(1)
	}
	require.Len(t, tr.past, 4, "bounded")
	tr.End()
	tr.Note(0, 0)
	require.Empty(t, tr.Likely(2, 2), "the first kind was forgotten")
	none := NewTraces(1, 2, 0)
	none.Note(0, 1)
	none.End()
	require.Empty(t, none.Likely(0, 2))
}

// topics decodes sequences of a few kinds, whose tokens choose experts by their kind and the layer, now and then another one.
func topics(t *testing.T, path string, o ExpertOptions, sequences, tokens int) (*Stream, [][]float32) {
	s, err := Open(path, Options{Experts: &o})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	r := rng.Stream(9, "topics")
	var logits [][]float32
	for n := range sequences {
		kind := r.IntN(3)
		s.Experts().OnRoute(func(layer, _ int, chosen []int32, _ []float32) {
			for i := range chosen {
				chosen[i] = int32((2*kind + i + layer) % 8)
			}
			if r.IntN(6) == 0 {
				chosen[0] = int32((2*kind + 5 + layer) % 8)
			}
		})
		cache, err := s.Model().NewCache(0, s.Model().Layers, 64)
		require.NoError(t, err)
		for k := range tokens {
			seqs := []llm.Seq{{IDs: []int32{int32((n + k) % s.Model().Vocab)}, Cache: cache}}
			require.NoError(t, s.Forward(seqs))
			logits = append(logits, append([]float32(nil), seqs[0].Out...))
		}
		if tr, ok := o.Foresight.(*Traces); ok {
			tr.End()
		}
	}
	return s, logits
}

// Whatever is foreseen, the bits are those of the model; bytes are those of misses and fetches; told the truth nothing is wrong, and what
// was not there in time is the first layer's alone; what sequences showed before is worth more than recency where they come in
// kinds, and keeping what is likely beats nothing that a clairvoyant keeps.
func TestC3ForesightFindsExperts(t *testing.T) {
	c := mixture()
	c.Layers, c.Dim, c.HeadDim, c.FFN, c.ExpertFFN, c.Vocab, c.Context = 6, 64, 16, 64, 32, 64, 64
	path := write(t, c, quant.F16)
	const sequences, tokens = 12, 12
	run := func(o ExpertOptions) (*Experts, [][]float32) {
		s, logits := topics(t, path, o, sequences, tokens)
		return s.Experts(), logits
	}
	record := NewRecord()
	all, want := run(ExpertOptions{Cached: 8, Foresight: record})
	require.Equal(t, all.Chosen, all.Hits+all.Misses)
	const k = 3
	found := map[string]*Experts{}
	for name, o := range map[string]ExpertOptions{
		"lru":         {Cached: k},
		"lfu":         {Cached: k, Policy: "lfu"},
		"gate":        {Cached: k, Guess: true},
		"aware":       {Cached: k, Policy: "aware", Foresight: NewTraces(6, 8, 8)},
		"traces":      {Cached: k, Foresight: NewTraces(6, 8, 8), Ahead: 1},
		"traces far":  {Cached: k, Foresight: NewTraces(6, 8, 8), Ahead: 3},
		"both":        {Cached: k, Policy: "aware", Foresight: NewTraces(6, 8, 8), Ahead: 1},
		"truth":       {Cached: k, Foresight: record.Again(), Ahead: 1},
		"clairvoyant": {Cached: k, Policy: "aware", Foresight: record.Again()},
	} {
		x, got := run(o)
		require.True(t, equal(want, got), name)
		require.Equal(t, all.Chosen, x.Chosen, name)
		require.Equal(t, x.Chosen, x.Hits+x.Misses, name)
		require.Equal(t, units.Bytes(x.Misses+x.Fetched)*x.ExpertBytes, x.Bytes, name)
		for _, e := range x.layers {
			require.LessOrEqual(t, len(e.in), k, name)
		}
		found[name] = x
		t.Logf("%-12s found %.3f, guessed right %d of %d, read %v", name, x.HitRatio(), x.Right, x.Guessed, x.Bytes)
	}
	truth := found["truth"]
	require.Equal(t, truth.Guessed, truth.Right)
	require.LessOrEqual(t, truth.Misses, sequences*tokens*2, "those of the first layer")
	for _, name := range []string{"lru", "lfu", "aware"} {
		require.GreaterOrEqual(t, found["clairvoyant"].Hits, found[name].Hits, name)
	}
	require.Greater(t, found["traces"].Hits, found["lru"].Hits)
	require.GreaterOrEqual(t, found["truth"].Hits, found["traces"].Hits)
	require.Greater(t, float64(found["traces"].Right)/float64(found["traces"].Guessed), 0.7)
}

func TestC3ImpossibleForesights(t *testing.T) {
	path := write(t, mixture(), quant.F16)
	for want, o := range map[string]ExpertOptions{
		"at once":                      {Cached: 2, Guess: true, Foresight: NewRecord(), Ahead: 1},
		"policy aware goes by":         {Cached: 2, Policy: "aware"},
		"-1 layers ahead":              {Cached: 2, Foresight: NewRecord(), Ahead: -1},
		"want 0 or more, and a foresi": {Cached: 2, Ahead: 1},
	} {
		_, err := Open(path, Options{Experts: &o})
		require.ErrorContains(t, err, want)
	}
}

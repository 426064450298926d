package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/offload"
	"meibench/reference/quant"
)

// expertRow is one size and policy of the cache of experts.
type expertRow struct {
	Policy   string  `json:"policy"`
	Ahead    string  `json:"ahead"` // how experts are read ahead: "", gate, traces or truth
	Cached   int     `json:"cached_per_layer"`
	Of       int     `json:"experts_per_layer"`
	Room     int64   `json:"expert_memory_bytes"`
	Hits     float64 `json:"hit_ratio"`
	Right    float64 `json:"guesses_right"` // share of guessed experts that the layer chose; 0 without a guess
	PerToken float64 `json:"bytes_per_token"`
	PerSec   float64 `json:"tokens_per_s"`
	Stall    float64 `json:"stall_s_per_token"`
	Same     bool    `json:"same"`
}

// drawnMixture is the shape of the mixture that stands in, since none is shipped.
func drawnMixture() llm.Config {
	return llm.Config{Arch: llm.Llama, Layers: 6, Dim: 256, Heads: 8, KVHeads: 4, HeadDim: 32, FFN: 512, Vocab: 1024, Context: 512, Experts: 8, ExpertsUsed: 2, ExpertFFN: 512}
}

const (
	drawnNote = "no mixture is shipped: weights are drawn, and text of four kinds of tokens; a trained router repeats itself more or less than this one"
	fileNote  = "text is drawn from the vocabulary, in sequences of four kinds of tokens"
)

// Of the text: so many kinds of sequences, each of a part of the vocabulary, so many tokens long.
const (
	textKinds  = 4
	textTokens = 20
)

func (f *coldFlags) runExperts(a *app, args []string) error {
	path, note, text, remove, err := f.mixture(args)
	if err != nil {
		return withCode(exitUsage, err)
	}
	defer remove()
	rows, err := f.expertRows(path, text, func(i, n int, r *expertRow) {
		if !a.quiet && !a.json {
			fmt.Fprintf(a.err, "[%d/%d] %s, %d of %d experts\n", i+1, n, r.Policy, r.Cached, r.Of)
		}
	})
	if err != nil {
		return withCode(exitIncomplete, err)
	}
	if a.json {
		return writeJSON(a.out, map[string]any{"file": path, "note": note, "experts": rows})
	}
	fmt.Fprintf(a.out, "%s\n\n", note)
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "policy\tcached\tmemory\tin memory\tguessed right\tread / token\ttoken/s\tstall s / token\tsame")
	for _, r := range rows {
		right, policy := "-", r.Policy
		if r.Ahead != "" {
			right, policy = fmt.Sprintf("%.0f %%", 100*r.Right), r.Policy+" + "+r.Ahead
		}
		fmt.Fprintf(w, "%s\t%d of %d\t%v\t%.1f %%\t%s\t%v\t%.1f\t%.5f\t%t\n", policy, r.Cached, r.Of, units.Bytes(r.Room), 100*r.Hits, right, units.Bytes(r.PerToken), r.PerSec, r.Stall, r.Same)
	}
	return w.Flush()
}

// mixture is the file to run and what to say of it, text for it, and what removes the file if it was made for that.
func (f *coldFlags) mixture(args []string) (path, note string, text []int32, remove func(), err error) {
	if len(args) == 1 {
		if path, remove, err = coldFile(args); err != nil {
			return "", "", nil, nil, err
		}
		m, err := models.Load(path)
		if err != nil {
			remove()
			return "", "", nil, nil, err
		}
		defer m.Model.Close()
		if m.Model.Experts == 0 {
			remove()
			return "", "", nil, nil, fmt.Errorf("%s has no experts: want a mixture, or no argument for one with drawn weights", args[0])
		}
		return path, fileNote, f.drawnText(m.Model.Vocab), remove, nil
	}
	m, err := llm.New(drawnMixture(), 1)
	if err == nil {
		m, err = m.As(quant.F16)
	}
	if err != nil {
		return "", "", nil, nil, err
	}
	dir, err := os.MkdirTemp("", "meibench-mixture-")
	if err != nil {
		return "", "", nil, nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	path = filepath.Join(dir, "mixture.gguf")
	file, err := os.Create(path)
	if err == nil {
		err = cmp.Or(m.Write(file), file.Close())
	}
	if err != nil {
		remove()
	}
	return path, drawnNote, f.drawnText(m.Vocab), remove, err
}

// drawnText is twice n tokens: half to fill the cache, half to count. Each sequence has tokens of one part of the vocabulary.
func (f *coldFlags) drawnText(vocab int) []int32 {
	r, ids := rng.Stream(1, "cold", "experts"), make([]int32, 2*f.n)
	kind, part := 0, max(1, vocab/textKinds)
	for i := range ids {
		if i%textTokens == 0 {
			kind = r.IntN(textKinds)
		}
		ids[i] = int32(min(vocab-1, kind*part+r.IntN(part)))
	}
	return ids
}

// expertRows runs the text token by token with every policy and size of cache; all experts cached come first and are what the
// others' logits are compared with.
func (f *coldFlags) expertRows(path string, text []int32, say func(i, n int, r *expertRow)) ([]expertRow, error) {
	s, err := offload.Open(path, offload.Options{Experts: &offload.ExpertOptions{Cached: 1}})
	if err != nil {
		return nil, err
	}
	E := s.Model().Experts
	if err := s.Close(); err != nil {
		return nil, err
	}
	rows := []expertRow{{Policy: "lru", Cached: E, Of: E}}
	for _, share := range f.ram {
		if k := max(1, int(share*float64(E))); k < E {
			for _, way := range [][2]string{{"lru", ""}, {"lfu", ""}, {"aware", ""}, {"lru", "gate"}, {"lru", "traces"}, {"aware", "traces"}, {"lru", "truth"}} {
				rows = append(rows, expertRow{Policy: way[0], Ahead: way[1], Cached: k, Of: E})
			}
		}
	}
	var first [][]float32
	truth := offload.NewRecord()
	for i := range rows {
		r := &rows[i]
		say(i, len(rows), r)
		logits, err := f.runMixture(path, text, r, truth)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = logits
		}
		r.Same = slices.EqualFunc(logits, first, slices.Equal[[]float32])
	}
	return rows, nil
}

// pastSequences is how many sequences are remembered.
const pastSequences = 64

// foresight is what a row goes by: the first row, which has all experts, records what is chosen.
func (r *expertRow) foresight(s *offload.Stream, truth *offload.Record) offload.Foresight {
	switch {
	case r.Cached == r.Of:
		return truth
	case r.Ahead == "truth":
		return truth.Again()
	case r.Ahead == "traces" || r.Policy == "aware":
		return offload.NewTraces(s.Model().Layers, s.Model().Experts, pastSequences)
	}
	return nil
}

func (f *coldFlags) runMixture(path string, text []int32, r *expertRow, truth *offload.Record) (logits [][]float32, err error) {
	shape, err := offload.Open(path, offload.Options{Experts: &offload.ExpertOptions{Cached: 1}})
	if err != nil {
		return nil, err
	}
	o := offload.ExpertOptions{Cached: r.Cached, Policy: r.Policy, Guess: r.Ahead == "gate", Foresight: r.foresight(shape, truth)}
	if err := shape.Close(); err != nil {
		return nil, err
	}
	if r.Ahead == "traces" || r.Ahead == "truth" {
		o.Ahead = 1
	}
	s, err := offload.Open(path, offload.Options{Threads: f.threads, Experts: &o})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	n := len(text)
	var c *llm.Cache
	for t := range n {
		if t == n/2 {
			s.ResetStats()
		}
		if t%textTokens == 0 {
			if c, err = s.Model().NewCache(0, s.Model().Layers, min(textTokens, s.Model().Context)); err != nil {
				return nil, err
			}
			if past, ok := o.Foresight.(*offload.Traces); ok {
				past.End()
			}
		}
		seqs := []llm.Seq{{IDs: text[t : t+1], Cache: c}}
		if err := s.Forward(seqs); err != nil {
			return nil, err
		}
		logits = append(logits, append([]float32(nil), seqs[0].Out...))
	}
	x, st, tokens := s.Experts(), s.Stats(), float64(n-n/2)
	r.Room, r.Hits, r.PerToken = int64(s.Plan().Experts), x.HitRatio(), float64(x.Bytes)/tokens
	r.PerSec, r.Stall = tokens/(st.Stall+st.Compute).Seconds(), x.Stall.Seconds()/tokens
	if x.Guessed > 0 && r.Ahead != "" {
		r.Right = float64(x.Right) / float64(x.Guessed)
	}
	return logits, nil
}

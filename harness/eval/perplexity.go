package eval

import (
	"context"
	"fmt"
	"math"
	"slices"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/models"
)

// TextOptions says how a text is cut. The zero value of a field stands for its default.
type TextOptions struct {
	Window  int    // tokens that the model sees at once; default 512, or its context if that is shorter
	Stride  int    // tokens between the beginnings of windows; default half a window
	Threads int    // they do not change the result
	Seed    uint64 // of the bootstrap

	Progress func(done, of int) // windows
}

// Perplexity is how surprised a model is by a text: exp of the mean negative log
// likelihood per token.
type Perplexity struct {
	Value   Interval `json:"perplexity"` // percentile bootstrap over windows, 1000 resamples
	Tokens  int      `json:"tokens"`     // of the text
	Scored  int      `json:"scored"`     // tokens that a likelihood was computed of
	Windows int      `json:"windows"`
	Window  int      `json:"window"`
	Stride  int      `json:"stride"`
	NLL     float64  `json:"nll_per_token"` // nats
}

// window is the scored part of one: sum of negative log likelihoods, and of tokens.
type window struct {
	nll    float64
	scored int
}

// Text measures perplexity with a sliding window. The text is encoded once, with
// a begin of text where the tokenizer wants one. Each window scores the tokens
// that no window before it scored; the first scores all but its first token. So
// with a stride of half a window every token but those of the first half window
// has at least half a window of context. A tail shorter than a stride is scored.
//
// Note: llama.cpp's default scores the second half of windows that do not
// overlap; with Window w and Stride w/2 the same tokens have the same context
// here, and the other half of the text is scored as well.
func Text(ctx context.Context, m *models.Loaded, text string, o TextOptions) (*Perplexity, error) {
	if o.Window == 0 {
		o.Window = min(512, m.Model.Context)
	}
	if o.Stride == 0 {
		o.Stride = max(1, o.Window/2)
	}
	if o.Window < 2 || o.Window > m.Model.Context || o.Stride < 1 || o.Stride >= o.Window {
		return nil, fmt.Errorf("measure perplexity: a window of %d tokens every %d: want 2 to the model's context of %d, and a stride below the window",
			o.Window, o.Stride, m.Model.Context)
	}
	ids := m.Tokenizer.EncodePrompt(text)
	if len(ids) < 2 {
		return nil, fmt.Errorf("measure perplexity: the text has %d tokens: want at least 2", len(ids))
	}
	work := m.Model.NewWork(max(1, o.Threads))
	defer work.Close()
	cache, err := m.Model.NewCache(0, m.Model.Layers, o.Window)
	if err != nil {
		return nil, fmt.Errorf("measure perplexity: %w", err)
	}
	scorer := &scorer{m: m.Model, work: work, cache: cache}
	starts := windowStarts(len(ids), o.Window, o.Stride)
	var parts []window
	for i, from := range starts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		first := 1
		if i > 0 {
			first = starts[i-1] + o.Window - from // scored up to there
		}
		part, err := scorer.window(ids[from:min(from+o.Window, len(ids))], first)
		if err != nil {
			return nil, fmt.Errorf("measure perplexity: window %d: %w", i, err)
		}
		parts = append(parts, part)
		if o.Progress != nil {
			o.Progress(i+1, len(starts))
		}
	}
	p := &Perplexity{Tokens: len(ids), Windows: len(parts), Window: o.Window, Stride: o.Stride}
	p.sum(parts, o.Seed)
	return p, nil
}

// windowStarts lists where windows begin: every stride, until one reaches the end.
func windowStarts(tokens, window, stride int) []int {
	starts := []int{0}
	for last := 0; last+window < tokens; {
		last += stride
		starts = append(starts, last)
	}
	return starts
}

// scorer runs windows one after the other in the same memory.
type scorer struct {
	m     *llm.Model
	work  *llm.Work
	cache *llm.Cache
}

// logitsAtOnce bounds the memory of logits: about 16 MB.
const logitsAtOnce = 4 << 20

// window scores tokens [first, len(ids)) of a window, in pieces.
func (s *scorer) window(ids []int32, first int) (w window, err error) {
	s.cache.Truncate(0)
	piece := max(1, logitsAtOnce/s.m.Vocab)
	for at := 0; at < len(ids)-1; at += piece {
		end := min(at+piece, len(ids)-1)
		want := llm.AllLogits
		if end < first {
			want = llm.Hidden // nothing to score: no head
		}
		seqs := []llm.Seq{{IDs: ids[at:end], Cache: s.cache, Want: want}}
		if err := s.work.Forward(0, s.m.Layers, seqs); err != nil {
			return w, err
		}
		for i := max(at, first-1); i < end; i++ {
			row := seqs[0].Out[(i-at)*s.m.Vocab : (i-at+1)*s.m.Vocab]
			w.nll += surprise(row, ids[i+1])
			w.scored++
		}
	}
	return w, nil
}

// surprise is −ln softmax(logits)[id].
func surprise(logits []float32, id int32) float64 {
	top, sum := float64(slices.Max(logits)), 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - top)
	}
	return math.Log(sum) + top - float64(logits[id])
}

const resamples = 1000

// sum adds up the windows and resamples them for the interval. Neighbouring
// windows share context, so the interval is a little too narrow for text whose
// difficulty changes slowly.
func (p *Perplexity) sum(parts []window, seed uint64) {
	total := func(pick func(i int) window) float64 {
		all := window{}
		for i := range parts {
			w := pick(i)
			all.nll, all.scored = all.nll+w.nll, all.scored+w.scored
		}
		p.Scored = all.scored
		return all.nll / float64(all.scored)
	}
	r := rng.Stream(seed, "perplexity", "bootstrap")
	draws := make([]float64, resamples)
	for k := range draws {
		draws[k] = total(func(int) window { return parts[r.IntN(len(parts))] })
	}
	slices.Sort(draws)
	p.NLL = total(func(i int) window { return parts[i] })
	p.Value = Interval{math.Exp(p.NLL), math.Exp(draws[resamples/40]), math.Exp(draws[resamples-1-resamples/40])}
}

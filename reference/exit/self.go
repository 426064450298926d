package exit

import (
	"fmt"
	"slices"

	"meibench/reference/llm"
)

// Self is greedy self-speculation. The draft is the model with layers left out; the layers below the first of those are the
// same for draft and model, so they run once and share one cache. Then the model runs its other layers over all drafted
// tokens at once, overwrites what the draft left in their caches, and keeps the tokens that it would have chosen itself.
//
//	s, err := exit.NewSelf(work, exit.Above(4, 8), 3)  // layers 4 to 7 only verify: LayerSkip with exit layer 4
//	answer, stats, err := s.Generate(cache, prompt, 64, stop)
type Self struct {
	Gamma int // drafts a round

	stack  stack
	split  int      // layers below are shared
	draft  [][2]int // layers that the draft runs above
	low    item     // the token that is drafted from
	high   item     // all tokens of the round
	drafts []int32
}

// Above lists layers from to L-1: left out, they make an exit behind layer from the draft.
func Above(from, layers int) []int {
	var list []int
	for l := from; l < layers; l++ {
		list = append(list, l)
	}
	return list
}

// NewSelf leaves the layers of skip out of the draft: one at least, and not layer 0.
func NewSelf(w *llm.Work, skip []int, gamma int) (*Self, error) {
	L := w.Model.Layers
	if len(skip) == 0 || slices.Min(skip) < 1 || slices.Max(skip) >= L || gamma < 0 {
		return nil, fmt.Errorf("self-speculation: %d drafts without layers %v, want one layer at least of 1 to %d and no negative number of drafts", gamma, skip, L-1)
	}
	split := slices.Min(skip)
	return &Self{Gamma: gamma, stack: stack{w: w}, split: split, draft: runs(split, L, skip)}, nil
}

// Stats counts what self-speculation did.
type Stats struct {
	Rounds, Drafted, Accepted int
	Layers                    int // Σ over tokens of the layers that ran, without the prompt
}

// Generate answers a prompt with up to most tokens, until stop says so; the stopping token is not returned. The tokens are
// those of the whole model's greedy decoding. The cache covers all layers and is left as llm.Work.Generate leaves it.
func (s *Self) Generate(c *llm.Cache, prompt []int32, most int, stop func(id int32) bool) ([]int32, Stats, error) {
	var st Stats
	L := s.stack.w.Model.Layers
	seqs := []llm.Seq{{IDs: prompt, Cache: c}}
	if err := s.stack.w.Forward(0, L, seqs); err != nil {
		return nil, st, fmt.Errorf("self-speculation: %w", err)
	}
	before := c.Len()
	answer, done := accept(nil, []int32{llm.Greedy(seqs[0].Out)}, most, stop)
	for !done {
		kept := len(answer)
		tokens, err := s.round(c, answer[kept-1], min(s.Gamma, most-kept-1, c.Cap()-c.Len()-1), &st)
		if err != nil {
			return answer, st, fmt.Errorf("self-speculation: %w", err)
		}
		answer, done = accept(answer, tokens, most, stop)
		c.Truncate(min(c.Len(), before+len(answer))) // drafts that stand behind the end are forgotten
	}
	return answer, st, nil
}

// accept appends tokens until the answer is complete.
func accept(answer, tokens []int32, most int, stop func(id int32) bool) ([]int32, bool) {
	for _, id := range tokens {
		if len(answer) >= most || stop != nil && stop(id) {
			return answer, true
		}
		answer = append(answer, id)
	}
	return answer, len(answer) >= most
}

// round drafts up to gamma tokens behind last, which is not in the cache yet, and verifies them. It returns the accepted
// drafts and the model's own token behind them; the cache then holds last and the accepted drafts.
func (s *Self) round(c *llm.Cache, last int32, gamma int, st *Stats) ([]int32, error) {
	gamma = max(0, gamma)
	base, low, C := c.Len(), []*item{&s.low}, s.stack.w.Model.Dim
	s.drafts = s.drafts[:0]
	s.high.begin(nil, c, nil)
	for i := 0; i <= gamma; i++ {
		s.low.begin([]int32{last}, c, nil)
		s.low.base = base + i
		if err := s.stack.run(0, s.split, low); err != nil {
			return nil, err
		}
		s.high.hidden = append(s.high.hidden, s.low.hidden...)
		st.Layers += s.split
		if i == gamma {
			break
		}
		if err := s.stack.through(s.draft, low); err != nil {
			return nil, err
		}
		for _, r := range s.draft {
			st.Layers += r[1] - r[0]
		}
		last = llm.Greedy(s.stack.seqs[0].Out)
		s.drafts = append(s.drafts, last)
	}
	s.high.tokens, s.high.dim = gamma+1, C
	L := s.stack.w.Model.Layers
	s.stack.sequences(s.split, L, []*item{&s.high})
	s.stack.seqs[0].Want = llm.AllLogits
	if err := s.stack.w.Forward(s.split, L, s.stack.seqs); err != nil {
		return nil, err
	}
	st.Layers += (gamma + 1) * (L - s.split)
	logits, V, n := s.stack.seqs[0].Out, s.stack.w.Model.Vocab, 0
	own := llm.Greedy(logits[:V])
	for n < gamma && s.drafts[n] == own {
		n++
		own = llm.Greedy(logits[n*V : (n+1)*V])
	}
	st.Rounds++
	st.Drafted += gamma
	st.Accepted += n
	c.SetLen(base + n + 1)
	return append(s.drafts[:n], own), nil
}

package exit

import (
	"fmt"
	"slices"

	"meibench/reference/llm"
)

// item is one sequence on its way through the layers.
type item struct {
	ids     []int32
	tokens  int
	cache   *llm.Cache // of all layers; its length grows when the pass is over
	base    int        // its length before
	adapter *llm.Adapter
	hidden  []float32 // (T, C) where the item stands
	dim     int
	logits  []float32
	before  []float32 // state before an exit's layer

	out         *Seq
	limit, sure float64
	same        float64 // cosine
	asked       bool
}

func (it *item) begin(ids []int32, c *llm.Cache, a *llm.Adapter) {
	it.ids, it.tokens, it.cache, it.adapter, it.base = ids, len(ids), c, a, c.Len()
	it.hidden, it.asked, it.sure, it.same = it.hidden[:0], false, 0, 0
}

// lastState is the hidden state of the last token.
func (it *item) lastState() []float32 { return it.hidden[len(it.hidden)-it.dim:] }

// stack runs spans of layers over views of caches and keeps the states in between.
type stack struct {
	w     *llm.Work
	seqs  []llm.Seq
	views []llm.Cache
}

// sequences lays out items for a call on layers [lo, hi).
func (s *stack) sequences(lo, hi int, items []*item) {
	s.seqs, s.views = s.seqs[:0], s.views[:0]
	if cap(s.views) < len(items) { // views must not move while seqs point to them
		s.views = make([]llm.Cache, 0, 2*len(items))
	}
	for _, it := range items {
		q := llm.Seq{Adapter: it.adapter, Want: llm.Hidden}
		if lo == 0 {
			q.IDs = it.ids
		} else {
			q.Hidden = it.hidden
		}
		if lo < hi {
			s.views = append(s.views, *it.cache.Span(lo, hi))
			q.Cache = &s.views[len(s.views)-1]
			q.Cache.SetLen(it.base)
		}
		s.seqs = append(s.seqs, q)
	}
}

// run takes items through layers [lo, hi); (0, 0) embeds.
func (s *stack) run(lo, hi int, items []*item) error {
	if lo == hi && lo > 0 || len(items) == 0 {
		return nil
	}
	s.sequences(lo, hi, items)
	if err := s.w.Forward(lo, hi, s.seqs); err != nil {
		return err
	}
	for i, it := range items {
		it.dim = s.w.Model.Dim
		it.hidden = append(it.hidden[:0], s.seqs[i].Out...)
	}
	return nil
}

// complete fills the caches of layers [lo, hi) for items that stand before layer lo.
func (s *stack) complete(lo, hi int, items []*item) error {
	if len(items) == 0 || lo == hi {
		return nil
	}
	s.sequences(lo, hi, items)
	return s.w.Complete(lo, hi, s.seqs)
}

// head leaves the logits of the items' last tokens in the Out of s.seqs.
func (s *stack) head(items []*item) error {
	s.seqs = s.seqs[:0]
	for _, it := range items {
		s.seqs = append(s.seqs, llm.Seq{Hidden: it.lastState(), Want: llm.LastLogits, Adapter: it.adapter})
	}
	if len(items) == 0 {
		return nil
	}
	L := s.w.Model.Layers
	return s.w.Forward(L, L, s.seqs)
}

// keep copies logits to where the next call leaves them alone.
func (s *stack) keep(it *item, logits []float32) []float32 {
	it.logits = append(it.logits[:0], logits...)
	return it.logits
}

// Path is a model with some layers left out: the others run one behind the other.
type Path struct {
	stack stack
	runs  [][2]int // of neighbouring layers
	items []item
	list  []*item
}

// NewPath leaves out the layers of skip, counted from 0.
func NewPath(w *llm.Work, skip []int) (*Path, error) {
	for _, l := range skip {
		if l < 0 || l >= w.Model.Layers {
			return nil, fmt.Errorf("leave out layer %d: the model has layers 0 to %d", l, w.Model.Layers-1)
		}
	}
	return &Path{stack: stack{w: w}, runs: runs(0, w.Model.Layers, skip)}, nil
}

// runs lists the layers of [lo, hi) that are not in skip.
func runs(lo, hi int, skip []int) [][2]int {
	var list [][2]int
	for l := lo; l < hi; l++ {
		switch n := len(list); {
		case slices.Contains(skip, l):
		case n > 0 && list[n-1][1] == l:
			list[n-1][1]++
		default:
			list = append(list, [2]int{l, l + 1})
		}
	}
	return list
}

// Step runs the layers that are not left out and returns in Out the logits of each sequence's last new token, valid until the
// next Step. Caches cover all layers; those left out keep what they hold. Only IDs, Cache and Adapter of a sequence are read.
func (p *Path) Step(seqs []llm.Seq) error {
	for len(p.items) < len(seqs) {
		p.items = append(p.items, item{})
	}
	p.items, p.list = p.items[:len(seqs)], p.list[:0]
	for i := range seqs {
		s, it := &seqs[i], &p.items[i]
		if s.Cache == nil || s.Cache.Lo != 0 || s.Cache.Hi != p.stack.w.Model.Layers {
			return fmt.Errorf("layer skip: sequence %d: want a cache of layers [0, %d)", i, p.stack.w.Model.Layers)
		}
		it.begin(s.IDs, s.Cache, s.Adapter)
		p.list = append(p.list, it)
	}
	if err := p.stack.run(0, 0, p.list); err != nil {
		return fmt.Errorf("layer skip: %w", err)
	}
	if err := p.stack.through(p.runs, p.list); err != nil {
		return fmt.Errorf("layer skip: %w", err)
	}
	for i, it := range p.list {
		seqs[i].Out = p.stack.keep(it, p.stack.seqs[i].Out)
		it.cache.SetLen(it.base + it.tokens)
	}
	return nil
}

// through takes items through runs of layers and asks the head.
func (s *stack) through(runs [][2]int, items []*item) error {
	for _, r := range runs {
		if err := s.run(r[0], r[1], items); err != nil {
			return err
		}
	}
	return s.head(items)
}

// Package exit lets tokens leave a model before its last layer, and lets a model draft for itself by leaving layers out.
//
// # The one idea: spans over one cache
//
// Package llm runs any span of layers, so a pass with exits is a row of spans over views of one cache (llm.Cache.Span):
// after each exit layer the shared norm and head are asked how sure they are, sequences that are sure enough leave the
// batch, and their keys and values in the layers above are completed from the state at the exit, so that later tokens
// can attend to them. Sequences of one batch leave independently, with the bits that each gets alone.
//
//	r, err := exit.New(work, exit.Rule{Layers: []int{2, 4, 6}, Measure: exit.MaxProb, Thresholds: []float64{0.9}})
//	seqs := []exit.Seq{{IDs: prompt, Cache: cache}}
//	err = r.Step(seqs)          // seqs[0].Token, .Depth, .Confidence
//	seqs[0].IDs = []int32{seqs[0].Token}
//	err = r.Step(seqs)          // ... one token a step
//
// [Self] is self-speculation: the lower layers draft, the others verify what was drafted, and the answer is that of the
// whole model. [Path] runs a model with layers left out.
//
// Sources: Teerapittayanon et al. 2016 (BranchyNet: entropy); Schuster et al. 2022 (CALM: probability, gap, saturation,
// decaying threshold, completion); Elhoushi et al. 2024 (LayerSkip: exits behind a shared head, self-speculation);
// Zhang et al. 2023 (Draft & Verify: layers left out as a draft).
//
// What it does not do: train exits (package train: Batch.Exit), calibrate thresholds to a risk, work on bounded caches.
package exit

import (
	"fmt"
	"math"
	"slices"

	"meibench/internal/portable"
	"meibench/internal/units"
	"meibench/reference/llm"
)

// Measure is a way to tell how sure an exit is. All lie in [0, 1]; higher is surer.
type Measure int

const (
	MaxProb    Measure = iota // probability of the likeliest token
	Margin                    // how much likelier it is than the second
	Entropy                   // 1 - entropy/ln V
	Saturation                // cosine of the states behind and before the exit's layer, 0 if negative; asks no head
)

// Rule says where and when tokens leave.
type Rule struct {
	Layers  []int // exits: numbers of layers run, ascending, 1 to L-1
	Measure Measure

	// Thresholds, one for all exits or one for each: a token leaves where the measure is not below it. 0 or less lets
	// every token go, 1 or more none, and then the head is not asked.
	Thresholds []float64

	// Decay lowers thresholds λ inside (0, 1) over an answer: at token t of Length it is
	// (1-Decay)·λ + Decay·exp(-4t/Length). This is CALM's form with Decay 0.1; form and constants are assumed from memory.
	Decay  float64
	Length int

	// Prompt lets the first token of an answer leave early as well, with all prompt tokens' upper layers completed from
	// the exit. Otherwise a call with several tokens runs all layers.
	Prompt bool

	// Stop ends the pass at the last exit: tokens that stay unsure there come back as hidden states, for another machine
	// to go on with. Caches then cover layers [0, last exit) only.
	Stop bool
}

// Seq is one sequence of a Step.
type Seq struct {
	IDs     []int32    // new tokens
	Cache   *llm.Cache // of all layers; with Rule.Stop of those up to the last exit
	Answer  int        // tokens of the answer so far, for Rule.Decay
	Adapter *llm.Adapter

	Token      int32     // the next token; -1 if it stopped unsure
	Depth      int       // layers that the new tokens ran
	Confidence float64   // by the rule's measure, where Token was chosen or the pass stopped; Saturation: 1 at the last layer
	Heads      int       // times that the head was asked
	Logits     []float32 // (V) that Token was chosen from; valid until the next Step
	Hidden     []float32 // (T, C) where it left or stopped, with Rule.Stop; valid until the next Step
}

// Runner runs a model by a rule. Like its Work it belongs to one goroutine.
type Runner struct {
	Rule  Rule
	stack stack
	items []item
	state []*item // those still running
	ask   []*item
	pick  llm.Sampler
	logV  float64
}

// New checks a rule for a model and prepares to run it.
func New(w *llm.Work, r Rule) (*Runner, error) {
	if err := r.check(w.Model.Layers); err != nil {
		return nil, fmt.Errorf("early exit: %w", err)
	}
	return &Runner{Rule: r, stack: stack{w: w}, logV: portable.Log(float64(w.Model.Vocab))}, nil
}

func (r *Rule) check(layers int) error {
	last := 0
	for _, e := range r.Layers {
		if e <= last || e >= layers {
			return fmt.Errorf("exits behind layers %v: want ascending numbers from 1 to %d", r.Layers, layers-1)
		}
		last = e
	}
	switch {
	case len(r.Layers) > 0 && len(r.Thresholds) != 1 && len(r.Thresholds) != len(r.Layers):
		return fmt.Errorf("%d thresholds for %d exits: want one for all or one for each", len(r.Thresholds), len(r.Layers))
	case slices.ContainsFunc(r.Thresholds, func(t float64) bool { return t != t }):
		return fmt.Errorf("thresholds %v: want numbers", r.Thresholds)
	case r.Measure < MaxProb || r.Measure > Saturation:
		return fmt.Errorf("measure %d is not known", r.Measure)
	case !(r.Decay >= 0 && r.Decay <= 1) || r.Decay > 0 && r.Length < 1:
		return fmt.Errorf("decay of %g over %d tokens: want 0 to 1 over one token at least", r.Decay, r.Length)
	case r.Stop && len(r.Layers) == 0:
		return fmt.Errorf("nowhere to stop: want one exit at least")
	}
	return nil
}

// top is the number of layers that this machine runs.
func (r *Rule) top(layers int) int {
	if r.Stop {
		return r.Layers[len(r.Layers)-1]
	}
	return layers
}

// Threshold is what the measure must reach at exit i to let token t of an answer go.
func (r *Rule) Threshold(i, t int) float64 {
	limit := r.Thresholds[min(i, len(r.Thresholds)-1)]
	if r.Decay == 0 || limit <= 0 || limit >= 1 {
		return limit
	}
	return float64((1-r.Decay)*limit) + float64(r.Decay*portable.Exp(-4*float64(t)/float64(r.Length)))
}

// Step runs the new tokens of each sequence and chooses the next token of each greedily. On error no cache has grown.
func (r *Runner) Step(seqs []Seq) error {
	if err := r.start(seqs); err != nil {
		return fmt.Errorf("early exit: %w", err)
	}
	from := 0
	for i, e := range r.Rule.Layers {
		if len(r.state) == 0 {
			break
		}
		if err := r.leave(i, from, e); err != nil {
			return fmt.Errorf("early exit behind layer %d: %w", e, err)
		}
		from = e
	}
	if err := r.finish(from); err != nil {
		return fmt.Errorf("early exit: %w", err)
	}
	for i := range r.items {
		it := &r.items[i]
		it.cache.SetLen(it.base + it.tokens)
	}
	return nil
}

func (r *Runner) start(seqs []Seq) error {
	m := r.stack.w.Model
	top := r.Rule.top(m.Layers)
	for len(r.items) < len(seqs) {
		r.items = append(r.items, item{})
	}
	r.items, r.state = r.items[:len(seqs)], r.state[:0]
	for i := range seqs {
		s, it := &seqs[i], &r.items[i]
		if s.Cache == nil || s.Cache.Lo != 0 || s.Cache.Hi != top {
			return fmt.Errorf("sequence %d: want a cache of layers [0, %d)", i, top)
		}
		for j := range i {
			if seqs[j].Cache == s.Cache {
				return fmt.Errorf("sequences %d and %d share a cache", j, i)
			}
		}
		it.begin(s.IDs, s.Cache, s.Adapter)
		it.out = s
		s.Token, s.Depth, s.Confidence, s.Heads, s.Logits, s.Hidden = -1, 0, math.NaN(), 0, nil, nil
		r.state = append(r.state, it)
	}
	return nil
}

// leave runs layers [from, e) and lets those go that are sure at exit i.
func (r *Runner) leave(i, from, e int) error {
	if err := r.reach(from, e); err != nil {
		return err
	}
	r.ask = r.ask[:0]
	for _, it := range r.state {
		it.limit = r.Rule.Threshold(i, it.out.Answer)
		if it.tokens > 1 && !r.Rule.Prompt {
			it.limit = 1 // all layers
		}
		last := r.Rule.Stop && i == len(r.Rule.Layers)-1
		if it.limit < 1 && (r.Rule.Measure != Saturation || it.limit <= it.same) || last {
			r.ask = append(r.ask, it)
		}
	}
	if err := r.judge(); err != nil {
		return err
	}
	keep, gone := r.state[:0], r.ask[:0]
	for _, it := range r.state {
		if it.asked && it.limit < 1 && it.sure >= it.limit {
			it.out.Depth, it.out.Confidence = e, it.sure
			if r.Rule.Stop {
				it.out.Hidden = it.hidden
			}
			gone = append(gone, it)
		} else {
			it.out.Logits, it.out.Token = nil, -1
			keep = append(keep, it)
		}
		it.asked = false
	}
	r.state = keep
	return r.stack.complete(e, r.Rule.top(r.stack.w.Model.Layers), gone)
}

// reach runs layers [from, e); for Saturation it compares the states behind the last two.
func (r *Runner) reach(from, e int) error {
	if r.Rule.Measure != Saturation {
		return r.stack.run(from, e, r.state)
	}
	if e-1 > from || from == 0 {
		if err := r.stack.run(from, e-1, r.state); err != nil {
			return err
		}
	}
	for _, it := range r.state {
		it.before = append(it.before[:0], it.lastState()...)
	}
	if err := r.stack.run(e-1, e, r.state); err != nil {
		return err
	}
	for _, it := range r.state {
		it.same = max(0, cosine(it.before, it.lastState()))
	}
	return nil
}

// judge asks the head about those in r.ask.
func (r *Runner) judge() error {
	if err := r.stack.head(r.ask); err != nil {
		return err
	}
	for n, it := range r.ask {
		it.asked = true
		it.out.Heads++
		it.out.Logits = r.stack.keep(it, r.stack.seqs[n].Out)
		it.sure = r.measure(it)
		it.out.Token = llm.Greedy(it.out.Logits)
	}
	return nil
}

func (r *Runner) measure(it *item) float64 {
	if r.Rule.Measure == Saturation {
		return it.same
	}
	c := r.pick.Confidence(it.out.Logits)
	switch r.Rule.Measure {
	case Margin:
		return c.Margin
	case Entropy:
		return min(1, max(0, 1-c.Entropy/r.logV))
	}
	return c.MaxProb
}

// finish takes those that are left through the last layers, or hands out where they stopped.
func (r *Runner) finish(from int) error {
	L := r.stack.w.Model.Layers
	if len(r.state) == 0 {
		return nil
	}
	if r.Rule.Stop {
		for _, it := range r.state {
			it.out.Depth, it.out.Hidden, it.out.Confidence = from, it.hidden, it.sure
		}
		return nil
	}
	if err := r.stack.run(from, L, r.state); err != nil {
		return err
	}
	r.ask = append(r.ask[:0], r.state...)
	for _, it := range r.state {
		it.same = 1
	}
	if err := r.judge(); err != nil {
		return err
	}
	for _, it := range r.state {
		it.out.Depth, it.out.Confidence, it.asked = L, it.sure, false
	}
	return nil
}

// cosine of two vectors, with products rounded before they are added, so that it is the same everywhere.
func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i, x := range a {
		y := float64(b[i])
		ab += float64(float64(x) * y)
		aa += float64(float64(x) * float64(x))
		bb += float64(y * y)
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return min(1, ab/(math.Sqrt(aa)*math.Sqrt(bb)))
}

// FLOPs counts the operations that a sequence of a Step took, with past tokens in its cache before: its layers, the keys
// and values of those it skipped, and the heads it asked. See llm.Config.FLOPs for what is counted.
func (r *Rule) FLOPs(c llm.Config, s *Seq, past int) units.FLOP {
	n := c.FLOPs(0, s.Depth, len(s.IDs), past) + units.FLOP(s.Heads)*c.HeadFLOPs(1)
	return n + units.FLOP(r.top(c.Layers)-s.Depth)*completion(c, len(s.IDs))
}

// completion is the operations that fill T tokens' keys and values of one layer.
func completion(c llm.Config, T int) units.FLOP { return units.FLOP(2 * T * 2 * c.Dim * c.KVDim()) }

// CloudFLOPs is what another machine has to do for tokens that stopped unsure, Σ (L - depth)·(operations of a layer), for
// tokens of the given depths that stand behind past[i] others; the head is extra.
func CloudFLOPs(c llm.Config, depths, past []int) units.FLOP {
	var n units.FLOP
	for i, d := range depths {
		n += c.FLOPs(d, c.Layers, 1, past[i])
	}
	return n
}

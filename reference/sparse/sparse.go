// Package sparse leaves out neurons of feed-forward networks, token by token.
//
//	samples, err := sparse.Sample(model, texts, 2048)
//	p, err := sparse.Fit(samples, 0.25, 64)           // a low-rank guess of which quarter of the neurons will matter
//	tally := sparse.NewTally(p.Rule(0.3), 0.25)       // keep 30 %, judge by the 25 % that really mattered
//	tally.Attach(work)                                // forward passes run sparse from here on
//	fmt.Println(tally.Kept(), tally.Recall(), tally.Precision())
//
// # The one idea: a neuron is a row of Gate, a row of Up and a column of Down
//
// Down·(silu(Gate·x) * Up·x) is a sum over neurons of one column each, so a neuron whose factor is near zero can be left out
// with all three. A [Rule] says which are kept for one token: all of them, those whose gate is open wide enough (Lee et al.
// 2024, CATS), the ones that matter most by hindsight ([Oracle], an upper bound that saves nothing), or the ones that a
// [Predictor] expects from the layer's input alone (Liu et al. 2023, Deja Vu), before any row of the network was read. Only
// the last kind saves reading; package flash does.
//
// Nothing here skips work: dropped neurons are set to zero in a dense pass, which leaves the bits of a pass without them. It is
// for measuring what a rule costs in quality. Models are dense with SwiGLU.
package sparse

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"meibench/reference/llm"
	"meibench/reference/tensor"
)

// Rule fills on for one token of a layer: which neurons are kept. Rules have memory of their own: one per goroutine. x is the input of the network, gate and up what its first two
// products made of it; rules that look at x only may be given nil for both.
//
//	x: (C), gate, up, on: (F)
type Rule func(layer int, x, gate, up []float32, on []bool)

// All keeps every neuron.
func All(_ int, _, _, _ []float32, on []bool) {
	for i := range on {
		on[i] = true
	}
}

// Count is how many of F neurons a share stands for, rounded up.
func Count(share float64, F int) int {
	return min(F, max(0, int(math.Ceil(share*float64(F)-1e-9))))
}

// checkShare refuses what is no share of neurons.
func checkShare(share float64) error {
	if !(share > 0 && share <= 1) {
		return fmt.Errorf("a share of %g of the neurons: want above 0 and at most 1", share)
	}
	return nil
}

// checkModel refuses models that have no neurons of three rows.
func checkModel(c llm.Config) error {
	if !c.SwiGLU() {
		return fmt.Errorf("neurons of %s with %d experts: want a dense model with SwiGLU", c.Arch, c.Experts)
	}
	return nil
}

// Oracle keeps the share of neurons with the largest |silu(gate)·up|: the best that a predictor of that share could do.
func Oracle(share float64) Rule {
	var act []float32
	var order []int32
	return func(_ int, _, gate, up []float32, on []bool) {
		act = activation(act, gate, up)
		order = largest(order, act, Count(share, len(on)), on)
	}
}

// Threshold keeps neurons with |silu(gate)| above a bound of each layer; see [Samples.Threshold].
func Threshold(bounds []float32) Rule {
	return func(layer int, _, gate, _ []float32, on []bool) {
		for i, g := range gate {
			on[i] = abs(tensor.SiLU(g)) > bounds[layer]
		}
	}
}

// activation is |silu(gate)·up|.
func activation(into, gate, up []float32) []float32 {
	into = slices.Grow(into[:0], len(gate))[:len(gate)]
	for i, g := range gate {
		into[i] = abs(tensor.SiLU(g) * up[i])
	}
	return into
}

// largest sets on for the n largest values, the lower index among equals. order is memory.
func largest[T cmp.Ordered](order []int32, v []T, n int, on []bool) []int32 {
	clear(on)
	if n >= len(v) {
		All(0, nil, nil, nil, on)
		return order
	}
	order = order[:0]
	for i := range v {
		order = append(order, int32(i))
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(cmp.Compare(v[b], v[a]), cmp.Compare(a, b)) })
	for _, i := range order[:n] {
		on[i] = true
	}
	return order
}

func abs(x float32) float32 { return float32(math.Abs(float64(x))) }

// Tally applies a rule to forward passes and counts what it kept.
type Tally struct {
	Tokens          int // times layers
	kept, real, hit int
	neurons         int
	rule, oracle    Rule
	on, matter      []bool
}

// NewTally judges a rule by the share of neurons that matter most.
func NewTally(rule Rule, share float64) *Tally { return &Tally{rule: rule, oracle: Oracle(share)} }

// Attach makes forward passes of w run with the rule. Like a rule, a tally belongs to one goroutine.
func (t *Tally) Attach(w *llm.Work) { apply(w, t.row) }

// Attach makes forward passes of w run with the rule, without judging it.
func (r Rule) Attach(w *llm.Work) {
	var on []bool
	apply(w, func(layer int, x, gate, up []float32) {
		on = slices.Grow(on[:0], len(up))[:len(up)]
		r(layer, x, gate, up, on)
		drop(up, on)
	})
}

// apply calls row for every token of a layer.
func apply(w *llm.Work, row func(layer int, x, gate, up []float32)) {
	w.Neurons = func(layer int, x, gate, up []float32, T int) {
		C, F := len(x)/T, len(up)/T
		for r := range T {
			row(layer, x[r*C:(r+1)*C], gate[r*F:(r+1)*F], up[r*F:(r+1)*F])
		}
	}
}

// drop leaves out the neurons that are not on.
func drop(up []float32, on []bool) {
	for i, kept := range on {
		if !kept {
			up[i] = 0
		}
	}
}

func (t *Tally) row(layer int, x, gate, up []float32) {
	if len(t.on) != len(up) {
		t.on, t.matter = make([]bool, len(up)), make([]bool, len(up))
	}
	t.rule(layer, x, gate, up, t.on)
	t.oracle(layer, x, gate, up, t.matter)
	t.count(t.on, t.matter)
	drop(up, t.on)
}

// count adds one token of a layer.
func (t *Tally) count(on, matter []bool) {
	t.Tokens++
	t.neurons += len(on)
	for i, kept := range on {
		if kept {
			t.kept++
		}
		if matter[i] {
			t.real++
		}
		if kept && matter[i] {
			t.hit++
		}
	}
}

// Kept is the share of neurons that was kept.
func (t *Tally) Kept() float64 { return share(t.kept, t.neurons) }

// Recall is the share of the neurons that mattered that was kept.
func (t *Tally) Recall() float64 { return share(t.hit, t.real) }

// Precision is the share of the kept that mattered.
func (t *Tally) Precision() float64 { return share(t.hit, t.kept) }

func share(part, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(part) / float64(of)
}

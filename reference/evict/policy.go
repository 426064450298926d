// Package evict keeps the memory of a long conversation bounded: a key/value cache of a fixed budget that forgets, and
// the published rules that say what. It measures what forgetting costs.
//
// The one idea: a policy is four numbers. The first Sinks tokens and the last Recent always stay; of those between, the
// Heavy ones that attention looked at most; and a prompt may be thinned out once, when it is complete. Every layer and
// every key/value head keeps a list of its own.
//
//	r, _ := evict.New(model, evict.Streaming(4, 60), evict.Options{})
//	defer r.Close()
//	logits, _ := r.Prefill(ids)
//	logits, _ = r.Step(next)
//	fmt.Println(r.Bytes())
//
// Attention runs on the engine's kernels over the kept keys, in the order of their positions, so a budget that is never
// reached gives the bits of a plain cache. Attention weights, which H2O and SnapKV need, are computed a second time in
// plain Go in float64: right first, and slower than the published kernels. Models with a sliding window of their own are
// refused. Nothing is merged, compressed or brought back.
package evict

import (
	"fmt"
	"slices"
)

// Policy says what a cache keeps. The zero value keeps nothing and is refused; make one with the functions below.
type Policy struct {
	Name   string
	Sinks  int // first tokens that always stay
	Recent int // last tokens that always stay, the newest included; at least 1
	Heavy  int // of the others, per key/value head, those with the most attention so far; lower positions win ties

	// Relative counts positions inside the cache, 0 to n-1, and rotates keys when they are read, so that a conversation may
	// outlast the model's context. Otherwise keys keep the rotation of their place in the text.
	Relative bool

	// Prompt thins out a prompt once; then Recent is the room for tokens behind it, the oldest of which is dropped when
	// it is full, and Sinks and Heavy are 0. Nil leaves prompts to the rules above.
	Prompt *Prompt
}

// Prompt is the selection of SnapKV and PyramidKV at the end of a prompt.
type Prompt struct {
	Capacity int // tokens that stay of a prompt, the observing ones included
	Observe  int // last tokens of the prompt, whose attention votes; they stay
	Kernel   int // odd width of the pooling of votes over positions
	Max      bool
	// Beta, if not 0, makes the budget fall linearly over the layers (PyramidKV): the last layer gets 1/Beta of the mean
	// beside the observing tokens, the first what is left, so that the sum stays below layers·Capacity.
	Beta int
}

// Full keeps everything up to most tokens: the baseline.
func Full(most int) Policy { return Policy{Name: "full", Recent: most} }

// Window keeps the last w tokens: dense attention over a window.
func Window(w int) Policy { return Policy{Name: "window", Recent: w} }

// Streaming keeps the first sinks and the last w tokens with positions relative to the cache. Source: Xiao et al. 2024
// (StreamingLLM); the code's default is 4 sinks.
func Streaming(sinks, w int) Policy {
	return Policy{Name: "streamingllm", Sinks: sinks, Recent: w, Relative: true}
}

// H2O keeps the heavy tokens with the most accumulated attention and the last w. Source: Zhang et al. 2023.
//
// The split is exact: heavy + w tokens at any time, the newest being one of w. The authors' FlexGen path keeps heavy-1 and
// w+1 after the first step; theirs evicts after attention, so that heavy+w+1 are seen, here before.
func H2O(heavy, w int) Policy { return Policy{Name: "h2o", Heavy: heavy, Recent: w} }

// SnapKV keeps capacity tokens of a prompt, chosen by the votes of its last observe tokens, pooled by averages of 5, and
// up to room tokens behind it. Source: Li et al. 2024; their code keeps all tokens behind the prompt, and votes
// per query head, where heads that share keys vote together here.
func SnapKV(capacity, observe, room int) Policy {
	return Policy{Name: "snapkv", Recent: room, Prompt: &Prompt{Capacity: capacity, Observe: observe, Kernel: 5}}
}

// PyramidKV is SnapKV with budgets that fall over the layers. Source: Cai et al. 2024; the divisor of 20 is
// the default of its code as we remember it, so take it as assumed.
func PyramidKV(capacity, observe, room int) Policy {
	p := SnapKV(capacity, observe, room)
	p.Name, p.Prompt.Beta = "pyramidkv", 20
	return p
}

// Entry is a policy that a suite can name, made for a budget of tokens.
type Entry struct {
	Name string
	Doc  string
	New  func(budget int) Policy
}

// Table lists the policies, sorted by name. SnapKV and PyramidKV give a quarter of the budget to tokens behind the prompt
// and a quarter of the rest to observing ones; H2O splits it in halves.
var Table = []Entry{
	{"full", "keeps everything; the budget must hold the text", Full},
	{"h2o", "half heavy hitters by accumulated attention, half recent", func(b int) Policy { return H2O(b/2, b-b/2) }},
	{"pyramidkv", "SnapKV with budgets that fall over the layers", func(b int) Policy { return PyramidKV(b-b/4, (b-b/4)/4, b/4) }},
	{"snapkv", "thins a prompt once by the votes of its last tokens", func(b int) Policy { return SnapKV(b-b/4, (b-b/4)/4, b/4) }},
	{"streamingllm", "4 sinks and the most recent, positions in the cache", func(b int) Policy { return Streaming(4, b-4) }},
	{"window", "the most recent", Window},
}

// ByName makes a policy of the table.
func ByName(name string, budget int) (Policy, error) {
	names := make([]string, len(Table))
	for i, e := range Table {
		if e.Name == name {
			p := e.New(budget)
			return p, p.Check()
		}
		names[i] = e.Name
	}
	return Policy{}, fmt.Errorf("make eviction policy %q: unknown, have %v", name, names)
}

// Check says what is wrong with a policy, or returns nil.
func (p Policy) Check() error {
	const most = 1 << 24
	if p.Sinks < 0 || p.Heavy < 0 || p.Recent < 1 || max(p.Sinks, p.Heavy, p.Recent) > most {
		return fmt.Errorf("eviction policy %q: %d sinks, %d heavy and %d recent tokens: want at least 0, 0 and 1: give it a larger budget",
			p.Name, p.Sinks, p.Heavy, p.Recent)
	}
	s := p.Prompt
	switch {
	case s == nil:
		return nil
	case p.Sinks > 0 || p.Heavy > 0 || p.Relative:
		return fmt.Errorf("eviction policy %q: selects from the prompt, so it has no sinks, heavy tokens or relative positions", p.Name)
	case s.Observe < 1 || s.Capacity < s.Observe || s.Capacity > most:
		return fmt.Errorf("eviction policy %q: keeps %d tokens of a prompt of which %d observe: want at least 1, and not more than are kept",
			p.Name, s.Capacity, s.Observe)
	case s.Kernel < 1 || s.Kernel%2 == 0 || s.Kernel > most || s.Beta < 0:
		return fmt.Errorf("eviction policy %q: pools votes over %d positions with a divisor of %d: want an odd width and at least 0", p.Name, s.Kernel, s.Beta)
	}
	return nil
}

// Budget is the most tokens that a head of a layer, counted from the first of layers, holds: at any time without a
// selection from the prompt, else from the end of a prompt of that many tokens on.
func (p Policy) Budget(layer, layers, prompt int) int {
	if p.Prompt == nil {
		return p.Sinks + p.Heavy + p.Recent
	}
	return p.Prompt.capacity(layer, layers, prompt) + p.Recent
}

// capacity is what stays of a prompt of n tokens in a layer; a prompt that fits the mean stays whole.
func (s *Prompt) capacity(layer, layers, n int) int {
	if s.Beta == 0 || layers < 2 || n <= s.Capacity {
		return s.Capacity
	}
	mean, past := s.Capacity-s.Observe, n-s.Observe
	low := mean / s.Beta
	high := 2*mean - low
	if high > past {
		high, low = past, 2*mean-past
	}
	fall := (layer*(high-low) + layers - 2) / (layers - 1) // rounded up, so that the sum stays inside
	return s.Observe + high - fall
}

// Select returns the keep positions with the largest pooled votes, ascending. Votes are pooled over kernel positions, zeros
// beyond the ends: their sum, which orders as their average does, or their largest. Lower positions win ties.
func Select(votes []float64, kernel int, largest bool, keep int) []int {
	pooled := make([]float64, len(votes))
	for i := range votes {
		sum, top := 0.0, 0.0
		for _, v := range votes[max(0, i-kernel/2):min(len(votes), i+kernel/2+1)] {
			sum, top = sum+v, max(top, v)
		}
		if pooled[i] = sum; largest {
			pooled[i] = top
		}
	}
	order := make([]int, len(votes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case pooled[a] > pooled[b]:
			return -1
		case pooled[a] < pooled[b]:
			return 1
		}
		return 0
	})
	order = order[:min(keep, len(order))]
	slices.Sort(order)
	return order
}

// victim is the place that a full head gives up before its next token comes: the smallest score between the sinks and
// the recent tokens, the highest place among equals. kept places are never given up.
func victim(scores []float64, kept, recent int) int {
	worst := kept
	for i := kept; i < len(scores)-recent+1; i++ {
		if scores[i] <= scores[worst] {
			worst = i
		}
	}
	return worst
}

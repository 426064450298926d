package delivery

import (
	"fmt"
	"math"
	"slices"

	"meibench/reference/library"
)

// Wish is a user for whom any of several models is good enough: of its task, say, all variants that are right often enough.
type Wish struct {
	User   int
	Rate   float64 // bytes per second, > 0
	Models []int   // of the library, at least one
}

// mostNodes is how many choices a tree search looks at.
const mostNodes = 2_000_000

// Pick chooses one model for each wish, so that sending each block once to all whose model has it, at the rate of the worst
// of them, takes the least airtime. It returns the models and the seconds. What is chosen well shares much: parameter selection of Model
// Broadcasting and Assembling (arXiv 2307.15316, by its abstract: candidates that keep to a performance, a greedy choice and a tree
// search; the airtime as the measure, the order and the bounds are ours).
//
// Exact is a depth-first search over the wishes in order; a branch ends when what it has taken so far, and what the dearest
// of the remaining wishes would add to that at least, is no less than the best found. Otherwise, always that model of that wish is taken
// that adds least. Errors: no model, a model or rate that makes no sense, a tree that is too large.
func Pick(l *library.Library, ws []Wish, exact bool) ([]int, float64, error) {
	for i, w := range ws {
		if !(w.Rate > 0) || math.IsInf(w.Rate, 1) {
			return nil, 0, fmt.Errorf("delivery: wish %d (user %d): rate %g bytes/s: want a positive number", i, w.User, w.Rate)
		}
		if len(w.Models) == 0 {
			return nil, 0, fmt.Errorf("delivery: wish %d (user %d): no model is good enough: want at least one", i, w.User)
		}
		for _, m := range w.Models {
			if m < 0 || m >= len(l.Models) {
				return nil, 0, fmt.Errorf("delivery: wish %d (user %d): model %d does not exist: the library has %d", i, w.User, m, len(l.Models))
			}
		}
	}
	p := &picker{l: l, ws: ws, worst: make([]float64, len(l.Blocks)), chosen: make([]int, len(ws))}
	p.greedy()
	best, least := slices.Clone(p.chosen), p.seconds()
	if !exact {
		return best, least, nil
	}
	clear(p.worst)
	p.best, p.least = best, least
	if !p.search(0, 0) {
		return nil, 0, fmt.Errorf("delivery: the tree of models has more than %d places: choose greedily", mostNodes)
	}
	return p.best, p.least, nil
}

// picker is a search for models.
type picker struct {
	l      *library.Library
	ws     []Wish
	worst  []float64 // by block: the rate that it goes at, 0 = not sent
	chosen []int
	best   []int
	least  float64
	nodes  int
}

// adds is how many seconds a model for a wish adds.
func (p *picker) adds(w Wish, model int) (seconds float64) {
	for _, j := range p.l.Models[model].Blocks {
		switch bytes := float64(p.l.Blocks[j].Bytes); {
		case p.worst[j] == 0:
			seconds += bytes / w.Rate
		case w.Rate < p.worst[j]:
			seconds += bytes/w.Rate - bytes/p.worst[j]
		}
	}
	return seconds
}

// take chooses a model for a wish and returns what undoes that.
func (p *picker) take(i, model int) (undo func()) {
	before := make([]float64, 0, len(p.l.Models[model].Blocks))
	for _, j := range p.l.Models[model].Blocks {
		before = append(before, p.worst[j])
		if p.worst[j] == 0 || p.ws[i].Rate < p.worst[j] {
			p.worst[j] = p.ws[i].Rate
		}
	}
	p.chosen[i] = model
	return func() {
		for k, j := range p.l.Models[model].Blocks {
			p.worst[j] = before[k]
		}
	}
}

// seconds is the airtime of what is taken.
func (p *picker) seconds() (s float64) {
	for j, r := range p.worst {
		if r > 0 {
			s += float64(p.l.Blocks[j].Bytes) / r
		}
	}
	return s
}

func (p *picker) greedy() {
	done := make([]bool, len(p.ws))
	for range p.ws {
		at, model, least := -1, 0, math.Inf(1)
		for i, w := range p.ws {
			if done[i] {
				continue
			}
			for _, m := range w.Models {
				if s := p.adds(w, m); s < least {
					at, model, least = i, m, s
				}
			}
		}
		p.take(at, model)
		done[at] = true
	}
}

// search goes on from wish i with so many seconds taken, and says whether it came to an end.
func (p *picker) search(i int, taken float64) bool {
	if p.nodes++; p.nodes > mostNodes {
		return false
	}
	if i == len(p.ws) {
		if s := p.seconds(); s < p.least { // anew, so that rounding does not pile up
			p.least = s
			p.best = slices.Clone(p.chosen)
		}
		return true
	}
	dearest := 0.0
	for _, w := range p.ws[i:] {
		cheapest := math.Inf(1)
		for _, m := range w.Models {
			cheapest = min(cheapest, p.adds(w, m))
		}
		dearest = max(dearest, cheapest)
	}
	if taken+dearest >= p.least*(1+1e-12) {
		return true
	}
	for _, m := range p.ws[i].Models {
		more := p.adds(p.ws[i], m)
		undo := p.take(i, m)
		ok := p.search(i+1, taken+more)
		undo()
		if !ok {
			return false
		}
	}
	return true
}

// Requests are what users lack of the models chosen for them.
func Requests(l *library.Library, ws []Wish, models []int, have func(user, block int) bool) []Request {
	rs := make([]Request, len(ws))
	for i, w := range ws {
		rs[i] = Want(l, w.User, w.Rate, models[i], func(j int) bool { return have != nil && have(w.User, j) })
	}
	return rs
}

package orchestrate

import (
	"fmt"
	"math"
	"slices"
)

// Solver is a search for a decision. Its results are feasible: what nobody can serve is refused.
type Solver struct {
	Name, Doc string
	Solve     func(in *Instance) Decision
}

// Solvers lists the searches by name.
var Solvers = []Solver{
	{"greedy", "the model and node of the greatest gain per byte, one after the other (as TrimCaching's greedy, arXiv 2405.03990, with routing inside)", Greedy},
	{"local", "greedy, then moves of one user, of two, and of a node's users, until none helps", func(in *Instance) Decision { return Local(in, Greedy(in)) }},
	{"response", "users choose in turn the best for all, given the others, until nobody moves: routing and shares by alternation", Response},
}

// FindSolver returns the search of a name; ok is false if there is none.
func FindSolver(name string) (Solver, bool) {
	i := slices.IndexFunc(Solvers, func(s Solver) bool { return s.Name == name })
	if i < 0 {
		return Solver{}, false
	}
	return Solvers[i], true
}

// search is a route under construction.
type search struct {
	in      *Instance
	choices [][]Choice
	at      Decision
	score   float64
	mean    float64 // delay of at: decides among equals, such as when the worst user cannot be helped yet
	tried   int
}

func newSearch(in *Instance) *search {
	s := &search{in: in}
	for u := range in.Users {
		s.choices = append(s.choices, in.choices(u))
		s.at.Route = append(s.at.Route, Choice{Refused, 0})
	}
	s.score, s.mean = s.value(&s.at)
	return s
}

// value completes a decision from its route and returns its objective, +Inf if it is infeasible, and its mean delay.
func (s *search) value(d *Decision) (score, mean float64) {
	s.tried++
	d.Placed = make([][]bool, len(s.in.Nodes))
	for n := range d.Placed {
		d.Placed[n] = make([]bool, len(s.in.Models))
	}
	for _, c := range d.Route {
		if c.Node >= 0 {
			d.Placed[c.Node][c.Model] = true
		}
	}
	for n, placed := range d.Placed {
		if s.in.bytes(placed) > s.in.Nodes[n].Memory {
			return math.Inf(1), 0
		}
	}
	if !s.in.Allot(d) {
		return math.Inf(1), 0
	}
	f := s.in.figures(d)
	for _, t := range f.Delay {
		if math.IsInf(t, 1) {
			return math.Inf(1), 0
		}
	}
	return s.in.Want.Score(&f), f.Mean
}

// better is a gain that rounding does not make.
func better(now, before float64) bool {
	if math.IsInf(before, 1) {
		return now < before
	}
	return now < before-float64(1e-12*math.Abs(before))
}

// try takes a route if it is better.
func (s *search) try(route []Choice) bool {
	d := Decision{Route: route}
	v, mean := s.value(&d)
	if !better(v, s.score) && !(v <= s.score && better(mean, s.mean)) {
		return false
	}
	s.at, s.score, s.mean = d, v, mean
	return true
}

// with is the route with some users elsewhere.
func (s *search) with(c Choice, users ...int) []Choice {
	route := slices.Clone(s.at.Route)
	for _, u := range users {
		route[u] = c
	}
	return route
}

// respond lets every user choose the best for all in turn, among choices that a filter allows, and reports whether anybody moved.
func (s *search) respond(allow func(Choice) bool) (moved bool) {
	for u := range s.in.Users {
		for _, c := range s.choices[u] {
			if c != s.at.Route[u] && allow(c) && s.try(s.with(c, u)) {
				moved = true
			}
		}
	}
	return moved
}

func all(Choice) bool { return true }

func (s *search) done() Decision {
	s.at.Tried = s.tried
	return s.at
}

// Greedy starts with devices alone. Of all models and nodes it places the pair whose users, moving there while that helps, gain most per byte;
// then it lets users choose again among what is placed; until no pair helps. The rule without routing is the greedy of
// submodular placement.
func Greedy(in *Instance) Decision {
	s := newSearch(in)
	placed := func(c Choice) bool { return c.Node < 0 || s.at.Placed[c.Node][c.Model] }
	for s.respond(placed) {
	}
	for {
		var best *search
		most := 0.0
		for n := range in.Nodes {
			for m := range in.Models {
				if s.at.Placed[n][m] {
					continue
				}
				t := *s
				if !t.respond(func(c Choice) bool { return c == Choice{n, m} }) {
					s.tried = t.tried
					continue
				}
				s.tried = t.tried
				if gain := (s.score - t.score) / max(in.Models[m].Bytes, 1); gain > most {
					best, most = &t, gain
				}
			}
		}
		if best == nil {
			return s.done()
		}
		s.at, s.score, s.mean = best.at, best.score, best.mean
		for s.respond(placed) {
		}
	}
}

// Response is Gauss and Seidel's alternation over users, from nothing.
func Response(in *Instance) Decision {
	s := newSearch(in)
	for s.respond(all) {
	}
	return s.done()
}

// Local improves a feasible decision until no move helps: one user elsewhere, two users exchange places or go together, all users of a node or of
// a model there go elsewhere together and choose again. A start that is infeasible is replaced by one in which everybody is refused.
func Local(in *Instance, start Decision) Decision {
	s := newSearch(in)
	s.tried += start.Tried
	if v, mean := s.value(&start); !math.IsInf(v, 1) {
		s.at, s.score, s.mean = start, v, mean
	}
	for {
		for s.respond(all) {
		}
		if !s.exchange() && !s.evacuate() {
			return s.done()
		}
	}
}

// exchange tries any two users: in each other's place, or together in any.
func (s *search) exchange() bool {
	for a := range s.in.Users {
		for b := range a {
			route := slices.Clone(s.at.Route)
			route[a], route[b] = route[b], route[a]
			if s.mayGo(route, a, b) && s.try(route) {
				return true
			}
			for _, c := range s.choices[a] {
				for _, e := range s.choices[b] {
					route := s.with(c, a)
					route[b] = e
					if s.try(route) {
						return true
					}
				}
			}
		}
	}
	return false
}

func (s *search) mayGo(route []Choice, users ...int) bool {
	for _, u := range users {
		if s.in.Allowed(u, route[u]) != "" {
			return false
		}
	}
	return true
}

// evacuate refuses all users of a node, or moves them to another, and lets everybody choose again; it keeps what is better.
func (s *search) evacuate() bool {
	for from := range s.in.Nodes {
		var users []int
		for u, c := range s.at.Route {
			if c.Node == from {
				users = append(users, u)
			}
		}
		if len(users) == 0 {
			continue
		}
		targets := []Choice{{Refused, 0}}
		for n := range s.in.Nodes {
			for m := range s.in.Models {
				targets = append(targets, Choice{n, m})
			}
		}
		for _, c := range targets {
			t := *s
			route := s.with(c, users...)
			if !s.mayGo(route, users...) {
				continue
			}
			t.at = Decision{Route: route}
			t.score, t.mean = t.value(&t.at)
			for t.respond(func(e Choice) bool { return e.Node != from }) {
			}
			s.tried = t.tried
			if better(t.score, s.score) {
				s.at, s.score, s.mean = t.at, t.score, t.mean
				return true
			}
		}
	}
	return false
}

// Limit is how many routes Exhaustive tries at most.
const Limit = 2_000_000

// Exhaustive tries every route: the optimum, given the rules of shares. With minsum and an objective in which delays count by their mean (and by
// nothing else that shares change) it is the optimum over shares too. More than Limit routes are an error.
func Exhaustive(in *Instance) (Decision, error) {
	s := newSearch(in)
	routes := 1
	for _, c := range s.choices {
		if routes *= len(c); routes > Limit {
			return Decision{}, fmt.Errorf("orchestrate: exhaustive search: %d users with up to %d choices are more than %d routes: use fewer users, nodes or models, or the solver local",
				len(in.Users), len(c), Limit)
		}
	}
	route := make([]Choice, len(in.Users))
	var visit func(u int)
	visit = func(u int) {
		if u == len(route) {
			s.try(slices.Clone(route))
			return
		}
		for _, c := range s.choices[u] {
			route[u] = c
			visit(u + 1)
		}
	}
	visit(0)
	return s.done(), nil
}

// Score is a decision's objective; +Inf if it is infeasible.
func (in *Instance) Score(d *Decision) float64 {
	f, faults := in.Judge(d)
	if len(faults) > 0 {
		return math.Inf(1)
	}
	return in.Want.Score(&f)
}

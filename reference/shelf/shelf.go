// Package shelf is a cache of models made of blocks that they share: what goes when a model comes.
//
//	s, err := shelf.New(lib, 2_000_000_000, "lru", 1)
//	if !s.Ask(model) {            // counts the request; false: not all of it is here
//		added := s.Put(model)     // bytes that were not here before; others go as the policy says
//	}
//	s.Has(block)
//
// The one idea: models are what is kept and thrown out, blocks are what takes room. A block stays as long as a model on the
// shelf has it, so a model whose blocks others have costs nothing, and throwing it out gains nothing. With a library
// whose blocks nobody shares it is a cache of whole models.
//
// Replay runs a list of requests through a shelf; with the policy belady it knows what will be asked. The package keeps no
// bytes and no time: the number of the request is its clock.
package shelf

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/internal/portable"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/library"
)

// Policy is a way to choose what goes.
type Policy struct{ Name, Doc string }

// Policies lists them by name, without belady, which must know the future.
func Policies() []Policy {
	return []Policy{
		{"aoc", "the least Age-of-Context: what has the least requests and fresh context; a request leaves context behind that fades by half in a hundred requests, and is lost with the model (after Xu et al., arXiv 2305.12130; the half life is assumed)"},
		{"fifo", "what came first"},
		{"frugal", "what gives back the most bytes for each request that it had (GreedyDual-Size-Frequency, Cherkasova 1998, with bytes that nobody shares)"},
		{"lfu", "what was asked for least often, ever; of those the least recently used"},
		{"lru", "the least recently used"},
		{"random", "any"},
	}
}

// entry is what is known of a model.
type entry struct {
	here  bool
	came  int     // number of the request that brought it
	asked int     // number of the last request for it
	count int     // requests for it, ever
	rank  float64 // frugal

	context float64 // aoc: examples left behind while it is kept, each faded by age
	faded   int     // number of the request when context was worked out
	pins    int     // how often it is in use
}

// Shelf keeps models in so many bytes. It belongs to one goroutine.
type Shelf struct {
	lib    *library.Library
	room   units.Bytes
	policy string
	key    rng.Key

	models []entry
	kept   []int // models, in the order in which they came
	of     []int // by block: models here that have it
	used   units.Bytes
	clock  int     // requests so far
	age    float64 // frugal: rank of the last that went
	weight float64 // aoc: of context beside requests
	inUse  int     // pins
	after  func(model int) int
}

// New is an empty shelf. The library has been checked; seed is for the policy random.
func New(l *library.Library, room units.Bytes, policy string, seed uint64) (*Shelf, error) {
	if room < 0 {
		return nil, fmt.Errorf("shelf of %d bytes: want at least none", room)
	}
	known := slices.ContainsFunc(Policies(), func(p Policy) bool { return p.Name == policy })
	if !known {
		var have []string
		for _, p := range Policies() {
			have = append(have, p.Name)
		}
		return nil, fmt.Errorf("unknown policy %q of a shelf (have %s)", policy, strings.Join(have, ", "))
	}
	return &Shelf{lib: l, room: room, policy: policy, key: rng.NewKey(seed, "shelf"), weight: 4, models: make([]entry, len(l.Models)), of: make([]int, len(l.Blocks))}, nil
}

// Has reports whether a block is kept.
func (s *Shelf) Has(block int) bool { return s.of[block] > 0 }

// Models are those that are kept, in the order in which they came. The slice is the shelf's own.
func (s *Shelf) Models() []int { return s.kept }

// Used is the room that they take.
func (s *Shelf) Used() units.Bytes { return s.used }

// Ask counts a request for a model and reports whether all of it is here, as a model of its own or in parts of others.
func (s *Shelf) Ask(m int) bool {
	e := &s.models[m]
	s.clock++
	e.asked = s.clock
	e.count++
	before := 0.0 // what is not here has no examples
	if e.here {
		before = s.context(e)
	}
	e.context, e.faded = before+1, s.clock
	s.rate(m)
	for _, b := range s.lib.Models[m].Blocks {
		if s.of[b] == 0 {
			return false
		}
	}
	return true
}

// halfLife is after how many requests context counts half.
const halfLife = 100

// context is what is left of a model's context now.
func (s *Shelf) context(e *entry) float64 {
	return float64(e.context * portable.Exp(-math.Ln2*float64(s.clock-e.faded)/halfLife))
}

// rate sets the rank by which frugal chooses: age of the shelf + requests / bytes that only this model has.
func (s *Shelf) rate(m int) {
	if e := &s.models[m]; s.policy == "frugal" {
		own := units.Bytes(1)
		for _, b := range s.lib.Models[m].Blocks {
			if others := s.of[b]; others == 0 || others == 1 && e.here {
				own += s.lib.Blocks[b].Bytes
			}
		}
		e.rank = s.age + float64(e.count)/float64(own)
	}
}

// Put keeps a model and returns the bytes that were not here before. A model that is larger than the shelf, or than what is not in
// use, is not kept, and nothing goes for it.
func (s *Shelf) Put(m int) (added units.Bytes) {
	e := &s.models[m]
	if e.here || s.lib.Whole(m) > s.room || s.inUse > 0 && !s.Fits(m) {
		return 0
	}
	for _, b := range s.lib.Models[m].Blocks {
		if s.of[b]++; s.of[b] == 1 {
			added += s.lib.Blocks[b].Bytes
		}
	}
	s.used += added
	s.kept = append(s.kept, m)
	e.here, e.came = true, s.clock
	for s.used > s.room {
		s.Remove(s.victim(m))
	}
	return added
}

// Pin says that a model that is kept is in use once more, and Unpin once less: what is in use does not go.
func (s *Shelf) Pin(m int) {
	s.models[m].pins++
	s.inUse++
}

// Unpin is the end of one use.
func (s *Shelf) Unpin(m int) {
	s.inUse--
	if s.models[m].pins--; s.models[m].pins < 0 {
		panic(fmt.Sprintf("shelf: model %d is unpinned more often than pinned", m))
	}
}

func (s *Shelf) pinned(m int) bool { return s.models[m].pins > 0 }

// Fits reports whether a model could be kept beside those in use.
func (s *Shelf) Fits(m int) bool {
	with := []int{m}
	for _, k := range s.kept {
		if s.pinned(k) && k != m {
			with = append(with, k)
		}
	}
	return s.lib.Union(with) <= s.room
}

// Lacks are the blocks of a model that are not here, in order of use.
func (s *Shelf) Lacks(m int) (blocks []int) {
	for _, b := range s.lib.Models[m].Blocks {
		if s.of[b] == 0 {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// Weigh sets how much policy aoc counts a fresh example beside a request; 0 makes it lfu.
func (s *Shelf) Weigh(context float64) { s.weight = context }

// Context is how many examples a model that is kept has, each faded by its age: the fresher and the more, the better it answers.
func (s *Shelf) Context(m int) float64 { return s.context(&s.models[m]) }

// Set makes the shelf hold these models and no others, if they fit, and returns the bytes that were not here before.
func (s *Shelf) Set(models []int) (added units.Bytes, err error) {
	if n := s.lib.Union(models); n > s.room {
		return 0, fmt.Errorf("%d models take %d bytes of a shelf of %d", len(models), n, s.room)
	}
	had := slices.Clone(s.of)
	for len(s.kept) > 0 {
		s.Remove(s.kept[0])
	}
	for _, m := range models {
		s.Put(m)
	}
	for b := range s.of {
		if s.of[b] > 0 && had[b] == 0 {
			added += s.lib.Blocks[b].Bytes
		}
	}
	return added, nil
}

// Remove gives a model up, with the blocks that no other has.
func (s *Shelf) Remove(m int) {
	i := slices.Index(s.kept, m)
	if i < 0 {
		return
	}
	s.kept = slices.Delete(s.kept, i, i+1)
	s.models[m].here, s.models[m].context = false, 0
	for _, b := range s.lib.Models[m].Blocks {
		if s.of[b]--; s.of[b] == 0 {
			s.used -= s.lib.Blocks[b].Bytes
		}
	}
}

// victim is who goes, the newcomer never. Ties go to who has been here longest.
func (s *Shelf) victim(newcomer int) int {
	if s.policy == "random" {
		luck := s.key.At(uint64(s.clock)<<20 | uint64(len(s.kept)))
		free := s.kept[:len(s.kept)-1] // the newcomer is the last
		if slices.ContainsFunc(free, s.pinned) {
			free = slices.DeleteFunc(slices.Clone(free), s.pinned)
		}
		return free[int(luck.Float64()*float64(len(free)))]
	}
	best, least := -1, math.Inf(1)
	for _, m := range s.kept {
		if m == newcomer || s.models[m].pins > 0 {
			continue
		}
		if v := s.worth(m); v < least {
			best, least = m, v
		}
	}
	if s.policy == "frugal" {
		s.age = max(s.age, least)
	}
	return best
}

// worth is what a policy has least of in who goes.
func (s *Shelf) worth(m int) float64 {
	e := &s.models[m]
	switch {
	case s.after != nil:
		return -float64(s.after(m))
	case s.policy == "fifo":
		return float64(e.came)
	case s.policy == "aoc" && s.weight > 0:
		return float64(e.count) + float64(s.weight*s.context(e))
	case s.policy == "lfu" || s.policy == "aoc":
		return float64(e.count) + float64(e.asked)/float64(s.clock+1) // the fraction settles ties
	case s.policy == "frugal":
		return e.rank
	}
	return float64(e.asked)
}

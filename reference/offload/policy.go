package offload

import "fmt"

// Policy chooses which expert of a layer leaves. Each layer has one of its own. Experts are numbers below E; Use comes for
// every access in order, Added and Left for what the cache really did.
type Policy interface {
	Use(expert int)                 // was asked for, whether it is there or not
	Added(expert int)               // came in, asked for or guessed
	Victim(kept func(int) bool) int // of those that kept admits
	Left(expert int)
}

// Policies names the policies that NewPolicy makes, sorted.
func Policies() []string { return []string{"lfu", "lru"} }

// awarePolicy is the one that goes by a foresight, which NewPolicy has not.
const awarePolicy = "aware"

// newRecency is LRU, or LFU.
func newRecency(counts bool) *recency {
	p := &recency{last: map[int]int{}, there: map[int]bool{}}
	if counts {
		p.count = map[int]int{}
	}
	return p
}

// NewPolicy makes a policy by name: "lru" lets the one go that was asked for longest ago, "lfu" the one that was asked for
// least often since the start, the one asked for longest ago among equals.
func NewPolicy(name string) (Policy, error) {
	switch name {
	case "lru":
		return newRecency(false), nil
	case "lfu":
		return newRecency(true), nil
	}
	return nil, fmt.Errorf("expert cache policy %q: want one of %v", name, Policies())
}

// recency is LRU, and LFU if it counts.
type recency struct {
	now   int
	last  map[int]int
	count map[int]int
	there map[int]bool
}

func (p *recency) Use(e int) {
	p.now++
	p.last[e] = p.now
	if p.count != nil {
		p.count[e]++
	}
}

func (p *recency) Added(e int) { p.there[e] = true }
func (p *recency) Left(e int)  { delete(p.there, e) }

// Victim has one answer whatever the order of the map: times of use differ, and those never used differ in number.
func (p *recency) Victim(kept func(int) bool) int {
	best := -1
	for e := range p.there {
		if kept(e) && (best < 0 || p.before(e, best)) {
			best = e
		}
	}
	return best
}

func (p *recency) before(a, b int) bool {
	if p.count != nil && p.count[a] != p.count[b] {
		return p.count[a] < p.count[b]
	}
	if p.last[a] != p.last[b] {
		return p.last[a] < p.last[b]
	}
	return a < b
}

package delivery

import (
	"fmt"
	"slices"
)

// group says who hears the blocks of a class together, by a scheme that looks at airtime alone.
func (o Options) group(c class, rs []Request) [][]int {
	switch o.Scheme {
	case "multicast":
		return [][]int{c.members}
	case "hybrid":
		if o.cost(c, rs, 0) <= o.cost(c, rs, len(c.members)) {
			return [][]int{c.members}
		}
	case "grouped":
		return split(c.members, o.threshold(c, rs))
	}
	return split(c.members, len(c.members))
}

// split sends to the slowest one by one and to the others together.
func split(members []int, slow int) (groups [][]int) {
	for _, m := range members[:slow] {
		groups = append(groups, []int{m})
	}
	if slow < len(members) {
		groups = append(groups, members[slow:])
	}
	return groups
}

// threshold is how many of the slowest are best served one by one.
//
// Of all partitions of the members, one of these has the least airtime: two transmissions to several could be one at the
// rate of the slower, which takes as long as that one took alone; and whoever is faster than the slowest of a group joins
// it for nothing. So there is at most one group, and it is all from some rate on.
func (o Options) threshold(c class, rs []Request) (best int) {
	least := o.cost(c, rs, 0)
	for slow := 1; slow <= len(c.members); slow++ {
		if cost := o.cost(c, rs, slow); cost < least {
			best, least = slow, cost
		}
	}
	return best
}

// cost is the airtime of a class in seconds if so many of the slowest are served one by one.
func (o Options) cost(c class, rs []Request, slow int) (seconds float64) {
	for _, g := range split(c.members, slow) {
		seconds += o.Setup.Seconds() + float64(c.bytes)/o.rate(g, rs)
	}
	return seconds
}

// mostPlans is how many combinations of groupings an exhaustive search takes on.
const mostPlans = 20_000

// search looks for the groupings with the least mean finish, then the least airtime: over every partition of who lacks
// each class, or by changing one class at a time to a partition by rate for as long as that helps.
func search(cs []class, rs []Request, o Options) (*Plan, error) {
	if o.Scheme == "search" {
		return exhaustive(cs, rs, o)
	}
	groups := make([][][]int, len(cs))
	for k, c := range cs {
		groups[k] = split(c.members, o.threshold(c, rs))
	}
	best, err := build(cs, groups, rs, o)
	if err != nil {
		return nil, err
	}
	for better := true; better; {
		better = false
		for k, c := range cs {
			for _, g := range contiguous(c.members) {
				old := groups[k]
				groups[k] = g
				p, err := build(cs, groups, rs, o)
				if err != nil {
					return nil, err
				}
				if p.before(best) {
					best, better = p, true
				} else {
					groups[k] = old
				}
			}
		}
	}
	return best, nil
}

// before reports whether a plan is better than another.
func (p *Plan) before(q *Plan) bool {
	if a, b := p.Mean(), q.Mean(); a != b {
		return a < b
	}
	return p.Airtime < q.Airtime
}

// contiguous are the partitions by rate that a local search tries: the slowest one by one and the rest together, and the
// members cut in two at every place.
func contiguous(members []int) (all [][][]int) {
	for slow := 0; slow <= len(members); slow++ {
		all = append(all, split(members, slow))
	}
	for cut := 2; cut+1 < len(members); cut++ {
		all = append(all, [][]int{members[:cut], members[cut:]})
	}
	return all
}

// exhaustive tries every combination of partitions.
func exhaustive(cs []class, rs []Request, o Options) (*Plan, error) {
	options := make([][][][]int, len(cs))
	n := 1
	for k, c := range cs {
		if len(c.members) > 8 {
			return nil, fmt.Errorf("delivery: scheme search: %d requests lack one block: at most 8 are tried; use fast", len(c.members))
		}
		options[k] = partitions(c.members)
		if n *= len(options[k]); n > mostPlans {
			return nil, fmt.Errorf("delivery: scheme search: more than %d combinations of groups: use fast", mostPlans)
		}
	}
	var best *Plan
	groups := make([][][]int, len(cs))
	for i := range n {
		for k, left := 0, i; k < len(cs); k++ {
			groups[k] = options[k][left%len(options[k])]
			left /= len(options[k])
		}
		p, err := build(cs, groups, rs, o)
		if err != nil {
			return nil, err
		}
		if best == nil || p.before(best) {
			best = p
		}
	}
	return best, nil
}

// partitions are all ways to cut a set into groups.
func partitions(set []int) [][][]int {
	if len(set) == 0 {
		return [][][]int{nil}
	}
	var all [][][]int
	last := set[len(set)-1]
	for _, p := range partitions(set[:len(set)-1]) {
		for i := range p {
			q := slices.Clone(p)
			q[i] = append(slices.Clone(p[i]), last)
			all = append(all, q)
		}
		all = append(all, append(slices.Clone(p), []int{last}))
	}
	return all
}

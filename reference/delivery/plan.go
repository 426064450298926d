package delivery

import (
	"cmp"
	"slices"
	"time"

	"meibench/internal/units"
	"meibench/reference/library"
)

// class is blocks that the same requests lack.
type class struct {
	blocks  []int // in the order of use of the first who lacks them
	members []int // by rate, the slowest first
	bytes   units.Bytes
}

// classes sorts the blocks by who lacks them. Those of an earlier request, and in its order, come first.
func classes(l *library.Library, rs []Request) []class {
	lack := make(map[int][]int)
	var order []int
	for i, r := range rs {
		for _, j := range r.Blocks {
			if lack[j] == nil {
				order = append(order, j)
			}
			lack[j] = append(lack[j], i)
		}
	}
	at := map[string]int{}
	var cs []class
	for _, j := range order {
		key := key(lack[j])
		k, ok := at[key]
		if !ok {
			k = len(cs)
			at[key] = k
			members := lack[j]
			slices.SortStableFunc(members, func(a, b int) int { return cmp.Compare(rs[a].Rate, rs[b].Rate) })
			cs = append(cs, class{members: members})
		}
		cs[k].blocks = append(cs[k].blocks, j)
		cs[k].bytes += l.Blocks[j].Bytes
	}
	return cs
}

// key is a set of indices as text.
func key(set []int) string {
	b := make([]byte, 0, 4*len(set))
	for _, i := range set {
		b = append(b, byte(i), byte(i>>8), byte(i>>16), byte(i>>24))
	}
	return string(b)
}

// Make plans the deliveries of a slot. The library has been checked. Equal input gives an equal plan on any machine.
// Errors: a scheme, order, rate or block that does not exist or makes no sense; an exhaustive scheme or order over a case
// that is too large for it.
func Make(l *library.Library, rs []Request, o Options) (*Plan, error) {
	o.Order = cmp.Or(o.Order, "shortest")
	o.Multicast = cmp.Or(o.Multicast, 1)
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := check(l, rs); err != nil {
		return nil, err
	}
	if o.Scheme == "search" || o.Scheme == "fast" {
		return search(classes(l, rs), rs, o)
	}
	cs := classes(l, rs)
	groups := make([][][]int, len(cs))
	for k, c := range cs {
		groups[k] = o.group(c, rs)
	}
	return build(cs, groups, rs, o)
}

// build makes a plan of the groups that hear each class together.
func build(cs []class, groups [][][]int, rs []Request, o Options) (*Plan, error) {
	var sent []Sent
	at := map[string]int{}
	for k, c := range cs {
		for _, g := range groups[k] {
			members := slices.Sorted(slices.Values(g))
			key := key(members)
			i, ok := at[key]
			if !ok {
				i = len(sent)
				at[key] = i
				sent = append(sent, Sent{Members: members, Rate: o.rate(members, rs)})
			}
			sent[i].Blocks = append(sent[i].Blocks, c.blocks...)
			sent[i].Bytes += c.bytes
		}
	}
	for i := range sent {
		if len(sent[i].Members) == 1 { // for itself, and so in its own order
			sent[i].Blocks = inOrder(sent[i].Blocks, rs[sent[i].Members[0]].Blocks)
		}
	}
	p := &Plan{Sent: sent, Finish: make([]time.Duration, len(rs))}
	if err := o.schedule(p, rs); err != nil {
		return nil, err
	}
	for _, s := range p.Sent {
		p.Airtime = max(p.Airtime, s.End)
		p.Bytes += s.Bytes
		p.Useful += s.Bytes * units.Bytes(len(s.Members))
		for _, m := range s.Members {
			p.Finish[m] = max(p.Finish[m], s.End)
		}
	}
	return p, nil
}

// inOrder is a set of blocks in the order of a list that has them all.
func inOrder(set, list []int) []int {
	if len(set) == len(list) {
		return slices.Clone(list)
	}
	in := make(map[int]bool, len(set))
	for _, j := range set {
		in[j] = true
	}
	ordered := make([]int, 0, len(set))
	for _, j := range list {
		if in[j] {
			ordered = append(ordered, j)
		}
	}
	return ordered
}

// rate is what a group is sent at.
func (o Options) rate(members []int, rs []Request) float64 {
	worst := rs[members[0]].Rate
	for _, m := range members[1:] {
		worst = min(worst, rs[m].Rate)
	}
	if len(members) > 1 {
		worst *= o.Multicast
	}
	return worst
}

// time is how long a transmission takes.
func (o Options) time(bytes units.Bytes, rate float64) time.Duration {
	return o.Setup + units.TransferTime(bytes, rate)
}

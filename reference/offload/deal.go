package offload

import (
	"cmp"
	"fmt"
	"slices"

	"meibench/internal/units"
	"meibench/reference/panel"
	"meibench/reference/storage"
)

// deal chooses what stays and takes the memory.
func (s *Stream) deal() error {
	p, o := &s.plan, s.options
	p.Units, p.Staging = len(s.units), units.Bytes(storage.NewBuffer(stageBytes(s.units)).Size()+storage.NewBuffer(s.rowBytes()).Size())
	if s.experts != nil {
		p.Experts, p.Staging = s.experts.room(), p.Staging+units.Bytes(s.experts.staging())
	}
	fixed := p.Vectors + p.Staging + p.Experts
	if o.Resident > s.model.Layers {
		return fmt.Errorf("keep the first %d layers: the model has %d", o.Resident, s.model.Layers)
	}
	for i, u := range s.units {
		u.pinned = i < o.Resident
	}
	slots := o.Slots
	if slots == 0 {
		slots = 2
	}
	if o.Resident == 0 {
		room := int64(1) << 62
		if o.Budget > 0 {
			room = int64(o.Budget - fixed)
		}
		keep, ok := choose(s.units, slots, room)
		if !ok && o.Slots == 0 {
			slots = 1
			keep, ok = choose(s.units, slots, room)
		}
		p.Least = fixed + units.Bytes(s.largest())
		if !ok {
			return fmt.Errorf("a budget of %d bytes for %d of weights: one layer at a time, staging and norms take %d: raise it to that at least", o.Budget, p.File, p.Least)
		}
		pin(s.units, keep)
	}
	s.take(slots)
	if o.Budget > 0 && p.Held() > o.Budget {
		return fmt.Errorf("a budget of %d bytes for %d resident layers: they take %d with the ring: keep fewer, or raise it", o.Budget, o.Resident, p.Held())
	}
	return nil
}

// take takes memory for pinned units and sums up the plan.
func (s *Stream) take(slots int) {
	p, arena := &s.plan, panel.NewArena()
	for _, u := range s.units {
		if u.pinned {
			u.slot = arena.Take(int(u.memory))
			p.Pinned++
			p.Kept += units.Bytes(u.memory)
		} else {
			p.PerPass += units.Bytes(u.file)
		}
	}
	if p.Pinned < p.Units {
		p.Slots = slots
		p.Ring = units.Bytes(int64(slots) * s.slotBytes())
	}
	s.ring = &ring{arena: arena}
}

// slotBytes is the size of the largest unit that is not pinned, largest that of any.
func (s *Stream) slotBytes() (n int64) {
	for _, u := range s.units {
		if !u.pinned {
			n = max(n, u.memory)
		}
	}
	return n
}

func (s *Stream) largest() (n int64) {
	for _, u := range s.units {
		n = max(n, u.memory)
	}
	return n
}

// kind is all units of one size.
type kind struct {
	file, memory int64
	count        int
}

func kindsOf(list []*unit) []kind {
	var kinds []kind
	for _, u := range list {
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.file == u.file && k.memory == u.memory })
		if i < 0 {
			kinds = append(kinds, kind{u.file, u.memory, 0})
			i = len(kinds) - 1
		}
		kinds[i].count++
	}
	slices.SortFunc(kinds, func(a, b kind) int { return cmp.Or(cmp.Compare(b.memory, a.memory), cmp.Compare(b.file, a.file)) })
	return kinds
}

// choose says how many units of each kind stay, so that a pass reads the fewest bytes: the best over all sizes of the ring's
// buffers, each a knapsack over the few kinds that a model has. It reports whether anything fits at all.
func choose(list []*unit, slots int, room int64) (keep map[kind]int, ok bool) {
	kinds := kindsOf(list)
	best := int64(-1)
	sizes := []int64{0} // of a buffer; 0: everything stays, no ring
	for _, k := range kinds {
		sizes = append(sizes, k.memory)
	}
	for _, size := range sizes {
		left, saved := room-int64(slots)*size, int64(0)
		counts := make([]int, len(kinds))
		free := 0
		for i, k := range kinds { // what does not fit a buffer must stay; kinds descend
			if k.memory > size {
				counts[i], free = k.count, i+1
				left -= int64(k.count) * k.memory
				saved += int64(k.count) * k.file
			}
		}
		if left < 0 {
			continue
		}
		value := saved + knapsack(kinds[free:], left, counts[free:])
		if value > best {
			best, keep = value, map[kind]int{}
			for i, k := range kinds {
				keep[k] = counts[i]
			}
		}
	}
	return keep, best >= 0
}

// knapsack fills counts with how many of each kind to take, for the most bytes of the file in room bytes of memory.
func knapsack(kinds []kind, room int64, counts []int) int64 {
	if len(kinds) == 0 {
		return 0
	}
	k := kinds[0]
	best := int64(-1)
	rest := make([]int, len(counts)-1)
	above := int64(0) // what the rest could be worth at most
	for _, o := range kinds[1:] {
		above += int64(o.count) * o.file
	}
	for n := int(min(int64(k.count), room/max(1, k.memory))); n >= 0; n-- {
		if int64(n)*k.file+above <= best {
			break
		}
		if v := int64(n)*k.file + knapsack(kinds[1:], room-int64(n)*k.memory, rest); v > best {
			best, counts[0] = v, n
			copy(counts[1:], rest)
		}
	}
	return best
}

// pin spreads the units that stay evenly over their kind: while one computes, the reader fills the next that does not.
func pin(list []*unit, keep map[kind]int) {
	seen := map[kind]int{}
	count := map[kind]int{}
	for _, k := range kindsOf(list) {
		count[kind{k.file, k.memory, 0}] = k.count
	}
	for _, u := range list {
		key := kind{u.file, u.memory, 0}
		n := count[key]
		k := keep[kind{u.file, u.memory, n}]
		i := seen[key]
		u.pinned = (i+1)*k/n > i*k/n
		seen[key]++
	}
}

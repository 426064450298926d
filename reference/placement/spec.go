package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"meibench/internal/units"
)

// steps is into how many units of room spec's knapsacks count, mostSets how many sets of shared blocks of one family they
// try; beyond that it takes the sets that single models need and the union of all.
const (
	steps    = 1000
	mostSets = 256
)

// spec decides server after server. The models of a server fall into families that share nothing with each other; of each
// family one set of shared blocks is paid for, and models that need no other shared blocks compete for the rest of the room.
func spec(in *Instance) Placement {
	s := newState(in, in.Lib)
	fams := in.families()
	for m := range in.Room {
		for _, i := range s.knapsack(m, fams) {
			s.place(m, i)
		}
	}
	return s.done()
}

// family is models that share blocks, directly or over others.
type family struct {
	models []int
	shared [][]int // of each model: blocks that others have too, ascending
	own    []units.Bytes
	sets   [][]int // of shared blocks, to be tried
}

// families are the connected components of sharing.
func (in *Instance) families() (out []*family) {
	of := make([]int, len(in.whole))
	for i := range of {
		of[i] = -1
	}
	for i := range of {
		if of[i] >= 0 {
			continue
		}
		f := &family{}
		for todo := []int{i}; len(todo) > 0; {
			j := todo[0]
			todo = todo[1:]
			if of[j] >= 0 {
				continue
			}
			of[j] = len(out)
			f.models = append(f.models, j)
			for _, b := range in.Lib.Models[j].Blocks {
				todo = append(todo, in.Lib.Users(b)...)
			}
		}
		slices.Sort(f.models)
		f.complete(in)
		out = append(out, f)
	}
	return out
}

func (f *family) complete(in *Instance) {
	for _, j := range f.models {
		var shared []int
		own := units.Bytes(0)
		for _, b := range in.Lib.Models[j].Blocks {
			if len(in.Lib.Users(b)) > 1 {
				shared = append(shared, b)
			} else {
				own += in.Lib.Blocks[b].Bytes
			}
		}
		slices.Sort(shared)
		f.shared, f.own = append(f.shared, shared), append(f.own, own)
	}
	seen := map[string]bool{}
	add := func(set []int) {
		if key := fmt.Sprint(set); !seen[key] {
			seen[key] = true
			f.sets = append(f.sets, set)
		}
	}
	for _, s := range f.shared {
		add(s)
	}
	for n, k := len(f.sets), 0; k < len(f.sets) && len(f.sets) < mostSets; k++ { // closed under union, as far as that goes
		for _, s := range f.sets[:n] {
			add(union(f.sets[k], s))
		}
	}
	var all []int
	for _, s := range f.shared {
		all = union(all, s)
	}
	add(all)
}

func union(a, b []int) []int {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

// chosen is the best value for each amount of room, and how it comes about.
type chosen struct {
	value []float64
	take  [][]int
}

// knapsack is the models of a server.
func (s *state) knapsack(m int, fams []*family) []int {
	unit := max(1, (s.free[m]+steps-1)/steps)
	room := int(s.free[m] / unit)
	total := chosen{make([]float64, room+1), make([][]int, room+1)}
	for _, f := range fams {
		total = join(total, s.family(m, f, unit, room))
	}
	return total.take[room]
}

// family is the best of one family for each amount of room.
func (s *state) family(m int, f *family, unit units.Bytes, room int) chosen {
	best := chosen{make([]float64, room+1), make([][]int, room+1)}
	gains := make([]float64, len(f.models))
	for k, i := range f.models {
		gains[k] = s.gain(m, i)
	}
	weight := func(n units.Bytes) int { return int((n + unit - 1) / unit) }
	for _, set := range f.sets {
		bytes := units.Bytes(0)
		for _, b := range set {
			bytes += s.lib.Blocks[b].Bytes
		}
		base := weight(bytes)
		if base > room {
			continue
		}
		value, last := make([]float64, room-base+1), make([][]int, room-base+1)
		for k, i := range f.models {
			w := weight(f.own[k])
			if gains[k] <= 0 || w > room-base || !subset(f.shared[k], set) {
				continue
			}
			for c := room - base; c >= w; c-- {
				if v := value[c-w] + gains[k]; v > value[c] {
					value[c], last[c] = v, append(slices.Clone(last[c-w]), i)
				}
			}
		}
		for c, v := range value {
			if v > best.value[base+c] {
				best.value[base+c], best.take[base+c] = v, last[c]
			}
		}
	}
	for c := 1; c <= room; c++ {
		if best.value[c-1] > best.value[c] {
			best.value[c], best.take[c] = best.value[c-1], best.take[c-1]
		}
	}
	return best
}

func subset(a, b []int) bool {
	for _, x := range a {
		if _, ok := slices.BinarySearch(b, x); !ok {
			return false
		}
	}
	return true
}

// join shares the room between two.
func join(a, b chosen) chosen {
	out := chosen{make([]float64, len(a.value)), make([][]int, len(a.value))}
	for c := range out.value {
		best, at := -1.0, 0
		for x := 0; x <= c; x++ {
			if v := a.value[x] + b.value[c-x]; v > best {
				best, at = v, x
			}
		}
		out.value[c], out.take[c] = best, slices.Concat(a.take[at], b.take[c-at])
	}
	return out
}

// mostTried is the largest number of placements that Optimum looks at.
const mostTried = 50_000_000

// Optimum is the best placement of all, by trying every one in which no server could keep another model besides. It is for a few
// servers and models: more is an error.
func Optimum(in *Instance) (Placement, float64, error) {
	if len(in.whole) > 16 {
		return nil, 0, fmt.Errorf("optimum of %d models: every set of models is tried, want at most 16", len(in.whole))
	}
	sets := make([][][]int, len(in.Room))
	work := 1.0
	for m := range in.Room {
		sets[m] = in.maximal(m)
		work *= float64(len(sets[m]))
	}
	if work > mostTried {
		return nil, 0, fmt.Errorf("optimum: %.3g placements to try, want at most %d", work, mostTried)
	}
	best, top := Placement(nil), math.Inf(-1)
	at := make([]int, len(in.Room))
	for {
		p := make(Placement, len(at))
		for m, k := range at {
			p[m] = sets[m][k]
		}
		if h := in.Hit(p); h > top {
			best, top = p, h
		}
		m := 0
		for ; m < len(at); m++ {
			if at[m]++; at[m] < len(sets[m]) {
				break
			}
			at[m] = 0
		}
		if m == len(at) {
			return best, top, nil
		}
	}
}

// maximal are the sets of models that fit a server and that no further model fits beside.
func (in *Instance) maximal(m int) (out [][]int) {
	n := len(in.whole)
	fits := make([]bool, 1<<n)
	models := func(set int) (list []int) {
		for i := range n {
			if set>>i&1 != 0 {
				list = append(list, i)
			}
		}
		return list
	}
	for set := range fits {
		fits[set] = in.Lib.Union(models(set)) <= in.Room[m]
	}
	for set, ok := range fits {
		for i := 0; ok && i < n; i++ {
			ok = set>>i&1 != 0 || !fits[set|1<<i]
		}
		if ok {
			out = append(out, models(set))
		}
	}
	slices.SortFunc(out, func(a, b []int) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return out
}

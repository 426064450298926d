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

// bag is a server's room in units, to be filled.
type bag struct {
	s    *state
	m    int
	unit units.Bytes
	room int
}

func (b *bag) weight(n units.Bytes) int { return int((n + b.unit - 1) / b.unit) }

// knapsack is the models of a server: first the values alone, over sets and families, then the models of what was best.
func (s *state) knapsack(m int, fams []*family) (models []int) {
	b := &bag{s: s, m: m, unit: max(1, (s.free[m]+steps-1)/steps)}
	b.room = int(s.free[m] / b.unit)
	total := make([]float64, b.room+1)
	splits, sets := make([][]int, len(fams)), make([][]int, len(fams)) // by family and room: what the family gets; which set is best
	for k, f := range fams {
		var values []float64
		values, sets[k] = b.best(f)
		total, splits[k] = join(total, values)
	}
	for k, room := len(fams)-1, b.room; k >= 0; k-- {
		mine := splits[k][room]
		if set := sets[k][mine]; set >= 0 {
			models = append(models, b.fill(fams[k], fams[k].sets[set], mine)...)
		}
		room -= mine
	}
	return models
}

// items are the models of a family that a set of shared blocks suffices for, and the units that the set takes.
func (b *bag) items(f *family, set []int) (of []int, base int) {
	bytes := units.Bytes(0)
	for _, j := range set {
		bytes += b.s.lib.Blocks[j].Bytes
	}
	for k := range f.models {
		if subset(f.shared[k], set) {
			of = append(of, k)
		}
	}
	return of, b.weight(bytes)
}

// best is the most that a family adds for each amount of room, and with which of its sets; -1 = with none.
func (b *bag) best(f *family) (values []float64, set []int) {
	values, set = make([]float64, b.room+1), make([]int, b.room+1)
	for c := range set {
		set[c] = -1
	}
	gains := make([]float64, len(f.models))
	for k, i := range f.models {
		gains[k] = b.s.gain(b.m, i)
	}
	value := make([]float64, b.room+1)
	for n, blocks := range f.sets {
		of, base := b.items(f, blocks)
		if base > b.room {
			continue
		}
		clear(value)
		for _, k := range of {
			w, g := b.weight(f.own[k]), gains[k]
			if g <= 0 {
				continue
			}
			for c := b.room - base; c >= w; c-- {
				value[c] = max(value[c], value[c-w]+g)
			}
		}
		for c := base; c <= b.room; c++ {
			if v := value[c-base]; v > values[c] {
				values[c], set[c] = v, n
			}
		}
	}
	return values, set
}

// fill is the models behind the best value of a family for a set and an amount of room.
func (b *bag) fill(f *family, blocks []int, room int) (models []int) {
	of, base := b.items(f, blocks)
	room -= base
	rows := make([][]float64, len(of)+1) // by models looked at
	rows[0] = make([]float64, room+1)
	for n, k := range of {
		w, g := b.weight(f.own[k]), b.s.gain(b.m, f.models[k])
		row := slices.Clone(rows[n])
		for c := w; c <= room && g > 0; c++ {
			row[c] = max(row[c], rows[n][c-w]+g)
		}
		rows[n+1] = row
	}
	for n := len(of); n > 0; n-- {
		if rows[n][room] > rows[n-1][room] {
			models = append(models, f.models[of[n-1]])
			room -= b.weight(f.own[of[n-1]])
		}
	}
	return models
}

func subset(a, b []int) bool {
	for _, x := range a {
		if _, ok := slices.BinarySearch(b, x); !ok {
			return false
		}
	}
	return true
}

// join shares the room between two, and says how much of each amount the second gets.
func join(a, b []float64) (values []float64, second []int) {
	values, second = make([]float64, len(a)), make([]int, len(a))
	for c := range values {
		values[c] = -1
		for x := 0; x <= c; x++ {
			if v := a[c-x] + b[x]; v > values[c] {
				values[c], second[c] = v, x
			}
		}
	}
	return values, second
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

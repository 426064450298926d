package serving

import (
	"cmp"
	"slices"
	"time"

	"meibench/internal/units"
)

// searchLimit bounds the nodes that Select visits; past it the best set found so
// far stands.
const searchLimit = 20_000

// Select appends the indices of the largest set of waiting jobs that can enter
// together and meet their deadlines, beside what runs already. Jobs without a
// deadline never miss one. The search is depth-first over jobs in order of
// deadline and prunes branches that cannot beat the best set: exact on up to
// some dozen jobs, after that bounded in time and at least as good as first
// come, first served among the feasible.
//
// It follows the idea of DFTSP (Zhang et al., "Edge Intelligence Optimization for
// Large Language Model Inference with Batching and Quantization"): maximise the
// requests in a batch under memory and latency limits by a tree search with
// pruning. Our feasibility test is by the server's observed pace.
func Select(v *View, to []int) []int {
	room := v.Most - len(v.Running)
	if room <= 0 || len(v.Waiting) == 0 {
		return to
	}
	s := search{v: v, room: room, order: make([]int, len(v.Waiting))}
	for i := range s.order {
		s.order[i] = i
	}
	slices.SortStableFunc(s.order, func(a, b int) int { return cmp.Compare(v.deadline(a), v.deadline(b)) })
	for _, j := range v.Running {
		if !j.session {
			s.base.add(v, j)
		}
	}
	s.visit(0, s.base)
	if len(s.best) == 0 && len(v.Running) == 0 {
		s.best = s.leastLate()
	}
	slices.Sort(s.best)
	return append(to, s.best...)
}

// deadline of a waiting job; far away if it has none.
func (v *View) deadline(i int) time.Duration {
	if d := v.Waiting[i].Deadline; d > 0 {
		return d
	}
	return 1<<63 - 1
}

// load is what a set of jobs adds up to.
type load struct {
	need         units.Bytes
	prompt, seqs int
	steps        int
	soonest      time.Duration // deadline; 0 = none
}

func (l *load) add(v *View, j *Job) {
	l.prompt += j.Todo
	l.seqs++
	l.steps = max(l.steps, j.Left)
	if j.Deadline > 0 && (l.soonest == 0 || j.Deadline < l.soonest) {
		l.soonest = j.Deadline
	}
}

// Feasible reports whether a set of waiting jobs fits the memory and meets its
// deadlines with what runs.
func Feasible(v *View, set []int) bool {
	var l load
	for _, j := range v.Running {
		if !j.session {
			l.add(v, j)
		}
	}
	for _, i := range set {
		l.add(v, v.Waiting[i])
		l.need += v.Need(v.Waiting[i])
	}
	return len(v.Running)+len(set) <= v.Most && l.feasible(v)
}

func (l *load) feasible(v *View) bool {
	if v.Bounded && l.need > v.Free {
		return false
	}
	return l.soonest == 0 || v.Now+v.Pace.Time(l.prompt, l.seqs, l.steps) <= l.soonest
}

// search is a walk over subsets.
type search struct {
	v       *View
	room    int
	order   []int // waiting jobs by deadline
	base    load  // what runs
	set     []int
	best    []int
	visited int
}

// visit tries to take, then to leave, the k-th job.
func (s *search) visit(k int, l load) {
	if len(s.set) > len(s.best) {
		s.best = append(s.best[:0], s.set...)
	}
	s.visited++
	if k == len(s.order) || len(s.set) == s.room || len(s.set)+min(len(s.order)-k, s.room-len(s.set)) <= len(s.best) || s.visited > searchLimit {
		return
	}
	i := s.order[k]
	j := s.v.Waiting[i]
	with := l
	with.add(s.v, j)
	with.need += s.v.Need(j)
	if with.feasible(s.v) { // a set only becomes later and larger: what is infeasible stays so
		s.set = append(s.set, i)
		s.visit(k+1, with)
		s.set = s.set[:len(s.set)-1]
	}
	s.visit(k+1, l)
}

// leastLate is what runs when no job can be in time: the oldest that fits. A
// server that idles helps nobody.
func (s *search) leastLate() []int {
	for i, j := range s.v.Waiting {
		if !s.v.Bounded || s.v.Need(j) <= s.v.Free {
			return []int{i}
		}
	}
	return nil
}

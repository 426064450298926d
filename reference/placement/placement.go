// Package placement decides which models each edge server keeps, once, from who is likely to ask for what and how quickly
// servers reach users.
//
//	in := &placement.Instance{Lib: lib, Room: rooms, Users: users, Hop: 1.25e9}
//	if err := in.Check(); err != nil { ... }
//	p, err := placement.Decide("gen", in)   // models of each server
//	hit := in.Hit(p)                        // share of requests that some server can answer in time
//
// The problem is that of TrimCaching (Qu et al., arXiv 2405.03990): servers store blocks, models share them, and a user is served
// if any server that has the model can deliver it within the user's deadline, directly or through the server that covers
// the user. The hit ratio is monotone and submodular in what is placed, the storage is not a sum but a union.
//
// Policies are in one table. Optimum tries everything, for instances of a few models. What changes over time is package
// shelf's; what is sent how is package delivery's.
package placement

import (
	"container/heap"
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/library"
)

// Cover is a server whose cell a user is in, and the bytes per second that it would have for the user.
type Cover struct {
	Server int
	Rate   float64
}

// User is who asks.
type User struct {
	Wants    []float32 // by model: how often it asks for it, any unit, the same for all users
	Deadline float64   // s in which a model has to come
	Covers   []Cover   // servers that reach it by radio
}

// Instance is what is decided about.
type Instance struct {
	Lib   *library.Library
	Room  []units.Bytes // by server
	Users []User
	Hop   float64 // bytes per second from any server to any other; 0 = none: only covering servers count

	whole []units.Bytes
	near  [][]int32 // users by covering server
	best  []float64 // by user: the best rate of a cover
	sum   float64   // of all wants
}

// Check says what is wrong with an instance and prepares it.
func (in *Instance) Check() error {
	if in.Lib == nil || len(in.Room) == 0 || len(in.Users) == 0 {
		return fmt.Errorf("placement: a library, servers and users are needed, there are %d servers and %d users", len(in.Room), len(in.Users))
	}
	if in.Hop < 0 || math.IsNaN(in.Hop) {
		return fmt.Errorf("placement: %g bytes per second between servers: want 0 or more", in.Hop)
	}
	least := units.Bytes(math.MaxInt64)
	in.whole = make([]units.Bytes, len(in.Lib.Models))
	for i := range in.whole {
		in.whole[i] = in.Lib.Whole(i)
		least = min(least, in.whole[i])
	}
	fits := false
	for m, r := range in.Room {
		if r < 0 {
			return fmt.Errorf("placement: server %d has room for %d bytes: want 0 or more", m, r)
		}
		fits = fits || r >= least
	}
	if !fits {
		return fmt.Errorf("placement: no server has room for any model: the smallest has %d bytes", least)
	}
	in.near, in.best, in.sum = make([][]int32, len(in.Room)), make([]float64, len(in.Users)), 0
	for k := range in.Users {
		if err := in.checkUser(k); err != nil {
			return fmt.Errorf("placement: user %d: %w", k, err)
		}
	}
	if in.sum == 0 {
		return fmt.Errorf("placement: nobody asks for anything")
	}
	return nil
}

func (in *Instance) checkUser(k int) error {
	u := &in.Users[k]
	if len(u.Wants) != len(in.Lib.Models) {
		return fmt.Errorf("wants %d models, the library has %d", len(u.Wants), len(in.Lib.Models))
	}
	for i, w := range u.Wants {
		if !(w >= 0) || math.IsInf(float64(w), 0) {
			return fmt.Errorf("asks for model %q with frequency %g: want 0 or more", in.Lib.Models[i].Name, w)
		}
		in.sum += float64(w)
	}
	if !(u.Deadline > 0) {
		return fmt.Errorf("deadline of %g s: want more than 0", u.Deadline)
	}
	for _, c := range u.Covers {
		if c.Server < 0 || c.Server >= len(in.Room) || !(c.Rate > 0) {
			return fmt.Errorf("covered by server %d at %g bytes per second: want one of %d servers and a rate above 0", c.Server, c.Rate, len(in.Room))
		}
		in.near[c.Server] = append(in.near[c.Server], int32(k))
		in.best[k] = max(in.best[k], c.Rate)
	}
	return nil
}

// anywhere reports whether any server at all can deliver a model to a user in time, through the user's best cover.
func (in *Instance) anywhere(k, i int) bool {
	size := float64(in.whole[i])
	return in.Hop > 0 && in.best[k] > 0 && size/in.Hop+size/in.best[k] <= in.Users[k].Deadline
}

// direct reports whether a server that covers a user can.
func (in *Instance) direct(m, k, i int) bool {
	for _, c := range in.Users[k].Covers {
		if c.Server == m && float64(in.whole[i])/c.Rate <= in.Users[k].Deadline {
			return true
		}
	}
	return false
}

// Reaches is I1 of the paper: whether server m can deliver model i to user k in time.
func (in *Instance) Reaches(m, k, i int) bool { return in.anywhere(k, i) || in.direct(m, k, i) }

// Placement is the models of each server, ascending.
type Placement [][]int

// Hit is the expected hit ratio: the share of requests for which some server has the model and delivers it in time.
func (in *Instance) Hit(p Placement) float64 {
	s := newState(in, in.Lib)
	hit := 0.0
	for m, models := range p {
		for _, i := range models {
			hit += s.gain(m, i)
			s.place(m, i)
		}
	}
	return hit / in.sum
}

// Ceiling is the hit ratio with all models at all servers.
func (in *Instance) Ceiling() float64 {
	all := make([]int, len(in.Lib.Models))
	for i := range all {
		all[i] = i
	}
	p := make(Placement, len(in.Room))
	for m := range p {
		p[m] = all
	}
	return in.Hit(p)
}

// Used is the room that a server needs for its models.
func (in *Instance) Used(p Placement, m int) units.Bytes { return in.Lib.Union(p[m]) }

// state is a placement in the making.
type state struct {
	in      *Instance
	lib     *library.Library // by which bytes are counted
	far     []float64        // by model: wants of users whom any server reaches, until it is placed somewhere
	wide    []uint64         // bit (k, i): any server reaches
	covered []uint64         // bit (k, i): a covering server has it
	has     [][]uint64       // by server: blocks
	free    []units.Bytes
	out     Placement
}

func newState(in *Instance, lib *library.Library) *state {
	bits := (len(in.Users)*len(in.whole) + 63) / 64
	s := &state{in: in, lib: lib, far: make([]float64, len(in.whole)), wide: make([]uint64, bits), covered: make([]uint64, bits),
		free: slices.Clone(in.Room), out: make(Placement, len(in.Room)), has: make([][]uint64, len(in.Room))}
	for m := range s.has {
		s.has[m] = make([]uint64, (len(lib.Blocks)+63)/64)
	}
	for k := range in.Users {
		for i, w := range in.Users[k].Wants {
			if w > 0 && in.anywhere(k, i) {
				s.far[i] += float64(w)
				set(s.wide, k*len(in.whole)+i)
			}
		}
	}
	return s
}

func set(bits []uint64, n int)      { bits[n>>6] |= 1 << (n & 63) }
func has(bits []uint64, n int) bool { return bits[n>>6]>>(n&63)&1 != 0 }

// gain is what placing a model at a server adds to the hits, in units of wants. It never grows by placing more.
func (s *state) gain(m, i int) float64 {
	g := s.far[i]
	for _, k := range s.in.near[m] {
		at := int(k)*len(s.in.whole) + i
		if w := s.in.Users[k].Wants[i]; w > 0 && !has(s.wide, at) && !has(s.covered, at) && s.in.direct(m, int(k), i) {
			g += float64(w)
		}
	}
	return g
}

// need is the bytes that a model would add to a server.
func (s *state) need(m, i int) (n units.Bytes) {
	for _, b := range s.lib.Models[i].Blocks {
		if !has(s.has[m], b) {
			n += s.lib.Blocks[b].Bytes
		}
	}
	return n
}

func (s *state) place(m, i int) {
	s.free[m] -= s.need(m, i)
	for _, b := range s.lib.Models[i].Blocks {
		set(s.has[m], b)
	}
	s.far[i] = 0
	for _, k := range s.in.near[m] {
		if at := int(k)*len(s.in.whole) + i; s.in.direct(m, int(k), i) {
			set(s.covered, at)
		}
	}
	s.out[m] = append(s.out[m], i)
}

func (s *state) done() Placement {
	for m := range s.out {
		slices.Sort(s.out[m])
	}
	return s.out
}

// policy is one way to decide.
type policy struct {
	name, doc string
	decide    func(in *Instance) Placement
}

// policies is sorted by name.
var policies = []policy{
	{"femtocaching", "FemtoCaching's greedy (Shanmugam et al. 2013) with hits in place of delays: what adds most next, each model at its full size; where all are equally large, at least half of the optimum", independent},
	{"gen", "TrimCaching Gen: what adds most to the hits next, of all servers and models whose new blocks fit (arXiv 2405.03990); lazily (Minoux 1978)", gen},
	{"gen-byte", "the same, by hits for each new byte", genByte},
	{"independent", "the same, with each model at its full size: nothing is shared; femtocaching is another name for it", independent},
	{"popular", "each server by itself: what its users ask for most", popular},
	{"random", "each server by itself: any, by a generator with a fixed seed", anyModels},
	{"spec", "TrimCaching Spec: server after server, each by knapsacks over what its models have in common", spec},
}

// Policies lists names and what they do.
func Policies() (out [][2]string) {
	for _, p := range policies {
		out = append(out, [2]string{p.name, p.doc})
	}
	return out
}

// Apart reports whether a policy stores each model for itself, so that what it places takes the sum of the models' sizes.
func Apart(name string) bool { return name == "independent" || name == "femtocaching" }

// Decide places models by a policy. The instance has been checked.
func Decide(name string, in *Instance) (Placement, error) {
	var have []string
	for _, p := range policies {
		if p.name == name {
			return p.decide(in), nil
		}
		have = append(have, p.name)
	}
	return nil, fmt.Errorf("unknown policy %q of placement (have %s)", name, strings.Join(have, ", "))
}

// choice is a model at a server with what it would have added when that was last looked at: an upper bound.
type choice struct {
	gain float64
	m, i int32
}

// queue is a heap of choices, the most first; equal ones by server, then model.
type queue []choice

func (q queue) Len() int { return len(q) }
func (q queue) Less(a, b int) bool {
	x, y := q[a], q[b]
	return x.gain > y.gain || x.gain == y.gain && (x.m < y.m || x.m == y.m && x.i < y.i)
}
func (q queue) Swap(a, b int) { q[a], q[b] = q[b], q[a] }

// Push and Pop are those of package container/heap.
func (q *queue) Push(x any) { *q = append(*q, x.(choice)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// greedy takes the choice that adds most, again and again. What does not fit now never will: a placement takes from a server's
// free room at least what it takes from another model's need.
func (s *state) greedy() Placement {
	var q queue
	for m := range s.in.Room {
		for i := range s.in.whole {
			if g := s.gain(m, i); g > 0 {
				q = append(q, choice{g, int32(m), int32(i)})
			}
		}
	}
	heap.Init(&q)
	for len(q) > 0 {
		top := q[0]
		m, i := int(top.m), int(top.i)
		if s.need(m, i) > s.free[m] {
			heap.Pop(&q)
			continue
		}
		g := s.gain(m, i)
		if g == top.gain {
			s.place(m, i)
			g = 0
		}
		if g == 0 {
			heap.Pop(&q)
			continue
		}
		q[0].gain = g
		heap.Fix(&q, 0)
	}
	return s.done()
}

// Where nothing is shared and sizes are equal, gen and independent are one: FemtoCaching's greedy over the partition matroid of
// servers with so many places each, which finds at least half of the optimum (Fisher, Nemhauser and Wolsey 1978).
func gen(in *Instance) Placement         { return newState(in, in.Lib).greedy() }
func independent(in *Instance) Placement { return newState(in, in.Lib.Unshared()).greedy() }

// genByte looks at everything in every round: need shrinks as blocks come, so old figures bound nothing.
func genByte(in *Instance) Placement {
	s := newState(in, in.Lib)
	placed := make([]bool, len(in.Room)*len(in.whole))
	for {
		best, bm, bi := 0.0, -1, -1
		for m := range in.Room {
			for i := range in.whole {
				n := s.need(m, i)
				if placed[m*len(in.whole)+i] || n > s.free[m] {
					continue
				}
				if g := s.gain(m, i) / float64(max(n, 1)); g > best {
					best, bm, bi = g, m, i
				}
			}
		}
		if bm < 0 {
			return s.done()
		}
		placed[bm*len(in.whole)+bi] = true
		s.place(bm, bi)
	}
}

// fill gives each server models in an order of its own, as long as they fit.
func fill(in *Instance, order func(m int) []int) Placement {
	s := newState(in, in.Lib)
	for m := range in.Room {
		for _, i := range order(m) {
			if s.need(m, i) <= s.free[m] {
				s.place(m, i)
			}
		}
	}
	return s.done()
}

func popular(in *Instance) Placement {
	return fill(in, func(m int) []int {
		sums, order := make([]float64, len(in.whole)), make([]int, len(in.whole))
		for _, k := range in.near[m] {
			for i, w := range in.Users[k].Wants {
				sums[i] += float64(w)
			}
		}
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int {
			switch {
			case sums[a] > sums[b]:
				return -1
			case sums[a] < sums[b]:
				return 1
			}
			return 0
		})
		return order
	})
}

func anyModels(in *Instance) Placement {
	return fill(in, func(m int) []int { return rng.Stream(1, "placement", m).Perm(len(in.whole)) })
}

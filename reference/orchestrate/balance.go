package orchestrate

import (
	"math"
	"slices"

	"meibench/internal/rng"
)

// Replica is what a balancer sees of a server.
type Replica struct {
	Jobs int     // there, waiting or served
	Wait float64 // seconds until a new request's first token, as far as is known
	Run  float64 // seconds from then to its last
	Cost float64 // seconds that its place counts against it, for whoever knows of heat, batteries or carbon; see Node.Weight
}

// finish is when a new request would be done, with what its place costs.
func (r *Replica) finish() float64 { return r.Wait + r.Run + r.Cost }

// Turn is the state of a balancer: requests so far.
type Turn struct{ n uint64 }

// Balancer picks one of several replicas for a request.
type Balancer struct {
	Name, Doc string
	// Pick returns an index; there is at least one replica. Luck is the request's own.
	Pick func(t *Turn, luck *rng.Luck, rs []Replica) int
}

// Balancers lists the policies by name.
var Balancers = []Balancer{
	{"jsq", "join the shortest queue: fewest requests there", shortest},
	{"least", "the replica that is expected to finish first: what waits there, its speed and the way to it", least},
	{"random", "any", func(_ *Turn, luck *rng.Luck, rs []Replica) int { return among(luck, len(rs)) }},
	{"roundrobin", "one after the other", func(t *Turn, _ *rng.Luck, rs []Replica) int {
		t.n++
		return int((t.n - 1) % uint64(len(rs)))
	}},
	{"two", "the shorter queue of two that chance picks (Mitzenmacher 2001; Vvedenskaya, Dobrushin, Karpelevich 1996)", two},
}

// FindBalancer returns the policy of a name; ok is false if there is none.
func FindBalancer(name string) (Balancer, bool) {
	i := slices.IndexFunc(Balancers, func(b Balancer) bool { return b.Name == name })
	if i < 0 {
		return Balancer{}, false
	}
	return Balancers[i], true
}

func among(luck *rng.Luck, n int) int { return min(int(luck.Float64()*float64(n)), n-1) }

// shortest is the first of the shortest queues.
func shortest(_ *Turn, _ *rng.Luck, rs []Replica) int {
	best := 0
	for i := range rs {
		if rs[i].Jobs < rs[best].Jobs {
			best = i
		}
	}
	return best
}

func least(_ *Turn, _ *rng.Luck, rs []Replica) int {
	best := 0
	for i := range rs {
		if rs[i].finish() < rs[best].finish() {
			best = i
		}
	}
	return best
}

func two(_ *Turn, luck *rng.Luck, rs []Replica) int {
	a, b := among(luck, len(rs)), among(luck, len(rs)-1)
	if len(rs) == 1 {
		return 0
	}
	if b >= a {
		b++
	}
	if rs[b].Jobs < rs[a].Jobs || rs[b].Jobs == rs[a].Jobs && b < a {
		return b
	}
	return a
}

// TwoChoices is the mean sojourn, over the service time, of very many M/M/1 servers at a load, of which the shorter queue of two is
// joined: sum over k >= 1 of load^(2^k - 2) (Mitzenmacher 2001, Theorem 1 with d = 2). One choice gives 1/(1-load).
func TwoChoices(load float64) (sum float64) {
	if load >= 1 {
		return math.Inf(1)
	}
	for power := 1.0; power > 1e-18; { // load^(2^k - 2): 1, load^2, load^6, ...
		sum += power
		next := power * load
		power = next * next
	}
	return sum
}

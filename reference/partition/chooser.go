package partition

import (
	"math"

	"meibench/internal/portable"
)

// State is what a chooser sees before a request: the link as it is estimated.
type State struct{ Link Link }

// Chooser picks the cut of the next request on a link that changes. A caller may leave out Observe for requests that failed.
type Chooser interface {
	// Choose returns the cut of the next request.
	Choose(State) int
	// Observe tells what a request with that cut cost, in the unit of the objective.
	Observe(cut int, cost float64)
}

// Static always picks the same cut.
type Static struct{ Cut int }

// Choose implements Chooser.
func (s Static) Choose(State) int { return s.Cut }

// Observe implements Chooser; it does nothing.
func (Static) Observe(int, float64) {}

// Hysteresis keeps its cut until an estimate of the link has moved by more than a share since it last decided.
type Hysteresis struct {
	profile Profile
	delta   float64
	decided bool
	at      Link
	cut     int
}

// NewHysteresis decides anew when a rate or the round trip time differs by more than delta of its value at the last decision.
// With delta 0 it decides whenever anything has changed: the best cut each time.
func NewHysteresis(p Profile, delta float64) *Hysteresis {
	return &Hysteresis{profile: p, delta: delta}
}

// Choose implements Chooser.
func (h *Hysteresis) Choose(s State) int {
	moved := func(now, then float64) bool { return math.Abs(now-then) > float64(h.delta*math.Abs(then)) }
	if !h.decided || moved(s.Link.UpBytesPerSec, h.at.UpBytesPerSec) || moved(s.Link.DownBytesPerSec, h.at.DownBytesPerSec) ||
		moved(s.Link.RTTSec, h.at.RTTSec) {
		h.decided, h.at = true, s.Link
		h.cut, _ = h.profile.Best(s.Link, Latency)
	}
	return h.cut
}

// Observe implements Chooser; it does nothing.
func (*Hysteresis) Observe(int, float64) {}

// UCB learns from costs alone: it picks the cut whose cost, less a bonus for having been tried little, is least (UCB1, Auer et
// al. 2002; with a discount, Garivier and Moulines 2011). It does not look at the link.
type UCB struct {
	scale, discount float64
	tried, cost     []float64
}

// NewUCB learns among cuts 0 to cuts-1. scale is the width of the range in which costs lie, as the bonus is in that unit; discount, over 0
// and up to 1, is the weight that an observation keeps with each new one: 1 for a link that does not drift.
func NewUCB(cuts int, scale, discount float64) *UCB {
	return &UCB{scale, discount, make([]float64, cuts), make([]float64, cuts)}
}

// Choose implements Chooser: a cut that was never tried first, then by cost and bonus, the smaller cut among equals.
func (b *UCB) Choose(State) int {
	best, least, total := 0, math.Inf(1), portable.Log(max(1, sum(b.tried)))
	for cut, n := range b.tried {
		if n == 0 {
			return cut
		}
		if v := b.cost[cut]/n - float64(b.scale*math.Sqrt(2*total/n)); v < least {
			best, least = cut, v
		}
	}
	return best
}

// Observe implements Chooser.
func (b *UCB) Observe(cut int, cost float64) {
	for i := range b.tried {
		b.tried[i] = float64(b.tried[i] * b.discount)
		b.cost[i] = float64(b.cost[i] * b.discount)
	}
	b.tried[cut]++
	b.cost[cut] += cost
}

// Regret is how a series of cuts did.
type Regret struct {
	Oracle   float64 // cost above that of the best cut of every request
	Fixed    float64 // cost above that of the one cut that was best over all; negative if adapting paid
	Switches int     // times that the cut changed
}

// RegretOf judges the cuts taken; cost(t, k) is what request t costs with cut k of 0 to cuts-1.
func RegretOf(taken []int, cuts int, cost func(t, k int) float64) (r Regret) {
	fixed := make([]float64, cuts)
	var paid, oracle float64
	for t, k := range taken {
		least := math.Inf(1)
		for c := range fixed {
			v := cost(t, c)
			fixed[c] += v
			least = min(least, v)
		}
		paid += cost(t, k)
		oracle += least
		if t > 0 && k != taken[t-1] {
			r.Switches++
		}
	}
	best := math.Inf(1)
	for _, v := range fixed {
		best = min(best, v)
	}
	if len(taken) > 0 {
		r.Oracle, r.Fixed = paid-oracle, paid-best
	}
	return r
}

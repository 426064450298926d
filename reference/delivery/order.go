package delivery

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// schedule puts the transmissions of a plan in order and gives them their times.
func (o Options) schedule(p *Plan, rs []Request) error {
	switch o.Order {
	case "together":
		o.together(p.Sent)
		return nil
	case "shared":
		slices.SortStableFunc(p.Sent, func(a, b Sent) int { // descending members per second, by cross products
			return cmp.Compare(float64(len(b.Members))*o.seconds(a), float64(len(a.Members))*o.seconds(b))
		})
	case "best":
		order, err := o.best(p.Sent, len(rs))
		if err != nil {
			return err
		}
		byRequest(p.Sent, order)
	case "shortest":
		byRequest(p.Sent, o.shortest(p.Sent, len(rs)))
	default:
		order := make([]int, len(rs))
		for i := range order {
			order[i] = i
		}
		byRequest(p.Sent, order)
	}
	var now time.Duration
	for i := range p.Sent {
		s := &p.Sent[i]
		s.Start = now
		now += o.time(s.Bytes, s.Rate)
		s.End = now
	}
	return nil
}

// seconds is how long a transmission takes.
func (o Options) seconds(s Sent) float64 { return o.time(s.Bytes, s.Rate).Seconds() }

// byRequest sorts transmissions by the first of their members in an order of requests. Of one request, those with more
// members go first: they bring more users on.
func byRequest(sent []Sent, order []int) {
	turn := make([]int, len(order))
	for t, i := range order {
		turn[i] = t
	}
	first := func(s Sent) int {
		t := math.MaxInt
		for _, m := range s.Members {
			t = min(t, turn[m])
		}
		return t
	}
	slices.SortStableFunc(sent, func(a, b Sent) int {
		return cmp.Or(cmp.Compare(first(a), first(b)), cmp.Compare(len(b.Members), len(a.Members)))
	})
}

// shortest is the order in which always the request follows that is done soonest.
func (o Options) shortest(sent []Sent, n int) []int {
	left := make([]time.Duration, n) // of each request, still to be sent
	mine := make([][]int, n)
	for t, s := range sent {
		for _, m := range s.Members {
			left[m] += o.time(s.Bytes, s.Rate)
			mine[m] = append(mine[m], t)
		}
	}
	gone, done := make([]bool, len(sent)), make([]bool, n)
	order := make([]int, 0, n)
	for range n {
		next := -1
		for i := range n {
			if !done[i] && (next < 0 || left[i] < left[next]) {
				next = i
			}
		}
		done[next] = true
		order = append(order, next)
		for _, t := range mine[next] {
			if gone[t] {
				continue
			}
			gone[t] = true
			for _, m := range sent[t].Members {
				left[m] -= o.time(sent[t].Bytes, sent[t].Rate)
			}
		}
	}
	return order
}

// mostBest is how many requests the search over subsets takes on.
const mostBest = 14

// best is the order of requests with the least sum of finishes. Somebody is done last, and what is sent until then is
// what all others lack and what that one does: so the least sum over a set of requests is that over the set without its
// last, plus the time of the whole set, for the best choice of the last.
func (o Options) best(sent []Sent, n int) ([]int, error) {
	if n > mostBest {
		return nil, fmt.Errorf("delivery: order best: %d requests: at most %d are searched; use shortest", n, mostBest)
	}
	took, masks := make([]time.Duration, len(sent)), make([]int, len(sent))
	for t, s := range sent {
		took[t] = o.time(s.Bytes, s.Rate)
		for _, m := range s.Members {
			masks[t] |= 1 << m
		}
	}
	least, last := make([]time.Duration, 1<<n), make([]int, 1<<n)
	for set := 1; set < 1<<n; set++ {
		var whole time.Duration
		for t := range sent {
			if masks[t]&set != 0 {
				whole += took[t]
			}
		}
		last[set] = -1
		for i := range n {
			if set>>i&1 == 0 {
				continue
			}
			if sum := least[set&^(1<<i)] + whole; last[set] < 0 || sum < least[set] {
				least[set], last[set] = sum, i
			}
		}
	}
	order := make([]int, n)
	for set, k := 1<<n-1, n-1; k >= 0; k-- {
		order[k] = last[set]
		set &^= 1 << last[set]
	}
	return order, nil
}

// together gives all transmissions the same share of the air until they are through: with k of them left, each moves at a
// k-th of its rate.
func (o Options) together(sent []Sent) {
	slices.SortStableFunc(sent, func(a, b Sent) int { return cmp.Compare(o.time(a.Bytes, a.Rate), o.time(b.Bytes, b.Rate)) })
	var now, before time.Duration
	for i := range sent {
		alone := o.time(sent[i].Bytes, sent[i].Rate)
		now += (alone - before) * time.Duration(len(sent)-i)
		before = alone
		sent[i].Start, sent[i].End = 0, now
	}
}

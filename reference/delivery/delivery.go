// Package delivery plans how the blocks of models reach those who asked for them: what is sent once for several users
// and what for each, in which order, at which power, and from where.
//
// The one idea: a plan is a list of transmissions over one shared medium, each some blocks to some members at the rate
// of the worst of them. Everything that is asked of a plan (when each user has its model, airtime, bytes, bits per second
// and hertz, joules) follows from that list.
//
//	rs := []delivery.Request{delivery.Want(lib, 7, 12e6, 3, nil), delivery.Want(lib, 9, 2e6, 4, held)}
//	plan, err := delivery.Make(lib, rs, delivery.Options{Scheme: "hybrid", Order: "shortest"})
//	for _, t := range plan.Sent { // t.Blocks to t.Members, from t.Start to t.End
//	}
//
// plan.go makes plans, group.go says who hears what together, order.go what comes first. power.go and parts.go are the two
// choices of Model Broadcasting and Assembling (Wu, Zeng and Huang, arXiv 2307.15316): which of several good models each user
// gets, so that much is common, and with which power. budget.go has the times that 3GPP allows.
//
// What it does not do: radio (rates are given), time that passes (package pipeline sends for real or in virtual time), and
// choosing what is kept (packages placement and cache).
package delivery

import (
	"fmt"
	"math"
	"slices"
	"time"

	"meibench/internal/units"
	"meibench/reference/library"
)

// Request is a user who waits for blocks.
type Request struct {
	User   int     // the caller's number
	Rate   float64 // bytes per second that it receives with the whole medium, > 0
	Blocks []int   // of the library, what it lacks, in the order of use, each once
}

// Want is the request of a user for a model of which it holds some blocks already; have may be nil.
func Want(l *library.Library, user int, rate float64, model int, have func(block int) bool) Request {
	r := Request{User: user, Rate: rate}
	for _, j := range l.Models[model].Blocks {
		if have == nil || !have(j) {
			r.Blocks = append(r.Blocks, j)
		}
	}
	return r
}

// Sent is one transmission of a plan.
type Sent struct {
	Blocks     []int // in the order in which they go
	Members    []int // indices of requests, ascending: all lack all of the blocks
	Bytes      units.Bytes
	Rate       float64       // bytes per second on the air
	Start, End time.Duration // since the slot began
}

// Plan is a slot's deliveries.
type Plan struct {
	Sent    []Sent          // by start
	Finish  []time.Duration // when each request has all that it lacked
	Airtime time.Duration   // that the medium is busy, = the end of the last transmission
	Bytes   units.Bytes     // on the air
	Useful  units.Bytes     // received by somebody who lacked them: those of a transmission times its members
}

// Options say how a plan is made.
type Options struct {
	Scheme string // of Schemes
	Order  string // of Orders; "" = shortest
	// Multicast is the share of the worst member's rate that a transmission to several has, above 0 and at most 1; 0 = 1. It
	// is below 1 where nobody acknowledges and repair symbols go along, or where a beam has to cover several places.
	Multicast float64
	Setup     time.Duration // before each transmission: paging, a schedule
}

// Name is an entry of a table of names.
type Name struct{ Name, Doc string }

// Schemes lists who hears what together.
func Schemes() []Name {
	return []Name{
		{"fast", "groupings by rate with the least mean finish that a local search finds"},
		{"grouped", "the grouping with the least airtime of all, for each block"},
		{"hybrid", "for each block the cheaper of one transmission to all who lack it and one to each"},
		{"multicast", "each block once, to all who lack it, at the rate of the worst of them"},
		{"search", "groupings with the least mean finish of all: every one is tried; small cases only"},
		{"unicast", "each user for itself"},
	}
}

// Orders lists what is sent first.
func Orders() []Name {
	return []Name{
		{"best", "the least mean finish of all orders, for at most 14 requests (2^n states)"},
		{"first", "request after request as they stand in the list"},
		{"shared", "what most members wait for per second on the air: early for all, but nobody is done before private parts follow"},
		{"shortest", "request after request, next who is done soonest with what has been sent: least mean finish where nothing is shared (Smith 1956)"},
		{"together", "all at once with equal shares of the air: nobody is ahead, and the mean is later"},
	}
}

func (o Options) check() error {
	for _, c := range []struct {
		what, name string
		table      []Name
	}{{"scheme", o.Scheme, Schemes()}, {"order", o.Order, Orders()}} {
		if !slices.ContainsFunc(c.table, func(n Name) bool { return n.Name == c.name }) {
			return fmt.Errorf("delivery: unknown %s %q: want one of %s", c.what, c.name, names(c.table))
		}
	}
	if !(o.Multicast > 0 && o.Multicast <= 1) {
		return fmt.Errorf("delivery: a transmission to several has %g of the worst member's rate: want more than 0 and at most 1", o.Multicast)
	}
	if o.Setup < 0 {
		return fmt.Errorf("delivery: setup of %v: want 0 or more", o.Setup)
	}
	return nil
}

func names(table []Name) (s []string) {
	for _, n := range table {
		s = append(s, n.Name)
	}
	return s
}

func check(l *library.Library, rs []Request) error {
	for i, r := range rs {
		if !(r.Rate > 0) || math.IsInf(r.Rate, 1) {
			return fmt.Errorf("delivery: request %d (user %d): rate %g bytes/s: want a positive number", i, r.User, r.Rate)
		}
		seen := make(map[int]bool, len(r.Blocks))
		for _, j := range r.Blocks {
			if j < 0 || j >= len(l.Blocks) {
				return fmt.Errorf("delivery: request %d (user %d): block %d does not exist: the library has %d", i, r.User, j, len(l.Blocks))
			}
			if seen[j] {
				return fmt.Errorf("delivery: request %d (user %d): block %q twice", i, r.User, l.Blocks[j].Name)
			}
			seen[j] = true
		}
	}
	return nil
}

// Mean is the mean finish; 0 without requests.
func (p *Plan) Mean() time.Duration {
	if len(p.Finish) == 0 {
		return 0
	}
	var sum time.Duration
	for _, f := range p.Finish {
		sum += f
	}
	return sum / time.Duration(len(p.Finish))
}

// Energy is what the base spends while it sends and what members spend while something for them is on the air.
func (p *Plan) Energy(send, listen units.Watts) (base, members units.Joules) {
	until := make([]time.Duration, len(p.Finish))
	for _, s := range p.Sent {
		for _, m := range s.Members {
			members += units.Energy(listen, max(0, s.End-max(s.Start, until[m])))
			until[m] = max(until[m], s.End)
		}
	}
	return units.Energy(send, p.Airtime), members
}

// Spectral is the useful bits per second and hertz of a band: what members received over what the band was busy. 0
// where nothing is sent.
func (p *Plan) Spectral(hertz float64) float64 {
	if p.Airtime == 0 {
		return 0
	}
	return 8 * float64(p.Useful) / p.Airtime.Seconds() / hertz
}

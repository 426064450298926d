package costmodel

import (
	"slices"
	"time"

	"meibench/hardware"
	"meibench/internal/units"
)

// Debts are those who owe messages to a radio or a link: answers whose tokens are
// known to have been made, but are handed over all together later. Before anything
// else passes, in either direction, they pay what is due, so that every message
// meets the link in the order of time.
type Debts struct {
	who    []hardware.Late
	paying bool
}

// Owe adds who owes; see hardware.Trains.
func (d *Debts) Owe(l hardware.Late) { d.who = append(d.who, l) }

// Settle has them pay, in the order of time, what is due by now.
func (d *Debts) Settle(now time.Duration) {
	if len(d.who) == 0 || d.paying {
		return
	}
	d.paying = true
	for {
		first, due := -1, now+1
		for i, w := range d.who {
			if at, ok := w.Due(); ok && at < due {
				first, due = i, at
			}
		}
		if first < 0 {
			break
		}
		d.who[first].Pay(now, len(d.who) == 1)
	}
	d.paying = false
}

// Forget takes one out; nil is nobody.
func (d *Debts) Forget(l hardware.Late) {
	if i := slices.Index(d.who, l); l != nil && i >= 0 {
		d.who = slices.Delete(d.who, i, i+1)
	}
}

// Late says who owes the stream messages.
func (s *stream) Late(l hardware.Late) {
	s.late = l
	s.link.state.debts.Owe(l)
}

// Train hands many messages over; see hardware.Trains.
func (s *stream) Train(p hardware.Payload, at []time.Duration) {
	if s.down || len(at) == 0 {
		return
	}
	st := s.link.state
	n := p.Bytes + FrameBytes
	got := len(s.times)
	var err error
	s.times, err = st.train(at, n, s.times, &s.cost)
	s.cost.bytes += n * units.Bytes(len(s.times)-got)
	if len(s.times) > got {
		s.end = s.times[len(s.times)-1]
	}
	if err != nil {
		s.cost.bytes += n // of the one that did not arrive
		s.closed, s.down, s.err, s.end = true, true, err, st.free
	}
	s.wake()
}

// cost is what trains took, in whole numbers: sums do not depend on how they
// were cut.
type cost struct {
	bytes       units.Bytes
	fresh, tail time.Duration
}

// pace is the part of a link's state that does not change within a second.
type pace struct {
	bytes float64       // of the messages
	to    time.Duration // until then the rate is rate and nothing is cut
	rate  float64
	dur   time.Duration // of a message
}

// train is Next for many messages of n bytes: the same times, computed from what
// holds for a whole second.
func (s *LinkState) train(at []time.Duration, n units.Bytes, to []time.Duration, c *cost) ([]time.Duration, error) {
	p, r, bytes := &s.pace, s.opt.Radio, float64(n)
	if p.bytes != bytes {
		*p = pace{bytes: bytes}
	}
	to = slices.Grow(to, len(at))
	for len(at) > 0 {
		k := 0
		if to, k = s.quick(at, to, c); k > 0 {
			at = at[k:]
			continue
		}
		now := at[0]
		at = at[1:]
		ready := max(now, s.free)
		if ready+p.dur < p.to && ready < r.Calm() {
			s.free = ready + p.dur
			s.arrived = max(s.arrived+1, s.free+s.delay(now, bytes))
		} else {
			_, from, err := s.pass(now, n)
			if err != nil {
				c.book(r, from, s.free)
				return to, err
			}
			ready = from
			s.steady(bytes)
		}
		c.book(r, ready, s.free)
		to = append(to, s.arrived)
	}
	return to, nil
}

// quick takes the messages of a train that meet nothing new: the rate, the delay
// and the luck of the one before, and a radio in its tail.
func (s *LinkState) quick(at []time.Duration, to []time.Duration, c *cost) ([]time.Duration, int) {
	p, r := &s.pace, s.opt.Radio
	if !s.opt.Constant {
		if k := int64(at[0]/delaySlot) + 1; k != s.delayNum {
			s.turn(k)
		}
	}
	turn := time.Duration(s.delayNum) * delaySlot
	if s.opt.Constant || !s.sure(p.bytes) || r != nil && (!r.used || r.tailEnd != r.last+r.tail) {
		return to, 0
	}
	last, calm := time.Duration(-1<<62), time.Duration(1<<62)
	if r != nil {
		last, calm = r.last, time.Duration(1<<62)
		if len(r.rungs) > 0 {
			calm = r.rungs[0].pause
		}
		calm = min(calm, r.tail)
	}
	free, arrived, half, dur := s.free, s.arrived, s.half, p.dur
	var fresh, tail time.Duration
	k := 0
	for _, now := range at {
		ready := max(now, free)
		sent := ready + dur
		if now >= turn || sent >= p.to || r != nil && (ready < last || sent-last >= calm) {
			break
		}
		arrived = max(arrived+1, sent+half)
		to = append(to, arrived)
		fresh += dur
		tail += ready - last
		free, last = sent, sent
		k++
	}
	if k > 0 {
		s.free, s.arrived = free, arrived
		if r != nil {
			r.last, r.tailEnd = last, last+r.tail
			c.fresh += fresh
			c.tail += tail
		}
	}
	return to, k
}

// book adds a message to what trains took.
func (c *cost) book(r *Radio, from, sent time.Duration) {
	if r != nil {
		fresh, tail := r.Book(from, sent)
		c.fresh += fresh
		c.tail += tail
	}
}

// steady notes how long the present rate holds.
func (s *LinkState) steady(bytes float64) {
	slot := int64(s.free / rateSlot)
	if s.opt.Constant || s.opt.Trace != nil || !s.known || s.slot != slot || s.cutSlot != slot+1 || s.cutTo != 0 || s.slotRate <= 0 {
		return
	}
	p := &s.pace
	p.to = time.Duration(slot+1) * rateSlot
	if p.rate != s.slotRate {
		p.rate, p.dur = s.slotRate, units.Seconds(bytes/s.slotRate)
	}
}

// Lend gives the stream memory for arrivals.
func (s *stream) Lend(memory []time.Duration) { s.times = memory[:0] }

// Settle has everybody who owes the link messages hand over what is due by now.
func (s *stream) Settle(now time.Duration) { s.link.state.debts.Settle(now) }

// DrainTrain waits for the end; see hardware.Trains.
func (s *stream) DrainTrain() ([]time.Duration, hardware.Usage, error) {
	for !s.closed {
		s.await(theEnd)
	}
	s.link.sleepUntil(s.end)
	st, c := s.link.state, &s.cost
	took := hardware.Usage{End: s.end, Moved: c.bytes, Time: hardware.Modelled,
		Energy: st.opt.Radio.drain(units.Joules(float64(st.ch.perByte*float64(c.bytes))) + st.opt.Radio.Price(c.fresh, c.tail))}
	if st.ch.costed {
		took.Joules = hardware.Modelled
	}
	return s.times, took, s.err
}

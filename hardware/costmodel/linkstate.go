package costmodel

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/internal/portable"
	"meibench/internal/rng"
	"meibench/internal/units"
)

// Trace is a measured series of rates; see profiles.Trace.
type Trace = profiles.Trace

// LinkOptions say which link a state belongs to and how it behaves.
type LinkOptions struct {
	Seed  uint64 // of the run
	Name  string // whose link it is: part of the key of its luck
	Radio *Radio // shared with the other direction; nil = always awake
	// Constant switches chance off: median rate and delay, no loss, no handover.
	Constant bool
	// Trace replaces the rate of the profile and its handovers, which a trace has
	// in it; delay, loss and radio stay. nil = the profile's own, if it has one.
	Trace *Trace
	// Timeout is how long a message may make no progress at all before the link
	// counts as down; 0 = 30 s.
	Timeout time.Duration
}

// LinkState decides when messages pass one direction of a link. It is the one
// algorithm behind the modelled link (Link) and the measured one, which shapes a
// real socket with it.
//
// A message waits for the ones before it (first come, first served), for the
// radio to wake, then occupies the link for size over rate; the rate is
// constant within a second, follows an autocorrelated lognormal process from
// second to second, and is zero in outages and handovers. It arrives half a round
// trip after its last byte left, plus a round trip for every repair of losses,
// and never before a message sent earlier.
//
// All luck is keyed by seed, link name and time, never drawn in order: the link
// is in the same state at 17 s whoever sent what before. Delay and loss of a
// message are those of the moment it was handed over, so a faster link never
// makes a single message later.
//
// It needs no world and keeps no clock: times are what the caller says, and must
// not go back. One caller at a time; the two directions that share a Radio count
// as one caller.
type LinkState struct {
	ch      *Channel
	opt     LinkOptions
	free    time.Duration // when the last byte handed over will have left
	arrived time.Duration // when the latest message arrives

	fading, jitter, losing, handing rng.Key

	luck rng.Luck // of the draw at hand; here so that it needs no allocation

	slot     int64 // the second that rate is of
	slotRate float64
	known    bool
	weather  weather

	cutSlot        int64 // the second plus one that the interruption is of
	cutFrom, cutTo time.Duration
	delayNum       int64 // the delay slot plus one that rtt is of
	rtt            float64
	half           time.Duration // one way at that round trip, nothing lost
	cleanOf        float64       // bytes of a message ...
	cleanTenth     float64       // ... that needs no repair in a tenth of a second with a worst draw below this
	cleanSecond    float64       // ... and in a second
	lossNum        int64         // the second plus one that worst is of
	worst          float64       // draw of the second, to the hundredth power

	trips *rng.Mapped // of the channel
	pace  pace

	debts *Debts // of both directions, where they share a radio
	own   Debts
}

// NewLinkState returns an idle link in the channel's direction.
func NewLinkState(ch *Channel, o LinkOptions) *LinkState {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Trace == nil {
		o.Trace = ch.trace
	}
	if o.Trace != nil && (o.Trace.Slot <= 0 || len(o.Trace.Rates) == 0) {
		panic("costmodel: a trace needs a positive slot and at least one rate")
	}
	if o.Constant {
		o.Radio = nil
	}
	dir := ch.direction.String()
	s := &LinkState{
		ch: ch, opt: o, cleanOf: -1,
		fading:  rng.NewKey(o.Seed, "link rate", o.Name, ch.name, dir),
		jitter:  rng.NewKey(o.Seed, "link delay", o.Name, ch.name),
		losing:  rng.NewKey(o.Seed, "link loss", o.Name, ch.name, dir),
		handing: rng.NewKey(o.Seed, "link handover", o.Name, ch.name),
	}
	s.debts, s.trips = &s.own, ch.trips()
	if o.Radio != nil {
		s.debts = &o.Radio.debts
	}
	return s
}

// Spec describes the link by its medians.
func (s *LinkState) Spec() hardware.LinkSpec {
	return hardware.LinkSpec{
		Name: s.ch.name + " " + s.ch.direction.String(), BytesPerSec: s.ch.rate.median,
		Delay: units.Seconds(s.ch.rtt.median/2) + s.ch.extra, Time: hardware.Modelled, Digest: s.ch.digest,
	}
}

// Next hands n bytes to the link at time now and returns when they pass. The
// error is hardware.ErrLinkDown if they make no progress for the timeout; the
// transit then ends when the link gave up.
func (s *LinkState) Next(now time.Duration, n units.Bytes) (hardware.Transit, error) {
	t, ready, err := s.pass(now, n)
	t.Energy = s.opt.Radio.drain(units.Joules(float64(s.ch.perByte*float64(n))) + s.opt.Radio.charge(ready, t.Sent))
	if s.ch.costed {
		t.Joules = hardware.Modelled
	}
	return t, err
}

// pass is Next without the energy: also when the message was ready to go.
func (s *LinkState) pass(now time.Duration, n units.Bytes) (t hardware.Transit, ready time.Duration, err error) {
	if n < 0 {
		panic("costmodel: negative message size")
	}
	ready = max(now, s.free)
	start := ready + s.opt.Radio.wake(ready)
	sent, err := s.transmit(start, float64(n))
	s.free = sent
	t = hardware.Transit{Start: start, Sent: sent, Arrive: sent}
	if err == nil {
		t.Arrive = max(s.arrived+1, sent+s.delay(now, float64(n))) // never two at once: order would be luck
		s.arrived = t.Arrive
	}
	return t, ready, err
}

// delay is propagation, queueing elsewhere and repair, one way.
func (s *LinkState) delay(now time.Duration, bytes float64) time.Duration {
	if s.opt.Constant {
		return units.Seconds(s.ch.rtt.median/2) + s.ch.extra
	}
	if k := int64(now/delaySlot) + 1; k != s.delayNum {
		s.turn(k)
	}
	if s.sure(bytes) {
		return s.half
	}
	return s.oneWay(0.5 + float64(s.ch.resends(s.lossOf(now), bytes)))
}

// sure reports that a message of so many bytes needs no repair in the present
// tenth of a second.
func (s *LinkState) sure(bytes float64) bool {
	if s.ch.loss == 0 {
		return true
	}
	if bytes != s.cleanOf {
		s.cleanOf, s.cleanTenth, s.cleanSecond = bytes, s.ch.clean(bytes, lossSlots), s.ch.clean(bytes, lossSlots*tenths)
	}
	return s.worst < s.cleanSecond || s.worstTenth() < s.cleanTenth
}

// turn draws what holds for the k-1st tenth of a second: the round trip, and how
// unlucky the unluckiest hundredth of its second is.
func (s *LinkState) turn(k int64) {
	s.delayNum = k
	s.luck = s.jitter.At(uint64(k - 1))
	s.rtt = s.trips.Draw(&s.luck)
	s.half = s.oneWay(0.5)
	if sec := (k-1)/tenths + 1; s.ch.loss > 0 && sec != s.lossNum {
		s.lossNum = sec
		s.luck = s.losing.At(uint64(sec - 1))
		s.worst = s.luck.Float64()
	}
}

// The luck of a hundredth of a second is a uniform draw, independent of all others.
// They are made from the largest: that of a second is distributed as u^100, one of
// its tenths has it, the largest of each other tenth is u^10 times as large at most,
// and so on. So one draw tells that nothing is lost in a whole second.

// worstTenth is the largest draw of the present tenth, to the tenth power.
func (s *LinkState) worstTenth() float64 {
	s.luck = s.losing.At(uint64(s.lossNum - 1))
	most := portable.Pow(s.luck.Float64(), 1.0/float64(tenths)) // of the second, to the tenth power
	at, now := int64(s.luck.Float64()*float64(tenths)), (s.delayNum-1)%tenths
	for k := range now + 1 {
		if u := s.luck.Float64(); k == now && k != at {
			return most * u
		}
	}
	return most
}

// lossOf is the draw of a hundredth of a second in the present tenth.
func (s *LinkState) lossOf(now time.Duration) float64 {
	most := portable.Pow(s.worstTenth(), 1.0/lossSlots)
	s.luck = s.losing.At(uint64(s.delayNum-1) | 1<<62)
	at, here := int64(s.luck.Float64()*lossSlots), int64(now/lossSlot)%lossSlots
	for k := range here + 1 {
		if u := s.luck.Float64(); k == here && k != at {
			return most * u
		}
	}
	return most
}

// oneWay is the delay of so many round trips.
func (s *LinkState) oneWay(trips float64) time.Duration {
	return units.Seconds(s.rtt*trips) + time.Duration(float64(s.ch.extra)*2*trips)
}

// transmit returns when the last of n bytes has left that may start at t.
func (s *LinkState) transmit(t time.Duration, left float64) (time.Duration, error) {
	if s.opt.Constant && s.opt.Trace == nil {
		return t + units.Seconds(left/s.ch.rate.median), nil
	}
	if left == 0 {
		return t, nil
	}
	stalled := time.Duration(0)
	for {
		rate, until := s.segment(t)
		can := float64(rate * (until - t).Seconds())
		switch {
		case rate > 0 && left <= can:
			return min(until, t+units.Seconds(left/rate)), nil
		case rate > 0:
			left -= can
			stalled = 0
		default:
			if stalled += until - t; stalled >= s.opt.Timeout {
				return until, fmt.Errorf("link %q: nothing moved for %v: %w", s.ch.name, stalled, hardware.ErrLinkDown)
			}
		}
		t = until
	}
}

// segment is the rate at t and how long it stays.
func (s *LinkState) segment(t time.Duration) (rate float64, until time.Duration) {
	slot := int64(t / rateSlot)
	until = time.Duration(slot+1) * rateSlot
	if tr := s.opt.Trace; tr != nil {
		k := int64(t / tr.Slot)
		rate = tr.Rates[k%int64(len(tr.Rates))]
		until = min(until, time.Duration(k+1)*tr.Slot)
	} else {
		rate = s.rate(slot)
	}
	if s.opt.Constant || s.opt.Trace != nil {
		return rate, until
	}
	if s.cutSlot != slot+1 {
		s.cutSlot = slot + 1
		s.cutFrom, s.cutTo = s.ch.interruption(s.handing, slot)
	}
	from, to := s.cutFrom, s.cutTo
	switch {
	case t >= to:
		return rate, until
	case t >= from:
		return 0, min(until, to)
	}
	return rate, min(until, from)
}

// rate is the rate of a second, remembered: messages come many to a second.
func (s *LinkState) rate(slot int64) float64 {
	if !s.known || s.slot != slot {
		s.slot, s.slotRate, s.known = slot, s.ch.rateAt(&s.weather, s.fading, slot), true
	}
	return s.slotRate
}

// RateAt is the rate of the second that contains t, in bytes per second, for
// schedulers that know the channel, and for plots. It does not change the state.
func (s *LinkState) RateAt(t time.Duration) float64 {
	switch {
	case s.opt.Trace != nil:
		return s.opt.Trace.Rates[int64(t/s.opt.Trace.Slot)%int64(len(s.opt.Trace.Rates))]
	case s.opt.Constant:
		return s.ch.rate.median
	}
	return s.ch.rateAt(&weather{}, s.fading, int64(t/rateSlot))
}

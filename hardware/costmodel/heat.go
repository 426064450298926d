package costmodel

import (
	"math"
	"time"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/hardware/thermal"
	"meibench/internal/portable"
	"meibench/internal/rng"
	"meibench/internal/units"
)

// heat is how warm a device is, by the law of its profile: the two nodes of package
// thermal, or without traces to fit them to, one.
type heat struct {
	node
	net       *thermal.State // nil: the one node decides
	plant     *thermal.Plant // of net
	throttled time.Duration  // when the clock was first less than full; 0 = never
	busy      float64        // s at full clock so far
	joules    float64        // spent in them
}

// heats is the thermal part of a profile made ready; nil: the device has none.
func heats(p *profiles.DeviceSheet) (*thermal.Plant, error) {
	if p.Thermal == nil || p.Thermal.Network == nil {
		return nil, nil
	}
	return thermal.New(p.Thermal.Network.Law(p.Power.Idle.Value))
}

// newHeat is a device that starts at a level between cool and as hot as continuous
// work makes it.
func newHeat(t *profiles.Thermal, plant *thermal.Plant, level float64) *heat {
	if t == nil {
		return nil
	}
	h := &heat{node: node{retained: t.Retained.Value, up: t.Heat.Value, down: t.Cool.Value, level: level}}
	if plant != nil {
		s := plant.Cool()
		if level > 0 {
			s = plant.Level(level)
		}
		h.net, h.plant = &s, plant
	}
	return h
}

// stretch is how many seconds work takes that takes sec at full clock and draws watts.
func (h *heat) stretch(now time.Duration, sec, watts float64) float64 {
	took := 0.0
	h.busy, h.joules = h.busy+sec, h.joules+float64(sec*watts)
	if h.net != nil {
		took = max(sec, h.net.Work(now, sec, watts))
	} else {
		took = h.node.stretch(now, sec)
	}
	if h.throttled == 0 && took > float64(sec*throttledBy) {
		h.throttled = max(1, now)
	}
	return took
}

// Sustained is the share of its full speed that a device keeps up if it goes on for
// ever with what it has done so far; ok is false where it has no thermal law or
// has done nothing.
func (d *Device) Sustained() (share float64, ok bool) {
	h := d.heat
	switch {
	case h == nil || h.busy == 0:
		return 0, false
	case h.net != nil:
		return h.plant.Sustained(h.joules / h.busy), true
	}
	return h.retained, true
}

// throttledBy is by how much longer an operation takes that counts as throttled.
const throttledBy = 1.02

// now is the level, 1 where throttling begins (two nodes) or is complete (one).
func (h *heat) now(at time.Duration) float64 {
	if h.net != nil {
		return h.net.At(at).Heat
	}
	n := h.node
	n.advance(at)
	return n.level
}

// node is the law of one node: 0 cool, 1 as hot as it gets. Under load
// it rises towards 1 with time constant up, at rest it falls towards 0 with down.
// Speed is 1 - (1-retained) × level: the exponential decay of decode rates that ten
// minutes of continuous use show, from the burst rate to the retained share of it.
type node struct {
	retained, up, down float64 // share, s, s
	level              float64
	at                 time.Duration // when level was right
	busyUntil          time.Duration // load known so far
}

// advance brings the level to now: warming while busy, cooling after.
func (h *node) advance(now time.Duration) {
	if busy := min(now, h.busyUntil) - h.at; busy > 0 {
		h.level = 1 - float64((1-h.level)*portable.Exp(-busy.Seconds()/h.up))
		h.at += busy
	}
	if rest := now - h.at; rest > 0 {
		h.level *= portable.Exp(-rest.Seconds() / h.down)
		h.at = now
	}
}

// stretch returns how many seconds work of sec seconds (on a cool device) takes
// when it starts now, and books the load. The speed falls while the work runs:
//
//	retained·T + (1-retained)(1-level)·up·(1 - e^(-T/up)) = sec
//
// solved by Newton's method, which approaches from below since the left side is
// concave. Work much shorter than the time constant converges at once.
func (h *node) stretch(now time.Duration, sec float64) float64 {
	h.advance(now)
	lost := float64((1 - h.retained) * (1 - h.level)) // speed above the retained share
	t := sec / (h.retained + lost)
	for range 50 {
		e := portable.Exp(-t / h.up)
		done := float64(h.retained*t) + float64(float64(lost*h.up)*(1-e))
		step := (sec - done) / (h.retained + float64(lost*e))
		t += step
		if step <= 1e-12*t {
			break
		}
	}
	t = max(t, sec)
	end := now + time.Duration(math.Ceil(t*1e9))
	h.busyUntil = max(h.busyUntil, end)
	return t
}

// Heat is the thermal state now: 0 cool; by the two-node law 1 where throttling begins,
// by the simple one where it is complete. Looking changes nothing.
func (d *Device) Heat() float64 {
	if d.heat == nil {
		return 0
	}
	return d.heat.now(d.env.Now())
}

// Battery is the share of the charge that is left: see hardware.Vital. Operations and the
// radio draw what they are charged, and rest draws idle power; an empty battery stops nothing.
func (d *Device) Battery() (share float64, ok bool) {
	if d.capacity == 0 {
		return 0, false
	}
	return max(0, 1-(d.drawn+float64(d.Rest()))/d.capacity), true
}

// Drained is the share of a full charge that the device has used since the start; ok is
// false where there is no battery.
func (d *Device) Drained() (share float64, ok bool) {
	if d.capacity == 0 {
		return 0, false
	}
	before := 0.0
	if d.opt.Charge > 0 {
		before = float64((1 - d.opt.Charge) * d.capacity)
	}
	return (d.drawn - before + float64(d.Rest())) / d.capacity, true
}

// Rest is what the device has drawn so far by being on beside what its operations were
// charged: idle power, less the share that each slot at work has paid.
func (d *Device) Rest() units.Joules {
	return units.Joules(max(0, float64(d.law.rest*d.env.Now().Seconds())-float64(d.law.idle*d.busy.Seconds())))
}

// Throttled is when the device first slowed down by heat; ok is false if it never did or
// has no thermal part.
func (d *Device) Throttled() (at time.Duration, ok bool) {
	if d.heat == nil || d.heat.throttled == 0 {
		return 0, false
	}
	return d.heat.throttled, true
}

// mood is what a fitted law says beyond the operation at hand: how cold the device
// is, and by how much the machine differs from its law just now.
type mood struct {
	cold         float64       // 1 after idleness, less with every operation
	last         time.Duration // end of the latest operation
	weather, own rng.Key       // of what operations at one time share, and of what each has
}

// took is how long an operation that costs a time takes when it starts now.
func (m *mood) took(law *Law, f *profiles.Fit, op *hardware.Op, start, cost time.Duration) time.Duration {
	if (start - m.last).Seconds() >= f.Wake.After {
		m.cold = 1
	}
	cost += law.Wake(op, m.cold)
	m.cold = float64(m.cold * f.Wake.Fade)
	s := f.Spread
	if s == nil {
		return cost
	}
	if len(s.Slots) > 0 {
		luck := m.weather.At(uint64(start / units.Seconds(s.Slot)))
		cost = time.Duration(math.Round(float64(cost) * quantile(s.Slots, luck.Float64())))
	}
	if len(s.Ops) > 0 && len(op.Seqs) > 0 {
		luck := m.own.At(place(op.Seqs[0].ID, grown(&op.Seqs[0])))
		cost = time.Duration(math.Round(float64(cost) * quantile(s.Ops, luck.Float64())))
	}
	return cost
}

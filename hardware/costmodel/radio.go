package costmodel

import (
	"time"

	"meibench/hardware/profiles"
	"meibench/internal/units"
)

// Radio is the energy-saving state of a user's modem. Both directions of a
// user's link share one: a request that woke the radio leaves it awake for the
// answer. A nil *Radio is always awake and costs nothing.
//
// Energy is per burst: active power while data flows in either direction, then
// tail power for the tail time, charged in advance to the message that starts
// the tail and given back to the extent that a later message cuts it short.
type Radio struct {
	rungs         []rung
	tail          time.Duration
	active, after float64 // W
	used          bool
	last          time.Duration // end of the latest activity = start of the tail
	tailEnd       time.Duration // tail energy is paid until here
	debts         Debts
	battery       *Device // that it draws from; nil = nobody asks
}

// Draw says whose battery the radio draws from.
func (r *Radio) Draw(d *Device) {
	if r != nil && d != nil && d.capacity > 0 {
		r.battery = d
	}
}

// drain takes what a message was charged from the battery, and returns it.
func (r *Radio) drain(e units.Joules) units.Joules {
	if r != nil && r.battery != nil {
		r.battery.drawn += float64(e)
	}
	return e
}

// Calm is how long after its last activity a radio is certainly awake.
func (r *Radio) Calm() time.Duration {
	switch {
	case r == nil || len(r.rungs) == 0:
		return 1<<62 - 1
	case !r.used:
		return -1 << 62
	}
	return r.last + r.rungs[0].pause
}

type rung struct{ pause, extra time.Duration }

// NewRadio returns a radio that has slept for ever, or nil if the profile has none.
func NewRadio(p *profiles.Radio) *Radio {
	if p == nil {
		return nil
	}
	r := &Radio{tail: units.Seconds(p.Tail.Value), active: p.Active.Value, after: p.Idle.Value}
	for _, l := range p.Ladder {
		r.rungs = append(r.rungs, rung{units.Seconds(l.After.Value), units.Seconds(l.Extra.Value)})
	}
	return r
}

// Connect says that the radio was last used at a time. A run whose warm-up
// requests came before it begins with connected radios.
func (r *Radio) Connect(at time.Duration) {
	if r != nil {
		r.used, r.last, r.tailEnd = true, at, at
	}
}

// wake is how long a message that wants to leave now waits for the radio.
func (r *Radio) wake(now time.Duration) time.Duration {
	if r == nil {
		return 0
	}
	extra := time.Duration(0)
	for _, l := range r.rungs {
		if !r.used || now-r.last >= l.pause {
			extra = l.extra
		}
	}
	return extra
}

// Wake is how long a message that wants to leave now waits for the radio, and
// Charge books activity from start to end, wake-up included, and returns what the
// radio spends because of it: for links that are not made of a LinkState.
func (r *Radio) Wake(now time.Duration) time.Duration { return r.wake(now) }

// Charge is explained at Wake.
func (r *Radio) Charge(start, end time.Duration) units.Joules { return r.drain(r.charge(start, end)) }

// charge books activity from start to end, wake-up included, and returns what
// the radio spends because of it.
func (r *Radio) charge(start, end time.Duration) units.Joules {
	if r == nil {
		return 0
	}
	return r.Price(r.Book(start, end))
}

// Book is Charge in time: how much longer the radio is active, and in its tail.
func (r *Radio) Book(start, end time.Duration) (fresh, tail time.Duration) {
	fresh, refund := end-start, time.Duration(0)
	if r.used {
		fresh = max(0, end-max(start, r.last)) // not yet active in the other direction
		refund = max(0, min(end, r.tailEnd)-max(start, r.last))
	}
	active := end
	if r.used {
		active = max(end, r.last)
	}
	tailEnd := active + r.tail
	paid := tailEnd - active
	if r.used && r.tailEnd > active {
		paid = tailEnd - r.tailEnd
	}
	r.used, r.last, r.tailEnd = true, active, tailEnd
	return fresh, paid - refund
}

// Price is what so much time costs.
func (r *Radio) Price(fresh, tail time.Duration) units.Joules {
	if r == nil {
		return 0
	}
	return units.Joules(float64(r.active*fresh.Seconds()) + float64(r.after*tail.Seconds()))
}

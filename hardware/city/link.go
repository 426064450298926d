package city

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/radio"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// link is one direction of an Access: first come, first served in itself.
type link struct {
	a       *Access
	d       int
	gate    *world.Slots // made when first used
	arrived time.Duration
	q       quality       // as last looked at
	fresh   time.Duration // it holds until then
	each    each
}

// look is what the link gets at a time, and until when a handover cuts it off. It
// is worked out at most every refresh.
func (l *link) look(at time.Duration) (until time.Duration) {
	if at < l.fresh {
		return 0
	}
	a := l.a
	k, until := a.serving(at)
	a.wasOn, a.active = true, max(a.active, at)
	if until > at {
		return until
	}
	if l.d == up {
		l.q = a.upward(k, at)
	} else {
		l.q = a.downward(k, at)
	}
	l.fresh = at + refresh
	if l.q.rate == 0 {
		l.fresh = at
	}
	return 0
}

// Spec describes the link at an SINR of 10 dB with the whole cell.
func (l *link) Spec() hardware.LinkSpec {
	n := l.a.net
	return hardware.LinkSpec{
		Name: fmt.Sprintf("%s user %d %s", n.c.Name, l.a.id, costmodel.Direction(l.d)), BytesPerSec: n.nominal[l.d],
		Delay: n.c.Delay, Time: hardware.Modelled, Digest: n.c.Digest,
	}
}

// passing is a message on its way through the air.
type passing struct {
	from    time.Duration // handed over
	began   time.Duration // first byte, after waking the radio
	sent    time.Duration // last byte
	q       quality       // at the end
	airtime float64       // s of the whole cell
	sending float64       // s of the user's transmitter, at watts
	watts   units.Watts
	stalled time.Duration
}

func (l *link) whole(p hardware.Payload) error {
	if p.Bytes < units.Bytes(len(p.Data)) {
		return fmt.Errorf("%s: a message of %d bytes cannot carry %d bytes of data", l.Spec().Name, p.Bytes, len(p.Data))
	}
	return nil
}

// Send blocks until the message has arrived, or the link has given up.
func (l *link) Send(p hardware.Payload) (hardware.Delivery, error) {
	d, err := l.transfer(p)
	if at := d.Usage.End - l.a.net.env.Now(); at > 0 {
		l.a.net.env.Sleep(at)
	}
	return d, err
}

// transfer passes a message as bulk and returns when its last byte has been sent;
// the delivery says when it arrives.
func (l *link) transfer(p hardware.Payload) (hardware.Delivery, error) {
	env := l.a.net.env
	w := passing{from: env.Now()}
	if err := l.whole(p); err != nil {
		return hardware.Delivery{Usage: hardware.Usage{Start: w.from, End: w.from}}, err
	}
	l.a.debts.Settle(w.from)
	if l.gate == nil {
		l.gate = world.NewSlots(env, 1)
	}
	l.gate.Acquire()
	w.began = env.Now()
	if wake := l.a.power.Wake(w.began); wake > 0 {
		env.Sleep(wake)
	}
	left := float64(p.Bytes + costmodel.FrameBytes)
	var err error
	for left > 0 && err == nil {
		left, err = l.piece(&w, left)
	}
	w.sent = env.Now()
	l.a.debts.Settle(w.sent)
	d := l.deliver(p, &w, err)
	l.gate.Release()
	return d, err
}

// piece moves what passes until the next look at the channel, and returns what
// is left.
func (l *link) piece(w *passing, left float64) (float64, error) {
	a, n := l.a, l.a.net
	now := n.env.Now()
	a.debts.Settle(now)
	if until := l.look(now); until > now {
		a.interrupted(now, until)
		n.env.Sleep(until - now)
		return left, nil
	}
	w.q = l.q
	q := &w.q
	if q.rate == 0 {
		return left, l.stall(w)
	}
	w.stalled = 0
	share := n.cells[q.cell].share[l.d]
	weight := n.c.Scheduler.Weight(q.rate / q.part)
	bytes := min(left, float64(q.rate*n.c.Step.Seconds()*weight)/float64(q.part*(share.Load()+weight))+1)
	alone := bytes / q.rate
	share.Use(float64(alone*q.part), weight)
	if short := now + units.Seconds(alone) - n.env.Now(); q.part < 1 && short > 0 {
		n.env.Sleep(short)
	}
	w.airtime += float64(alone * q.part)
	w.sending += alone
	w.watts = q.watts
	return left - bytes, nil
}

// stall waits a step for service, and gives up after the timeout.
func (l *link) stall(w *passing) error {
	n := l.a.net
	if w.stalled == 0 {
		n.total.outages++
	}
	n.env.Sleep(n.c.Step)
	w.stalled += n.c.Step
	n.total.dark += n.c.Step
	return l.down(w.stalled)
}

func (l *link) down(stalled time.Duration) error {
	if stalled < l.a.net.c.Timeout {
		return nil
	}
	return fmt.Errorf("%s: nothing moved for %v: %w", l.Spec().Name, stalled, hardware.ErrLinkDown)
}

// interrupted counts the time that a handover cuts off, once.
func (a *Access) interrupted(from, until time.Duration) {
	if from = max(from, a.cut); until > from {
		a.net.total.cut += until - from
	}
	a.cut = max(a.cut, until)
}

// deliver stamps a message whose last byte has been sent and books its cost.
func (l *link) deliver(p hardware.Payload, w *passing, err error) hardware.Delivery {
	a, n := l.a, l.a.net
	size := p.Bytes + costmodel.FrameBytes
	u := hardware.Usage{Start: w.from, End: w.sent, Moved: size, Time: hardware.Modelled}
	if err == nil {
		again := time.Duration(a.tries(&w.q, l.d, w.from, a.sure(&w.q))-1) * harqTrip
		u.End = max(l.arrived+1, w.sent+again+n.c.Delay)
		l.arrived = u.End
	}
	a.active, a.wasOn = max(a.active, w.sent), true
	if n.c.Radio != nil {
		u.Energy, u.Joules = a.power.Charge(w.began, w.sent), hardware.Modelled
		if l.d == up {
			on := n.c.UpShare // the transmitter is on in the direction's slots only
			if n.c.WiFi != nil {
				on = 1
			}
			u.Energy += units.Joules(float64(w.watts) * w.sending * on / n.c.Amplifier)
		}
	}
	n.book(a, l.d, w, size, err)
	return hardware.Delivery{Payload: p, Usage: u}
}

const harqTrip = time.Duration(radio.HARQSeconds * 1e9)

// small is the largest message of a stream that takes the cell at once.
const small = 16 * units.KiB

// pass hands a small message over now: it takes the cell before bulk transfers.
func (l *link) pass(p hardware.Payload) (hardware.Delivery, error) {
	n := l.a.net
	now := n.env.Now()
	if err := l.whole(p); err != nil {
		return hardware.Delivery{Usage: hardware.Usage{Start: now, End: now}}, err
	}
	l.a.debts.Settle(now)
	w := passing{from: now, began: now}
	err := l.air(&w, float64(p.Bytes+costmodel.FrameBytes))
	if err == nil {
		_, to := n.cells[w.q.cell].share[l.d].Take(w.airtime)
		w.sent = max(to, w.sent)
	}
	return l.deliver(p, &w, err), err
}

// air finds when a small message leaves that is handed over at w.from. Where there
// is no service it waits for some, up to the timeout.
func (l *link) air(w *passing, bytes float64) error {
	a, n := l.a, l.a.net
	at := w.from + a.power.Wake(w.from)
	for {
		if until := l.look(at); until > at {
			a.interrupted(at, until)
			at = until
			continue
		}
		if w.q = l.q; w.q.rate > 0 {
			break
		}
		if w.stalled == 0 {
			n.total.outages++
		}
		at += n.c.Step
		w.stalled += n.c.Step
		n.total.dark += n.c.Step
		if err := l.down(w.stalled); err != nil {
			w.sent = at
			return err
		}
	}
	w.sending, w.watts = bytes/w.q.rate, w.q.watts
	w.airtime = float64(w.sending * w.q.part)
	w.sent = at + units.Seconds(w.sending)
	return nil
}

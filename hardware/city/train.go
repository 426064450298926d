package city

import (
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/internal/units"
)

// Late says who owes the stream messages; see hardware.Trains.
func (s *stream) Late(l hardware.Late) {
	s.late = l
	s.l.a.debts.Owe(l)
}

// Settle has everybody who owes the link messages hand over what is due by now.
func (s *stream) Settle(now time.Duration) { s.l.a.debts.Settle(now) }

// Lend gives memory for DrainTrain.
func (s *stream) Lend(memory []time.Duration) { s.times = memory[:0] }

// Train hands over a message like p at each of the times; see hardware.Trains. Its
// messages do not wait for the small messages of others: what they take of the
// cell is taken when the train is handed over.
func (s *stream) Train(p hardware.Payload, at []time.Duration) {
	if s.down || len(at) == 0 {
		return
	}
	l := s.l
	size := p.Bytes + costmodel.FrameBytes
	s.times = slices.Grow(s.times, len(at))
	airtime, cell := 0.0, -1
	for len(at) > 0 {
		if k := s.quick(at, size); k > 0 {
			if cell >= 0 && cell != l.q.cell {
				l.take(cell, airtime)
				airtime = 0
			}
			cell, airtime = l.q.cell, airtime+float64(float64(k)*l.each.airtime)
			at = at[k:]
			continue
		}
		t := at[0]
		at = at[1:]
		w := passing{from: t, began: t}
		err := l.air(&w, float64(size))
		if cell >= 0 && cell != w.q.cell {
			l.take(cell, airtime)
			airtime = 0
		}
		cell, airtime = w.q.cell, airtime+w.airtime
		u := l.deliver(p, &w, err).Usage
		s.took.Energy += u.Energy
		s.took.Moved += units.Bytes(size)
		s.took.Joules, s.end = u.Joules, u.End
		if err != nil {
			s.closed, s.down, s.err = true, true, err
			break
		}
		s.times = append(s.times, u.End)
	}
	l.take(cell, airtime)
	s.wake()
}

// each is what messages of one size take while a link gets what it last saw.
type each struct {
	size    units.Bytes
	fresh   time.Duration // of the look that it is made from
	dur     time.Duration
	sending float64 // s
	airtime float64 // s of the whole cell
	sure    float64 // a draw below it needs one transmission
}

// quick hands over messages that find the link as it was last seen and the radio
// awake, and says how many: the same as by air and deliver, for less.
func (s *stream) quick(at []time.Duration, size units.Bytes) int {
	l := s.l
	a, n, e := l.a, l.a.net, &l.each
	calm := a.power.Calm()
	if at[0] >= l.fresh || l.q.rate <= 0 || l.d == up || at[0] >= calm {
		return 0
	}
	if e.size != size || e.fresh != l.fresh {
		sending := float64(size) / l.q.rate
		*e = each{size: size, fresh: l.fresh, dur: units.Seconds(sending), sending: sending, airtime: float64(sending * l.q.part), sure: a.sure(&l.q)}
	}
	k := 0
	for ; k < len(at) && at[k] < l.fresh && at[k] < calm; k++ {
		t := at[k]
		sent := t + e.dur
		end := sent + n.c.Delay
		if e.sure < 1 {
			end += time.Duration(a.tries(&l.q, l.d, t, e.sure)-1) * harqTrip
		}
		end = max(l.arrived+1, end)
		l.arrived = end
		if n.c.Radio != nil {
			fresh, tail := a.power.Book(t, sent)
			s.fresh += fresh
			s.tail += tail
			calm = a.power.Calm()
		}
		s.times = append(s.times, end)
	}
	sent := at[k-1] + e.dur
	a.active, a.wasOn = max(a.active, sent), true
	s.took.Moved += units.Bytes(k) * size
	s.end = l.arrived
	total := &n.total
	total.airtime[l.d] += float64(float64(k) * e.airtime)
	total.sinr[l.d] += float64(float64(k) * l.q.sinr)
	total.count[l.d] += k
	total.bytes[l.d] += units.Bytes(k) * size
	a.transfer[l.d].bytes += units.Bytes(k) * size
	a.transfer[l.d].took += time.Duration(k) * e.dur
	return k
}

func (l *link) take(cell int, airtime float64) {
	if airtime > 0 {
		l.a.net.cells[cell].share[l.d].Take(airtime)
	}
}

// DrainTrain waits for the end; see hardware.Trains.
func (s *stream) DrainTrain() ([]time.Duration, hardware.Usage, error) {
	for !s.closed {
		s.await(true)
	}
	s.sleepUntil(s.end)
	took, a := s.took, s.l.a
	if a.net.c.Radio != nil && s.fresh+s.tail != 0 {
		took.Energy, took.Joules = took.Energy+a.power.Price(s.fresh, s.tail), hardware.Modelled
	}
	took.End, took.Time = s.end, hardware.Modelled
	return s.times, took, s.err
}

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
	s.l.debts = append(s.l.debts, l)
}

// Settle has everybody who owes the link messages hand over what is due by now.
func (s *stream) Settle(now time.Duration) { s.l.settle(now) }

// Lend gives memory for DrainTrain.
func (s *stream) Lend(memory []time.Duration) { s.times = memory[:0] }

// settle has those who owe pay in the order of time what is due by now.
func (l *link) settle(now time.Duration) {
	if len(l.debts) == 0 || l.paying {
		return
	}
	l.paying = true
	for {
		first, due := -1, now+1
		for i, w := range l.debts {
			if at, ok := w.Due(); ok && at < due {
				first, due = i, at
			}
		}
		if first < 0 {
			break
		}
		l.debts[first].Pay(now, len(l.debts) == 1)
	}
	l.paying = false
}

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
	for _, t := range at {
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
	took := s.took
	took.End, took.Time = s.end, hardware.Modelled
	return s.times, took, s.err
}

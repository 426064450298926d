package thermal

import (
	"math"
	"time"
)

// State is how warm a device is, and its clock. It is a value: a copy is another
// device. Only Work changes it; looking never does, so results do not depend on who
// looks, nor when.
type State struct {
	plant     *Plant
	die, skin float64 // K above ambient at the beginning of the period
	step      int
	tick      int64   // the period at hand, by number
	spent     float64 // J above idle in it so far
}

// Reading is a state as one sees it.
type Reading struct {
	Die, Skin float64 // degrees Celsius
	Clock     float64 // share of the full one
	Heat      float64 // 0 at ambient, 1 where the governor takes the first step of clock, of die or skin, whichever is nearer
}

// At is the state as it will be at a time from which on nothing runs, read without
// changing it. A time that work already covers reads as the end of the work.
func (s *State) At(now time.Duration) Reading {
	c := *s
	c.advance(now)
	l := &c.plant.law
	r := Reading{Die: c.die + l.Ambient, Skin: c.skin + l.Ambient, Clock: c.plant.clocks[c.step]}
	r.Heat = max(0, c.die/(l.Die-l.Ambient), c.skin/(l.Skin-l.Ambient))
	return r
}

// Work books work that takes sec seconds and draws watts at full clock, from now on,
// and returns how many seconds it takes. Shorter than a period it costs some
// nanoseconds; longer, as much for each period.
func (s *State) Work(now time.Duration, sec, watts float64) float64 {
	s.advance(now)
	p := s.plant
	at := 0.0 // s since the beginning of the period
	if k := int64(now / p.law.Period); k == s.tick {
		at = (now - time.Duration(k)*p.law.Period).Seconds()
	} // else other work has gone ahead: this joins it in its period
	extra, took := max(0, watts-p.law.Idle), 0.0
	for {
		clock := p.clocks[s.step]
		need, room := sec/clock, p.period-at
		if need <= room {
			s.spent += float64(float64(extra*clock) * need)
			return took + need
		}
		s.spent += float64(float64(extra*clock) * room)
		took += room
		sec -= float64(room * clock)
		s.turn()
		at = 0
	}
}

// Clock is the share of the full clock that work gets which starts now.
func (s *State) Clock(now time.Duration) float64 { return s.At(now).Clock }

// turn ends the period at hand.
func (s *State) turn() {
	p := s.plant
	watts := p.law.Idle + s.spent/p.period
	die, skin := float64(watts*p.perWatt[0]), float64(watts*p.perWatt[1])
	d, k := p.pass[0].on(s.die-die, s.skin-skin)
	s.die, s.skin = die+d, skin+k
	s.tick++
	s.spent = 0
	s.govern()
}

// govern moves the clock by one step at most.
func (s *State) govern() {
	switch want := s.wanted(s.step); {
	case want > s.step:
		s.step++
	case want < s.step:
		s.step--
	}
}

// wanted is the step that the temperatures ask for, given the one that is: a step is
// given back only where it is not needed by the hysteresis either.
func (s *State) wanted(have int) int {
	l := &s.plant.law
	die, skin := s.die+l.Ambient, s.skin+l.Ambient
	down := max(over(die, l.Die, l.DieSpan, l.Steps), over(skin, l.Skin, l.SkinSpan, l.Steps))
	if down >= have {
		return down
	}
	return min(have, max(over(die+l.Hysteresis, l.Die, l.DieSpan, l.Steps), over(skin+l.Hysteresis, l.Skin, l.SkinSpan, l.Steps)))
}

// over is how many of the evenly spaced thresholds from first to first + span a
// temperature has passed.
func over(t, first, span float64, steps int) int {
	if t <= first {
		return 0
	}
	if steps == 1 {
		return 1
	}
	return min(steps, 1+int(math.Floor(float64((t-first)/span*float64(steps-1)))))
}

// advance lets the device idle until now.
func (s *State) advance(now time.Duration) {
	n := int64(now/s.plant.law.Period) - s.tick
	for k := int64(0); k < n && k < idleSteps; k++ {
		s.turn()
	}
	if n <= idleSteps {
		return
	}
	n -= idleSteps
	s.tick += n
	p := s.plant
	die, skin := float64(p.law.Idle*p.perWatt[0]), float64(p.law.Idle*p.perWatt[1])
	d, k := s.die-die, s.skin-skin
	for bit := 0; n>>bit != 0; bit++ {
		if n>>bit&1 != 0 {
			d, k = p.pass[min(bit, doublings-1)].on(d, k)
		}
	}
	s.die, s.skin = die+d, skin+k
	if want := s.wanted(s.step); want < s.step {
		s.step = max(want, s.step-int(min(n, mostSteps)))
	}
}

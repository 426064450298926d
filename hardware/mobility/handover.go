package mobility

import (
	"fmt"
	"math"
	"time"

	"meibench/internal/portable"
)

// A3 describes when a connected user is handed over: when a neighbour's filtered
// reference power exceeds the serving cell's by Offset + Hysteresis for TimeToTrigger
// without a break (TS 38.331 §5.5.4.4; the condition to leave is Offset - Hysteresis).
type A3 struct {
	Offset        float64       // dB
	Hysteresis    float64       // dB
	TimeToTrigger time.Duration // 0 = at once
	Filter        int           // k of the layer 3 filter, a = 2^(-k/4) (TS 38.331 §5.5.3.2); 0 = none
	Sample        time.Duration // the period of measurements that k assumes
	Prepare       time.Duration // from the report to the command: the time in which what is predicted can be used
	Interruption  time.Duration // no data: from the command to the first byte at the target
	FailBelow     float64       // dB: an SINR below it counts towards failure
	FailAfter     time.Duration // so long below it: radio link failure (T310)
	Reestablish   time.Duration // no data after a radio link failure
	PingPong      time.Duration // back to the last cell within it: a ping-pong
	Idle          time.Duration // after so long without a measurement the user camps on the best cell anew
}

// DefaultA3 has no source but for orders of magnitude: interruption 50 to 150 ms in NR and
// 1 to 3 s after a radio link failure (5g6gacademy, read in a third-party text); offset,
// hysteresis, trigger, filter and thresholds are assumed, at values that operators
// commonly set.
func DefaultA3() A3 {
	return A3{Offset: 2, Hysteresis: 1, TimeToTrigger: 160 * time.Millisecond, Filter: 4, Sample: 200 * time.Millisecond,
		Prepare: 50 * time.Millisecond, Interruption: 100 * time.Millisecond, FailBelow: -8, FailAfter: time.Second,
		Reestablish: 2 * time.Second, PingPong: 5 * time.Second, Idle: 10 * time.Second}
}

// Check says what is wrong with the values.
func (a A3) Check() error {
	for _, d := range []struct {
		name  string
		v, lo time.Duration
	}{
		{"time to trigger", a.TimeToTrigger, 0}, {"preparation", a.Prepare, 0}, {"interruption", a.Interruption, 0},
		{"fail after", a.FailAfter, 0}, {"re-establishment", a.Reestablish, 0}, {"ping-pong", a.PingPong, 0},
		{"idle", a.Idle, time.Millisecond}, {"sample", a.Sample, time.Millisecond},
	} {
		if d.v < d.lo || d.v > time.Hour {
			return fmt.Errorf("hand-over: %s of %v: want %v to 1h", d.name, d.v, d.lo)
		}
	}
	switch {
	case !(math.Abs(a.Offset) <= 15):
		return fmt.Errorf("hand-over: offset of %g dB: want -15 to 15", a.Offset)
	case !(a.Hysteresis >= 0 && a.Hysteresis <= 15):
		return fmt.Errorf("hand-over: hysteresis of %g dB: want 0 to 15", a.Hysteresis)
	case a.Filter < 0 || a.Filter > 19:
		return fmt.Errorf("hand-over: filter coefficient %d: want 0 to 19", a.Filter)
	case !(math.Abs(a.FailBelow) <= 50):
		return fmt.Errorf("hand-over: failure below %g dB: want -50 to 50", a.FailBelow)
	}
	return nil
}

// Reading is the reference power of one cell at the user.
type Reading struct {
	Cell int
	DBm  float64
}

// Event is what a measurement led to.
type Event uint8

// Events.
const (
	Nothing  Event = iota
	Camped         // the first measurement, or the first after a pause: the best cell serves, without interruption
	Reported       // the measurement report: Connection.Target will serve after Prepare
	Executed       // handed over; no data until Connection.Until
	Failed         // radio link failure; re-established on the best cell, no data until Connection.Until
)

// MostCells is how many neighbours a connection keeps filtered values of: the
// strongest ones that were read.
const MostCells = 8

// Connection is a user's state: which cell serves, and what is being counted. The zero
// value is not connected. It is a value of about 200 bytes, and its methods are pure
// but for it.
type Connection struct {
	Serving int           // cell
	Target  int           // of the hand-over that was reported; meaningless unless Pending
	Pending bool          // reported and not executed yet
	Due     time.Duration // when it will be executed
	Until   time.Duration // no data before: the latest interruption's end

	Handovers, PingPongs, Failures uint16
	Interrupted                    time.Duration // summed

	known    bool
	n        uint8
	last     time.Duration // measurement
	entered  time.Duration // when the A3 condition became true for the candidate
	rival    int           // the candidate
	has      bool
	weak     time.Duration // since when the SINR has been too low
	isWeak   bool
	before   int // the cell before Serving
	moved    time.Duration
	hasMoved bool
	cells    [MostCells]Reading // filtered
}

// Measure takes the readings of the cells a user hears now, the serving cell's SINR in
// dB, and returns what follows. Times must not decrease; at least one reading must be
// given. A hand-over is executed by the first measurement at or after Due.
func (c *Connection) Measure(a *A3, now time.Duration, heard []Reading, sinr float64) Event {
	if !c.known || now-c.last > a.Idle {
		c.camp(now, heard)
		return Camped
	}
	c.filter(a, now, heard)
	if c.Pending && now >= c.Due {
		c.change(a, c.Target, now, a.Interruption)
		c.Handovers++
		return Executed
	}
	if c.failing(a, now, sinr) {
		c.Failures++
		c.change(a, c.best(-1).Cell, now, a.Reestablish)
		return Failed
	}
	if c.Pending || now < c.Until {
		return Nothing
	}
	return c.compare(a, now)
}

// Attach says that a cell serves from now on, as cell reselection or somebody else
// chose: nothing is filtered or pending.
func (c *Connection) Attach(now time.Duration, cell int) {
	c.camp(now, nil)
	c.Serving = cell
}

// compare follows the A3 condition of the strongest neighbour.
func (c *Connection) compare(a *A3, now time.Duration) Event {
	serving, ok := c.level(c.Serving)
	best := c.best(c.Serving)
	if best.Cell < 0 {
		c.has = false
		return Nothing
	}
	over := best.DBm - serving
	switch {
	case !ok:
		over = math.Inf(1) // the serving cell is heard no more
	}
	if c.has && c.rival != best.Cell {
		c.has = false
	}
	switch {
	case over > a.Offset+a.Hysteresis && !c.has:
		c.has, c.rival, c.entered = true, best.Cell, now
	case over < a.Offset-a.Hysteresis:
		c.has = false
	}
	if !c.has || now-c.entered < a.TimeToTrigger {
		return Nothing
	}
	c.has, c.Pending, c.Target, c.Due = false, true, c.rival, now+a.Prepare
	if a.Prepare == 0 {
		c.change(a, c.Target, now, a.Interruption)
		c.Handovers++
		return Executed
	}
	return Reported
}

// Candidate is the neighbour whose condition holds but whose time to trigger is not
// over, and since when; ok is false if there is none. It is what a pre-fetch that
// does not wait for the report goes by.
func (c *Connection) Candidate() (cell int, since time.Duration, ok bool) {
	return c.rival, c.entered, c.has
}

// failing follows the time for which the SINR has been too low.
func (c *Connection) failing(a *A3, now time.Duration, sinr float64) bool {
	if sinr >= a.FailBelow || now < c.Until {
		c.isWeak = false
		return false
	}
	if !c.isWeak {
		c.isWeak, c.weak = true, now
	}
	return now-c.weak >= a.FailAfter && a.FailAfter > 0
}

// change makes another cell the serving one.
func (c *Connection) change(a *A3, to int, now, gap time.Duration) {
	if c.hasMoved && to == c.before && to != c.Serving && now-c.moved <= a.PingPong {
		c.PingPongs++
	}
	if to != c.Serving {
		c.before, c.moved, c.hasMoved = c.Serving, now, true
	}
	c.Serving, c.Pending, c.has, c.isWeak = to, false, false, false
	c.Until = now + gap
	c.Interrupted += gap
}

// camp takes the best cell, unfiltered.
func (c *Connection) camp(now time.Duration, heard []Reading) {
	keep := *c
	*c = Connection{Serving: -1, Handovers: keep.Handovers, PingPongs: keep.PingPongs, Failures: keep.Failures, Interrupted: keep.Interrupted, known: true, last: now}
	for _, r := range heard {
		c.put(r)
	}
	c.Serving = c.best(-1).Cell
}

// put keeps a level, in place of the weakest if there is no room.
func (c *Connection) put(r Reading) {
	if int(c.n) < len(c.cells) {
		c.cells[c.n] = r
		c.n++
		return
	}
	weakest := -1
	for i := range c.cells {
		if c.cells[i].Cell != c.Serving && (weakest < 0 || c.cells[i].DBm < c.cells[weakest].DBm) {
			weakest = i
		}
	}
	if c.cells[weakest].DBm < r.DBm {
		c.cells[weakest] = r
	}
}

// filter mixes new readings into the levels: F = (1-a) F + a M, with a for the time
// that has passed since the last ones, so that the filter has the same
// characteristics at any period (TS 38.331 §5.5.3.2). Cells not heard are forgotten.
func (c *Connection) filter(a *A3, now time.Duration, heard []Reading) {
	part := a.weight(now - c.last)
	c.last = now
	old, n := c.cells, c.n
	c.n = 0
	for _, r := range heard {
		for _, o := range old[:n] {
			if o.Cell == r.Cell {
				r.DBm = float64((1-part)*o.DBm) + float64(part*r.DBm)
				break
			}
		}
		c.put(r)
	}
}

// weight is what a reading counts against the filtered value, after a time.
func (a *A3) weight(gap time.Duration) float64 {
	if a.Filter == 0 {
		return 1
	}
	one := portable.Pow(2, -float64(a.Filter)/4)
	if gap == a.Sample {
		return one
	}
	return 1 - portable.Pow(1-one, float64(gap)/float64(a.Sample))
}

// level is a cell's filtered value.
func (c *Connection) level(cell int) (float64, bool) {
	for _, r := range c.cells[:c.n] {
		if r.Cell == cell {
			return r.DBm, true
		}
	}
	return 0, false
}

// best is the strongest cell but one; of equals the smaller number.
func (c *Connection) best(but int) Reading {
	out := Reading{Cell: -1}
	for _, r := range c.cells[:c.n] {
		if r.Cell != but && (out.Cell < 0 || r.DBm > out.DBm || r.DBm == out.DBm && r.Cell < out.Cell) {
			out = r
		}
	}
	return out
}

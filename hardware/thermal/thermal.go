// Package thermal is how a device without a fan heats up and slows down: two lumped
// masses, the die and the case, and a governor that takes clock away in steps while
// either is too warm.
//
//	C_die  dT_die/dt  = P - (T_die - T_case)/R_die
//	C_case dT_case/dt = (T_die - T_case)/R_die - (T_case - T_ambient)/R_case
//
// The governor looks once in a period. In between, clock and power are constant, so a
// period is one product with a 2 x 2 matrix that is exact, whatever its length; many
// idle periods are a power of that matrix. Nothing is computed until somebody asks.
//
//	plant, err := thermal.New(law)
//	s := plant.Cool()
//	took := s.Work(now, 0.030, 8.5) // 30 ms of work at full clock and 8.5 W: in seconds
//	now += took
//	s.At(now).Speed(), s.At(now).Skin
//
// Power is idle + (P - idle) x clock: an operation takes the same joules above idle at any
// clock, as at a fixed voltage. The package knows no profiles (costmodel reads them) and
// no fans; voltage that falls with the clock is not modelled.
package thermal

import (
	"fmt"
	"math"
	"time"
)

// Law are the parameters of a device.
type Law struct {
	DieR, DieC   float64 // K/W to the case, J/K
	CaseR, CaseC float64 // K/W to the air, J/K
	Ambient      float64 // degrees Celsius
	Idle         float64 // W, of a device that does nothing

	Die, Skin  float64 // degrees Celsius at which the first step of clock is taken; the skin is the case
	DieSpan    float64 // K from the first to the last step
	SkinSpan   float64
	Hysteresis float64       // K below its threshold at which a step is given back
	Steps      int           // of clock below the full one
	Floor      float64       // share of the full clock at the last step
	Period     time.Duration // of the governor
}

// Check says what is wrong with a law.
func (l *Law) Check() error {
	for _, q := range []struct {
		name     string
		v        float64
		positive bool
	}{{"die_r", l.DieR, true}, {"die_c", l.DieC, true}, {"case_r", l.CaseR, true}, {"case_c", l.CaseC, true}, {"die_span", l.DieSpan, true},
		{"skin_span", l.SkinSpan, true}, {"floor", l.Floor, true}, {"idle", l.Idle, false}, {"hysteresis", l.Hysteresis, false}} {
		if !(q.v >= 0) || math.IsInf(q.v, 0) || q.positive && q.v == 0 {
			return fmt.Errorf("thermal: %s is %g: want a finite number above 0", q.name, q.v)
		}
	}
	rest := l.Ambient + float64(l.Idle*l.CaseR)
	switch {
	case l.Floor > 1:
		return fmt.Errorf("thermal: floor %g: want a share of the clock, at most 1", l.Floor)
	case l.Steps < 1 || l.Steps > mostSteps:
		return fmt.Errorf("thermal: %d steps of clock: want 1 to %d", l.Steps, mostSteps)
	case l.Period < time.Millisecond || l.Period > time.Minute:
		return fmt.Errorf("thermal: the governor looks every %v: want 1ms to 1m", l.Period)
	case !(l.Skin-l.Hysteresis > rest && l.Die-l.Hysteresis > rest+float64(l.Idle*l.DieR)):
		return fmt.Errorf("thermal: an idle device has a skin of %.1f and a die of %.1f degrees and would still be throttled: raise the thresholds (skin %.1f, die %.1f, less %.1f of hysteresis) or lower ambient, idle power or resistance",
			rest, rest+float64(l.Idle*l.DieR), l.Skin, l.Die, l.Hysteresis)
	}
	return nil
}

const (
	mostSteps = 64
	idleSteps = 8  // idle periods that are taken one by one
	doublings = 40 // powers of the matrix: 2^40 periods
)

// matrix is 2 x 2; rows are the die and the case.
type matrix [4]float64

func (m *matrix) times(o *matrix) matrix {
	return matrix{
		float64(m[0]*o[0]) + float64(m[1]*o[2]), float64(m[0]*o[1]) + float64(m[1]*o[3]),
		float64(m[2]*o[0]) + float64(m[3]*o[2]), float64(m[2]*o[1]) + float64(m[3]*o[3]),
	}
}

func (m *matrix) on(die, skin float64) (d, s float64) {
	return float64(m[0]*die) + float64(m[1]*skin), float64(m[2]*die) + float64(m[3]*skin)
}

// Plant is a law made ready for arithmetic: immutable, shared by all devices of a kind.
type Plant struct {
	law     Law
	period  float64
	pass    [doublings]matrix // what is left of a deviation after 2^k periods
	perWatt [2]float64        // steady rise of die and case over ambient, K/W
	clocks  []float64         // by step
}

// New checks a law and prepares it.
func New(l Law) (*Plant, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	p := &Plant{law: l, period: l.Period.Seconds(), perWatt: [2]float64{l.DieR + l.CaseR, l.CaseR}}
	p.pass[0] = exponential(matrix{
		-1 / float64(l.DieR*l.DieC), 1 / float64(l.DieR*l.DieC),
		1 / float64(l.DieR*l.CaseC), -(1/l.DieR + 1/l.CaseR) / l.CaseC,
	}, p.period)
	for k := 1; k < doublings; k++ {
		p.pass[k] = p.pass[k-1].times(&p.pass[k-1])
	}
	for k := range l.Steps + 1 {
		p.clocks = append(p.clocks, 1-float64((1-l.Floor)*float64(k))/float64(l.Steps))
	}
	return p, nil
}

// exponential is e^(m t) by Taylor's series and squaring, in sums and products alone,
// so that its bits are the same everywhere.
func exponential(m matrix, t float64) matrix {
	halvings, size := 0, max(math.Abs(m[0]), math.Abs(m[1]), math.Abs(m[2]), math.Abs(m[3]))*t
	for ; size > 1.0/16; size /= 2 {
		halvings++
		t /= 2
	}
	for i := range m {
		m[i] *= t
	}
	sum, term := matrix{1, 0, 0, 1}, matrix{1, 0, 0, 1}
	for k := 1; k <= 14; k++ {
		term = term.times(&m)
		for i := range term {
			term[i] /= float64(k)
			sum[i] += term[i]
		}
	}
	for range halvings {
		sum = sum.times(&sum)
	}
	return sum
}

// Law is what the plant was made from.
func (p *Plant) Law() Law { return p.law }

// Cool is a device that has been idle for ever.
func (p *Plant) Cool() State {
	rise := p.law.Idle
	return State{plant: p, die: float64(rise * p.perWatt[0]), skin: float64(rise * p.perWatt[1])}
}

// Warm is a device that has drawn so many watts on average for ever, with the clock
// that its governor then gives.
func (p *Plant) Warm(watts float64) State {
	s := State{plant: p, die: float64(watts * p.perWatt[0]), skin: float64(watts * p.perWatt[1])}
	s.step = s.wanted(0)
	return s
}

// Level is a device that has been as warm for ever as a share of the way from idle to where
// the governor takes the first step of clock.
func (p *Plant) Level(share float64) State {
	limit := min((p.law.Die-p.law.Ambient)/p.perWatt[0], (p.law.Skin-p.law.Ambient)/p.perWatt[1])
	return p.Warm(p.law.Idle + float64(share*(limit-p.law.Idle)))
}

// Sustained is the clock at which work that draws so many watts at full clock goes on
// for ever: the mean of an hour after an hour, since a governor alternates between steps.
func (p *Plant) Sustained(watts float64) float64 {
	const hour = 3600
	s, sum := p.Warm(min(watts, p.power(watts, p.law.Floor))), 0.0
	n := int(hour / p.period)
	for k := range 2 * n {
		clock := p.clocks[s.step]
		if s.spent = float64(float64(max(0, watts-p.law.Idle)*clock) * p.period); k >= n {
			sum += clock
		}
		s.turn()
	}
	return sum / float64(n)
}

// power is what is drawn at a clock by work that draws so much at the full one.
func (p *Plant) power(watts, clock float64) float64 {
	return p.law.Idle + float64(max(0, watts-p.law.Idle)*clock)
}

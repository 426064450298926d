package thermal

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func phone() Law {
	return Law{DieR: 6, DieC: 5, CaseR: 2.5, CaseC: 300, Ambient: 25, Idle: 0.8, Die: 60, Skin: 43,
		DieSpan: 6, SkinSpan: 8, Hysteresis: 0.5, Steps: 16, Floor: 0.3, Period: time.Second}
}

func plant(t testing.TB, change func(*Law)) *Plant {
	l := phone()
	if change != nil {
		change(&l)
	}
	p, err := New(l)
	require.NoError(t, err)
	return p
}

// TestStepResponseIsTheClosedForm: with a case that never warms the die alone is a
// first-order system: T = idle + (P - idle) R (1 - e^(-t/RC)).
func TestStepResponseIsTheClosedForm(t *testing.T) {
	p := plant(t, func(l *Law) { l.CaseC, l.Die, l.Skin = 1e12, 500, 500 })
	s := p.Cool()
	require.InDelta(t, 60, s.Work(0, 60, 8.5), 1e-9)
	want := 25 + 0.8*8.5 + (8.5-0.8)*6*(1-math.Exp(-60.0/30))
	require.InDelta(t, want, s.At(time.Minute).Die, 1e-6)
}

// TestLongRunIsTheSumOfResistances: the steady state of both nodes.
func TestLongRunIsTheSumOfResistances(t *testing.T) {
	p := plant(t, func(l *Law) { l.Die, l.Skin = 500, 500 })
	s := p.Cool()
	s.Work(0, 40_000, 8.5)
	r := s.At(40_000 * time.Second)
	require.InDelta(t, 25+8.5*8.5, r.Die, 1e-6)
	require.InDelta(t, 25+8.5*2.5, r.Skin, 1e-6)
	require.Equal(t, 1.0, r.Clock)
}

// TestManyIdlePeriodsAtOnceAreTheSameOneByOne, in temperature and in clock.
func TestManyIdlePeriodsAtOnceAreTheSameOneByOne(t *testing.T) {
	p := plant(t, nil)
	for _, rest := range []int{1, 8, 9, 10, 60, 777, 100_000} {
		a := p.Cool()
		took := a.Work(0, 300, 9)
		b, end := a, time.Duration(math.Ceil(took))*time.Second
		a.advance(end + time.Duration(rest)*time.Second)
		for k := 0; k <= rest; k++ {
			b.advance(end + time.Duration(k)*time.Second)
		}
		require.InDelta(t, b.die, a.die, 1e-9, rest)
		require.InDelta(t, b.skin, a.skin, 1e-9, rest)
		require.Equal(t, b.step, a.step, rest)
		require.Equal(t, b.tick, a.tick)
	}
}

// TestLookingChangesNothing and work in pieces is work in one piece.
func TestLookingChangesNothing(t *testing.T) {
	p := plant(t, nil)
	a, b := p.Cool(), p.Cool()
	whole := a.Work(0, 200, 9)
	sum := 0.0
	for k := range 4000 {
		now := time.Duration(math.Round(sum * 1e9))
		if k%7 == 0 {
			b.At(now + time.Hour)
			b.At(now)
		}
		sum += b.Work(now, 0.05, 9)
	}
	require.InDelta(t, whole, sum, 0.01)
	require.Greater(t, whole, 230.0, "it throttled")
}

// TestMoreWorkIsNeverDoneSooner: in power, in work and in starting heat.
func TestMoreWorkIsNeverDoneSooner(t *testing.T) {
	p := plant(t, nil)
	last := 0.0
	for watts := 1.0; watts < 14; watts += 0.5 {
		s := p.Cool()
		took := s.Work(0, 400, watts)
		require.GreaterOrEqual(t, took, last, "%g W", watts)
		last = took
	}
	last = 0
	for warm := 0.8; warm < 7; warm += 0.1 {
		s := p.Warm(warm)
		took := s.Work(0, 60, 9)
		require.GreaterOrEqual(t, took, last-1e-9, "after %g W", warm)
		last = took
	}
}

// TestGovernorHoldsTheLimit: in the long run power is what keeps die and skin within
// their span, and the clock is the sustained one.
func TestGovernorHoldsTheLimit(t *testing.T) {
	p := plant(t, nil)
	s := p.Cool()
	s.Work(0, 3600, 9)
	took := s.Work(5*time.Hour, 1, 9) // cool again
	require.InDelta(t, 1, took, 1e-9)
	warm := p.Warm(p.power(9, p.Sustained(9)))
	took = warm.Work(0, 1000, 9)
	require.InDelta(t, p.Sustained(9), 1000/took, 0.02)
	r := warm.At(time.Duration(took * 1e9))
	require.LessOrEqual(t, r.Die, 60.0+6+1)
	require.LessOrEqual(t, r.Skin, 43.0+8+1)
	require.True(t, r.Die > 59 || r.Skin > 42)
	require.Equal(t, 1.0, p.Sustained(2), "light work is never throttled")
}

// TestHysteresis: a step is given back only below its threshold less the hysteresis.
func TestHysteresis(t *testing.T) {
	p := plant(t, nil)
	s := p.Cool()
	s.die = 60 - 25 + 0.01
	s.govern()
	require.Equal(t, 1, s.step)
	s.die = 60 - 25 - 0.4
	s.govern()
	require.Equal(t, 1, s.step)
	s.die = 60 - 25 - 0.6
	s.govern()
	require.Equal(t, 0, s.step)
	require.InDelta(t, 1, plant(t, nil).Warm(35/8.5).atHeat(), 1e-9)
}

func (s State) atHeat() float64 { return s.At(0).Heat }

func TestLawsThatMakeNoSenseAreRefused(t *testing.T) {
	for want, change := range map[string]func(*Law){
		"die_r":       func(l *Law) { l.DieR = 0 },
		"case_c":      func(l *Law) { l.CaseC = math.NaN() },
		"idle is -1":  func(l *Law) { l.Idle = -1 },
		"floor 2":     func(l *Law) { l.Floor = 2 },
		"steps":       func(l *Law) { l.Steps = 0 },
		"governor":    func(l *Law) { l.Period = 0 },
		"idle device": func(l *Law) { l.Ambient = 50 },
	} {
		l := phone()
		change(&l)
		_, err := New(l)
		require.ErrorContains(t, err, want)
	}
}

func BenchmarkWork(b *testing.B) {
	p := plant(b, nil)
	s := p.Cool()
	now := time.Duration(0)
	for b.Loop() {
		now += time.Duration(s.Work(now, 0.03, 8.5) * 1e9)
	}
}

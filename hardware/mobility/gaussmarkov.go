package mobility

import (
	"fmt"
	"math"
	"time"

	"meibench/internal/rng"
)

func (s Spec) checkGaussMarkov() error {
	switch {
	case !(s.Memory >= 0 && s.Memory <= 0.9999):
		return fmt.Errorf("memory %g: want 0 (no memory) to 0.9999", s.Memory)
	case !(s.Step >= 1e-3 && s.Step <= 3600):
		return fmt.Errorf("step %g s: want 0.001 to 3600", s.Step)
	case !(s.Deviation >= 0 && s.Deviation <= 1000) || !finite(s.MeanX, s.MeanY) || math.Hypot(s.MeanX, s.MeanY) > 1000:
		return fmt.Errorf("velocity of mean (%g, %g) and deviation %g m/s: want finite values, at most 1000", s.MeanX, s.MeanY, s.Deviation)
	}
	return nil
}

// skip is the number of steps that are taken one by one after a gap.
const skip = 64

// gaussMarkov keeps a velocity for a step and then mixes it with chance: v' = alpha v +
// (1-alpha) mean + sigma sqrt(1-alpha^2) Z, each axis on its own (Liang and Haas
// 1999). After a gap of more than 64 steps the state at the last multiple of 64 is
// drawn at once by the exact law of many steps: the way itself then depends on
// the gaps, its law does not.
type gaussMarkov struct {
	m            *Model
	id           uint64
	step         int64 // number of the step under way, from 1; 0 = not begun
	x, y, vx, vy float64
	since, until time.Duration
}

// leap is the law of so many steps of one axis: of the deviation of the velocity
// from its mean, u, and of the distance on top of the mean's, d.
type leap struct {
	keep, far    float64 // u' = keep u + a Z1, d = far u + b Z1 + c Z2
	a, b, c      float64
	meanX, meanY float64 // that the mean velocity brings
}

// leap works the law of n steps out: geometric sums of the innovations.
func (s Spec) leap(n int) leap { return s.over(float64(n)) }

func (s Spec) over(n float64) leap {
	al, dt := s.Memory, s.Step
	pow := func(x, e float64) float64 { // x^e, e a whole number: by squaring, the same bits everywhere
		out := 1.0
		for k := uint64(e); k > 0; k >>= 1 {
			if k&1 == 1 {
				out *= x
			}
			x *= x
		}
		return out
	}
	am := pow(al, n)
	l := leap{keep: am, far: dt * (1 - am) / (1 - al), meanX: float64(s.MeanX * float64(n*dt)), meanY: float64(s.MeanY * float64(n*dt))}
	if n == 0 {
		l.keep = 1
		return l
	}
	variance := float64(s.Deviation*s.Deviation) * (1 - float64(al*al)) // of an innovation
	s1 := (al - am) / (1 - al)                                          // sum of alpha^i, i = 1..n-1
	al2 := float64(al * al)
	s2 := (al2 - float64(am*am)) / (1 - al2)
	if n < 2 || al == 0 {
		s1, s2 = 0, 0
	}
	uu := variance * (1 - float64(am*am)) / (1 - al2)
	ud := variance * dt / (1 - al) * (s1 - s2)
	dd := variance * float64(dt*dt) / float64((1-al)*(1-al)) * (n - 1 - float64(2*s1) + s2)
	l.a = math.Sqrt(max(0, uu))
	if l.a > 0 {
		l.b = ud / l.a
	}
	l.c = math.Sqrt(max(0, dd-float64(l.b*l.b)))
	return l
}

func (g *gaussMarkov) At(t time.Duration) (x, y float64) {
	if g.step == 0 || t < g.since {
		g.begin()
	}
	for t >= g.until {
		g.forward(t)
	}
	sec := float64(t-g.since) * 1e-9
	return g.m.s.Area.fold(g.x+float64(sec*g.vx), g.y+float64(sec*g.vy))
}

// begin draws place and velocity from the stationary law.
func (g *gaussMarkov) begin() {
	s := &g.m.s
	l := g.m.key.At(g.id)
	g.x, g.y = s.Area.somewhere(&l)
	g.vx = s.MeanX + float64(s.Deviation*rng.Normal(&l))
	g.vy = s.MeanY + float64(s.Deviation*rng.Normal(&l))
	g.step, g.since, g.until = 1, 0, nanos(s.Step)
}

// forward takes one step, or very many.
func (g *gaussMarkov) forward(t time.Duration) {
	s := &g.m.s
	n := int64(1)
	law := &g.m.gm[1]
	var far leap
	if left := int64(float64(t-g.since) * 1e-9 / s.Step); left > skip {
		if n = (g.step-1+left)/skip*skip - (g.step - 1); n > skip {
			far = s.over(float64(n))
			law = &far
		} else if n >= 1 {
			law = &g.m.gm[n]
		} else {
			n = 1
		}
	}
	l := g.m.key.At(g.id | uint64(g.step))
	g.x, g.vx = law.take(g.x+law.meanX, g.vx-s.MeanX, s.MeanX, &l)
	g.y, g.vy = law.take(g.y+law.meanY, g.vy-s.MeanY, s.MeanY, &l)
	g.step += n
	if g.x, g.y = s.Area.near(g.x, g.y); g.step < 1 {
		g.step = 1
	}
	g.since = nanos(float64(g.step-1) * s.Step)
	g.until = nanos(float64(g.step) * s.Step)
}

// near brings a place back into two widths of the area, so that its digits stay
// fine; a mirror image is one period of a folded way.
func (a Area) near(x, y float64) (float64, float64) {
	return a.X + wrap(x-a.X, 2*a.Width), a.Y + wrap(y-a.Y, 2*a.Height)
}

// take moves a place and a deviation of the velocity, and returns the place and the velocity.
func (l *leap) take(x, u, mean float64, luck *rng.Luck) (place, velocity float64) {
	z1, z2 := rng.Normal(luck), rng.Normal(luck)
	place = x + float64(l.far*u) + float64(l.b*z1) + float64(l.c*z2)
	return place, mean + float64(l.keep*u) + float64(l.a*z1)
}

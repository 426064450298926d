package mobility

import (
	"fmt"
	"math"
	"time"

	"meibench/internal/portable"
	"meibench/internal/rng"
)

func (s Spec) checkWaypoint() error {
	if err := s.checkSpeed(); err != nil {
		return err
	}
	if p := s.Pause; !finite(p.Min, p.Max) || p.Min < 0 || p.Max < p.Min || p.Max > 1e6 {
		return fmt.Errorf("pause from %g to %g s: want 0 <= min <= max <= 1e6", p.Min, p.Max)
	}
	return nil
}

// waypoint goes straight to a place drawn uniformly, at a speed drawn uniformly, and
// rests there. On a torus it takes the short way round.
type waypoint struct {
	m              *Model
	id             uint64
	leg            uint64 // number of the leg under way; 0 = not begun
	x, y, dx, dy   float64
	from, to, next time.Duration // under way until to, then at rest until next
}

func (w *waypoint) At(t time.Duration) (x, y float64) {
	if w.leg == 0 || t < w.from {
		w.begin()
	}
	for t >= w.next {
		w.go1()
	}
	if t >= w.to {
		return w.m.s.Area.stay(w.x+w.dx, w.y+w.dy)
	}
	f := between(t, w.from, w.to)
	return w.m.s.Area.stay(w.x+float64(f*w.dx), w.y+float64(f*w.dy))
}

// stay folds where the area is a torus; elsewhere legs never leave it.
func (a Area) stay(x, y float64) (float64, float64) {
	if a.Torus {
		return a.fold(x, y)
	}
	return x, y
}

// begin draws the state at time 0 from the stationary law: at rest with the share
// of time that pauses have, else on a leg drawn with a weight of its length, at a
// speed drawn with a weight of 1/v, anywhere along it (Navidi and Camp 2004).
func (w *waypoint) begin() {
	a, s := w.m.s.Area, &w.m.s
	l := w.m.key.At(w.id)
	w.leg, w.from = 1, 0
	if l.Float64() < w.m.rest {
		w.x, w.y = a.somewhere(&l)
		w.dx, w.dy, w.to = 0, 0, 0
		low, high := float64(s.Pause.Min*s.Pause.Min), float64(s.Pause.Max*s.Pause.Max)
		whole := math.Sqrt(low + float64(l.Float64()*(high-low))) // drawn with a weight of its length
		w.next = nanos(whole * l.Float64())
		return
	}
	longest := math.Sqrt(float64(a.Width*a.Width) + float64(a.Height*a.Height))
	if a.Torus {
		longest /= 2
	}
	length := 0.0
	for {
		w.x, w.y = a.somewhere(&l)
		w.dx, w.dy, length = a.way(w.x, w.y, &l)
		if l.Float64()*longest < length {
			break
		}
	}
	speed := float64(s.Speed.Min * portable.Pow(s.Speed.Max/s.Speed.Min, l.Float64()))
	passed := l.Float64()
	w.x, w.y = w.x+float64(passed*w.dx), w.y+float64(passed*w.dy)
	w.dx, w.dy = (1-passed)*w.dx, (1-passed)*w.dy
	w.to = nanos(float64((1-passed)*length) / speed)
	w.next = w.to + nanos(s.Pause.draw(&l))
}

// go1 starts the next leg where the last one ended.
func (w *waypoint) go1() {
	l := w.m.key.At(w.id | w.leg)
	w.leg++
	w.x, w.y = w.m.s.Area.stay(w.x+w.dx, w.y+w.dy)
	length := 0.0
	w.dx, w.dy, length = w.m.s.Area.way(w.x, w.y, &l)
	w.from = w.next
	w.to = w.from + max(1, nanos(length/w.m.s.Speed.draw(&l)))
	w.next = w.to + nanos(w.m.s.Pause.draw(&l))
}

// way leads from a place to one drawn uniformly.
func (a Area) way(x, y float64, l *rng.Luck) (dx, dy, length float64) {
	px, py := a.somewhere(l)
	dx, dy = px-x, py-y
	if a.Torus {
		dx, dy = shorter(dx, a.Width), shorter(dy, a.Height)
	}
	return dx, dy, math.Sqrt(float64(dx*dx) + float64(dy*dy))
}

func shorter(d, side float64) float64 {
	switch {
	case d > side/2:
		return d - side
	case d < -side/2:
		return d + side
	}
	return d
}

// MeanLeg is the mean distance, in metres, of two places drawn uniformly: in a
// square of side R 0.5214 R, on a torus 0.3826 R. Source: Ghosh 1951 for the
// rectangle, integration over the half sides for the torus.
func (a Area) MeanLeg() float64 {
	w, h := a.Width, a.Height
	if a.Torus {
		w, h = w/2, h/2
		d := math.Hypot(w, h)
		return d/3 + w*w/(6*h)*portable.Log((h+d)/w) + h*h/(6*w)*portable.Log((w+d)/h)
	}
	d := math.Hypot(w, h)
	return (w*w*w/(h*h) + h*h*h/(w*w) + d*(3-w*w/(h*h)-h*h/(w*w)) + 2.5*(h*h/w*portable.Log((w+d)/h)+w*w/h*portable.Log((h+d)/w))) / 15
}

// meanInverse is the mean of 1/v for a speed drawn uniformly, in s/m.
func (r Range) meanInverse() float64 {
	if r.Max == r.Min {
		return 1 / r.Min
	}
	return portable.Log(r.Max/r.Min) / (r.Max - r.Min)
}

// MeanSpeed is the stationary mean speed of users under way, in m/s: 1/E[1/v], less than
// the middle of the range (Yoon, Liu and Noble 2003).
func (r Range) MeanSpeed() float64 { return 1 / r.meanInverse() }

package mobility

import (
	"fmt"
	"math"
	"time"

	"meibench/internal/portable"
	"meibench/internal/rng"
)

func (s Spec) checkManhattan() error {
	if err := s.checkSpeed(); err != nil {
		return err
	}
	if !(s.Block > 0) || !finite(s.Block) || s.Area.Width/s.Block > 1e6 || s.Area.Height/s.Block > 1e6 {
		return fmt.Errorf("blocks of %g m: want above 0 and at most a million along a side", s.Block)
	}
	for _, side := range []float64{s.Area.Width, s.Area.Height} {
		if n := side / s.Block; math.Abs(n-math.Round(n)) > 1e-9 {
			return fmt.Errorf("a side of %g m is no multiple of the block of %g m: streets would end in walls", side, s.Block)
		}
	}
	if !(s.Straight >= 0 && s.Straight < 1) {
		return fmt.Errorf("straight %g: want a probability in [0, 1); 0.5 is UMTS 30.03's", s.Straight)
	}
	return nil
}

// manhattan walks along streets a block apart. A leg leads over as many crossings
// as the user passes straight on, a geometric number, at one speed; then it turns
// left or right. Edges turn it back, as the way on the unbounded grid is folded.
type manhattan struct {
	m        *Model
	id       uint64
	leg      uint64
	x, y     float64 // where the leg begins
	dx, dy   float64
	dir      uint8 // 0 east, 1 north, 2 west, 3 south
	from, to time.Duration
}

func (w *manhattan) At(t time.Duration) (x, y float64) {
	if w.leg == 0 || t < w.from {
		w.begin()
	}
	for t >= w.to {
		w.turn()
	}
	f := between(t, w.from, w.to)
	return w.m.s.Area.fold(w.x+float64(f*w.dx), w.y+float64(f*w.dy))
}

// begin puts the user anywhere on a street, with the speed's law weighted by 1/v. The
// crossings still ahead are geometric as those of a new leg, which has no memory.
func (w *manhattan) begin() {
	s := &w.m.s
	l := w.m.key.At(w.id)
	b := s.Block
	along, across := s.Area.Width, s.Area.Height
	w.dir = uint8(4 * l.Float64())
	rows, columns := math.Round(across/b), math.Round(along/b)
	// Every street of one direction counts alike; edge streets of a reflecting area are
	// seen from one side only, and have half the traffic by folding.
	if w.dir%2 == 0 {
		w.x = s.Area.X + float64(l.Float64()*2*along)
		w.y = s.Area.Y + float64(b*math.Floor(float64(l.Float64()*2*rows)))
	} else {
		w.y = s.Area.Y + float64(l.Float64()*2*across)
		w.x = s.Area.X + float64(b*math.Floor(float64(l.Float64()*2*columns)))
	}
	speed := float64(s.Speed.Min * portable.Pow(s.Speed.Max/s.Speed.Min, l.Float64()))
	rest := w.toCrossing() + float64(b*w.crossings(&l))
	w.leg, w.from = 1, 0
	w.set(rest, speed)
}

// toCrossing is how far the next crossing is.
func (w *manhattan) toCrossing() float64 {
	s := &w.m.s
	v := w.x - s.Area.X
	if w.dir%2 == 1 {
		v = w.y - s.Area.Y
	}
	n := v / s.Block
	if w.dir < 2 {
		return float64(s.Block * (math.Floor(n) + 1 - n))
	}
	return float64(s.Block * (n - math.Ceil(n) + 1))
}

// crossings is how many are passed straight on.
func (w *manhattan) crossings(l *rng.Luck) float64 {
	p := w.m.s.Straight
	if p == 0 {
		return 0
	}
	return math.Floor(portable.Log(1-l.Float64()) / portable.Log(p))
}

func (w *manhattan) set(length, speed float64) {
	sign := 1.0
	if w.dir >= 2 {
		sign = -1
	}
	w.dx, w.dy = 0, 0
	if w.dir%2 == 0 {
		w.dx = sign * length
	} else {
		w.dy = sign * length
	}
	w.to = w.from + max(1, nanos(length/speed))
}

func (w *manhattan) turn() {
	s := &w.m.s
	l := w.m.key.At(w.id | w.leg)
	w.leg++
	w.x, w.y = s.Area.near(w.x+w.dx, w.y+w.dy)
	// On the crossing to the digit.
	w.x = s.Area.X + float64(s.Block*math.Round((w.x-s.Area.X)/s.Block))
	w.y = s.Area.Y + float64(s.Block*math.Round((w.y-s.Area.Y)/s.Block))
	if l.Float64() < 0.5 {
		w.dir = (w.dir + 1) % 4
	} else {
		w.dir = (w.dir + 3) % 4
	}
	w.from = w.to
	length := float64(s.Block * (1 + w.crossings(&l)))
	w.set(length, s.Speed.draw(&l))
}

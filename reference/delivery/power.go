package delivery

import (
	"fmt"
	"math"

	"meibench/internal/portable"
	"meibench/internal/units"
)

// Cast is a transmission whose power is to be chosen.
type Cast struct {
	Bytes units.Bytes
	Gain  float64 // signal over noise of the worst member per watt sent, over the whole band, > 0
}

// Power is the power in watts at which a transmission takes least time if a joule costs so many seconds.
//
// Derived here, from Shannon's rate alone (the abstract of arXiv 2307.15316 says that its optimal power is a closed form and
// does not print it; this need not be the same): b bits take t = b / (B log2(1+pg)) and p t joules. The derivative of t (1 +
// price p) is zero where x (ln x - 1) = g/price - 1 with x = 1 + pg; with x = exp(1+w) that is w exp(w) = (g/price - 1)/e, so
//
//	p = (exp(1 + W((g/price - 1)/e)) - 1) / g
//
// with W the principal branch of Lambert's function. Neither the size nor the band matters. A price of 0 gives infinity.
func Power(gain, price float64) float64 {
	if price == 0 {
		return math.Inf(1)
	}
	w := lambert((gain/price - 1) / math.E)
	return (portable.Exp(1+w) - 1) / gain
}

// lambert is w with w exp(w) = z, for z >= -1/e, by Halley's steps from the branch point's series or from logarithms.
func lambert(z float64) float64 {
	w := 0.0
	switch q := 2 * (1 + float64(math.E*z)); {
	case q <= 0:
		return -1
	case z < 0.5:
		r := math.Sqrt(q)
		w = -1 + r - float64(q/3)
		if z > 0 {
			w = z / (1 + z)
		}
	case z > 3:
		a := portable.Log(z)
		w = a - portable.Log(a)
	default:
		w = 0.5
	}
	for range 50 {
		e := portable.Exp(w)
		f := float64(w*e) - z
		d := float64(e*(w+1)) - float64(float64((w+2)*f)/float64(2*w+2))
		if d == 0 || math.IsNaN(f/d) {
			break
		}
		next := w - f/d
		if next == w {
			break
		}
		w = max(-1, next)
	}
	return w
}

// Powers are the powers, each at most so many watts, with which transmissions one after another over a band of so many
// hertz take least time in all and no more energy than a budget: the sum of times is convex in the energies, so all have the
// same price of a joule, or the most power. Errors: nonsense, and a budget that no power is low enough for, since a bit costs at least
// ln 2 / (B gain) joules.
func Powers(cs []Cast, hertz float64, most units.Watts, budget units.Joules) ([]units.Watts, float64, error) {
	if !(hertz > 0) || !(most > 0) || !(budget > 0) || math.IsInf(hertz+float64(most), 1) {
		return nil, 0, fmt.Errorf("delivery: powers for %g Hz, at most %g W, %g J: want positive numbers", hertz, float64(most), float64(budget))
	}
	least := 0.0
	for i, c := range cs {
		if c.Bytes <= 0 || !(c.Gain > 0) || math.IsInf(c.Gain, 1) {
			return nil, 0, fmt.Errorf("delivery: transmission %d: %d bytes with gain %g per watt: want positive numbers", i, c.Bytes, c.Gain)
		}
		least += 8 * float64(c.Bytes) * math.Ln2 / (hertz * c.Gain)
	}
	if least >= float64(budget) {
		return nil, 0, fmt.Errorf("delivery: %g J for transmissions that take more than %g J at any power: allow more energy or send less", float64(budget), least)
	}
	at := func(price float64) (ps []units.Watts, seconds, energy float64) {
		for _, c := range cs {
			p := min(float64(most), Power(c.Gain, price))
			t := c.seconds(p, hertz)
			ps = append(ps, units.Watts(p))
			seconds += t
			energy += float64(p * t)
		}
		return ps, seconds, energy
	}
	ps, seconds, energy := at(0)
	if energy <= float64(budget) {
		return ps, seconds, nil
	}
	low, high := 1e-30, 1.0
	for _, _, e := at(high); e > float64(budget); _, _, e = at(high) {
		if high *= 16; high > 1e15 {
			return nil, 0, fmt.Errorf("delivery: %g J are too close to the least possible %g J: allow more energy", float64(budget), least)
		}
	}
	for range 200 {
		mid := math.Sqrt(low) * math.Sqrt(high)
		if _, _, e := at(mid); e > float64(budget) {
			low = mid
		} else {
			high = mid
		}
	}
	ps, seconds, _ = at(high)
	return ps, seconds, nil
}

// seconds is how long a transmission takes with so many watts.
func (c Cast) seconds(watts, hertz float64) float64 {
	return 8 * float64(c.Bytes) * math.Ln2 / (hertz * portable.Log1p(watts*c.Gain))
}

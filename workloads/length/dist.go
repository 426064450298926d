package length

import (
	"fmt"
	"math"
	"sort"

	"meibench/internal/portable"
	"meibench/internal/rng"
)

// Dist is a compiled distribution of sizes.
type Dist struct {
	kind Kind
	a, b float64
	p    []float64 // quantile points; nil: evenly spaced
	v    []float64
	bend float64 // exponent of the last segment; 1 is a straight line
	step bool    // a size is v[i] for u in [p[i], p[i+1]): no interpolation
}

// At is the size at probability u in [0, 1), the inverse of the distribution
// function. It never decreases with u.
func (d *Dist) At(u float64) float64 {
	switch d.kind {
	case Constant:
		return d.a
	case Exponential:
		return -d.a * portable.Log1p(-u)
	case Geometric:
		if d.a == 1 {
			return 1
		}
		return 1 + math.Floor(portable.Log1p(-u)/d.b)
	case LogNormal:
		return d.atNormal(portable.NormalQuantile(u))
	}
	return d.between(u)
}

// atNormal is At(Phi(z)).
func (d *Dist) atNormal(z float64) float64 {
	if d.kind == LogNormal {
		return portable.Exp(d.a + float64(d.b*z))
	}
	return d.At(portable.NormalCDF(z))
}

func (d *Dist) between(u float64) float64 {
	last := len(d.v) - 1
	var i int
	var f float64
	if d.p == nil {
		x := float64(u * float64(last)) // rounded: fused into the next line f could fall under 0
		i = min(int(x), last-1)
		f = x - float64(i)
	} else {
		i = min(max(sort.SearchFloat64s(d.p, math.Nextafter(u, 2))-1, 0), last-1)
		f = (u - d.p[i]) / (d.p[i+1] - d.p[i])
	}
	if d.step {
		return d.v[i]
	}
	if i == last-1 && d.bend != 1 {
		f = portable.Pow(f, d.bend)
	}
	return d.v[i] + float64(f*(d.v[i+1]-d.v[i]))
}

// maxCount bounds a size: no field of a request overflows by adding sizes.
const maxCount = 1 << 30

// Count is At(u) rounded to the nearest whole number, at least low.
func (d *Dist) Count(u float64, low int) int { return count(d.At(u), low) }

func count(x float64, low int) int {
	if !(x < maxCount) {
		return maxCount
	}
	return max(low, int(math.Floor(x+0.5)))
}

// Mean is the expected size before rounding.
func (d *Dist) Mean() float64 {
	switch d.kind {
	case Constant, Exponential, Geometric:
		return d.a
	case LogNormal:
		return portable.Exp(d.a + d.b*d.b/2)
	}
	sum, last := 0.0, len(d.v)-1
	for i := range last {
		w, bend := 1/float64(last), 1.0
		if d.p != nil {
			w = d.p[i+1] - d.p[i]
		}
		if i == last-1 {
			bend = d.bend
		}
		if d.step {
			sum += float64(w * d.v[i])
			continue
		}
		sum += float64(w * (d.v[i] + (d.v[i+1]-d.v[i])/(bend+1))) // the mean of f^bend is 1/(bend+1)
	}
	return sum
}

// Joint draws a prompt and an answer together: a Gaussian copula keeps the two
// distributions and ties their ranks. For lognormal sizes Rho is exactly the
// correlation of the logarithms; a Spearman rank correlation s needs
// Rho = 2 sin(pi s / 6).
type Joint struct {
	In, Out *Dist
	Rho     float64 // in (-1, 1); 0 draws independently
}

// Check says whether j can be drawn from.
func (j Joint) Check() error {
	if !(j.Rho > -1 && j.Rho < 1) {
		return fmt.Errorf("correlation of prompt and answer: want a value in (-1, 1), got %g", j.Rho)
	}
	return nil
}

// Draw returns a prompt and an answer length, each at least 1. It takes two
// uniform numbers from luck if Rho is 0 and four otherwise.
func (j *Joint) Draw(luck *rng.Luck) (in, out int) {
	if j.Rho == 0 {
		return j.In.Count(luck.Float64(), 1), j.Out.Count(luck.Float64(), 1)
	}
	z, e := rng.Normal(luck), rng.Normal(luck)
	w := float64(j.Rho*z) + float64(math.Sqrt(1-float64(j.Rho*j.Rho))*e)
	return count(j.In.atNormal(z), 1), count(j.Out.atNormal(w), 1)
}

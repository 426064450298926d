package traces

import "math"

// Fit is a distribution fitted to gaps by maximum likelihood, location 0.
type Fit struct {
	Shape float64 // gamma k or Weibull c
	Scale float64 // seconds
	KS    float64 // Kolmogorov-Smirnov distance to the empirical distribution
}

// noFit marks a fit that the data do not allow: no gap, or all of one length.
var noFit = Fit{math.NaN(), math.NaN(), math.NaN()}

// fitGamma solves ln k - digamma(k) = ln mean - mean ln by Newton's method from
// Minka's start (Minka 2002, "Estimating a Gamma distribution"). Gaps must be
// sorted and positive.
func fitGamma(sorted []float64) Fit {
	mean, meanLog := means(sorted)
	s := math.Log(mean) - meanLog
	if !(s > 1e-12) || math.IsInf(s, 0) {
		return noFit
	}
	k := (3 - s + math.Sqrt((s-3)*(s-3)+24*s)) / (12 * s)
	for range 50 {
		next := 1 / (1/k + (meanLog-math.Log(mean)+math.Log(k)-digamma(k))/(k*k*(1/k-trigamma(k))))
		if done := math.Abs(next-k) < 1e-12*k; done || !(next > 0) {
			break
		}
		k = next
	}
	f := Fit{Shape: k, Scale: mean / k}
	f.KS = distance(sorted, func(x float64) float64 { return gammaCDF(k, x/f.Scale) })
	return f
}

// fitWeibull solves sum x^c ln x / sum x^c - 1/c = mean ln x by bisection; the
// left side increases with c.
func fitWeibull(sorted []float64) Fit {
	_, meanLog := means(sorted)
	if len(sorted) < 2 || sorted[0] == sorted[len(sorted)-1] || math.IsNaN(meanLog) {
		return noFit
	}
	top := math.Log(sorted[len(sorted)-1]) // powers relative to the largest do not overflow
	ln := logs(sorted)
	excess := func(c float64) float64 {
		var a, b float64
		for _, l := range ln {
			w := math.Exp(c * (l - top))
			a, b = a+w*l, b+w
		}
		return a/b - 1/c - meanLog
	}
	low, high := 1e-3, 1.0
	for excess(high) < 0 && high < 1e4 {
		low, high = high, 2*high
	}
	for range 30 { // to a billionth
		if mid := (low + high) / 2; excess(mid) < 0 {
			low = mid
		} else {
			high = mid
		}
	}
	c, sum := (low+high)/2, 0.0
	for _, l := range ln {
		sum += math.Exp(c * (l - top))
	}
	f := Fit{Shape: c, Scale: math.Exp(top + math.Log(sum/float64(len(sorted)))/c)}
	f.KS = distance(sorted, func(x float64) float64 { return -math.Expm1(-math.Pow(x/f.Scale, c)) })
	return f
}

// exponentialKS is the distance to an exponential distribution of equal mean.
func exponentialKS(sorted []float64) float64 {
	mean, _ := means(sorted)
	if !(mean > 0) {
		return math.NaN()
	}
	return distance(sorted, func(x float64) float64 { return -math.Expm1(-x / mean) })
}

func means(x []float64) (mean, meanLog float64) {
	for _, v := range x {
		mean += v
		meanLog += math.Log(v)
	}
	n := float64(len(x))
	return mean / n, meanLog / n
}

// distance is the largest gap between the empirical distribution function of
// sorted data, which jumps at each value, and cdf.
func distance(sorted []float64, cdf func(float64) float64) float64 {
	n, d := float64(len(sorted)), 0.0
	for i, x := range sorted {
		f := cdf(x)
		d = max(d, f-float64(i)/n, float64(i+1)/n-f)
	}
	return d
}

// digamma and trigamma shift the argument above 6 by their recurrences and use
// the asymptotic series there (Abramowitz and Stegun 6.3.18, 6.4.12).
func digamma(x float64) float64 {
	s := 0.0
	for ; x < 6; x++ {
		s -= 1 / x
	}
	y := 1 / (x * x)
	return s + math.Log(x) - 0.5/x - y*(1.0/12-y*(1.0/120-y*(1.0/252-y*(1.0/240-y/132))))
}

func trigamma(x float64) float64 {
	s := 0.0
	for ; x < 6; x++ {
		s += 1 / (x * x)
	}
	y := 1 / (x * x)
	return s + 1/x + y/2 + y/x*(1.0/6-y*(1.0/30-y*(1.0/42-y*(1.0/30-y*5/66))))
}

// gammaCDF is the regularised lower incomplete gamma function P(a, x): its
// series below a+1, Lentz's continued fraction above (Numerical Recipes 6.2).
func gammaCDF(a, x float64) float64 {
	if x <= 0 {
		return 0
	}
	lg, _ := math.Lgamma(a)
	scale := math.Exp(a*math.Log(x) - x - lg)
	if x < a+1 {
		term := 1 / a
		sum := term
		for n := 1.0; n < 10_000 && term > sum*1e-16; n++ {
			term *= x / (a + n)
			sum += term
		}
		return min(1, sum*scale)
	}
	const tiny = 1e-300
	b := x + 1 - a
	c, d := 1/tiny, 1/b
	h := d
	for n := 1.0; n < 10_000; n++ {
		an := -n * (n - a)
		b += 2
		if d = an*d + b; math.Abs(d) < tiny {
			d = tiny
		}
		if c = b + an/c; math.Abs(c) < tiny {
			c = tiny
		}
		d = 1 / d
		h *= d * c
		if math.Abs(d*c-1) < 1e-15 {
			break
		}
	}
	return 1 - scale*h
}

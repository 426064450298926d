// Package stats says how sure a figure is.
//
// The unit of inference is the repeat. Requests of one run queue behind each
// other, so a thousand of them are not a thousand observations; a thousand runs
// are. Median, Compare and Plan take one value per run; ComparePaired takes pairs
// of runs that share a seed, and sees more. What can be said from a
// single run, and when nothing can, is in Bound: MLPerf's early stopping as it
// is published (which assumes that requests are independent coins) and a
// version of it that measures how dependent they are and abstains where too
// little is left.
//
//	old, new := []float64{...}, []float64{...} // ttft_p99 of each repeat
//	e, err := stats.Compare(old, new, stats.Rule{})
//	fmt.Println(e.Ratio, e.Lo, e.Hi, e.Verdict)
//
// Nothing here assumes a distribution. Intervals and tests rest on order
// statistics; a table with several comparisons passes their p-values through
// Holm. The tests themselves are those of golang.org/x/perf/benchmath, so what
// meibench says of a pair of files is what benchstat says of them.
//
// The package does not look for a steady state in a run, and does not model.
package stats

import (
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// Interval is an estimate and the interval that holds the true value with at
// least the stated confidence. Lo and Hi are infinite where the sample is too
// small to bound that side.
type Interval struct {
	Center, Lo, Hi float64
	Confidence     float64 // actual; at least what was asked for where the sample allows
	N              int
	Warnings       []string
}

// Median is the median of independent values and its order-statistic interval,
// after benchmath: exact up to 30 values, by normal approximation above. Six
// values are the least for a finite interval at 0.95.
func Median(xs []float64, confidence float64) Interval {
	if len(xs) == 0 {
		return Interval{Center: math.NaN(), Lo: math.Inf(-1), Hi: math.Inf(1), Warnings: []string{"no values"}}
	}
	t := benchmath.DefaultThresholds
	s := benchmath.AssumeNothing.Summary(benchmath.NewSample(slices.Clone(xs), &t), confidence)
	return Interval{s.Center, s.Lo, s.Hi, s.Confidence, len(xs), texts(s.Warnings)}
}

func texts(errs []error) (out []string) {
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}

// Quantile is the p-quantile of independent values (the smallest with a share p
// at or below it) and its order-statistic interval, exact for every n: the
// number of values below the true quantile is binomial. For requests of one run
// it is too narrow; use Bound.
func Quantile(xs []float64, p, confidence float64) Interval {
	n := len(xs)
	out := Interval{Center: math.NaN(), Lo: math.Inf(-1), Hi: math.Inf(1), N: n}
	if n == 0 {
		out.Warnings = []string{"no values"}
		return out
	}
	xs = slices.Sorted(slices.Values(xs))
	out.Center = xs[rank(n, p)]
	tail := (1 - confidence) / 2
	// P(the l-th smallest is above the quantile) = P(fewer than l below) <= tail.
	l := search(0, n, func(l int) bool { return binomialCDF(l, n, p) > tail })
	// P(the u-th smallest is below the quantile) = P(u or more below) <= tail.
	u := search(1, n+1, func(u int) bool { return 1-binomialCDF(u-1, n, p) <= tail })
	below, above := 0.0, 0.0
	if l >= 1 {
		out.Lo, below = xs[l-1], binomialCDF(l-1, n, p)
	}
	if u <= n {
		out.Hi, above = xs[u-1], 1-binomialCDF(u-1, n, p)
	}
	out.Confidence = 1 - below - above
	if l < 1 || u > n {
		out.Warnings = []string{"too few values to bound the quantile on both sides"}
	}
	return out
}

// rank is the index of the p-quantile of n sorted values: the smallest with a
// share p at or below it.
func rank(n int, p float64) int {
	x := float64(p * float64(n))
	return min(max(int(math.Ceil(x-1e-9*x))-1, 0), n-1)
}

// search is the smallest i in [lo, hi] with ok(i), for an ok that stays true
// once it is; hi if there is none below it.
func search(lo, hi int, ok func(int) bool) int {
	for lo < hi {
		if mid := lo + (hi-lo)/2; ok(mid) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// binomialCDF is the probability of at most k successes in n trials of
// probability p.
func binomialCDF(k, n int, p float64) float64 {
	switch {
	case k < 0:
		return 0
	case k >= n:
		return 1
	}
	return BetaInc(1-p, float64(n-k), float64(k+1))
}

// Wilson is the score interval of a proportion of k successes in n independent
// trials (Wilson 1927): it stays within [0, 1] and is sensible at 0 and n.
func Wilson(k, n int, confidence float64) Interval {
	if n <= 0 {
		return Interval{Center: math.NaN(), Lo: 0, Hi: 1, Confidence: 1, Warnings: []string{"no trials"}}
	}
	z, m := Normal((1+confidence)/2), float64(n)
	p := float64(k) / m
	mid := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return Interval{Center: p, Lo: max(0, mid-half), Hi: min(1, mid+half), Confidence: confidence, N: n}
}

// Normal is the q-quantile of the standard normal distribution.
func Normal(q float64) float64 { return math.Sqrt2 * math.Erfinv(2*q-1) }

// BetaInc is the regularised incomplete beta function I(x; a, b) for a, b > 0,
// by Lentz's method on its continued fraction (DLMF 8.17.22): a few dozen terms
// where the power series takes up to 200,000. Accurate to about 1e-12; NaN for
// what is no argument.
func BetaInc(x, a, b float64) float64 {
	switch {
	case !(a > 0) || !(b > 0) || !(x >= 0) || !(x <= 1):
		return math.NaN()
	case x == 0 || x == 1:
		return x
	case x > (a+1)/(a+b+2): // the fraction converges fast on the other side
		return 1 - BetaInc(1-x, b, a)
	}
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	front := math.Exp(lab - la - lb + a*math.Log(x) + b*math.Log1p(-x))
	return front * betaFraction(x, a, b) / a
}

func betaFraction(x, a, b float64) float64 {
	const tiny, eps, most = 1e-300, 1e-15, 100_000
	guard := func(v float64) float64 {
		if math.Abs(v) < tiny {
			return tiny
		}
		return v
	}
	c, d := 1.0, 1/guard(1-(a+b)*x/(a+1))
	f := d
	for i := range most {
		m := float64(i + 1)
		even := m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		d, c = 1/guard(1+even*d), guard(1+even/c)
		f *= d * c
		odd := -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		d, c = 1/guard(1+odd*d), guard(1+odd/c)
		f *= d * c
		if math.Abs(d*c-1) < eps {
			break
		}
	}
	return f
}

package reports

import (
	"math"

	"meibench/harness/record"
)

// Stat is an estimate with the 95 % interval that goes with it. A bound is NaN
// where the sample is too small to give one, the value is NaN where there is
// none at all.
type Stat struct {
	V, Lo, Hi float64
	N         int  // observations behind it
	Max       bool // a quantile that is the largest observation: N is too small for it
}

func unknown() Stat { return Stat{V: math.NaN(), Lo: math.NaN(), Hi: math.NaN()} }

// bare is a value without an interval.
func bare(v float64) Stat { return Stat{V: v, Lo: math.NaN(), Hi: math.NaN()} }

const z95 = 1.959963984540054 // 97.5 % point of the normal distribution

// quantile estimates the p-quantile of the distribution that sorted values were
// drawn from, with the interval between two order statistics: it assumes that
// the values are independent and nothing about their distribution.
func quantile(sorted []float64, p float64) Stat {
	n := len(sorted)
	s := Stat{V: record.Quantile(sorted, p), Lo: math.NaN(), Hi: math.NaN(), N: n}
	if n == 0 {
		return s
	}
	s.Max = float64(n)*(1-p) < 1-1e-9
	lo, hi := orderBounds(n, p)
	if lo >= 1 {
		s.Lo = sorted[lo-1]
	}
	if hi <= n {
		s.Hi = sorted[hi-1]
	}
	return s
}

// orderBounds are the ranks, from 1, whose order statistics enclose the
// p-quantile with at least 95 %: the largest lo with P(B < lo) <= 2.5 % and the
// smallest hi with P(B >= hi) <= 2.5 %, where B is binomial. 0 and n+1 stand
// for no bound.
func orderBounds(n int, p float64) (lo, hi int) {
	mean := float64(float64(n) * p)
	sd := math.Sqrt(mean * (1 - p))
	if n > 1000 && sd > 3 {
		return max(int(math.Floor(mean-z95*sd)), 0), min(int(math.Ceil(mean+z95*sd))+1, n+1)
	}
	cdf, k := 0.0, 0
	for ; k <= n; k++ { // cdf is P(B < k)
		if cdf <= 0.025 {
			lo = k
		}
		if cdf >= 0.975 {
			break
		}
		cdf += binomial(n, k, p)
	}
	return lo, min(k, n+1)
}

func binomial(n, k int, p float64) float64 {
	lg := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	return math.Exp(lg(n) - lg(k) - lg(n-k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}

// share is the mean of n values in [0, 1] that sum to sum, with Wilson's score
// interval: exact enough for any n where the values are 0 or 1, and wider than
// needed where they lie between.
func share(sum float64, n int) Stat {
	if n == 0 {
		return unknown()
	}
	nn := float64(n)
	p := sum / nn
	z2 := z95 * z95
	mid := (p + z2/(2*nn)) / (1 + z2/nn)
	half := z95 / (1 + z2/nn) * math.Sqrt(p*(1-p)/nn+z2/(4*nn*nn))
	return Stat{V: p, Lo: max(0, mid-half), Hi: min(1, mid+half), N: n}
}

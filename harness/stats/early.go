package stats

import (
	"fmt"
	"math"
	"slices"
)

// Passes is the least number h of queries within a bound, beside t beyond it,
// for which early stopping accepts at confidence c that the p-quantile is within
// the bound: I(p; h, t+1) <= 1-c (MLPerf LoadGen, tolerance 0). h + t is the
// least number of queries in all.
func Passes(t int, p, c float64) int {
	accept := func(h int) bool { return h > 0 && BetaInc(p, float64(h), float64(t+1)) <= 1-c }
	hi := 1
	for !accept(hi) {
		hi *= 2
	}
	return search(hi/2, hi, accept)
}

// tailOf is the largest t with Passes(t) + t <= n, or -1: how many of n queries
// may be beyond a bound that is accepted.
func tailOf(n int, p, c float64) int {
	if n < Passes(0, p, c) {
		return -1
	}
	return search(0, n, func(t int) bool { return t+1 > n || Passes(t+1, p, c)+t+1 > n })
}

// Floor is the least number of independent queries for any estimate of the
// p-quantile (t = 1): about 6.64/(1-p) at c = 0.99.
func Floor(p, c float64) int { return Passes(1, p, c) + 1 }

// Answer is what one run allows to say of a quantile: with confidence c, the
// true quantile is at most Value. Where the data do not allow it, Abstain is
// true, Why says what is lacking, and Value is NaN.
type Answer struct {
	Value   float64
	Abstain bool
	Why     string
	Tail    int     // t: how many of the effective queries are beyond
	Tau     float64 // queries per independent one; 1 where independence is assumed
	N       int     // queries
	NEff    int     // independent queries they are worth
}

// BoundIID is MLPerf's early-stopping estimate (es_iid): the t-th highest value
// with the largest t that the rule allows. It holds only if queries are
// independent. Under a queue it does not: at a load of 0.8 a run of 24,576
// publishes a p99 below the true one in 44 of 100 cases (M/M/1, nominal 1).
func BoundIID(xs []float64, p, c float64) Answer { return bound(xs, p, c, 1) }

// Bound is the early-stopping estimate for queries that depend on each other
// (es_dep): the same rule over n/Tau effective queries, abstaining where those
// are too few. The values must be in the order of their intended starts. False
// bounds stay near the nominal share over M/M/1 loads up to 0.9; the price is a
// bound 1 to 15 % above the truth where queries were independent after all, and
// up to half above it at a load of 0.8.
func Bound(xs []float64, p, c float64) Answer { return bound(xs, p, c, Tau(xs, p)) }

func bound(xs []float64, p, c, tau float64) Answer {
	n := len(xs)
	a := Answer{Value: math.NaN(), Tau: tau, N: n, NEff: int(float64(n) / tau)}
	if a.Tail = tailOf(a.NEff, p, c); a.Tail < 1 {
		need := int(math.Ceil(float64(Floor(p, c)) * tau))
		a.Abstain, a.Tail = true, 0
		a.Why = fmt.Sprintf("not enough data: %d queries are worth %d independent ones; p%g needs about %d queries in one run, or repeats", n, a.NEff, 100*p, need)
		return a
	}
	k := min(max(int(float64(a.Tail)*tau), 1), n) // the same share of n as Tail is of NEff, rounded up in value
	a.Value = kthHighest(xs, k)
	return a
}

func kthHighest(xs []float64, k int) float64 {
	s := slices.Sorted(slices.Values(xs))
	return s[len(s)-k]
}

// Meets is the pass/fail form for a limit: of n queries so many missed it, each
// independent one standing for tau. Pass says that the p-quantile is within the
// limit at confidence c; need is the number of queries at which this share of
// misses would pass, 0 if it already does or never will.
func Meets(n, misses int, p, c, tau float64) (pass bool, need int) {
	t := int(math.Ceil(float64(misses) / tau))
	want := Passes(t, p, c) + t
	if float64(n)/tau >= float64(want) {
		return true, 0
	}
	if float64(misses) >= (1-p)*float64(n) {
		return false, 0
	}
	share := float64(misses) / float64(n)
	eff := search(want, math.MaxInt32, func(m int) bool {
		return Passes(int(math.Ceil(share*float64(m))), p, c) <= m-int(math.Ceil(share*float64(m)))
	})
	return false, int(math.Ceil(float64(eff) * tau))
}

const (
	blocks = 20
	// chi19 is the 10 % quantile of chi-square with blocks-1 degrees of freedom:
	// 19/chi19 inflates a variance estimate to its 90 % upper bound.
	chi19 = 11.651
)

// Tau estimates how many successive values are worth one independent value, at
// least 1. The run is cut into 20 blocks; the share of values above a mark varies
// between blocks of independent values by share·(1-share)/length, and the
// excess, taken at its 90 % upper bound, is tau. It is the largest over three
// marks: the run's own p50, p90 and p. The target alone would be steadier only
// by luck: its few exceedances come in too few clusters.
func Tau(xs []float64, p float64) float64 {
	sorted := slices.Clone(xs)
	slices.Sort(sorted)
	return TauOf(xs, sorted, p)
}

// TauOf is Tau for who has the values in ascending order too.
func TauOf(xs, sorted []float64, p float64) float64 {
	length := len(xs) / blocks
	if length < 2 {
		return max(1, float64(len(xs))) // nothing can be told: all one
	}
	tau := 1.0
	for _, mark := range []float64{0.5, 0.9, p} {
		tau = max(tau, tauAt(xs[:length*blocks], length, sorted[rank(len(sorted), mark)]))
	}
	return tau
}

func tauAt(xs []float64, length int, mark float64) float64 {
	var shares [blocks]float64
	mean := 0.0
	for b := range shares {
		above := 0
		for _, x := range xs[b*length : (b+1)*length] {
			if x > mark {
				above++
			}
		}
		shares[b] = float64(above) / float64(length)
		mean += shares[b] / blocks
	}
	if mean <= 0 || mean >= 1 {
		return 1
	}
	ss := 0.0
	for _, s := range shares {
		ss += (s - mean) * (s - mean)
	}
	upper := ss / (blocks - 1) * (blocks - 1) / chi19
	return float64(length) * upper / (mean * (1 - mean))
}

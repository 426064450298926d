package stats

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// Rule says when a difference counts.
type Rule struct {
	Alpha float64 // significance; 0 = 0.05
	Band  float64 // relative changes up to this do not matter in practice; 0 = 0.01
}

func (r Rule) orDefault() Rule {
	if r.Alpha == 0 {
		r.Alpha = 0.05
	}
	if r.Band == 0 {
		r.Band = 0.01
	}
	return r
}

// Verdict is what a comparison allows to say.
type Verdict uint8

// Verdicts.
const (
	Unclear Verdict = iota // neither a difference nor its absence is shown
	Same                   // the interval of the ratio lies within the band
	Lower                  // significant, and the ratio is below the band
	Higher                 // significant, and the ratio is above the band
)

// String is the verdict as reports print it.
func (v Verdict) String() string { return [...]string{"unclear", "same", "lower", "higher"}[v] }

// Effect is the difference between two sets of runs.
type Effect struct {
	Ratio    float64 // new over old: the median of all ratios of a new to an old value
	Lo, Hi   float64 // its interval at confidence 1-Alpha, by inverting the U test
	P        float64 // Mann-Whitney, two-sided; 0 where all values of each side are equal (exact data)
	NOld     int
	NNew     int
	Verdict  Verdict
	Warnings []string
	rule     Rule
}

// Compare compares two sets of positive values, one per independent run. Four
// runs a side are the least that can ever show a difference at 0.05.
func Compare(old, new []float64, rule Rule) (Effect, error) {
	rule = rule.orDefault()
	for _, xs := range [][]float64{old, new} {
		if len(xs) == 0 {
			return Effect{}, errors.New("compare: one side has no runs")
		}
		for _, x := range xs {
			if !(x > 0) || math.IsInf(x, 0) {
				return Effect{}, fmt.Errorf("compare: %g is not a positive number: ratios need one; compare the difference instead", x)
			}
		}
	}
	e := Effect{NOld: len(old), NNew: len(new), rule: rule}
	t := benchmath.Thresholds{CompareAlpha: rule.Alpha}
	c := benchmath.AssumeNothing.Compare(benchmath.NewSample(slices.Clone(old), &t), benchmath.NewSample(slices.Clone(new), &t))
	e.P, e.Warnings = c.P, texts(c.Warnings)
	e.Ratio, e.Lo, e.Hi = ratios(old, new, rule.Alpha)
	e.judge(e.P)
	return e, nil
}

// CompareExact compares two values of a deterministic metric: any difference is
// real, and only the band says whether it matters.
func CompareExact(old, new float64, rule Rule) Effect {
	e := Effect{Ratio: new / old, NOld: 1, NNew: 1, rule: rule.orDefault()}
	if old == new {
		e.Ratio = 1
	}
	e.Lo, e.Hi = e.Ratio, e.Ratio
	e.judge(0)
	return e
}

// ComparePaired compares runs that were made under the same conditions two by
// two, such as repeats with the same seeds: the ratio is the median of the
// ratios of pairs with its order-statistic interval, the test is the sign test.
// It assumes nothing of the distribution, and what all pairs share (an easy seed,
// a hard one) cancels. Six pairs are the least that can show a difference at 0.05.
func ComparePaired(old, new []float64, rule Rule) (Effect, error) {
	if len(old) != len(new) || len(old) == 0 {
		return Effect{}, fmt.Errorf("compare pairs: %d old and %d new values", len(old), len(new))
	}
	e := Effect{NOld: len(old), NNew: len(new), rule: rule.orDefault()}
	ratios := make([]float64, len(old))
	above, below := 0, 0
	for i := range old {
		if !(old[i] > 0) || !(new[i] > 0) || math.IsInf(old[i], 0) || math.IsInf(new[i], 0) {
			return Effect{}, fmt.Errorf("compare pairs: %g and %g: ratios need positive numbers", old[i], new[i])
		}
		ratios[i] = new[i] / old[i]
		switch {
		case ratios[i] > 1:
			above++
		case ratios[i] < 1:
			below++
		}
	}
	m := Median(ratios, 1-e.rule.Alpha)
	e.Ratio, e.Lo, e.Hi, e.Warnings = m.Center, max(0, m.Lo), m.Hi, m.Warnings
	e.P = min(1, 2*binomialCDF(min(above, below), above+below, 0.5))
	if above+below == 0 {
		e.P = 1
	}
	e.judge(e.P)
	return e, nil
}

// Spread is the standard deviation of the logarithms of positive values, about
// their coefficient of variation; NaN of fewer than two. It is what Plan wants.
func Spread(xs []float64) float64 {
	if len(xs) < 2 {
		return math.NaN()
	}
	mean, sum := 0.0, 0.0
	for _, x := range xs {
		mean += math.Log(x) / float64(len(xs))
	}
	for _, x := range xs {
		sum += (math.Log(x) - mean) * (math.Log(x) - mean)
	}
	return math.Sqrt(sum / float64(len(xs)-1))
}

// judge sets the verdict by a p-value, which may be an adjusted one.
func (e *Effect) judge(p float64) {
	lo, hi := 1/(1+e.rule.Band), 1+e.rule.Band
	switch {
	case e.Lo >= lo && e.Hi <= hi:
		e.Verdict = Same
	case p <= e.rule.Alpha && e.Ratio < lo:
		e.Verdict = Lower
	case p <= e.rule.Alpha && e.Ratio > hi:
		e.Verdict = Higher
	default:
		e.Verdict = Unclear
	}
}

// Family corrects the verdicts of comparisons that are read together, such as
// the rows of a table, so that the chance of any false difference among them is
// at most alpha (Holm). It returns the adjusted p-values.
func Family(es []Effect) []float64 {
	ps := make([]float64, len(es))
	for i := range es {
		ps[i] = es[i].P
	}
	ps = Holm(ps)
	for i := range es {
		es[i].judge(ps[i])
	}
	return ps
}

// Holm adjusts p-values for their number (Holm 1979): reject those at most
// alpha, and the chance of any false rejection is at most alpha, however the
// tests depend on each other.
func Holm(ps []float64) []float64 {
	order := make([]int, len(ps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case ps[a] < ps[b]:
			return -1
		case ps[a] > ps[b]:
			return 1
		}
		return 0
	})
	out, running := make([]float64, len(ps)), 0.0
	for rank, i := range order {
		running = max(running, min(1, ps[i]*float64(len(ps)-rank)))
		out[i] = running
	}
	return out
}

// ratios is the Hodges-Lehmann estimate of the ratio of new to old and its
// interval at confidence 1-alpha: the k-th smallest and largest of all pairwise
// ratios, with k from the null distribution of U.
func ratios(old, new []float64, alpha float64) (mid, lo, hi float64) {
	all := make([]float64, 0, len(old)*len(new))
	for _, n := range new {
		for _, o := range old {
			all = append(all, n/o)
		}
	}
	slices.Sort(all)
	n := len(all)
	mid = (all[(n-1)/2] + all[n/2]) / 2
	k := criticalU(len(old), len(new), alpha)
	if k < 0 {
		return mid, 0, math.Inf(1)
	}
	return mid, all[k], all[n-1-k]
}

// criticalU is the largest k with P(U <= k) <= alpha/2 under the null
// hypothesis, -1 if even P(U = 0) is larger. Exact up to 20 a side, by normal
// approximation above.
func criticalU(m, n int, alpha float64) int {
	if m > 20 || n > 20 {
		mn := float64(m * n)
		sd := math.Sqrt(mn * float64(m+n+1) / 12)
		return int(math.Floor(mn/2 - 0.5 + Normal(alpha/2)*sd))
	}
	// ways[j][u] counts the orders of i old and j new values with U = u, built up
	// by the largest value: if it is new, it beats all i old ones.
	ways := make([][]float64, n+1)
	for j := range ways {
		ways[j] = make([]float64, m*n+1)
		ways[j][0] = 1
	}
	for i := 1; i <= m; i++ {
		for j := 1; j <= n; j++ {
			next := slices.Clone(ways[j])
			for u := i; u <= i*j; u++ {
				next[u] += ways[j-1][u-i]
			}
			ways[j] = next
		}
	}
	total, sum := 0.0, 0.0
	for _, w := range ways[n] {
		total += w
	}
	for u, w := range ways[n] {
		if sum += w; sum/total > alpha/2 {
			return u - 1
		}
	}
	return m * n
}

// Plan is how many runs a side show a true relative change with a given power,
// by Noether's formula for the U test (1987): spread is the standard deviation
// of the logarithm of the values, about their coefficient of variation. At
// least four, the fewest that can show anything at 0.05.
func Plan(change, spread, alpha, power float64) int {
	if change == 0 || !(spread >= 0) {
		return math.MaxInt32
	}
	// P(new > old) for two normal logarithms that differ by log(1+|change|).
	q := 0.5
	if spread > 0 {
		q = 0.5*math.Erfc(-math.Log1p(math.Abs(change))/(2*spread)) - 0.5
	}
	z := Normal(1-alpha/2) + Normal(power)
	return max(4, int(math.Ceil(z*z/(6*q*q))))
}

// MannWhitney is the two-sided p-value of the U test after benchmath; 1 where the
// samples allow none.
func MannWhitney(old, new []float64) float64 {
	t := benchmath.DefaultThresholds
	c := benchmath.AssumeNothing.Compare(benchmath.NewSample(slices.Clone(old), &t), benchmath.NewSample(slices.Clone(new), &t))
	return c.P
}

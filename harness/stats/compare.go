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

// Test names how a p-value and an interval were found.
type Test uint8

// Tests.
const (
	Exact       Test = iota // two values that a seed fixes: no chance is involved
	MannWhitney             // independent runs, by benchmath
	SignedRank              // pairs of runs, by Wilcoxon's signed ranks
)

// String is the test as reports print it.
func (t Test) String() string { return [...]string{"exact", "mann-whitney", "signed-rank"}[t] }

// Effect is the difference between two sets of runs.
type Effect struct {
	Ratio    float64 // new over old; of a Difference 1 + (new - old) / scale
	Lo, Hi   float64 // its interval at confidence 1-Alpha, by inverting the test; infinite where there are too few runs
	P        float64 // two-sided; 0 of exact data
	Test     Test
	NOld     int
	NNew     int
	Spread   float64 // standard deviation of the logarithm of a value (of a pair's ratio if Test is SignedRank); NaN of one run
	Verdict  Verdict
	Warnings []string
	rule     Rule
}

// Compare compares two sets of positive values, one per independent run. The
// ratio is that of the medians, the p-value that of the U test, both as benchstat
// prints them; the interval inverts that test and is widened to hold the ratio
// where, rarely, it does not. Four runs a side are the least that can ever show a
// difference at 0.05.
func Compare(old, new []float64, rule Rule) (Effect, error) {
	if err := positive(old, new); err != nil {
		return Effect{}, err
	}
	return unpaired(old, new, byRatio(), rule), nil
}

// CompareDifference is Compare for values that may be zero or negative. The
// change is counted in units of scale > 0, which the rule's band then is a share
// of: 1 for shares and scores.
func CompareDifference(old, new []float64, scale float64, rule Rule) (Effect, error) {
	if err := finite(old, new, scale); err != nil {
		return Effect{}, err
	}
	return unpaired(old, new, byDifference(scale), rule), nil
}

// change is how a new value is set against an old one: 1 where they are equal.
type change struct {
	of    func(new, old float64) float64
	mid   func(a, b float64) float64 // half way between two changes
	noise func(x float64) float64    // a value on the scale on which noise adds
	drift func(c float64) float64    // a change on that scale
	size  func(c float64) float64    // how far from none; orders as |drift| and is the same on every machine
	least float64                    // no change is below
}

func byRatio() change {
	return change{of: func(n, o float64) float64 { return n / o }, mid: func(a, b float64) float64 { return math.Sqrt(float64(a * b)) },
		noise: math.Log, drift: math.Log, size: func(c float64) float64 { return max(c, 1/c) }}
}

func byDifference(scale float64) change {
	return change{of: func(n, o float64) float64 { return 1 + (n-o)/scale }, mid: func(a, b float64) float64 { return (a + b) / 2 },
		noise: func(x float64) float64 { return x / scale }, drift: func(c float64) float64 { return c - 1 },
		size: func(c float64) float64 { return math.Abs(c - 1) }, least: math.Inf(-1)}
}

func unpaired(old, new []float64, by change, rule Rule) Effect {
	rule = rule.orDefault()
	e := Effect{NOld: len(old), NNew: len(new), Test: MannWhitney, rule: rule}
	t := benchmath.Thresholds{CompareAlpha: rule.Alpha}
	so, sn := benchmath.NewSample(slices.Clone(old), &t), benchmath.NewSample(slices.Clone(new), &t)
	c := benchmath.AssumeNothing.Compare(so, sn)
	e.P, e.Warnings = c.P, texts(c.Warnings)
	e.Ratio = by.of(Median(new, 1-rule.Alpha).Center, Median(old, 1-rule.Alpha).Center)
	e.Lo, e.Hi = limits(old, new, by, rule.Alpha)
	e.Lo, e.Hi = min(e.Lo, e.Ratio), max(e.Hi, e.Ratio)
	e.Spread = pooled(old, new, by)
	e.judge(e.P)
	return e
}

func positive(sides ...[]float64) error {
	for _, xs := range sides {
		if len(xs) == 0 {
			return errors.New("compare: one side has no runs")
		}
		for _, x := range xs {
			if !(x > 0) || math.IsInf(x, 0) {
				return fmt.Errorf("compare: %g is not a positive number: ratios need one; compare the difference instead", x)
			}
		}
	}
	return nil
}

func finite(old, new []float64, scale float64) error {
	if len(old) == 0 || len(new) == 0 {
		return errors.New("compare: one side has no runs")
	}
	for _, x := range slices.Concat(old, new, []float64{scale}) {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("compare: %g is not a finite number", x)
		}
	}
	if scale <= 0 {
		return fmt.Errorf("compare: the scale of a difference is %g: want more than 0", scale)
	}
	return nil
}

// pooled is the standard deviation of the values of both sides about their own
// means, on the scale of changes; NaN of one run a side.
func pooled(old, new []float64, by change) float64 {
	if len(old)+len(new) < 3 {
		return math.NaN()
	}
	sum := squares(old, by.noise) + squares(new, by.noise)
	return math.Sqrt(sum / float64(len(old)+len(new)-2))
}

// squares sums the squared deviations from the mean of f(x).
func squares(xs []float64, f func(float64) float64) (sum float64) {
	mean := 0.0
	for _, x := range xs {
		mean += f(x) / float64(len(xs))
	}
	for _, x := range xs {
		d := f(x) - mean
		sum += float64(d * d)
	}
	return sum
}

// CompareExact compares two values of a deterministic metric: any difference is
// real, and only the band says whether it matters. A change from nothing to
// something is infinite; one between negative values is counted in the larger
// of them.
func CompareExact(old, new float64, rule Rule) Effect {
	e := Effect{Ratio: new / old, NOld: 1, NNew: 1, Test: Exact, rule: rule.orDefault()}
	switch {
	case old == new:
		e.Ratio = 1
	case old < 0 || new < 0:
		e.Ratio = 1 + (new-old)/max(math.Abs(old), math.Abs(new))
	}
	e.Lo, e.Hi = e.Ratio, e.Ratio
	e.judge(0)
	return e
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
// at most alpha (Holm). It returns the adjusted p-values. Exact effects are no
// matter of chance: they neither count nor change.
func Family(es []Effect) []float64 {
	var ps []float64
	for i := range es {
		if es[i].Test != Exact {
			ps = append(ps, es[i].P)
		}
	}
	ps = Holm(ps)
	out := make([]float64, len(es))
	for i := range es {
		if es[i].Test == Exact {
			continue
		}
		out[i], ps = ps[0], ps[1:]
		es[i].judge(out[i])
	}
	return out
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

// limits is the interval of the change from old to new at confidence 1-alpha:
// the k-th smallest and largest of all pairwise changes, with k from the null
// distribution of U (Hodges and Lehmann 1963).
func limits(old, new []float64, by change, alpha float64) (lo, hi float64) {
	k := criticalU(len(old), len(new), alpha)
	if k < 0 {
		return by.least, math.Inf(1)
	}
	all := make([]float64, 0, len(old)*len(new))
	for _, n := range new {
		for _, o := range old {
			all = append(all, by.of(n, o))
		}
	}
	slices.Sort(all)
	return all[k], all[len(all)-1-k]
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

// Spread is the standard deviation of the logarithms of positive values, about
// their coefficient of variation; NaN of fewer than two. It is what Plan wants.
func Spread(xs []float64) float64 {
	if len(xs) < 2 {
		return math.NaN()
	}
	return math.Sqrt(squares(xs, math.Log) / float64(len(xs)-1))
}

package compare

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/harness/record"
	"meibench/harness/stats"
)

// pair compares one metric of one cell.
func pair(a, b *cell, unit string, o Options) (p Pair, err error) {
	x, y := a.metrics[unit], b.metrics[unit]
	p = Pair{Cell: a.name, Metric: metricName(unit), Unit: unit, better: x.better, exact: x.exact && y.exact}
	if x.better == record.Neither {
		p.better = y.better
	}
	p.Old, p.New = sample(x.values(), a.invalid), sample(y.values(), b.invalid)
	switch {
	case p.Old.N == 0 || p.New.N == 0:
		p.Verdict, p.Note = NotJudged, "no valid run on one side"
		return p, nil
	case p.exact && sameSeeds(x, y):
		p.exactly(x, y, o)
		return p, nil
	}
	return p, p.sampled(x, y, o)
}

// sampled compares values that vary from run to run.
func (p *Pair) sampled(x, y *series, o Options) (err error) {
	old, new := matched(x, y)
	paired := o.Pair == Always || o.Pair == Auto && len(old) >= fewestPairs
	switch {
	case paired && len(old) == 0:
		return fmt.Errorf("%s of %s: no seed is on both sides, so there are no pairs: leave --pair out, or run both sides with one --seed", p.Metric, p.Cell)
	case paired && len(old) < max(p.Old.N, p.New.N):
		p.Note = fmt.Sprintf("%d seeds are on both sides", len(old))
	case !paired && len(old) > 1 && o.Pair == Auto:
		if e, err := stats.ComparePaired(old, new, o.Rule); err == nil {
			p.soon = &e // a few runs more would make pairs of them
		}
	}
	if !paired {
		old, new = x.values(), y.values()
	}
	if slices.Min(old) <= 0 || slices.Min(new) <= 0 {
		p.Note, p.scale = "there are zeros: no ratio", max(math.Abs(p.Old.Median), math.Abs(p.New.Median))
		if p.scale == 0 || strings.HasSuffix(p.Unit, "share") || strings.HasSuffix(p.Unit, "score") {
			p.scale = 1 // shares and scores: the band is one of points
		}
	}
	p.tested = true
	switch {
	case paired && p.scale > 0:
		p.effect, err = stats.ComparePairedDifference(old, new, p.scale, o.Rule)
	case paired:
		p.effect, err = stats.ComparePaired(old, new, o.Rule)
	case p.scale > 0:
		p.effect, err = stats.CompareDifference(old, new, p.scale, o.Rule)
	default:
		p.effect, err = stats.Compare(old, new, o.Rule)
	}
	p.Test = map[stats.Test]string{stats.MannWhitney: "Mann-Whitney", stats.SignedRank: "signed ranks of pairs"}[p.effect.Test]
	if err != nil {
		return fmt.Errorf("%s of %s: %w", p.Metric, p.Cell, err)
	}
	return nil
}

const fewestPairs = 6

func positive(xs []float64) bool {
	return !slices.ContainsFunc(xs, func(x float64) bool { return !(x > 0) || math.IsInf(x, 0) })
}

// matched are the values of runs of the same seed, the k-th of a seed with the
// k-th.
func matched(x, y *series) (old, new []float64) {
	waiting := map[string][]float64{}
	for _, r := range y.points {
		if r.seed != "" {
			waiting[r.seed] = append(waiting[r.seed], r.value)
		}
	}
	for _, r := range x.points {
		if w := waiting[r.seed]; len(w) > 0 {
			old, new = append(old, r.value), append(new, w[0])
			waiting[r.seed] = w[1:]
		}
	}
	return old, new
}

// exactly compares what seeds fix, seed by seed. Where seeds disagree, the pair
// is as bad as the worst of them: a gate must not average a loss away.
func (p *Pair) exactly(x, y *series, o Options) {
	p.Test = "exact"
	var ratios []float64
	ups, downs := 0, 0
	for i := range x.points {
		e := stats.CompareExact(x.points[i].value, y.points[i].value, o.Rule)
		ratios = append(ratios, e.Ratio)
		switch e.Verdict {
		case stats.Higher:
			ups++
		case stats.Lower:
			downs++
		}
	}
	slices.Sort(ratios)
	n := len(ratios)
	p.Ratio, p.Low, p.High = finite((ratios[(n-1)/2]+ratios[n/2])/2), finite(ratios[0]), finite(ratios[n-1])
	up := ups > downs
	if ups > 0 && downs > 0 && p.better != record.Neither {
		up = p.better == record.Lower
	}
	beyond := ups
	if !up {
		beyond = downs
	}
	switch {
	case ups+downs > 0:
		p.Verdict = p.word(up)
		if beyond < n {
			p.Note = fmt.Sprintf("%d of %d seeds; %d the other way", beyond, n, ups+downs-beyond)
		}
	case ratios[0] == 1 && ratios[n-1] == 1:
		p.Verdict, p.Note = NoneShown, "identical"
	default:
		p.Verdict, p.Note = NoneShown, "within the band for every seed"
	}
}

// settle corrects the family and finds the words.
func (c *Comparison) settle(o Options) {
	var at []int
	var es []stats.Effect
	for i := range c.Pairs {
		if c.Pairs[i].tested {
			at, es = append(at, i), append(es, c.Pairs[i].effect)
		}
	}
	c.Family = len(es)
	adjusted := stats.Family(es)
	for k, i := range at {
		p := &c.Pairs[i]
		p.effect = es[k]
		p.P, p.Adjusted = finite(es[k].P), finite(adjusted[k])
		p.show()
		switch es[k].Verdict {
		case stats.Higher, stats.Lower:
			p.Verdict = p.word(es[k].Verdict == stats.Higher)
		case stats.Same:
			p.Verdict, p.Note = NoneShown, join(p.Note, "the interval lies within the band")
		default:
			p.open(c.Family, o.Power)
		}
	}
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// show sets what is printed of an effect: a ratio, or a difference.
func (p *Pair) show() {
	e := p.effect
	if p.scale == 0 {
		p.Ratio, p.Low, p.High = finite(e.Ratio), finite(e.Lo), finite(e.Hi)
		return
	}
	in := func(v float64) *number { return finite((v - 1) * p.scale) }
	p.Diff, p.DiffLow, p.DiffHigh = in(e.Ratio), in(e.Lo), in(e.Hi)
}

// open says of a pair without a verdict how many more runs would bring one.
func (p *Pair) open(family int, power float64) {
	p.Needs = p.effect.More(family, power)
	if p.soon != nil {
		p.Needs = min(p.Needs, p.soon.More(family, power))
	}
	switch {
	case p.Needs == 1:
		p.Verdict = "cannot tell: needs 1 more run"
	case p.Needs > mostMore:
		p.Verdict = fmt.Sprintf("cannot tell: needs over %d more runs", mostMore)
	default:
		p.Verdict = fmt.Sprintf("cannot tell: needs %d more runs", p.Needs)
	}
}

const mostMore = 1000 // beyond, the number of further runs says nothing

package caching

import (
	"fmt"
	"math"
	"slices"

	"meibench/reports"
)

// lead says what a set answers, by what it varies: an answer a question.
func lead(set []*reports.Group) (out []string) {
	part := title(set[0])
	if hosts(set[0]) {
		return hostLead(set)
	}
	if remembers(set[0]) {
		return reuseLead(set)
	}
	if axis := scale(set); axis != "" && axis != "choices" && axis != "relay_mbps" && len(found(set)) > 1 {
		low := math.Inf(1)
		for _, g := range set {
			low = min(low, number(g, axis))
		}
		tight := reports.Where(set, func(g *reports.Group) bool { return number(g, axis) == low })
		if best, worst := extremes(tight, hits); best != worst {
			out = append(out, fmt.Sprintf("%s: at %s %g, most is found with %s (%s of requests), least with %s (%s).",
				part, axis, low, name(best, axis), percent(hits(best)), name(worst, axis), percent(hits(worst))))
		}
	}
	if ways(set) {
		if slow, quick := extremes(set, tail); slow != quick {
			out = append(out, fmt.Sprintf("%s: models come quickest with %s (p95 %.3g s), slowest with %s (%.3g s).", part, name(quick, ""), tail(quick), name(slow, ""), tail(slow)))
		}
	}
	if several(set, "progress") {
		first := func(g *reports.Group) float64 { return g.TTFT50().V }
		if slow, quick := extremes(set, first); slow != quick {
			out = append(out, fmt.Sprintf("%s: the first token comes soonest with %s (p50 %.3g s%s), latest with %s (%.3g s%s).",
				part, name(quick, ""), first(quick), scored(quick), name(slow, ""), first(slow), scored(slow)))
		}
	}
	return out
}

func scored(g *reports.Group) string {
	if s := g.Score(); !math.IsNaN(s.V) {
		return fmt.Sprintf(", quality %.2f", s.V)
	}
	return ""
}

func hits(g *reports.Group) float64 { return reports.Median(g.Repeats("hit_ratio")).V }
func tail(g *reports.Group) float64 { return reports.Quantile(g.Delivery, 0.95).V }

// found are the cells that looked something up.
func found(set []*reports.Group) []*reports.Group {
	return reports.Where(set, func(g *reports.Group) bool { return !math.IsNaN(hits(g)) })
}

// extremes are the cells with the most and the least of something; of none that is known, the first twice.
func extremes(set []*reports.Group, of func(*reports.Group) float64) (most, least *reports.Group) {
	known := reports.Where(set, func(g *reports.Group) bool { return !math.IsNaN(of(g)) })
	if len(known) == 0 {
		return set[0], set[0]
	}
	by := func(a, b *reports.Group) int {
		switch {
		case of(a) < of(b):
			return -1
		case of(a) > of(b):
			return 1
		}
		return 0
	}
	return slices.MaxFunc(known, by), slices.MinFunc(known, by)
}

func most(all []*reports.Group) float64  { m, _ := extremes(all, hits); return hits(m) }
func least(all []*reports.Group) float64 { _, m := extremes(all, hits); return hits(m) }

func percent(v float64) string {
	if math.IsNaN(v) {
		return "none"
	}
	return fmt.Sprintf("%.3g %%", 100*v)
}

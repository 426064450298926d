package reports

import (
	"math"
	"slices"

	"meibench/harness/record"
)

// summary holds the figures of one group that tables print.
type summary struct {
	ttft50, ttft95, tpot50 Stat // seconds, OK requests
	e2e50, e2e95, e2e99    Stat
	goodput                Stat // requests per second within all limits
	within                 Stat // share of requests within all limits
	up, down               Stat // bytes per request
	energy                 Stat // joules per request
	energySource           uint8
	quality                Stat
	gap                    gap
}

// gap is how far the medians of a group are from those that were measured:
// value / measured - 1; NaN without a measured twin.
type gap struct{ ttft, tpot, e2e float64 }

func summarise(g *Group) summary {
	s := summary{
		ttft50: quantile(g.TTFT, 0.5), ttft95: quantile(g.TTFT, 0.95), tpot50: quantile(g.TPOT, 0.5),
		e2e50: quantile(g.E2E, 0.5), e2e95: quantile(g.E2E, 0.95), e2e99: quantile(g.E2E, 0.99),
		goodput: unknown(), within: share(float64(g.Good), g.N),
		up: unknown(), down: unknown(), energy: unknown(), quality: share(g.Quality.Sum, g.Quality.N),
		gap: gap{math.NaN(), math.NaN(), math.NaN()},
	}
	if g.N == 0 {
		return s
	}
	n := float64(g.N)
	if offered := g.Offered.Seconds(); offered > 0 {
		s.goodput = Stat{V: float64(g.Good) / offered, Lo: s.within.Lo * n / offered, Hi: s.within.Hi * n / offered, N: g.N}
	}
	s.up, s.down = bare(g.Up/n), bare(g.Down/n)
	sum, source := g.joules()
	s.energy, s.energySource = bare(sum/n), source
	return s
}

// against sets the gap to a measured twin's medians.
func (s *summary) against(m *summary) {
	rel := func(a, b Stat) float64 {
		if !(b.V > 0) {
			return math.NaN()
		}
		return a.V/b.V - 1
	}
	s.gap = gap{rel(s.ttft50, m.ttft50), rel(s.tpot50, m.tpot50), rel(s.e2e50, m.e2e50)}
}

// median is the median of the absolute gaps that are known.
func (g gap) median() float64 { return medianAbs([]float64{g.ttft, g.tpot, g.e2e}) }

func medianAbs(vs []float64) float64 {
	var known []float64
	for _, v := range vs {
		if !math.IsNaN(v) {
			known = append(known, math.Abs(v))
		}
	}
	slices.Sort(known)
	if n := len(known); n > 0 && n%2 == 0 {
		return (known[n/2-1] + known[n/2]) / 2
	}
	return record.Quantile(known, 0.5)
}

// summaries computes every group's figures, with gaps.
func (v *view) summaries() map[*Group]*summary {
	out := make(map[*Group]*summary, len(v.Groups))
	for _, g := range v.Groups {
		s := summarise(g)
		out[g] = &s
	}
	for g, twin := range v.twin {
		if twin != nil {
			out[g].against(out[twin])
		}
	}
	return out
}

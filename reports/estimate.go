package reports

import (
	"math"
	"slices"
	"sort"
	"strconv"

	"meibench/harness/record"
	"meibench/harness/stats"
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

const confidence = 0.95

// quantile estimates the p-quantile of the distribution that sorted values were
// drawn from, with the interval between two order statistics. Tau of the values
// are worth one independent value; nothing is assumed of their distribution.
func quantile(sorted []float64, p, tau float64) Stat {
	n := len(sorted)
	s := Stat{V: record.Quantile(sorted, p), Lo: math.NaN(), Hi: math.NaN(), N: n}
	if n == 0 {
		return s
	}
	s.Max = float64(n)*(1-p) < 1-1e-9
	worth := max(int(float64(n)/tau), 1)
	lo, hi := orderBounds(worth, p)
	each := float64(n) / float64(worth)
	if lo >= 1 {
		s.Lo = sorted[max(int(math.Floor(float64(lo)*each)), 1)-1]
	}
	if hi <= worth {
		s.Hi = sorted[min(int(math.Ceil(float64(hi)*each)), n)-1]
	}
	return s
}

// orderBounds are the ranks, from 1, whose order statistics enclose the
// p-quantile with at least 95 %: the largest lo with P(B < lo) <= 2.5 % and the
// smallest hi with P(B >= hi) <= 2.5 %, where B is binomial. 0 and n+1 stand
// for no bound. They are those of stats.Quantile, as ranks because one sorted
// sample serves several quantiles here and because n may be an effective one.
func orderBounds(n int, p float64) (lo, hi int) {
	const tail = (1 - confidence) / 2
	below := func(k int) float64 { // P(B < k)
		if k <= 0 {
			return 0
		}
		return stats.BetaInc(1-p, float64(n-k+1), float64(k))
	}
	lo = sort.Search(n, func(l int) bool { return below(l+1) > tail })
	hi = 1 + sort.Search(n, func(u int) bool { return 1-below(u+1) <= tail })
	return lo, hi
}

// share is the mean of n values in [0, 1] that sum to sum, with Wilson's score
// interval as in stats.Wilson, but for sums and effective numbers that are not
// whole. It is wider than needed where values lie between 0 and 1.
func share(sum float64, n int, tau float64) Stat {
	if n == 0 {
		return unknown()
	}
	p, m, z := sum/float64(n), float64(n)/tau, stats.Normal((1+confidence)/2)
	mid := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	s := Stat{V: p, Lo: max(0, mid-half), Hi: min(1, mid+half), N: n}
	if p <= 0 { // exactly, whatever rounding says
		s.Lo = 0
	}
	if p >= 1 {
		s.Hi = 1
	}
	return s
}

// overRepeats is the median of one value per repeat with its interval: repeats
// are independent where requests of one run are not.
func overRepeats(values []float64) Stat {
	known := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(known) == 0 {
		return unknown()
	}
	m := stats.Median(known, confidence)
	s := Stat{V: m.Center, Lo: m.Lo, Hi: m.Hi, N: m.N}
	for _, end := range []*float64{&s.Lo, &s.Hi} {
		if math.IsInf(*end, 0) {
			*end = math.NaN()
		}
	}
	return s
}

// scale turns SI base units into what people read: a column has one unit, chosen
// by the median of its values.
type scale struct {
	unit string
	by   float64 // values are divided by it
	from float64 // smallest median that uses it
}

func timeScales() []scale {
	return []scale{{"s", 1, 1}, {"ms", 1e-3, 1e-4}, {"µs", 1e-6, 0}}
}
func byteScales() []scale {
	return []scale{{"GB", 1e9, 1e9}, {"MB", 1e6, 1e6}, {"kB", 1e3, 1e3}, {"B", 1, 0}}
}
func energyScales() []scale {
	return []scale{{"kJ", 1e3, 1e3}, {"J", 1, 0.1}, {"mJ", 1e-3, 1e-4}, {"µJ", 1e-6, 0}}
}

// choose picks the scale for a list of values; without any it is the second,
// the everyday one.
func choose(scales []scale, values []float64) scale {
	var known []float64
	for _, v := range values {
		if v > 0 && !math.IsInf(v, 0) {
			known = append(known, v)
		}
	}
	if len(known) == 0 {
		return scales[1]
	}
	slices.Sort(known)
	median := known[len(known)/2]
	for _, s := range scales {
		if median >= s.from {
			return s
		}
	}
	return scales[len(scales)-1]
}

// measure is how a column prints: all values in one unit, or each in its own
// where one unit would give five digits before the point or zeros after it.
type measure struct {
	scale
	own []scale // units of single values; nil = one unit
}

func measureOf(scales []scale, values ...[]float64) measure {
	all := slices.Concat(values...)
	m := measure{scale: choose(scales, all)}
	for _, v := range all {
		if v /= m.by; v >= 9999.5 && !math.IsInf(v, 0) || v > 0 && v < 0.0995 {
			return measure{scale: scale{by: 1}, own: scales}
		}
	}
	return m
}

// stat prints an estimate in the column's unit, or in its own.
func (m measure) stat(s Stat) Value {
	if m.own == nil || math.IsNaN(s.V) {
		return stat(s, m.by)
	}
	sc := choose(m.own, []float64{s.V})
	v := stat(s, sc.by)
	if s.V != 0 {
		v.Text += " " + sc.unit
	}
	return v
}

// per is the unit of a rate of the measure, "" where each value has its own.
func (m measure) per(what string) string {
	if m.own != nil {
		return what
	}
	return m.unit + what
}

// dash stands for a value that nobody knows.
const dash = "–"

// place is the power of ten of the last digit worth printing: two digits of the
// half width of the interval, and never more than four of the value, or three
// where the interval lacks an end.
func place(s Stat) int {
	digit := func(v float64) int { return int(math.Floor(math.Log10(v))) }
	half, most := math.NaN(), 4 // digits
	switch {
	case !math.IsNaN(s.Lo) && !math.IsNaN(s.Hi):
		half = (s.Hi - s.Lo) / 2
	case !math.IsNaN(s.Lo):
		half, most = s.V-s.Lo, 3
	case !math.IsNaN(s.Hi):
		half, most = s.Hi-s.V, 3
	}
	v := math.Abs(s.V)
	p := math.MinInt
	if v > 0 {
		p = digit(v) - 2
	}
	if half > 0 {
		p = digit(half) - 1
		if v > 0 {
			p = max(p, digit(v)-most+1)
		}
	}
	if p == math.MinInt {
		return 0
	}
	return p
}

// number prints v rounded to a power of ten.
func number(v float64, place int) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return dash
	}
	if v == 0 {
		return "0"
	}
	if place > 0 {
		unit := math.Pow10(place)
		return strconv.FormatFloat(math.Round(v/unit)*unit, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', min(-place, 12), 64)
}

// texts prints an estimate and its interval in a unit: "412", "[398, 431]".
func (s Stat) texts(by float64) (value, interval string) {
	if math.IsNaN(s.V) {
		return dash, ""
	}
	s.V, s.Lo, s.Hi = s.V/by, s.Lo/by, s.Hi/by
	at := place(s)
	value = number(s.V, min(at, firstDigit(s.V))) // a wide interval must not make something nothing
	if !math.IsNaN(s.Lo) || !math.IsNaN(s.Hi) {
		interval = "[" + number(s.Lo, at) + ", " + number(s.Hi, at) + "]"
	}
	return value, interval
}

// firstDigit is the place of the first digit of a number, that of the units for 0.
func firstDigit(v float64) int {
	if v == 0 || math.IsInf(v, 0) {
		return 0
	}
	return int(math.Floor(math.Log10(math.Abs(v))))
}

// String is the estimate with its interval, in the unit it is in.
func (s Stat) String() string {
	v, i := s.texts(1)
	if i != "" {
		v += " " + i
	}
	return v
}

// brief prints three significant digits.
func brief(v float64) string { return number(v, place(bare(v))) }

// seconds prints a time in its own unit: "412 ms".
func seconds(v float64) string {
	sc := choose(timeScales(), []float64{v})
	return brief(v/sc.by) + " " + sc.unit
}

// percent prints a share; only all is 100 % and only none is 0 %.
func percent(v float64) string {
	switch p := 100 * v; {
	case math.IsNaN(v):
		return dash
	case p > 99.9 && p < 100:
		return ">99.9 %"
	case p > 0 && p < 0.1:
		return "<0.1 %"
	case p == math.Trunc(p):
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	default:
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	}
}

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
		ttft50: g.quantile(ttft50), ttft95: g.quantile(ttft95), tpot50: g.quantile(tpot50),
		e2e50: g.quantile(e2e50), e2e95: g.quantile(e2e95), e2e99: g.quantile(e2e99),
		goodput: unknown(), within: share(float64(g.Good), g.N, g.Tau),
		up: unknown(), down: unknown(), energy: unknown(), quality: share(g.Quality.Sum, g.Quality.N, 1),
		gap: gap{math.NaN(), math.NaN(), math.NaN()},
	}
	if g.N == 0 {
		return s
	}
	n := float64(g.N)
	if len(g.repeats) >= enoughRepeats { // Wilson's interval, widened if repeats differ by more than luck
		over := overRepeats(g.column(withinShare))
		if over.Lo < s.within.Lo { // false for NaN
			s.within.Lo = over.Lo
		}
		if over.Hi > s.within.Hi {
			s.within.Hi = over.Hi
		}
	}
	if offered := g.Offered.Seconds(); offered > 0 {
		s.goodput = Stat{V: float64(g.Good) / offered, Lo: s.within.Lo * n / offered, Hi: s.within.Hi * n / offered, N: g.N}
	}
	s.up, s.down = bare(g.Up/n), bare(g.Down/n)
	sum, source := g.joules()
	s.energy, s.energySource = bare(sum/n), source
	return s
}

// quantile is a quantile of all requests of the group, or the median of those of
// its repeats where there are enough of them.
func (g *Group) quantile(i int) Stat {
	q := quantiles()[i]
	values := *q.of(g)
	s := quantile(values, q.p, g.Tau)
	if len(g.repeats) >= enoughRepeats {
		over := overRepeats(g.column(i))
		over.Max = float64(len(values))/float64(len(g.repeats))*(1-q.p) < 1-1e-9
		s = over
	}
	if g.overloaded() { // no value to be near to: a longer run gives another
		s.Lo, s.Hi = math.NaN(), math.NaN()
	}
	return s
}

// TTFT50, TPOT50, E2E50 and E2E95 are quantiles over the requests that ended well,
// in seconds.
func (g *Group) TTFT50() Stat { return g.quantile(ttft50) }

// TPOT50 is the median time per output token after the first.
func (g *Group) TPOT50() Stat { return g.quantile(tpot50) }

// E2E50 is the median end-to-end time.
func (g *Group) E2E50() Stat { return g.quantile(e2e50) }

// E2E95 is the 95th percentile of the end-to-end time.
func (g *Group) E2E95() Stat { return g.quantile(e2e95) }

// Within is the share of all requests that ended well inside every limit.
func (g *Group) Within() Stat { return summarise(g).within }

// Goodput is the rate of requests that met every limit, per second of offered time.
func (g *Group) Goodput() Stat { return summarise(g).goodput }

// Score is the mean task score of the requests that have one.
func (g *Group) Score() Stat { return share(g.Quality.Sum, g.Quality.N, 1) }

// Joules is the energy per request; NaN where it is unknown.
func (g *Group) Joules() Stat { return summarise(g).energy }

// PerRequest is a sum over the group's requests, per request.
func (g *Group) PerRequest(sum float64) Stat {
	if g.N == 0 {
		return unknown()
	}
	return bare(sum / float64(g.N))
}

// Valid reports whether all runs of the group are to be trusted.
func (g *Group) Valid() bool { return g.N > 0 && len(g.invalid()) == 0 }

// Overloaded reports whether latencies of the group grow with the length of its run.
func (g *Group) Overloaded() bool { return g.overloaded() }

// Share estimates a share of n that sums to sum, with Wilson's interval.
func Share(sum float64, n int) Stat { return share(sum, n, 1) }

// Quantile is a quantile of independent values in ascending order, with its interval.
func Quantile(sorted []float64, p float64) Stat { return quantile(sorted, p, 1) }

// Median is the median of one value per repeat, with its interval; NaNs are left out.
func Median(values []float64) Stat { return overRepeats(values) }

// Bare is a value without an interval.
func Bare(v float64) Stat { return bare(v) }

func (g *Group) column(i int) (out []float64) {
	for _, r := range g.repeats {
		out = append(out, r[i])
	}
	return out
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

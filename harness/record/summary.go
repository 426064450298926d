package record

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Value is one metric of one run. NaN means that the run has none: an unknown
// energy, a quantile over nothing.
type Value struct {
	Metric Metric
	V      float64
}

// Summary computes the per-run metrics from rows added one by one. It keeps
// eight bytes per row for each metric of which it needs a quantile and 24 to
// know the order of misses, so its memory is that of one cell. The result does not depend on timing, but sums
// of floats depend on the order of rows: add them by ID.
type Summary struct {
	cell   *Cell
	table  []Metric
	bases  []string
	of     []func(*Request) float64
	values [][]float64
	t      totals
}

// NewSummary starts a summary of one run of a cell.
func NewSummary(c *Cell) *Summary {
	s := &Summary{cell: c, table: runMetrics(), t: totals{cell: c, first: math.MaxInt64}}
	for _, m := range s.table {
		if m.base != "" && !slices.Contains(s.bases, m.base) {
			s.bases, s.of = append(s.bases, m.base), append(s.of, m.of)
		}
	}
	s.values = make([][]float64, len(s.bases))
	return s
}

// Grow makes room for n more rows.
func (s *Summary) Grow(n int) {
	for i := range s.values {
		s.values[i] = slices.Grow(s.values[i], n)
	}
	s.t.bursts.fates = slices.Grow(s.t.bursts.fates, n)
}

// Add takes in one row. It keeps nothing of r.
func (s *Summary) Add(r *Request) {
	s.t.add(r)
	if r.Outcome != OK {
		return
	}
	for i, of := range s.of {
		if v := of(r); !math.IsNaN(v) {
			s.values[i] = append(s.values[i], v)
		}
	}
}

// Values returns the per-run metrics in the order of the table.
func (s *Summary) Values() []Value {
	out := make([]Value, len(s.table))
	for _, v := range s.values {
		slices.Sort(v)
	}
	s.t.bursts.count()
	rounds := s.cell.Trains()
	for i, m := range s.table {
		out[i] = Value{Metric: m}
		if m.base != "" {
			sorted := s.values[slices.Index(s.bases, m.base)]
			if out[i].V = Quantile(sorted, m.rank); m.less > 0 {
				out[i].V -= Quantile(sorted, m.less)
			}
		} else {
			out[i].V = m.run(&s.t)
		}
		if math.IsInf(out[i].V, 0) || rounds && !m.ofRounds() {
			out[i].V = math.NaN() // a rate over no time, a share of nothing, a first token of a round
		}
	}
	return out
}

// Quantile is the smallest of the sorted values with at least a share p of them
// at or below it (the inverse of the empirical distribution); NaN of none.
func Quantile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[index(len(sorted), p)]
}

// rank is Quantile for unsorted integers, 0 of none; it sorts what it is given.
func rank[T cmp.Ordered](vs []T, p float64) (v T) {
	if len(vs) == 0 {
		return v
	}
	slices.Sort(vs)
	return vs[index(len(vs), p)]
}

// index is the position of the smallest of n sorted values with a share p at or
// below it: ceil(pn)-1, where a product that rounding pushed just above an
// integer (0.07 × 100) is that integer.
func index(n int, p float64) int {
	x := float64(p * float64(n))
	return min(max(int(math.Ceil(x-float64(1e-9*x)))-1, 0), n-1)
}

// totals are the sums over a run's rows.
type totals struct {
	cell                         *Cell
	requests, ok, good           int
	counts                       [NumCounters]int64
	prompt                       float64
	tokens, okTokens, goodTokens float64
	up, down, inSystem           float64
	first, last                  time.Duration
	energy                       float64
	energyKnown, energyUnknown   bool
	quality                      float64
	scored                       int
	reached                      reached
	jitter                       jitter
	pace                         pace
	bursts                       bursts
}

func (t *totals) add(r *Request) {
	t.requests++
	t.first, t.last = min(t.first, r.Intended), max(t.last, r.Done)
	t.inSystem += (r.Done - r.Intended).Seconds()
	t.tokens += float64(r.OutputTokens)
	t.prompt += float64(r.PromptTokens)
	for c, n := range r.Counts {
		t.counts[c] += n
	}
	t.up, t.down = t.up+float64(r.UpBytes), t.down+float64(r.DownBytes)
	if r.Outcome == OK {
		t.ok++
		t.okTokens += float64(r.OutputTokens)
	}
	t.reached.add(r)
	t.jitter.add(r)
	t.pace.add(r)
	good := t.cell.Good(r)
	t.bursts.add(r, !good)
	if good {
		t.good++
		t.goodTokens += float64(r.OutputTokens)
	}
	if !math.IsNaN(r.Quality) {
		t.quality += r.Quality
		t.scored++
	}
	for _, e := range r.Energy {
		t.energyUnknown = t.energyUnknown || e.Unknown
		if e.Known() {
			t.energyKnown = true
			t.energy += float64(e.Joules)
		}
	}
}

// makespan is the time from the first intended start to the last end; NaN of a
// run without requests.
func (t *totals) makespan() float64 {
	if t.requests == 0 {
		return math.NaN()
	}
	return (t.last - t.first).Seconds()
}

func (t *totals) offered() float64 {
	if t.cell.Horizon <= 0 {
		return math.NaN()
	}
	return t.cell.Horizon.Seconds()
}

// joules is the energy of all requests: unknown if any step of any request
// could not tell, or if none could. A request that was turned away before it
// did anything spent nothing.
func (t *totals) joules() float64 {
	if t.energyUnknown || !t.energyKnown {
		return math.NaN()
	}
	return t.energy
}

func (t *totals) utilisation() float64 {
	u := math.NaN()
	for _, n := range t.cell.Nodes {
		if n.Slots > 0 {
			if v := n.Busy.Seconds() / float64(n.Slots) / t.makespan(); math.IsNaN(u) || v > u {
				u = v
			}
		}
	}
	return u
}

// ratio is one counter over another; NaN where nothing was counted.
func (t *totals) ratio(a, b Counter) float64 { return over(float64(t.counts[a]), int(t.counts[b])) }

// share is a counter's part of it and its complement together.
func (t *totals) share(a, rest Counter) float64 {
	return over(float64(t.counts[a]), int(t.counts[a]+t.counts[rest]))
}

// heldShare is over the bytes that devices had and those that they asked servers for.
func (t *totals) heldShare() float64 {
	held := t.counts[HeldBytes]
	return over(float64(held), int(held+t.counts[CacheHitBytes]+t.counts[CacheMissBytes]))
}

func (t *totals) figure(name string) float64 {
	if v, ok := t.cell.Figures[name]; ok {
		return v
	}
	return math.NaN()
}

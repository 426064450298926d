package bundle

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/harness/stats"
	"meibench/internal/canon"
)

// confidence is that of the intervals of claims.
const confidence = 0.95

// Run is a run folder that is read, with the path that it has, or will have, in
// a bundle.
type Run struct {
	Path      string       // runs/RUN
	Set       *results.Set // open
	Plan      string       // SHA-256 of plan.json, in hexadecimal; "" where there is none
	Committed bool         // there is a receipt of a log

	asked int // runs of cells by the plan, 0 where there is none
}

// Claims gathers the runs of cells of a bundle into claims. What reads the rows
// for reasons of its own hands its figures over and saves a second pass.
type Claims struct {
	list []*gathering
	at   map[[3]string]*gathering // run, suite, cell
}

// gathering is a claim whose sample still grows.
type gathering struct {
	claim  Claim
	index  int // of the cell
	params string
	said   map[string]bool // reasons
	names  []record.Metric
	values [][]float64 // by metric
}

// Figures are what the rows of one run of a cell say.
type Figures struct {
	Requests int            // rows
	Good     int            // of these, within all limits
	Missed   int            // of these, with an outcome that is not ok
	Values   []record.Value // per-run metrics, in the order of their table
}

// Measure reads the rows of run i of a set, with their spans, and derives its
// figures from them alone. A row that breaks an invariant is an error.
func Measure(set *results.Set, i int) (f Figures, err error) {
	run := set.Runs()[i]
	sum := record.NewSummary(&run.Cell)
	for r, err := range set.Full(i) {
		if err != nil {
			return f, err
		}
		sum.Add(r)
		f.count(&run.Cell, r)
	}
	f.Values = sum.Values()
	return f, nil
}

// count takes in one row.
func (f *Figures) count(c *record.Cell, r *record.Request) {
	f.Requests++
	if c.Good(r) {
		f.Good++
	}
	if r.Outcome != record.OK {
		f.Missed++
	}
}

// Add takes in one run of a cell of the run at a path (runs/RUN). Runs that
// share run, suite and cell are one claim and must agree in what they are.
func (l *Claims) Add(path string, c *record.Cell, f Figures) error {
	if l.at == nil {
		l.at = map[[3]string]*gathering{}
	}
	params, err := canon.JSON(c.Params)
	if err != nil {
		return fmt.Errorf("claim of %s: %w", results.KeyOf(c), err)
	}
	key := [3]string{path, c.Suite, c.Name}
	g := l.at[key]
	if g == nil {
		id, err := canon.Hash(key)
		if err != nil {
			return err
		}
		g = &gathering{index: c.Index, params: string(params), said: map[string]bool{}, claim: Claim{ID: id[:16], Run: path, Suite: c.Suite, Cell: c.Name, App: c.App,
			Pipeline: c.Pipeline, Site: c.Site, Model: c.Model, Mode: c.Mode, Params: c.Params, Contract: c.Contract, Tier: c.Tier, Stated: c.Stated, Valid: true}}
		l.at[key], l.list = g, append(l.list, g)
	}
	if w := &g.claim; g.params != string(params) || g.index != c.Index || w.App != c.App || w.Pipeline != c.Pipeline || w.Site != c.Site ||
		w.Model != c.Model || w.Mode != c.Mode || w.Contract != c.Contract || w.Tier != c.Tier || w.Stated != c.Stated {
		return fmt.Errorf("%s: %s is not the same thing as other runs of this cell: application, pipeline, site, model, mode, parameters and contract must be equal: the tables were put together from several runs", path, results.KeyOf(c))
	}
	g.add(c, f)
	return nil
}

func (g *gathering) add(c *record.Cell, f Figures) {
	g.claim.Runs++
	g.claim.Requests += f.Requests
	g.claim.Good += f.Good
	g.claim.Valid = g.claim.Valid && c.Valid
	for _, why := range c.Invalid {
		if !g.said[why] {
			g.said[why] = true
			g.claim.Invalid = append(g.claim.Invalid, why)
		}
	}
	for _, v := range f.Values {
		i := slices.IndexFunc(g.names, func(m record.Metric) bool { return m.Name == v.Metric.Name })
		if i < 0 {
			i = len(g.names)
			g.names, g.values = append(g.names, v.Metric), append(g.values, nil)
		}
		if !math.IsNaN(v.V) {
			g.values[i] = append(g.values[i], v.V)
		}
	}
}

// Summary is the claims so far, sorted by run, place in the suite and name. Runs
// that are INVALID count like any other, so that leaving them out is nothing to
// gain from; the claim then says that it is not valid.
func (l *Claims) Summary() Summary {
	slices.SortStableFunc(l.list, func(a, b *gathering) int {
		if c := strings.Compare(a.claim.Run, b.claim.Run); c != 0 {
			return c
		}
		if a.index != b.index {
			return a.index - b.index
		}
		return strings.Compare(a.claim.Suite+"/"+a.claim.Cell, b.claim.Suite+"/"+b.claim.Cell)
	})
	out := Summary{Schema: SummaryFormat, Claims: make([]Claim, 0, len(l.list))}
	for _, g := range l.list {
		c := g.claim
		c.Metrics = map[string]Metric{}
		for i, m := range g.names {
			if vs := g.values[i]; len(vs) > 0 {
				c.Metrics[m.Name] = middle(vs, m.Unit)
			}
		}
		out.Claims = append(out.Claims, c)
	}
	return out
}

// middle is the median of a sample of at least one value and its interval. The
// ends of the interval are values of the sample. So is the median, or the mean of
// two: stats interpolates, which another processor rounds to another last digit,
// and here every digit is compared.
func middle(vs []float64, unit string) Metric {
	iv := stats.Median(vs, confidence)
	vs = slices.Sorted(slices.Values(vs))
	n := len(vs)
	low, high := vs[(n-1)/2], vs[n/2]
	m := Metric{Value: low + (high-low)/2, N: n, Unit: unit} // cannot overflow; halving is exact, fused or not
	if !math.IsInf(iv.Lo, 0) && !math.IsInf(iv.Hi, 0) {
		m.Low, m.High = &iv.Lo, &iv.Hi
	}
	return m
}

// Summarise derives every claim of some runs from their rows. The figures in the
// tables of cells are not looked at.
func Summarise(runs []*Run) (Summary, error) {
	s, _, err := summarise(runs)
	return s, err
}

// summarise also counts what was tried.
func summarise(runs []*Run) (Summary, Attempts, error) {
	var claims Claims
	var tried Attempts
	for _, run := range runs {
		tried.Cells += max(run.asked, run.Set.Manifest.Expected)
		for i, c := range run.Set.Runs() {
			f, err := Measure(run.Set, i)
			if err == nil {
				err = claims.Add(run.Path, &c.Cell, f)
			}
			if err != nil {
				return Summary{}, tried, err
			}
			tried.count(&c.Cell, f)
		}
	}
	return claims.Summary(), tried, nil
}

// count takes in one run of a cell.
func (a *Attempts) count(c *record.Cell, f Figures) {
	a.Done++
	if !c.Valid {
		a.Invalid++
	}
	a.Requests += int64(f.Requests)
	a.Missed += int64(f.Missed)
}

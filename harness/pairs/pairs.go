// Package pairs compares measured runs of cells with their modelled twins, request by
// request: error of the mean and of quantiles, and how many measured requests lie in
// the interval that a profile states around the modelled ones.
//
//	list, err := pairs.Compare("runs/measured", "runs/modelled")
//	err = pairs.Text(os.Stdout, pairs.Pool(list))
//
// Requests of a measured and of a modelled cell are the same by construction, since
// schedules and prompts come from seeds; times count from the intended start. What it
// does not do: run or fit anything (package twin), or compare emulated cells.
package pairs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/canon"
)

// HostFile is the profile of the machine in a run folder.
const HostFile = "host.yaml"

// Metric is what of a request is compared.
type Metric int

// Metrics, by the intended clock.
const (
	E2E Metric = iota
	TTFT
	TPOT
	NumMetrics
)

// String is the metric's name in tables and profiles.
func (m Metric) String() string { return [...]string{"e2e", "ttft", "tpot"}[m] }

// Stat is what of a metric's distribution is compared.
type Stat int

// Stats. Quantiles are by the nearest rank, as everywhere.
const (
	Mean Stat = iota
	P50
	P90
	P95
	P99
	NumStats
)

// String is the stat's name in tables.
func (s Stat) String() string { return [...]string{"mean", "p50", "p90", "p95", "p99"}[s] }

// Figures are one metric of a pair of cells, in seconds.
type Figures struct {
	Measured, Modelled [NumStats]float64 // NaN where no request has the metric
	N                  int               // requests of which both sides have the metric
	Inside             int               // of these, how many measured values lie inside the stated interval
	Bounded            int               // of these, for how many an interval is stated
}

// Error is modelled / measured - 1.
func (f *Figures) Error(s Stat) float64 { return f.Modelled[s]/f.Measured[s] - 1 }

// Covered is the share of requests inside the stated interval; NaN without one.
func (f *Figures) Covered() float64 {
	if f.Bounded == 0 {
		return math.NaN()
	}
	return float64(f.Inside) / float64(f.Bounded)
}

// Pair is a measured run of a cell and its modelled twin.
type Pair struct {
	Measured, Modelled record.Cell
	Tier               string // of the profile that the twin was modelled with
	Metrics            [NumMetrics]Figures

	left, right map[int]taken // requests by ID: measured and modelled
	interval    *profiles.Interval
	runs        int // that were pooled
}

// ErrNoTwins says that two runs have no cell in common.
var ErrNoTwins = errors.New("no measured cell has a modelled twin (same application, pipeline, site, model, parameters and seed)")

// Compare pairs the measured cells of a run folder with the modelled ones of another,
// or of the same. Intervals are those of the profile in the modelled one's folder.
func Compare(measured, modelled string) ([]Pair, error) {
	sheet, err := profiles.LoadDevice(filepath.Join(modelled, HostFile))
	if errors.Is(err, fs.ErrNotExist) {
		sheet, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	return Between(measured, modelled, sheet, "measured")
}

// Between is Compare with a profile, nil for none, and another mode for measured.
func Between(measured, modelled string, sheet *profiles.DeviceSheet, mode string) (out []Pair, err error) {
	a, err := results.Read(measured)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	b, err := results.Read(modelled)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	twins := map[string]int{}
	for i, c := range b.Runs() {
		if c.Cell.Mode == "modelled" {
			twins[alike(&c.Cell)] = i
		}
	}
	for i, c := range a.Runs() {
		j, ok := twins[alike(&c.Cell)]
		if c.Cell.Mode != mode || !ok {
			continue
		}
		p := Pair{Measured: c.Cell, Modelled: b.Runs()[j].Cell}
		var law *costmodel.Law
		if sheet != nil {
			law = costmodel.NewLaw(sheet)
		}
		if err := p.fill(a, i, b, j, law); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s and %s: %w", measured, modelled, ErrNoTwins)
	}
	return out, nil
}

// alike is equal for a measured cell and its twin.
func alike(c *record.Cell) string {
	params, err := canon.JSON(c.Params)
	if err != nil { // a parameter that is no JSON came from no run
		panic(err)
	}
	return fmt.Sprintf("%q %q %q %q %q %d %s", Modeless(c.Name), c.App, c.Pipeline, c.Site, c.Model, c.Seed, params)
}

// Modeless is the name of a cell without its mode: that of its twin too.
func Modeless(name string) string {
	parts := slices.DeleteFunc(strings.Split(name, "/"), func(p string) bool { return strings.HasPrefix(p, "mode=") })
	return strings.Join(parts, "/")
}

// Pool joins the repeats of each cell to one pair, in the order of the first ones.
func Pool(pairs []Pair) (out []Pair) {
	type cell struct{ suite, name string }
	at := map[cell]int{}
	for _, p := range pairs {
		key := cell{p.Measured.Suite, p.Measured.Name}
		k, ok := at[key]
		if !ok {
			k = len(out)
			at[key] = k
			first := p
			first.left, first.right = map[int]taken{}, map[int]taken{}
			out = append(out, first)
		}
		all := &out[k]
		all.runs++
		for _, to := range []struct{ from, to map[int]taken }{{p.left, all.left}, {p.right, all.right}} {
			for id, t := range to.from {
				to.to[all.runs<<40|id] = t
			}
		}
	}
	for k := range out {
		out[k].bound(out[k].interval)
	}
	return out
}

// fill reads both sides.
func (p *Pair) fill(a *results.Set, i int, b *results.Set, j int, law *costmodel.Law) error {
	left, err := times(a, i)
	if err != nil {
		return err
	}
	right, err := times(b, j)
	if err != nil {
		return err
	}
	var interval *profiles.Interval
	if law != nil {
		m := &hardware.Model{Name: p.Measured.Model}
		if d, ok := b.Manifest.Models[p.Measured.Model]; ok {
			m.Digest = d
		} else if d, ok := a.Manifest.Models[p.Measured.Model]; ok {
			m.Digest = d
		}
		p.Tier, interval = law.Tier(m), law.Interval(m)
	}
	p.left, p.right = left, right
	p.bound(interval)
	return nil
}

// bound works out the figures, with an interval.
func (p *Pair) bound(in *profiles.Interval) {
	p.interval = in
	for m := range NumMetrics {
		p.Metrics[m] = Figures{}
		p.Metrics[m].of(p.left, p.right, m, in)
	}
}

// taken are the times of one request in seconds; NaN where it has none.
type taken [NumMetrics]float64

// times are those of the requests of a run that ended well, by ID.
func times(s *results.Set, i int) (map[int]taken, error) {
	out := map[int]taken{}
	for r, err := range s.Rows(i) {
		if err != nil {
			return nil, err
		}
		if r.Outcome != record.OK {
			continue
		}
		t := taken{(r.Done - r.Intended).Seconds(), math.NaN(), record.TPOTOf(r)}
		if r.FirstToken != record.Unset {
			t[TTFT] = (r.FirstToken - r.Intended).Seconds()
		}
		out[r.ID] = t
	}
	return out, nil
}

// of summarises a metric over the requests that both sides have.
func (f *Figures) of(a, b map[int]taken, m Metric, in *profiles.Interval) {
	var left, right []float64
	for _, id := range ids(a) {
		x, y := a[id][m], math.NaN()
		if t, ok := b[id]; ok {
			y = t[m]
		}
		if math.IsNaN(x) || math.IsNaN(y) {
			continue
		}
		left, right = append(left, x), append(right, y)
		if lo, hi, ok := bounds(in, m, b[id]); ok {
			f.Bounded++
			if x >= lo && x <= hi {
				f.Inside++
			}
		}
	}
	f.N = len(left)
	f.Measured, f.Modelled = summary(left), summary(right)
}

// bounds are the interval around a modelled request: of the first token by the
// prefill's, of what follows by the decode's.
func bounds(in *profiles.Interval, m Metric, t taken) (lo, hi float64, ok bool) {
	if in == nil {
		return 0, 0, false
	}
	switch m {
	case TTFT:
		return t[TTFT] * in.Prefill.Lo, t[TTFT] * in.Prefill.Hi, true
	case TPOT:
		return t[TPOT] * in.Decode.Lo, t[TPOT] * in.Decode.Hi, true
	}
	first := t[TTFT]
	if math.IsNaN(first) {
		return 0, 0, false
	}
	rest := t[E2E] - first
	return first*in.Prefill.Lo + rest*in.Decode.Lo, first*in.Prefill.Hi + rest*in.Decode.Hi, true
}

func ids(a map[int]taken) []int {
	out := make([]int, 0, len(a))
	for id := range a {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func ratios(a, b map[int]taken, m Metric) (out []float64) {
	for _, id := range ids(a) {
		if r := a[id][m] / b[id][m]; r > 0 && !math.IsInf(r, 0) { // false for NaN
			out = append(out, r)
		}
	}
	return out
}

func summary(v []float64) (out [NumStats]float64) {
	if len(v) == 0 {
		for s := range out {
			out[s] = math.NaN()
		}
		return out
	}
	slices.Sort(v)
	for _, x := range v {
		out[Mean] += x / float64(len(v))
	}
	for s, p := range [...]float64{P50: 0.5, P90: 0.9, P95: 0.95, P99: 0.99} {
		if p > 0 {
			out[s] = record.Quantile(v, p)
		}
	}
	return out
}

// Stamp writes into a profile by how much the twins of the runs that it was made
// from missed, and replaces the intervals of its fits, and of the pairs, by those of
// whole requests.
func Stamp(sheet *profiles.DeviceSheet, pairs []Pair) *profiles.DeviceSheet {
	out := *sheet
	out.Fitted = slices.Clone(sheet.Fitted)
	for i := range out.Fitted {
		f := &out.Fitted[i]
		var mine []*Pair
		for k := range pairs {
			if pairs[k].Measured.Model == f.Model {
				mine = append(mine, &pairs[k])
			}
		}
		if len(mine) == 0 {
			continue
		}
		in := &profiles.Interval{Source: fmt.Sprintf("10 %% and 90 %% quantiles of measured over modelled requests, %d cell(s)", len(mine))}
		var okd, okp bool
		in.Prefill, okp = middle(mine, TTFT)
		in.Decode, okd = middle(mine, TPOT)
		if okd && okp {
			f.Interval = in
		}
		var bounded []Pair
		for _, p := range mine {
			p.bound(f.Interval)
			bounded = append(bounded, *p)
		}
		f.Errors = Misses(bounded)
	}
	return &out
}

// middle bounds the middle 80 % of all requests of pairs.
func middle(pairs []*Pair, m Metric) (profiles.Bounds, bool) {
	var r []float64
	for i := range pairs {
		r = append(r, ratios(pairs[i].left, pairs[i].right, m)...)
	}
	if len(r) < 10 {
		return profiles.Bounds{}, false
	}
	slices.Sort(r)
	return profiles.Bounds{Lo: r[(len(r)-1)/10], Hi: r[len(r)-1-(len(r)-1)/10]}, true
}

// Misses are the errors of pairs, metric by metric: each the median over the pairs of
// the error without sign.
func Misses(pairs []Pair) (out []profiles.Miss) {
	for m := range NumMetrics {
		x := profiles.Miss{Metric: m.String()}
		inside, bounded := 0, 0
		for i := range pairs {
			f := &pairs[i].Metrics[m]
			x.Requests, inside, bounded = x.Requests+f.N, inside+f.Inside, bounded+f.Bounded
		}
		if x.Requests == 0 {
			continue
		}
		if bounded > 0 {
			x.Covered = float64(inside) / float64(bounded)
		}
		for s, to := range []*float64{&x.Mean, &x.P50, &x.P90, &x.P95, &x.P99} {
			*to = MedianError(pairs, m, Stat(s))
		}
		out = append(out, x)
	}
	return out
}

// MedianError is the median over pairs of the error of a stat, without sign; 0
// without any.
func MedianError(pairs []Pair, m Metric, s Stat) float64 {
	var v []float64
	for i := range pairs {
		if e := pairs[i].Metrics[m].Error(s); !math.IsNaN(e) && !math.IsInf(e, 0) {
			v = append(v, math.Abs(e))
		}
	}
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// Sort orders pairs for printing: the worst error of the mean end-to-end time first.
func Sort(pairs []Pair) {
	slices.SortStableFunc(pairs, func(a, b Pair) int {
		return cmp.Compare(math.Abs(b.Metrics[E2E].Error(Mean)), math.Abs(a.Metrics[E2E].Error(Mean)))
	})
}

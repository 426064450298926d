package fitting

import (
	"fmt"
	"math"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
)

// Timed is one operation that a device ran.
type Timed struct {
	Model      string
	Kind       hardware.Kind // Prefill, Verify or Decode
	Span       hardware.Span
	Of         int // layers of the model
	Size       costmodel.Size
	Start, End time.Duration
}

// Trace is what one device did in one run, in order of start.
type Trace []Timed

// awake is the idleness from which on an operation finds a cold device: longer than
// the gaps between steps, shorter than those between requests.
const awake = time.Millisecond

// slot is how long a disturbance of a machine is taken to last.
const slot = 20 * time.Millisecond

// quantiles is how many a table of spread has.
const quantiles = 41

// FitTrace fits the law of one model from what devices did in whole runs. Beyond
// FitOps it knows what came before each operation, and so learns what idleness
// costs (Wake), what passes between operations (Gap), whether a batch has two
// segments (Knee), and by how much times scatter (Spread). Interval holds the 10 %
// and 90 % quantiles of measured over predicted single operations.
//
// A fit needs prefills and decode steps, and sizes that differ: the error says which
// are missing. The caller names Digest, Kernel and Source.
func FitTrace(traces []Trace, model string) (profiles.Fit, error) {
	fit := profiles.Fit{Model: model, Kind: profiles.Measured}
	g := gather(traces, model)
	for kind, what := range []string{"prefill", "decode step"} {
		if err := g[kind].enough(what); err != nil {
			return fit, fmt.Errorf("fit %s: %w", model, err)
		}
	}
	best := math.Inf(1)
	for _, fade := range []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9} {
		g.chill(traces, model, fade)
		c := robust(thin(g[1].rows), thin(g[1].secs))
		if loss := misfit(g[1].rows, g[1].secs, &c); loss < best*0.995 {
			best, fit.Wake.Fade = loss, fade
		}
	}
	g.chill(traces, model, fit.Wake.Fade)
	fit.Wake.After = awake.Seconds()
	fit.Decode, fit.Wake.Decode = g[1].fit()
	fit.Prefill, fit.Wake.Prefill = g[0].fit()
	if fit.Wake.Decode == 0 && fit.Wake.Prefill == 0 {
		fit.Wake = profiles.Wake{}
	}
	fit.Gap = gap(traces, model)
	g.residuals(&fit)
	return fit, nil
}

// group are the operations of one kind.
type group struct {
	rows  []vec
	secs  []float64
	at    []place // in the traces
	tiers []float64
	knee  float64
}

type place struct {
	trace int
	start time.Duration
}

// groups are prefills, with verifications, and decode steps.
type groups [2]*group

func gather(traces []Trace, model string) groups {
	g := groups{{}, {}}
	for i, t := range traces {
		for k := range t {
			o := &t[k]
			if o.Model != model || o.End <= o.Start {
				continue
			}
			to := g[0]
			if o.Kind == hardware.Decode {
				to = g[1]
			}
			v := extend(costmodel.RowFor(o.Kind, o.Span, o.Of, o.Size))
			to.rows, to.secs, to.at = append(to.rows, v), append(to.secs, (o.End-o.Start).Seconds()), append(to.at, place{i, o.Start})
		}
	}
	return g
}

// least is how many operations of a kind a fit needs.
const least = 8

func (g *group) enough(what string) error {
	if len(g.rows) < least {
		return fmt.Errorf("%d timed %ss: want at least %d (run more requests)", len(g.rows), what, least)
	}
	for k := range g.rows {
		if g.rows[k] != g.rows[0] {
			return nil
		}
	}
	return fmt.Errorf("all %d %ss have the same size, one point that a law cannot be drawn through: add requests with prompts and contexts of other lengths", len(g.rows), what)
}

// chill works out how cold the device was before each operation.
func (g *groups) chill(traces []Trace, model string, fade float64) {
	var next [2]int
	for _, t := range traces {
		cold, last := 0.0, time.Duration(0)
		for k := range t {
			o := &t[k]
			if o.Start-last >= awake {
				cold = 1
			}
			last = o.End
			was := cold
			cold *= fade
			if o.Model != model || o.End <= o.Start {
				continue
			}
			i := 0
			if o.Kind == hardware.Decode {
				i = 1
			}
			g[i].rows[next[i]][terms-1] = was * float64(o.Span.Len()) / float64(o.Of)
			next[i]++
		}
	}
}

// mostRows is how many operations the search for a form looks at.
const mostRows = 4000

func thin[T any](rows []T) []T {
	step := 1 + len(rows)/mostRows
	if step == 1 {
		return rows
	}
	var out []T
	for i := 0; i < len(rows); i += step {
		out = append(out, rows[i])
	}
	return out
}

// misfit is the mean error, relative and without sign; one operation counts at most a half.
func misfit(rows []vec, secs []float64, c *vec) float64 {
	sum := 0.0
	for k := range rows {
		sum += min(math.Abs(rows[k].dot(c)/secs[k]-1), 0.5)
	}
	return sum / float64(len(rows))
}

// fit finds the coefficients, with a knee where that explains clearly more, and what
// a cold device adds.
func (g *group) fit() (profiles.Coefficients, float64) {
	rows, secs := thin(g.rows), thin(g.secs)
	c := robust(rows, secs)
	loss := misfit(rows, secs, &c)
	for _, knee := range []float64{2, 4, 6, 8, 12, 16, 24, 32} {
		bent := bend(rows, knee)
		if bent == nil {
			continue
		}
		b := robust(bent, secs)
		if l := misfit(bent, secs, &b); l < 0.95*loss {
			loss, g.knee, c = l, knee, b
		}
	}
	if g.knee > 0 {
		g.rows = bend(g.rows, g.knee)
	}
	r := c.row()
	out := r.Coefficients()
	if g.knee > 0 {
		out.Knee, out.More = g.knee, c[terms-2]
	}
	g.tiers = c[:]
	return out, c[terms-1]
}

// bend splits tokens at a knee; nil where all lie on one side of it.
func bend(rows []vec, knee float64) []vec {
	out, over := slices.Clone(rows), 0
	for k := range out {
		v := &out[k]
		v[2], v[terms-2] = costmodel.Bend(v[2], v[1], knee)
		if v[terms-2] > 0 {
			over++
		}
	}
	if over < least || len(rows)-over < least {
		return nil
	}
	return out
}

// gap is the mean time from the end of an operation to the start of a decode step
// that follows it at once.
func gap(traces []Trace, model string) float64 {
	sum, n := 0.0, 0
	for _, t := range traces {
		for k := 1; k < len(t); k++ {
			if d := t[k].Start - t[k-1].End; t[k].Model == model && t[k].Kind == hardware.Decode && d >= 0 && d < awake {
				sum += d.Seconds()
				n++
			}
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// residuals fills in errors, interval and spread.
func (g *groups) residuals(fit *profiles.Fit) {
	type sums struct{ measured, predicted float64 }
	slots := map[place]*sums{}
	var errs []float64
	var ratios [2][]float64
	where := func(p place) place { return place{p.trace, p.start / slot} }
	for i, one := range g {
		c := vec(one.tiers)
		for k := range one.rows {
			p := max(one.rows[k].dot(&c), 1e-12)
			ratios[i] = append(ratios[i], one.secs[k]/p)
			errs = append(errs, math.Abs(p/one.secs[k]-1))
			s := slots[where(one.at[k])]
			if s == nil {
				s = &sums{}
				slots[where(one.at[k])] = s
			}
			s.measured, s.predicted = s.measured+one.secs[k], s.predicted+p
		}
	}
	var common, own []float64
	for _, s := range slots {
		common = append(common, s.measured/s.predicted)
	}
	for i, one := range g {
		for k, r := range ratios[i] {
			s := slots[where(one.at[k])]
			own = append(own, r/(s.measured/s.predicted))
		}
	}
	slices.Sort(errs)
	fit.Samples = len(errs)
	fit.MedianError, fit.P90Error = errs[(len(errs)-1)/2], errs[(len(errs)-1)*9/10]
	fit.Spread = &profiles.Spread{Slot: slot.Seconds(), Slots: table(common), Ops: table(own)}
	bounds := func(r []float64) profiles.Bounds {
		slices.Sort(r)
		return profiles.Bounds{Lo: r[(len(r)-1)/10], Hi: r[len(r)-1-(len(r)-1)/10]}
	}
	fit.Interval = &profiles.Interval{Prefill: bounds(ratios[0]), Decode: bounds(ratios[1]),
		Source: fmt.Sprintf("10 %% and 90 %% quantiles of measured over predicted times of %d operations", len(errs))}
}

// table is a list of evenly spaced quantiles whose mean, drawn with interpolation,
// is that of the values: the last one gives, since one large value must not count
// for as many as there are between two quantiles.
func table(values []float64) []float64 {
	slices.Sort(values)
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	out := make([]float64, quantiles)
	for j := range out {
		out[j] = values[int(math.Round(float64(j)*float64(len(values)-1)/(quantiles-1)))]
	}
	inner := out[0] / 2
	for _, v := range out[1 : quantiles-1] {
		inner += v
	}
	last := 2 * (sum/float64(len(values))*(quantiles-1) - inner)
	out[quantiles-1] = max(last, out[quantiles-2])
	for j := range out {
		out[j] = round(out[j])
	}
	return out
}

// round keeps five digits: a profile is read by people.
func round(v float64) float64 {
	if v == 0 {
		return 0
	}
	by := math.Pow(10, 4-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*by) / by
}

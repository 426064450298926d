package pairs

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"
)

// Text prints pairs, one line for each metric, and the medians over all of them.
func Text(w io.Writer, pairs []Pair) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "cell\ttier\tmetric\tn\tmeasured p50\tmodelled p50\tmean\tp50\tp90\tp95\tp99\tinside 80 %")
	for i := range pairs {
		p := &pairs[i]
		c := &p.Measured
		for m := range NumMetrics {
			f := &p.Metrics[m]
			if f.N == 0 {
				continue
			}
			fmt.Fprintf(t, "%s %s %s%s\t%s\t%s\t%d\t%s\t%s", c.App, c.Pipeline, c.Model, rateOf(c.Params), p.Tier, m, f.N, brief(f.Measured[P50]), brief(f.Modelled[P50]))
			for s := range NumStats {
				fmt.Fprintf(t, "\t%+.1f %%", 100*f.Error(s))
			}
			fmt.Fprintf(t, "\t%s\n", share(f.Covered()))
		}
	}
	for _, x := range Misses(pairs) {
		fmt.Fprintf(t, "median of %d\t\t%s\t%d\t\t", len(pairs), x.Metric, x.Requests)
		for _, v := range []float64{x.Mean, x.P50, x.P90, x.P95, x.P99} {
			fmt.Fprintf(t, "\t%.1f %%", 100*v)
		}
		fmt.Fprintf(t, "\t%s\n", share(x.Covered))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, b := range Bars(pairs) {
		fmt.Fprintf(w, "%-46s median %.1f %% (at most %.0f %%); %d of %d cells within\n", b.Name, 100*b.Value, 100*b.Most, b.Within, b.Of)
	}
	return nil
}

// Row is one metric of a pair, for programs.
type Row struct {
	Suite    string             `json:"suite"`
	Cell     string             `json:"cell"` // without its mode
	App      string             `json:"app"`
	Pipeline string             `json:"pipeline"`
	Model    string             `json:"model"`
	Tier     string             `json:"tier,omitempty"`
	Metric   string             `json:"metric"`
	Requests int                `json:"requests"`
	Measured map[string]float64 `json:"measured"` // seconds, by mean, p50, p90, p95, p99
	Modelled map[string]float64 `json:"modelled"`
	Inside   *float64           `json:"inside"` // share in the nominal 80 % interval; null where none is stated
}

// Rows are pairs for programs.
func Rows(pairs []Pair) (out []Row) {
	for i := range pairs {
		p := &pairs[i]
		for m := range NumMetrics {
			f := &p.Metrics[m]
			if f.N == 0 {
				continue
			}
			r := Row{Suite: p.Measured.Suite, Cell: Modeless(p.Measured.Name), App: p.Measured.App, Pipeline: p.Measured.Pipeline, Model: p.Measured.Model,
				Tier: p.Tier, Metric: m.String(), Requests: f.N, Measured: map[string]float64{}, Modelled: map[string]float64{}}
			for s := range NumStats {
				r.Measured[s.String()], r.Modelled[s.String()] = f.Measured[s], f.Modelled[s]
			}
			if c := f.Covered(); !math.IsNaN(c) {
				r.Inside = &c
			}
			out = append(out, r)
		}
	}
	return out
}

// Bar is what a twin of this machine has to keep: see Bars.
type Bar struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`  // the median over cells of the error without sign
	Most   float64 `json:"most"`   // what it may be
	Within int     `json:"within"` // cells
	Of     int     `json:"of"`
}

// Bars holds pairs against what is asked of a twin under Poisson load: E2E and TPOT
// within 8 % and TTFT within 20 % or 20 ms by their means, p99 within 25 %.
func Bars(pairs []Pair) (out []Bar) {
	for _, b := range []struct {
		name   string
		m      Metric
		s      Stat
		most   float64
		orMost float64 // seconds
	}{
		{"E2E, error of the mean", E2E, Mean, 0.08, 0},
		{"TPOT, error of the mean", TPOT, Mean, 0.08, 0},
		{"TTFT, error of the mean (or 20 ms)", TTFT, Mean, 0.20, 0.020},
		{"E2E, error of p99", E2E, P99, 0.25, 0},
		{"TPOT, error of p99", TPOT, P99, 0.25, 0},
		{"TTFT, error of p99", TTFT, P99, 0.25, 0},
	} {
		bar := Bar{Name: b.name, Value: MedianError(pairs, b.m, b.s), Most: b.most}
		for i := range pairs {
			f := &pairs[i].Metrics[b.m]
			if f.N == 0 {
				continue
			}
			bar.Of++
			if math.Abs(f.Error(b.s)) <= b.most || math.Abs(f.Modelled[b.s]-f.Measured[b.s]) <= b.orMost {
				bar.Within++
			}
		}
		out = append(out, bar)
	}
	return out
}

func rateOf(params map[string]any) string {
	if r, ok := params["rate"].(float64); ok && r > 0 {
		return fmt.Sprintf(" %g/s", r)
	}
	return ""
}

func brief(sec float64) string {
	if math.IsNaN(sec) {
		return "–"
	}
	d := time.Duration(math.Round(sec * 1e9))
	for _, u := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d >= 10*u {
			return d.Round(u / 100).String()
		}
	}
	return d.String()
}

func share(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", 100*v)
}

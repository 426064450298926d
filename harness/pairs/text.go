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
	return t.Flush()
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

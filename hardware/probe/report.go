package probe

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"meibench/hardware/profiles"
)

// Report is everything that was found out, ready to be printed.
type Report struct {
	Limits  *Limits       `json:"limits"`
	Kernels []Kernel      `json:"kernels,omitempty"`
	Fits    []FittedModel `json:"fits,omitempty"`
}

// FittedModel is a fit with what it rests on.
type FittedModel struct {
	Fit      profiles.Fit `json:"fit"`
	Evidence *Evidence    `json:"evidence"`
}

// JSON writes the report as one indented JSON object.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Text writes the report as tables for people.
func (r *Report) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	r.limits(t)
	r.kernels(t)
	for _, f := range r.Fits {
		f.table(t)
	}
	for _, warning := range r.Limits.Warnings {
		fmt.Fprintf(t, "\nwarning: %s\n", warning)
	}
	return t.Flush()
}

func (r *Report) limits(w io.Writer) {
	m := r.Limits.Machine
	fmt.Fprintf(w, "%s, %d core(s), %s/%s", m.CPU, m.Cores, m.OS, m.Arch)
	if m.Memory > 0 {
		fmt.Fprintf(w, ", %v", m.Memory)
	}
	if m.Virtual {
		fmt.Fprint(w, ", virtual")
	}
	if m.Governor != "" {
		fmt.Fprintf(w, ", governor %s", m.Governor)
	}
	for _, c := range m.Caches {
		fmt.Fprintf(w, ", %s %v", c.Name(), c.Bytes)
	}
	fmt.Fprintf(w, "\nmeasured in %v\n\nLIMIT\t\tTHREADS\tVALUE\tINTERVAL\tTRIALS\tMETHOD\n", r.Limits.Took.Round(10*time.Millisecond))
	for _, f := range r.Limits.Figures {
		threads := ""
		if f.Threads > 0 {
			threads = fmt.Sprint(f.Threads)
		}
		value, interval := "unknown", ""
		if !math.IsNaN(f.Value) {
			value, interval = scaled(f.Value, f.Unit), scaled(f.Low, "")+" .. "+scaled(f.High, f.Unit)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", f.Name, f.Detail, threads, value, interval, f.N, f.Method)
	}
}

func (r *Report) kernels(w io.Writer) {
	if len(r.Kernels) == 0 {
		return
	}
	fmt.Fprint(w, "\nKERNEL\tSHAPE\tFORMAT\tTHREADS\tTIME\tARITHMETIC\tTRAFFIC\tOF LIMIT\tBOUND BY\n")
	for _, k := range r.Kernels {
		share := "unknown"
		if k.Bound != "" {
			share = fmt.Sprintf("%.0f %%", 100*k.Share)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", k.Op, k.Shape, k.Format, k.Threads,
			scaled(k.Time.Seconds(), "s"), scaled(k.Rate(), k.Unit()), scaled(k.Bandwidth(), "B/s"), share, k.Bound)
	}
}

// table prints the law of a model and how well it predicts.
func (f FittedModel) table(w io.Writer) {
	fmt.Fprintf(w, "\nMODEL %s (%s)\nLAW\tPER OPERATION\tPER LAYER\tPER LAYER·TOKEN\tPER LAYER·PAIR\tHEAD\tHEAD PER SEQUENCE\n", f.Fit.Model, f.Fit.Kernel)
	for _, row := range []struct {
		name string
		c    profiles.Coefficients
	}{{"prefill", f.Fit.Prefill}, {"decode", f.Fit.Decode}} {
		c := row.c
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.name, scaled(c.Pass, "s"), scaled(c.Layer, "s"), scaled(c.Token, "s"),
			scaled(c.Pair, "s"), scaled(c.Head, "s"), scaled(c.HeadToken, "s"))
	}
	fmt.Fprintf(w, "%d operations fitted: median error %.1f %%, p90 %.1f %%\n", f.Fit.Samples, 100*f.Fit.MedianError, 100*f.Fit.P90Error)
	e := f.Evidence
	if e == nil {
		return
	}
	fmt.Fprintf(w, "operations left out of the fit: median error %.1f %%, p90 %.1f %% (%d rounds in %v)\n",
		100*e.HeldMedian, 100*e.HeldP90, e.Rounds, e.Took.Round(10*time.Millisecond))
	for _, wake := range []Figure{e.WakePrefill, e.WakeDecode} {
		if wake.N > 0 {
			fmt.Fprintf(w, "%s: %s more after a sleep (%s .. %s)\n", strings.Replace(wake.Name, "_", " ", 1),
				scaled(wake.Value, "s"), scaled(wake.Low, "s"), scaled(wake.High, "s"))
		}
	}
	fmt.Fprint(w, "\nOPERATION\tLAYERS\tSEQUENCES\tNEW\tCONTEXT\tAFTER SLEEP\tMEASURED\tPREDICTED\tERROR\tCLEAN TRIALS\n")
	for _, x := range e.Timings {
		slept, took, predicted, wrong := "", "unknown", "", ""
		if x.Slept {
			slept = "yes"
		}
		if x.Clean > 0 {
			took = scaled(x.Time.Seconds(), "s")
		}
		if x.HeldOut > 0 && x.Time > 0 {
			predicted, wrong = scaled(x.HeldOut.Seconds(), "s"), fmt.Sprintf("%+.1f %%", 100*(x.HeldOut.Seconds()/x.Time.Seconds()-1))
		}
		fmt.Fprintf(w, "%s\t%d..%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%d of %d\n", x.Kind, x.Lo, x.Hi, x.Sequences, x.New, x.Context, slept,
			took, predicted, wrong, x.Clean, x.N)
	}
}

// prefixes scale a base unit for people.
var prefixes = []struct {
	factor float64
	name   string
}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"}}

// scaled prints three digits with a decimal prefix.
func scaled(x float64, unit string) string {
	i := slices.IndexFunc(prefixes, func(p struct {
		factor float64
		name   string
	}) bool {
		return math.Abs(x) >= p.factor
	})
	if i < 0 || x == 0 {
		return strings.TrimSpace(fmt.Sprintf("%.3g %s", x, unit))
	}
	return strings.TrimSpace(fmt.Sprintf("%.3g %s%s", x/prefixes[i].factor, prefixes[i].name, unit))
}

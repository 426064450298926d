package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/spell"
	"meibench/reports/compare"
)

const compareLong = `Compare two sets of runs: run folders, or files of Go benchmark text (bench.txt,
or what go test -bench wrote). Several per side are pooled, separated by commas.

Per cell and metric: the medians, the ratio of new to old with its 95 % interval,
and a verdict. "faster" and "slower" (or better, worse) need a test that stays
significant after Holm's correction over all tests, and a ratio beyond the
practical band. "no difference shown" means that the interval lies within the
band; otherwise "cannot tell" says how many more runs it takes. Where six or more
seeds are on both sides, runs of equal seeds are compared in pairs (signed ranks),
else by benchstat's test (Mann-Whitney). Modelled cells are exact and compared
seed by seed. INVALID runs are left out and named.

Runs under different contracts (workload, data, model, limits, mode) are refused,
and the field that differs is named.

Exit codes: 0 nothing got worse; 1 something got slower or worse; 2 bad input, or
contracts that differ; 4 a run is not finished. docs/comparing.md tells more.`

type compareFlags struct {
	metrics  []string
	all      bool
	pair     string
	common   bool
	changed  bool
	markdown bool
	noGate   bool
	band     string
	alpha    float64
}

func newCompare(a *app) *cobra.Command {
	f := &compareFlags{}
	c := &cobra.Command{
		Use: "compare OLD NEW", Short: "what changed between two sets of runs, and how sure that is", Long: compareLong,
		Example: "  meibench compare runs/a runs/b\n  meibench compare runs/a1,runs/a2 runs/b1,runs/b2 --metric e2e_p50,goodput_share\n  meibench compare old.txt new.txt --md",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return withCode(exitUsage, fmt.Errorf("compare takes two sides, OLD and NEW, and got %d; several folders of one side are joined by commas", len(args)))
			}
			return a.compare(f, args[0], args[1])
		},
	}
	fs := c.Flags()
	fs.StringSliceVar(&f.metrics, "metric", nil, "metrics to compare, by name or by unit of benchmark text (default "+strings.Join(compare.Headline(), ",")+")")
	fs.BoolVar(&f.all, "all", false, "compare every metric that both sides have")
	fs.StringVar(&f.pair, "pair", "auto", "compare runs of equal seeds with each other: auto (from six on), always or never")
	fs.BoolVar(&f.common, "common", false, "leave cells under different contracts out instead of refusing")
	fs.BoolVar(&f.changed, "changed", false, "print only what differs")
	fs.BoolVar(&f.markdown, "md", false, "print Markdown")
	fs.BoolVar(&f.noGate, "no-gate", false, "exit code 0 even if something got slower or worse")
	fs.StringVar(&f.band, "band", "1%", "ratios up to this do not matter in practice")
	fs.Float64Var(&f.alpha, "alpha", 0.05, "chance of any false difference among all tests")
	return c
}

func (a *app) compare(f *compareFlags, oldArg, newArg string) error {
	band, err := fraction("--band", f.band)
	if err != nil {
		return withCode(exitUsage, err)
	}
	if !(f.alpha > 0 && f.alpha < 1) {
		return withCode(exitUsage, fmt.Errorf("--alpha %g: want a probability between 0 and 1", f.alpha))
	}
	pairing, ok := map[string]compare.Pairing{"auto": compare.Auto, "always": compare.Always, "never": compare.Never}[f.pair]
	if !ok {
		return oneOf("--pair", f.pair, []string{"always", "auto", "never"})
	}
	if err := knownMetrics(f.metrics); err != nil {
		return withCode(exitUsage, err)
	}
	old, err := loadSide(oldArg)
	if err != nil {
		return err
	}
	new, err := loadSide(newArg)
	if err != nil {
		return err
	}
	o := compare.Options{Metrics: f.metrics, All: f.all, Pair: pairing, Common: f.common}
	o.Band, o.Alpha = band, f.alpha
	c, err := compare.Compare(old, new, o)
	if err != nil {
		return withCode(exitUsage, err)
	}
	switch {
	case a.json:
		err = c.JSON(a.out)
	case f.markdown:
		err = c.Markdown(a.out, f.changed)
	default:
		err = c.Text(a.out, f.changed)
	}
	if n := c.Worse(); err == nil && n > 0 && !f.noGate {
		return &coded{exitGate, fmt.Errorf("%d figure(s) got slower or worse", n)}
	}
	return err
}

// loadSide reads one side; an unfinished run has an exit code of its own.
func loadSide(arg string) (*compare.Side, error) {
	s, err := compare.Load(strings.Split(arg, ",")...)
	if errors.Is(err, results.ErrUnfinished) {
		return nil, withCode(exitIncomplete, err)
	}
	return s, withCode(exitUsage, err)
}

// knownMetrics refuses names that no run can have; units of other benchmarks are
// not ours to know, but hold a slash or a hyphen.
func knownMetrics(names []string) error {
	var have []string
	for _, m := range record.Metrics() {
		if m.Bench != "" {
			have = append(have, m.Name)
		}
	}
	for _, n := range names {
		if m, ok := record.Lookup(n); ok && m.Bench != "" || strings.ContainsAny(n, "/-") {
			continue
		}
		msg := fmt.Sprintf("unknown metric %q", n)
		if near := spell.Nearest(n, have); near != "" {
			msg += fmt.Sprintf("; did you mean %q?", near)
		}
		return errors.New(msg + " (meibench list metrics has all)")
	}
	return nil
}

// fraction reads 3% or 0.03.
func fraction(flag, text string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v > 0 && v < 10) {
		return 0, fmt.Errorf("%s %s: want a share such as 3%% or 0.03", flag, text)
	}
	return v, nil
}

// isRun reports whether an argument is a run folder or benchmark text, not a suite.
func isRun(arg string) bool {
	if exists(filepath.Join(arg, results.ManifestFile)) {
		return true
	}
	info, err := os.Stat(arg)
	return err == nil && info.Mode().IsRegular() && filepath.Ext(arg) == ".txt"
}

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"meibench/workloads/traces"
)

// traceFlags are what all trace commands read a file with.
type traceFlags struct {
	format   string
	seed     uint64
	noSpread bool
	sort     bool
	out      string
	factor   float64
	rate     float64
}

func newTrace(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "trace", Short: "import, describe and scale recorded request traces",
		Long: "Read recorded request traces (" + strings.Join(traces.Formats(), ", ") + "; gzip is unpacked).\n" +
			"A malformed line is an error with file, line and column.",
	}
	f := &traceFlags{}
	fs := c.PersistentFlags()
	fs.StringVar(&f.format, "format", "", "format of the file (default: found out from its first line)")
	fs.Uint64Var(&f.seed, "seed", 1, "seed of the luck that spreads batches of equal time stamps")
	fs.BoolVar(&f.noSpread, "no-spread", false, "leave batches on their instants")
	fs.BoolVar(&f.sort, "sort", false, "sort by time instead of refusing time that goes backwards")

	imp := &cobra.Command{
		Use: "import FILE", Short: "write a trace in one form, as CSV", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := f.read(args[0])
			if err != nil {
				return err
			}
			return a.writeTrace(f, t)
		},
	}
	stats := &cobra.Command{
		Use: "stats FILE...", Short: "describe traces in numbers", Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.traceStats(f, args) },
	}
	scale := &cobra.Command{
		Use: "scale FILE", Short: "compress or stretch a trace in time", Args: cobra.ExactArgs(1),
		Long: "Compress (factor above 1) or stretch a trace in time. Burstiness is kept; removing requests instead would make it Poisson.",
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := f.read(args[0])
			if err != nil {
				return err
			}
			factor := f.factor
			if f.rate > 0 {
				factor = f.rate / t.Rate()
			}
			if t, err = t.Scale(factor); err != nil {
				return withCode(exitUsage, err)
			}
			return a.writeTrace(f, t)
		},
	}
	scale.Flags().Float64Var(&f.factor, "factor", 1, "how many times faster")
	scale.Flags().Float64Var(&f.rate, "rate", 0, "requests per second to reach, instead of a factor")
	scale.MarkFlagsMutuallyExclusive("factor", "rate")
	for _, sub := range []*cobra.Command{imp, scale} {
		sub.Flags().StringVarP(&f.out, "out", "o", "", "file to write (default: standard output)")
	}
	c.AddCommand(imp, stats, scale)
	return c
}

func (f *traceFlags) read(path string) (*traces.Trace, error) {
	t, err := traces.Open(path, traces.Options{Format: f.format, Seed: f.seed, NoSpread: f.noSpread, Sort: f.sort})
	return t, withCode(exitUsage, err)
}

func (a *app) writeTrace(f *traceFlags, t *traces.Trace) (err error) {
	var w io.Writer = a.out
	if f.out != "" {
		file, err := os.Create(f.out)
		if err != nil {
			return withCode(exitEnvironment, fmt.Errorf("write trace: %w", err))
		}
		defer func() {
			if cerr := file.Close(); err == nil {
				err = cerr
			}
		}()
		w = file
	}
	for _, n := range t.Notes {
		fmt.Fprintln(a.err, "note:", n)
	}
	return withCode(exitEnvironment, t.WriteCSV(w))
}

func (a *app) traceStats(f *traceFlags, paths []string) error {
	var all []any
	for i, path := range paths {
		t, err := f.read(path)
		if err != nil {
			return err
		}
		s := t.Stats()
		all = append(all, known(reflect.ValueOf(*s)))
		if a.json {
			continue
		}
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		if err := s.WriteText(a.out); err != nil {
			return err
		}
	}
	if a.json {
		return writeJSON(a.out, all)
	}
	return nil
}

// known is v for JSON: figures that a trace is too short for are null, since
// JSON has no NaN.
func known(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Float64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil
		}
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			out[v.Type().Field(i).Name] = known(v.Field(i))
		}
		return out
	case reflect.Array, reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = known(v.Index(i))
		}
		return out
	}
	return v.Interface()
}

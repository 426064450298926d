// Package engine presents what was measured of the reference engine: kernels of a
// layer, and whole models in the manner of llama-bench.
//
// The one idea: no speed stands alone. Beside every figure are the tier of the
// kernels that ran (generic, avx2, avx512, vnni, neon), the limit of this machine
// that binds the operation, and the share of it that was reached, so that a figure
// can be judged on another machine than the reader's.
//
//	r := &engine.Report{Limits: limits, Layer: layer, Kernels: kernels}
//	r.Write(os.Stdout, "table") // or md, csv, json, jsonl
//	r.Bench(file)               // Go benchmark text, for benchstat
//	r.Figure().SVG()            // the roofline
//
// Rows of models have the fields of llama-bench in its JSON, JSONL and CSV, so that
// programs which read those read these; what is ours follows behind.
//
// It measures nothing; package probe does.
package engine

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"meibench/hardware/probe"
	"meibench/internal/units"
)

// Report is what was measured on one machine. Kernels or Rows may be empty.
type Report struct {
	Commit  string // of the program
	Limits  *probe.Limits
	Layer   probe.Layer // of the kernels
	Kernels []probe.Kernel
	Rows    []Row
}

// Row is a test of a whole model.
type Row struct {
	probe.EngineRow
	Model Model
	Work  probe.Work // of one repeat
}

// Model says what was run.
type Model struct {
	File   string      // as it was named
	Type   string      // architecture, size, type of weights
	Bytes  units.Bytes // of all tensors in the file
	Params int
}

// Formats are what [Report.Write] writes.
var Formats = []string{"csv", "json", "jsonl", "md", "table"}

// Write prints the report. A table is for people and says what the machine can do
// first; the others are one table, list or line per measurement.
func (r *Report) Write(w io.Writer, format string) error {
	switch format {
	case "table":
		if err := r.head(w); err != nil {
			return err
		}
		return r.table().text(w)
	case "md":
		return r.table().markdown(w)
	case "csv":
		return r.csv(w)
	case "json", "jsonl":
		return r.json(w, format == "jsonl")
	}
	return fmt.Errorf("write report as %q: want one of %s", format, strings.Join(Formats, ", "))
}

// share is what a row reached of the limit that binds it.
func (r *Report) share(row *Row) (share float64, bound string) {
	return r.Limits.Share(row.Work, row.Threads, row.mean())
}

// mean is the time of a repeat.
func (r *Row) mean() time.Duration {
	var sum time.Duration
	for _, s := range r.Samples {
		sum += s
	}
	return sum / time.Duration(max(len(r.Samples), 1))
}

// threads are the numbers of threads that were measured, ascending.
func (r *Report) threads() (list []int) {
	for _, k := range r.Kernels {
		list = append(list, k.Threads)
	}
	for _, row := range r.Rows {
		list = append(list, row.Threads)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// limits are the figures that bind anything here at a number of threads, largest
// bandwidth first.
func (r *Report) limits(threads int) (memory, peaks []probe.Figure) {
	for _, c := range r.Limits.Machine.Caches {
		if f, ok := r.Limits.Limit(c.Name(), threads); ok {
			memory = append(memory, f)
		}
	}
	if f, ok := r.Limits.Limit("DRAM", threads); ok {
		f.Detail = "DRAM"
		memory = append(memory, f)
	}
	for _, kind := range []string{"F32", "int8"} {
		if f, ok := r.Limits.Limit(kind, threads); ok {
			f.Detail = kind + " " + f.Detail
			peaks = append(peaks, f)
		}
	}
	return memory, peaks
}

// giga prints a rate in units of 10^9: three digits, or all before the point.
func giga(v float64) string {
	if v >= 999.5e9 {
		return fmt.Sprintf("%.0f", v/1e9)
	}
	return fmt.Sprintf("%.3g", v/1e9)
}

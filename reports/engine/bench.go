package engine

import (
	"fmt"
	"io"
	"math"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"

	"meibench/hardware/probe"
)

// Bench writes Go benchmark text that benchstat reads: a line per trial of each
// kernel or model, and a line per limit, so that a file carries what its shares
// refer to. Limits are benchmarks and not configuration, because benchstat
// compares only what is configured alike, and they differ a little every time.
func (r *Report) Bench(out io.Writer) error {
	b := &benchWriter{w: benchfmt.NewWriter(out), limits: r.Limits}
	for _, unit := range []string{"B/s", "FLOP/s", "OP/s", "share-of-limit", "tokens/s"} {
		u := benchfmt.UnitMetadata{OrigUnit: unit, Value: "higher"}
		u.Unit, u.Key = unit, "better"
		b.write(&u)
	}
	m := r.Limits.Machine
	for _, c := range [][2]string{{"goos", m.OS}, {"goarch", m.Arch}, {"cpu", m.CPU}, {"tier", r.Limits.Tier}} {
		b.config = append(b.config, benchfmt.Config{Key: c[0], Value: []byte(c[1]), File: true})
	}
	for _, n := range r.threads() {
		memory, peaks := r.limits(n)
		for _, f := range append(memory, peaks...) {
			if !math.IsNaN(f.Value) {
				b.line(fmt.Sprintf("Limit/of=%s/threads=%d", word(f.Detail), n), benchfmt.Value{Value: f.Value, Unit: f.Unit})
			}
		}
	}
	for _, k := range r.Kernels {
		name := fmt.Sprintf("Kernel/op=%s/type=%s/%s/threads=%d", k.Op, word(strings.ToLower(k.Format)), strings.ReplaceAll(k.Shape, " ", "/"), k.Threads)
		if k.Format == "" {
			name = strings.Replace(name, "/type=", "", 1)
		}
		for _, s := range k.Samples {
			b.sample(name, k.Work(), k.Threads, s)
		}
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		name := fmt.Sprintf("Engine/model=%s/prompt=%d/gen=%d/depth=%d/cache=%s/threads=%d", word(path.Base(filepath.ToSlash(row.Model.File))),
			row.Prompt, row.Gen, row.Depth, strings.ToLower(row.Cache.String()), row.Threads)
		for _, s := range row.Samples {
			b.sample(name, row.Work, row.Threads, s, benchfmt.Value{Value: float64(row.Tokens()) / s.Seconds(), Unit: "tokens/s"})
		}
	}
	return b.err
}

// word is a text that a benchmark's name can hold as a value.
func word(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == '/' || r == '=' {
			return '_'
		}
		return r
	}, s)
}

// benchWriter keeps the first error.
type benchWriter struct {
	w      *benchfmt.Writer
	limits *probe.Limits
	config []benchfmt.Config
	err    error
}

func (b *benchWriter) write(r benchfmt.Record) {
	if b.err == nil {
		b.err = b.w.Write(r)
	}
}

func (b *benchWriter) line(name string, values ...benchfmt.Value) {
	b.write(&benchfmt.Result{Config: b.config, Name: benchfmt.Name(name), Iters: 1, Values: values})
}

// sample writes one trial.
func (b *benchWriter) sample(name string, w probe.Work, threads int, took time.Duration, more ...benchfmt.Value) {
	sec := took.Seconds()
	values := []benchfmt.Value{{Value: sec, Unit: "sec/op"}, {Value: w.Bytes / sec, Unit: "B/s"}}
	if w.Float > 0 {
		values = append(values, benchfmt.Value{Value: w.Float / sec, Unit: "FLOP/s"})
	}
	if w.Int > 0 {
		values = append(values, benchfmt.Value{Value: w.Int / sec, Unit: "OP/s"})
	}
	if share, bound := b.limits.Share(w, threads, took); bound != "" {
		values = append(values, benchfmt.Value{Value: share, Unit: "share-of-limit"})
	}
	b.line(name, append(values, more...)...)
}

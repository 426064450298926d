// Package reports turns run folders into tables, figures and pages. It is a pure
// function of what the folders hold: the same run gives the same bytes.
//
//	data, err := reports.Load("out/quickstart")
//	r := reports.Build(data)
//	r.Text(os.Stdout, 120)            // what a terminal shows
//	paths, err := r.Write("out/report") // report.md, report.html, figures
//
// The one idea: every sentence, digit and mark is derived. A number has no more
// digits than its 95 % interval supports; a quantile that the sample is too
// small for says so; an INVALID cell keeps its figures and loses its verdict; a
// figure without data says why instead of being left out.
//
// Names in run folders come from strangers. They are stripped of control
// characters when they are read and escaped in every output.
//
// The package does not run anything and does not rank runs of different
// contracts; compare and leaderboards do.
package reports

import (
	"fmt"
	"slices"
	"strings"

	"meibench/harness/record"
)

// Report is what a run shows, ready to be written in several formats.
type Report struct {
	Title       string
	Comparable  bool     // false for quick runs
	Answers     []string // plain sentences: which placement met the limits, by what numbers
	Warnings    []string // what makes the numbers doubtful
	Tables      []Table
	Figures     []Figure
	Runs        []RunFacts
	Definitions []Definition

	rows []cellRow
}

// RunFacts is where a run's numbers come from.
type RunFacts struct {
	Label, Dir string
	Facts      []Fact
	Files      []string // names in the run folder
}

// Fact is a line of a run's manifest.
type Fact struct{ Name, Value string }

// Definition says what a metric in the tables means.
type Definition struct{ Name, Unit, Doc string }

// Build makes the report of a run, or of several side by side.
func Build(d *Data) *Report {
	b := newBuilder(newView(d))
	r := &Report{Title: b.title(), Comparable: true, Definitions: definitions()}
	for _, run := range d.Runs {
		r.Comparable = r.Comparable && !run.Manifest.Quick
		r.Runs = append(r.Runs, runFacts(&run))
	}
	r.Answers, r.Warnings = b.answers(), b.warnings()
	r.Tables = []Table{b.latency(), b.outcome()}
	if t := b.agreement(); t != nil {
		r.Tables = append(r.Tables, *t)
	}
	r.Figures = b.figures()
	r.rows = b.cellRows()
	return r
}

// Invalid is how many cells are INVALID.
func (r *Report) Invalid() (n int) {
	for i := range r.rows {
		if !r.rows[i].Valid {
			n++
		}
	}
	return n
}

// title names the suites of the report.
func (b *builder) title() string {
	var suites []string
	for _, g := range b.Groups {
		if g.Cell.Suite != "" {
			suites = appendNew(suites, g.Cell.Suite)
		}
	}
	switch len(suites) {
	case 0:
		return "meibench report"
	case 1, 2, 3:
		return "meibench: " + strings.Join(suites, ", ")
	}
	return fmt.Sprintf("meibench: %s and %d more suites", suites[0], len(suites)-1)
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// definitions are those of the metrics that the tables show.
func definitions() (out []Definition) {
	for _, name := range []string{"ttft", "tpot", "e2e", "ttft_p50", "ttft_p95", "tpot_p50", "e2e_p50", "e2e_p95", "e2e_p99",
		"goodput", "goodput_share", "miss_share", "up_bytes_request", "down_bytes_request", "energy_per_request", "quality_mean"} {
		if m, ok := record.Lookup(name); ok {
			out = append(out, Definition{m.Name, m.Unit, m.Doc})
		}
	}
	return out
}

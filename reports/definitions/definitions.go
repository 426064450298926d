// Package definitions shows the same requests under the definitions of several tools:
// what each calls TTFT, TPOT, ITL and goodput.
//
//	views, err := definitions.Named("all")
//	s, err := definitions.Section(data, views)
//	r := reports.Build(data, s)
//	definitions.Text(os.Stdout, s)
//
// The one idea: no tool is right, but numbers by different rules must not stand side
// by side without their rule. The rules are those of record.Views; here they are only
// applied to the rows of run folders, which are read once more for it.
package definitions

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/reports"
)

// Named are the views of a name, or of several with commas between; "all" are all.
func Named(names string) (out []record.View, err error) {
	var have []string
	for _, v := range record.Views() {
		have = append(have, v.ID)
		if names == "all" || slices.Contains(strings.Split(names, ","), v.ID) {
			out = append(out, v)
		}
	}
	for n := range strings.SplitSeq(names, ",") {
		if n != "all" && !slices.Contains(have, n) {
			return nil, fmt.Errorf("no definition is called %q: have all, %s", n, strings.Join(have, ", "))
		}
	}
	return out, nil
}

// Tally is what a tool would say of a cell.
type Tally struct {
	View            record.View
	TTFT, TPOT, ITL []float64 // seconds, of requests that ended well and have one; sorted by Stats
	Good, N         int
}

// Of applies views to the requests of a cell; counts go on where the tallies are
// handed in again for another repeat.
func Of(tallies []Tally, c *record.Cell, rows iter.Seq2[*record.Request, error]) error {
	limits := record.Limits{TTFT: c.TTFTLimit, TPOT: c.TPOTLimit, E2E: c.E2ELimit}
	for r, err := range rows {
		if err != nil {
			return err
		}
		for i := range tallies {
			t := &tallies[i]
			t.N++
			if t.View.Good != nil && t.View.Good(r, limits) {
				t.Good++
			}
			if r.Outcome != record.OK {
				continue
			}
			for _, m := range []struct {
				of func(*record.Request) float64
				to *[]float64
			}{{t.View.TTFT, &t.TTFT}, {t.View.TPOT, &t.TPOT}, {t.View.ITL, &t.ITL}} {
				if m.of == nil {
					continue
				}
				if v := m.of(r); !math.IsNaN(v) {
					*m.to = append(*m.to, v)
				}
			}
		}
	}
	return nil
}

// Section reads the runs of data once more and makes a table of their cells, a row
// per tool.
func Section(d *reports.Data, views []record.View) (s reports.Section, err error) {
	t := reports.Table{Name: "by-definition", Title: "By definition",
		Caption: "Medians over the requests that ended well and for which the tool has the figure, with their 95 % intervals; ITL is a request's value or the mean of its gaps. “–”: the tool has no such figure. Goodput: the requests that the tool counts as good under this cell's limits, per second of offered time; other tools may divide by other times.",
		Columns: []reports.Column{{Head: "definition", Left: true}, {Head: "TTFT p50"}, {Head: "TPOT p50"}, {Head: "ITL p50"}, {Head: "good"}, {Head: "goodput", Unit: "req/s"}, {Head: "n"}}}
	sets := map[int]*results.Set{}
	defer func() {
		for _, set := range sets {
			err = errors.Join(err, set.Close())
		}
	}()
	for _, g := range reports.Labels(d) {
		if sets[g.Run] == nil {
			if sets[g.Run], err = results.Read(d.Runs[g.Run].Dir); err != nil {
				delete(sets, g.Run)
				return s, err
			}
		}
		group, err := cell(g, sets[g.Run], views)
		if err != nil {
			return s, err
		}
		t.Groups = append(t.Groups, group)
	}
	for _, v := range views {
		t.Notes = append(t.Notes, v.ID+": "+v.Doc+".")
	}
	return reports.Section{Name: "by-definition", Title: "The same requests under every tool's definitions", Tables: []reports.Table{t}}, nil
}

// cell is the group of rows of one cell.
func cell(g reports.Labelled, set *results.Set, views []record.View) (out reports.RowGroup, err error) {
	tallies := make([]Tally, len(views))
	for i := range views {
		tallies[i].View = views[i]
	}
	var offered time.Duration
	for i, run := range set.Runs() {
		if g.Holds(&run.Cell) {
			offered += run.Cell.Horizon
			if err := Of(tallies, &run.Cell, set.Rows(i)); err != nil {
				return out, err
			}
		}
	}
	out.Title = g.Cell.App + ", " + g.Label + ", " + g.Cell.Mode
	for i := range tallies {
		row := reports.Row{Group: g.Group, Values: tallies[i].values(offered)}
		if !g.Valid() {
			row.Flag = "see the warnings"
		}
		out.Rows = append(out.Rows, row)
	}
	return out, nil
}

func (t *Tally) values(offered time.Duration) []reports.Value {
	median := func(of func(*record.Request) float64, list []float64) reports.Value {
		if of == nil {
			return reports.Word("–")
		}
		slices.Sort(list)
		return reports.Time(reports.Quantile(list, 0.5))
	}
	good, rate := reports.Word("–"), reports.Word("–")
	if t.View.Good != nil && t.N > 0 {
		share := reports.Share(float64(t.Good), t.N)
		good = reports.Percent(share)
		if sec := offered.Seconds(); sec > 0 {
			rate = reports.Number(reports.Stat{V: float64(t.Good) / sec, Lo: share.Lo * float64(t.N) / sec, Hi: share.Hi * float64(t.N) / sec, N: t.N})
		}
	}
	return []reports.Value{reports.Word(t.View.ID), median(t.View.TTFT, t.TTFT), median(t.View.TPOT, t.TPOT), median(t.View.ITL, t.ITL), good, rate,
		{Text: fmt.Sprint(t.N), Sort: float64(t.N)}}
}

// Text prints the table of a section for a terminal.
func Text(w io.Writer, s reports.Section) error {
	t := &s.Tables[0]
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(tw, s.Title)
	for _, g := range t.Groups {
		fmt.Fprintf(tw, "\n%s\n", g.Title)
		for i, c := range t.Columns {
			fmt.Fprintf(tw, "%s%s", c.Head, map[bool]string{true: "\n", false: "\t"}[i == len(t.Columns)-1])
		}
		for _, r := range g.Rows {
			for i, v := range r.Values {
				fmt.Fprintf(tw, "%s%s", v, map[bool]string{true: "\n", false: "\t"}[i == len(r.Values)-1])
			}
		}
	}
	fmt.Fprintln(tw)
	for _, n := range t.Notes {
		fmt.Fprintln(tw, n)
	}
	return tw.Flush()
}

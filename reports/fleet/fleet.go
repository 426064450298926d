// Package fleet makes the table of cells in which several nodes hold a model: what they kept
// within limits, what the fleet cost, how it survived, and how good its decisions were.
//
//	data, err := reports.Load(dir)
//	r := reports.Build(data, fleet.Sections(data)...)
//
// The one idea: every number is a metric of package record, or a share of outcomes; of repeats the
// median is shown. Runs without such cells have no section.
//
// The package judges nothing, and draws no replicas over time: records keep sums only.
package fleet

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"meibench/harness/record"
	"meibench/reports"
)

// column is one of the table's, with how it is read from a cell.
type column struct {
	head, unit string
	scale      float64
	of         func(*reports.Group) float64
}

func metric(name string) func(*reports.Group) float64 {
	return func(g *reports.Group) float64 { return g.Metric(name) }
}

// columns of the table, in order.
func columns() []column {
	return []column{
		{"within", "%", 100, func(g *reports.Group) float64 { return float64(g.Good) / float64(max(g.N, 1)) }},
		{"not admitted", "%", 100, func(g *reports.Group) float64 {
			return float64(g.Outcomes[record.Rejected]) / float64(max(g.N, 1))
		}},
		{"available", "%", 100, metric("availability")},
		{"recovery", "s", 1, metric("recovery")},
		{"node time", "s", 1, metric("node_time")},
		{"replicas", "mean", 1, metric("replicas_mean")},
		{"most", "", 1, metric("replicas_max")},
		{"changes", "", 1, metric("replica_changes")},
		{"optimum", "%", 100, metric("optimum_ratio")},
		{"deciding", "s", 1, metric("decision_time")},
	}
}

// Sections is the section of d, or nothing if no cell has a fleet.
func Sections(d *reports.Data) []reports.Section {
	t := reports.Table{Name: "fleet", Title: "Fleets of replicas", Caption: "Within: requests inside every limit; those that were not admitted miss. Available: time in which some replica could serve. Recovery: longest time from a node's death to the next token of a request that it hit. Node time: of all replicas that were on or starting. Optimum: objective of the best decision over that of the one taken, by the instance that was decided on. Of repeats the median.",
		Columns: []reports.Column{{Head: "placement", Left: true}, {Head: "mode", Left: true}}}
	cols := columns()
	for _, c := range cols {
		t.Columns = append(t.Columns, reports.Column{Head: c.head, Unit: c.unit})
	}
	at := map[string]int{}
	var seen []*reports.Group
	for _, g := range reports.Labels(d) {
		if math.IsNaN(g.Metric("node_time")) {
			continue
		}
		i, ok := at[g.Cell.App]
		if !ok {
			i = len(t.Groups)
			at[g.Cell.App] = i
			t.Groups = append(t.Groups, reports.RowGroup{Title: g.Cell.App})
		}
		row := reports.Row{Group: g.Group, Values: []reports.Value{reports.Word(g.Label), reports.Word(g.Cell.Mode)}}
		for _, c := range cols {
			row.Values = append(row.Values, number(c.of(g.Group), c.scale))
		}
		t.Groups[i].Rows = append(t.Groups[i].Rows, row)
		seen = append(seen, g.Group)
	}
	if len(seen) == 0 {
		return nil
	}
	return []reports.Section{{Name: "fleet", Title: "Orchestration", Lead: []string{lead(seen)}, Tables: []reports.Table{t}}}
}

// lead says the extremes in a sentence each.
func lead(groups []*reports.Group) string {
	parts := []string{fmt.Sprintf("%d cells ran several replicas, which were on or starting for %s node-seconds", len(groups), extent(groups, "node_time", 1))}
	for _, p := range []struct{ name, format string }{
		{"availability", "some replica could serve for %s %% of the time"},
		{"optimum_ratio", "decisions reached %s %% of the optimum of their instances"},
	} {
		if text := extent(groups, p.name, 100); text != "" {
			parts = append(parts, fmt.Sprintf(p.format, text))
		}
	}
	if text := extent(groups, "recovery", 1); text != "" {
		parts = append(parts, fmt.Sprintf("after a node's death the next token came within %s s", text))
	}
	return "Orchestration: " + strings.Join(parts, "; ") + "."
}

// extent is the least and the largest of a metric, "" if no cell has it.
func extent(groups []*reports.Group, name string, scale float64) string {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, g := range groups {
		if v := g.Metric(name); !math.IsNaN(v) {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	switch a, b := digits(lo*scale), digits(hi*scale); {
	case lo > hi:
		return ""
	case a == b:
		return a
	default:
		return a + " to " + b
	}
}

func number(v, scale float64) reports.Value {
	if math.IsNaN(v) {
		return reports.Value{Text: "–", Sort: math.NaN()}
	}
	return reports.Value{Text: digits(v * scale), Sort: v}
}

// digits prints three of them, and never in powers of ten.
func digits(v float64) string {
	if v == 0 {
		return "0"
	}
	return strconv.FormatFloat(v, 'f', min(max(0, 2-int(math.Floor(math.Log10(math.Abs(v))))), 6), 64)
}

// Package inference says what runs of the inference suites mean: sections of a
// report, each the answer to one question, with figures and tables that bear it
// out.
//
//	data, err := reports.Load("runs/inference")
//	r := reports.Build(data, inference.Sections(data)...)
//
// A section is there when the run holds cells for it: where a model is cut, from
// which link on offloading pays, what drafting gains beside its closed form,
// cascades and routers between their two ends, early exits, bounded memories,
// adaptive cuts against the best cut of every request, capacity, and figures of the
// literature beside ours. Groups are compared only if they share run, application,
// site, mode and load.
//
// Everything is computed from records; nothing runs here. Figures of the literature
// come from package published, which computes ours by formulae.
package inference

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"meibench/harness/record"
	"meibench/reports"
	"meibench/reports/chart"
)

// Sections makes the sections that the data hold cells for.
func Sections(d *reports.Data) []reports.Section {
	all := slices.SortedStableFunc(slices.Values(d.Groups), func(a, b *reports.Group) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Cell.Index, b.Cell.Index))
	})
	var out []reports.Section
	for _, make := range []func([]*reports.Group) *reports.Section{cuts, breakEven, speculation, collaboration, exits, memories, regrets, capacities} {
		if s := make(all); s != nil {
			out = append(out, *s)
		}
	}
	if p := placements(d, all); p != nil {
		out = append([]reports.Section{*p}, out...)
	}
	if len(out) > 0 {
		if l := levels(d, wideCells(d, all)); l != nil {
			out = append(out, *l)
		}
		out = append(out, literature())
	}
	distinguish(out)
	return out
}

// distinguish gives figures of one name numbers: names are those of files.
func distinguish(sections []reports.Section) {
	seen := map[string]int{}
	for i := range sections {
		for k := range sections[i].Figures {
			f := &sections[i].Figures[k]
			if seen[f.Name]++; seen[f.Name] > 1 {
				f.Name = fmt.Sprintf("%s-no-%d", f.Name, seen[f.Name])
			}
		}
	}
}

// num is a numeric parameter of a cell; NaN if it has none of that name.
func num(g *reports.Group, key string) float64 {
	if v, ok := g.Cell.Params[key].(float64); ok {
		return v
	}
	return math.NaN()
}

// text is a parameter of a cell that is a name, "" if it has none.
func text(g *reports.Group, key string) string {
	s, _ := g.Cell.Params[key].(string)
	return s
}

// place is what cells must share to be compared: run, application, site, mode and
// load. Without the link where that is what a sweep changes.
func place(g *reports.Group, link bool) string {
	key := []string{strconv.Itoa(g.Run), g.Cell.Suite, g.Cell.App, g.Cell.Site, g.Cell.Mode, strconv.Itoa(g.N / max(1, len(g.Cells))), fmt.Sprint(g.Cell.Params["rate"])}
	if link {
		key = append(key, fmt.Sprint(g.Cell.Params["rtt"]), fmt.Sprint(g.Cell.Params["mbps"]))
	}
	return strings.Join(key, "\x00")
}

// first is the first group that fits, nil if none does.
func first(gs []*reports.Group, fits func(*reports.Group) bool) *reports.Group {
	if i := slices.IndexFunc(gs, fits); i >= 0 {
		return gs[i]
	}
	return nil
}

func pipeline(name string) func(*reports.Group) bool {
	return func(g *reports.Group) bool { return g.Cell.Pipeline == name }
}

// title names what a set of cells has in common.
func title(g *reports.Group) string {
	s := g.Cell.App + " on " + g.Cell.Site
	if g.Cell.Model != "" {
		s += ", " + g.Cell.Model
	}
	return s + ", " + g.Cell.Mode
}

// slug is a title for file names.
func slug(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	for strings.Contains(s, "--") {
		s = strings.ReplaceAll(s, "--", "-")
	}
	return strings.Trim(s[:min(len(s), 120)], "-")
}

// setting is a value of an axis in words.
func setting(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// whole is a value of an axis as an entry of a table.
func whole(v float64) reports.Value {
	if math.IsNaN(v) {
		return reports.Word("–")
	}
	out := reports.Word(setting(v))
	out.Sort = v
	return out
}

// mode ranks how far a mode is to be trusted.
func mode(g *reports.Group) int {
	if i := slices.Index([]string{"measured", "emulated", "modelled"}, g.Cell.Mode); i >= 0 {
		return i
	}
	return 3
}

// span is an estimate as a chart takes it, divided by a unit.
func span(s reports.Stat, by float64) chart.Range {
	return chart.Range{V: s.V / by, Lo: s.Lo / by, Hi: s.Hi / by}
}

// trust is the note of a cell that may not be believed.
func trust(g *reports.Group) string {
	switch {
	case g.N == 0:
		return "no request"
	case !g.Valid():
		return "INVALID"
	case g.Overloaded():
		return "overloaded"
	}
	return ""
}

// row is a row of a table with the marks of its cell.
func row(g *reports.Group, values ...reports.Value) reports.Row {
	r := reports.Row{Values: values, Group: g}
	switch trust(g) {
	case "INVALID":
		r.Flag = "see the warnings"
	case "overloaded":
		r.Values[0].Mark = "†"
	}
	return r
}

// overloadNote explains the mark of row.
const overloadNote = "† overloaded: latencies grow with the length of the run."

// rate is one counter over another, as a share of trials with its interval.
func rate(g *reports.Group, of, over record.Counter) reports.Stat {
	return reports.Share(float64(g.Counts[of]), int(g.Counts[over]))
}

// keys are a legend of named curves.
func keys(names []string) (out []chart.Key) {
	for i, n := range names {
		out = append(out, chart.Key{Text: n, Colour: i, Glyph: i, Index: i, Kind: chart.SeriesKey})
	}
	return out
}

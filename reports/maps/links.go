package maps

import (
	"fmt"
	"slices"
	"strings"

	"meibench/reports"
	"meibench/reports/chart"
)

// links is the heat map: which placement wins over which link.
func links(all []*reports.Group, verdicts map[*reports.Group]reports.Verdict) *reports.Section {
	s := &reports.Section{Name: "links", Title: "Which placement wins over which link"}
	t := reports.Table{Name: "links", Title: "Winners by link", Caption: Rule,
		Columns: reports.Columns([]string{"rate of the link", "round trip", "winner", "meets limits", "cannot be told from"}, "E2E p50", "within", "n")}
	for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { return num(g, "mbps") > 0 && num(g, "rtt") > 0 }), place) {
		xs, ys := values(set, "mbps"), values(set, "rtt")
		if len(xs) < 2 || len(ys) < 2 {
			continue
		}
		m := linkMap{set: set, names: names(set, "mbps", "rtt"), won: map[string]int{}, verdicts: verdicts}
		grid := chart.Grid{XAxis: "rate of the users' link (Mbit/s)", YAxis: "round trip (ms)"}
		for _, x := range xs {
			grid.X = append(grid.X, setting(x))
		}
		for _, y := range ys {
			grid.Y = append(grid.Y, milliseconds(y))
			var row []chart.Place
			for _, x := range xs {
				row = append(row, m.spot(x, y))
			}
			grid.Fields = append(grid.Fields, row)
		}
		t.Groups = append(t.Groups, reports.RowGroup{Title: title(set[0]) + ": " + verdicts[set[0]].Limits, Rows: m.rows})
		s.Lead = append(s.Lead, m.lead(len(xs)*len(ys)))
		s.Figures = append(s.Figures, reports.Figure{Name: numbered("links", len(s.Figures)), Title: "Winner by link: " + title(set[0]),
			Caption: Rule + " A hatched foot marks what cannot be told; grey: no placement meets the limits, the quickest in brackets. Second line: E2E p50 of the winner.",
			Alt:     m.lead(len(xs) * len(ys)), Picture: chart.Heat(title(set[0])+" ("+sample(set)+")", []chart.Grid{grid}, nil)})
	}
	if len(s.Figures) == 0 {
		return nil
	}
	s.Tables = []reports.Table{t}
	return s
}

// linkMap is a heat map being made.
type linkMap struct {
	set      []*reports.Group
	names    []string
	verdicts map[*reports.Group]reports.Verdict
	rows     []reports.Row
	won      map[string]int
	open     int // fields that cannot be told
	none     int // fields where nothing meets the limits
}

// spot judges one link and adds its row to the table.
func (m *linkMap) spot(x, y float64) chart.Place {
	here := reports.Where(m.set, func(g *reports.Group) bool { return num(g, "mbps") == x && num(g, "rtt") == y })
	c := Winner(here, m.verdicts)
	head := []reports.Value{{Text: setting(x) + " Mbit/s", Sort: x}, {Text: milliseconds(y) + " ms", Sort: y}}
	if c.Best == nil {
		m.none++
		m.rows = append(m.rows, reports.Row{Values: append(head, reports.Word("none: no valid cell"), reports.Word("–"), reports.Word(""), reports.Word("–"), reports.Word("–"), reports.Word("–"))})
		return chart.Place{Label: "no valid cell", Colour: chart.Grey}
	}
	name := placement(c.Best, "mbps", "rtt")
	var rivals []string
	for _, g := range c.Rival {
		rivals = append(rivals, placement(g, "mbps", "rtt"))
	}
	out := chart.Place{Label: name, Detail: reports.Time(c.Best.E2E50()).Text, Colour: slices.Index(m.names, name)}
	said, met := name, "yes"
	switch {
	case !c.Met:
		m.none++
		met = "no"
		said = "none (quickest: " + name + ")"
		out = chart.Place{Label: "none", Detail: "(" + name + " " + out.Detail + ")", Colour: chart.Grey}
	case len(rivals) > 0:
		m.open++
		said = "cannot tell (" + name + ")"
		out.Label, out.Hatch = strings.Join(append([]string{name}, rivals...), " or "), 1
	default:
		m.won[name]++
	}
	m.rows = append(m.rows, reports.Row{Group: c.Best, Values: append(head, reports.Word(said), reports.Word(met), reports.Word(strings.Join(rivals, ", ")),
		reports.Time(c.Best.E2E50()), reports.Percent(c.Best.Within()), reports.Value{Text: fmt.Sprint(c.Best.N), Sort: float64(c.Best.N)})})
	return out
}

// lead says who won how often.
func (m *linkMap) lead(fields int) string {
	var parts []string
	for _, n := range m.names {
		if m.won[n] > 0 {
			parts = append(parts, fmt.Sprintf("%s wins on %d", n, m.won[n]))
		}
	}
	if m.open > 0 {
		parts = append(parts, fmt.Sprintf("on %d two or more cannot be told apart", m.open))
	}
	if m.none > 0 {
		parts = append(parts, fmt.Sprintf("on %d none meets the limits", m.none))
	}
	return fmt.Sprintf("Links, %s: of %d links, %s.", title(m.set[0]), fields, strings.Join(parts, ", "))
}

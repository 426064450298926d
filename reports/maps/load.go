package maps

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/reports"
	"meibench/reports/chart"
)

// load is goodput against offered rate, with the knee of each placement.
func load(all []*reports.Group, verdicts map[*reports.Group]reports.Verdict) *reports.Section {
	s := &reports.Section{Name: "load", Title: "How much load each placement takes"}
	t := reports.Table{Name: "load", Title: "Load and goodput",
		Caption: "Knee: the highest offered rate up to which enough requests, at this and every lower rate of the sweep, were inside every limit. Goodput: those requests per second of offered time.",
		Columns: reports.Columns([]string{"placement"}, "offered", "goodput", "within", "E2E p95", "n")}
	t.Columns = append(t.Columns, reports.Column{Head: "meets limits", Left: true}, reports.Column{Head: "knee", Left: true})
	for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { return num(g, "rate") > 0 }), place) {
		if len(values(set, "rate")) < 3 {
			continue
		}
		sweeps := reports.Sets(set, func(g *reports.Group) string { return placement(g, "rate") })
		group := reports.RowGroup{Title: title(set[0]) + ": " + verdicts[set[0]].Limits}
		share := chart.Plot{XAxis: "offered (requests/s, log)", YAxis: "inside every limit (%)", LogX: true}
		good := chart.Plot{XAxis: "offered (requests/s, log)", YAxis: "goodput (requests/s, log)", LogX: true, LogY: true}
		var keys []chart.Key
		var said []string
		for i, w := range sweeps {
			slices.SortStableFunc(w, func(a, b *reports.Group) int { return cmp.Compare(num(a, "rate"), num(b, "rate")) })
			name, knee := placement(w[0], "rate"), kneeOf(w, verdicts)
			keys = append(keys, chart.Key{Text: name, Colour: i, Glyph: i, Index: i, Kind: chart.SeriesKey})
			a, b := chart.Curve{Colour: i, Glyph: i, Dash: i}, chart.Curve{Colour: i, Glyph: i, Dash: i}
			for k, g := range w {
				row := loadRow(g, verdicts[g])
				label := ""
				if k == knee {
					row.Values[7] = reports.Word("knee")
					label = name + ": knee at " + setting(num(g, "rate")) + "/s"
				}
				group.Rows = append(group.Rows, row)
				if g.Valid() {
					a.Dots = append(a.Dots, chart.Dot{X: num(g, "rate"), Y: span(g.Within(), 0.01)})
					b.Dots = append(b.Dots, chart.Dot{X: num(g, "rate"), Y: span(g.Goodput(), 1), Label: label, Ring: k == knee})
				}
			}
			share.Curves, good.Curves = append(share.Curves, a), append(good.Curves, b)
			said = append(said, name+" "+kneeText(w, knee))
		}
		rates := values(set, "rate")
		good.Curves = append(good.Curves, chart.Curve{Colour: chart.Grey, Dash: 2, Bare: true, Dots: []chart.Dot{even(rates[0]), even(rates[len(rates)-1])}})
		share.Level, share.LevelSaid = 100*verdicts[set[0]].Need, "needed"
		keys = append(keys, chart.Key{Text: "all that is offered", Colour: chart.Grey, Index: 2, Kind: chart.LineKey})
		t.Groups = append(t.Groups, group)
		lead := fmt.Sprintf("Load, %s: the knee is, for %s.", title(set[0]), strings.Join(said, "; "))
		s.Lead = append(s.Lead, lead)
		s.Figures = append(s.Figures, reports.Figure{Name: numbered("load", len(s.Figures)), Title: "Goodput against offered rate: " + title(set[0]),
			Caption: "A ring marks the knee: the highest rate up to which the limits hold. Upright strokes are 95 % intervals; a goodput of zero has no place on a log axis and is counted as not shown. A run is finite: beyond the knee its goodput depends on its length. INVALID cells are left out.",
			Alt:     lead, Picture: chart.Curves(title(set[0])+" ("+sample(set)+")", []chart.Plot{share, good}, keys)})
	}
	if len(s.Figures) == 0 {
		return nil
	}
	s.Tables = []reports.Table{t}
	return s
}

// even is a point where all that is offered is good.
func even(rate float64) chart.Dot {
	return chart.Dot{X: rate, Y: chart.Range{V: rate, Lo: math.NaN(), Hi: math.NaN()}}
}

// kneeOf is the last cell of a sweep up to which all meet the limits, -1 if not even
// the first does. An INVALID cell ends the search: nothing is known of it.
func kneeOf(w []*reports.Group, verdicts map[*reports.Group]reports.Verdict) int {
	for i, g := range w {
		if !g.Valid() || !verdicts[g].Passes {
			return i - 1
		}
	}
	return len(w) - 1
}

func kneeText(w []*reports.Group, knee int) string {
	switch {
	case knee < 0:
		return "below " + setting(num(w[0], "rate")) + " requests/s, the lowest rate tried"
	case knee == len(w)-1:
		return "at least " + setting(num(w[knee], "rate")) + " requests/s, the highest rate tried"
	}
	return "at " + setting(num(w[knee], "rate")) + " requests/s"
}

func loadRow(g *reports.Group, v reports.Verdict) reports.Row {
	met := map[bool]string{true: "yes", false: "no"}[v.Passes]
	r := reports.Row{Group: g}
	if !g.Valid() {
		r.Flag, met = "see the warnings", "not judged"
	}
	rate := num(g, "rate")
	r.Values = []reports.Value{reports.Word(placement(g, "rate")), {Text: setting(rate) + " /s", Sort: rate}, reports.Number(g.Goodput()), reports.Percent(g.Within()),
		reports.Time(g.E2E95()), {Text: fmt.Sprint(g.N), Sort: float64(g.N)}, reports.Word(met), reports.Word("")}
	return r
}

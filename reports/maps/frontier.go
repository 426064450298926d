package maps

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/reports"
	"meibench/reports/chart"
)

// Point is what a placement costs and gives.
type Point struct{ E2E, Energy, Quality float64 } // seconds, joules, score; NaN = unknown

// Beats reports whether p is nowhere worse than q and somewhere better. What one
// of the two does not know does not count.
func (p Point) Beats(q Point) bool {
	better := false
	for _, v := range [][2]float64{{p.E2E, q.E2E}, {p.Energy, q.Energy}, {-p.Quality, -q.Quality}} {
		if v[0] > v[1] { // false for NaN
			return false
		}
		better = better || v[0] < v[1]
	}
	return better
}

const mostPanels = 6

// frontier shows latency, energy and quality of the placements of each application
// of the first part, and which no other beats.
func frontier(all []*reports.Group, _ map[*reports.Group]reports.Verdict) *reports.Section {
	s := &reports.Section{Name: "frontier", Title: "Latency, energy and quality at once"}
	t := reports.Table{Name: "frontier", Title: "Frontier",
		Caption: "On the frontier: no other valid placement of the same application, site and mode is at least as good in E2E p50, energy per request and quality, and better in one. Quality of a modelled cell is that of its measured or emulated twin; “–” where nobody knows it: it then does not count.",
		Columns: reports.Columns([]string{"placement", "on the frontier"}, "E2E p50", "energy", "quality", "n")}
	var plots []chart.Plot
	var shown []*reports.Group
	trusted := trustedModes(all)
	var keys []chart.Key
	var used []string
	parts := map[string]string{}
	for _, g := range all {
		if _, ok := parts[g.Cell.Suite]; !ok {
			parts[g.Cell.Suite] = g.Axis("part")
		}
	}
	for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { return g.Axis("part") == parts[g.Cell.Suite] }), place) {
		valid := reports.Where(set, func(g *reports.Group) bool {
			return g.Valid() && g.E2E50().V > 0 && g.Joules().V > 0 && !g.Overloaded()
		})
		if len(valid) < 2 || len(names(valid)) > chart.Colours || num(valid[0], "rate") > 0 || num(valid[0], "mbps") > 0 || num(valid[0], "rtt") > 0 {
			continue
		}
		group := reports.RowGroup{Title: title(set[0])}
		p := chart.Plot{XAxis: set[0].Cell.App + ": energy (J/request, log)", YAxis: "E2E p50 (s, log)", LogX: true, LogY: true}
		var on []string
		for _, g := range valid {
			name, q := placement(g), quality(g, all)
			best := !slices.ContainsFunc(valid, func(o *reports.Group) bool { return o != g && pointOf(o, all).Beats(pointOf(g, all)) })
			if best {
				on = append(on, name)
			}
			i := slices.Index(used, name)
			if i < 0 {
				i = len(used)
				used, keys = append(used, name), append(keys, chart.Key{Text: name, Colour: i, Kind: chart.GlyphKey, Index: i})
			}
			label := name
			if !math.IsNaN(q.V) {
				label += " q " + q2(q.V)
			}
			p.Curves = append(p.Curves, chart.Curve{Colour: i, Glyph: i, Loose: true, Dots: []chart.Dot{{X: g.Joules().V, Y: span(g.E2E50(), 1), Label: label, Ring: best}}})
			group.Rows = append(group.Rows, reports.Row{Group: g, Values: []reports.Value{reports.Word(name), reports.Word(map[bool]string{true: "yes", false: "no"}[best]), reports.Time(g.E2E50()),
				reports.Energy(g.Joules()), reports.Number(q), {Text: fmt.Sprint(g.N), Sort: float64(g.N)}}})
		}
		t.Groups = append(t.Groups, group)
		drawn := trusted[set[0].Cell.App] == mode(set[0])
		if !drawn {
			continue
		}
		s.Lead = append(s.Lead, fmt.Sprintf("Frontier, %s: %s not beaten in latency, energy and quality at once.", title(set[0]), verb(on)))
		if len(plots) < mostPanels {
			plots, shown = append(plots, p), append(shown, valid...)
		}
	}
	if len(plots) == 0 {
		return nil
	}
	s.Tables, s.Folded = []reports.Table{t}, true
	s.Figures = []reports.Figure{{Name: "frontier", Title: "Latency, energy and quality",
		Caption: "Lower left is better; a ring marks what no other placement beats in all three; q is the quality where it is known; upright strokes are 95 % intervals of E2E p50. Of several modes the most trusted is drawn, the table has all. Overloaded and INVALID cells are left out.",
		Alt:     strings.Join(s.Lead, " "), Picture: chart.Curves(modesOf(shown)+" cells ("+sample(shown)+")", plots, keys)}}
	return s
}

func q2(v float64) string { return fmt.Sprintf("%.2f", v) }

func verb(on []string) string {
	if len(on) == 1 {
		return on[0] + " is"
	}
	return strings.Join(on[:len(on)-1], ", ") + " and " + on[len(on)-1] + " are"
}

// pointOf is what a cell costs and gives.
func pointOf(g *reports.Group, all []*reports.Group) Point {
	return Point{g.E2E50().V, g.Joules().V, quality(g, all).V}
}

// quality is the score of a cell, or of the cell that differs in its mode only.
func quality(g *reports.Group, all []*reports.Group) reports.Stat {
	score := g.Score()
	if !math.IsNaN(score.V) {
		return score
	}
	for _, o := range all {
		if o.Run == g.Run && o.Cell.Suite == g.Cell.Suite && o.Cell.App == g.Cell.App && o.Cell.Site == g.Cell.Site && o.Cell.Mode != g.Cell.Mode && o.Quality.N > 0 && modeless(o) == modeless(g) {
			return o.Score()
		}
	}
	return score
}

func modeless(g *reports.Group) string {
	return strings.Join(slices.DeleteFunc(strings.Split(g.Cell.Name, "/"), func(p string) bool { return strings.HasPrefix(p, "mode=") }), "/")
}

// mode ranks how far a mode is to be trusted.
func mode(g *reports.Group) int {
	if i := slices.Index([]string{"measured", "emulated", "modelled"}, g.Cell.Mode); i >= 0 {
		return i
	}
	return 3
}

// trustedModes are the most trusted mode of each application.
func trustedModes(all []*reports.Group) map[string]int {
	out := map[string]int{}
	for _, g := range all {
		if was, ok := out[g.Cell.App]; !ok || mode(g) < was {
			out[g.Cell.App] = mode(g)
		}
	}
	return out
}

func modesOf(gs []*reports.Group) string {
	var out []string
	for _, g := range gs {
		if !slices.Contains(out, g.Cell.Mode) {
			out = append(out, g.Cell.Mode)
		}
	}
	return strings.Join(out, ", ")
}

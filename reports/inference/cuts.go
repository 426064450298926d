package inference

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/reports"
	"meibench/reports/chart"
)

// cuts is the split-point curve: latency, bytes, quality and what an attack reads,
// against the cut, per codec.
func cuts(all []*reports.Group) *reports.Section {
	s := &reports.Section{Name: "cuts", Title: "Where to cut the model"}
	t := reports.Table{Name: "cuts", Title: "Split points",
		Caption: "One row per cut and codec: layers on the device, medians over the requests that ended well, bytes up per request, and the share of the prompt's tokens that an attack reads from what travels.",
		Columns: reports.Columns([]string{"codec"}, "cut", "E2E p50", "TTFT p50", "TPOT p50", "up", "derived out", "energy", "quality", "recovered")}
	for _, set := range reports.Sets(reports.Where(all, pipeline("split")), func(g *reports.Group) string { return place(g, true) + "\x00" + g.Cell.Model }) {
		set = reports.Where(set, func(g *reports.Group) bool { return g.Axis("cut") != "" && num(g, "cut") >= 1 && num(g, "tail") == 0 })
		if distinct(set, "cut") < 2 {
			continue
		}
		slices.SortStableFunc(set, func(a, b *reports.Group) int {
			return cmp.Or(cmp.Compare(text(a, "wire"), text(b, "wire")), cmp.Compare(num(a, "cut"), num(b, "cut")))
		})
		group := reports.RowGroup{Title: title(set[0])}
		for _, g := range set {
			group.Rows = append(group.Rows, row(g, reports.Word(text(g, "wire")), whole(num(g, "cut")), reports.Time(g.E2E50()), reports.Time(g.TTFT50()),
				reports.Time(g.TPOT50()), reports.Bytes(g.PerRequest(g.Up)), reports.Bytes(g.PerRequest(g.Derived)), reports.Energy(g.Joules()), reports.Number(g.Score()), reports.Percent(recovered(g))))
		}
		t.Groups = append(t.Groups, group)
		if lead := cutLead(set); lead != "" {
			s.Lead = append(s.Lead, lead)
		}
		if mode(set[0]) == 0 || !hasMode(all, set[0], "measured") { // one figure per setting, by the most trusted mode
			s.Figures = append(s.Figures, cutFigure(set))
		}
	}
	if len(t.Groups) == 0 {
		return nil
	}
	s.Tables = []reports.Table{t}
	return s
}

// recovered is what an attack reads, NaN where nobody measured it.
func recovered(g *reports.Group) reports.Stat {
	if v, ok := g.Cell.Figures["recovered_share"]; ok {
		return reports.Bare(v)
	}
	return reports.Bare(math.NaN())
}

// distinct counts the values of a numeric parameter.
func distinct(gs []*reports.Group, key string) int {
	seen := map[float64]bool{}
	for _, g := range gs {
		if v := num(g, key); !math.IsNaN(v) {
			seen[v] = true
		}
	}
	return len(seen)
}

// hasMode reports whether a set of cells like that of g was run in a mode.
func hasMode(all []*reports.Group, g *reports.Group, mode string) bool {
	return first(all, func(o *reports.Group) bool {
		return o.Run == g.Run && o.Cell.Mode == mode && plain(o) == plain(g) && o.Cell.Suite == g.Cell.Suite && o.Cell.App == g.Cell.App && o.Cell.Site == g.Cell.Site
	}) != nil
}

// cutLead says which cut was fastest and which sent least.
func cutLead(set []*reports.Group) string {
	good := reports.Where(set, func(g *reports.Group) bool { return g.Valid() && !math.IsNaN(g.E2E50().V) })
	if len(good) == 0 {
		return ""
	}
	name := func(g *reports.Group) string {
		return fmt.Sprintf("cut %s with %s", setting(num(g, "cut")), text(g, "wire"))
	}
	byTime := func(a, b *reports.Group) int { return cmp.Compare(a.E2E50().V, b.E2E50().V) }
	byBytes := func(a, b *reports.Group) int { return cmp.Compare(a.Up, b.Up) }
	fast, slow := slices.MinFunc(good, byTime), slices.MaxFunc(good, byTime)
	least, most := slices.MinFunc(good, byBytes), slices.MaxFunc(good, byBytes)
	out := fmt.Sprintf("Cuts, %s: fastest is %s, E2E p50 %s", title(fast), name(fast), reports.Time(fast.E2E50()))
	if fast.E2E50().Hi >= slow.E2E50().Lo {
		out += fmt.Sprintf(" (no cut is slower beyond the intervals; the slowest is %s, %s)", name(slow), reports.Time(slow.E2E50()))
	} else {
		out += fmt.Sprintf("; slowest %s, %s", name(slow), reports.Time(slow.E2E50()))
	}
	out += fmt.Sprintf(". Bytes up per request: %s (%s) to %s (%s).", reports.Bytes(least.PerRequest(least.Up)), text(least, "wire"), reports.Bytes(most.PerRequest(most.Up)), text(most, "wire"))
	known := reports.Where(good, func(g *reports.Group) bool { return !math.IsNaN(recovered(g).V) })
	if len(known) > 0 {
		byLeak := func(a, b *reports.Group) int { return cmp.Compare(recovered(a).V, recovered(b).V) }
		lo, hi := slices.MinFunc(known, byLeak), slices.MaxFunc(known, byLeak)
		if recovered(lo).V == recovered(hi).V {
			return out + fmt.Sprintf(" An attack reads %s of the prompt's tokens whatever the cut and the codec.", reports.Percent(recovered(hi)))
		}
		out += fmt.Sprintf(" An attack reads %s of the prompt's tokens at %s, and still %s at %s.", reports.Percent(recovered(hi)), name(hi), reports.Percent(recovered(lo)), name(lo))
	}
	return out
}

// cutFigure draws the curves of one setting, a colour per codec.
func cutFigure(set []*reports.Group) reports.Figure {
	plots := []chart.Plot{{XAxis: "layers on the device", YAxis: "E2E p50 (ms)"}, {XAxis: "layers on the device", YAxis: "up (kB per request)", LogY: true},
		{XAxis: "layers on the device", YAxis: "quality", Close: true}, {XAxis: "layers on the device", YAxis: "tokens recovered (%)"}}
	var names []string
	for i, curve := range reports.Sets(set, func(g *reports.Group) string { return text(g, "wire") }) {
		names = append(names, text(curve[0], "wire"))
		for p, of := range []func(*reports.Group) chart.Range{
			func(g *reports.Group) chart.Range { return span(g.E2E50(), 1e-3) },
			func(g *reports.Group) chart.Range { return span(g.PerRequest(g.Up), 1e3) },
			func(g *reports.Group) chart.Range { return chart.Range{V: g.Score().V, Lo: math.NaN(), Hi: math.NaN()} },
			func(g *reports.Group) chart.Range { return span(recovered(g), 0.01) },
		} {
			c := chart.Curve{Colour: i, Glyph: i, Dash: i}
			for _, g := range curve {
				if trust(g) != "INVALID" {
					c.Dots = append(c.Dots, chart.Dot{X: num(g, "cut"), Y: of(g)})
				}
			}
			plots[p].Curves = append(plots[p].Curves, c)
		}
	}
	return reports.Figure{Name: "cuts-" + slug(title(set[0])), Title: "Split points: " + title(set[0]),
		Caption: "Each glyph is one cell; upright strokes are 95 % intervals. INVALID cells are left out.",
		Alt:     "Latency, bytes, quality and recovered tokens against the cut, one line per codec: " + strings.Join(names, ", ") + ".",
		Picture: chart.Curves("Split points: "+title(set[0]), plots, keys(names))}
}

package inference

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/harness/record"
	"meibench/reference/route"
	"meibench/reports"
	"meibench/reports/chart"
)

// mix is a way to let two models work together, at several settings.
type mix struct {
	name   string
	cells  []*reports.Group // in order of the share
	shares []float64        // of the work that goes to the large model
	ends   [2]float64       // quality of the small and of the large model alone
	apart  bool             // by more than chance: their intervals do not meet
}

// collaboration is quality against latency of everything that was run at a place,
// and the curves of cascades, routers and consultation between their two ends.
func collaboration(all []*reports.Group) *reports.Section {
	s := &reports.Section{Name: "collaboration", Title: "Quality against latency, and two models together"}
	curves := reports.Table{Name: "mixes", Title: "Two models together",
		Caption: "PGR: the share of the gap in quality between the small model alone and the large one that is recovered, averaged over all shares sent to the large model (APGR; a random router has 0.5). CPT(y): the least share sent at which PGR reaches y. Shares of cascades and routers count requests, of consultation tokens.",
		Columns: reports.Columns([]string{"way"}, "settings", "small alone", "large alone", "APGR", "CPT(50 %)", "CPT(80 %)")}
	front := reports.Table{Name: "frontier", Title: "The frontier", Caption: "Settings that no other beats in both quality and median latency, the fastest first.",
		Columns: reports.Columns([]string{"setting"}, "E2E p50", "quality", "sent to the large", "up", "energy")}
	two := []string{"cascade", "consult", "route"}
	for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { return g.Quality.N > 0 && g.Valid() && exactText(g) }), func(g *reports.Group) string { return place(g, true) }) {
		mixes := mixesOf(set)
		hasTwo := first(set, func(g *reports.Group) bool { return slices.Contains(two, g.Cell.Pipeline) }) != nil
		if !hasTwo || len(mixes) == 0 {
			continue
		}
		name := fmt.Sprintf("%s on %s, %s", set[0].Cell.App, set[0].Cell.Site, set[0].Cell.Mode)
		group := reports.RowGroup{Title: name}
		for i := range mixes {
			row, lead := mixes[i].judge(name)
			group.Rows = append(group.Rows, row)
			s.Lead = append(s.Lead, lead)
		}
		curves.Groups = append(curves.Groups, group)
		best := pareto(set)
		s.Lead = append([]string{frontLead(name, set, best)}, s.Lead...)
		front.Groups = append(front.Groups, frontRows(name, best))
		s.Figures = append(s.Figures, frontFigure(name, set, best, mixes))
	}
	if len(curves.Groups) == 0 {
		return nil
	}
	s.Tables = []reports.Table{front, curves}
	return s
}

// exactText leaves out cells of sweeps that change no answer.
func exactText(g *reports.Group) bool { return g.Axis("cut") == "" && g.Axis("gamma") == "" }

// mixesOf finds the ways of two models that have settings to draw a line through.
func mixesOf(set []*reports.Group) (out []mix) {
	byName := reports.Sets(reports.Where(set, func(g *reports.Group) bool {
		return slices.Contains([]string{"cascade", "consult", "route"}, g.Cell.Pipeline)
	}), func(g *reports.Group) string {
		return strings.Join([]string{g.Cell.Pipeline, text(g, "router"), text(g, "score"), g.Cell.Model, text(g, "small"), g.Axis("part")}, " ")
	})
	for _, cells := range byName {
		if len(cells) < 3 {
			continue
		}
		m := mix{name: strings.TrimSpace(cells[0].Cell.Pipeline + " " + text(cells[0], "router")), cells: cells}
		slices.SortStableFunc(m.cells, func(a, b *reports.Group) int { return cmp.Compare(sent(a), sent(b)) })
		for _, g := range m.cells {
			m.shares = append(m.shares, sent(g))
		}
		var bounds [2]reports.Stat
		for i, end := range []*reports.Group{
			first(set, func(g *reports.Group) bool {
				return g.Cell.Pipeline == "local" && g.Cell.Model == text(cells[0], "small")
			}),
			first(set, func(g *reports.Group) bool {
				return (g.Cell.Pipeline == "offload" || g.Cell.Pipeline == "local") && g.Cell.Model == cells[0].Cell.Model
			}),
		} {
			m.ends[i] = math.NaN()
			if end != nil {
				bounds[i] = end.Score()
				m.ends[i] = bounds[i].V
			}
		}
		m.apart = bounds[0].Hi < bounds[1].Lo
		if m.shares[0] == 0 && math.IsNaN(m.ends[0]) {
			m.ends[0] = m.cells[0].Score().V
		}
		if k := len(m.shares) - 1; m.shares[k] == 1 && math.IsNaN(m.ends[1]) {
			m.ends[1] = m.cells[k].Score().V
		}
		out = append(out, m)
	}
	return out
}

// sent is the share of the work that went to the large model: of tokens where it is
// asked token by token, else of requests.
func sent(g *reports.Group) float64 {
	n := g.N
	if g.Cell.Pipeline == "consult" {
		n = g.Tokens
	}
	return min(1, float64(g.Counts[record.Escalated])/float64(n))
}

// curve is the quality against the share, from end to end; nil if an end is unknown.
func (m *mix) curve() route.Quality {
	if math.IsNaN(m.ends[0]) || math.IsNaN(m.ends[1]) {
		return nil
	}
	q := route.Quality{{Share: 0, Quality: m.ends[0]}}
	for i, g := range m.cells {
		if v := g.Score().V; m.shares[i] > 0 && m.shares[i] < 1 && !math.IsNaN(v) {
			q = append(q, route.Point{Share: m.shares[i], Quality: v})
		}
	}
	return append(q, route.Point{Share: 1, Quality: m.ends[1]})
}

// judge is a way's row and its sentence.
func (m *mix) judge(place string) (reports.Row, string) {
	n := func(v float64) reports.Value { return reports.Number(reports.Bare(v)) }
	q := m.curve()
	values := []reports.Value{reports.Word(m.name), reports.Word(fmt.Sprint(len(m.cells))), n(m.ends[0]), n(m.ends[1])}
	if q == nil || !(m.ends[1] > m.ends[0]) {
		why := "the two models alone are not in the run"
		if q != nil {
			why = fmt.Sprintf("the large model alone scores %s, the small one %s: there is no gap to recover", brief(m.ends[1]), brief(m.ends[0]))
		}
		return reports.Row{Values: append(values, n(math.NaN()), n(math.NaN()), n(math.NaN()))}, fmt.Sprintf("Two models, %s, %s: %s.", place, m.name, why)
	}
	row := reports.Row{Values: append(values, n(q.APGR()), reports.Percent(reports.Bare(q.CPT(0.5))), reports.Percent(reports.Bare(q.CPT(0.8))))}
	lead := fmt.Sprintf("Two models, %s, %s: recovers %s of the gap in quality on average over shares (chance: 50 %%), half of it with %s sent to the large model and 80 %% with %s.",
		place, m.name, reports.Percent(reports.Bare(q.APGR())).Text, reports.Percent(reports.Bare(q.CPT(0.5))).Text, reports.Percent(reports.Bare(q.CPT(0.8))).Text)
	if !m.apart {
		lead += fmt.Sprintf(" But the gap is small, %s to %s, and so few questions do not tell the two models apart: these shares are mostly luck.", brief(m.ends[0]), brief(m.ends[1]))
	}
	return row, lead
}

// pareto are the cells that no other beats in both quality and latency, the fastest
// first.
func pareto(set []*reports.Group) (out []*reports.Group) {
	known := reports.Where(set, func(g *reports.Group) bool { return !math.IsNaN(g.E2E50().V) })
	slices.SortStableFunc(known, func(a, b *reports.Group) int {
		return cmp.Or(cmp.Compare(a.E2E50().V, b.E2E50().V), cmp.Compare(b.Score().V, a.Score().V))
	})
	for _, g := range known {
		if len(out) == 0 || g.Score().V > out[len(out)-1].Score().V {
			out = append(out, g)
		}
	}
	return out
}

func frontLead(name string, set, best []*reports.Group) string {
	var parts []string
	for _, g := range best {
		parts = append(parts, fmt.Sprintf("%s (%s, quality %s)", label(g), reports.Time(reports.Bare(g.E2E50().V)).Text, reports.Number(g.Score()).Text))
	}
	if n := len(parts); n > 5 {
		parts = append(parts[:4:4], parts[n-1])
	}
	return fmt.Sprintf("Frontier, %s: of %d settings no other beats %d in both quality and median latency: %s.", name, len(set), len(best), strings.Join(parts, ", "))
}

func frontRows(name string, best []*reports.Group) reports.RowGroup {
	group := reports.RowGroup{Title: name}
	for _, g := range best {
		share := reports.Bare(math.NaN())
		if slices.Contains([]string{"cascade", "consult", "route"}, g.Cell.Pipeline) {
			share = reports.Bare(sent(g))
		}
		group.Rows = append(group.Rows, row(g, reports.Word(label(g)), reports.Time(g.E2E50()), reports.Number(g.Score()), reports.Percent(share), reports.Bytes(g.PerRequest(g.Up)), reports.Energy(g.Joules())))
	}
	return group
}

// frontFigure draws quality against latency, and quality against the share sent.
func frontFigure(name string, set, best []*reports.Group, mixes []mix) reports.Figure {
	none := math.NaN()
	cloud := chart.Plot{XAxis: "E2E p50 (ms)", YAxis: "quality", LogX: true, Close: true}
	shares := chart.Plot{XAxis: "share sent to the large model", YAxis: "quality", Close: true}
	var names []string
	for _, gs := range reports.Sets(set, func(g *reports.Group) string { return g.Cell.Pipeline }) {
		i := len(names)
		names = append(names, gs[0].Cell.Pipeline)
		c := chart.Curve{Colour: i, Glyph: i, Loose: true}
		for _, g := range gs {
			d := chart.Dot{X: g.E2E50().V * 1e3, Y: chart.Range{V: g.Score().V, Lo: none, Hi: none}}
			if slices.Contains(best, g) {
				d.Label = label(g)
			}
			c.Dots = append(c.Dots, d)
		}
		cloud.Curves = append(cloud.Curves, c)
	}
	line := chart.Curve{Colour: chart.Grey, Dash: 2}
	for _, g := range best {
		line.Dots = append(line.Dots, chart.Dot{X: g.E2E50().V * 1e3, Y: chart.Range{V: g.Score().V, Lo: none, Hi: none}})
	}
	cloud.Curves = append([]chart.Curve{line}, cloud.Curves...)
	for k, m := range mixes {
		i := slices.Index(names, m.cells[0].Cell.Pipeline)
		c := chart.Curve{Colour: i, Glyph: i, Dash: k % 4}
		for j, g := range m.cells {
			c.Dots = append(c.Dots, chart.Dot{X: m.shares[j], Y: span(g.Score(), 1)})
		}
		shares.Curves = append(shares.Curves, c)
	}
	return reports.Figure{Name: slug("frontier-" + name), Title: "Quality against latency: " + name,
		Caption: "Left: one glyph per setting; the grey line joins those that no other beats. Right: the ways of two models against the share of requests (of tokens for consult) sent to the large one, with 95 % intervals.",
		Alt:     "Quality against median latency, and against the share sent to the large model, for " + strings.Join(names, ", ") + ".",
		Picture: chart.Curves(name, []chart.Plot{cloud, shares}, keys(names))}
}

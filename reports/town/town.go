// Package town shows what moving users met in a site of several cells: how often
// they changed cells and what that held up, how evenly people and servers fared,
// and the town over time.
//
//	data, err := reports.Load("runs/city")
//	r := reports.Build(data, town.Sections(data)...)
//
// It is made from rows alone ([record.Places]), of the first repeat of each cell
// whose requests name the edge node that served them; other cells have no part in
// it. It draws no map: rows know the number of a node, not where it stands.
package town

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

// mostCurves is how many cells a picture compares.
const mostCurves = 6

// Sections makes the section, if a cell's requests were served in several places.
func Sections(d *reports.Data) []reports.Section {
	all := slices.SortedStableFunc(slices.Values(d.Groups), func(a, b *reports.Group) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Cell.Index, b.Cell.Index))
	})
	all = reports.Where(all, func(g *reports.Group) bool { return g.Places != nil && len(g.Places.ByNode) > 1 })
	if len(all) == 0 {
		return nil
	}
	s := reports.Section{Name: "town", Title: "On the move", Tables: []reports.Table{moves(all), shares(all)}}
	for _, set := range reports.Sets(all, setting) {
		part := ends(set)
		for _, f := range []reports.Figure{over(part, len(s.Figures)), spreads(part, len(s.Figures)+1)} {
			if n := len(set) - len(part); n > 0 {
				f.Caption += fmt.Sprintf(" Of %d cells those are drawn that hand-overs held up least and most; the others are in the tables.", len(set))
			}
			s.Figures = append(s.Figures, f)
		}
	}
	s.Lead = []string{lead(all)}
	return []reports.Section{s}
}

// ends are the cells of a set that are drawn: all, or those that were held up least and most, half each, in their order.
func ends(set []*reports.Group) []*reports.Group {
	if len(set) <= mostCurves {
		return set
	}
	by := slices.SortedStableFunc(slices.Values(set), func(a, b *reports.Group) int { return cmp.Compare(stalled(a), stalled(b)) })
	drawn := append(slices.Clone(by[:mostCurves/2]), by[len(by)-mostCurves/2:]...)
	return reports.Where(set, func(g *reports.Group) bool { return slices.Contains(drawn, g) })
}

// setting is what cells share that are drawn together.
func setting(g *reports.Group) string {
	return strings.Join([]string{strconv.Itoa(g.Run), g.Cell.Suite, g.Axis("part"), g.Cell.App, g.Cell.Site, g.Cell.Model, g.Cell.Mode}, "\x00")
}

// name tells a cell from others of its setting: its pipeline and the axes of its suite.
func name(g *reports.Group) string {
	out := []string{g.Cell.Pipeline}
	for _, p := range strings.Split(g.Cell.Name, "/") {
		if key, _, ok := strings.Cut(p, "="); ok && !slices.Contains([]string{"part", "app", "pipeline", "mode", "site", "model"}, key) {
			out = append(out, p)
		}
	}
	return strings.Join(out, " ")
}

func title(g *reports.Group) string {
	return strings.Join(slices.DeleteFunc([]string{g.Cell.App, g.Cell.Site, g.Cell.Model, g.Cell.Mode}, func(s string) bool { return s == "" }), ", ")
}

func lead(all []*reports.Group) string {
	best := slices.MinFunc(all, func(a, b *reports.Group) int { return cmp.Compare(stalled(a), stalled(b)) })
	worst := slices.MaxFunc(all, func(a, b *reports.Group) int { return cmp.Compare(stalled(a), stalled(b)) })
	if stalled(worst) == 0 {
		return "Several edge nodes served; no hand-over held an answer up."
	}
	if best == worst {
		return fmt.Sprintf("Hand-overs held up %.3g s of answers per thousand requests with %s (%s).", stalled(worst), name(worst), title(worst))
	}
	return fmt.Sprintf("Hand-overs held up least with %s (%s): %.3g s of answers per thousand requests; most with %s (%s): %.3g s.",
		name(best), title(best), stalled(best), name(worst), title(worst), stalled(worst))
}

// stalled is the time by which hand-overs held answers up, in s per thousand requests.
func stalled(g *reports.Group) float64 {
	return float64(g.Counts[record.StallTime]) * 1e-9 * 1000 / float64(max(g.N, 1))
}

// moves is the table of hand-overs.
func moves(all []*reports.Group) reports.Table {
	t := reports.Table{Name: "handovers", Title: "Hand-overs and what they held up",
		Caption: "Moved: requests during which the user changed cells, or whose conversation had to follow. Stall: by how much longer than the mean gap a hand-over made a user wait for the next token; quantiles over requests that were held up. Backhaul, computed again: for the hand-overs' sake.",
		Columns: reports.Columns([]string{"cell"}, "requests", "moved", "hand-overs / 1k", "stalls / 1k", "stall p50", "stall p95", "longest", "backhaul / 1k", "computed again")}
	t.Fill(all, setting, title, func(g *reports.Group) []reports.Value {
		p, k := g.Places, 1000/float64(max(g.N, 1))
		stalls := slices.Sorted(slices.Values(p.Stalls))
		per := func(c record.Counter) reports.Value { return reports.Number(reports.Bare(float64(g.Counts[c]) * k)) }
		n := 0
		for _, b := range p.Bins {
			n += b.N
		}
		return []reports.Value{reports.Word(name(g)), {Text: strconv.Itoa(g.N), Sort: float64(g.N)}, reports.Percent(reports.Bare(float64(p.Moved) / float64(max(n, 1)))),
			per(record.Handovers), per(record.Stalls), wait(stalls, 0.5), wait(stalls, 0.95), wait(stalls, 1),
			reports.Bytes(reports.Bare(float64(g.Counts[record.BackhaulBytes]) * k)), {Text: fmt.Sprintf("%.3g tok", float64(g.Counts[record.Recomputed])/float64(max(g.N, 1))), Sort: float64(g.Counts[record.Recomputed]) / float64(max(g.N, 1))}}
	})
	return t
}

func wait(sorted []float64, p float64) reports.Value {
	return reports.Time(reports.Bare(record.Quantile(sorted, p)))
}

// shares is the table of who got how much.
func shares(all []*reports.Group) reports.Table {
	t := reports.Table{Name: "fairness", Title: "How evenly users and servers fared",
		Caption: "Jain's index: 1 when all have the same, 1/n when one has it all. Of users: the share of their requests inside every limit, and their mean E2E. Slowest tenth: the mean E2E that one user in ten exceeds. Busiest node: its requests over the mean of all nodes.",
		Columns: reports.Columns([]string{"cell"}, "users", "Jain, within limits", "Jain, mean E2E", "median user", "slowest tenth", "nodes", "busiest node", "J / request")}
	t.Fill(all, setting, title, func(g *reports.Group) []reports.Value {
		mean, within := g.Places.UserTimes()
		busiest, sum := 0, 0
		for _, n := range g.Places.ByNode {
			busiest, sum = max(busiest, n.N), sum+n.N
		}
		return []reports.Value{reports.Word(name(g)), {Text: strconv.Itoa(len(within)), Sort: float64(len(within))}, index(within), index(mean),
			wait(mean, 0.5), wait(mean, 0.9), {Text: strconv.Itoa(len(g.Places.ByNode)), Sort: float64(len(g.Places.ByNode))},
			reports.Number(reports.Bare(float64(busiest) * float64(len(g.Places.ByNode)) / float64(max(sum, 1)))), reports.Energy(g.Joules())}
	})
	return t
}

func index(xs []float64) reports.Value {
	v := record.Fairness(xs)
	if math.IsNaN(v) {
		return reports.Value{Text: "n/a", Sort: math.NaN()}
	}
	return reports.Value{Text: fmt.Sprintf("%.3f", v), Sort: v}
}

// over is the town over time.
func over(set []*reports.Group, k int) reports.Figure {
	span := 0.0
	for _, g := range set {
		span = max(span, float64(len(g.Places.Bins))*g.Places.Width.Seconds())
	}
	unit, scale := "s", 1.0
	switch {
	case span > 3*3600:
		unit, scale = "h", 3600
	case span > 300:
		unit, scale = "min", 60
	}
	x := "time (" + unit + ")"
	plots := []chart.Plot{{XAxis: x, YAxis: "requests/s"}, {XAxis: x, YAxis: "TTFT p95 (s)"}, {XAxis: x, YAxis: "within limits (%)"},
		{XAxis: x, YAxis: "hand-overs/s"}, {XAxis: x, YAxis: "power for requests (W)"}, {XAxis: x, YAxis: "held up (s per s)"}}
	var keys []chart.Key
	for i, g := range set {
		keys = append(keys, chart.Key{Text: name(g), Colour: i, Glyph: i, Index: i, Kind: chart.LineKey})
		curves := make([]chart.Curve, len(plots))
		for b := range g.Places.Bins {
			bin, width := &g.Places.Bins[b], g.Places.Width.Seconds()
			if bin.N == 0 {
				continue
			}
			joules := 0.0
			for _, e := range bin.Energy {
				joules += e
			}
			for j, y := range []float64{float64(bin.N) / width, bin.TTFT(0.95), 100 * float64(bin.Good) / float64(bin.N), float64(bin.Handovers) / width, joules / width, bin.StallTime.Seconds() / width} {
				curves[j].Dots = append(curves[j].Dots, chart.Dot{X: (float64(b) + 0.5) * width / scale, Y: chart.Range{V: y, Lo: math.NaN(), Hi: math.NaN()}})
			}
		}
		for j := range plots {
			curves[j].Colour, curves[j].Glyph, curves[j].Dash, curves[j].Bare = i, i, i, true
			plots[j].Curves = append(plots[j].Curves, curves[j])
		}
	}
	alt := fmt.Sprintf("%s over %.3g %s: requests, TTFT p95, share within limits, hand-overs, power and held-up time for %d cells.", title(set[0]), span/scale, unit, len(set))
	return reports.Figure{Name: "town-time" + number(k), Title: "Over time: " + title(set[0]),
		Caption: "By intended start, in bins of " + set[0].Places.Width.String() + ", first repeat. Power: energy of the requests that began in a bin, all parts, over its width: what idles besides is not in it.",
		Alt:     alt, Picture: chart.Curves(title(set[0]), plots, keys)}
}

// spreads is how stalls, users and nodes differ.
func spreads(set []*reports.Group, k int) reports.Figure {
	panels := []chart.Panel{{Axis: "stall of a request that was held up (s)"}, {Axis: "mean E2E of a user (s)"}, {Axis: "requests of an edge node"}}
	var keys []chart.Key
	for i, g := range set {
		keys = append(keys, chart.Key{Text: name(g), Colour: i, Glyph: i, Index: i, Kind: chart.LineKey})
		mean, _ := g.Places.UserTimes()
		var nodes []float64
		for _, n := range g.Places.ByNode {
			nodes = append(nodes, float64(n.N))
		}
		slices.Sort(nodes)
		for j, values := range [][]float64{slices.Sorted(slices.Values(g.Places.Stalls)), mean, nodes} {
			panels[j].Series = append(panels[j].Series, chart.Series{Values: values, Colour: i, Glyph: i, Dash: i, Faded: !g.Valid()})
		}
	}
	return reports.Figure{Name: "town-spread" + number(k), Title: "Stalls, users and nodes: " + title(set[0]),
		Caption: "Share of stalls, in the second panel of users, in the third of edge nodes, at or below a value, first repeat; zeros have no place on a log axis and are counted.",
		Alt:     "Distributions of stalls by hand-overs, of users' mean end-to-end times, and of requests per edge node: " + title(set[0]),
		Picture: chart.CDF(title(set[0]), panels, keys)}
}

// number tells figures of one kind apart.
func number(k int) string {
	if k < 2 {
		return ""
	}
	return "-" + strconv.Itoa(k/2+1)
}

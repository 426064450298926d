// Package caching makes the section of pages on what nodes keep and how models reach users.
//
//	data, err := reports.Load("runs/caching")
//	r := reports.Build(data, caching.Sections(data)...)
//
// The one idea: the parts of a suite ask one question each, and the axes that a part crosses say which pictures it gets: hit
// ratios against the axis that is a number (storage, drift, popularity), distributions of delivery times where ways of
// sending are compared, speed against quality where ways of beginning are. Every figure is a metric of package record; intervals
// are those of the median over repeats, whose requests are drawn anew.
//
// It makes nothing of runs whose requests look nothing up and ask for no model.
package caching

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

// Sections is the section of d, or nothing.
func Sections(d *reports.Data) []reports.Section {
	all := slices.SortedStableFunc(slices.Values(d.Groups), func(a, b *reports.Group) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Cell.Index, b.Cell.Index))
	})
	all = reports.Where(all, func(g *reports.Group) bool {
		return len(g.Delivery) > 0 || len(g.Repeats("hit_ratio")) > 0 || remembers(g)
	})
	if len(all) == 0 {
		return nil
	}
	s := reports.Section{Name: "caching", Title: "Caching and delivery"}
	for _, set := range reports.Sets(all, setting) {
		s.Lead = append(s.Lead, lead(set)...)
		for _, f := range []*reports.Figure{ratios(set), memory(set), remembered(set), times(set), progress(set)} {
			if f != nil {
				f.Name += strconv.Itoa(len(s.Figures) + 1)
				s.Figures = append(s.Figures, *f)
			}
		}
	}
	if rest := reports.Where(all, func(g *reports.Group) bool { return !remembers(g) }); len(rest) > 0 {
		s.Tables = append(s.Tables, table(rest))
	}
	if rest := reports.Where(all, func(g *reports.Group) bool { return !hosts(g) && !remembers(g) }); len(rest) > 0 {
		s.Tables = append(s.Tables, costs(rest))
	}
	if t, ok := budgets(all); ok {
		s.Tables = append(s.Tables, t)
	}
	if hosting := reports.Where(all, hosts); len(hosting) > 0 {
		s.Tables = append(s.Tables, hosted(hosting))
	}
	if reusing := reports.Where(all, remembers); len(reusing) > 0 {
		s.Tables = append(s.Tables, reused(reusing))
	}
	if len(s.Lead) == 0 {
		s.Lead = []string{fmt.Sprintf("Of %d cells with caches, hit ratios go from %s to %s.", len(all), percent(least(all)), percent(most(all)))}
	}
	return []reports.Section{s}
}

// setting is what cells share that are drawn together.
func setting(g *reports.Group) string {
	return strings.Join([]string{strconv.Itoa(g.Run), g.Cell.Suite, g.Axis("part"), g.Cell.App, g.Cell.Pipeline, g.Cell.Mode}, "\x00")
}

// axes are the axes of a cell's name that are not its setting, in order: keys and values.
func axes(g *reports.Group) (keys, values []string) {
	for _, p := range strings.Split(g.Cell.Name, "/") {
		if key, v, ok := strings.Cut(p, "="); ok && !slices.Contains([]string{"part", "app", "pipeline", "mode"}, key) {
			keys, values = append(keys, key), append(values, v)
		}
	}
	return keys, values
}

// name tells a cell from others of its setting, by its axes without the one left out.
func name(g *reports.Group, without string) string {
	var out []string
	keys, values := axes(g)
	for i, v := range values {
		switch _, err := strconv.ParseFloat(v, 64); {
		case keys[i] == without:
		case err == nil || v == "yes" || v == "no":
			out = append(out, keys[i]+" "+v)
		default:
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return g.Cell.Pipeline
	}
	return strings.Join(out, ", ")
}

func title(g *reports.Group) string {
	return strings.Join(slices.DeleteFunc([]string{g.Axis("part"), g.Cell.App, g.Cell.Pipeline, g.Cell.Mode}, func(s string) bool { return s == "" }), ", ")
}

// scale is the axis of a set that is a number and has several values, "" if there is none: storage before all others.
func scale(set []*reports.Group) string {
	keys, _ := axes(set[0])
	slices.SortStableFunc(keys, func(a, b string) int { return rank(a) - rank(b) })
	for _, key := range keys {
		seen := map[float64]bool{}
		for _, g := range set {
			v, err := strconv.ParseFloat(g.Axis(key), 64)
			if err != nil {
				seen = nil
				break
			}
			seen[v] = true
		}
		if len(seen) > 1 {
			return key
		}
	}
	return ""
}

func rank(key string) int {
	if key == "room_mb" || key == "memory_mb" || key == "slots" || key == "cache" {
		return 0
	}
	return 1
}

// axisNames says what an axis is.
var axisNames = map[string]string{"room_mb": "storage of a node (MB)", "memory_mb": "memory of a node (MB)", "drift": "models whose rank changes in an epoch (share)", "zipf": "exponent of popularity",
	"sticky": "probability of the same model again", "cache": "experts kept in a layer", "slots": "adapters in memory", "threshold": "least similarity of a hit", "prefix_mb": "room for KV blocks (MB)", "choices": "models that will do", "relay_mbps": "links between devices (Mbit/s)", "epoch_s": "length of an epoch (s)", "keep_mb": "storage of a device (MB)", "rate": "requests per second"}

const mostCurves = 12

// series are the curves of a set: cells by name without the axis, in order of its values.
func series(set []*reports.Group, axis string) (names []string, curves [][]*reports.Group) {
	for _, c := range reports.Sets(set, func(g *reports.Group) string { return name(g, axis) }) {
		slices.SortStableFunc(c, func(a, b *reports.Group) int { return cmp.Compare(number(a, axis), number(b, axis)) })
		names, curves = append(names, name(c[0], axis)), append(curves, c)
	}
	return names, curves
}

func number(g *reports.Group, axis string) float64 {
	v, err := strconv.ParseFloat(g.Axis(axis), 64)
	if err != nil {
		return math.NaN()
	}
	return v
}

// share is a metric of a cell in per cent, with the interval over its repeats.
func share(g *reports.Group, metric string) chart.Range {
	s := reports.Median(g.Repeats(metric))
	return chart.Range{V: 100 * s.V, Lo: 100 * s.Lo, Hi: 100 * s.Hi}
}

// ratios are hit ratios and what follows from them against an axis.
func ratios(set []*reports.Group) *reports.Figure {
	axis := scale(set)
	if axis == "" || hosts(set[0]) || remembers(set[0]) {
		return nil
	}
	x := cmp.Or(axisNames[axis], axis)
	shares := []struct{ metric, axis string }{{"hit_ratio", "hit ratio (%)"}, {"byte_hit_ratio", "byte hit ratio (%)"}, {"on_time_share", "models in time (%)"}, {"storage_saved", "storage saved by sharing (%)"}}
	plots := make([]chart.Plot, len(shares)+2)
	for i, s := range shares {
		plots[i] = chart.Plot{XAxis: x, YAxis: s.axis}
	}
	plots[len(shares)] = chart.Plot{XAxis: x, YAxis: "delivery p95 (s)"}
	plots[len(shares)+1] = chart.Plot{XAxis: x, YAxis: "between servers (MB/request)"}
	names, curves := series(set, axis)
	var keys []chart.Key
	for i, c := range curves[:min(len(curves), mostCurves)] {
		colour := i % chart.Colours
		keys = append(keys, chart.Key{Text: names[i], Colour: colour, Glyph: i, Index: i, Kind: chart.LineKey})
		for j := range plots {
			curve := chart.Curve{Colour: colour, Glyph: i, Dash: i}
			for _, g := range c {
				curve.Dots = append(curve.Dots, chart.Dot{X: number(g, axis), Y: value(g, j, shares)})
			}
			plots[j].Curves = append(plots[j].Curves, curve)
		}
	}
	caption := "A dot is the median over repeats, whose requests are drawn anew, with its 95 % interval. A hit: all that the device lacks of the model is at the node, or at a neighbour where nodes cooperate."
	if len(curves) > mostCurves {
		caption += fmt.Sprintf(" %d more curves are in the table alone.", len(curves)-mostCurves)
	}
	return &reports.Figure{Name: "caching-ratios", Title: "Hits against " + x + ": " + title(set[0]), Caption: caption,
		Alt:     fmt.Sprintf("Hit ratio, byte hit ratio, share in time, storage saved, delivery time and bytes between servers against %s for %s.", x, strings.Join(names, "; ")),
		Picture: chart.Curves(title(set[0]), plots, keys)}
}

// value is what plot j shows of a cell.
func value(g *reports.Group, j int, shares []struct{ metric, axis string }) chart.Range {
	switch {
	case j < len(shares):
		return share(g, shares[j].metric)
	case j == len(shares):
		q := reports.Quantile(g.Delivery, 0.95)
		return chart.Range{V: q.V, Lo: q.Lo, Hi: q.Hi}
	}
	return chart.Range{V: float64(g.Counts[record.BackhaulBytes]) / 1e6 / float64(max(g.N, 1)), Lo: math.NaN(), Hi: math.NaN()}
}

// several reports whether cells of a set differ in an axis.
func several(set []*reports.Group, axis string) bool {
	for _, g := range set[1:] {
		if g.Axis(axis) != set[0].Axis(axis) {
			return true
		}
	}
	return false
}

// ways reports whether ways of sending are compared.
func ways(set []*reports.Group) bool {
	return slices.ContainsFunc([]string{"cast", "ahead", "choices", "relay_mbps"}, func(axis string) bool { return several(set, axis) })
}

// times are the distributions of delivery times where ways of sending are compared.
func times(set []*reports.Group) *reports.Figure {
	if !ways(set) {
		return nil
	}
	panels := []chart.Panel{{Axis: "whole model on the device (s)"}, {Axis: "first usable part on the device (s)"}, {Axis: "TTFT (s)"}}
	var keys []chart.Key
	for i, g := range set[:min(len(set), mostCurves)] {
		colour := i % chart.Colours
		keys = append(keys, chart.Key{Text: name(g, ""), Colour: colour, Glyph: i, Index: i, Kind: chart.LineKey})
		for j, values := range [][]float64{g.Delivery, g.Usable, g.TTFT} {
			panels[j].Series = append(panels[j].Series, chart.Series{Values: values, Colour: colour, Glyph: i, Dash: i, Faded: !g.Valid()})
		}
	}
	return &reports.Figure{Name: "caching-times", Title: "How long models take to come: " + title(set[0]),
		Caption: "Share of requests at or below a time, all repeats together. What a device had itself counts as a delivery of no time, which a log axis cannot show and counts.",
		Alt:     "Distributions of the delivery times of models, of the time to a usable part, and of TTFT: " + title(set[0]), Picture: chart.CDF(title(set[0]), panels, keys)}
}

// progress is how soon and how well devices answer that begin before all has come.
func progress(set []*reports.Group) *reports.Figure {
	if !several(set, "progress") {
		return nil
	}
	plots := []chart.Plot{{XAxis: "TTFT p50 (s)", YAxis: "quality of the answer (score)"}, {XAxis: "first usable part on the device, p50 (s)", YAxis: "TTFT p50 (s)"}}
	var keys []chart.Key
	for i, g := range set[:min(len(set), mostCurves)] {
		colour := i % chart.Colours
		keys = append(keys, chart.Key{Text: name(g, ""), Colour: colour, Glyph: i, Index: i, Kind: chart.GlyphKey})
		first, usable, score := g.TTFT50(), reports.Quantile(g.Usable, 0.5), g.Score()
		plots[0].Curves = append(plots[0].Curves, dot(first.V, score, colour, i))
		plots[1].Curves = append(plots[1].Curves, dot(usable.V, first, colour, i))
	}
	return &reports.Figure{Name: "caching-progress", Title: "Speed and quality of answers that begin early: " + title(set[0]),
		Caption: "Left: upper left is better. Quality is that of the library for the part of the model that had come when the answer began; without it there is no dot. Right: how long after the first usable part the first token came.",
		Alt:     "Time to first token against quality for ways to begin before a model has come: " + title(set[0]), Picture: chart.Curves(title(set[0]), plots, keys)}
}

func dot(x float64, y reports.Stat, colour, glyph int) chart.Curve {
	return chart.Curve{Colour: colour, Glyph: glyph, Loose: true, Dots: []chart.Dot{{X: x, Y: chart.Range{V: y.V, Lo: y.Lo, Hi: y.Hi}}}}
}

// table is what caches found and how soon models came.
func table(all []*reports.Group) reports.Table {
	t := reports.Table{Name: "caching", Title: "What was found where it was needed",
		Caption: "Shares are medians over repeats, in brackets their 95 % interval. Found: objects looked up in caches, and their bytes. Had: bytes of models that devices had themselves. In common: bytes that came in transmissions for several users. Saved: by sharing of blocks, of the bytes of the models that nodes keep. Promised: what the placement's own model of the requests says. Regret: hits that a clairvoyant cache of the same size would have had more, over its hits.",
		Columns: reports.Columns([]string{"cell"}, "requests", "found", "bytes found", "had", "in common", "in time", "saved", "promised", "regret")}
	t.Fill(all, setting, title, func(g *reports.Group) []reports.Value {
		row := []reports.Value{reports.Word(name(g, "")), {Text: strconv.Itoa(g.N), Sort: float64(g.N)}}
		for _, m := range []string{"hit_ratio", "byte_hit_ratio", "held_share", "cast_share", "on_time_share", "storage_saved", "static_hit", "regret"} {
			row = append(row, reports.Percent(reports.Median(g.Repeats(m))))
		}
		return row
	})
	return t
}

// costs is what delivery took.
func costs(all []*reports.Group) reports.Table {
	t := reports.Table{Name: "delivery", Title: "What delivery took",
		Caption: "Quantiles over requests of all repeats. Usable: the first part of the model that answers. Between servers: bytes over backhaul and from the cloud. From devices: bytes that other users' devices sent. Into caches: bytes that entered caches after the first fill (churn). Stalls: hand-overs that held a delivery up. Joules: all parts that are known.",
		Columns: reports.Columns([]string{"cell"}, "delivery p50", "p95", "usable p50", "TTFT p50", "quality", "between servers / req", "to users / req", "from devices / req", "into caches / req", "stalls / 1k", "held up / 1k", "J / request")}
	t.Fill(all, setting, title, func(g *reports.Group) []reports.Value {
		n := float64(max(g.N, 1))
		per := func(sum float64) reports.Value { return reports.Bytes(reports.Bare(sum / n)) }
		return []reports.Value{reports.Word(name(g, "")), reports.Time(reports.Quantile(g.Delivery, 0.5)), reports.Time(reports.Quantile(g.Delivery, 0.95)), reports.Time(reports.Quantile(g.Usable, 0.5)),
			reports.Time(g.TTFT50()), reports.Number(g.Score()), per(float64(g.Counts[record.BackhaulBytes])), per(g.Down), per(float64(g.Counts[record.RelayedBytes])), per(float64(g.Counts[record.ChurnBytes])),
			reports.Number(reports.Bare(1000 * float64(g.Counts[record.Stalls]) / n)), reports.Time(reports.Bare(1000 * float64(g.Counts[record.StallTime]) * 1e-9 / n)), reports.Energy(g.Joules())}
	})
	return t
}

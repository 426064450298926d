package caching

import (
	"cmp"
	"fmt"
	"strings"

	"meibench/harness/record"
	"meibench/reports"
	"meibench/reports/chart"
)

// hosts reports whether a cell's servers bring models to memory.
func hosts(g *reports.Group) bool { return len(g.Repeats("memory_hit_ratio")) > 0 }

// drawn is a metric as a plot shows it, times a scale.
type drawn struct {
	metric, axis string
	scale        float64
}

// against draws metrics of a set against an axis of it, a curve for each way that the rest of the axes name.
func against(set []*reports.Group, axis string, metrics []drawn) (x string, names []string, plots []chart.Plot, keys []chart.Key) {
	x = cmp.Or(axisNames[axis], axis)
	for _, p := range metrics {
		plots = append(plots, chart.Plot{XAxis: x, YAxis: p.axis})
	}
	names, curves := series(set, axis)
	for i, c := range curves[:min(len(curves), mostCurves)] {
		colour := i % chart.Colours
		keys = append(keys, chart.Key{Text: names[i], Colour: colour, Glyph: i, Index: i, Kind: chart.LineKey})
		for j, p := range metrics {
			curve := chart.Curve{Colour: colour, Glyph: i, Dash: i}
			for _, g := range c {
				m := reports.Median(g.Repeats(p.metric))
				curve.Dots = append(curve.Dots, chart.Dot{X: number(g, axis), Y: chart.Range{V: p.scale * m.V, Lo: p.scale * m.Lo, Hi: p.scale * m.Hi}})
			}
			plots[j].Curves = append(plots[j].Curves, curve)
		}
	}
	return x, names, plots, keys
}

// hostPlots are what a node with many models is judged by.
var hostPlots = []drawn{
	{"memory_hit_ratio", "model in memory (%)", 100},
	{"load_time_request", "loading (s/request)", 1},
	{"ttft_p50", "TTFT p50 (s)", 1},
	{"e2e_p95", "E2E p95 (s)", 1},
	{"fresh_context", "fresh context (examples)", 1},
	{"system_cost", "system cost (s/request)", 1},
}

// memory is what the memory of nodes is worth where they run many models.
func memory(set []*reports.Group) *reports.Figure {
	axis := scale(set)
	if axis == "" || !hosts(set[0]) {
		return nil
	}
	x, names, plots, keys := against(set, axis, hostPlots)
	return &reports.Figure{Name: "caching-memory", Title: "Many models in little memory: " + title(set[0]),
		Caption: "A dot is the median over repeats, whose requests are drawn anew, with its 95 % interval. Loading: from the node's storage to its memory. System cost: a request's time, the loading for it, and what its model lacks of fresh context, weighed by the pipeline's parameters.",
		Alt:     fmt.Sprintf("Memory hits, loading, TTFT, E2E, context and system cost against %s for %s.", x, strings.Join(names, "; ")),
		Picture: chart.Curves(title(set[0]), plots, keys)}
}

// hosted is what servers with many models did.
func hosted(all []*reports.Group) reports.Table {
	t := reports.Table{Name: "hosted", Title: "Edge nodes that run many models",
		Caption: "Medians over repeats, in brackets their 95 % interval; bytes and shares of requests over all repeats. In memory: requests whose model was there when they came. Switches: models brought to memory. Context: examples that the model had, each counting half after a hundred requests. System cost: time, loading and lack of context, as the parameters weigh them. Elsewhere: answered by another node than the nearest.",
		Columns: reports.Columns([]string{"cell"}, "requests", "in memory", "switches", "loading / req", "loaded / req", "context", "TTFT p50", "E2E p95", "system cost", "elsewhere", "between servers / req", "quality")}
	t.Fill(all, setting, title, func(g *reports.Group) []reports.Value {
		n := float64(max(g.N, 1))
		of := func(metric string) reports.Stat { return reports.Median(g.Repeats(metric)) }
		return []reports.Value{reports.Word(name(g, "")), reports.Number(reports.Bare(n)), reports.Percent(of("memory_hit_ratio")), reports.Number(of("switches")), reports.Time(of("load_time_request")),
			reports.Bytes(of("load_bytes_request")), reports.Number(of("fresh_context")), reports.Time(of("ttft_p50")), reports.Time(of("e2e_p95")), reports.Time(of("system_cost")),
			reports.Percent(reports.Bare(float64(g.Counts[record.Elsewhere]) / n)), reports.Bytes(reports.Bare(float64(g.Counts[record.BackhaulBytes]) / n)), reports.Number(g.Score())}
	})
	return t
}

// hostLead says what memory, order and place come to.
func hostLead(set []*reports.Group) (out []string) {
	if axis := scale(set); axis != "" {
		hard := number(set[0], axis) // the least memory, the most requests
		for _, g := range set {
			if v := number(g, axis); v < hard != (axis == "rate") && v != hard {
				hard = v
			}
		}
		tight := reports.Where(set, func(g *reports.Group) bool { return number(g, axis) == hard })
		worst, best := extremes(tight, cost)
		if worst != best {
			out = append(out, fmt.Sprintf("%s: at %s %g, a request costs least with %s (%.3g s, model in memory for %s), most with %s (%.3g s, %s).", title(set[0]), strings.ReplaceAll(axis, "_", " "), hard,
				name(best, axis), cost(best), percent(inMemory(best)), name(worst, axis), cost(worst), percent(inMemory(worst))))
		}
	}
	return out
}

func cost(g *reports.Group) float64     { return reports.Median(g.Repeats("system_cost")).V }
func inMemory(g *reports.Group) float64 { return reports.Median(g.Repeats("memory_hit_ratio")).V }

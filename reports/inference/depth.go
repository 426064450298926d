package inference

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/harness/record"
	"meibench/reports"
	"meibench/reports/chart"
)

const (
	depthBins = 5 // of the histogram of layers
)

// exits is how many layers tokens need: the share of layers that ran against the
// threshold, what it does to quality, and how it spreads over requests.
func exits(all []*reports.Group) *reports.Section {
	s := &reports.Section{Name: "exits", Title: "Early exit"}
	t := reports.Table{Name: "exits", Title: "Layers that ran",
		Caption: "Layers run: over those of a pass without early exit, summed over all tokens. The last columns are a histogram over requests: how many of them ran such a share of their layers.",
		Columns: reports.Columns([]string{"setting"}, "layers run", "TPOT p50", "quality", "went on elsewhere", "≤ 20 %", "≤ 40 %", "≤ 60 %", "≤ 80 %", "≤ 100 %")}
	for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { return g.Counts[record.LayersFull] > 0 }), func(g *reports.Group) string {
		return place(g, true) + "\x00" + g.Cell.Model + "\x00" + g.Axis("part")
	}) {
		group := reports.RowGroup{Title: title(set[0])}
		for _, g := range set {
			values := []reports.Value{reports.Word(label(g)), reports.Percent(reports.Bare(depth(g))), reports.Time(g.TPOT50()), reports.Number(g.Score()),
				reports.Percent(reports.Bare(float64(g.Counts[record.Escalated]) / float64(max(g.Tokens, 1))))}
			for _, n := range histogram(g) {
				values = append(values, reports.Word(fmt.Sprint(n)))
			}
			group.Rows = append(group.Rows, row(g, values...))
		}
		t.Groups = append(t.Groups, group)
		if distinct(set, "threshold") > 1 {
			s.Lead = append(s.Lead, exitLead(set))
			s.Figures = append(s.Figures, depthFigure(set))
		}
	}
	if len(t.Groups) == 0 {
		return nil
	}
	s.Tables = []reports.Table{t}
	return s
}

// depth is the share of the layers that ran.
func depth(g *reports.Group) float64 {
	return float64(g.Counts[record.LayersRun]) / float64(g.Counts[record.LayersFull])
}

// histogram counts requests by the share of their layers that ran.
func histogram(g *reports.Group) (n [depthBins]int) {
	for a := range g.Answers() {
		if !math.IsNaN(a.Depth) {
			n[min(max(int(math.Ceil(a.Depth*depthBins))-1, 0), depthBins-1)]++
		}
	}
	return n
}

// exitLead names the fewest layers that cost no quality beyond chance.
func exitLead(set []*reports.Group) string {
	full := slices.MaxFunc(set, func(a, b *reports.Group) int { return cmp.Compare(depth(a), depth(b)) })
	name := title(set[0])
	if math.IsNaN(full.Score().V) {
		return fmt.Sprintf("Early exit, %s: runs %s to %s of the layers; the cells have no quality.", name, reports.Percent(reports.Bare(leastDepth(set))).Text, reports.Percent(reports.Bare(depth(full))).Text)
	}
	same := reports.Where(set, func(g *reports.Group) bool { return g.Score().V >= full.Score().V })
	best := slices.MinFunc(same, func(a, b *reports.Group) int { return cmp.Compare(depth(a), depth(b)) })
	if best == full {
		return fmt.Sprintf("Early exit, %s: no threshold saves layers without losing quality (%s at %s of the layers).", name, reports.Number(full.Score()), reports.Percent(reports.Bare(depth(full))).Text)
	}
	gain := ratio(full.TPOT50().V, best.TPOT50().V)
	return fmt.Sprintf("Early exit, %s: threshold %s runs %s of the layers at no loss of quality (%s against %s), %s times as fast per token.", name, setting(num(best, "threshold")),
		reports.Percent(reports.Bare(depth(best))).Text, brief(best.Score().V), brief(full.Score().V), brief(gain))
}

func leastDepth(set []*reports.Group) float64 {
	return depth(slices.MinFunc(set, func(a, b *reports.Group) int { return cmp.Compare(depth(a), depth(b)) }))
}

// depthFigure draws quality and time against the layers that ran.
func depthFigure(set []*reports.Group) reports.Figure {
	plots := []chart.Plot{{XAxis: "threshold", YAxis: "layers run (%)"}, {XAxis: "layers run (%)", YAxis: "quality", Close: true}, {XAxis: "layers run (%)", YAxis: "TPOT p50 (ms)"}}
	none := math.NaN()
	var names []string
	for i, gs := range reports.Sets(set, func(g *reports.Group) string { return strings.TrimSpace(text(g, "measure") + " " + text(g, "rest")) }) {
		names = append(names, strings.TrimSpace("exit "+text(gs[0], "measure")+", rest on "+text(gs[0], "rest")))
		slices.SortStableFunc(gs, func(a, b *reports.Group) int { return cmp.Compare(num(a, "threshold"), num(b, "threshold")) })
		curves := [3]chart.Curve{}
		for k := range curves {
			curves[k].Colour, curves[k].Glyph, curves[k].Dash = i, i, i
		}
		for _, g := range gs {
			at := "at " + setting(num(g, "threshold"))
			curves[0].Dots = append(curves[0].Dots, chart.Dot{X: num(g, "threshold"), Y: chart.Range{V: 100 * depth(g), Lo: none, Hi: none}})
			curves[1].Dots = append(curves[1].Dots, chart.Dot{X: 100 * depth(g), Y: span(g.Score(), 1), Label: at})
			curves[2].Dots = append(curves[2].Dots, chart.Dot{X: 100 * depth(g), Y: span(g.TPOT50(), 1e-3)})
		}
		for k := range plots {
			plots[k].Curves = append(plots[k].Curves, curves[k])
		}
	}
	return reports.Figure{Name: slug("exits-" + title(set[0])), Title: "Early exit: " + title(set[0]),
		Caption: "A token leaves where the model's confidence reaches the threshold; above 1 none does. Upright strokes are 95 % intervals.",
		Alt:     "Layers run against the threshold; quality and time per token against the layers run.", Picture: chart.Curves(title(set[0]), plots, keys(names))}
}

// memories is quality against the budget of a bounded KV cache.
func memories(all []*reports.Group) *reports.Section {
	s := &reports.Section{Name: "memories", Title: "Bounded KV memory"}
	t := reports.Table{Name: "memories", Title: "Budgets",
		Caption: "Budget: the share, or the number, of tokens whose keys and values a policy keeps.",
		Columns: reports.Columns([]string{"setting"}, "budget", "quality", "TPOT p50", "E2E p50")}
	for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { return num(g, "budget") > 0 && g.Quality.N > 0 }), func(g *reports.Group) string {
		return place(g, true) + "\x00" + g.Cell.Model + "\x00" + g.Axis("part")
	}) {
		if distinct(set, "budget") < 2 {
			continue
		}
		slices.SortStableFunc(set, func(a, b *reports.Group) int {
			return cmp.Or(cmp.Compare(keeper(a), keeper(b)), cmp.Compare(num(a, "budget"), num(b, "budget")))
		})
		group := reports.RowGroup{Title: title(set[0])}
		plots := []chart.Plot{{XAxis: "budget (tokens)", YAxis: "quality", LogX: true, Close: true}, {XAxis: "budget (tokens)", YAxis: "TPOT p50 (ms)", LogX: true}}
		var names, ends []string
		for i, gs := range reports.Sets(set, keeper) {
			names = append(names, keeper(gs[0]))
			score, time := chart.Curve{Colour: i, Glyph: i, Dash: i}, chart.Curve{Colour: i, Glyph: i, Dash: i}
			for _, g := range gs {
				group.Rows = append(group.Rows, row(g, reports.Word(keeper(g)), whole(num(g, "budget")), reports.Number(g.Score()), reports.Time(g.TPOT50()), reports.Time(g.E2E50())))
				score.Dots = append(score.Dots, chart.Dot{X: num(g, "budget"), Y: span(g.Score(), 1)})
				time.Dots = append(time.Dots, chart.Dot{X: num(g, "budget"), Y: span(g.TPOT50(), 1e-3)})
			}
			plots[0].Curves, plots[1].Curves = append(plots[0].Curves, score), append(plots[1].Curves, time)
			last := gs[len(gs)-1]
			ends = append(ends, fmt.Sprintf("%s %s at %s and %s at %s", keeper(last), brief(gs[0].Score().V), setting(num(gs[0], "budget")), brief(last.Score().V), setting(num(last, "budget"))))
		}
		t.Groups = append(t.Groups, group)
		s.Lead = append(s.Lead, fmt.Sprintf("KV budget, %s: quality of %s.", title(set[0]), strings.Join(ends, "; ")))
		s.Figures = append(s.Figures, reports.Figure{Name: slug("memories-" + title(set[0])), Title: "Quality against the KV budget: " + title(set[0]),
			Caption: "One line per policy; upright strokes are 95 % intervals.", Alt: "Quality and time per token against the budget.", Picture: chart.Curves(title(set[0]), plots, keys(names))})
	}
	if len(t.Groups) == 0 {
		return nil
	}
	s.Tables = []reports.Table{t}
	return s
}

// keeper is the policy of a bounded memory.
func keeper(g *reports.Group) string {
	for _, key := range []string{"evict", "keep", "memory"} {
		if v := text(g, key); v != "" {
			return v
		}
	}
	return g.Cell.Pipeline
}

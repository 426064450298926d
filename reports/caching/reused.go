package caching

import (
	"fmt"
	"strconv"
	"strings"

	"meibench/reports"
	"meibench/reports/chart"
)

// remembers reports whether a cell's nodes keep answers, or keys and values.
func remembers(g *reports.Group) bool { return g.Cell.Pipeline == "reuse" }

// recalls reports whether a cell's nodes keep answers.
func recalls(g *reports.Group) bool { return len(g.Repeats("recalled_share")) > 0 }

// What keeping answers, and keeping keys and values, is judged by.
var (
	answerPlots = []drawn{{"recalled_share", "recalled (%)", 100}, {"recalled_wrong_share", "of these, wrong (%)", 100}, {"quality_mean", "quality of all answers (score)", 1}}
	prefixPlots = []drawn{{"prefix_reuse", "prompt tokens reused (%)", 100}, {"ttft_p50", "TTFT p50 (s)", 1}, {"ttft_p95", "TTFT p95 (s)", 1}}
)

// remembered is what is saved, and what is lost, against an axis.
func remembered(set []*reports.Group) *reports.Figure {
	axis := scale(set)
	if axis == "" || !remembers(set[0]) {
		return nil
	}
	metrics, title1, caption := prefixPlots, "Prompts that begin alike: ", "Keys and values of full blocks are copied in; answers are the same token by token."
	if recalls(set[0]) {
		metrics, title1, caption = answerPlots, "Questions that are alike: ", "Wrong: the question that was answered before has another right answer. Quality counts those, and what the model itself got wrong."
	}
	x, names, plots, keys := against(set, axis, metrics)
	return &reports.Figure{Name: "caching-reuse", Title: title1 + title(set[0]),
		Caption: caption + " A dot is the median over repeats, whose requests are drawn anew, with its 95 % interval.",
		Alt:     fmt.Sprintf("What is reused against %s for %s.", x, strings.Join(names, "; ")), Picture: chart.Curves(title(set[0]), plots, keys)}
}

// reused is what nodes that remember saved.
func reused(all []*reports.Group) reports.Table {
	t := reports.Table{Name: "reused", Title: "What was not computed again",
		Caption: "Medians over repeats, in brackets their 95 % interval. Blocks found: of the prompts' full blocks. Tokens reused: of prompt tokens. Kept: most bytes of keys and values. Recalled: questions that got the answer of one that was alike; wrong: of these, those whose right answer is another.",
		Columns: reports.Columns([]string{"cell"}, "requests", "blocks found", "tokens reused", "kept", "recalled", "wrong", "quality", "TTFT p50", "TTFT p95", "E2E p50", "J / request")}
	t.Fill(all, setting, title, func(g *reports.Group) []reports.Value {
		of := func(metric string) reports.Stat { return reports.Median(g.Repeats(metric)) }
		return []reports.Value{reports.Word(name(g, "")), {Text: strconv.Itoa(g.N), Sort: float64(g.N)}, reports.Percent(of("hit_ratio")), reports.Percent(of("prefix_reuse")), reports.Bytes(of("prefix_store_peak")),
			reports.Percent(of("recalled_share")), reports.Percent(of("recalled_wrong_share")), reports.Number(g.Score()), reports.Time(of("ttft_p50")), reports.Time(of("ttft_p95")), reports.Time(of("e2e_p50")), reports.Energy(g.Joules())}
	})
	return t
}

// reuseLead says what remembering came to: of answers, the most that was found without loss of quality; of keys and values, the time saved.
func reuseLead(set []*reports.Group) (out []string) {
	of := func(g *reports.Group, metric string) float64 { return reports.Median(g.Repeats(metric)).V }
	if recalls(set[0]) {
		right := reports.Where(set, func(g *reports.Group) bool { return of(g, "recalled_wrong_share") == 0 })
		best, _ := extremes(right, func(g *reports.Group) float64 { return of(g, "recalled_share") })
		if len(right) > 0 {
			out = append(out, fmt.Sprintf("%s: most questions were answered from others without a wrong one with %s (%s).", title(set[0]), name(best, ""), percent(of(best, "recalled_share"))))
		}
		worst, _ := extremes(set, func(g *reports.Group) float64 { return of(g, "recalled_wrong_share") })
		if w := of(worst, "recalled_wrong_share"); w > 0 {
			out = append(out, fmt.Sprintf("%s: with %s, %s of what was answered from others was wrong.", title(set[0]), name(worst, ""), percent(w)))
		}
		return out
	}
	first := func(g *reports.Group) float64 { return of(g, "ttft_p50") }
	slow, quick := extremes(set, first)
	if slow != quick && first(slow) > 1.01*first(quick) {
		out = append(out, fmt.Sprintf("%s: the first token comes soonest with %s (p50 %.3g s, %s of prompt tokens reused), latest with %s (%.3g s, %s).", title(set[0]),
			name(quick, ""), first(quick), percent(of(quick, "prefix_reuse")), name(slow, ""), first(slow), percent(of(slow, "prefix_reuse"))))
	}
	return out
}

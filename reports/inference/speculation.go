package inference

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/harness/record"
	"meibench/reference/spec"
	"meibench/reports"
	"meibench/reports/chart"
)

// drafting is one cell of pipeline speculate with what theory says of it.
type drafting struct {
	g     *reports.Group
	gamma int
	rate  float64 // accepted over drafted tokens, from the counters
	alpha float64 // probability per position, from rate at this gamma
	other float64 // alpha by which theory predicts: that of another gamma where there is one
	own   bool    // there is none: other is alpha

	perVerify, perVerifyTheory float64 // tokens per pass of the model
	speedUp, speedUpTheory     float64 // TPOT of the model on the device over that of drafting
	breakTheory                float64 // s; NaN where judging is not at the edge
}

// alone are the times per token that theory needs, in seconds; NaN = unknown.
type alone struct {
	model float64 // the model on the device, without drafts
	draft float64 // the small model on the device
	judge float64 // the model where it judges
}

// speculation is what drafting gains, measured and by the closed form.
func speculation(all []*reports.Group) *reports.Section {
	s := &reports.Section{Name: "speculation", Title: "What speculative decoding gains"}
	t := reports.Table{Name: "speculation", Title: "Drafting beside its closed form",
		Caption: "Rate: accepted over drafted tokens, from the counters. α: the probability per position that gives this rate at this γ. Theory: (1 − α^(γ+1))/(1 − α) tokens per pass and the speed-up that follows from the TPOT of both models alone, each with the α of the smallest other γ of the same setting where there is one (else the row's own, which then proves nothing: marked =). Speed-up: TPOT of the model alone on the device over that of drafting.",
		Columns: reports.Columns([]string{"setting"}, "γ", "rate", "α", "tokens/pass", "theory", "speed-up", "theory", "break-even RTT, theory")}
	drafts := reports.Where(all, func(g *reports.Group) bool {
		return g.Cell.Pipeline == "speculate" && g.Counts[record.Verified] > 0 && num(g, "gamma") >= 1
	})
	for _, set := range reports.Sets(drafts, func(g *reports.Group) string {
		return place(g, false) + "\x00" + g.Cell.Model + "\x00" + family(g)
	}) {
		group := reports.RowGroup{Title: title(set[0]) + ", draft by " + text(set[0], "small")}
		times := aloneOf(set[0], all)
		rows := theory(set, times)
		for i := range rows {
			group.Rows = append(group.Rows, rows[i].row())
		}
		t.Groups = append(t.Groups, group)
		if len(rows) > 1 {
			s.Lead = append(s.Lead, speedLead(rows, times)...)
			s.Figures = append(s.Figures, speculationFigure(rows, times))
		}
	}
	if len(t.Groups) == 0 {
		return nil
	}
	s.Tables = []reports.Table{t}
	return s
}

// family is what else tells settings of speculate apart, but for gamma and the link.
func family(g *reports.Group) string {
	return strings.Join([]string{text(g, "verify"), text(g, "draft"), text(g, "small"), text(g, "proactive"), setting(num(g, "width")), setting(num(g, "temperature")), g.Axis("part")}, "\x00")
}

// aloneOf looks for the cells of both models alone at the same place.
func aloneOf(g *reports.Group, all []*reports.Group) alone {
	same := func(o *reports.Group, pipeline, model string) bool {
		return o.Run == g.Run && o.Cell.App == g.Cell.App && o.Cell.Site == g.Cell.Site && o.Cell.Mode == g.Cell.Mode && o.Cell.Pipeline == pipeline && o.Cell.Model == model && o.Valid()
	}
	tpot := func(pipeline, model string) float64 {
		best := math.NaN()
		for _, o := range all { // the one that is most like the cell: same load first
			if same(o, pipeline, model) && (math.IsNaN(best) || place(o, false) == place(g, false)) {
				best = o.TPOT50().V
			}
		}
		return best
	}
	a := alone{model: tpot("local", g.Cell.Model), draft: tpot("local", text(g, "small"))}
	if a.judge = a.model; text(g, "verify") != "device" {
		a.judge = tpot("offload", g.Cell.Model)
	}
	return a
}

// theory computes the rows of one setting, in order of gamma and round trip time.
func theory(set []*reports.Group, t alone) (rows []drafting) {
	for _, g := range set {
		d := drafting{g: g, gamma: int(num(g, "gamma")), rate: rate(g, record.Accepted, record.Drafted).V, breakTheory: math.NaN()}
		d.alpha, d.other = math.NaN(), math.NaN()
		if d.rate >= 0 && d.rate <= 1 {
			d.alpha = spec.Alpha(d.rate, d.gamma)
		}
		d.perVerify = 1 + float64(g.Counts[record.Accepted])/float64(g.Counts[record.Verified])
		d.speedUp = ratio(t.model, g.TPOT50().V)
		rows = append(rows, d)
	}
	slices.SortStableFunc(rows, func(a, b drafting) int {
		return cmp.Or(cmp.Compare(a.gamma, b.gamma), cmp.Compare(num(a.g, "rtt"), num(b.g, "rtt")))
	})
	for i := range rows {
		d := &rows[i]
		d.other, d.own = d.alpha, true
		if o := slices.IndexFunc(rows, func(o drafting) bool { return o.gamma != d.gamma && !math.IsNaN(o.alpha) }); o >= 0 {
			d.other, d.own = rows[o].alpha, false
		}
		if math.IsNaN(d.other) {
			d.perVerifyTheory, d.speedUpTheory = math.NaN(), math.NaN()
			continue
		}
		d.perVerifyTheory = spec.Tokens(d.other, d.gamma)
		d.breakTheory, d.speedUpTheory = math.NaN(), math.NaN()
		law := spec.Law{Alpha: d.other, DraftSec: t.draft, VerifySec: t.judge}
		if text(d.g, "verify") != "device" {
			law.RTTSec = num(d.g, "rtt") // unknown where the cell has the link's own
			d.breakTheory = law.BreakEvenRTT(d.gamma, t.model)
		}
		d.speedUpTheory = law.PerSec(d.gamma) * t.model
	}
	return rows
}

func (d *drafting) row() reports.Row {
	n := func(v float64) reports.Value { return reports.Number(reports.Bare(v)) }
	tokens := n(d.perVerifyTheory)
	if d.own {
		tokens.Mark = "="
	}
	setting := text(d.g, "verify")
	if v := num(d.g, "rtt"); v > 0 {
		setting += ", rtt " + onAxis("rtt", v)
	}
	limit := reports.Time(reports.Bare(d.breakTheory))
	if d.breakTheory < 0 {
		limit = reports.Word("never pays")
	}
	return row(d.g, reports.Word("judged at "+setting), reports.Word(fmt.Sprint(d.gamma)), reports.Percent(rate(d.g, record.Accepted, record.Drafted)), n(d.alpha), n(d.perVerify), tokens,
		n(d.speedUp), n(d.speedUpTheory), limit)
}

// speedLead says the best speed-up of a setting and its break-even.
func speedLead(rows []drafting, t alone) (out []string) {
	good := slices.DeleteFunc(slices.Clone(rows), func(d drafting) bool { return math.IsNaN(d.speedUp) || !d.g.Valid() })
	name := title(rows[0].g)
	if len(good) == 0 {
		return []string{fmt.Sprintf("Speculation, %s: no valid cell of the model alone on the device to compare with.", name)}
	}
	best := slices.MaxFunc(good, func(a, b drafting) int { return cmp.Compare(a.speedUp, b.speedUp) })
	at := fmt.Sprintf("γ %d", best.gamma)
	if v := num(best.g, "rtt"); v > 0 {
		at += " and " + onAxis("rtt", v) + " round trip"
	}
	verb := "makes tokens %s times as fast as the model alone"
	if best.speedUp < 1 {
		verb = "does not pay: at best %s times the speed of the model alone"
	}
	line := fmt.Sprintf("Speculation, %s, judged at the %s: drafting "+verb+" (%s; theory %s), with a rate of %s accepted.", name, text(best.g, "verify"),
		brief(best.speedUp), at, brief(best.speedUpTheory), reports.Percent(rate(best.g, record.Accepted, record.Drafted)))
	off := 0.0
	for _, d := range rows {
		if !d.own && !math.IsNaN(d.perVerifyTheory) {
			off = max(off, math.Abs(d.perVerify/d.perVerifyTheory-1))
		}
	}
	if off > 0 {
		line += fmt.Sprintf(" Tokens per pass are within %s of (1 − α^(γ+1))/(1 − α) with α of another γ.", reports.Percent(reports.Bare(off)).Text)
	}
	out = append(out, line)
	for _, gs := range sets2(rows) {
		if c, known := draftCross(gs, t); known {
			out = append(out, fmt.Sprintf("Break-even RTT of drafting, %s, γ %d: %s; theory %s.", name, gs[0].gamma, c, theoryText(gs[0].breakTheory)))
		}
	}
	return out
}

// sets2 are the rows of each gamma.
func sets2(rows []drafting) (out [][]drafting) {
	for _, d := range rows {
		if n := len(out); n > 0 && out[n-1][0].gamma == d.gamma {
			out[n-1] = append(out[n-1], d)
			continue
		}
		out = append(out, []drafting{d})
	}
	return out
}

// draftCross is the round trip time at which drafting makes tokens as fast as the
// model alone on the device, along a sweep of one gamma.
func draftCross(rows []drafting, t alone) (text string, known bool) {
	var xs, ys []float64
	for _, d := range rows {
		if x := num(d.g, "rtt"); x > 0 {
			xs, ys = append(xs, x), append(ys, ratio(d.g.TPOT50().V, t.model))
		}
	}
	at, below, n := crossOf(xs, func(i int) float64 { return ys[i] })
	switch {
	case n < 2:
		return "", false
	case below == 0:
		return fmt.Sprintf("never pays within the sweep, %s to %s", onAxis("rtt", xs[0]), onAxis("rtt", xs[len(xs)-1])), true
	case math.IsNaN(at):
		return fmt.Sprintf("pays at every value of the sweep, up to %s", onAxis("rtt", xs[len(xs)-1])), true
	}
	return reports.Time(reports.Bare(at)).String(), true
}

func theoryText(v float64) string {
	switch {
	case math.IsNaN(v):
		return "unknown"
	case v < 0:
		return "never"
	}
	return reports.Time(reports.Bare(v)).String()
}

// brief is a number with three digits.
func brief(v float64) string { return reports.Number(reports.Bare(v)).Text }

// speculationFigure draws tokens per pass and the speed-up beside theory.
func speculationFigure(rows []drafting, t alone) reports.Figure {
	byRTT := slices.ContainsFunc(rows, func(d drafting) bool { return num(d.g, "rtt") > 0 })
	axis, x := "γ, drafted tokens a round", func(d drafting) float64 { return float64(d.gamma) }
	groups := [][]drafting{rows}
	if byRTT {
		axis, x = "round trip time (ms)", func(d drafting) float64 { return num(d.g, "rtt") * 1e3 }
		groups = sets2(rows)
	}
	plots := []chart.Plot{{XAxis: axis, YAxis: "tokens per pass", LogX: byRTT, Close: true}, {XAxis: axis, YAxis: "speed-up over the model alone", LogX: byRTT, LogY: true}}
	var legend []chart.Key
	none := math.NaN()
	for i, gs := range groups {
		name := ""
		if byRTT {
			name = fmt.Sprintf("γ %d, ", gs[0].gamma)
		}
		legend = append(legend, chart.Key{Text: name + gs[0].g.Cell.Mode, Colour: i, Glyph: i, Kind: chart.SeriesKey}, chart.Key{Text: name + "theory", Colour: i, Glyph: i, Index: 1, Kind: chart.SeriesKey})
		ours, law := [2]chart.Curve{}, [2]chart.Curve{}
		for _, d := range gs {
			for k, v := range [2][2]float64{{d.perVerify, d.perVerifyTheory}, {d.speedUp, d.speedUpTheory}} {
				ours[k].Dots = append(ours[k].Dots, chart.Dot{X: x(d), Y: chart.Range{V: v[0], Lo: none, Hi: none}})
				law[k].Dots = append(law[k].Dots, chart.Dot{X: x(d), Y: chart.Range{V: v[1], Lo: none, Hi: none}})
			}
		}
		for k := range plots {
			ours[k].Colour, ours[k].Glyph, law[k].Colour, law[k].Glyph, law[k].Dash = i, i, i, i, 1
			plots[k].Curves = append(plots[k].Curves, law[k], ours[k])
		}
	}
	name := title(rows[0].g) + ", judged at the " + text(rows[0].g, "verify")
	return reports.Figure{Name: slug("speculation-" + name + " " + rows[0].g.Axis("part")), Title: "Speculation beside its closed form: " + name,
		Caption: "Above a speed-up of 1 drafting pays. Theory takes α from another γ and times from both models alone; it knows no queue and no jitter.",
		Alt:     "Tokens per pass of the model and speed-up, ours and by the closed form.", Picture: chart.Curves(name, plots, legend)}
}

package reports

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"meibench/harness/record"
	"meibench/reports/chart"
)

// Figure is a picture with the words that go with it.
type Figure struct {
	Name    string // file name without extension
	Title   string
	Caption string // one sentence on how to read it
	Alt     string // what it shows, for those who cannot see it
	Picture *chart.Picture
}

const (
	mostApps   = 12                // applications that get figures of their own
	mostSeries = 2 * chart.Colours // placements per figure; colours that begin again meet other glyphs
	mostRows   = 40                // rows of a strip chart
	mostBars   = 24                // bars of the energy figure before it shows one mode only
	mostNamed  = 12                // placements that a caption lists
)

// figures draws everything that a report shows.
func (b *builder) figures() (out []Figure) {
	apps := b.apps[:min(len(b.apps), mostApps)]
	names := map[string]int{}
	for _, app := range apps {
		slug := slugOf(app)
		if names[slug]++; names[slug] > 1 {
			slug = fmt.Sprintf("%s-%d", slug, names[slug])
		}
		out = append(out, b.cdf(app, slug), b.strips(app, slug), b.timeline(app, slug))
	}
	if f := b.scatter(); f != nil {
		out = append(out, *f)
	}
	energy := b.energy()
	energy.Caption += strings.Replace(undrawn(b.apps, mostApps), "Not drawn", "Applications not drawn", 1)
	return append(out, energy)
}

// slugOf is a name that is safe in file names and anchors.
func slugOf(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	s = strings.Trim(s, "-")
	if s == "" {
		return "app"
	}
	return s[:min(len(s), 40)]
}

// colour is the number of a placement's colour and glyph, the same in every
// figure.
func (b *builder) colour(g *Group) int { return b.number[b.label[g]] }

// some are an application's groups of the first few placements, and a sentence
// that names those that are left out. Where there are more placements than colours
// only the most trusted mode is drawn.
func (b *builder) some(app string) (gs []*Group, rest string) {
	var labels []string
	best := len(modes)
	for _, g := range b.of[app] {
		if labels = appendNew(labels, b.label[g]); slices.Index(labels, b.label[g]) < mostSeries {
			gs, best = append(gs, g), min(best, modeRank(g.Cell.Mode))
		}
	}
	rest = undrawn(labels, mostSeries)
	if len(labels) <= chart.Colours || !severalModes(gs) {
		return gs, rest
	}
	gs = slices.DeleteFunc(gs, func(g *Group) bool { return modeRank(g.Cell.Mode) != best })
	return gs, rest + " Of so many placements only the " + gs[0].Cell.Mode + " cells are drawn."
}

// undrawn names what comes after the first so many.
func undrawn(labels []string, most int) string {
	if len(labels) <= most {
		return ""
	}
	return fmt.Sprintf(" Not drawn, see the tables: %s.", strings.Join(labels[most:min(len(labels), most+mostNamed)], ", ")+more(len(labels)-most-mostNamed))
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// lineKeys name the colours and glyphs of groups, and the dashes of their modes.
// In a figure of one mode the dashes tell placements apart as well.
func (b *builder) lineKeys(gs []*Group) (keys []chart.Key, dash func(*Group) int) {
	several := severalModes(gs)
	dash = b.colour
	if several {
		dash = func(g *Group) int { return modeRank(g.Cell.Mode) }
	}
	for _, g := range b.firsts(gs) {
		k := chart.Key{Text: b.label[g], Colour: b.colour(g), Glyph: b.colour(g), Kind: chart.SeriesKey}
		if !several {
			k.Index = dash(g)
			if b.flags[g] != "" {
				k.Text, k.Colour = k.Text+" (INVALID)", chart.Grey
			}
		}
		keys = append(keys, k)
	}
	for _, m := range modes {
		if several && slices.ContainsFunc(gs, func(g *Group) bool { return g.Cell.Mode == m }) {
			keys = append(keys, chart.Key{Text: m, Colour: chart.Ink, Kind: chart.LineKey, Index: modeRank(m)})
		}
	}
	if several && slices.ContainsFunc(gs, func(g *Group) bool { return b.flags[g] != "" }) {
		keys = append(keys, chart.Key{Text: "INVALID", Colour: chart.Grey, Kind: chart.LineKey})
	}
	return keys, dash
}

func severalModes(gs []*Group) bool {
	return slices.ContainsFunc(gs, func(g *Group) bool { return g.Cell.Mode != gs[0].Cell.Mode })
}

// rowLabel names a group's row, with its mode where there are several.
func (b *builder) rowLabel(g *Group, several bool) string {
	if several {
		return b.label[g] + " · " + g.Cell.Mode
	}
	return b.label[g]
}

// heads names a figure of one application, with the mode where there is one.
func heads(app string, gs []*Group) string {
	if len(gs) > 0 && !severalModes(gs) {
		return app + ", " + gs[0].Cell.Mode
	}
	return app
}

// glyphKeys name the glyphs of groups.
func (b *builder) glyphKeys(gs []*Group) (keys []chart.Key) {
	for _, g := range b.firsts(gs) {
		keys = append(keys, chart.Key{Text: b.label[g], Colour: b.colour(g), Kind: chart.GlyphKey, Index: b.colour(g)})
	}
	return keys
}

// firsts keeps one group of each placement.
func (b *builder) firsts(gs []*Group) (out []*Group) {
	seen := map[string]bool{}
	for _, g := range gs {
		if !seen[b.label[g]] {
			seen[b.label[g]] = true
			out = append(out, g)
		}
	}
	return out
}

// timeUnit is the scale for times of some groups.
func (b *builder) timeUnit(gs []*Group, of func(*summary) Stat) scale {
	var vs []float64
	for _, g := range gs {
		vs = append(vs, of(b.sums[g]).V)
	}
	return choose(timeScales(), vs)
}

// axisUnit is that of an axis of requests' times: seconds where it goes beyond
// ten of them.
func (b *builder) axisUnit(gs []*Group, m timing) scale {
	for _, g := range gs {
		if vs := m.values(g); len(vs) > 0 && vs[len(vs)-1] > 10 {
			return timeScales()[0]
		}
	}
	return b.timeUnit(gs, m.median)
}

// scaled divides by a unit.
func scaled(vs []float64, by float64) []float64 {
	out := make([]float64, len(vs))
	for i, v := range vs {
		out[i] = v / by
	}
	return out
}

// timing is a per-request time that figures show.
type timing struct {
	name   string
	values func(*Group) []float64
	median func(*summary) Stat
	limit  func(*record.Cell) time.Duration // 0 = none
}

func timings() [3]timing {
	return [3]timing{
		{"TTFT", func(g *Group) []float64 { return g.TTFT }, func(s *summary) Stat { return s.ttft50 }, func(c *record.Cell) time.Duration { return c.TTFTLimit }},
		{"TPOT", func(g *Group) []float64 { return g.TPOT }, func(s *summary) Stat { return s.tpot50 }, func(c *record.Cell) time.Duration { return c.TPOTLimit }},
		{"E2E", func(g *Group) []float64 { return g.E2E }, func(s *summary) Stat { return s.e2e50 }, func(c *record.Cell) time.Duration { return c.E2ELimit }},
	}
}

// commonLimit is the limit if all groups share it, else 0.
func commonLimit(gs []*Group, of func(*record.Cell) time.Duration) time.Duration {
	for _, g := range gs {
		if of(&g.Cell) != of(&gs[0].Cell) {
			return 0
		}
	}
	return of(&gs[0].Cell)
}

func (b *builder) cdf(app, slug string) Figure {
	gs, rest := b.some(app)
	keys, dash := b.lineKeys(gs)
	var panels []chart.Panel
	var alt []string
	all := timings()
	for _, m := range []timing{all[0], all[2]} {
		unit := b.axisUnit(gs, m)
		p := chart.Panel{Axis: m.name + " (" + unit.unit + ", log scale)"}
		if l := commonLimit(gs, m.limit); l > 0 {
			p.Limit, p.Said = l.Seconds()/unit.by, "limit "+given(l)
		}
		for _, g := range gs {
			if vs := m.values(g); len(vs) > 0 {
				p.Series = append(p.Series, chart.Series{Values: scaled(thin(vs), unit.by), Colour: b.colour(g), Glyph: b.colour(g), Dash: dash(g), Faded: b.flags[g] != ""})
				alt = append(alt, fmt.Sprintf("%s %s %s median %s, 95th percentile %s", b.label[g], g.Cell.Mode, m.name, seconds(record.Quantile(vs, 0.5)), seconds(record.Quantile(vs, 0.95))))
			}
		}
		panels = append(panels, p)
	}
	return Figure{Name: "cdf-" + slug, Title: app + ": distribution of latency",
		Caption: "A line further left is faster; where it crosses the dashed limit is the share of requests inside it; the glyph is the median; failed requests are not in the lines." + rest + b.doubt(gs),
		Alt:     altText("Cumulative distributions of TTFT and E2E for "+app, alt),
		Picture: chart.CDF(heads(app, gs)+b.counts(gs), panels, keys)}
}

const mostDrawn = 100_000 // values per series that figures look at

// thin takes evenly spaced ranks from a very large sorted sample.
func thin(sorted []float64) []float64 {
	if len(sorted) <= mostDrawn {
		return sorted
	}
	out := make([]float64, mostDrawn)
	for i := range out {
		out[i] = sorted[int(float64(i)/(mostDrawn-1)*float64(len(sorted)-1))]
	}
	return out
}

// counts says how many requests ended well in each group: one number, or the
// range.
func (b *builder) counts(gs []*Group) string {
	lo, hi := math.MaxInt, 0
	for _, g := range gs {
		n := g.Outcomes[record.OK]
		lo, hi = min(lo, n), max(hi, n)
	}
	switch {
	case len(gs) == 0:
		return ""
	case lo == hi:
		return fmt.Sprintf(" (n = %d each)", lo)
	}
	return fmt.Sprintf(" (n = %d to %d)", lo, hi)
}

// doubt names the INVALID groups of a figure.
func (b *builder) doubt(gs []*Group) string {
	var bad []string
	for _, g := range gs {
		if b.flags[g] != "" {
			bad = append(bad, b.label[g]+" "+g.Cell.Mode)
		}
	}
	if len(bad) == 0 {
		return ""
	}
	return " INVALID: " + list(bad) + "."
}

const mostAlt = 24 // clauses of an alternative text

func altText(what string, clauses []string) string {
	if n := len(clauses); n > mostAlt {
		clauses = append(slices.Clone(clauses[:mostAlt]), fmt.Sprintf("and %d more; the tables hold all numbers", n-mostAlt))
	}
	return what + ": " + strings.Join(clauses, "; ") + "."
}

func (b *builder) strips(app, slug string) Figure {
	gs := b.of[app]
	rest, marked := "", ""
	if len(gs) > mostRows {
		var labels []string
		for _, g := range gs {
			labels = append(labels, b.rowLabel(g, severalModes(gs)))
		}
		gs, rest = gs[:mostRows], undrawn(labels, mostRows)
	}
	var axes []string
	var limits []float64
	var rows []chart.Strip
	var alt []string
	for _, g := range gs {
		row := chart.Strip{Label: b.rowLabel(g, severalModes(gs)), Colour: b.colour(g), Glyph: b.colour(g), Faded: b.flags[g] != ""}
		row.Gap = severalModes(gs) && len(rows) > 0 && b.label[gs[len(rows)-1]] != b.label[g]
		if row.Faded {
			row.Label += " !"
		}
		if g.overloaded() {
			row.Label += " " + markOverload
			marked = " " + overloadNote
		}
		rows = append(rows, row)
		s := b.sums[g]
		alt = append(alt, fmt.Sprintf("%s %s: TTFT %s, TPOT %s, E2E %s", b.label[g], g.Cell.Mode, seconds(s.ttft50.V), seconds(s.tpot50.V), seconds(s.e2e50.V)))
	}
	for _, m := range timings() {
		unit := b.axisUnit(gs, m)
		axes = append(axes, m.name+" ("+unit.unit+", log)")
		limits = append(limits, commonLimit(gs, m.limit).Seconds()/unit.by)
		for i, g := range gs {
			s := m.median(b.sums[g])
			rows[i].Cells = append(rows[i].Cells, chart.Sample{Values: scaled(thin(m.values(g)), unit.by), N: len(m.values(g)), Mid: s.V / unit.by, Low: s.Lo / unit.by, Top: s.Hi / unit.by})
		}
	}
	return Figure{Name: "latency-" + slug, Title: app + ": latency by placement and mode",
		Caption: "Glyph and thick bar are the median with its 95 % interval; dots are requests (above 60 of them a box from the 25th to the 75th percentile with whiskers to the 5th and 95th); dashed lines are limits; “!” and grey mark INVALID cells." + rest + marked,
		Alt:     altText("Medians by placement and mode for "+app, alt),
		Picture: chart.Strips(heads(app, gs), axes, limits, rows)}
}

// scatter is nil where there are no pairs.
func (b *builder) scatter() *Figure {
	var fields []chart.Field
	var alt []string
	var paired []*Group
	for _, mode := range []string{"emulated", "modelled"} {
		var gs []*Group
		for _, g := range b.Groups {
			if g.Cell.Mode == mode && b.twin[g] != nil && !math.IsNaN(b.sums[g].gap.median()) {
				gs = append(gs, g)
			}
		}
		if len(gs) == 0 {
			continue
		}
		paired = append(paired, gs...)
		for _, m := range timings() {
			unit := b.timeUnit(gs, m.median)
			f := chart.Field{XAxis: "measured " + m.name + " p50 (" + unit.unit + ")", YAxis: mode + " (" + unit.unit + ")"}
			for _, g := range gs {
				f.Pairs = append(f.Pairs, chart.Pair{Label: g.Cell.App, Colour: b.colour(g), Glyph: b.colour(g), Faded: b.flags[g] != "" || b.flags[b.twin[g]] != "",
					X: rangeOf(m.median(b.sums[b.twin[g]]), unit.by), Y: rangeOf(m.median(b.sums[g]), unit.by)})
			}
			fields = append(fields, f)
		}
		ttft, tpot, e2e, _ := b.gaps(mode)
		alt = append(alt, fmt.Sprintf("%s: median absolute error of TTFT %s, TPOT %s, E2E %s over %s", mode, percent(medianAbs(ttft)), percent(medianAbs(tpot)), percent(medianAbs(e2e)), plural(len(ttft), "valid pair", "valid pairs")))
	}
	if len(paired) == 0 {
		return nil
	}
	return &Figure{Name: "agreement", Title: "Emulated and modelled against measured",
		Caption: "On the line both agree; the band is ± 10 %; thin bars are 95 % intervals; an application is named at its point that lies farthest off; grey points belong to INVALID cells and are not in n.",
		Alt:     altText("Medians of emulated and modelled cells against those measured", alt),
		Picture: chart.Scatter("Medians (p50) of each cell by two ways", fields, b.glyphKeys(paired))}
}

func rangeOf(s Stat, by float64) chart.Range {
	return chart.Range{V: s.V / by, Lo: s.Lo / by, Hi: s.Hi / by}
}

package reports

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/reports/chart"
)

// lit are an application's groups whose energy is known; of one mode, the most
// trusted, if asked.
func (b *builder) lit(app string, oneMode bool) (gs []*Group, rest []string) {
	for _, g := range b.of[app] {
		if !math.IsNaN(b.sums[g].energy.V) {
			gs = append(gs, g)
		}
	}
	if oneMode && len(gs) > 0 {
		best := slices.MinFunc(gs, func(x, y *Group) int { return modeRank(x.Cell.Mode) - modeRank(y.Cell.Mode) }).Cell.Mode
		gs = slices.DeleteFunc(gs, func(g *Group) bool { return g.Cell.Mode != best })
	}
	for _, g := range gs[min(len(gs), mostBars):] {
		rest = append(rest, app+" "+b.label[g])
	}
	return gs[:min(len(gs), mostBars)], rest
}

// energy draws the energy per request by part of the system.
func (b *builder) energy() Figure {
	apps := b.apps[:min(len(b.apps), mostApps)]
	bars := 0
	for _, app := range apps {
		gs, rest := b.lit(app, false)
		bars += len(gs) + len(rest)
	}
	var facets []chart.Facet
	var alt, rest []string
	for _, app := range apps {
		gs, more := b.lit(app, bars > mostBars)
		rest = append(rest, more...)
		if len(gs) == 0 {
			continue
		}
		var totals []float64
		for _, g := range gs {
			totals = append(totals, b.sums[g].energy.V)
		}
		unit := choose(energyScales(), totals)
		f := chart.Facet{Title: heads(app, gs) + ", energy per request (" + unit.unit + ")"}
		for _, g := range gs {
			bar := chart.Stack{Label: b.rowLabel(g, severalModes(gs)), Total: brief(b.sums[g].energy.V/unit.by) + " " + unit.unit + sourceMark(b.sums[g].energySource), Faded: b.flags[g] != ""}
			for _, e := range g.Energy {
				bar.Parts = append(bar.Parts, e.Joules/float64(g.N)/unit.by)
			}
			f.Bars = append(f.Bars, bar)
			alt = append(alt, app+" "+b.label[g]+" "+g.Cell.Mode+" "+bar.Total)
		}
		facets = append(facets, f)
	}
	keys := energyKeys(facets)
	if len(alt) == 0 {
		alt = append(alt, "the energy of no cell is known")
	}
	return Figure{Name: "energy", Title: "Energy per request by part of the system",
		Caption: "Each bar is the energy of all requests over their number, failures included; each application has its own axis; cells with a step of unknown energy are left out. " +
			markModelled + " " + hardware.Modelled.String() + ", " + markEmulated + " " + hardware.Emulated.String() + ", no mark: from a meter." + undrawn(rest, 0),
		Alt: altText("Energy per request", alt), Picture: chart.Stacks("energy per request by part", facets, keys)}
}

// energyKeys name the parts that spend anything in some bar; the others keep
// their place without a name.
func energyKeys(facets []chart.Facet) (keys []chart.Key) {
	for p := range record.NumParts {
		k := chart.Key{Colour: [...]int{0, 5, 2, 3}[p], Kind: chart.BarKey, Index: int(p)}
		for _, f := range facets {
			for _, bar := range f.Bars {
				if bar.Parts[p] > 0 {
					k.Text = p.String()
				}
			}
		}
		keys = append(keys, k)
	}
	return keys
}

// timeline draws where one request spent its time under each placement.
func (b *builder) timeline(app, slug string) Figure {
	gs, id := b.common(app)
	f := Figure{Name: "timeline-" + slug, Title: app + ": where the time of one request goes"}
	var alt []string
	var samples []*Sample
	end, cut := time.Duration(0), false
	for _, g := range gs {
		s, err := g.sample(id)
		if err != nil { // the stream ended well when it was added
			s = &Sample{}
		}
		samples, end, cut = append(samples, s), max(end, s.Total), cut || s.Cut
	}
	unit := choose(timeScales(), []float64{end.Seconds()})
	if end < 10*time.Second && end >= time.Second {
		unit = timeScales()[1] // parts of a request are easier to compare in ms
	}
	var tracks []chart.Track
	for i, g := range gs {
		s := samples[i]
		t := chart.Track{Title: fmt.Sprintf("%s: %s (median %s)", b.label[g], seconds(s.Total.Seconds()), seconds(b.sums[g].e2e50.V)), First: math.NaN(), Faded: b.flags[g] != ""}
		if t.Faded {
			t.Title += ", INVALID"
		}
		if s.FirstToken != record.Unset {
			t.First = s.FirstToken.Seconds() / unit.by
		}
		t.Lanes = lanes(s, unit.by)
		tracks = append(tracks, t)
		alt = append(alt, b.label[g]+" "+spent(s))
	}
	if len(gs) > 0 {
		f.Caption = fmt.Sprintf("Request %d, %s: of all requests of each cell's first run that ended well under every placement shown, the one whose end-to-end times are closest to the medians; ", id, gs[0].Cell.Mode)
	} else {
		alt = append(alt, "no data")
	}
	f.Caption += "one lane per node or link with 0.5 % of the time or more, time from the intended start; mind the axes, which differ where the times do by much."
	if cut {
		f.Caption += fmt.Sprintf(" Only the first %d spans of a request are drawn.", mostSpans)
	}
	f.Caption += b.untracked(app, gs)
	f.Alt = altText("Timeline of one request for "+app, alt)
	f.Picture = chart.Timeline(heads(app, gs), "time since the intended start ("+unit.unit+")", tracks, timelineKeys())
	return f
}

// untracked names the placements of a timeline's mode that it has no room for.
func (b *builder) untracked(app string, gs []*Group) string {
	var labels []string
	for _, g := range b.of[app] {
		if len(gs) > 0 && g.Cell.Mode == gs[0].Cell.Mode && !slices.Contains(gs, g) {
			labels = append(labels, b.label[g])
		}
	}
	return undrawn(labels, 0)
}

func timelineKeys() []chart.Key {
	return []chart.Key{
		{Text: "compute", Kind: chart.SpanKey, Index: int(chart.ComputeSpan)}, {Text: "in a batch", Kind: chart.SpanKey, Index: int(chart.BatchSpan)},
		{Text: "transfer", Kind: chart.SpanKey, Index: int(chart.TransferSpan)}, {Text: "queue", Kind: chart.SpanKey, Index: int(chart.QueueSpan)},
		{Text: "wait", Kind: chart.SpanKey, Index: int(chart.WaitSpan)}, {Text: "first token", Kind: chart.FirstKey}}
}

// spent sums a request's time by kind, in words.
func spent(s *Sample) string {
	var sums [record.Wait + 1]time.Duration
	for _, sp := range s.Spans {
		sums[min(sp.Kind, record.Wait)] += sp.End - sp.Start
	}
	var parts []string
	for k := record.Compute; k <= record.Wait; k++ {
		if sums[k] > 0 {
			parts = append(parts, k.String()+" "+seconds(sums[k].Seconds()))
		}
	}
	return list(parts)
}

// common picks the most trusted mode in which some request ended well under
// all placements that have any, and of all such requests of the first repeat
// the one whose times are closest to the medians.
func (b *builder) common(app string) (gs []*Group, id int) {
	for _, mode := range modes {
		gs = nil
		for _, g := range b.of[app] {
			if g.Cell.Mode == mode && len(g.ended) > 0 && len(gs) < mostSeries {
				gs = append(gs, g)
			}
		}
		best := math.Inf(1)
		if len(gs) > 0 {
			for _, r := range gs[0].ended {
				if off := b.off(gs, r.id); off < best {
					best, id = off, r.id
				}
			}
		}
		if !math.IsInf(best, 1) {
			return gs, id
		}
	}
	return nil, 0
}

// off is how far a request's times are from the medians of all groups;
// infinite if it did not end well in each.
func (b *builder) off(gs []*Group, id int) (sum float64) {
	for _, g := range gs {
		r := g.find(id)
		if r == nil {
			return math.Inf(1)
		}
		sum += math.Abs(math.Log(r.total.Seconds() / b.sums[g].e2e50.V))
	}
	if math.IsNaN(sum) {
		return math.Inf(1)
	}
	return sum
}

const (
	mostLanes = 12
	leastLane = 0.005 // of a request; a lane with less is left out
)

// lanes sorts a request's spans by node, in order of first use.
func lanes(s *Sample, by float64) (out []chart.Lane) {
	sums := map[string]time.Duration{}
	for _, sp := range s.Spans {
		sums[sp.Node] += sp.End - sp.Start
	}
	at := map[string]int{}
	for _, sp := range s.Spans {
		i, ok := at[sp.Node]
		if !ok {
			if len(out) == mostLanes || float64(sums[sp.Node]) < leastLane*float64(s.Total) {
				continue
			}
			i = len(out)
			at[sp.Node] = i
			out = append(out, chart.Lane{Label: cmp.Or(sp.Node, "(wait)")})
		}
		out[i].Spans = append(out[i].Spans, chart.TimeSpan{Kind: spanKind(sp.Kind), From: sp.Start.Seconds() / by, To: sp.End.Seconds() / by})
	}
	return out
}

func spanKind(k record.Kind) chart.SpanKind {
	switch k {
	case record.Compute:
		return chart.ComputeSpan
	case record.Transfer:
		return chart.TransferSpan
	case record.Queue:
		return chart.QueueSpan
	case record.Batch:
		return chart.BatchSpan
	}
	return chart.WaitSpan
}

// Sample is one request with its spans, times counted from its intended start.
type Sample struct {
	ID                int
	FirstToken, Total time.Duration // Unset if there was no token
	Spans             []record.Span
	Cut               bool // there were more spans than reports keep

	intended time.Duration
}

// spansOf hands out the spans of one request of a stream.
func spansOf(rows iter.Seq2[*record.Request, error], id int, each func(record.Span)) error {
	for r, err := range rows {
		if err != nil {
			return err
		}
		if r.ID == id {
			for _, s := range r.Spans {
				each(s)
			}
			return nil
		}
	}
	return nil
}

// find is a request of the first repeat, nil if it did not end well.
func (g *Group) find(id int) *ending {
	i, ok := slices.BinarySearchFunc(g.ended, id, func(b ending, id int) int { return cmp.Compare(b.id, id) })
	if !ok {
		return nil
	}
	return &g.ended[i]
}

// sample is a request of the first repeat with its spans, read when first asked
// for.
func (g *Group) sample(id int) (*Sample, error) {
	if g.sampled != nil && g.sampled.ID == id {
		return g.sampled, nil
	}
	b := g.find(id)
	s := &Sample{ID: id, FirstToken: b.first, Total: b.total, intended: b.intended}
	if err := g.fetch(id, s.span); err != nil {
		return nil, err
	}
	g.sampled = s
	return s, nil
}

// span appends a span and gives up on a request with absurdly many.
func (s *Sample) span(sp record.Span) {
	if len(s.Spans) == mostSpans {
		s.Cut = true
		return
	}
	sp.Node = clean(sp.Node, mostName)
	sp.Start, sp.End = sp.Start-s.intended, sp.End-s.intended
	s.Spans = append(s.Spans, sp)
}

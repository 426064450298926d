package engine

import (
	"fmt"
	"slices"
	"strings"

	"meibench/hardware/probe"
	"meibench/reports/chart"
)

// Figure is the roofline: a panel for each number of threads, with the limits
// that were measured and where kernels, or models, lie below them. The four
// products of a layer are one point per type and number of tokens.
func (r *Report) Figure() *chart.Picture {
	var roofs []chart.Roof
	spots, keys := r.kernelSpots()
	if len(r.Rows) > 0 {
		spots, keys = r.rowSpots()
	}
	for _, n := range r.threads() {
		roof := chart.Roof{Title: plural(n), Spots: spots[n]}
		memory, peaks := r.limits(n)
		for _, f := range memory {
			roof.Slopes = append(roof.Slopes, chart.Ceiling{Label: fmt.Sprintf("%s %s GB/s", f.Detail, giga(f.Value)), V: f.Value / 1e9})
		}
		for _, f := range peaks {
			roof.Peaks = append(roof.Peaks, chart.Ceiling{Label: fmt.Sprintf("%s %s G%s", f.Detail, giga(f.Value), f.Unit), V: f.Value / 1e9})
		}
		roofs = append(roofs, roof)
	}
	title := fmt.Sprintf("%s, %s kernels", r.Limits.Machine.CPU, r.Limits.Tier)
	if len(r.Kernels) > 0 {
		title += fmt.Sprintf(", layer %v", r.Layer)
	}
	if len(r.Limits.Warnings) > 0 {
		title += " (disturbed while it was measured)"
	}
	return chart.Roofline(title, "intensity (operations per byte)", "rate (GFLOP/s, for integers GOP/s)", roofs, keys)
}

func plural(n int) string {
	if n == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", n)
}

// mark is the colour and glyph of the i-th series; the ring is for what has none.
func mark(i int) (colour, glyph int) {
	const glyphs = 5
	return i % chart.Colours, (i + i/chart.Colours) % glyphs
}

const ring = 5

// kernelSpots are the points of kernels by number of threads.
func (r *Report) kernelSpots() (map[int][]chart.Spot, []chart.Key) {
	type group struct {
		format          string
		tokens, threads int
	}
	sums := map[group]*probe.Kernel{}
	var order []group
	var formats []string
	spots := map[int][]chart.Spot{}
	most := 0
	for _, k := range r.Kernels {
		most = max(most, k.Tokens)
	}
	for _, k := range r.Kernels {
		if !strings.HasPrefix(k.Op, "matmul") {
			if k.Op == "attention" || k.Tokens == most { // one token of the others is one row, too little to see
				spots[k.Threads] = append(spots[k.Threads], chart.Spot{Label: label(k), Colour: chart.Ink, Glyph: ring, X: k.FLOP / k.Bytes, Y: k.Rate() / 1e9})
			}
			continue
		}
		g := group{k.Format, k.Tokens, k.Threads}
		if sums[g] == nil {
			sums[g], order = &probe.Kernel{}, append(order, g)
		}
		s := sums[g]
		s.FLOP, s.Bytes, s.Time = s.FLOP+k.FLOP, s.Bytes+k.Bytes, s.Time+k.Time
		if !slices.Contains(formats, k.Format) {
			formats = append(formats, k.Format)
		}
	}
	products := map[int][]chart.Spot{}
	for _, g := range order {
		s := sums[g]
		colour, glyph := mark(slices.Index(formats, g.format))
		name := "1 token"
		if g.tokens > 1 {
			name = fmt.Sprintf("%d tokens", g.tokens)
		}
		products[g.threads] = append(products[g.threads], chart.Spot{Label: name, Colour: colour, Glyph: glyph, X: s.FLOP / s.Bytes, Y: s.Rate() / 1e9})
	}
	for n, list := range products {
		spots[n] = append(list, spots[n]...) // their names come first
	}
	var keys []chart.Key
	for i, f := range formats {
		colour, glyph := mark(i)
		keys = append(keys, chart.Key{Text: "products, " + strings.ToLower(f), Colour: colour, Kind: chart.GlyphKey, Index: glyph})
	}
	return spots, append(keys, chart.Key{Text: fmt.Sprintf("between products, %d tokens", most), Colour: chart.Ink, Kind: chart.GlyphKey, Index: ring})
}

// label names a kernel in the figure.
func label(k probe.Kernel) string {
	if k.Op != "attention" {
		return k.Op
	}
	for part := range strings.FieldsSeq(k.Shape) {
		if past, ok := strings.CutPrefix(part, "past="); ok && k.Tokens == 1 {
			return "attention at " + past
		}
	}
	return "attention, prompt"
}

// rowSpots are the points of models by number of threads.
func (r *Report) rowSpots() (map[int][]chart.Spot, []chart.Key) {
	spots := map[int][]chart.Spot{}
	var models []string
	var keys []chart.Key
	for i := range r.Rows {
		row := &r.Rows[i]
		if !slices.Contains(models, row.Model.File) {
			models = append(models, row.Model.File)
			colour, glyph := mark(len(models) - 1)
			keys = append(keys, chart.Key{Text: row.Model.Type, Colour: colour, Kind: chart.GlyphKey, Index: glyph})
		}
		colour, glyph := mark(slices.Index(models, row.Model.File))
		ops := row.Work.Float + row.Work.Int
		spots[row.Threads] = append(spots[row.Threads], chart.Spot{Label: row.Name(), Colour: colour, Glyph: glyph,
			X: ops / row.Work.Bytes, Y: ops / row.mean().Seconds() / 1e9})
	}
	return spots, keys
}

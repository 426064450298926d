package chart

import (
	"fmt"
	"strings"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Strip is a row of a strip chart: one sample per panel.
type Strip struct {
	Label  string
	Colour int
	Glyph  int
	Gap    bool     // some space above: a new group begins
	Faded  bool     // not to be trusted
	Cells  []Sample // one per panel
}

// Sample is what a row shows in one panel.
type Sample struct {
	Values        []float64 // sorted; may be thinned
	N             int       // how many there were
	Mid, Low, Top float64   // median and its interval; NaN = none
}

const (
	stripRow   = 13 * vg.Length(1)
	stripGap   = 5 * vg.Length(1)
	stripDots  = 60 // up to so many values are drawn one by one
	labelShare = 0.34
)

// Strips draws samples as rows, one panel per axis, on log axes: every value up
// to 60 of them, else a box from the 25th to the 75th percentile with whiskers
// to the 5th and 95th; over it the median with its interval, and n beside it.
// Limits, one per axis, are lines; 0 = none.
func Strips(title string, names []string, limits []float64, rows []Strip) *Picture {
	axes := make([]StripAxis, len(names))
	for i := range names {
		axes[i] = StripAxis{Name: names[i], Limit: limits[i]}
	}
	return Rows(title, "one request", axes, rows)
}

// StripAxis is the axis of a panel, logarithmic unless it is said to be linear.
type StripAxis struct {
	Name   string
	Limit  float64 // a line; 0 = none
	Linear bool
}

// Rows is Strips with axes of either kind, for samples of anything; one says what a dot is.
func Rows(title, one string, axes []StripAxis, rows []Strip) *Picture {
	return fit(func(width vg.Length) *Picture {
		inner := width - 3*margin
		panels := make([]stripPanel, len(axes))
		any := false
		for i, a := range axes {
			panels[i] = stripPanel{StripAxis: a, at: i}
			any = panels[i].fit(rows) || any
		}
		if !any {
			return Empty(title, "no "+strings.TrimPrefix(one, "one ")+" ended well")
		}
		keys := stripKeys(one, axes, rows)
		h := headingHeight() + legendHeight(keys, inner) + axisHeight + rowsHeight(rows)
		return &Picture{w: width, h: h, paint: func(c draw.Canvas) {
			c = legend(heading(c, title), keys)
			left := labelWidth(rows, c.Size().X*labelShare)
			each := (c.Size().X - left - panelGap*vg.Length(len(panels)-1)) / vg.Length(len(panels))
			for i := range panels {
				x := c.Min.X + left + vg.Length(i)*(each+panelGap)
				panels[i].draw(box(c, x, c.Min.Y, x+each, c.Max.Y), rows)
			}
			for i, r := range rows {
				level(c, tickText, draw.XRight, pt(c.Min.X+left-4, rowMiddle(rows, i, c.Max.Y)), tickText.cut(r.Label, left-4))
			}
		}}
	})
}

// stripPanel is one panel of a strip chart.
type stripPanel struct {
	StripAxis
	x  span
	at int // which of a row's cells it shows
}

// fit sets the range: the data, and the limit unless it is far off. It returns
// false if there is nothing to show.
func (p *stripPanel) fit(rows []Strip) bool {
	var ends []float64
	for _, r := range rows {
		if all := r.Cells[p.at].Values; p.Linear {
			ends = append(ends, all...)
		} else {
			ends = append(ends, extremes(all)...)
		}
	}
	s, ok := spanOf(ends, !p.Linear)
	if !ok {
		return false
	}
	if p.Limit > s.lo/10 && p.Limit < s.hi*10 {
		s, _ = spanOf(append(ends, p.Limit), !p.Linear)
	}
	p.x = s
	return true
}

func rowsHeight(rows []Strip) (h vg.Length) {
	for _, r := range rows {
		h += stripRow
		if r.Gap {
			h += stripGap
		}
	}
	return h
}

func labelWidth(rows []Strip, most vg.Length) (w vg.Length) {
	for _, r := range rows {
		w = max(w, tickText.width(r.Label)+6)
	}
	return min(w, most)
}

// rowMiddle is where row i stands, below a top edge.
func rowMiddle(rows []Strip, i int, top vg.Length) vg.Length {
	return top - rowsHeight(rows[:i+1]) + stripRow/2
}

// stripKeys explain what the rows are drawn with.
func stripKeys(one string, axes []StripAxis, rows []Strip) []Key {
	dots, boxes := false, false
	for _, r := range rows {
		for _, s := range r.Cells {
			dots, boxes = dots || len(s.Values) > 0 && len(s.Values) <= stripDots, boxes || len(s.Values) > stripDots
		}
	}
	keys := []Key{{Text: "median, 95 % interval", Colour: Grey, Kind: MedianKey}}
	if dots {
		keys = append(keys, Key{Text: one, Colour: Grey, Kind: DotKey})
	}
	if boxes {
		keys = append(keys, Key{Text: "5th, 25th, 75th, 95th percentile", Colour: Grey, Kind: BoxKey})
	}
	for _, a := range axes {
		if a.Limit > 0 {
			return append(keys, Key{Text: "limit", Kind: LimitKey})
		}
	}
	return keys
}

func (p *stripPanel) draw(c draw.Canvas, rows []Strip) {
	if p.x.hi == 0 {
		remark(c, p.Name+": no data")
		return
	}
	const note = 24 * vg.Length(1) // room for n
	f := axes{x: p.x, xLabel: p.Name}.draw(box(c, c.Min.X, c.Min.Y, c.Max.X-note, c.Max.Y))
	if p.Limit > p.x.lo && p.Limit < p.x.hi {
		stroke(f.Canvas, limitLine(), pt(f.X(p.Limit), f.Min.Y), pt(f.X(p.Limit), f.Max.Y))
	}
	for i := range rows {
		y := rowMiddle(rows, i, c.Max.Y)
		rows[i].draw(&f, rows[i].Cells[p.at], y)
		level(c, noteText, draw.XRight, pt(c.Max.X, y), countText(rows[i].Cells[p.at].N))
	}
}

func countText(n int) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("n %.3gM", float64(n)/1e6)
	case n >= 1e4:
		return fmt.Sprintf("n %.3gk", float64(n)/1e3)
	}
	return fmt.Sprintf("n %d", n)
}

func (r *Strip) draw(f *frame, smp Sample, y vg.Length) {
	col := colourOf(r.Colour)
	if r.Faded {
		col = colourOf(Grey)
	}
	if n := len(smp.Values); n > stripDots {
		at := func(p float64) vg.Length { return f.X(smp.Values[min(int(p*float64(n)), n-1)]) }
		quartiles(f.Canvas, col, [4]vg.Length{at(0.05), at(0.25), at(0.75), at(0.95)}, y)
	} else {
		for _, v := range smp.Values {
			if f.x.shows(v) {
				f.DrawGlyphNoClip(dot(col), pt(f.X(v), y))
			}
		}
	}
	if !f.x.shows(smp.Mid) {
		return
	}
	if f.x.shows(smp.Low) && f.x.shows(smp.Top) {
		interval(f.Canvas, col, f.X(smp.Low), f.X(smp.Top), y)
	}
	median(f.Canvas, col, r.Glyph, pt(f.X(smp.Mid), y))
}

const stripHalf = 3.2 * vg.Length(1)

// quartiles draws whiskers and a box at four places.
func quartiles(c draw.Canvas, col rgb, at [4]vg.Length, y vg.Length) {
	stroke(c, line(col, 0.8, nil), pt(at[0], y), pt(at[3], y))
	fill(c, col.faint(0.3), pt(at[1], y-stripHalf), pt(at[2], y+stripHalf))
}

func interval(c draw.Canvas, col rgb, lo, hi, y vg.Length) {
	stroke(c, line(col, 2.2, nil), pt(lo, y), pt(hi, y))
	stroke(c, line(col, 1, nil), pt(lo, y-stripHalf), pt(lo, y+stripHalf))
	stroke(c, line(col, 1, nil), pt(hi, y-stripHalf), pt(hi, y+stripHalf))
}

func median(c draw.Canvas, col rgb, glyph int, at vg.Point) {
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: paper.colour(), Radius: 3.9, Shape: glyphOf(glyph)}, at)
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: col.colour(), Radius: 2.8, Shape: glyphOf(glyph)}, at)
}

func dot(col rgb) draw.GlyphStyle {
	return draw.GlyphStyle{Color: col.faint(0.45), Radius: 1.6, Shape: draw.CircleGlyph{}}
}

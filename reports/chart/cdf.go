package chart

import (
	"fmt"
	"math"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Series is a sample with its look.
type Series struct {
	Values []float64 // sorted
	Colour int
	Glyph  int  // at the median
	Faded  bool // not to be trusted
	Dash   int
}

func (s *Series) colour() rgb {
	if s.Faded {
		return colourOf(Grey)
	}
	return colourOf(s.Colour)
}

// Panel is one of the charts that stand side by side in a picture.
type Panel struct {
	Axis   string // name and unit
	Series []Series
	Limit  float64 // drawn as a line; 0 or NaN = none
	Said   string  // what the line says
}

const (
	cdfHeight = 6.2 * vg.Centimeter
	cdfPoints = 400 // steps drawn per line
	panelGap  = 12 * vg.Length(1)
)

// CDF draws the empirical distribution of each series, one panel per metric, on
// log axes. Values that a log axis cannot show are counted under the panel.
func CDF(title string, panels []Panel, keys []Key) *Picture {
	return fit(func(width vg.Length) *Picture {
		inner := width - 3*margin
		if len(panels) == 0 || !anySeries(panels) {
			return Empty(title, "no request ended well")
		}
		across := min(len(panels), abreast(width, 2))
		rows := vg.Length((len(panels) + across - 1) / across)
		h := rows*cdfHeight + (rows-1)*panelGap + headingHeight() + legendHeight(keys, inner)
		return &Picture{w: width, h: h, paint: func(c draw.Canvas) {
			c = legend(heading(c, title), keys)
			each := (c.Size().X - panelGap*vg.Length(across-1)) / vg.Length(across)
			for i, p := range panels {
				x := c.Min.X + vg.Length(i%across)*(each+panelGap)
				y := c.Max.Y - vg.Length(i/across)*(cdfHeight+panelGap)
				p.cdf(box(c, x, y-cdfHeight, x+each, y), i%across == 0)
			}
		}}
	})
}

func anySeries(panels []Panel) bool {
	for _, p := range panels {
		if _, ok := p.span(); ok {
			return true
		}
	}
	return false
}

// box is the part of a canvas between two corners.
func box(c draw.Canvas, x0, y0, x1, y1 vg.Length) draw.Canvas {
	return draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{Min: pt(x0, y0), Max: pt(x1, y1)}}
}

// span is the range of a panel: its data, and the limit unless it is so far off
// that the data would be squeezed.
func (p *Panel) span() (span, bool) {
	var ends []float64
	for _, s := range p.Series {
		ends = append(ends, extremes(s.Values)...)
	}
	s, ok := spanOf(ends, true)
	if ok && p.limited() && p.Limit > s.lo/10 && p.Limit < s.hi*10 {
		s, ok = spanOf(append(ends, p.Limit), true)
	}
	return s, ok
}

// extremes are the smallest and the largest of sorted values that a log axis
// shows.
func extremes(sorted []float64) []float64 {
	log := span{log: true}
	from, to := below(sorted), len(sorted)
	for to > from && !log.shows(sorted[to-1]) {
		to--
	}
	if from == to {
		return nil
	}
	return []float64{sorted[from], sorted[to-1]}
}

func (p *Panel) limited() bool { return p.Limit > 0 && !math.IsInf(p.Limit, 0) }

func (p *Panel) cdf(c draw.Canvas, first bool) {
	s, ok := p.span()
	if !ok {
		remark(c, p.Axis+": no data")
		return
	}
	a := axes{x: s, y: span{lo: 0, hi: 1}, xLabel: p.Axis}
	if first {
		a.yLabel = "share of requests at or below"
	}
	hidden := 0
	for _, series := range p.Series {
		hidden += below(series.Values)
	}
	if hidden > 0 {
		a.xLabel += fmt.Sprintf("; %d not above 0 left out", hidden)
	}
	f := a.draw(c)
	for _, series := range p.Series {
		sty := line(series.colour(), 1.3, dashes(series.Dash))
		f.StrokeLines(sty, f.steps(series.Values))
	}
	for _, series := range p.Series {
		if n := len(series.Values); n > 0 && f.x.shows(series.Values[(n-1)/2]) {
			median(f.Canvas, series.colour(), series.Glyph, pt(f.X(series.Values[(n-1)/2]), f.Y(0.5)))
		}
	}
	p.limit(&f)
}

// below counts what a log axis cannot show.
func below(sorted []float64) (n int) {
	for n < len(sorted) && !(span{log: true}).shows(sorted[n]) {
		n++
	}
	return n
}

// steps are the corners of the empirical distribution, thinned in the middle
// where there are more than one can see; the tails, a percent each, are whole.
func (f *frame) steps(sorted []float64) (out []vg.Point) {
	n, from := len(sorted), below(sorted)
	if from == n {
		return nil
	}
	share := func(k int) float64 { return float64(k) / float64(n) }
	stride := max(1, n/cdfPoints)
	out = append(out, pt(f.Min.X, f.Y(share(from))))
	for i := from; i < n; i++ {
		if i%stride == 0 || i < n/100 || i >= n-n/100 || i == n-1 {
			x := f.X(sorted[i])
			out = append(out, pt(x, out[len(out)-1].Y), pt(x, f.Y(share(i+1))))
		}
	}
	return append(out, pt(f.Max.X, f.Y(1)))
}

// limitLine is how limits are drawn.
func limitLine() draw.LineStyle { return line(ink, 0.9, []vg.Length{3, 2}) }

// limit draws the limit, or says on which side of the panel it lies.
func (p *Panel) limit(f *frame) {
	if !p.limited() {
		return
	}
	const pad = 3 * vg.Length(1)
	y := f.Min.Y + pad
	switch {
	case p.Limit < f.x.lo:
		plate(f.Canvas, draw.XLeft, f.Min.X+pad, y, "← "+p.Said)
	case p.Limit > f.x.hi:
		plate(f.Canvas, draw.XRight, f.Max.X-pad, y, p.Said+" →")
	default:
		at := f.X(p.Limit)
		stroke(f.Canvas, limitLine(), pt(at, f.Min.Y), pt(at, f.Max.Y))
		align, shift := draw.XLeft, pad
		if at+pad+noteText.width(p.Said) > f.Max.X {
			align, shift = draw.XRight, -pad
		}
		plate(f.Canvas, align, at+shift, y, p.Said)
	}
}

// plate writes a note on a scrap of paper, so that lines below do not cross it.
func plate(c draw.Canvas, align draw.XAlignment, x, y vg.Length, s string) {
	w := noteText.width(s)
	left := x + vg.Length(align)*w
	fill(c, paper.faint(0.85), pt(left-1, y-1), pt(left+w+1, y+noteText.size))
	text(c, noteText, align, pt(x, y+1), s)
}

package chart

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Pair is a point of a scatter: a figure by two ways, with intervals; NaN = none.
type Pair struct {
	Label  string
	Colour int
	Glyph  int
	Faded  bool // not to be trusted
	X, Y   Range
}

// Range is a value and its interval.
type Range struct{ V, Lo, Hi float64 }

// Field is one panel of a scatter.
type Field struct {
	XAxis, YAxis string
	Pairs        []Pair
}

const (
	mostNamed = 4   // points per panel that are labelled
	band      = 0.1 // of the identity line
)

// Scatter compares two ways to the same figure, panels in rows of three, on log
// axes of one range each: the line is equality, the band ± 10 %. The farthest
// points outside the band are named.
func Scatter(title string, fields []Field, keys []Key) *Picture {
	return fit(func(width vg.Length) *Picture {
		inner := width - 3*margin
		any := false
		for _, f := range fields {
			_, ok := f.span()
			any = any || ok
		}
		if !any {
			return Empty(title, "no cell was both measured and emulated or modelled")
		}
		across := abreast(width, 3)
		side := (width - 2*margin - vg.Length(across-1)*panelGap) / vg.Length(across)
		rows := (len(fields) + across - 1) / across
		h := headingHeight() + legendHeight(keys, inner) + vg.Length(rows)*(side+panelGap)
		return &Picture{w: width, h: h, paint: func(c draw.Canvas) {
			c = legend(heading(c, title), keys)
			for i := range fields {
				x := c.Min.X + vg.Length(i%across)*(side+panelGap)
				y := c.Max.Y - vg.Length(i/across)*(side+panelGap)
				fields[i].draw(box(c, x, y-side, x+side, y))
			}
		}}
	})
}

// shown are the pairs that a log axis can show.
func (f *Field) shown() []Pair {
	return slices.DeleteFunc(slices.Clone(f.Pairs), func(p Pair) bool {
		s := span{log: true}
		return !s.shows(p.X.V) || !s.shows(p.Y.V)
	})
}

func (f *Field) span() (span, bool) {
	var vs []float64
	for _, p := range f.shown() {
		vs = append(vs, p.X.V, p.Y.V)
	}
	s, ok := spanOf(vs, true)
	if ok {
		s.lo, s.hi = s.lo/1.15, s.hi*1.15
	}
	return s, ok
}

func (f *Field) draw(c draw.Canvas) {
	s, ok := f.span()
	if !ok {
		remark(c, f.YAxis+": no data")
		return
	}
	pairs := f.shown()
	d := axes{x: s, y: s, xLabel: f.XAxis, yLabel: f.YAxis}.draw(c)
	identity(&d)
	for _, p := range pairs {
		p.draw(&d)
	}
	name(&d, pairs)
	faded := 0
	for _, p := range pairs {
		if p.Faded {
			faded++
		}
	}
	note := fmt.Sprintf("n %d", len(pairs)-faded)
	if faded > 0 {
		note += fmt.Sprintf(", %d INVALID", faded)
	}
	if hidden := len(f.Pairs) - len(pairs); hidden > 0 {
		note += fmt.Sprintf(", %d without a value", hidden)
	}
	text(d.Canvas, noteText, draw.XLeft, pt(d.Min.X+3, d.Max.Y-2-noteText.size), note)
}

// identity draws the line of equality in its band.
func identity(f *frame) {
	shift := vg.Length(math.Log(1+band)/math.Log(f.y.hi/f.y.lo)) * f.Size().Y
	poly := []vg.Point{f.Min.Add(vg.Point{Y: -shift}), f.Max.Add(vg.Point{Y: -shift}), f.Max.Add(vg.Point{Y: shift}), f.Min.Add(vg.Point{Y: shift})}
	f.FillPolygon(soft.faint(0.15), f.ClipPolygonXY(poly))
	stroke(f.Canvas, line(soft, 0.8, nil), pt(f.Min.X, f.Min.Y), pt(f.Max.X, f.Max.Y))
}

func (p *Pair) colour() rgb {
	if p.Faded {
		return colourOf(Grey)
	}
	return colourOf(p.Colour)
}

func (p *Pair) draw(f *frame) {
	thin := draw.LineStyle{Color: p.colour().faint(0.6), Width: 0.7}
	or := func(v, other float64) float64 {
		if f.x.shows(v) {
			return v
		}
		return other
	}
	x, y := f.X(p.X.V), f.Y(p.Y.V)
	stroke(f.Canvas, thin, pt(f.X(or(p.X.Lo, p.X.V)), y), pt(f.X(or(p.X.Hi, p.X.V)), y))
	stroke(f.Canvas, thin, pt(x, f.Y(or(p.Y.Lo, p.Y.V))), pt(x, f.Y(or(p.Y.Hi, p.Y.V))))
	f.DrawGlyphNoClip(draw.GlyphStyle{Color: p.colour().colour(), Radius: 2.6, Shape: glyphOf(p.Glyph)}, pt(x, y))
}

// off is how far a point is from equality, as a ratio above 1.
func (p *Pair) off() float64 { return math.Exp(math.Abs(math.Log(p.Y.V / p.X.V))) }

// name labels the points farthest outside the band, where there is room.
func name(f *frame, pairs []Pair) {
	far := slices.DeleteFunc(slices.Clone(pairs), func(p Pair) bool { return p.off() <= 1+band || p.Label == "" })
	slices.SortStableFunc(far, func(a, b Pair) int { return cmp.Compare(b.off(), a.off()) })
	said := map[string]bool{}
	far = slices.DeleteFunc(far, func(p Pair) bool { again := said[p.Label]; said[p.Label] = true; return again })
	var taken []vg.Rectangle
	for _, p := range pairs {
		at := pt(f.X(p.X.V), f.Y(p.Y.V))
		taken = append(taken, vg.Rectangle{Min: at.Sub(pt(2.5, 2.5)), Max: at.Add(pt(2.5, 2.5))})
	}
	for _, p := range far[:min(len(far), mostNamed)] {
		if r, ok := f.room(pt(f.X(p.X.V), f.Y(p.Y.V)), p.Label, taken); ok {
			plate(f.Canvas, draw.XLeft, r.Min.X, r.Min.Y, p.Label)
			taken = append(taken, r)
		}
	}
}

func overlap(a, b vg.Rectangle) bool {
	return a.Min.X < b.Max.X && b.Min.X < a.Max.X && a.Min.Y < b.Max.Y && b.Min.Y < a.Max.Y
}

package chart

import (
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Stack is a bar made of parts, which lie end to end.
type Stack struct {
	Label string
	Parts []float64 // one per key; NaN and negative count as 0
	Total string    // written at its end
	Faded bool
}

// Facet is a group of bars with an axis of its own.
type Facet struct {
	Title string // with the unit of its axis
	Bars  []Stack
}

const (
	barRow   = 14 * vg.Length(1)
	barHalf  = 4.6 * vg.Length(1)
	facetGap = 8 * vg.Length(1)
)

// Stacks draws groups of stacked bars, each from zero on its own axis. Keys name
// the parts, in their order.
func Stacks(title string, facets []Facet, keys []Key) *Picture {
	return fit(func(width vg.Length) *Picture {
		inner := width - 3*margin
		n := 0
		h := headingHeight() + legendHeight(keys, inner)
		for _, f := range facets {
			n += len(f.Bars)
			h += f.height()
		}
		if n == 0 {
			return Empty(title, "the energy of no cell is known")
		}
		return &Picture{w: width, h: h, paint: func(c draw.Canvas) {
			c = legend(heading(c, title), keys)
			y := c.Max.Y
			left := facetLabels(facets, c.Size().X*labelShare)
			for i := range facets {
				facets[i].draw(box(c, c.Min.X, y-facets[i].height()+facetGap, c.Max.X, y), left, keys)
				y -= facets[i].height()
			}
		}}
	})
}

func (f *Facet) height() vg.Length {
	return titleText.line() + vg.Length(len(f.Bars))*barRow + axisHeight - labelRoom + facetGap
}

func facetLabels(facets []Facet, most vg.Length) (w vg.Length) {
	for _, f := range facets {
		for _, b := range f.Bars {
			w = max(w, tickText.width(b.Label)+6)
		}
	}
	return min(w, most)
}

func (b *Stack) sum() (s float64) {
	for _, v := range b.Parts {
		if v > 0 && v < beyond {
			s += v
		}
	}
	return s
}

func (f *Facet) draw(c draw.Canvas, left vg.Length, keys []Key) {
	text(c, labelText, draw.XLeft, pt(c.Min.X, c.Max.Y-labelText.size), labelText.cut(f.Title, c.Size().X))
	top := c.Max.Y - titleText.line()
	var totals []float64
	room := vg.Length(0) // for the totals
	for i := range f.Bars {
		totals = append(totals, f.Bars[i].sum())
		room = max(room, tickText.width(f.Bars[i].Total)+6)
	}
	s, ok := spanOf(append(totals, 0), false)
	if !ok {
		return
	}
	fr := axes{x: s}.draw(box(c, c.Min.X+left, c.Min.Y, c.Max.X-room, top))
	for i := range f.Bars {
		b, y := &f.Bars[i], top-vg.Length(i)*barRow-barRow/2
		level(c, tickText, draw.XRight, pt(c.Min.X+left-4, y), tickText.cut(b.Label, left-4))
		end := b.draw(&fr, y, keys)
		fill(c, paper.faint(0.85), pt(end+2, y-barHalf), pt(end+6+tickText.width(b.Total), y+barHalf))
		level(c, tickText, draw.XLeft, pt(end+4, y), b.Total)
	}
}

func (b *Stack) draw(f *frame, y vg.Length, keys []Key) (end vg.Length) {
	sum := 0.0
	for i, v := range b.Parts {
		if !(v > 0 && v < beyond) {
			continue
		}
		r := vg.Rectangle{Min: pt(f.X(sum), y-barHalf), Max: pt(f.X(sum+v), y+barHalf)}
		col := keys[i].colour()
		if b.Faded {
			col = colourOf(Grey)
		}
		hatched(f.Canvas, col, keys[i].Index, r)
		sum += v
	}
	return f.X(sum)
}

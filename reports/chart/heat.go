package chart

import (
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Place is a field of a heat map.
type Place struct {
	Label  string // what stands in it, in bold: the field is told by this, not by its colour
	Detail string // a second line
	Colour int    // of the palette; Grey = nothing to say
	Hatch  int    // pattern over the colour; 0 = none
}

// Grid is a heat map: a field for every pair of values of two axes, each of which
// is a row of names in equal steps.
type Grid struct {
	XAxis, YAxis string // name and unit
	X, Y         []string
	Fields       [][]Place // by Y from below, then by X
}

const (
	spotHeight = 1.15 * vg.Centimeter
	spotLeft   = 1.5 * vg.Centimeter
)

// Heat draws grids below each other.
func Heat(title string, grids []Grid, keys []Key) *Picture {
	return fit(func(width vg.Length) *Picture {
		inner := width - 3*margin
		if len(grids) == 0 {
			return Empty(title, "no cells over two axes")
		}
		h := headingHeight() + legendHeight(keys, inner) - panelGap
		for _, g := range grids {
			h += g.height() + panelGap
		}
		return &Picture{w: width, h: h, paint: func(c draw.Canvas) {
			c = legend(heading(c, title), keys)
			y := c.Max.Y
			for _, g := range grids {
				g.draw(box(c, c.Min.X, y-g.height(), c.Max.X, y))
				y -= g.height() + panelGap
			}
		}}
	})
}

func (g *Grid) height() vg.Length { return spotHeight*vg.Length(len(g.Y)) + axisHeight }

func (g *Grid) draw(c draw.Canvas) {
	f := draw.Crop(c, spotLeft, -margin, axisHeight, 0)
	w, h := f.Size().X/vg.Length(len(g.X)), f.Size().Y/vg.Length(len(g.Y))
	for i, row := range g.Fields {
		for k, s := range row {
			r := vg.Rectangle{Min: pt(f.Min.X+w*vg.Length(k), f.Min.Y+h*vg.Length(i)), Max: pt(f.Min.X+w*vg.Length(k+1), f.Min.Y+h*vg.Length(i+1))}
			s.draw(f, r)
		}
	}
	for k, name := range g.X {
		text(c, tickText, draw.XCenter, pt(f.Min.X+w*(vg.Length(k)+0.5), f.Min.Y-tickLength-2-tickText.cap()), tickText.cut(name, w))
	}
	for i, name := range g.Y {
		level(c, tickText, draw.XRight, pt(f.Min.X-tickLength-2, f.Min.Y+h*(vg.Length(i)+0.5)), name)
	}
	text(c, labelText, draw.XCenter, pt(f.Center().X, c.Min.Y+labelText.size-labelText.cap()), g.XAxis)
	upright(c, labelText, c.Min.X+labelText.cap(), f.Center().Y, labelText.cut(g.YAxis, f.Size().Y))
}

func (s Place) draw(c draw.Canvas, r vg.Rectangle) {
	const gap = 0.8 * vg.Length(1)
	r = vg.Rectangle{Min: r.Min.Add(pt(gap, gap)), Max: r.Max.Sub(pt(gap, gap))}
	fill(c, colourOf(s.Colour).faint(map[bool]float64{true: 0.12, false: 0.3}[s.Colour == Grey]), r.Min, r.Max)
	if s.Hatch > 0 {
		ruled(c, colourOf(s.Colour), r)
	}
	middle, room := r.Min.X+r.Size().X/2, r.Size().X-4
	strong, small := face{8, ink, true}.within(s.Label, room), detailText.within(s.Detail, room)
	if s.Detail == "" {
		level(c, strong, draw.XCenter, pt(middle, r.Min.Y+r.Size().Y/2), strong.cut(s.Label, room))
		return
	}
	level(c, strong, draw.XCenter, pt(middle, r.Min.Y+r.Size().Y*0.64), strong.cut(s.Label, room))
	level(c, small, draw.XCenter, pt(middle, r.Min.Y+r.Size().Y*0.3), small.cut(s.Detail, room))
}

// within is the face, smaller where a text would not fit, but not too small to read.
func (f face) within(s string, room vg.Length) face {
	for f.size > 5.5 && f.width(s) > room {
		f.size -= 0.5
	}
	return f
}

var detailText = face{7, ink, false}

// ruled draws rising lines along the foot of a field, where they are not under
// its words.
func ruled(c draw.Canvas, col rgb, r vg.Rectangle) {
	const step, foot = 4 * vg.Length(1), 4 * vg.Length(1)
	for x := r.Min.X; x+foot <= r.Max.X; x += step {
		stroke(c, line(col, 0.8, nil), pt(x, r.Min.Y), pt(x+foot, r.Min.Y+foot))
	}
}

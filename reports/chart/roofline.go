package chart

import (
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Roof is a panel of a roofline: what memory and arithmetic allow at each
// intensity, and what was reached. Source: Williams, Waterman & Patterson 2009.
type Roof struct {
	Title  string
	Slopes []Ceiling // bandwidths, in units of the y axis over that of the x axis
	Peaks  []Ceiling // rates, in units of the y axis
	Spots  []Spot
}

// Ceiling is a limit.
type Ceiling struct {
	Label string
	V     float64
}

// Spot is something measured, with a label if there is room for it.
type Spot struct {
	Label         string
	Colour, Glyph int
	X, Y          float64 // intensity and rate
}

// Roofline draws panels in rows of two, on log axes of the same ranges, so that
// heights compare. Attainable is min(peak, intensity · bandwidth): the area below
// a slope and a flat line.
func Roofline(title, xAxis, yAxis string, roofs []Roof, keys []Key) *Picture {
	return fit(func(width vg.Length) *Picture {
		inner := width - 3*margin
		x, y, ok := roofSpans(roofs)
		if !ok {
			return Empty(title, "nothing was measured")
		}
		across := min(len(roofs), abreast(width, 2))
		side := (inner - vg.Length(across-1)*panelGap) / vg.Length(across)
		high := 8 * vg.Centimeter
		names := vg.Length(0)
		for _, r := range roofs {
			names = max(names, legendHeight(r.keys(), side))
		}
		high += labelText.line() + names
		rows := (len(roofs) + across - 1) / across
		h := headingHeight() + legendHeight(keys, inner) + vg.Length(rows)*high + vg.Length(rows-1)*panelGap
		return &Picture{w: width, h: h, paint: func(c draw.Canvas) {
			c = legend(heading(c, title), keys)
			for i := range roofs {
				left := c.Min.X + vg.Length(i%across)*(side+panelGap)
				top := c.Max.Y - vg.Length(i/across)*(high+panelGap)
				p := box(c, left, top-high, left+side, top)
				text(p, labelText, draw.XLeft, pt(p.Min.X, p.Max.Y-labelText.size), labelText.cut(roofs[i].Title, side))
				p = draw.Crop(p, 0, 0, 0, -labelText.line())
				legend(p, roofs[i].keys())
				p = draw.Crop(p, 0, 0, 0, -names)
				f := axes{x: x, y: y, xLabel: xAxis, yLabel: yAxis}.draw(p)
				roofs[i].draw(&f)
			}
		}}
	})
}

// keys name the limits of a panel. Along the lines there is no room: caches are
// often less than a factor of two apart, and points crowd below the peaks.
func (r *Roof) keys() (keys []Key) {
	for i, p := range r.Peaks {
		keys = append(keys, Key{Text: p.Label, Colour: Ink, Kind: LineKey, Index: i})
	}
	for i, s := range r.Slopes {
		keys = append(keys, Key{Text: s.Label, Colour: Grey, Kind: LineKey, Index: i})
	}
	return keys
}

// roofSpans are the ranges that hold all points and the corners of all roofs.
func roofSpans(roofs []Roof) (x, y span, ok bool) {
	var xs, ys []float64
	logs := span{log: true}
	for _, r := range roofs {
		for _, s := range r.Spots {
			if logs.shows(s.X) && logs.shows(s.Y) {
				xs, ys = append(xs, s.X), append(ys, s.Y)
			}
		}
	}
	if len(xs) == 0 {
		return x, y, false
	}
	for _, r := range roofs {
		for _, p := range r.Peaks {
			ys = append(ys, p.V)
			for _, s := range r.Slopes {
				if logs.shows(p.V / s.V) {
					xs = append(xs, p.V/s.V)
				}
			}
		}
	}
	x, _ = spanOf(xs, true)
	y, _ = spanOf(ys, true)
	x.lo, x.hi = x.lo/1.5, x.hi*1.5
	y.lo, y.hi = y.lo/1.5, y.hi*1.5 // room for labels
	return x, y, true
}

// best is the highest limit that an axis shows.
func best(list []Ceiling) (v float64) {
	for _, c := range list {
		if (span{log: true}).shows(c.V) {
			v = max(v, c.V)
		}
	}
	return v
}

func (r *Roof) draw(f *frame) {
	top, fastest := best(r.Peaks), best(r.Slopes)
	if top == 0 {
		top = f.y.hi
	}
	for i, s := range r.Slopes {
		if s.V > 0 && f.y.shows(s.V) {
			s.slope(f, i, top)
		}
	}
	for i, p := range r.Peaks {
		if !f.y.shows(p.V) {
			continue
		}
		from := f.x.lo
		if fastest > 0 {
			from = max(from, p.V/fastest)
		}
		stroke(f.Canvas, line(ink, 1.4, dashes(i)), pt(f.X(from), f.Y(p.V)), pt(f.Max.X, f.Y(p.V)))
	}
	r.labels(f, r.glyphs(f))
}

// slope draws a bandwidth from the edge of the frame to the highest peak.
func (s Ceiling) slope(f *frame, i int, top float64) {
	if from, to := max(f.x.lo, f.y.lo/s.V), min(f.x.hi, top/s.V); from < to {
		stroke(f.Canvas, line(colourOf(Grey), 1.4, dashes(i)), pt(f.X(from), f.Y(from*s.V)), pt(f.X(to), f.Y(to*s.V)))
	}
}

// shown are the spots that the axes have a place for.
func (r *Roof) shown(f *frame) []Spot {
	return slices.DeleteFunc(slices.Clone(r.Spots), func(s Spot) bool { return !f.x.shows(s.X) || !f.y.shows(s.Y) })
}

// glyphs draws the points and returns the room that they take.
func (r *Roof) glyphs(f *frame) (taken []vg.Rectangle) {
	const radius = 2.4 * vg.Length(1)
	for _, s := range r.shown(f) {
		at := pt(f.X(s.X), f.Y(s.Y))
		f.DrawGlyphNoClip(draw.GlyphStyle{Color: colourOf(s.Colour).colour(), Radius: radius, Shape: glyphOf(s.Glyph)}, at)
		taken = append(taken, vg.Rectangle{Min: at.Sub(pt(radius, radius)), Max: at.Add(pt(radius, radius))})
	}
	return taken
}

// labels names the points, each name once, as far as there is room.
func (r *Roof) labels(f *frame, taken []vg.Rectangle) {
	said := map[string]bool{"": true}
	for _, s := range r.shown(f) {
		if said[s.Label] {
			continue
		}
		if at, ok := f.room(pt(f.X(s.X), f.Y(s.Y)), s.Label, taken); ok {
			plate(f.Canvas, draw.XLeft, at.Min.X, at.Min.Y, s.Label)
			taken = append(taken, at)
			said[s.Label] = true
		}
	}
}

// room finds a place for a label beside a point.
func (f *frame) room(at vg.Point, label string, taken []vg.Rectangle) (vg.Rectangle, bool) {
	w := noteText.width(label)
	for _, side := range [...]vg.Point{{X: 5, Y: -3}, {X: -5 - w, Y: -3}, {X: -w / 2, Y: 5}, {X: -w / 2, Y: -11}, {X: 5, Y: 4}, {X: 5, Y: -10}, {X: -5 - w, Y: 4}, {X: -5 - w, Y: -10}} {
		from := at.Add(side)
		r := vg.Rectangle{Min: from, Max: from.Add(pt(w, noteText.size))}
		if f.Contains(r.Min) && f.Contains(r.Max) && free(r, taken) {
			return r, true
		}
	}
	return vg.Rectangle{}, false
}

// free reports whether a box meets none of others.
func free(r vg.Rectangle, taken []vg.Rectangle) bool {
	return !slices.ContainsFunc(taken, func(t vg.Rectangle) bool { return overlap(r, t) })
}

package chart

import (
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// SpanKind is what a part of a timeline was spent on.
type SpanKind int

// Kinds of spans, each with a look of its own.
const (
	ComputeSpan SpanKind = iota
	BatchSpan
	TransferSpan
	QueueSpan
	WaitSpan
)

// TimeSpan is a part of a lane.
type TimeSpan struct {
	Kind     SpanKind
	From, To float64
}

// Lane is one place where a request was: a node or a link.
type Lane struct {
	Label string
	Spans []TimeSpan
}

// Track is one request: its lanes and when its first token came.
type Track struct {
	Title string
	Lanes []Lane
	First float64 // of the first token; NaN = none
}

const (
	laneRow  = 13 * vg.Length(1)
	laneHalf = 4 * vg.Length(1)
)

// Timeline draws where requests spent their time, one track below the other on
// one time axis.
func Timeline(title, axis string, tracks []Track, keys []Key) *Picture {
	end := 0.0
	for _, t := range tracks {
		for _, l := range t.Lanes {
			for _, s := range l.Spans {
				end = max(end, s.To)
			}
		}
	}
	if end <= 0 {
		return Empty(title, "no request with spans ended well under every placement")
	}
	h := headingHeight() + legendHeight(keys, inner) + axisHeight
	for i := range tracks {
		h += tracks[i].height()
	}
	return &Picture{w: width, h: h, paint: func(c draw.Canvas) {
		c = legend(heading(c, title), keys)
		left := trackLabels(tracks, c.Size().X*labelShare)
		s, _ := spanOf([]float64{0, end}, false)
		f := axes{x: s, xLabel: axis}.draw(box(c, c.Min.X+left, c.Min.Y, c.Max.X, c.Max.Y))
		y := c.Max.Y
		for i := range tracks {
			tracks[i].draw(c, &f, left, y)
			y -= tracks[i].height()
		}
	}}
}

func (t *Track) height() vg.Length {
	return titleText.line() + vg.Length(len(t.Lanes))*laneRow + facetGap
}

func trackLabels(tracks []Track, most vg.Length) (w vg.Length) {
	for _, t := range tracks {
		for _, l := range t.Lanes {
			w = max(w, tickText.width(l.Label)+6)
		}
	}
	return min(w, most)
}

// draw draws labels on the whole canvas c and spans inside its frame.
func (t *Track) draw(c draw.Canvas, f *frame, left vg.Length, top vg.Length) {
	bold := face{labelText.size, ink, true}
	fill(c, paper.colour(), c.Min.X, top-titleText.line(), f.Max.X, top) // the grid stops at titles
	text(c, bold, draw.XLeft, vg.Point{X: c.Min.X, Y: top - bold.size}, bold.cut(t.Title, c.Size().X))
	top -= titleText.line()
	for i, l := range t.Lanes {
		y := top - vg.Length(i)*laneRow - laneRow/2
		level(c, tickText, draw.XRight, vg.Point{X: c.Min.X + left - 4, Y: y}, tickText.cut(l.Label, left-4))
		for _, s := range merged(l.Spans, f.X) {
			s.Kind.draw(f.Canvas, vg.Rectangle{Min: vg.Point{X: f.X(s.From), Y: y - laneHalf}, Max: vg.Point{X: f.X(s.To), Y: y + laneHalf}})
		}
	}
	if t.First >= 0 {
		firstToken(f.Canvas, f.X(t.First), top-vg.Length(len(t.Lanes))*laneRow, top)
	}
}

// firstToken marks the moment of the first token across lanes.
func firstToken(c draw.Canvas, x, bottom, top vg.Length) {
	stroke(c, line(ink, 0.9, []vg.Length{2, 1.5}), x, bottom, x, top)
	c.SetColor(ink.colour())
	var p vg.Path
	p.Move(vg.Point{X: x, Y: top - 3})
	p.Line(vg.Point{X: x - 3, Y: top + 2})
	p.Line(vg.Point{X: x + 3, Y: top + 2})
	p.Close()
	c.Fill(p)
}

// merged joins spans of one kind that follow each other within a third of a
// point: nobody could see them apart, and an answer has hundreds.
func merged(spans []TimeSpan, x func(float64) vg.Length) (out []TimeSpan) {
	for _, s := range spans {
		if n := len(out); n > 0 && out[n-1].Kind == s.Kind && x(s.From)-x(out[n-1].To) < 0.35 {
			out[n-1].To = s.To
			continue
		}
		out = append(out, s)
	}
	return out
}

// draw shows a span: compute and batch are full bars, a transfer is hatched, a
// queue is an outline, a wait is a thin line.
func (k SpanKind) draw(c draw.Canvas, r vg.Rectangle) {
	if r.Max.X-r.Min.X < 0.4 {
		r.Max.X = r.Min.X + 0.4
	}
	mid := (r.Min.Y + r.Max.Y) / 2
	switch k {
	case ComputeSpan:
		hatched(c, palette[0], 0, r)
	case BatchSpan:
		hatched(c, palette[4], 2, r)
	case TransferSpan:
		hatched(c, palette[1], 1, r)
	case QueueSpan:
		fill(c, paper.colour(), r.Min.X, r.Min.Y+1, r.Max.X, r.Max.Y-1)
		sty := line(palette[6], 0.9, nil)
		c.StrokeLines(sty, []vg.Point{{X: r.Min.X, Y: r.Min.Y + 1}, {X: r.Max.X, Y: r.Min.Y + 1}, {X: r.Max.X, Y: r.Max.Y - 1}, {X: r.Min.X, Y: r.Max.Y - 1}, {X: r.Min.X, Y: r.Min.Y + 1}})
	default:
		stroke(c, line(palette[6], 1, dashes(2)), r.Min.X, mid, r.Max.X, mid)
	}
}

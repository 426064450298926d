package chart

import (
	"math"

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
	Faded bool    // not to be trusted
}

const (
	laneRow  = 13 * vg.Length(1)
	laneHalf = 4 * vg.Length(1)
)

// farApart is how much longer the longest request may take than the shortest
// before each gets a time axis of its own.
const farApart = 8

// Timeline draws where requests spent their time, one track below the other: on
// one time axis, or each on its own if they differ so much that the short ones
// could not be seen.
func Timeline(title, axis string, tracks []Track, keys []Key) *Picture {
	return fit(func(width vg.Length) *Picture {
		inner := width - 3*margin
		longest, shortest := 0.0, math.Inf(1)
		for i := range tracks {
			end := tracks[i].end()
			longest, shortest = max(longest, end), min(shortest, end)
		}
		if longest <= 0 {
			return Empty(title, "no request with spans ended well under every placement")
		}
		own := longest > farApart*shortest
		h := headingHeight() + legendHeight(keys, inner) + axisHeight
		for i := range tracks {
			h += tracks[i].height()
			if own && i > 0 {
				h += axisHeight - labelRoom
			}
		}
		return &Picture{w: width, h: h, paint: func(c draw.Canvas) {
			c = legend(heading(c, title), keys)
			left := trackLabels(tracks, c.Size().X*labelShare)
			if own {
				ownAxes(c, left, axis, tracks)
				return
			}
			s, _ := spanOf([]float64{0, longest}, false)
			f := axes{x: s, xLabel: axis}.draw(box(c, c.Min.X+left, c.Min.Y, c.Max.X, c.Max.Y))
			y := c.Max.Y
			for i := range tracks {
				tracks[i].draw(c, &f, left, y)
				y -= tracks[i].height()
			}
		}}
	})
}

// ownAxes draws tracks each on its own axis; the last names them all.
func ownAxes(c draw.Canvas, left vg.Length, axis string, tracks []Track) {
	y := c.Max.Y
	for i := range tracks {
		a, h := axes{}, tracks[i].height()+axisHeight-labelRoom
		if i == len(tracks)-1 {
			a.xLabel = axis
			h += labelRoom
		}
		a.x, _ = spanOf([]float64{0, tracks[i].end()}, false)
		f := a.draw(box(c, c.Min.X+left, y-h+facetGap, c.Max.X, y))
		tracks[i].draw(c, &f, left, y)
		y -= h
	}
}

func (t *Track) end() (end float64) {
	for _, l := range t.Lanes {
		for _, s := range l.Spans {
			if s.To > end && s.To < beyond {
				end = s.To
			}
		}
	}
	return end
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
	fill(c, paper.colour(), pt(c.Min.X, top-titleText.line()), pt(f.Max.X, top)) // the grid stops at titles
	text(c, bold, draw.XLeft, pt(c.Min.X, top-bold.size), bold.cut(t.Title, c.Size().X))
	top -= titleText.line()
	for i, l := range t.Lanes {
		y := top - vg.Length(i)*laneRow - laneRow/2
		level(c, tickText, draw.XRight, pt(c.Min.X+left-4, y), tickText.cut(l.Label, left-4))
		for _, s := range merged(l.Spans, f.X) {
			s.Kind.draw(f.Canvas, t.Faded, vg.Rectangle{Min: pt(f.X(s.From), y-laneHalf), Max: pt(f.X(s.To), y+laneHalf)})
		}
	}
	if t.First >= 0 {
		firstToken(f.Canvas, f.X(t.First), top-vg.Length(len(t.Lanes))*laneRow, top)
	}
}

// firstToken marks the moment of the first token across lanes.
func firstToken(c draw.Canvas, x, bottom, top vg.Length) {
	stroke(c, line(ink, 0.9, []vg.Length{2, 1.5}), pt(x, bottom), pt(x, top))
	c.SetColor(ink.colour())
	var p vg.Path
	p.Move(pt(x, top-3))
	p.Line(pt(x-3, top+2))
	p.Line(pt(x+3, top+2))
	p.Close()
	c.Fill(p)
}

// merged joins spans of one kind that follow each other within a third of a
// point: nobody could see them apart, and an answer has hundreds.
func merged(spans []TimeSpan, x func(float64) vg.Length) (out []TimeSpan) {
	for _, s := range spans {
		if !(s.To >= s.From) {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Kind == s.Kind && x(s.From)-x(out[n-1].To) < 0.35 {
			out[n-1].To = s.To
			continue
		}
		out = append(out, s)
	}
	return out
}

// draw shows a span: compute is a full bar, a batch has level lines, a transfer rising ones, a
// queue is an outline, a wait is a thin line.
func (k SpanKind) draw(c draw.Canvas, faded bool, r vg.Rectangle) {
	col := func(i int) rgb {
		if faded {
			return colourOf(Grey)
		}
		return palette[i]
	}
	if r.Max.X-r.Min.X < 0.4 {
		r.Max.X = r.Min.X + 0.4
	}
	mid := (r.Min.Y + r.Max.Y) / 2
	switch k {
	case ComputeSpan:
		hatched(c, col(0), 0, r)
	case BatchSpan:
		hatched(c, col(4), 3, r)
	case TransferSpan:
		hatched(c, col(1), 1, r)
	case QueueSpan:
		fill(c, paper.colour(), pt(r.Min.X, r.Min.Y+1), pt(r.Max.X, r.Max.Y-1))
		sty := line(palette[6], 0.9, nil)
		c.StrokeLines(sty, []vg.Point{{X: r.Min.X, Y: r.Min.Y + 1}, {X: r.Max.X, Y: r.Min.Y + 1}, {X: r.Max.X, Y: r.Max.Y - 1}, {X: r.Min.X, Y: r.Max.Y - 1}, {X: r.Min.X, Y: r.Min.Y + 1}})
	default:
		stroke(c, line(palette[6], 1, dashes(2)), pt(r.Min.X, mid), pt(r.Max.X, mid))
	}
}

package chart

import (
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// span is the range of an axis.
type span struct {
	lo, hi float64
	log    bool
}

// spanOf covers values with some room; what the axis cannot show is ignored. ok
// is false when nothing is left.
func spanOf(values []float64, log bool) (s span, ok bool) {
	s = span{math.Inf(1), math.Inf(-1), log}
	for _, v := range values {
		if s.shows(v) {
			s.lo, s.hi = min(s.lo, v), max(s.hi, v)
		}
	}
	if s.lo > s.hi {
		return s, false
	}
	return s.roomy(), true
}

// beyond is where numbers stop to be measurements of anything.
const beyond = 1e30

// shows reports whether the axis has a place for v.
func (s span) shows(v float64) bool {
	if s.log {
		return v > 1/beyond && v < beyond
	}
	return v > -beyond && v < beyond // false for NaN
}

// roomy widens the range by a margin, and to a factor of three on a log axis so
// that it has ticks to read.
func (s span) roomy() span {
	if !s.log {
		if s.lo >= 0 {
			s.lo = 0
		}
		if s.hi-s.lo < max(math.Abs(s.lo), 1)/beyond || s.hi-s.lo < 1e-9*math.Abs(s.lo) {
			s.hi = s.lo + max(1, math.Abs(s.lo))
		}
		s.hi += 0.05 * (s.hi - s.lo)
		return s
	}
	const least = 3.0
	f := 1.08 * math.Pow(s.hi/s.lo, 0.03)
	if r := s.hi / s.lo * f * f; r < least {
		f *= math.Sqrt(least / r)
	}
	s.lo, s.hi = s.lo/f, s.hi*f
	return s
}

// at is the place of a value as a share of the range, clamped to it; what has no
// place is at its start.
func (s span) at(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	share := (v - s.lo) / (s.hi - s.lo)
	if s.log {
		if v <= s.lo {
			return 0
		}
		share = math.Log(v/s.lo) / math.Log(s.hi/s.lo)
	}
	return min(max(share, 0), 1)
}

// tick is a mark on an axis; one without a label is small.
type tick struct {
	value float64
	label string
}

// ticks are the most labels that fit: 1-2-5 steps of each decade on a log axis,
// fewer where that is too many, even steps where the range is short.
func (s span) ticks(fits func([]tick) bool) []tick {
	if !s.log {
		return linearTicks(s.lo, s.hi, fits)
	}
	first, last := int(math.Floor(math.Log10(s.lo))), int(math.Ceil(math.Log10(s.hi)))
	for _, set := range [][]int{{1, 2, 5}, {1, 3}, {1}} {
		if labels := decades(first, last, 1, set, s); len(labels) >= 2 && fits(labels) {
			return append(labels, small(decades(first, last, 1, []int{1, 2, 3, 4, 5, 6, 7, 8, 9}, s), labels)...)
		}
	}
	if s.hi/s.lo < 30 {
		return linearTicks(s.lo, s.hi, fits)
	}
	for step := 2; ; step++ {
		if labels := decades(first, last, step, []int{1}, s); len(labels) < 2 || fits(labels) {
			return append(labels, small(decades(first, last, 1, []int{1}, s), labels)...)
		}
	}
}

// decades lists m × 10^e in a range for each m of a set and every step-th e.
func decades(first, last, step int, set []int, s span) (out []tick) {
	for e := first; e <= last; e++ {
		if e%step != 0 {
			continue
		}
		for _, m := range set {
			v, err := strconv.ParseFloat(strconv.Itoa(m)+"e"+strconv.Itoa(e), 64)
			if err == nil && v >= s.lo && v <= s.hi {
				out = append(out, tick{v, tickLabel(v)})
			}
		}
	}
	return out
}

// small turns ticks that have no label yet into small ones.
func small(all, labelled []tick) (out []tick) {
	for _, t := range all {
		if !slices.ContainsFunc(labelled, func(l tick) bool { return l.value == t.value }) {
			out = append(out, tick{value: t.value})
		}
	}
	return out
}

// linearTicks are 1-2-5 steps, as many as fit but no more than ten.
func linearTicks(lo, hi float64, fits func([]tick) bool) (out []tick) {
	for e := math.Floor(math.Log10((hi - lo) / 10)); ; e++ {
		for _, m := range []float64{1, 2, 5} {
			step := m * math.Pow(10, e)
			if (hi-lo)/step > 10 {
				continue
			}
			out = out[:0]
			for i := math.Ceil(lo/step - 1e-9); i*step <= hi+1e-9*step; i++ {
				out = append(out, tick{i * step, tickLabel(i * step)})
			}
			if len(out) < 2 || fits(out) {
				return out
			}
		}
	}
}

// tickLabel prints a tick's value without the noise of binary fractions.
func tickLabel(v float64) string {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 10, 64), 64)
	if v == 0 {
		return "0" // and not -0
	}
	if a := math.Abs(v); a >= 1e6 || a < 1e-4 {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// frame is the part of a canvas inside its axes.
type frame struct {
	draw.Canvas
	x, y span
}

// axes says what a frame's axes show. A y axis without a range is left out.
type axes struct {
	x, y           span
	xLabel, yLabel string
}

const (
	tickLength = 3 * vg.Length(1)
	tickSpace  = 5 * vg.Length(1) // between labels
	labelRoom  = 12 * vg.Length(1)
	axisHeight = tickLength + 9 + labelRoom + 2 // of an x axis with its label
)

// draw draws axes, ticks, labels and grid along the lower and the left edge of a
// canvas and returns what is left for the data.
func (a axes) draw(c draw.Canvas) frame {
	bottom := vg.Length(axisHeight)
	if a.xLabel == "" {
		bottom -= labelRoom
	}
	f := frame{draw.Crop(c, 0, 0, bottom, 0), a.x, a.y}
	var ys []tick
	if a.y.hi > a.y.lo {
		ys = a.y.ticks(f.apartY)
		left := tickLength + 3
		for _, t := range ys {
			left = max(left, tickText.width(t.label)+tickLength+3)
		}
		if a.yLabel != "" {
			left += labelRoom
			upright(c, labelText, c.Min.X+labelText.cap(), f.Center().Y, labelText.cut(a.yLabel, f.Size().Y))
		}
		f.Canvas = draw.Crop(f.Canvas, left, 0, 0, 0)
	}
	f.drawX()
	f.drawY(ys)
	text(c, labelText, draw.XCenter, pt(f.Center().X, c.Min.Y+labelText.size-labelText.cap()), labelText.cut(a.xLabel, c.Size().X))
	return f
}

// X is the place of a value on the x axis.
func (f *frame) X(v float64) vg.Length { return f.Canvas.X(f.x.at(v)) }

// Y is the place of a value on the y axis.
func (f *frame) Y(v float64) vg.Length { return f.Canvas.Y(f.y.at(v)) }

// apartX reports whether the labels of ticks along x do not touch.
func (f *frame) apartX(ts []tick) bool {
	for i := 1; i < len(ts); i++ {
		room := (tickText.width(ts[i-1].label)+tickText.width(ts[i].label))/2 + tickSpace
		if f.X(ts[i].value)-f.X(ts[i-1].value) < room {
			return false
		}
	}
	return true
}

func (f *frame) apartY(ts []tick) bool {
	for i := 1; i < len(ts); i++ {
		if f.Y(ts[i].value)-f.Y(ts[i-1].value) < 2.2*tickText.size {
			return false
		}
	}
	return true
}

func (f *frame) drawX() {
	axis, lines := line(soft, 0.5, nil), line(grid, 0.4, nil)
	for _, t := range f.x.ticks(f.apartX) {
		x, long := f.X(t.value), tickLength
		if t.label == "" {
			long /= 2
		} else {
			stroke(f.Canvas, lines, pt(x, f.Min.Y), pt(x, f.Max.Y))
			middle := min(x, f.Max.X+2*margin-tickText.width(t.label)/2) // inside the picture
			text(f.Canvas, tickText, draw.XCenter, pt(middle, f.Min.Y-tickLength-2-tickText.cap()), t.label)
		}
		stroke(f.Canvas, axis, pt(x, f.Min.Y-long), pt(x, f.Min.Y))
	}
	stroke(f.Canvas, axis, pt(f.Min.X, f.Min.Y), pt(f.Max.X, f.Min.Y))
}

func (f *frame) drawY(ts []tick) {
	if len(ts) == 0 {
		return
	}
	axis, lines := line(soft, 0.5, nil), line(grid, 0.4, nil)
	for _, t := range ts {
		y, long := f.Y(t.value), tickLength
		if t.label == "" {
			long /= 2
		} else {
			stroke(f.Canvas, lines, pt(f.Min.X, y), pt(f.Max.X, y))
			level(f.Canvas, tickText, draw.XRight, pt(f.Min.X-tickLength-2, y), t.label)
		}
		stroke(f.Canvas, axis, pt(f.Min.X-long, y), pt(f.Min.X, y))
	}
	stroke(f.Canvas, axis, pt(f.Min.X, f.Min.Y), pt(f.Min.X, f.Max.Y))
}

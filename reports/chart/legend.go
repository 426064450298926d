package chart

import (
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Key is an entry of a legend; one without a text is not shown.
type Key struct {
	Text   string
	Colour int // of the palette, or Ink or Grey
	Kind   KeyKind
	Index  int // which dash, glyph or hatch
	Glyph  int // of a SeriesKey
}

// KeyKind is what a legend shows beside a text.
type KeyKind uint8

// Kinds of keys.
const (
	LineKey   KeyKind = iota // a line with dash Index
	SeriesKey                // a line with dash Index and its Glyph
	GlyphKey                 // glyph Index
	BarKey                   // a bar with hatch Index
	SpanKey                  // a bar of the timeline, Index is a SpanKind
	LimitKey                 // an upright dashed line
	MedianKey                // a median with its interval
	DotKey                   // one request
	BoxKey                   // quartiles and whiskers
	FirstKey                 // the moment of the first token
)

const (
	keyWidth = 18 * vg.Length(1)
	keyGap   = 4 * vg.Length(1)
	keySep   = 12 * vg.Length(1)
)

// legendRows breaks keys into rows of a width.
func legendRows(keys []Key, width vg.Length) (rows [][]Key) {
	var used vg.Length
	for _, k := range keys {
		if k.Text == "" {
			continue
		}
		w := keyWidth + keyGap + tickText.width(k.Text) + keySep
		if len(rows) == 0 || used+w-keySep > width {
			rows, used = append(rows, nil), 0
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], k)
		used += w
	}
	return rows
}

const legendLine = 12 * vg.Length(1)

func legendHeight(keys []Key, width vg.Length) vg.Length {
	if len(keys) == 0 {
		return 0
	}
	return legendLine*vg.Length(len(legendRows(keys, width))) + 4
}

// legend draws keys along the top of a canvas and returns what is left of it.
func legend(c draw.Canvas, keys []Key) draw.Canvas {
	y := c.Max.Y
	for _, row := range legendRows(keys, c.Size().X) {
		x := c.Min.X
		for _, k := range row {
			k.draw(c, x, y-legendLine/2)
			level(c, tickText, draw.XLeft, pt(x+keyWidth+keyGap, y-legendLine/2), tickText.cut(k.Text, c.Size().X-keyWidth-keyGap))
			x += keyWidth + keyGap + tickText.width(k.Text) + keySep
		}
		y -= legendLine
	}
	return draw.Crop(c, 0, 0, 0, -legendHeight(keys, c.Size().X))
}

func (k Key) colour() rgb { return colourOf(k.Colour) }

// draw shows the key in a box whose left middle is at a point.
func (k Key) draw(c draw.Canvas, x, y vg.Length) {
	const h = 3.5 * vg.Length(1)
	switch k.Kind {
	case LineKey:
		stroke(c, line(k.colour(), 1.4, dashes(k.Index)), pt(x, y), pt(x+keyWidth, y))
	case SeriesKey:
		stroke(c, line(k.colour(), 1.4, dashes(k.Index)), pt(x, y), pt(x+keyWidth, y))
		median(c, k.colour(), k.Glyph, pt(x+keyWidth/2, y))
	case GlyphKey:
		c.DrawGlyphNoClip(draw.GlyphStyle{Color: k.colour().colour(), Radius: 3, Shape: glyphOf(k.Index)}, pt(x+keyWidth/2, y))
	case BarKey:
		hatched(c, k.colour(), k.Index, vg.Rectangle{Min: pt(x, y-h), Max: pt(x+keyWidth, y+h)})
	case LimitKey:
		stroke(c, limitLine(), pt(x+keyWidth/2, y-h-1), pt(x+keyWidth/2, y+h+1))
	case MedianKey:
		interval(c, k.colour(), x+1, x+keyWidth-1, y)
		median(c, k.colour(), k.Index, pt(x+keyWidth/2, y))
	case DotKey:
		c.DrawGlyphNoClip(dot(k.colour()), pt(x+keyWidth/2, y))
	case BoxKey:
		quartiles(c, k.colour(), [4]vg.Length{x, x + 5, x + keyWidth - 6, x + keyWidth}, y)
	case FirstKey:
		firstToken(c, x+keyWidth/2, y-h-1, y+h)
	case SpanKey:
		SpanKind(k.Index).draw(c, false, vg.Rectangle{Min: pt(x, y-h), Max: pt(x+keyWidth, y+h)})
	}
}

// hatched fills a box and draws a pattern over it in the colour of the paper:
// none, rising lines, upright lines, level lines.
func hatched(c draw.Canvas, col rgb, pattern int, r vg.Rectangle) {
	fill(c, col.colour(), pt(r.Min.X, r.Min.Y), pt(r.Max.X, r.Max.Y))
	const step = 4 * vg.Length(1)
	sty := line(paper, 0.7, nil)
	w, h := r.Size().X, r.Size().Y
	switch pattern % 4 {
	case 1:
		for d := step - h; d < w; d += step { // from the lower edge at d, rising to the right
			from, to := max(d, 0), min(d+h, w)
			if to > from {
				stroke(c, sty, pt(r.Min.X+from, r.Min.Y+from-d), pt(r.Min.X+to, r.Min.Y+to-d))
			}
		}
	case 2:
		for d := step / 2; d < w; d += step {
			stroke(c, sty, pt(r.Min.X+d, r.Min.Y), pt(r.Min.X+d, r.Max.Y))
		}
	case 3:
		for d := step / 2; d < h; d += step {
			stroke(c, sty, pt(r.Min.X, r.Min.Y+d), pt(r.Max.X, r.Min.Y+d))
		}
	}
}

package chart

import (
	"fmt"
	"image/color"
	"math"
	"sort"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	vgtext "gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// rgb is an opaque colour, 0xRRGGBB.
type rgb uint32

func (c rgb) colour() color.NRGBA {
	return color.NRGBA{R: uint8(c >> 16), G: uint8(c >> 8), B: uint8(c), A: 255}
}

// faint is the colour with an opacity.
func (c rgb) faint(opacity float64) color.NRGBA {
	n := c.colour()
	n.A = uint8(opacity * 255)
	return n
}

func (c rgb) hex() string { return fmt.Sprintf("#%06X", uint32(c)) }

// Colours of what is not data. None of them is black or white exactly where it
// is drawn, so that each can be found again in the SVG.
const (
	ink   rgb = 0x222222
	soft  rgb = 0x666666
	grid  rgb = 0xDCDCDC
	paper rgb = 0xFFFFFF
)

// palette is that of Okabe and Ito without black and yellow, which do not show
// on both white and dark paper; the last is grey, which is for what is not to be
// trusted and for keys that stand for any series.
var palette = [...]rgb{0x0072B2, 0xD55E00, 0x009E73, 0xCC79A7, 0x56B4E9, 0xE69F00, 0x7F7F7F}

type cssColour struct {
	name   string
	colour rgb
}

func cssColours() []cssColour {
	out := []cssColour{{"ink", ink}, {"soft", soft}, {"grid", grid}, {"paper", paper}}
	for i, c := range palette {
		out = append(out, cssColour{fmt.Sprintf("c%d", i), c})
	}
	return out
}

// Colours is how many colours there are before they repeat.
const Colours = len(palette) - 1

// Numbers of the colours that no series has.
const (
	Ink  = -1
	Grey = -2
)

// colourOf is the colour of the i-th series, or one of Ink and Grey.
func colourOf(i int) rgb {
	switch {
	case i == Grey:
		return palette[Colours]
	case i < 0:
		return ink
	}
	return palette[i%Colours]
}

// dashes tell lines apart without colour: solid, dashed, dotted, dash-dotted.
func dashes(i int) []vg.Length {
	return [...][]vg.Length{nil, {5, 2.5}, {1.2, 1.8}, {6, 2, 1.2, 2}}[i%4]
}

// glyphOf is the glyph of the i-th series; when colours begin again, each meets
// another glyph.
func glyphOf(i int) draw.GlyphDrawer {
	glyphs := [...]draw.GlyphDrawer{draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, diamond{}, inverted{}, draw.RingGlyph{}, draw.SquareGlyph{}}
	return glyphs[i%len(glyphs)]
}

// inverted is a triangle on its tip.
type inverted struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (inverted) DrawGlyph(c *draw.Canvas, sty draw.GlyphStyle, p vg.Point) {
	r := sty.Radius * 1.1
	var path vg.Path
	path.Move(pt(p.X-r, p.Y+0.7*r))
	path.Line(pt(p.X+r, p.Y+0.7*r))
	path.Line(pt(p.X, p.Y-r))
	path.Close()
	c.Fill(path)
}

// diamond is a square on its corner.
type diamond struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (diamond) DrawGlyph(c *draw.Canvas, sty draw.GlyphStyle, p vg.Point) {
	r := sty.Radius * 1.25
	var path vg.Path
	path.Move(pt(p.X, p.Y+r))
	path.Line(pt(p.X+r, p.Y))
	path.Line(pt(p.X, p.Y-r))
	path.Line(pt(p.X-r, p.Y))
	path.Close()
	c.Fill(path)
}

// face is a text style of the house: Liberation Sans in a size and a colour.
type face struct {
	size   vg.Length
	colour rgb
	bold   bool
}

var (
	titleText = face{10, ink, true}
	labelText = face{9, ink, false}
	tickText  = face{8, ink, false}
	noteText  = face{7.5, soft, false}
)

// style is the face as gonum/plot has it, with the baseline at the point where
// text is put.
func (f face) style(align draw.XAlignment) vgtext.Style {
	fnt := font.Font{Typeface: "Liberation", Variant: "Sans", Size: f.size}
	if f.bold {
		fnt.Weight = 3
	}
	return vgtext.Style{Color: f.colour.colour(), Font: fnt, XAlign: align, YAlign: draw.YBottom, Handler: plot.DefaultTextHandler}
}

func (f face) width(s string) vg.Length {
	if s == "" {
		return 0
	}
	return f.style(draw.XLeft).Width(s)
}

// line is the height of a line with the space to the next.
func (f face) line() vg.Length { return f.size * 1.35 }

// cut shortens a text to a width by leaving out some of its middle: names often
// differ at their ends.
func (f face) cut(s string, most vg.Length) string {
	if f.width(s) <= most {
		return s
	}
	runes := []rune(s)
	short := func(n int) string { // n runes, two thirds of them from the start
		head := n - n/3
		return strings.TrimRight(string(runes[:head]), " ") + "…" + string(runes[len(runes)-n/3:])
	}
	n := sort.Search(len(runes), func(n int) bool { return f.width(short(n)) > most })
	if n < 2 {
		return ""
	}
	return short(n - 1)
}

// text draws one line of text with its baseline at a point.
func text(c draw.Canvas, f face, align draw.XAlignment, at vg.Point, s string) {
	if s == "" {
		return
	}
	sty := f.style(align)
	at.Y -= f.size - sty.FontExtents().Ascent // gonum/plot puts the baseline a little higher
	c.FillText(sty, at, s)
}

// upright draws text that reads upwards, centred at a height, its baseline at x.
func upright(c draw.Canvas, f face, x, y vg.Length, s string) {
	sty := f.style(draw.XCenter)
	sty.Rotation = math.Pi / 2
	c.FillText(sty, pt(x, y), s)
}

// level draws a text whose middle is at a height: the middle of its digits and
// capitals, which is what eyes align.
func level(c draw.Canvas, f face, align draw.XAlignment, at vg.Point, s string) {
	text(c, f, align, pt(at.X, at.Y-f.cap()/2), s)
}

// cap is the height of capitals and digits.
func (f face) cap() vg.Length { return 0.72 * f.size }

// remark writes a sentence in the middle of a canvas.
func remark(c draw.Canvas, s string) {
	level(c, noteText, draw.XCenter, c.Center(), noteText.cut(s, c.Size().X))
}

func line(c rgb, w vg.Length, dash []vg.Length) draw.LineStyle {
	return draw.LineStyle{Color: c.colour(), Width: w, Dashes: dash}
}

// fill paints a rectangle, stroke a line, between two corners.
func fill(c draw.Canvas, col color.Color, a, b vg.Point) {
	c.SetColor(col)
	c.Fill(vg.Rectangle{Min: a, Max: b}.Path())
}

func stroke(c draw.Canvas, sty draw.LineStyle, a, b vg.Point) {
	c.StrokeLine2(sty, a.X, a.Y, b.X, b.Y)
}

func pt(x, y vg.Length) vg.Point { return vg.Point{X: x, Y: y} }

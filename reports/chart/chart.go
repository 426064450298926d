// Package chart draws the pictures of reports over gonum/plot: one house style,
// pictures as values, SVG, PNG and PDF with the same bytes every time.
//
// A chart function takes plain numbers in the unit that its axis names and
// returns a Picture; it never fails on data. What a log axis cannot show is left
// out and counted; a chart without anything to show is a sentence that says so.
//
//	pic := chart.CDF("assistant", []chart.Panel{{Axis: "TTFT (ms)", Series: series}}, keys)
//	os.WriteFile("cdf.svg", pic.SVG(), 0o644)
//
// The style: Okabe-Ito colours, each with a dash pattern and a glyph of its own,
// so that nothing is told by colour alone; 1-2-5 ticks on log axes; a legend
// outside the data; units on every axis.
//
// The package knows nothing of runs and cells; reports does.
package chart

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"regexp"
	"strings"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgpdf"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Picture is a drawing of a fixed size.
type Picture struct {
	w, h  vg.Length
	paint func(draw.Canvas)
	lay   func(width vg.Length) *Picture
}

const (
	dpi   = 200
	usual = 18 * vg.Centimeter // two columns of a paper
)

// Narrowest and Widest bound what Wide takes, in centimetres.
const (
	Narrowest = 6
	Widest    = 60
)

// fit lays a picture out for the usual width, and keeps how for others.
func fit(lay func(width vg.Length) *Picture) *Picture {
	p := lay(usual)
	p.lay = lay
	return p
}

// Wide is the picture laid out anew for a width in centimetres, with text of the
// same size: 8.8 is a column of a paper, 18 two. Widths beyond Narrowest and Widest
// count as those.
func (p *Picture) Wide(cm float64) *Picture {
	if p.lay == nil {
		return p
	}
	return p.lay(vg.Length(min(max(cm, Narrowest), Widest)) * vg.Centimeter)
}

// abreast is how many panels stand beside each other in a picture of a width.
func abreast(width vg.Length, most int) int {
	const least = 5.4 * vg.Centimeter
	return min(max(int(width/least), 1), most)
}

// Size is the size in points.
func (p *Picture) Size() (w, h float64) { return p.w.Points(), p.h.Points() }

// svg draws without a background.
func (p *Picture) svg() string {
	c := vgsvg.NewWith(vgsvg.UseWH(p.w, p.h))
	p.paint(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		panic(err) // a buffer does not fail
	}
	s := b.String()
	s = s[strings.Index(s, "<svg"):]
	// SVG names fonts without embedding them: say what to take instead.
	return strings.ReplaceAll(s, "font-family:Liberation Sans;", "font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")
}

// SVG is the picture on white paper.
func (p *Picture) SVG() []byte {
	s := p.svg()
	at := strings.IndexByte(s, '>') + 1
	return []byte("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + s[:at] + "\n<rect width=\"100%\" height=\"100%\" fill=\"" + paper.hex() + "\"/>" + s[at:])
}

// Inline is the picture as an element of an HTML page: no background, colours as
// the CSS variables --ink, --soft, --grid, --paper and --c0 to --c6, so that the
// page's dark scheme can change them. Title and description are for readers who
// cannot see it; id must be unique in the page.
func (p *Picture) Inline(id, title, description string) string {
	s := p.svg()
	at := strings.IndexByte(s, '>')
	body := s[at+1:]
	for _, v := range cssColours() {
		body = strings.ReplaceAll(body, ":"+v.colour.hex(), ":var(--"+v.name+")")
	}
	return fmt.Sprintf("<svg viewBox=\"0 0 %.5g %.5g\" width=\"%.5g\" height=\"%.5g\" role=\"img\" aria-labelledby=\"%s-t %s-d\" xmlns=\"http://www.w3.org/2000/svg\">\n<title id=\"%s-t\">%s</title><desc id=\"%s-d\">%s</desc>",
		p.w.Points(), p.h.Points(), p.w.Points()*96/72, p.h.Points()*96/72, id, id, id, escape(title), id, escape(description)) + body
}

func escape(s string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		panic(err) // a buffer does not fail
	}
	return b.String()
}

// PNG is the picture as pixels, on white paper.
func (p *Picture) PNG() ([]byte, error) {
	c := vgimg.NewWith(vgimg.UseWH(p.w, p.h), vgimg.UseDPI(dpi))
	p.paint(draw.New(c))
	var b bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: c}).WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Encode is the picture in a format: svg, png or pdf.
func (p *Picture) Encode(format string) ([]byte, error) {
	switch format {
	case "svg":
		return p.SVG(), nil
	case "png":
		return p.PNG()
	case "pdf":
		return p.PDF()
	}
	return nil, fmt.Errorf("a picture as %q: want svg, png or pdf", format)
}

// madeAt is when a PDF was made.
var madeAt = regexp.MustCompile(`\(D:\d{14}\)`)

// PDF is the picture as one page, for papers.
func (p *Picture) PDF() ([]byte, error) {
	c := pdfCanvas{vgpdf.New(p.w, p.h)}
	p.paint(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, err
	}
	return madeAt.ReplaceAll(b.Bytes(), []byte("(D:19700101000000)")), nil // of the same length: offsets in the file stay
}

// pdfCanvas writes everything in one weight: with two, vgpdf lists its fonts in
// the order of a map, and it looks for bold faces under a name that it did not
// give them.
type pdfCanvas struct{ *vgpdf.Canvas }

// FillString implements vg.Canvas.
func (c pdfCanvas) FillString(f font.Face, at vg.Point, s string) {
	size := f.Font.Size
	f.Font.Weight = 0
	c.Canvas.FillString(font.DefaultCache.Lookup(f.Font, size), at, s)
}

// Empty is a picture that says why there is none.
func Empty(title, why string) *Picture {
	return fit(func(width vg.Length) *Picture {
		return &Picture{w: width, h: 2 * vg.Centimeter, paint: func(c draw.Canvas) {
			c = heading(c, title)
			remark(c, "no data: "+why)
		}}
	})
}

// heading draws a title at the top left and returns what is left of the canvas.
func heading(c draw.Canvas, title string) draw.Canvas {
	c = draw.Crop(c, margin, -2*margin, margin, -margin)
	if title == "" {
		return c
	}
	text(c, titleText, draw.XLeft, pt(c.Min.X, c.Max.Y-titleText.size), titleText.cut(title, c.Size().X))
	return draw.Crop(c, 0, 0, 0, -titleText.line())
}

// headingHeight is what heading takes, with the margins.
func headingHeight() vg.Length { return 2*margin + titleText.line() }

const margin = 4 * vg.Length(1)

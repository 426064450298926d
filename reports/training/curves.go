package training

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/reports"
	"meibench/reports/chart"
)

const mostCurves = 12

// drawn are the cells that pictures have room for, and a sentence on the others.
func (p *part) drawn() (cells []*cell, rest string) {
	cells = slices.DeleteFunc(slices.Clone(p.cells), func(c *cell) bool { return len(c.steps()) == 0 })
	if n := len(cells) - mostCurves; n > 0 {
		return cells[:mostCurves], fmt.Sprintf(" %d more cells are in the tables alone.", n)
	}
	return cells, ""
}

func rangeOf(values []float64, by float64) chart.Range {
	if len(values) == 0 {
		return chart.Range{V: math.NaN(), Lo: math.NaN(), Hi: math.NaN()}
	}
	return chart.Range{V: by * median(values), Lo: by * slices.Min(values), Hi: by * slices.Max(values)}
}

// scale is an axis of a cost: its name, what to divide by, and whether it is logarithmic, as where one cell takes many times what another does.
type scale struct {
	name, short string
	by          float64
	log         bool
}

const many = 16

func costAxis(cells []*cell, of cost) scale {
	least, most := math.Inf(1), 0.0
	for _, c := range cells {
		if v := median(c.spent(of)); v > 0 {
			least, most = min(least, v), max(most, v)
		}
	}
	out, units, what := scale{by: 1, log: most >= many*least}, []string{"J", "kJ", "MJ"}, "energy of all parts"
	switch of {
	case bytesCost:
		units, what = []string{"B", "kB", "MB", "GB", "TB"}, "bytes over users' links"
	case timeCost:
		units, what = []string{"s"}, "time of the rounds"
		if most < 1 {
			units, out.by = []string{"ms"}, 1e-3
		}
	}
	unit := units[0]
	for _, u := range units[1:] {
		if most < 1000*out.by {
			break
		}
		unit, out.by = u, 1000*out.by
	}
	out.name = what + " (" + unit + ")"
	first, _, _ := strings.Cut(what, " ")
	out.short = first + " (" + unit + ")"
	return out
}

// curves are what had been learned against what it took.
func (p *part) curves() *reports.Figure {
	cells, rest := p.drawn()
	if len(cells) == 0 {
		return nil
	}
	var plots [int(numCosts) + 1]chart.Plot
	var scales [numCosts]scale
	for by := range numCosts {
		scales[by] = costAxis(cells, by)
		plots[by] = chart.Plot{XAxis: scales[by].name, YAxis: "held-out right (%)", LogX: scales[by].log}
	}
	loss := &plots[numCosts]
	loss.XAxis, loss.YAxis, loss.Close = "rounds", "held-out loss (nat/token)", true
	var keys []chart.Key
	dark := 0
	for i, c := range cells {
		like := chart.Curve{Colour: i % chart.Colours, Glyph: i, Dash: i, Band: true}
		keys = append(keys, chart.Key{Text: c.name, Colour: like.Colour, Glyph: i, Index: i, Kind: chart.SeriesKey})
		if !c.Valid() {
			keys[i].Text, keys[i].Colour, like.Colour = c.name+" (INVALID)", chart.Grey, chart.Grey
		}
		lines := [len(plots)]chart.Curve{like, like, like, like}
		for _, s := range c.steps() {
			for by := range numCosts {
				if x := s.spent[by]; len(s.right) > 0 && (x > 0 || x == 0 && !scales[by].log) {
					lines[by].Dots = append(lines[by].Dots, chart.Dot{X: x / scales[by].by, Y: rangeOf(s.right, 100)})
				}
			}
			if len(s.loss) > 0 {
				lines[numCosts].Dots = append(lines[numCosts].Dots, chart.Dot{X: float64(s.round), Y: rangeOf(s.loss, 1)})
			}
		}
		if len(lines[joulesCost].Dots) == 0 {
			dark++
		}
		for j := range plots {
			plots[j].Curves = append(plots[j].Curves, lines[j])
		}
	}
	order := []chart.Plot{plots[timeCost], plots[bytesCost], plots[joulesCost], plots[numCosts]}
	caption := "A line is the median over seeds, the area from the least to the most of them; a line ends where its rounds end. " + p.real() + rest
	if dark > 0 {
		caption += fmt.Sprintf(" %s no joules that are known.", plural(dark, "cell has", "cells have"))
	}
	return &reports.Figure{Name: "training-curves", Title: "What rounds learn: " + p.title, Caption: caption + p.baseNote(),
		Alt:     "Share of held-out questions right against time, bytes and joules, and loss against rounds: " + p.clauses() + ".",
		Picture: chart.Curves(p.title, order, keys)}
}

// baseNote says where the lines begin.
func (p *part) baseNote() string {
	if len(p.bases()) == 0 {
		return " The score of the untuned model is not in the data: lines begin after the first scored round."
	}
	return " Lines begin at the untuned model, on log axes after the first scored round."
}

// bases are the scores before the first round, of all cells.
func (p *part) bases() (out []float64) {
	for _, c := range p.cells {
		out = append(out, c.base()...)
	}
	return out
}

// clauses say where each cell ended.
func (p *part) clauses() string {
	var out []string
	cells, _ := p.drawn()
	for _, c := range cells {
		out = append(out, fmt.Sprintf("%s %s", c.name, percent(median(c.final()))))
	}
	return strings.Join(out, "; ")
}

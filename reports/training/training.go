// Package training makes the section of pages on runs whose requests are rounds of training.
//
//	data, err := reports.Load("runs/training")
//	r := reports.Build(data, training.Sections(data)...)
//
// The one idea: what is learned is counted against what it took. A cell's rounds are added up to a [course] for each of its seeds:
// seconds, bytes over users' links and joules so far, and the share of held-out questions right. Courses are drawn, and compared at equal
// budgets: the largest that all cells of a part reached. Seeds draw data and clients anew, so all intervals are over seeds: below six the
// least and the most, from six on the 95 % interval of the median.
//
// A round that was not scored has no score: it is left out, and never drawn as zero. Cells without weights learn nothing and say so.
package training

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"meibench/reports"
)

// Sections is the section of d, or nothing.
func Sections(d *reports.Data) []reports.Section {
	all := slices.SortedStableFunc(slices.Values(d.Groups), func(a, b *reports.Group) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Cell.Index, b.Cell.Index))
	})
	all = reports.Where(all, func(g *reports.Group) bool { return g.Trains() })
	if len(all) == 0 {
		return nil
	}
	s := reports.Section{Name: "training", Title: "Training"}
	var parts []*part
	var said []string
	for _, gs := range reports.Sets(all, setting) {
		p := newPart(gs)
		p.question = d.Question(gs[0])
		parts = append(parts, p)
		lead := p.lead()
		if real := p.real(); !slices.Contains(said, real) {
			lead, said = lead+" "+real, append(said, real)
		}
		s.Lead = append(s.Lead, lead)
		for _, f := range append([]*reports.Figure{p.curves(), p.named()}, p.sweeps()...) {
			if f != nil {
				f.Name += strconv.Itoa(len(s.Figures) + 1)
				s.Figures = append(s.Figures, *f)
			}
		}
	}
	for _, t := range []*reports.Table{learned(parts), equal(parts), rounds(parts), effects(parts)} {
		if t != nil {
			s.Tables = append(s.Tables, *t)
		}
	}
	s.Short = short(parts)
	return []reports.Section{s}
}

// setting is what cells share that are compared: one question on one application, in one mode.
func setting(g *reports.Group) string {
	return strings.Join([]string{strconv.Itoa(g.Run), g.Cell.Suite, g.Axis("part"), g.Cell.App, g.Cell.Mode}, "\x00")
}

// part is the cells that are compared with each other, each with a course for every seed.
type part struct {
	title    string
	question string // of the suite; "" if it has none
	cells    []*cell
	axes     []string // of the cells' names that differ between them
	budgets  [numCosts]float64
}

// cell is a method: a cell of the suite with all its seeds.
type cell struct {
	*reports.Group
	name    string
	courses []course
}

func newPart(gs []*reports.Group) *part {
	p := &part{axes: differing(gs)}
	first := gs[0]
	p.title = strings.Join(slices.DeleteFunc([]string{first.Axis("part"), first.Cell.App, first.Cell.Mode}, func(s string) bool { return s == "" }), ", ")
	for _, g := range gs {
		p.cells = append(p.cells, &cell{Group: g, name: nameOf(g, p.axes, ""), courses: coursesOf(g)})
	}
	for i := range p.budgets {
		p.budgets[i] = p.common(cost(i))
	}
	return p
}

// pairs are the axes of a cell's name that a part does not share.
func pairs(g *reports.Group) (keys []string) {
	for _, p := range strings.Split(g.Cell.Name, "/") {
		if key, _, ok := strings.Cut(p, "="); ok && !slices.Contains([]string{"part", "app", "mode"}, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// differing are the axes in which cells differ, in the order of the suite.
func differing(gs []*reports.Group) (out []string) {
	for _, g := range gs {
		for _, key := range pairs(g) {
			if !slices.Contains(out, key) && slices.ContainsFunc(gs, func(o *reports.Group) bool { return o.Axis(key) != g.Axis(key) }) {
				out = append(out, key)
			}
		}
	}
	return out
}

// nameOf tells a cell from others of its part, by the axes in which they differ but for one.
func nameOf(g *reports.Group, axes []string, without string) string {
	var out []string
	for _, key := range axes {
		v := g.Axis(key)
		switch _, err := strconv.ParseFloat(v, 64); {
		case v == "" || key == without:
		case err == nil || v == "yes" || v == "no":
			out = append(out, key+" "+v)
		default:
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return g.Cell.Pipeline
	}
	return strings.Join(out, " · ")
}

// real says what of a part was computed and what a model says.
func (p *part) real() string {
	learns := "What is learned is computed for real, with real gradients and real updates;"
	if !slices.ContainsFunc(p.cells, func(c *cell) bool { return len(c.final()) > 0 }) {
		learns = "Nothing was scored here: cells without weights learn nothing, and"
	}
	switch p.cells[0].Cell.Mode {
	case "measured":
		return learns + " seconds are measured; joules are " + p.source() + "."
	case "emulated":
		return learns + " seconds are measured where this machine computes and shaped or modelled elsewhere; joules are " + p.source() + "."
	}
	return learns + " seconds and joules are modelled."
}

// source is where the joules come from.
func (p *part) source() string {
	names := []string{}
	for _, c := range p.cells {
		for _, rounds := range c.Rounds {
			for _, r := range rounds {
				if n := sourceName(r); !slices.Contains(names, n) {
					names = append(names, n)
				}
			}
		}
	}
	slices.Sort(names)
	return strings.Join(names, " or ")
}

// over prints the median of one value for each seed, with what is known of its spread: the 95 % interval from six seeds on, before
// the least and the most.
func over(values []float64, print func(reports.Stat) reports.Value) reports.Value {
	known := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	s := reports.Median(known)
	v := print(s)
	if len(known) > 1 && math.IsNaN(s.Lo) && math.IsNaN(s.Hi) {
		s.Lo, s.Hi = slices.Min(known), slices.Max(known)
		v = print(s)
		v.Detail = strings.NewReplacer("[", "(", "]", ")").Replace(v.Detail)
	}
	if s.Hi-s.Lo <= 1e-9*math.Abs(s.V) { // all alike
		v = print(reports.Bare(s.V))
	}
	return v
}

// median is that of the known values; NaN of none.
func median(values []float64) float64 { return reports.Median(values).V }

// points prints a difference of shares in percentage points.
func points(s reports.Stat) reports.Value {
	v := reports.Number(reports.Stat{V: 100 * s.V, Lo: 100 * s.Lo, Hi: 100 * s.Hi, N: s.N})
	if s.V > 0 {
		v.Text = "+" + v.Text
	}
	v.Text, v.Detail = strings.ReplaceAll(v.Text, "-", "−"), strings.ReplaceAll(v.Detail, "-", "−")
	return v
}

func percent(v float64) string { return reports.Percent(reports.Bare(v)).Text }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

package training

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"meibench/reports"
	"meibench/reports/chart"
)

// meanings say what parameters are; the second is what 0 stands for where it is no number: such a cell has no place on the axis.
var meanings = map[string][2]string{
	"rank": {"rank of adapters"}, "cut": {"layers of the client"}, "dirichlet": {"Dirichlet: small = clients differ", "all clients have the same mix"},
	"noise": {"noise of privacy (over clip)"}, "clip": {"largest norm of a gradient", "no clipping"}, "clients": {"clients"}, "sampled": {"clients of a round", "all clients"},
	"deadline_s": {"deadline of a round (s)", "everybody is waited for"}, "buffer": {"updates that the server waits for", "rounds"}, "bad": {"share of bad clients"},
	"steps": {"steps of a client in a round"}, "samples": {"questions of a client"}, "gone": {"chance that a client vanishes"}, "mu": {"FedProx: mu"}, "interval": {"rounds between meetings"},
	"average": {"rounds between averages"}, "learning_rate": {"learning rate"}, "stages": {"devices in a row"}, "micros": {"micro-batches of a step"}, "batch": {"questions of a step"}, "width": {"width of bottlenecks"}, "tokens": {"tokens in front"}, "from": {"lowest layer that changes"},
}

// numbers are the axes of a part that are numbers.
func (p *part) numbers() (out []string) {
	for _, key := range p.axes {
		if !slices.ContainsFunc(p.cells, func(c *cell) bool {
			_, err := strconv.ParseFloat(c.Axis(key), 64)
			return err != nil && c.Axis(key) != ""
		}) {
			out = append(out, key)
		}
	}
	return out
}

// value is where a cell stands on an axis; NaN where it has no place.
func (c *cell) value(key string) float64 {
	v, err := strconv.ParseFloat(c.Axis(key), 64)
	if err != nil || v == 0 && meanings[key][1] != "" {
		return math.NaN()
	}
	return v
}

const mostSweeps = 3 // axes of a part that are drawn

// sweeps draw what a run came to against each axis that is a number.
func (p *part) sweeps() (out []*reports.Figure) {
	axes := p.numbers()
	for _, key := range axes[:min(len(axes), mostSweeps)] {
		if f := p.against(key); f != nil {
			out = append(out, f)
		}
	}
	return out
}

// places are where cells stand on an axis; ok if there are two at least.
func (p *part) places(key string) (all []float64, ok bool) {
	for _, c := range p.cells {
		all = append(all, c.value(key))
	}
	all = known(all)
	return all, len(all) > 0 && slices.Min(all) < slices.Max(all)
}

// against draws scores and costs of whole runs against an axis, a line for each way that the other axes name.
func (p *part) against(key string) *reports.Figure {
	x := cmp.Or(meanings[key][0], key)
	all, ok := p.places(key)
	if !ok {
		return nil
	}
	log := slices.Min(all) > 0 && slices.Max(all) >= 16*slices.Min(all)
	var plots [int(numCosts) + 1]chart.Plot
	var scales [numCosts]scale
	plots[numCosts] = chart.Plot{YAxis: "held-out right (%)"}
	for by := range numCosts {
		scales[by] = costAxis(p.cells, by)
		plots[by] = chart.Plot{YAxis: scales[by].name, LogY: scales[by].log}
	}
	groups := reports.Sets(p.groups(), func(g *reports.Group) string { return nameOf(g, p.axes, key) })
	var keys []chart.Key
	var lines [len(plots)][]chart.Curve
	for i, gs := range groups[:min(len(groups), mostCurves)] {
		cells := slices.DeleteFunc(p.of(gs), func(c *cell) bool { return math.IsNaN(c.value(key)) })
		slices.SortStableFunc(cells, func(a, b *cell) int { return cmp.Compare(a.value(key), b.value(key)) })
		keys = append(keys, chart.Key{Text: nameOf(gs[0], p.axes, key), Colour: i % chart.Colours, Glyph: i, Index: i, Kind: chart.SeriesKey})
		for j := range plots {
			line := chart.Curve{Colour: i % chart.Colours, Glyph: i, Dash: i}
			for _, c := range cells {
				values, by := c.final(), 100.0
				if j < int(numCosts) {
					values, by = c.spent(cost(j)), 1/scales[j].by
				}
				if len(values) > 0 {
					line.Dots = append(line.Dots, chart.Dot{X: c.value(key), Y: rangeOf(values, by)})
				}
			}
			lines[j] = append(lines[j], line)
		}
	}
	for j := range plots {
		plots[j].XAxis, plots[j].LogX, plots[j].Curves = x, log, lines[j]
	}
	caption := "Whole runs: a dot is the median over seeds, its bar goes from the least to the most. " + p.real()
	if said := meanings[key][1]; said != "" && slices.ContainsFunc(p.cells, func(c *cell) bool { return c.Axis(key) == "0" }) {
		caption += fmt.Sprintf(" %s 0 (%s) has no place on the axis: see the tables.", key, said)
	}
	if n := len(groups) - mostCurves; n > 0 {
		caption += fmt.Sprintf(" %d more lines are in the tables alone.", n)
	}
	return &reports.Figure{Name: "training-sweep", Title: "Against " + x + ": " + p.title, Caption: caption,
		Alt:     fmt.Sprintf("Share of held-out questions right, bytes, joules and time of whole runs against %s: %s.", x, p.clauses()),
		Picture: chart.Curves(p.title, []chart.Plot{plots[numCosts], plots[bytesCost], plots[timeCost], plots[joulesCost]}, keys)}
}

// named draws what whole runs came to, a row for each cell, where cells differ in something that no axis shows. What all of them took alike
// is said, not drawn.
func (p *part) named() *reports.Figure {
	cells := slices.DeleteFunc(slices.Clone(p.cells), func(c *cell) bool { return len(c.steps()) == 0 })
	numbers := p.numbers()
	shown := slices.DeleteFunc(numbers[:min(len(numbers), mostSweeps)], func(key string) bool { _, ok := p.places(key); return !ok })
	if len(shown) == len(p.axes) || len(cells) < 2 {
		return nil
	}
	rows := make([]chart.Strip, len(cells))
	column := func(values func(*cell) []float64, by float64) {
		for i, c := range cells {
			v := slices.Sorted(slices.Values(scaled(values(c), by)))
			s := reports.Median(v)
			rows[i].Cells = append(rows[i].Cells, chart.Sample{Values: v, N: len(v), Mid: s.V, Low: s.Lo, Top: s.Hi})
		}
	}
	for i, c := range cells {
		rows[i] = chart.Strip{Label: c.name, Colour: i % chart.Colours, Glyph: i, Faded: !c.Valid()}
	}
	axes := []chart.StripAxis{{Name: "right (%)", Linear: true}}
	column((*cell).final, 100)
	var same []string
	for by := range numCosts {
		if v, ok := alike(cells, by); ok {
			same = append(same, printed(by, v))
			continue
		}
		x := costAxis(cells, by)
		axes = append(axes, chart.StripAxis{Name: x.short, Linear: !x.log})
		column(func(c *cell) []float64 { return c.spent(by) }, 1/x.by)
	}
	caption := "Right: of held-out questions. Bytes: over users' links. A dot is a seed, the large one the median, its bar the 95 % interval from six seeds on. "
	if len(same) > 0 {
		caption += "All took about " + join(same) + ". "
	}
	return &reports.Figure{Name: "training-spent", Title: "What whole runs learn, and take: " + p.title, Caption: caption + p.real(),
		Alt:     "Share of held-out questions right of whole runs, and the bytes, joules and seconds that they took: " + p.clauses() + ".",
		Picture: chart.Rows(p.title, "one seed", axes, rows)}
}

// alike is what all cells took, if it is nearly the same.
func alike(cells []*cell, by cost) (float64, bool) {
	var all []float64
	for _, c := range cells {
		all = append(all, median(c.spent(by)))
	}
	least, most := slices.Min(all), slices.Max(all) // NaN of a cell that does not know
	return median(all), most <= (1+nearly)*least
}

const nearly = 0.02

func printed(by cost, v float64) string {
	print := map[cost]func(reports.Stat) reports.Value{bytesCost: reports.Bytes, joulesCost: reports.Energy, timeCost: reports.Time}
	return print[by](reports.Bare(v)).Text
}

func scaled(values []float64, by float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = v * by
	}
	return out
}

func (p *part) groups() (out []*reports.Group) {
	for _, c := range p.cells {
		out = append(out, c.Group)
	}
	return out
}

// of are the cells of groups.
func (p *part) of(gs []*reports.Group) (out []*cell) {
	for _, c := range p.cells {
		if slices.Contains(gs, c.Group) {
			out = append(out, c)
		}
	}
	return out
}

// effects are what each value of an axis came to, over all cells that have it; nil if no cells differ.
func effects(parts []*part) *reports.Table {
	t := reports.Table{Name: "training-effects", Title: "What each parameter does",
		Caption: "All cells of a part with one value of a parameter together: of each seed their mean, of these the median. " + spreads + " Whole runs.",
		Columns: reports.Columns([]string{"parameter"}, "cells", "right", "bytes", "joules", "time")}
	for _, p := range parts {
		if len(p.axes) < 2 { // the tables above say it already
			continue
		}
		rows := reports.RowGroup{Title: p.title}
		for _, key := range p.axes {
			for _, gs := range reports.Sets(p.groups(), func(g *reports.Group) string { return g.Axis(key) }) {
				cells := p.of(gs)
				mean := func(of func(*course) float64) []float64 { return meanOver(cells, of) }
				spent := func(by cost) []float64 {
					return mean(func(c *course) float64 { v, _ := last(c.spent[by]); return v })
				}
				rows.Rows = append(rows.Rows, reports.Row{Values: []reports.Value{reports.Word(strings.TrimSpace(key + " " + gs[0].Axis(key))), count(len(gs)),
					over(mean(func(c *course) float64 { v, _ := last(c.right); return v }), reports.Percent), over(spent(bytesCost), reports.Bytes), over(spent(joulesCost), reports.Energy), over(spent(timeCost), reports.Time)}})
			}
		}
		t.Groups = append(t.Groups, rows)
	}
	if len(t.Groups) == 0 {
		return nil
	}
	return &t
}

// meanOver is the mean over cells of something of each seed that all of them have.
func meanOver(cells []*cell, of func(*course) float64) (out []float64) {
	for k := range cells[0].courses {
		sum := 0.0
		for _, c := range cells {
			if k >= len(c.courses) {
				sum = math.NaN()
				break
			}
			sum += of(&c.courses[k]) / float64(len(cells))
		}
		out = append(out, sum)
	}
	return out
}

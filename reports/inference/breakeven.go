package inference

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/internal/portable"
	"meibench/reports"
	"meibench/reports/chart"
)

// sweep is a placement along an axis of the link, beside the same on the device.
type sweep struct {
	axis   string // rtt or mbps
	name   string
	xs     []float64
	remote []*reports.Group // by x
	local  []*reports.Group // by x
}

// crossing is where a placement begins or ceases to be quicker than the device.
type crossing struct {
	At    reports.Stat // on the axis; NaN if the curves do not cross
	Every bool         // quicker at every value of the sweep
	Never bool         // quicker at none
	Known bool         // both have latencies at two values at least
	Seeds int          // seeds in which the curves cross
	Of    int          // seeds
}

// breakEven says at which rate and round trip time offloading starts to pay.
func breakEven(all []*reports.Group) *reports.Section {
	s := &reports.Section{Name: "break-even", Title: "From which link on offloading pays"}
	t := reports.Table{Name: "break-even", Title: "Break-even",
		Caption: "Where the curve of the median E2E crosses that of local, found on straight lines between the logarithms of neighbouring values; in brackets the 95 % interval over the seeds of the suite. A placement pays where it is quicker than the device alone.",
		Columns: reports.Columns([]string{"placement", "axis", "pays"}, "break-even", "seeds that cross")}
	for _, axis := range []string{"rtt", "mbps"} {
		for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { return num(g, axis) > 0 && g.Axis(axis) != "" }), func(g *reports.Group) string {
			return place(g, false) + "\x00" + g.Cell.Model + "\x00" + g.Axis("part")
		}) {
			sweeps := sweepsOf(axis, set, all)
			if len(sweeps) == 0 {
				continue
			}
			group := reports.RowGroup{Title: title(set[0])}
			for _, w := range sweeps {
				c := w.cross()
				pays, value := w.words(c)
				group.Rows = append(group.Rows, reports.Row{Values: []reports.Value{reports.Word(w.name), reports.Word(axisName(axis)), reports.Word(pays), value,
					reports.Word(fmt.Sprintf("%d of %d", c.Seeds, c.Of))}})
				s.Lead = append(s.Lead, fmt.Sprintf("Break-even, %s: %s %s.", title(set[0]), w.name, pays))
			}
			t.Groups = append(t.Groups, group)
			s.Figures = append(s.Figures, sweepFigure(axis, title(set[0]), sweeps))
		}
	}
	if len(t.Groups) == 0 {
		return nil
	}
	s.Tables = []reports.Table{t}
	return s
}

func axisName(axis string) string {
	return map[string]string{"rtt": "round trip time", "mbps": "rate"}[axis]
}

// sweepsOf splits a set into its placements and joins each with local at the same
// values; where the set has no local of its own, any of the same place and model.
func sweepsOf(axis string, set, all []*reports.Group) (out []sweep) {
	locals := reports.Where(set, pipeline("local"))
	if len(locals) == 0 {
		locals = reports.Where(all, func(g *reports.Group) bool {
			return g.Cell.Pipeline == "local" && g.Cell.Model == set[0].Cell.Model && place(g, false) == place(set[0], false)
		})
	}
	for _, gs := range reports.Sets(reports.Where(set, func(g *reports.Group) bool { return g.Cell.Pipeline != "local" }), func(g *reports.Group) string { return without(label(g), axis) }) {
		w := sweep{axis: axis, name: without(label(gs[0]), axis)}
		slices.SortStableFunc(gs, func(a, b *reports.Group) int { return cmp.Compare(num(a, axis), num(b, axis)) })
		for _, g := range gs {
			here := first(locals, func(l *reports.Group) bool { return num(l, axis) == num(g, axis) })
			if here == nil {
				here = first(locals, func(l *reports.Group) bool { return true })
			}
			if here != nil {
				w.xs, w.remote, w.local = append(w.xs, num(g, axis)), append(w.remote, g), append(w.local, here)
			}
		}
		if len(w.xs) > 1 {
			out = append(out, w)
		}
	}
	return out
}

// without is a label without one axis.
func without(label, axis string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(label), func(p string) bool { return strings.HasPrefix(p, axis+"=") }), " ")
}

// cross finds the break-even of the pooled medians, with the interval over seeds.
func (w *sweep) cross() (c crossing) {
	at, quicker, known := crossOf(w.xs, func(i int) float64 { return ratio(w.remote[i].E2E50().V, w.local[i].E2E50().V) })
	c.Known, c.Every, c.Never = known > 1, quicker == known && known > 1, quicker == 0
	c.At = reports.Bare(at)
	var each []float64
	for _, seed := range seedsOf(w.remote[0]) {
		v, _, _ := crossOf(w.xs, func(i int) float64 { return ratio(medianOf(w.remote[i], seed), medianOf(w.local[i], seed)) })
		if c.Of++; !math.IsNaN(v) {
			c.Seeds++
			each = append(each, v)
		}
	}
	if over := reports.Median(each); c.Seeds > 0 && !math.IsNaN(at) {
		c.At.Lo, c.At.Hi, c.At.N = over.Lo, over.Hi, over.N
	}
	return c
}

// ratio is a over b; NaN where either is unknown.
func ratio(a, b float64) float64 {
	if !(a > 0) || !(b > 0) || math.IsInf(a, 0) || math.IsInf(b, 0) {
		return math.NaN()
	}
	return a / b
}

// crossOf is the first place where the ratio passes 1, on a straight line between
// the logarithms of both; NaN if it never does. It counts the values at which the
// ratio is known, and those where it is below 1.
func crossOf(xs []float64, ratio func(i int) float64) (at float64, below, known int) {
	at = math.NaN()
	last, lastX := math.NaN(), 0.0
	for i, x := range xs {
		r := ratio(i)
		if math.IsNaN(r) {
			continue
		}
		known++
		if r < 1 {
			below++
		}
		if math.IsNaN(at) && !math.IsNaN(last) && (last < 1) != (r < 1) && x > lastX && lastX > 0 {
			y0, y1 := portable.Log(last), portable.Log(r)
			share := -y0 / (y1 - y0)
			at = portable.Exp(portable.Log(lastX) + float64(share*(portable.Log(x)-portable.Log(lastX))))
		}
		last, lastX = r, x
	}
	return at, below, known
}

// seedsOf are the seeds that a group ran with, in order.
func seedsOf(g *reports.Group) (out []uint64) {
	for i := range g.Cells {
		if s := g.Cells[i].Seed; !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// medianOf is the median E2E of the requests of one seed that ended well.
func medianOf(g *reports.Group, seed uint64) float64 {
	var vs []float64
	for a := range g.Answers() {
		if a.Seed == seed && !math.IsNaN(a.E2E) {
			vs = append(vs, a.E2E)
		}
	}
	if len(vs) == 0 {
		return math.NaN()
	}
	slices.Sort(vs)
	return vs[(len(vs)-1)/2]
}

// words say when a placement pays, and the break-even as an entry of a table.
func (w *sweep) words(c crossing) (string, reports.Value) {
	low, high := onAxis(w.axis, w.xs[0]), onAxis(w.axis, w.xs[len(w.xs)-1])
	none := reports.Word("–")
	switch {
	case !c.Known:
		return "cannot be compared with local: one of the two has no request that ended well", none
	case c.Every:
		return fmt.Sprintf("pays at every value of the sweep, %s to %s", low, high), none
	case c.Never:
		return fmt.Sprintf("never pays within the sweep, %s to %s", low, high), none
	}
	value := reports.Time(c.At)
	if w.axis == "mbps" {
		value = reports.Number(c.At)
		value.Text += " Mbit/s"
	}
	side := "up to"
	if w.axis == "mbps" {
		side = "from"
	}
	begins := ratio(w.remote[0].E2E50().V, w.local[0].E2E50().V) < 1
	if begins == (w.axis == "mbps") {
		side = map[bool]string{true: "only up to", false: "only from"}[begins]
	}
	return fmt.Sprintf("pays %s a %s of %s", side, axisName(w.axis), value), value
}

func onAxis(axis string, v float64) string {
	if axis == "rtt" {
		return reports.Time(reports.Bare(v)).Text
	}
	return setting(v) + " Mbit/s"
}

// sweepFigure draws the latencies along an axis, the device's first.
func sweepFigure(axis, name string, sweeps []sweep) reports.Figure {
	plot := chart.Plot{XAxis: "rate of the users' link (Mbit/s)", YAxis: "E2E p50 (s)", LogX: true, LogY: true}
	by := 1.0
	if axis == "rtt" {
		plot.XAxis, by = "round trip time of the users' link (ms)", 1e-3
	}
	names := []string{"local"}
	add := func(i int, xs []float64, gs []*reports.Group) {
		c := chart.Curve{Colour: i, Glyph: i, Dash: i}
		for k, g := range gs {
			c.Dots = append(c.Dots, chart.Dot{X: xs[k] / by, Y: span(g.E2E50(), 1)})
		}
		plot.Curves = append(plot.Curves, c)
	}
	add(0, sweeps[0].xs, sweeps[0].local)
	for i := range sweeps {
		w := &sweeps[i]
		names = append(names, w.name)
		add(i+1, w.xs, w.remote)
		if c := w.cross(); !math.IsNaN(c.At.V) {
			plot.Marks = append(plot.Marks, chart.Mark{At: c.At.V / by, Said: w.name + " = local"})
		}
	}
	return reports.Figure{Name: slug("sweep-" + axis + "-" + name + " " + sweeps[0].remote[0].Axis("part")), Title: "Latency against the " + axisName(axis) + ": " + name,
		Caption: "Below the line of local, the placement pays. Upright strokes are 95 % intervals; overloaded cells have none.",
		Alt:     "Median end-to-end time against the " + axisName(axis) + ", one line per placement: " + strings.Join(names, ", ") + ".",
		Picture: chart.Curves(name, []chart.Plot{plot}, keys(names))}
}

// Package maps draws the pictures that compare placements over conditions: which
// wins over which link, how much load each takes, and which no other beats in
// latency, energy and quality at once.
//
//	data, err := reports.Load("runs/map")
//	r := reports.Build(data, maps.Sections(data)...)
//
// A section is there when the run holds cells for it: a heat map where cells cross
// the axes mbps and rtt, a load curve where they have an axis rate, a frontier where
// the energy of two placements of an application is known.
//
// The rule that names a winner is one for all pictures ([Winner]). Nothing runs here;
// INVALID cells never win and are named as such.
package maps

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

// Sections makes the sections that the data hold cells for.
func Sections(d *reports.Data) (out []reports.Section) {
	all := slices.SortedStableFunc(slices.Values(d.Groups), func(a, b *reports.Group) int {
		return cmp.Or(cmp.Compare(a.Run, b.Run), cmp.Compare(a.Cell.Index, b.Cell.Index))
	})
	verdicts := d.Verdicts()
	for _, make := range []func([]*reports.Group, map[*reports.Group]reports.Verdict) *reports.Section{links, load, frontier} {
		if s := make(all, verdicts); s != nil {
			out = append(out, *s)
		}
	}
	return out
}

// Rule is the rule of [Winner] in words.
const Rule = "First what meets the limits (enough requests inside every limit), then the lowest E2E p50; where the 95 % interval of another that meets them overlaps the winner's, the run cannot tell. INVALID cells never win."

// Choice is what a rule says of placements under the same conditions.
type Choice struct {
	Best  *reports.Group   // nil if no cell is valid
	Rival []*reports.Group // others that cannot be told from the best
	Met   bool             // the best meets the limits; if not, none does
}

// Winner applies the rule to cells that differ in their placement only.
func Winner(gs []*reports.Group, verdicts map[*reports.Group]reports.Verdict) (c Choice) {
	free := len(gs) > 0 && verdicts[gs[0]].Limits == "no limits"
	var fit, valid []*reports.Group
	for _, g := range gs {
		if !g.Valid() || math.IsNaN(g.E2E50().V) {
			continue
		}
		if valid = append(valid, g); free || verdicts[g].Passes {
			fit = append(fit, g)
		}
	}
	if c.Met = len(fit) > 0; !c.Met {
		fit = valid
	}
	if len(fit) == 0 {
		return c
	}
	c.Best = slices.MinFunc(fit, func(a, b *reports.Group) int { return cmp.Compare(a.E2E50().V, b.E2E50().V) })
	for _, g := range fit {
		if g != c.Best && overlap(g.E2E50(), c.Best.E2E50()) {
			c.Rival = append(c.Rival, g)
		}
	}
	return c
}

// overlap reports whether intervals touch; without an interval a value is one.
func overlap(a, b reports.Stat) bool {
	lo := func(s reports.Stat) float64 { return cmp.Or(known(s.Lo), s.V) }
	hi := func(s reports.Stat) float64 { return cmp.Or(known(s.Hi), s.V) }
	return lo(a) <= hi(b) && lo(b) <= hi(a)
}

// known is 0 for NaN.
func known(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// place is what cells share that differ in placement and in the axes of a sweep.
func place(g *reports.Group) string {
	return strings.Join([]string{strconv.Itoa(g.Run), g.Cell.Suite, g.Axis("part"), g.Cell.App, g.Cell.Site, g.Cell.Model, g.Cell.Mode}, "\x00")
}

// placement is the pipeline with the axes of its suite that are not told elsewhere.
func placement(g *reports.Group, without ...string) string {
	out := []string{cmp.Or(g.Cell.Pipeline, "(no pipeline)")}
	for _, p := range strings.Split(g.Cell.Name, "/") {
		key, _, ok := strings.Cut(p, "=")
		if ok && !slices.Contains([]string{"part", "app", "pipeline", "mode", "site", "model"}, key) && !slices.Contains(without, key) {
			out = append(out, p)
		}
	}
	return strings.Join(out, " ")
}

// title names what the cells of a place share.
func title(g *reports.Group) string {
	var out []string
	for _, s := range []string{cmp.Or(g.Cell.App, "(no application)"), g.Cell.Site, g.Cell.Model, g.Cell.Mode} {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, ", ")
}

// num is the value of an axis; NaN if the cell is on no such axis.
func num(g *reports.Group, axis string) float64 {
	v, err := strconv.ParseFloat(g.Axis(axis), 64)
	if err != nil || math.IsInf(v, 0) || v < 0 {
		return math.NaN()
	}
	return v
}

// values are those of an axis, ascending.
func values(gs []*reports.Group, axis string) (out []float64) {
	for _, g := range gs {
		if v := num(g, axis); !math.IsNaN(v) && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// names are the placements of cells, in order of their first.
func names(gs []*reports.Group, without ...string) (out []string) {
	for _, g := range gs {
		if n := placement(g, without...); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// sample is how many requests the smallest and the largest cell has.
func sample(gs []*reports.Group) string {
	lo, hi := math.MaxInt, 0
	for _, g := range gs {
		lo, hi = min(lo, g.N), max(hi, g.N)
	}
	if lo == hi {
		return fmt.Sprintf("n = %d each", lo)
	}
	return fmt.Sprintf("n = %d to %d", lo, hi)
}

// span is an estimate as a chart takes it, divided by a unit.
func span(s reports.Stat, by float64) chart.Range {
	return chart.Range{V: s.V / by, Lo: s.Lo / by, Hi: s.Hi / by}
}

func setting(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// milliseconds prints a time of an axis.
func milliseconds(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e6)/1e3, 'f', -1, 64)
}

// numbered is a name of a file: the second of its kind has a number.
func numbered(name string, i int) string {
	if i == 0 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, i+1)
}

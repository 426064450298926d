package levels

import (
	"math"
	"slices"
	"strings"

	"meibench/reports"
)

// perThousand is the number of requests that costs are told of.
const perThousand = 1000

// Grid is where the electricity comes from.
type Grid struct {
	Grams  float64 // of CO2 equivalent per kWh, operation only
	Source string
}

// World is the grid that is taken where none is named.
func World() Grid {
	return Grid{480, "assumed: about the world's mean of recent years, from memory; --carbon-intensity names your grid's"}
}

// Carbon is what so much energy emits, in grams: joules / 3.6e6 × g/kWh.
func (g Grid) Carbon(joules float64) float64 { return joules / 3.6e6 * g.Grams }

// Cost is the table of what a thousand requests take: time of each kind of node,
// bytes on the users' links, energy, and what that emits. Prices are left to
// readers, whose they are; these are what a price list multiplies.
func Cost(d *reports.Data, grid Grid) reports.Table {
	t := reports.Table{Name: "cost", Title: "What a thousand requests cost",
		Caption: "Over all requests, failures included. Busy: time in which a node computed for them, summed over its slots and over all nodes of one profile; a price by the hour multiplies it, if nothing else runs there. Correct: summed quality, where answers were scored. Energy: in the scopes that the profiles declare (docs/energy.md), which are not alike: a phone's figure has its display in it, a GPU's not its server. Carbon: of that energy at " + number(grid.Grams, 3) + " g/kWh (" + grid.Source + "), nothing for making the hardware.",
		Columns: placement(reports.Column{Head: "busy nodes", Left: true}, reports.Column{Head: "busy in all"}, reports.Column{Head: "up"}, reports.Column{Head: "down"},
			reports.Column{Head: "energy"}, reports.Column{Head: "CO2e", Unit: "g"}, reports.Column{Head: "correct"}, reports.Column{Head: "energy per correct"})}
	fill(&t, d, func(g *reports.Group) []reports.Value {
		if g.N == 0 {
			return nil
		}
		scale := perThousand / float64(g.N)
		names, total := busy(g)
		var parts []string
		for _, n := range names {
			parts = append(parts, n.name+" "+reports.Time(reports.Bare(n.seconds*scale)).Text)
		}
		joules, correct := g.Joules().V*perThousand, math.NaN()
		if g.Quality.N > 0 {
			correct = g.Quality.Sum * perThousand / float64(g.Quality.N)
		}
		return []reports.Value{word(strings.Join(parts, ", ")), reports.Time(reports.Bare(total * scale)), reports.Bytes(reports.Bare(g.Up * scale)), reports.Bytes(reports.Bare(g.Down * scale)),
			reports.Energy(reports.Bare(joules)), value(grid.Carbon(joules), 1, 3), value(correct, 1, 3), reports.Energy(reports.Bare(joules / correct))}
	})
	return t
}

// node is how long all nodes of a name were busy.
type node struct {
	name    string
	seconds float64
}

// busy sums the nodes of all runs of a group by name, the busiest first; those
// that did nothing are left out.
func busy(g *reports.Group) (list []node, total float64) {
	for i := range g.Cells {
		for _, n := range g.Cells[i].Nodes {
			s := n.Busy.Seconds()
			if s == 0 {
				continue
			}
			total += s
			if k := slices.IndexFunc(list, func(o node) bool { return o.name == n.Name }); k >= 0 {
				list[k].seconds += s
			} else {
				list = append(list, node{n.Name, s})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b node) int {
		switch {
		case a.seconds > b.seconds:
			return -1
		case a.seconds < b.seconds:
			return 1
		}
		return 0
	})
	return list, total
}

package levels

import (
	"math"

	"meibench/reports"
)

// Heat is the table of what a device does when it is cool, and what it keeps up: the
// first minute beside the end of a long run and the thermal law (checklist D8). A
// cell has a row if its run was long enough, or its devices can throttle.
func Heat(d *reports.Data) reports.Table {
	t := reports.Table{Name: "heat", Title: "First minute and sustained",
		Caption: "Mean TPOT of the requests that begin in the first minute, and in the last quarter of a run of two minutes or more. By law: the share of their full speed that users' devices keep up under continuous work of this kind; divide a burst speed by it before you rely on it. Throttled: when the first of them did. Charge: of the users' batteries, over a thousand requests.",
		Columns: placement(reports.Column{Head: "TPOT, first minute", Unit: "ms"}, reports.Column{Head: "sustained", Unit: "ms"}, reports.Column{Head: "slower by"},
			reports.Column{Head: "keeps up, by law", Unit: "%"}, reports.Column{Head: "throttled after", Unit: "s"}, reports.Column{Head: "charge / 1k"})}
	fill(&t, d, func(g *reports.Group) []reports.Value {
		if len(g.Values) == 0 {
			return nil
		}
		first, last, law := g.Metric("tpot_first_minute"), g.Metric("tpot_sustained"), g.Metric("sustained_speed")
		if math.IsNaN(last) && math.IsNaN(law) {
			return nil
		}
		slower := unknown()
		if ratio := last / first; !math.IsNaN(ratio) {
			slower = reports.Value{Text: number(100*(ratio-1), 3) + " %", Sort: ratio}
		}
		return []reports.Value{value(first, 1e3, 3), value(last, 1e3, 3), slower, share(law), value(g.Metric("throttle_time"), 1, 3), value(10*g.Metric("battery_share_100"), 1, 3)}
	})
	return t
}

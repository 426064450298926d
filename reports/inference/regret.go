package inference

import (
	"fmt"
	"math"
	"strings"

	"meibench/reports"
)

// asked is a request by what makes it the same in several cells.
type asked struct {
	seed uint64
	id   int
}

// loss is what a chooser of cuts lost against those who know more.
type loss struct {
	N       int     // requests that ended well with the chooser and with some static cut
	Mean    float64 // s, of the chooser
	Oracle  float64 // s, of the best static cut of every single request
	Static  float64 // s, of the best single cut in hindsight
	BestCut string
}

// Regret is the chooser's mean over the oracle's, less one.
func (l loss) Regret() float64 { return l.Mean/l.Oracle - 1 }

// regretOf joins a chooser's requests with those of static cuts.
func regretOf(chooser *reports.Group, statics []*reports.Group) (l loss) {
	times := make([]map[asked]float64, len(statics))
	for i, g := range statics {
		times[i] = map[asked]float64{}
		for a := range g.Answers() {
			if !math.IsNaN(a.E2E) {
				times[i][asked{a.Seed, a.ID}] = a.E2E
			}
		}
	}
	sums := make([]float64, len(statics))
	whole := make([]int, len(statics))
	for a := range chooser.Answers() {
		best := math.Inf(1)
		for _, t := range times {
			if v, ok := t[asked{a.Seed, a.ID}]; ok {
				best = min(best, v)
			}
		}
		if math.IsNaN(a.E2E) || math.IsInf(best, 1) {
			continue
		}
		for i, t := range times {
			if v, ok := t[asked{a.Seed, a.ID}]; ok {
				sums[i] += v
				whole[i]++
			}
		}
		l.N++
		l.Mean, l.Oracle = l.Mean+a.E2E, l.Oracle+best
	}
	n := float64(l.N)
	l.Mean, l.Oracle, l.Static = l.Mean/n, l.Oracle/n, math.Inf(1)
	for i, g := range statics { // a cut that lost requests is not the best of all
		if whole[i] == l.N && sums[i]/n < l.Static {
			l.Static, l.BestCut = sums[i]/n, fixed(g)
		}
	}
	if math.IsInf(l.Static, 1) {
		l.Static = math.NaN()
	}
	return l
}

// fixed names a static cut; the device alone is the cut behind the last layer.
func fixed(g *reports.Group) string {
	if g.Cell.Pipeline == "local" {
		return "the device alone"
	}
	return "cut " + setting(num(g, "cut"))
}

// chooser is how a cell chooses its cuts, "" if the cut is fixed.
func chooser(g *reports.Group) string {
	for _, key := range []string{"adapt", "chooser"} {
		if v := text(g, key); v != "" && v != "no" && v != "none" && v != "fixed" && v != "off" {
			return v
		}
	}
	return ""
}

// regrets holds adaptive cuts against the best cut of every request.
func regrets(all []*reports.Group) *reports.Section {
	s := &reports.Section{Name: "regret", Title: "Adaptive cuts against the oracle"}
	t := reports.Table{Name: "regret", Title: "Regret",
		Caption: "Mean E2E over the same requests, joined by seed and number. Oracle: for every request the static cut that was quickest for it. Regret: how much longer the chooser took than the oracle. A chooser may beat the best single cut. It may beat the oracle too, with a cut that the suite does not hold fixed or by leaving the edge to others: a negative regret says so.",
		Columns: reports.Columns([]string{"chooser"}, "requests", "mean E2E", "oracle", "best single cut", "it is", "regret")}
	for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { return chooser(g) != "" && g.N > 0 }), func(g *reports.Group) string { return place(g, true) + "\x00" + g.Cell.Model }) {
		statics := reports.Where(all, func(g *reports.Group) bool {
			cut := g.Cell.Pipeline == "local" || g.Cell.Pipeline == "split" && chooser(g) == "" && g.Axis("cut") != "" && text(g, "wire") == text(set[0], "wire")
			return cut && place(g, true) == place(set[0], true) && g.Cell.Model == set[0].Cell.Model
		})
		if len(statics) < 2 {
			continue
		}
		group := reports.RowGroup{Title: title(set[0])}
		var parts []string
		for _, g := range set {
			l := regretOf(g, statics)
			v := func(x float64) reports.Value { return reports.Time(reports.Bare(x)) }
			group.Rows = append(group.Rows, row(g, reports.Word(chooser(g)), reports.Word(fmt.Sprint(l.N)), v(l.Mean), v(l.Oracle), v(l.Static), reports.Word(l.BestCut), reports.Percent(reports.Bare(l.Regret()))))
			parts = append(parts, fmt.Sprintf("%s %s", chooser(g), reports.Percent(reports.Bare(l.Regret())).Text))
		}
		t.Groups = append(t.Groups, group)
		s.Lead = append(s.Lead, fmt.Sprintf("Regret, %s: against the best of %d fixed cuts for every request, %s.", title(set[0]), len(statics), strings.Join(parts, ", ")))
	}
	if len(t.Groups) == 0 {
		return nil
	}
	s.Tables = []reports.Table{t}
	return s
}

// capacities lists the largest rates at which limits are met, where a run searched
// for them.
func capacities(all []*reports.Group) *reports.Section {
	s := &reports.Section{Name: "capacity", Title: "Capacity under limits"}
	t := reports.Table{Name: "capacity", Title: "Capacity", Caption: "The largest rate of requests at which enough of them meet all limits, with the lowest that passed and the highest that failed for any seed. Dips are lower rates that failed all the same, as where a radio falls asleep between requests.",
		Columns: reports.Columns([]string{"placement"}, "capacity (req/s)", "rates tried", "dips")}
	for _, set := range reports.Sets(reports.Where(all, func(g *reports.Group) bool { _, ok := g.Cell.Figures["capacity_rps"]; return ok }), func(g *reports.Group) string { return title(g) }) {
		group := reports.RowGroup{Title: title(set[0])}
		most, best := math.Inf(-1), ""
		for _, g := range set {
			c := capacity(g)
			group.Rows = append(group.Rows, reports.Row{Values: []reports.Value{reports.Word(label(g)), capacityText(c), reports.Word(fmt.Sprintf("%.0f", g.Cell.Figures["capacity_probes"])), reports.Word(fmt.Sprintf("%.0f", g.Cell.Figures["capacity_dips"]))}})
			if c.V > most {
				most, best = c.V, label(g)+", "+capacityText(c).String()+" requests per second"
			}
		}
		t.Groups = append(t.Groups, group)
		if !(most > 0) {
			s.Lead = append(s.Lead, fmt.Sprintf("Capacity, %s: no placement keeps the limits at any rate, for half of the seeds or more.", title(set[0])))
			continue
		}
		s.Lead = append(s.Lead, fmt.Sprintf("Capacity, %s: most under the limits: %s.", title(set[0]), best))
	}
	if len(t.Groups) == 0 {
		return nil
	}
	s.Tables = []reports.Table{t}
	return s
}

// capacity is the median over the runs of a group with the widest of their bounds;
// the upper one is NaN where no rate failed.
func capacity(g *reports.Group) reports.Stat {
	var vs []float64
	lo, hi := math.Inf(1), math.Inf(-1)
	for i := range g.Cells {
		f := g.Cells[i].Figures
		v, ok := f["capacity_rps"]
		if !ok {
			continue
		}
		vs = append(vs, v)
		if l, ok := f["capacity_lo"]; ok {
			lo = min(lo, l)
		}
		if h, ok := f["capacity_hi"]; ok {
			hi = max(hi, h)
		} else {
			hi = math.NaN()
		}
	}
	c := reports.Median(vs)
	c.Lo, c.Hi = lo, hi
	if math.IsInf(lo, 1) {
		c.Lo = math.NaN()
	}
	return c
}

// capacityText is a capacity in words: a search that met no failing rate says so.
func capacityText(c reports.Stat) reports.Value {
	v := reports.Number(c)
	switch {
	case math.IsNaN(c.V):
	case c.V == 0:
		v.Text = "0"
	case math.IsNaN(c.Hi):
		v.Text = "at least " + v.Text
	}
	return v
}

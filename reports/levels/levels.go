// Package levels makes the tables that applications ask a run for: the share of
// requests inside each latency level, how steady the latencies are, and what a
// budget leaves of an answer on any edge device.
//
//	data, err := reports.Load(dir)
//	r := reports.Build(data, levels.Sections(data)...)
//
// The one idea: every number is a metric of package record, whose definition the
// list of metrics gives. Shares are over all requests, failures being misses; of
// repeats the median is shown.
//
// The package judges nothing: whether limits are met is for the report's answers.
package levels

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"meibench/hardware/floor"
	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/reports"
)

// unknown is an entry without a number.
func unknown() reports.Value { return reports.Value{Text: "–", Sort: math.NaN()} }

// value prints a number by a scale, with so many significant digits.
func value(v, scale float64, digits int) reports.Value {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return unknown()
	}
	return reports.Value{Text: number(v*scale, digits), Sort: v}
}

// whole prints a count; of several repeats it is their median.
func whole(v float64) reports.Value {
	if math.IsNaN(v) {
		return unknown()
	}
	return reports.Value{Text: strconv.FormatFloat(v, 'f', 0, 64), Sort: v}
}

// number prints significant digits, and never in powers of ten below a million.
func number(v float64, digits int) string {
	if v == 0 {
		return "0"
	}
	after := max(0, digits-1-int(math.Floor(math.Log10(math.Abs(v)))))
	return strconv.FormatFloat(v, 'f', min(after, 6), 64)
}

func word(s string) reports.Value { return reports.Value{Text: s, Sort: math.NaN()} }

func share(v float64) reports.Value {
	switch {
	case math.IsNaN(v):
		return unknown()
	case v == 0 || v == 1:
		return reports.Value{Text: strconv.Itoa(int(100 * v)), Sort: v}
	}
	text := strconv.FormatFloat(100*v, 'f', 1, 64)
	if text == "100.0" { // not all of them
		text = "99.9"
	}
	return reports.Value{Text: text, Sort: v}
}

// fill adds a row per group that has one, by application.
func fill(t *reports.Table, d *reports.Data, row func(*reports.Group) []reports.Value) {
	at := map[string]int{}
	invalid := false
	for _, g := range reports.Labels(d) {
		values := row(g.Group)
		if values == nil {
			continue
		}
		i, ok := at[g.Cell.App]
		if !ok {
			i = len(t.Groups)
			at[g.Cell.App] = i
			t.Groups = append(t.Groups, reports.RowGroup{Title: g.Cell.App})
		}
		r := reports.Row{Group: g.Group, Values: append([]reports.Value{word(g.Label), word(g.Cell.Mode)}, values...)}
		if slices.ContainsFunc(g.Cells, func(c record.Cell) bool { return !c.Valid }) {
			r.Flag, invalid = "!", true
		}
		t.Groups[i].Rows = append(t.Groups[i].Rows, r)
	}
	if invalid {
		t.Notes = append(t.Notes, "! INVALID: the first table says why.")
	}
}

// placement are the first two columns of every table.
func placement(rest ...reports.Column) []reports.Column {
	return append([]reports.Column{{Head: "placement", Left: true}, {Head: "mode", Left: true}}, rest...)
}

// Base is the latency whose levels mean something to a cell: the whole answer
// where the application limits it or limits nothing, else the first token.
func Base(c *record.Cell) string {
	if c.E2ELimit == 0 && c.TTFTLimit > 0 {
		return "ttft"
	}
	return "e2e"
}

// Levels is the table of the share of requests inside each latency level.
func Levels(d *reports.Data) reports.Table {
	t := reports.Table{Name: "levels", Title: "Share of requests inside each latency level",
		Caption: "Percent of all requests that ended well within the level, by the intended start; failures are misses. “to token” counts to the first token, where the application limits that and not the whole answer. Of repeats the median.",
		Columns: placement(reports.Column{Head: "counted", Left: true})}
	for _, level := range record.Levels() {
		t.Columns = append(t.Columns, reports.Column{Head: "≤ " + level.String(), Unit: "%"})
	}
	fill(&t, d, func(g *reports.Group) []reports.Value {
		if len(g.Values) == 0 {
			return nil
		}
		base := Base(&g.Cell)
		row := []reports.Value{word(map[string]string{"e2e": "to end", "ttft": "to token"}[base])}
		for _, level := range record.Levels() {
			row = append(row, share(g.Metric(record.LevelMetric(base, level))))
		}
		return row
	})
	return t
}

// Steadiness is the table of jitter, of misses that come in a row, and of nines.
func Steadiness(d *reports.Data) reports.Table {
	const ms = 1e3
	columns := []struct {
		head, unit, metric string
		scale              float64 // 0 = a count
	}{
		{"E2E std", "ms", "e2e_jitter", ms}, {"E2E p99-p50", "ms", "e2e_spread", ms},
		{"ITL std", "ms", "itl_jitter", ms}, {"ITL p99-p50", "ms", "itl_spread", ms},
		{"miss bursts", "", "miss_bursts", 0}, {"longest", "req", "miss_burst_longest", 0}, {"mean", "req", "miss_burst_mean", 1},
		{"one user's", "req", "user_miss_burst_longest", 0}, {"answered", "nines", "availability_nines", 1}, {"in limits", "nines", "reliability_nines", 1},
	}
	t := reports.Table{Name: "steadiness", Title: "Jitter, bursts of misses, nines",
		Caption: "Scatter of the whole latency and of the gaps between chunks; runs of consecutive requests, by intended start, that failed or missed a limit, over all users and the longest of any one user; -log10 of the share that failed, and of the share that failed or missed a limit. Without a failure in n requests, log10 n nines are all that can be shown.",
		Columns: placement()}
	for _, c := range columns {
		t.Columns = append(t.Columns, reports.Column{Head: c.head, Unit: c.unit})
	}
	fill(&t, d, func(g *reports.Group) (row []reports.Value) {
		if len(g.Values) == 0 {
			return nil
		}
		for _, c := range columns {
			if c.scale == 0 {
				row = append(row, whole(g.Metric(c.metric)))
				continue
			}
			row = append(row, value(g.Metric(c.metric), c.scale, 3))
		}
		return row
	})
	return t
}

// Budget is the table of what a latency budget leaves of an answer on any edge
// device, by the device profiles alone; its notes are the verdicts in words.
// Models are profile names. It needs no run.
func Budget(budget time.Duration, models []string) (reports.Table, error) {
	t := reports.Table{Name: "budget", Title: fmt.Sprintf("What %v leave of an answer", budget),
		Caption: "By the cost law of each device profile, for a prompt of one token, before any network, queue or heat: the time of the first token and of each further one, and the longest answer that plain decoding can finish in time. A robot's action has 7 tokens, a sentence 24.",
		Columns: []reports.Column{{Head: "device", Left: true}, {Head: "model", Left: true}, {Head: "first token", Unit: "ms"}, {Head: "each further", Unit: "ms"},
			{Head: "tokens in time"}, {Head: "7 tokens", Unit: "ms"}, {Head: "24 tokens", Unit: "ms"}, {Head: "known by", Left: true}}}
	for _, name := range models {
		fs, err := floor.Edge([]string{name}, 1)
		if err != nil {
			return t, err
		}
		m, err := profiles.Model(name)
		if err != nil {
			return t, err
		}
		group := reports.RowGroup{Title: m.Name}
		for _, f := range fs {
			if !f.Fits {
				continue
			}
			ms := func(d time.Duration) reports.Value { return value(d.Seconds(), 1e3, 3) }
			n := f.Tokens(budget)
			group.Rows = append(group.Rows, reports.Row{Values: []reports.Value{word(f.Device), word(f.Model), ms(f.First), ms(f.Next),
				{Text: strconv.Itoa(n), Sort: float64(n)}, ms(f.Answer(7)), ms(f.Answer(24)), word(f.Tier)}})
		}
		t.Groups = append(t.Groups, group)
		t.Notes = append(t.Notes, floor.Judge(fs, budget, 7).Sentence())
	}
	return t, nil
}

// budgetModels stand for the smallest that field suites run and the smallest there is.
var budgetModels = []string{"llama-3.2-1b:q4_0", "smollm2-135m:q4_0"}

// Sections are the tables of a run as a part of its page, folded, with what the
// tightest level leaves of an answer on the devices of the profiles.
func Sections(d *reports.Data) []reports.Section { return SectionsAt(d, World()) }

// SectionsAt is Sections for the electricity of a grid.
func SectionsAt(d *reports.Data, grid Grid) []reports.Section {
	budget, err := Budget(record.Levels()[0], budgetModels)
	if err != nil {
		panic("levels: " + err.Error()) // the profiles are part of the program
	}
	return []reports.Section{{Name: "levels", Title: "Latency levels, steadiness and cost", Tables: []reports.Table{Levels(d), Steadiness(d), Heat(d), Cost(d, grid), budget}, Folded: true}}
}

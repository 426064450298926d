package inference

import (
	"sort"
	"time"

	"meibench/hardware/floor"
	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/reports"
)

// What the honest sentence about small budgets is computed for: the shortest answer
// of any application, by models that are of use, behind the shortest prompt.
const (
	floorBudget = 10 * time.Millisecond
	floorAnswer = 7 // tokens: a robot's action
	floorLeast  = 1_000_000_000
	floorFormat = ":q4_0"
)

// levels is the share of requests inside each latency level that applications of the
// field ask for, and what the profiles say of the smallest.
func levels(d *reports.Data, chosen []*reports.Group) *reports.Section {
	var heads []string
	for _, l := range record.Levels() {
		heads = append(heads, l.String())
	}
	t := reports.Table{Name: "levels", Title: "Requests inside each latency level",
		Caption: "Share of all requests that ended well within so long of their intended start, from end to end; failures are outside every level. By the most trusted mode of each setting.",
		Columns: reports.Columns([]string{"placement"}, heads...)}
	for _, set := range reports.Sets(chosen, settingOf) {
		group := reports.RowGroup{Title: title(set[0])}
		for _, g := range set {
			if g.N == 0 {
				continue
			}
			values := []reports.Value{reports.Word(label(g))}
			for _, l := range record.Levels() {
				s := inside(g, l)
				v := reports.Percent(reports.Bare(s))
				values = append(values, v)
			}
			group.Rows = append(group.Rows, row(g, values...))
		}
		t.Groups = append(t.Groups, group)
	}
	if len(t.Groups) == 0 {
		return nil
	}
	t.Notes = []string{overloadNote}
	s := &reports.Section{Name: "levels", Title: "Latency levels, 10 ms to 2 s", Tables: []reports.Table{t}, Folded: true}
	if sentence := honest(); sentence != "" {
		s.Lead = []string{"Levels: " + sentence}
	}
	return s
}

// inside is the share of a group's requests that ended well within a time.
func inside(g *reports.Group, level time.Duration) float64 {
	most := level.Seconds()
	return float64(sort.Search(len(g.E2E), func(i int) bool { return g.E2E[i] > most })) / float64(g.N)
}

// honest says what a budget of 10 ms leaves of an answer, by the profiles alone; ""
// where they cannot be read.
func honest() string {
	var names []string
	for _, n := range profiles.Models() {
		m, err := profiles.Model(n + floorFormat)
		if err != nil {
			return ""
		}
		if m.Params(m.All()) >= floorLeast {
			names = append(names, n+floorFormat)
		}
	}
	fs, err := floor.Edge(names, 1)
	if err != nil {
		return ""
	}
	return floor.Judge(fs, floorBudget, floorAnswer).Sentence()
}

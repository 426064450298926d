package compare

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"meibench/harness/stats"
	"meibench/internal/canon"
)

// Need is how many runs of a cell show a given difference of a metric.
type Need struct {
	Cell    string   `json:"cell"`
	Metric  string   `json:"metric"`
	Spread  *float64 `json:"spread"` // standard deviation of the logarithms over runs; null of fewer than two
	Have    int      `json:"have"`   // runs
	Repeats int      `json:"repeats"`
	Minutes *float64 `json:"minutes"` // of both sides together, by the wall time of the runs; null where it is unknown
	Note    string   `json:"note,omitempty"`
}

// Question is what a plan of repeats is asked.
type Question struct {
	Change float64 // relative, such as 0.03
	Power  float64 // probability to see it; 0 = 0.8
	Alpha  float64 // 0 = 0.05
	Tests  int     // comparisons that will be read together; 0 = 1
}

func (q Question) orDefault() Question {
	return Question{q.Change, cmp.Or(q.Power, 0.8), cmp.Or(q.Alpha, 0.05), max(1, q.Tests)}
}

// Repeats is how many runs a side show the change where the runs of a metric
// have a spread.
func (q Question) Repeats(spread float64) int {
	q = q.orDefault()
	return stats.Plan(q.Change, spread, q.Alpha/float64(q.Tests), q.Power)
}

// Needs answers the question for every cell and metric of a side.
func Needs(s *Side, metrics []string, q Question) (out []Need) {
	for _, name := range s.order {
		c := s.cells[name]
		for _, unit := range units(c, c, Options{Metrics: metrics}) {
			m := c.metrics[unit]
			if n := need(c, m, q); n != nil {
				n.Cell, n.Metric = name, metricName(unit)
				out = append(out, *n)
			}
		}
	}
	return out
}

func need(c *cell, m *series, q Question) *Need {
	xs := m.values()
	n := &Need{Have: len(xs)}
	switch {
	case len(xs) == 0:
		return nil
	case m.exact:
		n.Repeats, n.Note = 1, "exact: any difference shows at once"
		return n
	case !positive(xs):
		n.Note = "there are zeros: no ratio"
		return n
	case len(xs) < 2:
		n.Note = "one run tells nothing of the spread: repeat it at least 4 times"
		return n
	}
	spread := stats.Spread(xs)
	n.Spread, n.Repeats = &spread, q.Repeats(spread)
	if len(xs) < 6 {
		n.Note = "the spread is that of a few runs: a rough idea"
	}
	if c.wall > 0 && c.runs > 0 && n.Repeats < math.MaxInt32 {
		minutes := 2 * float64(n.Repeats) * (c.wall / time.Duration(c.runs)).Minutes()
		n.Minutes = &minutes
	}
	return n
}

// WriteNeeds writes a plan of repeats for a terminal, and what the cell that needs
// most runs asks of all.
func WriteNeeds(out io.Writer, needs []Need, q Question) error {
	q = q.orDefault()
	var b strings.Builder
	fmt.Fprintf(&b, "to show a change of %.3g %% with a power of %.3g at p <= %.3g", 100*q.Change, q.Power, q.Alpha)
	if q.Tests > 1 {
		fmt.Fprintf(&b, " among %d tests", q.Tests)
	}
	b.WriteString(", runs of each cell a side:\n")
	rows := [][]string{{"", "spread", "have", "need", "minutes", "remark"}}
	heads := map[int]string{}
	last, most, minutes := "", 0, map[string]float64{}
	for _, n := range needs {
		if n.Cell != last {
			heads[len(rows)], last = n.Cell, n.Cell
		}
		row := []string{n.Metric, "–", fmt.Sprint(n.Have), "–", "–", n.Note}
		if n.Spread != nil {
			row[1] = fmt.Sprintf("%.2g %%", 100**n.Spread)
		}
		if n.Repeats > 0 {
			row[3] = fmt.Sprint(n.Repeats)
			most = max(most, n.Repeats)
		}
		if n.Minutes != nil {
			row[4] = fmt.Sprintf("%.2g", *n.Minutes)
			minutes[n.Cell] = max(minutes[n.Cell], *n.Minutes)
		}
		rows = append(rows, row)
	}
	write(&b, rows, heads)
	total := 0.0
	for _, m := range minutes {
		total += m
	}
	fmt.Fprintf(&b, "for all of them: --repeat %d", most)
	if total > 0 {
		fmt.Fprintf(&b, ", about %.2g minutes for both sides if each cell has its own number", total)
	}
	b.WriteString("\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// NeedsJSON writes a plan of repeats as canonical JSON.
func NeedsJSON(out io.Writer, needs []Need) error {
	b, err := canon.JSON(needs)
	if err != nil {
		return err
	}
	_, err = out.Write(append(b, '\n'))
	return err
}

package board

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/bundle"
)

// tuned is a cell of training that came to its target after so many seconds.
func tuned(rule string, took, half, right float64, change ...func(*bundle.Claim)) bundle.Claim {
	return claim(rule, 10, 1, append([]func(*bundle.Claim){func(c *bundle.Claim) {
		c.Params = map[string]any{"optimizer": "adamw", "rule": rule, "target": 0.35, "data": "healthcare-ward", "score": 60.0}
		c.Metrics = map[string]bundle.Metric{"e2e_p50": metric(took/9, half), "target_time": metric(took, half), "score_final": metric(right, 0.01)}
	}}, change...)...)
}

func TestTrainingIsRankedByTheTimeToItsTarget(t *testing.T) {
	missed := func(c *bundle.Claim) {
		m := c.Metrics["target_time"]
		m.N = 4
		c.Metrics["target_time"] = m
	}
	never := func(c *bundle.Claim) { delete(c.Metrics, "target_time") }
	spared := func(c *bundle.Claim) { c.Params["attack"], c.Params["bad"] = "none", 0.0 }
	easy := func(c *bundle.Claim) { c.Params["target"] = 0.1 }
	s := Build(Input{Name: "B", Contracts: contracts(), Entries: []Entry{entryOf("x", "ann", claim("local", 500, 1), tuned("slow", 20, 1, 0.9), tuned("quick", 5, 1, 0.4), tuned("close", 6, 1, 0.5, spared),
		tuned("luck", 1, 0.1, 0.5, missed), tuned("lost", 2, 0.1, 0.2, never), tuned("low", 1, 0.1, 0.2, easy))}})
	require.Len(t, s.categories, 1)
	tables := s.categories[0].tables
	require.Len(t, tables, 3, "who serves, and two targets")
	require.Equal(t, []string{"local 1"}, ranks(s))
	var list []string
	for _, r := range tables[2].rows {
		list = append(list, r.claim.Pipeline+" "+r.view(columnsOf(tables[2].rows)).Rank+" "+r.why)
	}
	require.Equal(t, []string{"quick 1 = ", "close 1 = ", "slow 3 ", "luck – its target was reached in 4 of 6 runs", "lost – its target was reached in 0 of 6 runs"}, list)
	require.Equal(t, "low", tables[1].rows[0].claim.Pipeline)

	dir := t.TempDir()
	require.NoError(t, s.Write(dir))
	page := read(t, dir, s.categories[0].page())
	require.Equal(t, 2, strings.Count(page, `<th scope="col">time to target</th>`), "of the two tables that train")
	require.Equal(t, 1, strings.Count(page, `<th scope="col">TTFT p50</th>`))
	require.Contains(t, page, "data healthcare-ward, score 60, target 0.35")
	require.Contains(t, page, "MLPerf Training")
	require.Contains(t, read(t, dir, "board.csv"), "target_time,sec,5,4,6,6")
	require.Contains(t, read(t, dir, s.entries[0].page()), `<th scope="col">right at the end</th>`)
	require.Contains(t, read(t, dir, "diff.html"), `["target_time","sec"]`)
}

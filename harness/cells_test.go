package harness

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
)

const cellsSuite = `
name: cells
question: do sessions follow their users?
defaults: {site: cyclists-4-cells, model: "llama-3.2-1b:f16", app: assistant, pipeline: follow, scale: field, scenario: multi-turn, users: 20, rate: 2, requests: 60, day: true}
matrix:
  cache: [stay, move, auto]
  mode: [modelled]
`

// TestX3CitySites: users of a site with cells change nodes while they are served, rows say so, the bytes of a run do not
// depend on how many cells run at once, and the day curve is part of the contract.
func TestX3CitySites(t *testing.T) {
	rows := func(jobs int) (string, []byte) {
		dir := t.TempDir()
		o := options(t, dir, parse(t, cellsSuite))
		o.Jobs = jobs
		require.NoError(t, Run(context.Background(), &Lab{}, o))
		b, err := os.ReadFile(filepath.Join(dir, "requests.arrow"))
		require.NoError(t, err)
		return dir, b
	}
	dir, one := rows(1)
	_, two := rows(2)
	require.Equal(t, one, two)
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	for i, run := range set.Runs() {
		var moves, bytes int64
		places := map[int64]bool{}
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			require.Equal(t, record.OK, r.Outcome, r.Err)
			moves += r.Counts[record.Handovers]
			bytes += r.Counts[record.BackhaulBytes]
			places[r.Counts[record.Place]] = true
		}
		require.Positive(t, moves, run.Cell.Name)
		require.Positive(t, bytes, run.Cell.Name)
		require.Greater(t, len(places), 2, run.Cell.Name)
		require.False(t, places[0])
		require.Positive(t, run.Cell.Figures["interruption"])
		require.LessOrEqual(t, run.Cell.Figures["fairness"], 1.0)
	}
	suite := parse(t, cellsSuite)
	day, err := (&Lab{}).resolve(suite.Cells[0], false)
	require.NoError(t, err)
	c := suite.Cells[0]
	c.Day = false
	night, err := (&Lab{}).resolve(c, false)
	require.NoError(t, err)
	require.NotEqual(t, day.hash, night.hash)
	c.Mode = "emulated"
	_, err = (&Lab{}).resolve(c, false)
	require.ErrorContains(t, err, "has cells: mode modelled only")
}

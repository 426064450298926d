package harness

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/results"
)

// What an arm promises is what a run of it leaves, and running it again leaves
// the same rows.
func TestReplayLeavesTheSameRows(t *testing.T) {
	first, again := t.TempDir(), t.TempDir()
	o := options(t, first, parse(t, fieldSuite))
	o.Repeats = 2
	require.NoError(t, Run(context.Background(), &Lab{}, o))
	lab := &Lab{}
	arms, err := lab.Arms(o)
	require.NoError(t, err)
	require.Len(t, arms, 12)
	slices.Reverse(arms) // the order of runs does not matter
	require.NoError(t, lab.Replay(context.Background(), again, arms, silent{}))
	for _, f := range []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile} {
		require.Equal(t, read(t, first, f), read(t, again, f), f)
	}
	set, err := results.Read(first)
	require.NoError(t, err)
	defer set.Close()
	for i, run := range set.Runs() {
		a := arms[slices.IndexFunc(arms, func(a Arm) bool { return a.Seed == run.Cell.Seed && a.Cell.Name == run.Cell.Name })]
		require.Equal(t, RepeatSeed(a.Cell.Seed, a.Repeat), a.Seed)
		terms, err := lab.Terms(a)
		require.NoError(t, err)
		require.Equal(t, run.Cell.Contract, terms.Header.Contract)
		require.Equal(t, run.Cell.Params, terms.Header.Params)
		require.Equal(t, run.Rows, terms.Planned)
		require.False(t, terms.Closed())
		want := slices.Collect(terms.Schedule())
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			require.Equal(t, want[r.ID].ArriveAt, r.Intended)
			require.Equal(t, want[r.ID].PromptTokens, r.PromptTokens)
		}
	}
	arms[0].Cell.Site = "nowhere"
	_, err = lab.Terms(arms[0])
	require.ErrorContains(t, err, "nowhere")
}

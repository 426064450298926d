package results

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
)

func finished(t *testing.T) *Set {
	dir := t.TempDir()
	run, err := Create(dir, Manifest{Command: []string{"test"}, Expected: 4})
	require.NoError(t, err)
	play(t, run, 2, 2, 30)
	require.NoError(t, run.Finish())
	set, err := Read(dir)
	require.NoError(t, err)
	t.Cleanup(func() { set.Close() })
	return set
}

func TestAuditOfWhatWeWrite(t *testing.T) {
	faults, err := finished(t).Audit()
	require.NoError(t, err)
	require.Empty(t, faults)
}

// Rows that say of themselves that they are of another run, runs whose rows
// leave a gap, and counts that do not fit.
func TestAuditFindsRowsOfNobody(t *testing.T) {
	for _, tc := range []struct {
		name, file, text string
		spoil            func(*Set)
	}{
		{"seed", RequestsFile, "says seed 1 repeat 1", func(s *Set) { s.runs[1].Cell.Seed = 7 }},
		{"model", RequestsFile, `column model says "m", the run is "n"`, func(s *Set) { s.runs[2].Cell.Model = "n" }},
		{"horizon", CellsFile, "column horizon_ns says 1000000000, cell_json 5", func(s *Set) { s.runs[0].Cell.Horizon = 5 }},
		{"valid", CellsFile, "column valid says 1, cell_json 0", func(s *Set) { s.runs[0].Cell.Valid = false }},
		{"figures", CellsFile, "column cell_json says", func(s *Set) { s.runs[0].Cell.Figures = map[string]float64{"airtime": 1} }},
		{"gap", CellsFile, "its rows begin at 30", func(s *Set) { s.runs[0].at.Rows-- }},
		{"end", CellsFile, "its runs have 119 requests", func(s *Set) { s.runs[3].at.Rows-- }},
		{"count", ManifestFile, "says 5 runs of cells", func(s *Set) { s.Manifest.Blocks = 5 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set := finished(t)
			tc.spoil(set)
			faults, err := set.Audit()
			require.NoError(t, err)
			require.True(t, slices.ContainsFunc(faults, func(f Fault) bool {
				return f.File == tc.file && !f.Schema && containsText(f.Text, tc.text)
			}), "%v", faults)
		})
	}
}

func containsText(s, part string) bool { return len(s) >= len(part) && s[:len(part)] == part }

// Columns that are not those of the format, one at a time.
func TestAuditFindsForeignColumns(t *testing.T) {
	set := finished(t)
	names := []string{"run", "id", "kind", "node", "start_ns", "end_ns"}
	columnOf := func(name string) column {
		switch name {
		case "run":
			return newNums[int32](head{name: "run"})
		case "kind":
			return newWords(head{name: "kind"}, kindNames())
		case "node":
			return newWords(head{name: "node"}, []string{"edge"})
		case "id":
			return newNums[int64](head{name: "id"})
		}
		return newNums[int64](head{name: name, unit: "ns"})
	}
	for _, tc := range []struct {
		name, want string
		change     func(cols []column) []column
	}{
		{"none", "", func(cols []column) []column { return cols }},
		{"missing", `column "end_ns" is missing`, func(c []column) []column { return c[:5] }},
		{"more", `column "x" is not one`, func(c []column) []column { return append(c, newNums[int64](head{name: "x"})) }},
		{"order", `column "id" stands where "run" belongs`, func(c []column) []column { c[0], c[1] = c[1], c[0]; return c }},
		{"type", `column "id": type int32`, func(c []column) []column { c[1] = newNums[int32](head{name: "id"}); return c }},
		{"nullable", `column "start_ns": nullable`, func(c []column) []column { c[4] = newNums[int64](nullable("start_ns", "ns")); return c }},
		{"unit", `column "end_ns": metadata`, func(c []column) []column { c[5] = newNums[int64](head{name: "end_ns", unit: "ms"}); return c }},
		{"words", `column "kind": its words`, func(c []column) []column {
			w := slices.Clone(kindNames())
			w[0], w[1] = w[1], w[0]
			c[2] = newWords(head{name: "kind"}, w)
			return c
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			list := make([]column, 0, len(names))
			for _, n := range names {
				list = append(list, columnOf(n))
			}
			path := filepath.Join(t.TempDir(), SpansFile)
			f, err := os.Create(path)
			require.NoError(t, err)
			tab, err := newTable(f, SpansFormat, tc.change(list))
			require.NoError(t, err)
			require.NoError(t, tab.close())
			r, err := newReader(f, SpansFormat)
			require.NoError(t, err)
			set.spans = r
			faults, err := set.Audit()
			require.NoError(t, err)
			if tc.want == "" {
				require.False(t, slices.ContainsFunc(faults, func(f Fault) bool { return f.Schema }), "%v", faults)
				return
			}
			require.Len(t, faults, 1)
			require.True(t, faults[0].Schema && containsText(faults[0].Text, tc.want), "%v", faults)
		})
	}
}

// A folder that was written before a metric was thought of is read all the same: the metric is not known there, and nothing else is missing.
func TestOlderFoldersAreRead(t *testing.T) {
	set := finished(t)
	var blocks []*block
	for i := range set.runs {
		blocks = append(blocks, &block{cell: set.runs[i].Cell})
	}
	const young = 3 // place of the metric that was not there
	metrics := runMetrics()
	f, err := os.Create(filepath.Join(t.TempDir(), CellsFile))
	require.NoError(t, err)
	defer f.Close()
	older, err := newCells(f, blocks, append(append([]record.Metric{}, metrics[:young]...), metrics[young+1:]...))
	require.NoError(t, err)
	for i := range set.runs {
		run := &set.runs[i]
		require.NoError(t, older.put(&run.Cell, run.at, append(append([]record.Value{}, run.Values[:young]...), run.Values[young+1:]...)))
	}
	require.NoError(t, older.close())
	r, err := newReader(f, CellsFormat)
	require.NoError(t, err)
	runs, err := readCells(r)
	require.NoError(t, err)
	require.Len(t, runs, len(set.runs))
	for i := range runs {
		require.Equal(t, []string{metrics[young].Name}, runs[i].younger)
		for k, v := range runs[i].Values {
			require.Equal(t, metrics[k].Name, v.Metric.Name)
			if k == young {
				require.True(t, math.IsNaN(v.V))
			} else if want := set.runs[i].Values[k].V; !math.IsNaN(want) {
				require.Equal(t, want, v.V, v.Metric.Name)
			}
		}
	}
}

package predict

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// catalogue is the embedded evidence.
func catalogue(t testing.TB) ([]Row, *Catalogue) {
	rows, specs, err := Published()
	require.NoError(t, err)
	return rows, NewCatalogue(specs)
}

// TestRecipeDropsRowsForItsReasons counts the rows by the reason that the
// recipe of the baseline gives, in its order.
func TestRecipeDropsRowsForItsReasons(t *testing.T) {
	rows, c := catalogue(t)
	require.Len(t, rows, 1356)
	why := map[string]int{}
	for i := range rows {
		why[odd(&rows[i], c.Find(rows[i].Device))]++
	}
	require.Equal(t, map[string]int{
		"": 718, "batch": 429, "does not fit": 9, "mixed devices": 3, "no bandwidth": 5, "no bytes per weight": 3,
		"no decode speed": 7, "per-layer embeddings": 24, "several devices": 142, "sparse": 7, "sustained": 9,
	}, why)
	require.Len(t, baselineRows(rows, c), 514)
}

// TestBaselinesOfThePublicRecipe pins the simple models on the embedded rows
// (median / 90 % point of the absolute percentage error).
func TestBaselinesOfThePublicRecipe(t *testing.T) {
	rows, c := catalogue(t)
	have := ""
	for _, b := range Baselines(rows, c) {
		have += fmt.Sprintf("%s %d %.1f/%.1f\n", b.Name, b.N, b.Median, b.P90)
	}
	require.Equal(t, `C2 338 13.5/47.2
M0 514 92.7/407.9
M1 LODO 514 29.8/163.7
M1 LOO 514 29.3/163.7
M2 LODO 514 30.5/138.6
M2 LOO 514 26.6/132.1
M3 LODO 499 23.9/88.0
M3 LOO 514 20.5/102.6
M7 LODO 471 22.8/108.3
M7 LOO 506 14.6/86.4
M9 LOO 372 9.7/46.4
`, have)
}

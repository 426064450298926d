package eval

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/models"
	"meibench/workloads/tasks"
)

// What travels unrounded is read nearly whole; the coarse codec hides some of it,
// and nobody can read what is not there: a codec that sends little tells less.
func TestI4LeakFallsWithTheCodec(t *testing.T) {
	m, err := models.Open("mei-nano")
	require.NoError(t, err)
	task, err := tasks.Lookup("assistant")
	require.NoError(t, err)
	share := map[string]float64{}
	for _, wire := range []string{"f32", "topk"} {
		l, err := LeakSetup{Model: m, Task: task, Cut: 2, Wire: wire}.Measure(t.Context())
		require.NoError(t, err)
		require.Greater(t, l.N, 100)
		share[wire] = l.Share()
		t.Logf("%s %d of %d", wire, l.Hits, l.N)
	}
	require.Greater(t, share["f32"], 0.9)
	require.Less(t, share["topk"], share["f32"])
	_, err = LeakSetup{Model: m, Task: task, Cut: 2, Wire: "morse"}.Measure(t.Context())
	require.ErrorContains(t, err, "morse")
	_, err = LeakSetup{Model: m, Task: task, Cut: 99, Wire: "f32"}.Measure(t.Context())
	require.ErrorContains(t, err, "99")
}

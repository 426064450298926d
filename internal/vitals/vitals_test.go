package vitals

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Of 200 pauses two (1 %) may lie above the 99th percentile: it is in the bucket
// from 2 ms.
func TestPauseQuantile(t *testing.T) {
	before := &metrics.Float64Histogram{Counts: []uint64{5, 0, 0, 1}, Buckets: []float64{0, 1e-3, 2e-3, 4e-3, 8e-3}}
	after := &metrics.Float64Histogram{Counts: []uint64{195, 0, 8, 3}, Buckets: before.Buckets}
	require.Equal(t, 2*time.Millisecond, pauseP99(before, after))
	require.Zero(t, pauseP99(before, before), "no pauses")
	require.Zero(t, pauseP99(nil, after), "unknown")
}

func TestWatchSeesTheRun(t *testing.T) {
	w := Watch()
	spin := time.Now()
	for time.Since(spin) < 20*time.Millisecond {
	}
	runtime.GC()
	took := w.Until()
	require.GreaterOrEqual(t, took.Mono, 20*time.Millisecond)
	require.InDelta(t, took.Mono.Seconds(), took.Wall.Seconds(), 0.01)
	if runtime.GOOS == "linux" {
		require.Positive(t, took.CPU)
		require.LessOrEqual(t, took.StealShare, 1.0)
	}
}

package harness

import (
	"os"
	"runtime/metrics"
	"time"

	"meibench/harness/record"
	"meibench/internal/preflight"
)

// watch observes what a run takes from its host and what the host takes from it.
type watch struct {
	began  time.Time // with a monotonic reading
	wall   int64     // wall clock, ns since 1970
	cpu    time.Duration
	pauses *metrics.Float64Histogram
	ticks  preflight.Ticks
}

func observe() watch {
	now := time.Now()
	return watch{began: now, wall: now.UnixNano(), cpu: cpuTime(), pauses: pauses(), ticks: preflight.ReadTicks(os.DirFS("/"))}
}

// finish fills in the facts that Judge reads.
func (w watch) finish(f *record.Facts) (took, cpu time.Duration) {
	now := time.Now()
	f.MonoTook = now.Sub(w.began)
	f.WallTook = time.Duration(now.UnixNano() - w.wall)
	f.PauseP99 = pauseP99(w.pauses, pauses())
	if t := preflight.ReadTicks(os.DirFS("/")); t.Known && w.ticks.Known {
		f.StealShare, _ = t.Since(w.ticks)
		f.StealKnown = true
	}
	return f.MonoTook, cpuTime() - w.cpu
}

func pauses() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindFloat64Histogram {
		return nil
	}
	return s[0].Value.Float64Histogram()
}

// pauseP99 is the upper edge of the bucket that holds the 99th percentile of
// the pauses between two readings.
func pauseP99(before, after *metrics.Float64Histogram) time.Duration {
	if before == nil || after == nil {
		return 0
	}
	total := uint64(0)
	for i := range after.Counts {
		total += after.Counts[i] - before.Counts[i]
	}
	if total == 0 {
		return 0
	}
	left := total / 100 // how many may lie above
	for i := len(after.Counts) - 1; i >= 0; i-- {
		n := after.Counts[i] - before.Counts[i]
		if n > left {
			return time.Duration(after.Buckets[i] * 1e9) // lower edge: never overstates
		}
		left -= n
	}
	return 0
}

// Package vitals observes what a stretch of a run takes from its host, and what
// the host takes from it: CPU time, pauses of the garbage collector, time stolen
// by other guests, and whether the clocks agree.
//
//	w := vitals.Watch()
//	... the run ...
//	took := w.Until()
//
// It judges nothing; budgets are in package record.
package vitals

import (
	"os"
	"runtime/metrics"
	"time"

	"meibench/internal/preflight"
)

// Since is the moment from which is observed.
type Since struct {
	began  time.Time // with a monotonic reading
	wall   int64     // wall clock, ns since 1970
	cpu    time.Duration
	pauses *metrics.Float64Histogram
	ticks  preflight.Ticks
}

// Taken is what was seen since then.
type Taken struct {
	Mono, Wall time.Duration // by the monotonic and by the wall clock
	CPU        time.Duration // of this process, user and system; 0 where that is not known
	PauseP99   time.Duration // of the pauses of the garbage collector
	StealShare float64       // share of the host's CPU time that went to other guests, when StealKnown
	StealKnown bool
}

// Watch begins.
func Watch() Since {
	now := time.Now()
	return Since{began: now, wall: now.UnixNano(), cpu: cpuTime(), pauses: pauses(), ticks: preflight.ReadTicks(os.DirFS("/"))}
}

// Until is what was seen until now. It may be called again.
func (w Since) Until() (t Taken) {
	now := time.Now()
	t.Mono, t.Wall, t.CPU = now.Sub(w.began), time.Duration(now.UnixNano()-w.wall), cpuTime()-w.cpu
	t.PauseP99 = pauseP99(w.pauses, pauses())
	if ticks := preflight.ReadTicks(os.DirFS("/")); ticks.Known && w.ticks.Known {
		t.StealShare, _ = ticks.Since(w.ticks)
		t.StealKnown = true
	}
	return t
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

package harness

import (
	"bufio"
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"meibench/harness/record"
)

// watch observes what a run takes from its host and what the host takes from it.
type watch struct {
	began  time.Time // with a monotonic reading
	wall   int64     // wall clock, ns since 1970
	cpu    time.Duration
	pauses *metrics.Float64Histogram
	steal  stealTicks
}

func observe() watch {
	now := time.Now()
	return watch{began: now, wall: now.UnixNano(), cpu: cpuTime(), pauses: pauses(), steal: readSteal("/proc/stat")}
}

// finish fills in the facts that Judge reads.
func (w watch) finish(f *record.Facts) (took, cpu time.Duration) {
	now := time.Now()
	f.MonoTook = now.Sub(w.began)
	f.WallTook = time.Duration(now.UnixNano() - w.wall)
	f.PauseP99 = pauseP99(w.pauses, pauses())
	if s := readSteal("/proc/stat"); s.known && w.steal.known && s.all > w.steal.all {
		f.StealKnown = true
		f.StealShare = float64(s.steal-w.steal.steal) / float64(s.all-w.steal.all)
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

// stealTicks are the clock ticks that other guests took, of all.
type stealTicks struct {
	steal, all uint64
	known      bool
}

// readSteal reads the first line of /proc/stat: user nice system idle iowait
// irq softirq steal (proc(5)).
func readSteal(path string) (s stealTicks) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s
	}
	line, _ := bufio.NewReader(bytes.NewReader(b)).ReadString('\n')
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return s
	}
	for i, text := range f[1:9] {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return stealTicks{}
		}
		s.all += n
		if i == 7 {
			s.steal = n
		}
	}
	s.known = true
	return s
}

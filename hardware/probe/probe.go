// Package probe finds out what this machine can do: the limits of its memory,
// arithmetic, network stack and clock; how close the reference kernels come to
// them; and what operations on a model cost here.
//
// The one idea: a profile of the machine at hand is a profile like any other.
// HostSheet puts what was measured into a profiles.DeviceSheet named "host",
// number by number with its source, so that the modelled mode predicts this
// machine by the same law and the same file format as a phone from a data
// sheet, and the measured mode next to it says whether the law is right.
//
//	limits, err := probe.Measure(ctx, probe.Options{Quick: true})
//	fit, evidence, err := probe.FitModel(ctx, loaded, probe.Plan{Threads: 2, Budget: 2 * time.Second})
//	sheet := probe.HostSheet(limits, fit)
//
// Limits come from loops in assembly (amd64) that do nothing but read, or
// multiply and add; each returns what it computed, so that tests know it did
// the work it is timed for. Elsewhere, and with the build tag purego, portable
// Go takes their place and says so: its figures are lower bounds.
//
// Trials are short and many, and one in which the process lost a processor does
// not count (where the system tells). Load from outside can only slow a trial
// down, so a limit is the best trial; a latency is the median. What cannot be
// measured is null with the reason, never zero.
//
// What it does not do: change the machine (no governor, no affinity, no
// privileges), or probe accelerators.
package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meibench/reference/tensor"
)

// Names of figures in Limits.
const (
	DRAMRead     = "dram_read"     // B/s, four streams per thread
	DRAMTriad    = "dram_triad"    // B/s of a = b + k·c, write-allocate not counted
	CacheRead    = "cache_read"    // B/s; Detail names the level
	PeakF32      = "peak_f32"      // FLOP/s of float32 multiply-adds
	PeakInt8     = "peak_int8"     // OP/s of int8 dot products
	LoopbackTrip = "loopback_trip" // s, one way: half the median round trip
	LoopbackRate = "loopback_rate" // B/s over one TCP connection
	SleepLate    = "sleep_late"    // s a 1 ms time.Sleep comes back too late
	PaceLate     = "pace_late"     // s that world.Real's sleep-and-spin comes back too late
	StorageRead  = "storage_read"  // B/s of a file that is not in the page cache
	PowerIdle    = "power_idle"    // W of all packages by RAPL
	PowerBusy    = "power_busy"    // W of all packages by RAPL, all threads multiplying
)

// Figure is one measured number. A limit's value is its best trial and its
// interval runs from the median trial to the best, so a wide one tells of a
// disturbed machine. A latency's value is the median and its interval the 95 %
// confidence interval of that median.
type Figure struct {
	Name      string
	Detail    string  // cache level or instruction set, "" if there is only one
	Threads   int     // 0 where threads play no part
	Value     float64 // in Unit; NaN if it could not be measured
	Unit      string  // SI base unit
	Method    string  // how it was measured, or why it could not be
	N         int     // trials that nothing interrupted
	Low, High float64 // interval, in Unit; NaN without trials
}

// MarshalJSON writes the figure with null for what is unknown.
func (f Figure) MarshalJSON() ([]byte, error) {
	known := func(x float64) *float64 {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil
		}
		return &x
	}
	return json.Marshal(struct {
		Name     string      `json:"name"`
		Detail   string      `json:"detail,omitempty"`
		Threads  int         `json:"threads,omitempty"`
		Value    *float64    `json:"value"`
		Unit     string      `json:"unit"`
		Method   string      `json:"method"`
		N        int         `json:"n"`
		Interval [2]*float64 `json:"interval"`
	}{f.Name, f.Detail, f.Threads, known(f.Value), f.Unit, f.Method, f.N, [2]*float64{known(f.Low), known(f.High)}})
}

// Limits is what a machine can do.
type Limits struct {
	Machine Machine       `json:"machine"`
	Tier    string        `json:"tier"` // kernels of package tensor that run here
	When    time.Time     `json:"when"`
	Quick   bool          `json:"quick"`
	Took    time.Duration `json:"took_ns"`
	Figures []Figure      `json:"figures"`

	// Warnings doubt the figures: what disturbed the machine, and by how much.
	Warnings []string `json:"warnings"`
}

// Best is the largest figure of a name at a number of threads (0 = any).
func (l *Limits) Best(name string, threads int) (best Figure, ok bool) {
	for _, f := range l.Figures {
		if f.Name == name && (threads == 0 || f.Threads == threads) && !math.IsNaN(f.Value) && (!ok || f.Value > best.Value) {
			best, ok = f, true
		}
	}
	return best, ok
}

// Options say how to measure. The zero value measures everything thoroughly.
type Options struct {
	Quick    bool              // short trials: 3 s instead of 30 s
	Threads  int               // most threads at a time; 0 = GOMAXPROCS
	System   fs.FS             // the system's files; nil = those of this machine
	Progress func(what string) // called before each measurement; may be nil
}

// Measure finds the machine's limits. It returns early if ctx ends.
func Measure(ctx context.Context, o Options) (*Limits, error) {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	if o.System == nil {
		o.System = os.DirFS("/")
	}
	// A trial is shorter than a scheduler's time slice, so that among many some
	// go undisturbed on a machine that others use too.
	p := &prober{ctx: ctx, o: o, trials: 101, target: 2 * time.Millisecond}
	if o.Quick {
		p.trials, p.target = 21, 500*time.Microsecond
	}
	began := time.Now()
	p.machine = ReadMachine(o.System)
	for _, step := range []struct {
		what string
		do   func(*prober)
	}{
		{"arithmetic", (*prober).compute},
		{"memory", (*prober).memory},
		{"caches", (*prober).caches},
		{"storage", (*prober).storage},
		{"timers", (*prober).timers},
		{"loopback", (*prober).loopback},
		{"power", (*prober).power},
	} {
		if o.Progress != nil {
			o.Progress(step.what)
		}
		step.do(p)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return &Limits{Machine: p.machine, Tier: tensor.Kernel(), When: began.UTC().Truncate(time.Second), Quick: o.Quick,
		Took: time.Since(began), Figures: p.figures, Warnings: p.doubts()}, nil
}

// doubts looks for signs that the machine was not left alone.
func (p *prober) doubts() []string {
	const usual = 0.1 // share of trials that lose a processor on a quiet machine: almost none
	if share := float64(p.lost) / float64(max(p.tried, 1)); share > usual {
		return []string{fmt.Sprintf("something else used the processors: %.0f %% of trials were interrupted and left out, so figures of several threads may be too low; for figures to keep, stop other programs and measure again", 100*share)}
	}
	return nil
}

// prober gathers figures.
type prober struct {
	ctx     context.Context
	o       Options
	trials  int
	target  time.Duration // of one trial
	machine Machine
	figures []Figure

	tried, lost int // trials of limits, and those that lost a processor
}

// threadCounts is 1, 2, 4, ... and all.
func (p *prober) threadCounts() (counts []int) {
	for n := 1; n < p.o.Threads; n *= 2 {
		counts = append(counts, n)
	}
	return append(counts, p.o.Threads)
}

// limit measures a rate on several threads at once and keeps the best trial.
// amount is what one pass of one thread does. Interrupted trials are repeated, up
// to a point.
func (p *prober) limit(f Figure, amount float64, pass func(worker int)) {
	passes := 1
	once := together(f.Threads, func(w int) { pass(w) }) // warm-up
	once = min(once, together(f.Threads, func(w int) { pass(w) }))
	if once < p.target {
		passes = int(p.target/max(once, 1)) + 1
	}
	var rates, spoilt []float64
	for try := 0; try < 4*p.trials && len(rates) < p.trials && p.ctx.Err() == nil; try++ {
		time.Sleep(50 * time.Microsecond) // whoever rests gets a fresh slice
		lost := preemptions()
		took := together(f.Threads, func(w int) {
			for range passes {
				pass(w)
			}
		})
		rate := amount * float64(passes*f.Threads) / took.Seconds()
		p.tried++
		if preemptions() == lost {
			rates = append(rates, rate)
		} else {
			spoilt = append(spoilt, rate)
			p.lost++
		}
	}
	if len(rates) == 0 {
		rates = spoilt
	}
	p.figures = append(p.figures, f.best(rates))
}

// missing records that a figure could not be had.
func (p *prober) missing(name, unit, why string) {
	nan := math.NaN()
	p.figures = append(p.figures, Figure{Name: name, Unit: unit, Method: why, Value: nan, Low: nan, High: nan})
}

// best completes a limit from its trials.
func (f Figure) best(trials []float64) Figure {
	f.N = len(trials)
	f.Value, f.Low, f.High = math.NaN(), math.NaN(), math.NaN()
	if f.N > 0 {
		slices.Sort(trials)
		f.Value = trials[f.N-1]
		f.Low, f.High = quantile(trials, 0.5), f.Value
	}
	return f
}

// typical completes a latency from its trials. The interval is exact for any
// distribution: ranks n/2 ± 0.98√n of the sorted trials (binomial, normal
// approximation; good from n = 20).
func (f Figure) typical(trials []float64) Figure {
	f.N = len(trials)
	f.Value, f.Low, f.High = math.NaN(), math.NaN(), math.NaN()
	if f.N > 0 {
		slices.Sort(trials)
		f.Value = quantile(trials, 0.5)
		half := 0.98 * math.Sqrt(float64(f.N))
		mid := float64(f.N-1) / 2
		f.Low = trials[max(0, int(math.Floor(mid-half)))]
		f.High = trials[min(f.N-1, int(math.Ceil(mid+half)))]
	}
	return f
}

// quantile is the q-quantile of sorted values, between neighbours if need be.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// together runs f on n system threads at once and tells how long it took from
// the first start to the last end.
func together(n int, f func(worker int)) time.Duration {
	var ready, stop atomic.Int64
	var first atomic.Int64
	first.Store(math.MaxInt64)
	began := time.Now()
	var all sync.WaitGroup
	for w := range n {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for ready.Add(1); ready.Load() < int64(n); { // a common start, without a wake-up in it
				runtime.Gosched()
			}
			keep(&first, int64(time.Since(began)), func(a, b int64) bool { return a < b })
			f(w)
			keep(&stop, int64(time.Since(began)), func(a, b int64) bool { return a > b })
		})
	}
	all.Wait()
	return time.Duration(stop.Load() - first.Load())
}

// keep stores x where it beats what is there.
func keep(at *atomic.Int64, x int64, beats func(a, b int64) bool) {
	for old := at.Load(); beats(x, old); old = at.Load() {
		if at.CompareAndSwap(old, x) {
			return
		}
	}
}

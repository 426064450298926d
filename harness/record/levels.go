package record

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"meibench/internal/portable"
)

// Levels are the latencies that applications of the field ask for, ascending:
// 10 to 20 ms of motion to photon and of control loops, 50 and 100 ms of
// interaction, and up to two seconds of conversation. Checklist line I13.
var levels = [...]time.Duration{10 * time.Millisecond, 15 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// Levels returns the latency levels, ascending. The metrics of a run have two
// shares for each, e2e_within_LEVEL and ttft_within_LEVEL.
func Levels() []time.Duration { return slices.Clone(levels[:]) }

// LevelMetric is the name of a level's share: e2e_within_100ms. Base is e2e or
// ttft.
func LevelMetric(base string, level time.Duration) string { return base + "_within_" + level.String() }

// reached counts the requests inside each level. A request that did not end well
// is inside none, and one without a token is inside none of the first token's.
type reached struct{ e2e, ttft [len(levels)]int }

func (n *reached) add(r *Request) {
	if r.Outcome != OK {
		return
	}
	for i, level := range levels {
		if r.Done-r.Intended <= level {
			n.e2e[i]++
		}
		if r.FirstToken != Unset && r.FirstToken-r.Intended <= level {
			n.ttft[i]++
		}
	}
}

// levelMetrics are the shares, two for each level.
func levelMetrics() (ms []Metric) {
	for i, level := range levels {
		for _, base := range [...]string{"e2e", "ttft"} {
			of := func(t *totals) float64 { return over(float64(t.reached.e2e[i]), t.requests) }
			what := "requests OK"
			if base == "ttft" {
				of = func(t *totals) float64 { return over(float64(t.reached.ttft[i]), t.requests) }
				what = "requests OK whose first token came"
			}
			ms = append(ms, whole(label{LevelMetric(base, level), fmt.Sprintf("%s-within-%s-share", base, level), "share"}, Higher,
				fmt.Sprintf("%s within %s of the intended start / requests; failures are misses", what, level), of))
		}
	}
	return ms
}

// spread is the standard deviation of numbers that come one by one (Welford
// 1962), with the n-1 of a sample. Products are rounded before they are added,
// so the bits are the same on every machine.
type spread struct {
	n       int
	mean, m float64
}

func (s *spread) add(x float64) {
	s.n++
	d := x - s.mean
	s.mean += d / float64(s.n)
	s.m += float64(d * (x - s.mean))
}

// value is NaN for fewer than two numbers.
func (s *spread) value() float64 {
	if s.n < 2 {
		return math.NaN()
	}
	return math.Sqrt(s.m / float64(s.n-1))
}

// gaps has the quantiles of times that are too many to keep: it counts them in
// buckets of 1/1024 of their power of two, so a quantile is within 0.05 % of the
// exact one, whatever the number of times. A page of buckets is made at first use.
type gaps struct {
	n     int
	pages [64]*[buckets]int
}

const (
	bucketBits = 10
	buckets    = 1 << bucketBits
)

func (g *gaps) add(d time.Duration) {
	u := uint64(max(d, 0))
	page, at := 0, u // below 1024 ns a bucket is a nanosecond
	if n := bits.Len64(u); n > bucketBits {
		page, at = n-bucketBits, u>>(n-bucketBits-1)&(buckets-1)
	}
	if g.pages[page] == nil {
		g.pages[page] = new([buckets]int)
	}
	g.pages[page][at]++
	g.n++
}

// quantile is the middle of the bucket that holds the smallest time with a share
// p at or below it, in seconds; NaN of none.
func (g *gaps) quantile(p float64) float64 {
	if g.n == 0 {
		return math.NaN()
	}
	left := index(g.n, p)
	for page := range g.pages {
		if g.pages[page] == nil {
			continue
		}
		for at, n := range g.pages[page] {
			if left -= n; left >= 0 {
				continue
			}
			if page == 0 {
				return time.Duration(at).Seconds()
			}
			low := time.Duration(buckets+at) << (page - 1)
			return (low + time.Duration(1)<<(page-1)/2).Seconds()
		}
	}
	return math.NaN()
}

// jitter is how much latencies scatter: of whole requests, and between chunks.
type jitter struct {
	e2e, itl spread
	gaps     gaps
}

func (j *jitter) add(r *Request) {
	if r.Outcome != OK {
		return
	}
	j.e2e.add((r.Done - r.Intended).Seconds())
	if r.Brief {
		return
	}
	last := Unset
	for _, c := range r.Chunks {
		if c.Tokens == 0 {
			continue
		}
		if last != Unset {
			j.itl.add((c.At - last).Seconds())
			j.gaps.add(c.At - last)
		}
		last = c.At
	}
}

// fate is whether a request missed, and where it stands.
type fate struct {
	at       time.Duration // intended
	id, user int32
	missed   bool
}

// bursts counts runs of consecutive misses in order of intended time (then ID).
type bursts struct {
	fates []fate
	all   streaks // over all users as one sequence
	users streaks // each user's requests are a sequence
}

// streaks are runs of misses: how many, how long in sum, how long at most.
type streaks struct{ n, misses, longest int }

func (b *bursts) add(r *Request, missed bool) {
	b.fates = append(b.fates, fate{r.Intended, int32(r.ID), int32(r.User), missed})
}

// count fills in the streaks.
func (b *bursts) count() {
	order := func(x, y fate) int { return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.id, y.id)) }
	if !slices.IsSortedFunc(b.fates, order) {
		slices.SortFunc(b.fates, order)
	}
	b.all, b.users = streaks{}, streaks{}
	run, runs := 0, map[int32]int{} // length of the run under way
	for _, f := range b.fates {
		if !f.missed {
			run = 0
			delete(runs, f.user)
			continue
		}
		run, runs[f.user] = run+1, runs[f.user]+1
		b.all.miss(run)
		b.users.miss(runs[f.user])
	}
}

// miss takes in a miss that is the k-th of its run.
func (s *streaks) miss(k int) {
	s.misses++
	if k == 1 {
		s.n++
	}
	s.longest = max(s.longest, k)
}

// nines is -log10 of the share that went wrong. None of n wrong counts as one:
// n requests cannot show more than log10 n nines.
func nines(wrong, n int) float64 {
	if n == 0 {
		return math.NaN()
	}
	return portable.Log(float64(n)/float64(max(wrong, 1))) / math.Ln10
}

// steadiness are the metrics of jitter, of bursts and of availability.
func steadiness() []Metric {
	ms := []Metric{
		whole(label{"availability_nines", "availability-nines", "1"}, Higher, "-log10 of the share of requests that did not end well; without one, log10 of the requests: more cannot be shown", func(t *totals) float64 { return nines(t.requests-t.ok, t.requests) }),
		whole(label{"e2e_jitter", "e2e-jitter-sec", "sec"}, Lower, "standard deviation of e2e over OK requests", func(t *totals) float64 { return t.jitter.e2e.value() }),
		whole(label{"itl_jitter", "itl-jitter-sec", "sec"}, Lower, "standard deviation of the gaps between successive chunks with tokens, all OK requests pooled", func(t *totals) float64 { return t.jitter.itl.value() }),
		whole(label{"itl_spread", "itl-spread-sec", "sec"}, Lower, "p99 - p50 of the gaps between successive chunks with tokens, pooled; each quantile to 0.05 %", func(t *totals) float64 { return t.jitter.gaps.quantile(0.99) - t.jitter.gaps.quantile(0.5) }),
		whole(label{"miss_burst_longest", "miss-burst-longest-req", "req"}, Lower, "longest run of consecutive requests, by intended start, that failed or missed a limit", func(t *totals) float64 { return of(t.bursts.all.longest, t) }),
		whole(label{"miss_burst_mean", "miss-burst-mean-req", "req"}, Lower, "mean length of such runs; absent where nothing was missed", func(t *totals) float64 { return over(float64(t.bursts.all.misses), t.bursts.all.n) }),
		whole(label{"miss_bursts", "miss-bursts", "1"}, Lower, "number of such runs", func(t *totals) float64 { return of(t.bursts.all.n, t) }),
		whole(label{"reliability_nines", "reliability-nines", "1"}, Higher, "-log10 of the share of requests that failed or missed a limit; without one, log10 of the requests", func(t *totals) float64 { return nines(t.requests-t.good, t.requests) }),
		whole(label{"tpot_first_minute", "tpot-first-minute-sec", "sec"}, Lower, "mean TPOT of the OK requests that begin in the first minute of the run: of a device that may be cool still", func(t *totals) float64 { return t.pace.first() }),
		whole(label{"tpot_sustained", "tpot-sustained-sec", "sec"}, Lower, "mean TPOT of the OK requests that begin in the last quarter of the run; absent if it is shorter than two minutes", func(t *totals) float64 { return t.pace.sustained() }),
		whole(label{"user_miss_burst_longest", "user-miss-burst-longest-req", "req"}, Lower, "longest run of consecutive requests of one user that failed or missed a limit", func(t *totals) float64 { return of(t.bursts.users.longest, t) }),
		whole(label{"user_miss_burst_mean", "user-miss-burst-mean-req", "req"}, Lower, "mean length of runs of misses within users; absent where nothing was missed", func(t *totals) float64 { return over(float64(t.bursts.users.misses), t.bursts.users.n) }),
		whole(label{"user_miss_bursts", "user-miss-bursts", "1"}, Lower, "number of runs of misses within users", func(t *totals) float64 { return of(t.bursts.users.n, t) }),
	}
	e2e := quantile("e2e", "p99", "p99 - p50 of e2e over OK requests")
	e2e.Name, e2e.Bench, e2e.less = "e2e_spread", "e2e-spread-sec", 0.5
	return append(ms, e2e)
}

// of is a count, unless there was nothing to count.
func of(n int, t *totals) float64 {
	if t.requests == 0 {
		return math.NaN()
	}
	return float64(n)
}

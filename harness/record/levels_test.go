package record

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// took is a request of a user that was intended at a time and gave its token and
// ended so much later.
func took(id, user int, at, first, e2e time.Duration) *Request {
	r := new(Request)
	r.Reset(id, at)
	r.User, r.AskedTokens = user, 1
	r.Token(at+first, 1)
	r.Finish(at+e2e, nil)
	return r
}

// Five requests: to the token 10, 10, 60, 900 ms and 1 s; to the end exactly 10 ms,
// one nanosecond more, 200 ms, 1 s and 2 s; and a failure after 5 ms, which is
// inside no level. Shares are of six.
func TestI13LatencyLevels(t *testing.T) {
	failed := took(5, 0, 0, 5*ms, 5*ms)
	failed.Outcome = Failed
	got := valuesOf(&Cell{}, took(0, 0, 0, 10*ms, 10*ms), took(1, 0, 7*ms, 10*ms, 10*ms+1), took(2, 0, 0, 60*ms, 200*ms),
		took(3, 0, 0, 900*ms, 1000*ms), took(4, 0, 0, 1000*ms, 2000*ms), failed)
	for name, sixths := range map[string]float64{
		"e2e_within_10ms": 1, "e2e_within_15ms": 2, "e2e_within_20ms": 2, "e2e_within_50ms": 2, "e2e_within_100ms": 2,
		"e2e_within_200ms": 3, "e2e_within_500ms": 3, "e2e_within_1s": 4, "e2e_within_2s": 5,
		"ttft_within_10ms": 2, "ttft_within_15ms": 2, "ttft_within_20ms": 2, "ttft_within_50ms": 2, "ttft_within_100ms": 3,
		"ttft_within_200ms": 3, "ttft_within_500ms": 3, "ttft_within_1s": 5, "ttft_within_2s": 5,
	} {
		require.InDelta(t, sixths/6, got[name], 1e-15, name)
	}
	silent := took(0, 0, 0, 0, ms)
	silent.FirstToken = Unset
	require.Zero(t, valuesOf(&Cell{}, silent)["ttft_within_2s"], "no token is inside no level")
	for _, level := range Levels() {
		for _, base := range []string{"e2e", "ttft"} {
			m, ok := Lookup(LevelMetric(base, level))
			require.True(t, ok, LevelMetric(base, level))
			require.Equal(t, "share", m.Unit)
		}
	}
	require.True(t, slices.IsSorted(Levels()))
}

// Gaps of 10, 10 and 40 ms in one answer and 20 ms in another (the chunk without
// tokens between is none): mean 20, squares 100 + 100 + 400 + 0, over 3: sqrt 200.
// Ends at 60 and 20 ms: mean 40, sqrt((400 + 400)/1).
func TestI13Jitter(t *testing.T) {
	a, b, bad := new(Request), new(Request), new(Request)
	for id, r := range []*Request{a, b, bad} {
		r.Reset(id, 0)
	}
	for _, at := range []time.Duration{0, 10, 20, 60} {
		a.Token(at*ms, 1)
	}
	b.Token(0, 1)
	b.Empty(5 * ms)
	b.Token(20*ms, 3)
	bad.Token(0, 1)
	bad.Token(9*time.Second, 1)
	a.Finish(60*ms, nil)
	b.Finish(20*ms, nil)
	bad.Finish(9*time.Second, nil)
	bad.Outcome = Timeout
	got := valuesOf(&Cell{}, a, b, bad)
	require.InDelta(t, math.Sqrt(200)*1e-3, got["itl_jitter"], 1e-15)
	require.InDelta(t, math.Sqrt(800)*1e-3, got["e2e_jitter"], 1e-15)
	require.InDelta(t, 0.040, got["e2e_spread"], 1e-15)
	require.InDelta(t, 0.030, got["itl_spread"], 0.050*5e-4, "p99 is 40, p50 is 10")
	require.True(t, math.IsNaN(valuesOf(&Cell{}, a)["e2e_jitter"]), "one request does not scatter")
}

// The counted quantiles are within 1/2048 of those of the sorted list.
func TestGapsAgainstTheSortedList(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int64{1, 500, 1023, 1024, 1025, 2048, 1e6, 4e9, math.MaxInt64} {
		var g gaps
		var all []float64
		for range 999 {
			d := time.Duration(r.Int64N(most))
			g.add(d)
			all = append(all, d.Seconds())
		}
		slices.Sort(all)
		for _, p := range []float64{0, 0.01, 0.5, 0.99, 1} {
			want := Quantile(all, p)
			require.InDelta(t, want, g.quantile(p), want/2048+1e-12, "%d %g", most, p)
		}
	}
	var none gaps
	require.True(t, math.IsNaN(none.quantile(0.5)))
}

// A limit of 15 ms. By intended time the rows are hit, miss, miss, hit, miss, miss,
// miss; users take turns 0 1 0 1 0 1 0, so user 0 has hit, miss, miss, miss and user
// 1 has miss, hit, miss. Rows come in another order.
func TestI13MissBursts(t *testing.T) {
	pattern := []bool{false, true, true, false, true, true, true}
	var rows []*Request
	for i, missed := range pattern {
		e2e := 15 * ms
		if missed {
			e2e++
		}
		rows = append(rows, took(i, i%2, time.Duration(i)*ms, e2e, e2e))
	}
	c := &Cell{E2ELimit: 15 * ms}
	want := map[string]float64{"miss_burst_longest": 3, "miss_bursts": 2, "miss_burst_mean": 2.5,
		"user_miss_burst_longest": 3, "user_miss_bursts": 3, "user_miss_burst_mean": 5.0 / 3}
	check := func(rows []*Request, why string) {
		got := valuesOf(c, rows...)
		for name, v := range want {
			require.InDelta(t, v, got[name], 1e-15, "%s %s", name, why)
		}
	}
	check(rows, "in order")
	slices.Reverse(rows)
	check(rows, "in the order of their ends")
	for _, r := range rows { // all at once: order of ID
		r.Intended, r.Done = 0, r.Done-r.Intended
	}
	check(rows, "at one time")

	rows[0].Outcome, rows[0].Done = Failed, 0 // request 6 failed at once: still a miss
	check(rows, "a failure misses")
	s := NewSummary(c)
	for _, r := range rows {
		s.Add(r)
	}
	s.Values()
	for _, v := range s.Values() {
		if v.Metric.Name == "miss_bursts" {
			require.Equal(t, 2.0, v.V, "asked twice")
		}
	}
	none := valuesOf(&Cell{}, took(0, 0, 0, ms, ms))
	require.Zero(t, none["miss_bursts"])
	require.Zero(t, none["miss_burst_longest"])
	require.True(t, math.IsNaN(none["miss_burst_mean"]))
}

// 1 of 100 failed: two nines; one more missed its limit: log10 50. None of 100
// failed: two nines are all that a hundred requests can show.
func TestI13Nines(t *testing.T) {
	var rows []*Request
	for i := range 100 {
		rows = append(rows, took(i, 0, 0, ms, ms))
	}
	c := &Cell{E2ELimit: ms}
	require.InDelta(t, 2, valuesOf(c, rows...)["availability_nines"], 1e-12)
	rows[3].Outcome = Rejected
	require.InDelta(t, 2, valuesOf(c, rows...)["availability_nines"], 1e-12)
	rows[4].Done++
	got := valuesOf(c, rows...)
	require.InDelta(t, 2, got["availability_nines"], 1e-12)
	require.InDelta(t, math.Log10(50), got["reliability_nines"], 1e-12)
	require.True(t, math.IsNaN(valuesOf(c)["availability_nines"]))
}

// BenchmarkSummary is what a row costs the summary of its run.
func BenchmarkSummary(b *testing.B) {
	c := &Cell{E2ELimit: 15 * ms}
	r := took(0, 0, 0, ms, 20*ms)
	for i := range 63 {
		r.chunk(r.LastToken+time.Duration(i)*ms/8, 1)
	}
	s := NewSummary(c)
	for b.Loop() {
		r.ID++
		s.Add(r)
	}
}

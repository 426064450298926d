package harness

import (
	"context"
	"iter"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/world"
	"meibench/harness/capacity"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/rng"
	"meibench/suites"
	"meibench/workloads"
)

// station is the share of n requests that a server of a fixed time answers within
// a limit, at each rate. Gaps are multiples of the mean gap, the same at each rate.
func station(t *testing.T, n int, service, limit time.Duration, gap func(i int) float64) func(rate float64) (float64, error) {
	return func(rate float64) (float64, error) {
		env := world.NewSim(nil)
		c, good := record.Cell{E2ELimit: limit}, 0
		d := newDriver(env, &fixed{null{env}, world.NewSlots(env, 1), service}, func(_ *workloads.Request, log *record.Request) {
			if c.Good(log) {
				good++
			}
		})
		d.offer(func() iter.Seq[workloads.Request] {
			return func(yield func(workloads.Request) bool) {
				at := 0.0
				for i := range n {
					at += gap(i) / rate
					if !yield(workloads.Request{ID: i, ArriveAt: time.Duration(at * 1e9), OutputTokens: 1}) {
						return
					}
				}
			}
		}())
		require.NoError(t, env.Run())
		return float64(good) / float64(n), nil
	}
}

// waits is P(W <= w) in an M/D/1 queue with service time 1 and load rho (Erlang
// 1909, Crommelin 1932): (1-rho) sum over k <= w of (rho (k-w))^k / k! e^(-rho (k-w)).
func waits(rho, w float64) (p float64) {
	for k, fact := 0.0, 1.0; k <= w; k++ {
		if k > 0 {
			fact *= k
		}
		p += math.Pow(rho*(k-w), k) / fact * math.Exp(-rho*(k-w))
	}
	return (1 - rho) * p
}

// I13 (E): the capacity of an M/D/1 station is that of the formula. Service takes
// 3 ms and the limit is 10 ms, so W <= 7/3 services for 90 % of requests.
func TestI13CapacityEqualsMD1(t *testing.T) {
	const service, limit = 3 * time.Millisecond, 10 * time.Millisecond
	lo, hi := 0.01, 0.99 // load
	for range 60 {
		if mid := (lo + hi) / 2; waits(mid, 7.0/3) >= 0.9 {
			lo = mid
		} else {
			hi = mid
		}
	}
	want := lo / service.Seconds()
	require.InDelta(t, 0.75, waits(0.25, 0), 1e-12, "the formula: 1 - rho wait for nobody")
	var rs []capacity.Result
	for seed := range uint64(4) {
		key, luck := rng.NewKey(seed+1, "arrivals", "test"), rng.Luck{}
		gap := func(i int) float64 { luck = key.At(uint64(i)); return -math.Log(1 - luck.Float64()) }
		r, err := capacity.Find(capacity.Options{Share: 0.9, Within: 0.01, Start: 10}, station(t, 20_000, service, limit, gap))
		require.NoError(t, err)
		rs = append(rs, r)
	}
	e := capacity.Over(rs)
	require.InEpsilon(t, want, e.Rate, 0.02, "%+v, by the formula %g", e, want)
	require.Less(t, e.Lo, want)
	require.Greater(t, e.Hi, want)
}

// I13 (E): one request each 3 ms is what a station of 3 ms holds if nobody may
// wait, and none if even the service alone is too long.
func TestI13CapacityOfAClockedStation(t *testing.T) {
	steady := func(int) float64 { return 1 }
	r, err := capacity.Find(capacity.Options{Share: 1, Within: 0.001, Start: 3}, station(t, 500, 3*time.Millisecond, 3*time.Millisecond+time.Microsecond, steady))
	require.NoError(t, err)
	require.LessOrEqual(t, r.Lo, 1000.0/3*(1+1e-5)) // a microsecond of room over 500 requests
	require.Greater(t, r.Hi, 1000.0/3)
	r, err = capacity.Find(capacity.Options{Share: 0.9, Within: 0.05, Start: 3}, station(t, 50, 3*time.Millisecond, 2*time.Millisecond, steady))
	require.NoError(t, err)
	require.Zero(t, r.Lo)
}

const capacitySuite = `
name: capacity
question: how much can one edge server take?
defaults: {site: phone-5g-edge, model: "llama-3.2-1b:q4_0", scale: field, requests: 60, users: 4, repeats: 2, find: {capacity: {seeds: 3}}}
matrix:
  pipeline: [local, offload]
by: {pipeline: {local: {app: assistant-command}, offload: {app: assistant}}}
`

// What a cell says of its capacity is true: at the lower end of every seed the
// share is reached, and it is not at the upper end.
func TestCapacityOfACell(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Run(context.Background(), &Lab{}, options(t, dir, parse(t, capacitySuite))))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	require.NoError(t, set.Verify())
	s := parse(t, capacitySuite)
	lab := &Lab{}
	for i, run := range set.Runs() {
		f := run.Cell.Figures
		require.Positive(t, f["capacity_rps"], run.Cell.Name)
		require.LessOrEqual(t, f["capacity_lo"], f["capacity_rps"])
		require.Greater(t, f["capacity_probes"], 10.0)
		require.Equal(t, "capacity", run.Cell.Params["find"])
		values := map[string]float64{}
		for _, v := range run.Values {
			values[v.Metric.Name] = v.V
		}
		require.GreaterOrEqual(t, values["goodput_share"], 0.9, "the rows are of a run that holds")
		require.Equal(t, f["capacity_rps"], values["capacity_rps"])
		c := s.Cells[i/2]
		setup, err := lab.resolve(c, false)
		require.NoError(t, err)
		a := &arm{cell: c, seed: run.Cell.Seed, setup: setup}
		share := func(rate float64, k int) float64 {
			seed := a.seed
			if k > 0 {
				seed = rng.Stream(a.seed, "capacity", k).Uint64()
			}
			v, err := lab.share(context.Background(), a, rate, seed)
			require.NoError(t, err)
			return v
		}
		lows, highs := 0, 0
		for k := range 3 {
			if share(f["capacity_lo"], k) >= 0.9 {
				lows++
			}
			if share(f["capacity_hi"], k) < 0.9 {
				highs++
			}
		}
		require.Equal(t, 3, lows, "%s: every seed holds the lower end", c.Name)
		require.Equal(t, 3, highs, "%s: no seed holds the upper end", c.Name)
	}
}

// A cell with a search is resumed like any other, to the same bytes.
func TestCapacityResumes(t *testing.T) {
	whole, cut := t.TempDir(), t.TempDir()
	require.NoError(t, Run(context.Background(), &Lab{}, options(t, whole, parse(t, capacitySuite))))
	ctx, cancel := context.WithCancel(context.Background())
	o := options(t, cut, parse(t, capacitySuite))
	o.Progress, o.Jobs = &stopper{after: 100, stop: cancel}, 1
	require.ErrorIs(t, Run(ctx, &Lab{}, o), context.Canceled)
	o = options(t, cut, parse(t, capacitySuite))
	o.Resume = true
	require.NoError(t, Run(context.Background(), &Lab{}, o))
	for _, f := range []string{results.RequestsFile, results.CellsFile, results.BenchFile} {
		require.Equal(t, read(t, whole, f), read(t, cut, f), f)
	}
	require.Contains(t, string(read(t, whole, results.BenchFile)), "capacity-req/s")
}

func TestCapacityWhereThereIsNone(t *testing.T) {
	// A hint that needs 1,260 tokens of prompt in half a second is beyond a phone.
	s := parse(t, capacitySuite, suites.Set{Key: "app", Values: []any{"driving"}}, suites.Set{Key: "pipeline", Values: []any{"local"}},
		suites.Set{Key: "requests", Values: []any{4.0}}, suites.Set{Key: "repeats", Values: []any{1.0}})
	dir := t.TempDir()
	require.NoError(t, Run(context.Background(), &Lab{}, options(t, dir, s)))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	c := set.Runs()[0].Cell
	require.Zero(t, c.Figures["capacity_rps"])
	require.True(t, slices.ContainsFunc(c.Warnings, func(w string) bool { return len(w) > 11 && w[:11] == "capacity: 0" }), c.Warnings)

	for want, set := range map[string]suites.Set{
		"offers no rate of its own": {Key: "scenario", Values: []any{"closed-loop"}},
	} {
		s := parse(t, capacitySuite, set)
		require.ErrorContains(t, (&Lab{}).Check(s), want)
	}
	plain := parse(t, capacitySuite, suites.Set{Key: "find", Values: []any{"nothing"}})
	a, err := (&Lab{}).resolve(parse(t, capacitySuite).Cells[0], false)
	require.NoError(t, err)
	b, err := (&Lab{}).resolve(plain.Cells[0], false)
	require.NoError(t, err)
	require.NotEqual(t, a.hash, b.hash, "a run at a found rate compares with no other")
}

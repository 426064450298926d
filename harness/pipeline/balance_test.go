package pipeline

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/workloads"
)

// busy is 400 requests with a crest in the middle, when one node is too few.
func busy(l *lane) {
	r, at := rng.Stream(21, "crest"), time.Duration(0)
	for i := range 400 {
		gap := 60e6
		if i > 100 && i < 300 {
			gap = 12e6
		}
		at += time.Duration(gap * rng.Exp(r))
		l.reqs = append(l.reqs, workloads.Request{ArriveAt: at, PromptTokens: 1 + r.IntN(10), OutputTokens: 1 + r.IntN(6), TextBytes: 200, Deadline: ms(150)})
	}
}

func (l *lane) figures() map[string]float64 { return l.pipe.(Figurer).Figures() }

// TestX4BalanceKeepsAnswers: whoever is asked, however many run, and when nodes die in mid-answer, answers are the model's.
func TestX4BalanceKeepsAnswers(t *testing.T) {
	for _, set := range []map[string]any{
		{"route": "least"}, {"route": "jsq"}, {"route": "random"}, {"route": "roundrobin"}, {"route": "two"},
		{"scaler": "reactive", "period_ms": 200.0, "start_ms": 100.0}, {"scaler": "target", "period_ms": 200.0}, {"scaler": "erlang", "period_ms": 300.0, "start_ms": 50.0, "calm": 1.0},
		{"batch": 1.0, "kv": "paged"},
	} {
		t.Run(fmt.Sprint(set), func(t *testing.T) {
			l := newLane(3, map[int][]time.Duration{1: {ms(3000), ms(8000)}, 2: {ms(5500)}})
			require.NoError(t, l.use("balance", set))
			busy(l)
			l.check(t)
			f := l.figures()
			require.Positive(t, l.counted(record.Retries))
			require.Greater(t, f["recovery"], 0.1, "it takes the notice at least")
			require.Positive(t, f["backhaul_bytes"])
			require.LessOrEqual(t, f["replicas_max"], 3.0)
		})
	}
}

// TestX4ScalingFollowsTheLoad: a scaler uses fewer node-seconds than the whole fleet, more than the least one, and reaches it in the crest.
func TestX4ScalingFollowsTheLoad(t *testing.T) {
	run := func(set map[string]any) (map[string]float64, time.Duration) {
		l := newLane(3, nil)
		require.NoError(t, l.use("balance", set))
		busy(l)
		l.check(t)
		var worst time.Duration
		for _, log := range l.logs {
			worst = max(worst, log.Done-log.Intended)
		}
		return l.figures(), worst
	}
	batch := map[string]any{"batch": 1.0}
	fixed, quick := run(batch)
	require.InDelta(t, 3, fixed["replicas_mean"], 1e-9)
	require.Zero(t, fixed["replica_changes"])
	require.Equal(t, 1.0, fixed["availability"])
	one := newLane(1, nil)
	require.NoError(t, one.use("balance", batch))
	busy(one)
	one.check(t)
	var slow time.Duration
	for _, log := range one.logs {
		slow = max(slow, log.Done-log.Intended)
	}
	require.Greater(t, slow, 4*quick, "one node is too few in the crest")
	for _, rule := range []string{"erlang", "reactive", "target"} {
		f, worst := run(map[string]any{"batch": 1.0, "scaler": rule, "period_ms": 250.0, "start_ms": 100.0, "calm": 2.0})
		require.Less(t, f["node_time"], 0.9*fixed["node_time"], rule)
		require.Greater(t, f["replicas_mean"], 1.0, rule)
		require.Greater(t, f["replicas_max"], 1.0, rule)
		require.Greater(t, f["replica_changes"], 1.0, rule)
		require.Less(t, worst, slow, rule)
		require.Equal(t, 1.0, f["availability"])
	}
}

// TestX4AdmissionAtTheDoor: rules refuse when there is too much, and what is let in is quicker for it.
func TestX4AdmissionAtTheDoor(t *testing.T) {
	run := func(set map[string]any) (rejected int, worst time.Duration, late int) {
		l := newLane(1, nil)
		set["batch"] = 1.0
		require.NoError(t, l.use("balance", set))
		busy(l)
		l.run(t)
		for _, log := range l.logs {
			if log.Outcome == record.Rejected {
				require.Zero(t, log.OutputTokens)
				rejected++
				continue
			}
			require.Equal(t, record.OK, log.Outcome, log.Err)
			worst = max(worst, log.Done-log.Intended)
			if log.Done-log.Intended > ms(150) {
				late++
			}
		}
		return rejected, worst, late
	}
	none, slow, missed := run(map[string]any{})
	require.Zero(t, none)
	require.Greater(t, missed, 100)
	for _, set := range []map[string]any{{"admit": "queue", "queue": 3.0}, {"admit": "slo"}, {"admit": "bucket", "bucket_rps": 20.0, "bucket_burst": 2.0}} {
		rejected, worst, late := run(set)
		require.Greater(t, rejected, 20, "%v", set)
		require.Less(t, rejected, 380)
		require.Less(t, worst, slow/2, "%v", set)
		require.Less(t, late, missed/2, "%v", set)
	}
}

// TestX4OutageByHand: one node, down from 1 s to 3 s. A request of which nothing runs then waits until the node was found back, and has started.
func TestX4OutageByHand(t *testing.T) {
	l := newLane(1, map[int][]time.Duration{1: {ms(1000)}})
	require.NoError(t, l.use("balance", map[string]any{"retry_ms": 400.0, "start_ms": 70.0, "notice_ms": 30.0}))
	l.reqs = []workloads.Request{{ArriveAt: 0, PromptTokens: 1, OutputTokens: 1}, {ArriveAt: ms(1500), PromptTokens: 5, OutputTokens: 1}}
	l.check(t)
	// Up 5 ms; down is met at 1505 and noticed at 1535; looks every 400 ms find it at 3135; 70 ms to start, 4 ms to load on the toy; 10 ms of prefill; 5 ms down.
	require.Equal(t, ms(1500+5+30+1600+70+4+10+5)+22*time.Microsecond, l.logs[1].Done, "and 20 B at 1 MB/s, 8 B at 4 MB/s")
	f := l.figures()
	require.InDelta(t, (3224.022-1000)/1e3, f["recovery"], 1e-9)
	watched := 3224.022 // from the first request on
	require.InDelta(t, (watched-(1600+70+4))/watched, f["availability"], 1e-9)
}

// TestX4BalanceInBothWorlds: with several nodes, a scaler and deaths, both worlds agree to the nanosecond.
func TestX4BalanceInBothWorlds(t *testing.T) {
	for _, set := range []map[string]any{{"route": "two"}, {"scaler": "reactive", "period_ms": 251.003, "start_ms": 99.001}} {
		run := func(env world.Runner) (rows []string) {
			l := newLaneIn(env, 3, map[int][]time.Duration{2: {ms(3000.007)}})
			for i, d := range l.nodes {
				d.skew = true
				d.step += time.Duration(i)
			}
			require.NoError(t, l.use("balance", set))
			busy(l)
			l.run(t)
			for _, log := range l.logs {
				rows = append(rows, fmt.Sprintf("%+v", *log))
			}
			return append(rows, fmt.Sprint(l.figures()))
		}
		bothWorlds(t, run)
	}
}

func TestX4BalanceRefusesWhatCannotBe(t *testing.T) {
	l := newLane(2, nil)
	l.nodes[0].memory, l.nodes[1].memory = 1, 1
	require.ErrorIs(t, l.use("balance", nil), hardware.ErrMemory)
	l.nodes[1].memory = 0 // no limit: it alone serves, through the door that cannot
	require.NoError(t, l.use("balance", nil))
	busy(l)
	l.check(t)
	require.Zero(t, l.nodes[0].ops)
	l = newLane(1, nil)
	require.ErrorContains(t, l.use("balance", map[string]any{"scaler": "reactive", "low": 0.9}), "low < high")
	l = newLane(2, nil)
	l.nodes[0].fail = errors.New("broken") // an error that is no death is not tried again
	require.NoError(t, l.use("balance", map[string]any{"route": "roundrobin"}))
	busy(l)
	l.run(t)
	failed := 0
	for _, log := range l.logs {
		if log.Outcome == record.Failed {
			require.Equal(t, "broken", log.Err)
			failed++
		}
	}
	require.Equal(t, 200, failed)
}

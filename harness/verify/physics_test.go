package verify

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/bundle"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/suites"
)

// bounds are the least and the recorded times of the rows of one run of a cell.
func bounds(t *testing.T, dir, pipeline string) (compute, link float64) {
	k := New(Options{}).begin(context.Background(), "")
	set, err := results.Read(dir)
	require.NoError(t, err)
	t.Cleanup(func() { set.Close() })
	f := &folder{dir: dir, set: set, sound: map[results.Key]bool{}, arms: map[results.Key]*arm{}}
	k.form(f)
	k.planned(f)
	compute, link = math.Inf(1), math.Inf(1)
	for i, run := range set.Runs() {
		c := run.Cell
		if c.Pipeline != pipeline {
			continue
		}
		p := k.physics(f.arms[results.KeyOf(&c)], &c)
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			if p.known {
				least := p.first(r.PromptTokens) + time.Duration(p.passes(r.OutputTokens)-1)*p.next
				require.Positive(t, least)
				compute = min(compute, (r.LastToken-r.Released).Seconds()/least.Seconds())
			}
			if p.trip > 0 {
				link = min(link, (r.FirstToken-r.Released).Seconds()/p.trip.Seconds())
			}
		}
	}
	return compute, link
}

// A floor that is far below everything refuses nothing. Modelled requests that
// met no other lie just above theirs; links are seldom at their best.
func TestFloorsAreTight(t *testing.T) {
	dir := run(t, modelledSuite, suites.Set{Key: "requests", Values: []any{60.0}})
	compute, link := bounds(t, dir, "local")
	require.GreaterOrEqual(t, compute, 1.0)
	require.Less(t, compute, 1.2)
	require.True(t, math.IsInf(link, 1), "nothing is sent")
	compute, link = bounds(t, dir, "offload")
	require.GreaterOrEqual(t, compute, 1.0)
	require.GreaterOrEqual(t, link, 1.0)
	require.Less(t, link, 10.0)
	_, link = bounds(t, dir, "split") // whose activations are large and its link is not
	require.GreaterOrEqual(t, link, 1.0)
}

// fitted is the profile of a machine that was timed with a model: a prefill of n
// tokens takes 1 + n/10 ms, a decode step 2 ms.
func fitted(t *testing.T, model string) *profiles.DeviceSheet {
	d := *host(t)
	m, err := (&harness.Lab{}).Model(model)
	require.NoError(t, err)
	layers := float64(m.Spec.Layers)
	d.Fitted = []profiles.Fit{{Model: model, Digest: m.Digest, Kernel: "toy", Source: "this test", Kind: "assumed", Samples: 1,
		Prefill: profiles.Coefficients{Pass: 1e-3, Token: 1e-4 / layers}, Decode: profiles.Coefficients{Pass: 2e-3}}}
	return &d
}

// By hand: a third of 1 ms + 30 × 0.1 ms, and of 2 ms for each of 9 steps more, is
// 4/3 ms + 6 ms = 22/3 ms.
func TestFloorOfAFittedMachine(t *testing.T) {
	k := New(Options{}).begin(context.Background(), "")
	k.lab.Host = fitted(t, "mei-nano")
	a := harness.Arm{Cell: suites.Cell{App: "robotics", Pipeline: "local", Site: "this-machine", Model: "mei-nano", Mode: "measured", Scale: "task", Requests: 3, Users: 1, Repeats: 1, Seed: 1}, Seed: 1}
	terms, err := k.lab.Terms(a)
	require.NoError(t, err)
	c := terms.Header
	p := k.physics(&arm{Arm: a, terms: terms}, &c)
	require.True(t, p.known)
	least := p.first(30) + 9*p.next
	require.InDelta(t, 22.0/3, least.Seconds()*1e3, 1e-3)
	r := &record.Request{PromptTokens: 30, OutputTokens: 10, LastToken: least, Outcome: record.OK}
	p.compute(k, spot{}, r)
	require.Empty(t, k.rep.findings)
	r.LastToken--
	p.compute(k, spot{}, r)
	require.Equal(t, "V040", k.rep.findings[0].Rule)
	require.Equal(t, bundle.Error, k.rep.findings[0].Severity)
}

// Drafts come several to a pass; exits run a part of it; what divides a pass or is
// unknown has no floor.
func TestPassesOfPipelines(t *testing.T) {
	for _, tc := range []struct {
		pipeline string
		params   map[string]any
		passes   int // for 10 tokens
		share    float64
		ok       bool
	}{
		{"local", nil, 10, 1, true}, {"speculate", map[string]any{"gamma": 4.0}, 2, 1, true}, {"speculate", map[string]any{"gamma": 0.0}, 1, 1, true},
		{"exit", map[string]any{"first": 0.5}, 10, 0.5 - 1.0/3, true}, {"exit", map[string]any{"first": 2.0}, 10, 2.0/3 - 1.0/3, true},
		{"parallel", nil, 0, 0, false}, {"experts", nil, 0, 0, false}, {"endpoint", nil, 0, 0, false},
	} {
		m, err := (&harness.Lab{}).Model("mei-small")
		require.NoError(t, err)
		require.Equal(t, 3, m.Spec.Layers)
		p := &physics{arm: &arm{terms: &harness.Terms{Model: m}}}
		share, ok := p.steps(&record.Cell{Pipeline: tc.pipeline, Params: tc.params})
		require.Equal(t, tc.ok, ok, tc.pipeline)
		if ok {
			require.InDelta(t, tc.share, share, 1e-12, "%s %v", tc.pipeline, tc.params)
			require.Equal(t, tc.passes, p.passes(10), "%s %v", tc.pipeline, tc.params)
		}
	}
}

// Two operations at once on a device with one slot.
func TestOneSlotComputesOneThing(t *testing.T) {
	k := New(Options{}).begin(context.Background(), "")
	p := &physics{lone: true, spans: []record.Span{{Start: 10, End: 20}, {Start: 0, End: 10}, {Start: 25, End: 30}}}
	p.alone(k, spot{})
	require.Empty(t, k.rep.findings)
	p.spans[2].Start = 19
	p.alone(k, spot{})
	require.Equal(t, "V046", k.rep.findings[0].Rule)
}

// Runs of a folder that take longer together than the folder took.
func TestFoldersTakeTheTimeOfTheirRuns(t *testing.T) {
	dir := run(t, measuredSuite, suites.Set{Key: "requests", Values: []any{2.0}})
	manifest(t, dir, func(m *results.Manifest) { m.Started = m.Finished.Add(time.Minute) })
	refused(t, verdict(t, dir, Options{Rerun: None}), "V041")
}

// What is said of one answer, by what the replay has.
func TestMarks(t *testing.T) {
	ok := answer{ok: true, tokens: 3, hash: 7, quality: 1}
	failed := func(err string) answer { return answer{err: err} }
	with := func(edit func(a *answer)) answer { a := ok; edit(&a); return a }
	for _, tc := range []struct {
		name      string
		got, want answer
		bits      bool
		rule      string
		severity  bundle.Severity
	}{
		{"equal", ok, ok, true, "", ""},
		{"both failed", failed("x"), failed("y"), true, "", ""},
		{"shorter", with(func(a *answer) { a.tokens-- }), ok, true, "V051", bundle.Error},
		{"other words", with(func(a *answer) { a.hash++ }), ok, true, "V050", bundle.Error},
		{"other words by other kernels", with(func(a *answer) { a.hash++; a.tokens++ }), ok, false, "", ""},
		{"worse", with(func(a *answer) { a.quality = 0 }), ok, false, "V053", bundle.Error},
		{"ok that cannot be", ok, failed("needs more context"), true, "V054", bundle.Error},
		{"a dead link in the replay", ok, failed("link up: hardware: link is down"), true, "V062", bundle.Note},
		{"a machine that failed", failed("reset by peer"), ok, true, "V054", bundle.Warning},
		{"a whole answer called failed", with(func(a *answer) { a.ok, a.err = false, "x" }), ok, true, "V054", bundle.Error},
	} {
		k := New(Options{}).begin(context.Background(), "")
		k.mark(spot{}, tc.got, tc.want, tc.bits)
		if tc.rule == "" {
			require.Empty(t, k.rep.findings, tc.name)
			continue
		}
		require.Len(t, k.rep.findings, 1, tc.name)
		require.Equal(t, tc.rule, k.rep.findings[0].Rule, tc.name)
		require.Equal(t, tc.severity, k.rep.findings[0].Severity, tc.name)
	}
}

// Answers that depend on time are left.
func TestTimely(t *testing.T) {
	for _, tc := range []struct {
		pipeline string
		params   map[string]any
		left     bool
	}{
		{"local", map[string]any{"keep": "h2o"}, false}, {"split", map[string]any{"adapt": "no", "wire": "int8"}, false},
		{"split", map[string]any{"adapt": "bandit", "wire": "int8"}, true}, {"split", map[string]any{"adapt": "bandit", "wire": "f32"}, false},
		{"chain", map[string]any{"wire": "int4"}, true}, {"chain", map[string]any{"wire": "f32"}, false},
		{"speculate", map[string]any{"temperature": 1.0}, true}, {"speculate", map[string]any{"temperature": 0.0}, false},
		{"offload", map[string]any{"reject": "yes"}, true}, {"offload", map[string]any{"reject": "no"}, false}, {"endpoint", nil, true},
	} {
		a := &arm{terms: &harness.Terms{Header: record.Cell{Params: tc.params}}}
		a.Cell.Pipeline = tc.pipeline
		require.Equal(t, tc.left, timely(a) != "", "%s %v", tc.pipeline, tc.params)
	}
}

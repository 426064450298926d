package verify

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/bundle"
	"meibench/harness/record"
	"meibench/suites"
)

const modelledSuite = `
name: far
question: does a modelled run hold?
defaults: {site: phone-5g-edge, model: "llama-3.2-1b:q4_0", scale: field, mode: modelled, requests: 12, users: 4, repeats: 2}
matrix:
  app: [assistant, driving]
  pipeline: [local, offload, split]
`

const measuredSuite = `
name: near
question: does a measured run hold?
defaults: {site: this-machine, model: mei-nano, scale: task, requests: 6, rate: 40}
matrix:
  app: [robotics]
  pipeline: [local, offload, split]
  mode: [measured, emulated]
`

// host is a profile of this machine that no test relies on being right: it is
// slow, so that floors would fire if they believed it, and has no fit.
func host(t testing.TB) *profiles.DeviceSheet {
	d, err := profiles.Device("raspberry-pi-5")
	require.NoError(t, err)
	return d
}

// run makes a run folder of a suite.
func run(t testing.TB, text string, set ...suites.Set) string {
	s, err := suites.Parse("test.yaml", []byte(text), set...)
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "run")
	o := harness.Options{Suites: []*suites.Suite{s}, Out: dir, Command: []string{"meibench", "run"}, Progress: silent{}, Now: time.Now}
	require.NoError(t, harness.Run(context.Background(), &harness.Lab{Host: host(t)}, o))
	return dir
}

func errorsOf(v bundle.Verdict) (out []bundle.Finding) {
	for _, f := range v.Findings {
		if f.Severity == bundle.Error {
			out = append(out, f)
		}
	}
	return out
}

func TestHonestRunsPass(t *testing.T) {
	for name, text := range map[string]string{"modelled": modelledSuite, "measured": measuredSuite} {
		t.Run(name, func(t *testing.T) {
			v := New(Options{}).CheckRun(context.Background(), run(t, text))
			require.Empty(t, errorsOf(v))
			require.Equal(t, bundle.Replayed, v.Tier)
			require.Positive(t, v.Replay.Rows)
		})
	}
}

// Rounds of training are requests without tokens; what they learned is computed again too.
func TestRunsThatTrainPass(t *testing.T) {
	dir := run(t, `
name: rounds
question: does a run that trains hold?
defaults: {app: healthcare, model: mei-nano, scale: task, scenario: single-stream, requests: 3}
parts:
  - {name: far, defaults: {mode: modelled, site: mixed-5g-edge}, matrix: {pipeline: [tune, federate, splitlearn, collaborate]}}
  - {name: near, defaults: {site: this-machine}, matrix: {pipeline: [tune, federate, splitlearn], mode: [measured, emulated]}}
params:
  tune: {clients: 2, steps: 1, samples: 8, levels: 1, every: 3, score: 5}
  federate: {clients: 2, steps: 1, samples: 8, levels: 1, every: 3, score: 5}
  splitlearn: {clients: 2, steps: 1, samples: 8, levels: 1, every: 3, score: 5}
  collaborate: {clients: 2, steps: 1, samples: 8, levels: 1, every: 3, score: 5, stages: 2, micros: 2}
`)
	v := New(Options{}).CheckRun(context.Background(), dir)
	require.Empty(t, errorsOf(v))
	require.Equal(t, bundle.Replayed, v.Tier)
	require.Equal(t, 4, v.Replay.Modelled)
	refused(t, verdict(t, edited(t, dir, "modelled", "federate", func(r *record.Request) {
		if r.ID == 2 {
			r.Quality = 1
		}
	}), Options{}), "V060")
}

// A model that is a file is found by its digest, or left.
func TestModelsThatAreFiles(t *testing.T) {
	file := "../../reference/models/mei-nano.gguf"
	dir := run(t, measuredSuite, suites.Set{Key: "model", Values: []any{file}}, suites.Set{Key: "mode", Values: []any{"emulated", "modelled"}})
	v := verdict(t, dir, Options{})
	require.Empty(t, errorsOf(v))
	require.Equal(t, bundle.Reported, v.Tier, "schedules of an unknown tokenizer cannot be derived")
	require.Equal(t, 6, v.Replay.Left)
	require.Contains(t, v.Replay.Why, "--model")
	v = verdict(t, dir, Options{Models: []string{file}})
	require.Empty(t, errorsOf(v))
	require.Equal(t, bundle.Replayed, v.Tier)
	require.Zero(t, v.Replay.Left)
	require.Error(t, New(Options{Models: []string{"nowhere.gguf"}}).Err())
}

// Workloads whose requests wait for others: who follows whom is worked out from
// the recorded ends.
func TestClosedWorkloads(t *testing.T) {
	for _, scenario := range []string{"closed-loop", "single-stream", "multi-stream", "multi-turn"} {
		t.Run(scenario, func(t *testing.T) {
			set := []suites.Set{{Key: "scenario", Values: []any{scenario}}, {Key: "app", Values: []any{"assistant"}}, {Key: "users", Values: []any{3.0}},
				{Key: "requests", Values: []any{24.0}}, {Key: "pipeline", Values: []any{"local", "offload"}}, {Key: "repeats", Values: []any{1.0}}}
			far := run(t, modelledSuite, set...)
			v := verdict(t, far, Options{Rerun: None})
			require.Empty(t, errorsOf(v))
			if scenario == "multi-turn" || scenario == "closed-loop" { // others are not this patient: they wait for people
				refused(t, verdict(t, edited(t, far, "modelled", "local", func(r *record.Request) {
					if r.ID == 23 {
						move(r, func(d time.Duration) time.Duration { return d + time.Second })
					}
				}), Options{Rerun: None}), "V023")
				return
			}
			near := run(t, measuredSuite, append(set, suites.Set{Key: "rate", Values: []any{40.0}})...)
			require.Empty(t, errorsOf(verdict(t, near, Options{Rerun: None})))
			refused(t, verdict(t, edited(t, near, "measured", "local", func(r *record.Request) {
				if r.ID > 9 {
					move(r, func(d time.Duration) time.Duration { return d + 200*time.Millisecond })
				}
			}), Options{Rerun: None}), "V023")
		})
	}
}

func TestRulesAreATable(t *testing.T) {
	list := Rules()
	require.True(t, slices.IsSortedFunc(list, func(a, b Rule) int { return strings.Compare(a.ID, b.ID) }))
	for _, r := range list {
		require.Regexp(t, "^V0[0-7][0-9]$", r.ID)
		require.NotEmpty(t, r.Title)
		require.NotEmpty(t, r.Text)
		require.NotEmpty(t, r.Fix)
		require.Contains(t, r.Explain(), r.Title)
	}
	_, err := Lookup("v040")
	require.NoError(t, err)
	_, err = Lookup("V999")
	require.ErrorContains(t, err, "V001")
}

// What a hostile bundle writes reaches no terminal.
func TestFindingsAreClean(t *testing.T) {
	var r report
	r.say("V010", spot{}, "%s", "a\x1b[31mb\u202e\nc"+strings.Repeat("x", 1000))
	require.Equal(t, "a?[31mb? c", r.findings[0].Text[:10])
	require.Less(t, len(r.findings[0].Text), 500)
	v := bundle.Verdict{Tier: bundle.Refused, Findings: r.findings}
	var out strings.Builder
	require.NoError(t, Text(&out, "x\x1b", &v))
	require.NotContains(t, out.String(), "\x1b")
	require.Equal(t, "REFUSED x?: 1 error(s), 0 warning(s)", Line("x\x1b", &v))
}

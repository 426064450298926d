package verify

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/bundle"
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

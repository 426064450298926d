package harness

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/endpoint/endtest"
	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/suites"
)

const servedSuite = `
name: served
question: does a real server answer?
defaults: {site: lab-server, model: mei-nano, scale: task, requests: 4, warmup: 1, rate: 50, pipeline: endpoint, mode: measured}
matrix:
  app: [driving]
`

// ask runs the suite against a scripted server and returns its rows and cell.
func ask(t *testing.T, script endtest.Script) ([]record.Request, record.Cell, string) {
	t.Setenv("MEIBENCH_TEST_KEY", "s3cret-key")
	v, err := endtest.Start(script)
	require.NoError(t, err)
	defer v.Close()
	site := EndpointSite("lab-server", profiles.Served{URL: v.URL, Model: "scripted", KeyEnv: "MEIBENCH_TEST_KEY", IdleS: 0.2})
	dir := t.TempDir()
	lab := &Lab{Sites: map[string]*profiles.SiteSheet{"lab-server": site}}
	require.NoError(t, Run(context.Background(), lab, options(t, dir, parse(t, servedSuite))))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	var rows []record.Request
	for r, err := range set.Rows(0) {
		require.NoError(t, err)
		rows = append(rows, *r)
	}
	require.True(t, script.Fault != "" || v.Dials() < 5, "warm connections serve five requests and the list of models")
	manifest, err := os.ReadFile(filepath.Join(dir, results.ManifestFile))
	require.NoError(t, err)
	return rows, set.Runs()[0].Cell, string(manifest)
}

// A real server is a cell like any other: rows, spans, quality, and who it was.
func TestI14ServerIsASystemUnderTest(t *testing.T) {
	script := endtest.Script{First: 20 * time.Millisecond, Gaps: []time.Duration{5 * time.Millisecond}, Text: " no"}
	rows, cell, manifest := ask(t, script)
	require.Len(t, rows, 4)
	for _, r := range rows {
		require.Equal(t, record.OK, r.Outcome, r.Err)
		require.Equal(t, []int{2, 7}, []int{r.OutputTokens, r.PromptTokens})
		require.GreaterOrEqual(t, r.FirstToken-r.Sent, 20*time.Millisecond)
		require.Zero(t, r.Quality, "graded, and wrong")
		require.Positive(t, int(r.UpBytes))
		require.Positive(t, int(r.DownBytes))
	}
	require.Equal(t, "scripted", cell.Model, "the server's model, not the one that made the prompts")
	require.Zero(t, cell.Facts.Mismatched)
	require.Contains(t, manifest, `"server":"endtest"`)
	require.Contains(t, manifest, `/v1","`)
	require.NotContains(t, manifest, "s3cret")
}

func TestServersCountsThatDisagreeSpoilACell(t *testing.T) {
	rows, cell, _ := ask(t, endtest.Script{Gaps: []time.Duration{0, 0}, Fault: "less-tokens"})
	require.Equal(t, 1, rows[0].OutputTokens)
	require.Equal(t, 4, cell.Facts.Mismatched)
	require.False(t, cell.Valid)
	require.Contains(t, cell.Warnings[0], "4 answer(s): 3 chunks with text, but the usage says 1 tokens")
}

// A row says whether the server failed, was too slow or had no room.
func TestI14OutcomesOfAServersFaults(t *testing.T) {
	for fault, want := range map[string]record.Outcome{"429": record.Rejected, "429-plain": record.Rejected, "500": record.Failed,
		"stall": record.Timeout, "reset": record.Failed} {
		t.Run(fault, func(t *testing.T) {
			rows, _, _ := ask(t, endtest.Script{Gaps: []time.Duration{0, 0}, Fault: fault})
			require.Len(t, rows, 4)
			for _, r := range rows {
				require.Equal(t, want, r.Outcome, r.Err)
				require.NotEmpty(t, r.Err)
			}
		})
	}
}

func TestServerSites(t *testing.T) {
	lab := &Lab{Sites: map[string]*profiles.SiteSheet{"lab-server": EndpointSite("lab-server", profiles.Served{URL: "http://127.0.0.1:1", Model: "m"})}}
	for _, tc := range []struct{ key, value, want string }{
		{"mode", "modelled", "mode measured only"},
		{"pipeline", "local", "pipeline endpoint, not local"},
	} {
		err := lab.Check(parse(t, servedSuite, suites.Set{Key: tc.key, Values: []any{tc.value}}))
		require.ErrorContains(t, err, tc.want)
	}
	o := options(t, t.TempDir(), parse(t, servedSuite))
	require.ErrorContains(t, Run(context.Background(), lab, o), "is the server running?")
	for text, want := range map[string]string{
		`{name: server, role: edge, endpoint: {url: "http://h", model: m, extra: {top_k: 3, x: {y: [1]}}}}`: "",
		`{name: server, role: edge, endpoint: {url: "http://u:p@h", model: m}}`:                             "key_env",
		`{name: server, role: edge, endpoint: {url: "h", model: m}}`:                                        "want an address",
		`{name: server, role: edge, endpoint: {url: "http://h"}}`:                                           "model is missing",
		`{name: server, role: edge, device: host, endpoint: {url: "http://h", model: m}}`:                   "without a device",
		`{name: server, role: edge, endpoint: {url: "http://h", model: m, api: x}}`:                         "completions or chat",
		`{name: server, role: edge}`: "device is missing",
	} {
		path := filepath.Join(t.TempDir(), "mine.yaml")
		require.NoError(t, os.WriteFile(path, []byte("name: mine\nsummary: s\napps: [ar]\nnodes:\n  - {name: user, role: device, per_user: true}\n  - "+text+"\nlinks: []\n"), 0o644))
		err := (&Lab{}).CheckSite(path)
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
}

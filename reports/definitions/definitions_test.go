package definitions

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/reports"
)

const ms = time.Millisecond

// worked is the worked example of record's views: scheduled 0, sent 100 ms, a
// role-only chunk at 150, text at 300, then 4, 4 and 2 tokens at 400, 500 and 600.
func worked(id int) *record.Request {
	r := new(record.Request)
	r.Reset(id, 0)
	r.AskedTokens, r.Released, r.Sent = 11, 0, 100*ms
	r.Spent(record.Compute, "n", 0, 600*ms)
	r.Empty(150 * ms)
	r.Token(300*ms, 1)
	r.Token(400*ms, 4)
	r.Token(500*ms, 4)
	r.Token(600*ms, 2)
	r.Finish(600*ms, nil)
	return r
}

// A run of the worked example and of a request that failed: limits of TTFT 250 and TPOT 46 ms, which the
// tools that start their clock at the send keep, and those that count from the
// schedule miss.
func TestWorkedExampleUnderEveryDefinition(t *testing.T) {
	dir := t.TempDir() + "/run"
	run, err := results.Create(dir, results.Manifest{Command: []string{"x"}, Expected: 1, Seeds: []string{"1"}})
	require.NoError(t, err)
	c := record.Cell{Suite: "s", Name: "only", App: "chat", Pipeline: "local", Mode: "measured", Valid: true, Horizon: 2 * time.Second, TTFTLimit: 250 * ms, TPOTLimit: 46 * ms}
	w, err := run.Begin(c)
	require.NoError(t, err)
	require.NoError(t, w.Row(worked(0)))
	lost := new(record.Request) // quicker, but it failed: in no median, and good for nobody
	lost.Reset(1, 0)
	lost.AskedTokens, lost.Released, lost.Sent = 11, 0, 100*ms
	lost.Spent(record.Compute, "n", 0, 120*ms)
	lost.Token(110*ms, 1)
	lost.Token(112*ms, 1)
	lost.Finish(120*ms, errors.New("lost"))
	require.NoError(t, w.Row(lost))
	require.NoError(t, w.End(c))
	require.NoError(t, run.Finish())
	data, err := reports.Load(dir)
	require.NoError(t, err)
	views, err := Named("all")
	require.NoError(t, err)
	s, err := Section(data, views)
	require.NoError(t, err)
	want := map[string][5]string{ // TTFT, TPOT, ITL, good, goodput: see the test of record's views
		"aiperf":         {"200 ms", "–", "30.0 ms", "50 %", "0.50"},
		"guidellm":       {"200 ms", "45.5 ms", "30.0 ms", "50 %", "0.50"},
		"inference-perf": {"200 ms", "30.0 ms", "100.0 ms", "50 %", "0.50"},
		"llmperf":        {"200 ms", "–", "45.5 ms", "–", "–"},
		"loadgen/v6":     {"300 ms", "30.0 ms", "–", "–", "–"},
		"ours":           {"300 ms", "30.0 ms", "100.0 ms", "0 %", "0"},
		"vllm":           {"50.0 ms", "45.0 ms", "112 ms", "50 %", "0.50"},
	}
	rows := s.Tables[0].Groups[0].Rows
	require.Len(t, rows, len(want))
	for _, r := range rows {
		id := r.Values[0].Text
		for i, w := range want[id] {
			require.Equal(t, w, r.Values[i+1].Text, "%s, column %d", id, i)
		}
	}
	var text, page, markdown bytes.Buffer
	require.NoError(t, Text(&text, s))
	rep := reports.Build(data, s)
	require.NoError(t, rep.HTML(&page))
	require.NoError(t, rep.Markdown(&markdown))
	for _, out := range []string{text.String(), page.String(), markdown.String()} {
		for id := range want {
			require.Contains(t, strings.ReplaceAll(out, "\\", ""), id)
		}
		require.Contains(t, out, "112 ms")
	}
}

func TestNames(t *testing.T) {
	views, err := Named("vllm,ours")
	require.NoError(t, err)
	require.Len(t, views, 2)
	_, err = Named("vlm")
	require.ErrorContains(t, err, `no definition is called "vlm": have all, aiperf,`)
}

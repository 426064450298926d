package results

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/internal/golden"
)

// What the interop test fetches; docs/reading-results.md names the same.
var npmPackages = []string{"apache-arrow@21.2.0", "@duckdb/node-api@1.5.6-r.1"}

// interop returns a function that asks a run folder in SQL, by scripts/interop.
func interop(t *testing.T) (query func(dir, sql string) []map[string]any) {
	t.Helper()
	if os.Getenv("MEIBENCH_NPM") == "" {
		t.Skipf("fetches the npm packages %s: set MEIBENCH_NPM=1, or run make clients", strings.Join(npmPackages, ", "))
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: %v", tool, err)
		}
	}
	dir := t.TempDir()
	if out, err := exec.Command("npm", append([]string{"install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund"}, npmPackages...)...).CombinedOutput(); err != nil {
		t.Skipf("npm cannot fetch %s: %v: %s", strings.Join(npmPackages, ", "), err, out)
	}
	script, err := os.ReadFile("../../scripts/interop/query.mjs")
	require.NoError(t, err)
	path := filepath.Join(dir, "query.mjs")
	require.NoError(t, os.WriteFile(path, script, 0o644))
	return func(run, sql string) (rows []map[string]any) {
		cmd := exec.Command("node", path, run, sql)
		var complaint strings.Builder
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		require.NoError(t, err, complaint.String())
		require.NoError(t, json.Unmarshal(out, &rows), string(out))
		return rows
	}
}

// number is a value of DuckDB's JSON, where 64-bit integers are text.
func number(t *testing.T, v any) float64 {
	f, err := strconv.ParseFloat(fmt.Sprint(v), 64)
	require.NoError(t, err, "%v", v)
	return f
}

// DuckDB and apache-arrow read what Go wrote: counts, sums, nulls and lists of
// requests and spans, and the quantiles that cells holds, from the rows by SQL.
func TestDuckDBReadsWhatWasWritten(t *testing.T) {
	query := interop(t)
	dir := filepath.Join(t.TempDir(), "run")
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	play(t, run, 2, 2, 300)
	require.NoError(t, run.Finish())
	set, err := Read(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()

	var rows, spans, tokens, up, unknown, chunks, failed float64
	var radio float64
	for i := range set.Runs() {
		for r, err := range set.Full(i) {
			require.NoError(t, err)
			rows, spans = rows+1, spans+float64(len(r.Spans))
			tokens, up, chunks = tokens+float64(r.OutputTokens), up+float64(r.UpBytes), chunks+float64(len(r.Chunks))
			if e := r.Energy[record.RadioPart]; !e.Known() {
				unknown++
			} else {
				radio += float64(e.Joules)
			}
			if r.Outcome != record.OK {
				failed++
			}
		}
	}
	require.Positive(t, failed)
	require.Positive(t, unknown)
	got := query(dir, `SELECT count(*) AS rows, (SELECT count(*) FROM spans) AS spans, sum(output_tokens) AS tokens, sum(up_bytes) AS up,
		count(*) FILTER (energy_radio IS NULL) AS unknown, coalesce(sum(energy_radio), 0) AS radio, sum(len(chunk_at_ns)) AS chunks, count(*) FILTER (outcome <> 'ok') AS failed FROM requests`)[0]
	for name, want := range map[string]float64{"rows": rows, "spans": spans, "tokens": tokens, "up": up, "unknown": unknown, "radio": radio, "chunks": chunks, "failed": failed} {
		require.InDelta(t, want, number(t, got[name]), 1e-9*max(1, want), name)
	}

	perRun := query(dir, `WITH r AS (SELECT cell, repeat, quantile_disc((done_ns - intended_ns) / 1e9, 0.99) AS p99, quantile_disc((first_token_ns - intended_ns) / 1e9, 0.5) AS p50
		FROM requests WHERE outcome = 'ok' GROUP BY ALL)
		SELECT cell, repeat, p99, p50, e2e_p99, ttft_p50 FROM r JOIN cells USING (cell, repeat) ORDER BY cell, repeat`)
	require.Len(t, perRun, len(set.Runs()))
	for i, c := range set.Runs() {
		for _, v := range c.Values {
			switch v.Metric.Name {
			case "e2e_p99":
				require.Equal(t, []float64{v.V, v.V}, []float64{number(t, perRun[i]["p99"]), number(t, perRun[i]["e2e_p99"])})
			case "ttft_p50":
				require.Equal(t, []float64{v.V, v.V}, []float64{number(t, perRun[i]["p50"]), number(t, perRun[i]["ttft_p50"])})
			}
		}
	}
	for _, sql := range docQueries(t) { // what the guide shows runs
		require.NotEmpty(t, query(dir, sql), sql)
	}
}

const guide = "../../docs/reading-results.md"

// docQueries are the guide's SQL blocks.
func docQueries(t *testing.T) (out []string) {
	text, err := os.ReadFile(guide)
	require.NoError(t, err)
	for _, part := range strings.Split(string(text), "```sql\n")[1:] {
		sql, _, _ := strings.Cut(part, "```")
		out = append(out, sql)
	}
	require.GreaterOrEqual(t, len(out), 2)
	return out
}

// The guide's tables of columns are those of the files (-update rewrites them),
// and it names the packages that the test fetches.
func TestGuideNamesEveryColumn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	play(t, run, 1, 4, 60)
	require.NoError(t, run.Finish())
	set, err := Read(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()
	var b strings.Builder
	for _, file := range []string{RequestsFile, SpansFile, CellsFile} {
		fmt.Fprintf(&b, "\n`%s`:\n\n| column | type | unit | may be null |\n|---|---|---|---|\n", file)
		cols, err := set.Columns(file)
		require.NoError(t, err)
		for _, c := range cols {
			if m, ok := record.Lookup(c.Name); ok && m.Scope == record.PerRun && file == CellsFile {
				continue
			}
			kind, null := c.Type, ""
			if c.List {
				kind = "list of " + kind
			}
			if c.Nullable {
				null = "yes"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.Name, kind, c.Unit, null)
		}
	}
	text, err := os.ReadFile(guide)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), "<!-- columns -->\n")
	require.True(t, ok)
	_, after, ok := strings.Cut(rest, "\n<!-- end of columns -->")
	require.True(t, ok)
	want := before + "<!-- columns -->\n" + b.String() + "\n<!-- end of columns -->" + after
	if golden.Updating() {
		require.NoError(t, os.WriteFile(guide, []byte(want), 0o644))
		return
	}
	require.Equal(t, want, string(text), "go test ./harness/results -update rewrites the tables")
	require.Contains(t, string(text), "npm install "+strings.Join(npmPackages, " "))
}

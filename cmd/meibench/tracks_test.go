package main

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTraceOfACell: run and report write the same trace of the same cell, packed or not;
// what is not one cell is refused with the names that there are.
func TestTraceOfACell(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	sel := []string{"run", "--mode", "modelled", "--app", "ar", "--pipeline", "offload", "--set", "site=phone-5g-edge", "--no-report", "-q"}
	code, _, errOut := do(t, append(sel, "--out", at("one"), "--trace", at("run.json"))...)
	require.Equal(t, 0, code, errOut)
	first, err := os.ReadFile(at("run.json"))
	require.NoError(t, err)
	var doc struct{ TraceEvents []map[string]any }
	require.NoError(t, json.Unmarshal(first, &doc))
	require.Greater(t, len(doc.TraceEvents), 100)

	code, _, errOut = do(t, "report", at("one"), "--trace", at("again.json.gz"))
	require.Equal(t, 0, code, errOut)
	f, err := os.Open(at("again.json.gz"))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	again, err := io.ReadAll(z)
	require.NoError(t, err)
	require.Equal(t, string(first), string(again))

	code, _, errOut = do(t, "report", at("one"), "--trace", at("x.json"), "--cell", "nothing")
	require.Equal(t, 2, code)
	require.Contains(t, errOut, `there is no cell "nothing"`)
	require.Contains(t, errOut, "pipeline=offload")
	require.NoFileExists(t, at("x.json"))
	code, _, errOut = do(t, "report", at("one"), "--cell", "nothing")
	require.Equal(t, 2, code)
	require.Contains(t, errOut, "--cell belongs to --trace")
	code, _, errOut = do(t, "run", "--mode", "modelled", "--dry-run", "--trace", at("x.json"))
	require.Equal(t, 2, code)
	require.Contains(t, errOut, "a trace holds one cell and this run has 15")
}

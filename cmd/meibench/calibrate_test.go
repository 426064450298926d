package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/results"
)

// The commands of docs/twin.md are commands, with flags that exist. Measured runs take
// minutes of a machine that does nothing else: they are checked, not run.
func TestCommandsOfTheGuideToTwins(t *testing.T) {
	text, err := os.ReadFile("../../docs/twin.md")
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	ran := 0
	for _, block := range strings.Split(string(text), "```console\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for _, line := range strings.Split(strings.TrimSpace(block), "\n") {
			args, ok := strings.CutPrefix(line, "$ go run ./cmd/meibench ")
			require.True(t, ok, line)
			if strings.HasPrefix(args, "run ") {
				code, out, errOut := do(t, append(strings.Fields(args), "--dry-run")...)
				require.Zero(t, code, errOut)
				require.Contains(t, out, "run(s) of cells")
			} else { // the folders are not there: any other complaint is about the command
				code, _, errOut := do(t, strings.Fields(args)...)
				require.Equal(t, exitUsage, code)
				require.Contains(t, errOut, "observed")
				require.NotContains(t, errOut, "flag")
			}
			ran++
		}
	}
	require.Equal(t, 4, ran)
}

func TestCalibrateRefusesInWords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	code, _, errOut := do(t, "run", "quickstart", "--mode", "modelled", "--app", "ar", "--pipeline", "local", "--set", "requests=2", "--out", dir, "-q", "--no-report")
	require.Zero(t, code, errOut)
	code, _, errOut = do(t, "calibrate", dir)
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, "has no measured cells, so there is nothing to calibrate by: observe first, with meibench run --mode measured")
	code, _, errOut = do(t, "calibrate", filepath.Join(dir, "nowhere"))
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, "nowhere")
	code, _, _ = do(t, "calibrate")
	require.Equal(t, exitUsage, code)

	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	require.Equal(t, "fitted", set.Runs()[0].Cell.Tier, "the quick measurement of a run times its models")
}

// A measured run is calibrated by, whatever this machine does meanwhile: where all its
// cells are INVALID the answer says so.
func TestCalibrateByAMeasuredRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	_, _, errOut := do(t, "run", "quickstart", "--mode", "measured", "--app", "assistant", "--pipeline", "local", "--set", "requests=24", "--set", "rate=60", "--out", dir, "-q", "--no-report")
	out := filepath.Join(t.TempDir(), "host.yaml")
	code, text, said := do(t, "calibrate", dir, "--out", out, "--json")
	if code != 0 {
		require.Contains(t, said, "are INVALID, so they say nothing about the machine")
		require.Contains(t, errOut, "INVALID")
		return
	}
	var got []compared
	require.NoError(t, json.Unmarshal([]byte(text), &got))
	require.Len(t, got, 1)
	require.Equal(t, dir, got[0].Run)
	require.Len(t, got[0].Pairs, 3)
	require.Equal(t, "fitted", got[0].Pairs[0].Tier)
	require.Positive(t, got[0].Pairs[0].Measured["p50"])
	require.NotNil(t, got[0].Pairs[0].Inside)
	require.FileExists(t, out)
	code, _, said = do(t, "run", "quickstart", "--mode", "modelled", "--app", "assistant", "--pipeline", "local", "--profile", out, "--out", dir+"2", "-q", "--no-report")
	require.Zero(t, code, said)
}

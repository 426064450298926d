package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/sweep"
)

func TestList(t *testing.T) {
	for want, shards := range map[string][]int{"": nil, "4": {4}, "0-3": {0, 1, 2, 3}, "0,2-3,7": {0, 2, 3, 7}} {
		require.Equal(t, want, list(shards))
	}
}

func TestExitCodes(t *testing.T) {
	text := "JobId=5 ArrayJobId=5 ArrayTaskId=3 JobName=x JobState=FAILED Reason=NonZeroExitCode ExitCode=42:0 RunTime=00:00:01\n" +
		"JobId=6 ArrayJobId=5 ArrayTaskId=12 JobName=x JobState=COMPLETED ExitCode=0:0 RunTime=00:00:01\n" +
		"JobId=7 ArrayJobId=5 ArrayTaskId=13 JobName=x JobState=FAILED ExitCode=0:9\n"
	require.Equal(t, map[int]int{3: 42, 12: 0, 13: 0}, exitCodes(text))
	require.Empty(t, exitCodes("JobId=5 ArrayJobId=5 ArrayTaskId=4-9 JobState=PENDING ExitCode=0:0\n"))
}

// fake puts programs into the PATH that do what sbatch and scontrol do to the caller.
func fake(t *testing.T, sbatch, scontrol string) {
	dir := t.TempDir()
	for name, text := range map[string]string{"sbatch": sbatch, "scontrol": scontrol, "meibench": "echo merged $*"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	}
	t.Setenv("PATH", dir+":/bin:/usr/bin")
}

// TestShardsThatMustNotBeRetriedAreNot: exit code 42 is sent once, other failures -tries times.
func TestShardsThatMustNotBeRetriedAreNot(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, sweep.File), []byte(`{"format":"meibench.sweep/v1","shards":3,"command":[],"plan":{"format":"meibench.plan/v1","suites":[],"models":{},"profiles":{}}}`), 0o644))
	log := filepath.Join(t.TempDir(), "log")
	fake(t, `case "$*" in *--parsable*) echo "$*" >> `+log+`; echo "8;cluster";; *afterany:8*) ;; *) exit 1;; esac`,
		`case "$*" in *config*) echo "MaxArraySize            = 100";; *) echo "JobId=9 ArrayTaskId=1 ExitCode=42:0"; echo "JobId=10 ArrayTaskId=2 ExitCode=1:0";; esac`)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer out.Close()
	a := array{dir: dir, out: "results", program: "meibench", tries: 3, say: out, table: out}
	require.NoError(t, a.run())
	sent, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, "--parsable --array=0-2 array.sbatch\n--parsable --array=0,2 array.sbatch\n--parsable --array=0,2 array.sbatch\n", string(sent))
	said, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	require.Contains(t, string(said), "job 8: shards 0,2\nmerged merge "+dir+" --out results")

	fake(t, "exit 1", `echo "MaxArraySize = 3"`)
	require.NoError(t, fits(3))
	require.ErrorContains(t, fits(4), "--shards 3")
	t.Setenv("PATH", context.Canceled.Error())
	require.ErrorContains(t, fits(1), "scontrol is not here")
}

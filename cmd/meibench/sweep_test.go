package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/results"
)

func equalFolders(t *testing.T, want, got string) {
	t.Helper()
	for _, name := range []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile, "plan.json"} {
		a, err := os.ReadFile(filepath.Join(want, name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(got, name))
		require.NoError(t, err)
		require.True(t, string(a) == string(b), name)
	}
}

func TestSweepAndMergeLeaveWhatARunLeaves(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	what := []string{"placement", "--app", "driving", "--set", "requests=10,20", "--repeat", "2", "--seed", "7"}
	with := func(verb string, more ...string) []string {
		return append(append([]string{verb, "-q"}, what...), more...)
	}
	ran(t, with("run", "--no-report", "--out", at("run"), "--jobs", "2")...)

	refusedWith(t, 2, "no suite or plan is named", "sweep", "--out", at("s"))
	require.Contains(t, ran(t, with("sweep", "--out", at("s"), "--shard", "1/3")...), "1 of 3 shards are done")
	refusedWith(t, 4, "shard-0: it never began; shard-2: it never began", "merge", at("s"), "--out", at("m"))
	t.Setenv("SLURM_ARRAY_TASK_ID", "0")
	t.Setenv("SLURM_ARRAY_TASK_COUNT", "3")
	require.Contains(t, ran(t, "sweep", "-q", "--out", at("s"), "--shard", "auto"), "shard 0/3 is done")
	require.Contains(t, ran(t, "sweep", "-q", "--out", at("s")), "next: meibench merge")
	require.Contains(t, ran(t, "merge", "-q", at("s"), "--out", at("m")), "report: ")
	equalFolders(t, at("run"), at("m"))
	set, err := results.Read(at("m"))
	require.NoError(t, err)
	require.NoError(t, set.Close())
	require.Equal(t, []string{"meibench", "run", "placement", "--app=driving", "--repeat=2", "--seed=7", "--set=requests=10,20"}, set.Manifest.Command)
	ran(t, "verify", at("m"))
	ran(t, "compare", at("run"), at("m"))

}

func TestSweepOfAPlan(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ran(t, "log", "init", at("log"), "--origin", "board.example")
	ran(t, "plan", "placement", "--app", "driving", "--set", "requests=10", "--out", at("p.json"))
	ran(t, "sweep", "-q", at("p.json"), "--out", at("s"), "--shards", "2")
	ran(t, "merge", "-q", "--no-report", at("s"), "--out", at("m"))
	ran(t, "run", "-q", "--no-report", "--plan", at("p.json"), "--out", at("run"))
	equalFolders(t, at("run"), at("m"))

	ran(t, "plan", at("p.json"), "--commit", at("log"))
	ran(t, "sweep", "-q", at("p.json"), "--out", at("s2"), "--shards", "2")
	ran(t, "merge", "-q", "--no-report", at("s2"), "--out", at("m2"))
	ran(t, "run", "-q", "--no-report", "--plan", at("p.json"), "--log", at("log"), "--out", at("run2"))
	equalFolders(t, at("run2"), at("m2"))
	require.FileExists(t, at("m2/receipt.json"), "the seed is that of the log")
}

// TestSweepExitCodes: what another try would not mend is 42 where a cluster asks for a
// shard, 2 where a person asks for a sweep.
func TestSweepExitCodes(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ran(t, "sweep", "-q", "placement", "--app", "driving", "--set", "requests=5", "--out", at("s"), "--shard", "0/2")
	for _, tc := range []struct {
		code int
		want string
		args string
	}{
		{2, "--out is missing", "sweep placement"},
		{42, "--out is missing", "sweep placement --shard 0/2"},
		{42, "want i/n", "sweep --shard 2/2 --out " + at("s")},
		{42, "the sweep is in 2 shards", "sweep --shard 0/3 --out " + at("s")},
		{42, "this is no task of a Slurm array", "sweep --shard auto --out " + at("s")},
		{42, "a sweep of another plan", "sweep placement --app driving --set requests=6 --shard 1/2 --out " + at("s")},
		{2, "a sweep of another plan", "sweep placement --app driving --set requests=6 --out " + at("s")},
		{2, "is a sweep in 2 shards, not 3", "sweep --shards 3 --out " + at("s")},
		{42, "unknown suite", "sweep nosuch --shard 0/2 --out " + at("t")},
		{2, "unknown suite", "sweep nosuch --out " + at("t")},
		{2, "unknown backend", "sweep --backend pbs --out " + at("s")},
		{42, "leave out one of them", "sweep --backend k8s --shard 0/2 --out " + at("s")},
		{2, "want 1 or more", "sweep --jobs -1 --out " + at("s")},
		{2, "--image", "sweep --backend k8s --claim data --folder /data/s --out " + at("s")},
		{4, "shard-1: it never began", "merge " + at("s") + " --out " + at("m")},
		{2, "--out is missing", "merge " + at("s")},
		{2, "holds no sweep", "merge " + at("none") + " --out " + at("m")},
		{2, "--jobs -1", "run placement --jobs -1"},
	} {
		refusedWith(t, tc.code, tc.want, strings.Fields(tc.args)...)
	}
	require.NoError(t, os.Remove(at("s/shard-0/spans.arrow")))
	ran(t, "sweep", "-q", "--out", at("s"))
	refusedWith(t, 2, "shard-0: damaged", "merge", at("s"), "--out", at("m"))
	require.NoError(t, os.Remove(at("s/shard-0/DONE")))
	refusedWith(t, 2, "shard-0: it has no mark DONE", "merge", at("s"), "--out", at("m"))
}

func TestFilesForClusters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	out := ran(t, "sweep", "placement", "--app", "driving", "--out", dir, "--shards", "4", "--backend", "slurm", "--at-once", "2", "--cpus", "3", "--time", "90m", "--program", "/opt/mei bench")
	require.Contains(t, out, "4 shards, 15 runs of cells\nnext: cd "+dir+" && sbatch --array=0-3 array.sbatch")
	text, err := os.ReadFile(filepath.Join(dir, "array.sbatch"))
	require.NoError(t, err)
	require.Contains(t, string(text), "#SBATCH --time=01:30:00\nexec '/opt/mei bench' sweep --out '"+dir+"' --shard auto --shards 4 --jobs 3 --quiet\n")
	require.NotContains(t, string(text), "--exclusive", "modelled cells share a machine")
	ran(t, "sweep", "--out", dir, "--backend", "k8s", "--image", "registry.example/meibench:1", "--claim", "data", "--folder", "/data/s")
	text, err = os.ReadFile(filepath.Join(dir, "job.yaml"))
	require.NoError(t, err)
	require.Contains(t, string(text), "completions: 4\n")
}

// TestCommandsOfTheGuideToSweeps: those of docs/sweeps.md work as they stand there, in
// their order; of those for clusters, the flags exist.
func TestCommandsOfTheGuideToSweeps(t *testing.T) {
	text, err := os.ReadFile("../../docs/sweeps.md")
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	ran, parsed := 0, 0
	for _, block := range strings.Split(string(text), "\n```")[1:] {
		kind, body, _ := strings.Cut(block, "\n")
		for line := range strings.Lines(body) {
			if args, ok := strings.CutPrefix(line, "$ go run ./cmd/meibench "); ok && kind == "console" {
				code, _, errOut := do(t, append(strings.Fields(args), "-q")...)
				require.Zero(t, code, "%s: %s", line, errOut)
				ran++
			}
			if args, ok := strings.CutPrefix(line, "meibench "); ok && kind == "sh" {
				c, rest, err := newRoot(&app{out: io.Discard, err: io.Discard}).Find(strings.Fields(args))
				require.NoError(t, err, line)
				require.NoError(t, c.ParseFlags(rest), line)
				parsed++
			}
		}
	}
	require.Equal(t, []int{7, 4}, []int{ran, parsed})
	for _, name := range []string{"runs/a", "runs/b"} {
		require.FileExists(t, filepath.Join(name, "report.html"))
	}
}

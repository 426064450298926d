package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// repository is a Go module in git of two commits: the second's benchmark takes
// five times as long. Each turn appends its side to a file.
func repository(t *testing.T) (dir string, turns func() string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not here")
	}
	dir = t.TempDir()
	order := filepath.Join(t.TempDir(), "order")
	t.Setenv("TURNS", order)
	git := func(args ...string) {
		cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	write := func(side string, loops int) {
		text := fmt.Sprintf("package toy\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nvar sink int\n\nfunc TestMain(m *testing.M) {\n\tf, _ := os.OpenFile(os.Getenv(\"TURNS\"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)\n\tf.WriteString(%q)\n\tf.Close()\n\tos.Exit(m.Run())\n}\n\nfunc BenchmarkLoop(b *testing.B) {\n\tfor range b.N {\n\t\tfor i := range %d {\n\t\t\tsink += i\n\t\t}\n\t}\n}\n", side, loops)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "toy_test.go"), []byte(text), 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module toy\n\ngo 1.26\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "toy.go"), []byte("package toy\n"), 0o644))
	git("init", "-q")
	write("A", 200_000)
	git("add", ".")
	git("commit", "-q", "-m", "fast")
	git("tag", "fast")
	write("B", 1_000_000)
	git("commit", "-q", "-a", "-m", "slow")
	return dir, func() string {
		b, err := os.ReadFile(order)
		require.NoError(t, err)
		return string(b)
	}
}

func (j *job) try(t *testing.T, ctx context.Context) (worse int, out string, err error) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	var o, e bytes.Buffer
	j.stdout, j.stderr = &o, &e
	worse, err = j.run(ctx)
	left, lerr := os.ReadDir(os.TempDir())
	require.NoError(t, lerr)
	for _, f := range left {
		require.NotContains(t, f.Name(), "meibench-compare", "nothing stays behind")
	}
	trees, gerr := j.git(context.Background(), "worktree", "list", "--porcelain")
	require.NoError(t, gerr)
	require.Equal(t, 1, strings.Count(trees, "worktree "), "the worktrees are gone")
	return worse, o.String() + e.String(), err
}

func TestTwoCommitsTakeTurns(t *testing.T) {
	dir, turns := repository(t)
	j := &job{repo: dir, base: "fast", head: "HEAD", pkgs: []string{"./..."}, bench: ".", time: "100x", count: 6, procs: 1, metrics: []string{"sec/op"}, out: filepath.Join(t.TempDir(), "out")}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "toy.go"), []byte("package toy // changed\n"), 0o644))
	worse, out, err := j.try(t, context.Background())
	require.NoError(t, err, out)
	require.Equal(t, 1, worse, out)
	require.Contains(t, out, "slower")
	require.Contains(t, out, "not committed")
	require.Contains(t, out, "cmd/benchstat "+filepath.Join(j.out, "old.txt"))
	require.Equal(t, "ABBAABBAABBA", turns())
	for _, name := range []string{"old.txt", "new.txt"} {
		b, err := os.ReadFile(filepath.Join(j.out, name))
		require.NoError(t, err)
		require.Equal(t, 6, strings.Count(string(b), "BenchmarkLoop"), name)
		require.Contains(t, string(b), "pkg: toy\n")
		require.NotContains(t, string(b), "PASS")
	}
	_, _, err = j.try(t, context.Background())
	require.ErrorContains(t, err, "holds files: choose another -out")
}

func TestRefusals(t *testing.T) {
	dir, _ := repository(t)
	base := job{repo: dir, base: "fast", head: "HEAD", pkgs: []string{"./..."}, bench: ".", count: 1, procs: 1}
	for name, tc := range map[string]struct {
		change func(*job)
		want   string
	}{
		"no base":              {func(j *job) { j.base = "" }, "make compare BASE=main"},
		"a base that is none":  {func(j *job) { j.base = "fats" }, "fats is no commit of the repository"},
		"no turns":             {func(j *job) { j.count = 0 }, "want at least 1"},
		"no such package":      {func(j *job) { j.pkgs = []string{"./none"} }, "go list"},
		"a bad regexp":         {func(j *job) { j.bench = "(" }, "error parsing regexp"},
		"a suite of elsewhere": {func(j *job) { j.suite = "quickstart" }, "cmd/meibench"},
	} {
		t.Run(name, func(t *testing.T) {
			j := base
			j.out = filepath.Join(t.TempDir(), "out")
			tc.change(&j)
			_, _, err := j.try(t, context.Background())
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// A Ctrl-C in the middle of a benchmark of a minute leaves nothing behind.
func TestInterrupted(t *testing.T) {
	dir, _ := repository(t)
	j := &job{repo: dir, base: "fast", head: "HEAD", pkgs: []string{"./..."}, bench: ".", time: "60s", count: 1, procs: 1, out: filepath.Join(t.TempDir(), "out")}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for { // until the first turn has begun
			if b, err := os.ReadFile(os.Getenv("TURNS")); err == nil && len(b) > 0 {
				cancel()
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	_, _, err := j.try(t, ctx)
	require.ErrorContains(t, err, "interrupted")
	require.ErrorIs(t, err, context.Canceled)
}

func TestTurns(t *testing.T) {
	var order string
	for round := range 4 {
		for place := range 2 {
			order += []string{"A", "B"}[turn(round, place)]
		}
	}
	require.Equal(t, "ABBAABBA", order)
}

// Command compare benchmarks two commits of a repository, interleaved, and says
// what changed between them.
//
//	go run ./scripts/compare -base main
//	go run ./scripts/compare -base v1 -head v2 -bench Attention -pkg ./reference/... -count 20
//	go run ./scripts/compare -base main -suite quickstart -- --mode measured
//
// Both commits are checked out into worktrees in a temporary folder, and all test
// programs are built before the first is run. Then they take turns, old new new
// old, so that a machine that warms up or slows down does so for both alike. Each
// turn is one line a benchmark in old.txt and new.txt, which any benchstat reads.
// With -suite the two builds of meibench run a suite in turns instead, each turn
// with a seed of its own that both have, so that runs are compared in pairs.
//
// What is not committed is not measured. The worktrees go when the command ends,
// also by Ctrl-C. Exit codes: 0 nothing got worse, 1 something did, 2 it could not
// be told.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"meibench/reports/compare"
)

// job is what is compared.
type job struct {
	repo       string
	base, head string
	pkgs       []string
	bench      string
	time       string // of a benchmark, as -benchtime
	count      int
	procs      int
	metrics    []string
	out        string
	suite      string
	args       []string // for meibench run
	stdout     io.Writer
	stderr     io.Writer
}

func main() {
	j := &job{stdout: os.Stdout, stderr: os.Stderr}
	var pkgs, metrics string
	flag.StringVar(&j.repo, "repo", ".", "folder of the repository")
	flag.StringVar(&j.base, "base", "", "commit to compare with: a branch, a tag or a hash")
	flag.StringVar(&j.head, "head", "HEAD", "commit to judge")
	flag.StringVar(&pkgs, "pkg", "./...", "packages, separated by spaces")
	flag.StringVar(&j.bench, "bench", ".", "benchmarks, as go test -bench")
	flag.StringVar(&j.time, "benchtime", "", "time of each turn of a benchmark, as go test -benchtime (default 1s)")
	flag.IntVar(&j.count, "count", 10, "turns of each commit: four can show a difference, ten a small one")
	flag.IntVar(&j.procs, "procs", runtime.NumCPU(), "GOMAXPROCS of all turns")
	flag.StringVar(&metrics, "metric", "sec/op", "units to judge, separated by commas; empty for all")
	flag.StringVar(&j.out, "out", "runs/compare", "folder for old.txt and new.txt, or the run folders of -suite")
	flag.StringVar(&j.suite, "suite", "", "compare meibench run of this suite instead; flags for it come after --")
	flag.Parse()
	j.pkgs, j.args = strings.Fields(pkgs), flag.Args()
	if metrics != "" && j.suite == "" {
		j.metrics = strings.Split(metrics, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	worse, err := j.run(ctx)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	case worse > 0:
		fmt.Fprintf(os.Stderr, "compare: %d got slower or worse\n", worse)
		os.Exit(1)
	}
}

// side is one commit, checked out.
type side struct {
	name string // old or new
	hash string
	dir  string // of the worktree
}

// run compares, and reports how many figures got worse.
func (j *job) run(ctx context.Context) (worse int, err error) {
	if j.base == "" {
		return 0, errors.New("no commit to compare with: make compare BASE=main, or -base main")
	}
	if j.count < 1 || j.procs < 1 {
		return 0, fmt.Errorf("-count %d, -procs %d: want at least 1", j.count, j.procs)
	}
	if entries, err := os.ReadDir(j.out); err == nil && len(entries) > 0 {
		return 0, fmt.Errorf("%s is there and holds files: choose another -out (OUT= of make), or remove it", j.out)
	}
	scratch, err := os.MkdirTemp("", "meibench-compare-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	var sides [2]side
	for i, s := range []struct{ name, rev string }{{"old", j.base}, {"new", j.head}} {
		hash, err := j.git(ctx, "rev-parse", "--verify", "--quiet", s.rev+"^{commit}")
		if err != nil {
			return 0, fmt.Errorf("%s is no commit of the repository in %s (git log shows them)", s.rev, j.repo)
		}
		sides[i] = side{s.name, hash, filepath.Join(scratch, s.name)}
	}
	j.warn(ctx, sides)
	defer func() { // after a Ctrl-C too, which ends ctx
		for _, s := range sides {
			if _, serr := os.Stat(s.dir); serr == nil {
				_, rerr := j.git(context.WithoutCancel(ctx), "worktree", "remove", "--force", s.dir)
				err = errors.Join(err, rerr)
			}
		}
	}()
	for _, s := range sides {
		if _, err := j.git(ctx, "worktree", "add", "--quiet", "--detach", s.dir, s.hash); err != nil {
			return 0, err
		}
	}
	if err := os.MkdirAll(j.out, 0o755); err != nil {
		return 0, err
	}
	paths, err := j.measure(ctx, sides, scratch)
	if err != nil {
		return 0, err
	}
	return j.judge(paths)
}

// measure makes the results of both sides.
func (j *job) measure(ctx context.Context, sides [2]side, scratch string) (paths [2][]string, err error) {
	if j.suite != "" {
		return j.suites(ctx, sides, scratch)
	}
	programs, err := j.build(ctx, sides, scratch)
	if err != nil {
		return paths, err
	}
	return j.benchmarks(ctx, sides, programs)
}

func (j *job) warn(ctx context.Context, sides [2]side) {
	if sides[0].hash == sides[1].hash {
		fmt.Fprintf(j.stderr, "warning: both sides are commit %.12s: what differs is noise\n", sides[0].hash)
	}
	if changes, err := j.git(ctx, "status", "--porcelain", "--untracked-files=no"); err == nil && changes != "" && j.head == "HEAD" {
		fmt.Fprintln(j.stderr, "warning: there are changes that are not committed: they are not measured")
	}
	if j.count < 4 && j.suite == "" {
		fmt.Fprintf(j.stderr, "warning: -count %d: four turns are the least that can show a difference\n", j.count)
	}
}

// turn is which side goes at a place of a round: old new, new old, old new, ...
func turn(round, place int) int { return (round + place) % 2 }

// judge prints the comparison.
func (j *job) judge(paths [2][]string) (worse int, err error) {
	old, err := compare.Load(paths[0]...)
	if err != nil {
		return 0, err
	}
	new, err := compare.Load(paths[1]...)
	if err != nil {
		return 0, err
	}
	c, err := compare.Compare(old, new, compare.Options{Metrics: j.metrics})
	if err != nil {
		return 0, err
	}
	if err := c.Text(j.stdout, false); err != nil {
		return 0, err
	}
	if j.suite == "" {
		fmt.Fprintf(j.stdout, "the same by benchstat: go run golang.org/x/perf/cmd/benchstat %s %s\n", paths[0][0], paths[1][0])
	}
	return c.Worse(), nil
}

// git runs git in the repository.
func (j *job) git(ctx context.Context, args ...string) (string, error) {
	return output(ctx, j.repo, nil, append([]string{"git"}, args...)...)
}

// output runs a program and returns what it printed; an error says what it
// complained of.
func output(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("interrupted: %w", ctx.Err())
	case err != nil:
		return "", fmt.Errorf("%s in %s: %w: %s", strings.Join(args, " "), dir, err, tail(complaint.String()+string(out)))
	}
	return strings.TrimRight(string(out), "\n"), nil
}

// tail is the end of a text, where programs say what is wrong.
func tail(text string) string {
	const most = 2000
	text = strings.TrimSpace(text)
	return text[max(0, len(text)-most):]
}

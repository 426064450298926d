package sweep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/plan"
	"meibench/harness/results"
	"meibench/suites"
)

const smallSuite = `
name: small
question: does a sweep leave what a run leaves?
defaults: {site: phone-5g-edge, model: "llama-3.2-1b:q4_0", scale: field, requests: 20, users: 4, mode: modelled, repeats: 3}
matrix:
  app: [assistant, driving]
  pipeline: [local, offload, split]
`

func suite(t *testing.T, set ...suites.Set) *suites.Suite {
	s, err := suites.Parse("small.yaml", []byte(smallSuite), set...)
	require.NoError(t, err)
	return s
}

func planOf(t *testing.T, set ...suites.Set) *plan.Plan {
	p, err := (&harness.Lab{}).Plan(harness.Options{Suites: []*suites.Suite{suite(t, set...)}})
	require.NoError(t, err)
	return p
}

// quiet is a Progress that says nothing.
type quiet struct{}

func (quiet) Cell(int, int, string, int) {}
func (quiet) Request(int)                {}
func (quiet) Note(string, ...any)        {}

func options() Options {
	return Options{Node: "here", Progress: quiet{}, Now: func() time.Time { return time.Unix(1_800_000_000, 0).UTC() }}
}

func begin(t *testing.T, n int, set ...suites.Set) *Dir {
	d, err := Begin(filepath.Join(t.TempDir(), "sweep"), &Sheet{Shards: n, Plan: planOf(t, set...), Command: []string{"meibench", "run", "small.yaml"}})
	require.NoError(t, err)
	return d
}

var tables = []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile, plan.File}

// whole is a run that was never cut.
func whole(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "whole")
	o := options()
	require.NoError(t, harness.Run(context.Background(), &harness.Lab{}, harness.Options{Suites: []*suites.Suite{suite(t)}, Out: dir, Command: []string{"meibench", "run", "small.yaml"}, Progress: o.Progress, Now: o.Now}))
	return dir
}

func manifest(t *testing.T, dir string) results.Manifest {
	s, err := results.Read(dir)
	require.NoError(t, err)
	require.NoError(t, s.Verify())
	require.NoError(t, s.Close())
	return s.Manifest
}

func same(t *testing.T, want, got string) {
	for _, name := range tables {
		a, err := os.ReadFile(filepath.Join(want, name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(got, name))
		require.NoError(t, err)
		require.True(t, string(a) == string(b), "%s differs: %d bytes, want %d", name, len(b), len(a))
	}
	require.Empty(t, Differences(manifest(t, want), manifest(t, got)))
}

// TestBytesDoNotDependOnShards: tables, benchmark text, plan and manifest are those of a
// run that was never cut, for any number of shards, processors and workers.
func TestBytesDoNotDependOnShards(t *testing.T) {
	want := whole(t)
	for n, all := range map[int][]int{1: {4}, 2: {2}, 3: {1, 4}, 7: {2}, 25: {1}} { // 25: seven of them have nothing to do
		for _, procs := range all {
			t.Run(fmt.Sprintf("%d shards, %d processors", n, procs), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				d := begin(t, n)
				for i := range n { // in another order than that of the plan
					require.NoError(t, d.Run(context.Background(), &harness.Lab{}, n-1-i, options()))
				}
				require.NoError(t, d.RunAll(context.Background(), nil, options()), "what is done takes no lab")
				out := filepath.Join(t.TempDir(), "merged")
				info, err := Merge(d.Path, out)
				require.NoError(t, err)
				require.Equal(t, 18, info.Cells)
				require.EqualValues(t, 18*20, info.Rows)
				require.Len(t, info.Marks, n)
				same(t, want, out)
				require.Equal(t, manifest(t, want).Command, manifest(t, out).Command)
				_, err = Merge(d.Path, out)
				require.ErrorContains(t, err, "already holds a run")
			})
		}
	}
}

// TestEveryRunIsInExactlyOneShard of any number of shards, and by nothing but plan and number.
func TestEveryRunIsInExactlyOneShard(t *testing.T) {
	p := planOf(t)
	for n := 1; n <= 40; n++ {
		d := &Dir{Sheet: &Sheet{Shards: n, Plan: p}}
		seen := map[results.Key]int{}
		for i := range n {
			share, err := d.options(i).Share()
			require.NoError(t, err)
			for _, a := range share {
				seen[a.Key()]++
			}
		}
		require.Len(t, seen, p.Runs())
		for k, times := range seen {
			require.Equal(t, 1, times, "%s in %d shards", k, n)
		}
	}
}

// stopper cancels after some cells.
type stopper struct {
	quiet
	mu    sync.Mutex
	after int
	stop  func()
}

func (s *stopper) Cell(int, int, string, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.after--; s.after == 0 {
		s.stop()
	}
}

func TestAnInterruptedSweepGoesOn(t *testing.T) {
	want, d := whole(t), begin(t, 2)
	for after := 1; ; after += 2 {
		ctx, cancel := context.WithCancel(context.Background())
		o := options()
		o.Jobs, o.Progress = 1, &stopper{after: after, stop: cancel}
		err := d.RunAll(ctx, &harness.Lab{}, o)
		cancel()
		if err == nil {
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		_, err = Merge(d.Path, filepath.Join(t.TempDir(), "early"))
		var missing *Incomplete
		require.ErrorAs(t, err, &missing)
		require.NotEmpty(t, missing.Shards)
		if after == 1 {
			require.Equal(t, []string{"shard-0: it was interrupted, or is still running", "shard-1: it never began"}, missing.Shards)
		}
		if after > 20 {
			t.Fatal("it never ends")
		}
		if after == 9 { // as if killed between the mark and the name
			require.NoError(t, d.Run(context.Background(), &harness.Lab{}, 0, options()))
			require.NoError(t, os.Rename(d.Name(0), d.Name(0)+partial))
		}
	}
	out := filepath.Join(t.TempDir(), "merged")
	_, err := Merge(d.Path, out)
	require.NoError(t, err)
	same(t, want, out)
}

func TestAShardThatAnotherProcessRunsIsLeftToIt(t *testing.T) {
	d := begin(t, 2)
	held, err := results.Create(d.Name(0)+partial, results.Manifest{})
	require.NoError(t, err)
	defer held.Close()
	var missing *Incomplete
	require.ErrorAs(t, d.RunAll(context.Background(), &harness.Lab{}, options()), &missing)
	require.Equal(t, []string{"shard-0: another process is running it"}, missing.Shards)
	done, err := d.Status()
	require.NoError(t, err)
	require.Equal(t, 1, done, "the other shard is made")
}

func TestBegin(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sweep")
	var all sync.WaitGroup
	errs, got := make([]error, 16), make([]*Dir, 16)
	for i := range errs { // at once
		p := planOf(t)
		all.Go(func() { got[i], errs[i] = Begin(dir, &Sheet{Shards: 3, Plan: p, Command: []string{fmt.Sprint(i)}}) })
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	for _, d := range got {
		require.Equal(t, got[0].Sheet.Command, d.Sheet.Command, "all have the sheet of the one that wrote it")
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "one sheet, and nothing else")

	require.NoError(t, place(dir, &Sheet{Format: Format, Shards: 9, Plan: planOf(t), Command: []string{"late"}}))
	kept, err := Open(dir)
	require.NoError(t, err)
	require.Equal(t, got[0].Sheet.Command, kept.Sheet.Command, "who comes late replaces nothing")

	var bad *harness.InputError
	_, err = Begin(dir, &Sheet{Shards: 4, Plan: planOf(t)})
	require.ErrorAs(t, err, &bad)
	require.ErrorContains(t, err, "is a sweep in 3 shards, not 4")
	_, err = Begin(dir, &Sheet{Shards: 3, Plan: planOf(t, suites.Set{Key: "requests", Values: []any{9.0}})})
	require.ErrorAs(t, err, &bad)
	require.ErrorContains(t, err, "a sweep of another plan")
	_, err = Begin(t.TempDir(), &Sheet{Shards: 0, Plan: planOf(t)})
	require.ErrorContains(t, err, "0 shards")
	_, err = Open(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, text := range []string{"{", `{"format":"x"}`, `{"format":"meibench.sweep/v1","shards":2}`, `{"format":"meibench.sweep/v1","shards":2,"more":1}`} {
		torn := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(torn, File), []byte(text), 0o644))
		_, err = Open(torn)
		require.ErrorAs(t, err, &bad, text)
	}
}

// TestWhatWasNotPlannedIsNotRun: a plan whose terms this program does not reproduce.
func TestWhatWasNotPlannedIsNotRun(t *testing.T) {
	p := planOf(t)
	p.Suites[0].Cells[0].Contract = "0000"
	d, err := Begin(filepath.Join(t.TempDir(), "sweep"), &Sheet{Shards: 2, Plan: p})
	require.NoError(t, err)
	var bad *harness.InputError
	err = d.Run(context.Background(), &harness.Lab{}, 0, options())
	require.ErrorAs(t, err, &bad)
	require.ErrorContains(t, err, "cannot be run here as it was planned")
	require.NoDirExists(t, d.Name(0)+partial)

	d.Sheet.Host, d.Sheet.CPU = "name: x\n", "a processor of the future"
	err = d.Run(context.Background(), &harness.Lab{}, 0, options())
	require.ErrorAs(t, err, &bad)
	require.ErrorContains(t, err, "where it began (a processor of the future); here it is another")
}

// TestSitesWithNodesHere: all shards have the profile of the machine where the sweep began.
func TestSitesWithNodesHere(t *testing.T) {
	set := []suites.Set{{Key: "site", Values: []any{"this-machine"}}, {Key: "model", Values: []any{"mei-nano"}}, {Key: "scale", Values: []any{"task"}}, {Key: "requests", Values: []any{3.0}}}
	pi, err := profiles.Device("raspberry-pi-5")
	require.NoError(t, err)
	text, err := pi.YAML()
	require.NoError(t, err)
	o, want := options(), filepath.Join(t.TempDir(), "whole")
	require.NoError(t, harness.Run(context.Background(), &harness.Lab{Host: pi}, harness.Options{Suites: []*suites.Suite{suite(t, set...)}, Out: want, Progress: o.Progress, Now: o.Now}))
	d, err := Begin(filepath.Join(t.TempDir(), "sweep"), &Sheet{Shards: 2, Plan: planOf(t, set...), Host: string(text)})
	require.NoError(t, err)
	require.NoError(t, d.RunAll(context.Background(), &harness.Lab{}, o))
	out := filepath.Join(t.TempDir(), "merged")
	_, err = Merge(d.Path, out)
	require.NoError(t, err)
	same(t, want, out)
	a, err := os.ReadFile(filepath.Join(want, hostFile))
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(out, hostFile))
	require.NoError(t, err)
	require.Equal(t, string(a), string(b))
}

func TestNodeName(t *testing.T) {
	env := map[string]string{"SLURMD_NODENAME": "edge3", "MEIBENCH_NODE": "pod-node"}
	get := func(k string) string { return env[k] }
	require.Equal(t, "edge3", NodeName(get))
	delete(env, "SLURMD_NODENAME")
	require.Equal(t, "pod-node", NodeName(get))
	delete(env, "MEIBENCH_NODE")
	name, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, name, NodeName(get))
	require.True(t, slices.IsSorted(HostFacts()))
}

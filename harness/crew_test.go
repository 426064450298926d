package harness

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/results"
	"meibench/suites"
)

// crowdSuite has cells that ask the Lab for every kind of thing that it keeps:
// laws of drafts and exits, a router, an attack, links, devices, two models.
const crowdSuite = `
name: crowd
question: do cells that run side by side disturb each other?
defaults: {site: phone-5g-edge, model: mei-small, scale: task, requests: 6, users: 3, mode: modelled, repeats: 2}
parts:
  - {name: one, matrix: {app: [robotics, driving], pipeline: [local, offload, split, exit]}}
  - {name: two, defaults: {small: mei-nano}, matrix: {app: [robotics, driving], pipeline: [speculate, cascade, route]}}
`

func tablesOf(t *testing.T, dir string) map[string]string {
	out := map[string]string{}
	for _, f := range []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile} {
		out[f] = string(read(t, dir, f))
	}
	return out
}

// TestBytesDoNotDependOnJobs: modelled cells side by side leave what they leave
// one after the other. Run under -race it also shows that they share nothing.
func TestBytesDoNotDependOnJobs(t *testing.T) {
	var want map[string]string
	cases := []struct{ jobs, procs int }{{1, 1}, {5, 4}, {2, 2}, {0, 4}}
	if testing.Short() { // under the race detector each takes a minute
		cases = cases[:2]
	}
	for _, c := range cases {
		before := runtime.GOMAXPROCS(c.procs)
		o := options(t, t.TempDir(), parse(t, crowdSuite))
		o.Jobs = c.jobs
		err := Run(context.Background(), &Lab{Host: hostSheet(t)}, o)
		runtime.GOMAXPROCS(before)
		require.NoError(t, err)
		got := tablesOf(t, o.Out)
		if want == nil {
			want = got
		}
		for f := range want {
			require.True(t, want[f] == got[f], "%s differs with %d jobs on %d processors", f, c.jobs, c.procs)
		}
	}
}

// doors is a Gate that knows who is in.
type doors struct {
	mu          sync.Mutex
	sharing     int
	most, alone int
	t           *testing.T
	shut        error
}

func (d *doors) Enter(_ context.Context, alone bool) (func(), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut != nil {
		return nil, d.shut
	}
	if alone {
		d.alone++
		require.Zero(d.t, d.sharing, "a measured cell has the machine to itself")
		d.sharing += 1000
		return func() { d.mu.Lock(); d.sharing -= 1000; d.mu.Unlock() }, nil
	}
	d.sharing++
	d.most = max(d.most, d.sharing)
	return func() { d.mu.Lock(); d.sharing--; d.mu.Unlock() }, nil
}

func TestOnlyModelledCellsShareTheMachine(t *testing.T) {
	s := parse(t, taskSuite, suites.Set{Key: "app", Values: []any{"robotics"}}, suites.Set{Key: "pipeline", Values: []any{"local"}},
		suites.Set{Key: "mode", Values: []any{"modelled", "measured", "emulated"}}, suites.Set{Key: "requests", Values: []any{2.0}}, suites.Set{Key: "repeats", Values: []any{2.0}})
	d := &doors{t: t}
	o := options(t, t.TempDir(), s, parse(t, fieldSuite))
	o.Jobs, o.Gate = 3, d
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, o))
	require.Equal(t, 4, d.alone, "two repeats of a measured and an emulated cell")
	require.LessOrEqual(t, d.most, 3)

	o = options(t, filepath.Join(t.TempDir(), "shut"), parse(t, fieldSuite))
	o.Gate = &doors{shut: errors.New("the door is shut")}
	require.ErrorContains(t, Run(context.Background(), &Lab{}, o), "field app=assistant/pipeline=local: the door is shut",
		"of those that failed, the first in the order of the plan is told")
}

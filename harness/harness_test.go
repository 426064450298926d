package harness

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/harness/plan"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/suites"
)

const fieldSuite = `
name: field
question: does the modelled mode repeat itself?
defaults: {site: phone-5g-edge, model: "llama-3.2-1b:q4_0", scale: field, requests: 40, users: 4}
matrix:
  app: [assistant, driving]
  pipeline: [local, offload, split]
`

// hostSheet is a sheet for this machine that no test relies on being right.
func hostSheet(t *testing.T) *profiles.DeviceSheet {
	d, err := profiles.Device("raspberry-pi-5")
	require.NoError(t, err)
	return d
}

func parse(t *testing.T, text string, set ...suites.Set) *suites.Suite {
	s, err := suites.Parse("test.yaml", []byte(text), set...)
	require.NoError(t, err)
	return s
}

func options(t *testing.T, dir string, s ...*suites.Suite) Options {
	return Options{Suites: s, Out: dir, Progress: silent{}, Command: []string{"test"},
		Now: func() time.Time { return time.Unix(1_800_000_000, 0) }}
}

func read(t *testing.T, dir, name string) []byte {
	b, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return b
}

func TestModelledRunsRepeatByteForByte(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, options(t, dir, parse(t, fieldSuite))))
	}
	for _, f := range []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile} {
		require.Equal(t, read(t, a, f), read(t, b, f), f)
	}
	set, err := results.Read(a)
	require.NoError(t, err)
	defer set.Close()
	require.NoError(t, set.Verify())
	require.Len(t, set.Runs(), 6)
	for _, run := range set.Runs() {
		c := run.Cell
		require.True(t, c.Valid, "%s: %v", c.Name, c.Invalid)
		require.Zero(t, c.ClientCPU, "nothing of the computing machine shows in a modelled cell")
	}
}

// A run that was cut off and resumed leaves the same bytes as one that was not.
func TestResume(t *testing.T) {
	whole, cut := t.TempDir(), t.TempDir()
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, options(t, whole, parse(t, fieldSuite))))

	ctx, cancel := context.WithCancel(context.Background())
	o := options(t, cut, parse(t, fieldSuite))
	o.Progress, o.Jobs = &stopper{after: 100, stop: cancel}, 1
	require.ErrorIs(t, Run(ctx, &Lab{Host: hostSheet(t)}, o), context.Canceled)

	o = options(t, cut, parse(t, fieldSuite))
	o.Resume = true
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, o))
	for _, f := range []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile} {
		require.Equal(t, read(t, whole, f), read(t, cut, f), f)
	}
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, o), "resuming a complete run is no error")
	fresh := o
	fresh.Out = filepath.Join(t.TempDir(), "none")
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, fresh), "a run killed before it wrote anything starts anew")
	require.Equal(t, read(t, whole, results.RequestsFile), read(t, fresh.Out, results.RequestsFile))
	o.Suites = []*suites.Suite{parse(t, fieldSuite, suites.Set{Key: "requests", Values: []any{7.0}})}
	require.ErrorContains(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, o), "holds another run")
}

// stopper cancels in the middle.
type stopper struct {
	silent
	n, after int
	stop     func()
}

func (s *stopper) Request(int) {
	if s.n++; s.n == s.after {
		s.stop()
	}
}

const taskSuite = `
name: task
question: do kernels and sockets answer?
defaults: {site: this-machine, model: mei-nano, scale: task, requests: 3, warmup: 1, rate: 20}
matrix:
  app: [assistant]
  pipeline: [local, offload, split]
  mode: [measured, emulated, modelled]
`

func TestThreeModesOfOnePipeline(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, options(t, dir, parse(t, taskSuite))))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	tokens, answers := map[int][]int{}, map[int][]uint64{}
	for i, run := range set.Runs() {
		c := run.Cell
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			require.Equal(t, record.OK, r.Outcome, "%s: %s", c.Name, r.Err)
			if c.Mode != "modelled" {
				tokens[r.ID] = append(tokens[r.ID], r.OutputTokens)
				answers[r.ID] = append(answers[r.ID], r.OutputHash)
			} else {
				require.Zero(t, r.OutputHash, "a modelled answer has a length and no words")
			}
			if c.Pipeline == "local" {
				require.Zero(t, r.UpBytes)
			} else {
				require.Positive(t, r.UpBytes)
			}
		}
	}
	for id, n := range tokens {
		for _, k := range n {
			require.Equal(t, n[0], k, "request %d has the same answer under every pipeline and clock: %v", id, n)
		}
		for _, h := range answers[id] {
			require.NotZero(t, h)
			require.Equal(t, answers[id][0], h, "of the same words")
		}
	}
}

// The cost models under a fake wall clock give the same records as under virtual
// time, to the nanosecond, for every pipeline: fading, radios, batching and all.
func TestConformanceEqualsModelled(t *testing.T) {
	s := parse(t, fieldSuite, suites.Set{Key: "requests", Values: []any{60.0}}, suites.Set{Key: "users", Values: []any{3.0}},
		suites.Set{Key: "rate", Values: []any{2.0}})
	for _, c := range s.Cells {
		t.Run(c.Name, func(t *testing.T) {
			records := func(mode string) (rows []string) {
				c.Mode = mode
				cell := rehearse(t, &Lab{}, c, func(log *record.Request) { rows = append(rows, fmt.Sprintf("%+v", *log)) })
				require.Zero(t, cell.Facts.Dropped)
				slices.Sort(rows)
				return rows
			}
			want := records("modelled")
			require.Len(t, want, 60)
			synctest.Test(t, func(t *testing.T) {
				for i, got := range records("conformance") {
					require.Equal(t, want[i], got)
				}
			})
		})
	}
}

// Two requests a second on a phone that needs seconds for each is overload; a
// short run in which many are under way when the last arrives is not.
func TestOverloadIsSaid(t *testing.T) {
	for _, tc := range []struct {
		name string
		app  string
		set  []suites.Set
		want int
	}{
		{"a queue that grows", "assistant", []suites.Set{{Key: "users", Values: []any{1.0}}, {Key: "rate", Values: []any{2.0}}, {Key: "requests", Values: []any{60.0}}}, 1},
		{"many at once, none behind another", "driving", []suites.Set{{Key: "users", Values: []any{40.0}}, {Key: "requests", Values: []any{40.0}}}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := parse(t, fieldSuite, tc.set...)
			require.NoError(t, s.Narrow(map[string][]string{"app": {tc.app}, "pipeline": {"local"}}))
			cell := rehearse(t, &Lab{}, s.Cells[0], func(*record.Request) {})
			require.Len(t, cell.Warnings, tc.want)
			if tc.want > 0 {
				require.Contains(t, cell.Warnings[0], "overloaded:")
			}
		})
	}
}

func TestTraceReplay(t *testing.T) {
	dir := t.TempDir()
	path, err := filepath.Abs("../workloads/traces/testdata/azure.csv")
	require.NoError(t, err)
	s := parse(t, fieldSuite, suites.Set{Key: "trace", Values: []any{path}}, suites.Set{Key: "app", Values: []any{"assistant"}})
	require.NoError(t, Run(context.Background(), &Lab{}, options(t, dir, s)))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	for i := range set.Runs() {
		first := true
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			if first { // the fixture's first row
				require.Equal(t, []int{348, 207}, []int{r.PromptTokens, r.AskedTokens})
				require.Zero(t, r.Intended)
			}
			first = false
		}
	}
}

func TestCellsThatCannotRunAreRefusedBeforeAnythingRuns(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  suites.Set
		want string
	}{
		{"no such site", suites.Set{Key: "site", Values: []any{"phone-5g-egde"}}, "phone-5g-edge"},
		{"no such model", suites.Set{Key: "model", Values: []any{"gpt-9"}}, "gpt-9"},
		{"no such application", suites.Set{Key: "app", Values: []any{"gaming"}}, "gaming"},
		{"no such pipeline", suites.Set{Key: "pipeline", Values: []any{"teleport"}}, "teleport"},
		{"kernels of a shape", suites.Set{Key: "mode", Values: []any{"emulated"}}, "only a shape"},
		{"no such scenario", suites.Set{Key: "scenario", Values: []any{"quiet"}}, "quiet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			var bad *InputError
			err := Run(context.Background(), &Lab{}, options(t, dir, parse(t, fieldSuite, tc.set)))
			require.ErrorAs(t, err, &bad)
			require.ErrorContains(t, err, tc.want)
			require.NoDirExists(t, dir)
		})
	}
}

func TestShardsMakeTheWhole(t *testing.T) {
	all, err := (&Lab{}).plan(options(t, "", parse(t, fieldSuite)))
	require.NoError(t, err)
	seen := map[string]int{}
	for i := range 3 {
		o := options(t, "", parse(t, fieldSuite))
		o.Shard = plan.Shard{I: i, N: 3}
		mine, err := (&Lab{}).Arms(o)
		require.NoError(t, err)
		for _, a := range mine {
			seen[a.Key().String()]++
		}
	}
	require.Len(t, seen, len(all))
	for k, n := range seen {
		require.Equal(t, 1, n, k)
	}
}

// TestWorkBeforeACellIsNotOnItsClock: the attack on the activations runs before the first request is due.
func TestWorkBeforeACellIsNotOnItsClock(t *testing.T) {
	dir := t.TempDir()
	s := parse(t, taskSuite, suites.Set{Key: "pipeline", Values: []any{"split"}}, suites.Set{Key: "mode", Values: []any{"measured"}},
		suites.Set{Key: "model", Values: []any{"mei-small"}}, suites.Set{Key: "wire", Values: []any{"topk"}}, suites.Set{Key: "app", Values: []any{"robotics"}}, suites.Set{Key: "requests", Values: []any{3.0}}, suites.Set{Key: "rate", Values: []any{50.0}})
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, options(t, dir, s)))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	for i := range set.Runs() {
		require.Contains(t, set.Runs()[i].Cell.Figures, "recovered_share", "an attack of some tenths of a second went before")
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			require.Less(t, r.Released-r.Intended, 100*time.Millisecond)
		}
	}
}

// TestEveryModelOfARunIsTimedHere: a profile that knows one of two models predicts
// the other from a law of large ones, ten times too slow.
func TestEveryModelOfARunIsTimedHere(t *testing.T) {
	var timed []string
	lab := &Lab{Measure: func(models []*Model) (*profiles.DeviceSheet, error) {
		for _, m := range models {
			timed = append(timed, m.Spec.Name)
		}
		return hostSheet(t), nil
	}}
	s := parse(t, taskSuite, suites.Set{Key: "pipeline", Values: []any{"cascade"}}, suites.Set{Key: "mode", Values: []any{"modelled"}},
		suites.Set{Key: "model", Values: []any{"mei-small", "mei-base"}}, suites.Set{Key: "small", Values: []any{"mei-nano"}}, suites.Set{Key: "requests", Values: []any{1.0}})
	require.NoError(t, Run(context.Background(), lab, options(t, t.TempDir(), s)))
	require.Equal(t, []string{"mei-small", "mei-nano", "mei-base"}, timed)
}

// TestBriefRows: a cell that keeps rows only has the same times and sums, no spans,
// and no metric that needs what was left out.
func TestBriefRows(t *testing.T) {
	text := "name: brief\nquestion: q?\ndefaults: {site: robot-5g-edge, model: \"qwen2.5-0.5b:q4_0\", scale: field, app: assistant, users: 5, rate: 1, requests: 40, pipeline: offload}\nmatrix: {rows: [full, brief]}\n"
	s, err := suites.Parse("brief.yaml", []byte(text))
	require.NoError(t, err)
	dir := t.TempDir() + "/run"
	require.NoError(t, Run(t.Context(), &Lab{}, Options{Suites: []*suites.Suite{s}, Out: dir, Progress: silent{}, Now: time.Now}))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()
	var rows [2][]record.Request
	for i := range 2 {
		for r, err := range set.Full(i) {
			require.NoError(t, err)
			c := *r
			c.Chunks, c.Spans = slices.Clone(r.Chunks), slices.Clone(r.Spans)
			rows[i] = append(rows[i], c)
		}
	}
	require.Len(t, rows[1], 40)
	for k := range rows[0] {
		full, brief := rows[0][k], rows[1][k]
		require.Greater(t, len(full.Chunks), 2)
		require.NotEmpty(t, full.Spans)
		require.Equal(t, []record.Chunk{{At: full.FirstToken, Tokens: 1}, {At: full.LastToken, Tokens: full.OutputTokens - 1}}, brief.Chunks)
		require.Empty(t, brief.Spans)
		full.Shorten()
		require.Equal(t, fmt.Sprint(full), fmt.Sprint(brief))
	}
	for k, v := range set.Runs()[0].Values {
		other := set.Runs()[1].Values[k]
		switch {
		case math.IsNaN(v.V):
			require.True(t, math.IsNaN(other.V), v.Metric.Name)
		case strings.HasPrefix(v.Metric.Name, "itl_") || strings.HasPrefix(v.Metric.Name, "queue_time"):
			require.True(t, math.IsNaN(other.V), v.Metric.Name)
		default:
			require.Equal(t, v.V, other.V, v.Metric.Name)
		}
	}
}

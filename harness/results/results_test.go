package results

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/internal/units"
)

const ms = time.Millisecond

// request makes a varied but valid request from its name alone.
func request(seed uint64, id int) *record.Request {
	r, l := new(record.Request), rng.NewKey(seed, "results-test").At(uint64(id))
	pick := func(n int) int { return int(rng.Float64(&l) * float64(n)) }
	r.Reset(id, time.Duration(id)*ms)
	r.User, r.Session, r.Turn = pick(9), pick(99), pick(3)
	r.PromptTokens, r.AskedTokens = 1+pick(500), 8
	r.UpBytes, r.PeakBytes, r.FLOP = units.Bytes(pick(1e6)), units.Bytes(pick(1e9)), units.FLOP(pick(1e9))
	r.Released, r.Sent = r.Intended, r.Intended+time.Duration(pick(1e5))
	at := r.Sent + time.Duration(pick(1e6))
	r.Spent(record.Transfer, "up", r.Sent, at)
	if pick(7) == 0 {
		r.Finish(at, errors.New("link down"))
		return r
	}
	if pick(2) == 0 {
		r.Empty(at)
	}
	for range 1 + pick(4) {
		at += 1 + time.Duration(pick(1e6))
		r.Spent(record.Compute, [2]string{"edge", "phone"}[pick(2)], at-1, at)
		r.Token(at, 1+pick(2))
	}
	r.Spend(record.DevicePart, units.Joules(pick(100)), 1)
	if pick(5) == 0 {
		r.Spend(record.RadioPart, 0, 0)
	}
	if pick(4) == 0 {
		r.Count(record.CacheHits, int64(pick(9)))
		r.Count(record.ReusedTokens, 1)
	}
	if pick(3) == 0 {
		r.Quality = float64(pick(11)) / 10
	}
	if pick(3) == 0 {
		r.OutputHash = uint64(pick(1<<30)) << 34
	}
	r.Finish(at+time.Duration(pick(10)), nil)
	return r
}

func cell(index, repeat int) record.Cell {
	return record.Cell{Index: index, Suite: "s", Name: fmt.Sprintf("c%d", index), App: "assistant", Pipeline: "split", Site: "home",
		Model: "m", Mode: "modelled", Seed: 1, Repeat: repeat, Contract: "abc", Horizon: time.Second, Params: map[string]any{"k": float64(index)}}
}

// play records cells × repeats of n requests each, skipping what is done.
func play(t testing.TB, run *Run, cells, repeats, n int) {
	for c := range cells {
		for rep := range repeats {
			cell := cell(c, rep)
			if run.Done(KeyOf(&cell)) {
				continue
			}
			w, err := run.Begin(cell)
			require.NoError(t, err)
			for i := range n {
				require.NoError(t, w.Row(request(uint64(10*c+rep), (i*7)%n))) // out of order
			}
			require.NoError(t, w.End(cell))
		}
	}
}

func manifest() Manifest {
	return Manifest{Command: []string{"meibench", "run"}, Commit: "c0ffee", Suite: "name: s\n", Seeds: []string{"1"}, Expected: 4,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func tables(t testing.TB, dir string) map[string]string {
	out := map[string]string{}
	for _, name := range []string{RequestsFile, SpansFile, CellsFile, BenchFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		out[name] = string(b)
	}
	return out
}

func TestFinish(t *testing.T) {
	dir := t.TempDir()
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	play(t, run, 2, 2, 20)
	require.Len(t, run.Completed(), 4)
	require.NoError(t, run.Finish())
	m, err := readManifest(dir)
	require.NoError(t, err)
	require.True(t, m.Complete)
	require.EqualValues(t, 80, m.Rows)
	for name, d := range m.Files {
		got, err := DigestFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, d, got, name)
	}
	_, err = os.Stat(filepath.Join(dir, journalFile))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(dir)
	require.ErrorIs(t, err, ErrComplete)
}

func collect(t testing.TB, s *Set, run int) (out []record.Request) {
	for r, err := range s.Full(run) {
		require.NoError(t, err)
		c := *r
		c.Chunks, c.Spans = append([]record.Chunk(nil), r.Chunks...), append([]record.Span(nil), r.Spans...)
		out = append(out, c)
	}
	return out
}

// What goes in comes out, sorted by ID, whatever the order it came in.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	play(t, run, 2, 2, 50)
	require.NoError(t, run.Finish())
	set, err := Read(dir)
	require.NoError(t, err)
	defer set.Close()
	require.Len(t, set.Runs(), 4)
	for i, want := range []Key{{"s", "c0", 1, 0}, {"s", "c0", 1, 1}, {"s", "c1", 1, 0}, {"s", "c1", 1, 1}} {
		run := set.Runs()[i]
		require.Equal(t, want, KeyOf(&run.Cell))
		require.True(t, run.Cell.Valid)
		rows := collect(t, set, i)
		require.Len(t, rows, 50)
		sum := record.NewSummary(&run.Cell)
		for id, got := range rows {
			want := request(uint64(10*run.Cell.Index+run.Cell.Repeat), id)
			sum.Add(want)
			same(t, want, &got)
		}
		require.Equal(t, fmt.Sprint(sum.Values()), fmt.Sprint(run.Values))
	}
	require.NoError(t, set.Verify())
}

// same compares what is stored: Output is not, and where a step could not tell,
// neither is what the others spent.
func same(t testing.TB, want, got *record.Request) {
	w := *want
	w.Output = nil
	for p := range w.Energy {
		if w.Energy[p].Unknown {
			w.Energy[p] = record.Energy{Unknown: true}
		}
	}
	require.Equal(t, fmt.Sprintf("%+v", encoded(&w)), fmt.Sprintf("%+v", encoded(got)), "request %d", w.ID)
}

func encoded(r *record.Request) []byte {
	n := names{at: map[string]int{}}
	return append(appendRow(nil, r, &n), fmt.Sprint(n.list)...)
}

func TestVerifyFindsATouchedFile(t *testing.T) {
	dir := t.TempDir()
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	play(t, run, 1, 1, 5)
	require.NoError(t, run.Finish())
	path := filepath.Join(dir, BenchFile)
	require.NoError(t, os.WriteFile(path, append([]byte(tables(t, dir)[BenchFile]), '\n'), 0o644))
	set, err := Read(dir)
	require.NoError(t, err)
	defer set.Close()
	require.ErrorContains(t, set.Verify(), "the file was changed after the run")
}

// Shards merged into one run are the run that one process would have made.
func TestMergeIsTheRunOfOneProcess(t *testing.T) {
	whole := t.TempDir()
	run, err := Create(whole, manifest())
	require.NoError(t, err)
	for c, n := range []int{30, 30, 1, 2} { // few rows use few of the columns
		play(t, run, c+1, 1, n)
	}
	require.NoError(t, run.Finish())
	_, err = os.Stat(filepath.Join(whole, journalFile))
	require.ErrorIs(t, err, os.ErrNotExist)
	read := func(dir string) *Set {
		s, err := Read(dir)
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	all := read(whole)

	var parts []*Set
	for _, cells := range [][]int{{3, 1}, {2}, {}, {0}} { // shards come in any order, some with nothing to do
		m := manifest()
		m.Expected = len(cells)
		run, err := Create(t.TempDir(), m)
		require.NoError(t, err)
		for _, c := range cells {
			for i := range all.runs {
				if all.runs[i].Cell.Index != c {
					continue
				}
				w, err := run.Begin(all.runs[i].Cell)
				require.NoError(t, err)
				require.NoError(t, all.pass(i)(func(r *record.Request) error { return w.Row(r) }))
				require.NoError(t, w.End(all.runs[i].Cell))
			}
		}
		require.NoError(t, run.Finish())
		parts = append(parts, read(run.dir))
	}
	merged := filepath.Join(t.TempDir(), "merged")
	m, when := manifest(), time.Unix(1_800_000_000, 0).UTC()
	m.Expected, m.Finished = len(all.runs), &when
	require.NoError(t, Merge(merged, m, parts))
	require.Equal(t, tables(t, whole), tables(t, merged))
	got := read(merged)
	require.NoError(t, got.Verify())
	require.True(t, got.Manifest.Complete)
	require.Equal(t, when, *got.Manifest.Finished)
	require.Equal(t, all.Manifest.Files, got.Manifest.Files)
	entries, err := os.ReadDir(merged)
	require.NoError(t, err)
	require.Len(t, entries, 5, "four tables and the manifest")

	require.ErrorContains(t, Merge(merged, m, parts), "already holds a run")
	require.ErrorContains(t, Merge(t.TempDir(), m, append(parts, parts[0])), " is in "+parts[0].Dir+" and in "+parts[0].Dir)
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	w, err := run.Begin(cell(0, 0))
	require.NoError(t, err)

	_, err = run.Begin(cell(0, 0))
	require.ErrorContains(t, err, "s/c0 seed 1 repeat 0: the run already has it")
	_, err = Create(dir, manifest())
	require.ErrorContains(t, err, "already holds a run")
	_, err = Open(dir)
	require.ErrorContains(t, err, "another process is writing")
	_, err = Read(dir)
	require.ErrorContains(t, err, "--resume")
	_, err = Read(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)

	bad := request(1, 1)
	bad.OutputTokens = 99
	require.ErrorContains(t, w.Row(bad), "s/c0 seed 1 repeat 0: request 1: chunks hold")
	require.ErrorContains(t, w.End(cell(1, 0)), "the block began as s/c0")
	require.ErrorContains(t, run.Finish(), "1 blocks have not ended")
	require.NoError(t, w.Row(request(1, 1)))
	require.NoError(t, w.Row(request(1, 1)))
	require.NoError(t, w.End(cell(0, 0)))
	require.ErrorIs(t, w.Row(request(1, 2)), ErrClosed)
	require.ErrorContains(t, run.Finish(), "request 1 was recorded twice")
	_, err = run.Begin(cell(3, 0))
	require.ErrorIs(t, err, ErrClosed)
}

// End judges: the facts decide, the caller's own reasons stay.
func TestEndJudges(t *testing.T) {
	dir := t.TempDir()
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	c := cell(0, 0)
	w, err := run.Begin(c)
	require.NoError(t, err)
	c.Mode, c.Invalid = "measured", []string{"door was open"}
	c.Lag = []time.Duration{5 * ms, ms, 3 * ms}
	c.Figures = map[string]float64{"ttft_p99": 1}
	require.ErrorContains(t, w.End(c), `figure "ttft_p99" = 1: want`)
	c.Figures = map[string]float64{"kl": 0.5}
	require.NoError(t, w.End(c))
	require.NoError(t, run.Finish())
	set, err := Read(dir)
	require.NoError(t, err)
	defer set.Close()
	got := set.Runs()[0].Cell
	require.False(t, got.Valid)
	require.Equal(t, []string{"door was open", "requests released late, p99 5ms: want <= 1ms"}, got.Invalid)
}

// A given-up block leaves no trace, and its key is free again.
func TestAbandon(t *testing.T) {
	dir := t.TempDir()
	m := manifest()
	m.Expected = 1
	run, err := Create(dir, m)
	require.NoError(t, err)
	w, err := run.Begin(cell(0, 0))
	require.NoError(t, err)
	require.NoError(t, w.Row(request(1, 1)))
	w.Abandon()
	play(t, run, 1, 1, 3)
	require.NoError(t, run.Finish())
	got, err := readManifest(dir)
	require.NoError(t, err)
	require.EqualValues(t, 3, got.Rows)
}

// A run that is finished early keeps its journal and takes the rest later.
func TestFinishIncompleteThenResume(t *testing.T) {
	dir, whole := t.TempDir(), t.TempDir()
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	play(t, run, 1, 2, 10)
	require.NoError(t, run.Finish())
	m, err := readManifest(dir)
	require.NoError(t, err)
	require.False(t, m.Complete)
	run, err = Open(dir)
	require.NoError(t, err)
	play(t, run, 2, 2, 10)
	require.NoError(t, run.Finish())

	run, err = Create(whole, manifest())
	require.NoError(t, err)
	play(t, run, 2, 2, 10)
	require.NoError(t, run.Finish())
	require.Equal(t, tables(t, whole), tables(t, dir))
}

// Blocks written side by side from several goroutines make the same tables as
// blocks written one after the other.
func TestConcurrentBlocks(t *testing.T) {
	one, many := t.TempDir(), t.TempDir()
	run, err := Create(one, manifest())
	require.NoError(t, err)
	play(t, run, 4, 1, 9000)
	require.NoError(t, run.Finish())

	run, err = Create(many, manifest())
	require.NoError(t, err)
	errs := make(chan error, 4)
	for c := range 4 {
		go func() { errs <- share(run, cell(c, 0), 9000) }()
	}
	for range 4 {
		require.NoError(t, <-errs)
	}
	require.NoError(t, run.Finish())
	a, b := tables(t, one), tables(t, many)
	for name := range a {
		require.True(t, a[name] == b[name], "%s differs", name)
	}
}

// share records the rows of a block from two goroutines.
func share(run *Run, c record.Cell, n int) error {
	w, err := run.Begin(c)
	if err != nil {
		return err
	}
	errs := make(chan error, 2)
	for part := range 2 {
		go func() {
			var err error
			for i := part; i < n && err == nil; i += 2 {
				err = w.Row(request(uint64(10*c.Index), i))
			}
			errs <- err
		}()
	}
	return errors.Join(<-errs, <-errs, w.End(c))
}

func TestTimedFlush(t *testing.T) {
	dir := t.TempDir()
	run, err := Create(dir, manifest())
	require.NoError(t, err)
	w, err := run.Begin(cell(0, 0))
	require.NoError(t, err)
	before, err := os.Stat(filepath.Join(dir, journalFile))
	require.NoError(t, err)
	require.NoError(t, w.Row(request(1, 1)))
	require.Eventually(t, func() bool {
		st, err := os.Stat(filepath.Join(dir, journalFile))
		return err == nil && st.Size() > before.Size()
	}, 5*time.Second, 20*time.Millisecond, "a row reaches the file without more rows behind it")
	require.NoError(t, run.Close())
}

package results

import (
	"errors"
	"fmt"
	"math"
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
	if pick(3) == 0 {
		r.Quality = float64(pick(11)) / 10
	}
	r.Finish(at+time.Duration(pick(10)), nil)
	return r
}

func cell(index, repeat int) record.Cell {
	return record.Cell{Index: index, Suite: "s", Name: fmt.Sprintf("c%d", index), App: "assistant", Pipeline: "split", Site: "home",
		Model: "m", Mode: "modelled", Seed: 1, Repeat: repeat, Contract: "abc", Horizon: time.Second, Params: map[string]float64{"k": float64(index)}}
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
	t.Log(tables(t, dir)[BenchFile])
}

func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			pool := make([]*record.Request, 1000)
			for i := range pool {
				pool[i] = request(1, i)
			}
			for b.Loop() {
				dir := b.TempDir()
				run, err := Create(dir, manifest())
				require.NoError(b, err)
				w, err := run.Begin(cell(0, 0))
				require.NoError(b, err)
				for i := range n {
					r := pool[i%len(pool)]
					r.ID = i
					if err := w.Row(r); err != nil {
						b.Fatal(err)
					}
				}
				require.NoError(b, w.End(cell(0, 0)))
				require.NoError(b, run.Finish())
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			_ = math.Pi
		})
	}
}

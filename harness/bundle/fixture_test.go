package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/rng"
	"meibench/internal/units"
)

const ms = time.Millisecond

// request makes a varied but valid request from its names alone.
func request(seed uint64, id int) *record.Request {
	r, l := new(record.Request), rng.NewKey(seed, "bundle-test").At(uint64(id))
	pick := func(n int) int { return int(rng.Float64(&l) * float64(n)) }
	r.Reset(id, time.Duration(id)*ms)
	r.PromptTokens, r.AskedTokens, r.UpBytes, r.FLOP = 1+pick(500), 8, units.Bytes(pick(1e6)), units.FLOP(pick(1e9))
	r.Released, r.Sent = r.Intended, r.Intended
	at := r.Sent + time.Duration(1+pick(1e6))
	r.Spent(record.Transfer, "up", r.Sent, at)
	if pick(7) == 0 {
		r.Finish(at, errors.New("link down"))
		return r
	}
	for range 1 + pick(4) {
		at += 1 + time.Duration(pick(1e6))
		r.Spent(record.Compute, "edge", at-1, at)
		r.Token(at, 1+pick(2))
	}
	r.Spend(record.DevicePart, units.Joules(pick(100)), 1)
	r.Quality, r.OutputHash = float64(pick(11))/10, uint64(1+pick(1<<30))
	r.Finish(at+time.Duration(pick(10)), nil)
	return r
}

// spec is a run folder to be made.
type spec struct {
	cells, repeats, requests int
	manifest                 func(*results.Manifest)
	cell                     func(*record.Cell)
	host                     string // host.yaml
}

// cell is a cell of the folders that tests make.
func cell(index, repeat int) record.Cell {
	return record.Cell{Index: index, Suite: "s", Name: fmt.Sprintf("app=assistant/c%d", index), App: "assistant", Pipeline: "split", Site: "home",
		Model: "m", Mode: "modelled", Seed: uint64(1 + repeat), Repeat: repeat, Contract: "abc", Horizon: time.Second, TTFTLimit: 2 * ms, Params: map[string]any{"k": float64(index)}}
}

// made makes a finished run folder and returns its path.
func made(t testing.TB, dir string, s spec) string {
	m := results.Manifest{Command: []string{"/usr/local/bin/meibench", "run", "--out", "runs/a"}, Commit: "c0ffee", GoVersion: "go1.26", GOARCH: "amd64", CPU: "A CPU",
		Host: map[string]string{"cores": "2", "memory_bytes": "2147483648"}, Models: map[string]string{"m": "00"}, Suite: "name: s\n", SuiteHash: "5d",
		Seeds: []string{"1"}, Contract: "abc", Expected: s.cells * s.repeats, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if s.manifest != nil {
		s.manifest(&m)
	}
	run, err := results.Create(dir, m)
	require.NoError(t, err)
	for c := range s.cells {
		for rep := range s.repeats {
			cell := cell(c, rep)
			if s.cell != nil {
				s.cell(&cell)
			}
			w, err := run.Begin(cell)
			require.NoError(t, err)
			for i := range s.requests {
				require.NoError(t, w.Row(request(uint64(100*c+rep), i)))
			}
			require.NoError(t, w.End(cell))
		}
	}
	require.NoError(t, run.Finish())
	if s.host != "" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "host.yaml"), []byte(s.host), 0o644))
	}
	return dir
}

// opened opens a run folder under a name.
func opened(t testing.TB, dir, name string) *Run {
	r, err := OpenRun(dir, runPath(name))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Set.Close()) })
	return r
}

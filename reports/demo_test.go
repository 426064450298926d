package reports

import (
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/rng"
	"meibench/internal/units"
)

var look = flag.String("look", "", "write the report of the demonstration data into this folder, to look at")

// player makes plausible requests of one cell: five applications under three
// placements on a phone, an uplink, an edge server and a downlink.
type player struct {
	app, pipeline, mode string
	key                 rng.Key
	prompt, answer      float64 // tokens, medians
	speed               float64 // of this mode against the measured one
}

func (p *player) request(id int) *record.Request {
	l := p.key.At(uint64(id))
	vary := func(median, sigma float64) float64 { return median * math.Exp(sigma*rng.Normal(&l)) }
	at := time.Duration(id) * 1500 * ms
	r := new(record.Request)
	r.Reset(id, at)
	r.Released, r.Sent = at, at
	n := 1 + int(vary(p.answer, 0.3))
	r.PromptTokens, r.AskedTokens = 1+int(vary(p.prompt, 0.4)), n
	now := at
	step := func(kind record.Kind, node string, sec float64) {
		end := now + units.Seconds(sec*p.speed*vary(1, 0.08))
		r.Spent(kind, node, now, end)
		now = end
	}
	prompt := float64(r.PromptTokens)
	switch p.pipeline {
	case "local":
		step(record.Compute, "phone", prompt*0.0004)
		r.Token(now, 1)
		for range n - 1 {
			step(record.Compute, "phone", 0.006)
			r.Token(now, 1)
		}
		r.Spend(record.DevicePart, units.Joules(0.002*prompt+0.02*float64(n)), uint8(hardware.Modelled))
	case "offload":
		step(record.Transfer, "5g-up", 0.008+prompt*2e-5)
		r.Spent(record.Queue, "edge", now, now+units.Seconds(vary(0.004, 1)))
		now += units.Seconds(vary(0.004, 1))
		step(record.Compute, "edge", prompt*0.00005)
		step(record.Transfer, "5g-down", 0.007)
		r.Token(now, 1)
		for range n - 1 {
			step(record.Batch, "edge", 0.0015)
			r.Token(now, 1)
		}
		r.Spend(record.DevicePart, units.Joules(0.001*float64(n)), uint8(hardware.Modelled))
		r.Spend(record.RadioPart, units.Joules(0.02+0.0001*prompt), uint8(hardware.Modelled))
		r.Spend(record.EdgePart, units.Joules(0.01*float64(n)), uint8(hardware.Modelled))
		r.UpBytes, r.DownBytes = units.Bytes(4*prompt+180), units.Bytes(6*n+90)
	default:
		step(record.Compute, "phone", prompt*0.0002)
		step(record.Transfer, "5g-up", 0.008+prompt*3e-4)
		step(record.Compute, "edge", prompt*0.00003)
		step(record.Transfer, "5g-down", 0.007)
		r.Token(now, 1)
		for range n - 1 {
			step(record.Compute, "phone", 0.003)
			step(record.Transfer, "5g-up", 0.008)
			step(record.Compute, "edge", 0.001)
			step(record.Transfer, "5g-down", 0.007)
			r.Token(now, 1)
		}
		r.Spend(record.DevicePart, units.Joules(0.001*prompt+0.012*float64(n)), uint8(hardware.Modelled))
		r.Spend(record.RadioPart, units.Joules(0.03*float64(n)), uint8(hardware.Modelled))
		r.Spend(record.EdgePart, units.Joules(0.006*float64(n)), uint8(hardware.Modelled))
		r.UpBytes, r.DownBytes = units.Bytes(2048*(prompt+float64(n))), units.Bytes(2048*n)
	}
	if p.mode != "modelled" {
		r.Quality = 0
		if rng.Float64(&l) < 0.85 {
			r.Quality = 1
		}
	}
	r.Finish(now, p.fate(&l))
	return r
}

// fate loses one request in a hundred.
func (p *player) fate(l *rng.Luck) error {
	if rng.Float64(l) < 0.01 {
		return errors.New("uplink lost")
	}
	return nil
}

// demo is a run like the quickstart's, with n requests per cell.
func demo(t testing.TB, n int) *Data {
	d := NewData()
	run := d.AddRun("", "", results.Manifest{
		Format: results.Format, Command: []string{"meibench", "run", "quickstart"}, Commit: "0123456789abcdef", GoVersion: "go1.26.8", GOARCH: "amd64", GOAMD64: "v1",
		CPU: "Some CPU @ 2.50GHz", Kernel: "6.1.0", Governor: "", Host: map[string]string{"cores": "2", "memory": "24 GB"}, SuiteHash: "5f2c…", Contract: "9ab3…",
		Seeds: []string{"1"}, Profiles: map[string]string{"5g-mid-band": "77aa…"}, Models: map[string]string{"mei-nano": "1b2c…"},
		Expected: 45, Blocks: 45, Rows: int64(45 * n), Started: time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC),
		Files: map[string]results.Digest{"requests.arrow": {}, "spans.arrow": {}, "cells.arrow": {}, "bench.txt": {}}})
	index := 0
	for i, app := range []string{"assistant", "ar", "driving", "healthcare", "robotics"} {
		for _, pipeline := range []string{"local", "offload", "split"} {
			for m, mode := range modes[:3] {
				c := record.Cell{Index: index, Suite: "quickstart", Name: "app=" + app + "/pipeline=" + pipeline + "/mode=" + mode, App: app, Pipeline: pipeline, Mode: mode,
					Site: "this-machine", Model: "mei-nano", Horizon: time.Duration(n) * 1500 * ms, Contract: "c0ffee" + mode + app, Valid: true,
					TTFTLimit: [...]time.Duration{500 * ms, 100 * ms, 50 * ms, time.Second, 100 * ms}[i], E2ELimit: [...]time.Duration{5 * time.Second, 300 * ms, 100 * ms, 3 * time.Second, 0}[i]}
				if app == "driving" && pipeline == "split" && mode == "measured" {
					c.Valid, c.Invalid = false, []string{"requests released late, p99 3.2ms: want <= 1ms"}
				}
				p := player{app, pipeline, mode, rng.NewKey(1, "demo", app, pipeline, mode), [...]float64{200, 120, 60, 300, 90}[i], [...]float64{40, 12, 4, 30, 10}[i], [...]float64{1, 1.03, 0.93 + 0.06*float64(i)}[m]}
				require.NoError(t, d.Add(run, c, func(yield func(*record.Request, error) bool) {
					for id := range n {
						if !yield(p.request(id), nil) {
							return
						}
					}
				}))
				index++
			}
		}
	}
	return d
}

// The same run gives the same bytes, in every file.
func TestSameBytes(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	if *look != "" {
		first = *look
	}
	var paths Paths
	for _, dir := range []string{first, second} {
		var err error
		paths, err = Build(demo(t, 16)).Write(dir)
		require.NoError(t, err)
	}
	require.FileExists(t, paths.HTML)
	n := 0
	require.NoError(t, filepath.WalkDir(second, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(second, path)
		require.NoError(t, err)
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(first, name))
		require.NoError(t, err)
		require.Equal(t, want, got, name)
		n++
		return nil
	}))
	require.Equal(t, 3+2*(3*5+2), n, "report.md, report.html, summary.csv; three figures per application and two more")
}

package twin

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/ops"
	"meibench/harness/pairs"
	"meibench/suites"
)

const suite = `
name: synthetic
question: does a calibration find the machine that was modelled?
defaults: {site: this-machine, model: mei-nano, scale: task, requests: 240, rate: 20, mode: modelled, app: assistant}
matrix: {model: [mei-nano, mei-small], pipeline: [local, offload]}
`

// truth is a made-up machine with a law for each of two models.
func truth(t *testing.T, spread *profiles.Spread) *profiles.DeviceSheet {
	t.Helper()
	d, err := profiles.Device("raspberry-pi-5")
	require.NoError(t, err)
	lab := &harness.Lab{}
	for i, name := range []string{"mei-nano", "mei-small"} {
		m, err := lab.Model(name)
		require.NoError(t, err)
		k := float64(i + 1)
		d.Fitted = append(d.Fitted, profiles.Fit{Model: name, Digest: m.Digest, Kernel: "made up", Source: "this test", Kind: profiles.Assumed,
			Prefill: profiles.Coefficients{Pass: 400e-6 * k, Token: 6e-6 * k, Pair: 10e-9},
			Decode:  profiles.Coefficients{Pass: 150e-6 * k, Token: 10e-6, Pair: 80e-9},
			Wake:    profiles.Wake{After: 1e-3, Decode: 100e-6 * k, Fade: 0.5}, Gap: 4e-6, Spread: spread})
	}
	return d
}

// modelled runs the suite with a seed, and keeps what operations took.
func modelled(t *testing.T, host *profiles.DeviceSheet, seed uint64) string {
	t.Helper()
	s, err := suites.Parse("test.yaml", []byte(suite))
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "run")
	require.NoError(t, harness.Run(context.Background(), &harness.Lab{Host: host, Timings: true}, harness.Options{
		Suites: []*suites.Suite{s}, Out: dir, Seed: seed, Progress: quiet{}, Command: []string{"test"},
		Now: func() time.Time { return time.Unix(1_800_000_000, 0) }}))
	return dir
}

// TestCalibrationGivesTheLawBack: a modelled run, taken for a measured one, gives the
// law that it was modelled with, and a twin that takes the same time.
func TestCalibrationGivesTheLawBack(t *testing.T) {
	host := truth(t, nil)
	lab := &harness.Lab{}
	o, err := observe(lab, modelled(t, host, 1), nil, "modelled")
	require.NoError(t, err)
	require.Equal(t, []string{"mei-nano", "mei-small"}, o.Models)
	sheet, err := o.Calibrate()
	require.NoError(t, err)
	require.Equal(t, profiles.TierCalibrated, sheet.Law.Tier)
	for i, f := range sheet.Fitted {
		k := float64(i + 1)
		require.InEpsilon(t, 0.5, f.Wake.Fade, 1e-6, f.Model)
		require.InEpsilon(t, 100e-6*k, f.Wake.Decode, 0.02, f.Model)
		require.InEpsilon(t, 4e-6, f.Gap, 0.02, f.Model)
		require.InEpsilon(t, 6e-6*k, f.Prefill.Token, 0.02, f.Model)
		require.InEpsilon(t, 80e-9, f.Decode.Pair, 0.05, f.Model)
		require.Equal(t, 4, len(f.Seen))
	}
	list, err := o.Replay(context.Background(), sheet, filepath.Join(t.TempDir(), "twin"))
	require.NoError(t, err)
	require.Len(t, list, 4)
	for _, p := range list {
		require.Equal(t, profiles.TierFitted, p.Tier)
		for m := range pairs.NumMetrics {
			for s := range pairs.NumStats {
				require.InDelta(t, 0, p.Metrics[m].Error(s), 0.01, "%s %s %s %s", p.Measured.Pipeline, p.Measured.Model, m, s)
			}
		}
	}
	var text bytes.Buffer
	require.NoError(t, pairs.Text(&text, list))
	require.Contains(t, text.String(), "assistant offload mei-small 20/s")

	yaml, err := pairs.Stamp(sheet, list).YAML()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "p.yaml")
	require.NoError(t, os.WriteFile(path, yaml, 0o644))
	back, err := profiles.LoadDevice(path)
	require.NoError(t, err)
	require.Len(t, back.Fitted[0].Errors, int(pairs.NumMetrics))
}

// TestIntervalsOfRequestsCover: a machine whose times scatter is calibrated by one run;
// of another run, with other requests and other luck, 78 to 85 % lie in the intervals.
func TestIntervalsOfRequestsCover(t *testing.T) {
	spread := &profiles.Spread{Slot: 0.02, Slots: []float64{0.85, 0.95, 1, 1.05, 1.3}, Ops: []float64{0.9, 1, 1.1}}
	host := truth(t, spread)
	lab := &harness.Lab{}
	o, err := observe(lab, modelled(t, host, 1), nil, "modelled")
	require.NoError(t, err)
	sheet, err := o.Calibrate()
	require.NoError(t, err)
	list, err := o.Replay(context.Background(), sheet, filepath.Join(t.TempDir(), "twin"))
	require.NoError(t, err)
	sheet = pairs.Stamp(sheet, list)

	other, err := observe(lab, modelled(t, host, 99), nil, "modelled")
	require.NoError(t, err)
	list, err = other.Replay(context.Background(), sheet, filepath.Join(t.TempDir(), "twin"))
	require.NoError(t, err)
	inside, n := 0, 0
	for _, p := range list {
		for _, m := range []pairs.Metric{pairs.TTFT, pairs.TPOT} {
			inside, n = inside+p.Metrics[m].Inside, n+p.Metrics[m].Bounded
		}
	}
	covered := float64(inside) / float64(n)
	require.True(t, covered >= 0.78 && covered <= 0.85, "%.3f of %d", covered, n)
	require.Less(t, pairs.MedianError(list, pairs.E2E, pairs.Mean), 0.03)
	require.Less(t, pairs.MedianError(list, pairs.TPOT, pairs.P90), 0.08)
}

// Messages that come after a rest are 100 µs late, those that follow at once 20, and
// senders go on 30 µs later; one of each kind waited for something else. A replay pays
// as much, and 50 µs before each first step.
func TestHandlingIsLearntAndPaid(t *testing.T) {
	us := time.Microsecond
	var waits []ops.Wait
	for i := range 20 {
		at, late := time.Duration(i+1)*10*time.Millisecond, 100*us
		if i == 7 {
			late = 3 * time.Millisecond
		}
		waits = append(waits, ops.Wait{Link: "up", Due: at, End: at + late}, ops.Wait{Link: "up", Resumed: true, Due: at + late, End: at + late + 30*us},
			ops.Wait{Link: "up", Due: at + late + 300*us, End: at + late + 320*us})
	}
	o, err := observe(&harness.Lab{}, modelled(t, truth(t, nil), 1), nil, "modelled")
	require.NoError(t, err)
	for i := range o.ops {
		o.ops[i].Waits = nil
	}
	o.ops[0].Waits = waits
	h, err := o.handling("this test")
	require.NoError(t, err)
	require.InDelta(t, 100e-6, h.Idle, 1e-9)
	require.InDelta(t, 20e-6, h.Busy, 1e-9)
	require.InDelta(t, 30e-6, h.Resume, 1e-9)
	require.Zero(t, h.Start, "modelled requests start at once")

	plain, late := truth(t, nil), truth(t, nil)
	h.Start, h.Resume = 50e-6, 300e-6
	late.Host = h
	mean := func(sheet *profiles.DeviceSheet) map[string]float64 {
		list, err := o.Replay(context.Background(), sheet, filepath.Join(t.TempDir(), "twin"))
		require.NoError(t, err)
		out := map[string]float64{}
		for _, p := range list {
			out[p.Measured.Pipeline+p.Measured.Model] = p.Metrics[pairs.TTFT].Modelled[pairs.P50]
		}
		return out
	}
	a, b := mean(plain), mean(late)
	require.InDelta(t, 50e-6, b["localmei-nano"]-a["localmei-nano"], 3e-6)
	// the prompt's message is late and its sender goes on later; so is the first token; the
	// link's luck is that of a moment later
	require.InDelta(t, 50e-6+100e-6+300e-6+100e-6, b["offloadmei-nano"]-a["offloadmei-nano"], 60e-6)
}

// A cell states the largest error of its models' calibrations, and none where one of
// them states none.
func TestCellsStateTheirErrors(t *testing.T) {
	host := truth(t, nil)
	host.Fitted[0].Errors = []profiles.Miss{{Metric: "ttft", P50: 0.9}, {Metric: "e2e", P50: 0.03}}
	host.Fitted[1].Errors = []profiles.Miss{{Metric: "e2e", P50: 0.05}}
	cell := func(pipeline, model string) (string, float64) {
		lab := &harness.Lab{Host: host}
		terms, err := lab.Terms(harness.Arm{Suite: "s", Cell: suites.Cell{Name: "c", App: "assistant", Pipeline: pipeline, Site: "this-machine", Model: model, Small: "mei-nano",
			Mode: "modelled", Scale: "task", Requests: 2, Scenario: "open", Repeats: 1}})
		require.NoError(t, err)
		return terms.Header.Tier, terms.Header.Stated
	}
	for _, tc := range []struct {
		pipeline, model, tier string
		stated                float64
	}{
		{"local", "mei-nano", "fitted", 0.03}, {"local", "mei-small", "fitted", 0.05}, {"speculate", "mei-small", "fitted", 0.05},
		{"speculate", "mei-base", "prior", 0}, {"local", "mei-base", "prior", 0},
	} {
		tier, stated := cell(tc.pipeline, tc.model)
		require.Equal(t, tc.tier, tier, "%s %s", tc.pipeline, tc.model)
		require.Equal(t, tc.stated, stated, "%s %s", tc.pipeline, tc.model)
	}
	host.Fitted[0].Errors = nil
	_, stated := cell("speculate", "mei-small")
	require.Zero(t, stated)
}

func TestObserveRefuses(t *testing.T) {
	dir := modelled(t, truth(t, nil), 1)
	lab := &harness.Lab{}
	_, err := Observe(lab, dir, nil)
	require.ErrorContains(t, err, "has no measured cells")
	_, err = observe(lab, dir, []string{"gpt"}, "modelled")
	require.ErrorContains(t, err, `no operation of model "gpt" was timed in `+dir+" (have mei-nano, mei-small)")
	_, err = pairs.Compare(dir, dir)
	require.ErrorIs(t, err, pairs.ErrNoTwins)

	path := filepath.Join(dir, ops.Dir, "00000-000.csv")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines[2], lines[3] = lines[3], lines[2]
	require.NoError(t, os.WriteFile(path, bytes.Join(lines, nil), 0o644))
	o, err := observe(lab, dir, nil, "modelled")
	require.NoError(t, err)
	_, err = o.Calibrate()
	require.ErrorContains(t, err, "a trace that goes back in time is no measurement")

	require.NoError(t, os.RemoveAll(filepath.Join(dir, ops.Dir)))
	_, err = observe(lab, dir, nil, "modelled")
	require.ErrorContains(t, err, "keeps no timings of operations")
	require.NoError(t, os.Remove(filepath.Join(dir, pairs.HostFile)))
	_, err = observe(lab, dir, nil, "modelled")
	require.ErrorContains(t, err, "keeps no profile of the machine")
}

// Package twin closes the loop between what was measured and what is modelled:
// observe, calibrate, replay, compare.
//
//	obs, err := twin.Observe(lab, "runs/a", nil)         // a run with measured cells
//	sheet, err := obs.Calibrate()                        // the device's law, fitted to what it took
//	list, err := obs.Replay(ctx, sheet, "runs/a-twin")   // the same requests, modelled with it
//	sheet = pairs.Stamp(sheet, list)                     // errors and intervals go into the profile
//	again, err := pairs.Compare("runs/b", "runs/b-twin") // other runs, that it has not seen
//
// What is compared are whole requests, by the clock that they intended to start at:
// error of the mean and of quantiles, and how many lie inside the interval that the
// profile states. Requests of a measured and of a modelled cell are the same by
// construction, since schedules and prompts come from seeds.
//
// What it does not do: calibrate links (their state is drawn, not fitted), servers
// that somebody else runs, or devices that are not this machine.
package twin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/fitting"
	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/ops"
	"meibench/harness/pairs"
	"meibench/harness/plan"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/suites"
)

// Observation is a run folder with measured cells, as a calibration needs it.
type Observation struct {
	Dir      string
	Host     *profiles.DeviceSheet // as it was before
	Manifest results.Manifest
	Models   []string // that operations were timed of and that are asked for, sorted
	Skipped  []string // measured cells that cannot be modelled on this machine's profile, and why

	mode  string
	lab   *harness.Lab
	cells []results.CellRun // measured
	plan  *plan.Plan
	ops   []ops.Table
	specs map[string]*hardware.Model
	seen  map[string]string
}

// Observe reads a run folder. models narrows what is fitted; none means all that
// were timed. It refuses a folder without measured cells, without timed operations,
// and models whose files are not those of the run.
func Observe(lab *harness.Lab, dir string, models []string) (*Observation, error) {
	return observe(lab, dir, models, "measured")
}

// observe takes the cells of a mode for what was measured; tests have modelled ones.
func observe(lab *harness.Lab, dir string, models []string, mode string) (*Observation, error) {
	set, err := results.Read(dir)
	if err != nil {
		return nil, err
	}
	defer set.Close()
	o := &Observation{Dir: dir, mode: mode, Manifest: set.Manifest, lab: lab, specs: map[string]*hardware.Model{}, seen: map[string]string{}}
	invalid := map[results.Key]string{}
	for _, c := range set.Runs() {
		switch {
		case c.Cell.Mode != mode:
		case !c.Cell.Valid:
			invalid[results.KeyOf(&c.Cell)] = strings.Join(c.Cell.Invalid, "; ")
			o.Skipped = append(o.Skipped, fmt.Sprintf("%s/%s is INVALID (%s)", c.Cell.Suite, c.Cell.Name, strings.Join(c.Cell.Invalid, "; ")))
		default:
			o.cells = append(o.cells, c)
		}
	}
	switch {
	case len(o.cells) == 0 && len(invalid) > 0:
		return nil, fmt.Errorf("%s: all %d measured cells are INVALID, so they say nothing about the machine: %s (stop other programs and measure again)", dir, len(invalid), o.Skipped[0])
	case len(o.cells) == 0:
		return nil, fmt.Errorf("%s has no measured cells, so there is nothing to calibrate by: observe first, with meibench run --mode measured", dir)
	}
	if o.Host, err = profiles.LoadDevice(filepath.Join(dir, pairs.HostFile)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s keeps no profile of the machine (%s): was it measured on sites with nodes on this machine?", dir, pairs.HostFile)
		}
		return nil, err
	}
	if o.plan, err = plan.Read(filepath.Join(dir, plan.File)); err != nil {
		return nil, err
	}
	if o.ops, err = ops.Read(dir); err != nil {
		return nil, err
	}
	o.ops = slices.DeleteFunc(o.ops, func(t ops.Table) bool {
		return invalid[results.Key{Suite: t.Suite, Cell: t.Cell, Seed: t.Seed, Repeat: t.Repeat}] != ""
	})
	if len(o.ops) == 0 {
		return nil, fmt.Errorf("%s keeps no timings of operations (folder %s): it was measured by an older version, or on other machines; measure it again", dir, ops.Dir)
	}
	if err := o.sumUp(); err != nil {
		return nil, err
	}
	return o, o.resolve(models)
}

// sumUp notes the digests of what a calibration sees.
func (o *Observation) sumUp() error {
	files := []string{results.RequestsFile, results.CellsFile, pairs.HostFile}
	tables, err := filepath.Glob(filepath.Join(o.Dir, ops.Dir, "*.csv"))
	if err != nil {
		return err
	}
	slices.Sort(tables)
	all := sha256.New()
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(o.Dir, f))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		o.seen[f] = hex.EncodeToString(sum[:])
	}
	for _, f := range tables {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		all.Write(text)
	}
	o.seen[ops.Dir] = hex.EncodeToString(all.Sum(nil))
	return nil
}

// resolve finds the models that were timed.
func (o *Observation) resolve(want []string) error {
	timed := map[string]bool{}
	for _, t := range o.ops {
		for i := range t.Ops {
			timed[t.Ops[i].Model] = true
		}
	}
	have := slices.Sorted(maps.Keys(timed))
	for _, w := range want {
		if !timed[w] {
			return fmt.Errorf("no operation of model %q was timed in %s (have %s)", w, o.Dir, strings.Join(have, ", "))
		}
	}
	for _, name := range have {
		m, err := o.lab.Model(name)
		if err != nil {
			return fmt.Errorf("model %q of %s: %w", name, o.Dir, err)
		}
		if was := o.Manifest.Models[name]; was != "" && was != m.Digest {
			return fmt.Errorf("model %q of %s is %.12s, here it is %.12s: calibrate with the model that was measured", name, o.Dir, was, m.Digest)
		}
		o.specs[name] = m.Spec
		if len(want) == 0 || slices.Contains(want, name) {
			o.Models = append(o.Models, name)
		}
	}
	return nil
}

// traces are the operations of each device in each run.
func (o *Observation) traces() ([]fitting.Trace, error) {
	var out []fitting.Trace
	for _, t := range o.ops {
		at := map[string]int{}
		for i := range t.Ops {
			x := &t.Ops[i]
			k, ok := at[x.Node]
			if !ok {
				k = len(out)
				at[x.Node], out = k, append(out, nil)
			}
			if n := len(out[k]); n > 0 && x.Start < out[k][n-1].End {
				return nil, fmt.Errorf("%s/%s repeat %d: node %s: operation %d starts at %v, before the one before it ended at %v: a trace that goes back in time is no measurement",
					t.Suite, t.Cell, t.Repeat, x.Node, i, x.Start, out[k][n-1].End)
			}
			m := o.specs[x.Model]
			if x.Hi > m.Layers {
				return nil, fmt.Errorf("%s/%s: operation %d runs layers [%d, %d) of %s, which has %d", t.Suite, t.Cell, i, x.Lo, x.Hi, x.Model, m.Layers)
			}
			out[k] = append(out[k], fitting.Timed{Model: x.Model, Kind: x.Kind, Span: hardware.Span{Lo: x.Lo, Hi: x.Hi}, Of: m.Layers, Size: x.Size(), Start: x.Start, End: x.End})
		}
	}
	return out, nil
}

// Calibrate fits the law of every model of the observation and, from these, that of
// the device for models that were not run. The profile is a copy.
func (o *Observation) Calibrate() (*profiles.DeviceSheet, error) {
	traces, err := o.traces()
	if err != nil {
		return nil, err
	}
	sheet := *o.Host
	sheet.Fitted = nil
	source := fmt.Sprintf("meibench calibrate, %d measured cell(s) of %s", len(o.cells), o.Manifest.Started.UTC().Format("2006-01-02 15:04 UTC"))
	var samples []fitting.Sample
	for _, name := range o.Models {
		fit, err := fitting.FitTrace(traces, name)
		if err != nil {
			return nil, fmt.Errorf("calibrate %s: %w", o.Dir, err)
		}
		fit.Digest, fit.Source, fit.Seen = o.specs[name].Digest, source, maps.Clone(o.seen)
		fit.Kernel = fmt.Sprintf("meibench kernels, %s, %d thread(s), %s", o.Manifest.Host["kernels"], harness.HostThreads(), o.Manifest.GoVersion)
		if o.Manifest.Commit != "" {
			fit.Kernel += ", commit " + o.Manifest.Commit
		}
		sheet.Fitted = append(sheet.Fitted, fit)
		samples = append(samples, typical(&fit, o.specs[name])...)
	}
	for _, f := range o.Host.Fitted { // what was known of other models stays
		if !slices.Contains(o.Models, f.Model) {
			sheet.Fitted = append(sheet.Fitted, f)
		}
	}
	out, err := fitting.Calibrate(&sheet, samples, source)
	if err != nil {
		return nil, err
	}
	if out.Host, err = o.handling(source); err != nil {
		return nil, err
	}
	out.Summary = strings.TrimSuffix(o.Host.Summary, calibrated) + calibrated
	return out, nil
}

const calibrated = "; calibrated"

// typical are operations as a fit times them, to calibrate the law for other models.
func typical(f *profiles.Fit, m *hardware.Model) (out []fitting.Sample) {
	only := profiles.DeviceSheet{Fitted: []profiles.Fit{*f}}
	only.Fitted[0].Spread = nil
	for _, op := range []hardware.Op{
		{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: 1, Context: 64}}},
		{Kind: hardware.Prefill, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: 64}}},
	} {
		w := costmodel.RowOf(&op)
		c := &only.Fitted[0].Prefill
		if op.Kind == hardware.Decode {
			c = &only.Fitted[0].Decode
		}
		if sec := costmodel.Seconds(c, w, m.Layers); sec > 0 {
			out = append(out, fitting.Sample{Op: op, Time: time.Duration(math.Round(sec * 1e9))})
		}
	}
	return out
}

// arms are the measured cells as modelled ones, with the seeds that they had.
func (o *Observation) arms() ([]harness.Arm, error) {
	var out []harness.Arm
	for i := range o.cells {
		c := &o.cells[i].Cell
		cell, ok := find(o.plan, c)
		if !ok {
			return nil, fmt.Errorf("%s: cell %s/%s is not in its plan: the folder was changed", o.Dir, c.Suite, c.Name)
		}
		cell = harness.Shorten(cell, o.plan.Quick)
		cell.Mode = "modelled"
		a := harness.Arm{Suite: c.Suite, Index: c.Index, Cell: cell, Repeat: c.Repeat, Seed: c.Seed, Quick: o.plan.Quick}
		if _, err := o.lab.Terms(a); err != nil {
			o.Skipped = append(o.Skipped, fmt.Sprintf("%s/%s: %v", c.Suite, c.Name, err))
			continue
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no measured cell can be modelled: %s", o.Dir, strings.Join(o.Skipped, "; "))
	}
	return out, nil
}

func find(p *plan.Plan, c *record.Cell) (suites.Cell, bool) {
	for _, s := range p.Suites {
		for _, k := range s.Cells {
			if s.Name == c.Suite && k.Name == c.Name {
				return k.Cell, true
			}
		}
	}
	return suites.Cell{}, false
}

// Replay runs the measured cells again, modelled with a profile of this machine, into
// a new run folder, and compares.
func (o *Observation) Replay(ctx context.Context, sheet *profiles.DeviceSheet, dir string) ([]pairs.Pair, error) {
	arms, err := o.arms()
	if err != nil {
		return nil, err
	}
	was := o.lab.Host
	o.lab.Host = sheet
	defer func() { o.lab.Host = was }()
	if err := o.lab.Replay(ctx, dir, arms, quiet{}); err != nil {
		return nil, fmt.Errorf("replay %s: %w", o.Dir, err)
	}
	text, err := sheet.YAML()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, pairs.HostFile), text, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("replay %s: %w", o.Dir, err)
	}
	return pairs.Between(o.Dir, dir, sheet, o.mode)
}

type quiet struct{}

func (quiet) Cell(int, int, string, int) {}
func (quiet) Request(int)                {}
func (quiet) Note(string, ...any)        {}

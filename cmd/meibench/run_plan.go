package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"meibench/harness"
	"meibench/harness/ledger"
	"meibench/harness/plan"
	"meibench/harness/results"
	"meibench/internal/canon"
	"meibench/suites"
)

// planned is what --plan and --log bring into a run.
type planned struct {
	file, logDir string
	cells        []string // some of the plan's cells; none = all

	plan    *plan.Plan
	receipt *plan.Receipt
	log     *ledger.Log
	began   bool // the attempt is in the log
}

// besidePlan are the flags that may stand beside --plan: all others would change
// what is run.
var besidePlan = []string{"plan", "cell", "log", "out", "resume", "bench", "profile", "shard", "jobs", "dry-run", "no-report", "trace", "json", "quiet"}

// load reads the plan, the receipt beside it, and the log.
func (p *planned) load(flags *pflag.FlagSet, args []string) ([]*suites.Suite, error) {
	if p.file == "" {
		if p.logDir != "" {
			return nil, errors.New("--log belongs to --plan: attempts are those of a plan")
		}
		if len(p.cells) > 0 {
			return nil, errors.New("--cell belongs to --plan: it names cells of a plan, such as plan.json of a run folder; without one, use --app, --pipeline or --part")
		}
		return nil, nil
	}
	var others []string
	flags.Visit(func(f *pflag.Flag) {
		if !slices.Contains(besidePlan, f.Name) {
			others = append(others, "--"+f.Name)
		}
	})
	if len(args) > 0 || len(others) > 0 {
		return nil, fmt.Errorf("--plan %s says all that is run: leave out %s, or make another plan", p.file, strings.Join(append(slices.Clone(args), others...), " "))
	}
	var err error
	if p.plan, err = plan.Read(p.file); err != nil {
		return nil, err
	}
	if p.plan, err = p.plan.Only(p.cells); err != nil {
		return nil, fmt.Errorf("--cell: %w", err)
	}
	if len(p.cells) > 0 && p.logDir != "" {
		return nil, errors.New("--cell and --log: an attempt in a log is at the whole plan; leave out one of them")
	}
	if p.receipt, err = plan.ReadReceipt(receiptBeside(p.file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if p.receipt != nil && len(p.cells) == 0 {
		if err := p.checkPath(); err != nil {
			return nil, err
		}
	}
	if p.logDir == "" {
		return p.plan.Load(), nil
	}
	if p.receipt == nil {
		return nil, fmt.Errorf("--log %s: the plan is in no log yet: meibench plan %s --commit %s", p.logDir, p.file, p.logDir)
	}
	p.log, err = ledger.Open(p.logDir)
	return p.plan.Load(), err
}

// checkPath refuses a receipt of another plan before an hour is spent.
func (p *planned) checkPath() error {
	digest, err := p.plan.Digest()
	if err != nil {
		return err
	}
	if e := p.receipt.Plan.Entry; e.Digest != digest {
		return fmt.Errorf("%s is of plan %.16s, this one is %.16s: the plan was changed after it was committed", receiptBeside(p.file), e.Digest, digest)
	}
	_, err = p.receipt.Plan.CheckPath()
	return err
}

// receiptBeside is where the receipt of a plan is: in the run folder, or under
// the plan's name.
func receiptBeside(file string) string {
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return filepath.Join(file, plan.ReceiptFile)
	}
	if filepath.Base(file) == plan.File {
		if beside := filepath.Join(filepath.Dir(file), plan.ReceiptFile); exists(beside) {
			return beside
		}
	}
	return strings.TrimSuffix(file, ".json") + ".receipt.json"
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// run runs the plan, or what the options say if there is none.
func (p *planned) run(ctx context.Context, lab *harness.Lab, o harness.Options) error {
	if p.plan != nil {
		o.Quick = p.plan.Quick
		if err := p.same(lab, o); err != nil {
			return &harness.InputError{Err: err}
		}
	}
	if err := p.begin(o.Resume, o.Out); err != nil {
		return err
	}
	switch {
	case p.receipt == nil:
	case len(p.cells) > 0: // a part of a committed plan, with the seed that it was run with
		seed, err := p.receipt.Seed()
		if err != nil {
			return err
		}
		o.Seed = seed
	default:
		o.Receipt = p.receipt
	}
	err := harness.Run(ctx, lab, o)
	return errors.Join(err, p.end(o.Out, err))
}

// same refuses to run what is not what the plan fixed: another model under the
// same name, a profile that was changed.
func (p *planned) same(lab *harness.Lab, o harness.Options) error {
	now, err := lab.Plan(o)
	if err != nil {
		return err
	}
	if len(p.cells) > 0 { // the rest of the plan may want more of them
		maps.DeleteFunc(p.plan.Models, func(k, _ string) bool { _, ok := now.Models[k]; return !ok })
		maps.DeleteFunc(p.plan.Profiles, func(k, _ string) bool { _, ok := now.Profiles[k]; return !ok })
	}
	a, err := p.plan.Digest()
	if err != nil {
		return err
	}
	b, err := now.Digest()
	if err != nil || a == b {
		return err
	}
	var diff []string
	for _, kind := range []struct {
		name     string
		was, now map[string]string
	}{{"model", p.plan.Models, now.Models}, {"profile", p.plan.Profiles, now.Profiles}} {
		for _, k := range slices.Sorted(maps.Keys(kind.was)) {
			if kind.was[k] != kind.now[k] {
				diff = append(diff, fmt.Sprintf("%s %s is %.12s, here it is %.12s", kind.name, k, kind.was[k], kind.now[k]))
			}
		}
	}
	if len(diff) == 0 {
		diff = []string{"the contract of a cell is another here: another version of meibench"}
	}
	return fmt.Errorf("plan %s cannot be run here as it was fixed: %s", p.file, strings.Join(diff, "; "))
}

// begin records the attempt, before anything runs.
func (p *planned) begin(resume bool, out string) error {
	if p.log == nil || !resume && exists(filepath.Join(out, results.ManifestFile)) { // which Run refuses
		return nil
	}
	if was, err := plan.ReadReceipt(out); resume && err == nil {
		p.receipt, p.began = was, true // the attempt that is gone on with
		return nil
	}
	p.began = true
	return p.receipt.Begin(p.log)
}

// end records how the attempt ended, whatever came of it.
func (p *planned) end(out string, failed error) error {
	if !p.began {
		return nil
	}
	text, digest := "complete", ""
	if failed != nil {
		text = "failed"
	} else {
		set, err := results.Read(out)
		if err != nil {
			return err
		}
		if digest, err = tablesDigest(&set.Manifest); err != nil {
			return errors.Join(err, set.Close())
		}
		if !set.Manifest.Complete {
			text = "a part of the plan"
		}
		if err := set.Close(); err != nil {
			return err
		}
	}
	return p.receipt.End(p.log, digest, text)
}

// tablesDigest identifies what a run left, whatever its manifest is called by.
func tablesDigest(m *results.Manifest) (string, error) { return canon.Hash(m.Files) }

// Package harness runs the cells of a suite and records what happened.
//
// A cell is resolved by a Lab (names to models, workloads and profiles), set up
// in a world that fits its mode, driven, judged, and written:
//
//	mode         world              devices            links
//	measured     Real, wall clock   reference kernels  shaped loopback sockets
//	emulated     Sim                reference kernels  cost model
//	modelled     Sim                cost model         cost model
//	conformance  Real, fake clock   cost model         cost model (tests only)
//
// The pipeline is the same source in all of them. Repeats are the unit of
// inference: each has its own seed, and within a repeat the cells of a measured
// suite run in an order drawn from that seed, so that a drift of the machine
// falls on all arms alike. Modelled runs of cells share nothing but what a Lab
// keeps, so they run side by side on all cores (Options.Jobs); the tables are
// sorted, and do not depend on who was first.
package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"meibench/hardware/profiles"
	"meibench/harness/plan"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/rng"
	"meibench/suites"
)

// Progress hears what a run is doing. Its methods may be called from any
// goroutine.
type Progress interface {
	Cell(i, n int, name string, requests int)
	Request(done int)
	Note(format string, args ...any)
}

// Options say what to run and where to put it.
type Options struct {
	Suites   []*suites.Suite
	Out      string     // run folder
	Resume   bool       // go on with what Out holds
	Seed     uint64     // 0 = the cells' own
	Repeats  int        // 0 = the cells' own
	Quick    bool       // fewer requests; marks everything NOT COMPARABLE
	Shard    plan.Shard // the part to run, as plan.Split cuts it; the zero value is all
	Jobs     int        // modelled cells that run side by side; 0 = one per core. Bytes do not depend on it
	Gate     Gate
	Command  []string
	Receipt  *plan.Receipt // the plan is in a log, which gives the seed in place of Seed and the cells' own; nil otherwise
	Progress Progress
	Now      func() time.Time
}

// Gate keeps runs of cells apart that other processes of this machine make: nil
// lets everybody in. Modelled ones share the machine, all others have it to
// themselves. Enter waits, and the function it returns leaves again.
type Gate interface {
	Enter(ctx context.Context, alone bool) (leave func(), err error)
}

// quickShare is what remains of a cell's requests under --quick.
const quickShare = 4

// arm is one run of one cell.
type arm struct {
	cell   suites.Cell
	suite  string
	index  int // of the cell in the whole run
	repeat int
	seed   uint64
	setup  *setup
	shard  int  // of o.Shard.N
	bare   bool // see Arm
}

// InputError is a cell that cannot run: a name that does not exist, a mode that
// a site does not offer. Nothing has run.
type InputError struct{ Err error }

// Error is the error inside.
func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap returns the error inside.
func (e *InputError) Unwrap() error { return e.Err }

// Run runs what the options say. What was recorded stays recorded whatever goes
// wrong; the error then says how to go on.
func Run(ctx context.Context, lab *Lab, o Options) (err error) {
	all, err := lab.plan(o)
	if err != nil {
		return &InputError{err}
	}
	arms := part(all, o.Shard)
	if err := mayWrite(o); err != nil {
		return err
	}
	if err := lab.prepare(o, arms); err != nil {
		return err
	}
	run, err := open(lab, o, all)
	if errors.Is(err, results.ErrComplete) {
		o.Progress.Note("%s is complete; nothing to do", o.Out)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := run.Close(); cerr != nil && (err == nil || !strings.Contains(err.Error(), cerr.Error())) {
			err = errors.Join(err, cerr)
		}
	}()
	for _, w := range run.Manifest().Warnings {
		o.Progress.Note("warning: %s", w)
	}
	if os.Getenv("GOGC") == "" && !slices.ContainsFunc(arms, func(a *arm) bool { return a.cell.Mode != "modelled" }) {
		defer debug.SetGCPercent(debug.SetGCPercent(modelledGC)) // nobody's time is measured, and there is memory
	}
	c := &crew{lab: lab, run: run, opt: o, places: make(chan struct{}, cmp.Or(o.Jobs, runtime.GOMAXPROCS(0)))}
	if err := c.work(ctx, arms); err != nil {
		return err
	}
	return run.Finish()
}

// modelledGC is how much more than what lives the heap may hold in a run that
// measures nothing: a tenth of the time of a city goes to collecting at the default.
const modelledGC = 300

// crew runs arms: modelled ones side by side, as they have a clock of their own,
// all others one by one while nothing else runs.
type crew struct {
	lab    *Lab
	run    *results.Run
	opt    Options
	places chan struct{} // a token for each arm that runs

	mu    sync.Mutex
	at    int // of the arm that failed; the first in the order of the plan
	fails error
}

// work runs the arms that are not done yet. After a failure none is begun; the
// error is that of the first of those that failed.
func (c *crew) work(ctx context.Context, arms []*arm) error {
	var busy sync.WaitGroup
	for i, a := range arms {
		if c.run.Done(a.key()) {
			continue
		}
		if !a.alone() {
			c.places <- struct{}{}
			if c.stop(ctx, i, a) {
				break
			}
			busy.Go(func() {
				defer func() { <-c.places }()
				c.one(ctx, i, len(arms), a)
			})
			continue
		}
		busy.Wait()
		if c.stop(ctx, i, a) {
			break
		}
		c.one(ctx, i, len(arms), a)
	}
	busy.Wait()
	return c.fails
}

// alone reports whether an arm must have the machine to itself.
func (a *arm) alone() bool { return a.cell.Mode != "modelled" }

// stop reports whether the next arm is not to begin.
func (c *crew) stop(ctx context.Context, i int, a *arm) bool {
	if ctx.Err() != nil {
		c.fail(i, fmt.Errorf("stopped before %s: %w", a.title(), context.Cause(ctx)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fails != nil
}

func (c *crew) fail(i int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails == nil || i < c.at {
		c.at, c.fails = i, err
	}
}

// one runs one arm and keeps its error.
func (c *crew) one(ctx context.Context, i, n int, a *arm) {
	p := c.opt.Progress
	if c.opt.Gate != nil {
		leave, err := c.opt.Gate.Enter(ctx, a.alone())
		if err != nil {
			c.fail(i, fmt.Errorf("%s: %w", a.title(), err))
			return
		}
		defer leave()
	}
	requests := a.cell.Requests
	if !a.alone() && cap(c.places) > 1 { // one line cannot show the requests of several
		p, requests = cellsOnly{p}, 0
	}
	p.Cell(i, n, a.title(), requests)
	err := c.lab.runArm(ctx, c.run, a, p)
	switch {
	case err == nil:
	case strings.Contains(err.Error(), "--resume"): // it says so itself
		c.fail(i, fmt.Errorf("%s: %w", a.title(), err))
	default:
		c.fail(i, fmt.Errorf("%s: %w (what is recorded is safe; go on with --resume --out %s)", a.title(), err, c.opt.Out))
	}
}

// cellsOnly is a Progress that does not hear of requests.
type cellsOnly struct{ Progress }

// Request says nothing.
func (cellsOnly) Request(int) {}

// open makes the run folder, or goes on with it. The manifest of a shard is that of
// the whole but for the number of runs that make it complete, so that shards know
// what they are parts of.
func open(lab *Lab, o Options, all []*arm) (*results.Run, error) {
	m, err := lab.manifest(o, all)
	if err != nil {
		return nil, err
	}
	m.Expected = len(part(all, o.Shard))
	if o.Resume && nothingIn(o.Out) {
		o.Progress.Note("%s holds nothing yet: starting", o.Out)
		o.Resume = false
	}
	if !o.Resume {
		run, err := results.Create(o.Out, m)
		if err == nil && lab.Host != nil {
			err = lab.keepHost(o.Out)
		}
		return run, errors.Join(err, lab.keepPlan(o))
	}
	run, err := results.Open(o.Out)
	if errors.Is(err, results.ErrComplete) {
		set, rerr := results.Read(o.Out)
		if rerr != nil {
			return nil, rerr
		}
		return nil, errors.Join(cmp.Or(sameRun(o.Out, set.Manifest, m), err), set.Close())
	}
	if err != nil {
		return nil, err
	}
	if err := sameRun(o.Out, run.Manifest(), m); err != nil {
		return nil, errors.Join(err, run.Close())
	}
	return run, lab.keepPlan(o)
}

// keepPlan puts what will be run into the run folder, and the proof that it was
// fixed before.
func (l *Lab) keepPlan(o Options) error {
	p, err := l.Plan(o)
	if err != nil {
		return err
	}
	if err := p.Write(filepath.Join(o.Out, plan.File)); err != nil {
		return err
	}
	if o.Receipt == nil {
		return nil
	}
	return o.Receipt.Write(filepath.Join(o.Out, plan.ReceiptFile))
}

// Plan is what a run with these options would run. Shard, folder and receipt are
// no part of it.
func (l *Lab) Plan(o Options) (*plan.Plan, error) {
	p := &plan.Plan{Format: plan.Format, Quick: o.Quick, Models: map[string]string{}, Profiles: map[string]string{}}
	for _, s := range o.Suites {
		out := plan.Suite{Name: s.Name, Question: s.Question, Hash: s.Hash, Text: string(s.Text)}
		for _, c := range s.Cells {
			c = o.change(c)
			set, err := l.resolve(o.shorten(c), o.Quick)
			if err != nil {
				return nil, &InputError{fmt.Errorf("suite %s, cell %s: %w", s.Name, c.Name, err)}
			}
			l.digests(set, p.Models, p.Profiles)
			out.Cells = append(out.Cells, plan.Cell{Cell: c, Contract: set.hash})
		}
		p.Suites = append(p.Suites, out)
	}
	delete(p.Profiles, "device "+profiles.Host)
	return p, nil
}

// change is a cell with what the options say in place of its own.
func (o *Options) change(c suites.Cell) suites.Cell {
	c.Repeats, c.Seed = cmp.Or(max(0, o.Repeats), c.Repeats), cmp.Or(o.Seed, c.Seed)
	return c
}

// shorten is a cell as a quick run has it.
func (o *Options) shorten(c suites.Cell) suites.Cell {
	if o.Quick {
		c.Requests, c.Warmup = max(2, c.Requests/quickShare), min(c.Warmup, 1)
	}
	return c
}

// mayWrite refuses a folder before time is spent on measuring the machine.
func mayWrite(o Options) error {
	_, err := os.Stat(filepath.Join(o.Out, results.ManifestFile))
	switch {
	case err == nil && !o.Resume:
		return fmt.Errorf("%s already holds a run: go on with it by --resume, or choose another --out", o.Out)
	case errors.Is(err, fs.ErrNotExist) && o.Resume && !nothingIn(o.Out):
		return fmt.Errorf("%s holds something, but no run (is it a folder that meibench run wrote?)", o.Out)
	}
	return nil
}

// nothingIn reports whether a folder is missing or has no run: the run was
// killed before it wrote anything, or never began.
func nothingIn(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, results.ManifestFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	entries, err := os.ReadDir(dir)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0
}

// sameRun refuses to go on with a folder that another command began.
func sameRun(dir string, was, now results.Manifest) error {
	if was.Contract == now.Contract && was.SuiteHash == now.SuiteHash {
		return nil
	}
	return fmt.Errorf("%s holds another run (suite %.12s, contract %.12s; this is suite %.12s, contract %.12s): resume with the command that began it: %q",
		dir, was.SuiteHash, was.Contract, now.SuiteHash, now.Contract, was.Command)
}

// part is what a shard has of all runs of cells, in their order.
func part(all []*arm, s plan.Shard) (out []*arm) {
	for _, a := range all {
		if s.N <= 1 || a.shard == s.I {
			out = append(out, a)
		}
	}
	return out
}

// plan lists the runs of cells of all shards, in the order in which they will be made.
func (l *Lab) plan(o Options) ([]*arm, error) {
	list, shards, err := o.list()
	if err != nil {
		return nil, err
	}
	var arms []*arm
	var set *setup
	most := 0
	for i, a := range list {
		if a.Repeat == 0 {
			if set, err = l.resolve(a.Cell, o.Quick); err != nil {
				return nil, fmt.Errorf("suite %s, cell %s: %w", a.Suite, a.Cell.Name, err)
			}
		}
		most = max(most, a.Cell.Repeats)
		arms = append(arms, &arm{cell: a.Cell, suite: a.Suite, index: a.Index, repeat: a.Repeat, seed: a.Seed, shard: shards[i], setup: set})
	}
	return interleave(arms, most), nil
}

// list is every run of a cell that the options ask for, in the order of the suites, and
// the shard that it is in. No name is looked up.
func (o Options) list() (list []Arm, shards []int, err error) {
	if o.Receipt != nil {
		if o.Seed, err = o.Receipt.Seed(); err != nil {
			return nil, nil, err
		}
	}
	var costs []int64
	index := 0
	for _, s := range o.Suites {
		for _, c := range s.Cells {
			c = o.change(c)
			cost := plan.Cost(&c)
			c = o.shorten(c)
			for r := range c.Repeats {
				list = append(list, Arm{Suite: s.Name, Index: index, Cell: c, Repeat: r, Seed: repeatSeed(c.Seed, r), Quick: o.Quick})
				costs = append(costs, cost)
			}
			index++
		}
	}
	return list, plan.Split(costs, max(o.Shard.N, 1)), nil
}

// Share lists the runs of cells that the shard of the options has, in the order of the
// suites, and looks no name up: what does not exist shows when it is to run.
func (o Options) Share() (out []Arm, err error) {
	list, shards, err := o.list()
	for i, a := range list {
		if o.Shard.N <= 1 || shards[i] == o.Shard.I {
			out = append(out, a)
		}
	}
	return out, err
}

// repeatSeed gives each repeat a seed of its own; the first has the cell's.
func repeatSeed(seed uint64, repeat int) uint64 {
	if repeat == 0 {
		return seed
	}
	return rng.Stream(seed, "repeat", repeat).Uint64()
}

// interleave orders arms by repeat and shuffles the measured ones within each:
// drift of the machine then falls on all arms alike.
func interleave(arms []*arm, repeats int) []*arm {
	out := make([]*arm, 0, len(arms))
	for r := range repeats {
		var round []*arm
		var at []int // where measured arms stand in the round
		for _, a := range arms {
			if a.repeat == r {
				if a.cell.Mode == "measured" {
					at = append(at, len(round))
				}
				round = append(round, a)
			}
		}
		if len(at) > 0 {
			rng.Stream(round[at[0]].seed, "order", r).Shuffle(len(at), func(i, j int) {
				round[at[i]], round[at[j]] = round[at[j]], round[at[i]]
			})
		}
		out = append(out, round...)
	}
	return out
}

func (a *arm) title() string {
	t := a.suite + " " + a.cell.Name
	if a.cell.Repeats > 1 {
		t += fmt.Sprintf(" repeat %d", a.repeat+1)
	}
	return t
}

func (a *arm) key() results.Key {
	c := record.Cell{Suite: a.suite, Name: a.cell.Name, Seed: a.seed, Repeat: a.repeat}
	return results.KeyOf(&c)
}

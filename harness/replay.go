package harness

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/suites"
	"meibench/workloads"
)

// Arm is one run of one cell as a plan asks for it: everything that decides
// which requests come and what a modelled run of it leaves.
type Arm struct {
	Suite  string
	Index  int         // of the cell in the whole run
	Cell   suites.Cell // as it runs: with the requests of a quick run where it is one
	Repeat int
	Seed   uint64 // of this repeat
	Quick  bool
	Bare   bool // only rows are wanted: Replay leaves out the attack on activations, whose figure no row has
}

// Key is the key of the arm's run.
func (a *Arm) Key() results.Key {
	return results.Key{Suite: a.Suite, Cell: a.Cell.Name, Seed: a.Seed, Repeat: a.Repeat}
}

// Arms lists the runs of cells that the options ask for, in the order in which
// Run makes them.
func (l *Lab) Arms(o Options) ([]Arm, error) {
	arms, err := l.plan(o)
	if err != nil {
		return nil, &InputError{err}
	}
	arms = part(arms, o.Shard)
	out := make([]Arm, len(arms))
	for i, a := range arms {
		out[i] = Arm{Suite: a.suite, Index: a.index, Cell: a.cell, Repeat: a.repeat, Seed: a.seed, Quick: o.Quick}
	}
	return out, nil
}

// Shorten is a cell as a run has it, which is shorter where the run is quick.
func Shorten(c suites.Cell, quick bool) suites.Cell {
	o := Options{Quick: quick}
	return o.shorten(c)
}

// RepeatSeed is the seed of a repeat of a cell with a seed; the first has the
// cell's own.
func RepeatSeed(seed uint64, repeat int) uint64 { return repeatSeed(seed, repeat) }

// Terms are what an arm promises before anything runs.
type Terms struct {
	Header   record.Cell // identity, limits, parameters and contract; no facts
	Contract results.Contract
	Model    *Model
	Small    *Model // nil unless the pipeline uses one
	Site     *profiles.SiteSheet
	Planned  int // requests
	work     *workloads.Workload
	seed     uint64
}

// Terms resolves an arm. Nothing runs.
func (l *Lab) Terms(a Arm) (*Terms, error) {
	as, err := l.arm(a)
	if err != nil {
		return nil, err
	}
	s := as.setup
	t := &Terms{Header: as.header(), Contract: s.contract, Model: s.model, Small: s.small, Site: s.site, Planned: a.Cell.Requests, work: s.work, seed: a.Seed}
	t.Header.Tier, t.Header.Stated = l.tier(s)
	if s.trace != nil {
		t.Planned = min(t.Planned, len(s.trace.Rows))
	}
	return t, nil
}

// With are the terms of another repeat of the cell, with its seed.
func (t *Terms) With(seed uint64, repeat int) *Terms {
	to := *t
	to.Header.Seed, to.Header.Repeat, to.seed = seed, repeat, seed
	return &to
}

// Closed reports whether requests of the arm wait for others, so that the
// schedule needs to be told of ends: see Follow.
func (t *Terms) Closed() bool { return t.work.Closed() }

// Schedule is the requests that wait for no other, in order of arrival: all of
// them unless Closed.
func (t *Terms) Schedule() iter.Seq[workloads.Request] { return t.work.Requests(t.seed) }

// Follow is told of the end of a request and returns what is asked because of
// it, as in workloads.Driver.
func (t *Terms) Follow() func(r workloads.Request, at time.Duration) []workloads.Request {
	return t.work.Drive(t.seed).Completed
}

// Device is a device profile by name; host is this machine's, if it is known.
func (l *Lab) Device(name string) (*profiles.DeviceSheet, error) { return l.device(name) }

// Link is the profile of a wire of the arm's site, with the round trip and the
// rate of the cell where it is the users' and the cell has its own.
func (l *Lab) Link(a Arm, site *profiles.SiteSheet, w profiles.Wire) (*profiles.LinkSheet, error) {
	sheet, err := l.link(w.Link)
	if err == nil && w.From == site.User().Name && (a.Cell.RTT > 0 || a.Cell.Mbps > 0) {
		sheet = sheet.With(a.Cell.RTT, a.Cell.Mbps*1e6/8)
	}
	return sheet, err
}

// Slowdown is how many times longer than on this machine the kernels take in an
// emulated cell on a device: 1 for this machine itself.
func (l *Lab) Slowdown(device string, m *Model) (float64, error) {
	if device == profiles.Host {
		return 1, nil
	}
	sheet, err := l.device(device)
	if err != nil {
		return 0, err
	}
	host, err := l.device(profiles.Host)
	if err != nil {
		return 0, err
	}
	return slowdown(sheet, host, m.Spec)
}

func (l *Lab) arm(a Arm) (*arm, error) {
	set, err := l.resolve(a.Cell, a.Quick)
	if err != nil {
		return nil, &InputError{fmt.Errorf("suite %s, cell %s: %w", a.Suite, a.Cell.Name, err)}
	}
	return &arm{cell: a.Cell, suite: a.Suite, index: a.Index, repeat: a.Repeat, seed: a.Seed, setup: set, bare: a.Bare}, nil
}

// Replay runs arms again and writes them into a new run folder. Modelled arms
// leave the rows that they left the first time, given the same profiles of
// devices (Lab.Host for this machine) and the same models.
func (l *Lab) Replay(ctx context.Context, dir string, arms []Arm, p Progress) (err error) {
	run, err := results.Create(dir, results.Manifest{Command: []string{"replay"}, Expected: len(arms)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	for i, a := range arms {
		as, err := l.arm(a)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stopped before %s: %w", as.title(), context.Cause(ctx))
		}
		p.Cell(i, len(arms), as.title(), a.Cell.Requests)
		if err := l.runArm(ctx, run, as, p); err != nil {
			return fmt.Errorf("run %s again: %w", as.title(), err)
		}
	}
	return run.Finish()
}

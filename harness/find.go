package harness

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"

	"meibench/harness/capacity"
	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/workloads"
)

// found is what a search for the capacity gave; nil where none was asked for.
type found struct {
	capacity.Estimate
	start float64
}

// findable refuses a search in a workload whose rate the system itself decides,
// or that has no limit to miss.
func (s *setup) findable() error {
	if s.cell.Find == nil {
		return nil
	}
	if math.IsNaN(s.work.Rate()) {
		return fmt.Errorf("find capacity: scenario %q offers no rate of its own: use open, server, periodic, multi-turn or trace", string(s.work.Spec().Scenario))
	}
	if l := s.work.Limits(); l.TTFT.Duration() == 0 && l.TPOT.Duration() == 0 && l.E2E.Duration() == 0 {
		return fmt.Errorf("find capacity: application %q has no limits, so any rate meets them", s.cell.App)
	}
	return nil
}

// at is the arm at another rate and with another seed.
func (a *arm) at(rate float64, seed uint64) (*arm, error) {
	set := *a.setup
	set.cell.Rate = rate
	work, err := set.workload(a.cell.Requests)
	if err != nil {
		return nil, err
	}
	set.work = work
	b := *a
	b.cell.Rate, b.seed, b.setup = rate, seed, &set
	return &b, nil
}

// find searches for the capacity where the cell asks for it, and returns the arm
// to record: with its own seed, at the rate found for that. The probes leave no rows.
// Every rate meets the same requests: luck is keyed by their numbers, and arrivals
// are those of the seed, compressed in time.
func (l *Lab) find(ctx context.Context, a *arm) (*arm, *found, error) {
	f := a.cell.Find
	if f == nil {
		return a, nil, nil
	}
	o := capacity.Options{Share: f.Share, Within: f.Within, Start: a.setup.work.Rate()}
	var all []capacity.Result
	for k := range f.Seeds {
		seed := a.seed
		if k > 0 {
			seed = rng.Stream(a.seed, "capacity", k).Uint64()
		}
		r, err := capacity.Find(o, func(rate float64) (float64, error) { return l.share(ctx, a, rate, seed) })
		if err != nil {
			return nil, nil, fmt.Errorf("find capacity: %w", err)
		}
		all = append(all, r)
		if r.Lo > 0 && !math.IsInf(r.Hi, 1) {
			o.Start = r.Lo // the next seed begins where this one ended
		}
	}
	e := &found{capacity.Over(all), a.setup.work.Rate()}
	rate := all[0].Lo // of the arm's own seed: the rows are a run that meets the share
	if rate == 0 {
		rate = e.start
	}
	as, err := a.at(rate, a.seed)
	return as, e, err
}

// share runs the arm at a rate and returns the share of requests within limits.
func (l *Lab) share(ctx context.Context, a *arm, rate float64, seed uint64) (float64, error) {
	if err := ctx.Err(); err != nil {
		return 0, errors.Join(err, context.Cause(ctx))
	}
	b, err := a.at(rate, seed)
	if err != nil {
		return 0, err
	}
	cell, good := b.header(), 0
	t := &trial{lab: l, arm: b, cell: &cell, progress: silent{}, sink: func(_ *workloads.Request, log *record.Request) {
		if cell.Good(log) {
			good++
		}
	}}
	if err := t.run(ctx, b.cell.Requests); err != nil {
		return 0, fmt.Errorf("at %g requests/s: %w", rate, err)
	}
	return float64(good) / float64(max(cell.Facts.Offered, 1)), nil
}

// tell writes what was found into the cell's figures and warnings.
func (f *found) tell(c *record.Cell) {
	if f == nil {
		return
	}
	figures := maps.Clone(c.Figures)
	if figures == nil {
		figures = map[string]float64{}
	}
	figures["capacity_rps"], figures["capacity_lo"] = f.Rate, f.Lo
	figures["capacity_probes"], figures["capacity_dips"] = float64(f.Probes), float64(f.Dips)
	if !f.AtLeast {
		figures["capacity_hi"] = f.Hi
	}
	c.Figures = figures
	switch {
	case f.AtLeast:
		c.Warnings = append(c.Warnings, fmt.Sprintf("capacity: at least %.4g requests/s: no rate failed up to there, so more requests or users are needed to find an end", f.Rate))
	case f.Rate == 0:
		c.Warnings = append(c.Warnings, fmt.Sprintf("capacity: 0: even at %.3g requests/s too few requests meet the limits; the rows are of a run at %.4g requests/s", f.Hi, f.start))
	}
	if f.Dips > 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("capacity: %d rates below the one found miss the limits: more load is not always worse here", f.Dips))
	}
}

package main

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/pflag"

	"meibench/reports/compare"
)

// powerPlan is the part of meibench plan that says how many repeats are needed.
type powerPlan struct {
	change, spread string
	power, alpha   float64
	tests          int
	metrics        []string
}

func (p *powerPlan) register(fs *pflag.FlagSet) {
	fs.StringVar(&p.change, "change", "", "how many repeats show a change of this size, such as 3%")
	fs.StringVar(&p.spread, "spread", "", "with --change and without runs: the standard deviation over runs, such as 5%")
	fs.Float64Var(&p.power, "power", 0.8, "with --change: the probability to see it")
	fs.Float64Var(&p.alpha, "alpha", 0.05, "with --change: the chance of a false difference")
	fs.IntVar(&p.tests, "tests", 1, "with --change: how many comparisons will be read together (Holm)")
	fs.StringSliceVar(&p.metrics, "metric", nil, "with --change: metrics, as for meibench compare")
}

// asked reports whether repeats are what is asked for.
func (p *powerPlan) asked(args []string) bool {
	return p.change != "" || p.spread != "" || len(args) > 0 && isRun(args[0])
}

func (p *powerPlan) answer(a *app, args []string) error {
	q, err := p.question()
	if err != nil {
		return withCode(exitUsage, err)
	}
	if len(args) == 0 {
		if p.spread == "" {
			return withCode(exitUsage, errors.New("name runs whose spread is taken, or give --spread"))
		}
		spread, err := fraction("--spread", p.spread)
		if err != nil {
			return withCode(exitUsage, err)
		}
		n := q.Repeats(math.Log1p(spread))
		if a.json {
			return writeJSON(a.out, map[string]int{"repeats": n})
		}
		_, err = fmt.Fprintf(a.out, "%d runs of a cell on each side\n", n)
		return err
	}
	if p.spread != "" {
		return withCode(exitUsage, errors.New("--spread is for plans without runs: leave it out, or the runs"))
	}
	if err := knownMetrics(p.metrics); err != nil {
		return withCode(exitUsage, err)
	}
	side, err := loadSide(strings.Join(args, ","))
	if err != nil {
		return err
	}
	needs := compare.Needs(side, p.metrics, q)
	if len(needs) == 0 {
		return withCode(exitUsage, errors.New("the runs have none of these metrics"))
	}
	if a.json {
		return compare.NeedsJSON(a.out, needs)
	}
	return compare.WriteNeeds(a.out, needs, q)
}

func (p *powerPlan) question() (q compare.Question, err error) {
	if p.change == "" {
		return q, errors.New("--change says which difference should show, such as --change 3%")
	}
	if q.Change, err = fraction("--change", p.change); err != nil {
		return q, err
	}
	if !(p.power > 0 && p.power < 1) || !(p.alpha > 0 && p.alpha < 1) || p.tests < 1 {
		return q, fmt.Errorf("--power %g, --alpha %g, --tests %d: want probabilities between 0 and 1, and at least one test", p.power, p.alpha, p.tests)
	}
	q.Power, q.Alpha, q.Tests = p.power, p.alpha, p.tests
	return q, nil
}

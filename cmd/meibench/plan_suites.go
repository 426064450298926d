package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"meibench/harness"
	"meibench/harness/ledger"
	"meibench/harness/plan"
)

// suitePlan is the part of meibench plan that fixes what will be run.
type suitePlan struct {
	run    runFlags
	commit string
}

// fix writes the plan of suites to a file, and commits it if asked to. A plan
// file in place of suites is committed as it is.
func (s *suitePlan) fix(ctx context.Context, a *app, args []string) error {
	if len(args) == 0 {
		return withCode(exitUsage, errors.New("name the suites to plan (meibench list suites), or runs with --change"))
	}
	p, err := s.resolve(ctx, a, args)
	if err != nil {
		return withCode(exitUsage, err)
	}
	file := s.run.out
	if err := p.Write(file); err != nil {
		return withCode(exitEnvironment, err)
	}
	digest, err := p.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "plan: %s, %d runs of cells, SHA-256 %s\n", file, p.Runs(), digest)
	next := "meibench run --plan " + file
	if s.commit != "" {
		seed, err := s.enter(p)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "receipt: %s, seed %d, which nobody could know before\n", receiptBeside(file), seed)
		next += " --log " + s.commit
	}
	fmt.Fprintln(a.out, "next:", next)
	return nil
}

// enter puts the plan into the log and keeps the receipt beside it.
func (s *suitePlan) enter(p *plan.Plan) (seed uint64, err error) {
	path := receiptBeside(s.run.out)
	if exists(path) {
		return 0, withCode(exitUsage, fmt.Errorf("%s is there: the plan was committed before; a second entry would look like a second choice of seed", path))
	}
	log, err := ledger.Open(s.commit)
	if err != nil {
		return 0, withCode(exitUsage, err)
	}
	r, err := plan.Commit(log, p)
	if err != nil {
		return 0, withCode(exitEnvironment, err)
	}
	if err := r.Write(path); err != nil {
		return 0, withCode(exitEnvironment, err)
	}
	return r.Seed()
}

func (s *suitePlan) resolve(ctx context.Context, a *app, args []string) (*plan.Plan, error) {
	if len(args) == 1 && strings.HasSuffix(args[0], ".json") {
		if s.run.out == "" {
			s.run.out = args[0]
		}
		return plan.Read(args[0])
	}
	if s.run.out == "" {
		s.run.out = plan.File
	}
	if _, err := os.Stat(s.run.out); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is there: choose another --out, or remove it", s.run.out)
	}
	list, err := s.run.suites(args)
	if err != nil {
		return nil, err
	}
	lab, err := s.run.lab(ctx, a)
	if err != nil {
		return nil, err
	}
	return lab.Plan(harness.Options{Suites: list, Seed: s.run.seed, Repeats: s.run.repeats, Quick: s.run.quick})
}

const planLong = `Of suites: fix what will be run, before it is run: every cell with its parameters,
repeats and terms, and the digests of models and profiles. The file is what
meibench run --plan runs.

Of run folders or benchmark text, with --change: how many repeats show a change of
that size, by the spread that the runs have. --spread asks without any run.

With --commit the digest of the plan goes into a log (meibench log init makes
one), and the seed of the run is derived from the log's root at that moment. So
nobody can pick a seed by its result, and who tries again leaves every try in the
log. docs/leaderboards.md says what that proves and what it does not.`

func newPlan(a *app) *cobra.Command {
	s, p := &suitePlan{run: runFlags{filters: map[string]*[]string{}}}, &powerPlan{}
	c := &cobra.Command{
		Use: "plan SUITE... | RUN... --change 3%", Short: "fix what will be run, or how many repeats show a difference", Long: planLong,
		Example: "  meibench plan quickstart --repeat 6 --out plan.json\n  meibench plan plan.json --commit log\n  meibench run --plan plan.json --log log\n  meibench plan runs/a --change 3%\n  meibench plan --change 3% --spread 5%",
		RunE: func(c *cobra.Command, args []string) error {
			if p.asked(args) {
				return p.answer(a, args)
			}
			return s.fix(c.Context(), a, args)
		},
	}
	s.run.narrow(c.Flags())
	s.run.complete(c)
	c.Flags().StringVar(&s.run.out, "out", "", "file of the plan (default plan.json)")
	p.register(c.Flags())
	c.Flags().StringVar(&s.commit, "commit", "", "folder of a log to put the plan into")
	return c
}

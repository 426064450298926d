package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"meibench/harness"
	"meibench/harness/sweep"
)

const mergeLong = `Put the shards of a sweep together into one run folder. Its tables and benchmark
text have the bytes that one meibench run would have left, however many shards and
machines there were; run.json differs only in where and when (docs/sweeps.md says in
which fields). shards.json says which shard ran where.

Nothing is written unless every shard is there once, whole, unchanged and of this
sweep; what is not is named. Exit code 4: shards are missing; 2: one is damaged or
of another sweep.`

func newMerge(a *app) *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use: "merge DIR --out RESULTS", Short: "put the shards of a sweep together into one run folder", Long: mergeLong,
		Example: "  meibench merge sweeps/a --out runs/a\n  meibench report runs/a",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if f.out == "" {
				return withCode(exitUsage, errors.New("--out is missing: name the run folder to write"))
			}
			info, err := sweep.Merge(args[0], f.out)
			var refused *sweep.Refused
			var bad *harness.InputError
			switch {
			case errors.As(err, &refused) || errors.As(err, &bad):
				return withCode(exitUsage, err)
			case err != nil:
				return withCode(exitIncomplete, err)
			}
			if !a.quiet {
				fmt.Fprintf(a.err, "merged %d shards: %d runs of cells, %d requests\n", len(info.Marks), info.Cells, info.Rows)
			}
			return a.afterRun(f)
		},
	}
	c.Flags().StringVar(&f.out, "out", "", "run folder to write")
	c.Flags().StringVar(&f.bench, "bench", "", "also write the results as Go benchmark text to this file")
	c.Flags().BoolVar(&f.noReport, "no-report", false, "do not write report.md and report.html")
	return c
}

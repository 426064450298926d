package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"meibench/hardware/kernel"
	"meibench/hardware/probe"
	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/reference/models"
	"strings"
)

// quickBudget is how long the default run spends on knowing its machine.
const quickBudget = 3 * time.Second

// measureHost makes the quick profile that a run uses when it is given none.
func (a *app) measureHost(models []*harness.Model) (*profiles.DeviceSheet, error) {
	rep, sheet, err := profileHost(context.Background(), models, quickBudget, true, func(string) {})
	if err == nil && !a.quiet {
		for _, w := range rep.Limits.Warnings {
			if strings.Contains(w, "modelled cells of") {
				fmt.Fprintln(a.err, "warning:", w)
			}
		}
	}
	return sheet, err
}

// profileHost measures this machine with the threads that nodes on it run with.
func profileHost(ctx context.Context, list []*harness.Model, budget time.Duration, quick bool, say func(string)) (*probe.Report, *profiles.DeviceSheet, error) {
	threads := harness.HostThreads()
	limits, err := probe.Measure(ctx, probe.Options{Quick: quick, Progress: say})
	if err != nil {
		return nil, nil, err
	}
	rep := &probe.Report{Limits: limits}
	h := probe.Host{Limits: limits, Threads: threads}
	for _, m := range list {
		if m.Weights == nil {
			continue
		}
		if !quick {
			say("kernels at the shapes of " + m.Spec.Name)
			k, err := probe.MeasureKernels(ctx, m.Weights, limits, threads)
			if err != nil {
				return nil, nil, err
			}
			rep.Kernels = append(rep.Kernels, k...)
		}
		say("operations of " + m.Spec.Name)
		fit, evidence, err := probe.FitModel(ctx, kernel.Loaded{Spec: m.Spec, Weights: m.Weights, End: -1}, probe.Plan{Threads: threads, Budget: budget, Seed: 1})
		if err != nil {
			if ctx.Err() != nil {
				return nil, nil, err
			}
			// A machine that is never left alone can still run; its modelled cells
			// then rest on the prior of its class, and say so.
			limits.Warnings = append(limits.Warnings, fmt.Sprintf("%v; modelled cells of %s rest on the prior of this machine's class", err, m.Spec.Name))
			continue
		}
		rep.Fits = append(rep.Fits, probe.FittedModel{Fit: fit, Evidence: evidence})
		h.Fits = append(h.Fits, fit)
	}
	h.Kernels = rep.Kernels
	sheet, err := probe.HostSheet(h)
	return rep, sheet, err
}

func newProfile(a *app) *cobra.Command {
	var out string
	var quick bool
	var names []string
	c := &cobra.Command{
		Use: "profile", Short: "measure what this machine can do",
		Long: "Measure this machine: memory bandwidth by thread count, F32 and int8 peaks, caches, kernels by op and shape,\n" +
			"loopback latency and rate, timers, RAPL energy where readable, and the operations of a model.\n" +
			"Writes a device profile that runs can use (--profile) in place of their own quick measurement.",
		Example: "  meibench profile\n  meibench profile --out host.yaml --model mei-nano",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			lab := &harness.Lab{}
			var list []*harness.Model
			for _, n := range names {
				m, err := lab.Model(n)
				if err != nil {
					return withCode(exitUsage, err)
				}
				list = append(list, m)
			}
			p := newProgress(a.err, a.quiet)
			budget := 4 * quickBudget
			if quick {
				budget = quickBudget
			}
			rep, sheet, err := profileHost(c.Context(), list, budget, quick, func(what string) { p.Note("measuring %s", what) })
			p.Close()
			if err != nil {
				return withCode(exitEnvironment, err)
			}
			return a.writeProfile(rep, sheet, out)
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "host.yaml", "profile file to write; - for none")
	c.Flags().BoolVar(&quick, "quick", false, fmt.Sprintf("short trials (about %v instead of 40 s)", 2*quickBudget))
	c.Flags().StringSliceVar(&names, "model", []string{models.Default}, "models whose operations are timed")
	return c
}

func (a *app) writeProfile(rep *probe.Report, sheet *profiles.DeviceSheet, out string) error {
	var err error
	if a.json {
		err = rep.JSON(a.out)
	} else {
		err = rep.Text(a.out)
	}
	if err != nil || out == "-" {
		return err
	}
	text, err := sheet.YAML()
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, text, 0o644); err != nil {
		return withCode(exitEnvironment, fmt.Errorf("write profile: %w", err))
	}
	fmt.Fprintf(a.err, "profile: %s (use it with meibench run --profile %s; %d thread(s) of %d)\n", out, out, harness.HostThreads(), runtime.NumCPU())
	return nil
}

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meibench/internal/preflight"
	"meibench/reference/panel"
	"meibench/reference/tensor"
)

func newDoctor(a *app) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "doctor", Short: "is this machine fit to measure",
		Long: "Check what spoils measurements: clock governor, load, memory, disk, timers, steal, quotas.\nEach line is ok, warn or fail, with what to do. Exit code 3 if a line fails.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			lines := append(preflight.Here(dir).Check(), kernelLine(tensor.Kernel(), tensor.Kernels(), tensor.KernelErr()))
			if a.json {
				if err := writeJSON(a.out, lines); err != nil {
					return err
				}
			} else {
				tw := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
				for _, l := range lines {
					fmt.Fprintf(tw, "%s\t%s\t%s\n", l.Status, l.Name, l.Found)
					if l.Fix != "" {
						fmt.Fprintf(tw, "\t\t  %s\n", l.Fix)
					}
				}
				if err := tw.Flush(); err != nil {
					return err
				}
			}
			if preflight.Worst(lines) == preflight.Fail {
				return &coded{exitEnvironment, fmt.Errorf("this machine is not fit to measure; see the lines that fail")}
			}
			return nil
		},
	}
	c.Flags().StringVar(&dir, "out", ".", "folder whose disk is checked")
	return c
}

// kernelLine says which kernels measured cells will run, and whether that is what MEIBENCH_CPU asks for.
func kernelLine(name string, have []string, err error) preflight.Line {
	l := preflight.Line{Name: "kernels", Found: fmt.Sprintf("%s of %s", name, strings.Join(have, ", "))}
	if ints := panel.IntegerKernel(name); ints != name {
		l.Found += "; quantised weights by " + ints
	}
	switch {
	case err != nil:
		l.Status, l.Fix = preflight.Warn, err.Error()
	case name != have[len(have)-1]:
		l.Status, l.Fix = preflight.Warn, "MEIBENCH_CPU forces a slower kernel than this CPU has; unset it unless that is what you measure"
	case name == "generic":
		l.Status, l.Fix = preflight.Warn, "this build or CPU has no vector kernels: speeds are those of plain Go"
	}
	return l
}

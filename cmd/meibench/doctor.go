package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"meibench/internal/preflight"
)

func newDoctor(a *app) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "doctor", Short: "is this machine fit to measure",
		Long: "Check what spoils measurements: clock governor, load, memory, disk, timers, steal, quotas.\nEach line is ok, warn or fail, with what to do. Exit code 3 if a line fails.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			lines := preflight.Here(dir).Check()
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

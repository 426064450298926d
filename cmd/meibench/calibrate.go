package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"meibench/hardware/profiles"
	"meibench/harness"
	"meibench/harness/pairs"
	"meibench/harness/twin"
)

const calibrateLong = `Fit the profile of this machine to a run that was measured on it.

The run folder says what every operation on a device took. From that come, for each
model, the law of prefills and decode steps, what idleness costs, what passes between
operations, and how times scatter; for other models the law of the machine is
improved. The measured cells are then modelled again with the new profile, request by
request, and by how much that missed is written into it, with intervals. Use it with
meibench run --profile; docs/twin.md has the whole loop.

With --into the modelled cells stay as a run folder. With --against the profile is not
written by these cells: RUN2 was measured too, and is what the profile has to predict.`

// calibrateFlags are those of meibench calibrate.
type calibrateFlags struct {
	out, into string
	models    []string
	against   []string
}

func newCalibrate(a *app) *cobra.Command {
	f := &calibrateFlags{}
	c := &cobra.Command{
		Use: "calibrate RUN", Short: "fit the profile of this machine to a measured run", Long: calibrateLong,
		Example: "  meibench calibrate runs/observed --out calibrated.yaml\n  meibench calibrate runs/observed --against runs/other\n  meibench run twin --part predict --mode modelled --profile calibrated.yaml",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return f.run(c.Context(), a, args[0]) },
	}
	c.Flags().StringVarP(&f.out, "out", "o", "calibrated.yaml", "profile to write; - for none")
	c.Flags().StringVar(&f.into, "into", "", "keep the modelled twin of RUN as this run folder")
	c.Flags().StringSliceVar(&f.models, "model", nil, "fit only these models (default all that were timed)")
	c.Flags().StringArrayVar(&f.against, "against", nil, "predict this measured run too, and print by how much that missed (repeat for more)")
	return c
}

func (f *calibrateFlags) run(ctx context.Context, a *app, dir string) error {
	lab := &harness.Lab{Version: version()}
	obs, err := twin.Observe(lab, dir, f.models)
	if err != nil {
		return withCode(exitUsage, err)
	}
	var others []*twin.Observation
	for _, d := range f.against { // before time is spent
		o, err := twin.Observe(lab, d, nil)
		if err != nil {
			return withCode(exitUsage, err)
		}
		others = append(others, o)
	}
	sheet, err := obs.Calibrate()
	if err != nil {
		return withCode(exitUsage, err)
	}
	list, err := replayInto(ctx, obs, sheet, f.into)
	if err != nil {
		return withCode(exitIncomplete, err)
	}
	sheet = pairs.Stamp(sheet, list)
	if f.into != "" {
		if err := writeSheet(sheet, filepath.Join(f.into, pairs.HostFile)); err != nil {
			return err
		}
	}
	if f.out != "-" {
		if err := writeSheet(sheet, f.out); err != nil {
			return err
		}
	}
	return f.tell(ctx, a, sheet, list, append([]*twin.Observation{obs}, others...))
}

// replayInto models an observation's cells in a folder, which is kept if it has a name.
func replayInto(ctx context.Context, o *twin.Observation, sheet *profiles.DeviceSheet, into string) ([]pairs.Pair, error) {
	if into != "" {
		return o.Replay(ctx, sheet, into)
	}
	temp, err := os.MkdirTemp("", "meibench-twin-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	return o.Replay(ctx, sheet, filepath.Join(temp, "run"))
}

func writeSheet(sheet *profiles.DeviceSheet, path string) error {
	text, err := sheet.YAML()
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		return withCode(exitEnvironment, fmt.Errorf("write profile: %w", err))
	}
	return nil
}

// tell prints what came of it: the twins of the run itself, and of the others.
// compared is a run folder and its twin, as --json prints them.
type compared struct {
	Run     string      `json:"run"`
	Skipped []string    `json:"skipped,omitempty"`
	Pairs   []pairs.Row `json:"pairs"`
	Bars    []pairs.Bar `json:"bars"`
}

func (f *calibrateFlags) tell(ctx context.Context, a *app, sheet *profiles.DeviceSheet, list []pairs.Pair, all []*twin.Observation) error {
	var out []compared
	for i, o := range all {
		if i > 0 {
			var err error
			if list, err = replayInto(ctx, o, sheet, ""); err != nil {
				return withCode(exitIncomplete, err)
			}
		}
		list = pairs.Pool(list)
		if a.json {
			out = append(out, compared{o.Dir, o.Skipped, pairs.Rows(list), pairs.Bars(list)})
			continue
		}
		fmt.Fprintf(a.out, "%s: %s\n\n", []string{"calibrated by", "\npredicted"}[min(i, 1)], o.Dir)
		if err := pairs.Text(a.out, list); err != nil {
			return err
		}
		if len(o.Skipped) > 0 {
			fmt.Fprintf(a.err, "not modelled: %s\n", strings.Join(o.Skipped, "; "))
		}
	}
	if a.json {
		if err := writeJSON(a.out, out); err != nil {
			return err
		}
	}
	if f.out != "-" {
		fmt.Fprintf(a.err, "profile: %s (use it with meibench run --profile %s)\n", f.out, f.out)
	}
	return nil
}

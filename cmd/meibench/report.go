package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"meibench/reports"
	"meibench/reports/definitions"
	"meibench/reports/levels"
	"meibench/reports/tracks"
)

const reportLong = `Write report.md and a self-contained report.html from one or more run folders, and print the table.
The same run gives the same bytes.

--definitions all shows the same requests as every tool would report them.

--figures names the formats of figures (svg, png, pdf). With --only a figure is written
again without the rest of the report, in another width if --width is given: 8.8cm is a
column of a paper, 18cm two. A pattern such as 'cdf-*' names several.

--trace writes a cell of one run as Chrome trace events and nothing else: open the
file at ui.perfetto.dev. --cell names the cell where there are several (docs/energy.md).`

// reportFlags are those of meibench report.
type reportFlags struct {
	out, only, width string
	trace, cell      string
	definitions      string
	carbon           float64
	figures          []string
}

func newReport(a *app) *cobra.Command {
	f := &reportFlags{}
	c := &cobra.Command{
		Use: "report RUN...", Short: "tables and figures from run folders", Long: reportLong,
		Example: "  meibench report runs/quickstart-20261122-120000\n  meibench report runs/a runs/b --out both --figures svg,png,pdf\n  meibench report runs/a --only cdf-ar --width 8.8cm --figures pdf\n  meibench report runs/a --definitions all\n  meibench report runs/a --trace a.json.gz --cell NAME",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return f.report(a, args) },
	}
	c.Flags().StringVar(&f.out, "out", "", "folder for the report (default: the first run folder)")
	c.Flags().StringSliceVar(&f.figures, "figures", []string{"svg", "png"}, "formats of figures: svg, png, pdf")
	c.Flags().StringVar(&f.only, "only", "", "write the figures of this name (or pattern) and nothing else")
	c.Flags().StringVar(&f.width, "width", "", "width of the figures of --only, such as 8.8cm (default 18cm)")
	c.Flags().StringVar(&f.definitions, "definitions", "", "also show the same requests under this tool's definitions of TTFT, TPOT, ITL and goodput: all, or names with commas")
	c.Flags().Float64Var(&f.carbon, "carbon-intensity", 0, "gCO2e per kWh of the electricity (default: about the world's mean)")
	c.Flags().StringVar(&f.trace, "trace", "", "write a cell as Chrome trace events to this file, packed if it ends in .gz, and nothing else")
	c.Flags().StringVar(&f.cell, "cell", "", "with --trace: the cell, as NAME or SUITE/NAME; its first repeat")
	return c
}

// writeTrace writes the trace of a cell of the only run folder.
func (f *reportFlags) writeTrace(a *app, args []string) error {
	if len(args) != 1 {
		return withCode(exitUsage, fmt.Errorf("--trace: want one run folder, got %d", len(args)))
	}
	if err := tracks.File(f.trace, args[0], f.cell); err != nil {
		return withCode(exitUsage, err)
	}
	_, err := fmt.Fprintln(a.out, "trace:", f.trace)
	return err
}

func (f *reportFlags) report(a *app, args []string) error {
	if f.trace != "" {
		return f.writeTrace(a, args)
	}
	if f.cell != "" {
		return withCode(exitUsage, errors.New("--cell belongs to --trace: a report shows all cells"))
	}
	if !(f.carbon >= 0) || f.carbon > 5000 {
		return withCode(exitUsage, fmt.Errorf("--carbon-intensity %g: want grams of CO2 equivalent per kWh, above 0 and at most 5000 (coal is about 1000)", f.carbon))
	}
	cm, err := f.check()
	if err != nil {
		return withCode(exitUsage, err)
	}
	data, err := reports.Load(args...)
	if err != nil {
		return withCode(exitUsage, err)
	}
	var more []reports.Section
	if f.definitions != "" {
		views, err := definitions.Named(f.definitions)
		if err != nil {
			return withCode(exitUsage, fmt.Errorf("--definitions: %w", err))
		}
		s, err := definitions.Section(data, views)
		if err != nil {
			return withCode(exitIncomplete, err)
		}
		more = append(more, s)
	}
	grid := levels.World()
	if f.carbon > 0 {
		grid = levels.Grid{Grams: f.carbon, Source: "as --carbon-intensity says"}
	}
	rep := buildReport(data, grid, more...)
	rep.Formats = f.figures
	dir := f.out
	if dir == "" {
		dir = args[0]
	}
	if f.only != "" {
		files, err := rep.WriteFigures(filepath.Join(dir, "figures"), f.only, cm)
		if err != nil {
			return withCode(exitUsage, err)
		}
		_, err = fmt.Fprintln(a.out, strings.Join(files, "\n"))
		return err
	}
	paths, err := rep.Write(dir)
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	if a.json {
		return rep.JSON(a.out)
	}
	if err := rep.Text(a.out, terminalWidth()); err != nil {
		return err
	}
	for _, s := range more {
		if err := definitions.Text(a.out, s); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(a.out, "report:", paths.HTML)
	return err
}

// check reads the width in centimetres, 0 if none is given.
func (f *reportFlags) check() (cm float64, err error) {
	for _, format := range f.figures {
		if !slices.Contains(reports.Formats(), format) {
			return 0, fmt.Errorf("--figures %s: want some of %s", format, strings.Join(reports.Formats(), ", "))
		}
	}
	if len(f.figures) == 0 || f.only == "" && f.figures[0] == "pdf" {
		return 0, fmt.Errorf("--figures: the page shows the first format, which must be svg or png; pdf may follow")
	}
	if f.width == "" {
		return 0, nil
	}
	if f.only == "" {
		return 0, fmt.Errorf("--width: it is for figures of --only; the page has one width")
	}
	cm, err = strconv.ParseFloat(strings.TrimSuffix(f.width, "cm"), 64)
	if err != nil || !(cm >= 6 && cm <= 60) {
		return 0, fmt.Errorf("--width %q: want 6cm to 60cm", f.width)
	}
	return cm, nil
}

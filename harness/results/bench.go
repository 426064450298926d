package results

import (
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"

	"meibench/harness/record"
)

// Line is one line of benchmark text: one run of one cell.
type Line struct {
	Cell   *record.Cell
	Rows   int // requests behind the values
	Values []record.Value
}

// modelled is the prefix of units whose values a seed fixes. benchstat keeps
// what it knows of a unit for all lines, so a figure that one cell measures and
// another computes needs two names.
const modelled = "modelled-"

// WriteBench writes the Go benchmark format: what each unit is, then a line per
// run of a cell, never per request, since requests of a run are not independent.
// Times are in sec, the base unit. A cell's contract is a configuration line, so
// an unmodified benchstat never compares runs under different contracts; an
// invalid run is kept apart from valid ones in the same way.
func WriteBench(out io.Writer, lines []Line) error {
	w := benchfmt.NewWriter(out)
	for _, u := range unitsOf(lines) {
		if err := w.Write(u); err != nil {
			return err
		}
	}
	names := benchNames(lines)
	for i, l := range lines {
		res := benchfmt.Result{Config: config(l.Cell), Name: benchfmt.Name(names[i]), Iters: max(l.Rows, 1)}
		for _, v := range l.Values {
			if !math.IsNaN(v.V) {
				res.Values = append(res.Values, benchfmt.Value{Value: v.V, Unit: unitOf(l.Cell, v.Metric)})
			}
		}
		if len(res.Values) == 0 {
			continue
		}
		if err := w.Write(&res); err != nil {
			return err
		}
	}
	return nil
}

func unitOf(c *record.Cell, m record.Metric) string {
	if c.Mode == "modelled" {
		return modelled + m.Bench
	}
	return m.Bench
}

// unitsOf lists what is to be said of the units that the lines use, sorted.
func unitsOf(lines []Line) []*benchfmt.UnitMetadata {
	said := map[string]*benchfmt.UnitMetadata{}
	for _, l := range lines {
		for _, v := range l.Values {
			unit := unitOf(l.Cell, v.Metric)
			say := func(key, value string) {
				u := benchfmt.UnitMetadata{OrigUnit: unit, Value: value}
				u.Unit, u.Key = unit, key
				said[unit+" "+key] = &u
			}
			if v.Metric.Better != record.Neither {
				say("better", v.Metric.Better.String())
			}
			if strings.HasPrefix(unit, modelled) {
				say("assume", "exact")
			}
		}
	}
	var out []*benchfmt.UnitMetadata
	for _, k := range slices.Sorted(maps.Keys(said)) {
		out = append(out, said[k])
	}
	return out
}

func config(c *record.Cell) []benchfmt.Config {
	contract := c.Contract
	if contract == "" {
		contract = "none"
	}
	out := []benchfmt.Config{{Key: "contract", Value: []byte(contract), File: true}}
	if !c.Valid {
		out = append(out, benchfmt.Config{Key: "validity", Value: []byte("INVALID"), File: true})
	}
	return out
}

// benchNames are the lines' benchmark names. Repeats of a cell share a name; so
// do its seeds where the run is measured, as each is one sample of the same
// thing, while a modelled run is exact and has its seed in the name. The cell's
// own name appears only where two cells would otherwise look alike, so that
// benchstat -col /pipeline compares the pipelines of a suite.
func benchNames(lines []Line) []string {
	owners := map[string]map[string]bool{}
	for _, l := range lines {
		n := benchName(l.Cell)
		if owners[n] == nil {
			owners[n] = map[string]bool{}
		}
		owners[n][l.Cell.Suite+"/"+l.Cell.Name] = true
	}
	out := make([]string, len(lines))
	for i, l := range lines {
		n := benchName(l.Cell)
		if len(owners[n]) > 1 {
			n += "/cell=" + part(l.Cell.Suite+"."+l.Cell.Name)
		}
		if l.Cell.Mode == "modelled" {
			n += "/seed=" + strconv.FormatUint(l.Cell.Seed, 10)
		}
		out[i] = notProcs.ReplaceAllString(n, "_$1")
	}
	return out
}

var (
	notPart  = regexp.MustCompile(`[^A-Za-z0-9_.,:+=-]`)
	notProcs = regexp.MustCompile(`-([0-9]+)$`) // would be read as GOMAXPROCS
)

func part(s string) string { return notPart.ReplaceAllString(s, "_") }

func benchName(c *record.Cell) string {
	app := part(c.App)
	if app == "" {
		app = "Cell"
	}
	var b strings.Builder
	b.WriteString(strings.ToUpper(app[:1]) + app[1:])
	for _, kv := range [][2]string{{"pipeline", c.Pipeline}, {"site", c.Site}, {"model", c.Model}} {
		if kv[1] != "" {
			fmt.Fprintf(&b, "/%s=%s", kv[0], part(kv[1]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.Params)) {
		fmt.Fprintf(&b, "/%s=%s", part(k), strconv.FormatFloat(c.Params[k], 'g', -1, 64))
	}
	return b.String()
}

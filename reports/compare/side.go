package compare

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"

	"meibench/harness/record"
	"meibench/harness/results"
)

// Side is one side of a comparison: run folders or benchmark text, pooled.
type Side struct {
	Names []string // what was loaded

	cells map[string]*cell
	order []string
	terms map[string]results.Contract // by hash, from run folders
	hosts map[string][]string         // what the machine was: field -> values
}

// cell is all runs of a cell.
type cell struct {
	name     string
	contract string
	ours     bool // has metrics of package record
	metrics  map[string]*series
	invalid  []string // reasons of runs that are left out
	wall     time.Duration
	runs     int
}

// series is one metric of a cell.
type series struct {
	better record.Better
	exact  bool
	points []point // by seed, then as read
}

// point is the value of one run.
type point struct {
	seed  string // "" = unknown
	value float64
}

func (s *series) values() []float64 {
	out := make([]float64, len(s.points))
	for i, p := range s.points {
		out[i] = p.value
	}
	return out
}

// sameSeeds reports whether two series have the same known seeds, one run each.
func sameSeeds(a, b *series) bool {
	if len(a.points) != len(b.points) || len(a.points) == 0 {
		return false
	}
	for i := range a.points {
		if a.points[i].seed == "" || a.points[i].seed != b.points[i].seed || i > 0 && a.points[i].seed == a.points[i-1].seed {
			return false
		}
	}
	return true
}

// Load reads a side: run folders, and files of Go benchmark text.
func Load(paths ...string) (*Side, error) {
	if len(paths) == 0 {
		return nil, errors.New("one side is empty: name a run folder or a file of benchmark text")
	}
	s := &Side{Names: paths, cells: map[string]*cell{}, terms: map[string]results.Contract{}, hosts: map[string][]string{}}
	for _, p := range paths {
		info, err := os.Stat(p)
		switch {
		case err != nil:
			return nil, fmt.Errorf("compare: %w", err)
		case info.IsDir():
			err = s.folder(p)
		default:
			err = s.text(p)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, c := range s.cells {
		for _, m := range c.metrics {
			slices.SortStableFunc(m.points, func(a, b point) int { return cmp.Compare(a.seed, b.seed) })
		}
	}
	return s, nil
}

// folder takes in a run folder.
func (s *Side) folder(dir string) (err error) {
	set, err := results.Read(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	m := &set.Manifest
	if !m.Complete {
		return fmt.Errorf("compare %s: %w: it holds %d of %d runs of cells: go on with it by meibench run --resume --out %s", dir, results.ErrUnfinished, m.Blocks, m.Expected, dir)
	}
	for _, c := range m.Contracts {
		h, err := c.Hash()
		if err != nil {
			return err
		}
		s.terms[h] = c
	}
	for k, v := range map[string]string{"CPU": m.CPU, "kernels": m.Host["kernels"], "governor": m.Governor, "Go": m.GoVersion} {
		if !slices.Contains(s.hosts[k], v) {
			s.hosts[k] = append(s.hosts[k], v)
		}
	}
	runs := set.Runs()
	cells := make([]*record.Cell, len(runs))
	for i := range runs {
		cells[i] = &runs[i].Cell
	}
	for i, name := range results.Names(cells) {
		run := cells[i]
		c, err := s.cell(name, run.Contract, dir)
		if err != nil {
			return err
		}
		c.ours = true
		c.runs++
		c.wall += run.Wall
		for _, v := range runs[i].Values {
			unit := results.BenchUnit(run, &v.Metric)
			m := c.series(unit, v.Metric.Better, run.Mode == "modelled")
			if run.Valid && !math.IsNaN(v.V) {
				m.points = append(m.points, point{strconv.FormatUint(run.Seed, 10), v.V})
			}
		}
		if !run.Valid {
			c.invalid = append(c.invalid, run.Invalid...)
		}
	}
	return nil
}

// cell is the cell of a name, which must be under one contract.
func (s *Side) cell(name, contract, where string) (*cell, error) {
	c := s.cells[name]
	if c == nil {
		c = &cell{name: name, contract: contract, metrics: map[string]*series{}}
		s.cells[name] = c
		s.order = append(s.order, name)
	}
	if c.contract != contract {
		return nil, fmt.Errorf("%s: %s is under another contract than in what was read before: one side must be of one kind", where, name)
	}
	return c, nil
}

func (c *cell) series(unit string, better record.Better, exact bool) *series {
	m := c.metrics[unit]
	if m == nil {
		m = &series{better: better, exact: exact}
		c.metrics[unit] = m
	}
	return m
}

var seedPart = regexp.MustCompile(`/seed=([0-9]+)`)

// text takes in a file of benchmark text.
func (s *Side) text(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := benchfmt.NewReader(f, filepath.Base(path))
	var lines []*benchfmt.Result
	for r.Scan() {
		switch rec := r.Result().(type) {
		case *benchfmt.SyntaxError:
			return fmt.Errorf("compare: %w", rec)
		case *benchfmt.Result:
			lines = append(lines, rec.Clone())
		}
	}
	if err := r.Err(); err != nil {
		return fmt.Errorf("compare: read %s: %w", path, err)
	}
	if len(lines) == 0 {
		return fmt.Errorf("compare: %s holds no benchmark result: give a run folder, or what go test -bench or meibench run --bench wrote", path)
	}
	known := r.Units()
	for _, l := range lines {
		if err := s.line(l, known, path); err != nil {
			return err
		}
	}
	return nil
}

func (s *Side) line(l *benchfmt.Result, known benchfmt.UnitMetadataMap, path string) error {
	name, seed := string(l.Name.Full()), ""
	if m := seedPart.FindStringSubmatch(name); m != nil {
		name, seed = strings.Replace(name, m[0], "", 1), m[1]
	}
	if pkg := l.GetConfig("pkg"); pkg != "" {
		name = pkg + "." + name
	}
	c, err := s.cell(name, l.GetConfig("contract"), path)
	if err != nil {
		return err
	}
	c.ours = c.ours || l.GetConfig("contract") != ""
	c.runs++
	if v := l.GetConfig("validity"); v != "" {
		c.invalid = append(c.invalid, "marked "+v+" in "+filepath.Base(path))
		return nil
	}
	for _, v := range l.Values {
		better := record.Neither
		switch known.GetBetter(v.Unit) {
		case -1:
			better = record.Lower
		case 1:
			better = record.Higher
		}
		exact := strings.HasPrefix(v.Unit, modelled)
		m := c.series(v.Unit, better, exact)
		m.points = append(m.points, point{seed, v.Value})
	}
	return nil
}

// diff is the first field in which two contracts differ, "" if none does.
func diff(a, b results.Contract) string {
	d := results.Diff(a, b)
	if len(d) == 0 {
		return ""
	}
	text := d[0].String()
	if len(d) > 1 {
		text += fmt.Sprintf(" (and %d other fields)", len(d)-1)
	}
	return text
}

// differences warns of machines that differ: what looks like a change of the
// program may be one of the machine.
func differences(old, new *Side) (out []string) {
	for _, k := range []string{"CPU", "kernels", "governor", "Go"} {
		a, b := old.hosts[k], new.hosts[k]
		if len(a) > 0 && len(b) > 0 && !slices.Equal(a, b) {
			out = append(out, fmt.Sprintf("%s differs: %s -> %s; a difference between measured cells may be the machine's", k, strings.Join(a, ", "), strings.Join(b, ", ")))
		}
	}
	return out
}

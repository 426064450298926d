package reports

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"meibench/hardware"
	"meibench/harness/record"
)

// Paths are the files that Write made.
type Paths struct{ Markdown, HTML string }

// Formats are the formats of figures that there are.
func Formats() []string { return []string{"svg", "png", "pdf"} }

// formats are those of this report's figures; the page shows the first in its text.
func (r *Report) formats() []string {
	if len(r.Formats) == 0 {
		return Formats()[:2]
	}
	return r.Formats
}

// Write writes the report into a folder, usually the run's own: report.md,
// report.html, summary.csv, and the figures in the formats of the report.
func (r *Report) Write(dir string) (p Paths, err error) {
	p = Paths{filepath.Join(dir, "report.md"), filepath.Join(dir, "report.html")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return p, fmt.Errorf("write report: %w", err)
	}
	for _, f := range []struct {
		path string
		fill func(io.Writer) error
	}{{p.Markdown, r.Markdown}, {p.HTML, func(w io.Writer) error { return r.html(w, dir) }}, {filepath.Join(dir, "summary.csv"), r.CSV}} {
		var b bytes.Buffer
		if err := f.fill(&b); err != nil {
			return p, fmt.Errorf("write report %s: %w", f.path, err)
		}
		if err := os.WriteFile(f.path, b.Bytes(), 0o644); err != nil {
			return p, fmt.Errorf("write report: %w", err)
		}
	}
	_, err = r.WriteFigures(filepath.Join(dir, "figures"), "*", 0)
	return p, err
}

// WriteFigures writes the figures whose names match a pattern ("cdf-*") into a
// folder and returns their files. A width in centimetres lays them out anew; 0 is
// the usual width.
func (r *Report) WriteFigures(dir, pattern string, cm float64) (files []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("write figures: %w", err)
	}
	var names []string
	for _, f := range r.allFigures() {
		names = append(names, f.Name)
		if ok, err := path.Match(pattern, f.Name); err != nil {
			return nil, fmt.Errorf("figures %q: %w", pattern, err)
		} else if !ok {
			continue
		}
		pic := f.Picture
		if cm > 0 {
			pic = pic.Wide(cm)
		}
		for _, format := range r.formats() {
			b, err := pic.Encode(format)
			file := filepath.Join(dir, f.Name+"."+format)
			if err == nil {
				err = os.WriteFile(file, b, 0o644)
			}
			if err != nil {
				return files, fmt.Errorf("write figure %s: %w", f.Name, err)
			}
			files = append(files, file)
		}
	}
	if len(files) == 0 && len(names) > 0 {
		return nil, fmt.Errorf("no figure is called %q; the report has %s", pattern, strings.Join(names, ", "))
	}
	return files, nil
}

func (r *Report) allFigures() []Figure {
	all := slices.Clone(r.Figures)
	for _, s := range r.Sections {
		all = append(all, s.Figures...)
	}
	return all
}

// cellRow is a group for machines: SI base units, all digits.
type cellRow struct {
	Run      string             `json:"run,omitempty"`
	Suite    string             `json:"suite"`
	Cell     string             `json:"cell"`
	App      string             `json:"app"`
	Pipeline string             `json:"pipeline"`
	Site     string             `json:"site"`
	Model    string             `json:"model"`
	Mode     string             `json:"mode"`
	Params   map[string]any     `json:"params,omitempty"`
	Contract string             `json:"contract,omitempty"`
	Runs     int                `json:"runs"` // repeats and seeds pooled
	Requests int                `json:"requests"`
	OK       int                `json:"ok"`
	Good     int                `json:"good"`
	Valid    bool               `json:"valid"`
	Invalid  []string           `json:"invalid,omitempty"`
	Overload bool               `json:"overloaded,omitempty"` // latencies grow with the length of the run
	Energy   string             `json:"energy_source,omitempty"`
	Metrics  map[string]jsonVal `json:"metrics"`

	order []string // of Metrics
}

// jsonVal is an estimate with its interval; null where unknown.
type jsonVal struct {
	Unit  string   `json:"unit"`
	Value *float64 `json:"value"`
	Low   *float64 `json:"low,omitempty"`
	High  *float64 `json:"high,omitempty"`
	N     int      `json:"n,omitempty"`
}

func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func (b *builder) cellRows() (out []cellRow) {
	for _, g := range b.Groups {
		s, c := b.sums[g], &g.Cell
		row := cellRow{Run: b.Runs[g.Run].Label, Suite: c.Suite, Cell: c.Name, App: c.App, Pipeline: c.Pipeline, Site: c.Site, Model: c.Model,
			Mode: c.Mode, Params: c.Params, Contract: c.Contract, Runs: len(g.Cells), Requests: g.N, OK: g.Outcomes[record.OK], Good: g.Good,
			Valid: b.flags[g] == "", Invalid: g.invalid(), Overload: g.overloaded(), Metrics: map[string]jsonVal{}}
		if s.energySource != 0 {
			row.Energy = hardware.Source(s.energySource).String()
		}
		list := s.exported()
		if g.Trains() {
			list = g.learnt()
		}
		for _, m := range list {
			row.order = append(row.order, m.name)
			row.Metrics[m.name] = jsonVal{m.unit, finite(m.stat.V), finite(m.stat.Lo), finite(m.stat.Hi), m.stat.N}
		}
		out = append(out, row)
	}
	return out
}

// exported is an estimate as programs get it.
type exported struct {
	name, unit string
	stat       Stat
}

// exported are what cells that serve are summed up by.
func (s *summary) exported() []exported {
	return []exported{
		{"ttft_p50", "sec", s.ttft50}, {"ttft_p95", "sec", s.ttft95}, {"tpot_p50", "sec", s.tpot50},
		{"e2e_p50", "sec", s.e2e50}, {"e2e_p95", "sec", s.e2e95}, {"e2e_p99", "sec", s.e2e99},
		{"goodput", "req/s", s.goodput}, {"goodput_share", "share", s.within},
		{"up_bytes_request", "B/req", s.up}, {"down_bytes_request", "B/req", s.down},
		{"energy_per_request", "J/req", s.energy}, {"quality_mean", "score", s.quality},
		{"ttft_p50_vs_measured", "share", bare(s.gap.ttft)}, {"tpot_p50_vs_measured", "share", bare(s.gap.tpot)},
		{"e2e_p50_vs_measured", "share", bare(s.gap.e2e)},
	}
}

// learnt are what cells that train are summed up by: medians over runs of what their folder says of each.
func (g *Group) learnt() (out []exported) {
	for _, name := range []string{"score_base", "score_final", "loss_final", "worst_client", "train_share", "rounds", "target_time", "target_bytes", "target_joules",
		"e2e_p50", "makespan", "round_up_bytes", "round_down_bytes", "energy_per_request"} {
		m, _ := record.Lookup(name)
		out = append(out, exported{name, m.Unit, overRepeats(g.Repeats(name))})
	}
	return out
}

// JSON writes the summary for programs: one object per cell, SI base units,
// null for what is unknown.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	rows := r.rows
	if rows == nil {
		rows = []cellRow{}
	}
	return enc.Encode(struct {
		Format     string    `json:"format"`
		Title      string    `json:"title"`
		Comparable bool      `json:"comparable"`
		Setting    []Fact    `json:"setting"`
		Answers    []string  `json:"answers"`
		Warnings   []string  `json:"warnings"`
		Cells      []cellRow `json:"cells"`
	}{"meibench.report/v1", r.Title, r.Comparable, r.Setting, r.Answers, r.Warnings, rows})
}

// CSV writes the summary as a table: one line per cell, SI base units, an empty
// field for what is unknown.
func (r *Report) CSV(w io.Writer) error {
	out := csv.NewWriter(w)
	head := []string{"run", "suite", "cell", "app", "pipeline", "site", "model", "mode", "params", "contract", "comparable", "valid", "overloaded", "runs", "requests", "ok", "good", "energy_source"}
	var metrics []string
	for i := range r.rows {
		for _, name := range r.rows[i].order {
			metrics = appendNew(metrics, name)
		}
	}
	for _, m := range metrics {
		head = append(head, m, m+"_low", m+"_high")
	}
	if err := out.Write(head); err != nil {
		return err
	}
	for i := range r.rows {
		c := &r.rows[i]
		line := []string{c.Run, c.Suite, c.Cell, c.App, c.Pipeline, c.Site, c.Model, c.Mode, paramText(c.Params), c.Contract}
		for k, s := range line {
			line[k] = inert(s)
		}
		line = append(line, strconv.FormatBool(r.Comparable), strconv.FormatBool(c.Valid), strconv.FormatBool(c.Overload), strconv.Itoa(c.Runs), strconv.Itoa(c.Requests), strconv.Itoa(c.OK), strconv.Itoa(c.Good), c.Energy)
		for _, name := range metrics {
			m := c.Metrics[name]
			line = append(line, floatText(m.Value), floatText(m.Low), floatText(m.High))
		}
		if err := out.Write(line); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

func floatText(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'g', -1, 64)
}

// inert keeps a spreadsheet from reading a name as a formula.
func inert(s string) string {
	if s != "" && strings.ContainsAny(s[:1], "=+-@") {
		return "'" + s
	}
	return s
}

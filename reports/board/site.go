package board

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"meibench/harness/bundle"
	"meibench/harness/ledger"
	"meibench/internal/canon"
	"meibench/reports"
	"meibench/reports/page"
)

//go:embed index.html entry.html diff.js
var files embed.FS

// head is what all pages share.
type head struct {
	Title  string
	Root   string // path to the site's folder, "" or "../"
	Policy string
	Style  template.CSS
	Script template.JS
	Rule   []string
	Tiers  []tierLine
}

type tierLine struct{ Name, Doc string }

func (s *Site) head(title, root string, script template.JS) head {
	h := head{Title: title, Root: root, Policy: page.Policy(script), Style: page.Style(), Script: script, Rule: Rule()}
	for t := bundle.Reported; t <= bundle.Audited; t++ {
		h.Tiers = append(h.Tiers, tierLine{fmt.Sprintf("T%d %s", t-1, t), tierDoc(t)})
	}
	return h
}

// Write writes the site into a folder, which it makes. Files of an earlier build
// are overwritten.
func (s *Site) Write(dir string) error {
	t, err := template.New("board").ParseFS(files, "index.html", "entry.html")
	if err != nil {
		return err
	}
	for _, sub := range []string{"", "categories", "entries", "log", "proofs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return fmt.Errorf("write site: %w", err)
		}
	}
	w := &writer{dir: dir, t: t}
	w.page("index.html", "index", s.index())
	for _, c := range s.categories {
		w.page(c.page(), "category", s.category(c))
	}
	for _, e := range s.entries {
		w.page(e.page(), "entry", s.entry(e))
		if e.Receipt != nil {
			w.json("proofs/"+e.id+".json", e.Receipt)
		}
	}
	w.page("log.html", "log", s.log())
	diff, err := s.diff()
	if err != nil {
		return err
	}
	w.page("diff.html", "diff", diff)
	w.fill("board.csv", s.CSV)
	return errors.Join(w.err, s.writeLog(dir))
}

// writeLog puts the log where anyone can check it.
func (s *Site) writeLog(dir string) error {
	if s.in.Checkpoint == "" {
		return nil
	}
	var lines bytes.Buffer
	for _, e := range s.in.Log {
		b, err := canon.JSON(e)
		if err != nil {
			return err
		}
		lines.Write(append(b, '\n'))
	}
	for name, text := range map[string][]byte{ledger.EntriesFile: lines.Bytes(), ledger.CheckpointFile: []byte(s.in.Checkpoint), ledger.PublicFile: []byte(s.in.LogKey + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, "log", name), text, 0o644); err != nil {
			return fmt.Errorf("write site: %w", err)
		}
	}
	return nil
}

// writer writes files until one fails.
type writer struct {
	dir string
	t   *template.Template
	err error
}

func (w *writer) page(name, template string, data any) {
	w.fill(name, func(out io.Writer) error { return w.t.ExecuteTemplate(out, template, data) })
}

func (w *writer) json(name string, v any) {
	w.fill(name, func(out io.Writer) error {
		b, err := canon.JSON(v)
		if err != nil {
			return err
		}
		_, err = out.Write(append(b, '\n'))
		return err
	})
}

func (w *writer) fill(name string, write func(io.Writer) error) {
	if w.err != nil {
		return
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		w.err = fmt.Errorf("write %s: %w", name, err)
		return
	}
	w.err = os.WriteFile(filepath.Join(w.dir, name), b.Bytes(), 0o644)
}

func (c *category) page() string {
	return "categories/" + strings.Join([]string{fileName(c.App), fileName(c.Class), fileName(c.Mode)}, "-") + ".html"
}

const mostName = 60 // bytes of a part of a file's name

// fileName keeps letters and digits; whatever else a name has becomes its code.
func fileName(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "~%x.", r)
		}
	}
	if name := b.String(); len(name) <= mostName {
		return name
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

type overviewRow struct {
	Page, App, Class, Mode, Limits string
	Cells, Ranked                  int
	First, By                      string
	Latency, Quality               Shown
}

type entryRow struct {
	Page, Name, Title, Submitter, Created, Division, Tier, State string
	Cells                                                        int
}

func (s *Site) index() any {
	v := struct {
		head
		Overview []overviewRow
		Entries  []entryRow
	}{head: s.head(s.in.Name, "", page.Script())}
	for _, c := range s.categories {
		for _, t := range c.tables {
			o := overviewRow{Page: c.page() + "#" + t.name() + "-s", App: c.App, Class: words(c.Class), Mode: c.Mode, Limits: t.limits() + "; " + t.Division, Cells: len(t.rows), First: "–"}
			for _, r := range t.rows {
				if r.rank > 0 {
					o.Ranked++
				}
			}
			if o.Ranked == 0 {
				o.First = "none is ranked: " + t.rows[0].why
			}
			if o.Ranked > 0 {
				first := t.rows[0]
				o.First, o.By = strings.TrimSpace(first.claim.Pipeline+" "+first.telling), first.entry.Name
				o.Latency, o.Quality = first.shown(clock(first.claim)), first.shown(mark(first.claim))
			}
			v.Overview = append(v.Overview, o)
		}
	}
	for _, e := range slices.Backward(s.entries) {
		v.Entries = append(v.Entries, entryRow{e.page(), e.Name, e.Title, e.Submitter, date(e.Created), e.Division, e.tier(), e.state(), len(e.rows)})
	}
	return v
}

func (r *row) shown(metric string) Shown {
	m, ok := r.claim.Metrics[metric]
	for _, c := range columnsOf([]*row{r}) {
		if c.Metric == metric {
			return shown(c.show(statOf(m, ok)))
		}
	}
	return shown(reports.Number(statOf(m, ok)))
}

func date(stamp string) string { return strings.TrimSuffix(strings.Replace(stamp, "T", " ", 1), "Z") }

// tier is the best of an entry's rows.
func (e *entry) tier() string {
	best := e.Verdict.Tier
	for _, r := range e.rows {
		best = max(best, r.tier)
	}
	return fmt.Sprintf("T%d %s", best-1, best)
}

func (e *entry) state() string {
	switch {
	case e.Retracted != "":
		return "retracted: " + e.Retracted
	case e.next != nil:
		return "superseded"
	}
	return "current"
}

func (t *table) name() string {
	name := "t-" + fileName(t.Division) + "-" + fileName(t.Contract[:min(len(t.Contract), 16)])
	if t.exam != "" {
		sum := sha256.Sum256([]byte(t.exam))
		name += "-" + hex.EncodeToString(sum[:4])
	}
	return name
}

type tableView struct {
	Name, Root, Limits, Contract, Terms string
	Columns                             []string
	Rows                                []Row
}

func (s *Site) category(c *category) any {
	v := struct {
		head
		Tables []tableView
	}{head: s.head(fmt.Sprintf("%s: %s, %s, %s", s.in.Name, c.App, words(c.Class), c.Mode), "../", page.Script())}
	for _, t := range c.tables {
		tv := tableView{Name: t.name(), Root: "../", Limits: t.limits() + ", " + t.Division + " division", Contract: t.Contract, Terms: t.words(), Columns: headsOf(columnsOf(t.rows))}
		for _, r := range t.rows {
			tv.Rows = append(tv.Rows, r.view(columnsOf(t.rows)))
		}
		v.Tables = append(v.Tables, tv)
	}
	return v
}

// words say which requests the contract of a table means.
func (t *table) words() string {
	if t.terms == nil {
		return "no bundle spells it out"
	}
	spec, _ := t.terms.Workload["spec"].(map[string]any)
	var parts []string
	for _, k := range []string{"requests", "rate", "users", "scenario", "scale"} {
		if v, ok := spec[k]; ok && v != "" && v != 0.0 {
			parts = append(parts, k+" "+paramText(v))
		}
	}
	if t.exam != "" {
		parts = append(parts, t.exam)
	}
	return strings.Join(append(parts, fmt.Sprintf("model %.12s", t.terms.Model)), ", ")
}

// CSV writes every claim with every metric, in SI base units, all digits.
func (s *Site) CSV(out io.Writer) error {
	w := csv.NewWriter(out)
	if err := w.Write([]string{"bundle", "entry", "submitter", "app", "site_class", "mode", "site", "model", "placement", "contract", "rank", "why_unranked", "tier", "valid", "runs", "requests", "metric", "unit", "value", "low", "high", "n"}); err != nil {
		return err
	}
	for _, c := range s.categories {
		for _, t := range c.tables {
			for _, r := range t.rows {
				if err := r.csv(w, c); err != nil {
					return err
				}
			}
		}
	}
	w.Flush()
	return w.Error()
}

func (r *row) csv(w *csv.Writer, c *category) error {
	cl, rank := r.claim, ""
	if r.rank > 0 {
		rank = strconv.Itoa(r.rank)
	}
	for _, col := range columnsOf([]*row{r}) {
		m, ok := cl.Metrics[col.Metric]
		if !ok {
			continue
		}
		st := statOf(m, ok)
		if err := w.Write(plainCells([]string{r.entry.Bundle, r.entry.Name, r.entry.Submitter, c.App, c.Class, c.Mode, cl.Site, cl.Model, r.label(), cl.Contract, rank, r.why, r.tier.String(),
			strconv.FormatBool(cl.Valid), strconv.Itoa(cl.Runs), strconv.Itoa(cl.Requests), col.Metric, m.Unit, real(st.V), real(st.Lo), real(st.Hi), strconv.Itoa(m.N)})); err != nil {
			return err
		}
	}
	return nil
}

// plainCells keeps a spreadsheet from taking a name for a formula.
func plainCells(cells []string) []string {
	for i, c := range cells {
		if _, err := strconv.ParseFloat(c, 64); err != nil && c != "" && strings.ContainsRune("=+-@\t\r", rune(c[0])) {
			cells[i] = "'" + c
		}
	}
	return cells
}

func real(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

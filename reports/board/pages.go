package board

import (
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"

	"meibench/harness/bundle"
	"meibench/harness/ledger"
	"meibench/internal/canon"
	"meibench/reports/page"
)

// fact is a line of a table of facts.
type fact struct {
	Name, Value string
	Code        bool
	Href        string
}

type cellView struct {
	Row
	Title, All, Mode, Category string
}

type historyRow struct {
	Page, Name, Created string
	Values              []Shown
}

type runView struct {
	ID, Path string
	Facts    []fact
}

func (s *Site) entry(e *entry) any {
	v := struct {
		head
		State         string
		Facts         []fact
		Columns       []string
		Cells         []cellView
		HistoryCells  []string
		History       []historyRow
		Runs          []runView
		Findings      []string
		Check, BibTeX string
	}{head: s.head(heading(e), "../", page.Script()), Columns: headsOf(columnsOf(e.rows)), Facts: e.facts(s), Check: e.check(), BibTeX: e.bibTeX(s.in.Name)}
	if e.Retracted != "" || e.next != nil {
		v.State = e.state()
	}
	for _, r := range e.rows {
		c := r.claim
		v.Cells = append(v.Cells, cellView{r.view(columnsOf(e.rows)), c.App + ": " + c.Pipeline, strings.TrimPrefix(r.label(), c.Pipeline+" "), c.Mode,
			(&category{App: c.App, Class: s.class(c.Site), Mode: c.Mode}).page()})
	}
	if len(e.earlier) > 0 || e.next != nil {
		v.HistoryCells, v.History = e.historyRows()
	}
	for i := range e.Runs {
		v.Runs = append(v.Runs, e.runView(i))
	}
	for _, f := range e.Verdict.Findings {
		v.Findings = append(v.Findings, findingText(f))
	}
	return v
}

func findingText(f bundle.Finding) string {
	at := strings.TrimSpace(f.File + " " + f.Row)
	if at != "" {
		at = " (" + at + ")"
	}
	return fmt.Sprintf("%s %s: %s%s", f.Rule, f.Severity, f.Text, at)
}

func heading(e *entry) string {
	if e.Title != "" {
		return e.Name + ": " + e.Title
	}
	return e.Name
}

func (e *entry) facts(s *Site) []fact {
	out := []fact{{Name: "bundle", Value: e.Bundle, Code: true}}
	if e.File != "" {
		out = append(out, fact{Name: "file", Value: fmt.Sprintf("%s, %d bytes", e.File, e.Bytes), Href: "../bundles/" + e.File})
	}
	out = append(out, fact{Name: "submitter", Value: e.Submitter}, fact{Name: "signed by known keys", Value: orNone(strings.Join(e.Verdict.Signers, ", "))},
		fact{Name: "trust", Value: fmt.Sprintf("T%d %s: %s", e.Verdict.Tier-1, e.Verdict.Tier, tierDoc(e.Verdict.Tier))},
		fact{Name: "computed again", Value: replayText(&e.Verdict.Replay)},
		fact{Name: "end of the last run", Value: e.Created}, fact{Name: "licence of the data", Value: e.Licence}, fact{Name: "division", Value: strings.TrimSpace(e.Division + " " + strings.Join(e.Open, "; "))},
		fact{Name: "harness", Value: strings.TrimSpace(e.Harness.Commit + " " + e.Harness.Go), Code: true},
		fact{Name: "runs of cells", Value: fmt.Sprintf("%d of %d planned, %d INVALID", e.Attempts.Done, e.Attempts.Cells, e.Attempts.Invalid)},
		fact{Name: "requests", Value: fmt.Sprintf("%d, of which %d did not end well", e.Attempts.Requests, e.Attempts.Missed)})
	if e.Receipt != nil {
		out = append(out, fact{Name: "log", Value: fmt.Sprintf("line %d; proof", e.Receipt.Index), Href: "../proofs/" + e.id + ".json"})
	}
	if e.next != nil {
		out = append(out, fact{Name: "superseded by", Value: e.next.Bundle, Href: e.next.id + ".html"})
	}
	if e.Contact != "" {
		out = append(out, fact{Name: "contact", Value: e.Contact})
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func replayText(r *bundle.Replay) string {
	if r.Modelled+r.Kernels == 0 {
		return "nothing"
	}
	text := fmt.Sprintf("%d modelled runs of cells, equal in every byte; the answers of %d others; %d requests", r.Modelled, r.Kernels, r.Rows)
	if r.Left > 0 {
		text += fmt.Sprintf("; %d left", r.Left)
		if r.Why != "" {
			text += ": " + r.Why
		}
	}
	return text
}

// historyRows are all bundles of the entry with what each of its cells is ranked by.
func (e *entry) historyRows() (heads []string, out []historyRow) {
	all := append(slices.Clone(e.earlier), e)
	for n := e.next; n != nil; n = n.next {
		all = append(all, n)
	}
	key := func(r *row) string { return r.claim.App + " " + r.label() + " " + r.claim.Mode }
	for _, o := range all {
		for _, r := range o.rows {
			if k := key(r); !slices.Contains(heads, k) {
				heads = append(heads, k)
			}
		}
	}
	for _, o := range all {
		h := historyRow{Page: o.id + ".html", Name: o.Name, Created: date(o.Created)}
		for _, k := range heads {
			v := Shown{Text: "–"}
			if i := slices.IndexFunc(o.rows, func(r *row) bool { return key(r) == k }); i >= 0 {
				v = o.rows[i].shown(clock(o.rows[i].claim))
			}
			h.Values = append(h.Values, v)
		}
		out = append(out, h)
	}
	return heads, out
}

func (e *entry) runView(i int) runView {
	r := &e.Runs[i]
	v := runView{ID: "run-" + strconv.Itoa(i), Path: r.Path}
	v.Facts = []fact{{Name: "command", Value: strings.Join(r.Command, " "), Code: true}, {Name: "again", Value: "meibench run --plan " + r.Path, Code: true},
		{Name: "suite", Value: r.Suite + " " + r.SuiteHash}, {Name: "system", Value: r.System}, {Name: "models", Value: strings.Join(r.Models, ", ")},
		{Name: "seeds", Value: strings.Join(r.Seeds, ", ")}, {Name: "contract", Value: r.Contract, Code: true}, {Name: "plan", Value: r.Plan, Code: true}}
	for _, u := range e.plans {
		if u.Digest == r.Plan {
			text := "not committed: the seed was the submitter's choice"
			if r.Committed && e.Verdict.Committed {
				text = "committed before the run; the seed is the log's"
			}
			if u.Commits > 0 {
				text += "; in this log: " + u.text()
			}
			v.Facts = append(v.Facts, fact{Name: "plan in a log", Value: text})
		}
	}
	return v
}

// check are the commands with which a reader checks an entry.
func (e *entry) check() string {
	file := e.File
	if file == "" {
		file = e.Name + ".meibench.zip"
	} else {
		file = "bundles/" + file
	}
	text := "meibench verify " + file
	if e.Receipt != nil {
		text += " --log log --proof proofs/" + e.id + ".json"
	}
	return text + "\nmeibench verify " + file + " --rerun all"
}

// bibTeX is an entry for a bibliography. What would end a field is left out.
func (e *entry) bibTeX(board string) string {
	plain := func(s string) string { return strings.NewReplacer("{", "", "}", "", "\\", "", "\n", " ").Replace(s) }
	year := "n.d."
	if len(e.Created) >= 4 {
		year = e.Created[:4]
	}
	return fmt.Sprintf("@misc{meibench-%s,\n  author = {{%s}},\n  title  = {{%s}},\n  year   = {%s},\n  note   = {meibench bundle %s, leaderboard %s},\n}\n",
		e.id[:min(len(e.id), 16)], plain(e.Submitter), plain(heading(e)), plain(year), plain(e.Bundle), plain(board))
}

func (s *Site) log() any {
	v := struct {
		head
		Checkpoint, Key string
		Lines           []ledger.Entry
		Open            []planUse
	}{head: s.head(s.in.Name+": log", "", page.Script()), Checkpoint: s.in.Checkpoint, Key: s.in.LogKey, Lines: s.in.Log}
	handed := map[string]bool{}
	for _, e := range s.entries {
		for _, u := range e.plans {
			handed[u.Digest] = true
		}
	}
	uses := uses(s.in.Log)
	for _, l := range s.in.Log {
		if u := uses[l.Digest]; l.Kind == ledger.Plan && !handed[l.Digest] {
			v.Open = append(v.Open, *u)
			handed[l.Digest] = true
		}
	}
	return v
}

// diffCell is a claim as the page that compares two has it.
type diffCell struct {
	ID        string   `json:"id"`
	Label     string   `json:"label"`
	Entry     string   `json:"entry"`
	Placement string   `json:"placement"`
	Model     string   `json:"model"`
	Place     string   `json:"place"`
	Mode      string   `json:"mode"`
	Tier      string   `json:"tier"`
	Contract  string   `json:"contract"`
	Plan      string   `json:"plan"`
	Commit    string   `json:"commit"`
	Command   string   `json:"command"`
	Metrics   [][4]any `json:"metrics"` // value, low, high, n; null where there is none
}

func (s *Site) diff() (any, error) {
	script, err := files.ReadFile("diff.js")
	if err != nil {
		return nil, err
	}
	v := struct {
		head
		Cells template.JS
	}{head: s.head(s.in.Name+": compare two cells", "", template.JS(script))}
	data := struct {
		Metrics [][2]string `json:"metrics"`
		Cells   []diffCell  `json:"cells"`
	}{Cells: []diffCell{}}
	var rows []*row
	for _, e := range s.entries {
		rows = append(rows, e.rows...)
	}
	all, units := columnsOf(rows), map[string]string{}
	for _, e := range s.entries {
		for _, r := range e.rows {
			data.Cells = append(data.Cells, r.diffCell(all, units))
		}
	}
	for _, c := range all {
		data.Metrics = append(data.Metrics, [2]string{c.Metric, units[c.Metric]})
	}
	b, err := canon.JSON(data)
	v.Cells = template.JS(strings.ReplaceAll(string(b), "<", `\u003c`)) // or a name could end the element
	return v, err
}

func (r *row) diffCell(cols []column, units map[string]string) diffCell {
	w := r.view(nil)
	c := diffCell{ID: w.ID, Entry: r.entry.Name + " by " + r.entry.Submitter, Placement: w.Full, Model: w.Model, Place: w.Place, Mode: r.claim.Mode,
		Tier: w.Tier, Contract: r.claim.Contract, Plan: r.run.Plan, Commit: r.entry.Harness.Commit, Command: strings.Join(r.run.Command, " ")}
	c.Label = strings.Join([]string{r.claim.App, r.claim.Mode, strings.TrimSpace(w.Placement + " " + w.Params), r.claim.Site, "–", r.entry.Name, date(r.entry.Created)}, " ")
	for _, col := range cols {
		m, ok := r.claim.Metrics[col.Metric]
		if !ok {
			c.Metrics = append(c.Metrics, [4]any{})
			continue
		}
		units[col.Metric] = m.Unit
		c.Metrics = append(c.Metrics, [4]any{m.Value, m.Low, m.High, m.N})
	}
	return c
}

// Package reports turns run folders into tables, figures and pages. It is a pure
// function of what the folders hold: the same run gives the same bytes.
//
//	data, err := reports.Load("out/quickstart")
//	r := reports.Build(data)
//	r.Text(os.Stdout, 120)            // what a terminal shows
//	paths, err := r.Write("out/report") // report.md, report.html, figures
//
// The one idea: every sentence, digit and mark is derived. A number has no more
// digits than its 95 % interval supports; a quantile that the sample is too
// small for says so; an INVALID cell keeps its figures and loses its verdict; a
// figure without data says why instead of being left out.
//
// Names in run folders come from strangers. They are stripped of control
// characters when they are read and escaped in every output.
//
// The package does not run anything and does not rank runs of different
// contracts; compare and leaderboards do.
package reports

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"meibench/harness/record"
	"meibench/reference/models"
)

// Report is what a run shows, ready to be written in several formats.
type Report struct {
	Title       string
	Comparable  bool     // false for quick runs
	Setting     []Fact   // what was asked, of what, under which load and limits
	Answers     []string // plain sentences: which placement met the limits, by what numbers
	Warnings    []string // what makes the numbers doubtful
	Tables      []Table
	Figures     []Figure
	Sections    []Section // what some of the cells say of one question
	Runs        []RunFacts
	Definitions []Definition
	Formats     []string // of the figures' files; none = svg and png

	rows []cellRow
}

// Section answers one question that a run may hold cells for: sentences, the answer
// first, then figures and tables that bear it out.
type Section struct {
	Name    string // short; part of anchors and of the names of its figures
	Title   string
	Lead    []string // the first goes to the answers of the report too
	Figures []Figure
	Tables  []Table
	Folded  bool // long: the page shows it when it is asked to
}

// RunFacts is where a run's numbers come from.
type RunFacts struct {
	Label, Dir string
	Facts      []Fact
	Files      []string // names in the run folder
}

// Fact is a line of a run's manifest.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Definition says what a metric in the tables means.
type Definition struct{ Name, Unit, Doc string }

// Build makes the report of a run, or of several side by side, with sections that
// others made of the same data. Of a suite in parts the first part gives the
// answers, the main tables and the figures; the cells of the others are listed at
// the end.
func Build(d *Data, sections ...Section) *Report {
	b := newBuilder(newView(d))
	main := b.first()
	r := &Report{Title: b.title(), Comparable: true, Definitions: definitions()}
	for _, run := range d.Runs {
		r.Comparable = r.Comparable && !run.Manifest.Quick
		r.Runs = append(r.Runs, runFacts(&run))
	}
	r.Setting = main.setting()
	r.Answers, r.Warnings = main.answers(), b.warnings()
	r.Tables = []Table{main.latency(), main.outcome()}
	if t := b.agreement(); t != nil {
		r.Tables = append(r.Tables, *t)
	}
	r.Figures = main.figures()
	for _, s := range sections {
		if len(s.Lead) > 0 {
			r.Answers = append(r.Answers, s.Lead[0])
		}
		r.Sections = append(r.Sections, s)
	}
	if rest := b.rest(); rest != nil {
		r.Sections = append(r.Sections, *rest)
	}
	r.rows = b.cellRows()
	return r
}

// Invalid is how many cells are INVALID.
func (r *Report) Invalid() (n int) {
	for i := range r.rows {
		if !r.rows[i].Valid {
			n++
		}
	}
	return n
}

// setting says why the run was made and under which terms, as far as the run
// folder tells.
func (b *builder) setting() (out []Fact) {
	var questions, models, sites []string
	for i := range b.Runs {
		if q := question(b.Runs[i].Manifest.Suite); q != "" {
			questions = appendNew(questions, q)
		}
	}
	for _, g := range b.Groups {
		if g.Cell.Model != "" {
			models = appendNew(models, modelText(g.Cell.Model))
		}
		if g.Cell.Site != "" {
			sites = appendNew(sites, g.Cell.Site)
		}
	}
	for _, f := range []struct {
		name   string
		values []string
	}{{"question", questions}, {"model", models}, {"site", sites}} {
		if len(f.values) > 0 {
			out = append(out, Fact{f.name, strings.Join(f.values, "; ")})
		}
	}
	for _, app := range b.apps {
		var terms []string
		for _, g := range b.of[app] {
			terms = appendNew(terms, b.load(g)+"; "+b.bar(g))
		}
		if n := len(terms); n > mostTerms {
			terms = append(terms[:mostTerms], fmt.Sprintf("and %d other loads or limits", n-mostTerms))
		}
		out = append(out, Fact{cmp.Or(app, "(no application)"), strings.Join(terms, " | ")})
	}
	return out
}

const mostTerms = 3 // loads and limits of one application that the setting spells out

// question is that of a suite's text: the value of a key at the left margin with
// the indented lines below it, in plain, quoted or block style. It is shown and
// decides nothing, so that a full reader of YAML is not needed.
func question(suite string) string {
	var words []string
	inside := false
	for line := range strings.Lines(suite[:min(len(suite), 1<<20)]) {
		value, ok := strings.CutPrefix(line, "question:")
		switch {
		case ok:
			inside = true
		case inside && strings.HasPrefix(line, " "):
			value = line
		case inside:
			inside = strings.TrimSpace(line) == ""
			continue
		default:
			continue
		}
		value, _, _ = strings.Cut(value, " #")
		words = append(words, strings.Fields(value)...)
	}
	if len(words) > 0 && strings.Trim(words[0], ">|-+") == "" { // of a block
		words = words[1:]
	}
	text := strings.Join(words, " ")
	for _, quote := range []string{"'", `"`} {
		if len(text) > 1 && strings.HasPrefix(text, quote) && strings.HasSuffix(text, quote) {
			text = text[1 : len(text)-1]
		}
	}
	return clean(text, mostText)
}

// modelText keeps readers from taking a toy for a product.
func modelText(name string) string {
	for _, e := range models.Table {
		if name == e.Name || strings.HasPrefix(name, e.Name+":") {
			return name + " (" + e.Size + " parameters, made for this benchmark: not a product LLM)"
		}
	}
	return name
}

// load is how many requests a group had and how fast they came.
func (b *builder) load(g *Group) string {
	parts := []string{plural(g.N/max(len(g.Cells), 1), "request", "requests") + " a run"}
	if c := b.spelled[g.Cell.Contract]; c != nil {
		if users, ok := numberAt(c.Workload, "spec", "users"); ok && users >= 1 {
			parts = append(parts, plural(int(users), "user", "users"))
		}
		if rate, ok := numberAt(c.Workload, "spec", "rate"); ok && rate > 0 {
			parts = append(parts, strconv.FormatFloat(rate, 'g', 4, 64)+" requests per second")
		}
		if s, ok := dig(c.Workload, "spec", "scenario").(string); ok && s != "" {
			parts = append(parts, "scenario "+clean(s, mostName))
		}
	}
	return strings.Join(parts, ", ")
}

// bar is what a group's requests have to meet, and how many of them.
func (b *builder) bar(g *Group) string {
	text := limitText(&g.Cell)
	if need, known := b.need(g); known && limited([]*Group{g}) {
		text += " for " + percent(need) + " of requests"
	}
	return text
}

func numberAt(v any, path ...string) (float64, bool) {
	switch n := dig(v, path...).(type) {
	case float64:
		return n, true
	case int:
		return float64(n), true
	}
	return 0, false
}

// title names the suites of the report.
func (b *builder) title() string {
	var suites []string
	for _, g := range b.Groups {
		if g.Cell.Suite != "" {
			suites = appendNew(suites, g.Cell.Suite)
		}
	}
	switch len(suites) {
	case 0:
		return "meibench report"
	case 1, 2, 3:
		return "meibench: " + strings.Join(suites, ", ")
	}
	return fmt.Sprintf("meibench: %s and %d more suites", suites[0], len(suites)-1)
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// definitions are those of the metrics that the tables show.
func definitions() (out []Definition) {
	for _, name := range []string{"ttft", "tpot", "e2e", "ttft_p50", "ttft_p95", "tpot_p50", "e2e_p50", "e2e_p95", "e2e_p99",
		"goodput", "goodput_share", "miss_share", "up_bytes_request", "down_bytes_request", "energy_per_request", "quality_mean"} {
		if m, ok := record.Lookup(name); ok {
			out = append(out, Definition{m.Name, m.Unit, m.Doc})
		}
	}
	return out
}

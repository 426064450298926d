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
	"meibench/internal/strictyaml"
	"meibench/reference/models"
)

// Report is what a run shows, ready to be written in several formats.
type Report struct {
	Title       string
	Comparable  bool     // false for quick runs
	Short       *Table   // one row per application: which placement, how sure
	Setting     []Fact   // what was asked, of what, under which load and limits
	Answers     []string // plain sentences: which placement met the limits, by what numbers
	Warnings    []string // what makes the numbers doubtful
	Tables      []Table
	Figures     []Figure
	Sections    []Section // what some of the cells say of one question
	Runs        []RunFacts
	Cells       []CellFacts
	Definitions []Definition
	Formats     []string // of the figures' files; none = svg and png

	rows    []cellRow
	anchors map[*Group]string // of the cells
}

// Anchor is the anchor of the cell that a row speaks of, "" if it is of none.
func (r *Report) Anchor(g *Group) string { return r.anchors[g] }

// Section answers one question that a run may hold cells for: sentences, the answer
// first, then figures and tables that bear it out.
type Section struct {
	Name    string // short; part of anchors and of the names of its figures
	Title   string
	Lead    []string // the first goes to the answers of the report too
	Figures []Figure
	Tables  []Table
	Folded  bool   // long: the page shows it when it is asked to
	Short   *Table // the answers in one table, for the top of reports none of whose cells serve
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
	r := &Report{Title: b.title(), Comparable: true, Definitions: definitions(d)}
	for _, run := range d.Runs {
		r.Comparable = r.Comparable && !run.Manifest.Quick
		r.Runs = append(r.Runs, runFacts(&run))
	}
	r.Setting, r.Warnings, r.Short = b.only(b.First()).setting(), b.warnings(), main.short()
	if len(main.Groups) > 0 || len(b.Groups) == 0 {
		r.Answers, r.Figures = main.answers(), main.figures()
		r.Tables = []Table{main.latency(), main.outcome()}
	}
	if serving := b.only(Where(b.Groups, func(g *Group) bool { return !g.Trains() })); len(serving.Groups) > 0 {
		if t := serving.agreement(); t != nil {
			r.Tables = append(r.Tables, *t)
		}
	}
	for _, s := range sections {
		if r.Short == nil {
			r.Short = s.Short
		}
		if len(s.Lead) > 0 {
			r.Answers = append(r.Answers, s.Lead[0])
		}
		r.Sections = append(r.Sections, s)
	}
	if rest := b.rest(); rest != nil {
		r.Sections = append(r.Sections, *rest)
	}
	r.rows = b.cellRows()
	r.Cells, r.anchors = b.cellFacts()
	return r
}

// short is the answer for those who read one table: which placement to use for each
// application, by the most trusted mode, and whether the run can tell.
func (b *builder) short() *Table {
	t := Table{Name: "short", Title: "In short",
		Caption: "Which placement to use, by the most trusted mode that has valid cells: first what keeps most requests inside every limit, then the lowest E2E p50. In brackets the 95 % interval. Surely better: than the next best, as far as the intervals tell.",
		Columns: []Column{{Head: "application", Left: true}, {Head: "use", Left: true}, {Head: "mode", Left: true}, {Head: "limits", Left: true}, {Head: "meets them", Left: true},
			{Head: "inside limits"}, {Head: "E2E p50"}, {Head: "n"}, {Head: "next best", Left: true}, {Head: "its E2E p50"}, {Head: "surely better?", Left: true}}}
	group := RowGroup{}
	for _, app := range b.apps {
		valid := slices.DeleteFunc(slices.Clone(b.of[app]), func(g *Group) bool { return b.flags[g] != "" || g.N == 0 })
		if len(valid) == 0 {
			group.Rows = append(group.Rows, Row{Values: []Value{word(cmp.Or(app, "(no application)")), word("not judged"), word(""), word(limitText(&b.of[app][0].Cell)), word("not judged"), word(dash), word(dash),
				count(0), word(""), word(dash), word("no: no valid cell with requests")}})
			continue
		}
		mode := slices.MinFunc(valid, func(a, b *Group) int { return modeRank(a.Cell.Mode) - modeRank(b.Cell.Mode) }).Cell.Mode
		gs := slices.DeleteFunc(valid, func(g *Group) bool { return g.Cell.Mode != mode })
		b.rank(gs)
		group.Rows = append(group.Rows, b.shortRow(app, gs))
	}
	if len(group.Rows) == 0 {
		return nil
	}
	t.Groups = []RowGroup{group}
	return &t
}

// shortRow speaks of placements in the order of their rank.
func (b *builder) shortRow(app string, gs []*Group) Row {
	best := gs[0]
	s := b.sums[best]
	use, met, sure := b.label[best], "yes", "yes"
	need, _ := b.need(best)
	switch {
	case !limited(gs):
		met = "no limits"
	case best.Good == 0:
		use, met = "none; quickest is "+use, "no"
	case !b.passes(best):
		use, met = "none; closest is "+use, "no: "+missText(s.within.V, need)+" of "+percent(need)
	case s.within.Lo < need:
		met = "yes so far; n is too small to be sure of " + percent(need)
	}
	next, nextTime := "none", word(dash)
	if len(gs) > 1 {
		n := b.sums[gs[1]]
		next, nextTime = b.label[gs[1]], Time(n.e2e50)
		sameShare := n.within.Hi >= s.within.Lo
		sameTime := !(n.e2e50.Lo > s.e2e50.Hi) && !(n.e2e50.Hi < s.e2e50.Lo)
		if sameShare && sameTime {
			sure = "no: the intervals of both overlap"
		} else if sameShare && n.e2e50.V < s.e2e50.V {
			sure = "no: " + next + " is quicker, and the shares overlap"
		}
	}
	return Row{Group: best, Values: []Value{word(cmp.Or(app, "(no application)")), word(use), word(best.Cell.Mode), word(limitText(&best.Cell)), word(met), Percent(s.within), Time(s.e2e50),
		count(best.N), word(next), nextTime, word(sure)}}
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
	var asked, models, sites []string
	for i := range b.Runs {
		if q := b.Runs[i].question; q != "" {
			asked = appendNew(asked, q)
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
	}{{"question", asked}, {"model", models}, {"site", sites}} {
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

// questions are those of a suite's text: of all, and of its parts by their names. They are shown and decide nothing: of a text that
// cannot be read there are none.
func questions(suite string) (whole string, parts map[string]string) {
	var asked struct {
		Question string `yaml:"question"`
		Parts    []struct {
			Name     string `yaml:"name"`
			Question string `yaml:"question"`
		} `yaml:"parts"`
	}
	parts = map[string]string{}
	if strictyaml.Peek([]byte(suite), 1<<20, &asked) != nil {
		return "", parts
	}
	for _, p := range asked.Parts {
		parts[p.Name] = clean(oneLine(p.Question), mostText)
	}
	return clean(oneLine(asked.Question), mostText), parts
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Question is what the part of a group's suite asks; "" if nobody says.
func (d *Data) Question(g *Group) string {
	return d.Runs[g.Run].parts[g.Axis("part")]
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
	what := plural(g.N/max(len(g.Cells), 1), "request", "requests")
	if g.Trains() {
		what = plural(g.N/max(len(g.Cells), 1), "round of training", "rounds of training")
	}
	parts := []string{what + " a run"}
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
	if g.Trains() {
		return "no limits, as rounds are not answers"
	}
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
func definitions(d *Data) (out []Definition) {
	names := []string{"ttft", "tpot", "e2e", "ttft_p50", "ttft_p95", "tpot_p50", "e2e_p50", "e2e_p95", "e2e_p99",
		"goodput", "goodput_share", "miss_share", "up_bytes_request", "down_bytes_request", "energy_per_request", "quality_mean"}
	if serving := d.Serving(); serving != d {
		if len(serving.Groups) == 0 {
			names = nil
		}
		names = append(names, "score_base", "loss_final", "worst_client", "rounds", "target_time", "target_bytes", "target_joules", "train_share", "idle_share", "lost_updates", "aggregation_error", "epsilon", "attack_success")
	}
	for _, name := range names {
		if m, ok := record.Lookup(name); ok {
			out = append(out, Definition{m.Name, m.Unit, m.Doc})
		}
	}
	return out
}

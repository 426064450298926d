package bundle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// question is a question of artifact evaluation and how it is answered from what
// is in the bundle.
type question struct {
	text   string
	answer func(*page) string // "" = not recorded
}

// questions follow the badges of ACM's artifact review (version 1.1: available,
// functional, reusable, reproduced, replicated) and the reproducibility
// questions of NeurIPS. The words are ours.
var questions = []struct {
	head string
	list []question
}{
	{"Available", []question{
		{"Where is it archived, under which DOI?", func(*page) string { return "" }},
		{"Under which licence?", func(p *page) string { return p.m.Licence + " (the data)" }},
		{"Who is to be asked?", func(p *page) string { return p.m.Contact }},
		{"Can anyone tell whether it was changed?", func(p *page) string {
			return "yes: SHA256SUMS covers every file; signed by: " + cmp.Or(p.m.Submitter, "nobody")
		}},
	}},
	{"Functional: documented, consistent, complete, exercisable", []question{
		{"Which program made it?", func(p *page) string {
			return fmt.Sprintf("meibench at commit %s, built with %s", p.commit(), p.m.Harness.Go)
		}},
		{"Is the exact command given?", (*page).answerCommand},
		{"Are the workloads given in full?", func(p *page) string {
			return "yes: run.json holds the suite's text and every contract with the workload's parameters"
		}},
		{"Are the models identified?", func(p *page) string {
			var all []string
			for i := range p.runs {
				all = append(all, p.models(i)...)
			}
			return "by SHA-256: " + strings.Join(distinct(all), ", ")
		}},
		{"Is everything there that was planned?", func(p *page) string {
			return fmt.Sprintf("%d of %d runs of cells", p.m.Attempts.Done, p.m.Attempts.Cells)
		}},
		{"Are failed attempts reported?", func(p *page) string {
			a := p.m.Attempts
			return fmt.Sprintf("yes: %d INVALID runs of cells and %d of %d requests that failed are in the tables", a.Invalid, a.Missed, a.Requests)
		}},
		{"Was the plan fixed before the run?", (*page).answerPlan},
		{"Can every published number be derived again?", func(*page) string { return "yes: meibench verify derives summary.json from the rows" }},
	}},
	{"Reusable", []question{
		{"Are formats open?", func(*page) string { return "yes: Arrow, JSON, Go benchmark text, RO-Crate, Croissant" }},
		{"Do columns state their units?", func(*page) string { return "yes: in the Arrow schema and in croissant.json" }},
	}},
	{"Reproduced, replicated", []question{
		{"Can the results be computed again without the hardware?", (*page).answerReplay},
		{"Has another party reproduced them?", func(*page) string { return "" }},
	}},
	{"Experiments", []question{
		{"On which hardware?", func(p *page) string {
			var all []string
			for _, r := range p.m.Runs {
				all = append(all, r.System)
			}
			return strings.Join(distinct(all), "; ")
		}},
		{"In which environment?", (*page).environment},
		{"With which seeds?", func(p *page) string {
			var all []string
			for _, r := range p.m.Runs {
				all = append(all, r.Seeds...)
			}
			return strings.Join(distinct(all), ", ")
		}},
		{"How many runs stand behind a number?", (*page).answerSample},
		{"How is uncertainty stated?", func(*page) string {
			return "order-statistic intervals of the median at 95 %, runs as the unit; none where fewer than six runs"
		}},
		{"Is quality measured beside speed?", (*page).answerQuality},
		{"Is energy stated?", (*page).answerEnergy},
		{"Did the runs judge themselves fit?", func(p *page) string {
			return fmt.Sprintf("%d of %d did; reasons are in summary.json", p.m.Attempts.Done-p.m.Attempts.Invalid, p.m.Attempts.Done)
		}},
		{"Ambient temperature, battery, power mode, other programs?", func(*page) string { return "" }},
		{"How much computing did tuning and discarded experiments take?", func(*page) string { return "" }},
	}},
	{"Data and people", []question{
		{"Are data of people in it?", func(*page) string {
			return "the rows hold sizes, times and the texts of errors, no prompts and no answers"
		}},
		{"Limits of what it shows?", func(p *page) string {
			if len(p.m.Open) == 0 {
				return "closed division; what verify cannot see is in its documentation"
			}
			return "open division: " + strings.Join(p.m.Open, "; ")
		}},
	}},
}

func (p *page) checklist() (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Artifact evaluation: %s\n\nAnswers are filled in from the manifest, the summary and the run folders, by no hand. What cannot be answered from them stays open.\n", md(p.title()))
	for _, part := range questions {
		fmt.Fprintf(&b, "\n## %s\n\n| question | answer |\n|---|---|\n", part.head)
		for _, q := range part.list {
			fmt.Fprintf(&b, "| %s | %s |\n", q.text, md(cmp.Or(q.answer(p), notRecorded)))
		}
	}
	return b.String(), nil
}

func (p *page) answerCommand() string {
	for _, r := range p.m.Runs {
		if len(r.Command) == 0 {
			return ""
		}
	}
	return "yes: in README.md and run.json"
}

func (p *page) answerPlan() string {
	committed, planned := 0, 0
	for _, r := range p.m.Runs {
		if r.Plan != "" {
			planned++
		}
		if r.Committed {
			committed++
		}
	}
	if planned == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d runs have a plan, %d with the receipt of a log", planned, len(p.m.Runs), committed)
}

func (p *page) answerReplay() string {
	n := 0
	for _, c := range p.s.Claims {
		if c.Mode == "modelled" {
			n++
		}
	}
	return fmt.Sprintf("%d of %d claims are modelled and come out equal in every byte; answers of emulated and measured cells can be computed again where the model is at hand", n, len(p.s.Claims))
}

// answerSample is the range of runs over claims.
func (p *page) answerSample() string {
	var ns []int
	for _, c := range p.s.Claims {
		ns = append(ns, c.Runs)
	}
	if len(ns) == 0 {
		return ""
	}
	return fmt.Sprintf("%d to %d runs of a cell (repeats and seeds)", slices.Min(ns), slices.Max(ns))
}

func (p *page) answerQuality() string { return p.share("quality_mean") }
func (p *page) answerEnergy() string  { return p.share("energy_per_request") }

// share says how many claims have a metric.
func (p *page) share(metric string) string {
	n := 0
	for _, c := range p.s.Claims {
		if _, ok := c.Metrics[metric]; ok {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d claims state %s", n, len(p.s.Claims), metric)
}

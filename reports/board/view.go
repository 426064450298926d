package board

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"meibench/hardware/profiles"
	"meibench/harness/bundle"
	"meibench/reports"
)

// FileID is what files about a bundle are called: the digest in its h1, in hex.
func FileID(h1 string) string {
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(h1, "h1:"))
	if err != nil {
		b = []byte(h1)
	}
	return hex.EncodeToString(b)
}

// column is a metric as tables show it.
type column struct {
	Metric, Head string
	show         func(reports.Stat) reports.Value
}

func columns() []column {
	return []column{
		{latency, "E2E p50", reports.Time},
		{"goodput_share", "within", reports.Percent},
		{"quality_mean", "quality", reports.Number},
		{"ttft_p50", "TTFT p50", reports.Time},
		{"tpot_p50", "TPOT p50", reports.Time},
		{"e2e_p95", "E2E p95", reports.Time},
		{"energy_per_request", "energy/request", reports.Energy},
		{"energy_per_quality", "energy/correct", reports.Energy},
		{"up_bytes_request", "up/request", reports.Bytes},
	}
}

func statOf(m bundle.Metric, ok bool) reports.Stat {
	s := reports.Stat{V: math.NaN(), Lo: math.NaN(), Hi: math.NaN(), N: m.N}
	if !ok {
		return s
	}
	s.V = m.Value
	if m.Low != nil {
		s.Lo = *m.Low
	}
	if m.High != nil {
		s.Hi = *m.High
	}
	return s
}

// Row is a row as a page shows it.
type Row struct {
	Rank, RankSort string
	Entry, Title   string
	Page           string // of the entry, relative to the site
	Anchor         string
	ID             string // unique on the board
	Placement      string // pipeline
	Params         string // what tells it from others of its pipeline in the table
	Full           string // all parameters
	Model, Place   string
	Runs, Requests int
	Meets          string
	Values         []Shown
	Tier, TierDoc  string
	Marks          []string
	Why            string
}

// Shown is a value with its key for sorting, "" for what sorts last.
type Shown struct{ Text, Detail, Sort string }

func shown(v reports.Value) Shown {
	s := Shown{Text: v.Text + v.Mark, Detail: v.Detail}
	if !math.IsNaN(v.Sort) && !math.IsInf(v.Sort, 0) {
		s.Sort = strconv.FormatFloat(v.Sort, 'g', -1, 64)
	}
	return s
}

func (r *row) view(cols []column) Row {
	c := r.claim
	v := Row{Rank: "–", Entry: r.entry.Name, Title: r.entry.Title, Page: r.entry.page(), Anchor: "claim-" + c.ID, ID: r.entry.id + "-" + c.ID,
		Placement: c.Pipeline, Params: r.telling, Full: r.label(), Model: c.Model, Place: c.Site, Runs: c.Runs, Requests: c.Requests, Meets: r.meets.String(),
		Tier: fmt.Sprintf("T%d %s", r.tier-1, r.tier), TierDoc: tierDoc(r.tier), Marks: r.badges(), Why: r.why}
	if c.Mode == "measured" && r.run.System != "" {
		v.Place = r.run.System
	}
	if r.rank > 0 {
		v.Rank = strconv.Itoa(r.rank)
		v.RankSort = v.Rank
		if r.tied {
			v.Rank += " ="
		}
	}
	for _, col := range cols {
		m, ok := c.Metrics[col.Metric]
		v.Values = append(v.Values, shown(col.show(statOf(m, ok))))
	}
	return v
}

func (e *entry) page() string { return "entries/" + e.id + ".html" }

// badges are what a reader should know of a row beside its figures.
func (r *row) badges() (out []string) {
	if len(r.by) > 0 {
		out = append(out, "reproduced by "+strings.Join(r.by, ", "))
	}
	if len(r.copies) > 0 {
		out = append(out, "the same times, to the last digit, as "+strings.Join(r.copies, ", "))
	}
	if r.entry.audited {
		out = append(out, "audited")
	}
	switch t := r.twin; {
	case t == nil:
	case t.stated:
		out = append(out, fmt.Sprintf("%s; error of E2E stated by the calibration in its profile: %s", r.claim.Tier, percentText(t.E2E)))
	default:
		out = append(out, fmt.Sprintf("error against measured: TTFT %s, TPOT %s, E2E %s", percentText(t.TTFT), percentText(t.TPOT), percentText(t.E2E)))
	}
	if r.entry.Division == "open" {
		out = append(out, "open division")
	}
	if len(r.entry.Verdict.Signers) == 0 {
		out = append(out, "not signed by a known key")
	}
	if !r.run.Committed || !r.entry.Verdict.Committed { // what the manifest says, verify must have found
		out = append(out, "plan not committed")
	}
	for _, u := range r.entry.plans {
		if u.Digest == r.run.Plan && u.Commits > 0 && (u.Commits != 1 || u.Begun != 1 || u.Whole != 1) {
			out = append(out, u.text())
		}
	}
	if flags := r.flags(); len(flags) > 0 {
		out = append(out, "flags "+strings.Join(flags, ", "))
	}
	return out
}

// flags are the rules that marked the row, each once.
func (r *row) flags() (out []string) {
	for _, f := range r.entry.Verdict.Findings {
		if f.Severity == bundle.Flag && strings.HasPrefix(f.Row, r.claim.Suite+"/"+r.claim.Cell+" ") && !slices.Contains(out, f.Rule) {
			out = append(out, f.Rule)
		}
	}
	return out
}

func percentText(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return strconv.FormatFloat(100*v, 'f', 1, 64) + " %"
}

func tierDoc(t bundle.Tier) string {
	return [...]string{
		"an error was found",
		"the form is right, nothing else was checked",
		"all that follows from the rows was derived again",
		"computed again with the same result",
		"another submitter on another machine of the same kind got the same",
		"checked by a named auditor",
	}[t]
}

// text says what a log holds of a plan.
func (u *planUse) text() string {
	return fmt.Sprintf("plan committed %s, attempted %s, ended %s, complete %s", times(u.Commits), times(u.Begun), times(u.Ended), times(u.Whole))
}

func times(n int) string {
	switch n {
	case 0:
		return "never"
	case 1:
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// words is a name of a profile's class as readers have it.
func words(class string) string {
	if class == profiles.Host {
		return "the machine of the run"
	}
	return strings.ReplaceAll(class, "_", " ")
}

// terms are the limits of a table in words.
func (t *table) limits() string {
	switch {
	case t.exam != "":
		return "rounds of training"
	case t.terms == nil:
		return "terms unknown"
	}
	var parts []string
	for _, l := range []struct{ key, name string }{{"ttft_ns", "TTFT"}, {"tpot_ns", "TPOT"}, {"e2e_ns", "E2E"}} {
		if ns := t.terms.Limits[l.key]; ns > 0 {
			parts = append(parts, fmt.Sprintf("%s ≤ %s", l.name, reports.Time(reports.Bare(time.Duration(ns).Seconds())).Text))
		}
	}
	if len(parts) == 0 {
		return "no limits"
	}
	text := strings.Join(parts, ", ")
	if t.need > 0 {
		text += fmt.Sprintf(" for %.4g %% of requests", 100*t.need)
	}
	return text
}

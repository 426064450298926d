package reports

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"meibench/hardware"
	"meibench/harness/record"
)

// Table is a table as people read it: one unit per column, digits that the
// intervals support.
type Table struct {
	Name    string // short; part of anchors
	Title   string
	Caption string
	Columns []Column
	Groups  []RowGroup // one per application
	Notes   []string
}

// Column describes a column.
type Column struct {
	Head, Unit string
	Left       bool // words, not numbers

	keep, keepDetail int // what a narrow terminal drops first: the lowest; 0 = never
}

// RowGroup is the rows of one application.
type RowGroup struct {
	Title string
	Rows  []Row
}

// Row is one cell of a suite.
type Row struct {
	Values []Value
	Flag   string // "!1" for an INVALID row: the note of that number says why
	Group  *Group // the cell that the row speaks of; nil if it is of none
}

// Value is one entry of a table.
type Value struct {
	Text   string  // "412"
	Mark   string  // "", or a sign that a note of the table explains
	Detail string  // the interval, "[398, 431]", or what the number is made of
	Sort   float64 // in SI base units; NaN sorts last
}

// Marks of values.
const (
	markMax      = "^"
	markModelled = "*"
	markEmulated = "°"
	markOverload = "†"
)

func word(s string) Value { return Value{Text: s, Sort: math.NaN()} }

func count(n int) Value { return Value{Text: strconv.Itoa(n), Sort: float64(n)} }

func stat(s Stat, by float64) Value {
	v, i := s.texts(by)
	out := Value{Text: v, Detail: i, Sort: s.V}
	if s.Max {
		out.Mark = markMax
	}
	return out
}

// percentage prints a share in percent, in whole percents where the interval is
// wider than two.
func percentage(s Stat) Value {
	v := stat(s, 0.01)
	if s.Hi-s.Lo > 0.02 {
		v.Text, v.Detail = number(100*s.V, 0), "["+number(100*s.Lo, 0)+", "+number(100*s.Hi, 0)+"]"
	}
	if s.V == 1 { // exactly
		v.Text = "100"
	}
	v.Detail = strings.Replace(v.Detail, ", 100.0]", ", 100]", 1)
	return v
}

// Word is an entry of words.
func Word(s string) Value { return word(s) }

// Number prints an estimate as it is.
func Number(s Stat) Value { return stat(s, 1) }

// Percent prints a share.
func Percent(s Stat) Value {
	if math.IsNaN(s.V) {
		return stat(s, 1)
	}
	v := percentage(s)
	v.Text += " %"
	if s.V > 0 && s.V < least {
		v.Text, v.Detail = "< 0.001 %", ""
	}
	return v
}

const least = 1e-5 // of shares that print digits

// Time prints seconds in a unit of their own, Bytes and Energy likewise.
func Time(s Stat) Value { return measure{own: timeScales(), scale: scale{by: 1}}.stat(s) }

// Bytes prints bytes.
func Bytes(s Stat) Value { return measure{own: byteScales(), scale: scale{by: 1}}.stat(s) }

// Energy prints joules.
func Energy(s Stat) Value { return measure{own: energyScales(), scale: scale{by: 1}}.stat(s) }

// String is the entry as a sentence has it: "412 ms [398, 431]".
func (v Value) String() string { return strings.TrimSpace(v.Text + v.Mark + " " + v.Detail) }

// builder makes the tables of a view.
type builder struct {
	*view
	sums    map[*Group]*summary
	flags   map[*Group]string
	reasons []string // what the flags refer to
}

func newBuilder(v *view) *builder {
	b := &builder{view: v, sums: v.summaries(), flags: map[*Group]string{}}
	number := map[string]int{}
	for _, g := range v.Groups {
		why := strings.Join(g.invalid(), "; ")
		if why == "" {
			continue
		}
		if number[why] == 0 {
			number[why] = len(number) + 1
			b.reasons = append(b.reasons, fmt.Sprintf("!%d INVALID: %s", number[why], why))
		}
		b.flags[g] = fmt.Sprintf("!%d", number[why])
	}
	return b
}

// all collects a figure over all groups, to choose a column's unit by.
func (b *builder) all(of func(*summary) Stat) (out []float64) {
	for _, g := range b.Groups {
		out = append(out, of(b.sums[g]).V)
	}
	return out
}

// rows fills a table's groups from one function per row.
func (b *builder) rows(t *Table, row func(*Group, *summary) []Value) {
	for _, app := range b.apps {
		group := RowGroup{Title: b.heading(app)}
		for _, g := range b.of[app] {
			if values := row(g, b.sums[g]); values != nil {
				name := word(b.label[g])
				if g.overloaded() {
					name.Mark = markOverload
				}
				values = append([]Value{name, word(g.Cell.Mode)}, values...)
				group.Rows = append(group.Rows, Row{Values: values, Flag: b.flags[g], Group: g})
			}
		}
		if len(group.Rows) > 0 {
			t.Groups = append(t.Groups, group)
		}
	}
}

// heading is an application with its limits.
func (b *builder) heading(app string) string {
	var texts []string
	for _, g := range b.of[app] {
		if t := limitText(&g.Cell); !slices.Contains(texts, t) {
			texts = append(texts, t)
		}
	}
	name := app
	if name == "" {
		name = "(no application)"
	}
	if len(texts) > 1 {
		texts[0] = "limits differ between cells"
	}
	return name + ": " + texts[0] + b.setup(app)
}

// setup says the site and the model that all cells of an application share, and
// others do not.
func (b *builder) setup(app string) (out string) {
	for i := range where(b.Groups[0]) {
		var here, all []string
		for _, g := range b.Groups {
			all = appendNew(all, where(g)[i])
			if g.Cell.App == app {
				here = appendNew(here, where(g)[i])
			}
		}
		if len(here) == 1 && len(all) > 1 && here[0] != "" {
			out += [...]string{"; site ", "; model "}[i] + here[0]
		}
	}
	return out
}

func limitText(c *record.Cell) string {
	var parts []string
	for _, l := range []struct {
		name  string
		limit time.Duration
	}{{"TTFT", c.TTFTLimit}, {"TPOT", c.TPOTLimit}, {"E2E", c.E2ELimit}} {
		if l.limit > 0 {
			parts = append(parts, l.name+" ≤ "+given(l.limit))
		}
	}
	if len(parts) == 0 {
		return "no limits"
	}
	return strings.Join(parts, ", ")
}

// given prints a time that somebody chose, with all its digits: "1.5 s".
func given(d time.Duration) string {
	sc := choose(timeScales(), []float64{d.Seconds()})
	return strconv.FormatFloat(d.Seconds()/sc.by, 'g', 6, 64) + " " + sc.unit
}

const intervalNote = "[low, high] is the 95 % interval: order statistics for quantiles, Wilson's for shares and quality. “–” where the sample is too small to bound or nothing is known."

const overloadNote = markOverload + " overloaded: latencies grow with the length of the run, so they have no interval."

const maxNote = markMax + " the largest of its sample: too few requests for this quantile."

func (b *builder) latency() Table {
	ttft := measureOf(timeScales(), b.all(func(s *summary) Stat { return s.ttft50 }), b.all(func(s *summary) Stat { return s.ttft95 }))
	tpot := measureOf(timeScales(), b.all(func(s *summary) Stat { return s.tpot50 }))
	e2e := measureOf(timeScales(), b.all(func(s *summary) Stat { return s.e2e50 }), b.all(func(s *summary) Stat { return s.e2e95 }), b.all(func(s *summary) Stat { return s.e2e99 }))
	t := Table{Name: "latency", Title: "Latency",
		Caption: "Times from the intended start of a request, over the n requests that ended well. " + intervalNote,
		Columns: []Column{{Head: "placement", Left: true}, {Head: "mode", Left: true}, {Head: "n", keepDetail: 45},
			{Head: "TTFT p50", Unit: ttft.unit, keepDetail: 58}, {Head: "TTFT p95", Unit: ttft.unit, keep: 70, keepDetail: 12},
			{Head: "TPOT p50", Unit: tpot.unit, keep: 80, keepDetail: 11},
			{Head: "E2E p50", Unit: e2e.unit, keepDetail: 39}, {Head: "E2E p95", Unit: e2e.unit, keep: 75, keepDetail: 10},
			{Head: "E2E p99", Unit: e2e.unit, keep: 60, keepDetail: 1}}}
	b.rows(&t, func(g *Group, s *summary) []Value {
		return []Value{requests(g), ttft.stat(s.ttft50), ttft.stat(s.ttft95), tpot.stat(s.tpot50), e2e.stat(s.e2e50), e2e.stat(s.e2e95), e2e.stat(s.e2e99)}
	})
	if t.has(markMax) {
		t.Notes = append(t.Notes, maxNote)
	}
	if t.has(markOverload) {
		t.Notes = append(t.Notes, overloadNote)
	}
	t.Notes = append(append(t.Notes, b.inference()...), b.flagNote()...)
	return t
}

// requests counts what ended well, and the repeats that it comes from.
func requests(g *Group) Value {
	v := count(g.Outcomes[record.OK])
	if n := len(g.Cells); n > 1 {
		v.Detail = fmt.Sprintf("(%d runs)", n)
	}
	return v
}

// inference says what the intervals rest on.
func (b *builder) inference() (out []string) {
	repeats, alone, dependent := false, false, 0
	for _, g := range b.Groups {
		over := len(g.repeats) >= enoughRepeats
		repeats, alone = repeats || over, alone || !over && g.N > 0
		if !over && g.Tau > 1 {
			dependent++
		}
	}
	if repeats {
		out = append(out, fmt.Sprintf("Cells with %d repeats or more: the median over repeats, each of which gives one value.", enoughRepeats))
	}
	if alone {
		out = append(out, fmt.Sprintf("Cells with fewer than %d repeats: requests are taken as independent unless their order shows that they are not; more repeats say more.", enoughRepeats))
	}
	if dependent > 0 {
		out = append(out, fmt.Sprintf("In %s successive requests depend on each other, as behind a queue; their intervals are widened accordingly.", plural(dependent, "cell", "cells")))
	}
	return out
}

// has reports whether a value carries a mark.
func (t *Table) has(mark string) bool {
	return slices.ContainsFunc(t.Groups, func(g RowGroup) bool {
		return slices.ContainsFunc(g.Rows, func(r Row) bool {
			return slices.ContainsFunc(r.Values, func(v Value) bool { return v.Mark == mark })
		})
	})
}

func (b *builder) outcome() Table {
	up := measureOf(byteScales(), b.all(func(s *summary) Stat { return s.up }))
	down := measureOf(byteScales(), b.all(func(s *summary) Stat { return s.down }))
	joules := measureOf(energyScales(), b.all(func(s *summary) Stat { return s.energy }))
	t := Table{Name: "outcome", Title: "Goodput, traffic, energy and quality",
		Caption: "Within limits: the share of all requests that ended well inside every limit; failures are misses. Goodput: those requests per second of offered time.",
		Columns: []Column{{Head: "placement", Left: true}, {Head: "mode", Left: true}, {Head: "failed", keep: 95, keepDetail: 3},
			{Head: "within", Unit: "%", keepDetail: 38}, {Head: "goodput", Unit: "req/s", keep: 60, keepDetail: 2},
			{Head: "up", Unit: up.per("/req"), keep: 55}, {Head: "down", Unit: down.per("/req"), keep: 54},
			{Head: "energy", Unit: joules.per("/req"), keep: 65}, {Head: "quality", keep: 60, keepDetail: 15},
			{Head: "vs meas.", Unit: "%", keep: 64}}}
	b.rows(&t, func(g *Group, s *summary) []Value {
		energy := joules.stat(s.energy)
		energy.Mark = sourceMark(s.energySource)
		gapText := Value{Text: "", Sort: s.gap.median()}
		if b.flags[g] != "" || b.flags[b.twin[g]] != "" {
			gapText.Sort = math.NaN()
		}
		if !math.IsNaN(gapText.Sort) {
			gapText.Text = number(100*gapText.Sort, 0)
		}
		return []Value{failed(g), percentage(s.within), stat(s.goodput, 1), up.stat(s.up), down.stat(s.down), energy, stat(s.quality, 1), gapText}
	})
	if t.has(markOverload) {
		t.Notes = append(t.Notes, overloadNote)
	}
	if t.has(markModelled) {
		t.Notes = append(t.Notes, markModelled+" energy from a model of the hardware, not from a meter.")
	}
	if t.has(markEmulated) {
		t.Notes = append(t.Notes, markEmulated+" energy of emulated steps: measured times, modelled power.")
	}
	if slices.ContainsFunc(b.Groups, func(g *Group) bool { return !math.IsNaN(b.sums[g].gap.median()) }) {
		t.Notes = append(t.Notes, "vs meas.: median of the relative errors of TTFT p50, TPOT p50 and E2E p50 against the measured cell.")
	}
	t.Notes = append(t.Notes, b.flagNote()...)
	return t
}

// flagNote points to where the reasons are, once.
func (b *builder) flagNote() []string {
	if len(b.reasons) == 0 {
		return nil
	}
	return []string{"! INVALID: the warnings say why, by number."}
}

func sourceMark(source uint8) string {
	switch hardware.Source(source) {
	case hardware.Modelled:
		return markModelled
	case hardware.Emulated:
		return markEmulated
	}
	return ""
}

// failed counts what did not end well, and says how.
func failed(g *Group) Value {
	n := g.N - g.Outcomes[record.OK]
	v := count(n)
	var kinds []string
	for o := record.Failed; o <= record.Cancelled; o++ {
		if k := g.Outcomes[o]; k > 0 && (k < n || o != record.Failed) {
			kinds = append(kinds, fmt.Sprintf("%d %s", k, o))
		}
	}
	if len(kinds) > 0 {
		v.Detail = "(" + strings.Join(kinds, ", ") + ")"
	}
	return v
}

// agreement compares medians with measured ones; nil if there is nothing to
// compare.
func (b *builder) agreement() *Table {
	ttft := measureOf(timeScales(), b.all(func(s *summary) Stat { return s.ttft50 }))
	tpot := measureOf(timeScales(), b.all(func(s *summary) Stat { return s.tpot50 }))
	e2e := measureOf(timeScales(), b.all(func(s *summary) Stat { return s.e2e50 }))
	t := Table{Name: "agreement", Title: "Emulated and modelled against measured",
		Caption: "Medians of both and the relative error: positive where the emulation or the model is slower than the measurement.",
		Columns: []Column{{Head: "placement", Left: true}, {Head: "mode", Left: true},
			{Head: "TTFT p50", Unit: ttft.unit}, {Head: "measured", Unit: ttft.unit}, {Head: "error", Unit: "%"},
			{Head: "TPOT p50", Unit: tpot.unit}, {Head: "measured", Unit: tpot.unit}, {Head: "error", Unit: "%"},
			{Head: "E2E p50", Unit: e2e.unit}, {Head: "measured", Unit: e2e.unit}, {Head: "error", Unit: "%"}}}
	b.rows(&t, func(g *Group, s *summary) []Value {
		twin := b.twin[g]
		if twin == nil || math.IsNaN(s.gap.median()) {
			return nil
		}
		m := b.sums[twin]
		plain := func(of measure, s Stat) Value { v := of.stat(s); v.Detail = ""; return v }
		return []Value{plain(ttft, s.ttft50), plain(ttft, m.ttft50), signed(s.gap.ttft), plain(tpot, s.tpot50), plain(tpot, m.tpot50), signed(s.gap.tpot),
			plain(e2e, s.e2e50), plain(e2e, m.e2e50), signed(s.gap.e2e)}
	})
	if len(t.Groups) == 0 {
		return nil
	}
	t.Notes = append(b.agreementNotes(), b.flagNote()...)
	return &t
}

// signed prints a relative error in percent with its sign.
func signed(gap float64) Value {
	if math.IsNaN(gap) {
		return Value{Text: dash, Sort: gap}
	}
	p := 100 * gap
	text := number(p, min(0, place(bare(p))+1))
	if p > 0 {
		text = "+" + text
	}
	return Value{Text: strings.Replace(text, "-", "−", 1), Sort: gap}
}

// gaps collects the relative errors of a mode over pairs of valid cells, and
// counts the pairs that were left out.
func (b *builder) gaps(mode string) (ttft, tpot, e2e []float64, invalid int) {
	for _, g := range b.Groups {
		twin := b.twin[g]
		if twin == nil || g.Cell.Mode != mode || math.IsNaN(b.sums[g].gap.median()) {
			continue
		}
		if b.flags[g] != "" || b.flags[twin] != "" {
			invalid++
			continue
		}
		s := b.sums[g]
		ttft, tpot, e2e = append(ttft, s.gap.ttft), append(tpot, s.gap.tpot), append(e2e, s.gap.e2e)
	}
	return ttft, tpot, e2e, invalid
}

func (b *builder) agreementNotes() (out []string) {
	for _, mode := range []string{"emulated", "modelled"} {
		ttft, tpot, e2e, invalid := b.gaps(mode)
		var parts []string
		if len(ttft) > 0 {
			parts = append(parts, fmt.Sprintf("median absolute error over %s TTFT p50 %s, TPOT p50 %s, E2E p50 %s", plural(len(ttft), "pair of cells", "pairs of cells"),
				percent(medianAbs(ttft)), percent(medianAbs(tpot)), percent(medianAbs(e2e))))
		}
		if invalid > 0 {
			parts = append(parts, plural(invalid, "pair", "pairs")+" left out because one of the two cells is INVALID")
		}
		if len(parts) > 0 {
			out = append(out, fmt.Sprintf("%s against measured: %s.", mode, strings.Join(parts, "; ")))
		}
	}
	return out
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

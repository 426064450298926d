package compare

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"meibench/internal/canon"
	"meibench/reports"
)

// Text writes the comparison for a terminal: a block per cell, a line per metric,
// and the count of verdicts last. Changed leaves out what shows no difference.
func (c *Comparison) Text(out io.Writer, changed bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "old: %s\nnew: %s\n", strings.Join(c.Old, ", "), strings.Join(c.New, ", "))
	rows := [][]string{{"", "old", "new", "ratio [95 %]", "p", "n", "verdict"}}
	heads := map[int]string{}
	short, same := c.short()
	if same != "" {
		fmt.Fprintf(&b, "all cells: %s\n", same)
	}
	last := ""
	for i := range c.Pairs {
		p := &c.Pairs[i]
		if changed && !p.Changed() {
			continue
		}
		if p.Cell != last {
			heads[len(rows)], last = short[p.Cell], p.Cell
		}
		rows = append(rows, p.cells())
	}
	write(&b, rows, heads)
	for _, note := range c.notes() {
		fmt.Fprintln(&b, note)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// short gives every cell a name without the parts that all cells share, and says
// what these are.
func (c *Comparison) short() (names map[string]string, same string) {
	values := map[string]map[string]bool{} // key -> values
	var keys []string
	names = map[string]string{}
	for _, name := range c.cellNames() {
		names[name] = name
		for _, part := range strings.Split(name, "/")[1:] {
			key, value, ok := strings.Cut(part, "=")
			if !ok {
				continue
			}
			if values[key] == nil {
				values[key] = map[string]bool{}
				keys = append(keys, key)
			}
			values[key][value] = true
		}
	}
	if len(names) < 2 {
		return names, ""
	}
	drop := func(key string) bool { return key != "pipeline" && len(values[key]) == 1 }
	for name := range names {
		var kept []string
		for i, part := range strings.Split(name, "/") {
			key, _, ok := strings.Cut(part, "=")
			if i == 0 || !ok || !drop(key) {
				kept = append(kept, part)
			}
		}
		names[name] = strings.Join(kept, " ")
	}
	var all []string
	for _, k := range keys {
		if drop(k) {
			for v := range values[k] {
				all = append(all, k+"="+v)
			}
		}
	}
	return names, strings.Join(all, " ")
}

// cellNames are all names of cells, of both sides.
func (c *Comparison) cellNames() (out []string) {
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	for i := range c.Pairs {
		add(c.Pairs[i].Cell)
	}
	for _, list := range [][]string{c.OnlyOld, c.OnlyNew, c.Unequal} {
		for _, n := range list {
			add(n)
		}
	}
	return out
}

// write aligns rows; a heading stands before the row of its number.
func write(b *strings.Builder, rows [][]string, heads map[int]string) {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, v := range r {
			width[i] = max(width[i], utf8.RuneCountInString(v))
		}
	}
	for k, r := range rows {
		if h, ok := heads[k]; ok {
			fmt.Fprintln(b, h)
		}
		line := "  "
		for i, v := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(v))
			if i == 0 || i == len(r)-1 {
				line += v + pad + "  "
			} else {
				line += pad + v + "  "
			}
		}
		fmt.Fprintln(b, strings.TrimRight(line, " "))
	}
}

// Changed reports whether a difference was found.
func (p *Pair) Changed() bool {
	switch p.Verdict {
	case Faster, Slower, Better, Worse, Higher, Lower:
		return true
	}
	return false
}

// cells are a pair's texts, in the order of the columns.
func (p *Pair) cells() []string {
	verdict := p.Verdict
	if p.Note != "" {
		verdict += " (" + p.Note + ")"
	}
	return []string{p.Metric, p.median(p.Old), p.median(p.New), p.ratioText(), p.pText(), fmt.Sprintf("%d+%d", p.Old.N, p.New.N), verdict}
}

// median prints a side in the unit of the metric.
func (p *Pair) median(s Sample) string {
	if s.N == 0 {
		return "–"
	}
	st := reports.Stat{V: s.Median, Lo: orNaN(s.Low), Hi: orNaN(s.High), N: s.N}
	if p.exact {
		st = reports.Bare(s.Median)
	}
	unit := strings.TrimPrefix(p.Unit, modelled)
	switch {
	case strings.HasSuffix(unit, "sec"), unit == "sec/op":
		return reports.Time(st).Text
	case strings.HasPrefix(unit, "J"):
		return reports.Energy(st).Text
	case strings.HasSuffix(unit, "share"):
		return reports.Percent(st).Text
	case strings.HasPrefix(unit, "B/") || strings.HasSuffix(unit, "-B/req"):
		return reports.Bytes(st).Text
	}
	return reports.Number(st).Text
}

func orNaN(v *number) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}

func (p *Pair) ratioText() string {
	if p.Diff != nil {
		text := fmt.Sprintf("%+.3g", *p.Diff)
		if p.DiffLow != nil && p.DiffHigh != nil {
			text += fmt.Sprintf(" [%+.3g, %+.3g]", *p.DiffLow, *p.DiffHigh)
		}
		return text
	}
	if p.Ratio == nil {
		return "–"
	}
	text := strconv.FormatFloat(*p.Ratio, 'f', 3, 64)
	if p.Low == nil && p.High == nil {
		return text + " [–, –]"
	}
	end := func(v *number) string {
		if v == nil || *v == 0 {
			return "–"
		}
		return strconv.FormatFloat(*v, 'f', 3, 64)
	}
	return text + " [" + end(p.Low) + ", " + end(p.High) + "]"
}

func (p *Pair) pText() string {
	switch {
	case p.Test == "exact":
		return "exact"
	case p.Adjusted == nil:
		return "–"
	}
	return strconv.FormatFloat(*p.Adjusted, 'f', 3, 64)
}

// notes are what a reader has to know beside the rows.
func (c *Comparison) notes() (out []string) {
	short, _ := c.short()
	count := map[string]int{}
	var order []string
	for i := range c.Pairs {
		v, _, _ := strings.Cut(c.Pairs[i].Verdict, ":")
		if count[v] == 0 {
			order = append(order, v)
		}
		count[v]++
	}
	for i, v := range order {
		order[i] = fmt.Sprintf("%d %s", count[v], v)
	}
	out = append(out, "figures are medians over runs, each run counting once; a report pools the requests of all runs")
	out = append(out, "verdicts: "+strings.Join(order, ", "))
	if c.Family > 0 {
		out = append(out, fmt.Sprintf("p: two-sided, corrected for %d tests (Holm); a difference needs p <= %g and a ratio beyond ±%g %%", c.Family, c.Alpha, 100*c.Band))
	}
	for _, l := range []struct {
		names []string
		text  string
	}{{c.OnlyOld, "only in old"}, {c.OnlyNew, "only in new"}, {c.Unequal, "left out, as the contracts differ"}} {
		if len(l.names) > 0 {
			var names []string
			for _, n := range l.names {
				names = append(names, short[n])
			}
			out = append(out, l.text+": "+strings.Join(names, ", "))
		}
	}
	seen := map[string]bool{}
	for i := range c.Pairs {
		p := &c.Pairs[i]
		for _, s := range []struct {
			side string
			of   Sample
		}{{"old", p.Old}, {"new", p.New}} {
			if text := fmt.Sprintf("INVALID and left out, %s %s: %s", s.side, short[p.Cell], strings.Join(s.of.Why, "; ")); len(s.of.Why) > 0 && !seen[text] {
				seen[text] = true
				out = append(out, text)
			}
		}
	}
	for _, w := range c.Warnings {
		out = append(out, "warning: "+w)
	}
	return out
}

// Markdown writes the comparison as a table for a pull request.
func (c *Comparison) Markdown(out io.Writer, changed bool) error {
	var b strings.Builder
	md := strings.NewReplacer("\\", "\\\\", "|", "\\|", "<", "&lt;", ">", "&gt;", "`", "'", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "\n", " ")
	b.WriteString("| cell | metric | old | new | ratio [95 %] | p | n | verdict |\n|---|---|---:|---:|---:|---:|---:|---|\n")
	short, same := c.short()
	for i := range c.Pairs {
		p := &c.Pairs[i]
		if changed && !p.Changed() {
			continue
		}
		b.WriteString("| " + md.Replace(short[p.Cell]))
		for _, v := range p.cells() {
			b.WriteString(" | " + md.Replace(v))
		}
		b.WriteString(" |\n")
	}
	b.WriteByte('\n')
	if same != "" {
		b.WriteString("- all cells: " + md.Replace(same) + "\n")
	}
	for _, n := range c.notes() {
		b.WriteString("- " + md.Replace(n) + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// JSON writes the comparison as canonical JSON.
func (c *Comparison) JSON(out io.Writer) error {
	b, err := canon.JSON(c)
	if err != nil {
		return err
	}
	_, err = out.Write(append(b, '\n'))
	return err
}

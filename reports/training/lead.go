package training

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"meibench/reports"
)

// enough is how many seeds give a median a 95 % interval.
const enough = 6

// ranked are the valid cells with a score, best first.
func (p *part) ranked(of func(*cell) []float64) []*cell {
	cells := slices.DeleteFunc(slices.Clone(p.cells), func(c *cell) bool { return !c.Valid() || len(of(c)) == 0 })
	slices.SortStableFunc(cells, func(a, b *cell) int { return cmp.Compare(median(of(b)), median(of(a))) })
	return cells
}

// cheapest says which cell takes least, where nothing was scored: by what decisions are to make small, or by time.
func (p *part) cheapest() string {
	cells, by := p.priced()
	if len(cells) < 2 {
		return ""
	}
	what := "Whole runs take least time with"
	if by == "round_cost" {
		what = "Decisions expect to cost least, time and weighted joules of the rounds together, with"
	}
	best, worst := cells[0], cells[len(cells)-1]
	return fmt.Sprintf(" %s %s: %s, most with %s: %s.", what, best.name, over(best.Repeats(by), reports.Time), worst.name, over(worst.Repeats(by), reports.Time))
}

// priced are the valid cells by what they took, least first, and the metric.
func (p *part) priced() (cells []*cell, by string) {
	for _, by = range []string{"round_cost", "makespan"} {
		cells = slices.DeleteFunc(slices.Clone(p.cells), func(c *cell) bool { return !c.Valid() || len(c.Repeats(by)) == 0 || c.failed() == c.N })
		if len(cells) > 0 {
			break
		}
	}
	slices.SortStableFunc(cells, func(a, b *cell) int { return cmp.Compare(median(a.Repeats(by)), median(b.Repeats(by))) })
	return cells, by
}

// spread is a share over seeds in words: "35 % (seeds from 30 to 37)".
func spread(values []float64) string {
	v := over(values, reports.Percent)
	switch inner := strings.Trim(v.Detail, "()[]"); {
	case strings.HasPrefix(v.Detail, "("):
		v.Detail = "(seeds from " + strings.Replace(inner, ", ", " to ", 1) + ")"
	case v.Detail != "":
		v.Detail = "(95 % interval " + v.Detail + ")"
	}
	return strings.TrimSpace(v.Text + " " + v.Detail)
}

// lead says in words which cell learned most, at the end and for the same bytes and joules, and how sure that is.
func (p *part) lead() string {
	cells := p.ranked((*cell).final)
	if len(cells) == 0 {
		return p.asked() + fmt.Sprintf("%s: no valid cell was scored, so that the tables have what rounds take alone.", p.title) + p.cheapest()
	}
	best, worst := cells[0], cells[len(cells)-1]
	var leaders []string
	for _, c := range cells {
		if median(c.final()) == median(best.final()) {
			leaders = append(leaders, c.name)
		}
	}
	n := median(best.each(func(c *course) float64 { return float64(len(c.right)) }))
	text := p.asked() + fmt.Sprintf("%s: after %s, ", p.title, plural(int(n), "round", "rounds"))
	switch {
	case len(cells) == 1:
		text += fmt.Sprintf("%s answers %s of held-out questions right", best.name, spread(best.final()))
	case len(leaders) == len(cells):
		text += fmt.Sprintf("%s answer as many held-out questions right: %s", join(leaders), spread(best.final()))
	case len(leaders) > 1:
		text += fmt.Sprintf("%s answer most held-out questions right: %s, %s fewest: %s", join(leaders), spread(best.final()), worst.name, spread(worst.final()))
	default:
		text += fmt.Sprintf("%s answers most held-out questions right: %s, %s fewest: %s", best.name, spread(best.final()), worst.name, spread(worst.final()))
	}
	if b := best.base(); len(b) > 0 {
		text += fmt.Sprintf("; the untuned model %s.", spread(b))
	} else {
		text += "; the untuned model's score is not in the data."
	}
	for _, more := range []string{p.atEqual(), p.target(), p.doubt(cells)} {
		if more != "" {
			text += " " + more
		}
	}
	return text
}

// asked is the question that a part answers.
func (p *part) asked() string {
	if p.question == "" {
		return ""
	}
	return p.question + " "
}

// atEqual names the best at equal bytes and at equal joules, and the others.
func (p *part) atEqual() string {
	var out []string
	for _, by := range []cost{bytesCost, joulesCost} {
		budget := p.budgets[by]
		cells := p.ranked(func(c *cell) []float64 { return c.at(by, budget) })
		if math.IsNaN(budget) || len(cells) < 2 {
			continue
		}
		var each []string
		for _, c := range cells[:min(len(cells), 4)] {
			words := fmt.Sprintf("%s %s", c.name, percent(median(c.at(by, budget))))
			if gain := c.gainAt(by, budget); len(gain) > 0 {
				words += fmt.Sprintf(" (%s points)", points(reports.Bare(median(gain))).Text)
			}
			each = append(each, words)
		}
		if n := len(cells) - len(each); n > 0 {
			each = append(each, fmt.Sprintf("%d more", n))
		}
		spent := reports.Bytes(reports.Bare(budget)).Text
		if by == joulesCost {
			spent = reports.Energy(reports.Bare(budget)).Text
		}
		out = append(out, fmt.Sprintf("for %s each: %s", spent, join(each)))
	}
	if len(out) == 0 {
		return ""
	}
	s := strings.Join(out, "; ")
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// target says which cells came to their target.
func (p *part) target() string {
	var all, some, none []string
	goal := ""
	if v, ok := p.cells[0].Cell.Params["target"].(float64); ok && !slices.ContainsFunc(p.cells, func(c *cell) bool { return c.Cell.Params["target"] != v }) {
		goal = " (" + percent(v) + ")"
	}
	for _, c := range p.cells {
		if !c.Valid() {
			continue
		}
		switch n := len(c.Repeats("rounds")); {
		case n == 0:
			none = append(none, c.name)
		case n == len(c.courses):
			all = append(all, c.name)
		default:
			some = append(some, fmt.Sprintf("%s (%d of %s)", c.name, n, plural(len(c.courses), "seed", "seeds")))
		}
	}
	switch {
	case len(all)+len(some) == 0:
		return "No cell reached its target" + goal + "."
	case len(some)+len(none) == 0:
		return "All reached their target" + goal + "."
	}
	return "Target" + goal + " reached by " + join(append(all, some...)) + "."
}

// doubt says what the seeds cannot tell.
func (p *part) doubt(cells []*cell) string {
	least := math.MaxInt
	for _, c := range cells {
		least = min(least, len(c.final()))
	}
	few := ""
	if least < enough {
		few = fmt.Sprintf("%s too few for an interval, for which %d are needed", plural(least, "seed is", "seeds are"), enough)
	}
	if len(cells) < 2 {
		if few == "" {
			return ""
		}
		return few + "."
	}
	if few != "" {
		return few + ": the order is that of these seeds."
	}
	return p.apart(cells[0], cells[1])
}

// ahead is by how much a cell ended above another, for each seed that both have: it draws the same data and the same first numbers for both.
func (c *cell) ahead(of *cell) (out []float64) {
	for k := range c.courses {
		for j := range of.courses {
			if c.Cells[k].Seed == of.Cells[j].Seed && c.Cells[k].Repeat == of.Cells[j].Repeat {
				a, _ := last(c.courses[k].right)
				b, _ := last(of.courses[j].right)
				out = append(out, math.Round(1e9*(a-b))/1e9)
			}
		}
	}
	return known(out)
}

// apart says whether the seeds tell the best from the next.
func (p *part) apart(best, next *cell) string {
	d := over(best.ahead(next), points)
	if sure(best, next) == "yes" {
		return fmt.Sprintf("Seed by seed, %s is ahead of %s: %s points.", best.name, next.name, d)
	}
	return fmt.Sprintf("Seed by seed, %s is not surely ahead of %s: %s points.", best.name, next.name, d)
}

// short is a row for each part: what learned most.
func short(parts []*part) *reports.Table {
	t := reports.Table{Name: "short", Title: "In short",
		Caption: "Which cell of a part learned most: held-out questions right after its last round. Bytes over users' links, joules and time of its whole run. " + spreads,
		Columns: reports.Columns([]string{"part", "learned most"}, "seeds", "right", "untuned", "bytes", "joules", "time")}
	next := reports.Columns([]string{"next best"}, "its right")
	t.Columns = append(append(t.Columns, next...), reports.Columns([]string{"surely better?"})...)
	rows := reports.RowGroup{}
	for _, p := range parts {
		dash := reports.Word("–")
		row := []reports.Value{reports.Word(p.title), reports.Word("nothing was scored"), count(0), dash, dash, dash, dash, dash, dash, dash, reports.Word("no")}
		r := reports.Row{Values: row}
		if cheap, by := p.priced(); len(p.ranked((*cell).final)) == 0 && len(cheap) > 1 {
			r.Group = cheap[0].Group
			what := map[string]string{"round_cost": "least cost expected", "makespan": "least time"}[by]
			copy(row[1:], []reports.Value{reports.Word("not scored; " + what + ": " + cheap[0].name), count(len(cheap[0].courses)), dash, dash,
				over(cheap[0].spent(bytesCost), reports.Bytes), over(cheap[0].spent(joulesCost), reports.Energy), over(cheap[0].spent(timeCost), reports.Time), reports.Word(cheap[1].name)})
		}
		if cells := p.ranked((*cell).final); len(cells) > 0 {
			best := cells[0]
			r.Group = best.Group
			copy(row[1:], []reports.Value{reports.Word(best.name), count(len(best.final())), over(best.final(), reports.Percent), over(best.base(), reports.Percent),
				over(best.spent(bytesCost), reports.Bytes), over(best.spent(joulesCost), reports.Energy), over(best.spent(timeCost), reports.Time)})
			if len(cells) > 1 {
				copy(row[8:], []reports.Value{reports.Word(cells[1].name), over(cells[1].final(), reports.Percent), reports.Word(sure(best, cells[1]))})
			}
		}
		rows.Rows = append(rows.Rows, r)
	}
	t.Groups = []reports.RowGroup{rows}
	return &t
}

// sure is whether the seeds tell the best from the next: the interval of the difference of each seed is above nothing.
func sure(best, next *cell) string {
	d := reports.Median(best.ahead(next))
	switch {
	case d.N < enough:
		return fmt.Sprintf("no: %s, %d are needed", plural(d.N, "seed", "seeds"), enough)
	case d.Lo > 0:
		return "yes"
	}
	return "no: seed by seed, the interval of the difference holds 0"
}

// join joins words as a sentence does.
func join(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}

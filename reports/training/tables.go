package training

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"meibench/reports"
)

const spreads = "Over seeds: the median, in [ ] its 95 % interval, in ( ) the least and the most where fewer than six seeds give none."

// fill adds the rows of all parts to a table.
func fill(t *reports.Table, parts []*part, row func(p *part, c *cell) []reports.Value) {
	for _, p := range parts {
		group := reports.RowGroup{Title: p.title}
		for _, c := range p.cells {
			r := reports.Row{Group: c.Group, Values: row(p, c)}
			if !c.Valid() {
				r.Flag = "see the warnings"
			}
			group.Rows = append(group.Rows, r)
		}
		t.Groups = append(t.Groups, group)
	}
}

// lean takes the columns out of which no row knows anything, and returns their names.
func lean(t *reports.Table) (out []string) {
	for i := len(t.Columns) - 1; i > 0; i-- {
		empty := true
		for _, g := range t.Groups {
			for _, r := range g.Rows {
				empty = empty && math.IsNaN(r.Values[i].Sort)
			}
		}
		if !empty {
			continue
		}
		out = append(out, t.Columns[i].Head)
		t.Columns = slices.Delete(t.Columns, i, i+1)
		for _, g := range t.Groups {
			for j := range g.Rows {
				g.Rows[j].Values = slices.Delete(g.Rows[j].Values, i, i+1)
			}
		}
	}
	slices.Reverse(out)
	return out
}

// note says what lean took out.
func note(t *reports.Table, gone []string) {
	if len(gone) > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("Not in the data of any cell: %s.", join(gone)))
	}
}

// labels say of each part what is real.
func labels(t *reports.Table, parts []*part) {
	for _, p := range parts {
		if s := p.real(); !slices.Contains(t.Notes, s) {
			t.Notes = append(t.Notes, s)
		}
	}
}

func count(n int) reports.Value { return reports.Value{Text: strconv.Itoa(n), Sort: float64(n)} }

// whole prints numbers of things.
func whole(s reports.Stat) reports.Value {
	v := reports.Number(s)
	if s.V == math.Trunc(s.V) {
		v.Text = strconv.Itoa(int(s.V))
	}
	return v
}

// learned is what came of each cell, and when it reached its target.
func learned(parts []*part) *reports.Table {
	t := reports.Table{Name: "training", Title: "What was learned",
		Caption: "Held-out questions, which nobody trains on. Untuned: before the first round. Gain: points above it. Worst client: right answers by its own mix of applications. Reached: seeds that came to the target, and after how many rounds, seconds, bytes over users' links and joules; medians of those seeds alone. " + spreads,
		Columns: reports.Columns([]string{"cell"}, "seeds", "rounds", "untuned", "right", "gain (points)", "loss (nat/token)", "worst client", "target", "reached", "rounds to it", "time to it", "bytes to it", "joules to it")}
	fill(&t, parts, func(_ *part, c *cell) []reports.Value {
		n, target := len(c.courses), reports.Word("–")
		if v, ok := c.Cell.Params["target"].(float64); ok {
			target = reports.Percent(reports.Bare(v))
		}
		reached := c.Repeats("rounds")
		return []reports.Value{reports.Word(c.name), count(n), over(c.each(func(c *course) float64 { return float64(len(c.right)) }), whole), over(c.base(), reports.Percent),
			over(c.final(), reports.Percent), over(c.gain(), points), over(known(c.each(func(c *course) float64 { v, _ := last(c.loss); return v })), reports.Number),
			over(c.Repeats("worst_client"), reports.Percent), target, {Text: fmt.Sprintf("%d of %d", len(reached), n), Sort: float64(len(reached))},
			over(reached, whole), over(c.Repeats("target_time"), reports.Time), over(c.Repeats("target_bytes"), reports.Bytes), over(c.Repeats("target_joules"), reports.Energy)}
	})
	if slices.Contains(lean(&t), "untuned") {
		t.Notes = append(t.Notes, "The score of the untuned model is not in the data, so that gains are not known.")
	}
	labels(&t, parts)
	return &t
}

// equal is what cells had learned when each had spent as much as the others.
func equal(parts []*part) *reports.Table {
	t := reports.Table{Name: "training-equal", Title: "At equal bytes, joules and time",
		Caption: "Held-out questions right when so much had been spent: the largest budget that every seed of every valid cell of the part reached, on the line between the scores before and after; while the first round lasts, the untuned model's. Gain: percentage points above the untuned model. – where a cell had not been scored yet. " + spreads,
		Columns: reports.Columns([]string{"cell"}, "bytes each", "right at these bytes", "gain, bytes", "joules each", "right at these joules", "gain, joules", "time each", "right at this time", "gain, time")}
	fill(&t, parts, func(p *part, c *cell) []reports.Value {
		row := []reports.Value{reports.Word(c.name)}
		for by, print := range []func(reports.Stat) reports.Value{reports.Bytes, reports.Energy, reports.Time} {
			budget := p.budgets[by]
			row = append(row, print(reports.Bare(budget)), over(c.at(cost(by), budget), reports.Percent), over(c.gainAt(cost(by), budget), points))
		}
		return row
	})
	lean(&t)
	if len(t.Columns) == 1 {
		return nil
	}
	labels(&t, parts)
	return &t
}

// rounds are what one round takes.
func rounds(parts []*part) *reports.Table {
	t := reports.Table{Name: "training-rounds", Title: "What a round takes",
		Caption: "Up and down: bytes of all clients together. Trained: share of the parameters that change. Idle: of the clients' time in rounds, waiting for others. Bubbles: of the time of devices in a row. Lost: updates that came too late, or never; refused: that the server did not take. Aggregation error: distance from the ideal update, over its norm. Epsilon: differential privacy spent at the end. Attack success: how much of a question an attack reads from one gradient; membership: how much better than luck one tells who was trained on. Expected cost, cut, rank: of decisions, the first of which is in seconds that joules and rounds are weighed into. " + spreads,
		Columns: reports.Columns([]string{"cell"}, "failed", "time", "up", "down", "joules", "trained", "idle", "bubbles", "lost", "refused", "aggregation error", "epsilon", "attack success", "membership", "expected cost", "cut", "rank", "deciding")}
	fill(&t, parts, func(_ *part, c *cell) []reports.Value {
		return []reports.Value{reports.Word(c.name), count(c.failed()), over(c.mean(func(r reports.Round) float64 { return r.Took }), reports.Time), over(c.mean(func(r reports.Round) float64 { return r.Up }), reports.Bytes), over(c.mean(func(r reports.Round) float64 { return r.Down }), reports.Bytes),
			over(c.mean(func(r reports.Round) float64 { return r.Joules }), reports.Energy), over(c.Repeats("train_share"), reports.Percent), over(c.Repeats("idle_share"), reports.Percent), over(c.Repeats("bubble_share"), reports.Percent), over(c.Repeats("lost_updates"), reports.Percent), over(c.Repeats("refused_updates"), whole),
			over(c.Repeats("aggregation_error"), reports.Number), over(c.Repeats("epsilon"), reports.Number), over(c.Repeats("attack_success"), reports.Percent), over(c.Repeats("membership_advantage"), reports.Percent), over(c.Repeats("round_cost"), reports.Time), over(c.Repeats("cut_mean"), reports.Number), over(c.Repeats("rank_mean"), reports.Number), over(c.Repeats("decision_time"), reports.Time)}
	})
	note(&t, lean(&t))
	labels(&t, parts)
	return &t
}

// mean is the mean over rounds of something, for each seed.
func (c *cell) mean(of func(reports.Round) float64) (out []float64) {
	for _, rounds := range c.Rounds {
		sum := 0.0
		for _, r := range rounds {
			sum += of(r) / float64(len(rounds))
		}
		out = append(out, sum)
	}
	return out
}

// failed counts rounds that did not end well.
func (c *cell) failed() (n int) {
	for _, rounds := range c.Rounds {
		for _, r := range rounds {
			if !r.OK {
				n++
			}
		}
	}
	return n
}

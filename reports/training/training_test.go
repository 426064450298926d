package training

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/browse"
	"meibench/internal/golden"
	"meibench/internal/units"
	"meibench/reports"
)

// round is what a synthetic round takes and comes to.
type round struct {
	took   time.Duration
	bytes  int64   // up, and as many down
	joules float64 // NaN: not known
	right  float64 // NaN: not scored
}

// steady are rounds of 1 s, so many bytes each way and 2 J, with scores.
func steady(bytes int64, right ...float64) (out []round) {
	for _, r := range right {
		out = append(out, round{time.Second, bytes, 2, r})
	}
	return out
}

// method is a cell to add: rounds for each seed, and what its run tells.
type method struct {
	name   string
	mode   string
	seeds  [][]round
	values []map[string]float64 // by seed
}

func add(t testing.TB, d *reports.Data, m method) {
	index := len(d.Groups)
	for k, rounds := range m.seeds {
		c := record.Cell{Index: index, Suite: "s", Name: m.name, Repeat: k, Seed: uint64(k), App: "healthcare", Pipeline: "federate", Mode: m.mode, Site: "ward", Model: "mei-nano", Valid: true,
			Horizon: 600 * time.Second, E2ELimit: 60 * time.Second, Params: map[string]any{"optimizer": "adamw", "target": 0.5}}
		require.NoError(t, d.Add(0, c, func(yield func(*record.Request, error) bool) {
			at := time.Duration(0)
			for i, step := range rounds {
				var r record.Request
				r.Reset(i, at)
				r.Released, r.Sent = at, at
				r.Spent(record.Transfer, "up", at, at+step.took)
				r.UpBytes, r.DownBytes, r.Quality = units.Bytes(step.bytes), units.Bytes(step.bytes), step.right
				r.Count(record.Participants, 4)
				if !math.IsNaN(step.right) {
					r.Count(record.HeldLossMicro, int64(1e6*(1-step.right)))
				}
				if r.Spend(record.DevicePart, units.Joules(step.joules), uint8(hardware.Modelled)); math.IsNaN(step.joules) {
					r.Energy[record.DevicePart].Unknown = true
				}
				at += step.took
				r.Finish(at, nil)
				if !yield(&r, nil) {
					return
				}
			}
		}))
		var values []record.Value
		if k < len(m.values) {
			for _, name := range []string{"score_base", "rounds", "target_bytes", "train_share", "epsilon"} {
				if v, ok := m.values[k][name]; ok {
					metric, known := record.Lookup(name)
					require.True(t, known, name)
					values = append(values, record.Value{Metric: metric, V: v})
				}
			}
		}
		g := d.Groups[index]
		g.Values = append(g.Values, values)
	}
}

func data() *reports.Data {
	d := reports.NewData()
	d.AddRun("", "", results.Manifest{})
	return d
}

// demo has a part of two rules by three seeds, whose budgets follow by hand, a sweep over ranks, and a part of cells that nobody scored.
//
//	fedavg  2 kB a round and seed, scores 20, 40, 60 % and one or two points more: 6 kB, 6 J, 3 s
//	ffa     1 kB a round, scores 20, 30, 40 %: 3 kB, 6 J, 3 s
//
// At 3 kB fedavg is half way from its first score to its second: 30 %.
func demo(t testing.TB) *reports.Data {
	d := data()
	base := map[string]float64{"score_base": 0.1, "train_share": 0.05}
	reached := map[string]float64{"score_base": 0.1, "train_share": 0.05, "rounds": 3, "target_bytes": 6000}
	add(t, d, method{"part=rules/pipeline=federate/rule=fedavg", "modelled", [][]round{steady(1000, 0.20, 0.40, 0.60), steady(1000, 0.21, 0.41, 0.61), steady(1000, 0.22, 0.42, 0.62)}, []map[string]float64{reached, reached, reached}})
	add(t, d, method{"part=rules/pipeline=federate/rule=ffa", "modelled", [][]round{steady(500, 0.20, 0.30, 0.40), steady(500, 0.20, 0.30, 0.40), steady(500, 0.20, 0.30, 0.40)}, []map[string]float64{base, base, base}})
	nan := math.NaN()
	for i, rank := range []int{2, 8, 32} {
		v := 0.2 + 0.1*float64(i)
		add(t, d, method{fmt.Sprintf("part=ranks/rank=%d", rank), "modelled", [][]round{steady(int64(100*rank), nan, v), steady(int64(100*rank), nan, v+0.02)}, nil})
	}
	add(t, d, method{"part=shapes/rank=2", "modelled", [][]round{{{time.Second, 10, nan, nan}, {time.Second, 10, 1, nan}}}, nil})
	return d
}

// The golden text has the sentences and tables of the demo; a reader checks it by the numbers above.
func TestPagesShowWhatWasLearned(t *testing.T) {
	d := demo(t)
	out := Sections(d)
	require.Len(t, out, 1)
	var names []string
	for _, f := range out[0].Figures {
		names = append(names, f.Name)
		svg := string(f.Picture.SVG())
		require.NotContains(t, svg, "NaN", f.Name)
		require.Greater(t, len(svg), 3000, f.Name)
		require.Contains(t, f.Title, "modelled")
		require.Contains(t, f.Caption, "seconds and joules are modelled")
	}
	require.Equal(t, []string{"training-curves1", "training-spent2", "training-curves3", "training-sweep4"}, names, "cells without scores are not drawn")
	r := reports.Build(d, out...)
	var page, text bytes.Buffer
	require.NoError(t, r.Markdown(&page))
	golden.Check(t, "testdata/demo.md", page.Bytes())
	require.NoError(t, r.Text(&text, 120))
	for line := range strings.Lines(text.String()) {
		require.LessOrEqual(t, len([]rune(line)), 121, line)
	}
	for _, word := range []string{"goodput", "within", "TTFT p50 s", "met the limits", "Least energy per request"} {
		require.NotContains(t, strings.Split(page.String(), "## Definitions")[0]+text.String(), word, "rounds are not answers")
	}
	require.Empty(t, Sections(data()))
}

// What had been spent never falls along a line, and lines begin at the untuned model.
func TestCoursesNeverFall(t *testing.T) {
	for _, c := range newPart(demo(t).Groups[:5]).cells {
		for by := range numCosts {
			before := -1.0
			for _, s := range c.steps() {
				require.GreaterOrEqual(t, s.spent[by], before, c.name)
				before = s.spent[by]
			}
		}
	}
	first := newPart(demo(t).Groups[:2]).cells[0].steps()
	require.Len(t, first, 4)
	require.Equal(t, step{right: []float64{0.1, 0.1, 0.1}}, first[0])
	require.Equal(t, [numCosts]float64{2000, 2, 1}, first[1].spent)
}

// Two rounds of 4 B and 6 B, 40 and 60 % right, the base 20 %: at 2 B the first round is not over, so that there is nothing but the base; at 4 B
// 40 %; at 7 B half way to 60 %, 50 %; beyond 10 B nobody knows. Without a base nothing is known before the first score. Where the second
// round of 6 B is scored first, at 60 %, 5 B are half way there from the base: 40 %.
func TestEqualBudgets(t *testing.T) {
	c := course{right: []float64{0.4, 0.6}, base: 0.2}
	c.spent[bytesCost] = []float64{4, 10}
	bare := c
	bare.base = math.NaN()
	late := course{right: []float64{math.NaN(), 0.6}, base: 0.2}
	late.spent[bytesCost] = []float64{4, 10}
	gap := course{right: []float64{0.4, math.NaN(), 0.8}, base: math.NaN()}
	gap.spent[bytesCost] = []float64{4, 6, 8}
	for _, tc := range []struct {
		name   string
		course course
		budget float64
		want   float64
	}{
		{"nothing spent", c, 0, 0.2},
		{"within the first round", c, 2, 0.2},
		{"a later score is the first", late, 5, 0.4},
		{"at the first score", c, 4, 0.4},
		{"between two", c, 7, 0.5},
		{"at the last", c, 10, 0.6},
		{"beyond the last", c, 10.001, math.NaN()},
		{"no base", bare, 2, math.NaN()},
		{"no base, at the first score", bare, 4, 0.4},
		{"over a round without a score", gap, 6, 0.6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.course.at(bytesCost, tc.budget)
			if math.IsNaN(tc.want) {
				require.True(t, math.IsNaN(got), got)
				return
			}
			require.InDelta(t, tc.want, got, 1e-12)
		})
	}
	p := newPart(demo(t).Groups[:2])
	require.Equal(t, [numCosts]float64{3000, 6, 3}, p.budgets, "ffa spends least bytes, both as many joules and seconds")
	require.InDelta(t, 0.30, p.cells[0].at(bytesCost, 3000)[0], 1e-12)
	require.InDelta(t, 0.20, p.cells[0].gainAt(bytesCost, 3000)[0], 1e-12)
	require.InDelta(t, 0.40, p.cells[1].at(bytesCost, 3000)[0], 1e-12)
}

// A round that was not scored is no round without right answers, and joules of which some are not known have no sum.
func TestMissingIsNotZero(t *testing.T) {
	nan := math.NaN()
	d := data()
	add(t, d, method{"part=a/rule=x", "modelled", [][]round{{{time.Second, 1, 2, nan}, {time.Second, 1, nan, 0.5}, {time.Second, 1, 2, nan}}}, nil})
	c := newPart(d.Groups).cells[0]
	steps := c.steps()
	require.Len(t, steps, 1, "the second round alone was scored")
	require.Equal(t, 2, steps[0].round)
	require.Equal(t, []float64{0.5}, steps[0].right)
	require.True(t, math.IsNaN(steps[0].spent[joulesCost]))
	require.Equal(t, []float64{0.5}, c.final())
	require.Empty(t, c.spent(joulesCost))
	require.Empty(t, c.base())
	require.Contains(t, newPart(d.Groups).curves().Caption, "1 cell has no joules that are known")
	require.Contains(t, newPart(d.Groups).curves().Caption, "The score of the untuned model is not in the data")
}

// Measured and modelled cells are never in one picture, and sentences count seeds before they claim an order.
func TestModesAndSeeds(t *testing.T) {
	d := data()
	six := func(right ...float64) (out [][]round) {
		for i := range 6 {
			out = append(out, steady(10, right[0]+0.01*float64(i), right[1]+0.01*float64(i)))
		}
		return out
	}
	add(t, d, method{"part=a/rule=x/mode=modelled", "modelled", six(0.2, 0.8), nil})
	add(t, d, method{"part=a/rule=y/mode=modelled", "modelled", six(0.2, 0.3), nil})
	add(t, d, method{"part=a/rule=x/mode=measured", "measured", six(0.2, 0.8)[:1], nil})
	add(t, d, method{"part=a/rule=y/mode=measured", "measured", six(0.2, 0.3)[:1], nil})
	s := Sections(d)[0]
	require.Len(t, s.Lead, 2)
	require.Contains(t, s.Lead[0], "a, healthcare, modelled: after 2 rounds, x answers most held-out questions right: 82 % (95 % interval [80, 85]), y fewest: 32 %")
	require.Contains(t, s.Lead[0], "Seed by seed, x is ahead of y: +50.0 points. What is learned is computed for real")
	require.Contains(t, s.Lead[1], "1 seed is too few for an interval, for which 6 are needed: the order is that of these seeds.")
	require.Contains(t, s.Lead[1], "seconds are measured")
	for _, f := range s.Figures {
		require.NotEqual(t, strings.Contains(f.Title, "modelled"), strings.Contains(f.Title, "measured"), f.Title)
	}
	require.Equal(t, "yes", s.Short.Groups[0].Rows[0].Values[10].Text)
	require.Equal(t, "no: 1 seed, 6 are needed", s.Short.Groups[0].Rows[1].Values[10].Text)
}

// Zero clients of a round stand for all of them: no place on an axis.
func TestAxesWithoutAPlaceForZero(t *testing.T) {
	d := data()
	for _, v := range []string{"0", "0.5", "1"} {
		add(t, d, method{"part=late/pipeline=federate/deadline_s=" + v, "modelled", [][]round{steady(10, 0.2, 0.3)}, nil})
	}
	p := newPart(d.Groups)
	require.Equal(t, []string{"deadline_s"}, p.axes)
	require.True(t, math.IsNaN(p.cells[0].value("deadline_s")))
	f := p.against("deadline_s")
	require.Contains(t, f.Caption, "deadline_s 0 (everybody is waited for) has no place on the axis")
	require.Nil(t, p.named(), "nothing differs but a number")
}

// Cells that serve keep their tables beside cells that train, and hear nothing of rounds.
func TestServingStays(t *testing.T) {
	d := demo(t)
	require.Empty(t, d.Serving().Groups)
	c := record.Cell{Index: 99, Suite: "s", Name: "part=serving/pipeline=local", App: "healthcare", Pipeline: "local", Mode: "modelled", Valid: true, Horizon: time.Second}
	require.NoError(t, d.Add(0, c, func(yield func(*record.Request, error) bool) {
		var r record.Request
		r.Reset(0, 0)
		r.Released, r.Sent = 0, 0
		r.Spent(record.Compute, "phone", 0, time.Second)
		r.Finish(time.Second, nil)
		yield(&r, nil)
	}))
	require.Len(t, d.Serving().Groups, 1)
	require.Len(t, d.Groups, 7)
	var page bytes.Buffer
	require.NoError(t, reports.Build(d, Sections(d)...).Markdown(&page))
	require.Contains(t, page.String(), "Cells of the other parts")
}

// Programs get what was learned of cells that train, and what was served of the others: a table holds both, with empty fields.
func TestSummariesForPrograms(t *testing.T) {
	r := reports.Build(demo(t))
	var text bytes.Buffer
	require.NoError(t, r.CSV(&text))
	rows, err := csv.NewReader(&text).ReadAll()
	require.NoError(t, err)
	at := slices.Index(rows[0], "score_base")
	require.Positive(t, at)
	require.Equal(t, "0.1", rows[1][at])
	require.Equal(t, "3", rows[1][slices.Index(rows[0], "rounds")])
	require.NotContains(t, rows[0], "ttft_p50")
	var out struct {
		Cells []struct {
			Metrics map[string]struct{ Value *float64 }
		}
	}
	require.NoError(t, r.JSON(&text))
	require.NoError(t, json.Unmarshal(text.Bytes(), &out))
	require.Equal(t, 6000.0, *out.Cells[0].Metrics["target_bytes"].Value)
	require.Nil(t, out.Cells[1].Metrics["target_bytes"].Value, "it did not come there")
	require.NotContains(t, out.Cells[0].Metrics, "goodput")
}

// A reader sorts by what was learned and follows a row to its cell; the page complains of nothing and asks nothing of a network.
func TestPageInABrowser(t *testing.T) {
	if browse.Find() == "" {
		t.Skip("no browser: install chromium, or name one in " + browse.Variable)
	}
	d := demo(t)
	paths, err := reports.Build(d, Sections(d)...).Write(t.TempDir())
	require.NoError(t, err)
	p := browse.Open(t, browse.File(t, paths.HTML))
	require.Equal(t, "Training", p.Text("#section-training h2"))
	figures := 0
	p.Eval("document.querySelectorAll('#section-training figure svg').length", &figures)
	require.Equal(t, 4, figures)
	p.Click("#rows-training thead th:nth-child(5) button")
	p.Click("#rows-training tbody tr:not(.group) th a")
	p.Wait("document.querySelector('details.cell:target')?.open")
	require.Empty(t, p.Console())
	require.Empty(t, p.Requests())
}

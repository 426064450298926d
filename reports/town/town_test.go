package town

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/reports"
)

// drive adds a cell of 300 requests of 6 users at 3 nodes: every fifth user changes
// cells once, which holds it up by a given time.
func drive(t *testing.T, d *reports.Data, name string, places bool, stall time.Duration) {
	c := record.Cell{Index: len(d.Groups), Suite: "s", Name: name, App: "assistant", Pipeline: "follow", Mode: "modelled", Site: "town", Valid: true, Horizon: 600 * time.Second, E2ELimit: 2 * time.Second}
	require.NoError(t, d.Add(0, c, func(yield func(*record.Request, error) bool) {
		for i := range 300 {
			var r record.Request
			at := time.Duration(i) * 2 * time.Second
			r.Reset(i, at)
			r.User, r.Released, r.Sent, r.AskedTokens = i%6, at, at, 2
			if places {
				r.Count(record.Place, int64(1+i%3))
			}
			took := time.Second
			if places && i%5 == 0 {
				r.Count(record.Handovers, 1)
				r.Count(record.BackhaulBytes, 1000)
				if stall > 0 {
					r.Count(record.Stalls, 1)
					r.Count(record.StallTime, int64(stall))
				}
				took += stall
			}
			r.Spent(record.Compute, "n", at, at+took)
			r.Token(at+time.Second/2, 1)
			r.Token(at+took, 1)
			r.Spend(record.EdgePart, 3, 1)
			r.Finish(at+took, nil)
			if err := r.Check(); err != nil || !yield(&r, err) {
				return
			}
		}
	}))
}

func TestTown(t *testing.T) {
	d := reports.NewData()
	d.AddRun("", "", results.Manifest{})
	drive(t, d, "follow=stay", true, 1500*time.Millisecond)
	drive(t, d, "follow=move", true, 0)
	drive(t, d, "elsewhere", false, 0)
	out := Sections(d)
	require.Len(t, out, 1)
	s := out[0]
	require.Contains(t, s.Lead[0], "least with follow follow=move")
	require.Contains(t, s.Lead[0], "follow=stay (assistant, town, modelled): 300 s")
	require.Len(t, s.Figures, 2)
	var text []string
	for _, table := range s.Tables {
		for _, g := range table.Groups {
			for _, row := range g.Rows {
				line := ""
				for _, v := range row.Values {
					line += v.Text + " | "
				}
				text = append(text, line)
			}
		}
	}
	require.Len(t, text, 4, "the cell without places has no part in it")
	require.Contains(t, text[0], "follow follow=stay | 300 | 20")
	require.Contains(t, text[0], "| 200 | 200 | 1.50 s | 1.50 s | 1.50 s | 200 kB |")
	require.Contains(t, text[1], "follow follow=move | 300 | 20")
	// 10 of the 50 requests of each user are held up: all users fare alike
	require.Contains(t, text[2], "| 6 | 1.000 | 1.000 |")
	r := reports.Build(d, out...)
	var page bytes.Buffer
	require.NoError(t, r.Markdown(&page))
	require.Contains(t, page.String(), "On the move")
	for _, f := range s.Figures {
		svg := f.Picture.SVG()
		require.NotContains(t, string(svg), "NaN", f.Name)
		require.Greater(t, len(svg), 3000, f.Name)
	}
	require.Empty(t, Sections(reports.NewData()))
}

func TestPlacesAddUp(t *testing.T) {
	c := record.Cell{Horizon: 100 * time.Second, E2ELimit: time.Second, Facts: record.Facts{Planned: 250}}
	p := record.NewPlaces(&c)
	require.Equal(t, 11*time.Second, p.Width)
	for i := range 100 {
		var r record.Request
		at := time.Duration(i) * time.Second
		r.Reset(i, at)
		r.User = i % 4
		r.Count(record.Place, int64(1+i/50))
		took := 500 * time.Millisecond
		if i%4 == 3 {
			took = 1500 * time.Millisecond
		}
		r.Token(at+took, 1)
		r.Spend(record.CloudPart, 2, 1)
		r.Finish(at+took, nil)
		p.Add(&r)
	}
	sum, joules := record.Tally{}, 0.0
	for i := range p.Bins {
		sum.N += p.Bins[i].N
		sum.Good += p.Bins[i].Good
		joules += p.Bins[i].Energy[record.CloudPart]
	}
	require.Equal(t, record.Tally{N: 100, Good: 75}, sum)
	require.InDelta(t, 200, joules, 1e-9)
	require.InEpsilon(t, 1.5, p.Bins[0].TTFT(0.95), 1e-3)
	require.Equal(t, []int{50, 50}, []int{p.ByNode[0].N, p.ByNode[1].N})
	mean, within := p.UserTimes()
	require.Equal(t, "[0.5 0.5 0.5 1.5] [0 1 1 1]", fmt.Sprint(mean, within))
	require.InEpsilon(t, 0.75, record.Fairness(within), 1e-12)
	require.InEpsilon(t, 9/(4*3.0), record.Fairness(mean), 1e-12)
	require.True(t, math.IsNaN(record.Fairness(nil)))
}

// Of many cells those are drawn that were held up least and most; the tables have all.
func TestTownDrawsTheEnds(t *testing.T) {
	d := reports.NewData()
	d.AddRun("", "", results.Manifest{})
	for i := range 10 {
		drive(t, d, fmt.Sprintf("room=%d", i), true, time.Duration(i*7%10)*100*time.Millisecond)
	}
	s := Sections(d)[0]
	require.Len(t, s.Figures, 2)
	require.Contains(t, s.Figures[0].Caption, "Of 10 cells those are drawn")
	var drawn []string
	for _, g := range ends(d.Groups) {
		drawn = append(drawn, g.Cell.Name)
	}
	require.Equal(t, []string{"room=0", "room=1", "room=3", "room=4", "room=6", "room=7"}, drawn, "stalls of 0, 700, 100, 800, 200 and 900 ms")
	rows := 0
	for _, g := range s.Tables[0].Groups {
		rows += len(g.Rows)
	}
	require.Equal(t, 10, rows)
}

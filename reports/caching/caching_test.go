package caching

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/reports"
)

// cell adds a cell of some repeats of 40 requests, of which a share find their model, and whose models take a time to come.
func cell(t *testing.T, d *reports.Data, name string, hits []float64, came time.Duration) {
	for k, share := range hits {
		c := record.Cell{Index: len(d.Groups), Suite: "s", Name: name, Repeat: k, App: "assistant", Pipeline: "deliver", Mode: "modelled", Site: "town", Valid: true,
			Horizon: 600 * time.Second, E2ELimit: 20 * time.Second}
		if k > 0 {
			c.Index--
		}
		require.NoError(t, d.Add(0, c, func(yield func(*record.Request, error) bool) {
			for i := range 40 {
				var r record.Request
				at := time.Duration(i) * 10 * time.Second
				r.Reset(i, at)
				r.Released, r.Sent, r.AskedTokens = at, at, 1
				if float64(i) < 40*share {
					r.Count(record.CacheHits, 1)
				} else {
					r.Count(record.CacheMisses, 1)
				}
				if came > 0 {
					r.Count(record.DeliveryTime, int64(came))
					r.Count(record.UsableTime, int64(came/2))
				}
				r.Quality = 0.5
				r.Count(record.BackhaulBytes, 3e6)
				r.Spent(record.Transfer, "down", at, at+came)
				r.Token(at+came, 1)
				r.Spend(record.RadioPart, 2, 1)
				r.Finish(at+came, nil)
				if err := r.Check(); err != nil || !yield(&r, err) {
					return
				}
			}
		}))
		m, ok := record.Lookup("hit_ratio")
		require.True(t, ok)
		g := d.Groups[len(d.Groups)-1]
		g.Values = append(g.Values, []record.Value{{Metric: m, V: share}})
	}
}

func texts(tables []reports.Table) (out []string) {
	for _, table := range tables {
		for _, g := range table.Groups {
			for _, row := range g.Rows {
				line := ""
				for _, v := range row.Values {
					line += v.Text + " | "
				}
				out = append(out, line)
			}
		}
	}
	return out
}

func TestPagesShowWhatCachesFound(t *testing.T) {
	d := reports.NewData()
	d.AddRun("", "", results.Manifest{})
	for i, policy := range []string{"lru", "gen"} {
		for j, room := range []int{200, 100} {
			hit := 0.2 + 0.2*float64(i) + 0.1*float64(1-j)
			cell(t, d, fmt.Sprintf("part=room/policy=%s/room_mb=%d", policy, room), []float64{hit, hit + 0.05, hit - 0.05, hit, hit, hit}, time.Second)
		}
	}
	cell(t, d, "part=cast/cast=unicast", []float64{0.5}, 4*time.Second)
	cell(t, d, "part=cast/cast=multicast", []float64{0.5}, 2*time.Second)
	cell(t, d, "part=begin/progress=whole", []float64{0.5}, 3*time.Second)
	cell(t, d, "part=begin/progress=layers", []float64{0.5}, time.Second)
	out := Sections(d)
	require.Len(t, out, 1)
	s := out[0]
	require.Equal(t, []string{
		"room, assistant, deliver, modelled: at room_mb 100, most is found with gen (40 % of requests), least with lru (20 %).",
		"cast, assistant, deliver, modelled: models come quickest with multicast (p95 2 s), slowest with unicast (4 s).",
		"begin, assistant, deliver, modelled: the first token comes soonest with layers (p50 1 s, quality 0.50), latest with whole (3 s, quality 0.50).",
	}, s.Lead)
	var names []string
	for _, f := range s.Figures {
		names = append(names, f.Name)
		svg := string(f.Picture.SVG())
		require.NotContains(t, svg, "NaN", f.Name)
		require.Greater(t, len(svg), 3000, f.Name)
	}
	require.Equal(t, []string{"caching-ratios1", "caching-times2", "caching-progress3"}, names)
	rows := texts(s.Tables)
	require.Len(t, rows, 16)
	require.True(t, strings.HasPrefix(rows[0], "lru, room_mb 200 | 240 | 30 % |"), rows[0])
	require.Equal(t, "[25, 35]", s.Tables[0].Groups[0].Rows[0].Values[2].Detail)
	require.Contains(t, rows[8], "| 1.00 s")
	require.Contains(t, rows[8], "| 3.00 MB |")
	r := reports.Build(d, out...)
	var page bytes.Buffer
	require.NoError(t, r.Markdown(&page))
	require.Contains(t, page.String(), "Caching and delivery")
	require.Empty(t, Sections(reports.NewData()))
}

// The axis of a picture is the one that is a number and varies, storage before others; names leave it out.
func TestAxes(t *testing.T) {
	group := func(name string) *reports.Group {
		return &reports.Group{Cell: record.Cell{Name: name, Pipeline: "deliver"}}
	}
	set := []*reports.Group{group("part=a/zipf=0.8/room_mb=100/policy=lru"), group("part=a/zipf=1.2/room_mb=200/policy=lru")}
	require.Equal(t, "room_mb", scale(set))
	require.Equal(t, "zipf 0.8, lru", name(set[0], "room_mb"))
	require.Equal(t, "zipf", scale([]*reports.Group{group("zipf=1/room_mb=1"), group("zipf=2/room_mb=1")}))
	require.Empty(t, scale([]*reports.Group{group("policy=lru"), group("policy=fifo")}))
	require.Equal(t, "deliver", name(group("app=assistant"), ""))
}

// Nodes that remember get pictures of what was recalled and reused, a table of their own, and an answer.
func TestPagesShowWhatWasReused(t *testing.T) {
	d := reports.NewData()
	d.AddRun("", "", results.Manifest{})
	for _, part := range []string{"answers", "prefix"} {
		for i, way := range []string{"grams", "model"} {
			for j, v := range []string{"0.6", "0.9"} {
				axis := map[string]string{"answers": "threshold", "prefix": "prefix_mb"}[part]
				cell(t, d, fmt.Sprintf("part=%s/way=%s/%s=%s", part, way, axis, v), []float64{1, 1, 1, 1, 1, 1}, time.Second)
				g := d.Groups[len(d.Groups)-1]
				g.Cell.Pipeline = "reuse"
				values := map[string]float64{"prefix_reuse": 0.2 * float64(1+i+j), "ttft_p50": 2 - 0.5*float64(i) - 0.25*float64(j)}
				if part == "answers" {
					values = map[string]float64{"recalled_share": 0.8 - 0.3*float64(j) + 0.1*float64(i), "recalled_wrong_share": 0.2 * float64(i) * float64(1-j)}
				}
				for k := range g.Values {
					for name, value := range values {
						m, ok := record.Lookup(name)
						require.True(t, ok)
						g.Values[k] = append(g.Values[k], record.Value{Metric: m, V: value})
					}
				}
			}
		}
	}
	s := Sections(d)[0]
	require.Len(t, s.Figures, 2)
	require.Equal(t, []string{
		"answers, assistant, reuse, modelled: most questions were answered from others without a wrong one with grams, threshold 0.6 (80 %).",
		"answers, assistant, reuse, modelled: with model, threshold 0.6, 20 % of what was answered from others was wrong.",
		"prefix, assistant, reuse, modelled: the first token comes soonest with model, prefix_mb 0.9 (p50 1.25 s, 60 % of prompt tokens reused), latest with grams, prefix_mb 0.6 (2 s, 20 %)."}, s.Lead)
	require.Len(t, s.Tables, 1)
	rows := texts(s.Tables)
	require.Len(t, rows, 8)
	require.Contains(t, rows[0], "grams, threshold 0.6 | 240 | 100 % | – | – | 80.0 % | 0 % | ")
}

// Nodes that bring models to memory get a picture against the memory that they have, a table, and an answer at the least of it.
func TestPagesShowNodesWithManyModels(t *testing.T) {
	d := reports.NewData()
	d.AddRun("", "", results.Manifest{})
	for _, axis := range []string{"memory_mb", "rate"} {
		for i, evict := range []string{"lru", "lfu"} {
			for j, v := range []int{100, 200} {
				cell(t, d, fmt.Sprintf("part=%s/evict=%s/%s=%d", axis, evict, axis, v), []float64{1, 1, 1, 1, 1, 1}, time.Second)
				g := d.Groups[len(d.Groups)-1]
				for k := range g.Values {
					for name, value := range map[string]float64{"memory_hit_ratio": 0.1 + 0.2*float64(i) + 0.4*float64(j), "system_cost": 5 - float64(i) - 2*float64(j), "switches": 7} {
						m, ok := record.Lookup(name)
						require.True(t, ok)
						g.Values[k] = append(g.Values[k], record.Value{Metric: m, V: value})
					}
				}
			}
		}
	}
	s := Sections(d)[0]
	require.Len(t, s.Figures, 2)
	require.Contains(t, s.Figures[0].Title, "Many models in little memory")
	require.Equal(t, []string{
		"memory_mb, assistant, deliver, modelled: at memory mb 100, a request costs least with lfu (4 s, model in memory for 30 %), most with lru (5 s, 10 %).",
		"rate, assistant, deliver, modelled: at rate 200, a request costs least with lfu (2 s, model in memory for 70 %), most with lru (3 s, 50 %)."}, s.Lead)
	require.Len(t, s.Tables, 2, "what was found, and what nodes did; nothing was delivered")
	rows := texts(s.Tables[1:])
	require.Len(t, rows, 8)
	require.Contains(t, rows[0], "lru, memory_mb 100 | 240 | 10.0 % | 7.00 | ")
}

// C10: 138 MB in a second at 1.1 Gbit/s passes; at nine tenths of that speed it does not, and smaller models do.
func TestC10PagesCompareWithBudgets(t *testing.T) {
	d := reports.NewData()
	d.AddRun("", "", results.Manifest{})
	for i, speed := range []float64{1.1e9 / 8, 0.99e9 / 8} {
		cell(t, d, fmt.Sprintf("part=b/cast=%d", i), []float64{1, 1, 1, 1, 1, 1}, time.Second)
		d.Groups[i].Down = 240 * speed
	}
	table, ok := budgets(d.Groups)
	require.True(t, ok)
	rows := texts([]reports.Table{table})
	require.Contains(t, rows[0], "| 240 | 138 MB | 100 % | 1.00 s ✓ | 582 ms ✓ | 465 ms ✓ |")
	require.Contains(t, rows[1], "| 240 | 124 MB | 100 % | 1.12 s ✗ | 646 ms ✓ | 517 ms ✓ |")
	_, ok = budgets(nil)
	require.False(t, ok)
}

package reports

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
)

func figure(t *testing.T, r *Report, name string) Figure {
	t.Helper()
	i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == name })
	require.GreaterOrEqual(t, i, 0, "no figure %s", name)
	return r.Figures[i]
}

// What a figure has no room for is named in its caption.
func TestUndrawnSeriesAreNamed(t *testing.T) {
	f := newField(t, 0)
	for i := range mostSeries + 2 {
		f.add(fmt.Sprintf("way-%d", i), "measured", 0, nil, 10*ms)
	}
	r := Build(f.data)
	for _, name := range []string{"cdf-robot", "timeline-robot"} {
		require.Contains(t, figure(t, r, name).Caption, fmt.Sprintf("Not drawn, see the tables: way-%d, way-%d.", mostSeries, mostSeries+1), name)
		require.NotContains(t, string(figure(t, r, name).Picture.SVG()), fmt.Sprintf("way-%d", mostSeries), name)
	}
	f = newField(t, 0)
	for i := range mostSeries { // modes take turns in the order of groups
		f.add(fmt.Sprintf("way-%d", i), "measured", 0, nil, 10*ms)
		f.add(fmt.Sprintf("way-%d", i), "modelled", 0, nil, 10*ms)
	}
	require.NotContains(t, figure(t, Build(f.data), "cdf-robot").Caption, "Not drawn")
}

// A placement is the same one at every application's site: one name, one colour.
func TestOneColourPerPlacement(t *testing.T) {
	d := NewData()
	d.AddRun("", "", results.Manifest{})
	for i, app := range []string{"ar", "robot"} {
		for _, pipeline := range []string{"local", "split"} {
			c := cell(len(d.Groups), app, pipeline, "modelled")
			c.Site = [...]string{"glasses", "arm"}[i]
			require.NoError(t, d.Add(0, c, seq(request(0, ms, ms))))
		}
	}
	b := newBuilder(newView(d))
	require.Equal(t, []string{"local", "split"}, b.series)
	require.Equal(t, b.colour(b.of["ar"][1]), b.colour(b.of["robot"][1]))
	require.Equal(t, "robot: TTFT ≤ 100 ms; site arm", b.heading("robot"))
}

// Grey means INVALID, in every figure, and nothing else that has data.
func TestInvalidIsGrey(t *testing.T) {
	const grey = "#7F7F7F"
	draw := func(edit func(*record.Cell)) map[string]bool {
		f := newField(t, 0)
		f.add("local", "measured", 1, nil, 10*ms)
		f.add("split", "measured", 1, edit, 20*ms)
		out := map[string]bool{}
		for _, f := range Build(f.data).Figures {
			out[f.Name] = strings.Contains(strings.ToUpper(string(f.Picture.SVG())), grey)
		}
		return out
	}
	valid, invalid := draw(nil), draw(invalidCell)
	require.False(t, valid["cdf-robot"])
	for _, name := range []string{"cdf-robot", "latency-robot", "timeline-robot", "energy"} {
		require.True(t, invalid[name], name)
	}
}

// No pairs, no figure.
func TestAgreementNeedsPairs(t *testing.T) {
	f := newField(t, 0)
	f.add("local", "measured", 0, nil, 10*ms)
	require.Nil(t, newBuilder(newView(f.data)).scatter())
	f.add("local", "modelled", 0, nil, 11*ms)
	f.add("split", "measured", 0, invalidCell, 10*ms)
	f.add("split", "modelled", 0, nil, 30*ms)
	svg := string(newBuilder(newView(f.data)).scatter().Picture.SVG())
	require.Contains(t, svg, "n 1, 1 INVALID")
}

// Runs side by side: what differs is named, the folder only where nothing else
// does.
func TestLabelsOfMergedRuns(t *testing.T) {
	for _, tc := range []struct {
		name   string
		params []map[string]any // of split in each run
		want   []string
	}{
		{"one parameter tells them apart", []map[string]any{{"cut": 1, "k": 4}, {"cut": 2, "k": 4}}, []string{"split cut=1", "split cut=2"}},
		{"nothing does", []map[string]any{{"cut": 1}, {"cut": 1}}, []string{"split first", "split second"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := NewData()
			for i, p := range tc.params {
				run := d.AddRun([]string{"first", "second"}[i], "", results.Manifest{})
				c := cell(0, "robot", "split", "modelled")
				c.Params = p
				require.NoError(t, d.Add(run, c, seq(request(0, ms, ms))))
			}
			require.Equal(t, tc.want, newView(d).series)
		})
	}
}

// Eight placements in two modes: more than there are colours, so the figures draw
// the measured cells only, all eight, and say so; INVALID and missing ones included.
func TestManyPlacements(t *testing.T) {
	d := NewData()
	run := d.AddRun("", "", results.Manifest{})
	for i := range 16 {
		c := cell(i, "robot", string(rune('a'+i/2)), []string{"modelled", "measured"}[i%2])
		require.NoError(t, d.Add(run, c, seq(request(1, time.Duration(i+1)*ms, ms))))
	}
	b := newBuilder(newView(d))
	gs, rest := b.some("robot")
	require.Len(t, gs, 8)
	for _, g := range gs {
		require.Equal(t, "measured", g.Cell.Mode)
	}
	require.Equal(t, " Of so many placements only the measured cells are drawn.", rest)
	formats(t, Build(d))
}

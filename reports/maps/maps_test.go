package maps

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/units"
	"meibench/reports"
)

const ms = time.Millisecond

// toy adds a cell of n requests that each take e2e, or two values in turn.
func toy(t *testing.T, d *reports.Data, name string, valid bool, e2e ...time.Duration) *reports.Group {
	c := record.Cell{Index: len(d.Groups), Suite: "s", Name: name, App: "robot", Mode: "modelled", Site: "hall", Valid: valid, Horizon: 40 * time.Second, E2ELimit: 100 * ms}
	if !valid {
		c.Invalid = []string{"late"}
	}
	for p := range strings.SplitSeq(name, "/") {
		if v, ok := strings.CutPrefix(p, "pipeline="); ok {
			c.Pipeline = v
		}
	}
	require.NoError(t, d.Add(0, c, func(yield func(*record.Request, error) bool) {
		for i := range 40 {
			var r record.Request
			at := time.Duration(i) * time.Second
			r.Reset(i, at)
			r.Released, r.Sent, r.AskedTokens = at, at, 1
			took := e2e[i%len(e2e)]
			r.Spent(record.Compute, "n", at, at+took)
			r.Token(at+took, 1)
			r.Spend(record.DevicePart, units.Joules(took.Seconds()), 1)
			r.Finish(at+took, nil)
			if !yield(&r, nil) {
				return
			}
		}
	}))
	return d.Groups[len(d.Groups)-1]
}

func data() *reports.Data {
	d := reports.NewData()
	d.AddRun("", "", results.Manifest{})
	return d
}

// The rule: limits first, then time; overlapping intervals are said; INVALID never wins.
func TestWinner(t *testing.T) {
	for _, tc := range []struct {
		name  string
		local []time.Duration
		valid bool
		far   []time.Duration
		want  string
		met   bool
		rival int
	}{
		{"quicker", []time.Duration{20 * ms}, true, []time.Duration{50 * ms}, "local", true, 0},
		{"the quicker median misses the limit", []time.Duration{20 * ms, 20 * ms, 300 * ms}, true, []time.Duration{90 * ms}, "far", true, 0},
		{"INVALID never wins", []time.Duration{20 * ms}, false, []time.Duration{90 * ms}, "far", true, 0},
		{"intervals overlap", []time.Duration{20 * ms, 60 * ms}, true, []time.Duration{30 * ms, 50 * ms}, "local", true, 1},
		{"none meets the limit", []time.Duration{200 * ms}, true, []time.Duration{300 * ms}, "local", false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := data()
			toy(t, d, "pipeline=local", tc.valid, tc.local...)
			toy(t, d, "pipeline=far", true, tc.far...)
			c := Winner(d.Groups, d.Verdicts())
			require.Equal(t, tc.want, c.Best.Cell.Pipeline)
			require.Equal(t, tc.met, c.Met)
			require.Len(t, c.Rival, tc.rival)
		})
	}
	require.Nil(t, Winner(nil, nil).Best)
}

func TestHeatMap(t *testing.T) {
	d := data()
	for _, mbps := range []int{1, 100} {
		for _, rtt := range []float64{0.001, 0.1} {
			at := fmt.Sprintf("/mbps=%d/rtt=%g", mbps, rtt)
			toy(t, d, "pipeline=local"+at, true, 60*ms)
			far := 20 * ms
			if mbps == 1 || rtt == 0.1 {
				far = 200 * ms
			}
			toy(t, d, "pipeline=far"+at, mbps == 100, far)
		}
	}
	s := Sections(d)
	require.Equal(t, "links", s[0].Name)
	require.Equal(t, []string{"Links, robot, hall, modelled: of 4 links, local wins on 3, far wins on 1."}, s[0].Lead)
	rows := s[0].Tables[0].Groups[0].Rows
	require.Len(t, rows, 4)
	require.Equal(t, "far", rows[1].Values[2].Text, "at 100 Mbit/s and 1 ms")
	require.NotNil(t, rows[1].Group)
	svg := string(s[0].Figures[0].Picture.SVG())
	require.Equal(t, 3, strings.Count(svg, ">local<"), "every field is labelled")
	require.Equal(t, 1, strings.Count(svg, ">far<"))
}

// The knee is the last rate before the first miss, whatever comes after it.
func TestKnee(t *testing.T) {
	d := data()
	for i, took := range []time.Duration{20 * ms, 30 * ms, 300 * ms, 20 * ms} {
		toy(t, d, fmt.Sprintf("pipeline=local/rate=%d", 1<<i), true, took)
		toy(t, d, fmt.Sprintf("pipeline=far/rate=%d", 1<<i), i != 0, took)
		toy(t, d, fmt.Sprintf("pipeline=split/rate=%d", 1<<i), true, 20*ms)
	}
	s := Sections(d)
	require.Equal(t, "load", s[0].Name)
	require.Equal(t, []string{"Load, robot, hall, modelled: the knee is, for local at 2 requests/s; far below 1 requests/s, the lowest rate tried; split at least 8 requests/s, the highest rate tried."}, s[0].Lead)
	knees := 0
	for _, r := range s[0].Tables[0].Groups[0].Rows {
		if r.Values[7].Text == "knee" {
			knees++
		}
	}
	require.Equal(t, 2, knees)
}

func TestFrontier(t *testing.T) {
	nan := math.NaN()
	for _, tc := range []struct {
		p, q Point
		want bool
	}{
		{Point{1, 1, 1}, Point{1, 1, 1}, false},
		{Point{1, 1, 1}, Point{2, 1, 1}, true},
		{Point{1, 2, 1}, Point{2, 1, 1}, false},
		{Point{1, 1, 0.5}, Point{2, 2, 0.6}, false},
		{Point{1, 1, nan}, Point{2, 2, 0.6}, true},
	} {
		require.Equal(t, tc.want, tc.p.Beats(tc.q), "%v %v", tc.p, tc.q)
	}
	d := data()
	toy(t, d, "pipeline=local", true, 20*ms)
	toy(t, d, "pipeline=far", true, 50*ms)
	s := Sections(d)
	require.Len(t, s, 1)
	require.Equal(t, []string{"Frontier, robot, hall, modelled: local is not beaten in latency, energy and quality at once."}, s[0].Lead)
	require.Empty(t, Sections(data()))
}

// Names of placements, sites and models come from strangers.
func TestHostileNames(t *testing.T) {
	const hostile = `"><script>alert(1)</script></td>`
	d := data()
	for i := range 3 {
		for k := range 3 {
			toy(t, d, fmt.Sprintf("pipeline=%s/mbps=%d/rtt=%d", hostile, i+1, k+1), true, 20*ms)
			toy(t, d, fmt.Sprintf("pipeline=local/mbps=%d/rtt=%d/x=%s", i+1, k+1, hostile), true, 20*ms)
			toy(t, d, fmt.Sprintf("part=%s/pipeline=local/rate=%d", hostile, i+1), true, 20*ms)
		}
	}
	var page, markdown bytes.Buffer
	s := Sections(d)
	require.GreaterOrEqual(t, len(s), 2)
	r := reports.Build(d, s...)
	require.NoError(t, r.HTML(&page))
	require.NoError(t, r.Markdown(&markdown))
	require.Equal(t, 1, strings.Count(page.String(), "<script"), "only our own")
	require.NotContains(t, markdown.String(), "<script")
	for _, s := range s {
		for _, f := range s.Figures {
			require.Regexp(t, "^[a-z0-9-]+$", f.Name)
			require.NotContains(t, string(f.Picture.SVG()), "<script")
		}
	}
}

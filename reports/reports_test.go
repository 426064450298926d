package reports

import (
	"bytes"
	"iter"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/golden"
)

// request makes a request that is intended at id seconds, gets its first token
// after ttft and three more, each tpot later.
func request(id int, ttft, tpot time.Duration) *record.Request {
	var r record.Request
	at := time.Duration(id) * time.Second
	r.Reset(id, at)
	r.AskedTokens, r.Released, r.Sent = 4, at, at
	r.Spent(record.Compute, "phone", at, at+ttft)
	r.Token(at+ttft, 1)
	for i := range 3 {
		end := at + ttft + time.Duration(i+1)*tpot
		r.Spent(record.Compute, "phone", end-tpot, end)
		r.Token(end, 1)
	}
	r.UpBytes, r.DownBytes = 1500, 200
	r.Finish(at+ttft+3*tpot, nil)
	return &r
}

func seq(rs ...*record.Request) iter.Seq2[*record.Request, error] {
	return func(yield func(*record.Request, error) bool) {
		for _, r := range rs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func cell(index int, app, pipeline, mode string) record.Cell {
	return record.Cell{Index: index, Suite: "small", Name: "app=" + app + "/pipeline=" + pipeline + "/mode=" + mode, App: app, Pipeline: pipeline,
		Site: "desk", Model: "nano", Mode: mode, Valid: true, Horizon: 10 * time.Second, TTFTLimit: 100 * time.Millisecond}
}

const ms = time.Millisecond

// small is a run of six cells whose figures can be checked by hand:
//
//	local    measured  TTFT 10, 20, …, 90 ms, TPOT 10 ms
//	local    modelled  TTFT 11, 22, …, 99 ms, TPOT 10 ms
//	offload  measured  TTFT 50 ms twice, 150 ms once, one failure
//	offload  modelled  INVALID
//	split    measured  all failed
//	split    modelled  no request at all
func small(t testing.TB) *Data {
	d := NewData()
	run := d.AddRun("", "", results.Manifest{Command: []string{"meibench", "run", "small suite.yaml"}, GoVersion: "go1.26", GOARCH: "amd64", CPU: "a CPU", Blocks: 6, Rows: 25})
	add := func(c record.Cell, rs ...*record.Request) { require.NoError(t, d.Add(run, c, seq(rs...))) }
	var measured, modelled []*record.Request
	for i := 1; i <= 9; i++ {
		r := request(i, time.Duration(i)*10*ms, 10*ms)
		r.Quality = float64(i % 2) // 5 of 9
		r.Spend(record.DevicePart, 2, uint8(hardware.Measured))
		measured = append(measured, r)
		m := request(i, time.Duration(i)*11*ms, 10*ms)
		m.Spend(record.DevicePart, 3, uint8(hardware.Modelled))
		modelled = append(modelled, m)
	}
	add(cell(0, "robot", "local", "measured"), measured...)
	add(cell(1, "robot", "local", "modelled"), modelled...)
	lost := request(4, 50*ms, 10*ms)
	lost.Outcome, lost.Err = record.Timeout, "edge did not answer"
	add(cell(2, "robot", "offload", "measured"), request(1, 50*ms, 20*ms), request(2, 50*ms, 20*ms), request(3, 150*ms, 20*ms), lost)
	bad := cell(3, "robot", "offload", "modelled")
	bad.Valid, bad.Invalid = false, []string{"2 requests or rows dropped: want 0"}
	add(bad, request(1, 40*ms, 20*ms))
	dead := request(1, 0, 0)
	dead.Outcome, dead.Err, dead.FirstToken = record.Failed, "no route", record.Unset
	add(cell(4, "robot", "split", "measured"), dead)
	add(cell(5, "robot", "split", "modelled"))
	return d
}

// The golden files hold, among others:
//
//	local measured: TTFT p50 is the 5th of 9, 50 ms. P(B <= 1) = 10/512 = 2.0 %
//	  and P(B <= 2) = 46/512 = 9.0 %, so the interval is the 2nd to the 8th,
//	  [20, 80] ms. p95 is the 9th, 90 ms, the largest. TPOT 10 ms.
//	  E2E = TTFT + 30 ms. Within 100 ms: 9 of 9; Wilson: 9/(9+3.84) = 70 % up.
//	  Goodput 9 / 10 s. 18 J / 9. Quality 5/9 = 0.56.
//	local modelled: TTFT p50 55 ms, +10 %; TPOT equal; E2E 85/80, +6.25 %; median 6.25 %.
//	offload measured: within 2 of 4, TTFT p50 50 ms, E2E 110 ms.
func TestTables(t *testing.T) {
	r := Build(small(t))
	var text, markdown, js, csv bytes.Buffer
	require.NoError(t, r.Text(&text, 150))
	require.NoError(t, r.Markdown(&markdown))
	require.NoError(t, r.JSON(&js))
	require.NoError(t, r.CSV(&csv))
	golden.Check(t, "testdata/small.txt", text.Bytes())
	golden.Check(t, "testdata/small.md", markdown.Bytes())
	golden.Check(t, "testdata/small.json", js.Bytes())
	golden.Check(t, "testdata/small.csv", csv.Bytes())
}

func TestTextFitsTheWidth(t *testing.T) {
	r := Build(small(t))
	for _, width := range []int{80, 100, 120, 150, 200} {
		var text bytes.Buffer
		require.NoError(t, r.Text(&text, width))
		for line := range strings.Lines(text.String()) {
			require.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), width, "width %d: %s", width, line)
		}
	}
}

func TestTailsOutliveIntervals(t *testing.T) {
	r := Build(small(t))
	dropped := 0
	for width := 80; width <= 200; width++ {
		var text bytes.Buffer
		require.NoError(t, r.Text(&text, width))
		_, note, _ := strings.Cut(strings.Join(strings.Fields(text.String()), " "), "not shown at this width: ")
		note, _, _ = strings.Cut(note, ". ")
		columns, details, _ := strings.Cut(note, "intervals and details of")
		if strings.Contains(columns, "E2E p99") {
			dropped++
			require.Contains(t, details, "TTFT p50", "width %d", width)
		}
	}
	require.NotZero(t, dropped, "no width was narrow enough to ask")
}

func TestUnitsStayWithTheirNumbers(t *testing.T) {
	const nb = "\u00a0"
	for in, want := range map[string]string{
		"97.2 % of 16 requests":                     "97.2" + nb + "% of 16 requests",
		"TTFT p50 0.63 ms [0.52, 0.80] and 9.22 mJ": "TTFT p50 0.63" + nb + "ms [0.52, 0.80] and 9.22" + nb + "mJ",
		"1694 of 2000 and 2 so few":                 "1694 of 2000 and 2 so few",
	} {
		require.Equal(t, want, keepUnits(in))
	}
}

func TestSharesNearNothing(t *testing.T) {
	for v, want := range map[float64]string{0: "0 %", 2.2e-7: "< 0.001 %", 2e-4: "0.02 %"} {
		require.Equal(t, want, strings.Replace(Percent(Bare(v)).Text, "0.0200", "0.02", 1))
	}
	require.Empty(t, Percent(Stat{V: 1e-7, Lo: 0, Hi: 2e-7}).Detail)
}

func TestDigits(t *testing.T) {
	nan := math.NaN()
	for _, tc := range []struct {
		name            string
		in              Stat
		value, interval string
	}{
		{"two digits of the half width, 16", Stat{V: 412.34, Lo: 398.21, Hi: 431.4}, "412", "[398, 431]"},
		{"half width 1.6: one decimal", Stat{V: 412.34, Lo: 410.81, Hi: 414.12}, "412.3", "[410.8, 414.1]"},
		{"never more than four digits", Stat{V: 412.3456, Lo: 412.3451, Hi: 412.3459}, "412.3", "[412.3, 412.3]"},
		{"half width 1659: hundreds", Stat{V: 41234, Lo: 39821, Hi: 43140}, "41200", "[39800, 43100]"},
		{"no interval: three digits", bare(0.0123456), "0.0123", ""},
		{"one bound", Stat{V: 90, Lo: 60, Hi: nan, Max: true}, "90", "[60, –]"},
		{"no width", Stat{V: 12.5, Lo: 12.5, Hi: 12.5}, "12.5", "[12.5, 12.5]"},
		{"zero", Stat{V: 0, Lo: 0, Hi: 0.19}, "0", "[0, 0.190]"},
		{"unknown", unknown(), "–", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, i := tc.in.texts(1)
			require.Equal(t, []string{tc.value, tc.interval}, []string{v, i})
		})
	}
}

// Ranks for the median are those of published tables (e.g. Conover, table A3);
// for p95 P(B = n) = 0.95^n must fall below 2.5 %: n >= 72.
func TestOrderBounds(t *testing.T) {
	for _, tc := range []struct {
		n      int
		p      float64
		lo, hi int
	}{
		{1, 0.5, 0, 2}, {5, 0.5, 0, 6}, {6, 0.5, 1, 6}, {9, 0.5, 2, 8}, {20, 0.5, 6, 15}, {100, 0.5, 40, 61},
		{71, 0.95, 63, 72}, {72, 0.95, 64, 72}, {10000, 0.5, 4902, 5099},
	} {
		lo, hi := orderBounds(tc.n, tc.p)
		require.Equal(t, [2]int{tc.lo, tc.hi}, [2]int{lo, hi}, "n %d p %g", tc.n, tc.p)
	}
}

func TestWilson(t *testing.T) {
	s := share(9, 9, 1) // n / (n + z²) = 9 / 12.8415
	require.InDelta(t, 0.70085, s.Lo, 1e-4)
	require.Equal(t, 1.0, s.Hi)
	s = share(5, 10, 1) // symmetric around a half: ± 1.96 sqrt(0.025 + 0.0096) / 1.384
	require.InDelta(t, 0.2366, s.Lo, 1e-4)
	require.InDelta(t, 0.7634, s.Hi, 1e-4)
}

// A run folder gives the report that its cells and requests give directly.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	run, err := results.Create(dir, results.Manifest{Command: []string{"meibench", "run"}, Expected: 1})
	require.NoError(t, err)
	c := cell(0, "robot", "local", "modelled")
	w, err := run.Begin(c)
	require.NoError(t, err)
	var rs []*record.Request
	for i := range 40 {
		rs = append(rs, request(i, time.Duration(i+1)*ms, ms))
		require.NoError(t, w.Row(rs[i]))
	}
	require.NoError(t, w.End(c))
	require.NoError(t, run.Finish())

	d, err := Load(dir)
	require.NoError(t, err)
	want := NewData()
	require.NoError(t, want.Add(want.AddRun("", dir, d.Runs[0].Manifest), c, seq(rs...)))
	require.Len(t, d.Groups, 1)
	got := d.Groups[0]
	sample, err := want.Groups[0].sample(19)
	require.NoError(t, err)
	require.Len(t, sample.Spans, 1)
	require.Equal(t, sample, got.sampled, "spans of the median request, 20 of 1 … 40 ms, come from their own table")
	require.Equal(t, want.Groups[0].TTFT, got.TTFT)

	_, err = Load()
	require.Error(t, err)
	_, err = Load(t.TempDir())
	require.ErrorContains(t, err, "run.json")
}

// Under a growing queue the early requests are not typical: TTFT of request i is
// i + 1 ms and the median of 101 is that of request 50.
func TestTimelineIsTypical(t *testing.T) {
	d := NewData()
	run := d.AddRun("", "", results.Manifest{})
	var rs []*record.Request
	for i := range 101 {
		rs = append(rs, request(i, time.Duration(i+1)*ms, ms))
	}
	rs[50].Spans = rs[50].Spans[:0]
	for i := range 10_000 { // more than a few thousand
		at := rs[50].Intended + time.Duration(2*i)*time.Microsecond
		rs[50].Spans = append(rs[50].Spans, record.Span{Kind: record.Compute, Node: "phone", Start: at, End: at + time.Microsecond})
	}
	require.NoError(t, d.Add(run, cell(0, "robot", "local", "measured"), seq(rs...)))
	r := Build(d)
	require.Contains(t, r.Figures[2].Caption, "Request 50, measured")
	require.Len(t, d.Groups[0].sampled.Spans, 10_000)
}

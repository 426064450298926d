package reports

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/units"
)

// field is a run of one application whose limit, TTFT within 100 ms, is for a
// percentile of the requests.
type field struct {
	t    *testing.T
	data *Data
	hash string
}

func newField(t *testing.T, percentile float64) *field {
	f := &field{t: t, data: NewData()}
	var contracts []results.Contract
	if percentile > 0 {
		c := results.Contract{Mode: "measured", Workload: map[string]any{
			"spec": map[string]any{"app": "robot", "users": 5.0, "requests": 3.0, "rate": 2.0, "tier": "fast"},
			"app": map[string]any{"about": "a robot", "limits": []any{
				map[string]any{"metric": "ttft", "percentile": percentile, "tier": "fast", "bound": map[string]any{"value": 0.1, "unit": "s"}},
				map[string]any{"metric": "ttft", "percentile": 0.999, "tier": "slow", "bound": map[string]any{"value": 2.0, "unit": "s"}}}}}}
		var err error
		f.hash, err = c.Hash()
		require.NoError(t, err)
		contracts = append(contracts, c)
	}
	f.data.AddRun("", "", results.Manifest{Contracts: contracts, Models: map[string]string{"nano": "00"}, Suite: "name: small\nquestion: Where should it run?\nmatrix: {}\n"})
	return f
}

// add is a cell with one request per TTFT, each of so many joules.
func (f *field) add(pipeline, mode string, joules float64, edit func(*record.Cell), ttft ...time.Duration) {
	c := cell(len(f.data.Groups), "robot", pipeline, mode)
	c.Contract = f.hash
	if edit != nil {
		edit(&c)
	}
	var rs []*record.Request
	for i, v := range ttft {
		r := request(i, v, ms)
		if joules > 0 {
			r.Spend(record.DevicePart, units.Joules(joules), uint8(hardware.Measured))
		}
		rs = append(rs, r)
	}
	require.NoError(f.t, f.data.Add(0, c, seq(rs...)))
}

func invalidCell(c *record.Cell)    { c.Valid, c.Invalid = false, []string{"late"} }
func overloadedCell(c *record.Cell) { c.Warnings = []string{"overloaded: 7 requests waited"} }

// What was measured under fewer placements was not said of all.
func TestDissentOfOtherSets(t *testing.T) {
	for _, tc := range []struct {
		name        string
		edit        func(*record.Cell)
		want, never string
	}{
		{"the same set", nil, "But the modelled cells put split first.", "among"},
		{"the modelled best was INVALID when measured", invalidCell, "Among the placements judged in both, the modelled cells put the same placement first.", "But"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newField(t, 0)
			f.add("local", "measured", 0, nil, 10*ms)
			f.add("offload", "measured", 0, nil, 20*ms)
			f.add("split", "measured", 0, tc.edit, 50*ms)
			f.add("local", "modelled", 0, nil, 10*ms)
			f.add("offload", "modelled", 0, nil, 20*ms)
			f.add("split", "modelled", 0, nil, 5*ms)
			answer := Build(f.data).Answers[0]
			require.Contains(t, answer, tc.want)
			require.NotContains(t, answer, tc.never)
		})
	}
}

// A placement that misses the limits is not cheap, and a tie is one.
func TestLeastEnergy(t *testing.T) {
	for _, tc := range []struct {
		name       string
		percentile float64
		late       time.Duration // of one request in three of local, which needs 1 J
		tie        bool
		want       string
	}{
		{"all pass", 0.99, 20 * ms, false, "Least energy per request of those that met the limits: local 1.00 J; most: split 3.00 J."},
		{"the cheapest misses", 0.99, 200 * ms, false, "Least energy per request of those that met the limits: offload 2.00 J; most: split 3.00 J."},
		{"two of three are enough", 0.6, 200 * ms, false, "met the limits: local 1.00 J; most: split 3.00 J."},
		{"a tie", 0.99, 200 * ms, true, "Least energy per request of those that met the limits, equally: offload and split 2.00 J."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newField(t, tc.percentile)
			f.add("local", "measured", 1, nil, 10*ms, 10*ms, tc.late)
			f.add("offload", "measured", 2, nil, 30*ms, 30*ms, 30*ms)
			third := 3.0
			if tc.tie {
				third = 2
			}
			f.add("split", "measured", third, nil, 40*ms, 40*ms, 40*ms)
			require.Contains(t, Build(f.data).Answers[0], tc.want)
		})
	}
	f := newField(t, 0.99)
	f.add("local", "measured", 1, nil, 10*ms, 200*ms)
	f.add("offload", "measured", 2, nil, 10*ms, 200*ms)
	answer := Build(f.data).Answers[0]
	require.Contains(t, answer, "No placement met the limits, so none is named for the least energy.")
	require.Contains(t, answer, "The limits want 99 % of requests inside them: no placement passes; local (50 %) and offload (50 %).")
}

// 35 of 36 within a p99 limit, 97.2 %, is a miss, however good it looks.
func TestPercentileOfLimits(t *testing.T) {
	f := newField(t, 0.99)
	var most []time.Duration
	for range 35 {
		most = append(most, 10*ms)
	}
	f.add("local", "measured", 0, nil, append(most, 200*ms)...)
	f.add("offload", "measured", 0, nil, append(most, 20*ms)...)
	require.Contains(t, Build(f.data).Answers[0], "The limits want 99 % of requests inside them: offload passes, local (97.2 %) misses")
}

func TestNobodyIsSettled(t *testing.T) {
	f := newField(t, 0.99)
	f.add("local", "measured", 0, nil, 10*ms, 20*ms)
	f.add("offload", "measured", 0, nil, 10*ms, 20*ms)
	require.Contains(t, Build(f.data).Answers[0], "The limits want 99 % of requests inside them: all pass so far, but so few requests do not settle it for any.")
}

func TestMissText(t *testing.T) {
	require.Equal(t, "98.97 %", missText(0.9897, 0.99))
	require.Equal(t, "97.2 %", missText(0.9722, 0.99))
}

// A growing queue has no latency to be near to.
func TestOverloaded(t *testing.T) {
	var ttft []time.Duration
	for i := range 40 {
		ttft = append(ttft, time.Duration(i*37%40+1)*ms)
	}
	f := newField(t, 0)
	f.add("local", "measured", 0, nil, ttft...)
	f.add("offload", "measured", 0, overloadedCell, ttft...)
	r := Build(f.data)
	require.Contains(t, r.Answers[0], "Overloaded, so that latencies grow with the length of the run: offload.")
	rows := r.Tables[0].Groups[0].Rows
	require.Equal(t, "", rows[0].Values[0].Mark)
	require.NotEmpty(t, rows[0].Values[3].Detail)
	require.Equal(t, "†", rows[1].Values[0].Mark)
	require.Empty(t, rows[1].Values[3].Detail, "no interval")
	require.Contains(t, r.Tables[0].Notes, overloadNote)
	require.Contains(t, figure(t, r, "latency-robot").Caption, overloadNote)
	require.Contains(t, string(figure(t, r, "latency-robot").Picture.SVG()), "offload †")
	page, markdown, text := formats(t, r)
	for name, out := range map[string]string{"page": page, "markdown": markdown, "text": text} {
		require.Contains(t, strings.ReplaceAll(out, `<span class="mark">`, ""), "offload†", name)
	}
	var js bytes.Buffer
	require.NoError(t, r.JSON(&js))
	require.Equal(t, 1, strings.Count(js.String(), `"overloaded": true`))
}

// The report says what was asked, and that a toy is one.
func TestSetting(t *testing.T) {
	f := newField(t, 0.99)
	f.add("local", "measured", 0, func(c *record.Cell) { c.Model = "mei-nano" }, 10*ms, 10*ms, 10*ms)
	r := Build(f.data)
	require.Equal(t, []Fact{
		{"question", "Where should it run?"},
		{"model", "mei-nano (0.31 M parameters, made for this benchmark: not a product LLM)"},
		{"site", "desk"},
		{"robot", "3 requests a run, 5 users, 2 requests per second; TTFT ≤ 100 ms for 99 % of requests"},
	}, r.Setting)
	page, markdown, text := formats(t, r)
	for name, out := range map[string]string{"page": page, "markdown": markdown, "text": text} {
		require.Contains(t, out, "Where should it run?", name)
		require.Contains(t, out, "not a product", name)
	}
	checkHTML(t, page)
	var js bytes.Buffer
	require.NoError(t, r.JSON(&js))
	require.Contains(t, js.String(), `"question"`)
}

func TestQuestion(t *testing.T) {
	for _, tc := range []struct{ name, suite, want string }{
		{"plain", "name: x\nquestion: Where, and why?  # a comment\nmatrix: {}\n", "Where, and why?"},
		{"quoted", "question: \"Which: a?\"\n", "Which: a?"},
		{"folded", "question: >-\n  Which of\n  these?\nmatrix:\n  app: [a]\n", "Which of these?"},
		{"continued", "question: Which of\n  these?\nmatrix:\n  app: [a]\n", "Which of these?"},
		{"none", "name: x\nby:\n  question: no\n", ""},
		{"empty", "", ""},
		{"no suite", "question: [a\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, _ := questions(tc.suite)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestQuestionsOfParts(t *testing.T) {
	d := NewData()
	d.AddRun("", "", results.Manifest{Suite: "question: all?\nparts:\n  - {name: a, question: Who   pays?}\n  - {name: b}\n"})
	ask := func(cell string) string { return d.Question(&Group{Cell: record.Cell{Name: cell}}) }
	require.Equal(t, "Who pays?", ask("part=a/pipeline=local"))
	require.Empty(t, ask("part=b/pipeline=local"))
	require.Empty(t, ask("pipeline=local"))
}

func TestRoundTimes(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"p99 19.602148ms: want <= 1ms", "p99 19.6 ms: want <= 1 ms"},
		{"1m3.512s of 250µs", "63.5 s of 0.25 ms"},
		{"2 requests, 10.5 %, 3km", "2 requests, 10.5 %, 3km"},
	} {
		require.Equal(t, tc.want, roundTimes(tc.in))
	}
}

// A reason is given once, however many tables carry its mark.
func TestReasonsOnce(t *testing.T) {
	f := newField(t, 0)
	late := func(c *record.Cell) { c.Valid, c.Invalid = false, []string{"released late, p99 19.602148ms"} }
	f.add("local", "measured", 0, late, 10*ms)
	f.add("local", "modelled", 0, nil, 10*ms)
	f.add("split", "measured", 0, nil, 10*ms)
	f.add("split", "modelled", 0, nil, 10*ms)
	r := Build(f.data)
	_, markdown, text := formats(t, r)
	require.Equal(t, 1, strings.Count(markdown, "released late, p99 19.6 ms"))
	require.Equal(t, 1, strings.Count(text, "released late,"))
	rows := r.Tables[1].Groups[0].Rows
	require.Equal(t, "", rows[1].Values[9].Text, "vs meas. of a pair with an INVALID cell")
	require.Equal(t, "0", rows[3].Values[9].Text)
}

func TestErrorsAreCounted(t *testing.T) {
	d := NewData()
	run := d.AddRun("", "", results.Manifest{})
	var rs []*record.Request
	for i := range 36 {
		r := request(i, ms, ms)
		r.Outcome, r.Err = record.Failed, "device a1: needs "+strings.Repeat("9", 1+i%5)+" MiB"
		if i == 35 {
			r.Err = "link down"
		}
		rs = append(rs, r)
	}
	require.NoError(t, d.Add(run, cell(0, "robot", "local", "measured"), seq(rs...)))
	require.Equal(t, []string{"36 of 36 requests did not end well and count as misses.", "device a1: needs 9 MiB (the first; numbers of others differ): 35×", "link down: 1×"}, Build(d).Warnings)
}

// An axis of users or of rates is what a suite compares, as in a load curve; another
// rate that is no axis is another contract.
func TestContractsOfAxes(t *testing.T) {
	for _, tc := range []struct {
		name, key, axis string
		warns           bool
	}{{"users", "users", "users", false}, {"requests", "requests", "requests", false}, {"an axis of rates", "rate", "rate", false}, {"a rate beside another axis", "rate", "x", true}} {
		t.Run(tc.name, func(t *testing.T) {
			d := NewData()
			var contracts []results.Contract
			for _, v := range []float64{1, 8} {
				contracts = append(contracts, results.Contract{Mode: "modelled", Workload: map[string]any{"spec": map[string]any{tc.key: v}}})
			}
			d.AddRun("", "", results.Manifest{Contracts: contracts})
			for i := range contracts {
				c := cell(i, "robot", "local", "modelled")
				c.Name += "/" + tc.axis + "=" + strings.Repeat("8", i+1)
				var err error
				c.Contract, err = contracts[i].Hash()
				require.NoError(t, err)
				require.NoError(t, d.Add(0, c, seq(request(0, ms, ms))))
			}
			require.Equal(t, tc.warns, strings.Contains(strings.Join(Build(d).Warnings, " "), "2 different contracts"))
		})
	}
}

// A column that would need five digits or leading zeros gives each value a unit.
func TestUnitsPerValue(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values []float64 // seconds
		unit   string
		want   []string
	}{
		{"one unit", []float64{0.1, 0.4, 2}, "ms", []string{"100", "400", "2000"}},
		{"too long", []float64{0.0801, 0.4, 136}, "", []string{"80.1 ms", "400 ms", "136 s"}},
		{"too small", []float64{0.0801, 4, 9}, "", []string{"80.1 ms", "4.00 s", "9.00 s"}},
		{"nothing", []float64{0, 1}, "s", []string{"0", "1.00"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := measureOf(timeScales(), tc.values)
			require.Equal(t, tc.unit, m.unit)
			for i, v := range tc.values {
				require.Equal(t, tc.want[i], m.stat(bare(v)).Text)
			}
		})
	}
	require.Equal(t, "100", percentage(share(400, 400, 1)).Text)
	require.Equal(t, "[99.0, 100]", percentage(share(400, 400, 1)).Detail)
	require.Equal(t, "99.75", percentage(share(399, 400, 1)).Text)
}

// An axis that goes beyond ten seconds is in seconds.
func TestAxisUnit(t *testing.T) {
	f := newField(t, 0)
	f.add("local", "measured", 0, nil, 10*ms, 20*ms, 20*ms, 40*time.Second)
	require.Contains(t, string(Build(f.data).Figures[0].Picture.SVG()), "TTFT (s, log scale)")
}

// The best under limits is the one that met them most often, not the fastest.
func TestMostWithinLimitsLeads(t *testing.T) {
	f := newField(t, 0)
	f.add("local", "measured", 0, nil, 200*ms, 10*ms, 10*ms, 200*ms, 10*ms)
	f.add("offload", "measured", 0, nil, 90*ms, 90*ms, 90*ms, 90*ms, 200*ms)
	require.Contains(t, Build(f.data).Answers[0], "offload met the limits (TTFT ≤ 100 ms) for 4 of 5 requests")
}

// TestWideIntervalsHideNoValue: what is not zero is not printed as zero.
func TestWideIntervalsHideNoValue(t *testing.T) {
	require.Equal(t, "0.3 [0, 36]", Stat{V: 0.344, Lo: 0.1, Hi: 36}.String())
	require.Equal(t, "0 [0, 36]", Stat{Hi: 36}.String())
	require.Equal(t, "412 [398, 431]", Stat{V: 412.3, Lo: 398.1, Hi: 431}.String())
}

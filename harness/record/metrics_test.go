package record

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTableIsSortedAndComplete(t *testing.T) {
	all, benches := Metrics(), map[string]bool{}
	require.True(t, slices.IsSortedFunc(all, func(a, b Metric) int {
		if a.Scope != b.Scope {
			return int(a.Scope) - int(b.Scope)
		}
		return strings.Compare(a.Name, b.Name)
	}))
	names := map[string]bool{}
	for _, m := range all {
		require.False(t, names[m.Name], "%s twice", m.Name)
		names[m.Name] = true
		require.NotEmpty(t, m.Unit, m.Name)
		require.NotEmpty(t, m.Doc, m.Name)
		require.Equal(t, m.Scope == PerRun, m.Bench != "", "%s: a line per run, never per request", m.Name)
		if m.Scope == PerRun {
			require.False(t, benches[m.Bench], "%s twice", m.Bench)
			benches[m.Bench] = true
			require.NotContains(t, m.Bench, " ")
		}
	}
	_, ok := Lookup("ttft_p99")
	require.True(t, ok)
	_, ok = Lookup("nope")
	require.False(t, ok)
}

// Derived by hand from sample: intended 10, sent 12, tokens 1 at 30, 2 at 40, 1
// at 50, done 50; queue 2, transfer 8, compute 30 ms; 3 J.
func TestPerRequest(t *testing.T) {
	for name, want := range map[string]float64{
		"ttft": 0.020, "ttft_service": 0.018, "ttfat": 0.020, "tpot": 0.020 / 3, "e2e": 0.040, "itl_max": 0.010, "late": 0,
		"queue_time": 0.002, "transfer_time": 0.008, "compute_time": 0.030, "wait_time": 0, "batch_time": 0,
		"energy": 3, "energy_edge": 3, "energy_device": math.NaN(), "energy_token": 0.75,
		"output_tokens": 4, "asked_tokens": 8, "prompt_tokens": 20, "quality": math.NaN(), "up_bytes": 0,
	} {
		m, ok := Lookup(name)
		require.True(t, ok, name)
		if got := m.Of(sample()); math.IsNaN(want) {
			require.True(t, math.IsNaN(got), "%s = %g", name, got)
		} else {
			require.InDelta(t, want, got, 1e-12, name)
		}
	}
	r := new(Request) // nothing happened: no figure is made up
	r.Reset(1, 0)
	for _, name := range []string{"ttft", "ttft_service", "tpot", "itl_max", "energy", "energy_token", "quality", "e2e"} {
		m, _ := Lookup(name)
		require.True(t, math.IsNaN(m.Of(r)), name)
	}
}

func valuesOf(c *Cell, rows ...*Request) map[string]float64 {
	s := NewSummary(c)
	for _, r := range rows {
		s.Add(r)
	}
	out := map[string]float64{}
	for _, v := range s.Values() {
		out[v.Metric.Name] = v.V
	}
	return out
}

// Two copies of sample and one failure that ends at 60 ms, offered over 100 ms
// under a TTFT limit of 20 ms and a TPOT limit of 7 ms: both copies are good.
func TestSummary(t *testing.T) {
	failed := sample()
	failed.Outcome, failed.Done = Failed, 60*ms
	failed.Quality = 0
	ok := sample()
	ok.Quality = 1
	c := &Cell{TTFTLimit: 20 * ms, TPOTLimit: 7 * ms, Horizon: 100 * ms, Nodes: []NodeUse{{"edge", 2, 50 * ms}, {"phone", 1, 20 * ms}}}
	got := valuesOf(c, sample(), ok, failed)
	for name, want := range map[string]float64{
		"requests": 3, "offered_rate": 30, "goodput": 20, "goodput_share": 2.0 / 3, "miss_share": 1.0 / 3,
		"makespan": 0.05, "completed_rate": 40, // 2 in 10..60 ms
		"token_rate": 160, "good_token_rate": 80, // 8 tokens in 50 ms, in 100 ms offered
		"concurrency":      2.6, // (40 + 40 + 50 ms) / 50 ms
		"energy_per_token": 0.75, "energy_per_good": 4.5, "energy_per_request": 3, "energy_per_quality": 9,
		"quality_mean": 0.5, "ttft_p99": 0.020, "e2e_p50": 0.040, "utilisation_max": 0.5,
	} {
		require.InDelta(t, want, got[name], 1e-12, name)
	}
	slow := valuesOf(&Cell{TTFTLimit: 20*ms - 1, Horizon: 100 * ms}, sample())
	require.Zero(t, slow["goodput"])
	dark := sample()
	dark.Spend(DevicePart, 0, 0)
	require.True(t, math.IsNaN(valuesOf(c, sample(), dark)["energy_per_token"]))
	for name, v := range valuesOf(&Cell{}) {
		require.True(t, math.IsNaN(v) || v == 0, "%s of nothing is %g", name, v)
	}
}

// A round of training took time, bytes and joules; it had no token, met no limit and was no answer.
func TestRoundsAreNotServed(t *testing.T) {
	got := valuesOf(&Cell{Params: map[string]any{"optimizer": "adamw"}, Horizon: 100 * ms, Figures: map[string]float64{"score_final": 0.5}}, sample())
	for _, name := range []string{"goodput", "goodput_share", "ttft_p50", "token_rate", "quality_mean", "energy_per_quality", "e2e_within_1s", "ttft_within_1s", "reliability_nines"} {
		require.True(t, math.IsNaN(got[name]), "%s is %g", name, got[name])
	}
	require.Equal(t, 0.04, got["e2e_p50"])
	require.Equal(t, 3.0, got["energy_per_request"])
	require.Equal(t, 0.5, got["score_final"])
}

// 6 of 8 drafted tokens over 3 passes; 3 of 4 objects, 30 of 40 bytes found; 10
// of 20 prompt tokens reused; 4 of 16 layers skipped.
func TestCountersAndFigures(t *testing.T) {
	a, b := sample(), sample()
	a.PromptTokens, b.PromptTokens = 15, 5
	a.Count(Drafted, 8)
	a.Count(Accepted, 6)
	a.Count(Verified, 3)
	b.Count(CacheHits, 3)
	b.Count(CacheMisses, 1)
	b.Count(CacheHitBytes, 30)
	b.Count(CacheMissBytes, 10)
	b.Count(ReusedTokens, 10)
	b.Count(LayersRun, 12)
	b.Count(LayersFull, 16)
	b.Count(Escalated, 1)
	got := valuesOf(&Cell{Figures: map[string]float64{"kl": 0.25}}, a, b)
	for name, want := range map[string]float64{"accept_rate": 0.75, "tokens_per_verify": 3, "hit_ratio": 0.75, "byte_hit_ratio": 0.75,
		"prefix_reuse": 0.5, "layer_share": 0.75, "escalated_share": 0.5, "kl": 0.25} {
		require.InDelta(t, want, got[name], 1e-12, name)
	}
	require.True(t, math.IsNaN(got["perplexity"]), "a figure that nobody computed")
	require.True(t, math.IsNaN(valuesOf(&Cell{}, sample())["accept_rate"]), "nothing was drafted")
	m, _ := Lookup("accepted_tokens")
	require.Equal(t, 6.0, m.Of(a))
	a.Count(Accepted, 3)
	require.ErrorContains(t, a.Check(), "9 of 8 drafted tokens accepted")
	b.Count(Retries, -1)
	require.ErrorContains(t, b.Check(), "retries is -1")
	require.True(t, IsFigure("kl"))
	require.False(t, IsFigure("ttft_p99"), "what rows tell is not to be told twice")
	require.True(t, slices.IsSortedFunc(figures, func(a, b figure) int { return strings.Compare(a.name, b.name) }))
}

func TestGood(t *testing.T) {
	for _, tc := range []struct {
		name  string
		cell  Cell
		spoil func(*Request)
		want  bool
	}{
		{"no limits", Cell{}, nil, true},
		{"at the limits", Cell{TTFTLimit: 20 * ms, E2ELimit: 40 * ms}, nil, true},
		{"TTFT counts from intended, not from sent", Cell{TTFTLimit: 19 * ms}, nil, false}, // 20 ms, 18 from sent
		{"TPOT 6.67 ms", Cell{TPOTLimit: 6 * ms}, nil, false},
		{"one token has no TPOT", Cell{TPOTLimit: 1}, func(r *Request) { r.OutputTokens = 1 }, true},
		{"no token, and some asked for", Cell{TTFTLimit: time.Hour}, func(r *Request) { r.FirstToken = Unset }, false},
		{"the request's own deadline", Cell{}, func(r *Request) { r.Deadline = 39 * ms }, false},
		{"a failure is a miss", Cell{}, func(r *Request) { r.Outcome = Timeout }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := sample()
			if tc.spoil != nil {
				tc.spoil(r)
			}
			require.Equal(t, tc.want, tc.cell.Good(r))
		})
	}
}

func TestQuantiles(t *testing.T) {
	vs := make([]float64, 100) // 1..100
	for i := range vs {
		vs[i] = float64(i + 1)
	}
	for _, tc := range []struct {
		p             float64
		ours, loadgen float64
	}{
		{0.5, 50, 51}, {0.99, 99, 100}, {0.07, 7, 8}, // 0.07 × 100 is 7.000000000000001 in floats
		{0.995, 100, 100}, {1, 100, 100}, {0, 1, 1},
	} {
		require.Equal(t, tc.ours, Quantile(vs, tc.p), "p=%g", tc.p)
		require.Equal(t, tc.loadgen, LoadGenQuantile(vs, tc.p), "p=%g", tc.p)
	}
	require.True(t, math.IsNaN(Quantile(nil, 0.5)))
	require.True(t, math.IsNaN(LoadGenQuantile(nil, 0.5)))
	require.Equal(t, 3*ms, Late([]time.Duration{3 * ms, ms, 2 * ms}))
	require.Zero(t, Late(nil))
	require.Equal(t, 4.5, LoadGenRate(10, 2*time.Second)) // 9 / 2 s
}

// The worked example: scheduled 0, sent 100 ms, a role-only chunk at 150, first
// text at 300 (1 token), then 4, 4 and 2 tokens at 400, 500 and 600: 11 tokens.
func TestViewsOnTheWorkedExample(t *testing.T) {
	r := new(Request)
	r.Reset(1, 0)
	r.AskedTokens, r.Released, r.Sent = 11, 0, 100*ms
	r.Empty(150 * ms)
	r.Token(300*ms, 1)
	r.Token(400*ms, 4)
	r.Token(500*ms, 4)
	r.Token(600*ms, 2)
	r.Finish(600*ms, nil)
	require.NoError(t, r.Check())
	none := math.NaN()
	want := map[string][3]float64{ // ms
		"aiperf":         {200, none, 30},         // (500-200)/10
		"guidellm":       {200, 500.0 / 11, 30},   // TPOT with TTFT inside
		"inference-perf": {200, 30, 100},          // three gaps of 100
		"llmperf":        {200, none, 500.0 / 11}, // gaps with TTFT over tokens
		"loadgen/v6":     {300, 30, none},         // from the schedule
		"ours":           {300, 30, 100},          // as LoadGen; gaps between chunks with tokens
		"vllm":           {50, 45, 112.5},         // (500-50)/10; gaps 150, 100, 100, 100
	}
	require.True(t, slices.IsSortedFunc(Views(), func(a, b View) int { return strings.Compare(a.ID, b.ID) }))
	require.Len(t, Views(), len(want))
	for _, v := range Views() {
		for i, of := range []func(*Request) float64{v.TTFT, v.TPOT, v.ITL} {
			w := want[v.ID][i]
			if of == nil {
				require.True(t, math.IsNaN(w), "%s: figure %d", v.ID, i)
				continue
			}
			require.InDelta(t, w, 1000*of(r), 1e-9, "%s: figure %d", v.ID, i)
		}
	}
}

// Limits of TTFT 100, TPOT 40 ms: only vLLM's clock lets the example's TTFT
// pass, and its TPOT of 45 fails; under TPOT 46 it calls good what ours does not.
func TestGoodputDependsOnTheTool(t *testing.T) {
	r := new(Request)
	r.Reset(1, 0)
	r.AskedTokens, r.Sent = 11, 100*ms
	r.Empty(150 * ms)
	r.Token(300*ms, 1)
	r.Token(600*ms, 10)
	r.Finish(600*ms, nil)
	for _, v := range Views() {
		if v.Good == nil {
			continue
		}
		require.False(t, v.Good(r, Limits{TTFT: 100 * ms, TPOT: 40 * ms}), v.ID)
		require.Equal(t, v.ID == "vllm", v.Good(r, Limits{TTFT: 100 * ms, TPOT: 46 * ms}), v.ID)
		require.Equal(t, v.ID != "ours", v.Good(r, Limits{TTFT: 250 * ms, TPOT: 46 * ms}), v.ID)
	}
}

func TestJudge(t *testing.T) {
	fine := func() *Cell {
		return &Cell{Mode: "measured", TTFTLimit: 400 * ms, Wall: 10 * time.Second, ClientCPU: 10 * time.Second,
			Facts: Facts{LateP99: 4 * ms, Cores: 2, Planned: 1000, Offered: 1000, Mismatched: 10, PlannedSpan: 10 * time.Second,
				OfferedSpan: 10 * time.Second, MonoTook: 10 * time.Second, WallTook: 10 * time.Second, PauseP99: ms, StealShare: 0.01, StealKnown: true}}
	}
	require.Empty(t, fine().Judge(), "each fact at its budget") // 1 % of 400 ms = 4 ms late, 50 % of 2 cores
	for _, tc := range []struct {
		name  string
		spoil func(*Cell)
		want  string
	}{
		{"late against 1 % of the limit", func(c *Cell) { c.Facts.LateP99++ }, "requests released late, p99 4.000001ms: want <= 4ms"},
		{"late against 1 ms without a limit", func(c *Cell) { c.TTFTLimit = 0 }, "want <= 1ms"},
		{"busy client", func(c *Cell) { c.ClientCPU += time.Second }, "client used 55% of its 2 cores"},
		{"drops", func(c *Cell) { c.Facts.Dropped = 1 }, "1 requests or rows dropped"},
		{"clock", func(c *Cell) { c.Facts.MonoTook += 11 * ms }, "monotonic clock ran 1.0011 of the wall clock"},
		{"pauses", func(c *Cell) { c.Facts.PauseP99++ }, "garbage-collection pause"},
		{"token counts", func(c *Cell) { c.Facts.Mismatched = 11 }, "1.1% of requests"},
		{"slow schedule", func(c *Cell) { c.Facts.OfferedSpan += 110 * ms }, "offered rate is 0.9891"},
		{"missing requests", func(c *Cell) { c.Facts.Offered, c.Facts.Mismatched = 980, 0 }, "offered rate is 0.98"},
		{"steal", func(c *Cell) { c.Facts.StealShare = 0.02 }, "host steal 2%"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := fine()
			tc.spoil(c)
			why := c.Judge()
			require.Len(t, why, 1)
			require.Contains(t, why[0], tc.want)
		})
	}
	few := fine()
	few.Facts.PlannedSpan, few.Facts.OfferedSpan = 100*ms, 96*ms
	require.Empty(t, few.Judge(), "four requests in a tenth of a second, the first of them 4 ms late, as it may be")
	few.Facts.OfferedSpan -= ms
	require.Len(t, few.Judge(), 1)
	c := fine()
	c.Mode, c.Facts.LateP99, c.Facts.PauseP99 = "modelled", time.Hour, time.Hour
	require.Empty(t, c.Judge(), "a virtual clock cannot be late")
	c.Mode = "emulated"
	require.Len(t, c.Judge(), 1, "emulated kernels read the real clock; the schedule does not")
	require.Empty(t, (&Cell{Mode: "measured"}).Judge(), "what was not observed is no breach")
}

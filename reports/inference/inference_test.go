package inference

import (
	"bytes"
	"flag"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/reference/published"
	"meibench/reference/spec"
	"meibench/reports"
)

var look = flag.String("look", "", "write the report of the hand-made data into this folder, to look at")

const ms = time.Millisecond

// maker makes cells whose figures can be checked by hand.
type maker struct {
	t     testing.TB
	d     *reports.Data
	run   int
	index int
}

func newMaker(t testing.TB) *maker {
	d := reports.NewData()
	return &maker{t: t, d: d, run: d.AddRun("", "", results.Manifest{})}
}

// asks is a request as a test says it.
type asks struct {
	first, tpot time.Duration
	tokens      int // 0 = one
	quality     float64
	counts      map[record.Counter]int64
	failed      bool
}

// cell adds a cell whose name is "part=…/key=value/…": pipeline, model, site, mode
// and parameters are read from it. Seeds are those of the repeats, one list each.
func (m *maker) cell(name string, params map[string]any, repeats ...[]asks) *reports.Group {
	c := record.Cell{Index: m.index, Suite: "hand", Name: name, App: "robot", Pipeline: "local", Site: "desk", Model: "large", Mode: "emulated", Valid: true,
		Horizon: 10 * time.Second, Params: params, TTFTLimit: 100 * ms}
	for _, p := range strings.Split(name, "/") {
		key, v, _ := strings.Cut(p, "=")
		for k, to := range map[string]*string{"app": &c.App, "pipeline": &c.Pipeline, "site": &c.Site, "model": &c.Model, "mode": &c.Mode} {
			if k == key {
				*to = v
			}
		}
	}
	m.index++
	for i, list := range repeats {
		c.Seed, c.Repeat = uint64(i+1), i
		require.NoError(m.t, m.d.Add(m.run, c, func(yield func(*record.Request, error) bool) {
			for id, a := range list {
				if !yield(a.request(id), nil) {
					return
				}
			}
		}))
	}
	return m.d.Groups[len(m.d.Groups)-1]
}

func (a asks) request(id int) *record.Request {
	var r record.Request
	at := time.Duration(id) * time.Second
	r.Reset(id, at)
	n := max(a.tokens, 1)
	r.AskedTokens, r.Released, r.Sent = n, at, at
	now := at
	for i := range n {
		step := a.tpot
		if i == 0 {
			step = a.first
		}
		r.Spent(record.Compute, "phone", now, now+step)
		now += step
		r.Token(now, 1)
	}
	r.UpBytes, r.Quality = 1000, a.quality
	for c, k := range a.counts {
		r.Count(c, k)
	}
	r.Finish(now, nil)
	if a.failed {
		r.Outcome = record.Failed
	}
	return &r
}

// same is n equal requests.
func same(n int, a asks) (out []asks) {
	for range n {
		out = append(out, a)
	}
	return out
}

// At a round trip of 10 ms offload takes 50 ms, at 100 ms it takes 200 ms; local
// takes 100 ms. The ratio goes from 1/2 to 2, so that on logarithms the crossing is
// in the middle: sqrt(10 · 100) = 31.6 ms. With 400 ms at the end it is a third of
// the way: 10 · 10^(1/3) = 21.5 ms.
func TestBreakEvenLiesOnTheStraightLine(t *testing.T) {
	m := newMaker(t)
	sweepOf := func(part string, far ...time.Duration) {
		var fast, slow, local [][]asks
		for _, f := range far {
			fast, slow, local = append(fast, same(3, asks{first: 50 * ms})), append(slow, same(3, asks{first: f})), append(local, same(3, asks{first: 100 * ms}))
		}
		m.cell("part="+part+"/pipeline=local/rtt=0.01", map[string]any{"rtt": 0.01}, local...)
		m.cell("part="+part+"/pipeline=local/rtt=0.1", map[string]any{"rtt": 0.1}, local...)
		m.cell("part="+part+"/pipeline=offload/rtt=0.01", map[string]any{"rtt": 0.01}, fast...)
		m.cell("part="+part+"/pipeline=offload/rtt=0.1", map[string]any{"rtt": 0.1}, slow...)
	}
	sweepOf("even", 200*ms, 200*ms)
	s := breakEven(m.d.Groups)
	require.NotNil(t, s)
	require.Equal(t, []string{"Break-even, robot on desk, large, emulated: offload pays up to a round trip time of 31.6 ms."}, s.Lead)
	require.Equal(t, "2 of 2", s.Tables[0].Groups[0].Rows[0].Values[4].Text)

	w := sweepsOf("rtt", m.d.Groups, m.d.Groups)[0]
	require.InDelta(t, math.Sqrt(0.01*0.1), w.cross().At.V, 1e-12)

	m = newMaker(t)
	sweepOf("uneven", 400*ms)
	w = sweepsOf("rtt", m.d.Groups, m.d.Groups)[0]
	require.InDelta(t, 0.01*math.Pow(10, 1.0/3), w.cross().At.V, 1e-12)

	m = newMaker(t) // of six seeds each crosses elsewhere: the interval is theirs
	sweepOf("seeds", 120*ms, 150*ms, 200*ms, 250*ms, 300*ms, 400*ms)
	w = sweepsOf("rtt", m.d.Groups, m.d.Groups)[0]
	c := w.cross()
	cross := func(far float64) float64 { return 0.01 * math.Pow(10, math.Log(2)/math.Log(2*far/100)) }
	require.InDelta(t, cross(400), c.At.Lo, 1e-12)
	require.InDelta(t, cross(120), c.At.Hi, 1e-12)
	require.Equal(t, [2]int{6, 6}, [2]int{c.Seeds, c.Of})
}

func TestBreakEvenSaysNever(t *testing.T) {
	for _, tc := range []struct {
		name       string
		near, far  time.Duration
		axis, want string
	}{
		{"always slower", 150 * ms, 200 * ms, "rtt", "offload never pays within the sweep, 10.0 ms to 100 ms."},
		{"always quicker", 15 * ms, 20 * ms, "rtt", "offload pays at every value of the sweep, 10.0 ms to 100 ms."},
		{"the wrong way round", 200 * ms, 50 * ms, "rtt", "offload pays only from a round trip time of 31.6 ms."},
		{"rate", 200 * ms, 50 * ms, "mbps", "offload pays from a rate of 0.0316 Mbit/s."},
		{"rate, the wrong way round", 50 * ms, 200 * ms, "mbps", "offload pays only up to a rate of 0.0316 Mbit/s."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMaker(t)
			for i, took := range []time.Duration{tc.near, tc.far} {
				x := []string{"0.01", "0.1"}[i]
				p := map[string]any{tc.axis: []float64{0.01, 0.1}[i]}
				m.cell("pipeline=local/"+tc.axis+"="+x, p, same(3, asks{first: 100 * ms}))
				m.cell("pipeline=offload/"+tc.axis+"="+x, p, same(3, asks{first: took}))
			}
			s := breakEven(m.d.Groups)
			require.Contains(t, s.Lead[0], tc.want)
		})
	}
}

// A draft of α 0.8 gives rates 0.8 at γ 1 and (0.8 + 0.64)/2 = 0.72 at γ 2: of 100
// drafted tokens 80 and 72 stay. Tokens per pass at γ 2: 1 + 72/50 = 2.44, which is
// (1 − 0.8³)/(1 − 0.8). Times alone: the model 10 ms, the draft 1 ms; a round of γ 2
// takes 12 ms, so that drafting makes 2.44/1.2 = 2.03 tokens in the model's time.
func TestSpeculationBesideTheory(t *testing.T) {
	m := newMaker(t)
	none := math.NaN()
	m.cell("pipeline=local/model=large", nil, same(4, asks{first: 10 * ms, tpot: 10 * ms, tokens: 5, quality: none}))
	m.cell("pipeline=local/model=small", nil, same(4, asks{first: ms, tpot: ms, tokens: 5, quality: none}))
	params := func(gamma float64) map[string]any {
		return map[string]any{"gamma": gamma, "verify": "device", "small": "small", "draft": "small", "width": 1.0, "temperature": 0.0}
	}
	m.cell("pipeline=speculate/gamma=1", params(1), same(4, asks{first: 10 * ms, tpot: 6 * ms, tokens: 5, quality: none,
		counts: map[record.Counter]int64{record.Drafted: 25, record.Accepted: 20, record.Verified: 25}}))
	m.cell("pipeline=speculate/gamma=2", params(2), same(4, asks{first: 10 * ms, tpot: 5 * ms, tokens: 5, quality: none,
		counts: map[record.Counter]int64{record.Drafted: 25, record.Accepted: 18, record.Verified: 12}}))
	all := m.d.Groups
	times := aloneOf(all[2], all)
	require.InDelta(t, 0.010, times.model, 1e-12)
	require.InDelta(t, 0.001, times.draft, 1e-12)
	rows := theory(all[2:], times)
	require.InDelta(t, 0.8, rows[0].alpha, 1e-9)
	require.InDelta(t, 0.8, rows[1].alpha, 1e-9)
	require.InDelta(t, 2.5, rows[1].perVerify, 1e-12, "1 + 72/48")
	require.InDelta(t, 2.44, rows[1].perVerifyTheory, 1e-9)
	require.InDelta(t, 2.0, rows[1].speedUp, 1e-12, "10 ms / 5 ms")
	require.InDelta(t, 2.44/1.2, rows[1].speedUpTheory, 1e-9)
	s := speculation(all)
	require.Contains(t, s.Lead[0], "drafting makes tokens 2.00 times as fast as the model alone (γ 2; theory 2.03), with a rate of 72 %")
	require.Contains(t, s.Lead[0], "Tokens per pass are within 2.46 %", "2.5 against 2.44; that of γ 1 is exact")
}

// Drafting at γ 2 over a link: 6 ms a token at 10 ms round trip, 12 ms at 40 ms; the
// model alone 10 ms. The closed form with α 0.8, 1 ms drafts and a judge of 2 ms
// breaks even where 2.44 · 10 ms = 2 + 2 + RTT.
func TestBreakEvenOfDrafting(t *testing.T) {
	m := newMaker(t)
	none := math.NaN()
	m.cell("pipeline=local/model=large", nil, same(4, asks{first: 10 * ms, tpot: 10 * ms, tokens: 5, quality: none}))
	m.cell("pipeline=local/model=small", nil, same(4, asks{first: ms, tpot: ms, tokens: 5, quality: none}))
	m.cell("pipeline=offload/model=large", nil, same(4, asks{first: 10 * ms, tpot: 2 * ms, tokens: 5, quality: none}))
	for i, tpot := range []time.Duration{6 * ms, 12 * ms} {
		rtt := []float64{0.01, 0.04}[i]
		m.cell("pipeline=speculate/gamma=2/rtt="+setting(rtt), map[string]any{"gamma": 2.0, "rtt": rtt, "verify": "edge", "small": "small", "draft": "small", "width": 1.0, "temperature": 0.0},
			same(4, asks{first: 10 * ms, tpot: tpot, tokens: 5, quality: none, counts: map[record.Counter]int64{record.Drafted: 24, record.Accepted: 18, record.Verified: 12}}))
	}
	all := m.d.Groups
	times := aloneOf(all[3], all)
	require.InDelta(t, 0.002, times.judge, 1e-12, "the model streams from the edge")
	rows := theory(all[3:], times)
	law := spec.Law{Alpha: rows[0].alpha, DraftSec: 0.001, VerifySec: 0.002}
	require.InDelta(t, spec.Tokens(rows[0].alpha, 2)*0.010-0.004, law.BreakEvenRTT(2, 0.010), 1e-12)
	require.InDelta(t, law.BreakEvenRTT(2, 0.010), rows[0].breakTheory, 1e-12)
	text, known := draftCross(rows, times)
	require.True(t, known)
	// log ratio goes from log 0.6 to log 1.2 over a factor of 4
	want := 0.01 * math.Pow(4, math.Log(1/0.6)/math.Log(2))
	require.Equal(t, reports.Time(reports.Bare(want)).Text, text)
}

// Of 10 questions the small model answers 4 and the large 8. A cascade that sends
// 3 of 10 gets 7 right, one that sends 6 gets 8: PGR 3/4 and 1. Under the straight
// lines 0, 3/4, 1, 1 at shares 0, 0.3, 0.6, 1 lie 0.1125 + 0.2625 + 0.4 = 0.775. Half
// the gap is there at 0.2, 80 % at 0.3 + 0.3/5 = 0.36.
func TestTwoModels(t *testing.T) {
	m := newMaker(t)
	answers := func(right, sentOn int, took time.Duration) (out []asks) {
		for i := range 10 {
			a := asks{first: took, counts: map[record.Counter]int64{}}
			if i < right {
				a.quality = 1
			}
			if i < sentOn {
				a.counts[record.Escalated] = 1
			}
			out = append(out, a)
		}
		return out
	}
	m.cell("pipeline=local/model=small", nil, answers(4, 0, 1*ms))
	m.cell("pipeline=offload/model=large", nil, answers(8, 0, 50*ms))
	p := func(x float64) map[string]any { return map[string]any{"threshold": x, "small": "small"} }
	m.cell("pipeline=cascade/threshold=0.9", p(0.9), answers(8, 6, 30*ms))
	m.cell("pipeline=cascade/threshold=0", p(0), answers(4, 0, 2*ms))
	m.cell("pipeline=cascade/threshold=0.5", p(0.5), answers(7, 3, 10*ms))
	m.cell("pipeline=cascade/threshold=2", p(2), answers(8, 10, 60*ms))
	mixes := mixesOf(m.d.Groups)
	require.Len(t, mixes, 1)
	require.Equal(t, []float64{0, 0.3, 0.6, 1}, mixes[0].shares)
	q := mixes[0].curve()
	require.InDelta(t, 0.775, q.APGR(), 1e-12)
	require.InDelta(t, 0.2, q.CPT(0.5), 1e-12)
	require.InDelta(t, 0.36, q.CPT(0.8), 1e-12)
	s := collaboration(m.d.Groups)
	require.Contains(t, strings.Join(s.Lead, "\n"), "recovers 77.5 % of the gap in quality on average over shares (chance: 50 %), half of it with 20.0 % sent to the large model and 80 % with 36.0 %. But the gap is small, 0.400 to 0.800, and so few questions do not tell the two models apart")
	var front []string
	for _, g := range pareto(m.d.Groups) {
		front = append(front, label(g))
	}
	require.Equal(t, []string{"local small", "cascade threshold=0.5", "cascade threshold=0.9"}, front, "offload is as good as the last, later")
}

// Consultation counts tokens: 3 questions about 4 requests of 5 tokens each are 15 %.
func TestShareOfConsultation(t *testing.T) {
	m := newMaker(t)
	one := asks{first: ms, tpot: ms, tokens: 5, counts: map[record.Counter]int64{record.Escalated: 1}}
	list := append(same(3, one), asks{first: ms, tpot: ms, tokens: 5})
	require.InDelta(t, 0.15, sent(m.cell("pipeline=consult", nil, list)), 1e-12)
	require.InDelta(t, 0.75, sent(m.cell("pipeline=cascade", nil, list)), 1e-12)
}

// Without a gap there is nothing to recover, and the report says so.
func TestTwoModelsWithoutGap(t *testing.T) {
	m := newMaker(t)
	one := same(4, asks{first: ms, quality: 1})
	m.cell("pipeline=local/model=small", nil, one)
	m.cell("pipeline=offload/model=large", nil, one)
	for _, x := range []string{"0", "0.5", "2"} {
		m.cell("pipeline=cascade/threshold="+x, map[string]any{"small": "small"}, one)
	}
	require.Contains(t, strings.Join(collaboration(m.d.Groups).Lead, "\n"), "the large model alone scores 1.00, the small one 1.00: there is no gap to recover")
}

// Requests with 2, 4 and 8 of 8 layers are in bins ≤ 40 %, ≤ 60 % and ≤ 100 %; in
// all 14 of 24 layers ran.
func TestLayers(t *testing.T) {
	m := newMaker(t)
	var list []asks
	for _, n := range []int64{2, 4, 8} {
		list = append(list, asks{first: ms, quality: 1, counts: map[record.Counter]int64{record.LayersRun: n, record.LayersFull: 8}})
	}
	g := m.cell("pipeline=exit/threshold=0.5", map[string]any{"threshold": 0.5, "measure": "maxprob", "rest": "device"}, list)
	require.Equal(t, [depthBins]int{0, 1, 1, 0, 1}, histogram(g))
	require.InDelta(t, 14.0/24, depth(g), 1e-12)
	edge := m.cell("pipeline=exit/threshold=0.4", map[string]any{"threshold": 0.4, "measure": "maxprob", "rest": "edge"},
		same(1, asks{first: ms, quality: 0, counts: map[record.Counter]int64{record.LayersRun: 4, record.LayersFull: 10}}))
	require.Equal(t, [depthBins]int{0, 1, 0, 0, 0}, histogram(edge), "40 % is inside ≤ 40 %")
	full := asks{first: 2 * ms, quality: 1, counts: map[record.Counter]int64{record.LayersRun: 8, record.LayersFull: 8}}
	m.cell("pipeline=exit/threshold=2", map[string]any{"threshold": 2.0, "measure": "maxprob", "rest": "device"}, same(3, full))
	s := exits(m.d.Groups)
	require.Contains(t, s.Lead[0], "threshold 0.5 runs 58.3 % of the layers at no loss of quality (1.00 against 1.00)")
}

// Cut 1 takes 10 and 30 ms, cut 2 takes 20 and 20 ms, the chooser 12 and 22 ms. The
// oracle takes 10 and 20, mean 15; the chooser's mean is 17: regret 2/15. Both cuts
// have a mean of 20. A request that only the chooser had does not count.
func TestRegret(t *testing.T) {
	m := newMaker(t)
	took := func(ds ...time.Duration) (out []asks) {
		for _, d := range ds {
			out = append(out, asks{first: d, quality: math.NaN()})
		}
		return out
	}
	m.cell("pipeline=split/cut=1", map[string]any{"cut": 1.0, "wire": "f32"}, append(took(10*ms, 30*ms), asks{first: ms, failed: true}))
	m.cell("pipeline=split/cut=2", map[string]any{"cut": 2.0, "wire": "f32"}, append(took(20*ms, 20*ms), asks{first: ms, failed: true}))
	g := m.cell("pipeline=split/adapt=bandit", map[string]any{"adapt": "bandit", "cut": 0.5, "wire": "f32"}, took(12*ms, 22*ms, ms))
	l := regretOf(g, m.d.Groups[:2])
	require.Equal(t, 2, l.N)
	require.InDelta(t, 0.017, l.Mean, 1e-12)
	require.InDelta(t, 0.015, l.Oracle, 1e-12)
	require.InDelta(t, 0.020, l.Static, 1e-12)
	require.InDelta(t, 2.0/15, l.Regret(), 1e-12)
	require.Equal(t, "cut 1", l.BestCut)
	require.Contains(t, regrets(m.d.Groups).Lead[0], "against the best of 2 fixed cuts for every request, bandit 13.3 %.")
}

// A cut that lost a request is not the best single cut, however quick its others were.
func TestRegretOfLostRequests(t *testing.T) {
	m := newMaker(t)
	ok := func(d time.Duration) asks { return asks{first: d, quality: math.NaN()} }
	m.cell("pipeline=split/cut=1", map[string]any{"cut": 1.0}, []asks{ok(ms), {first: ms, failed: true}})
	m.cell("pipeline=split/cut=2", map[string]any{"cut": 2.0}, []asks{ok(20 * ms), ok(20 * ms)})
	g := m.cell("pipeline=split/adapt=path", map[string]any{"adapt": "path"}, []asks{ok(10 * ms), ok(30 * ms)})
	l := regretOf(g, m.d.Groups[:2])
	require.Equal(t, "cut 2", l.BestCut)
	require.InDelta(t, 0.020, l.Static, 1e-12)
	require.InDelta(t, 0.0105, l.Oracle, 1e-12)
}

func TestCuts(t *testing.T) {
	m := newMaker(t)
	for i, took := range []time.Duration{30 * ms, 10 * ms} {
		for _, wire := range []string{"f32", "int8"} {
			cut := float64(i + 1)
			g := m.cell("pipeline=split/cut="+setting(cut)+"/wire="+wire, map[string]any{"cut": cut, "wire": wire, "tail": 0.0}, same(7, asks{first: took, quality: 1}))
			g.Cell.Figures = map[string]float64{"recovered_share": map[string]float64{"f32": 1, "int8": 0.5}[wire] / cut}
		}
	}
	s := cuts(m.d.Groups)
	require.Len(t, s.Tables[0].Groups[0].Rows, 4)
	require.Equal(t, "Cuts, robot on desk, large, emulated: fastest is cut 2 with f32, E2E p50 10.0 ms [10.0, 10.0]; slowest cut 1 with f32, 30.0 ms [30.0, 30.0]. Bytes up per request: 1.00 kB (f32) to 1.00 kB (f32). "+
		"An attack reads 100 % of the prompt's tokens at cut 1 with f32, and still 25.0 % at cut 2 with int8.", s.Lead[0])
}

// Two runs found 4 and 6 requests per second within [3, 5] and [5, 8]: the median of
// two is between, the bounds are the widest. Without an upper bound no rate failed.
// TestSettingsWithoutAValidCell: what is INVALID neither meets limits nor misses them.
func TestSettingsWithoutAValidCell(t *testing.T) {
	m := newMaker(t)
	m.cell("app=a/pipeline=local", nil, same(4, asks{first: ms}))
	m.cell("app=a/pipeline=split", nil, same(4, asks{first: ms}))
	m.cell("app=b/pipeline=split", nil, same(4, asks{first: 500 * ms}))
	c := m.cell("app=c/pipeline=split", nil, same(4, asks{first: ms}))
	for i := range c.Cells {
		c.Cells[i].Valid = false
	}
	lead := placements(m.d, m.d.Groups).Lead[0]
	require.Contains(t, lead, "in 1 of 2 settings some way to serve meets the limits; none does in: b on desk")
	require.Contains(t, lead, "Not judged, as every cell is INVALID: c on desk")
}

func TestCapacity(t *testing.T) {
	m := newMaker(t)
	g := m.cell("pipeline=offload", nil, same(1, asks{first: ms}), same(1, asks{first: ms}))
	g.Cell.Figures = map[string]float64{"capacity_rps": 4}
	g.Cells[0].Figures = map[string]float64{"capacity_rps": 4, "capacity_lo": 3, "capacity_hi": 5, "capacity_probes": 9}
	g.Cells[1].Figures = map[string]float64{"capacity_rps": 6, "capacity_lo": 5, "capacity_hi": 8, "capacity_probes": 9}
	c := capacity(g)
	require.Equal(t, []float64{5, 3, 8}, []float64{c.V, c.Lo, c.Hi})
	delete(g.Cells[1].Figures, "capacity_hi")
	require.Equal(t, "at least 5.0 [3.0, –]", capacityText(capacity(g)).String())
	require.Contains(t, capacities(m.d.Groups).Lead[0], "most under the limits: offload, at least 5.0 [3.0, –] requests per second.")
}

// Of four requests one takes 10 ms, one 11 ms, one 2 s, and one fails: a quarter is
// inside 10 ms, half inside 15 ms, three quarters inside 2 s.
func TestLevels(t *testing.T) {
	m := newMaker(t)
	g := m.cell("pipeline=split", nil, []asks{{first: 10 * ms}, {first: 11 * ms}, {first: 2 * time.Second}, {first: ms, failed: true}})
	require.Equal(t, []float64{0.25, 0.5, 0.5, 0.75}, []float64{inside(g, 10*ms), inside(g, 15*ms), inside(g, time.Second), inside(g, 2*time.Second)})
	require.Contains(t, honest(), "in 10 ms, prompt of 1, before any network or queue")
}

// Figures are files: two of one name would be one.
func TestFigureNames(t *testing.T) {
	s := []reports.Section{{Figures: []reports.Figure{{Name: "a"}, {Name: "b"}}}, {Figures: []reports.Figure{{Name: "a"}}}}
	distinguish(s)
	require.Equal(t, []string{"a", "b", "a-no-2"}, []string{s[0].Figures[0].Name, s[0].Figures[1].Name, s[1].Figures[0].Name})
}

func TestPublished(t *testing.T) {
	ours := func(v float64) func() float64 { return func() float64 { return v } }
	s := compared([]published.Target{
		{ID: "a", Quantity: "x", Value: 2, Source: "s", Evidence: published.Paper, Tolerance: 0.1, Ours: ours(2.1)},
		{ID: "b", Quantity: "y", Value: 2, Source: "s", Evidence: published.Recalled, Tolerance: 0.1, Ours: ours(3)},
	})
	require.Equal(t, "Published against ours: 1 of 2 figures are within their tolerance; missed: b.", s.Lead[0])
	rows := s.Tables[0].Groups[0].Rows
	require.Equal(t, []string{"met", "missed"}, []string{rows[0].Values[6].Text, rows[1].Values[6].Text})
	require.Equal(t, "50.0 %", rows[1].Values[4].Text)
	require.Equal(t, "2.00 (recalled)", rows[1].Values[2].String(), "what is recalled is never printed as the paper's")
}

// hostile cells lack what sections look for, or hold nonsense.
func hostile(t testing.TB) *reports.Data {
	m := newMaker(t)
	nan := math.NaN()
	for _, name := range []string{"pipeline=split/cut=1", "pipeline=split/cut=2", "pipeline=speculate/gamma=4/rtt=0.1", "pipeline=cascade/threshold=1", "pipeline=route", "pipeline=consult",
		"pipeline=exit/threshold=0.5", "pipeline=offload/rtt=0.1", "pipeline=offload/rtt=0.2", "pipeline=local/mbps=1", "part=x/pipeline=split/adapt=bandit", "//=/=="} {
		for k, list := range [][]asks{nil, {{failed: true, quality: nan}}, {{first: ms, quality: nan, counts: map[record.Counter]int64{record.Verified: 1, record.LayersFull: 1}}}} {
			params := map[string]any{"cut": float64(k), "gamma": nan, "rtt": math.Inf(1), "threshold": "word", "wire": 3.0, "adapt": "bandit"}
			if k == 2 {
				params = map[string]any{"cut": 2.0, "gamma": 4.0, "rtt": 0.1, "threshold": 0.5, "wire": "f32", "budget": 1.0}
			}
			m.cell(name+"/k="+setting(float64(k)), params, list)
		}
	}
	for _, g := range m.d.Groups {
		g.Cell.Figures = map[string]float64{"capacity_rps": nan, "recovered_share": nan}
	}
	return m.d
}

// Whatever the records hold, there is a report, and the same one twice.
func TestHostileRecords(t *testing.T) {
	page := func() string {
		d := hostile(t)
		r := reports.Build(d, Sections(d)...)
		var h, md bytes.Buffer
		require.NoError(t, r.HTML(&h))
		require.NoError(t, r.Markdown(&md))
		return h.String() + md.String()
	}
	first := page()
	require.Equal(t, first, page())
	require.NotContains(t, first, "NaN")
	if *look != "" {
		d := hostile(t)
		_, err := reports.Build(d, Sections(d)...).Write(*look)
		require.NoError(t, err)
	}
	empty := reports.NewData()
	require.Empty(t, Sections(empty))
}

// No rate at all is said in words; counts are whole numbers.
func TestNoCapacity(t *testing.T) {
	m := newMaker(t)
	g := m.cell("pipeline=local", nil, []asks{{first: ms}})
	g.Cell.Figures = map[string]float64{"capacity_rps": 0, "capacity_lo": 0, "capacity_hi": 0.001, "capacity_probes": 40, "capacity_dips": 1}
	g.Cells[0].Figures = g.Cell.Figures
	s := capacities(m.d.Groups)
	require.Contains(t, s.Lead[0], "no placement keeps the limits at any rate")
	row := s.Tables[0].Groups[0].Rows[0]
	require.Equal(t, []string{"40", "1"}, []string{row.Values[2].Text, row.Values[3].Text})
}

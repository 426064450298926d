package fitting

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/internal/rng"
)

// lawful is a made-up machine: what it is told about coefficients, wake-up and fade
// is what a fit has to find.
type lawful struct {
	prefill, decode profiles.Coefficients
	wake            profiles.Wake
	gap             time.Duration
	noise           func() float64
}

// live makes a trace of requests that come after rests, or at once every third time,
// each a prompt and some steps. batch says how many sequences a step has.
func (l lawful) live(requests int, batch func(i int) int) Trace {
	var out Trace
	now, cold := time.Duration(0), 0.0
	run := func(kind hardware.Kind, c profiles.Coefficients, size costmodel.Size) {
		span := hardware.Span{Hi: 4}
		whole := l.wake.Prefill
		if kind == hardware.Decode {
			whole = l.wake.Decode
		}
		sec := (costmodel.Seconds(&c, costmodel.RowFor(kind, span, 4, size), 4) + whole*cold) * l.noise()
		cold *= l.wake.Fade
		end := now + time.Duration(math.Round(sec*1e9))
		out = append(out, Timed{Model: "toy", Kind: kind, Span: span, Of: 4, Size: size, Start: now, End: end})
		now = end + l.gap
	}
	for i := range requests {
		if i%3 != 2 {
			now += 20 * time.Millisecond
			cold = 1
		}
		n := 8 + i*37%150
		run(hardware.Prefill, l.prefill, costmodel.Size{Sequences: 1, Tokens: n, Pairs: float64(n * (n + 1) / 2)})
		for k := range 8 {
			b := batch(i)
			run(hardware.Decode, l.decode, costmodel.Size{Sequences: b, Tokens: b, Pairs: float64(b * (n + k + 1))})
		}
	}
	return out
}

func steady() float64 { return 1 }

func machine() lawful {
	return lawful{
		prefill: profiles.Coefficients{Pass: 100e-6, Token: 3e-6, Pair: 4e-9},
		decode:  profiles.Coefficients{Pass: 80e-6, Token: 5e-6, Pair: 50e-9},
		wake:    profiles.Wake{Decode: 90e-6, Prefill: 150e-6, Fade: 0.5},
		gap:     3 * time.Microsecond, noise: steady,
	}
}

// TestTraceFitFindsTheMachine: what a made-up machine was told comes back.
func TestTraceFitFindsTheMachine(t *testing.T) {
	m := machine()
	fit, err := FitTrace([]Trace{m.live(80, func(i int) int { return 1 + i%4 })}, "toy")
	require.NoError(t, err)
	require.InEpsilon(t, 0.5, fit.Wake.Fade, 1e-9)
	require.InEpsilon(t, 90e-6, fit.Wake.Decode, 0.01)
	require.InEpsilon(t, 150e-6, fit.Wake.Prefill, 0.01)
	require.InEpsilon(t, 3e-6, fit.Gap, 1e-3)
	require.Zero(t, fit.Decode.Knee)
	require.InEpsilon(t, 5e-6, fit.Decode.Token, 0.01)
	require.InEpsilon(t, 50e-9, fit.Decode.Pair, 0.01)
	require.InEpsilon(t, 3e-6, fit.Prefill.Token, 0.01)
	require.Less(t, fit.P90Error, 1e-3)
	for _, q := range [][]float64{fit.Spread.Slots, fit.Spread.Ops} {
		require.InDelta(t, 1, q[0], 1e-3)
		require.InDelta(t, 1, q[len(q)-1], 1e-3)
	}
}

// TestTraceFitFindsTwoSegments: up to six sequences a token costs 1 µs a layer, then 8.
func TestTraceFitFindsTwoSegments(t *testing.T) {
	m := machine()
	m.wake = profiles.Wake{}
	m.decode = profiles.Coefficients{Pass: 50e-6, Token: 1e-6, Knee: 6, More: 8e-6}
	fit, err := FitTrace([]Trace{m.live(80, func(i int) int { return 1 + i%16 })}, "toy")
	require.NoError(t, err)
	require.Equal(t, 6.0, fit.Decode.Knee)
	require.InEpsilon(t, 1e-6, fit.Decode.Token, 0.02)
	require.InEpsilon(t, 8e-6, fit.Decode.More, 0.02)
	require.Zero(t, fit.Wake)
}

// TestIntervalsCover: an interval from one half of a noisy trace, nominally 80 %, holds
// for the other half.
func TestIntervalsCover(t *testing.T) {
	luck := rng.NewKey(4, "noise").At(0)
	m := machine()
	m.noise = func() float64 { return rng.LogNormal(&luck, 0, 0.15) }
	seen, unseen := m.live(400, func(int) int { return 1 }), m.live(400, func(int) int { return 1 })
	fit, err := FitTrace([]Trace{seen}, "toy")
	require.NoError(t, err)
	g := gather([]Trace{unseen}, "toy")
	g.chill([]Trace{unseen}, "toy", fit.Wake.Fade)
	inside, n := [2]int{}, [2]int{}
	for k, law := range []struct {
		c    profiles.Coefficients
		wake float64
		in   profiles.Bounds
	}{{fit.Prefill, fit.Wake.Prefill, fit.Interval.Prefill}, {fit.Decode, fit.Wake.Decode, fit.Interval.Decode}} {
		c := vec{law.c.Pass, law.c.Layer, law.c.Token, law.c.Pair, law.c.Head, law.c.HeadToken, 0, law.wake}
		for i := range g[k].rows {
			if r := g[k].secs[i] / g[k].rows[i].dot(&c); r >= law.in.Lo && r <= law.in.Hi {
				inside[k]++
			}
			n[k]++
		}
	}
	for k := range n {
		covered := float64(inside[k]) / float64(n[k])
		require.True(t, covered >= 0.75 && covered <= 0.85, "kind %d: %.3f of %d", k, covered, n[k])
	}
	all := float64(inside[0]+inside[1]) / float64(n[0]+n[1])
	require.True(t, all >= 0.78 && all <= 0.85, "%.3f", all)
}

func TestTraceFitSaysWhatIsMissing(t *testing.T) {
	m := machine()
	whole := m.live(20, func(int) int { return 1 })
	keep := func(want func(o Timed) bool) (out Trace) {
		for _, o := range whole {
			if want(o) {
				out = append(out, o)
			}
		}
		return out
	}
	for name, tc := range map[string]struct {
		trace Trace
		want  string
	}{
		"nothing":   {nil, "fit toy: 0 timed prefills: want at least 8"},
		"no decode": {keep(func(o Timed) bool { return o.Kind == hardware.Prefill }), "0 timed decode steps"},
		"one point": {keep(func(o Timed) bool { return o.Kind == hardware.Decode || o.Size == whole[0].Size }), "1 timed prefills"},
	} {
		_, err := FitTrace([]Trace{tc.trace}, "toy")
		require.ErrorContains(t, err, tc.want, name)
	}
	var same Trace
	for range 10 {
		same = append(same, whole[0], whole[1])
	}
	_, err := FitTrace([]Trace{same}, "toy")
	require.ErrorContains(t, err, "one point that a law cannot be drawn through")
}

// TestTableKeepsTheMean: one value of a thousand must not weigh as one of forty.
func TestTableKeepsTheMean(t *testing.T) {
	var v []float64
	for i := range 1000 {
		v = append(v, 1+float64(i%100)/1000)
	}
	v[0] = 50
	mean := 0.0
	for _, x := range v {
		mean += x / 1000
	}
	q := table(v)
	got := (q[0] + q[len(q)-1]) / 2
	for _, x := range q[1 : len(q)-1] {
		got += x
	}
	require.InEpsilon(t, mean, got/(quantiles-1), 1e-3)
	require.Less(t, q[len(q)-1], 10.0)
}

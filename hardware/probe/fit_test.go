package probe

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/kernel"
	"meibench/hardware/profiles"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
)

func tiny(t testing.TB) kernel.Loaded {
	w, err := llm.New(llm.Config{Arch: llm.Llama, Layers: 3, Dim: 32, Heads: 4, KVHeads: 2, FFN: 64, Vocab: 61, Context: 64}, 1)
	require.NoError(t, err)
	return kernel.Loaded{Spec: tinySpec(), Weights: w, End: -1}
}

func tinySpec() *hardware.Model {
	return &hardware.Model{Name: "tiny", Layers: 3, Dim: 32, Heads: 4, KVHeads: 2, HeadDim: 8, FFN: 64, Vocab: 61, BytesPerWeight: 4, KVBytes: 4}
}

// law is a made-up machine: 20 µs a pass, 10 µs a layer and so on.
func law() profiles.Fit {
	return profiles.Fit{Model: "tiny", Kernel: "none", Source: "made up", Kind: profiles.Assumed,
		Prefill: profiles.Coefficients{Pass: 50e-6, Layer: 10e-6, Token: 3e-6, Pair: 10e-9, Head: 20e-6, HeadToken: 5e-6},
		Decode:  profiles.Coefficients{Pass: 20e-6, Layer: 15e-6, Token: 5e-6, Pair: 90e-9, Head: 12e-6, HeadToken: 6e-6}}
}

// lived is a timer after rounds on the made-up machine: 2 % of noise, 300 µs for
// waking up before a decode step, and every third trial loses its processor for
// a time slice.
func lived(rounds int) *timer {
	t := &timer{model: tinySpec(), context: 300, times: map[key][]trial{}, count: rounds}
	truth, r := law(), rng.Stream(1, "noise")
	for _, s := range scenarios(t.model, t.context) {
		for _, kind := range []hardware.Kind{hardware.Prefill, hardware.Decode} {
			k := key{s, kind}
			op := k.op(t.model)
			for i := range rounds {
				sec := predict(&truth, &op).Seconds() * (1 + 0.02*(2*r.Float64()-1))
				if kind == hardware.Decode && k.slept() {
					sec += 300e-6
				}
				x := trial{took: units.Seconds(sec), lost: i%3 == 2}
				if x.lost {
					x.took += 3 * time.Millisecond
				}
				t.times[k] = append(t.times[k], x)
			}
		}
	}
	return t
}

func TestFitFindsTheLawBehindDisturbedTimes(t *testing.T) {
	fit, ev, err := lived(12).fit()
	require.NoError(t, err)
	truth := law()
	m := tinySpec()
	for _, op := range []hardware.Op{ // none of these was timed
		{Kind: hardware.Prefill, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: 200}}},
		{Kind: hardware.Prefill, Model: m, Layers: hardware.Span{Hi: 2}, Seqs: []hardware.Seq{{New: 30}, {New: 70}}},
		{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: 1, Context: 140}}},
		{Kind: hardware.Decode, Model: m, Layers: hardware.Span{Lo: 2, Hi: 3}, Seqs: []hardware.Seq{{New: 1, Context: 40}, {New: 1, Context: 90}, {New: 1, Context: 3}}},
	} {
		require.InEpsilon(t, predict(&truth, &op).Seconds(), predict(&fit, &op).Seconds(), 0.02, "%s of %v", op.Kind, op.Seqs)
	}
	require.Less(t, ev.HeldMedian, 0.02, "noise of 2 % averages out")
	require.Less(t, ev.HeldP90, 0.04)
	require.InEpsilon(t, 300e-6, ev.WakeDecode.Value, 0.05)
	require.Less(t, math.Abs(ev.WakePrefill.Value), 5e-6)
	for _, x := range ev.Timings {
		require.Equal(t, 12, x.N)
		require.Equal(t, x.N*2/3, x.Clean, "every third trial lost its processor")
	}
}

func TestFitRefusesAMachineTooBusyToMeasure(t *testing.T) {
	busy := lived(3)
	for k, trials := range busy.times {
		for i := range trials {
			trials[i].lost = k.kind == hardware.Prefill || k.batch > 1
		}
	}
	_, _, err := busy.fit()
	require.ErrorContains(t, err, "ever ran undisturbed: stop other programs")
}

func TestUndisturbed(t *testing.T) {
	ms := func(lost bool, n ...int) (trials []trial) {
		for _, x := range n {
			trials = append(trials, trial{time.Duration(x) * time.Millisecond, lost})
		}
		return trials
	}
	for _, tc := range []struct {
		name   string
		trials []trial
		mean   time.Duration
		clean  int
	}{
		{"all alike", ms(false, 4, 4, 4), 4 * time.Millisecond, 3},
		{"a mean, not a median", ms(false, 4, 4, 7), 5 * time.Millisecond, 3},
		{"lost trials do not count", append(ms(false, 4, 6), ms(true, 1, 90)...), 5 * time.Millisecond, 2},
		{"a stopped host does not count", ms(false, 4, 4, 6, 6, 90), 5 * time.Millisecond, 4},
		{"nothing is left", ms(true, 4), 0, 0},
		{"nothing was there", nil, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mean, clean := undisturbed(tc.trials)
			require.Equal(t, tc.mean, mean)
			require.Equal(t, tc.clean, clean)
		})
	}
}

func TestPredictIsTheCostModelsLaw(t *testing.T) {
	sheet, err := profiles.Device("base-station-cpu")
	require.NoError(t, err)
	f := law()
	sheet.Fitted = []profiles.Fit{f}
	l := costmodel.NewLaw(sheet)
	m := tinySpec()
	for _, s := range scenarios(m, 64) {
		for _, kind := range []hardware.Kind{hardware.Prefill, hardware.Decode} {
			op := key{s, kind}.op(m)
			require.InDelta(t, l.Time(&op).Seconds(), predict(&f, &op).Seconds(), 2e-9, "%s %+v", kind, s)
		}
	}
}

func TestScenariosCoverWhatPipelinesAsk(t *testing.T) {
	m := tinySpec()
	spans, batches, longest := map[hardware.Span]bool{}, map[int]bool{}, 0
	for _, s := range scenarios(m, 64) {
		require.LessOrEqual(t, s.prompt+decodes, 64, "context holds prompt and answer")
		spans[s.span], batches[s.batch] = true, true
		longest = max(longest, s.prompt)
	}
	require.Equal(t, map[hardware.Span]bool{{Hi: 3}: true, {Hi: 1}: true, {Lo: 1, Hi: 3}: true}, spans)
	require.Equal(t, map[int]bool{1: true, 2: true, 4: true, 8: true}, batches)
	require.Equal(t, 58, longest)
	one := *m
	one.Layers = 1
	for _, s := range scenarios(&one, 64) {
		require.Equal(t, one.All(), s.span, "one layer cannot be cut")
	}
}

func TestFitModelTimesTheRealDevice(t *testing.T) {
	if testing.Short() {
		t.Skip("times the machine")
	}
	fit, ev, err := FitModel(t.Context(), tiny(t), Plan{Threads: 1, Budget: 100 * time.Millisecond})
	if err != nil {
		require.ErrorContains(t, err, "undisturbed", "the only excuse is a busy machine")
		t.Skip(err)
	}
	require.Equal(t, "tiny", fit.Model)
	require.GreaterOrEqual(t, ev.Rounds, 1)
	op := hardware.Op{Kind: hardware.Prefill, Model: tinySpec(), Layers: hardware.Span{Hi: 3}, Seqs: []hardware.Seq{{New: 40}}}
	long := predict(&fit, &op)
	op.Seqs[0].New = 10
	require.Greater(t, long, predict(&fit, &op), "more tokens take longer")
	require.Contains(t, fit.Source, "operations left out")
	require.Contains(t, fit.Kernel, "1 thread(s)")
}

func TestFitModelRefusesAShapeWithoutWeights(t *testing.T) {
	_, _, err := FitModel(t.Context(), kernel.Loaded{Spec: tinySpec()}, Plan{})
	require.ErrorContains(t, err, "needs weights")
}

func TestLargeModelsAreTimedOnSmallScenarios(t *testing.T) {
	m := tiny(t)
	slow, err := llm.New(llm.Config{Arch: llm.Llama, Layers: 3, Dim: 256, Heads: 4, KVHeads: 2, FFN: 1024, Vocab: 61, Context: 64}, 1)
	require.NoError(t, err)
	m.Weights = slow
	m.Spec.Dim, m.Spec.HeadDim, m.Spec.FFN = 256, 64, 1024
	_, ev, err := FitModel(t.Context(), m, Plan{Budget: time.Millisecond})
	if err != nil {
		require.ErrorContains(t, err, "undisturbed")
		t.Skip(err)
	}
	require.Less(t, ev.Rounds, leastRounds, "three times the budget is spent after the first round")
	for _, x := range ev.Timings {
		if x.Kind == "prefill" {
			require.LessOrEqual(t, x.New*x.Sequences, 32)
		}
	}
}

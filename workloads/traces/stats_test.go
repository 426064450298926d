package traces

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// The rows of the data notes (§1.1 and §1.2), computed there with numpy and
// scipy. They are printed with two to four digits, hence the tolerances.
func TestPublishedRows(t *testing.T) {
	for _, tc := range []struct {
		file                                     string
		n                                        int
		rate, cv, shape, scale, ks, weibull      float64
		idc                                      [3]float64
		peak1, peak60, lag1                      float64
		inMean, inCV, inP5, inP50, inP95, inMu   float64
		outMean, outCV, outP50, outP99, outSigma float64
		pearson, rank                            float64
	}{
		{"azure_llm_2023_conv.csv", 19_366, 5.53, 1.09, 0.871, 0.208, 0.017, 0.922, [3]float64{1.4, 3.9, 16.1}, 2.9, 1.5, 0.85,
			1155, 0.96, 181, 1020, 4083, 6.633, 211, 0.77, 129, 601, 0.859, -0.11, 0.07},
		{"azure_llm_2023_code.csv", 8_819, 2.57, 13.15, 0.231, 1.685, 0.218, 0.419, [3]float64{13.2, 71.6, 164}, 26.1, 4.2, 0.17,
			2048, 0.96, 75, 1469, 7303, 6.999, 27.9, 2.15, 13, 252, 0.847, 0.00, -0.02},
		{"mooncake_synthetic.jsonl.gz", 3_993, 3.91, 1.01, 1.018, 0.252, 0.012, 1.005, [3]float64{1.1, 1.2, 1.2}, 3.3, 1.2, 0.06,
			15_325, 1.20, 22, 11_590, 48_900, 7.982, 149, 1.20, 69, 768, 1.769, -0.37, -0.52},
	} {
		t.Run(tc.file, func(t *testing.T) {
			tr, err := Open(shared(t, tc.file), Options{})
			require.NoError(t, err)
			s := tr.Stats()
			require.Equal(t, tc.n, s.Requests)
			for _, c := range []struct {
				name      string
				want, got float64
				tol       float64 // relative: half a unit of the last digit printed
			}{
				{"rate", tc.rate, s.Rate, 0.002}, {"gap cv", tc.cv, s.GapCV, 0.005}, {"gamma k", tc.shape, s.Gamma.Shape, 0.003},
				{"gamma theta", tc.scale, s.Gamma.Scale, 0.003}, {"gamma KS", tc.ks, s.Gamma.KS, 0.04}, {"weibull c", tc.weibull, s.Weibull.Shape, 0.003},
				{"IDC 1 s", tc.idc[0], s.IDC[0], 0.04}, {"IDC 10 s", tc.idc[1], s.IDC[1], 0.04}, {"IDC 60 s", tc.idc[2], s.IDC[2], 0.04},
				{"peak 1 s", tc.peak1, s.Peak[0], 0.02}, {"peak 60 s", tc.peak60, s.Peak[2], 0.04}, {"lag 1", tc.lag1, s.Lag1, 0.07},
				{"in mean", tc.inMean, s.Prompt.Mean, 0.001}, {"in cv", tc.inCV, s.Prompt.CV, 0.006}, {"in p5", tc.inP5, s.Prompt.P5, 0.001},
				{"in p50", tc.inP50, s.Prompt.P50, 0.001}, {"in p95", tc.inP95, s.Prompt.P95, 0.001}, {"in mu", tc.inMu, s.Prompt.LogMu, 1e-4},
				{"out mean", tc.outMean, s.Output.Mean, 0.002}, {"out cv", tc.outCV, s.Output.CV, 0.006}, {"out p50", tc.outP50, s.Output.P50, 0.001},
				{"out p99", tc.outP99, s.Output.P99, 0.003}, {"out sigma", tc.outSigma, s.Output.LogSigma, 0.001},
			} {
				require.InEpsilon(t, c.want, c.got, c.tol, c.name)
			}
			require.InDelta(t, tc.pearson, s.Pearson, 0.006)
			require.InDelta(t, tc.rank, s.Rank, 0.006)
		})
	}
}

// 288,500 blocks, 182,790 different: 36.6 percent seen before. The clock of
// the recording ticks in 3 s with 10.2 requests each (12,031 in 1,180 instants).
func TestMooncakeConversation(t *testing.T) {
	tr, err := Open(shared(t, "mooncake_conversation.jsonl.gz"), Options{})
	require.NoError(t, err)
	s := tr.Stats()
	require.Equal(t, []int{12_031, 288_500, 182_790}, []int{s.Requests, s.Blocks, s.UniqueBlocks})
	require.InDelta(t, 0.366, s.Reuse, 0.0005)
	require.Len(t, tr.Notes, 1)
	require.Contains(t, tr.Notes[0], "ticks of 3s with 10.2 requests each")
	require.InEpsilon(t, 3.40, s.Rate, 0.002)
	// Spread, the batches look like a Poisson process inside their tick.
	require.InDelta(t, 1, s.GapCV, 0.1)
	require.Less(t, s.IDC[0], 1.5, "7.9 before")
	raw, err := Open(shared(t, "mooncake_conversation.jsonl.gz"), Options{NoSpread: true})
	require.NoError(t, err)
	before := raw.Stats()
	for i, want := range []float64{7.9, 2.1, 3.0} { // data notes §1.1
		require.InEpsilon(t, want, before.IDC[i], 0.04)
	}
}

// Maximum likelihood finds the parameters of samples: standard errors of about
// k sqrt(1/n) at n = 50,000 are under one percent.
func TestFitsFindWhatWasDrawn(t *testing.T) {
	const n = 50_000
	r := rng.Stream(1, "fits")
	gamma, weibull := make([]float64, n), make([]float64, n)
	for i := range n {
		gamma[i], weibull[i] = 3*rng.Gamma(r, 0.231), 0.063*rng.Weibull(r, 0.419)
	}
	sortFloats(gamma)
	sortFloats(weibull)
	g, w := fitGamma(gamma), fitWeibull(weibull)
	require.InEpsilon(t, 0.231, g.Shape, 0.02)
	require.InEpsilon(t, 3, g.Scale, 0.04)
	require.Less(t, g.KS, 1.63/math.Sqrt(n), "the 1 percent point of the Kolmogorov distribution")
	require.InEpsilon(t, 0.419, w.Shape, 0.02)
	require.InEpsilon(t, 0.063, w.Scale, 0.04)
	require.Less(t, w.KS, 1.63/math.Sqrt(n))
}

func TestSpecialFunctions(t *testing.T) {
	const euler = 0.57721566490153286
	for _, tc := range []struct {
		name      string
		got, want float64
	}{
		{"digamma(1) = -gamma", digamma(1), -euler},
		{"digamma(1/2) = -gamma - 2 ln 2", digamma(0.5), -euler - 2*math.Ln2},
		{"trigamma(1) = pi^2/6", trigamma(1), math.Pi * math.Pi / 6},
		{"trigamma(1/2) = pi^2/2", trigamma(0.5), math.Pi * math.Pi / 2},
		{"P(1, x) = 1 - e^-x, series", gammaCDF(1, 0.5), 1 - math.Exp(-0.5)},
		{"P(1, x) = 1 - e^-x, fraction", gammaCDF(1, 5), 1 - math.Exp(-5)},
		{"P(1/2, x) = erf(sqrt x)", gammaCDF(0.5, 3), math.Erf(math.Sqrt(3))},
		{"P(2, x) = 1 - (1+x) e^-x", gammaCDF(2, 2.9), 1 - 3.9*math.Exp(-2.9)},
	} {
		require.InEpsilon(t, tc.want, tc.got, 1e-9, tc.name)
	}
	require.Zero(t, gammaCDF(1, 0))
}

// Four requests at 0, 1, 1 and 4 s, by hand: gaps 1, 0, 3 have mean 4/3 and
// variance (1+0+9)/3 - 16/9 = 14/9, so CV = sqrt(14/9)/(4/3) = 0.935; whole
// windows of 1 s hold 1, 2, 0, 0: mean 3/4, variance 5/4 - 9/16 = 11/16.
func TestStatsByHand(t *testing.T) {
	tr := &Trace{Name: "hand", Format: "azure", Factor: 1, Rows: []Row{
		{Prompt: 10, Output: 1, Session: -1, Type: -1}, {At: time.Second, Prompt: 20, Output: 2, Session: -1, Type: -1},
		{At: time.Second, Prompt: 30, Output: 3, Session: -1, Type: -1}, {At: 4 * time.Second, Prompt: 40, Output: 4, Session: -1, Type: -1},
	}}
	s := tr.Stats()
	require.InDelta(t, 0.935, s.GapCV, 0.001)
	require.Equal(t, 1, s.Together)
	require.InDelta(t, 11.0/12, s.IDC[0], 1e-12)
	require.InDelta(t, 8.0/3, s.Peak[0], 1e-12)
	require.True(t, math.IsNaN(s.IDC[1]), "no two windows of 10 s")
	require.Equal(t, 25.0, s.Prompt.P50)
	require.InDelta(t, 1, s.Pearson, 1e-12)
	require.InDelta(t, 1, s.Rank, 1e-12)
	var b bytes.Buffer
	require.NoError(t, s.WriteText(&b))
	require.Contains(t, b.String(), "hand (azure)")
	require.Contains(t, b.String(), "prompt tokens")
	require.NotContains(t, b.String(), "images")
	one := (&Trace{Rows: tr.Rows[:1], Factor: 1}).Stats()
	require.Zero(t, one.Rate)
	require.True(t, math.IsNaN(one.GapCV))
}

func TestRanksShareTies(t *testing.T) {
	require.Equal(t, []float64{0, 1.5, 1.5, 3}, ranks([]float64{1, 5, 5, 9}))
}

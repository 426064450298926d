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

// truth is a made-up kernel: 20 µs a call, 50 µs a layer, ...
var truth = profiles.Coefficients{Pass: 20e-6, Layer: 50e-6, Token: 3e-6, Pair: 4e-9, Head: 70e-6, HeadToken: 2e-6}

// timings samples the made-up kernel over spans, lengths, contexts and batches.
func timings(kind hardware.Kind, noise func(i int) float64) (samples []Sample) {
	m := toy()
	for _, span := range []hardware.Span{m.All(), {Lo: 0, Hi: 1}, {Lo: 0, Hi: 2}, {Lo: 2, Hi: 4}} {
		for _, batch := range []int{1, 2, 8} {
			for _, context := range []int{0, 100, 1000} {
				for _, n := range []int{1, 16, 200} {
					if kind == hardware.Decode && n > 1 {
						continue
					}
					op := hardware.Op{Kind: kind, Model: m, Layers: span}
					for id := range batch {
						op.Seqs = append(op.Seqs, hardware.Seq{ID: int64(id), Context: context, New: n})
					}
					row := costmodel.RowOf(&op)
					sec := row.Dot(&costmodel.Row{truth.Pass, truth.Layer, truth.Token, truth.Pair, truth.Head, truth.HeadToken})
					samples = append(samples, Sample{Op: op, Time: time.Duration(sec * noise(len(samples)) * 1e9)})
				}
			}
		}
	}
	return samples
}

func exact(int) float64 { return 1 }

func TestFitFindsTheCoefficients(t *testing.T) {
	for _, kind := range []hardware.Kind{hardware.Prefill, hardware.Decode, hardware.Verify} {
		t.Run(kind.String(), func(t *testing.T) {
			fit, residuals, err := FitOps(timings(kind, exact))
			require.NoError(t, err)
			got, other := fit.Prefill, fit.Decode
			if kind == hardware.Decode {
				got, other = other, got
			}
			require.Zero(t, other)
			for _, c := range [][2]float64{{truth.Pass, got.Pass}, {truth.Layer, got.Layer}, {truth.Token, got.Token},
				{truth.Pair, got.Pair}, {truth.Head, got.Head}, {truth.HeadToken, got.HeadToken}} {
				require.InEpsilon(t, c[0], c[1], 0.01) // times are rounded to 1 ns in 100 µs
			}
			require.Less(t, fit.P90Error, 1e-4)
			require.Equal(t, "toy", fit.Model)
			require.Len(t, residuals, fit.Samples)
		})
	}
}

// TestFitIsRobust: 5 % noise, and every ninth timing interrupted for three times as long.
func TestFitIsRobust(t *testing.T) {
	luck := rng.NewKey(1, "noise").At(0)
	samples := timings(hardware.Prefill, func(i int) float64 {
		if i%9 == 4 {
			return 3
		}
		return 1 + 0.05*(luck.Float64()-0.5)
	})
	fit, residuals, err := FitOps(samples)
	require.NoError(t, err)
	require.Less(t, fit.MedianError, 0.05)
	bad := 0
	for i, r := range residuals {
		if i%9 == 4 {
			require.Less(t, r.Relative, -0.5, "an outlier must stick out, not be fitted")
		} else if math.Abs(r.Relative) > 0.15 {
			bad++
		}
	}
	require.LessOrEqual(t, bad, len(residuals)/20)
}

// TestFitWithoutContrast: samples of the whole depth cannot tell calls from
// layers from head, but must still be predicted, also after a round trip
// through a law, and no coefficient may be negative.
func TestFitWithoutContrast(t *testing.T) {
	var samples []Sample
	for _, s := range timings(hardware.Decode, exact) {
		if s.Op.Layers.Len() == 4 {
			samples = append(samples, s)
		}
	}
	fit, _, err := FitOps(samples)
	require.NoError(t, err)
	require.Less(t, fit.P90Error, 1e-4)
	p := sheet()
	fit.Digest = ""
	p.Fitted = []profiles.Fit{fit}
	law := costmodel.NewLaw(p)
	for _, s := range samples {
		require.InEpsilon(t, float64(s.Time), float64(law.Time(&s.Op)), 1e-4)
	}
	for _, c := range []float64{fit.Decode.Pass, fit.Decode.Layer, fit.Decode.Token, fit.Decode.Pair, fit.Decode.Head, fit.Decode.HeadToken} {
		require.GreaterOrEqual(t, c, 0.0)
	}
}

// TestFitNeverGoesNegative: times that fall with length have no honest law; the
// best one without negative costs is a constant.
func TestFitNeverGoesNegative(t *testing.T) {
	m := toy()
	var samples []Sample
	for i, n := range []int{10, 20, 40} {
		samples = append(samples, Sample{Time: time.Duration(300-50*i) * time.Microsecond,
			Op: hardware.Op{Kind: hardware.Prefill, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: n}}}})
	}
	fit, _, err := FitOps(samples)
	require.NoError(t, err)
	require.Zero(t, fit.Prefill.Token)
	require.Zero(t, fit.Prefill.Pair)
}

func TestFitRefusesWhatItCannotUse(t *testing.T) {
	_, _, err := FitOps(nil)
	require.ErrorContains(t, err, "no samples")
	good := Sample{Op: *pass(hardware.Decode, hardware.Span{Hi: 4}, hardware.Seq{New: 1}), Time: 1}
	for name, spoil := range map[string]func(*Sample){
		"sample 1: kind load":       func(s *Sample) { s.Op.Kind = hardware.Load },
		"sample 1: time must be":    func(s *Sample) { s.Time = 0 },
		"must be of one model":      func(s *Sample) { s.Op.Model = &hardware.Model{Name: "other"} },
		"needs at least one sequen": func(s *Sample) { s.Op.Seqs = nil },
	} {
		bad := good
		spoil(&bad)
		_, _, err = FitOps([]Sample{good, bad})
		require.ErrorContains(t, err, name)
	}
}

func TestEveryFitSurvivesAProfile(t *testing.T) {
	fit, _, err := FitOps(append(timings(hardware.Prefill, exact), timings(hardware.Decode, exact)...))
	require.NoError(t, err)
	fit.Kernel, fit.Source, fit.Digest = "test", "this test", ""
	p := sheet()
	p.Fitted = []profiles.Fit{fit}
	text, err := p.YAML()
	require.NoError(t, err)
	require.Contains(t, string(text), "kernel: test")
	require.Equal(t, "fitted", costmodel.NewLaw(p).Tier(toy()))
}

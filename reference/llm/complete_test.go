package llm

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestI11CompleteProjectsTheState: what Complete leaves in each layer's cache is what that layer alone would store if the
// exit's hidden state were its input, bit for bit, with and without an adapter, behind other tokens.
func TestI11CompleteProjectsTheState(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		w, r := work(t, m, 2), rand.New(rand.NewPCG(1, 2))
		hidden := make([]float32, 6*m.Dim)
		for i := range hidden {
			hidden[i] = float32(r.NormFloat64())
		}
		a, err := m.NewAdapter(4, pairsOf(m, 2, 3))
		require.NoError(t, err)
		const lo = 1
		for _, adapter := range []*Adapter{nil, a} {
			got := cache(t, m, lo, m.Layers)
			for _, part := range [][]float32{hidden[:4*m.Dim], hidden[4*m.Dim:]} {
				require.NoError(t, w.Complete(lo, m.Layers, []Seq{{Hidden: part, Cache: got, Adapter: adapter}}))
			}
			require.Equal(t, 6, got.Len())
			for l := lo; l < m.Layers; l++ {
				alone := cache(t, m, l, l+1)
				require.NoError(t, w.Forward(l, l+1, []Seq{{Hidden: hidden, Cache: alone, Want: Hidden, Adapter: adapter}}))
				require.True(t, slices.Equal(contents(alone), contents(got.Span(l, l+1))), "layer %d", l)
			}
		}
	})
}

func TestConfidence(t *testing.T) {
	var s Sampler
	for _, tc := range []struct {
		name               string
		logits             []float32
		token              int32
		prob, margin, nats float64
	}{
		{"even", []float32{2, 2, 2, 2}, 0, 0.25, 0, math.Log(4)},
		{"sure", []float32{-50, 60, -50}, 1, 1, 1, 0},
		{"two to one", []float32{0, float32(math.Log(2))}, 1, 2. / 3, 1. / 3, math.Log(3) - 2./3*math.Log(2)}, // H of (1/3, 2/3)
		{"one ruled out", []float32{0, float32(math.Inf(-1)), 0}, 0, 0.5, 0, math.Log(2)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := s.Confidence(tc.logits)
			require.Equal(t, tc.token, c.Token)
			require.InDelta(t, tc.prob, c.MaxProb, 1e-6)
			require.InDelta(t, tc.margin, c.Margin, 1e-6)
			require.InDelta(t, tc.nats, c.Entropy, 1e-5)
		})
	}
	// Against the definitions in float64, for laws from flat to peaked.
	r := rand.New(rand.NewPCG(1, 1))
	for spread := 0.01; spread < 100; spread *= 2 {
		logits, z, top, second := make([]float32, 1000), 0.0, 0.0, 0.0
		for i := range logits {
			logits[i] = float32(spread * r.NormFloat64())
			z += math.Exp(float64(logits[i]))
		}
		entropy := 0.0
		for _, l := range logits {
			p := math.Exp(float64(l)) / z
			if p > 0 {
				entropy -= p * math.Log(p)
			}
			if p > top {
				top, second = p, top
			} else {
				second = max(second, p)
			}
		}
		c := s.Confidence(logits)
		require.InDelta(t, top, c.MaxProb, 1e-6, "spread %g", spread)
		require.InDelta(t, top-second, c.Margin, 1e-6, "spread %g", spread)
		require.InDelta(t, entropy, c.Entropy, 1e-5, "spread %g", spread)
	}
	logits := make([]float32, 1024)
	require.Zero(t, testing.AllocsPerRun(10, func() { s.Confidence(logits) })) // warm from above or from the first run
}

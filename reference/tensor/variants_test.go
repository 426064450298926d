package tensor

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGELU(t *testing.T) {
	for x := float32(-30); x < 30; x += 0.0137 {
		want := geluV0(x)
		require.InDelta(t, want, GELU(x), 1e-6*math.Abs(want)+1e-7, "x = %g", x)
	}
	// Hendrycks & Gimpel's tanh form at 1 by hand: u = 0.7978846·1.044715 = 0.8335621, tanh u = 0.6823840, (1 + tanh u)/2 = 0.8411920.
	require.InDelta(t, 0.8411920, GELU(1), 1e-6)
	gate, out := []float32{1, -1, 2}, make([]float32, 3)
	GeGLU(out, gate, []float32{2, 3, 0})
	require.Equal(t, []float32{2 * GELU(1), 3 * GELU(-1), 0}, out)
	GeGLU(out, gate, nil)
	require.Equal(t, []float32{GELU(1), GELU(-1), GELU(2)}, out)
}

func TestSoftcap(t *testing.T) {
	x := []float32{0, 1e-3, -2, 29, -1e30, float32(math.Inf(1))}
	got := append([]float32(nil), x...)
	Softcap(got, 30)
	for i, v := range x {
		require.InDelta(t, 30*math.Tanh(float64(v)/30), got[i], 30*2e-7)
	}
	nan := []float32{float32(math.NaN())}
	Softcap(nan, 30)
	require.True(t, math.IsNaN(float64(nan[0])), "NaN must not hide")
}

// TestLayerNorm by hand: mean 2, variance (1 + 0 + 1)/3 = 2/3; with eps 0.0833333 the root is of 0.75, 1/√0.75 = 1.1547005.
func TestLayerNorm(t *testing.T) {
	x, out := []float32{1, 2, 3, 5, 5, 5}, make([]float32, 6)
	LayerNorm(out, x, []float32{1, 1, 2}, []float32{0, 10, 0}, 2, 3, 1.0/12)
	require.InDeltaSlice(t, []float32{-1.1547005, 10, 2.3094011, 0, 10, 0}, out, 1e-6)
}

// TestRopePartial: four of six channels turn, as halves, scaled; the other two stay.
func TestRopePartial(t *testing.T) {
	const past = 7
	x := random(1, 6)
	got := append([]float32(nil), x...)
	(&Rope{D: 6, Rotated: 4, Base: 100, Style: RopeNeox, Scale: 1.5, Factors: []float32{1, 2}}).Apply(got, 1, 1, past)
	// Pairs (0, 2) and (1, 3); angles 7 and 7/100^(2/4)/2 = 0.35.
	for i, angle := range []float64{7, 0.35} {
		a, b := float64(x[i]), float64(x[i+2])
		require.InDelta(t, 1.5*(a*math.Cos(angle)-b*math.Sin(angle)), got[i], 1e-6)
		require.InDelta(t, 1.5*(a*math.Sin(angle)+b*math.Cos(angle)), got[i+2], 1e-6)
	}
	require.Equal(t, x[4:], got[4:])
}

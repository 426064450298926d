package costmodel

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
)

// big is toy with ten times the layers and wider feed-forward networks.
func big() *hardware.Model {
	m := toy()
	m.Name, m.Layers, m.FFN = "big", 40, 640
	return m
}

// timed lets a law time a decode or a prefill, as a device would.
func timed(l *Law, k hardware.Kind, m *hardware.Model, n int) Sample {
	op := hardware.Op{Kind: k, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: 1, New: n}}}
	return Sample{Op: op, Time: l.Time(&op)}
}

func TestCalibrationFindsTheDevice(t *testing.T) {
	prior, truth := sheet(), sheet()
	truth.Law.Efficiency.Value, truth.Law.PassOverhead.Value, truth.Law.MFU.Value = 0.5, 40e-6, 0.001
	device := NewLaw(truth)

	t.Run("two sizes give overhead and efficiency", func(t *testing.T) {
		got, err := Calibrate(prior, []Sample{timed(device, hardware.Decode, toy(), 1), timed(device, hardware.Decode, big(), 1)}, "this test")
		require.NoError(t, err)
		require.InEpsilon(t, 0.5, got.Law.Efficiency.Value, 1e-3)
		require.InEpsilon(t, 40e-6, got.Law.PassOverhead.Value, 1e-2)
		require.Equal(t, "this test", got.Law.Efficiency.Source)
		require.Equal(t, "calibrated", NewLaw(got).Tier(toy()))
		require.Equal(t, 0.8, prior.Law.Efficiency.Value, "the prior is left alone")
	})
	t.Run("one size scales the prior", func(t *testing.T) {
		s := timed(device, hardware.Decode, toy(), 1)
		got, err := Calibrate(prior, []Sample{s}, "this test")
		require.NoError(t, err)
		require.InDelta(t, float64(s.Time), float64(NewLaw(got).Time(&s.Op)), 2)
		// overhead and weights keep their proportion
		require.InEpsilon(t, 10e-6*0.8, got.Law.PassOverhead.Value*got.Law.Efficiency.Value, 1e-9)
	})
	t.Run("a long prefill gives the MFU", func(t *testing.T) {
		got, err := Calibrate(prior, []Sample{timed(device, hardware.Prefill, toy(), 500)}, "this test")
		require.NoError(t, err)
		require.InEpsilon(t, 0.001, got.Law.MFU.Value, 0.02) // the prior's overhead is 30 µs off in 80 ms
	})
	t.Run("nothing to learn from", func(t *testing.T) {
		_, err := Calibrate(prior, nil, "this test")
		require.ErrorContains(t, err, "no timing of a decode")
	})
}

package fitting

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
)

// toy is a model small enough for arithmetic by hand:
//
//	one layer: Q 32×32 + K, V 2×32×16 + O 32×32 + FFN 3×32×64 = 9216 weights of 1 byte
//	embedding and head: 100×32 = 3200 each; KV: 2×2×8 elements of 2 bytes = 64 B per token and layer
func toy() *hardware.Model {
	return &hardware.Model{Name: "toy", Arch: "llama", Quant: "i8", Layers: 4, Dim: 32, Heads: 4, KVHeads: 2, HeadDim: 8,
		FFN: 64, Vocab: 100, BytesPerWeight: 1, KVBytes: 2}
}

func known(v float64, unit string) profiles.Quantity {
	return profiles.Quantity{Value: v, Unit: unit, Source: "this test", Kind: profiles.Assumed}
}

func given(v float64, unit string) *profiles.Quantity { q := known(v, unit); return &q }

// sheet: weights at 800 MB/s, KV cache at 200 MB/s, 500 GFLOP/s; 10 µs a pass, a
// fifth of it whatever the span, and 1 µs a layer.
func sheet() *profiles.DeviceSheet {
	return &profiles.DeviceSheet{
		Name: "box", Class: "sbc", Type: "cpu", Summary: "test",
		PeakFP16: known(1e12, "FLOP/s"), Bandwidth: known(1e9, "B/s"), Memory: known(1e6, "B"), MemoryShare: known(1, "1"),
		StorageRead: known(1e6, "B/s"), Slots: known(2, "1"),
		Law: profiles.Law{
			Efficiency: given(0.8, "1"), KVEfficiency: given(0.2, "1"), PassOverhead: given(10e-6, "s"), FixedShare: given(0.2, "1"),
			LayerOverhead: given(1e-6, "s"), MFU: given(0.5, "1"), Encode: given(1000, "FLOP/B"),
		},
		Power: profiles.Power{Scope: "wall", Idle: known(4, "W"), Active: given(10, "W"), PerByte: given(1e-9, "J/B"), PerFLOP: given(1e-12, "J/FLOP")},
	}
}

func pass(k hardware.Kind, span hardware.Span, seqs ...hardware.Seq) *hardware.Op {
	return &hardware.Op{Kind: k, Model: toy(), Layers: span, Seqs: seqs}
}

// big is toy with ten times the layers and wider feed-forward networks.
func big() *hardware.Model {
	m := toy()
	m.Name, m.Layers, m.FFN = "big", 40, 640
	return m
}

// timed lets a law time a decode or a prefill, as a device would.
func timed(l *costmodel.Law, k hardware.Kind, m *hardware.Model, n int) Sample {
	op := hardware.Op{Kind: k, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: 1, New: n}}}
	return Sample{Op: op, Time: l.Time(&op)}
}

func TestCalibrationFindsTheDevice(t *testing.T) {
	prior, truth := sheet(), sheet()
	truth.Law.Efficiency.Value, truth.Law.PassOverhead.Value, truth.Law.MFU.Value = 0.5, 40e-6, 0.001
	device := costmodel.NewLaw(truth)

	t.Run("two sizes give overhead and efficiency", func(t *testing.T) {
		got, err := Calibrate(prior, []Sample{timed(device, hardware.Decode, toy(), 1), timed(device, hardware.Decode, big(), 1)}, "this test")
		require.NoError(t, err)
		require.InEpsilon(t, 0.5, got.Law.Efficiency.Value, 1e-3)
		require.InEpsilon(t, 40e-6, got.Law.PassOverhead.Value, 1e-2)
		require.Equal(t, "this test", got.Law.Efficiency.Source)
		require.Equal(t, "calibrated", costmodel.NewLaw(got).Tier(toy()))
		require.Equal(t, 0.8, prior.Law.Efficiency.Value, "the prior is left alone")
	})
	t.Run("one size scales the prior", func(t *testing.T) {
		s := timed(device, hardware.Decode, toy(), 1)
		got, err := Calibrate(prior, []Sample{s}, "this test")
		require.NoError(t, err)
		require.InDelta(t, float64(s.Time), float64(costmodel.NewLaw(got).Time(&s.Op)), 2)
		// overhead and weights keep their proportion
		require.InEpsilon(t, 10e-6*0.8, got.Law.PassOverhead.Value*got.Law.Efficiency.Value, 1e-9)
	})
	t.Run("models in a cache are overhead", func(t *testing.T) {
		s := timed(device, hardware.Decode, toy(), 1)
		// the prior says 10 + 4 for layers + 50.12 for weights + 1.28 for the cache; at 1.25 GB/s
		// weights take 32.08, which leaves 42 - 4 - 1.28 - 32.08 = 4.64 µs of overhead
		s.Time = 42 * time.Microsecond
		got, err := Calibrate(prior, []Sample{s}, "this test")
		require.NoError(t, err)
		require.Equal(t, 1.25, got.Law.Efficiency.Value)
		require.InDelta(t, float64(s.Time), float64(costmodel.NewLaw(got).Time(&s.Op)), 10)
		require.InEpsilon(t, 4.64e-6, got.Law.PassOverhead.Value, 0.01)
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

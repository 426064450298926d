package costmodel

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/internal/rng"
	"meibench/internal/units"
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

func TestTimesByHand(t *testing.T) {
	all, low, high := hardware.Span{Lo: 0, Hi: 4}, hardware.Span{Lo: 0, Hi: 1}, hardware.Span{Lo: 1, Hi: 4}
	slow := sheet()
	slow.PeakFP16.Value = 1e10 // 5 GFLOP/s: compute binds
	for _, tc := range []struct {
		name   string
		sheet  *profiles.DeviceSheet
		op     *hardware.Op
		micros float64
	}{
		// 14 overhead + (4×9216+3200+32)/800 = 50.12 + 101×256/200 = 129.28
		{"decode is bound by memory", sheet(), pass(hardware.Decode, all, hardware.Seq{ID: 1, Context: 100, New: 1}), 193.40},
		// weights once: 14 + (40064+2×32)/800 = 50.16 + (101+51)×256/200 = 194.56
		{"a batch shares the weights", sheet(), pass(hardware.Decode, all, hardware.Seq{ID: 1, Context: 100, New: 1}, hardware.Seq{ID: 2, Context: 50, New: 1}), 258.72},
		// 14 + (40064+100×32)/800 = 54.08 + 100×256/200 = 128
		{"a short prefill still is", sheet(), pass(hardware.Prefill, all, hardware.Seq{ID: 1, New: 100}), 196.08},
		// 2×36864×100 + 4×4×32×5050 + 2×3200 = 9,964,800 FLOP / 5 GFLOP/s = 1992.96, + 14
		{"prefill is bound by arithmetic", slow, pass(hardware.Prefill, all, hardware.Seq{ID: 1, New: 100}), 2006.96},
		// 100 more tokens of context: 4×4×32×10,000 = 5,120,000 FLOP more = 1024
		{"context makes a prefill dearer", slow, pass(hardware.Prefill, all, hardware.Seq{ID: 1, Context: 100, New: 100}), 3030.96},
		// head for 5 tokens: 2×36864×5 + 4×4×32×(5×10+15) + 2×3200×5 = 433,920 / 5 GFLOP/s = 86.784
		// memory: 14 + (40064+160)/800 + 15×256/200 = 50.28 + 19.2: under it
		{"verify runs the head for every draft", slow, pass(hardware.Verify, all, hardware.Seq{ID: 1, Context: 10, New: 5}), 100.784},
		// 10×(0.2+0.8/4)+1 = 5 overhead + (9216+32)/800 = 11.56 + 101×64/200 = 32.32
		{"the first layer", sheet(), pass(hardware.Decode, low, hardware.Seq{ID: 1, Context: 100, New: 1}), 48.88},
		// 10×(0.2+0.8×3/4)+3 = 11 + (27648+3200)/800 = 38.56 + 101×192/200 = 96.96
		{"the rest, with the head", sheet(), pass(hardware.Decode, high, hardware.Seq{ID: 1, Context: 100, New: 1}), 146.52},
		// weights of layer 0 and the embedding: 12,416 B at 1 MB/s
		{"load from storage", sheet(), pass(hardware.Load, low), 12416},
		{"load so many bytes", sheet(), &hardware.Op{Kind: hardware.Load, Bytes: 500}, 500},
		// a fifth of 10 + 2×80,000/800
		{"aggregate reads and writes", sheet(), &hardware.Op{Kind: hardware.Aggregate, Bytes: 80_000}, 202},
		// 10 + 1000×100,000 / 5 GFLOP/s
		{"encode sensor data", slow, &hardware.Op{Kind: hardware.Encode, Bytes: 100_000}, 20010},
		// 3×14 + 3×(2×36864×10 + 4×4×32×55 + 2×3200×10) = 2,488,320 FLOP / 5 GFLOP/s = 497.664
		{"train on ten tokens", slow, pass(hardware.TrainStep, all, hardware.Seq{ID: 1, New: 10}), 539.664},
		// prefill of 4: 14+(40064+128)/800+4×256/200 = 69.36; two decodes, context 4 and 5:
		// 14+40096/800+5×256/200 = 70.52 and 71.80
		{"generate three tokens", sheet(), pass(hardware.Generate, all, hardware.Seq{ID: 1, New: 4, Limit: 3}), 211.68},
		{"drop", sheet(), pass(hardware.Drop, all), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := NewLaw(tc.sheet).Time(tc.op)
			require.InDelta(t, tc.micros*1e3, float64(got), 3) // rounded up once per pass
		})
	}
}

func TestTrafficAndEnergyByHand(t *testing.T) {
	l := NewLaw(sheet())
	c := l.Cost(pass(hardware.Decode, hardware.Span{Hi: 4}, hardware.Seq{ID: 1, Context: 100, New: 1}))
	require.Equal(t, units.Bytes(40096+101*256), c.Moved)
	// 2×36864 + 4×4×32×101 + 2×3200 = 131,840
	require.Equal(t, units.FLOP(131_840), c.FLOP)
	// (4 W / 2 slots + 10 W) × 193.4 µs + 65,952 B × 1 nJ + 131,840 × 1 pJ
	require.InDelta(t, 12*193.4e-6+65_952e-9+131_840e-12, float64(c.Energy), 1e-7)

	capped := sheet()
	capped.Power.Cap = given(5, "W")
	c = NewLaw(capped).Cost(pass(hardware.Decode, hardware.Span{Hi: 4}, hardware.Seq{ID: 1, Context: 100, New: 1}))
	require.InDelta(t, 5*193.4e-6, float64(c.Energy), 1e-7)
}

// TestH100PowerCurve: 486, 610 and 688 W at batch 8, 64 and 512 and 7.3, 11.5
// and 47 ms per step (ml-energy/leaderboard, Llama-3.1-8B bf16), to which the
// profile was fitted, at a mean context of 500 tokens.
func TestH100PowerCurve(t *testing.T) {
	p, err := profiles.Device("h100-sxm-80")
	require.NoError(t, err)
	m, err := profiles.Model("llama-3.1-8b:bf16")
	require.NoError(t, err)
	law := NewLaw(p)
	for _, tc := range []struct {
		batch       int
		watts, step float64
	}{{8, 486, 7.3e-3}, {64, 610, 11.5e-3}, {512, 688, 47e-3}} {
		op := &hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All()}
		for i := range tc.batch {
			op.Seqs = append(op.Seqs, hardware.Seq{ID: int64(i), Context: 500, New: 1})
		}
		c := law.Cost(op)
		require.InEpsilon(t, tc.step, c.Time.Seconds(), 0.05, "batch %d", tc.batch)
		require.InEpsilon(t, tc.watts, float64(c.Energy)/c.Time.Seconds(), 0.05, "batch %d", tc.batch)
	}
}

// TestPhysics: what must hold for any device, model and operation.
func TestPhysics(t *testing.T) {
	for _, device := range profiles.Devices() {
		p, err := profiles.Device(device)
		require.NoError(t, err)
		law := NewLaw(p)
		for _, model := range []string{"smollm2-135m:q4_0", "llama-3.2-1b:q8_0", "llama-2-7b:f16"} {
			m, err := profiles.Model(model)
			require.NoError(t, err)
			luck := rng.NewKey(1, "physics", device, model).At(0)
			draw := func(n int) int { return int(luck.Uint64() % uint64(n)) }
			for range 40 {
				op := &hardware.Op{Kind: []hardware.Kind{hardware.Prefill, hardware.Decode, hardware.Verify}[draw(3)], Model: m, Layers: m.All()}
				for id := range 1 + draw(6) {
					s := hardware.Seq{ID: int64(id), Context: draw(3000), New: 1}
					if op.Kind != hardware.Decode {
						s.New = 1 + draw(300)
					}
					op.Seqs = append(op.Seqs, s)
				}
				whole := law.Cost(op)
				at := fmt.Sprint(device, " ", model, " ", op.Kind)
				require.GreaterOrEqual(t, whole.Time.Seconds(), float64(whole.Moved)/(1.0001*p.Bandwidth.Value*max(p.Law.Efficiency.Value, p.Law.KVEfficiency.Value)), at+": faster than its memory")
				split(t, law, op, 1+draw(m.Layers-1))
				longer(t, law, op)
			}
		}
	}
}

// split: two parts take at least as long as the whole and do the same work.
func split(t *testing.T, law *Law, op *hardware.Op, k int) {
	t.Helper()
	whole, low, high := law.Cost(op), *op, *op
	low.Layers.Hi, high.Layers.Lo = k, k
	a, b := law.Cost(&low), law.Cost(&high)
	require.GreaterOrEqual(t, a.Time+b.Time, whole.Time, "splitting gained time")
	require.Equal(t, whole.FLOP, a.FLOP+b.FLOP)
	require.Equal(t, whole.Moved, a.Moved+b.Moved)
	require.LessOrEqual(t, a.Time, whole.Time, "fewer layers cost more")
	require.LessOrEqual(t, b.Time, whole.Time, "fewer layers cost more")
}

// longer: one more sequence or more context is never cheaper.
func longer(t *testing.T, law *Law, op *hardware.Op) {
	t.Helper()
	whole, more := law.Time(op), *op
	more.Seqs = append(append([]hardware.Seq(nil), op.Seqs...), hardware.Seq{ID: 99, Context: 10, New: 1})
	require.GreaterOrEqual(t, law.Time(&more), whole, "a bigger batch is cheaper")
	more.Seqs = append([]hardware.Seq(nil), op.Seqs...)
	more.Seqs[0].Context += 500
	require.GreaterOrEqual(t, law.Time(&more), whole, "more context is cheaper")
}

func TestBetterHardwareIsNeverSlower(t *testing.T) {
	op := pass(hardware.Prefill, hardware.Span{Hi: 4}, hardware.Seq{ID: 1, Context: 30, New: 200})
	base := NewLaw(sheet()).Time(op)
	for name, improve := range map[string]func(*profiles.DeviceSheet){
		"bandwidth": func(p *profiles.DeviceSheet) { p.Bandwidth.Value *= 2 },
		"peak":      func(p *profiles.DeviceSheet) { p.PeakFP16.Value *= 2 },
		"overhead":  func(p *profiles.DeviceSheet) { p.Law.PassOverhead.Value /= 2 },
	} {
		p := sheet()
		improve(p)
		require.LessOrEqual(t, NewLaw(p).Time(op), base, name)
	}
}

func TestMeasuredCoefficientsReplaceTheFormula(t *testing.T) {
	p := sheet()
	p.Fitted = []profiles.Fit{{Model: "toy", Kernel: "k", Source: "this test", Kind: profiles.Measured,
		Decode: profiles.Coefficients{Pass: 5e-6, Layer: 10e-6, Token: 2e-6, Pair: 1e-8, Head: 7e-6, HeadToken: 1e-6}}}
	law := NewLaw(p)
	m := toy()
	require.Equal(t, "fitted", law.Tier(m))
	require.Equal(t, "prior", law.Tier(&hardware.Model{Name: "other"}))
	two := []hardware.Seq{{ID: 1, Context: 100, New: 1}, {ID: 2, Context: 50, New: 1}}
	// 5 + 4×(10 + 2×2 + (101+51)×0.01) + 7 + 2×1 = 76.08 µs
	require.Equal(t, 76_080*time.Nanosecond, law.Time(&hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: two}))
	// 5 + 1×(10 + 4 + 1.52) = 20.52 µs: no head
	require.Equal(t, 20_520*time.Nanosecond, law.Time(&hardware.Op{Kind: hardware.Decode, Model: m, Layers: hardware.Span{Lo: 1, Hi: 2}, Seqs: two}))
	// no prefill coefficients: the formula
	require.InDelta(t, 196_080, float64(law.Time(pass(hardware.Prefill, hardware.Span{Hi: 4}, hardware.Seq{ID: 1, New: 100}))), 2)
	p.Fitted[0].Digest = "abc"
	require.Equal(t, "prior", NewLaw(p).Tier(m), "a fit of another file of that name does not count")
}

// BenchmarkRun is the cost of costing: what the simulator pays per operation.
func BenchmarkRun(b *testing.B) {
	p, err := profiles.Device("snapdragon-8-gen-3")
	require.NoError(b, err)
	m, err := profiles.Model("llama-3.2-1b:q4_0")
	require.NoError(b, err)
	for _, batch := range []int{1, 8, 64} {
		op := &hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All()}
		for id := range batch {
			op.Seqs = append(op.Seqs, hardware.Seq{ID: int64(id), Context: 300, New: 1})
		}
		b.Run(fmt.Sprintf("op=decode/batch=%d", batch), func(b *testing.B) {
			env := world.NewSim(nil)
			d := New(env, p, Options{})
			env.Go("bench", func() {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := d.Run(op); err != nil {
						b.Error(err)
					}
				}
			})
			if err := env.Run(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

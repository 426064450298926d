package costmodel

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/internal/rng"
	"meibench/internal/units"
)

// on runs fn as the only process of a modelled world with one device.
func on(t *testing.T, p *profiles.DeviceSheet, o Options, fn func(env world.Env, d *Device)) {
	t.Helper()
	env := world.NewSim(t.Context())
	d := New(env, p, o)
	env.Go("test", func() { fn(env, d) })
	require.NoError(t, env.Run())
}

func must(t *testing.T, d *Device, op *hardware.Op) hardware.Result {
	t.Helper()
	res, err := d.Run(op)
	require.NoError(t, err)
	return res
}

func TestMemoryIsBookedAndRefused(t *testing.T) {
	p := sheet()
	p.Memory.Value = 60_000 // weights of toy: 4×9216 + 2×3200 = 43,264; a token's KV: 256
	on(t, p, Options{}, func(_ world.Env, d *Device) {
		all := hardware.Span{Hi: 4}
		must(t, d, pass(hardware.Prefill, all, hardware.Seq{ID: 1, New: 40}))
		require.Equal(t, units.Bytes(43_264+40*256), d.Used())

		_, err := d.Run(pass(hardware.Prefill, all, hardware.Seq{ID: 2, New: 30})) // 7680 B, 6496 left
		require.ErrorIs(t, err, hardware.ErrMemory)
		require.EqualError(t, err, `device "box": prefill: KV cache of 1 sequence(s) needs 7.5 KiB more, 52.2 KiB of 58.6 KiB are in use: hardware: does not fit the device's memory`)
		require.Equal(t, units.Bytes(43_264+40*256), d.Used(), "a refusal books nothing")

		must(t, d, pass(hardware.Verify, all, hardware.Seq{ID: 1, Context: 40, New: 10}))
		require.Equal(t, units.Bytes(43_264+50*256), d.Used())
		res := must(t, d, pass(hardware.Decode, all, hardware.Seq{ID: 1, Context: 42, New: 1})) // eight drafts were rejected
		require.Equal(t, units.Bytes(43_264+43*256), d.Used())
		require.Equal(t, units.Bytes(43_264+50*256), res.Usage.Peak)

		must(t, d, pass(hardware.Drop, all, hardware.Seq{ID: 1}))
		require.Equal(t, units.Bytes(43_264), d.Used())
		must(t, d, pass(hardware.Drop, all))
		require.Zero(t, d.Used(), "dropping without sequences evicts the model")

		_, err = d.Run(&hardware.Op{Kind: hardware.TrainStep, Model: toy(), Layers: all, Seqs: []hardware.Seq{{New: 1}}, Bytes: 20_000})
		require.ErrorIs(t, err, hardware.ErrMemory, "gradients and optimiser state count")
	})
}

func TestSpansShareWeightsButNotCaches(t *testing.T) {
	on(t, sheet(), Options{}, func(_ world.Env, d *Device) {
		m := toy()
		run := func(lo, hi int) {
			must(t, d, &hardware.Op{Kind: hardware.Prefill, Model: m, Layers: hardware.Span{Lo: lo, Hi: hi}, Seqs: []hardware.Seq{{ID: 7, New: 10}}})
		}
		run(0, 1)
		require.Equal(t, units.Bytes(9216+3200+10*64), d.Used())
		run(3, 4) // U-shape: bottom and top
		require.Equal(t, units.Bytes(2*9216+2*3200+20*64), d.Used())
		run(0, 4)
		require.Equal(t, units.Bytes(4*9216+2*3200+60*64), d.Used())
		drop := &hardware.Op{Kind: hardware.Drop, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: 7}}}
		must(t, d, drop)
		require.Equal(t, units.Bytes(4*9216+2*3200+20*64), d.Used(), "only the span's cache")
		drop.Layers = hardware.Span{}
		must(t, d, drop)
		require.Equal(t, units.Bytes(4*9216+2*3200), d.Used(), "no span: all of them")
	})
}

func TestSlotsQueueAndDoNotCountAsCompute(t *testing.T) {
	env := world.NewSim(t.Context())
	d := New(env, sheet(), Options{})
	var got []hardware.Usage
	for id := range int64(3) {
		env.Go("user", func() {
			res := must(t, d, pass(hardware.Prefill, hardware.Span{Hi: 4}, hardware.Seq{ID: id, New: 100}))
			got = append(got, res.Usage)
		})
	}
	require.NoError(t, env.Run())
	one := got[0].End - got[0].Start // 196.08 µs, rounded up
	require.Equal(t, []time.Duration{0, 0, one}, []time.Duration{got[0].Start, got[1].Start, got[2].Start}, "two slots")
	require.Equal(t, 2*one, got[2].End)
}

// TestHeatFollowsTheLaw: with retained share 0.5 and time constant 10 s, work of
// W seconds takes T where 0.5 T + 0.5×10×(1-e^(-T/10)) = W. For T = 10 s:
// W = 5 + 5×(1-1/e) = 8.16060 s.
func TestHeatFollowsTheLaw(t *testing.T) {
	h := newHeat(&profiles.Thermal{Retained: known(0.5, "1"), Heat: known(10, "s"), Cool: known(20, "s")}, nil, 0)
	w := 5 + 5*(1-math.Exp(-1))
	require.InDelta(t, 10, h.stretch(0, w, 1), 1e-9)

	// The same work in a thousand pieces takes as long.
	h = newHeat(&profiles.Thermal{Retained: known(0.5, "1"), Heat: known(10, "s"), Cool: known(20, "s")}, nil, 0)
	now := time.Duration(0)
	for range 1000 {
		now += units.Seconds(h.stretch(now, w/1000, 1))
	}
	require.InDelta(t, 10, now.Seconds(), 1e-5)
	h.advance(now)
	require.InDelta(t, 1-math.Exp(-1), h.level, 1e-5)

	// After 20 s of rest the heat is down to 1/e of that; speed 1 - 0.5×0.23254 = 0.88373.
	require.InDelta(t, 0.001/(1-0.5*(1-math.Exp(-1))*math.Exp(-1)), h.stretch(now+20*time.Second, 0.001, 1), 1e-6)
}

// TestPhoneKeepsItsRetainedShare: ten minutes of decoding end at about 57 % of the
// burst rate (iPhone 17 Pro, Llama-3.2-3B: 34.1 tok/s in the first 10 s, 19.6 in the last
// minute), and the drop comes between half a minute and two.
func TestPhoneKeepsItsRetainedShare(t *testing.T) {
	p, err := profiles.Device("iphone-17-pro")
	require.NoError(t, err)
	m, err := profiles.Model("llama-3.2-3b:q4_0")
	require.NoError(t, err)
	on(t, p, Options{}, func(env world.Env, d *Device) {
		op := &hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: 1, New: 1}}}
		first, last := 0, 0
		var joules float64
		for env.Now() < 10*time.Minute {
			u := must(t, d, op).Usage
			if env.Now() < 10*time.Second {
				first++
			}
			if env.Now() > 9*time.Minute {
				last++
				joules = float64(u.Energy)
			}
		}
		require.InDelta(t, 0.57, float64(last)/6/float64(first), 0.06)
		at, ok := d.Throttled()
		require.True(t, ok)
		require.InDelta(t, 75, at.Seconds(), 60)
		require.InDelta(t, 1, d.Heat(), 0.1, "at the limit")
		// 0.22-0.25 J per token were measured
		require.InDelta(t, 0.235, joules, 0.02)
	})
}

// TestColdPhoneIsNotThrottled, and neither is one that pauses, nor a device without a thermal part.
func TestColdPhoneIsNotThrottled(t *testing.T) {
	p, err := profiles.Device("iphone-17-pro")
	require.NoError(t, err)
	m, err := profiles.Model("llama-3.2-3b:q4_0")
	require.NoError(t, err)
	op := &hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: 1, New: 1}}}
	on(t, p, Options{}, func(env world.Env, d *Device) {
		for range 2000 {
			u := must(t, d, op).Usage
			require.Equal(t, d.Law().Time(op), u.End-u.Start)
			env.Sleep(200 * time.Millisecond)
		}
		_, ok := d.Throttled()
		require.False(t, ok)
		require.Less(t, d.Heat(), 1.0)
	})
	on(t, p, Options{Heat: 1.05}, func(env world.Env, d *Device) {
		require.InDelta(t, 1.05, d.Heat(), 0.02)
		u := must(t, d, op).Usage
		require.Greater(t, u.End-u.Start, d.Law().Time(op), "it starts hot")
	})
	p.Thermal = nil
	on(t, p, Options{Heat: 1}, func(_ world.Env, d *Device) { require.Zero(t, d.Heat()) })
}

func TestLuckBelongsToThePosition(t *testing.T) {
	roomy := sheet()
	roomy.Memory.Value = 1e9
	on(t, roomy, Options{Seed: 3, Luck: Luck{Accept: 0.7}}, func(_ world.Env, d *Device) {
		verify := func(context, n int) int {
			return must(t, d, pass(hardware.Verify, hardware.Span{Hi: 4}, hardware.Seq{ID: 5, Context: context, New: n})).Seqs[0].Accepted
		}
		long := verify(10, 9) // eight drafts
		require.Equal(t, min(long, 3), verify(10, 4), "three of the same drafts")
		total, drafts := 0, 0
		for c := range 4000 {
			if total += verify(20+c, 2); true {
				drafts++
			}
		}
		require.InDelta(t, 0.7, float64(total)/float64(drafts), 0.03) // 4 standard errors
	})
	on(t, roomy, Options{Luck: Luck{Confidence: []float64{0.2, 0.4, 1}}}, func(_ world.Env, d *Device) {
		var below int
		for c := range 1000 {
			conf := must(t, d, pass(hardware.Decode, hardware.Span{Hi: 4}, hardware.Seq{ID: 1, Context: c, New: 1})).Seqs[0].Confidence
			require.True(t, conf >= 0.2 && conf <= 1)
			if conf < 0.4 {
				below++
			}
		}
		require.InDelta(t, 500, below, 65)
	})
}

func TestGenerateStampsEveryToken(t *testing.T) {
	on(t, sheet(), Options{}, func(env world.Env, d *Device) {
		env.Sleep(time.Second)
		res := must(t, d, pass(hardware.Generate, hardware.Span{Hi: 4}, hardware.Seq{ID: 1, New: 4, Limit: 3}, hardware.Seq{ID: 2, New: 4, Limit: 1}))
		require.Len(t, res.Seqs[0].Chunks, 3)
		require.Len(t, res.Seqs[1].Chunks, 1)
		require.Equal(t, res.Seqs[0].Chunks[0], res.Seqs[1].Chunks[0], "both from the prefill")
		require.Equal(t, res.Usage.End, res.Seqs[0].Chunks[2].At)
		require.Equal(t, units.Bytes(43_264+(6+4)*256), d.Used())
	})
}

// A load that names an adapter adds no token to anything, and a drop gives its memory back.
func TestAdaptersAreLoadedAndDropped(t *testing.T) {
	on(t, sheet(), Options{}, func(_ world.Env, d *Device) {
		load := pass(hardware.Load, hardware.Span{Hi: 4}, hardware.Seq{Adapter: "a"})
		load.Model.LoRARank = 2
		load.Bytes = load.Model.AdapterBytes(load.Layers)
		must(t, d, load)
		require.Equal(t, load.Bytes, d.Used())
		load.Kind = hardware.Drop
		must(t, d, load)
		require.Zero(t, d.Used())
	})
}

func TestMalformedOperationsSayWhy(t *testing.T) {
	on(t, sheet(), Options{Ops: hardware.Set(hardware.Decode, hardware.Prefill)}, func(_ world.Env, d *Device) {
		for _, tc := range []struct {
			op   *hardware.Op
			want string
		}{
			{pass(hardware.Verify, hardware.Span{Hi: 4}, hardware.Seq{New: 2}), `device "box": verify: hardware: operation not supported by this device`},
			{pass(hardware.Decode, hardware.Span{Hi: 4}, hardware.Seq{ID: 4, New: 2}), `device "box": decode: sequence 4 adds 2 tokens: decode adds one, prefill and verify more`},
			{pass(hardware.Prefill, hardware.Span{Lo: 2, Hi: 5}, hardware.Seq{New: 2}), `device "box": prefill: layers [2, 5) are not in model toy with 4`},
			{pass(hardware.Prefill, hardware.Span{Hi: 4}), `device "box": prefill: needs at least one sequence`},
		} {
			_, err := d.Run(tc.op)
			require.EqualError(t, err, tc.want)
		}
	})
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	on(t, sheet(), Options{Luck: Luck{Accept: 0.5, Confidence: []float64{0, 1}}}, func(_ world.Env, d *Device) {
		op := pass(hardware.Verify, hardware.Span{Hi: 4}, hardware.Seq{ID: 1, Context: 10, New: 4}, hardware.Seq{ID: 2, Context: 9, New: 4})
		must(t, d, op)
		require.Zero(t, testing.AllocsPerRun(100, func() { must(t, d, op) }))
	})
}

// A decode step costs 1 ms here, and 300 µs more for the whole model after at
// least 2 ms of idleness: half of that on half of its layers.
func TestIdleDevicesPayForWakingUp(t *testing.T) {
	p := sheet()
	p.Fitted = []profiles.Fit{{Model: toy().Name, Kernel: "k", Source: "this test", Kind: profiles.Measured,
		Prefill: profiles.Coefficients{Pass: 1e-3}, Decode: profiles.Coefficients{Pass: 1e-3},
		Wake: profiles.Wake{After: 2e-3, Decode: 300e-6}}}
	on(t, p, Options{}, func(env world.Env, d *Device) {
		all, half := hardware.Span{Hi: 4}, hardware.Span{Hi: 2}
		took := func(span hardware.Span, context int) time.Duration {
			res := must(t, d, pass(hardware.Decode, span, hardware.Seq{ID: int64(span.Hi), Context: context, New: 1}))
			return res.Usage.End - res.Usage.Start
		}
		require.Equal(t, time.Millisecond, took(all, 0), "at once")
		env.Sleep(time.Millisecond)
		require.Equal(t, time.Millisecond, took(all, 1), "not idle for long enough")
		env.Sleep(2 * time.Millisecond)
		require.Equal(t, 1300*time.Microsecond, took(all, 2))
		require.Equal(t, time.Millisecond, took(all, 3), "awake again")
		env.Sleep(time.Second)
		require.Equal(t, 1150*time.Microsecond, took(half, 0))
	})
}

// The cold fades: of 300 µs the first step pays all, the next half of it, then a
// quarter; a prefill has its own. Every operation leaves a gap of 10 µs.
func TestTheColdFades(t *testing.T) {
	p := sheet()
	p.Fitted = []profiles.Fit{{Model: toy().Name, Kernel: "k", Source: "this test", Kind: profiles.Measured,
		Prefill: profiles.Coefficients{Pass: 1e-3}, Decode: profiles.Coefficients{Pass: 1e-3}, Gap: 10e-6,
		Wake: profiles.Wake{After: 2e-3, Decode: 300e-6, Prefill: 800e-6, Fade: 0.5}}}
	on(t, p, Options{}, func(env world.Env, d *Device) {
		all := hardware.Span{Hi: 4}
		env.Sleep(time.Second)
		var took []time.Duration
		began := env.Now()
		for i, k := range []hardware.Kind{hardware.Prefill, hardware.Decode, hardware.Decode, hardware.Decode} {
			u := must(t, d, pass(k, all, hardware.Seq{ID: 1, Context: i, New: 1})).Usage
			took = append(took, u.End-u.Start)
		}
		us := time.Microsecond
		require.Equal(t, []time.Duration{1800 * us, 1150 * us, 1075 * us, 1037500}, took)
		require.Equal(t, 1800*us+1150*us+1075*us+1037500+4*10*us, env.Now()-began, "gaps")
	})
}

// Spread: operations of one stretch share their luck, whatever the device; the mean is
// that of the table.
func TestTimesSpread(t *testing.T) {
	p := sheet()
	p.Memory.Value = 1e9
	p.Fitted = []profiles.Fit{{Model: toy().Name, Kernel: "k", Source: "this test", Kind: profiles.Measured,
		Prefill: profiles.Coefficients{Pass: 1e-3}, Decode: profiles.Coefficients{Pass: 1e-3},
		Spread: &profiles.Spread{Slot: 0.02, Slots: []float64{1, 2}}}}
	run := func(seed uint64) (took []time.Duration) {
		on(t, p, Options{Seed: seed}, func(env world.Env, d *Device) {
			for i := range 2000 {
				u := must(t, d, pass(hardware.Decode, hardware.Span{Hi: 4}, hardware.Seq{ID: 1, Context: i, New: 1})).Usage
				took = append(took, u.End-u.Start)
			}
		})
		return took
	}
	a := run(1)
	require.Equal(t, a, run(1))
	require.NotEqual(t, a, run(2))
	require.Equal(t, a[0], a[1], "one stretch, one luck")
	sum, distinct := time.Duration(0), map[time.Duration]bool{}
	for _, x := range a {
		require.True(t, x >= time.Millisecond && x <= 2*time.Millisecond)
		sum += x
		distinct[x] = true
	}
	// a slot holds fewer operations where they take longer: the mean per operation is
	// the harmonic one of a uniform factor, 1/ln 2
	require.InEpsilon(t, 1e6/math.Ln2, float64(sum)/2000, 0.05)
	require.Greater(t, len(distinct), 100)

	p.Fitted[0].Spread = &profiles.Spread{Ops: []float64{1, 2}}
	b := run(1)
	require.NotEqual(t, b[0], b[1], "each its own")
}

// TestX7PartsAddUpToTheIntegralOfPower: what a battery lost is what operations and messages
// were charged and idle power for the time in which nothing ran, as a meter that only
// watches when operations run has it.
func TestX7PartsAddUpToTheIntegralOfPower(t *testing.T) {
	p, err := profiles.Device("iphone-17-pro")
	require.NoError(t, err)
	m, err := profiles.Model("llama-3.2-3b:q4_0")
	require.NoError(t, err)
	l, err := profiles.Link("lte-static-us-2021")
	require.NoError(t, err)
	require.NotNil(t, l.Radio, "the test needs a radio")
	ran := time.Duration(0)
	opt := Options{Charge: 0.5, Observe: func(_ *hardware.Op, start, end time.Duration) { ran += end - start }}
	env := world.NewSim(nil)
	d := New(env, p, opt)
	radio := NewRadio(l.Radio)
	radio.Draw(d)
	up := Wrap(env, NewLinkState(NewChannel(l, Up, 0), LinkOptions{Seed: 1, Name: "u", Radio: radio}))
	env.Go("user", func() {
		r := rng.Stream(7, "power")
		meter := 0.0
		for k := range 400 {
			switch r.IntN(3) {
			case 0:
				env.Sleep(time.Duration(r.IntN(3_000_000_000)))
			case 1:
				got, err := up.Send(hardware.Payload{Bytes: units.Bytes(r.IntN(100_000))})
				require.NoError(t, err)
				meter += float64(got.Usage.Energy)
			default:
				op := &hardware.Op{Kind: hardware.Prefill, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: int64(k), New: 1 + r.IntN(2000)}}}
				res, err := d.Run(op)
				require.NoError(t, err)
				meter += float64(res.Usage.Energy)
				op.Kind = hardware.Drop
				_, err = d.Run(op)
				require.NoError(t, err)
			}
			left, ok := d.Battery()
			require.True(t, ok)
			idle := p.Power.Idle.Value * (env.Now() - ran).Seconds()
			require.InEpsilon(t, 0.5*p.Battery.Value+meter+idle, (1-left)*p.Battery.Value, 1e-9)
		}
		_, throttled := d.Throttled()
		require.True(t, throttled, "the sum holds for stretched operations too")
	})
	require.NoError(t, env.Run())
}

package costmodel

import (
	"math"
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/internal/rng"
	"meibench/internal/units"
)

func quantiles(p5, p50, p95 float64, unit string) profiles.Quantiles {
	return profiles.Quantiles{P5: known(p5, unit), P50: known(p50, unit), P95: known(p95, unit)}
}

// wireSheet is 1 MB/s up, 10 MB/s down, 20 ms round trip, no chance in it.
func wireSheet() *profiles.LinkSheet {
	return &profiles.LinkSheet{
		Name: "wire", Tech: "test", Summary: "test",
		Up:   profiles.Direction{Rate: quantiles(1e6, 1e6, 1e6, "B/s")},
		Down: profiles.Direction{Rate: quantiles(1e7, 1e7, 1e7, "B/s")},
		RTT:  quantiles(0.02, 0.02, 0.02, "s"), Correlation: known(0, "1"), Loss: known(0, "1"),
	}
}

func state(p *profiles.LinkSheet, d Direction, o LinkOptions) *LinkState {
	return NewLinkState(NewChannel(p, d, 0), o)
}

const ms = time.Millisecond

func TestConstantLinkByHand(t *testing.T) {
	for _, constant := range []bool{true, false} { // quantiles that agree leave nothing to chance
		s := state(wireSheet(), Up, LinkOptions{Constant: constant})
		for _, tc := range []struct {
			now                 time.Duration
			bytes               units.Bytes
			start, sent, arrive time.Duration
		}{
			{0, 5000, 0, 5 * ms, 15 * ms},                         // 5 kB at 1 MB/s, half of 20 ms on the way
			{1 * ms, 1000, 5 * ms, 6 * ms, 16 * ms},               // behind the first
			{2 * ms, 0, 6 * ms, 6 * ms, 16*ms + 1},                // nothing to send still has to travel, behind the others
			{100 * ms, 2000, 100 * ms, 102 * ms, 112 * ms},        // idle again
			{200 * ms, 1_500_000, 200 * ms, 1700 * ms, 1710 * ms}, // over the edge of a second
		} {
			got, err := s.Next(tc.now, tc.bytes)
			require.NoError(t, err)
			require.Equal(t, hardware.Transit{Start: tc.start, Sent: tc.sent, Arrive: tc.arrive}, got)
		}
	}
	far := NewLinkState(NewChannel(wireSheet(), Down, 52*ms), LinkOptions{})
	got, err := far.Next(0, 10_000)
	require.NoError(t, err)
	require.Equal(t, 1*ms+10*ms+26*ms, got.Arrive, "half of the distance's round trip on top")
	require.Equal(t, 36*ms, far.Spec().Delay)
}

func TestInfiniteRateAndNoDelayIsNoLink(t *testing.T) {
	p := wireSheet()
	p.Up.Rate = quantiles(1e18, 1e18, 1e18, "B/s")
	p.RTT = quantiles(1e-12, 1e-12, 1e-12, "s")
	s := state(p, Up, LinkOptions{})
	for now := time.Duration(0); now < time.Second; now += 100 * ms {
		got, err := s.Next(now, 1_000_000)
		require.NoError(t, err)
		require.LessOrEqual(t, got.Arrive-now, 2*time.Nanosecond, "rounding up is all that is left")
	}
}

func TestTraceByHand(t *testing.T) {
	tr := &Trace{Slot: 100 * ms, Rates: []float64{1e6, 0, 2e6}}
	sheet := wireSheet()
	sheet.Trace = &profiles.TraceFiles{UpRates: tr} // as a profile that names a file has it
	_, fastest := NewChannel(sheet, Up, 0).Fastest()
	require.Equal(t, 2e6, fastest)
	s := state(sheet, Up, LinkOptions{})
	// 100 kB in the first slot, nothing in the second, 150 kB after 75 ms of the third
	got, err := s.Next(0, 250_000)
	require.NoError(t, err)
	require.Equal(t, 275*ms, got.Sent)
	// 50 kB left of the third slot, then the trace repeats: 100 kB in the fourth
	got, err = s.Next(275*ms, 150_000)
	require.NoError(t, err)
	require.Equal(t, 400*ms, got.Sent)
}

func TestOutagesEndInLinkDown(t *testing.T) {
	s := state(wireSheet(), Up, LinkOptions{Trace: &Trace{Slot: time.Second, Rates: []float64{1e6, 0, 0, 0, 0, 0}}, Timeout: 3 * time.Second})
	got, err := s.Next(500*ms, 1_000_000)
	require.ErrorIs(t, err, hardware.ErrLinkDown)
	require.Equal(t, 4*time.Second, got.Arrive, "three seconds after the last byte moved")
	got, err = s.Next(5900*ms, 50_000)
	require.NoError(t, err, "and recovers when the rate does")
	require.Equal(t, 6050*ms, got.Sent)
}

// TestRatesMeetTheQuantiles: over many seconds the 5, 50 and 95 % quantiles are
// the profile's and neighbouring seconds are correlated as it says.
func TestRatesMeetTheQuantiles(t *testing.T) {
	p := wireSheet()
	p.Up.Rate = quantiles(2e6, 5e6, 9e6, "B/s")
	p.Correlation.Value = 0.9
	const n = 40_000
	c := NewChannel(p, Up, 0)
	key := rng.NewKey(1, "test")
	rates, logs := make([]float64, n), make([]float64, n)
	w := &weather{}
	for i := range n {
		rates[i] = c.rateAt(w, key, int64(i))
		logs[i] = c.fade(w, key, int64(i))
	}
	// 40,000 seconds with correlation 0.9 hold about 2,100 independent ones
	require.InDelta(t, 1, variance(logs), 0.1)
	require.InDelta(t, 0.9, correlation(logs, 1), 0.01)
	require.InDelta(t, math.Pow(0.9, 10), correlation(logs, 10), 0.08)
	sort.Float64s(rates)
	require.InEpsilon(t, 2e6, rates[n/20], 0.08)
	require.InEpsilon(t, 5e6, rates[n/2], 0.05)
	require.InEpsilon(t, 9e6, rates[n-n/20], 0.05)

	sub, err := profiles.Link("lte-subway-nyc-2020")
	require.NoError(t, err)
	c = NewChannel(sub, Down, 0)
	dark, w := 0, &weather{}
	for i := range n {
		if c.rateAt(w, key, int64(i)) == 0 {
			dark++
		}
	}
	require.InDelta(t, 0.285, float64(dark)/n, 0.02, "28.5 % of seconds without service")
}

// The weather of a second is the same whatever was asked before: forwards,
// backwards, in leaps.
func TestWeatherHasNoMemoryOfQuestions(t *testing.T) {
	c := NewChannel(wireSheet(), Up, 0)
	c.memory = memoryOf(0.9)
	key, w := rng.NewKey(1, "test"), &weather{}
	for _, slot := range []int64{0, 1, 5, 4, 70, 71, 200, 3, 3, 4, 5} {
		require.Equal(t, c.fade(&weather{}, key, slot), c.fade(w, key, slot), "second %d", slot)
	}
}

func variance(x []float64) float64 { return correlationSum(x, 0) / float64(len(x)) }

func correlation(x []float64, lag int) float64 { return correlationSum(x, lag) / correlationSum(x, 0) }

func correlationSum(x []float64, lag int) (s float64) {
	mean := 0.0
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for i := lag; i < len(x); i++ {
		s += (x[i] - mean) * (x[i-lag] - mean)
	}
	return s
}

func TestWeatherDoesNotDependOnWhoAsks(t *testing.T) {
	p, err := profiles.Link("nr-mmwave-walk-us-2020")
	require.NoError(t, err)
	o := LinkOptions{Seed: 4, Name: "user 3"}
	busy, fresh := state(p, Down, o), state(p, Down, o)
	for i := range 50 {
		_, err := busy.Next(time.Duration(i)*200*ms, 1000)
		require.NoError(t, err)
	}
	a, err := busy.Next(100*time.Second, 5_000_000)
	require.NoError(t, err)
	b, err := fresh.Next(100*time.Second, 5_000_000)
	require.NoError(t, err)
	a.Energy, b.Energy = 0, 0
	require.Equal(t, b, a)
	require.Equal(t, fresh.RateAt(17*time.Second), busy.RateAt(17*time.Second))
	other := state(p, Down, LinkOptions{Seed: 4, Name: "user 4"})
	require.NotEqual(t, fresh.RateAt(17*time.Second), other.RateAt(17*time.Second))
	require.NotEqual(t, fresh.RateAt(17*time.Second), state(p, Up, o).RateAt(17*time.Second))
}

// TestMoreBandwidthNeverHurts: one message on an idle link, any profile, any moment.
func TestMoreBandwidthNeverHurts(t *testing.T) {
	for _, name := range profiles.Links() {
		p, err := profiles.Link(name)
		require.NoError(t, err)
		fast, err := profiles.Link(name)
		require.NoError(t, err)
		for _, q := range []*profiles.Quantity{&fast.Up.Rate.P5, &fast.Up.Rate.P50, &fast.Up.Rate.P95} {
			q.Value *= 1.7
		}
		luck := rng.NewKey(9, name).At(0)
		for i := range 60 {
			now := time.Duration(luck.Float64() * 1e12)
			n := units.Bytes(1 << (luck.Uint64() % 24))
			o := LinkOptions{Seed: uint64(i), Timeout: time.Hour}
			a, err := state(p, Up, o).Next(now, n)
			require.NoError(t, err)
			b, err := state(fast, Up, o).Next(now, n)
			require.NoError(t, err)
			require.LessOrEqual(t, b.Arrive, a.Arrive, "%s: %d B at %v", name, n, now)
			require.GreaterOrEqual(t, a.Sent, a.Start)
			require.GreaterOrEqual(t, a.Arrive, a.Sent)
		}
	}
}

func TestHandoversInterrupt(t *testing.T) {
	p := wireSheet()
	p.Handover = &profiles.Handover{Rate: known(0.5, "1/s"), Interruption: known(0.1, "s")}
	s := state(p, Up, LinkOptions{Seed: 2})
	const seconds = 1000
	got, err := s.Next(0, seconds*1_000_000)
	require.NoError(t, err)
	// Every interrupted second sends 0.9 MB: 1000 s of data take 1000/(1-0.05) = 1052.6 s.
	require.InDelta(t, 1052.6, got.Sent.Seconds(), 5)
	c := NewChannel(p, Up, 0)
	for slot := range int64(200) {
		if from, to := c.interruption(s.handing, slot); to > 0 {
			require.Equal(t, 100*ms, to-from)
			require.GreaterOrEqual(t, from, time.Duration(slot)*time.Second)
			require.LessOrEqual(t, to, time.Duration(slot+1)*time.Second)
		}
	}
}

// TestLossCostsRoundTrips: with 1 % loss a message of 100 packets arrives at once
// with probability 0.99^100 = 0.366 and after at most one repair with 0.9999^100 = 0.990.
func TestLossCostsRoundTrips(t *testing.T) {
	p := wireSheet()
	p.Loss.Value = 0.01
	c := NewChannel(p, Up, 0)
	require.Equal(t, 0, c.resends(0.365, 150_000))
	require.Equal(t, 1, c.resends(0.367, 150_000))
	require.Equal(t, 1, c.resends(0.989, 150_000))
	require.Equal(t, 2, c.resends(0.991, 150_000))
	require.Equal(t, 0, c.resends(0.98, 1)) // one packet
	late := 0
	for i := range 2000 {
		s := state(p, Up, LinkOptions{Seed: uint64(i)})
		got, err := s.Next(0, 150_000)
		require.NoError(t, err)
		if got.Arrive > 160*ms {
			require.GreaterOrEqual(t, got.Arrive, 180*ms, "a whole round trip later")
			late++
		}
	}
	require.InDelta(t, 1-0.366, float64(late)/2000, 0.04)
}

// TestRadioLadder: LTE after pauses of 0.1, 1, 8 and 60 s: 0, 135, 426 and 868 ms
// more (RRC-Probe medians 81, 216, 507, 949 ms less the first).
func TestRadioLadder(t *testing.T) {
	p, err := profiles.Link("lte-static-us-2021")
	require.NoError(t, err)
	r := NewRadio(p.Radio)
	require.Equal(t, 868*ms, r.wake(0), "asleep when the run begins")
	r.charge(0, time.Second)
	for _, tc := range []struct{ pause, want time.Duration }{
		{100 * ms, 0}, {time.Second, 135 * ms}, {8 * time.Second, 426 * ms}, {60 * time.Second, 868 * ms},
	} {
		require.Equal(t, tc.want, r.wake(time.Second+tc.pause), tc.pause)
	}
	// both directions of a user share the radio: the request wakes it for the answer
	radio := NewRadio(p.Radio)
	o := LinkOptions{Radio: radio}
	up, down := state(p, Up, o), state(p, Down, o)
	a, err := up.Next(10*time.Second, 1000)
	require.NoError(t, err)
	require.Equal(t, 10*time.Second+868*ms, a.Start)
	b, err := down.Next(a.Arrive, 1000)
	require.NoError(t, err)
	require.Equal(t, a.Arrive, b.Start)
}

// TestRadioEnergyIsPerBurst: active 1 W, tail 0.5 W for 10 s.
func TestRadioEnergyIsPerBurst(t *testing.T) {
	s := func(x float64) time.Duration { return time.Duration(x * 1e9) }
	radio := func() *Radio { return &Radio{active: 1, after: 0.5, tail: s(10)} }
	for _, tc := range []struct {
		name   string
		bursts [][2]float64
		want   float64
	}{
		{"one burst", [][2]float64{{0, 2}}, 2 + 5},
		{"two bursts far apart", [][2]float64{{0, 2}, {100, 101}}, 2 + 5 + 1 + 5},
		{"the second cuts the tail short", [][2]float64{{0, 2}, {6, 7}}, 2 + 4*0.5 + 1 + 5},
		{"back to back", [][2]float64{{0, 2}, {2, 3}}, 3 + 5},
		{"at once in the other direction", [][2]float64{{0, 4}, {1, 3}}, 4 + 5},
		{"overlapping the end", [][2]float64{{0, 4}, {3, 5}}, 5 + 5},
		{"a long one after the tail began", [][2]float64{{0, 1}, {5, 30}}, 1 + 2 + 25 + 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := radio()
			var total units.Joules
			for _, b := range tc.bursts {
				e := r.charge(s(b[0]), s(b[1]))
				require.GreaterOrEqual(t, float64(e), 0.0)
				total += e
			}
			require.InDelta(t, tc.want, float64(total), 1e-9)
		})
	}
}

// TestDrainCostsTwoEvents counts: writes are free, a drain wakes for the close and
// for the last arrival.
func TestDrainCostsTwoEvents(t *testing.T) {
	env := world.NewSim(t.Context())
	l := NewLink(env, wireSheet(), Down, LinkOptions{})
	s := l.Open()
	env.Go("user", func() {
		got, err := s.Drain()
		require.NoError(t, err)
		require.Len(t, got, 1000)
		require.Equal(t, got[999].Usage.End, env.Now())
	})
	env.Go("server", func() {
		for range 1000 {
			s.Write(hardware.Payload{Bytes: 84}) // with its frame 100 B: 10 µs
		}
		s.Close(nil)
	})
	require.NoError(t, env.Run())
	require.Equal(t, 10*ms+10*ms, env.Now())
	require.EqualValues(t, 2+2, env.Events(), "two starts, one close, one arrival")
}

func TestStreamOverALinkThatDies(t *testing.T) {
	env := world.NewSim(t.Context())
	l := NewLink(env, wireSheet(), Down, LinkOptions{Trace: &Trace{Slot: time.Second, Rates: append([]float64{1e6}, make([]float64, 100)...)}, Timeout: 2 * time.Second})
	s := l.Open()
	env.Go("server", func() {
		for range 5 {
			s.Write(hardware.Payload{Bytes: 400_000})
		}
		s.Close(nil)
	})
	env.Go("user", func() {
		got, err := s.Drain()
		require.ErrorIs(t, err, hardware.ErrLinkDown)
		require.Len(t, got, 2, "what got through")
		require.Equal(t, 3*time.Second, env.Now(), "the reader learns it when the link gives up")
		_, err = l.Send(hardware.Payload{Bytes: 1})
		require.ErrorIs(t, err, hardware.ErrLinkDown)
	})
	require.NoError(t, env.Run())
}

func BenchmarkNext(b *testing.B) {
	for _, name := range []string{"ethernet-1g", "nr-midband-eu-2023"} {
		p, err := profiles.Link(name)
		require.NoError(b, err)
		b.Run("link="+name, func(b *testing.B) {
			s := state(p, Up, LinkOptions{Radio: NewRadio(p.Radio)})
			now := time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				t, err := s.Next(now, 1000)
				if err != nil {
					b.Fatal(err)
				}
				now = t.Sent + 50*ms
			}
		})
	}
}

package city

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/hwtest"
	"meibench/hardware/profiles"
	"meibench/hardware/radio"
	"meibench/hardware/world"
	"meibench/internal/rng"
	"meibench/internal/units"
)

// alone is one omnidirectional site without chance, delay or neighbours.
func alone() Config {
	c := Default(1)
	c.Layout, c.Sectors, c.Antenna = radio.Layout{Sites: []radio.Point{{}}}, 1, radio.Antenna{}
	c.NoChance, c.Delay = true, 0
	return c
}

func build(t testing.TB, env world.Env, c Config) *Network {
	n, err := New(env, c)
	require.NoError(t, err)
	return n
}

func run(t testing.TB, r world.Runner, fn func()) {
	r.Go("test", fn)
	require.NoError(t, r.Run())
}

func TestX2LinksConform(t *testing.T) {
	for _, d := range []string{"up", "down"} {
		t.Run(d, func(t *testing.T) {
			hwtest.Link(t, func(env world.Env) hardware.Link {
				c := Default(3)
				c.Radio = modem()
				a := build(t, env, c).Access(1, Spot{40, 30}, nil)
				if d == "up" {
					return a.Up()
				}
				return a.Down()
			}, hwtest.LinkOptions{})
		})
	}
}

func q(v float64) profiles.Quantity { return profiles.Quantity{Value: v} }

func modem() *profiles.Radio {
	return &profiles.Radio{Ladder: []profiles.Rung{{After: q(10), Extra: q(0.5)}}, Tail: q(10), Active: q(2), Idle: q(0.5)}
}

// One user, one cell, no interference: the rate of package radio to the
// nanosecond, by the same formulas put together here by hand.
func TestX1AloneIsTheSingleUserRate(t *testing.T) {
	c := alone()
	law := c.Scenario.Law(c.Frequency, 10, 1.5)
	snr := 44 - law.Loss(true, 50) - radio.Noise(273*360e3, 9) // in sight at 50 m: P = 0.52
	require.Greater(t, law.Sight(50), 0.5)
	rate := 0.75 * 0.86 * 273 * 12 * 28000 * 2 * radio.MustTable(2).Goodput(snr) / 8
	r := world.NewSim(nil)
	a := build(t, r, c).Access(0, Spot{50, 0}, nil)
	run(t, r, func() {
		for _, n := range []units.Bytes{1000, 1_000_000, 30_000_000} {
			before := r.Now()
			d, err := a.Down().Send(hardware.Payload{Bytes: n})
			require.NoError(t, err)
			want := float64(n+costmodel.FrameBytes) / rate * 1e9
			require.InDelta(t, want, float64(d.Usage.End-before), 2+want/2e8, "a nanosecond a piece")
		}
		_, down := a.SINR(r.Now())
		require.InDelta(t, snr, down, 1e-9)
	})
}

// Far from the base the uplink has 23 dBm and no more: as many blocks as give the
// most, tried one by one. The budget is rounded down by at most 0.06 dB.
func TestX1UplinkIsShortOfPower(t *testing.T) {
	c := alone()
	law := c.Scenario.Law(c.Frequency, 10, 1.5)
	loss := law.Loss(false, 300)
	best, least, table := 0.0, 0.0, radio.MustTable(2)
	for blocks := 273; blocks > 0; blocks-- {
		sent := min(23, -80+10*math.Log10(float64(blocks))+0.8*loss)
		snr := sent - loss - radio.Noise(float64(blocks)*360e3, 5)
		best = max(best, 0.25*0.92*float64(blocks)*12*28000*table.Goodput(snr)/8)
		least = max(least, 0.25*0.92*float64(blocks)*12*28000*table.Goodput(snr-0.06)/8)
	}
	r := world.NewSim(nil)
	a := build(t, r, c).Access(0, Spot{300, 0}, nil)
	run(t, r, func() {
		upward, downward := a.Rates(r.Now())
		require.LessOrEqual(t, upward, best)
		require.GreaterOrEqual(t, upward, least)
		require.Greater(t, downward, 5*upward, "the uplink is the bottleneck")
		before := r.Now()
		d, err := a.Up().Send(hardware.Payload{Bytes: 1_000_000})
		require.NoError(t, err)
		require.InEpsilon(t, 1_000_016/upward, (d.Usage.End - before).Seconds(), 1e-6, "alone it is as fast as its own rate, not as the cell")
	})
}

// share has k users at given places each download n bytes at once; it returns
// when each is done.
func share(t *testing.T, c Config, n units.Bytes, at ...Spot) (ends []time.Duration, net *Network) {
	r := world.NewSim(nil)
	net = build(t, r, c)
	ends = make([]time.Duration, len(at))
	for i, s := range at {
		a := net.Access(i, s, nil)
		r.Go("user", func() {
			d, err := a.Down().Send(hardware.Payload{Bytes: n})
			require.NoError(t, err)
			ends[i] = d.Usage.End
		})
	}
	require.NoError(t, r.Run())
	return ends, net
}

func TestX2Schedulers(t *testing.T) {
	const n = 5_000_000
	near, far := Spot{20, 0}, Spot{200, 0}
	c := alone()
	one, _ := share(t, c, n, near)
	weak, _ := share(t, c, n, far)
	// Equal resource: the near one takes twice as long as alone, the far one what both need together.
	both, net := share(t, c, n, near, far)
	require.InEpsilon(t, 2*one[0].Seconds(), both[0].Seconds(), 1e-3)
	require.InEpsilon(t, (one[0] + weak[0]).Seconds(), both[1].Seconds(), 1e-3)
	require.InEpsilon(t, 1.0, net.Figures()["cell_airtime_down"], 1e-3)
	// Equal rate: both at 1/(1/r1 + 1/r2), so both end when the work is done.
	c.Scheduler = radio.MaxMin
	both, _ = share(t, c, n, near, far)
	require.InEpsilon(t, (one[0] + weak[0]).Seconds(), both[0].Seconds(), 1e-3)
	require.InEpsilon(t, (one[0] + weak[0]).Seconds(), both[1].Seconds(), 1e-3)
	// Proportional fair: alike users share the gain.
	c.Scheduler = radio.Proportional
	both, _ = share(t, c, n, near, near)
	require.InEpsilon(t, 2*one[0].Seconds()/radio.PFGain(2, 10), both[0].Seconds(), 1e-3)
}

// Of two cells that face each other, each interferes by its load.
func TestX1InterferenceFollowsLoad(t *testing.T) {
	c := alone()
	c.Layout = radio.Layout{Sites: []radio.Point{{X: 0}, {X: 150}}}
	r := world.NewSim(nil)
	net := build(t, r, c)
	a, b := net.Access(0, Spot{50, 0}, nil), net.Access(1, Spot{110, 0}, nil)
	law := c.Scenario.Law(c.Frequency, 10, 1.5)
	want := func(load float64) float64 {
		return radio.SINR(44-law.Loss(true, 50), radio.Noise(273*360e3, 9), []float64{44 - law.Loss(false, 100)}, []float64{load})
	}
	// Upwards the noise rises by at most Rise, 6 dB, in proportion to the load.
	rise := func(load float64) float64 { return 10 * math.Log10(1+(math.Pow(10, 0.6)-1)*load) }
	r.Go("victim", func() {
		require.Equal(t, 0, a.Cell(0))
		calm, quiet := a.SINR(r.Now())
		require.InDelta(t, want(0), quiet, 1e-9)
		require.Equal(t, quiet, a.Downlink(r.Now(), 0))
		require.InDelta(t, 44-law.Loss(false, 100)-radio.Noise(273*360e3, 9), a.Downlink(r.Now(), 1), 1e-9)
		require.Equal(t, math.Inf(-1), a.Downlink(r.Now(), 2))
		require.Equal(t, a.Signals(0)[0], a.Best(0))
		r.Sleep(8 * time.Second) // the other cell has been busy for eight seconds
		rough, loud := a.SINR(r.Now())
		load := net.cells[1].share[up].Recent()
		require.Greater(t, load, 0.2)
		require.InDelta(t, rise(load), calm-rough, 1e-6)
		require.InDelta(t, want(1-math.Exp(-8)), loud, 1e-3)
		require.Less(t, loud, quiet-10)
		r.Sleep(20 * time.Second)
		_, after := a.SINR(r.Now())
		require.InDelta(t, quiet, after, 1e-3)
	})
	r.Go("neighbour", func() {
		require.Equal(t, 1, b.Cell(0))
		for r.Now() < 9*time.Second {
			_, err := b.Down().Send(hardware.Payload{Bytes: 1 << 20})
			require.NoError(t, err)
		}
	})
	r.Go("upwards", func() {
		for r.Now() < 9*time.Second {
			_, err := b.Up().Send(hardware.Payload{Bytes: 1 << 18})
			require.NoError(t, err)
			r.Sleep(10 * time.Millisecond)
		}
	})
	require.NoError(t, r.Run())
}

func TestX1UnreachableUser(t *testing.T) {
	r := world.NewSim(nil)
	net := build(t, r, alone())
	a := net.Access(0, Spot{1e6, 0}, nil)
	run(t, r, func() {
		_, err := a.Up().Send(hardware.Payload{Bytes: 10})
		require.ErrorIs(t, err, hardware.ErrLinkDown)
		require.Equal(t, 30*time.Second, r.Now())
		s := a.Down().Open()
		s.Write(hardware.Payload{Bytes: 10})
		s.Close(nil)
		_, err = s.Drain()
		require.ErrorIs(t, err, hardware.ErrLinkDown)
		require.Equal(t, 60*time.Second, r.Now())
	})
	f := net.Figures()
	require.Equal(t, 1.0, f["outage_share"])
	require.Equal(t, 60.0, f["outage_time"])
	require.Equal(t, 2.0, f["radio_failed"])
	require.NotContains(t, f, "sinr_up")
}

// More bandwidth at the same power density, or a higher power, never hurts a user
// alone: upwards to within the 0.05 dB to which its budget is rounded.
func TestX1MoreNeverHurtsAlone(t *testing.T) {
	took := func(c Config, x float64) [2]time.Duration {
		r := world.NewSim(nil)
		a := build(t, r, c).Access(0, Spot{x, 0}, nil)
		var out [2]time.Duration
		run(t, r, func() {
			for d, l := range []hardware.Link{a.Up(), a.Down()} {
				from := r.Now()
				_, err := l.Send(hardware.Payload{Bytes: 200_000})
				require.NoError(t, err)
				out[d] = r.Now() - from
			}
		})
		return out
	}
	luck := rng.Stream(4, "places")
	for range 40 {
		x, c := 10+500*rng.Float64(luck), alone()
		last := [2]time.Duration{math.MaxInt64 / 2, math.MaxInt64 / 2}
		for _, mhz := range []float64{10, 20, 40, 80, 100} {
			c.Bandwidth, c.Power = mhz*1e6, 24+radio.DB(mhz)
			now := took(c, x)
			for d := range now {
				require.LessOrEqual(t, float64(now[d]), float64(last[d])*[2]float64{1.012, 1}[d]+2, "%g MHz at %g m, direction %d", mhz, x, d)
			}
			last = now
		}
		c.Power += 6
		require.LessOrEqual(t, took(c, x)[down], last[down]+2)
	}
}

// busyCity is 60 users at random in a network with chance, who send, stream and
// move; it returns what arrived when, in words.
func busyCity(t testing.TB, r world.Runner, scheduler radio.Scheduler) (string, *Network) {
	c := Default(11)
	c.Scheduler, c.Radio = scheduler, modem()
	net, err := New(r, c)
	require.NoError(t, err)
	luck := rng.Stream(11, "users")
	lines := make([]string, 60)
	for i := range lines {
		x, y := net.Place(rng.Float64(luck), rng.Float64(luck))
		a := net.Access(i, walk{x, y, 20 * (rng.Float64(luck) - 0.5)}, nil)
		pause := time.Duration(1e9 * rng.Exp(luck))
		r.Go(fmt.Sprint("user ", i), func() {
			r.Sleep(pause)
			for k := range 4 {
				d, err := a.Up().Send(hardware.Payload{Bytes: units.Bytes(30_000 * (k + 1))})
				lines[i] += fmt.Sprintln(d.Usage.Start, d.Usage.End, float64(d.Usage.Energy), err)
				s := a.Down().Open()
				for range 10 {
					s.Write(hardware.Payload{Bytes: 20})
					r.Sleep(30 * time.Millisecond)
				}
				s.Write(hardware.Payload{Bytes: 400_000})
				s.Close(nil)
				got, err := s.Drain()
				lines[i] += fmt.Sprintln(len(got), r.Now(), err)
			}
		})
	}
	require.NoError(t, r.Run())
	all := ""
	for _, l := range lines {
		all += l
	}
	return all, net
}

type walk struct{ x, y, speed float64 }

func (w walk) At(t time.Duration) (x, y float64) { return w.x + w.speed*t.Seconds(), w.y }

func TestX2CityIsTheSameInBothWorlds(t *testing.T) {
	for _, s := range []radio.Scheduler{radio.RoundRobin, radio.Proportional, radio.MaxMin} {
		want, net := busyCity(t, world.NewSim(nil), s)
		again, _ := busyCity(t, world.NewSim(nil), s)
		require.Equal(t, want, again)
		synctest.Test(t, func(t *testing.T) {
			got, _ := busyCity(t, world.NewReal(nil), s)
			require.Equal(t, want, got)
		})
		f := net.Figures()
		require.Equal(t, float64(60*4*(16+30_000*5/2)), f["radio_bytes_up"], "bytes are conserved")
		require.Equal(t, float64(60*4*(400_016+10*36)), f["radio_bytes_down"])
		for _, d := range []string{"up", "down"} {
			require.LessOrEqual(t, f["cell_airtime_"+d+"_max"], 1.0)
			require.Positive(t, f["cell_airtime_"+d])
			require.LessOrEqual(t, f["fairness_"+d], 1.0)
			require.Greater(t, f["fairness_"+d], 0.0)
		}
		require.LessOrEqual(t, f["spectral_down"], 2*7.41*0.75*0.86)
	}
}

// swap is a handover that changes to the other cell at 1 s and cuts off for half
// a second.
type swap struct {
	attached []int
	asked    []time.Duration
}

func (s *swap) Attach(_ time.Duration, cell int) { s.attached = append(s.attached, cell) }

func (s *swap) Serving(t time.Duration, v View) (int, time.Duration) {
	s.asked = append(s.asked, t)
	if len(v.Signals(t)) != 2 {
		panic("two cells")
	}
	if t >= time.Second {
		return 1, 1500 * time.Millisecond
	}
	return 0, 0
}

func TestX3HandoverInterrupts(t *testing.T) {
	c := alone()
	c.Layout = radio.Layout{Sites: []radio.Point{{X: 0}, {X: 150}}}
	r := world.NewSim(nil)
	net := build(t, r, c)
	h := &swap{}
	a := net.Access(0, Spot{74, 0}, h)
	run(t, r, func() {
		require.Equal(t, 0, a.Cell(0))
		_, err := a.Down().Send(hardware.Payload{Bytes: 1000})
		require.NoError(t, err)
		r.Sleep(1100*time.Millisecond - r.Now())
		d, err := a.Down().Send(hardware.Payload{Bytes: 1000})
		require.NoError(t, err)
		require.Greater(t, d.Usage.End, 1500*time.Millisecond)
		require.Less(t, d.Usage.End, 1510*time.Millisecond)
		require.Equal(t, 1, a.Cell(r.Now()))
		require.Equal(t, 1, a.Handovers())
		r.Sleep(time.Minute)
		require.Equal(t, 0, a.Cell(r.Now()), "idle, it camps on the best")
		require.Equal(t, 1, a.Handovers(), "which is no handover")
		require.Equal(t, []int{0, 0, 0}, h.attached, "first asked, first message, idle")
		for i := 1; i < len(h.asked); i++ {
			require.GreaterOrEqual(t, h.asked[i], h.asked[i-1])
		}
	})
	require.InDelta(t, 0.4, net.Figures()["interruption"], 1e-9)
}

// The radio of a user wakes after a pause, and its transmitter costs more where
// it has to shout.
func TestX1EnergyOfTheUser(t *testing.T) {
	energy := func(x float64) (float64, time.Duration) {
		c := alone()
		c.Radio = modem()
		r := world.NewSim(nil)
		a := build(t, r, c).Access(0, Spot{x, 0}, nil)
		var u hardware.Usage
		run(t, r, func() {
			d, err := a.Up().Send(hardware.Payload{Bytes: 100_000})
			require.NoError(t, err)
			u = d.Usage
			require.Equal(t, hardware.Modelled, u.Joules)
		})
		return float64(u.Energy), u.End
	}
	near, took := energy(12)
	far, _ := energy(250)
	require.Greater(t, took, 500*time.Millisecond, "it slept")
	// 2 W while awake and moving, 10 s of 0.5 W after it, and the transmitter's own.
	floor := 2*took.Seconds() + 5
	require.InDelta(t, floor, near, 0.05)
	require.Greater(t, near, floor)
	require.Greater(t, far, near+0.02)
}

func TestX1CheckRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"sites":      func(c *Config) { c.Layout.Sites = nil },
		"sectors":    func(c *Config) { c.Sectors = 2 },
		"down_share": func(c *Config) { c.DownShare = 0 },
		"up_share":   func(c *Config) { c.UpShare = 1.5 },
		"power":      func(c *Config) { c.Power = math.NaN() },
		"candidate":  func(c *Config) { c.Candidates = 0 },
		"MCS table":  func(c *Config) { c.MCSTable = 4 },
		"bandwidth":  func(c *Config) { c.Bandwidth = 7e6 },
		"finite":     func(c *Config) { c.Layout.Sites[0].X = math.NaN() },
	} {
		c := Default(1)
		spoil(&c)
		_, err := New(world.NewSim(nil), c)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, "want")
	}
}

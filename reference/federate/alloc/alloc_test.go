package alloc

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// near is a channel at 20 dB with 1 MHz and 0.2 W: gain = 100 N0 W / P.
var near = Radio{Gain: 2e-12, Noise: 4e-21}

// T8: energy of sending grows with the power, its time falls, and Watts undoes Rate.
func TestEnergyGrowsWithPowerAndTimeFalls(t *testing.T) {
	const bits, hz = 8e6, 1e6
	lastJoules, lastRate := near.Least(bits), 0.0
	for watts := 1e-5; watts < 10; watts *= 1.5 {
		joules, rate := near.Joules(bits, hz, watts), near.Rate(hz, watts)
		require.Greater(t, joules, lastJoules, "%g W", watts)
		require.Greater(t, rate, lastRate)
		require.InEpsilon(t, watts, near.Watts(hz, rate), 1e-9)
		require.InEpsilon(t, hz, near.narrowest(rate, watts), 1e-6)
		lastJoules, lastRate = joules, rate
	}
	// 0.2 W x 2e-12 / (4e-21 x 1e6) = 100: log2(101) bit/s/Hz
	require.InEpsilon(t, 1e6*math.Log2(101), near.Rate(1e6, 0.2), 1e-12)
	// endless bandwidth: P h / (N0 ln 2) = 1.44e8 bit/s; as much is not had
	require.True(t, math.IsInf(near.narrowest(1.45e8, 0.2), 1))
	require.False(t, math.IsInf(near.narrowest(1.44e8, 0.2), 1))
	require.Zero(t, near.Rate(0, 0.2))
}

func TestInverseOfPrice(t *testing.T) {
	for x := 1e-4; x < 200; x *= 1.3 {
		require.InEpsilon(t, x, priced(price(x)), 1e-6, "x = %g", x)
	}
}

// T8: with a deadline the clock of least energy is c D / T.
func TestSlowestClockTakesLeast(t *testing.T) {
	c := Compute{CyclesPerBit: 20, Kappa: 1e-28}
	const bits, deadline = 5e8, 4.0
	f, ok := c.Slowest(bits, deadline, 3e9)
	require.True(t, ok)
	require.Equal(t, 2.5e9, f) // 20 x 5e8 / 4
	require.Equal(t, deadline, c.Seconds(bits, f))
	require.InEpsilon(t, 6.25, c.Joules(bits, f), 1e-12) // 1e-28 x 1e10 x 6.25e18
	for hz := f; hz < 3e9; hz += 1e7 {                   // every clock that is quick enough
		require.LessOrEqual(t, c.Seconds(bits, hz), deadline)
		require.GreaterOrEqual(t, c.Joules(bits, hz), c.Joules(bits, f))
	}
	_, ok = c.Slowest(bits, 1, 3e9)
	require.False(t, ok)
	require.Equal(t, 4.0, Broadcast(8, 4, 2, 16), "the worst user counts")
}

// instance is one of luck: gains over 30 dB, two cuts or three, three ranks.
func instance(n int, seed uint64) *Instance {
	luck := rng.Stream(seed, "alloc", n)
	between := func(a, b float64) float64 { return a * math.Pow(b/a, luck.Float64()) }
	in := &Instance{Hz: between(1e6, 2e7), Noise: 1.3e-20, MaxWatts: 0.2, Weight: between(0.01, 3)}
	s := Split{Layers: 12, Cuts: []int{1, 3, 6}[:2+luck.IntN(2)], Steps: 1 + luck.IntN(4), UpBytes: between(2e5, 1e7), DownBytes: 1e5, AdapterBytes: []float64{2e4, 8e4, 3.2e5}}
	a := between(0.5, 8)
	for _, r := range []float64{1, 4, 16} {
		in.Rounds = append(in.Rounds, 1+a/r)
	}
	for range n {
		in.Clients = append(in.Clients, s.Client(between(1e-13, 1e-10), Speed{Forward: between(0.001, 0.1), Backward: between(0.001, 0.1), Server: 0.002,
			DownBytesPerSec: 1e7, Watts: between(1, 5), ServerWatts: 50}))
	}
	if seed%2 == 1 { // a server that may be what a round waits for
		for range s.Cuts {
			in.Busy = append(in.Busy, between(0.1, 20))
		}
	}
	return in
}

// T8: at the soonest end all end at once, at full power; no division ends sooner.
func TestT8FinishTimesAreEqual(t *testing.T) {
	for n := 1; n <= 20; n++ {
		in := instance(n, 2)
		d := Bandwidth(in, 1, 1)
		o, even := in.Judge(&d), Fixed(in, 1, 1)
		sum := 0.0
		for i, f := range o.Finish {
			require.InEpsilon(t, o.Finish[0], f, 1e-6)
			require.Equal(t, in.MaxWatts, d.Watts[i])
			sum += d.Hz[i]
		}
		require.InEpsilon(t, in.Hz, sum, 1e-9)
		require.LessOrEqual(t, o.Seconds, in.Judge(&even).Seconds*(1+1e-9))
		luck := rng.Stream(3, "others", n)
		for range 50 {
			other, total := Decision{Cut: 1, Rank: 1, Hz: make([]float64, n), Watts: d.Watts}, 0.0
			for i := range other.Hz {
				other.Hz[i] = rng.Exp(luck)
				total += other.Hz[i]
			}
			for i := range other.Hz {
				other.Hz[i] *= in.Hz / total
			}
			require.GreaterOrEqual(t, in.Judge(&other).Seconds, o.Seconds*(1-1e-9))
		}
	}
}

// T8: parts add up, and a byte is eight bits.
func TestPartsAddUp(t *testing.T) {
	s := Split{Layers: 4, Cuts: []int{1}, Steps: 10, UpBytes: 1e5, DownBytes: 5e4, AdapterBytes: []float64{2e5}}
	in := &Instance{Hz: 2e6, Noise: near.Noise, MaxWatts: 0.2, Weight: 0.5, Rounds: []float64{3}}
	for range 2 {
		in.Clients = append(in.Clients, s.Client(near.Gain, Speed{Forward: 0.01, Backward: 0.02, Server: 0.005, DownBytesPerSec: 1e6, Watts: 2, ServerWatts: 40}))
	}
	require.NoError(t, in.Check())
	d := Fixed(in, 0, 0)
	o := in.Judge(&d)
	// Each has 1 MHz at 20 dB. Device 10 x 0.03 = 0.3 s; server 10 x 3 x 0.005 = 0.15 s; down (10 x 5e4 + 2e5) / 1e6 = 0.7 s; up 8 x (1e6 + 2e5) bits.
	air := 9.6e6 / (1e6 * math.Log2(101))
	require.InEpsilon(t, 1.15+air, o.Seconds, 1e-12)
	require.InEpsilon(t, 2*(0.3*2+0.15*40), o.Compute, 1e-12)
	require.InEpsilon(t, 0.2*air, o.Radio[0], 1e-12)
	require.InEpsilon(t, o.Compute+o.Radio[0]+o.Radio[1], o.Joules, 1e-12)
	require.InEpsilon(t, 3*(o.Seconds+0.5*o.Joules), o.Cost, 1e-12)
	d.Hz[0] *= 1.1
	require.True(t, math.IsInf(in.Judge(&d).Cost, 1), "more than the band")
	d = Fixed(in, 0, 0)
	d.Watts[1] = 0.3
	require.True(t, math.IsInf(in.Judge(&d).Cost, 1), "more than the power")
}

// The joint choice is within 1 % of an exhaustive one, both ways: the grid is the coarser, since for a cut and rank the program is convex.
func TestT8JointAgainstExhaustive(t *testing.T) {
	worst, gap := 0.0, 0.0
	for seed := range uint64(60) {
		in := instance(1+int(seed%3), seed)
		require.NoError(t, in.Check())
		joint, best := Joint(in, 0, 0), Exhaustive(in, 0, 0)
		a, b := in.Judge(&joint).Cost, in.Judge(&best).Cost
		require.False(t, math.IsInf(a, 1))
		require.LessOrEqual(t, a, b*(1+1e-6), "seed %d: %v against %v", seed, joint, best)
		worst, gap = max(worst, b/a-1), max(gap, a/b-1)
	}
	t.Logf("exhaustive is up to %.3g %% above joint, joint up to %.3g %% above exhaustive", 100*worst, 100*gap)
	require.Less(t, worst, 0.01)
}

// Exhaustive's way through powers finds what their product does.
func TestT8ExhaustiveIsTheProduct(t *testing.T) {
	for seed := range uint64(6) {
		in := instance(2, 100+seed)
		got := Exhaustive(in, 0, 0)
		least, watts := math.Inf(1), make([]float64, gridPowers)
		for k := range watts {
			watts[k] = in.MaxWatts * math.Pow(gridStep, float64(k))
		}
		for part := 1; part < gridShares[2]; part++ {
			x := float64(part) / float64(gridShares[2])
			for _, p := range watts {
				for _, q := range watts {
					d := Decision{Cut: got.Cut, Rank: got.Rank, Hz: []float64{x * in.Hz, in.Hz - x*in.Hz}, Watts: []float64{p, q}}
					least = min(least, in.Judge(&d).Cost)
				}
			}
		}
		require.InEpsilon(t, least, in.Judge(&got).Cost, 1e-9)
	}
	require.Panics(t, func() { Exhaustive(instance(4, 1), 0, 0) })
}

// Where joules do not count the soonest end is the best, exactly; one client alone has the whole band.
func TestT8ExactWhereTheRelaxationIs(t *testing.T) {
	for seed := range uint64(20) {
		in := instance(1+int(seed%5), 200+seed)
		in.Weight = 0
		got, want := Best(in, 0, 2), Bandwidth(in, 0, 2)
		require.Equal(t, in.Judge(&want).Cost, in.Judge(&got).Cost)
	}
	in := instance(1, 9)
	d := Best(in, 0, 0)
	require.InEpsilon(t, in.Hz, d.Hz[0], 1e-12)
	least := math.Inf(1) // power is all there is to choose
	for k := range 200_001 {
		one := Decision{Hz: d.Hz, Watts: []float64{in.MaxWatts * math.Pow(1e-5, float64(k)/200_000)}}
		least = min(least, in.Judge(&one).Cost)
	}
	require.InEpsilon(t, least, in.Judge(&d).Cost, 1e-6)
}

// More of the band, more power or a later deadline is never worse, and each policy is at least as good as the one that chooses less.
func TestT8MoreIsNeverWorse(t *testing.T) {
	for seed := range uint64(8) {
		for name, more := range map[string]func(*Instance){"band": func(in *Instance) { in.Hz *= 1.3 }, "power": func(in *Instance) { in.MaxWatts *= 1.3 },
			"deadline": func(in *Instance) { in.Deadline *= 1.3 }} {
			in := instance(1+int(seed%8), 300+seed)
			d := Joint(in, 0, 0)
			in.Deadline = 0.9 * in.Judge(&d).Seconds // so that it binds
			last := math.Inf(1)
			for range 6 {
				d := Joint(in, 0, 0)
				cost := in.Judge(&d).Cost
				require.LessOrEqual(t, cost, last*(1+1e-7), "%s, seed %d", name, seed)
				last = cost
				more(in)
			}
		}
		in := instance(1+int(seed%8), 400+seed)
		cost := func(p func(*Instance, int, int) Decision) float64 { d := p(in, 1, 1); return in.Judge(&d).Cost }
		require.LessOrEqual(t, cost(Best), min(cost(Fixed), cost(Bandwidth))*(1+1e-9))
		require.LessOrEqual(t, cost(Joint), cost(Best)*(1+1e-9))
	}
}

// The bound is one: no decision costs less.
func TestT8BoundIsBelow(t *testing.T) {
	for seed := range uint64(30) {
		in := instance(1+int(seed%6), 500+seed)
		for cut := range in.cuts() {
			for rank := range in.Rounds {
				d := Best(in, cut, rank)
				require.LessOrEqual(t, in.bound(cut, rank), in.Judge(&d).Cost)
			}
		}
	}
}

func TestDeadlines(t *testing.T) {
	in := instance(3, 7)
	d := Bandwidth(in, 0, 0)
	in.Deadline = in.Judge(&d).Seconds * 1.0001
	d = Best(in, 0, 0)
	require.LessOrEqual(t, in.Judge(&d).Seconds, in.Deadline*(1+1e-9))
	require.False(t, math.IsInf(in.Judge(&d).Cost, 1))
	in.Deadline = 1e-6
	for _, p := range Policies {
		d := p.Decide(in, 0, 0)
		require.True(t, math.IsInf(in.Judge(&d).Cost, 1), p.Name)
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Instance){
		"no band":    func(in *Instance) { in.Hz = 0 },
		"no clients": func(in *Instance) { in.Clients = nil },
		"no ranks":   func(in *Instance) { in.Rounds = nil },
		"no gain":    func(in *Instance) { in.Clients[0].Gain = 0 },
		"a table":    func(in *Instance) { in.Clients[1].Down = nil },
		"no bits":    func(in *Instance) { in.Clients[0].Bits[0][0] = 0 },
		"no server":  func(in *Instance) { in.Busy = []float64{1} },
		"no number":  func(in *Instance) { in.Clients[0].Device[0] = math.NaN() },
	} {
		in := instance(2, 1)
		spoil(in)
		require.ErrorContains(t, in.Check(), "check allocation", name)
	}
	_, err := Find("luck")
	require.ErrorContains(t, err, "luck")
}

func BenchmarkJoint(b *testing.B) {
	for _, n := range []int{3, 10, 50} {
		b.Run(fmt.Sprint("clients=", n), func(b *testing.B) {
			in := instance(n, 1)
			for b.Loop() {
				Joint(in, 0, 0)
			}
		})
	}
}

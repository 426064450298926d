package partition

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

func someProfile(r *rand.Rand, layers int) (p Profile, l Link) {
	p.Bytes = []float64{r.Float64() * 100}
	for range layers {
		p.DeviceSec = append(p.DeviceSec, r.Float64())
		p.EdgeSec = append(p.EdgeSec, r.Float64()*0.3)
		p.Bytes = append(p.Bytes, r.Float64()*100)
	}
	return p, Link{20 + r.Float64()*200, 20 + r.Float64()*400, r.Float64() * 0.3}
}

// longhand is the time of any assignment of layers to sides, added up as it happens.
func longhand(p Profile, l Link, onEdge func(i int) bool) float64 {
	sec, side := 0.0, false
	cross := func(i int, to bool) {
		if to == side {
			return
		}
		if side = to; to {
			sec += l.RTTSec/2 + p.Bytes[i]/l.UpBytesPerSec
		} else {
			sec += l.RTTSec/2 + p.Bytes[i]/l.DownBytesPerSec
		}
	}
	for i := range p.DeviceSec {
		if cross(i, onEdge(i)); side {
			sec += p.EdgeSec[i]
		} else {
			sec += p.DeviceSec[i]
		}
	}
	cross(len(p.DeviceSec), false)
	return sec
}

func TestI4BestEqualsExhaustiveSearch(t *testing.T) {
	r := rng.Stream(1, "partition cut")
	seen := map[int]bool{}
	for range 500 {
		p, l := someProfile(r, 6)
		least, at := math.Inf(1), 0
		for k := range 7 {
			if sec := longhand(p, l, func(i int) bool { return i >= k }); sec < least-1e-12 {
				least, at = sec, k
			}
		}
		cut, sec := p.Best(l, Latency)
		require.InDelta(t, least, sec, 1e-12)
		require.Equal(t, at, cut)
		seen[cut] = true
		deviceOnly, edgeOnly := p.Cost(6, l, Latency), p.Cost(0, l, Latency)
		require.LessOrEqual(t, sec, min(deviceOnly, edgeOnly))
		require.InDelta(t, sum(p.DeviceSec), deviceOnly, 1e-12)
	}
	require.Greater(t, len(seen), 3, "cuts in the middle win too: %v", seen)
}

func TestI4UShapeEqualsExhaustiveSearch(t *testing.T) {
	r := rng.Stream(2, "partition u")
	for range 300 {
		p, l := someProfile(r, 6)
		least := longhand(p, l, func(int) bool { return false })
		for a := 1; a <= 6; a++ {
			for b := a; b <= 5; b++ { // the last layer stays on the device
				least = min(least, longhand(p, l, func(i int) bool { return i >= a && i < b }))
			}
		}
		a, c, sec := p.BestU(1, 1, l, Latency)
		require.InDelta(t, least, sec, 1e-12)
		require.InDelta(t, sec, p.CostU(a, c, l, Latency), 1e-12)
		require.True(t, a >= 1 && (c >= 1 || a == 6), "%d %d", a, c)
		_, _, free := p.BestU(0, 0, l, Latency)
		_, best := p.Best(l, Latency)
		require.LessOrEqual(t, free, best)
	}
}

func TestI4ShortestPathEqualsExhaustiveSearch(t *testing.T) {
	r := rng.Stream(3, "partition path")
	crossings := 0
	for range 400 {
		p, l := someProfile(r, 7)
		l.UpBytesPerSec, l.DownBytesPerSec, l.RTTSec = l.UpBytesPerSec*20, l.DownBytesPerSec*20, l.RTTSec/10
		for i := range p.EdgeSec {
			p.EdgeSec[i] *= 3 // neither side is always quicker
		}
		least := math.Inf(1)
		for sides := range 128 {
			least = min(least, longhand(p, l, func(i int) bool { return sides>>i&1 == 1 }))
		}
		onEdge, sec := p.Path(l)
		require.InDelta(t, least, sec, 1e-12)
		require.InDelta(t, sec, longhand(p, l, func(i int) bool { return onEdge[i] }), 1e-12)
		_, best := p.Best(l, Latency)
		require.LessOrEqual(t, sec, best+1e-12)
		if best-sec > 1e-9 {
			crossings++
		}
	}
	require.Positive(t, crossings, "more than one visit to the edge pays sometimes")
}

func TestI4FastLinkAndEdgeGiveEdgeOnly(t *testing.T) {
	r := rng.Stream(4, "partition fast")
	for range 100 {
		p, _ := someProfile(r, 6)
		for i := range p.EdgeSec {
			p.EdgeSec[i] = p.DeviceSec[i] * 0.9
		}
		cut, _ := p.Best(Link{1e15, 1e15, 0}, Latency)
		require.Zero(t, cut)
		cut, _ = p.Best(Link{1e-9, 1e-9, 0}, Latency)
		require.Equal(t, 6, cut)
	}
}

// By hand: 2 s of computing at 3 W, 1 s of sending at 2 W, 4 s of waiting at 0.5 W.
func TestI4Energy(t *testing.T) {
	require.Equal(t, 10.0, Energy(3, 2, 0.5)(2, 1, 4))
	p := Profile{DeviceSec: []float64{2, 9}, EdgeSec: []float64{1, 3}, Bytes: []float64{50, 10, 4}}
	require.Equal(t, 10.0, p.Cost(1, Link{10, 8, 0.5}, Energy(3, 2, 0.5))) // waits 0.5 + 3 + 4/8
	cut, _ := p.Best(Link{10, 8, 0.5}, Energy(0.001, 100, 0))
	require.Equal(t, 2, cut, "where sending is dear the device works alone")
}

func TestI4RoundingFitsAsTheTextGrows(t *testing.T) {
	w := Weights{Params: []float64{100, 100, 100, 100}, KVBytesPerToken: []float64{1, 1, 1, 1}, DeviceBytes: 250, EdgeBytes: 260}
	// Two layers of 8 bits leave 250 - 200 on the device, 25 tokens of 2 bytes; 260 - 200 leave 30 on the edge.
	require.Equal(t, 25, w.MostTokens(Rounding{2, 8, 8}, 1000))
	require.Equal(t, -1, w.MostTokens(Rounding{3, 8, 8}, 1000))
	require.Equal(t, 10, w.MostTokens(Rounding{2, 8, 8}, 10))
	cost := func(r Rounding) float64 { return math.Abs(float64(r.Cut)-3) + float64(16-r.Front-r.Back)/16 }
	least := -1.0
	for tokens := range 120 {
		best, ok := w.Choose(tokens, []int{4, 8}, cost)
		want, found := math.Inf(1), false
		for cut := range 5 {
			for _, front := range []int{4, 8} {
				for _, back := range []int{4, 8} {
					device := float64(cut) * (float64(100*front)/8 + float64(tokens))
					edge := float64(4-cut) * (float64(100*back)/8 + float64(tokens))
					if device <= 250 && edge <= 260 {
						want, found = min(want, cost(Rounding{cut, front, back})), true
					}
				}
			}
		}
		require.Equal(t, found, ok, tokens)
		if ok {
			require.Equal(t, want, cost(best))
			require.GreaterOrEqual(t, want, least, "longer text never costs less")
			least = want
		}
	}
	_, ok := w.Choose(119, []int{4, 8}, cost)
	require.False(t, ok)
}

func TestI8StaticChannelConvergesToTheFixedOptimum(t *testing.T) {
	r := rng.Stream(5, "partition bandit")
	p, l := someProfile(r, 5)
	best, _ := p.Best(l, Latency)
	require.Equal(t, Static{3}.Choose(State{}), 3)
	for _, delta := range []float64{0, 0.2} {
		require.Equal(t, best, NewHysteresis(p, delta).Choose(State{l}))
	}
	for name, discount := range map[string]float64{"UCB1": 1, "discounted": 0.999} {
		noise := rng.Stream(6, "partition noise")
		b := NewUCB(6, 1, discount)
		var chooser Chooser = b
		var taken []int
		right := 0
		for n := range 6000 {
			k := chooser.Choose(State{l})
			chooser.Observe(k, p.Cost(k, l, Latency)+0.1*(noise.Float64()-0.5))
			taken = append(taken, k)
			if n >= 5000 && k == best {
				right++
			}
		}
		require.Greater(t, right, 850, name)
		regret := RegretOf(taken, 6, func(_, k int) float64 { return p.Cost(k, l, Latency) })
		require.InDelta(t, regret.Fixed, regret.Oracle, 1e-6, "on a static link the oracle is a fixed cut")
		require.Less(t, regret.Oracle/6000, 0.1, name)
	}
}

// A link that jumps between two rates: those that look follow it; on one that trembles, hysteresis stays.
func TestI8ChoosersOnALinkThatChanges(t *testing.T) {
	p := Profile{DeviceSec: []float64{1, 1}, EdgeSec: []float64{.1, .1}, Bytes: []float64{10, 10, 1}}
	link := func(t int) Link {
		rate := 100.0 + float64(t%2)
		if t/50%2 == 1 {
			rate = 1
		}
		return Link{rate, rate, 0}
	}
	run := func(c Chooser) Regret {
		var taken []int
		for t := range 400 {
			k := c.Choose(State{link(t)})
			c.Observe(k, p.Cost(k, link(t), Latency))
			taken = append(taken, k)
		}
		return RegretOf(taken, 3, func(t, k int) float64 { return p.Cost(k, link(t), Latency) })
	}
	require.Equal(t, Regret{0, run(NewHysteresis(p, 0)).Fixed, 7}, run(NewHysteresis(p, 0)))
	require.Zero(t, run(NewHysteresis(p, 0.2)).Oracle)
	require.Negative(t, run(NewHysteresis(p, 0.2)).Fixed)
	require.Less(t, run(NewUCB(3, 1, 0.9)).Oracle, run(NewUCB(3, 1, 1)).Oracle, "forgetting helps where the link drifts")
	require.Zero(t, run(Static{2}).Switches)
	require.InDelta(t, 0, run(Static{2}).Fixed, 1e-9)

	// Between cut 0 and 2 at the rate where they cost the same, a trembling estimate flips the one and not the other.
	trembling := func(c Chooser) (flips int) {
		last := -1
		for t := range 100 {
			rate := 11.0 / 1.8 * (1 + 0.05*float64(1-t%2*2))
			if k := c.Choose(State{Link{rate, rate, 0}}); k != last {
				last = k
				flips++
			}
		}
		return flips
	}
	require.Equal(t, 100, trembling(NewHysteresis(p, 0)))
	require.Equal(t, 1, trembling(NewHysteresis(p, 0.2)))
}

func Example() {
	p := Profile{ // three layers; the second one's output is small
		DeviceSec: []float64{0.1, 0.1, 0.3}, EdgeSec: []float64{0.01, 0.01, 0.03}, Bytes: []float64{9000, 9000, 100, 4},
	}
	for _, rate := range []float64{1e3, 1e4, 1e6} {
		cut, sec := p.Best(Link{UpBytesPerSec: rate, DownBytesPerSec: rate, RTTSec: 0.02}, Latency)
		fmt.Printf("%.0f B/s: %d layers on the device, %.3f s\n", rate, cut, sec)
	}
	// Output:
	// 1000 B/s: 2 layers on the device, 0.354 s
	// 10000 B/s: 2 layers on the device, 0.260 s
	// 1000000 B/s: 0 layers on the device, 0.079 s
}

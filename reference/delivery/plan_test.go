package delivery

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/library"
)

// family is n models on one backbone of the given bytes, each with a part of its own.
func family(t *testing.T, n int, backbone, own units.Bytes) *library.Library {
	l := &library.Library{Name: "family", Blocks: []library.Block{{Name: "backbone", Bytes: backbone, Hi: 1}}}
	for i := range n {
		m := library.Model{Name: fmt.Sprint("model ", i), Blocks: []int{0}}
		if own > 0 {
			l.Blocks = append(l.Blocks, library.Block{Name: fmt.Sprint("own ", i), Bytes: own})
			m.Blocks = append(m.Blocks, i+1)
		}
		l.Models = append(l.Models, m)
	}
	require.NoError(t, l.Check())
	return l
}

// drawn is a random library of small models over few blocks and requests for some of them.
func drawn(t *testing.T, luck *rand.Rand, users int) (*library.Library, []Request) {
	l := &library.Library{Name: "drawn"}
	blocks := 2 + luck.IntN(5)
	for j := range blocks {
		l.Blocks = append(l.Blocks, library.Block{Name: fmt.Sprint(j), Bytes: units.Bytes(1 + luck.IntN(100_000))})
	}
	for i := range 5 {
		l.Models = append(l.Models, library.Model{Name: fmt.Sprint(i), Blocks: luck.Perm(blocks)[:1+luck.IntN(blocks)]})
	}
	all := make([]int, blocks)
	for j := range all {
		all[j] = j
	}
	l.Models = append(l.Models, library.Model{Name: "all", Blocks: all})
	require.NoError(t, l.Check())
	var rs []Request
	for u := range users {
		rs = append(rs, Want(l, u, 1000*math.Exp(4*luck.Float64()), luck.IntN(len(l.Models)), func(int) bool { return luck.IntN(4) == 0 }))
	}
	return l, rs
}

func make1(t *testing.T, l *library.Library, rs []Request, o Options) *Plan {
	p, err := Make(l, rs, o)
	require.NoError(t, err)
	return p
}

// Under every scheme and order everybody gets exactly what it lacks, once, at a rate that it can hear, when the air is
// free, and the sums are those of the list.
func TestC6EveryoneGetsWhatItLacksOnce(t *testing.T) {
	luck := rng.Stream(1, "everyone")
	for range 60 {
		l, rs := drawn(t, luck, 1+luck.IntN(4))
		for _, scheme := range Schemes() {
			for _, order := range Orders() {
				o := Options{Scheme: scheme.Name, Order: order.Name, Multicast: 0.6, Setup: 3 * time.Millisecond}
				p, err := Make(l, rs, o)
				if scheme.Name == "search" && err != nil {
					require.ErrorContains(t, err, "use fast")
					continue
				}
				require.NoError(t, err)
				complete(t, l, rs, o, p)
			}
		}
	}
}

func complete(t *testing.T, l *library.Library, rs []Request, o Options, p *Plan) {
	got, end := make([][]int, len(rs)), make([]time.Duration, len(rs))
	var before, work time.Duration
	var air, useful units.Bytes
	for _, s := range p.Sent {
		rate, bytes := math.Inf(1), units.Bytes(0)
		for _, j := range s.Blocks {
			bytes += l.Blocks[j].Bytes
		}
		for _, m := range s.Members {
			rate = min(rate, rs[m].Rate)
			got[m] = append(got[m], s.Blocks...)
			end[m] = max(end[m], s.End)
			useful += bytes
		}
		if len(s.Members) > 1 {
			rate *= o.Multicast
		}
		require.Equal(t, bytes, s.Bytes)
		require.Equal(t, rate, s.Rate)
		work += o.Setup + units.TransferTime(bytes, rate)
		air += bytes
		if o.Order != "together" {
			require.Equal(t, before, s.Start)
			require.Equal(t, o.Setup+units.TransferTime(bytes, rate), s.End-s.Start)
		}
		before = s.End
	}
	for m := range rs {
		require.ElementsMatch(t, rs[m].Blocks, got[m])
	}
	require.Equal(t, end, p.Finish)
	require.Equal(t, [3]any{work, air, useful}, [3]any{p.Airtime, p.Bytes, p.Useful})
}

// E: hybrid ≤ min(unicast, multicast); the best grouping ≤ hybrid.
func TestC6HybridIsNoLongerThanEither(t *testing.T) {
	luck := rng.Stream(2, "hybrid")
	shorter, split := 0, 0
	for range 400 {
		l, rs := drawn(t, luck, 1+luck.IntN(6))
		times := map[string]time.Duration{}
		share := 0.2 + 0.8*luck.Float64()
		for _, scheme := range []string{"unicast", "multicast", "hybrid", "grouped"} {
			p := make1(t, l, rs, Options{Scheme: scheme, Multicast: share})
			times[scheme] = p.Airtime - time.Duration(len(p.Sent)) // each is rounded up to the next nanosecond
		}
		require.LessOrEqual(t, times["hybrid"], min(times["unicast"], times["multicast"])+8)
		require.LessOrEqual(t, times["grouped"], times["hybrid"]+8)
		if times["hybrid"]+8 < min(times["unicast"], times["multicast"]) {
			shorter++
		}
		if times["grouped"]+8 < times["hybrid"] {
			split++
		}
	}
	require.Greater(t, shorter, 20, "blocks differ in what is best for them")
	require.Greater(t, split, 20, "leaving the slowest out pays")
}

// E: one user, or nothing shared: all schemes are unicast.
func TestC6NothingSharedIsUnicast(t *testing.T) {
	luck := rng.Stream(3, "unshared")
	for range 50 {
		l, rs := drawn(t, luck, 4)
		apart := l.Unshared()
		for i := range rs {
			rs[i] = Want(apart, i, rs[i].Rate, i, nil)
		}
		one := []Request{Want(l, 9, 1e4, 2, nil)}
		for _, scheme := range Schemes() {
			o := Options{Scheme: scheme.Name, Multicast: 0.7}
			require.Equal(t, make1(t, apart, rs, Options{Scheme: "unicast"}), make1(t, apart, rs, o))
			require.Equal(t, make1(t, l, one, Options{Scheme: "unicast"}), make1(t, l, one, o))
		}
	}
}

// E: identical users and models: multicast is unicast / n, and one transmission.
func TestC6IdenticalUsersTakeOneTransmission(t *testing.T) {
	l := family(t, 3, 1_000_000, 20_000)
	for n := 1; n <= 9; n++ {
		var rs []Request
		for u := range n {
			rs = append(rs, Want(l, u, 1e6, 1, nil))
		}
		uni, multi := make1(t, l, rs, Options{Scheme: "unicast"}), make1(t, l, rs, Options{Scheme: "multicast"})
		require.Equal(t, uni.Airtime, time.Duration(n)*multi.Airtime)
		require.Len(t, multi.Sent, 1)
		require.Equal(t, multi, make1(t, l, rs, Options{Scheme: "hybrid"}))
		require.EqualValues(t, 1_020_000, multi.Bytes)
		require.EqualValues(t, n*1_020_000, multi.Useful)
		require.Equal(t, []int{0, 2}, multi.Sent[0].Blocks)
		require.InEpsilon(t, 8*1e6*float64(n)/20e6, multi.Spectral(20e6), 1e-9)
		base, members := multi.Energy(10, 2)
		require.InEpsilon(t, 10.2, float64(base), 1e-9)
		require.InEpsilon(t, 2.04*float64(n), float64(members), 1e-9)
	}
}

// The rule of the threshold against every partition, with its cost written again.
func TestC6GroupedIsTheLeastOfAllPartitions(t *testing.T) {
	luck := rng.Stream(4, "grouped")
	for range 200 {
		n := 1 + luck.IntN(7)
		l := family(t, 1, 50_000, 0)
		var rs []Request
		members := make([]int, n)
		for u := range n {
			members[u] = u
			rs = append(rs, Want(l, u, 1000*math.Exp(3*luck.Float64()), 0, nil))
		}
		share, setup := 0.1+0.9*luck.Float64(), luck.Float64()*5
		least := math.Inf(1)
		for _, p := range partitions(members) {
			cost := 0.0
			for _, g := range p {
				worst := math.Inf(1)
				for _, m := range g {
					worst = min(worst, rs[m].Rate)
				}
				if len(g) > 1 {
					worst *= share
				}
				cost += setup + 50_000/worst
			}
			least = min(least, cost)
		}
		p := make1(t, l, rs, Options{Scheme: "grouped", Multicast: share, Setup: units.Seconds(setup)})
		require.InDelta(t, least, p.Airtime.Seconds(), 1e-7)
	}
	require.Len(t, partitions([]int{1, 2, 3, 4, 5}), 52, "Bell's number")
}

// The order over subsets against all permutations; the greedy one is never better, and where nothing is shared it is as good.
func TestC6BestOrderIsTheLeastOfAllOrders(t *testing.T) {
	luck := rng.Stream(5, "order")
	worse := 0
	for round := range 200 {
		l, rs := drawn(t, luck, 1+luck.IntN(5))
		scheme := "multicast"
		if round%4 == 0 {
			scheme = "unicast"
		}
		o := Options{Scheme: scheme, Order: "first"}
		least := time.Duration(math.MaxInt64)
		for _, perm := range permutations(len(rs)) {
			moved := make([]Request, len(rs))
			for i, k := range perm {
				moved[i] = rs[k]
			}
			p := make1(t, l, moved, o)
			sum := time.Duration(0)
			for _, f := range p.Finish {
				sum += f
			}
			least = min(least, sum)
		}
		o.Order = "best"
		best, sum := make1(t, l, rs, o), time.Duration(0)
		for _, f := range best.Finish {
			sum += f
		}
		require.Equal(t, least, sum)
		for _, order := range Orders() {
			o.Order = order.Name
			p := make1(t, l, rs, o)
			require.LessOrEqual(t, best.Mean(), p.Mean())
			require.Equal(t, best.Airtime, p.Airtime)
			if order.Name == "shortest" && scheme == "unicast" {
				require.Equal(t, best.Mean(), p.Mean())
			} else if order.Name == "shortest" && best.Mean() < p.Mean() {
				worse++
			}
		}
	}
	require.Positive(t, worse, "with shared blocks the greedy order is not always best")
}

func permutations(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, p := range permutations(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(p), at, n-1))
		}
	}
	return all
}

// All at once, against a simulation in small steps.
func TestC6TogetherIsProcessorSharing(t *testing.T) {
	l := family(t, 3, 100_000, 20_000)
	rs := []Request{Want(l, 0, 1e5, 0, nil), Want(l, 1, 2e5, 1, nil), Want(l, 2, 3e5, 2, func(j int) bool { return j == 0 })}
	p := make1(t, l, rs, Options{Scheme: "unicast", Order: "together"})
	left, finish := []float64{120_000, 120_000, 20_000}, make([]float64, 3)
	const step = 1e-5
	for now := step; slices.Max(left) > 0; now += step {
		on := 0.0
		for _, b := range left {
			if b > 0 {
				on++
			}
		}
		for i := range left {
			if left[i] > 0 {
				if left[i] -= rs[i].Rate * step / on; left[i] <= 0 {
					finish[i] = now
				}
			}
		}
	}
	for i, f := range p.Finish {
		require.InDelta(t, finish[i], f.Seconds(), 1e-3)
	}
}

// Serving fast users apart costs airtime and wins time for them; the local search never loses to what it starts from, nor
// beats the search over everything.
func TestC6SplittingAGroupCanPay(t *testing.T) {
	l := family(t, 1, 1_000_000, 0)
	rs := []Request{Want(l, 0, 100e6, 0, nil), Want(l, 1, 100e6, 0, nil), Want(l, 2, 1e6, 0, nil)}
	p := make1(t, l, rs, Options{Scheme: "search"})
	require.Len(t, p.Sent, 2)
	require.Equal(t, []int{0, 1}, p.Sent[0].Members)
	require.Less(t, p.Mean(), make1(t, l, rs, Options{Scheme: "grouped"}).Mean()/2)

	luck := rng.Stream(6, "split")
	same, n := 0, 0
	for n < 60 {
		l, rs := drawn(t, luck, 2+luck.IntN(3))
		o := Options{Scheme: "search", Multicast: 0.8}
		best, err := Make(l, rs, o)
		if err != nil {
			continue
		}
		n++
		o.Scheme = "fast"
		fast := make1(t, l, rs, o)
		o.Scheme = "grouped"
		require.LessOrEqual(t, fast.Mean(), make1(t, l, rs, o).Mean())
		require.LessOrEqual(t, best.Mean(), fast.Mean())
		if best.Mean() == fast.Mean() {
			same++
		}
	}
	require.Greater(t, same, 45)
}

func TestPlansRefuseNonsense(t *testing.T) {
	l := family(t, 2, 10, 1)
	good := []Request{{User: 1, Rate: 5, Blocks: []int{0, 1}}}
	many := slices.Repeat(good, 15)
	for want, c := range map[string]struct {
		rs []Request
		o  Options
	}{
		"unknown scheme":   {good, Options{Scheme: "broadcast"}},
		"unknown order":    {good, Options{Scheme: "hybrid", Order: "fifo"}},
		"at most 1":        {good, Options{Scheme: "hybrid", Multicast: 1.5}},
		"than 0":           {good, Options{Scheme: "hybrid", Multicast: math.NaN()}},
		"setup of -1ns":    {good, Options{Scheme: "hybrid", Setup: -1}},
		"rate NaN":         {[]Request{{Rate: math.NaN()}}, Options{Scheme: "hybrid"}},
		"rate 0":           {[]Request{{Rate: 0}}, Options{Scheme: "hybrid"}},
		"rate +Inf":        {[]Request{{Rate: math.Inf(1)}}, Options{Scheme: "hybrid"}},
		"does not exist":   {[]Request{{Rate: 1, Blocks: []int{3}}}, Options{Scheme: "hybrid"}},
		`"backbone" twice`: {[]Request{{Rate: 1, Blocks: []int{0, 0}}}, Options{Scheme: "hybrid"}},
		"use shortest":     {many, Options{Scheme: "hybrid", Order: "best"}},
		"15 requests lack": {many, Options{Scheme: "search"}},
	} {
		_, err := Make(l, c.rs, c.o)
		require.ErrorContains(t, err, want)
	}
	p, err := Make(l, nil, Options{Scheme: "hybrid"})
	require.NoError(t, err)
	require.Zero(t, p.Mean())
	require.Zero(t, p.Spectral(1))
	p, err = Make(l, []Request{{Rate: 1}}, Options{Scheme: "hybrid", Order: "best"})
	require.NoError(t, err)
	require.Equal(t, []time.Duration{0}, p.Finish)
}

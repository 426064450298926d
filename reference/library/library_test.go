package library

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
)

// two adapters on one backbone of two blocks, and a model for itself.
func small(t *testing.T) *Library {
	l := &Library{Name: "small", Blocks: []Block{{Name: "low", Bytes: 100, Hi: 1}, {Name: "high", Bytes: 50, Lo: 1, Hi: 2}, {Name: "a", Bytes: 3},
		{Name: "b", Bytes: 4}, {Name: "other", Bytes: 20, Hi: 1}},
		Models: []Model{{Name: "base", Blocks: []int{0, 1}}, {Name: "with a", Blocks: []int{0, 1, 2}}, {Name: "with b", Blocks: []int{0, 1, 3}},
			{Name: "alone", Blocks: []int{4}}}}
	require.NoError(t, l.Check())
	return l
}

func TestC2SharedBlocksCountOnce(t *testing.T) {
	l := small(t)
	require.EqualValues(t, 157, l.Union([]int{1, 2}))
	require.EqualValues(t, 153, l.Whole(1))
	apart, shared := l.Sizes()
	require.Equal(t, [2]units.Bytes{150 + 153 + 154 + 20, 177}, [2]units.Bytes{apart, shared})
	require.Equal(t, []int{0, 1, 2}, l.Users(1))
	u := l.Unshared()
	apart, shared = u.Sizes()
	require.Equal(t, apart, shared)
	require.Equal(t, l.Whole(2), u.Union([]int{2}))
}

func TestDigestsTellLibrariesApart(t *testing.T) {
	require.Equal(t, small(t).Digest(), small(t).Digest())
	for _, change := range []func(*Library){func(l *Library) { l.Blocks[0].Bytes++ }, func(l *Library) { l.Blocks[1].Digest = "aa" },
		func(l *Library) { l.Models[1].Blocks[0], l.Models[1].Blocks[1] = 1, 0 }, func(l *Library) { l.Models[2].Name = "c" }} {
		l := small(t)
		change(l)
		require.NotEqual(t, small(t).Digest(), l.Digest())
	}
}

func TestLibrariesAreChecked(t *testing.T) {
	for want, spoil := range map[string]func(*Library){
		"0 bytes":              func(l *Library) { l.Blocks[1].Bytes = 0 },
		"empty or taken":       func(l *Library) { l.Models[1].Name = "base" },
		"does not exist":       func(l *Library) { l.Models[0].Blocks = []int{0, 9} },
		"twice":                func(l *Library) { l.Models[0].Blocks = []int{0, 0} },
		"no blocks":            func(l *Library) { l.Models[0].Blocks = nil },
		"belongs to no model":  func(l *Library) { l.Models = l.Models[:3] },
		"no models":            func(l *Library) { l.Models = nil },
		"want all":             func(l *Library) { l.Models[0].Rungs = []Rung{{Blocks: 1}} },
		"quality 2":            func(l *Library) { l.Models[0].Rungs = []Rung{{Blocks: 1, Quality: 2}} },
		"want more than 1":     func(l *Library) { l.Models[0].Rungs = []Rung{{Blocks: 1}, {Blocks: 1}} },
		"is none of its block": func(l *Library) { l.Models[1].Adapter = "b" },
		"want 0 <= lo <= hi":   func(l *Library) { l.Blocks[0].Lo = 3 },
		`block 2: name "a" is`: func(l *Library) { l.Blocks[1].Name = "a" },
	} {
		l := small(t)
		spoil(l)
		require.ErrorContains(t, l.Check(), want)
	}
}

func TestC3PopularityIsALaw(t *testing.T) {
	w := Popularity{S: 1.43}.Weights(87)
	sum := 0.0
	for i, p := range w {
		sum += p
		if i > 0 {
			require.InEpsilon(t, math.Pow(float64(i)/float64(i+1), 1.43), p/w[i-1], 1e-12)
		}
	}
	require.InDelta(t, 1, sum, 1e-12)
	for _, p := range []Popularity{{S: math.NaN()}, {S: -1}, {Sticky: 1}, {Drift: 1.1}, {Q: math.Inf(1)}} {
		require.Error(t, p.Check())
		_, err := NewDemand(p, 3, 1)
		require.Error(t, err)
	}
	_, err := NewDemand(Popularity{}, 0, 1)
	require.ErrorContains(t, err, "at least one")
}

func TestC9DemandFollowsItsLaw(t *testing.T) {
	const n, models = 200_000, 20
	d, err := NewDemand(Popularity{S: 0.8}, models, 7)
	require.NoError(t, err)
	counts := make([]float64, models)
	for i := range n {
		counts[d.Draw(i, i%50, 0)]++
	}
	for i, p := range d.Probabilities(0) {
		require.InDelta(t, p, counts[i]/n, 4*math.Sqrt(p/n))
	}

	sticky, err := NewDemand(Popularity{S: 0.8, Sticky: 0.7}, models, 7)
	require.NoError(t, err)
	last, same := map[int]int{}, 0.0
	for i := range n {
		user := i % 50
		m := sticky.Draw(i, user, 0)
		if before, ok := last[user]; ok && before == m {
			same++
		}
		last[user] = m
	}
	again := 0.0 // by chance
	for _, p := range d.Probabilities(0) {
		again += p * p
	}
	require.InDelta(t, 0.7+0.3*again, same/n, 0.01)
}

func TestC9DriftMovesRanks(t *testing.T) {
	still, err := NewDemand(Popularity{S: 1}, 100, 3)
	require.NoError(t, err)
	require.Equal(t, still.Ranked(0), still.Ranked(5))
	d, err := NewDemand(Popularity{S: 1, Drift: 0.1}, 100, 3)
	require.NoError(t, err)
	moved := 0
	a, b := d.Ranked(0), d.Ranked(1)
	for r := range a {
		if a[r] != b[r] {
			moved++
		}
	}
	require.Positive(t, moved)
	require.LessOrEqual(t, moved, 20)
	require.ElementsMatch(t, a, d.Ranked(9))
}

// TestC7OnlyUsableRungsAreOffered: a rung below the floor goes, one at it stays, unknown ones stay, and the whole model always does.
func TestC7OnlyUsableRungsAreOffered(t *testing.T) {
	nan := math.NaN()
	for _, tc := range []struct {
		qualities []float64
		want      []int // blocks of the rungs that stay
	}{{[]float64{0.3, 0.8}, []int{2}}, {[]float64{0.4, 0.8}, []int{1, 2}}, {[]float64{0.1, 0.5, 0.3, 0.8}, []int{2, 4}}, {[]float64{nan, 0.8}, []int{1, 2}}, {[]float64{0.2, nan}, []int{1, 2}}, {[]float64{0, 0}, []int{1, 2}}, {nil, nil}} {
		m := Model{}
		for i, q := range tc.qualities {
			m.Rungs = append(m.Rungs, Rung{i + 1, q})
		}
		m.Offer(0.5)
		var got []int
		for _, r := range m.Rungs {
			got = append(got, r.Blocks)
		}
		require.Equal(t, tc.want, got, "%v", tc.qualities)
	}
}

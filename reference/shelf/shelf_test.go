package shelf

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/library"
)

// random is a library of models that share blocks, or of equal ones that share nothing.
func random(t testing.TB, seed uint64, models int, share bool) *library.Library {
	luck := rng.Stream(seed, "library")
	l := &library.Library{Name: "random"}
	for j := range models {
		size := units.Bytes(10)
		if share {
			size = units.Bytes(1 + luck.IntN(30))
		}
		l.Blocks = append(l.Blocks, library.Block{Name: fmt.Sprint("b", j), Bytes: size})
	}
	for i := range models {
		m := library.Model{Name: fmt.Sprint("m", i), Blocks: []int{i}}
		for range 3 {
			if j := luck.IntN(models); share && !slices.Contains(m.Blocks, j) {
				m.Blocks = append(m.Blocks, j)
			}
		}
		l.Models = append(l.Models, m)
	}
	require.NoError(t, l.Check())
	return l
}

func requests(seed uint64, models, n int) []int {
	d, err := library.NewDemand(library.Popularity{S: 0.8}, models, seed)
	if err != nil {
		panic(err)
	}
	out := make([]int, n)
	for i := range out {
		out[i] = d.Draw(i, 0, 0)
	}
	return out
}

// naive is a shelf of equal models that share nothing, by lists.
func naive(policy string, slots int, asked []int) (hits int) {
	var kept []int // in the order of the policy: what goes first, first
	count := map[int]int{}
	for _, m := range asked {
		count[m]++
		if i := slices.Index(kept, m); i >= 0 {
			hits++
			if policy != "fifo" {
				kept = append(slices.Delete(kept, i, i+1), m)
			}
			continue
		}
		if len(kept) == slots {
			out := 0
			if policy == "lfu" {
				for i, k := range kept {
					if count[k] < count[kept[out]] {
						out = i
					}
				}
			}
			kept = slices.Delete(kept, out, out+1)
		}
		kept = append(kept, m)
	}
	return hits
}

func TestC1ShelvesOfEqualModelsAreThoseByLists(t *testing.T) {
	for seed := range uint64(20) {
		l, asked := random(t, seed, 40, false), requests(seed, 40, 2000)
		for _, policy := range []string{"fifo", "lfu", "lru"} {
			for _, slots := range []int{1, 5, 17} {
				st, err := Replay(l, units.Bytes(10*slots), policy, asked)
				require.NoError(t, err)
				require.Equal(t, naive(policy, slots, asked), st.Hits, "%s, %d slots, seed %d", policy, slots, seed)
				require.Equal(t, units.Bytes(10*st.Hits), st.HitBytes)
			}
		}
	}
}

// Belady has the most hits where models are alike; LRU's grow with the room and what it keeps in little it keeps in more.
func TestC1BeladyAndInclusion(t *testing.T) {
	for seed := range uint64(10) {
		l, asked := random(t, seed, 40, false), requests(seed, 40, 1500)
		before := 0
		for slots := 1; slots <= 40; slots += 3 {
			room := units.Bytes(10 * slots)
			best, err := Replay(l, room, Clairvoyant, asked)
			require.NoError(t, err)
			for _, p := range Policies() {
				st, err := Replay(l, room, p.Name, asked)
				require.NoError(t, err)
				require.LessOrEqual(t, st.Hits, best.Hits, p.Name)
				if p.Name == "lru" {
					require.GreaterOrEqual(t, st.Hits, before)
					before = st.Hits
				}
			}
		}
		small, err := New(l, 50, "lru", 1)
		require.NoError(t, err)
		large, err := New(l, 120, "lru", 1)
		require.NoError(t, err)
		for _, m := range asked {
			for _, s := range []*Shelf{small, large} {
				s.Ask(m)
				s.Put(m)
			}
			require.Subset(t, large.Models(), small.Models())
		}
	}
}

// With a room for everything only first requests miss.
func TestC1EndlessRoom(t *testing.T) {
	l, asked := random(t, 1, 40, true), requests(1, 40, 500)
	seen := map[int]bool{}
	for _, m := range asked {
		seen[m] = true
	}
	st, err := Replay(l.Unshared(), 1<<40, "lru", asked)
	require.NoError(t, err)
	require.Equal(t, len(asked)-len(seen), st.Hits)
}

// Whatever is asked, under every policy: never more than the room, the bytes are those of the union of the models, blocks are
// here while a model has them, the newcomer stays; and where nothing is shared, blocks are wholes.
func TestC2SharedShelvesKeepTheirBooks(t *testing.T) {
	for seed := range uint64(8) {
		l, asked := random(t, seed, 30, true), requests(seed+50, 30, 600)
		for _, p := range Policies() {
			for _, room := range []units.Bytes{0, 40, 100, 250} {
				s, err := New(l, room, p.Name, seed)
				require.NoError(t, err)
				churn := units.Bytes(0)
				for _, m := range asked {
					s.Ask(m)
					churn += s.Put(m)
					require.LessOrEqual(t, s.Used(), room)
					require.Equal(t, l.Union(s.Models()), s.Used())
					require.Equal(t, l.Whole(m) <= room, slices.Contains(s.Models(), m))
					for b := range l.Blocks {
						has := slices.ContainsFunc(s.Models(), func(k int) bool { return slices.Contains(l.Models[k].Blocks, b) })
						require.Equal(t, has, s.Has(b))
					}
				}
				st, err := Replay(l, room, p.Name, asked)
				require.NoError(t, err)
				if p.Name != "random" {
					require.Equal(t, churn, st.Churn)
				}
				u := l.Unshared()
				a, err := Replay(u, room, p.Name, asked)
				require.NoError(t, err)
				require.LessOrEqual(t, a.HitBytes, a.Bytes)
			}
		}
	}
}

// Without weight on context, least Age-of-Context is LFU; with it, who was asked for lately stays before who was asked for often
// long ago.
func TestC3AgeOfContext(t *testing.T) {
	for seed := range uint64(10) {
		l, asked := random(t, seed, 30, true), requests(seed+9, 30, 800)
		a, err := New(l, 120, "aoc", 1)
		require.NoError(t, err)
		a.weight = 0
		b, err := New(l, 120, "lfu", 1)
		require.NoError(t, err)
		for _, m := range asked {
			require.Equal(t, b.Ask(m), a.Ask(m))
			require.Equal(t, b.Put(m), a.Put(m))
			require.Equal(t, b.Models(), a.Models())
		}
	}
	l := random(t, 1, 3, false)
	keeps := func(policy string) []int {
		s, err := New(l, 20, policy, 1)
		require.NoError(t, err)
		for _, m := range append(append(slices.Repeat([]int{0}, 40), slices.Repeat([]int{1}, 15)...), slices.Repeat([]int{1}, 3)...) {
			s.Ask(m)
			s.Put(m)
		}
		s.clock += 400
		for range 10 {
			s.Ask(1)
		}
		s.Ask(2)
		s.Put(2)
		return s.Models()
	}
	require.Equal(t, []int{1, 2}, keeps("aoc"))
	require.Equal(t, []int{0, 2}, keeps("lfu"), "28 requests against 40")
}

func TestSetAndRefusals(t *testing.T) {
	l := random(t, 3, 10, true)
	s, err := New(l, l.Union([]int{1, 2}), "lru", 1)
	require.NoError(t, err)
	added, err := s.Set([]int{1, 2})
	require.NoError(t, err)
	require.Equal(t, l.Union([]int{1, 2}), added)
	require.Equal(t, []int{1, 2}, s.Models())
	added, err = s.Set([]int{2})
	require.NoError(t, err)
	require.Zero(t, added, "it was there")
	_, err = s.Set([]int{0, 1, 2, 3, 4, 5})
	require.ErrorContains(t, err, "of a shelf of")
	_, err = New(l, -1, "lru", 1)
	require.ErrorContains(t, err, "want at least none")
	_, err = New(l, 1, "guess", 1)
	require.ErrorContains(t, err, "have aoc, fifo, frugal, lfu, lru, random")
}

// What is in use does not go, under any policy; what does not fit beside it is not kept.
func TestC3PinnedModelsStay(t *testing.T) {
	for _, p := range Policies() {
		l := random(t, 3, 6, false) // six models of ten bytes
		s, err := New(l, 30, p.Name, 1)
		require.NoError(t, err)
		for _, m := range []int{0, 1, 2} {
			s.Ask(m)
			s.Put(m)
		}
		s.Pin(0)
		s.Pin(0)
		s.Pin(2)
		for m := 3; m < 6; m++ {
			require.True(t, s.Fits(m))
			s.Ask(m)
			require.Equal(t, units.Bytes(10), s.Put(m))
			require.ElementsMatch(t, []int{0, 2, m}, s.Models(), p.Name)
		}
		s.Pin(5)
		require.False(t, s.Fits(1))
		require.Zero(t, s.Put(1))
		require.ElementsMatch(t, []int{0, 2, 5}, s.Models())
		s.Unpin(0)
		require.False(t, s.Fits(1), "still in use once")
		s.Unpin(0)
		require.True(t, s.Fits(1))
		require.Equal(t, units.Bytes(10), s.Put(1))
		require.ElementsMatch(t, []int{1, 2, 5}, s.Models())
		require.Panics(t, func() { s.Unpin(0) })
		require.Equal(t, l.Models[3].Blocks, s.Lacks(3))
		require.Empty(t, s.Lacks(5))
	}
}

// Context grows with requests while a model is kept, fades by half in a hundred, and is lost with the model.
func TestC3ContextIsLostWithTheModel(t *testing.T) {
	l := random(t, 3, 6, false)
	s, err := New(l, 10, "aoc", 1)
	require.NoError(t, err)
	s.Ask(0)
	s.Put(0)
	require.InDelta(t, 1, s.Context(0), 1e-12)
	s.Ask(0)
	require.InDelta(t, 1+math.Exp2(-0.01), s.Context(0), 1e-12)
	for range 100 {
		s.Ask(1) // which is not here
	}
	require.InDelta(t, (1+math.Exp2(-0.01))/2, s.Context(0), 1e-9)
	s.Put(1)
	s.Put(0)
	s.Ask(0)
	require.InDelta(t, 1, s.Context(0), 1e-12, "it began anew")
}

package prefix

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
)

func one(int) Block { return Block{Bytes: 1} }

func store(t testing.TB, room units.Bytes, policy string) *Store {
	s, err := New(Options{Room: room, Policy: policy})
	require.NoError(t, err)
	return s
}

// Names tell prefixes: equal where all tokens up to the end are, and nowhere else.
func TestC4NamesArePrefixes(t *testing.T) {
	a, b := []int32{1, 2, 3, 4, 5, 6, 7}, []int32{1, 2, 3, 4, 9, 6, 7}
	x, y := Chain("", a, 2), Chain("", b, 2)
	require.Len(t, x, 3)
	require.Equal(t, x[:2], y[:2])
	require.NotEqual(t, x[2], y[2])
	require.Equal(t, x[:2], Chain("", a[:5], 2), "full blocks only")
	require.NotEqual(t, x[0], Chain("else", a, 2)[0])
	c := Start("")
	c.Next(5)
	c.Next(5)
	require.NotEqual(t, c.Names()[0], c.Names()[1], "the place counts")
}

// slow is a store by lists: of what nobody follows, the one that the policy names goes.
type slow struct {
	policy string
	room   int
	have   map[Name]*node
	clock  int64
}

func (s *slow) ask(chain []Name) (found int) {
	var hit []Name
	for _, n := range chain {
		if s.have[n] == nil {
			break
		}
		s.have[n].found++
		hit, found = append(hit, n), found+1
	}
	s.stamp(hit)
	held := map[Name]bool{}
	var kept []Name
	var before *node
	for _, name := range chain {
		n := s.have[name]
		if n == nil {
			for len(s.have) >= s.room && s.drop(held) {
			}
			if len(s.have) >= s.room {
				break
			}
			s.clock++
			n = &node{name: name, before: before, born: s.clock, used: s.clock}
			s.have[name] = n
		}
		held[name], before, kept = true, n, append(kept, name)
	}
	s.stamp(kept)
	return found
}

func (s *slow) stamp(names []Name) {
	for _, n := range slices.Backward(names) {
		s.clock++
		s.have[n].used = s.clock
	}
}

func (s *slow) drop(held map[Name]bool) bool {
	followed := map[*node]bool{}
	for _, n := range s.have {
		followed[n.before] = true
	}
	var worst *node
	for _, n := range s.have {
		if followed[n] || held[n.name] {
			continue
		}
		less := worst == nil
		if !less {
			switch s.policy {
			case "lru":
				less = n.used < worst.used
			case "lfu":
				less = n.found < worst.found || n.found == worst.found && n.used < worst.used
			case "fifo":
				less = n.born < worst.born
			}
		}
		if less {
			worst = n
		}
	}
	if worst == nil {
		return false
	}
	delete(s.have, worst.name)
	return true
}

// Against lists, under every policy, on random trees of prompts: the same blocks are found, and whatever is here can be reached.
func TestC4StoreIsThatByLists(t *testing.T) {
	for _, p := range Policies() {
		for seed := range uint64(6) {
			luck := rng.Stream(seed, "prompts")
			room := 1 + luck.IntN(40)
			s, l := store(t, units.Bytes(room), p[0]), &slow{policy: p[0], room: room, have: map[Name]*node{}}
			for i := range 600 {
				tokens := make([]int32, 1+luck.IntN(12))
				for k := range tokens {
					tokens[k] = int32(luck.IntN(2 + k/3))
				}
				chain := Chain("", tokens, 1)
				got := len(s.Find(chain))
				s.Add(chain, one)
				require.Equal(t, l.ask(chain), got, "%s, seed %d, prompt %d", p[0], seed, i)
				require.Len(t, s.nodes, len(l.have))
				require.LessOrEqual(t, s.Stats().Used, units.Bytes(room))
				for _, n := range s.nodes {
					require.True(t, n.before == nil || s.nodes[n.before.name] == n.before)
				}
			}
			require.Equal(t, units.Bytes(len(s.nodes)), s.Stats().Used)
		}
	}
}

// With room for all, what is found is what came before; without any, nothing is kept.
func TestC4EndlessAndNoRoom(t *testing.T) {
	s, none := store(t, 1000, "lru"), store(t, 0, "lru")
	chain := Chain("", []int32{1, 2, 3, 4}, 1)
	require.Empty(t, s.Find(chain))
	require.Equal(t, 4, s.Add(chain, one))
	require.Len(t, s.Find(Chain("", []int32{1, 2, 9}, 1)), 2)
	require.Len(t, s.Find(chain), 4)
	require.Equal(t, 0, none.Add(chain, one))
	require.Empty(t, none.Find(chain))
	short := store(t, 3, "lru")
	require.Equal(t, 3, short.Add(chain, one), "the beginning is what can be used")
	require.Len(t, short.Find(chain), 3)
	require.Equal(t, Stats{Asked: 4, Found: 3, Used: 3, Peak: 3}, short.Stats())
}

func TestC4ImpossibleStores(t *testing.T) {
	_, err := New(Options{Policy: "best"})
	require.ErrorContains(t, err, "have fifo, lfu, lru")
	_, err = New(Options{Policy: "lru", Room: -1})
	require.ErrorContains(t, err, "want 0 or more")
}

func BenchmarkStore(b *testing.B) {
	luck := rng.Stream(1, "prompts")
	chains := make([][]Name, 2000)
	for i := range chains {
		tokens := make([]int32, 64)
		for k := range tokens {
			tokens[k] = int32(luck.IntN(1 + k/8))
		}
		chains[i] = Chain("", tokens, 1)
	}
	s := store(b, 20_000, "lru")
	n := 0
	for b.Loop() {
		c := chains[n%len(chains)]
		s.Find(c)
		s.Add(c, one)
		n++
	}
	b.ReportMetric(float64(64*n)/b.Elapsed().Seconds(), "blocks/s")
}

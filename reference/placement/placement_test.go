package placement

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/internal/vitals"
	"meibench/reference/library"
)

// small is a library of few models that share at random, or not.
func small(t testing.TB, seed uint64, models int, share bool) *library.Library {
	luck := rng.Stream(seed, "library")
	l := &library.Library{Name: "small"}
	for j := range models {
		l.Blocks = append(l.Blocks, library.Block{Name: fmt.Sprint("own ", j), Bytes: units.Bytes(5_000_000 + luck.IntN(30_000_000))})
	}
	if share {
		for j := range 3 {
			l.Blocks = append(l.Blocks, library.Block{Name: fmt.Sprint("shared ", j), Bytes: units.Bytes(20_000_000 + luck.IntN(60_000_000))})
		}
	}
	for i := range models {
		m := library.Model{Name: fmt.Sprint("m", i), Blocks: []int{i}}
		if share {
			for j := range 3 {
				if j == i%3 || luck.IntN(3) == 0 {
					m.Blocks = append(m.Blocks, models+j)
				}
			}
		}
		l.Models = append(l.Models, m)
	}
	require.NoError(t, l.Check())
	return l
}

// net is a small network: everything of the paper's but the size.
func net(lib *library.Library, servers, users int, room units.Bytes, seed uint64) *Instance {
	c := Paper(room)
	c.Servers, c.Users, c.Side, c.Hop = servers, users, 400, 0
	if seed%2 == 0 {
		c.Hop = 1.25e9
	}
	in, err := Random(lib, c, seed)
	if err != nil {
		panic(err)
	}
	return in
}

// slowGreedy looks at everything in every round.
func slowGreedy(in *Instance, lib *library.Library) Placement {
	s := newState(in, lib)
	placed := map[[2]int]bool{}
	for {
		best, bm, bi := 0.0, -1, -1
		for m := range in.Room {
			for i := range in.whole {
				if g := s.gain(m, i); !placed[[2]int{m, i}] && s.need(m, i) <= s.free[m] && g > best {
					best, bm, bi = g, m, i
				}
			}
		}
		if bm < 0 {
			return s.done()
		}
		placed[[2]int{bm, bi}] = true
		s.place(bm, bi)
	}
}

func TestC2LazyGreedyIsGreedy(t *testing.T) {
	for seed := range uint64(200) {
		lib := small(t, seed, 3+int(seed%10), seed%3 > 0)
		in := net(lib, 1+int(seed%4), 2+int(seed%9), units.Bytes(150_000_000+seed*1_000_000), seed)
		require.Equal(t, slowGreedy(in, lib), gen(in), "seed %d", seed)
		require.Equal(t, slowGreedy(in, lib.Unshared()), independent(in), "seed %d", seed)
	}
}

// Every policy: no server holds more than its room, hits are what a count by hand says, and nobody beats the optimum; Gen is at
// least OPT/Γ and Spec at least (1-ε)/2 OPT with the ε of its units of room.
func TestC2PoliciesAgainstTheOptimum(t *testing.T) {
	ratio := map[string]float64{}
	const nets = 60
	for seed := range uint64(nets) {
		lib := small(t, seed, 6, true)
		in := net(lib, 2, 6, 150_000_000, seed)
		opt, best, err := Optimum(in)
		require.NoError(t, err)
		most := 0
		for m := range opt {
			require.LessOrEqual(t, in.Used(opt, m), in.Room[m])
		}
		for _, sets := range [][][]int{in.maximal(0), in.maximal(1)} {
			n := 0
			for _, set := range sets {
				n = max(n, len(set))
			}
			most += n
		}
		for _, p := range Policies() {
			got, err := Decide(p[0], in)
			require.NoError(t, err)
			hit := in.Hit(got)
			require.InDelta(t, byHand(in, got), hit, 1e-9)
			require.LessOrEqual(t, hit, best+1e-9, p[0])
			for m := range got {
				require.LessOrEqual(t, in.Used(got, m), in.Room[m], "%s, server %d", p[0], m)
			}
			switch p[0] {
			case "gen":
				require.GreaterOrEqual(t, hit, best/float64(most)-1e-9)
			case "spec":
				require.GreaterOrEqual(t, hit, 0.9*best/2-1e-9, "seed %d", seed)
			}
			if best > 0 {
				ratio[p[0]] += hit / best / nets
			} else {
				ratio[p[0]] += 1.0 / nets
			}
		}
	}
	t.Log(ratio)
	require.Greater(t, ratio["spec"], 0.97)
	require.Greater(t, ratio["gen"], 0.9)
	require.Greater(t, ratio["gen"], ratio["independent"])
	require.Greater(t, ratio["gen"], ratio["random"])
}

// byHand counts the requests that some server answers in time.
func byHand(in *Instance, p Placement) float64 {
	sum := 0.0
	for k, u := range in.Users {
		for i, w := range u.Wants {
			for m := range p {
				if slices.Contains(p[m], i) && in.Reaches(m, k, i) {
					sum += float64(w)
					break
				}
			}
		}
	}
	return sum / in.sum
}

// Where nothing is shared, Gen is the greedy of whole models; with room for everything it reaches the ceiling.
func TestC2EndsOfSharingAndRoom(t *testing.T) {
	for seed := range uint64(60) {
		lib := small(t, seed, 8, false)
		in := net(lib, 3, 8, 60_000_000, seed)
		require.Equal(t, independent(in), gen(in), "seed %d", seed)
		shared := net(small(t, seed, 8, true), 3, 8, 1<<40, seed)
		for _, p := range []string{"gen", "gen-byte", "independent", "spec"} {
			got, err := Decide(p, shared)
			require.NoError(t, err)
			require.InDelta(t, shared.Ceiling(), shared.Hit(got), 1e-9, p)
		}
	}
}

// What a model adds never grows by what is placed before, and the optimum never falls with more room.
func TestC2SubmodularAndMonotone(t *testing.T) {
	for seed := range uint64(40) {
		in := net(small(t, seed, 6, true), 2, 6, 120_000_000, seed)
		luck := rng.Stream(seed, "spot")
		few, many := newState(in, in.Lib), newState(in, in.Lib)
		for range 6 {
			m, i := luck.IntN(2), luck.IntN(6)
			many.place(m, i)
			if luck.IntN(2) == 0 {
				few.place(m, i)
			}
		}
		for m := range 2 {
			for i := range 6 {
				require.LessOrEqual(t, many.gain(m, i), few.gain(m, i))
			}
		}
		before := 0.0
		for room := units.Bytes(60_000_000); room <= 240_000_000; room += 60_000_000 {
			for m := range in.Room {
				in.Room[m] = room
			}
			if in.Check() != nil {
				continue
			}
			_, best, err := Optimum(in)
			require.NoError(t, err)
			require.GreaterOrEqual(t, best, before-1e-12)
			before = best
		}
	}
}

// With equal sizes and nothing shared, FemtoCaching's greedy is at least half of the optimum (a partition matroid), with helpers that
// cooperate (even seeds) and without, and Gen is the same.
func TestC8GreedyIsHalfOfTheOptimum(t *testing.T) {
	for seed := range uint64(60) {
		lib := &library.Library{Name: "equal"}
		for i := range 6 {
			lib.Blocks = append(lib.Blocks, library.Block{Name: fmt.Sprint("b", i), Bytes: 50_000_000})
			lib.Models = append(lib.Models, library.Model{Name: fmt.Sprint("m", i), Blocks: []int{i}})
		}
		require.NoError(t, lib.Check())
		in := net(lib, 3, 6, 100_000_000, seed)
		_, best, err := Optimum(in)
		require.NoError(t, err)
		p, err := Decide("femtocaching", in)
		require.NoError(t, err)
		require.GreaterOrEqual(t, in.Hit(p), best/2)
		require.Equal(t, gen(in), p)
	}
}

func TestC2ImpossibleInstances(t *testing.T) {
	fresh := func() *Instance { return net(small(t, 1, 4, true), 2, 3, 200_000_000, 2) }
	for want, spoil := range map[string]func(*Instance){
		"room for -1 bytes":    func(in *Instance) { in.Room[0] = -1 },
		"no server has room":   func(in *Instance) { in.Room[0], in.Room[1] = 5, 0 },
		"frequency NaN":        func(in *Instance) { in.Users[1].Wants[2] = float32(math.NaN()) },
		"frequency -1":         func(in *Instance) { in.Users[1].Wants[2] = -1 },
		"wants 1 models":       func(in *Instance) { in.Users[0].Wants = in.Users[0].Wants[:1] },
		"nobody asks":          func(in *Instance) { clear(in.Users[0].Wants); clear(in.Users[1].Wants); clear(in.Users[2].Wants) },
		"deadline of 0 s":      func(in *Instance) { in.Users[2].Deadline = 0 },
		"covered by server 7":  func(in *Instance) { in.Users[0].Covers = []Cover{{7, 1}} },
		"at 0 bytes":           func(in *Instance) { in.Users[0].Covers = []Cover{{0, 0}} },
		"bytes per second bet": func(in *Instance) { in.Hop = math.NaN() },
		"a library, servers":   func(in *Instance) { in.Users = nil },
	} {
		in := fresh()
		spoil(in)
		require.ErrorContains(t, in.Check(), want)
	}
	_, err := Decide("guess", fresh())
	require.ErrorContains(t, err, "have femtocaching, gen, gen-byte")
	big := net(small(t, 1, 20, true), 2, 3, 200_000_000, 2)
	_, _, err = Optimum(big)
	require.ErrorContains(t, err, "at most 16")
}

// go test -run xxx -bench Gen ./reference/placement
func BenchmarkGen(b *testing.B) {
	for _, size := range []struct{ servers, users, models int }{{10, 30, 30}, {100, 1000, 300}, {1000, 10_000, 1000}} {
		b.Run(fmt.Sprintf("servers=%d/users=%d/models=%d", size.servers, size.users, size.models), func(b *testing.B) {
			lib := hundred(b, size.models)
			c := Paper(2_000_000_000)
			c.Servers, c.Users = size.servers, size.users
			c.Side *= math.Sqrt(float64(size.servers) / 10)
			in, err := Random(lib, c, 1)
			require.NoError(b, err)
			for b.Loop() {
				watch := vitals.Watch()
				p := gen(in)
				used := watch.Until()
				b.ReportMetric(100*in.Hit(p), "hit-%")
				b.ReportMetric(used.CPU.Seconds(), "cpu-s")
			}
		})
	}
}

// hundred is a library of models of a hundred blocks each, of ten backbones.
func hundred(t testing.TB, models int) *library.Library {
	l := &library.Library{Name: "hundred"}
	luck := rng.Stream(1, "hundred")
	for b := range 10 {
		for j := range 80 {
			l.Blocks = append(l.Blocks, library.Block{Name: fmt.Sprint(b, " ", j), Bytes: 500_000})
		}
	}
	for i := range models {
		m := library.Model{Name: fmt.Sprint("m", i)}
		keep := 60 + luck.IntN(21)
		for j := range keep {
			m.Blocks = append(m.Blocks, i%10*80+j)
		}
		for j := range 100 - keep {
			l.Blocks = append(l.Blocks, library.Block{Name: fmt.Sprint("m", i, " ", j), Bytes: 500_000})
			m.Blocks = append(m.Blocks, len(l.Blocks)-1)
		}
		l.Models = append(l.Models, m)
	}
	var used []bool = make([]bool, len(l.Blocks))
	for _, m := range l.Models {
		for _, j := range m.Blocks {
			used[j] = true
		}
	}
	if slices.Contains(used, false) {
		return hundred(t, models+10)
	}
	require.NoError(t, l.Check())
	return l
}

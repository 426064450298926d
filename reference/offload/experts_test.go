package offload

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// TestI15ExpertsEqualResident (D6): for any cache size, policy and guessing, logits are those of the resident mixture bit for bit;
// bytes moved are misses and guesses times the bytes of an expert, by the count of the reader too; and LRU's hits never fall
// as the cache grows.
func TestI15ExpertsEqualResident(t *testing.T) {
	shared := mixture()
	shared.Arch, shared.SharedFFN = llm.Qwen2MoE, 256
	for name, c := range map[string]llm.Config{"mixtral": mixture(), "shared": shared} {
		path := write(t, c, quant.Q8_0)
		want := resident(t, path, 2, 4)
		before := -1
		for k := 1; k <= 8; k++ {
			for _, o := range []ExpertOptions{{Cached: k}, {Cached: k, Policy: "lfu"}, {Cached: k, Guess: true}} {
				s, err := Open(path, Options{Experts: &o, Threads: 2})
				require.NoError(t, err)
				got := streamed(t, s, 2, 4)
				x := s.Experts()
				require.True(t, equal(want, got), "%s %+v", name, o)
				require.Equal(t, x.Chosen, x.Hits+x.Misses)
				require.Equal(t, units.Bytes(x.Misses+x.Fetched)*x.ExpertBytes, x.Bytes)
				require.NoError(t, s.Close()) // ends reads on the way
				tokens := 3 + 4 + 2*3
				require.Equal(t, int64(s.plan.File+x.Bytes), s.reader.Payload()-s.indexBytes-int64(tokens*s.rowBytes()))
				if o.Policy == "" && !o.Guess {
					require.GreaterOrEqual(t, x.Hits, before)
					before = x.Hits
				}
				if k == 8 && !o.Guess {
					require.LessOrEqual(t, x.Misses, 8*5) // each expert comes once at most
				}
				if o.Guess {
					require.Positive(t, x.Guessed)
					require.LessOrEqual(t, x.Right, x.Guessed)
				}
			}
		}
	}
}

// TestI15UniformRouting: where every token takes one of E experts by equal chance, LRU's hit ratio is k/E: within four standard
// errors of it over the steps of a real decode whose routing is drawn.
func TestI15UniformRouting(t *testing.T) {
	c := mixture()
	c.Layers, c.ExpertsUsed, c.Dim, c.HeadDim, c.FFN, c.ExpertFFN, c.Vocab, c.Context = 4, 1, 64, 16, 64, 32, 64, 1024
	path := write(t, c, quant.F16)
	for _, k := range []int{1, 3, 6} {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			s, err := Open(path, Options{Experts: &ExpertOptions{Cached: k}})
			require.NoError(t, err)
			defer s.Close()
			r := rng.Stream(5, "routing", k)
			s.Experts().OnRoute(func(_, _ int, chosen []int32, _ []float32) { chosen[0] = int32(r.IntN(8)) })
			cache, err := s.Model().NewCache(0, 4, 1024)
			require.NoError(t, err)
			step := func(n int) {
				for range n {
					require.NoError(t, s.Forward([]llm.Seq{{IDs: []int32{1}, Cache: cache}}))
				}
			}
			step(60) // fill
			s.ResetStats()
			step(900)
			p := float64(k) / 8
			require.Equal(t, 900*4, s.Experts().Chosen)
			require.InDelta(t, p, s.Experts().HitRatio(), 4*math.Sqrt(p*(1-p)/(900*4)))
		})
	}
}

// TestPoliciesChooseTheirVictim: the one asked for longest ago, or least often, whatever else is there.
func TestPoliciesChooseTheirVictim(t *testing.T) {
	for name, want := range map[string]int{"lru": 2, "lfu": 3} {
		p, err := NewPolicy(name)
		require.NoError(t, err)
		for _, e := range []int{1, 2, 2, 1, 3} {
			p.Use(e)
			p.Added(e)
		}
		require.Equal(t, want, p.Victim(func(int) bool { return true }), name)
		require.NotEqual(t, want, p.Victim(func(e int) bool { return e != want }), name)
		p.Left(want)
		require.NotEqual(t, want, p.Victim(func(int) bool { return true }), name)
	}
}

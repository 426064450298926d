package evict

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/llm"
	"meibench/reference/quant"
)

// toy is a random model whose attention prefers some positions.
func toy(t testing.TB) *llm.Model {
	m, err := llm.New(llm.Config{Arch: llm.Llama, Layers: 3, Dim: 32, Heads: 4, KVHeads: 2, FFN: 40, Vocab: 50, Context: 256}, 7)
	require.NoError(t, err)
	params, err := m.Params()
	require.NoError(t, err)
	for _, p := range params {
		for i := range p.Data {
			if p.N > 1 {
				p.Data[i] *= 16
			}
		}
	}
	return m
}

func text(n int) []int32 {
	r := rand.New(rand.NewPCG(1, 9))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(50))
	}
	return ids
}

func runner(t testing.TB, m *llm.Model, p Policy, o Options) *Runner {
	r, err := New(m, p, o)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// trace is all logits of a prompt and of single steps behind it.
func trace(t testing.TB, r *Runner, ids []int32, prompt int) [][]float32 {
	out, err := r.Prefill(ids[:prompt])
	require.NoError(t, err)
	all := [][]float32{slices.Clone(out)}
	for _, id := range ids[prompt:] {
		out, err = r.Step(id)
		require.NoError(t, err)
		all = append(all, slices.Clone(out))
	}
	return all
}

// TestI12FullBudgetEqualsPlainCache: a budget that is not reached leaves every logit as it is, bit for bit, by every policy.
func TestI12FullBudgetEqualsPlainCache(t *testing.T) {
	m, ids := toy(t), text(60)
	for _, typ := range []quant.Type{quant.F32, quant.F16} {
		w := m.NewWork(1)
		defer w.Close()
		c, err := m.NewCacheOf(typ, 0, m.Layers, len(ids))
		require.NoError(t, err)
		var want [][]float32
		for _, part := range append([][]int32{ids[:40]}, slices.Collect(slices.Chunk(ids[40:], 1))...) {
			seqs := []llm.Seq{{IDs: part, Cache: c}}
			require.NoError(t, w.Forward(0, m.Layers, seqs))
			want = append(want, slices.Clone(seqs[0].Out))
		}
		for _, p := range []Policy{Full(60), Window(60), Streaming(4, 56), H2O(20, 40), H2O(60, 1), SnapKV(40, 8, 20), PyramidKV(40, 8, 20)} {
			require.Equal(t, want, trace(t, runner(t, m, p, Options{Type: typ, Threads: 2}), ids, 40), "%v %s", typ, p.Name)
		}
		require.NotEqual(t, want, trace(t, runner(t, m, Window(59), Options{Type: typ}), ids, 40), "one token too few must show")
	}
}

// TestI12CallsDoNotMatter: tokens in one call or one by one give equal bits under every policy without a prompt selection.
func TestI12CallsDoNotMatter(t *testing.T) {
	m, ids := toy(t), text(70)
	for _, p := range []Policy{Window(9), Streaming(4, 8), H2O(7, 6), {Name: "all", Sinks: 2, Heavy: 3, Recent: 4}} {
		one := trace(t, runner(t, m, p, Options{}), ids, 1)
		many := trace(t, runner(t, m, p, Options{Threads: 2}), ids, 61)
		require.Equal(t, one[60:], many, p.Name)
	}
}

// TestI12BudgetSinksAndRecent: after every token no head holds more than its budget, and the sinks, the last tokens and an
// ascending order are there.
func TestI12BudgetSinksAndRecent(t *testing.T) {
	m, ids := toy(t), text(80)
	for _, p := range []Policy{Window(9), Streaming(4, 8), H2O(7, 6), {Name: "all", Sinks: 2, Heavy: 3, Recent: 4}} {
		r := runner(t, m, p, Options{})
		c := r.Memory.(*Cache)
		budget, differ := p.Sinks+p.Heavy+p.Recent, false
		for n := 1; n <= len(ids); n++ {
			_, err := r.Step(ids[n-1])
			require.NoError(t, err)
			for l := range m.Layers {
				for g := range m.KVHeads {
					pos := c.Positions(l, g)
					require.Len(t, pos, min(n, budget), p.Name)
					require.True(t, slices.IsSorted(pos))
					for i := range min(p.Sinks, n) {
						require.Equal(t, i, pos[i], "%s: sink", p.Name)
					}
					for i := range min(p.Recent, n) {
						require.Equal(t, n-1-i, pos[len(pos)-1-i], "%s: recent", p.Name)
					}
					differ = differ || !slices.Equal(pos, c.Positions(0, 0))
				}
			}
		}
		require.Equal(t, budget, c.Most())
		require.Equal(t, p.Heavy > 0, differ, "%s: heads choose for themselves where attention counts, and only there", p.Name)
		require.EqualValues(t, budget*m.Layers*m.KVHeads*m.HeadDim*2*4, r.Bytes())
		require.Equal(t, r.Bytes(), c.Peak())
	}
}

// TestI12SnapKVBudgets: from the end of the prompt on every layer keeps its budget, the observing tokens and room behind;
// PyramidKV's budgets fall and their sum does not exceed SnapKV's.
func TestI12SnapKVBudgets(t *testing.T) {
	m, ids := toy(t), text(90)
	for _, p := range []Policy{SnapKV(20, 6, 5), PyramidKV(20, 6, 5)} {
		r := runner(t, m, p, Options{})
		c := r.Memory.(*Cache)
		_, err := r.Prefill(ids[:70])
		require.NoError(t, err)
		require.Equal(t, 70, c.Most(), "a prompt is whole until its end")
		sum := 0
		for l := range m.Layers {
			stay := p.Budget(l, m.Layers, 70) - 5
			sum += stay
			for g := range m.KVHeads {
				pos := c.Positions(l, g)
				require.Len(t, pos, stay)
				require.Equal(t, []int{64, 65, 66, 67, 68, 69}, pos[stay-6:])
			}
			if l > 0 {
				require.Equal(t, p.Prompt.Beta > 0, c.Len(l, 0) < c.Len(l-1, 0))
			}
		}
		require.LessOrEqual(t, sum, 20*m.Layers)
		require.Greater(t, sum, 20*m.Layers-m.Layers)
		kept := slices.Clone(c.Positions(1, 1))
		for n, id := range ids[70:] {
			_, err := r.Step(id)
			require.NoError(t, err)
			pos := c.Positions(1, 1)
			require.Len(t, pos, len(kept)+min(5, n+1))
			require.Equal(t, kept, pos[:len(kept)])
			require.Equal(t, 70+n, pos[len(pos)-1])
		}
	}
}

// TestI12H2OWithoutHeavyIsWindow: and StreamingLLM without sinks is a window up to the rounding of rotations, which depend on
// differences of positions only.
func TestI12H2OWithoutHeavyIsWindow(t *testing.T) {
	m, ids := toy(t), text(60)
	window := trace(t, runner(t, m, Window(12), Options{}), ids, 1)
	require.Equal(t, window, trace(t, runner(t, m, H2O(0, 12), Options{}), ids, 1))
	stream := trace(t, runner(t, m, Streaming(0, 12), Options{}), ids, 1)
	for i := range window {
		for j := range window[i] {
			require.InDelta(t, window[i][j], stream[i][j], 2e-3)
		}
	}
	require.NotEqual(t, window, trace(t, runner(t, m, H2O(3, 9), Options{}), ids, 1))
}

// TestI12StreamingPositions: a streaming cache gives what a fresh cache gives whose keys were written at positions
// 0..n-1: keys are rotated for their place in the cache.
func TestI12StreamingPositions(t *testing.T) {
	m, ids := toy(t), text(40)
	m.Blocks = m.Blocks[:1] // with one layer, keys and values depend on the token alone
	m.Layers, m.Hi = 1, 1
	r := runner(t, m, Streaming(3, 7), Options{})
	for n, got := range trace(t, r, ids, 1) {
		seen := ids[:n+1]
		if len(seen) > 10 {
			seen = append(slices.Clone(ids[:3]), ids[n-6:n+1]...)
		}
		fresh := runner(t, m, Full(64), Options{})
		want, err := fresh.Prefill(seen)
		require.NoError(t, err)
		require.Equal(t, want, got, "token %d", n)
	}
}

// spy notes the rotated queries and keys of the first layer on their way.
type spy struct {
	*Cache
	q, k [][]float32
}

func (s *spy) Attend(a *llm.Attend) {
	if a.Layer == 0 {
		q, k := slices.Clone(a.Q), slices.Clone(a.K)
		a.Rope.Apply(q, 1, a.Heads, a.Past)
		a.Rope.Apply(k, 1, 2, a.Past)
		s.q, s.k = append(s.q, q), append(s.k, k)
	}
	s.Cache.Attend(a)
}

// TestI12HeavyHittersEqualReplay: what stays in the first layer is what a naive replay of the rule keeps, token by token:
// weights of every query on what it saw, summed per key/value head, dropped with the token.
func TestI12HeavyHittersEqualReplay(t *testing.T) {
	const heavy, recent, D = 5, 4, 8
	m := toy(t)
	c, err := NewCache(m.Config, H2O(heavy, recent), quant.F32, 0, m.Layers)
	require.NoError(t, err)
	s := &spy{Cache: c}
	r := NewOn(m, s, 1)
	defer r.Close()
	kept, sums := make([][]int, 2), make([]map[int]float64, 2)
	for n, id := range text(70) {
		_, err := r.Step(id)
		require.NoError(t, err)
		for g := range kept {
			if sums[g] == nil {
				sums[g] = map[int]float64{}
			}
			if len(kept[g]) == heavy+recent {
				rest := slices.Clone(kept[g][:heavy+1])
				slices.SortFunc(rest, func(a, b int) int { return cmp.Or(cmp.Compare(sums[g][a], sums[g][b]), b-a) })
				kept[g] = slices.DeleteFunc(kept[g], func(p int) bool { return p == rest[0] })
			}
			kept[g] = append(kept[g], n)
			for h := 2 * g; h < 2*g+2; h++ {
				w, sum := map[int]float64{}, 0.0
				for _, p := range kept[g] {
					dot := 0.0
					for d := range D {
						dot += float64(s.q[n][h*D+d]) * float64(s.k[p][g*D+d])
					}
					w[p] = math.Exp(dot / math.Sqrt(D))
					sum += w[p]
				}
				for p := range w {
					sums[g][p] += w[p] / sum
				}
			}
			require.Equal(t, kept[g], c.Positions(0, g), "token %d, head %d", n, g)
		}
	}
	require.Less(t, kept[0][0], 40, "something old stayed")
}

// TestI12SnapKVEqualsReplay: what stays of a prompt in the first layer is what naive votes of its last tokens choose.
func TestI12SnapKVEqualsReplay(t *testing.T) {
	const D, N, observe, capacity = 8, 60, 7, 19
	m := toy(t)
	c, err := NewCache(m.Config, SnapKV(capacity, observe, 9), quant.F32, 0, m.Layers)
	require.NoError(t, err)
	s := &spy{Cache: c}
	r := NewOn(m, s, 1)
	defer r.Close()
	c.Prompt(N) // token by token, so that the spy sees single rows
	for _, id := range text(N) {
		_, err := r.Step(id)
		require.NoError(t, err)
	}
	for g := range 2 {
		votes := make([]float64, N-observe)
		for n := N - observe; n < N; n++ {
			for h := 2 * g; h < 2*g+2; h++ {
				w, sum := make([]float64, n+1), 0.0
				for p := range w {
					dot := 0.0
					for d := range D {
						dot += float64(s.q[n][h*D+d]) * float64(s.k[p][g*D+d])
					}
					w[p] = math.Exp(dot / math.Sqrt(D))
					sum += w[p]
				}
				for p := range votes {
					votes[p] += w[p] / sum
				}
			}
		}
		pooled, order := make([]float64, len(votes)), make([]int, len(votes))
		for i := range votes {
			order[i] = i
			for j := i - 2; j <= i+2; j++ {
				if j >= 0 && j < len(votes) {
					pooled[i] += votes[j]
				}
			}
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(pooled[b], pooled[a]), a-b) })
		want := order[:capacity-observe]
		slices.Sort(want)
		require.Equal(t, want, c.Positions(0, g)[:capacity-observe])
	}
}

// TestI12PyramidBudgets: they never rise from layer to layer, and together do not exceed those of SnapKV.
func TestI12PyramidBudgets(t *testing.T) {
	for layers := 2; layers < 9; layers++ {
		for capacity := 8; capacity < 50; capacity += 3 {
			for n := capacity - 2; n < 200; n += 11 {
				p, sum := PyramidKV(capacity, 6, 3), 0
				for l := range layers {
					b := p.Budget(l, layers, n) - 3
					sum += b
					require.GreaterOrEqual(t, b, 6)
					require.True(t, l == 0 || b <= p.Budget(l-1, layers, n)-3)
				}
				require.LessOrEqual(t, sum, capacity*layers, "%d layers, %d of %d", layers, capacity, n)
			}
		}
	}
}

// TestI12SelectionByHand: ties and pooling.
func TestI12SelectionByHand(t *testing.T) {
	require.Equal(t, 4, victim([]float64{5, 3, 2, 1, 1, 9, 0, 0}, 1, 3), "the higher place goes among equals; recents stay")
	require.Equal(t, 1, victim([]float64{0, 3, 9, 9}, 1, 3), "one candidate")
	// Votes 0 1 0 0 4 0 0 0 2: sums of 3 are 1 1 1 4 4 4 0 2 2.
	votes := []float64{0, 1, 0, 0, 4, 0, 0, 0, 2}
	require.Equal(t, []int{3, 4, 5, 7}, Select(votes, 3, false, 4))
	require.Equal(t, []int{3, 4, 5, 7, 8}, Select(votes, 3, true, 5))
	require.Equal(t, []int{0, 3, 4, 5, 7, 8}, Select(votes, 3, false, 6), "the lowest place among equals stays")
}

// TestI13ShardedAttentionMergesExactly: attention over shards of a sequence, merged, is attention over all of it.
func TestI13ShardedAttentionMergesExactly(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	const D, P = 16, 90
	fill := func(n int, by float64) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = r.NormFloat64() * by
		}
		return x
	}
	q, k, v := fill(D, 3), fill(P*D, 3), fill(P*D, 1)
	scores, top, sum := make([]float64, P), math.Inf(-1), 0.0
	for p := range scores {
		for d := range D {
			scores[p] += q[d] * k[p*D+d] / 4
		}
		top = max(top, scores[p])
	}
	want := make([]float64, D)
	for p := range scores {
		e := math.Exp(scores[p] - top)
		sum += e
		for d := range D {
			want[d] += e * v[p*D+d]
		}
	}
	for _, cuts := range [][]int{{0, P}, {0, 1, P}, {0, 30, 60, P}, {0, 7, 7, 50, 89, P}} {
		all := Partial{Out: make([]float64, D), Top: math.Inf(-1)}
		for i := range cuts[1:] {
			lo, hi := cuts[i]*D, cuts[i+1]*D
			all = Merge(AttendPart(q, k[lo:hi], v[lo:hi], 0.25), all)
		}
		for d, x := range all.Result() {
			require.InDelta(t, want[d]/sum, x, 1e-12, "cuts %v", cuts)
		}
	}
}

func TestPoliciesAreChecked(t *testing.T) {
	require.True(t, slices.IsSortedFunc(Table, func(a, b Entry) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	}))
	for _, e := range Table {
		p, err := ByName(e.Name, 64)
		require.NoError(t, err)
		require.Equal(t, e.Name, p.Name)
		require.Equal(t, 64, p.Budget(0, 1, 1000), e.Name)
	}
	for _, tc := range []struct {
		p    Policy
		want string
	}{
		{Policy{}, "0 recent"}, {Streaming(4, -2), "-2 recent"}, {SnapKV(4, 5, 1), "of which 5 observe"}, {SnapKV(4, 0, 1), "of which 0 observe"},
		{Policy{Recent: 1, Prompt: &Prompt{Capacity: 4, Observe: 2, Kernel: 4}}, "over 4 positions"},
		{Policy{Recent: 1, Sinks: 1, Prompt: &Prompt{Capacity: 4, Observe: 2, Kernel: 5}}, "has no sinks"},
	} {
		require.ErrorContains(t, tc.p.Check(), tc.want)
	}
	_, err := ByName("lru", 9)
	require.ErrorContains(t, err, "have [full h2o")
	m := toy(t)
	_, err = NewCache(m.Config, Window(3), quant.Q8_0, 0, 1)
	require.ErrorContains(t, err, "want F32 or F16")
	_, err = NewCache(m.Config, Window(3), quant.F32, 2, 9)
	require.ErrorContains(t, err, "[2, 9)")
	c := m.Config
	c.Window = 5
	_, err = NewCache(c, Window(3), quant.F32, 0, 1)
	require.ErrorContains(t, err, "window of 5")
	r := runner(t, m, SnapKV(4, 2, 3), Options{})
	_, err = r.Step(1)
	require.ErrorContains(t, err, "Prompt(n)")
	_, err = r.Prefill(text(9))
	require.NoError(t, err)
	_, err = r.Prefill(text(3))
	require.ErrorContains(t, err, "Reset")
	_, err = r.Read(text(4), 4, nil)
	require.ErrorContains(t, err, "prompt of 4")
}

func ExampleSelect() {
	fmt.Println(Select([]float64{0, 0, 3, 0, 0, 0, 1}, 3, false, 3))
	// Output: [1 2 3]
}

// TestI12PerplexityOfFullCacheEqualsRecompute: reading step by step with a cache that holds all is predicting every token
// from the text before it, whatever is taken as the prompt; and a uniform model is as surprised as it has tokens.
func TestI12PerplexityOfFullCacheEqualsRecompute(t *testing.T) {
	m, ids := toy(t), text(40)
	late := func(i int) bool { return i >= 25 }
	want, err := Recompute(m, ids, 64, 1, late)
	require.NoError(t, err)
	require.Equal(t, 15, want.Count)
	r := runner(t, m, Full(64), Options{})
	for _, prompt := range []int{1, 12, 25} {
		got, err := r.Read(ids, prompt, late)
		require.NoError(t, err)
		require.Equal(t, want.NLL, got.NLL)
		require.Equal(t, want.Count, got.Count)
	}
	narrow, err := Recompute(m, ids, 5, 1, late)
	require.NoError(t, err)
	require.NotEqual(t, want.NLL, narrow.NLL)
	require.EqualValues(t, 5*m.KVBytesPerToken(0, m.Layers), narrow.Peak)
	require.InDelta(t, 2, Score{NLL: 3 * math.Log(2), Count: 3}.Perplexity(), 1e-12)
	require.InDelta(t, math.Log(4), nll([]float32{5, 5, 5, 5}, 2), 1e-12)
	_, err = Recompute(m, ids, 64, 1, func(int) bool { return false })
	require.ErrorContains(t, err, "no token")
}

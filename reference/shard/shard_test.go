package shard

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// random makes a model whose attention prefers some positions.
func random(t testing.TB, c llm.Config) *llm.Model {
	m, err := llm.New(c, 5)
	require.NoError(t, err)
	params, err := m.Params()
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	for _, p := range params {
		for i := range p.Data {
			if p.N > 1 {
				p.Data[i] *= 8
			} else {
				p.Data[i] += float32(r.NormFloat64() * 0.2)
			}
		}
	}
	return m
}

func llama(t testing.TB) *llm.Model {
	return random(t, llm.Config{Arch: llm.Llama, Layers: 3, Dim: 64, Heads: 8, KVHeads: 4, HeadDim: 16, FFN: 128, Vocab: 70, Context: 300})
}

func qwen(t testing.TB) *llm.Model {
	return random(t, llm.Config{Arch: llm.Qwen2, Layers: 2, Dim: 48, Heads: 4, KVHeads: 4, HeadDim: 20, FFN: 72, Vocab: 61, Context: 300, Tied: true})
}

func tokens(n, vocab int) []int32 {
	r := rand.New(rand.NewPCG(5, 6))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(vocab))
	}
	return ids
}

// dense is the logits of all tokens on one unsharded engine.
func dense(t testing.TB, m *llm.Model, ids []int32) []float32 {
	w := m.NewWork(1)
	defer w.Close()
	c, err := m.NewCache(0, m.Layers, len(ids))
	require.NoError(t, err)
	seqs := []llm.Seq{{IDs: ids, Cache: c, Want: llm.AllLogits}}
	require.NoError(t, w.Forward(0, m.Layers, seqs))
	return slices.Clone(seqs[0].Out)
}

func group(t testing.TB, m *llm.Model, o Options) *Group {
	g, err := New(m, o)
	require.NoError(t, err)
	t.Cleanup(g.Close)
	return g
}

// sharded is the same on a group, in a prefill of two chunks and single tokens, beside another sequence.
func sharded(t testing.TB, g *Group, ids []int32) []float32 {
	c, err := g.NewCache(len(ids))
	require.NoError(t, err)
	other, err := g.NewCache(len(ids) * 3)
	require.NoError(t, err)
	var logits []float32
	for _, part := range [][]int32{ids[:9], ids[9:17], ids[17:18], ids[18:]} {
		seqs := []Seq{{IDs: ids[:3], Cache: other}, {IDs: part, Cache: c, Want: llm.AllLogits}}
		require.NoError(t, g.Forward(seqs))
		logits = append(logits, seqs[1].Out...)
	}
	require.Equal(t, len(ids), c.Len())
	return logits
}

func requireNear(t testing.TB, want, got []float32, rel float64) {
	require.Len(t, got, len(want))
	top, differ := 0.0, 0.0
	for i := range want {
		top, differ = max(top, math.Abs(float64(want[i]))), max(differ, math.Abs(float64(want[i]-got[i])))
	}
	require.Greater(t, top, 0.1)
	require.Less(t, differ/top, rel)
}

// TestI6SumOfShardsIsDense: for any number of leaves the logits are the dense engine's within rounding, and for any number
// of nodes that share the same leaves they are the same bits.
func TestI6SumOfShardsIsDense(t *testing.T) {
	for name, m := range map[string]*llm.Model{"llama": llama(t), "qwen2 with biases": qwen(t)} {
		ids := tokens(20, m.Vocab)
		want := dense(t, m, ids)
		for _, leaves := range []int{1, 2, 4} {
			var first []float32
			for nodes := 1; nodes <= leaves; nodes *= 2 {
				g := group(t, m, Options{Leaves: leaves, Nodes: nodes, Threads: nodes})
				got := sharded(t, g, ids)
				requireNear(t, want, got, 1e-5)
				if first == nil {
					first = got
				}
				require.Equal(t, first, got, "%s: %d leaves on %d nodes", name, leaves, nodes)
				if leaves == 1 {
					require.Equal(t, want, got, "%s: one leaf is the whole", name)
				}
			}
		}
	}
}

// TestI6TreeDoesNotDependOnNodes: adding up runs of neighbours first gives the bits of the whole tree, and another order does
// not.
func TestI6TreeDoesNotDependOnNodes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	make8 := func() (parts [][]float32) {
		r = rand.New(rand.NewPCG(3, 3))
		for range 8 {
			p := make([]float32, 50)
			for i := range p {
				p[i] = float32(r.NormFloat64())
			}
			parts = append(parts, p)
		}
		return parts
	}
	whole := make8()
	Tree(whole)
	for nodes := 1; nodes <= 8; nodes *= 2 {
		parts, tops := make8(), [][]float32{}
		for n := range nodes {
			mine := part(parts, n, nodes)
			Tree(mine)
			tops = append(tops, mine[0])
		}
		Tree(tops)
		require.Equal(t, whole[0], tops[0], "%d nodes", nodes)
	}
	chain := make8()
	for _, p := range chain[1:] {
		tensor.Add(chain[0], p)
	}
	require.NotEqual(t, whole[0], chain[0])
	requireNear(t, whole[0], chain[0], 1e-5)
}

// TestI6QuantisedShards keeps the weights of the file: leaves hold slices of its bytes.
func TestI6QuantisedShards(t *testing.T) {
	l, err := models.Open("mei-small")
	require.NoError(t, err)
	ids := l.Tokenizer.EncodePrompt("robot 24 , tool 21 , cup 12 , shelf 45 ; store cup =>")
	ids = append(ids, ids[1:8]...)
	want := dense(t, l.Model, ids)
	g := group(t, l.Model, Options{Leaves: 8, Nodes: 4})
	requireNear(t, want, sharded(t, g, ids), 1e-4)
	q, err := llama(t).As(quant.Q8_0)
	require.NoError(t, err)
	want = dense(t, q, tokens(20, 70)) // unpacked, so activations are not rounded
	half := group(t, q, Options{Leaves: 2, Nodes: 2})
	requireNear(t, want, sharded(t, half, tokens(20, 70)), 1e-5)
	const norms = 2 * 64 * 4 // bytes that every node needs of a layer
	require.Equal(t, 3*(q.WeightBytes(1, 2)+norms), 2*half.NodeBytes())
	_, err = New(q, Options{Leaves: 4, Nodes: 1}) // 128 / 4 columns are a block, and so are 128 of Out
	require.NoError(t, err)
	small, err := random(t, llm.Config{Arch: llm.Llama, Layers: 1, Dim: 32, Heads: 4, KVHeads: 4, HeadDim: 8, FFN: 64, Vocab: 64, Context: 30}).As(quant.Q8_0)
	require.NoError(t, err)
	_, err = New(small, Options{Leaves: 4, Nodes: 1})
	require.ErrorContains(t, err, "not whole blocks of Q8_0")
}

// TestI6BytesPerLayer: two sums of d activations a token and layer, counted while running and by formula.
func TestI6BytesPerLayer(t *testing.T) {
	m := llama(t)
	g := group(t, m, Options{Leaves: 4, Nodes: 4})
	c, err := g.NewCache(40)
	require.NoError(t, err)
	require.NoError(t, g.Forward([]Seq{{IDs: tokens(11, 70), Cache: c}}))
	require.Equal(t, 2*m.Layers, g.Syncs)
	require.Equal(t, 2*3*SyncBytes(Star, 4, 11*m.Dim, 4), g.Traffic)
	require.EqualValues(t, 2*3*(2*3*11*64*4), g.Traffic, "3 layers of 2 sums; 3 nodes send 11·64 values and get them back")
	for _, tc := range []struct {
		c            Collective
		nodes        int
		all, busiest int
	}{{Star, 1, 0, 0}, {Star, 4, 2 * 3 * 400, 3 * 400}, {Ring, 4, 2 * 3 * 400, 2 * 3 * 100}, {Air, 4, 2 * 400, 400}, {Air, 8, 2 * 400, 400}} {
		require.EqualValues(t, tc.all, SyncBytes(tc.c, tc.nodes, 100, 4))
		require.EqualValues(t, tc.busiest, BusiestBytes(tc.c, tc.nodes, 100, 4))
	}
}

// TestI6AirNoise: the sum over nodes errs by the mean square asked for; 0 changes nothing, and one node has no noise. More
// noise moves the logits further.
func TestI6AirNoise(t *testing.T) {
	m, ids := llama(t), tokens(20, 70)
	clean := sharded(t, group(t, m, Options{Leaves: 4, Nodes: 4}), ids)
	require.Equal(t, clean, sharded(t, group(t, m, Options{Leaves: 4, Nodes: 1, Noise: 1}), ids))
	last := 0.0
	for _, mse := range []float64{1e-8, 1e-5, 1e-2} {
		noisy := sharded(t, group(t, m, Options{Leaves: 4, Nodes: 4, Noise: mse, Seed: 1}), ids)
		require.Equal(t, noisy, sharded(t, group(t, m, Options{Leaves: 4, Nodes: 4, Noise: mse, Seed: 1}), ids), "a seed names its noise")
		moved := 0.0
		for i := range noisy {
			moved += math.Pow(float64(noisy[i]-clean[i]), 2)
		}
		require.Greater(t, moved, 4*last)
		last = moved
	}
	g := group(t, m, Options{Leaves: 2, Nodes: 2, Noise: 0.04, Seed: 2})
	const n = 20000
	g.parts = [][]float32{make([]float32, n), make([]float32, n)}
	mean, square := 0.0, 0.0
	for _, v := range g.sum() {
		mean += float64(v) / n
		square += float64(v) * float64(v) / n
	}
	require.InDelta(t, 0.04, square, 5*0.04*math.Sqrt(2.0/n), "five deviations of a χ² of n values")
	require.InDelta(t, 0, mean, 5*0.2/math.Sqrt(n))
}

func TestShardRefuses(t *testing.T) {
	m := llama(t)
	for _, tc := range []struct {
		o    Options
		want string
	}{
		{Options{Leaves: 3, Nodes: 1}, "powers of two"},
		{Options{Leaves: 2, Nodes: 4}, "at least one leaf a node"},
		{Options{Leaves: 8, Nodes: 2}, "4 key/value heads"},
		{Options{Leaves: 2, Nodes: 2, Noise: math.NaN()}, "noise of NaN"},
	} {
		_, err := New(m, tc.o)
		require.ErrorContains(t, err, tc.want)
	}
	_, err := New(random(t, mixtureConfig()), Options{Leaves: 1, Nodes: 1})
	require.ErrorContains(t, err, "only plain")
	g := group(t, m, Options{Leaves: 2, Nodes: 1})
	c, err := g.NewCache(4)
	require.NoError(t, err)
	require.ErrorContains(t, g.Forward([]Seq{{IDs: tokens(5, 70), Cache: c}}), "room for 5")
	require.ErrorContains(t, g.Forward([]Seq{{IDs: []int32{99}, Cache: c}}), "id 99")
	require.Zero(t, c.Len())
	w := m.NewWork(1)
	defer w.Close()
	require.ErrorContains(t, w.Half(0, llm.AttentionHalf, []llm.Seq{{IDs: []int32{1}}}), "want hidden states")
	_, err = Prefill(w, 4, tokens(3, 70))
	require.ErrorContains(t, err, "3 tokens on 4 nodes")
}

// TestI6PrefillByPositions: hidden states and caches of every node are those of one node, bit for bit, and what was passed on
// is what the formula says.
func TestI6PrefillByPositions(t *testing.T) {
	m := llama(t)
	ids := tokens(37, m.Vocab)
	w := m.NewWork(1)
	defer w.Close()
	c, err := m.NewCache(0, m.Layers, 40)
	require.NoError(t, err)
	whole := []llm.Seq{{IDs: ids, Cache: c, Want: llm.Hidden}}
	require.NoError(t, w.Forward(0, m.Layers, whole))
	want := slices.Clone(whole[0].Out)
	k, v := make([]float32, 37*m.KVDim()), make([]float32, 37*m.KVDim())
	for _, nodes := range []int{1, 2, 3, 5} {
		p, err := Prefill(w, nodes, ids)
		require.NoError(t, err)
		require.Equal(t, want, slices.Concat(p.Hidden...), "%d nodes", nodes)
		sent := 0
		for i := range nodes {
			sent += (p.From[i+1] - p.From[i]) * (nodes - 1 - i) * 2 * m.KVDim() * 4 * m.Layers
		}
		require.EqualValues(t, sent, p.Sent)
		last := p.Caches[nodes-1]
		require.Equal(t, 37, last.Len())
		for l := range m.Layers {
			k2, v2 := make([]float32, len(k)), make([]float32, len(v))
			c.Get(l, 0, 37, k, v)
			last.Get(l, 0, 37, k2, v2)
			require.Equal(t, [][]float32{k, v}, [][]float32{k2, v2})
		}
	}
	require.EqualValues(t, 3*37*64*4, VoltageBytes(4, 37, 64, 4))
}

// TestI6MergeIsAttention: attention over a cache that lies on several nodes, merged, is attention over the whole cache; in
// any order, and exactly if there is one part.
func TestI6MergeIsAttention(t *testing.T) {
	const heads, G, D, n = 6, 2, 24, 290
	pool := tensor.NewPool(2)
	defer pool.Close()
	r := rand.New(rand.NewPCG(8, 8))
	normal := func(n int, scale float64) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(scale * r.NormFloat64())
		}
		return x
	}
	k, v, q := normal(n*G*D, 2), normal(n*G*D, 1), normal(heads*D, 2)
	hold := func(from, to int) Partial {
		kv, err := tensor.NewKV(quant.F32, G, D, to-from)
		require.NoError(t, err)
		kv.Put(0, to-from, k[from*G*D:], v[from*G*D:])
		return Attend(pool, q, kv, to-from, heads)
	}
	whole := hold(0, n)
	out := make([]float32, heads*D)
	Merge(out, []Partial{whole})
	require.Equal(t, whole.Out, out)
	for _, cuts := range [][]int{{0, 128, n}, {0, 1, 7, 150, 289, n}, {0, 100, 200, n}} {
		var parts []Partial
		for i := range len(cuts) - 1 {
			parts = append(parts, hold(cuts[i], cuts[i+1]))
		}
		Merge(out, parts)
		requireNear(t, whole.Out, out, 2e-6)
		slices.Reverse(parts)
		Merge(out, parts)
		requireNear(t, whole.Out, out, 2e-6)
	}
}

func mixtureConfig() llm.Config {
	return llm.Config{Arch: llm.Qwen2MoE, Layers: 3, Dim: 48, Heads: 4, KVHeads: 2, FFN: 64, Vocab: 60, Context: 100, Experts: 8, ExpertsUsed: 3, ExpertFFN: 32, SharedFFN: 40}
}

func onNodes(t testing.TB, m *llm.Model, e *Experts, nodes int, ids []int32) []float32 {
	root := m.NewWork(1)
	defer root.Close()
	var works []*llm.Work
	for range nodes {
		works = append(works, m.NewWork(1))
		defer works[len(works)-1].Close()
	}
	require.NoError(t, e.Attach(root, works))
	c, err := m.NewCache(0, m.Layers, len(ids))
	require.NoError(t, err)
	seqs := []llm.Seq{{IDs: ids, Cache: c, Want: llm.AllLogits}}
	require.NoError(t, root.Forward(0, m.Layers, seqs))
	e.Flush()
	return slices.Clone(seqs[0].Out)
}

// TestI7ExpertsOnNodesAreDense: wherever experts live, logits are the dense mixture's, bit for bit; what is sent is two states
// for each choice of an expert that is not the root's.
func TestI7ExpertsOnNodesAreDense(t *testing.T) {
	for name, c := range map[string]llm.Config{"shared expert": mixtureConfig(),
		"mixtral": {Arch: llm.Llama, Layers: 2, Dim: 48, Heads: 4, KVHeads: 2, FFN: 56, Vocab: 60, Context: 100, Experts: 8, ExpertsUsed: 2}} {
		m := random(t, c)
		ids := tokens(25, m.Vocab)
		want := dense(t, m, ids)
		for _, owner := range [][]int{{-1, -1, -1, -1, -1, -1, -1, -1}, {0, 0, 0, 0, 1, 1, 1, 1}, {-1, 0, 1, 2, -1, 2, 1, 0}} {
			e := &Experts{Owner: owner, Seconds: []float64{1e-3, 2e-3, 5e-3}}
			require.Equal(t, want, onNodes(t, m, e, 3, ids), "%s, experts on %v", name, owner)
			require.Equal(t, 25*c.Layers*c.ExpertsUsed, e.Chosen)
			require.Zero(t, e.Dropped)
			if !slices.Contains(owner, -1) {
				require.EqualValues(t, e.Chosen*2*4*c.Dim, e.Sent)
			}
			require.Equal(t, owner[0] == -1 && owner[1] == -1, e.Sent == 0)
			require.Equal(t, e.Sent == 0, e.Wait == 0)
		}
	}
}

// TestI7DroppingTradesQualityForTime: behind unequal links, dropping more of the slow experts never takes longer and moves
// the logits further from the dense mixture's; a token always keeps an expert.
func TestI7DroppingTradesQualityForTime(t *testing.T) {
	m := random(t, mixtureConfig())
	ids := tokens(25, m.Vocab)
	want := dense(t, m, ids)
	dropped, wait, moved := -1, math.Inf(1), -1.0
	for _, drop := range []float64{0, 0.2, 0.5, 1} {
		e := &Experts{Owner: []int{0, 0, 0, 0, 1, 1, 1, 1}, Seconds: []float64{1e-3, 4e-3}, Drop: drop}
		got, error2 := onNodes(t, m, e, 2, ids), 0.0
		for i := range got {
			error2 += math.Pow(float64(got[i]-want[i]), 2)
		}
		require.Greater(t, e.Dropped, dropped, "drop below %g", drop)
		require.Less(t, e.Wait, wait)
		require.Greater(t, error2, moved)
		dropped, wait, moved = e.Dropped, e.Wait, error2
	}
	require.Equal(t, 25*3*2, dropped, "of three experts each token keeps the best")
	require.False(t, math.IsNaN(moved))
}

// TestI7RuleByHand: shares 0.5, 0.3 and 0.1, on nodes of 1, 4 and 1 s: 0.5, 0.075 and 0.1 a second.
func TestI7RuleByHand(t *testing.T) {
	for _, tc := range []struct {
		drop   float64
		chosen []int32
		share  []float32
	}{
		{0.1, []int32{0, 1, 2}, []float32{0.5, 0.3, 0.1}},
		{0.16, []int32{0, -1, 2}, []float32{0.75, 0.3, 0.15}}, // 0.9 over 0.6
		{0.3, []int32{0, -1, -1}, []float32{0.9, 0.3, 0.1}},
	} {
		e := &Experts{Owner: []int{0, 1, 0}, Seconds: []float64{1, 4}, Drop: tc.drop, weigh: make([]float64, 3)}
		chosen, share := []int32{0, 1, 2}, []float32{0.5, 0.3, 0.1}
		e.route(0, 0, chosen, share)
		require.Equal(t, tc.chosen, chosen)
		for i, c := range chosen {
			if c >= 0 {
				require.InDelta(t, tc.share[i], share[i], 1e-6)
			}
		}
	}
	root := random(t, mixtureConfig()).NewWork(1)
	defer root.Close()
	require.ErrorContains(t, (&Experts{Owner: []int{0}}).Attach(root, nil), "1 owners for 8 experts")
	require.ErrorContains(t, (&Experts{Owner: make([]int, 8), Seconds: []float64{0}}).Attach(root, []*llm.Work{root}), "node 0 takes 0 s")
	require.ErrorContains(t, (&Experts{Owner: []int{0, 0, 0, 0, 0, 0, 0, 7}, Seconds: []float64{1}}).Attach(root, []*llm.Work{root}), "expert 7 is on node 7")
}

func ExampleGroup() {
	l, err := models.Open("mei-nano")
	if err != nil {
		panic(err)
	}
	g, err := New(l.Model, Options{Leaves: 2, Nodes: 2})
	if err != nil {
		panic(err)
	}
	defer g.Close()
	c, err := g.NewCache(64)
	if err != nil {
		panic(err)
	}
	seqs := []Seq{{IDs: l.Tokenizer.EncodePrompt("robot 54 , can 44 ; fetch can =>"), Cache: c}}
	if err := g.Forward(seqs); err != nil {
		panic(err)
	}
	fmt.Println(l.Tokenizer.Decode([]int32{llm.Greedy(seqs[0].Out)}), g.Syncs)
	// Output: can 10
}

package llm

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// pathTo is the numbers of the tokens from a root of the tree to token t.
func pathTo(parents []int32, t int) []int {
	var path []int
	for a := t; a >= 0; a = int(parents[a]) {
		path = append(path, a)
	}
	slices.Reverse(path)
	return path
}

// randomTree has long branches and short ones, and several roots.
func randomTree(n int, seed uint64) []int32 {
	r := rand.New(rand.NewPCG(seed, 1))
	parents := make([]int32, n)
	for t := range parents {
		parents[t] = int32(t - 1 - min(t, r.IntN(3)*r.IntN(3)))
	}
	return parents
}

// contents is all that a cache holds.
func contents(c *Cache) []float32 {
	var list []float32
	for l := c.Lo; l < c.Hi; l++ {
		k, v := make([]float32, c.Len()*c.width()), make([]float32, c.Len()*c.width())
		c.Get(l, 0, c.Len(), k, v)
		list = append(append(list, k...), v...)
	}
	return list
}

// prefilled is a cache of a type that holds the first n tokens.
func prefilled(t testing.TB, w *Work, typ quant.Type, ids []int32) *Cache {
	c, err := w.Model.NewCacheOf(typ, 0, w.Model.Layers, 300)
	require.NoError(t, err)
	if len(ids) > 0 {
		require.NoError(t, w.Forward(0, w.Model.Layers, []Seq{{IDs: ids, Cache: c}}))
	}
	return c
}

// TestI10TreeEqualsChains: each node of a token tree has the logits of its path run alone, bit for bit, and after Keep the
// cache holds what the chain left there, whatever the architecture.
func TestI10TreeEqualsChains(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) { treeEqualsChains(t, m, quant.F32, 1, []int{0, 21}) })
}

// TestI10TreeAcrossBlocks puts the tree where attention goes from one block of 128 positions to the next, for every type of
// cache.
func TestI10TreeAcrossBlocks(t *testing.T) {
	for _, typ := range tensor.KVTypes() {
		t.Run(typ.String(), func(t *testing.T) {
			treeEqualsChains(t, model(t, configs()["qwen2"]), typ, 2, []int{119, 127, 128, 130})
			treeEqualsChains(t, model(t, configs()["llama window"]), typ, 1, []int{124})
		})
	}
}

func treeEqualsChains(t *testing.T, m *Model, typ quant.Type, threads int, pasts []int) {
	w := work(t, m, threads)
	ids, parents := tokens(170, m.Vocab), randomTree(24, 9)
	for _, past := range pasts {
		prompt, draft := ids[:past], ids[140:164]
		c := prefilled(t, w, typ, prompt)
		other := prefilled(t, w, quant.F32, ids[:7])
		seqs := []Seq{{IDs: ids[7:9], Cache: other}, {IDs: draft, Cache: c, Parents: parents, Want: AllLogits}}
		require.NoError(t, w.Forward(0, m.Layers, seqs))
		got := slices.Clone(seqs[1].Out)
		require.Equal(t, past+24, c.Len())
		deepest := 0
		for node := range draft {
			path := pathTo(parents, node)
			deepest = max(deepest, len(path))
			chain := make([]int32, len(path))
			for i, n := range path {
				chain[i] = draft[n]
			}
			alone := prefilled(t, w, typ, prompt)
			s := []Seq{{IDs: chain, Cache: alone}}
			require.NoError(t, w.Forward(0, m.Layers, s))
			require.True(t, slices.Equal(s[0].Out, got[node*m.Vocab:(node+1)*m.Vocab]), "node %d at depth %d behind %d tokens", node, len(path), past)
			if node%5 == 3 {
				kept := prefilled(t, w, typ, prompt)
				require.NoError(t, w.Forward(0, m.Layers, []Seq{{IDs: draft, Cache: kept, Parents: parents}}))
				kept.Keep(past, path)
				require.Equal(t, alone.Len(), kept.Len())
				require.True(t, slices.Equal(contents(alone), contents(kept)), "cache after keeping node %d behind %d tokens", node, past)
			}
		}
		require.Greater(t, deepest, 8, "the tree must be deep")
	}
}

// TestTreeInASpan: a tree crosses a split as a chain does.
func TestTreeInASpan(t *testing.T) {
	m := model(t, configs()["llama"])
	w, ids, parents := work(t, m, 1), tokens(12, m.Vocab), randomTree(12, 2)
	whole := []Seq{{IDs: ids, Cache: cache(t, m, 0, 4), Parents: parents, Want: AllLogits}}
	require.NoError(t, w.Forward(0, 4, whole))
	want := slices.Clone(whole[0].Out)
	full := cache(t, m, 0, 4) // one memory for both halves
	s := []Seq{{IDs: ids, Cache: full.Span(0, 2), Parents: parents}}
	require.NoError(t, w.Forward(0, 2, s))
	s = []Seq{{Hidden: slices.Clone(s[0].Out), Cache: full.Span(2, 4), Parents: parents, Want: AllLogits}}
	require.NoError(t, w.Forward(2, 4, s))
	require.Equal(t, want, s[0].Out)
	full.SetLen(12)
	require.Equal(t, contents(whole[0].Cache), contents(full))
}

func TestTreeRefuses(t *testing.T) {
	m := model(t, configs()["llama"])
	w, c := work(t, m, 1), cache(t, m, 0, 4)
	for _, tc := range []struct {
		seq  Seq
		want string
	}{
		{Seq{IDs: []int32{1, 2}, Cache: c, Parents: []int32{-1}}, "2 tokens and 1 parents"},
		{Seq{IDs: []int32{1, 2}, Cache: c, Parents: []int32{0, 0}}, "token 0 follows token 0"},
		{Seq{IDs: []int32{1, 2}, Cache: c, Parents: []int32{-1, -2}}, "token 1 follows token -2"},
		{Seq{IDs: []int32{1, 2}, Store: newShelf(t, m.Config), Parents: []int32{-1, 0}}, "trees need a cache"},
	} {
		require.ErrorContains(t, w.Forward(0, 4, []Seq{tc.seq}), tc.want)
	}
	require.NoError(t, w.Forward(0, 4, []Seq{{IDs: []int32{1, 2, 3}, Cache: c, Parents: []int32{-1, 0, 0}}}))
	require.Panics(t, func() { c.Keep(0, []int{0, 3}) })
	require.Panics(t, func() { c.Keep(0, []int{2, 1}) })
	require.Panics(t, func() { c.Keep(4, nil) })
	c.Keep(1, []int{1})
	require.Equal(t, 2, c.Len())
}

func TestTreeDoesNotAllocate(t *testing.T) {
	m := model(t, configs()["llama"])
	w, c, ids := work(t, m, 2), cache(t, m, 0, 4), tokens(20, m.Vocab)
	seqs := []Seq{{IDs: ids, Cache: c, Parents: randomTree(20, 1), Want: AllLogits}}
	path := pathTo(seqs[0].Parents, 19)
	pass := func() {
		if err := w.Forward(0, 4, seqs); err != nil {
			panic(err)
		}
		c.Keep(0, path)
		c.Truncate(0)
	}
	pass()
	require.Zero(t, testing.AllocsPerRun(30, pass))
}

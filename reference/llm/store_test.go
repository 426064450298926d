package llm

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// shelf is a Store that forgets nothing: rotated keys in plain caches, one a layer.
type shelf struct {
	layers []*tensor.KV
	seen   int
	full   bool
}

func newShelf(t testing.TB, c Config) *shelf {
	c = c.WithDefaults()
	s := &shelf{}
	for range c.Layers {
		kv, err := tensor.NewKV(quant.F32, c.KVHeads, c.HeadDim, 64)
		require.NoError(t, err)
		s.layers = append(s.layers, kv)
	}
	return s
}

func (s *shelf) Seen() int     { return s.seen }
func (s *shelf) Advance(T int) { s.seen += T }

func (s *shelf) Admit(Config, int, int, int) error {
	if s.full {
		return errors.New("the shelf is full")
	}
	return nil
}

func (s *shelf) Attend(a *Attend) {
	kv := s.layers[a.Layer]
	a.Rope.Apply(a.Q, a.T, a.Heads, a.Past)
	a.Rope.Apply(a.K, a.T, kv.G, a.Past)
	kv.Put(a.Past, a.T, a.K, a.V)
	a.Pool.Attention([]tensor.AttnSeq{a.Over(kv, 0, a.T, a.Past)}, a.Heads)
}

// TestI12StoreEqualsCache: the engine treats a Store that keeps everything like a cache, for every architecture, alone and in
// a batch with caches, prefill and decode.
func TestI12StoreEqualsCache(t *testing.T) {
	ids := []int32{1, 5, 9, 2, 30, 7, 8, 11, 12, 3, 4, 6, 22, 17, 19, 40}
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			m := model(t, c)
			w := m.NewWork(2)
			defer w.Close()
			want, err := m.NewCache(0, m.Layers, 64)
			require.NoError(t, err)
			other, err := m.NewCache(0, m.Layers, 64)
			require.NoError(t, err)
			got := newShelf(t, m.Config)
			for _, part := range [][]int32{ids[:11], ids[11:12], ids[12:]} {
				seqs := []Seq{{IDs: part, Cache: want, Want: AllLogits}, {IDs: part, Store: got, Want: AllLogits}, {IDs: part[:1], Cache: other}}
				require.NoError(t, w.Forward(0, m.Layers, seqs))
				require.Equal(t, seqs[0].Out, seqs[1].Out)
			}
			require.Equal(t, len(ids), got.Seen())
		})
	}
}

func TestStoreIsRefused(t *testing.T) {
	m := model(t, configs()["llama"])
	w := m.NewWork(1)
	defer w.Close()
	s := newShelf(t, m.Config)
	c, err := m.NewCache(0, m.Layers, 64)
	require.NoError(t, err)
	err = w.Forward(0, m.Layers, []Seq{{IDs: []int32{1}, Store: s, Cache: c}})
	require.ErrorContains(t, err, "a cache and a store")
	err = w.Forward(0, m.Layers, []Seq{{IDs: []int32{1}, Store: s}, {IDs: []int32{2}, Store: s}})
	require.ErrorContains(t, err, "share a cache")
	s.full = true
	require.ErrorContains(t, w.Forward(0, m.Layers, []Seq{{IDs: []int32{1}, Store: s}}), "the shelf is full")
	require.Zero(t, s.Seen())
}

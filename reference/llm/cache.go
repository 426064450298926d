package llm

import (
	"fmt"

	"meibench/internal/units"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// Cache holds the keys and values of one sequence for layers [Lo, Hi).
//
// Forward appends to it. Truncate rolls back, which is how rejected draft tokens are forgotten; CopyPrefix shares a
// prompt between sequences; Get and Put move a cache between machines.
type Cache struct {
	Lo, Hi   int
	Type     quant.Type // of the elements: F32, F16 or Q8_0
	length   int
	capacity int
	heads    int // G
	channels int // D
	layers   []*tensor.KV
}

// NewCache makes an empty cache in F32 for layers [lo, hi) and up to capacity tokens. All memory is taken here.
func (c Config) NewCache(lo, hi, capacity int) (*Cache, error) {
	return c.NewCacheOf(quant.F32, lo, hi, capacity)
}

// NewCacheOf is NewCache with elements of one of [tensor.KVTypes]: F16 halves the memory and what attention reads, Q8_0
// takes 28 % of it; both round keys and values.
func (c Config) NewCacheOf(t quant.Type, lo, hi, capacity int) (*Cache, error) {
	c = c.WithDefaults()
	if lo < 0 || hi < lo || hi > c.Layers {
		return nil, fmt.Errorf("new cache: layers [%d, %d), want a span inside [0, %d)", lo, hi, c.Layers)
	}
	if capacity < 1 || capacity > c.Context {
		return nil, fmt.Errorf("new cache: capacity of %d tokens, want 1 to the model's context of %d", capacity, c.Context)
	}
	cache := &Cache{Lo: lo, Hi: hi, Type: t, capacity: capacity, heads: c.KVHeads, channels: c.HeadDim}
	for range hi - lo {
		kv, err := tensor.NewKV(t, c.KVHeads, c.HeadDim, capacity)
		if err != nil {
			return nil, fmt.Errorf("new cache: %w", err)
		}
		cache.layers = append(cache.layers, kv)
	}
	return cache, nil
}

// Len is the number of tokens held.
func (c *Cache) Len() int { return c.length }

// Cap is the number of tokens that fit.
func (c *Cache) Cap() int { return c.capacity }

// Shape is the number of key/value heads and of channels of a head.
func (c *Cache) Shape() (kvHeads, headDim int) { return c.heads, c.channels }

// Bytes is the size of the tokens held; Resident counts the room for all that fit.
func (c *Cache) Bytes() units.Bytes {
	return units.Bytes(c.length * tensor.KVBytes(c.Type, c.heads, c.channels) * (c.Hi - c.Lo))
}

// Resident is the memory that the cache occupies, whatever it holds.
func (c *Cache) Resident() units.Bytes {
	return units.Bytes((c.Hi - c.Lo) * tensor.KVResident(c.Type, c.heads, c.channels, c.capacity))
}

// CacheBytes is what a cache of layers [lo, hi) will occupy.
func (c Config) CacheBytes(t quant.Type, lo, hi, capacity int) units.Bytes {
	c = c.WithDefaults()
	return units.Bytes((hi - lo) * tensor.KVResident(t, c.KVHeads, c.HeadDim, capacity))
}

// width is G·D, and fits reports whether a model's keys and values have the shape of the cache's.
func (c *Cache) width() int { return c.heads * c.channels }

func (c *Cache) fits(m *Model) bool { return c.heads == m.KVHeads && c.channels == m.HeadDim }

// layer is what attention reads in a layer.
func (c *Cache) layer(l int) *tensor.KV { return c.layers[l-c.Lo] }

// Truncate forgets all tokens from position n on. Panics if fewer than n are held.
func (c *Cache) Truncate(n int) {
	if n < 0 || n > c.length {
		panic(fmt.Sprintf("llm: truncate cache of %d tokens to %d", c.length, n))
	}
	c.length = n
}

// Get copies the keys and values of tokens [from, to) in a layer, as float32; keys are rotated.
//
//	k, v: (to-from, G·D)
func (c *Cache) Get(layer, from, to int, k, v []float32) {
	if from < 0 || to < from || to > c.length {
		panic(fmt.Sprintf("llm: get tokens %d to %d of a cache of %d", from, to, c.length))
	}
	c.layer(layer).Get(from, to, k, v)
}

// Put overwrites the keys and values of T tokens from position at on in a layer; SetLen then declares them. Between
// caches of the same type nothing changes on the way in F32 and F16; Q8_0 may round once more, by a unit of float32.
//
//	k, v: (T, G·D)
func (c *Cache) Put(layer, at, T int, k, v []float32) { c.layer(layer).Put(at, T, k, v) }

// SetLen declares that the first n tokens are filled in, after they were written through Put.
func (c *Cache) SetLen(n int) {
	if n < 0 || n > c.capacity {
		panic(fmt.Sprintf("llm: set length %d of a cache for %d tokens", n, c.capacity))
	}
	c.length = n
}

// Keep makes a path through a tree of tokens (see [Seq]) the end of the sequence: entry i of path is the number, among
// those from position base on, of the token that then stands at base+i. The rest from base on is forgotten. Nothing is
// computed: a node was stored for its place on the path. Panics if path does not ascend or leaves the cache.
func (c *Cache) Keep(base int, path []int) {
	if base < 0 || base > c.length {
		panic(fmt.Sprintf("llm: keep a path from position %d of a cache of %d", base, c.length))
	}
	for i, n := range path {
		if n < i || base+n >= c.length || i > 0 && n <= path[i-1] {
			panic(fmt.Sprintf("llm: keep path %v from position %d of a cache of %d", path, base, c.length))
		}
		for _, kv := range c.layers {
			if n != i {
				kv.Move(base+n, base+i)
			}
		}
	}
	c.length = base + len(path)
}

// Span is a cache of some of the layers, in the same memory, with a length of its own: for passes that run a span at a
// time. Layers [lo, hi) must be inside the cache's.
func (c *Cache) Span(lo, hi int) *Cache {
	part := *c
	part.Lo, part.Hi, part.layers = lo, hi, c.layers[lo-c.Lo:hi-c.Lo]
	return &part
}

// CopyPrefix replaces the content by the first n tokens of another cache of the same layers and type.
func (c *Cache) CopyPrefix(from *Cache, n int) error {
	if from.Lo != c.Lo || from.Hi != c.Hi || from.heads != c.heads || from.channels != c.channels || from.Type != c.Type {
		return fmt.Errorf("copy cache prefix: layers [%d, %d) of width %d in %v into [%d, %d) of %d in %v",
			from.Lo, from.Hi, from.width(), from.Type, c.Lo, c.Hi, c.width(), c.Type)
	}
	if n < 0 || n > from.length || n > c.capacity {
		return fmt.Errorf("copy cache prefix: %d tokens, but %d are held and %d fit", n, from.length, c.capacity)
	}
	for i, kv := range c.layers {
		kv.CopyPrefix(from.layers[i], n)
	}
	c.length = n
	return nil
}

// Store keeps the keys and values of one sequence in another way than a [Cache] does, and computes the attention over
// them: caches that forget, that round harder, or that live elsewhere. A sequence has a Cache or a Store, never both.
//
// The rest of the layer is that of the engine, so a Store that forgets nothing and calls [tensor.Pool.Attention] on the
// rotated keys gives the bits of a Cache.
type Store interface {
	// Seen is the number of tokens that went in, forgotten ones included: the position of the next token.
	Seen() int
	// Admit says why T more tokens of layers [lo, hi) of a model cannot be taken, or nil. Attend must then succeed.
	Admit(c Config, lo, hi, T int) error
	// Attend takes the new tokens of one layer and writes what they attend to. Layers come in ascending order.
	Attend(a *Attend)
	// Advance declares that T tokens went through all layers.
	Advance(T int)
}

// Attend is one layer of one sequence, as a [Store] sees it. Queries and keys are biased and normalised but not rotated.
type Attend struct {
	Layer, T int
	Past     int       // position of the first new token
	Heads    int       // H
	Out, Q   []float32 // (T, H, D)
	K, V     []float32 // (T, G, D)
	Rope     *tensor.Rope
	Pool     *tensor.Pool

	// Of the layer; see [tensor.AttnSeq].
	Window         int
	Scale, Softcap float32
}

// Over is the attention of T of the call's new tokens, from token t0 on, whose queries are rotated, over a cache of
// theirs in which past positions come before them.
func (a *Attend) Over(kv *tensor.KV, t0, T, past int) tensor.AttnSeq {
	width := a.Heads * kv.D
	return tensor.AttnSeq{Out: a.Out[t0*width : (t0+T)*width], Q: a.Q[t0*width : (t0+T)*width], KV: kv, T: T, Past: past,
		Window: a.Window, Scale: a.Scale, Softcap: a.Softcap}
}

// checkMemory says what is wrong with a sequence's Cache or Store for a span.
func (m *Model) checkMemory(lo, hi int, s *Seq) error {
	c, T := s.Cache, s.tokens(m.Dim)
	switch {
	case s.Store != nil && c != nil:
		return fmt.Errorf("has a cache and a store: give it one of them")
	case s.Store != nil && s.Parents != nil:
		return fmt.Errorf("has a tree of tokens and a store: trees need a cache")
	case s.Store != nil:
		return s.Store.Admit(m.Config, lo, hi, T)
	case c == nil && lo < hi:
		return fmt.Errorf("has no cache: make one with NewCache(%d, %d, capacity)", lo, hi)
	case c != nil && (c.Lo != lo || c.Hi != hi || !c.fits(m)):
		return fmt.Errorf("has a cache of layers [%d, %d) and width %d, want this span and %d", c.Lo, c.Hi, c.width(), m.KVDim())
	case c != nil && c.length+T > c.capacity:
		return fmt.Errorf("%d new tokens do not fit behind %d in a cache for %d: truncate it or make a larger one",
			T, c.length, c.capacity)
	}
	return nil
}

// advance declares the new tokens of a sequence.
func (s *Seq) advance(dim int) {
	switch {
	case s.Store != nil:
		s.Store.Advance(s.tokens(dim))
	case s.Cache != nil:
		s.Cache.length += s.tokens(dim)
	}
}

// shares reports whether two sequences would write to one memory.
func (s *Seq) shares(o *Seq) bool {
	return s.Cache != nil && s.Cache == o.Cache || s.Store != nil && s.Store == o.Store
}

// outside runs the attention of a sequence that has a Store; its rows begin at row.
func (w *Work) outside(l, row int, s *Seq) {
	m := w.Model
	T, Q, KV := s.tokens(m.Dim), m.QDim(), m.KVDim()
	s.Store.Attend(&Attend{Layer: l, T: T, Past: s.past(), Heads: m.Heads, Out: w.att[row*Q : (row+T)*Q], Q: w.q[row*Q : (row+T)*Q],
		K: w.k[row*KV : (row+T)*KV], V: w.v[row*KV : (row+T)*KV], Rope: w.rope, Pool: w.pool,
		Window: m.windowOf(l), Scale: m.attentionScale(), Softcap: m.AttnSoftcap})
}

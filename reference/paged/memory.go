package paged

import (
	"fmt"

	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// Memory holds the keys and values of an allocator's blocks, for layers [lo, hi) of a model: sequences with equal beginnings
// share them in fact, and forks copy what they write to.
//
// Attention gathers a sequence's blocks into one place and runs on the engine's kernels, so logits are those of a plain
// cache, bit for bit; gathering is what a kernel that follows block tables would save.
type Memory struct {
	Blocks *Allocator
	Lo, Hi int

	config llm.Config
	layers []*tensor.KV // of all blocks, block b at positions from b·size on
	gather *tensor.KV   // one sequence in one layer
	k, v   []float32    // a block
}

// NewMemory takes all memory at once. Elements are F32 or F16.
func NewMemory(c llm.Config, t quant.Type, a *Allocator, lo, hi int) (*Memory, error) {
	c = c.WithDefaults()
	if t != quant.F32 && t != quant.F16 {
		return nil, fmt.Errorf("make paged memory of %v: want F32 or F16", t)
	}
	if lo < 0 || hi < lo || hi > c.Layers {
		return nil, fmt.Errorf("make paged memory: layers [%d, %d), want a span inside [0, %d)", lo, hi, c.Layers)
	}
	m := &Memory{Blocks: a, Lo: lo, Hi: hi, config: c}
	for range hi - lo {
		kv, err := tensor.NewKV(t, c.KVHeads, c.HeadDim, len(a.blocks)*a.size)
		if err != nil {
			return nil, err
		}
		m.layers = append(m.layers, kv)
	}
	m.k, m.v = make([]float32, a.size*c.KVDim()), make([]float32, a.size*c.KVDim())
	return m, nil
}

// Resident is the memory of all blocks.
func (m *Memory) Resident() units.Bytes {
	n := 0
	for _, kv := range m.layers {
		n += kv.Resident()
	}
	return units.Bytes(n)
}

// Cache is a [llm.Store] of one sequence. Tokens go in twice: Open and Append find room for them, then the engine computes
// them.
type Cache struct {
	Sequence *Sequence
	memory   *Memory
	seen     int
}

// Open makes a cache for a prompt, of which the first hit tokens are there and the others must be computed before another
// prompt is opened.
func (m *Memory) Open(prompt []int32) (c *Cache, hit int, err error) {
	s, hit, err := m.Blocks.Open(prompt)
	if err != nil {
		return nil, 0, err
	}
	return &Cache{Sequence: s, memory: m, seen: hit}, hit, nil
}

// Append makes room for a token, which must be computed next.
func (c *Cache) Append(id int32) error {
	copies, err := c.Sequence.Append(id)
	if err != nil {
		return err
	}
	m := c.memory
	for _, o := range copies {
		for _, kv := range m.layers {
			from := int(o.From) * m.Blocks.size
			kv.Get(from, from+o.Tokens, m.k, m.v)
			kv.Put(int(o.To)*m.Blocks.size, o.Tokens, m.k, m.v)
		}
	}
	return nil
}

// Fork makes a second cache with the same tokens.
func (c *Cache) Fork() (*Cache, error) {
	if c.seen != c.Sequence.length {
		return nil, fmt.Errorf("fork a cache of %d tokens of which %d are computed: compute the rest first", c.Sequence.length, c.seen)
	}
	s, err := c.Sequence.Fork()
	if err != nil {
		return nil, err
	}
	return &Cache{Sequence: s, memory: c.memory, seen: c.seen}, nil
}

// Close gives the blocks back.
func (c *Cache) Close() { c.Sequence.Close() }

// Seen is the number of tokens computed.
func (c *Cache) Seen() int { return c.seen }

// Admit is part of [llm.Store].
func (c *Cache) Admit(config llm.Config, lo, hi, T int) error {
	m, config := c.memory, config.WithDefaults()
	switch {
	case lo != m.Lo || hi != m.Hi || config.KVHeads != m.config.KVHeads || config.HeadDim != m.config.HeadDim:
		return fmt.Errorf("has a paged cache of layers [%d, %d) and width %d, want this span and %d", m.Lo, m.Hi, m.config.KVDim(), config.KVDim())
	case c.seen+T > c.Sequence.length:
		return fmt.Errorf("%d tokens behind %d, but blocks for %d: Append them first", T, c.seen, c.Sequence.length)
	}
	return nil
}

// Advance is part of [llm.Store].
func (c *Cache) Advance(T int) { c.seen += T }

// Attend is part of [llm.Store].
func (c *Cache) Attend(a *llm.Attend) {
	m := c.memory
	size, kv, W := m.Blocks.size, m.layers[a.Layer-m.Lo], m.config.KVDim()
	a.Rope.Apply(a.Q, a.T, a.Heads, a.Past)
	a.Rope.Apply(a.K, a.T, kv.G, a.Past)
	for t := range a.T {
		p := a.Past + t
		kv.Put(int(c.Sequence.table[p/size])*size+p%size, 1, a.K[t*W:(t+1)*W], a.V[t*W:(t+1)*W])
	}
	n := a.Past + a.T
	if m.gather == nil || m.gather.Capacity < n {
		bigger, err := tensor.NewKV(kv.Type, kv.G, kv.D, max(64, 2*n))
		if err != nil {
			panic(err) // NewMemory has checked the type
		}
		m.gather = bigger
	}
	for p := 0; p < n; p += size {
		from, T := int(c.Sequence.table[p/size])*size, min(size, n-p)
		kv.Get(from, from+T, m.k, m.v)
		m.gather.Put(p, T, m.k, m.v)
	}
	a.Pool.Attention([]tensor.AttnSeq{a.Over(m.gather, 0, a.T, a.Past)}, a.Heads)
}

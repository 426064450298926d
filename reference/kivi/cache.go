package kivi

import (
	"fmt"

	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// Cache is a [llm.Store] of rounded keys and values. Keys are rounded after their rotation, as in the authors' code.
//
// The tokens of one call see each other exactly and the tokens before them as they are kept; so a prompt in one call is
// exact inside, as with the authors, and its bits differ from those of the same tokens one by one.
type Cache struct {
	Params Params
	Lo, Hi int

	config llm.Config
	seen   int
	peak   units.Bytes
	layers []layer
	decode *tensor.KV // positions of the layer under way, decoded
	k, v   []float32
}

// layer is what one layer keeps. Rows are W = G·D elements.
type layer struct {
	n          int       // tokens
	keys       []byte    // groups of Params.Group tokens, (tokens/Group, W), of all but keyRest
	values     []byte    // groups of Params.Group channels of one token, (tokens, ⌈W/Group⌉), of all but valueRest
	keyRest    []float32 // below Residual rows
	valueRest  []float32 // at most Residual rows
	keyTokens  int       // tokens in keys
	valueTaken int       // tokens in values
}

// NewCache makes an empty cache for layers [lo, hi) of a model.
func NewCache(c llm.Config, p Params, lo, hi int) (*Cache, error) {
	c = c.WithDefaults()
	if err := p.Check(); err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	if lo < 0 || hi < lo || hi > c.Layers {
		return nil, fmt.Errorf("make KIVI cache: layers [%d, %d), want a span inside [0, %d)", lo, hi, c.Layers)
	}
	return &Cache{Params: p, Lo: lo, Hi: hi, config: c, layers: make([]layer, hi-lo)}, nil
}

// Seen is the number of tokens held.
func (c *Cache) Seen() int { return c.seen }

// Exact is the first token whose keys, and the first whose values, are kept as they are.
func (c *Cache) Exact() (keys, values int) {
	R := c.Params.Residual
	return c.seen / R * R, max(0, c.seen-R)
}

// Prompt is not needed: prompts are kept like other tokens.
func (c *Cache) Prompt(int) {}

// Reset forgets everything and keeps the memory.
func (c *Cache) Reset() {
	c.seen, c.peak = 0, 0
	for i := range c.layers {
		l := &c.layers[i]
		*l = layer{keys: l.keys[:0], values: l.values[:0], keyRest: l.keyRest[:0], valueRest: l.valueRest[:0]}
	}
}

// Bytes is the size of codes, scales, zeros, and the last tokens in float32.
func (c *Cache) Bytes() units.Bytes {
	n := 0
	for i := range c.layers {
		l := &c.layers[i]
		n += len(l.keys) + len(l.values) + 4*(len(l.keyRest)+len(l.valueRest))
	}
	return units.Bytes(n)
}

// Peak is the largest Bytes at the end of any layer so far. One layer decoded comes on top while attention runs.
func (c *Cache) Peak() units.Bytes { return c.peak }

// Admit is part of [llm.Store].
func (c *Cache) Admit(m llm.Config, lo, hi, T int) error {
	m = m.WithDefaults()
	switch {
	case lo != c.Lo || hi != c.Hi || m.KVHeads != c.config.KVHeads || m.HeadDim != c.config.HeadDim:
		return fmt.Errorf("has a KIVI cache of layers [%d, %d) and width %d, want this span and %d", c.Lo, c.Hi, c.config.KVDim(), m.KVDim())
	case c.seen+T > m.Context:
		return fmt.Errorf("%d new tokens behind %d exceed the model's context of %d", T, c.seen, m.Context)
	}
	return nil
}

// Advance is part of [llm.Store].
func (c *Cache) Advance(T int) { c.seen += T }

// Attend is part of [llm.Store].
func (c *Cache) Attend(a *llm.Attend) {
	G, D := c.config.KVHeads, c.config.HeadDim
	a.Rope.Apply(a.Q, a.T, a.Heads, a.Past)
	a.Rope.Apply(a.K, a.T, G, a.Past)
	c.reserve(a.Past + a.T)
	k, v := c.k[:a.Past*G*D], c.v[:a.Past*G*D]
	c.Get(a.Layer, 0, a.Past, k, v)
	c.decode.Put(0, a.Past, k, v)
	c.decode.Put(a.Past, a.T, a.K, a.V)
	a.Pool.Attention([]tensor.AttnSeq{a.Over(c.decode, 0, a.T, a.Past)}, a.Heads)
	c.layers[a.Layer-c.Lo].add(c.Params, a.K, a.V, G*D)
	c.peak = max(c.peak, c.Bytes())
}

// reserve makes room to decode n positions.
func (c *Cache) reserve(n int) {
	if c.decode != nil && c.decode.Capacity >= n {
		return
	}
	n = min(max(64, 2*n), max(n, c.config.Context))
	kv, err := tensor.NewKV(quant.F32, c.config.KVHeads, c.config.HeadDim, n)
	if err != nil {
		panic(err) // float32 is always one of the types
	}
	c.decode, c.k, c.v = kv, make([]float32, n*c.config.KVDim()), make([]float32, n*c.config.KVDim())
}

// add keeps new rows, and rounds what has become old enough. All keys are rounded together when Residual of them are
// there; values one token at a time, beyond Residual of them.
func (l *layer) add(p Params, k, v []float32, W int) {
	for t := 0; t < len(k); t += W {
		l.n++
		l.keyRest = append(l.keyRest, k[t:t+W]...)
		l.valueRest = append(l.valueRest, v[t:t+W]...)
		if len(l.keyRest) == p.Residual*W {
			l.keys = appendKeys(l.keys, p, l.keyRest, W)
			l.keyTokens, l.keyRest = l.keyTokens+p.Residual, l.keyRest[:0]
		}
		if len(l.valueRest) > p.Residual*W {
			l.values = appendValues(l.values, p, l.valueRest[:W])
			l.valueTaken++
			l.valueRest = append(l.valueRest[:0], l.valueRest[W:]...)
		}
	}
}

// appendKeys rounds rows, a multiple of the group, per channel.
func appendKeys(dst []byte, p Params, rows []float32, W int) []byte {
	group, size := make([]float32, p.Group), GroupBytes(p.Group, p.Bits)
	for t := 0; t < len(rows)/W; t += p.Group {
		for c := range W {
			for i := range group {
				group[i] = rows[(t+i)*W+c]
			}
			dst = append(dst, make([]byte, size)...)
			Encode(dst[len(dst)-size:], group, p.Bits)
		}
	}
	return dst
}

// appendValues rounds one token's row.
func appendValues(dst []byte, p Params, row []float32) []byte {
	for c := 0; c < len(row); c += p.Group {
		x := row[c:min(c+p.Group, len(row))]
		size := GroupBytes(len(x), p.Bits)
		dst = append(dst, make([]byte, size)...)
		Encode(dst[len(dst)-size:], x, p.Bits)
	}
	return dst
}

// Get decodes tokens [from, to) of a layer; keys are rotated.
//
//	k, v: (to-from, G·D)
func (c *Cache) Get(layer, from, to int, k, v []float32) {
	l, p, W := &c.layers[layer-c.Lo], c.Params, c.config.KVDim()
	if from < 0 || to < from || to > l.n {
		panic(fmt.Sprintf("kivi: get tokens %d to %d of a cache of %d", from, to, l.n))
	}
	group, size := make([]float32, p.Group), GroupBytes(p.Group, p.Bits)
	for t := from / p.Group * p.Group; t < min(to, l.keyTokens); t += p.Group {
		for ch := range W {
			Decode(group, l.keys[(t/p.Group*W+ch)*size:], p.Bits)
			for i, x := range group {
				if at := t + i - from; at >= 0 && t+i < to {
					k[at*W+ch] = x
				}
			}
		}
	}
	if at := max(from, l.keyTokens); at < to {
		copy(k[(at-from)*W:(to-from)*W], l.keyRest[(at-l.keyTokens)*W:])
	}
	row := W/p.Group*size + min(1, W%p.Group)*GroupBytes(W%p.Group, p.Bits)
	for t := from; t < min(to, l.valueTaken); t++ {
		for ch := 0; ch < W; ch += p.Group {
			Decode(v[(t-from)*W+ch:(t-from)*W+min(ch+p.Group, W)], l.values[t*row+ch/p.Group*size:], p.Bits)
		}
	}
	if at := max(from, l.valueTaken); at < to {
		copy(v[(at-from)*W:(to-from)*W], l.valueRest[(at-l.valueTaken)*W:])
	}
}

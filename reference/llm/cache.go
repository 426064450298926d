package llm

import (
	"fmt"

	"meibench/internal/units"
)

// Cache holds the keys and values of one sequence for layers [Lo, Hi).
//
// Forward appends to it. Truncate rolls back, which is how rejected draft tokens are forgotten; CopyPrefix shares a
// prompt between sequences; Rows gives the raw floats to whoever moves a cache between machines.
type Cache struct {
	Lo, Hi   int
	length   int
	capacity int
	width    int
	k, v     [][]float32 // per layer of the span: (capacity, G·D); keys are stored rotated
}

// NewCache makes an empty cache for layers [lo, hi) and up to capacity tokens. All memory is taken here.
func (c Config) NewCache(lo, hi, capacity int) (*Cache, error) {
	c = c.WithDefaults()
	if lo < 0 || hi < lo || hi > c.Layers {
		return nil, fmt.Errorf("new cache: layers [%d, %d), want a span inside [0, %d)", lo, hi, c.Layers)
	}
	if capacity < 1 || capacity > c.Context {
		return nil, fmt.Errorf("new cache: capacity of %d tokens, want 1 to the model's context of %d", capacity, c.Context)
	}
	cache := &Cache{Lo: lo, Hi: hi, capacity: capacity, width: c.KVDim()}
	for range hi - lo {
		cache.k = append(cache.k, make([]float32, capacity*cache.width))
		cache.v = append(cache.v, make([]float32, capacity*cache.width))
	}
	return cache, nil
}

// Len is the number of tokens held.
func (c *Cache) Len() int { return c.length }

// Cap is the number of tokens that fit.
func (c *Cache) Cap() int { return c.capacity }

// Bytes is the size of the tokens held; Resident counts the room for all that fit.
func (c *Cache) Bytes() units.Bytes { return units.Bytes(4 * 2 * c.length * c.width * (c.Hi - c.Lo)) }

// Resident is the memory that the cache occupies, whatever it holds.
func (c *Cache) Resident() units.Bytes {
	return units.Bytes(4 * 2 * c.capacity * c.width * (c.Hi - c.Lo))
}

// Truncate forgets all tokens from position n on. Panics if fewer than n are held.
func (c *Cache) Truncate(n int) {
	if n < 0 || n > c.length {
		panic(fmt.Sprintf("llm: truncate cache of %d tokens to %d", c.length, n))
	}
	c.length = n
}

// Rows returns the keys and values of tokens [from, to) in a layer, (to-from, G·D) each. They are views: to move a
// cache, write into the rows of another and then call SetLen.
func (c *Cache) Rows(layer, from, to int) (k, v []float32) {
	i := layer - c.Lo
	return c.k[i][from*c.width : to*c.width], c.v[i][from*c.width : to*c.width]
}

// SetLen declares that the rows of the first n tokens are filled in, after they were written through Rows.
func (c *Cache) SetLen(n int) {
	if n < 0 || n > c.capacity {
		panic(fmt.Sprintf("llm: set length %d of a cache for %d tokens", n, c.capacity))
	}
	c.length = n
}

// CopyPrefix replaces the content by the first n tokens of another cache of the same layers.
func (c *Cache) CopyPrefix(from *Cache, n int) error {
	if from.Lo != c.Lo || from.Hi != c.Hi || from.width != c.width {
		return fmt.Errorf("copy cache prefix: layers [%d, %d) of width %d into [%d, %d) of %d", from.Lo, from.Hi, from.width, c.Lo, c.Hi, c.width)
	}
	if n < 0 || n > from.length || n > c.capacity {
		return fmt.Errorf("copy cache prefix: %d tokens, but %d are held and %d fit", n, from.length, c.capacity)
	}
	for i := range c.k {
		copy(c.k[i], from.k[i][:n*c.width])
		copy(c.v[i], from.v[i][:n*c.width])
	}
	c.length = n
	return nil
}

package token

import "container/heap"

// chain is a text cut into symbols that are merged pair by pair.
type chain struct {
	text string
	at   []int // start of symbol i in text
	len  []int // its length, 0 once merged into its left neighbour
	prev []int
	next []int // -1 at the end
	heap pairs
}

// newChain cuts text by step, which returns the length of the next symbol (≥ 1).
func newChain(text string, step func(rest string) int) *chain {
	c := &chain{text: text}
	for at := 0; at < len(text); {
		n := step(text[at:])
		i := len(c.at)
		c.at, c.len = append(c.at, at), append(c.len, n)
		c.prev, c.next = append(c.prev, i-1), append(c.next, i+1)
		at += n
	}
	if n := len(c.next); n > 0 {
		c.next[n-1] = -1
	}
	return c
}

func (c *chain) symbol(i int) string { return c.text[c.at[i] : c.at[i]+c.len[i]] }

// merge joins the pair of least cost, leftmost on a tie, as long as cost
// accepts one; cost sees the joined text and the length of its left part.
// O(n log n) for n symbols.
func (c *chain) merge(cost func(joined string, left int) (float64, bool)) {
	add := func(i, j int) {
		if i >= 0 && j >= 0 {
			size := c.len[i] + c.len[j]
			if v, ok := cost(c.text[c.at[i]:c.at[i]+size], c.len[i]); ok {
				heap.Push(&c.heap, pair{v, i, j, size})
			}
		}
	}
	for i := 1; i < len(c.at); i++ {
		add(i-1, i)
	}
	for len(c.heap) > 0 {
		p := heap.Pop(&c.heap).(pair)
		// a pair is stale once either side grew or was swallowed
		if c.len[p.left] == 0 || c.len[p.right] == 0 || c.len[p.left]+c.len[p.right] != p.size || c.next[p.left] != p.right {
			continue
		}
		c.len[p.left], c.len[p.right] = p.size, 0
		c.next[p.left] = c.next[p.right]
		if n := c.next[p.left]; n >= 0 {
			c.prev[n] = p.left
		}
		add(c.prev[p.left], p.left)
		add(p.left, c.next[p.left])
	}
}

// each visits the symbols that are left, in order.
func (c *chain) each(visit func(string)) {
	for i := 0; i >= 0 && i < len(c.at); i = c.next[i] {
		visit(c.symbol(i))
	}
}

type pair struct {
	cost        float64
	left, right int
	size        int // bytes of both when pushed
}

type pairs []pair

func (h pairs) Len() int { return len(h) }
func (h pairs) Less(i, j int) bool {
	return h[i].cost < h[j].cost || (h[i].cost == h[j].cost && h[i].left < h[j].left)
}
func (h pairs) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *pairs) Push(x any)   { *h = append(*h, x.(pair)) }
func (h *pairs) Pop() any {
	old := *h
	p := old[len(old)-1]
	*h = old[:len(old)-1]
	return p
}

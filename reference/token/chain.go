package token

// chain is a text cut into symbols that are merged pair by pair. Positions are 32 bits: a text of 2 GiB is cut before.
type chain struct {
	at   []int32 // start of symbol i in the text
	len  []int32 // its length, 0 once merged into its left neighbour
	prev []int32
	next []int32 // -1 at the end
	sym  []int32 // what the caller knows it by
	heap []pair
}

// newChain makes room for n symbols, which add appends in order.
func newChain(n int) *chain {
	c := &chain{}
	for _, s := range []*[]int32{&c.at, &c.len, &c.prev, &c.next, &c.sym} {
		*s = make([]int32, 0, n)
	}
	return c
}

func (c *chain) add(at, size int, sym int32) {
	i := int32(len(c.at))
	if i > 0 {
		c.next[i-1] = i
	}
	c.at, c.len, c.sym = append(c.at, int32(at)), append(c.len, int32(size)), append(c.sym, sym)
	c.prev, c.next = append(c.prev, i-1), append(c.next, -1)
}

// span is the place in the text of symbols i and j, neighbours.
func (c *chain) span(i, j int) (from, to int) { return int(c.at[i]), int(c.at[j] + c.len[j]) }

// merge joins the pair of least cost, leftmost on a tie, as long as cost accepts one. O(n log n) for n symbols.
func (c *chain) merge(cost func(left, right int) (cost float32, into int32, ok bool)) {
	c.heap = make([]pair, 0, len(c.at))
	try := func(i, j int32) {
		if i >= 0 && j >= 0 {
			if v, into, ok := cost(int(i), int(j)); ok {
				c.push(pair{v, i, j, c.len[i] + c.len[j], into})
			}
		}
	}
	for i := int32(1); i < int32(len(c.at)); i++ {
		try(i-1, i)
	}
	for len(c.heap) > 0 {
		p := c.pop()
		// a pair is stale once either side grew or was swallowed
		if c.len[p.left] == 0 || c.len[p.right] == 0 || c.len[p.left]+c.len[p.right] != p.size || c.next[p.left] != p.right {
			continue
		}
		c.len[p.left], c.len[p.right], c.sym[p.left] = p.size, 0, p.into
		c.next[p.left] = c.next[p.right]
		if n := c.next[p.left]; n >= 0 {
			c.prev[n] = p.left
		}
		try(c.prev[p.left], p.left)
		try(p.left, c.next[p.left])
	}
}

// each visits the symbols that are left, in order.
func (c *chain) each(visit func(i int)) {
	if len(c.at) == 0 {
		return
	}
	for i := int32(0); i >= 0; i = c.next[i] {
		visit(int(i))
	}
}

type pair struct {
	cost        float32
	left, right int32
	size        int32 // bytes of both when pushed
	into        int32
}

func (p *pair) before(q *pair) bool {
	return p.cost < q.cost || (p.cost == q.cost && p.left < q.left)
}

// push and pop are container/heap's, without its boxes.
func (c *chain) push(p pair) {
	c.heap = append(c.heap, p)
	h, i := c.heap, len(c.heap)-1
	for i > 0 && p.before(&h[(i-1)/2]) {
		h[i] = h[(i-1)/2]
		i = (i - 1) / 2
	}
	h[i] = p
}

func (c *chain) pop() pair {
	h, last := c.heap, len(c.heap)-1
	top, p := h[0], h[last]
	h = h[:last]
	c.heap = h
	for i := 0; last > 0; {
		child := 2*i + 1
		if child+1 < last && h[child+1].before(&h[child]) {
			child++
		}
		if child >= last || !h[child].before(&p) {
			h[i] = p
			break
		}
		h[i] = h[child]
		i = child
	}
	return top
}

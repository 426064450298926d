package replay

import (
	"fmt"

	"meibench/internal/rng"
	"meibench/internal/units"
)

// node links an object into a list: prev and next in one cache line. next of the ring's object 0, which stands before
// number 0 of the objects, is the most recent.
type node struct{ prev, next int32 }

// ring is a doubly linked list of objects over an array: element 0 is the list itself, object o is element o+1.
type ring []node

func newRing(objects int) ring { return make(ring, objects+1) }

func (r ring) drop(e int32) {
	n := r[e]
	r[n.prev].next, r[n.next].prev = n.next, n.prev
}

func (r ring) front(e int32) {
	first := r[0].next
	r[e] = node{0, first}
	r[first].prev, r[0].next = e, e
}

// lru is a ring by recency. An element that is not there points to itself with next = -1.
type lru struct {
	ring
	left int
}

func newLRU(size, objects int) *lru {
	c := &lru{newRing(objects), size}
	for e := 1; e <= objects; e++ {
		c.ring[e].next = -1
	}
	return c
}

func (c *lru) Access(object int32) bool {
	e := object + 1
	if c.ring[e].next >= 0 {
		if c.ring[0].next != e {
			c.drop(e)
			c.front(e)
		}
		return true
	}
	if c.left > 0 {
		c.left--
	} else {
		old := c.ring[0].prev
		c.drop(old)
		c.ring[old].next = -1
	}
	c.front(e)
	return false
}

// sized is LRU over bytes.
type sized struct {
	ring
	sizes []units.Bytes
	left  units.Bytes
	room  units.Bytes
}

// NewSized is LRU in so many bytes for objects of these sizes. What is larger than the whole is never kept.
func NewSized(room units.Bytes, sizes []units.Bytes) (Cache, error) {
	c := &sized{newRing(len(sizes)), sizes, room, room}
	for o, n := range sizes {
		if n <= 0 {
			return nil, fmt.Errorf("object %d has %d bytes: want at least one", o, n)
		}
		c.ring[o+1].next = -1
	}
	if room <= 0 {
		return nil, fmt.Errorf("a cache of %d bytes: want at least one", room)
	}
	return c, nil
}

func (c *sized) Access(object int32) bool {
	e := object + 1
	if c.ring[e].next >= 0 {
		if c.ring[0].next != e {
			c.drop(e)
			c.front(e)
		}
		return true
	}
	n := c.sizes[object]
	if n > c.room {
		return false
	}
	for c.left < n {
		old := c.ring[0].prev
		c.drop(old)
		c.ring[old].next = -1
		c.left += c.sizes[old-1]
	}
	c.left -= n
	c.front(e)
	return false
}

// fifo is a circle of slots.
type fifo struct {
	here  []bool
	slots []int32
	at    int
	full  bool
}

func newFIFO(size, objects int) *fifo {
	return &fifo{here: make([]bool, objects), slots: make([]int32, size)}
}

func (c *fifo) Access(o int32) bool {
	if c.here[o] {
		return true
	}
	if c.full {
		c.here[c.slots[c.at]] = false
	}
	c.here[o], c.slots[c.at] = true, o
	if c.at++; c.at == len(c.slots) {
		c.at, c.full = 0, true
	}
	return false
}

// arbitrary throws out any.
type arbitrary struct {
	here  []bool
	slots []int32
	used  int
	luck  rng.Luck
}

func newRandom(size, objects int) *arbitrary {
	return &arbitrary{here: make([]bool, objects), slots: make([]int32, size), luck: rng.NewKey(1, "replay").At(0)}
}

func (c *arbitrary) Access(o int32) bool {
	if c.here[o] {
		return true
	}
	at := c.used
	if c.used < len(c.slots) {
		c.used++
	} else {
		at = int(c.luck.Uint64() % uint64(len(c.slots)))
		c.here[c.slots[at]] = false
	}
	c.here[o], c.slots[at] = true, o
	return false
}

// lfu keeps lists of what was asked for equally often. Elements beyond the objects are the lists' heads.
type lfu struct {
	nodes   []node  // objects, then one head for each count
	count   []int32 // by object, for ever; negative: not here
	objects int32
	least   int32 // no list below has anybody
	left    int
}

func newLFU(size, objects int) *lfu {
	return &lfu{nodes: make([]node, objects), count: make([]int32, objects), objects: int32(objects), left: size, least: 1}
}

// head is the list of a count, made when it is first needed.
func (c *lfu) head(count int32) int32 {
	h := c.objects + count
	for int(h) >= len(c.nodes) {
		n := int32(len(c.nodes))
		c.nodes = append(c.nodes, node{n, n})
	}
	return h
}

func (c *lfu) Access(o int32) bool {
	n := c.count[o]
	hit := n > 0
	switch {
	case hit:
		l := c.nodes[o]
		c.nodes[l.prev].next, c.nodes[l.next].prev = l.next, l.prev
	case c.left > 0:
		n = -n
		c.left--
	default:
		n = -n
		c.evict()
	}
	n++
	c.count[o] = n
	h := c.head(n)
	last := c.nodes[h].prev
	c.nodes[o] = node{last, h}
	c.nodes[last].next, c.nodes[h].prev = o, o
	if n < c.least {
		c.least = n
	}
	return hit
}

// evict throws out the first of the lowest list.
func (c *lfu) evict() {
	for {
		h := c.head(c.least)
		if o := c.nodes[h].next; o != h {
			l := c.nodes[o]
			c.nodes[l.prev].next, c.nodes[l.next].prev = l.next, l.prev
			c.count[o] = -c.count[o]
			return
		}
		c.least++
	}
}

// queue is a circle of objects.
type queue struct {
	slots   []int32
	head, n int
}

func (q *queue) push(o int32) {
	at := q.head + q.n
	if at >= len(q.slots) {
		at -= len(q.slots)
	}
	q.slots[at] = o
	q.n++
}

func (q *queue) pop() int32 {
	o := q.slots[q.head]
	if q.head++; q.head == len(q.slots) {
		q.head = 0
	}
	q.n--
	return o
}

// s3 is S3-FIFO: newcomers wait in a tenth of the room; who is asked for again goes on to the main queue, the others
// leave their names in a third list, and who comes back by that goes to the main queue at once.
type s3 struct {
	state       []uint8 // two bits of frequency, and where
	small, main queue
	ghost       queue
	room, least int // of the small queue
}

const (
	inSmall uint8 = 1 << (2 + iota)
	inMain
	inGhost
	frequency uint8 = 3
)

func newS3(size, objects int) *s3 {
	small := max(1, size/10)
	return &s3{state: make([]uint8, objects), small: queue{slots: make([]int32, size+1)}, main: queue{slots: make([]int32, size+1)},
		ghost: queue{slots: make([]int32, max(1, size-small))}, room: size, least: small}
}

func (c *s3) Access(o int32) bool {
	s := c.state[o]
	if s&(inSmall|inMain) != 0 {
		if s&frequency < frequency {
			c.state[o]++
		}
		return true
	}
	for c.small.n+c.main.n >= c.room {
		if c.small.n >= c.least || c.main.n == 0 {
			c.leaveSmall()
		} else {
			c.leaveMain()
		}
	}
	if c.state[o]&inGhost != 0 { // its name may have gone meanwhile
		c.main.push(o)
		c.state[o] = inMain | c.state[o]&inGhost
	} else {
		c.small.push(o)
		c.state[o] = inSmall
	}
	return false
}

// leaveSmall moves the oldest newcomer on, or throws it out and keeps its name.
func (c *s3) leaveSmall() {
	o := c.small.pop()
	if c.state[o]&frequency > 1 {
		c.main.push(o)
		c.state[o] = inMain
		return
	}
	if c.ghost.n == len(c.ghost.slots) {
		c.state[c.ghost.pop()] &^= inGhost
	}
	c.ghost.push(o)
	c.state[o] = inGhost
}

// leaveMain throws out the first of the main queue that was not asked for since it was last looked at.
func (c *s3) leaveMain() {
	for {
		o := c.main.pop()
		if s := c.state[o]; s&frequency > 0 {
			c.state[o]--
			c.main.push(o)
			continue
		}
		c.state[o] &= inGhost
		return
	}
}

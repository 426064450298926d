// Package prefix keeps the keys and values of prompts' leading blocks, so that the next prompt that begins alike need not
// compute them again.
//
//	s, err := prefix.New(prefix.Options{Room: 1 << 30, Policy: "lru"})
//	chain := prefix.Chain("tenant", tokens, 16)  // a name for each full block: a hash of everything up to its end
//	have := s.Find(chain)                        // blocks that are here, the leading ones
//	s.Add(chain, func(i int) prefix.Block { ... })
//
// The one idea is a tree: a block's name tells the whole prefix that ends with it, so a block follows exactly one other, and
// only a block that none here follows may go. Whatever is here can be used.
//
// A block is a size and whatever its owner keeps with it; the package touches no bytes. It belongs to one goroutine. Sources:
// vLLM (Kwon et al. 2023) for hash chains, Mooncake (FAST'25) for keeping them beside the device's memory.
package prefix

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"meibench/internal/units"
)

// Name is that of a block: of all tokens up to its end.
type Name [16]byte

// Chain names the full blocks of so many tokens of a prompt. Tenants have nothing in common.
func Chain(tenant string, tokens []int32, size int) []Name {
	c := Start(tenant)
	for n := size; n <= len(tokens); n += size {
		c.tokens(tokens[n-size : n])
	}
	return c.names
}

// Chained is a chain in the making.
type Chained struct {
	names []Name
	last  Name
	buf   []byte
}

// Start begins a chain.
func Start(tenant string) *Chained {
	c := &Chained{}
	sum := sha256.Sum256([]byte(tenant))
	copy(c.last[:], sum[:])
	return c
}

// Next adds a block that is known by what it holds.
func (c *Chained) Next(holds ...int64) {
	c.buf = append(c.buf[:0], c.last[:]...)
	for _, h := range holds {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, uint64(h))
	}
	c.close()
}

func (c *Chained) tokens(tokens []int32) {
	c.buf = append(c.buf[:0], c.last[:]...)
	for _, t := range tokens {
		c.buf = binary.LittleEndian.AppendUint32(c.buf, uint32(t))
	}
	c.close()
}

func (c *Chained) close() {
	sum := sha256.Sum256(c.buf)
	copy(c.last[:], sum[:])
	c.names = append(c.names, c.last)
}

// Names are those of the chain so far.
func (c *Chained) Names() []Name { return c.names }

// Block is what is kept.
type Block struct {
	Bytes units.Bytes
	Held  any // the owner's, such as keys and values
}

// Policies say which block goes, of those that none here follows.
func Policies() [][2]string {
	return [][2]string{{"fifo", "what came first"}, {"lfu", "what was found least often; of those the least recently used"}, {"lru", "the least recently used"}}
}

// Options of a store.
type Options struct {
	Room   units.Bytes
	Policy string
}

// Stats count since the beginning.
type Stats struct {
	Asked, Found int // blocks of chains
	Gone         int
	Used, Peak   units.Bytes
}

// Store keeps blocks.
type Store struct {
	o     Options
	rank  func(n *node) [2]int64 // least goes
	nodes map[Name]*node
	ends  ends // nodes that none follows
	clock int64
	stats Stats
}

type node struct {
	name    Name
	before  *node
	block   Block
	follow  int // nodes that follow it
	at      int // in ends; -1 = it has followers
	born    int64
	used    int64
	found   int64
	holding bool // part of the chain at hand
}

// New is an empty store.
func New(o Options) (*Store, error) {
	s := &Store{o: o, nodes: map[Name]*node{}}
	switch o.Policy {
	case "lru":
		s.rank = func(n *node) [2]int64 { return [2]int64{n.used} }
	case "lfu":
		s.rank = func(n *node) [2]int64 { return [2]int64{n.found, n.used} }
	case "fifo":
		s.rank = func(n *node) [2]int64 { return [2]int64{n.born} }
	default:
		var have []string
		for _, p := range Policies() {
			have = append(have, p[0])
		}
		return nil, fmt.Errorf("prefix store: unknown policy %q (have %s)", o.Policy, strings.Join(have, ", "))
	}
	if o.Room < 0 {
		return nil, fmt.Errorf("prefix store of %d bytes: want 0 or more", o.Room)
	}
	s.ends.rank = s.rank
	return s, nil
}

// Stats is what happened so far.
func (s *Store) Stats() Stats { return s.stats }

// Find is the blocks of a chain that are here, from its beginning on; they count as used now, the last one longest ago.
func (s *Store) Find(chain []Name) (have []Block) {
	s.stats.Asked += len(chain)
	var nodes []*node
	for _, name := range chain {
		n := s.nodes[name]
		if n == nil {
			break
		}
		n.found++
		nodes, have = append(nodes, n), append(have, n.block)
	}
	s.use(nodes)
	s.stats.Found += len(have)
	return have
}

// use stamps nodes of a chain, the last first.
func (s *Store) use(nodes []*node) {
	for _, n := range slices.Backward(nodes) {
		s.clock++
		n.used = s.clock
		if n.at >= 0 {
			heap.Fix(&s.ends, n.at)
		}
	}
}

// Add keeps the blocks of a chain that are not here yet, which make tells, until there is no more room for them: what is in the
// way goes, but nothing of the chain itself. It returns how many blocks of the chain are here then.
func (s *Store) Add(chain []Name, block func(i int) Block) int {
	var nodes []*node
	defer func() {
		for _, n := range nodes {
			n.holding = false
		}
		s.use(nodes)
	}()
	var before *node
	for i, name := range chain {
		n := s.nodes[name]
		if n == nil {
			b := block(i)
			if !s.clear(b.Bytes) {
				return i
			}
			s.clock++
			n = &node{name: name, before: before, block: b, at: -1, born: s.clock, used: s.clock}
			s.nodes[name] = n
			heap.Push(&s.ends, n)
			if before != nil {
				if before.follow++; before.at >= 0 {
					heap.Remove(&s.ends, before.at)
				}
			}
			s.stats.Used += b.Bytes
			s.stats.Peak = max(s.stats.Peak, s.stats.Used)
		}
		n.holding = true
		nodes, before = append(nodes, n), n
	}
	return len(chain)
}

// clear makes room for so many bytes; false if what may go does not suffice.
func (s *Store) clear(n units.Bytes) bool {
	var kept []*node
	defer func() {
		for _, k := range kept {
			heap.Push(&s.ends, k)
		}
	}()
	for s.stats.Used+n > s.o.Room {
		if s.ends.Len() == 0 {
			return false
		}
		k := heap.Pop(&s.ends).(*node)
		if k.holding {
			kept = append(kept, k)
			continue
		}
		s.remove(k)
	}
	return true
}

func (s *Store) remove(k *node) {
	delete(s.nodes, k.name)
	s.stats.Used -= k.block.Bytes
	s.stats.Gone++
	if b := k.before; b != nil {
		if b.follow--; b.follow == 0 {
			heap.Push(&s.ends, b)
		}
	}
}

// ends is a heap of nodes by rank.
type ends struct {
	list []*node
	rank func(n *node) [2]int64
}

// Len, Less, Swap, Push and Pop are those of a heap.
func (e *ends) Len() int { return len(e.list) }

// Less is the order of ranks.
func (e *ends) Less(i, j int) bool {
	a, b := e.rank(e.list[i]), e.rank(e.list[j])
	return a[0] < b[0] || a[0] == b[0] && a[1] < b[1]
}

// Swap exchanges two nodes.
func (e *ends) Swap(i, j int) {
	e.list[i], e.list[j] = e.list[j], e.list[i]
	e.list[i].at, e.list[j].at = i, j
}

// Push adds a node.
func (e *ends) Push(x any) {
	n := x.(*node)
	n.at = len(e.list)
	e.list = append(e.list, n)
}

// Pop takes the last off.
func (e *ends) Pop() any {
	n := e.list[len(e.list)-1]
	e.list = e.list[:len(e.list)-1]
	n.at = -1
	return n
}

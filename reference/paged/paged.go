// Package paged accounts for key/value caches in blocks of a fixed size, as a server does that must not waste memory: a block
// table per sequence, blocks shared by reference count, copied when a shared one is written to, found again by what they
// hold, and given up least recently used first.
//
//	a, _ := paged.New(1024, paged.BlockTokens)
//	s, hit, err := a.Open(prompt) // hit tokens are in memory already
//	copies, err := s.Append(token)
//	fork, err := s.Fork()
//	s.Close(); fork.Close()
//
// The one idea is that a full block is named by the chain of everything up to its end, so equal prefixes have equal names.
// A closed sequence leaves its full blocks behind as free but findable; they go to whoever needs room.
//
// The allocator holds numbers of blocks, not their bytes: whoever owns these does what Append returns, as [Memory] does for
// real keys and values. Sequences of one allocator belong to one goroutine. Source: Kwon et al. 2023 (vLLM).
package paged

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// BlockTokens is the usual number of tokens of a block.
const BlockTokens = 16

// ErrFull says that no block is free: wait for a sequence to close, or close one.
var ErrFull = errors.New("no free block")

// Block is the number of a block, from 0.
type Block int

// name is a digest of all tokens up to the end of a block.
type name [32]byte

// block is what is known of one.
type block struct {
	users int           // sequences that hold it
	name  name          // if named
	named bool          // full, and findable
	free  *list.Element // its place in the free list, if it has no users
}

// Allocator hands out blocks.
type Allocator struct {
	size   int // tokens of a block
	blocks []block
	free   *list.List // of Block, least recently used first; blank blocks before all others
	named  map[name]Block
	open   map[*Sequence]struct{}
	stats  Stats
}

// Stats counts what happened since the beginning.
type Stats struct {
	Taken, Returned int // blocks that gained their first user, and lost their last
	Forgotten       int // findable blocks that were given to somebody else
	Copied          int // blocks copied on write
	Asked, Hit      int // tokens of opened prompts, and those found in memory
}

// New makes an allocator of a number of blocks of size tokens.
func New(blocks, size int) (*Allocator, error) {
	if blocks < 1 || size < 1 || blocks > 1<<26 || size > 1<<20 {
		return nil, fmt.Errorf("make paged allocator: %d blocks of %d tokens: want 1 to 2^26 and 1 to 2^20", blocks, size)
	}
	a := &Allocator{size: size, blocks: make([]block, blocks), free: list.New(), named: map[name]Block{}, open: map[*Sequence]struct{}{}}
	for b := range a.blocks {
		a.blocks[b].free = a.free.PushBack(Block(b))
	}
	return a, nil
}

// BlockSize is the number of tokens of a block.
func (a *Allocator) BlockSize() int { return a.size }

// Free is the number of blocks without users, findable ones included.
func (a *Allocator) Free() int { return a.free.Len() }

// Stats counts what happened so far.
func (a *Allocator) Stats() Stats { return a.stats }

// Usage is how full the memory is now.
type Usage struct {
	Blocks    int // in all
	Used      int // with at least one user
	Findable  int // of the free ones, those that hold a known prefix
	Tokens    int // of all sequences, a shared block counted for each
	Held      int // token places in use, a shared block counted once
	Waste     int // places of used blocks that hold no token: internal fragmentation
	Sequences int
}

// Usage counts. It looks at every block.
func (a *Allocator) Usage() Usage {
	u := Usage{Blocks: len(a.blocks), Sequences: len(a.open)}
	filled := make([]int, len(a.blocks))
	for s := range a.open {
		u.Tokens += s.length
		for i, b := range s.table {
			filled[b] = max(filled[b], min(a.size, s.length-i*a.size))
		}
	}
	for b := range a.blocks {
		switch {
		case a.blocks[b].users > 0:
			u.Used++
			u.Held += filled[b]
			u.Waste += a.size - filled[b]
		case a.blocks[b].named:
			u.Findable++
		}
	}
	return u
}

// take gives out a free block: a blank one, or the findable one that was left alone longest.
func (a *Allocator) take() (Block, error) {
	e := a.free.Front()
	if e == nil {
		return 0, ErrFull
	}
	b := e.Value.(Block)
	a.forget(b)
	a.use(b)
	return b, nil
}

// forget makes a block blank.
func (a *Allocator) forget(b Block) {
	if k := &a.blocks[b]; k.named {
		delete(a.named, k.name)
		k.named = false
		a.stats.Forgotten++
	}
}

// use adds a user.
func (a *Allocator) use(b Block) {
	k := &a.blocks[b]
	if k.users == 0 {
		a.free.Remove(k.free)
		k.free = nil
		a.stats.Taken++
	}
	k.users++
}

// release takes a user away. A findable block queues up behind all others, a blank one before them.
func (a *Allocator) release(b Block) {
	k := &a.blocks[b]
	if k.users == 0 {
		panic("paged: a block was released twice")
	}
	if k.users--; k.users > 0 {
		return
	}
	a.stats.Returned++
	if k.named {
		k.free = a.free.PushBack(b)
	} else {
		k.free = a.free.PushFront(b)
	}
}

// Copy is an order to copy the first Tokens of block From to block To.
type Copy struct {
	From, To Block
	Tokens   int
}

// Sequence is the block table of one sequence.
type Sequence struct {
	a      *Allocator
	table  []Block
	length int
	tail   []int32 // tokens of the last block, while it is not full
	chain  name    // of the full blocks
	closed bool
}

// Open makes a sequence of a prompt. Its first hit tokens, whole blocks and always fewer than the prompt so that there is a
// token to compute, are in memory; the rest must be computed into its blocks before another prompt is opened, which may
// find them already. If memory does not suffice no sequence changes, and the error is [ErrFull].
func (a *Allocator) Open(prompt []int32) (s *Sequence, hit int, err error) {
	s = &Sequence{a: a}
	for hit+a.size < len(prompt) {
		b, ok := a.named[chain(s.chain, prompt[hit:hit+a.size])]
		if !ok {
			break
		}
		a.use(b)
		s.table, s.chain = append(s.table, b), a.blocks[b].name
		hit += a.size
	}
	s.length = hit
	if need := (len(prompt) - hit + a.size - 1) / a.size; need > a.free.Len() {
		s.drop()
		return nil, 0, fmt.Errorf("open a sequence of %d tokens: %d blocks more are needed and %d are free: %w", len(prompt), need, a.free.Len(), ErrFull)
	}
	a.open[s] = struct{}{}
	for _, id := range prompt[hit:] {
		if _, err := s.Append(id); err != nil {
			panic(err) // there was room
		}
	}
	a.stats.Asked += len(prompt)
	a.stats.Hit += hit
	return s, hit, nil
}

// chain names a block by its tokens and the name of what comes before.
func chain(before name, ids []int32) name {
	buf := make([]byte, 0, 32+4*len(ids))
	buf = append(buf, before[:]...)
	for _, id := range ids {
		buf = binary.LittleEndian.AppendUint32(buf, uint32(id))
	}
	return sha256.Sum256(buf)
}

// Len is the number of tokens.
func (s *Sequence) Len() int { return s.length }

// Table are the blocks, in order. Do not change them.
func (s *Sequence) Table() []Block { return s.table }

// Append adds a token at the end. If it goes into a block that others hold too, the sequence gets a block of its own, and
// the copy must be made before the token's keys and values are written. On [ErrFull] nothing changes.
func (s *Sequence) Append(id int32) (copies []Copy, err error) {
	if s.closed {
		return nil, errors.New("append to a closed sequence")
	}
	a, used := s.a, s.length%s.a.size
	if used == 0 {
		b, err := a.take()
		if err != nil {
			return nil, fmt.Errorf("append token %d: %w", s.length, err)
		}
		s.table = append(s.table, b)
	} else if last := s.table[len(s.table)-1]; a.blocks[last].users > 1 {
		b, err := a.take()
		if err != nil {
			return nil, fmt.Errorf("append token %d: a shared block must be copied: %w", s.length, err)
		}
		a.release(last)
		s.table[len(s.table)-1] = b
		copies = []Copy{{From: last, To: b, Tokens: used}}
		a.stats.Copied++
	}
	s.tail = append(s.tail, id)
	if s.length++; len(s.tail) == a.size {
		s.chain = chain(s.chain, s.tail)
		s.tail = s.tail[:0]
		a.call(s.table[len(s.table)-1], s.chain)
	}
	return copies, nil
}

// call names a full block, unless another holds the same already.
func (a *Allocator) call(b Block, n name) {
	if _, ok := a.named[n]; ok {
		return
	}
	a.named[n] = b
	a.blocks[b].name, a.blocks[b].named = n, true
}

// Fork makes a second sequence with the same tokens, which takes no block until one of them goes on.
func (s *Sequence) Fork() (*Sequence, error) {
	if s.closed {
		return nil, errors.New("fork a closed sequence")
	}
	f := &Sequence{a: s.a, length: s.length, chain: s.chain}
	f.table, f.tail = append(f.table, s.table...), append(f.tail, s.tail...)
	for _, b := range f.table {
		s.a.use(b)
	}
	s.a.open[f] = struct{}{}
	return f, nil
}

// Close gives the blocks back, the last one first, so that the beginning of a text stays findable longest. A second Close
// does nothing.
func (s *Sequence) Close() {
	if !s.closed {
		delete(s.a.open, s)
		s.drop()
	}
}

func (s *Sequence) drop() {
	for i := len(s.table) - 1; i >= 0; i-- {
		s.a.release(s.table[i])
	}
	s.table, s.length, s.closed = nil, 0, true
}

package panel

import (
	"runtime"
	"sync"
)

// Arena is memory for packed weights, taken in large pieces that the system may back by large pages: a product reads
// gigabytes in order, and with small pages the processor looks up an address every 4 KiB. Free gives it back; without,
// that happens some time after nothing refers to it or to a matrix in it any more. Safe for concurrent use.
//
// Note: with 4 KiB pages matrix-vector products ran 5 to 8 % slower on the machine of the design notes.
type Arena struct {
	mu    sync.Mutex
	free  []byte // rest of the last piece
	taken int
	drop  []func() // one per piece that is not the garbage collector's
}

const (
	piece = 64 << 20 // address space, not memory: pages come when they are written
	line  = 64       // alignment of what Take returns
)

// NewArena makes an empty arena.
func NewArena() *Arena { return &Arena{} }

// Take returns n zeroed bytes, aligned to 64.
func (a *Arena) Take(n int) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	room := (n + line - 1) / line * line
	a.taken += room
	if room > len(a.free) {
		size := max(piece, (room+1<<21-1)>>21<<21)
		memory, release := mapMemory(size)
		if release != nil {
			later := runtime.AddCleanup(a, func(m []byte) { release(m) }, memory)
			a.drop = append(a.drop, func() { later.Stop(); release(memory) })
		}
		if size-room < len(a.free) { // the old rest is larger than the new one
			return memory[:n:n]
		}
		a.free = memory
	}
	out := a.free[:n:n]
	a.free = a.free[room:]
	return out
}

// Free gives the memory back at once. What Take returned must not be used afterwards.
func (a *Arena) Free() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, drop := range a.drop {
		drop()
	}
	a.drop, a.free, a.taken = nil, nil, 0
}

// Bytes is what was taken so far.
func (a *Arena) Bytes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken
}

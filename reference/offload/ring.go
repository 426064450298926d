package offload

import (
	"sync"

	"meibench/reference/panel"
	"meibench/reference/storage"
)

// ring is the reading goroutine and the buffers that it fills, in the circle of units.
type ring struct {
	clock
	arena *panel.Arena
	free  chan []byte
	ready chan filled
	stop  chan struct{}
	once  sync.Once
	done  sync.WaitGroup
}

// filled is a unit that was read, or why it was not.
type filled struct {
	u      *unit
	slot   []byte // nil if pinned
	panels []*panel.Matrix
	err    error
}

// newRing starts to read.
func newRing(s *Stream) *ring {
	r := s.ring // made by take, which knows the arena
	r.free, r.ready, r.stop = make(chan []byte, s.plan.Slots), make(chan filled, len(s.units)+s.plan.Slots), make(chan struct{})
	for range s.plan.Slots {
		r.free <- r.arena.Take(int(s.slotBytes()))
	}
	buffer := storage.NewBuffer(stageBytes(s.units))
	r.done.Go(func() {
		for turn := 0; ; turn++ {
			if more := r.turn(s, buffer, turn == 0); !more {
				return
			}
		}
	})
	return r
}

// turn reads, in order, what is not there: all units the first time, then those that are not pinned. It reports whether
// there will be more to read.
func (r *ring) turn(s *Stream, b *storage.Buffer, first bool) (more bool) {
	for _, u := range s.units {
		f := filled{u: u}
		memory := u.slot
		switch {
		case u.pinned && !first:
			continue
		case !u.pinned:
			more = true
			select {
			case f.slot = <-r.free:
				memory = f.slot
			case <-r.stop:
				return false
			}
		}
		f.panels, f.err = r.fill(s.reader, b, u, memory)
		select {
		case r.ready <- f:
		case <-r.stop:
			return false
		}
		if f.err != nil {
			return false
		}
	}
	return more
}

func (r *ring) close() {
	r.once.Do(func() {
		if r.stop != nil {
			close(r.stop)
			r.done.Wait()
		}
		r.arena.Free()
	})
}

package world

// fifo is a ring buffer that grows by doubling and never shrinks.
type fifo[T any] struct {
	buf  []T
	head int
	n    int
}

func (f *fifo[T]) len() int { return f.n }

func (f *fifo[T]) push(x T) {
	if f.n == len(f.buf) {
		grown := make([]T, max(4, 2*len(f.buf)))
		for i := range f.n {
			grown[i] = f.buf[(f.head+i)%len(f.buf)]
		}
		f.buf, f.head = grown, 0
	}
	f.buf[(f.head+f.n)%len(f.buf)] = x
	f.n++
}

func (f *fifo[T]) pop() T {
	var zero T
	x := f.buf[f.head]
	f.buf[f.head] = zero
	f.head = (f.head + 1) % len(f.buf)
	f.n--
	return x
}

// Queue is an unbounded FIFO between processes of one world.
type Queue[T any] struct {
	items  fifo[T]
	cond   Cond
	closed bool
}

// NewQueue returns an empty queue of env.
func NewQueue[T any](env Env) *Queue[T] { return &Queue[T]{cond: env.NewCond()} }

// Put appends x and wakes one waiting Get. It never blocks. Put on a closed
// queue panics.
func (q *Queue[T]) Put(x T) {
	if q.closed {
		panic("world: put on a closed queue")
	}
	q.items.push(x)
	q.cond.Signal()
}

// Get removes the oldest item, waiting for one; ok is false once the queue is
// closed and empty.
func (q *Queue[T]) Get() (x T, ok bool) {
	for q.items.len() == 0 {
		if q.closed {
			return x, false
		}
		q.cond.Wait()
	}
	return q.items.pop(), true
}

// TryGet removes the oldest item if there is one.
func (q *Queue[T]) TryGet() (x T, ok bool) {
	if q.items.len() == 0 {
		return x, false
	}
	return q.items.pop(), true
}

// Len is the number of items waiting.
func (q *Queue[T]) Len() int { return q.items.len() }

// Close lets waiting and later Gets return false once the queue is empty.
func (q *Queue[T]) Close() {
	q.closed = true
	q.cond.Broadcast()
}

// Slots is a counting semaphore with strict first come, first served order: a
// released slot goes to the longest waiter, never to a newcomer. Devices and
// links limit what they do at once with it, so that queueing means the same
// thing measured and modelled.
type Slots struct {
	env   Env
	free  int
	queue fifo[*slotWaiter]
	spare []*slotWaiter
}

type slotWaiter struct {
	cond    Cond
	granted bool
}

// NewSlots returns n free slots; n must be positive.
func NewSlots(env Env, n int) *Slots {
	if n <= 0 {
		panic("world: slots must be positive")
	}
	return &Slots{env: env, free: n}
}

// Acquire takes a slot, waiting in line for one.
func (s *Slots) Acquire() {
	if s.TryAcquire() {
		return
	}
	w := s.waiter()
	s.queue.push(w)
	for !w.granted {
		w.cond.Wait()
	}
	w.granted = false
	s.spare = append(s.spare, w)
}

// TryAcquire takes a slot if one is free and nobody waits for it.
func (s *Slots) TryAcquire() bool {
	if s.free == 0 || s.queue.len() > 0 {
		return false
	}
	s.free--
	return true
}

func (s *Slots) waiter() *slotWaiter {
	if n := len(s.spare); n > 0 {
		w := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return w
	}
	return &slotWaiter{cond: s.env.NewCond()}
}

// Release gives a slot back, or on to the longest waiter.
func (s *Slots) Release() {
	if s.queue.len() > 0 {
		w := s.queue.pop()
		w.granted = true
		w.cond.Signal()
		return
	}
	s.free++
}

// Waiting is the length of the line.
func (s *Slots) Waiting() int { return s.queue.len() }

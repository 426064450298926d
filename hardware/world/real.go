package world

import (
	"context"
	"runtime/debug"
	"sync"
	"time"
)

// Real is the measured world: wall clock, goroutines, one turn at a time.
//
// The turn is passed on explicitly, first come, first served, instead of being
// a plain mutex: signals, started processes and Sleep(0) then run in the order
// they were made, as in Sim. Only timers that fire in the same nanosecond have
// no order.
//
// Note: sync.Mutex and sync.Cond were tried first. They are not FIFO, so two
// processes signalled in one turn could swap, and a process that was behind
// schedule could starve the ones it had started.
type Real struct {
	began  time.Time
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu   sync.Mutex // guards held and line
	held bool
	line fifo[*task]

	// Below: guarded by the turn.
	cur         *task
	idle        []*task
	first, last *task // live tasks in start order
	must        int   // live tasks started by Go
	busy        int   // live tasks that will run again by themselves
	crash       *Crash
	dead        *Deadlock
	over        bool
	finished    chan struct{}
	all         sync.WaitGroup
}

// task is a process of a Real world: a goroutine that is kept and reused.
type task struct {
	name       string
	serve      bool
	parked     bool // waits on a Cond
	fn         func()
	wake       chan struct{} // receives the turn
	timer      *time.Timer
	prev, next *task
}

// NewReal returns a world whose clock starts now. A nil context never cancels.
func NewReal(ctx context.Context) *Real {
	if ctx == nil {
		ctx = context.Background()
	}
	r := &Real{began: time.Now(), finished: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

// Context is cancelled when the run ends for whatever reason. Work done in
// Outside that can block (a socket read) must end when it is.
func (r *Real) Context() context.Context { return r.ctx }

// Now is the wall-clock time since the world was made, on the monotonic clock.
func (r *Real) Now() time.Duration { return time.Since(r.began) }

// release passes the turn to the head of the line, or lays it down.
func (r *Real) release() {
	r.mu.Lock()
	if r.line.len() == 0 {
		r.held = false
		r.mu.Unlock()
		return
	}
	t := r.line.pop()
	r.mu.Unlock()
	t.wake <- struct{}{}
}

// acquire takes the turn for t, standing in line for it.
func (r *Real) acquire(t *task) {
	r.mu.Lock()
	if r.held {
		r.line.push(t)
		r.mu.Unlock()
		<-t.wake
	} else {
		r.held = true
		r.mu.Unlock()
	}
	r.cur = t
}

// enqueue puts t in line while the caller holds the turn.
func (r *Real) enqueue(t *task) {
	r.mu.Lock()
	r.line.push(t)
	r.mu.Unlock()
}

// Outside runs fn off the turn and takes the turn again afterwards.
func (r *Real) Outside(fn func()) {
	t := r.cur
	r.check()
	r.release()
	whole := false
	defer func() {
		r.acquire(t)
		if whole { // else fn's own panic is on its way up
			r.check()
		}
	}()
	fn()
	whole = true
}

// check unwinds the current process if the run is over.
func (r *Real) check() {
	if r.ctx.Err() != nil {
		panic(halt{})
	}
}

// Sleep parks the calling process for d of wall-clock time.
func (r *Real) Sleep(d time.Duration) {
	if d < 0 {
		panic("world: negative sleep")
	}
	t := r.cur
	r.check()
	if d == 0 {
		r.enqueue(t)
		r.release()
		<-t.wake
		r.cur = t
		r.check()
		return
	}
	r.release()
	t.snooze(d, r.ctx.Done())
	r.acquire(t)
	r.check()
}

func (t *task) snooze(d time.Duration, done <-chan struct{}) {
	if t.timer == nil {
		t.timer = time.NewTimer(d)
	} else {
		t.timer.Reset(d)
	}
	select {
	case <-t.timer.C:
	case <-done:
		t.timer.Stop()
	}
}

// SleepUntil parks the calling process until the given time since the run
// began, punctually (see Pause), and returns how late it woke. It is for pacing
// arrivals. A time that has passed costs nothing and passes no turn.
func (r *Real) SleepUntil(at time.Duration) (late time.Duration) {
	t := r.cur
	r.check()
	if now := r.Now(); at <= now {
		return now - at
	}
	r.release()
	late = r.Pause(at)
	r.acquire(t)
	r.check()
	return late
}

// Pause waits until the given time since the run began, or until the run is
// over, and returns how late it is. It is for work inside Outside that must be
// punctual: a runtime timer alone is 50 µs to 1 ms late, so the last 2 ms are
// slept in the kernel and the last 100 µs are spun.
func (r *Real) Pause(at time.Duration) (late time.Duration) {
	const coarse, spin = 2 * time.Millisecond, 100 * time.Microsecond
	if d := at - r.Now() - coarse; d > 0 {
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			timer.Stop()
		}
	}
	if d := at - r.Now() - spin; d > 0 && r.ctx.Err() == nil {
		nap(d)
	}
	for r.Now() < at && r.ctx.Err() == nil {
	}
	return r.Now() - at
}

// Go starts a process that the run waits for.
func (r *Real) Go(name string, fn func()) { r.start(name, fn, false) }

// Serve starts a process that the run does not wait for.
func (r *Real) Serve(name string, fn func()) { r.start(name, fn, true) }

func (r *Real) start(name string, fn func(), serve bool) {
	if r.over {
		panic(halt{}) // a serving process that outlived the run
	}
	var t *task
	if n := len(r.idle); n > 0 {
		t, r.idle = r.idle[n-1], r.idle[:n-1]
	} else {
		t = &task{wake: make(chan struct{}, 1)}
		r.all.Add(1)
		go r.loop(t)
	}
	t.name, t.fn, t.serve, t.parked = name, fn, serve, false
	t.prev, t.next = r.last, nil
	if r.last != nil {
		r.last.next = t
	} else {
		r.first = t
	}
	r.last = t
	r.busy++
	if !serve {
		r.must++
	}
	r.enqueue(t)
}

// loop runs one process body after another until the world ends.
func (r *Real) loop(t *task) {
	defer r.all.Done()
	for range t.wake {
		r.cur = t
		if t.fn == nil { // woken only to leave
			r.release()
			return
		}
		r.runOne(t)
		r.release()
	}
}

func (r *Real) runOne(t *task) {
	defer func() {
		if v := recover(); v != nil {
			if _, ok := v.(halt); !ok && r.crash == nil {
				r.crash = &Crash{t.name, v, debug.Stack()}
				r.cancel(r.crash)
			}
		}
		r.end(t)
	}()
	if r.ctx.Err() == nil {
		t.fn()
	}
}

// end removes a finished process; the calling goroutine holds the turn.
func (r *Real) end(t *task) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		r.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		r.last = t.prev
	}
	t.fn, t.prev, t.next = nil, nil, nil
	r.idle = append(r.idle, t)
	r.busy--
	if !t.serve {
		r.must--
	}
	r.settle()
}

// settle notices the end of the run and deadlock.
func (r *Real) settle() {
	if r.over || r.must > 0 && r.busy > 0 {
		return
	}
	if r.must > 0 {
		if r.ctx.Err() == nil { // else wakeAll is about to unwind the parked
			r.dead = &Deadlock{At: r.Now()}
			for t := r.first; t != nil; t = t.next {
				if !t.serve {
					r.dead.Parked = append(r.dead.Parked, t.name)
				}
			}
			r.cancel(r.dead)
		}
		return
	}
	r.over = true
	close(r.finished)
}

// Run hands out the first turn and returns when the run is over; see Runner.
func (r *Real) Run() error {
	boss := &task{wake: make(chan struct{}, 1)}
	stop := context.AfterFunc(r.ctx, r.wakeAll)
	defer stop()
	if r.must == 0 {
		r.over = true
		close(r.finished)
	} else {
		r.mu.Lock()
		r.held = true
		r.mu.Unlock()
		r.release()
	}
	<-r.finished
	cause := context.Cause(r.ctx)
	r.cancel(ErrRunOver)
	r.acquire(boss)
	for _, t := range r.idle {
		r.enqueue(t)
	}
	r.idle = nil
	r.release()
	r.drain(boss)
	if r.crash != nil {
		panic(r.crash)
	}
	if r.dead != nil {
		return r.dead
	}
	return cause
}

// drain waits until the serving processes have unwound and every goroutine has left.
func (r *Real) drain(boss *task) {
	left := make(chan struct{})
	go func() { r.all.Wait(); close(left) }()
	for {
		select {
		case <-left:
			return
		case <-time.After(200 * time.Microsecond):
			r.acquire(boss)
			for _, t := range r.idle {
				r.enqueue(t)
			}
			r.idle = nil
			r.release()
		}
	}
}

// wakeAll gives every process that waits on a Cond a turn to unwind in.
func (r *Real) wakeAll() {
	visitor := &task{wake: make(chan struct{}, 1)}
	r.acquire(visitor)
	for t := r.first; t != nil; t = t.next {
		if t.parked {
			t.parked = false
			r.busy++
			r.enqueue(t)
		}
	}
	r.release()
}

// NewCond returns a condition of this world.
func (r *Real) NewCond() Cond { return &realCond{r: r} }

type realCond struct {
	r *Real
	q fifo[*task]
}

func (c *realCond) Wait() {
	r, t := c.r, c.r.cur
	r.check()
	c.q.push(t)
	t.parked = true
	r.busy--
	r.settle()
	r.release()
	<-t.wake
	r.cur = t
	r.check()
}

func (c *realCond) Signal() {
	for c.q.len() > 0 {
		t := c.q.pop()
		if !t.parked { // woken by cancellation meanwhile
			continue
		}
		t.parked = false
		c.r.busy++
		c.r.enqueue(t)
		return
	}
}

func (c *realCond) Broadcast() {
	for c.q.len() > 0 {
		c.Signal()
	}
}

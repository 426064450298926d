package world

import (
	"context"
	"iter"
	"runtime/debug"
	"sort"
	"time"
)

// Sim is the modelled world: virtual time, coroutines, one turn at a time.
//
// Events are ordered by (time, sequence number). The same program gives the
// same order on every machine, at every GOMAXPROCS.
//
// Note: a process is a coroutine (iter.Pull); a goroutine handed its turn over
// a channel costs 0.8 to 1.2 µs an event instead of about 0.3. Finished
// coroutines are kept and reused, which halves the cost of short processes.
type Sim struct {
	now    time.Duration
	seq    uint64
	born   uint64
	heap   []event
	cur    *proc
	idle   []*proc
	live   map[*proc]struct{}
	must   int // live processes started by Go
	events uint64
	ctx    context.Context
	crash  *Crash
	over   bool
}

type proc struct {
	name  string
	order uint64
	due   uint64 // number of its event; one of another number is stale: see Alarm
	ring  func() // of a timer: it has no coroutine
	serve bool
	fn    func()
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
}

type event struct {
	at  time.Duration
	seq uint64
	p   *proc
}

// NewSim returns an empty world at time zero. A nil context never cancels.
func NewSim(ctx context.Context) *Sim {
	if ctx == nil {
		ctx = context.Background()
	}
	return &Sim{ctx: ctx, live: map[*proc]struct{}{}}
}

// Now is the virtual time.
func (s *Sim) Now() time.Duration { return s.now }

// Events counts the events run so far.
func (s *Sim) Events() uint64 { return s.events }

// Outside panics: there is no real work in a modelled world.
func (s *Sim) Outside(func()) { panic("world: real work in the modelled world") }

// Sleep parks the current process for d of virtual time.
func (s *Sim) Sleep(d time.Duration) {
	if d < 0 {
		panic("world: negative sleep")
	}
	s.push(s.now+d, s.cur)
	s.park()
}

func (s *Sim) park() {
	if p := s.cur; !p.yield(struct{}{}) {
		panic(halt{})
	}
}

// Go starts a process that the run waits for.
func (s *Sim) Go(name string, fn func()) { s.start(name, fn, false) }

// Serve starts a process that the run does not wait for.
func (s *Sim) Serve(name string, fn func()) { s.start(name, fn, true) }

func (s *Sim) start(name string, fn func(), serve bool) {
	if s.over {
		panic(halt{}) // a deferred call of a process that is being unwound
	}
	var p *proc
	if n := len(s.idle); n > 0 {
		p, s.idle = s.idle[n-1], s.idle[:n-1]
	} else {
		p = &proc{}
		p.next, p.stop = iter.Pull(func(yield func(struct{}) bool) {
			p.yield = yield
			for s.runOne(p) && p.yield(struct{}{}) {
			}
		})
	}
	s.born++
	p.name, p.fn, p.serve, p.order = name, fn, serve, s.born
	s.live[p] = struct{}{}
	if !serve {
		s.must++
	}
	s.push(s.now, p)
}

// runOne runs one process body and reports whether the coroutine can be reused.
func (s *Sim) runOne(p *proc) (reuse bool) {
	defer func() {
		delete(s.live, p)
		if !p.serve {
			s.must--
		}
		p.fn = nil
		r := recover()
		if r == nil {
			s.idle = append(s.idle, p)
			return
		}
		if _, ok := r.(halt); !ok && s.crash == nil {
			s.crash = &Crash{p.name, r, debug.Stack()}
		}
	}()
	p.fn()
	return true
}

// Run advances the clock from event to event until every Go process has ended.
func (s *Sim) Run() error {
	defer s.unwind()
	done := s.ctx.Done()
	for s.must > 0 {
		if len(s.heap) == 0 {
			return &Deadlock{s.now, s.parked()}
		}
		e := s.pop()
		if e.seq != e.p.due {
			continue // an alarm that went off before, a timer that was set again
		}
		s.now, s.cur = e.at, e.p
		s.events++
		if e.p.ring != nil {
			e.p.ring()
			continue
		}
		e.p.next()
		if s.crash != nil {
			panic(s.crash)
		}
		if done != nil && s.events&1023 == 0 && s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
	}
	return nil
}

// unwind stops every coroutine, in start order, so that deferred calls of
// parked processes run in a defined order.
func (s *Sim) unwind() {
	s.over = true
	for _, p := range s.inOrder() {
		s.cur = p
		p.stop()
	}
	for _, p := range s.idle {
		p.stop()
	}
	s.idle, s.heap = nil, nil
}

func (s *Sim) inOrder() []*proc {
	ps := make([]*proc, 0, len(s.live))
	for p := range s.live {
		ps = append(ps, p)
	}
	sort.Slice(ps, func(i, j int) bool { return ps[i].order < ps[j].order })
	return ps
}

func (s *Sim) parked() (names []string) {
	for _, p := range s.inOrder() {
		if !p.serve {
			names = append(names, p.name)
		}
	}
	return names
}

// NewCond returns a condition of this world.
func (s *Sim) NewCond() Cond { return &simCond{s: s} }

type simCond struct {
	s *Sim
	q fifo[*proc]
}

func (c *simCond) Wait() {
	c.q.push(c.s.cur)
	c.s.park()
}

func (c *simCond) Signal() {
	if c.q.len() > 0 {
		c.s.push(c.s.now, c.q.pop())
	}
}

func (c *simCond) Broadcast() {
	for c.q.len() > 0 {
		c.Signal()
	}
}

// Timer calls a function at a time, without a process: a third of the cost of
// waking one, and far less where very many wait. The function must not block, and
// a run does not wait for it.
type Timer struct {
	s *Sim
	p proc
}

// NewTimer returns a timer that is not set.
func (s *Sim) NewTimer(ring func()) *Timer { return &Timer{s: s, p: proc{name: "timer", ring: ring}} }

// Set has the function called at a time, and not at the one set before. The
// function may set its timer again.
func (t *Timer) Set(at time.Duration) {
	t.s.push(max(at, t.s.now), &t.p)
}

// Stop has the function not called.
func (t *Timer) Stop() { t.p.due = 0 }

// Alarm wakes a process at a time that others may bring forward. Only a world
// that need not wait for time to pass has one: what will happen is worked out
// in advance, and worked out again when something comes between.
type Alarm struct {
	s  *Sim
	p  *proc
	at time.Duration
}

// NewAlarm returns an alarm that nobody sleeps by.
func (s *Sim) NewAlarm() *Alarm { return &Alarm{s: s} }

// Sleep parks the calling process until at, or the time that Forward says, and
// returns it. One process at a time.
func (a *Alarm) Sleep(at time.Duration) time.Duration {
	s := a.s
	a.p, a.at = s.cur, at
	s.push(max(at, s.now), s.cur)
	s.park()
	a.p = nil
	return a.at
}

// Forward brings the wake-up forward; a later time than the one set, or an alarm
// that nobody sleeps by, changes nothing.
func (a *Alarm) Forward(at time.Duration) {
	if a.p == nil || at >= a.at {
		return
	}
	a.at = at
	a.s.push(max(at, a.s.now), a.p)
}

func (a event) before(b event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

// push and pop keep a typed 4-ary heap: half the depth of a binary one, and its
// four children share a cache line or two.
func (s *Sim) push(at time.Duration, p *proc) {
	s.seq++
	p.due = s.seq
	e := event{at, s.seq, p}
	s.heap = append(s.heap, e)
	h, i := s.heap, len(s.heap)-1
	for i > 0 {
		up := (i - 1) / 4
		if !e.before(h[up]) {
			break
		}
		h[i], i = h[up], up
	}
	h[i] = e
}

func (s *Sim) pop() event {
	h := s.heap
	top, n := h[0], len(h)-1
	e := h[n]
	h[n] = event{}
	h = h[:n]
	s.heap = h
	if n == 0 {
		return top
	}
	i := 0
	for {
		first := 4*i + 1
		if first >= n {
			break
		}
		m := first
		for j := first + 1; j < min(first+4, n); j++ {
			if h[j].before(h[m]) {
				m = j
			}
		}
		if !h[m].before(e) {
			break
		}
		h[i], i = h[m], m
	}
	h[i] = e
	return top
}

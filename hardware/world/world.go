// Package world is the time that devices, links and pipelines live in.
//
// A pipeline is blocking code, read top to bottom, over a tiny Env. The same
// code runs in two worlds: Real, on the wall clock, and Sim, on a virtual clock
// that jumps from event to event. It cannot tell which.
//
//	env.Go("user", func() {
//		env.Sleep(20 * time.Millisecond) // think
//		queue.Put(request)
//		for !done {
//			finished.Wait()
//		}
//	})
//
// Three rules make the two worlds equal:
//
//   - One turn at a time. In Sim exactly one process runs; in Real one mutex,
//     the turn, is held by process code and released only inside Sleep, Wait and
//     Outside. Queues, batchers, caches and schedulers built on an Env need no
//     locks in either world.
//   - Real work (kernels, sockets) happens inside Outside, off the turn, and
//     stamps its own time: waiting for the turn is never counted as compute.
//   - Order is chosen. Events at one instant run in the order they were made;
//     a Cond wakes its waiters first come, first served.
//
// Serve starts a process that may still be parked when the run ends (a batching
// server, a link's receiver); Go starts one that must finish. When nothing is
// left to run but a Go process is parked, Run returns a *Deadlock that names
// the parked processes in the order they started. Cancelling the context
// unwinds every process from its next Sleep, Wait or Outside.
//
// What the package does not do: it does not preempt a process that never
// blocks, and it does not promise equal order in the two worlds when two Real
// processes wake in the same nanosecond.
package world

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Env is a world as its processes see it. All methods but Now must be called
// from a process of that world (or, for Go, Serve and NewCond, before Run).
type Env interface {
	// Now is the time since the run began, in integer nanoseconds.
	Now() time.Duration
	// Sleep parks the calling process for d. A negative d panics; zero yields
	// to processes already due at this instant.
	Sleep(d time.Duration)
	// Go starts a process that the run waits for.
	Go(name string, fn func())
	// Serve starts a process that the run does not wait for.
	Serve(name string, fn func())
	// NewCond returns a condition for processes of this world.
	NewCond() Cond
	// Outside runs fn off the turn: real work. It panics in Sim.
	Outside(fn func())
}

// Cond is a place where processes wait for a change made by another. Waiters
// wake in the order they came. As with sync.Cond, a waiter re-checks its
// condition in a loop: another process may run between the signal and the wake.
type Cond interface {
	Wait()
	Signal()
	Broadcast()
}

// Runner is a world as its owner sees it: start processes, then Run once.
type Runner interface {
	Env
	// Run returns when every Go process has ended (nil), when the context was
	// cancelled (its cause), or when nothing can ever run again (*Deadlock). A
	// panic in a process surfaces here as a panic with a *Crash.
	Run() error
}

// ErrRunOver is what a Real world's helpers see when they call in after Run.
var ErrRunOver = errors.New("world: the run is over")

// Deadlock reports processes that wait for something nobody will ever do.
type Deadlock struct {
	At     time.Duration
	Parked []string // names of the parked Go processes, in start order
}

// Error names up to eight of the parked processes.
func (d *Deadlock) Error() string {
	names := d.Parked
	more := ""
	if len(names) > 8 {
		more = fmt.Sprintf(" and %d more", len(names)-8)
		names = names[:8]
	}
	return fmt.Sprintf("world: deadlock at %v: %d process(es) wait forever: %s%s",
		d.At, len(d.Parked), strings.Join(names, ", "), more)
}

// Crash carries a panic out of a process.
type Crash struct {
	Process string
	Value   any
	Stack   []byte
}

// Error shows the process, the value and the stack of the process.
func (c *Crash) Error() string {
	return fmt.Sprintf("world: process %q panicked: %v\n%s", c.Process, c.Value, c.Stack)
}

// Unwrap returns the panic value where it was an error.
func (c *Crash) Unwrap() error {
	err, _ := c.Value.(error)
	return err
}

// halt unwinds a process whose world is over. It never leaves this package.
type halt struct{}

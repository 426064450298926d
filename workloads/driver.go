package workloads

import (
	"time"

	"meibench/internal/units"
)

// Driver says which requests follow from completions, in scenarios where
// requests wait for others. Start with those of Requests; tell the Driver of
// each completion and issue what it returns at the times it says:
//
//	d := w.Drive(seed)
//	for _, next := range d.Completed(req, now) { issue(next) }
//
// What a user asks and how long they think is keyed by their own count, so a
// faster system meets the same requests, sooner. A request that failed counts
// as completed.
type Driver struct {
	m    *maker
	left int // multi-stream: requests of the current query still out
	next []Request
}

// Drive returns a driver for the requests of a seed. In open scenarios nothing
// ever follows.
func (w *Workload) Drive(seed uint64) *Driver {
	return &Driver{m: w.maker(seed), left: min(QuerySize, w.limit())}
}

// Completed returns the requests that follow from the completion of r at a
// time. The slice is valid until the next call.
func (d *Driver) Completed(r Request, at time.Duration) []Request {
	d.next = d.next[:0]
	switch d.m.w.spec.Scenario {
	case SingleStream:
		d.issue(at, d.m.alone(r.ID+1, r.ID+1))
	case MultiStream:
		d.query(r, at)
	case ClosedLoop:
		id := r.ID + d.m.w.spec.Users
		d.issue(d.pause(r, at, id), place{id: id, user: r.User, session: id, query: id})
	case MultiTurn:
		d.turn(r, at)
	}
	return d.next
}

// issue adds a request unless the workload is over.
func (d *Driver) issue(at time.Duration, p place) bool {
	if p.id >= d.m.w.limit() || !d.m.w.within(at) {
		return false
	}
	var next Request
	d.m.request(&next, at, p)
	d.next = append(d.next, next)
	return true
}

// query issues the next query when the last request of the one before is
// complete.
func (d *Driver) query(r Request, at time.Duration) {
	if d.left--; d.left > 0 {
		return
	}
	for id := (r.Query + 1) * QuerySize; id < (r.Query+2)*QuerySize; id++ {
		if d.issue(at, d.m.alone(id, r.Query+1)) {
			d.left++
		}
	}
}

// pause is when request id is asked: the answer to r is read, then thought
// about.
func (d *Driver) pause(r Request, at time.Duration, id int) time.Duration {
	if speed := d.m.w.app.Read; speed.Given() {
		at += duration(float64(r.OutputTokens) / speed.Value)
	}
	return at + d.m.think(id)
}

// turn issues the session's next turn. Its prompt repeats the conversation so
// far (see converse for text); once that no longer fits the context, the window
// slides, and a prefix that moved can no longer be reused.
func (d *Driver) turn(r Request, at time.Duration) {
	if r.Turn+1 >= d.m.turns(r.Session) {
		return
	}
	id := r.ID + 1
	if !d.issue(d.pause(r, at, id), place{id: id, user: r.User, session: r.Session, turn: r.Turn + 1, query: id}) {
		return
	}
	next := &d.next[len(d.next)-1]
	if d.m.w.spec.Scale == Task {
		d.m.w.converse(next, &r, d.m.seed)
		return
	}
	next.PrefixTokens, next.CommonTokens = r.PromptTokens+r.OutputTokens, r.CommonTokens
	next.PromptTokens += next.PrefixTokens
	next.TextBytes += r.TextBytes + units.Bytes(float64(float64(r.OutputTokens)*d.m.w.app.BytesPerToken.Value)+0.5)
	if c := d.m.w.spec.Context; c > 0 && next.PromptTokens+next.OutputTokens > c {
		next.PromptTokens, next.PrefixTokens, next.CommonTokens = c-next.OutputTokens, 0, 0
	}
}

package harness

import (
	"fmt"
	"iter"
	"time"

	"meibench/hardware/world"
	"meibench/harness/pipeline"
	"meibench/harness/record"
	"meibench/workloads"
)

// driver offers a stream of requests to a pipeline and hands on what happened.
// It is the same in both worlds. In steady state it allocates nothing: a
// request lives in a flight, and flights are used again.
type driver struct {
	env  world.Env
	pace func(at time.Duration) // parks the arrivals until a time
	pipe pipeline.Pipeline
	sink func(*workloads.Request, *record.Request)
	// follow says what is asked because a request is over, and when; nil in
	// open loops. The slice is valid until the next call.
	follow func(r workloads.Request, at time.Duration) []workloads.Request
	lag    time.Duration // from a request's release to its first step, in modelled worlds of this machine
	writes bool          // making a request up is real work, to be done off the turn
	free   []*flight

	census            census
	offered, finished int
	backlog           int // requests unfinished when the latest one arrived
}

// flight is one request on its way.
type flight struct {
	d   *driver
	req workloads.Request
	log record.Request
	run func() // serve, bound once
}

// newDriver picks the punctual sleep where the world has one.
func newDriver(env world.Env, pipe pipeline.Pipeline, sink func(*workloads.Request, *record.Request)) *driver {
	d := &driver{env: env, pipe: pipe, sink: sink}
	d.pace = func(at time.Duration) { pause(env, at) }
	if p, ok := env.(interface {
		SleepUntil(at time.Duration) time.Duration
	}); ok {
		d.pace = func(at time.Duration) { p.SleepUntil(at) }
	}
	return d
}

// pause parks the calling process until a time, if it is still to come.
func pause(env world.Env, at time.Duration) {
	if d := at - env.Now(); d > 0 {
		env.Sleep(d)
	}
}

// offer starts the arrivals: each request starts when the schedule says,
// whatever became of the ones before it.
func (d *driver) offer(requests iter.Seq[workloads.Request]) {
	if d.writes {
		d.env.Go("arrivals", func() { d.offerWritten(requests) })
		return
	}
	d.env.Go("arrivals", func() {
		for req := range requests {
			d.start(&req)
		}
	})
}

// start waits for a request's time, starts it, and gives it the turn.
func (d *driver) start(req *workloads.Request) {
	d.pace(req.ArriveAt)
	f := d.flight(req)
	d.env.Go("request", f.run)
	d.env.Sleep(0)
}

// offerWritten is for requests that take work to make up: writing and tokenizing
// a prompt takes 0.2 ms, which would be the latency of the request before it. It
// happens off the turn, one request ahead, and in the middle of the gap between
// two arrivals, when most requests are over.
func (d *driver) offerWritten(requests iter.Seq[workloads.Request]) {
	next, stop := iter.Pull(requests)
	defer stop()
	write := func() (req workloads.Request, ok bool) {
		d.env.Outside(func() { req, ok = next() })
		return req, ok
	}
	now, ok := write()
	later, more := write()
	for ok {
		d.start(&now)
		now, ok = later, more
		if ok {
			pause(d.env, d.env.Now()+(now.ArriveAt-d.env.Now())/2)
			later, more = write()
		}
	}
}

func (d *driver) flight(req *workloads.Request) *flight {
	var f *flight
	if n := len(d.free); n > 0 {
		f, d.free = d.free[n-1], d.free[:n-1]
	} else {
		f = &flight{d: d}
		f.run = f.serve
	}
	f.req = *req
	d.offered++
	return f
}

// begin opens the request's record.
func (f *flight) begin() {
	req, log := &f.req, &f.log
	log.Reset(req.ID, req.ArriveAt)
	log.User, log.Session, log.Turn, log.Deadline = req.User, req.Session, req.Turn, req.Deadline
	log.PromptTokens, log.AskedTokens, log.SensorBytes = req.PromptTokens, req.OutputTokens, req.SensorBytes
	log.Released = max(f.d.env.Now(), req.ArriveAt)
	f.d.backlog = f.d.offered - f.d.finished
	f.d.census.step(f.d.env.Now(), 1)
}

// census checks Little's law in every modelled run: the time that requests spent in
// the system, summed over their records, is the integral of how many there were. Both are
// whole nanoseconds, modulo 2^64, so that equal means equal.
type census struct {
	here  int
	since time.Duration
	area  uint64 // of the number in the system over time
	stays uint64 // summed over requests that left
}

// step says that so many more are here from now on.
func (c *census) step(now time.Duration, more int) {
	c.area += uint64(now-c.since) * uint64(c.here)
	c.since, c.here = now, c.here+more
}

// check is nil if L = lambda W, both sides times the length of the run.
func (c *census) check() error {
	if c.here != 0 || c.area != c.stays {
		return fmt.Errorf("harness: Little's law is broken: requests stayed %v by their records and %v by the clock, %d are still here: a pipeline ended a request at another time than it recorded",
			time.Duration(c.stays), time.Duration(c.area), c.here)
	}
	return nil
}

// serve runs the request in a process of its own.
func (f *flight) serve() {
	d := f.d
	f.begin()
	if d.lag > 0 {
		d.env.Sleep(d.lag)
	}
	err := d.pipe.Handle(&f.req, &f.log)
	f.log.Finish(d.env.Now(), err)
	d.finished++
	d.census.step(d.env.Now(), -1)
	d.census.stays += uint64(f.log.Done - f.log.Released)
	d.sink(&f.req, &f.log)
	if d.follow != nil {
		d.next(f)
	}
	d.free = append(d.free, f)
}

// next starts what follows from the end of a request.
func (d *driver) next(f *flight) {
	for _, req := range d.follow(f.req, d.env.Now()) {
		g := d.flight(&req)
		d.env.Go("request", func() {
			d.pace(g.req.ArriveAt)
			g.serve()
		})
	}
}

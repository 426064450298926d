package harness

import (
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
	free []*flight

	offered, finished int
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
	d.pace = func(at time.Duration) { env.Sleep(max(0, at-env.Now())) }
	if p, ok := env.(interface {
		SleepUntil(at time.Duration) time.Duration
	}); ok {
		d.pace = func(at time.Duration) { p.SleepUntil(at) }
	}
	return d
}

// open starts the arrivals of an open loop: a request starts when the schedule
// says, whatever became of the ones before it.
func (d *driver) open(requests iter.Seq[workloads.Request]) {
	d.env.Go("arrivals", func() {
		for req := range requests {
			d.pace(req.ArriveAt)
			f := d.flight(&req)
			d.env.Go("request", f.run)
		}
	})
}

// closed starts n clients that each ask again when they have their answer and
// thought about it; a request's intended time is when its client was ready.
func (d *driver) closed(n int, requests iter.Seq[workloads.Request], think func(id int) time.Duration) {
	next, stop := iter.Pull(requests)
	clients := n
	for range n {
		d.env.Go("client", func() {
			defer func() {
				if clients--; clients == 0 {
					stop()
				}
			}()
			for {
				req, ok := next()
				if !ok {
					return
				}
				d.env.Sleep(think(req.ID))
				req.ArriveAt = d.env.Now()
				d.flight(&req).serve()
			}
		})
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
	f.log.Reset(req.ID, req.ArriveAt)
	f.log.User, f.log.Session, f.log.Turn = req.User, req.Session, req.Turn
	f.log.PromptTokens, f.log.AskedTokens, f.log.SensorBytes = req.PromptTokens, req.OutputTokens, req.SensorBytes
	f.log.Released = max(d.env.Now(), req.ArriveAt)
	d.offered++
	return f
}

// serve runs the request in a process of its own.
func (f *flight) serve() {
	d := f.d
	err := d.pipe.Handle(&f.req, &f.log)
	f.log.Finish(d.env.Now(), err)
	d.finished++
	d.sink(&f.req, &f.log)
	d.free = append(d.free, f)
}

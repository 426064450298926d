package agent

import (
	"cmp"
	"fmt"
	"math"

	"meibench/hardware"
	"meibench/hardware/world"
)

// Link stands where the network between client and agent is the link itself:
// what is sent is there at once and unchanged, and the time that the real network
// takes shows in the operation's Usage.Arrived and End. Bytes are those of the
// payload; Traffic has those of the wire.
type Link struct {
	env  world.Env
	name string
}

// NewLink makes one direction of a real link in a measured world.
func NewLink(env *world.Real, name string) *Link { return &Link{env, name} }

// Spec describes the link: neither rate nor delay of its own.
func (l *Link) Spec() hardware.LinkSpec {
	return hardware.LinkSpec{Name: l.name, BytesPerSec: math.Inf(1), Time: hardware.Measured}
}

// Send returns what it was given.
func (l *Link) Send(p hardware.Payload) (hardware.Delivery, error) {
	if int64(p.Bytes) < int64(len(p.Data)) {
		return hardware.Delivery{}, fmt.Errorf("link %q: a message of %d bytes cannot carry %d bytes of data", l.name, p.Bytes, len(p.Data))
	}
	now := l.env.Now()
	return hardware.Delivery{Payload: p, Usage: hardware.Usage{Start: now, End: now, Moved: p.Bytes, Time: hardware.Measured}}, nil
}

// Open starts a stream whose messages arrive when they are written.
func (l *Link) Open() hardware.Stream { return &flow{l: l, cond: l.env.NewCond()} }

// flow is a stream of messages that have all arrived.
type flow struct {
	l      *Link
	cond   world.Cond
	queue  []hardware.Delivery
	closed bool
	err    error
	failed error // a message could not be sent; nothing after it is
}

// Write hands a message on; one that cannot be sent ends the stream.
func (s *flow) Write(p hardware.Payload) {
	if s.closed {
		panic("agent: write on a closed stream")
	}
	d, err := s.l.Send(p)
	if err != nil {
		s.failed = cmp.Or(s.failed, err)
	}
	if s.failed != nil {
		return // Close tells the reader
	}
	s.queue = append(s.queue, d)
	s.cond.Broadcast()
}

// Close ends the stream.
func (s *flow) Close(err error) {
	if s.closed {
		return
	}
	s.closed, s.err = true, cmp.Or(s.failed, err)
	s.cond.Broadcast()
}

// Read blocks until a message is there.
func (s *flow) Read() (hardware.Delivery, bool, error) {
	for len(s.queue) == 0 {
		if s.closed {
			return hardware.Delivery{}, false, s.err
		}
		s.cond.Wait()
	}
	d := s.queue[0]
	s.queue = s.queue[1:]
	return d, true, nil
}

// Drain blocks until the stream has ended and returns what was not read yet.
func (s *flow) Drain() ([]hardware.Delivery, error) {
	for !s.closed {
		s.cond.Wait()
	}
	got := s.queue
	s.queue = nil
	return got, s.err
}

package costmodel

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// FrameBytes is the header before each message, as the measured link sends it:
// length and number.
const FrameBytes = 16

// Link is a modelled link: LinkState in a world. A send costs one event, a
// message in a stream none; the reader sleeps until it has arrived.
type Link struct {
	env   world.Env
	state *LinkState
	spec  hardware.LinkSpec
	late  Late
	came  time.Duration // the latest message
}

// Late is what the machines at the ends of a link take beyond its model: a message is
// late by Idle if none came for After, else by Busy, and who sent it goes on Resume
// after it has arrived. Trains of messages know nothing of it.
type Late struct{ After, Idle, Busy, Resume time.Duration }

// SetLate makes a link unpunctual; call it before the first message.
func (l *Link) SetLate(late Late) { l.late = late }

// arrival is when a message is there that the link delivers at a time.
func (l *Link) arrival(at time.Duration) time.Duration {
	if l.late == (Late{}) {
		return at
	}
	wait := l.late.Busy
	if at-l.came >= l.late.After {
		wait = l.late.Idle
	}
	l.came = max(at+wait, l.came+1)
	return l.came
}

// NewLink returns one direction of a link profile as a link of its own, with a
// radio of its own. For both directions of one user see NewPair.
func NewLink(env world.Env, p *profiles.LinkSheet, d Direction, o LinkOptions) *Link {
	if o.Radio == nil {
		o.Radio = NewRadio(p.Radio)
	}
	return Wrap(env, NewLinkState(NewChannel(p, d, 0), o))
}

// NewPair returns both directions of a link profile, sharing one radio.
func NewPair(env world.Env, p *profiles.LinkSheet, o LinkOptions) (up, down *Link) {
	o.Radio = NewRadio(p.Radio)
	return NewLink(env, p, Up, o), NewLink(env, p, Down, o)
}

// Wrap puts a link state into a world.
func Wrap(env world.Env, s *LinkState) *Link { return &Link{env: env, state: s, spec: s.Spec()} }

// Spec describes the link by its medians.
func (l *Link) Spec() hardware.LinkSpec { return l.spec }

// pass hands a message over now.
func (l *Link) pass(p hardware.Payload) (hardware.Delivery, error) {
	now := l.env.Now()
	if p.Bytes < units.Bytes(len(p.Data)) {
		return hardware.Delivery{Usage: hardware.Usage{Start: now, End: now}},
			fmt.Errorf("link %q: a message of %d bytes cannot carry %d bytes of data", l.spec.Name, p.Bytes, len(p.Data))
	}
	l.state.debts.Settle(now)
	t, err := l.state.Next(now, p.Bytes+FrameBytes)
	if err == nil {
		t.Arrive = l.arrival(t.Arrive)
	}
	return hardware.Delivery{Payload: p, Usage: hardware.Usage{
		Start: now, End: t.Arrive, Moved: p.Bytes + FrameBytes, Energy: t.Energy,
		Time: hardware.Modelled, Joules: t.Joules,
	}}, err
}

// Send blocks until the message has arrived, or the link has given up.
func (l *Link) Send(p hardware.Payload) (hardware.Delivery, error) {
	d, err := l.pass(p)
	l.sleepUntil(d.Usage.End + l.late.Resume)
	return d, err
}

func (l *Link) sleepUntil(at time.Duration) {
	if d := at - l.env.Now(); d > 0 {
		l.env.Sleep(d)
	}
}

// Open starts a stream of messages that share the link.
func (l *Link) Open() hardware.Stream { return &stream{link: l} }

// stream holds messages that are on their way or not read yet, oldest first.
type stream struct {
	link   *Link
	cond   world.Cond // made when the reader first has to wait
	awaits awaited
	queue  []hardware.Delivery
	head   int
	closed bool
	down   bool          // closed by the link, not the writer
	err    error         // of the end
	end    time.Duration // not seen before: the last arrival, or when the link gave up

	late  hardware.Late   // who owes messages
	times []time.Duration // when messages of trains arrived
	cost  cost            // of these together
}

// awaited is what the reader sleeps for.
type awaited uint8

const (
	nothing awaited = iota
	message         // or the end
	theEnd
)

// Write hands a message to the link. Once the link is down, messages are lost.
func (s *stream) Write(p hardware.Payload) {
	if s.down {
		return
	}
	if s.closed {
		panic("costmodel: write on a closed stream")
	}
	d, err := s.link.pass(p)
	s.end = d.Usage.End
	if err != nil {
		s.closed, s.down, s.err = true, true, err
	} else {
		s.queue = append(s.queue, d)
	}
	s.wake()
}

// Close ends the stream. A link that went down earlier keeps its error.
func (s *stream) Close(err error) {
	if !s.closed {
		s.closed, s.err = true, err
		s.wake()
	}
	s.link.state.debts.Forget(s.late)
	s.late = nil
}

// wake signals the reader if what it waits for has come. Writing to a stream
// that is drained costs no event.
func (s *stream) wake() {
	if s.awaits == message || s.awaits == theEnd && s.closed {
		s.awaits = nothing
		s.cond.Signal()
	}
}

func (s *stream) await(what awaited) {
	if s.cond == nil {
		s.cond = s.link.env.NewCond()
	}
	s.awaits = what
	s.cond.Wait()
	s.awaits = nothing
}

// Read blocks until the next message has arrived; ok is false at the end.
func (s *stream) Read() (hardware.Delivery, bool, error) {
	for s.head == len(s.queue) && !s.closed {
		s.await(message)
	}
	if s.head == len(s.queue) {
		s.link.sleepUntil(s.end)
		return hardware.Delivery{}, false, s.err
	}
	d := s.queue[s.head]
	s.queue[s.head] = hardware.Delivery{}
	if s.head++; s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	}
	s.link.sleepUntil(d.Usage.End)
	return d, true, nil
}

// Drain blocks until the stream has ended and its last message arrived, and
// returns what was not read yet. It costs two events: the end of the writing and
// the last arrival.
func (s *stream) Drain() ([]hardware.Delivery, error) {
	for !s.closed {
		s.await(theEnd)
	}
	s.link.sleepUntil(s.end)
	got := s.queue[s.head:]
	s.queue, s.head = nil, 0
	return got, s.err
}

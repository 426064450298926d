package city

import (
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
)

// stream is an ordered flow of messages over a link. Small ones pass at once; a
// large one, and what follows until it has passed, is moved by a process.
type stream struct {
	l       *link
	cond    world.Cond // made when the reader first has to wait
	asleep  bool
	all     bool // the reader waits for the end
	queue   []hardware.Delivery
	pending []hardware.Payload
	working bool
	shut    bool // the writer has closed
	closed  bool // and everything has passed, or the link is down
	down    bool
	err     error
	end     time.Duration

	late  hardware.Late   // who owes messages
	times []time.Duration // when messages of trains arrived
	took  hardware.Usage  // by trains
	fresh time.Duration   // of the radio, for messages whose energy is not in took
	tail  time.Duration
}

// Open starts a stream of messages that share the link.
func (l *link) Open() hardware.Stream { return &stream{l: l} }

// Write hands a message to the link. Once the link is down, messages are lost.
func (s *stream) Write(p hardware.Payload) {
	if s.down {
		return
	}
	if s.shut {
		panic("city: write on a closed stream")
	}
	if !s.working && p.Bytes <= small {
		s.got(s.l.pass(p))
		return
	}
	s.pending = append(s.pending, p)
	if !s.working {
		s.working = true
		s.l.a.net.env.Serve("stream", s.work)
	}
}

// work moves what is pending.
func (s *stream) work() {
	for len(s.pending) > 0 && !s.down {
		p := s.pending[0]
		s.pending = s.pending[1:]
		s.got(s.l.transfer(p))
	}
	s.pending, s.working = nil, false
	s.finish()
}

func (s *stream) got(d hardware.Delivery, err error) {
	s.end = max(s.end, d.Usage.End)
	if err != nil {
		s.down, s.closed, s.err = true, true, err
	} else {
		s.queue = append(s.queue, d)
	}
	s.wake()
}

// Close ends the stream. A link that went down earlier keeps its error.
func (s *stream) Close(err error) {
	s.l.a.debts.Forget(s.late)
	s.late = nil
	if s.shut || s.down {
		return
	}
	s.shut, s.err = true, err
	s.finish()
}

func (s *stream) finish() {
	if s.shut && !s.working {
		s.closed = true
		s.wake()
	}
}

func (s *stream) wake() {
	if s.asleep && (!s.all || s.closed) {
		s.asleep = false
		s.cond.Signal()
	}
}

func (s *stream) await(all bool) {
	if s.cond == nil {
		s.cond = s.l.a.net.env.NewCond()
	}
	s.asleep, s.all = true, all
	s.cond.Wait()
	s.asleep = false
}

func (s *stream) sleepUntil(at time.Duration) {
	env := s.l.a.net.env
	if d := at - env.Now(); d > 0 {
		env.Sleep(d)
	}
}

// Read blocks until the next message has arrived; ok is false at the end.
func (s *stream) Read() (hardware.Delivery, bool, error) {
	for len(s.queue) == 0 && !s.closed {
		s.await(false)
	}
	if len(s.queue) == 0 {
		s.sleepUntil(s.end)
		return hardware.Delivery{}, false, s.err
	}
	d := s.queue[0]
	s.queue = s.queue[1:]
	s.sleepUntil(d.Usage.End)
	return d, true, nil
}

// Drain blocks until the stream has ended and its last message arrived, and
// returns what was not read yet.
func (s *stream) Drain() ([]hardware.Delivery, error) {
	for !s.closed {
		s.await(true)
	}
	s.sleepUntil(s.end)
	got := s.queue
	s.queue = nil
	return got, s.err
}

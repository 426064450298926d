// Package netem is the measured link: real bytes over a real loopback socket,
// held back so that they arrive when the link's model says.
//
// The model is the one the modelled link uses (a Shaper: rate, delay, jitter,
// loss, promotion). Here it only decides when bytes are let go; they are then
// written to a TCP connection, read on its other side, and stamped on arrival.
// Kernel buffers, wake-ups and a busy machine therefore show in the figures,
// as they would on a test bed, and the data a pipeline receives has crossed a
// socket.
//
// Large messages are let go in pieces at the link's rate (a token bucket of one
// piece), so that a receiver sees them trickle in.
//
// What it does not do: it does not shape other programs' traffic, and it adds
// no delay of its own beyond what the machine takes (tens of microseconds,
// reported by `meibench profile`).
package netem

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// Shaper decides the transit of each message, in the order they are sent.
type Shaper interface {
	Next(now time.Duration, n units.Bytes) (hardware.Transit, error)
}

const (
	headerBytes = 16 // length and message number
	piece       = 16 << 10
	maxMessage  = 1 << 30
)

// Link is one direction of a shaped loopback connection.
type Link struct {
	env     *world.Real
	spec    hardware.LinkSpec
	shape   Shaper
	out, in net.Conn
	queue   *world.Queue[*message]
	flying  map[uint64]*message
	number  uint64
	filler  []byte
	broken  error
	observe func(what Moment, due, at time.Duration)
}

// Moment is what an observer of a link is told of.
type Moment int

// Moments: a message arrived, after the time when the model wanted it to; and its
// sender went on, after it had arrived.
const (
	Arrived Moment = iota
	Resumed
)

// Observe tells fn of every message how late it was, and how late its sender went
// on. Call it before the first message.
func (l *Link) Observe(fn func(what Moment, due, at time.Duration)) { l.observe = fn }

// message is one payload between Send or Write and its arrival.
type message struct {
	number  uint64
	payload hardware.Payload
	transit hardware.Transit
	got     hardware.Delivery
	err     error
	arrived bool
	cond    world.Cond // of a Send, or of the stream
	stream  *stream
}

// New opens a loopback connection in a measured world. It closes when the run ends.
func New(env *world.Real, spec hardware.LinkSpec, shape Shaper) (*Link, error) {
	out, in, err := connect()
	if err != nil {
		return nil, fmt.Errorf("open loopback link %q: %w", spec.Name, err)
	}
	spec.Time = hardware.Measured
	l := &Link{env: env, spec: spec, shape: shape, out: out, in: in, queue: world.NewQueue[*message](env),
		flying: map[uint64]*message{}, filler: make([]byte, piece)}
	context.AfterFunc(env.Context(), func() { _ = out.Close(); _ = in.Close() })
	env.Serve("link "+spec.Name+" sender", l.send)
	env.Serve("link "+spec.Name+" receiver", l.receive)
	return l, nil
}

// connect makes both ends of a TCP connection to this machine.
func connect() (out, in net.Conn, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	type accepted struct {
		conn net.Conn
		err  error
	}
	ch := make(chan accepted, 1)
	go func() { c, err := listener.Accept(); ch <- accepted{c, err} }()
	out, err = net.DialTimeout("tcp", listener.Addr().String(), 5*time.Second)
	if err != nil {
		return nil, nil, err
	}
	a := <-ch
	if a.err != nil {
		_ = out.Close()
		return nil, nil, a.err
	}
	return out, a.conn, nil
}

// Spec describes the link.
func (l *Link) Spec() hardware.LinkSpec { return l.spec }

// enter puts a message in line; its transit is decided now.
func (l *Link) enter(m *message) error {
	if l.broken != nil {
		return l.broken
	}
	if m.payload.Bytes < units.Bytes(len(m.payload.Data)) || m.payload.Bytes > maxMessage-headerBytes {
		return fmt.Errorf("link %q: a message of %d bytes cannot carry %d bytes of data", l.spec.Name, m.payload.Bytes, len(m.payload.Data))
	}
	transit, err := l.shape.Next(l.env.Now(), m.payload.Bytes+headerBytes)
	if err != nil {
		return err
	}
	l.number++
	m.number, m.transit = l.number, transit
	m.got.Usage.Start = l.env.Now()
	l.flying[m.number] = m
	l.queue.Put(m)
	return nil
}

// Send blocks until the message has arrived.
func (l *Link) Send(p hardware.Payload) (hardware.Delivery, error) {
	m := &message{payload: p, cond: l.env.NewCond()}
	if err := l.enter(m); err != nil {
		return hardware.Delivery{}, err
	}
	for !m.arrived {
		m.cond.Wait()
	}
	if l.observe != nil && m.err == nil {
		l.observe(Resumed, m.got.Usage.End, l.env.Now())
	}
	return m.got, m.err
}

// send is the process that lets bytes go when their time has come.
func (l *Link) send() {
	for {
		m, _ := l.queue.Get()
		var err error
		l.env.Outside(func() { err = l.write(m) })
		if err != nil {
			l.fail(fmt.Errorf("%w: %q: %v", hardware.ErrLinkDown, l.spec.Name, err))
			return
		}
	}
}

// write sends header and payload in pieces, each when the model lets it go: the
// propagation delay comes first, then bytes at the link's rate until Arrive.
func (l *Link) write(m *message) error {
	total := int(m.payload.Bytes) + headerBytes
	buf := make([]byte, headerBytes, min(total, piece))
	binary.LittleEndian.PutUint64(buf, uint64(m.payload.Bytes))
	binary.LittleEndian.PutUint64(buf[8:], m.number)
	data := m.payload.Data
	begin, span := m.transit.Arrive-(m.transit.Sent-m.transit.Start), m.transit.Sent-m.transit.Start
	for gone := 0; gone < total; {
		n := min(piece, total-gone)
		for len(buf) < n {
			k := min(n-len(buf), max(len(data), 0))
			if k == 0 {
				buf = append(buf, l.filler[:n-len(buf)]...)
				break
			}
			buf, data = append(buf, data[:k]...), data[k:]
		}
		gone += n
		// a piece is let go when its last byte has passed the bottleneck
		l.env.Pause(begin + time.Duration(float64(span)*float64(gone)/float64(total)))
		if _, err := l.out.Write(buf[:n]); err != nil {
			return err
		}
		buf = buf[:0]
	}
	return nil
}

// receive is the process that reads messages, stamps them and wakes who waits.
func (l *Link) receive() {
	for {
		var got hardware.Delivery
		var number uint64
		var err error
		l.env.Outside(func() { got, number, err = l.read() })
		m := l.flying[number]
		if err == nil && m == nil {
			err = fmt.Errorf("message %d was never sent", number)
		}
		if err != nil {
			l.fail(fmt.Errorf("%w: %q: %v", hardware.ErrLinkDown, l.spec.Name, err))
			return
		}
		delete(l.flying, number)
		got.Payload.Tokens = m.payload.Tokens
		if m.payload.Data == nil {
			got.Payload.Data = nil
		} else {
			got.Payload.Data = got.Payload.Data[:len(m.payload.Data)]
		}
		got.Usage.Start = m.got.Usage.Start
		got.Usage.Energy, got.Usage.Joules = m.transit.Energy, m.transit.Joules
		if l.observe != nil {
			l.observe(Arrived, m.transit.Arrive, got.Usage.End)
		}
		l.deliver(m, got, nil)
	}
}

func (l *Link) read() (d hardware.Delivery, number uint64, err error) {
	var head [headerBytes]byte
	if _, err = io.ReadFull(l.in, head[:]); err != nil {
		return d, 0, err
	}
	size := binary.LittleEndian.Uint64(head[:])
	number = binary.LittleEndian.Uint64(head[8:])
	if size > maxMessage {
		return d, number, fmt.Errorf("a message of %d bytes", size)
	}
	d.Payload = hardware.Payload{Bytes: units.Bytes(size), Data: make([]byte, size)}
	if _, err = io.ReadFull(l.in, d.Payload.Data); err != nil {
		return d, number, err
	}
	d.Usage = hardware.Usage{End: l.env.Now(), Moved: units.Bytes(size) + headerBytes, Time: hardware.Measured}
	return d, number, nil
}

func (l *Link) deliver(m *message, got hardware.Delivery, err error) {
	m.got, m.err, m.arrived = got, err, true
	if m.stream != nil {
		m.stream.cond.Broadcast()
		return
	}
	m.cond.Signal()
}

// fail ends every message on its way; later ones are refused.
func (l *Link) fail(err error) {
	l.broken = err
	for n := uint64(1); n <= l.number; n++ {
		if m, ok := l.flying[n]; ok {
			delete(l.flying, n)
			l.deliver(m, m.got, err)
		}
	}
}

// Open starts a stream of messages that share the link.
func (l *Link) Open() hardware.Stream { return &stream{link: l, cond: l.env.NewCond()} }

// stream is an ordered flow of messages: those not read yet, oldest first.
type stream struct {
	link   *Link
	cond   world.Cond
	queue  []*message
	closed bool
	err    error
}

// Write hands a message to the link.
func (s *stream) Write(p hardware.Payload) {
	if s.closed {
		panic("netem: write on a closed stream")
	}
	m := &message{payload: p, stream: s}
	if err := s.link.enter(m); err != nil {
		m.err, m.arrived = err, true
	}
	s.queue = append(s.queue, m)
}

// Close ends the stream.
func (s *stream) Close(err error) {
	s.closed, s.err = true, err
	s.cond.Broadcast()
}

// Read blocks until the next message has arrived.
func (s *stream) Read() (hardware.Delivery, bool, error) {
	for {
		if len(s.queue) > 0 && s.queue[0].arrived {
			m := s.queue[0]
			s.queue = s.queue[1:]
			return m.got, m.err == nil, m.err
		}
		if len(s.queue) == 0 && s.closed {
			return hardware.Delivery{}, false, s.err
		}
		s.cond.Wait()
	}
}

// Drain blocks until the stream has ended and returns what was not read yet.
func (s *stream) Drain() (got []hardware.Delivery, err error) {
	for {
		d, ok, err := s.Read()
		if !ok {
			return got, err
		}
		got = append(got, d)
	}
}

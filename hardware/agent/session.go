package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"meibench/hardware"
	"meibench/internal/units"
)

// session is a client's stream to an agent, from hello to death. It is used by
// many goroutines and never comes back to life.
type session struct {
	d      *Device
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	cancel context.CancelCauseFunc
	peer   welcome
	clock  clock

	sending sync.Mutex   // one SendMsg at a time
	heard   atomic.Int64 // when anything came from the agent
	sent    atomic.Int64 // bytes handed over
	arrived atomic.Int64 // of these, before the last ping that was answered

	mu      sync.Mutex
	number  uint64
	pending map[uint64]chan answer
	marks   []int64       // sent at each ping on its way, oldest first
	cause   error         // why it is dead
	dead    chan struct{} // closed then
}

// answer is a result as it came in, or why none will come.
type answer struct {
	reply *reply
	at    time.Duration
	bytes int
}

const (
	calibration = 16          // round trips before the first operation
	beat        = time.Second // between two pings
	slowest     = 125_000     // bytes per second: a link below 1 Mbit/s counts as stalled
)

// connect opens a session: connection, TLS, hello, clock.
func (d *Device) connect() (*session, error) {
	ctx, cancel := context.WithCancelCause(d.env.Context())
	late := time.AfterFunc(d.cfg.Connect, func() { cancel(fmt.Errorf("no answer within %v", d.cfg.Connect)) })
	defer late.Stop()
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		return &counted{c, &d.meter}, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+d.cfg.Address, grpc.WithTransportCredentials(d.cred), grpc.WithContextDialer(dial),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(maxReply), grpc.MaxCallSendMsgSize(maxReply)))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	s := &session{d: d, conn: conn, cancel: cancel, pending: map[uint64]chan answer{}, dead: make(chan struct{})}
	before := d.meter.received.Load()
	if err := s.greet(ctx); err != nil {
		err = s.explain(ctx, err)
		if s.peer.Protocol == 0 && !d.cfg.Credentials.Insecure && d.meter.received.Load() > before {
			// TLS 1.3 tells a client late that its certificate is not wanted, often too late
			err = fmt.Errorf("%w (it answered, but not with a welcome: the certificates of both sides must be valid and of one authority)", err)
		}
		s.close(err)
		return nil, err
	}
	if !late.Stop() { // the stream is already being torn down
		err := context.Cause(ctx)
		s.close(err)
		return nil, err
	}
	s.heard.Store(int64(d.env.Now()))
	go s.receive(ctx)
	go s.ping(ctx)
	go s.watch(ctx)
	return s, nil
}

// maxReply is the largest message a client takes or sends.
const maxReply = 1 << 30

// explain finds the reason behind what gRPC says.
func (s *session) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if st, ok := status.FromError(err); ok {
		return fmt.Errorf("%s", strings.TrimPrefix(st.Message(), "connection error: "))
	}
	return err
}

// greet exchanges hello and welcome, and measures the clock.
func (s *session) greet(ctx context.Context) (err error) {
	if s.stream, err = s.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method); err != nil {
		return err
	}
	h := hello{Protocol: Protocol, Version: s.d.cfg.Version}
	for _, m := range s.d.cfg.Models {
		h.Models = append(h.Models, Held{m.Name, m.Digest})
	}
	if err := s.send(h.encode()); err != nil {
		return err
	}
	var f frame
	if err := s.stream.RecvMsg(&f); err != nil {
		return err
	}
	if s.peer, err = decodeWelcome(&f); err != nil {
		return fmt.Errorf("its welcome cannot be read: %w", err)
	}
	switch {
	case s.peer.Protocol != Protocol:
		return fmt.Errorf("%w: it is meibench %s and speaks protocol %d, this is meibench %s with protocol %d: run the same version on both machines",
			errRefused, s.peer.Version, s.peer.Protocol, s.d.cfg.Version, Protocol)
	case s.peer.Refusal != "":
		return fmt.Errorf("%w: %s", errRefused, s.peer.Refusal)
	case s.peer.Spec.Slots < 1 || s.peer.Spec.Ops == 0:
		return fmt.Errorf("%w: its device has %d slots and %d operations", errRefused, s.peer.Spec.Slots, s.peer.Spec.Ops)
	}
	for range calibration {
		if err := s.roundTrip(); err != nil {
			return err
		}
	}
	return nil
}

// roundTrip measures the clock before anything else runs.
func (s *session) roundTrip() error {
	if err := s.send(encodePing(s.d.env.Now())); err != nil {
		return err
	}
	var f frame
	if err := s.stream.RecvMsg(&f); err != nil {
		return err
	}
	received := s.d.env.Now()
	p, err := decodePong(&f)
	if err == nil {
		s.clock.add(p.Sent, p.Arrived, p.Left, received)
	}
	return err
}

func (s *session) send(f *frame) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.sent.Add(int64(f.size()))
	return s.stream.SendMsg(f)
}

// receive hands results to those who wait for them, until the stream ends.
func (s *session) receive(ctx context.Context) {
	for {
		var f frame
		err := s.stream.RecvMsg(&f)
		at := s.d.env.Now()
		if err == nil {
			s.heard.Store(int64(at))
			err = s.take(&f, at)
		} else {
			err = s.explain(ctx, err)
		}
		if err != nil {
			s.close(err)
			return
		}
	}
}

func (s *session) take(f *frame, at time.Duration) error {
	switch f.kind() {
	case isPong:
		p, err := decodePong(f)
		if err == nil {
			s.clock.add(p.Sent, p.Arrived, p.Left, at)
			s.unmark()
		}
		return err
	case isResult:
		r, err := decodeReply(f)
		if err != nil {
			return fmt.Errorf("its result cannot be read: %w", err)
		}
		s.mu.Lock()
		ch := s.pending[r.Number]
		delete(s.pending, r.Number)
		s.mu.Unlock()
		if ch != nil { // else nobody waits any more
			ch <- answer{r, at, f.size()}
		}
		return nil
	}
	return fmt.Errorf("it sent a message of kind %d, which a client does not take", f.kind())
}

// ping keeps the clock known.
func (s *session) ping(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.sending.Lock() // the stamp is for the moment it leaves, not for the line before it
		s.mu.Lock()
		s.marks = append(s.marks, s.sent.Load())
		s.mu.Unlock()
		err := s.stream.SendMsg(encodePing(s.d.env.Now()))
		s.sending.Unlock()
		if err != nil {
			return // receive learns the reason
		}
	}
}

// unmark notes that what was sent before the oldest ping has arrived.
func (s *session) unmark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.marks) > 0 {
		s.arrived.Store(s.marks[0])
		s.marks = s.marks[1:]
	}
}

// watch ends the session when nothing is heard for too long. What is still being
// sent excuses silence, at the rate of the slowest link that counts as one.
func (s *session) watch(ctx context.Context) {
	tick := time.NewTicker(max(s.d.cfg.Stall/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		silent := s.d.env.Now() - time.Duration(s.heard.Load())
		transit := s.sent.Load() - s.arrived.Load()
		if allowed := s.d.cfg.Stall + time.Duration(transit)*(time.Second/slowest); silent > allowed {
			s.close(fmt.Errorf("nothing heard for %v: the link is stalled or the agent hangs", silent.Round(time.Millisecond)))
			return
		}
	}
}

// close ends the session; whoever waits learns the cause.
func (s *session) close(cause error) {
	s.mu.Lock()
	if s.cause == nil {
		s.cause = cause
		close(s.dead)
	}
	s.mu.Unlock()
	s.cancel(cause)
	_ = s.conn.Close() // it is over either way
}

// exchange sends an operation and waits for its result.
func (s *session) exchange(op *hardware.Op, model int) (answer, error) {
	ch := make(chan answer, 1)
	s.mu.Lock()
	s.number++
	n := s.number
	s.pending[n] = ch
	s.mu.Unlock()
	late := time.NewTimer(s.d.cfg.Timeout)
	defer late.Stop()
	f := encodeRequest(n, model, op)
	if units.Bytes(f.size()) > s.peer.Most {
		s.drop(n)
		return answer{}, &remote{text: fmt.Sprintf("the operation is %d bytes long, the agent takes %d: send less at once", f.size(), s.peer.Most)}
	}
	sent := make(chan error, 1)
	if f.size() <= quick {
		sent <- s.send(f)
	} else { // a large message may wait for the network
		go func() { sent <- s.send(f) }()
	}
	for {
		select {
		case a := <-ch:
			return a, nil
		case err := <-sent:
			if err == nil {
				continue
			}
			if !errors.Is(err, io.EOF) { // else receive learns the reason
				s.close(s.explain(s.d.env.Context(), err))
			}
			<-s.dead
			return answer{}, s.cause
		case <-s.dead:
			return answer{}, s.cause
		case <-late.C:
			s.forget(n)
			return answer{}, fmt.Errorf("no result within %v", s.d.cfg.Timeout)
		case <-s.d.env.Context().Done():
			s.forget(n)
			return answer{}, context.Cause(s.d.env.Context())
		}
	}
}

// quick is a message that the local buffers take at once, or nearly.
const quick = 16 << 10

// forget tells the agent that nobody waits for an operation any more.
func (s *session) forget(n uint64) {
	s.drop(n)
	go func() { _ = s.send(encodeCancel(n)) }() // if it cannot be sent, the session is dead
}

func (s *session) drop(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, n)
}

package agent

import (
	"errors"
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/internal/units"
)

// what a frame is; its first byte.
const (
	isHello byte = iota + 1
	isWelcome
	isOp
	isResult
	isPing
	isPong
	isCancel
)

// magic opens a hello, so that a stranger is told from an old version.
const magic = "meibench-agent"

// hello is the client's first message.
type hello struct {
	Protocol int
	Version  string
	Models   []Held // what operations will name, by index
}

// welcome is the agent's answer. Refusal says why the session ends; the models
// it holds are listed all the same.
type welcome struct {
	Protocol int
	Version  string
	Refusal  string
	Models   []Held
	Most     units.Bytes // largest message it takes
	Spec     hardware.DeviceSpec
}

// request is an operation. Number 0 wants no answer.
type request struct {
	Number uint64
	Model  int // index in hello.Models
	Op     hardware.Op
}

// failure tells the client which of hardware's errors an error wraps.
type failure byte

const (
	succeeded failure = iota
	failed
	unsupported
	outOfMemory
	deviceDown
)

// reply is an operation's result, or its error. Stamps are on the agent's clock.
type reply struct {
	Number  uint64
	Failure failure
	Error   string
	Result  hardware.Result
}

// pong answers a ping: the client's stamp as it came, and two of the agent's.
type pong struct{ Sent, Arrived, Left time.Duration }

func failureOf(err error) failure {
	switch {
	case err == nil:
		return succeeded
	case errors.Is(err, hardware.ErrUnsupported):
		return unsupported
	case errors.Is(err, hardware.ErrMemory):
		return outOfMemory
	case errors.Is(err, hardware.ErrDown):
		return deviceDown
	}
	return failed
}

// remote is an error that an agent reported.
type remote struct {
	text string
	is   error
}

func (r *remote) Error() string { return r.text }
func (r *remote) Unwrap() error { return r.is }

func (r *reply) err() error {
	switch r.Failure {
	case succeeded:
		return nil
	case unsupported:
		return &remote{r.Error, hardware.ErrUnsupported}
	case outOfMemory:
		return &remote{r.Error, hardware.ErrMemory}
	case deviceDown:
		return &remote{r.Error, hardware.ErrDown}
	}
	return &remote{r.Error, nil}
}

// kind is what a received frame is.
func (f *frame) kind() byte {
	if len(f.head) == 0 {
		return 0
	}
	return f.head[0]
}

// open starts reading a frame of a kind.
func (f *frame) open(kind byte) *reader {
	r := &reader{b: f.head}
	if r.byte() != kind {
		r.fail(errUnknown)
	}
	return r
}

func newFrame(kind byte, room int) *writer {
	w := &writer{}
	w.head = append(make([]byte, 0, room), kind)
	return w
}

func (w *writer) models(held []Held) {
	w.count(len(held), held == nil)
	for _, m := range held {
		w.string(m.Name)
		w.string(m.Digest)
	}
}

func (r *reader) models() []Held {
	n, isNil := r.count(2)
	if isNil {
		return nil
	}
	held := make([]Held, n)
	for i := range held {
		held[i] = Held{r.string(), r.string()}
	}
	return held
}

func (h hello) encode() *frame {
	w := newFrame(isHello, 256)
	w.string(magic)
	w.int(h.Protocol)
	w.string(h.Version)
	w.models(h.Models)
	return &w.frame
}

// decodeHello reads a hello. The protocol is read first: what follows it may
// differ in another version, and is then not looked at.
func decodeHello(f *frame) (h hello, err error) {
	r := f.open(isHello)
	if r.string() != magic {
		return h, fmt.Errorf("the first message is not the hello of a meibench client")
	}
	h.Protocol = r.int()
	if r.err == nil && h.Protocol != Protocol {
		return h, nil
	}
	h.Version, h.Models = r.string(), r.models()
	return h, r.end()
}

func (m welcome) encode() *frame {
	w := newFrame(isWelcome, 256)
	w.int(m.Protocol)
	w.string(m.Version)
	w.string(m.Refusal)
	w.models(m.Models)
	w.int64(int64(m.Most))
	w.string(m.Spec.Name)
	w.int(m.Spec.Slots)
	w.uint64(uint64(m.Spec.Ops))
	w.int64(int64(m.Spec.Memory))
	w.byte(byte(m.Spec.Time))
	w.string(m.Spec.Digest)
	return &w.frame
}

func decodeWelcome(f *frame) (m welcome, err error) {
	r := f.open(isWelcome)
	m.Protocol = r.int()
	m.Version, m.Refusal = r.string(), r.string()
	if r.err == nil && m.Protocol != Protocol {
		return m, nil
	}
	m.Models, m.Most = r.models(), units.Bytes(r.int64())
	m.Spec.Name, m.Spec.Slots = r.string(), r.int()
	ops := r.uint64()
	m.Spec.Ops = hardware.Kinds(ops)
	if uint64(m.Spec.Ops) != ops {
		r.fail(errRange)
	}
	m.Spec.Memory, m.Spec.Time, m.Spec.Digest = units.Bytes(r.int64()), hardware.Source(r.byte()), r.string()
	return m, r.end()
}

func encodePing(sent time.Duration) *frame {
	w := newFrame(isPing, 16)
	w.int64(int64(sent))
	return &w.frame
}

func decodePing(f *frame) (time.Duration, error) {
	r := f.open(isPing)
	sent := time.Duration(r.int64())
	return sent, r.end()
}

func (p pong) encode() *frame {
	w := newFrame(isPong, 32)
	w.int64(int64(p.Sent))
	w.int64(int64(p.Arrived))
	w.int64(int64(p.Left))
	return &w.frame
}

func decodePong(f *frame) (pong, error) {
	r := f.open(isPong)
	p := pong{time.Duration(r.int64()), time.Duration(r.int64()), time.Duration(r.int64())}
	return p, r.end()
}

func encodeCancel(number uint64) *frame {
	w := newFrame(isCancel, 16)
	w.uint64(number)
	return &w.frame
}

func decodeCancel(f *frame) (uint64, error) {
	r := f.open(isCancel)
	n := r.uint64()
	return n, r.end()
}

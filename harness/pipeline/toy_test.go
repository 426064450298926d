package pipeline

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// toyModel has four layers and no size to speak of: its times are the toy device's.
var toyModel = &hardware.Model{Name: "toy", Arch: "llama", Quant: "f32", Layers: 4, Dim: 8, Heads: 2, KVHeads: 1,
	HeadDim: 4, FFN: 16, Vocab: 32, BytesPerWeight: 4, KVBytes: 4}

// toyDevice takes, for a span that is a share s of the layers, s × (token ×
// prompt tokens) for a prefill and s × (step + seq × sequences) for a decode.
type toyDevice struct {
	env              world.Env
	name             string
	token, step, seq time.Duration
	memory           units.Bytes
	turn             *world.Slots
	outs             []hardware.Out
	live             map[int64]int // KV tokens by sequence
	ops              int
	fail             error
}

func newToy(env world.Env, name string, token, step, seq time.Duration) *toyDevice {
	return &toyDevice{env: env, name: name, token: token, step: step, seq: seq, turn: world.NewSlots(env, 1), live: map[int64]int{}}
}

func (d *toyDevice) Spec() hardware.DeviceSpec {
	return hardware.DeviceSpec{Name: d.name, Slots: 1, Memory: d.memory, Time: hardware.Modelled,
		Ops: hardware.Set(hardware.Prefill, hardware.Decode, hardware.Drop)}
}

func (d *toyDevice) Run(op *hardware.Op) (hardware.Result, error) {
	if op.Kind == hardware.Drop {
		for _, s := range op.Seqs {
			delete(d.live, s.ID)
		}
		return hardware.Result{}, nil
	}
	d.turn.Acquire()
	defer d.turn.Release()
	if d.fail != nil {
		return hardware.Result{}, d.fail
	}
	d.ops++
	var t time.Duration
	d.outs = d.outs[:0]
	for _, s := range op.Seqs {
		if d.live[s.ID] != s.Context {
			return hardware.Result{}, fmt.Errorf("toy %s: sequence %d has %d tokens, the op says %d", d.name, s.ID, d.live[s.ID], s.Context)
		}
		d.live[s.ID] += s.New
		if op.Kind == hardware.Prefill {
			t += d.token * time.Duration(s.New)
		} else {
			t += d.seq
		}
		d.outs = append(d.outs, hardware.Out{Token: hardware.NoToken})
	}
	if op.Kind == hardware.Decode {
		t += d.step
	}
	start := d.env.Now()
	d.env.Sleep(t * time.Duration(op.Layers.Len()) / time.Duration(toyModel.Layers))
	u := hardware.Usage{Start: start, End: d.env.Now(), FLOP: 1, Energy: units.Joules(t.Seconds()), Time: hardware.Modelled, Joules: hardware.Modelled}
	return hardware.Result{Seqs: d.outs, Usage: u}, nil
}

// toyLink sends at a rate after a delay, first come, first served.
type toyLink struct {
	env   world.Env
	name  string
	rate  float64 // bytes per second
	delay time.Duration
	free  time.Duration
	fail  error
}

func (l *toyLink) Spec() hardware.LinkSpec {
	return hardware.LinkSpec{Name: l.name, BytesPerSec: l.rate, Delay: l.delay}
}

func (l *toyLink) pass(p hardware.Payload) hardware.Delivery {
	l.free = max(l.free, l.env.Now()) + units.TransferTime(p.Bytes, l.rate)
	u := hardware.Usage{Start: l.env.Now(), End: l.free + l.delay, Moved: p.Bytes, Time: hardware.Modelled}
	return hardware.Delivery{Payload: p, Usage: u}
}

func (l *toyLink) Send(p hardware.Payload) (hardware.Delivery, error) {
	if l.fail != nil {
		return hardware.Delivery{}, l.fail
	}
	d := l.pass(p)
	l.env.Sleep(d.Usage.End - l.env.Now())
	return d, nil
}

func (l *toyLink) Open() hardware.Stream { return &toyStream{l: l, cond: l.env.NewCond()} }

type toyStream struct {
	l      *toyLink
	cond   world.Cond
	got    []hardware.Delivery
	closed bool
	err    error
}

func (s *toyStream) Write(p hardware.Payload) { s.got = append(s.got, s.l.pass(p)) }
func (s *toyStream) Close(err error)          { s.closed, s.err = true, err; s.cond.Signal() }
func (s *toyStream) Read() (hardware.Delivery, bool, error) {
	panic("the pipelines here drain")
}

func (s *toyStream) Drain() ([]hardware.Delivery, error) {
	for !s.closed {
		s.cond.Wait()
	}
	if n := len(s.got); n > 0 {
		s.l.env.Sleep(max(0, s.got[n-1].Usage.End-s.l.env.Now()))
	}
	return s.got, s.err
}

// Package kernel is the device that runs the reference kernels: tokens are
// real, and time is what the work took on this machine.
//
// In a measured world (world.Real) the work happens off the turn and its
// wall-clock start and end are the stamps. In an emulated one (any other
// world) the work is done on the spot, its duration is multiplied by Slowdown,
// and that much virtual time passes. So two cores can stand for many devices
// that never disturb each other, with real tokens and real kernel times.
//
// KV caches live on the device, one for each sequence and span of layers, until
// the pipeline drops the sequence.
//
// What it does not do: verify drafts, train, or run several operations on one
// workspace; Slots workspaces run side by side, each with its own threads.
package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// Loaded is a model that a device holds in memory.
type Loaded struct {
	Spec    *hardware.Model
	Weights *llm.Model
	End     int32 // token that ends an answer; -1 if there is none
}

// Config describes a device.
type Config struct {
	Name     string
	Models   []Loaded
	Threads  int         // per operation; at least 1
	Slots    int         // operations in flight; at least 1
	Slowdown float64     // emulated time per kernel time; 0 means 1
	Memory   units.Bytes // 0 = unlimited
	// Energy tells what a busy time cost, and where that figure comes from; nil
	// or source 0 means unknown.
	Energy func(busy time.Duration) (units.Joules, hardware.Source)
	Digest string // of the profile that Slowdown and Energy come from
}

// Device implements hardware.Device.
type Device struct {
	env    world.Env
	real   bool
	cfg    Config
	slots  *world.Slots
	spare  []*bench
	caches map[cacheKey]*llm.Cache
	free   map[freeKey][]*llm.Cache
	held   units.Bytes // resident KV caches
	busy   time.Duration
}

type cacheKey struct {
	id    int64
	span  hardware.Span
	model string
}

// freeKey tells spare caches apart: those of two models differ in width.
type freeKey struct {
	span  hardware.Span
	model string
}

// bench is the workspace of one slot.
type bench struct {
	work map[string]*llm.Work
	seqs []llm.Seq
	outs []hardware.Out
	ins  [][]float32
}

// New makes a device in a world. Close it to end its threads.
func New(env world.Env, cfg Config) (*Device, error) {
	if len(cfg.Models) == 0 {
		return nil, fmt.Errorf("kernel device %q: no model", cfg.Name)
	}
	cfg.Threads, cfg.Slots = max(cfg.Threads, 1), max(cfg.Slots, 1)
	if cfg.Slowdown == 0 {
		cfg.Slowdown = 1
	}
	if cfg.Slowdown < 0 || math.IsNaN(cfg.Slowdown) || math.IsInf(cfg.Slowdown, 0) {
		return nil, fmt.Errorf("kernel device %q: slowdown %g: want a positive number", cfg.Name, cfg.Slowdown)
	}
	_, real := env.(*world.Real)
	d := &Device{env: env, real: real, cfg: cfg, slots: world.NewSlots(env, cfg.Slots),
		caches: map[cacheKey]*llm.Cache{}, free: map[freeKey][]*llm.Cache{}}
	for range cfg.Slots {
		b := &bench{work: map[string]*llm.Work{}}
		for _, m := range cfg.Models {
			b.work[m.Spec.Name] = m.Weights.NewWork(cfg.Threads)
		}
		d.spare = append(d.spare, b)
	}
	return d, nil
}

// Close ends the device's threads. It must not be running anything.
func (d *Device) Close() {
	for _, b := range d.spare {
		for _, m := range d.cfg.Models {
			b.work[m.Spec.Name].Close()
		}
	}
}

// Spec describes the device.
func (d *Device) Spec() hardware.DeviceSpec {
	s := hardware.DeviceSpec{Name: d.cfg.Name, Slots: d.cfg.Slots, Memory: d.cfg.Memory, Time: hardware.Emulated,
		Ops: hardware.Set(hardware.Prefill, hardware.Decode, hardware.Drop), Digest: d.cfg.Digest}
	if d.real {
		s.Time = hardware.Measured
	}
	return s
}

// Busy is the time spent in operations so far, summed over slots.
func (d *Device) Busy() time.Duration { return d.busy }

// Run does an operation; see hardware.Device.
func (d *Device) Run(op *hardware.Op) (hardware.Result, error) {
	m, err := d.admit(op)
	if err != nil {
		return hardware.Result{}, fmt.Errorf("device %q: %s: %w", d.cfg.Name, op.Kind, err)
	}
	if op.Kind == hardware.Drop {
		d.drop(op)
		return hardware.Result{Usage: hardware.Usage{Start: d.env.Now(), End: d.env.Now(), Time: d.Spec().Time}}, nil
	}
	d.slots.Acquire()
	defer d.slots.Release()
	b := d.spare[len(d.spare)-1]
	d.spare = d.spare[:len(d.spare)-1]
	defer func() { d.spare = append(d.spare, b) }()

	if err := d.prepare(b, m, op); err != nil {
		return hardware.Result{}, fmt.Errorf("device %q: %s: %w", d.cfg.Name, op.Kind, err)
	}
	start, end, err := d.time(func() error { return b.forward(m, op) })
	d.busy += end - start
	if err != nil {
		return hardware.Result{}, fmt.Errorf("device %q: %s: %w", d.cfg.Name, op.Kind, err)
	}
	return hardware.Result{Seqs: b.outs, Usage: d.usage(op, start, end)}, nil
}

// admit refuses what the kernels would trip over, and finds the model.
func (d *Device) admit(op *hardware.Op) (*Loaded, error) {
	if !d.Spec().Ops.Has(op.Kind) || op.Kind == 0 {
		return nil, hardware.ErrUnsupported
	}
	if op.Model == nil {
		return nil, errors.New("needs a model")
	}
	m := d.find(op.Model)
	switch s := op.Layers; {
	case m == nil:
		return nil, fmt.Errorf("does not hold model %q", op.Model.Name)
	case op.Kind == hardware.Drop:
		return m, nil
	case len(op.Seqs) == 0:
		return nil, errors.New("needs at least one sequence")
	case s.Lo < 0 || s.Hi > m.Spec.Layers || s.Lo >= s.Hi:
		return nil, fmt.Errorf("layers [%d, %d) are not in model %q with %d", s.Lo, s.Hi, m.Spec.Name, m.Spec.Layers)
	}
	for i := range op.Seqs {
		switch s := &op.Seqs[i]; {
		case s.New < 1 || s.Context < 0:
			return nil, fmt.Errorf("sequence %d adds %d tokens to %d: want at least 1 and 0", s.ID, s.New, s.Context)
		case op.Kind == hardware.Decode && s.New != 1:
			return nil, fmt.Errorf("sequence %d adds %d tokens: decode adds one, prefill more", s.ID, s.New)
		}
	}
	return m, nil
}

func (d *Device) find(spec *hardware.Model) *Loaded {
	for i := range d.cfg.Models {
		if d.cfg.Models[i].Spec.Name == spec.Name {
			return &d.cfg.Models[i]
		}
	}
	return nil
}

// time does the work and tells when it began and ended on the world's clock.
func (d *Device) time(work func() error) (start, end time.Duration, err error) {
	if d.real {
		d.env.Outside(func() {
			start = d.env.Now()
			err = work()
			end = d.env.Now()
		})
		return start, end, err
	}
	start = d.env.Now()
	began := time.Now()
	err = work()
	took := time.Duration(math.Ceil(float64(time.Since(began)) * d.cfg.Slowdown))
	d.env.Sleep(took)
	return start, start + took, err
}

func (d *Device) usage(op *hardware.Op, start, end time.Duration) hardware.Usage {
	u := hardware.Usage{Start: start, End: end, Time: d.Spec().Time}
	tokens := 0
	for _, s := range op.Seqs {
		u.FLOP += op.Model.FLOP(op.Layers, s.Context, s.New, 1)
		u.Moved += units.Bytes(s.Context+s.New) * op.Model.KVBytesPerToken(op.Layers)
		tokens += s.New
	}
	u.Moved += op.Model.ReadBytes(op.Layers, tokens)
	u.Peak = op.Model.WeightBytes(op.Layers) + d.held
	if d.cfg.Energy != nil {
		u.Energy, u.Joules = d.cfg.Energy(end - start)
	}
	return u
}

// prepare gathers caches and inputs under the turn.
func (d *Device) prepare(b *bench, m *Loaded, op *hardware.Op) error {
	b.seqs, b.outs = b.seqs[:0], b.outs[:0]
	for len(b.ins) < len(op.Seqs) {
		b.ins = append(b.ins, nil)
	}
	for i := range op.Seqs {
		s := &op.Seqs[i]
		cache, err := d.cache(m, op, s)
		if err != nil {
			return err
		}
		seq := llm.Seq{Cache: cache}
		if op.Layers.Lo == 0 {
			if len(s.Tokens) != s.New {
				return fmt.Errorf("sequence %d brings %d token ids for %d new tokens: a kernel device needs the ids", s.ID, len(s.Tokens), s.New)
			}
			seq.IDs = s.Tokens
		} else {
			if len(s.In.Data) != 4*s.New*m.Spec.Dim {
				return fmt.Errorf("sequence %d brings %d bytes of activations, want %d tokens × %d × 4", s.ID, len(s.In.Data), s.New, m.Spec.Dim)
			}
			b.ins[i] = floats(b.ins[i], s.In.Data)
			seq.Hidden = b.ins[i]
		}
		b.seqs = append(b.seqs, seq)
	}
	return nil
}

// cache returns the sequence's cache for the span with room for its new tokens.
func (d *Device) cache(m *Loaded, op *hardware.Op, s *hardware.Seq) (*llm.Cache, error) {
	key := cacheKey{s.ID, op.Layers, m.Spec.Name}
	c := d.caches[key]
	if have := length(c); have != s.Context {
		return nil, fmt.Errorf("sequence %d has %d tokens cached for layers %d to %d, the operation counts on %d",
			s.ID, have, op.Layers.Lo, op.Layers.Hi, s.Context)
	}
	need := s.Context + s.New
	if c != nil && c.Cap() >= need {
		return c, nil
	}
	if need > m.Weights.Context {
		return nil, fmt.Errorf("sequence %d would grow to %d tokens, model %q has a context of %d", s.ID, need, m.Spec.Name, m.Weights.Context)
	}
	bigger, err := d.take(m, op.Layers, need)
	if err != nil {
		return nil, err
	}
	if c != nil {
		if err := bigger.CopyPrefix(c, c.Len()); err != nil {
			return nil, err
		}
		d.give(freeKey{op.Layers, op.Model.Name}, c)
	}
	d.caches[key] = bigger
	return bigger, nil
}

func length(c *llm.Cache) int {
	if c == nil {
		return 0
	}
	return c.Len()
}

// take finds a spare cache that is large enough or makes one of a power of two.
func (d *Device) take(m *Loaded, span hardware.Span, need int) (*llm.Cache, error) {
	key := freeKey{span, m.Spec.Name}
	spare := d.free[key]
	for i, c := range spare {
		if c.Cap() >= need {
			d.free[key] = append(spare[:i], spare[i+1:]...)
			return c, nil
		}
	}
	size := 64
	for size < need {
		size *= 2
	}
	size = min(size, m.Weights.Context)
	if d.cfg.Memory > 0 {
		if err := d.room(m.Weights.CacheBytes(quant.F32, span.Lo, span.Hi, size)); err != nil {
			return nil, err
		}
	}
	c, err := m.Weights.NewCache(span.Lo, span.Hi, size)
	if err == nil {
		d.held += c.Resident()
	}
	return c, err
}

// room makes sure that n more bytes of cache fit the device's memory beside its
// models, giving up spare caches if they do not.
func (d *Device) room(n units.Bytes) error {
	var weights units.Bytes
	for _, m := range d.cfg.Models {
		weights += m.Weights.WeightBytes(m.Weights.Lo, m.Weights.Hi)
	}
	if weights+d.held+n > d.cfg.Memory {
		for key, spare := range d.free {
			for _, c := range spare {
				d.held -= c.Resident()
			}
			delete(d.free, key)
		}
	}
	if weights+d.held+n > d.cfg.Memory {
		return fmt.Errorf("%v of weights, %v of caches and %v more exceed %v: %w", weights, d.held, n, d.cfg.Memory, hardware.ErrMemory)
	}
	return nil
}

func (d *Device) give(key freeKey, c *llm.Cache) {
	c.Truncate(0)
	d.free[key] = append(d.free[key], c)
}

func (d *Device) drop(op *hardware.Op) {
	for _, s := range op.Seqs {
		key := cacheKey{s.ID, op.Layers, op.Model.Name}
		if c, ok := d.caches[key]; ok {
			delete(d.caches, key)
			d.give(freeKey{op.Layers, op.Model.Name}, c)
		}
	}
}

// forward is the work itself: layers, and the next token or the activations.
func (b *bench) forward(m *Loaded, op *hardware.Op) error {
	if err := b.work[m.Spec.Name].Forward(op.Layers.Lo, op.Layers.Hi, b.seqs); err != nil {
		return err
	}
	for i := range b.seqs {
		out := hardware.Out{Token: hardware.NoToken, Confidence: math.NaN()}
		if op.Layers.Hi == m.Spec.Layers {
			out.Token = llm.Greedy(b.seqs[i].Out)
			out.End = out.Token == m.End
		} else {
			data := bytesOf(b.seqs[i].Out) // a fresh copy: it outlives this slot on a link
			out.Hidden = hardware.Payload{Bytes: units.Bytes(len(data)), Data: data}
		}
		b.outs = append(b.outs, out)
	}
	return nil
}

// floats and bytesOf convert activations to and from their wire form, F32 in
// little-endian order.
func floats(to []float32, from []byte) []float32 {
	to = to[:0]
	for ; len(from) >= 4; from = from[4:] {
		to = append(to, math.Float32frombits(binary.LittleEndian.Uint32(from)))
	}
	return to
}

func bytesOf(from []float32) []byte {
	to := make([]byte, 0, 4*len(from))
	for _, x := range from {
		to = binary.LittleEndian.AppendUint32(to, math.Float32bits(x))
	}
	return to
}

package costmodel

import (
	"errors"
	"fmt"
	"math"
	"time"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/internal/rng"
	"meibench/internal/units"
)

// Options are what a modelled device needs to know beyond its profile.
type Options struct {
	Seed uint64         // of the luck below
	Ops  hardware.Kinds // what it offers; 0 = everything

	// Accept is the probability that a draft token is accepted given that the
	// ones before it were. Calibrate it from measured Verify results.
	Accept float64
	// Confidence holds evenly spaced quantiles of a token's confidence, the
	// first being the minimum and the last the maximum. nil: unknown (NaN).
	Confidence []float64
	// Heat is the thermal state at the start: 0 cool, 1 throttled to the retained
	// share. Only profiles with a thermal part have one.
	Heat float64
}

// Device is a modelled device. A model it was never told to Load is taken to be
// in memory already; memory is booked all the same, and an operation whose
// weights or caches do not fit fails with hardware.ErrMemory before it starts.
// Dropping with no sequences evicts the model.
type Device struct {
	env   world.Env
	spec  hardware.DeviceSpec
	law   *Law
	slots *world.Slots
	heat  *heat
	mem   memory
	opt   Options
	busy  time.Duration
	last  time.Duration  // end of the latest operation
	outs  []hardware.Out // of the latest Run; valid until its caller blocks

	accept, confide rng.Key
}

var allOps = hardware.Set(hardware.Prefill, hardware.Decode, hardware.Verify, hardware.Encode, hardware.Load,
	hardware.TrainStep, hardware.Aggregate, hardware.Generate, hardware.Drop)

// Blueprint is a profile made ready to make devices from: what all users with
// the same phone share.
type Blueprint struct {
	spec    hardware.DeviceSpec
	law     *Law
	thermal *profiles.Thermal
}

// NewBlueprint prepares a profile.
func NewBlueprint(p *profiles.DeviceSheet) *Blueprint {
	return &Blueprint{
		law: NewLaw(p), thermal: p.Thermal,
		spec: hardware.DeviceSpec{
			Name: p.Name, Slots: int(p.Slots.Value), Ops: allOps, Memory: units.Bytes(p.Memory.Value * p.MemoryShare.Value),
			Time: hardware.Modelled, Digest: p.Digest(),
		},
	}
}

// New returns a device of env that behaves as the profile says.
func New(env world.Env, p *profiles.DeviceSheet, opt Options) *Device {
	return NewBlueprint(p).New(env, opt)
}

// New returns one more device of the blueprint: cool, and with empty memory.
func (b *Blueprint) New(env world.Env, opt Options) *Device {
	d := &Device{
		env: env, spec: b.spec, law: b.law, opt: opt,
		slots: world.NewSlots(env, b.spec.Slots), heat: newHeat(b.thermal), mem: newMemory(b.spec.Memory),
		accept: rng.NewKey(opt.Seed, "accept"), confide: rng.NewKey(opt.Seed, "confidence"),
	}
	if opt.Ops != 0 {
		d.spec.Ops = opt.Ops
	}
	if d.heat != nil {
		d.heat.level = opt.Heat
	}
	return d
}

// Spec describes the device.
func (d *Device) Spec() hardware.DeviceSpec { return d.spec }

// Law is the device's pure cost law.
func (d *Device) Law() *Law { return d.law }

// Used is the memory booked now: weights and KV caches.
func (d *Device) Used() units.Bytes { return d.mem.used }

// Busy is the time spent in operations so far, summed over slots.
func (d *Device) Busy() time.Duration { return d.busy }

// Heat is the thermal state now: 0 cool, 1 throttled to the retained share.
func (d *Device) Heat() float64 {
	if d.heat == nil {
		return 0
	}
	d.heat.advance(d.env.Now())
	return d.heat.level
}

// Run costs op and sleeps that long in one of the device's slots.
func (d *Device) Run(op *hardware.Op) (hardware.Result, error) {
	if !d.spec.Ops.Has(op.Kind) || op.Kind == 0 {
		return hardware.Result{}, fmt.Errorf("device %q: %s: %w", d.spec.Name, op.Kind, hardware.ErrUnsupported)
	}
	if err := checkOp(op); err != nil {
		return hardware.Result{}, fmt.Errorf("device %q: %w", d.spec.Name, err)
	}
	if op.Kind == hardware.Drop {
		d.mem.drop(op)
		now := d.env.Now()
		return hardware.Result{Usage: d.usage(now, now, Cost{})}, nil
	}
	if err := d.reserve(op); err != nil {
		return hardware.Result{}, fmt.Errorf("device %q: %s: %w", d.spec.Name, op.Kind, err)
	}
	d.slots.Acquire()
	start := d.env.Now()
	cost := d.law.Cost(op)
	if wake := d.law.Wake(op, start-d.last); wake > 0 {
		cost.Time += wake
		cost.Energy = d.law.energy(cost, cost.Time.Seconds())
	}
	cost, busy := d.throttled(cost, start)
	if busy > 0 {
		d.env.Sleep(busy)
	}
	d.slots.Release()
	d.busy += busy
	d.last = start + busy
	return hardware.Result{Seqs: d.results(op, start, busy), Usage: d.usage(start, start+busy, cost)}, nil
}

// throttled stretches a cost by the heat of the device.
func (d *Device) throttled(c Cost, start time.Duration) (Cost, time.Duration) {
	if d.heat == nil {
		return c, c.Time
	}
	sec := d.heat.stretch(start, c.Time.Seconds())
	busy := max(c.Time, time.Duration(math.Round(sec*1e9)))
	if busy > c.Time { // the longer run pays idle power for longer
		c.Energy += units.Joules(float64(d.law.idle * (busy - c.Time).Seconds()))
	}
	return c, busy
}

func (d *Device) usage(start, end time.Duration, c Cost) hardware.Usage {
	return hardware.Usage{
		Start: start, End: end, FLOP: c.FLOP, Moved: c.Moved, Energy: c.Energy, Peak: d.mem.peak,
		Time: hardware.Modelled, Joules: hardware.Modelled,
	}
}

// grown and answered are a sequence's cache after a pass and after a whole answer.
func grown(s *hardware.Seq) int { return s.Context + s.New }

func answered(s *hardware.Seq) int { return s.Context + s.New + max(0, s.Limit-1) }

// reserve books the memory an operation leaves behind. An Encode or a TrainStep
// holds weights but leaves no cache.
func (d *Device) reserve(op *hardware.Op) error {
	switch op.Kind {
	case hardware.Prefill, hardware.Decode, hardware.Verify:
		return d.mem.extend(op, grown)
	case hardware.Generate:
		return d.mem.extend(op, answered)
	case hardware.Load, hardware.Encode:
		if op.Model == nil {
			return nil
		}
		_, err := d.mem.hold(op.Model, op.Layers)
		return err
	case hardware.TrainStep:
		if _, err := d.mem.hold(op.Model, op.Layers); err != nil {
			return err
		}
		if err := d.mem.grow(op.Bytes, "gradients and optimiser state"); err != nil {
			return err
		}
		d.mem.used -= op.Bytes // counted in the peak; gone when the step is over
	}
	return nil
}

// checkOp says what is wrong with the shape of an operation.
func checkOp(op *hardware.Op) error {
	switch op.Kind {
	case hardware.Drop, hardware.Aggregate:
		return nil
	case hardware.Load, hardware.Encode:
		if op.Bytes < 0 || op.Bytes == 0 && op.Model == nil {
			return fmt.Errorf("%s: needs a model or a number of bytes, got %d bytes", op.Kind, op.Bytes)
		}
		if op.Model == nil {
			return nil
		}
	default:
		if op.Model == nil {
			return fmt.Errorf("%s: needs a model", op.Kind)
		}
		if len(op.Seqs) == 0 {
			return fmt.Errorf("%s: needs at least one sequence", op.Kind)
		}
	}
	if s := op.Layers; s.Lo < 0 || s.Hi > op.Model.Layers || s.Lo >= s.Hi {
		return fmt.Errorf("%s: layers [%d, %d) are not in model %s with %d", op.Kind, s.Lo, s.Hi, op.Model.Name, op.Model.Layers)
	}
	for i := range op.Seqs {
		s := &op.Seqs[i]
		switch {
		case s.New <= 0 || s.Context < 0:
			return fmt.Errorf("%s: sequence %d adds %d tokens to %d: want at least 1 and 0", op.Kind, s.ID, s.New, s.Context)
		case op.Kind == hardware.Decode && s.New != 1:
			return fmt.Errorf("decode: sequence %d adds %d tokens: decode adds one, prefill and verify more", s.ID, s.New)
		case op.Kind == hardware.Generate && op.Layers.Len() != op.Model.Layers:
			return errors.New("generate: needs all layers")
		}
	}
	return nil
}

// results says what came of each sequence.
func (d *Device) results(op *hardware.Op, start, busy time.Duration) []hardware.Out {
	switch op.Kind {
	case hardware.Load, hardware.Aggregate, hardware.TrainStep:
		return nil
	}
	if cap(d.outs) < len(op.Seqs) {
		d.outs = make([]hardware.Out, len(op.Seqs))
	}
	outs := d.outs[:len(op.Seqs)]
	clear(outs)
	for i := range outs {
		s, o := &op.Seqs[i], &outs[i]
		o.Token, o.Confidence = hardware.NoToken, math.NaN()
		if op.Layers.Hi < op.Model.Layers {
			o.Hidden.Bytes = op.Model.HiddenBytes(s.New, hiddenElem)
			continue
		}
		if len(d.opt.Confidence) > 0 {
			luck := d.confide.At(place(s.ID, grown(s)))
			o.Confidence = quantile(d.opt.Confidence, luck.Float64())
		}
		if op.Kind == hardware.Verify {
			o.Accepted = d.accepted(s)
		}
	}
	if op.Kind == hardware.Generate {
		d.answers(op, outs, start, busy)
	}
	return outs
}

// answers fills in when each token of whole answers came, stretched evenly if
// the device was throttled.
func (d *Device) answers(op *hardware.Op, outs []hardware.Out, start, busy time.Duration) {
	total := d.law.generateCost(op, nil).Time
	d.law.generateCost(op, func(at time.Duration, i int) {
		if busy != total {
			at = time.Duration(float64(at) / float64(total) * float64(busy))
		}
		outs[i].Chunks = append(outs[i].Chunks, hardware.Chunk{At: start + min(at, busy), Tokens: 1})
		outs[i].Tokens = append(outs[i].Tokens, hardware.NoToken)
	})
}

// accepted draws how many of a sequence's New-1 drafts are accepted. The luck
// belongs to the position in the sequence: whoever drafts it, and however long
// the drafts are, the same token meets the same luck.
func (d *Device) accepted(s *hardware.Seq) int {
	for j := 1; j < s.New; j++ {
		luck := d.accept.At(place(s.ID, s.Context+j))
		if luck.Float64() >= d.opt.Accept {
			return j - 1
		}
	}
	return s.New - 1
}

// place numbers the positions of all sequences.
func place(id int64, position int) uint64 { return uint64(id)<<24 ^ uint64(position) }

// quantile interpolates between evenly spaced quantiles.
func quantile(q []float64, u float64) float64 {
	x := u * float64(len(q)-1)
	i := int(x)
	if i+1 >= len(q) {
		return q[len(q)-1]
	}
	return q[i] + float64((x-float64(i))*(q[i+1]-q[i]))
}

package pipeline

import (
	"errors"
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// batcher is an edge server with iteration-level (continuous) batching after
// Orca (OSDI'22): before every step it admits what waits, prefills newcomers
// together, and then runs one decode step for all. A request whose KV cache
// would not fit waits; one that could never fit is refused.
//
// A job is either a whole answer (left = number of tokens) or one step of a
// split pipeline (left = 1, entered again for the next token).
type batcher struct {
	env     world.Env
	dev     hardware.Device
	model   *hardware.Model
	span    hardware.Span
	most    int                // sequences per iteration
	queue   *world.Queue[*job] // nil in it means: memory was freed, look again
	waiting []*job             // prefills that wait for memory or room, oldest first
	run     []*job
	op      hardware.Op
	bound   bool        // the device's memory is limited
	kv      units.Bytes // in all, for KV caches
	kvFree  units.Bytes
}

type job struct {
	kind   hardware.Kind // of its next step
	seq    hardware.Seq
	left   int // tokens still to make
	grow   int // tokens the KV cache will hold at most
	emit   func(out hardware.Out, u hardware.Usage)
	finish func(err error)

	token   [1]int32 // backing for seq.Tokens, so that a decode step allocates nothing
	admit   time.Duration
	prefill time.Duration // end of the first step
	last    time.Duration // end of the last step
	energy  units.Joules
	flop    units.FLOP
	joules  hardware.Source
	steps   int
}

var errNeverFits = errors.New("pipeline: the request's KV cache can never fit")

func newBatcher(env world.Env, node hardware.Node, model *hardware.Model, span hardware.Span, most int) (*batcher, error) {
	b := &batcher{env: env, dev: node.Device, model: model, span: span, most: most, queue: world.NewQueue[*job](env)}
	if mem := node.Device.Spec().Memory; mem > 0 {
		b.bound = true
		b.kv = mem - model.WeightBytes(span)
		b.kvFree = b.kv
		if b.kv <= 0 {
			return nil, fmt.Errorf("node %q: model %q needs %v for layers %d to %d, the device has %v: %w",
				node.Name, model.Name, model.WeightBytes(span), span.Lo, span.Hi, mem, hardware.ErrMemory)
		}
	}
	env.Serve("batcher "+node.Name, b.loop)
	return b, nil
}

// newJob is a request's stay at the server: tokens to make, and how long its
// KV cache may become.
func newJob(id int64, left, grow int) *job {
	return &job{kind: hardware.Prefill, seq: hardware.Seq{ID: id}, left: left, grow: grow, admit: -1}
}

func (b *batcher) need(j *job) units.Bytes {
	return units.Bytes(j.grow) * b.model.KVBytesPerToken(b.span)
}

func (b *batcher) loop() {
	for {
		b.admit()
		b.step(hardware.Prefill)
		b.step(hardware.Decode)
	}
}

// admit fills the batch in order of arrival; it returns with at least one
// sequence to run, waiting for one if need be.
func (b *batcher) admit() {
	for {
		for j, ok := b.queue.TryGet(); ok; j, ok = b.queue.TryGet() {
			b.sort(j)
		}
		for len(b.waiting) > 0 && len(b.run) < b.most {
			j := b.waiting[0]
			if b.bound && b.need(j) > b.kvFree {
				break
			}
			b.waiting = b.waiting[1:]
			b.enter(j)
		}
		if len(b.run) > 0 {
			return
		}
		j, _ := b.queue.Get()
		b.sort(j)
	}
}

// sort puts an arrival where it belongs: what can never fit is refused, a step
// of a sequence that already has its memory joins the batch at once.
func (b *batcher) sort(j *job) {
	switch {
	case j == nil:
	case b.bound && j.kind == hardware.Prefill && b.need(j) > b.kv:
		j.finish(fmt.Errorf("%w: %v needed, %v in all", errNeverFits, b.need(j), b.kv))
	case j.kind == hardware.Prefill:
		b.waiting = append(b.waiting, j)
	default:
		b.run = append(b.run, j)
	}
}

func (b *batcher) enter(j *job) {
	if b.bound {
		b.kvFree -= b.need(j)
	}
	b.run = append(b.run, j)
}

// step runs one operation for every running job whose next step is of a kind.
func (b *batcher) step(kind hardware.Kind) {
	b.op = hardware.Op{Kind: kind, Model: b.model, Layers: b.span, Seqs: b.op.Seqs[:0]}
	tokens := 0
	for _, j := range b.run {
		if j.kind == kind {
			b.op.Seqs = append(b.op.Seqs, j.seq)
			tokens += j.seq.New
		}
	}
	if len(b.op.Seqs) == 0 {
		return
	}
	res, err := b.dev.Run(&b.op)
	b.share(kind, res, err, tokens)
}

// share hands each job its part of a step's result and retires finished jobs.
func (b *batcher) share(kind hardware.Kind, res hardware.Result, err error, tokens int) {
	keep, k := b.run[:0], 0
	for _, j := range b.run {
		if j.kind != kind {
			keep = append(keep, j)
			continue
		}
		if err != nil {
			j.finish(err)
			continue
		}
		out, part := res.Seqs[k], float64(j.seq.New)/float64(tokens)
		k++
		j.account(res.Usage, part)
		j.left--
		done := j.left <= 0 || out.End
		j.emit(out, res.Usage)
		if done {
			j.finish(nil)
			continue
		}
		j.advance(out.Token)
		keep = append(keep, j)
	}
	clear(b.run[len(keep):])
	b.run = keep
}

func (j *job) account(u hardware.Usage, part float64) {
	if j.admit < 0 {
		j.admit, j.prefill = u.Start, u.End
	}
	j.last = u.End
	j.energy += units.Joules(float64(u.Energy) * part) // the conversion rounds: no fused multiply-add
	j.flop += units.FLOP(float64(u.FLOP) * part)
	if j.steps++; j.steps == 1 || u.Joules < j.joules { // one unknown makes the sum unknown
		j.joules = u.Joules
	}
}

// advance prepares the next decode step of a whole answer.
func (j *job) advance(token int32) {
	j.kind = hardware.Decode
	j.seq.Context += j.seq.New
	j.seq.New = 1
	j.seq.In = hardware.Payload{}
	j.seq.Tokens = nil
	if token != hardware.NoToken {
		j.token[0] = token
		j.seq.Tokens = j.token[:]
	}
}

// free returns a sequence's KV memory and tells the device. Every job that
// entered must be freed once.
func (b *batcher) free(j *job) {
	if b.bound {
		b.kvFree += b.need(j)
		b.queue.Put(nil)
	}
	op := hardware.Op{Kind: hardware.Drop, Model: b.model, Layers: b.span, Seqs: []hardware.Seq{{ID: j.seq.ID}}}
	_, _ = b.dev.Run(&op)
}

package pipeline

import (
	"errors"
	"fmt"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/workloads"
)

// split cuts the model at a layer: the device embeds and runs the layers below
// the cut, sends the activations up, the edge runs the rest and the head and
// sends the token id down. Neither prompt nor sensor data leave the device;
// activations do. Each side keeps the KV cache of its own layers (checklist I4;
// Neurosurgeon, ASPLOS'17, for the cut; HAT, arXiv 2503.18989, for the pipeline).
type split struct {
	cut, wireBytes, tokenBytes float64
	batch                      int

	env          world.Env
	site         *hardware.Site
	model        *hardware.Model
	below, above hardware.Span
	edge         *batcher
	node         string
	turns        turns
}

func (p *split) Start(env world.Env, site *hardware.Site, model *hardware.Model) error {
	p.env, p.site, p.model, p.turns = env, site, model, turns{}
	k := int(p.cut)
	if p.cut < 1 {
		k = int(p.cut * float64(model.Layers))
	}
	k = max(k, 1)
	if k >= model.Layers {
		return fmt.Errorf("pipeline split: cut %d leaves no layer to the edge: model %q has %d; use pipeline local instead", k, model.Name, model.Layers)
	}
	p.below, p.above = hardware.Span{Hi: k}, hardware.Span{Lo: k, Hi: model.Layers}
	node, err := site.First(hardware.EdgeRole)
	if err != nil {
		return err
	}
	if err := hardware.Needs("pipeline split: device", site.User(0).Device, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	if err := hardware.Needs("pipeline split: edge", node.Device, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	p.node = node.Name
	p.edge, err = newBatcher(env, node, model, p.above, p.batch)
	return err
}

// remote is one request's sequence at the edge.
type remote struct {
	job  *job
	cond world.Cond
	out  hardware.Out
	err  error
	done bool
	in   bool // it entered and holds memory
}

func (p *split) Handle(req *workloads.Request, log *record.Request) error {
	user := p.site.User(req.User)
	turn := p.turns.of(p.env, user.Device)
	turn.Acquire()
	defer turn.Release()
	log.Sent = p.env.Now()

	r := p.open(req)
	seqs := [1]hardware.Seq{{ID: int64(req.ID), New: req.PromptTokens, Tokens: req.Prompt}}
	op := hardware.Op{Kind: hardware.Prefill, Model: p.model, Layers: p.below, Seqs: seqs[:]}
	defer drop(user.Device, &op)
	defer p.close(r)
	for {
		token, end, err := p.step(user, &op, r, log)
		if err != nil {
			return err
		}
		if end || log.OutputTokens >= req.OutputTokens {
			return nil
		}
		next(&op, token)
	}
}

// step makes one token: device, uplink, edge, downlink.
func (p *split) step(user *hardware.User, op *hardware.Op, r *remote, log *record.Request) (int32, bool, error) {
	res, err := user.Device.Run(op)
	if err != nil {
		return 0, false, err
	}
	log.Spent(record.Compute, "device", res.Usage.Start, res.Usage.End)
	note(log, record.DevicePart, res.Usage, 1)

	hidden := res.Seqs[0].Hidden
	hidden.Bytes = p.model.HiddenBytes(op.Seqs[0].New, p.wireBytes)
	up, err := user.Up.Send(hidden)
	if err != nil {
		return 0, false, err
	}
	sent(log, up, true)
	log.DerivedBytesOut += hidden.Bytes
	log.Spent(record.Transfer, "up", up.Usage.Start, up.Usage.End)

	out, err := p.compute(op, up.Payload, r)
	if err != nil {
		return 0, false, err
	}
	log.Spent(record.Compute, p.node, r.job.admit, r.job.last)
	down, err := user.Down.Send(hardware.Payload{Bytes: units.Bytes(p.tokenBytes), Tokens: 1, Data: tokenData(out.Token)})
	if err != nil {
		return 0, false, err
	}
	sent(log, down, false)
	log.Spent(record.Transfer, "down", down.Usage.Start, down.Usage.End)
	token := out.Token
	if down.Payload.Data != nil {
		token = decodeTokens(down.Payload.Data)[0]
	}
	emit(log, down.Usage, token)
	p.settle(log, r)
	return token, out.End, nil
}

func tokenData(token int32) []byte {
	if token == hardware.NoToken {
		return nil
	}
	return encodeTokens([]int32{token})
}

func (p *split) open(req *workloads.Request) *remote {
	r := &remote{job: newJob(int64(req.ID), 1, req.PromptTokens+req.OutputTokens), cond: p.env.NewCond()}
	r.job.emit = func(out hardware.Out, _ hardware.Usage) { r.out = out }
	r.job.finish = func(err error) {
		r.in = r.in || !errors.Is(err, errNeverFits)
		r.err, r.done = err, true
		r.cond.Signal()
	}
	return r
}

// compute runs the upper layers for one step, in a batch with other users'.
func (p *split) compute(op *hardware.Op, in hardware.Payload, r *remote) (hardware.Out, error) {
	j := r.job
	j.kind, j.left, j.admit = op.Kind, 1, -1
	j.seq.Context, j.seq.New, j.seq.In = op.Seqs[0].Context, op.Seqs[0].New, in
	r.done = false
	p.edge.queue.Put(j)
	for !r.done {
		r.cond.Wait()
	}
	return r.out, r.err
}

// settle moves what the edge spent on the last step to the request.
func (p *split) settle(log *record.Request, r *remote) {
	j := r.job
	log.FLOP += j.flop
	log.Spend(record.EdgePart, j.energy, uint8(j.joules))
	j.flop, j.energy = 0, 0
}

func (p *split) close(r *remote) {
	if r.in {
		p.edge.free(r.job)
	}
}

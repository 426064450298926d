package pipeline

import (
	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/workloads"
)

var localEntry = Entry{
	Name: "local", Doc: "the whole model on the user's device",
	Ops: "device: prefill, decode",
	Params: []Param{
		{Name: "keep", Names: []string{"all", "h2o", "kivi2", "kivi4", "kivi8", "pyramidkv", "snapkv", "streamingllm", "window"}, Doc: "what the KV cache keeps: of the tokens, or of their bits"},
		{Name: "budget", Default: 64, Min: 8, Max: 1 << 24, Doc: "rules that forget: tokens in the KV cache"},
	},
	New: func(p Params) Pipeline {
		switch bits := map[string]int{"kivi2": 2, "kivi4": 4, "kivi8": 8}[p.Name("keep")]; {
		case bits > 0:
			return &local{keep: &hardware.Keep{Bits: bits}}
		case p.Name("keep") == "all":
			return &local{}
		}
		return &local{keep: &hardware.Keep{Policy: p.Name("keep"), Budget: p.Int("budget")}}
	},
}

// local runs the whole model on the user's device, one request after another:
// the baseline that every other pipeline is compared with (checklist I1). Its KV
// cache may be bounded (I12).
type local struct {
	keep  *hardware.Keep
	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	turns turns
}

func (p *local) Start(env world.Env, site *hardware.Site, models Models) error {
	p.env, p.site, p.model, p.turns = env, site, models.Main, turns{}
	return hardware.Needs("pipeline local: device", site.User(0).Device, hardware.Prefill, hardware.Decode)
}

func (p *local) Handle(req *workloads.Request, log *record.Request) error {
	dev := p.site.User(req.User).Device
	turn := p.turns.of(p.env, dev)
	turn.Acquire()
	defer turn.Release()
	log.Sent = p.env.Now()

	op := hardware.Op{Kind: hardware.Prefill, Model: p.model, Layers: p.model.All(), Keep: p.keep,
		Seqs: []hardware.Seq{{ID: int64(req.ID), New: req.PromptTokens, Tokens: req.Prompt}}}
	return alone(dev, &op, req.OutputTokens, log, func(out hardware.Out, u hardware.Usage) {
		emit(log, u, out.Token)
	})
}

// alone runs a prompt and its answer on a device, and hands out the tokens.
func alone(dev hardware.Device, op *hardware.Op, limit int, log *record.Request, token func(hardware.Out, hardware.Usage)) error {
	defer drop(dev, op)
	for made := 1; ; made++ {
		res, err := dev.Run(op)
		if err != nil {
			return err
		}
		out := res.Seqs[0]
		log.Spent(record.Compute, "device", res.Usage.Start, res.Usage.End)
		note(log, record.DevicePart, res.Usage, 1)
		token(out, res.Usage)
		if out.End || made >= limit {
			return nil
		}
		next(op, out.Token)
	}
}

// next turns an operation on one sequence into the decode step that follows it.
func next(op *hardware.Op, token int32) {
	s := &op.Seqs[0]
	op.Kind = hardware.Decode
	s.Context += s.New
	s.New = 1
	s.Tokens, s.In = s.Tokens[:0:0], hardware.Payload{}
	if token != hardware.NoToken {
		s.Tokens = []int32{token}
	}
}

// drop frees the sequences' KV caches; it cannot fail in a way that matters to
// a request that is over.
func drop(dev hardware.Device, op *hardware.Op) {
	op.Kind = hardware.Drop
	_, _ = dev.Run(op)
}

// turns lets a user's device serve one request at a time, first come, first
// served, as an on-device engine with one slot does.
type turns map[hardware.Device]*world.Slots

func (t turns) of(env world.Env, d hardware.Device) *world.Slots {
	s, ok := t[d]
	if !ok {
		s = world.NewSlots(env, 1)
		t[d] = s
	}
	return s
}

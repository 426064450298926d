package pipeline

import (
	"fmt"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/workloads"
)

var exitEntry = Entry{
	Name: "exit", Doc: "tokens leave the model early where it is sure; the others go on, on the device or at the edge",
	Ops: "device: prefill, decode with early exit; rest at the edge: prefill, decode on a span of layers",
	Params: with(serverParams, []Param{
		{Name: "threshold", Default: 0.9, Min: 0, Max: 2, Doc: "confidence from which a token leaves; 0 = always, above 1 = never"},
		{Name: "measure", Names: []string{"maxprob", "margin", "entropy"}, Doc: "of confidence"},
		{Name: "first", Default: 0.5, Min: 0, Max: 10_000, Doc: "layers before the first exit; below 1 a share of the depth"},
		{Name: "every", Default: 1, Min: 1, Max: 10_000, Doc: "layers between exits"},
		{Name: "rest", Names: []string{"device", "edge"}, Doc: "where unsure tokens go on; with edge the device holds the layers below the first exit only"},
		{Name: "wire", Names: wires, Doc: "rest edge: codec of the activations"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "rest edge: bytes on the wire per token id"},
	}),
	New: func(p Params) Pipeline {
		measures := map[string]hardware.Measure{"maxprob": hardware.MaxProb, "margin": hardware.Margin, "entropy": hardware.Entropy}
		return &exit{rule: hardware.Exit{Threshold: p.Num("threshold"), Measure: measures[p.Name("measure")]}, first: p.Num("first"), every: p.Int("every"),
			away: p.Name("rest") == "edge", wire: p.Name("wire"), tokenBytes: p.Num("token_bytes"), options: serverOptions(p)}
	},
}

// exit lets a token leave where the shared head is sure enough (checklist I11;
// BranchyNet; CALM, NeurIPS'22, for the caches of skipped layers). With the rest
// at the edge the device holds the lower layers and a head; a token that stays
// unsure goes up as activations, and with it those of the tokens since the last
// time, so that the edge has everybody's keys and values (CE-CoLLM, arXiv 2411.02829).
type exit struct {
	rule              hardware.Exit
	first, tokenBytes float64
	every             int
	away              bool
	wire              string
	options           serving.Options

	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	at    cuts
	edge  *serving.Server
	turns turns
}

func (p *exit) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.turns = env, site, models.Main, turns{}
	if p.at, err = cutsOf(p.model, p.first, 0); err != nil {
		return fmt.Errorf("pipeline exit: %w", err)
	}
	p.rule.Layers = []int{p.at.below.Hi}
	if err := hardware.Needs("pipeline exit: device", site.User(0).Device, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	if p.away {
		p.edge, err = serveFirst("exit", env, site, p.options, serving.Held{Model: p.model, Span: p.at.above})
		return err
	}
	for l := p.at.below.Hi + p.every; l < p.model.Layers; l += p.every {
		p.rule.Layers = append(p.rule.Layers, l)
	}
	p.at.below = p.model.All()
	return nil
}

func (p *exit) Handle(req *workloads.Request, log *record.Request) error {
	user := p.site.User(req.User)
	turn := p.turns.of(p.env, user.Device)
	turn.Acquire()
	defer turn.Release()
	log.Sent = p.env.Now()
	r := &climb{p: p, passage: passage{user: user, site: p.site, model: p.model, at: p.at, wire: p.wire, tokenBytes: p.tokenBytes, log: log}}
	r.seq = hardware.Seq{ID: int64(req.ID), New: req.PromptTokens, Tokens: req.Prompt}
	if p.away {
		r.node = p.edge.Name()
		r.edge = p.edge.Open(r.seq.ID, serving.Held{Model: p.model, Span: p.at.above}, req.PromptTokens+req.OutputTokens)
		defer r.edge.Close()
	}
	defer drop(user.Device, &hardware.Op{Model: p.model, Layers: p.at.below, Seqs: []hardware.Seq{{ID: r.seq.ID}}})
	for kind := hardware.Prefill; ; kind = hardware.Decode {
		out, err := r.step(kind)
		if err != nil {
			return err
		}
		if out.End || log.OutputTokens >= req.OutputTokens {
			return nil
		}
		follow(&r.seq, out.Token)
	}
}

// climb is one request's way up the layers.
type climb struct {
	passage
	p       *exit
	pending []hardware.Payload // activations that the edge has not seen
	tokens  int                // of them
	seen    int                // tokens in the edge's cache
}

// step makes one token. The first one, from the prompt, runs all layers.
func (r *climb) step(kind hardware.Kind) (hardware.Out, error) {
	op := hardware.Op{Kind: kind, Model: r.model, Layers: r.at.below, Seqs: []hardware.Seq{r.seq}, Wire: r.wire}
	if kind == hardware.Decode {
		op.Exit = &r.p.rule
	}
	res, err := r.user.Device.Run(&op)
	if err != nil {
		return hardware.Out{}, err
	}
	r.log.Spent(record.Compute, "device", res.Usage.Start, res.Usage.End)
	note(r.log, record.DevicePart, res.Usage, 1)
	out := res.Seqs[0]
	left := out.Depth > 0
	depth := r.model.Layers
	if left {
		depth = out.Depth
	}
	r.log.Count(record.LayersRun, int64(depth))
	r.log.Count(record.LayersFull, int64(r.model.Layers))
	if r.p.away {
		r.pending, r.tokens = append(r.pending, out.Hidden), r.tokens+r.seq.New
		if !left {
			return r.rest()
		}
	}
	emit(r.log, res.Usage, out.Token)
	return out, nil
}

// rest sends what the edge has not seen and gets the token.
func (r *climb) rest() (hardware.Out, error) {
	r.log.Count(record.Escalated, 1)
	var load hardware.Payload
	for _, p := range r.pending {
		load.Bytes += p.Bytes
		load.Data = append(load.Data, p.Data...)
	}
	r.pending = r.pending[:0]
	up, err := r.user.Up.Send(load)
	if err != nil {
		return hardware.Out{}, err
	}
	sent(r.log, up, true)
	r.log.DerivedBytesOut += load.Bytes
	r.log.Spent(record.Transfer, "up", up.Usage.Start, up.Usage.End)
	kind := hardware.Prefill
	if r.tokens == 1 {
		kind = hardware.Decode
	}
	out, used, err := r.edge.Step(serving.Step{Kind: kind, Seq: hardware.Seq{Context: r.seen, New: r.tokens, In: up.Payload}, Wire: r.wire})
	if err != nil {
		return out, err
	}
	r.seen, r.tokens = r.seen+r.tokens, 0
	ran(r.log, r.node, used)
	settle(r.log, r.edge)
	return r.home(kind, out, used)
}

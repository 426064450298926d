package pipeline

import (
	"fmt"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/workloads"
)

var splitEntry = Entry{
	Name: "split", Doc: "lower layers on the device, upper layers at the edge; activations up, token ids down; with a tail, the top is on the device again (U-shape)",
	Ops: "device and edge: prefill, decode on a span of layers",
	Params: with(serverParams, adaptParams, []Param{
		{Name: "cut", Default: 0.5, Min: 0, Max: 10_000, Doc: "layers on the device; below 1 a share of the depth"},
		{Name: "tail", Default: 0, Min: 0, Max: 10_000, Doc: "last layers that run on the device too, with the head: neither prompt nor answer leave it; 0 = none"},
		{Name: "wire", Names: wires, Doc: "codec of the activations on the links"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per token id"},
	}),
	New: func(p Params) Pipeline {
		return &split{cut: p.Num("cut"), tail: p.Int("tail"), wire: p.Name("wire"), tokenBytes: p.Num("token_bytes"), options: serverOptions(p), params: p}
	},
}

// split cuts the model at one or two layers. The device embeds and runs the
// layers below the cut, the edge those above; without a tail the edge also has
// the head and sends the token id down, with one the activations come back and
// the device runs the last layers and the head. Neither prompt nor sensor data
// leave the device; activations do. Each side keeps the KV cache of its own
// layers (checklist I4; Neurosurgeon, ASPLOS'17, for the cut; HAT, arXiv
// 2503.18989, for the U-shape).
type split struct {
	cut, tokenBytes float64
	tail            int
	wire            string
	options         serving.Options
	params          Params
	pilot           *pilot // nil: every request is cut at the same layer

	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	edge  *serving.Server
	at    cuts
	turns turns
}

// cuts are the spans of a split model: on the device, at the edge, and, if not
// empty, on the device again.
type cuts struct{ below, above, top hardware.Span }

// cutsOf resolves a cut, which may be a share of the depth, and a tail.
func cutsOf(m *hardware.Model, cut float64, tail int) (cuts, error) {
	k := int(cut)
	if cut < 1 {
		k = int(cut * float64(m.Layers))
	}
	k = max(k, 1)
	if k+tail >= m.Layers {
		return cuts{}, fmt.Errorf("cut %d and tail %d leave no layer to the edge: model %q has %d; use pipeline local instead", k, tail, m.Name, m.Layers)
	}
	return cuts{hardware.Span{Hi: k}, hardware.Span{Lo: k, Hi: m.Layers - tail}, hardware.Span{Lo: m.Layers - tail, Hi: m.Layers}}, nil
}

func (p *split) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.turns = env, site, models.Main, turns{}
	if p.at, err = cutsOf(p.model, p.cut, p.tail); err != nil {
		return fmt.Errorf("pipeline split: %w", err)
	}
	if err := hardware.Needs("pipeline split: device", site.User(0).Device, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	held := serving.Held{Model: p.model, Span: p.at.above}
	if p.pilot = newPilot(p.params, p.model, p.wire); p.pilot != nil {
		if held.Span.Lo = 1; p.tail > 0 {
			return fmt.Errorf("pipeline split: adapt %s with tail %d: only a split in two parts follows the link", p.pilot.how, p.tail)
		}
	}
	p.edge, err = serveFirst("split", env, site, p.options, held)
	return err
}

// cutFor is where a request is cut.
func (p *split) cutFor(user *hardware.User) cuts {
	at := p.at
	if p.pilot != nil {
		k := p.pilot.cut(user, at.below.Hi)
		at.below.Hi, at.above.Lo = k, k
	}
	return at
}

func (p *split) Handle(req *workloads.Request, log *record.Request) error {
	user := p.site.User(req.User)
	turn := p.turns.of(p.env, user.Device)
	turn.Acquire()
	defer turn.Release()
	log.Sent = p.env.Now()

	r := &passage{user: user, site: p.site, model: p.model, at: p.cutFor(user), pilot: p.pilot, wire: p.wire, tokenBytes: p.tokenBytes, log: log, node: p.edge.Name()}
	r.seq = hardware.Seq{ID: int64(req.ID), New: req.PromptTokens, Tokens: req.Prompt}
	if r.at.above.Len() > 0 {
		r.edge = p.edge.Open(r.seq.ID, serving.Held{Model: p.model, Span: r.at.above}, req.PromptTokens+req.OutputTokens)
	}
	defer r.close()
	began := p.env.Now()
	err := r.answer(req.OutputTokens)
	if err == nil && p.pilot != nil {
		p.pilot.over(req, log, r.at.below.Hi, p.env.Now()-began)
	}
	return err
}

// passage is one request's way through a split model.
type passage struct {
	user       *hardware.User
	site       *hardware.Site
	model      *hardware.Model
	at         cuts
	wire       string
	tokenBytes float64
	edge       *serving.Session // nil: the device has all layers
	node       string
	log        *record.Request
	seq        hardware.Seq
	pilot      *pilot
}

// answer makes tokens until the answer ends.
func (r *passage) answer(limit int) error {
	for kind := hardware.Prefill; ; kind = hardware.Decode {
		out, err := r.step(kind)
		if err != nil {
			return err
		}
		if out.End || r.log.OutputTokens >= limit {
			return nil
		}
		follow(&r.seq, out.Token)
	}
}

// step makes one token: device, uplink, edge, downlink, and with a tail the
// device again.
func (r *passage) step(kind hardware.Kind) (hardware.Out, error) {
	out, err := r.onDevice(kind, r.at.below, r.seq)
	if err != nil {
		return out, err
	}
	if r.at.above.Len() == 0 {
		emit(r.log, hardware.Usage{End: r.log.Reached()}, out.Token)
		return out, nil
	}
	up, err := r.user.Up.Send(out.Hidden)
	if err != nil {
		return out, err
	}
	sent(r.log, up, true)
	r.log.DerivedBytesOut += out.Hidden.Bytes
	r.log.Spent(record.Transfer, "up", up.Usage.Start, up.Usage.End)

	at := r.seq
	at.Tokens, at.In = nil, up.Payload
	out, used, err := r.edge.Step(serving.Step{Kind: kind, Seq: at, Wire: r.wire})
	if err != nil {
		return out, err
	}
	ran(r.log, r.node, used)
	settle(r.log, r.edge)
	if r.pilot != nil {
		r.pilot.sent(r.user, up)
		r.pilot.passed(&r.pilot.edge, &r.seq, r.at.above.Len(), used)
	}
	return r.home(kind, out, used)
}

// home brings a result of the edge to the user.
func (r *passage) home(kind hardware.Kind, out hardware.Out, used hardware.Usage) (hardware.Out, error) {
	load := out.Hidden
	if r.at.top.Len() == 0 {
		load = tokenPayload(out.Token, r.tokenBytes)
	}
	down, err := r.user.Down.Send(load)
	if err != nil {
		return out, err
	}
	sent(r.log, down, false)
	r.log.Spent(record.Transfer, "down", left(used, down.Usage), down.Usage.End)
	if r.at.top.Len() == 0 {
		if down.Payload.Data != nil {
			out.Token = decodeTokens(down.Payload.Data)[0]
		}
		emit(r.log, down.Usage, out.Token)
		return out, nil
	}
	seq := r.seq
	seq.Tokens, seq.In = nil, down.Payload
	out, err = r.onDevice(kind, r.at.top, seq)
	if err == nil {
		emit(r.log, hardware.Usage{End: r.log.Reached()}, out.Token)
	}
	return out, err
}

// onDevice runs a span on the user's device.
func (r *passage) onDevice(kind hardware.Kind, span hardware.Span, seq hardware.Seq) (hardware.Out, error) {
	seqs := [1]hardware.Seq{seq}
	op := hardware.Op{Kind: kind, Model: r.model, Layers: span, Seqs: seqs[:], Wire: r.wire}
	res, err := r.user.Device.Run(&op)
	if err != nil {
		return hardware.Out{}, err
	}
	r.log.Spent(record.Compute, "device", res.Usage.Start, res.Usage.End)
	note(r.log, record.DevicePart, res.Usage, 1)
	if r.pilot != nil {
		r.pilot.passed(&r.pilot.device, &r.seq, span.Len(), res.Usage)
	}
	return res.Seqs[0], nil
}

// close frees what the request holds on both sides.
func (r *passage) close() {
	for _, span := range []hardware.Span{r.at.below, r.at.top} {
		if span.Len() > 0 {
			drop(r.user.Device, &hardware.Op{Model: r.model, Layers: span, Seqs: []hardware.Seq{r.seq}})
		}
	}
	if r.edge != nil {
		r.edge.Close()
	}
}

// settle moves what a session spent since the last call to the request.
func settle(log *record.Request, s *serving.Session) {
	flop, energy, source := s.Take()
	log.FLOP += flop
	log.Spend(record.EdgePart, energy, uint8(source))
}

// follow turns a sequence that was run into the decode step that comes next.
func follow(s *hardware.Seq, token int32) {
	s.Context += s.New
	s.New = 1
	s.Tokens, s.In = nil, hardware.Payload{}
	if token != hardware.NoToken {
		s.Tokens = []int32{token}
	}
}

// idsPayload is n token ids on a wire.
func idsPayload(ids []int32, n int, bytes float64) hardware.Payload {
	d := hardware.Payload{Bytes: units.Bytes(float64(n) * bytes), Tokens: n, Data: encodeTokens(ids)}
	d.Bytes = max(d.Bytes, units.Bytes(len(d.Data)))
	return d
}

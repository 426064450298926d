package pipeline

import (
	"slices"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/workloads"
)

var consultEntry = Entry{
	Name: "consult", Doc: "the small model writes on the device and asks the model at the edge for each token that it is unsure of",
	Ops: "device: prefill, decode of the small model; edge: prefill, decode", Two: true,
	Params: with(serverParams, []Param{
		{Name: "threshold", Default: 0.8, Min: 0, Max: 2, Doc: "confidence from which the small model's token stands; 0 = always, above 1 = never"},
		{Name: "id_bytes", Default: 4, Min: 1, Max: 64, Doc: "bytes on the wire per token id"},
	}),
	New: func(p Params) Pipeline {
		return &consult{threshold: p.Num("threshold"), idBytes: p.Num("id_bytes"), options: serverOptions(p)}
	},
}

// consult routes token by token (checklist I9; the fallback of BiLD, arXiv
// 2302.07863, and the skipped uploads of U-HLM, arXiv 2412.12687). A token whose
// confidence on the device is too low is replaced by the model's; what was written
// since the last question goes up with the question, so that the edge has the
// whole text. Nothing is rolled back: the answer is neither model's alone.
type consult struct {
	threshold, idBytes float64
	options            serving.Options

	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	small *hardware.Model
	edge  *serving.Server
	turns turns
}

func (p *consult) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.small, p.turns = env, site, models.Main, models.Small, turns{}
	if err := hardware.Needs("pipeline consult: device", site.User(0).Device, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	p.edge, err = serveFirst("consult", env, site, p.options, serving.Held{Model: p.model, Span: p.model.All()})
	return err
}

func (p *consult) Handle(req *workloads.Request, log *record.Request) error {
	user := p.site.User(req.User)
	turn := p.turns.of(p.env, user.Device)
	turn.Acquire()
	defer turn.Release()
	log.Sent = p.env.Now()
	t := &talk{p: p, user: user, req: req, log: log, text: slices.Clone(req.Prompt), total: req.PromptTokens}
	t.edge = p.edge.Open(int64(req.ID), serving.Held{Model: p.model, Span: p.model.All()}, req.PromptTokens+req.OutputTokens)
	defer t.edge.Close()
	seq := hardware.Seq{ID: draftID(req), New: req.PromptTokens, Tokens: req.Prompt}
	op := hardware.Op{Kind: hardware.Prefill, Model: p.small, Layers: p.small.All(), Seqs: []hardware.Seq{seq}}
	defer drop(user.Device, &op)
	for {
		out, u, err := t.write(&op)
		if err == nil && !(p.threshold == 0 || out.Confidence >= p.threshold) {
			out, u, err = t.ask()
		}
		if err != nil {
			return err
		}
		emit(log, u, out.Token)
		t.total++
		if out.Token == hardware.NoToken { // a device that knows sizes only
			t.text = nil
		}
		if t.text != nil {
			t.text = append(t.text, out.Token)
		}
		if out.End || log.OutputTokens >= req.OutputTokens {
			return nil
		}
		next(&op, out.Token)
	}
}

// talk is one request's text and who has seen how much of it.
type talk struct {
	p     *consult
	user  *hardware.User
	req   *workloads.Request
	log   *record.Request
	edge  *serving.Session
	text  []int32
	total int
	seen  int // tokens in the edge's cache
}

// write makes the next token on the device.
func (t *talk) write(op *hardware.Op) (hardware.Out, hardware.Usage, error) {
	res, err := t.user.Device.Run(op)
	if err != nil {
		return hardware.Out{}, hardware.Usage{}, err
	}
	t.log.Spent(record.Compute, "device", res.Usage.Start, res.Usage.End)
	note(t.log, record.DevicePart, res.Usage, 1)
	return res.Seqs[0], res.Usage, nil
}

// ask gets the next token from the edge, which is told what it has not seen.
func (t *talk) ask() (hardware.Out, hardware.Usage, error) {
	t.log.Count(record.Escalated, 1)
	seq := hardware.Seq{Context: t.seen, New: t.total - t.seen}
	news := hardware.Payload{Bytes: units.Bytes(float64(seq.New) * t.p.idBytes)}
	if t.text != nil {
		seq.Tokens = append([]int32(nil), t.text[t.seen:]...)
		news = idsPayload(seq.Tokens, seq.New, t.p.idBytes)
		news.Tokens = 0
	}
	if t.seen == 0 { // the prompt itself, as raw data
		news = promptPayload(t.req)
		news.Bytes += units.Bytes(float64(t.total-t.req.PromptTokens) * t.p.idBytes)
		news.Data = nil
		t.log.RawBytesOut += news.Bytes
	} else {
		t.log.DerivedBytesOut += news.Bytes
	}
	up, err := t.user.Up.Send(news)
	if err != nil {
		return hardware.Out{}, up.Usage, err
	}
	sent(t.log, up, true)
	t.log.Spent(record.Transfer, "up", up.Usage.Start, up.Usage.End)
	kind := hardware.Prefill
	if seq.New == 1 {
		kind = hardware.Decode
	}
	out, used, err := t.edge.Step(serving.Step{Kind: kind, Seq: seq})
	if err != nil {
		return out, used, err
	}
	t.seen = t.total
	ran(t.log, t.p.edge.Name(), used)
	settle(t.log, t.edge)
	down, err := t.user.Down.Send(tokenPayload(out.Token, t.p.idBytes))
	if err != nil {
		return out, down.Usage, err
	}
	sent(t.log, down, false)
	t.log.Spent(record.Transfer, "down", left(used, down.Usage), down.Usage.End)
	return out, down.Usage, nil
}

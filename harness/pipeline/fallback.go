package pipeline

import (
	"errors"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/workloads"
)

var fallbackEntry = Entry{
	Name: "fallback", Doc: "the edge answers as in offload; if it or the link fails, the device goes on where the answer stopped",
	Ops: "edge: prefill, decode; device: prefill, decode",
	Params: with(serverParams, []Param{
		{Name: "notice_ms", Default: 100, Min: 0, Max: 1e6, Doc: "time until the user knows that the edge node is dead (assumed); a dead link has a timeout of its own"},
		{Name: "retry_ms", Default: 1000, Min: 0, Max: 1e9, Doc: "time after a failure in which requests do not try the edge"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
	}),
	New: func(p Params) Pipeline {
		return &fallback{options: serverOptions(p), desk: desk{tokenBytes: p.Num("token_bytes")},
			notice: units.Seconds(p.Num("notice_ms") / 1e3), retry: units.Seconds(p.Num("retry_ms") / 1e3)}
	},
}

// fallback asks the edge first. When the edge node or the link fails, the user's
// device computes the prompt and what has arrived of the answer, and goes on. Both
// hold the same model, so the answer is the one that either gives alone.
type fallback struct {
	options       serving.Options
	notice, retry time.Duration
	desk          desk

	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	turns turns
	until time.Duration // the edge is not asked before
}

func (p *fallback) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.turns = env, site, models.Main, turns{}
	if err := hardware.Needs("pipeline fallback: device", site.User(0).Device, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	p.desk.held = serving.Held{Model: p.model, Span: p.model.All()}
	p.desk.srv, err = serveFirst("fallback", env, site, p.options, p.desk.held)
	return err
}

func (p *fallback) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	user := p.site.User(req.User)
	if p.env.Now() >= p.until {
		err := p.desk.answer(user, req, log)
		switch {
		case errors.Is(err, hardware.ErrDown):
			p.env.Sleep(p.notice)
			log.Spent(record.Wait, "", log.Reached(), p.env.Now())
		case !errors.Is(err, hardware.ErrLinkDown):
			return err // nil, or what no other place would do better
		}
		p.until = p.env.Now() + p.retry
		log.Count(record.Retries, 1)
	}
	return p.here(user, req, log)
}

// here makes what is missing of the answer on the user's device.
func (p *fallback) here(user *hardware.User, req *workloads.Request, log *record.Request) error {
	have := log.OutputTokens
	if have >= req.OutputTokens {
		return nil
	}
	turn := p.turns.of(p.env, user.Device)
	turn.Acquire()
	defer turn.Release()
	seq := hardware.Seq{ID: int64(req.ID), New: req.PromptTokens + have}
	log.Output = log.Output[:min(have, len(log.Output))] // the edge may have made tokens that never arrived
	if len(log.Output) == have {
		seq.Tokens = slices.Concat(req.Prompt, log.Output) // nil if nobody knows the prompt
	}
	op := hardware.Op{Kind: hardware.Prefill, Model: p.model, Layers: p.model.All(), Seqs: []hardware.Seq{seq}}
	return alone(user.Device, &op, req.OutputTokens-have, log, func(out hardware.Out, u hardware.Usage) {
		emit(log, u, out.Token)
	})
}

// Figures are those of the server.
func (p *fallback) Figures() map[string]float64 { return p.desk.srv.Figures() }

package pipeline

import (
	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/rng"
	"meibench/workloads"
)

var routeEntry = Entry{
	Name: "route", Doc: "each request goes to the small model on the device or to the model at the edge, before anybody has answered",
	Ops: "device: prefill, decode of the small model; edge: prefill, decode", Two: true,
	Params: with(serverParams, []Param{
		{Name: "router", Names: []string{"trained", "random"}, Doc: "a logistic regression on the prompt, fitted to the train split of the tasks; or chance"},
		{Name: "share", Default: 0.5, Min: 0, Max: 1, Doc: "of requests that go to the edge, by the router's scores on the train split"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
	}),
	New: func(p Params) Pipeline {
		return &router{share: p.Num("share"), random: p.Name("router") == "random", tokenBytes: p.Num("token_bytes"), options: serverOptions(p)}
	},
}

// router sends a request to one of two models by a score of how much it needs the
// large one (checklist I9; RouteLLM, arXiv 2406.18665; Hybrid LLM, ICLR'24).
// Scoring a prompt is a dot product: its time is not counted.
type router struct {
	share, tokenBytes float64
	random            bool
	options           serving.Options

	env   world.Env
	site  *hardware.Site
	small *hardware.Model
	score func(*workloads.Request) float64 // uniform on [0, 1] over the train split: above 1-share goes up
	desk  desk
	turns turns
}

func (p *router) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.small, p.turns, p.score = env, site, models.Small, turns{}, models.Router
	if p.random || p.score == nil { // sizes only: there is no prompt to look at
		key := rng.NewKey(1, "route")
		p.score = func(req *workloads.Request) float64 {
			luck := key.At(uint64(req.ID))
			return luck.Float64()
		}
	}
	if err := hardware.Needs("pipeline route: device", site.User(0).Device, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	p.desk = desk{held: serving.Held{Model: models.Main, Span: models.Main.All()}, tokenBytes: p.tokenBytes}
	p.desk.srv, err = serveFirst("route", env, site, p.options, p.desk.held)
	return err
}

func (p *router) Handle(req *workloads.Request, log *record.Request) error {
	user := p.site.User(req.User)
	if p.share > 0 && p.score(req) >= 1-p.share {
		log.Count(record.Escalated, 1)
		log.Sent = p.env.Now()
		return p.desk.answer(user, req, log)
	}
	turn := p.turns.of(p.env, user.Device)
	turn.Acquire()
	defer turn.Release()
	log.Sent = p.env.Now()
	op := hardware.Op{Kind: hardware.Prefill, Model: p.small, Layers: p.small.All(),
		Seqs: []hardware.Seq{{ID: draftID(req), New: req.PromptTokens, Tokens: req.Prompt}}}
	return alone(user.Device, &op, req.OutputTokens, log, func(out hardware.Out, u hardware.Usage) {
		emit(log, u, out.Token)
	})
}

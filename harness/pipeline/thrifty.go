package pipeline

import (
	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/workloads"
)

var thriftyEntry = Entry{
	Name: "thrifty", Doc: "on the user's device as in local; to the edge as in offload while its battery is low or it is hot",
	Ops: "device: prefill, decode; edge: prefill, decode",
	Params: with(serverParams, []Param{
		{Name: "low", Default: 0.2, Min: 0, Max: 1, Doc: "share of the battery's charge at or below which requests go to the edge"},
		{Name: "hot", Default: 1, Min: 0, Max: 100, Doc: "heat at or above which requests go to the edge: 0 = cool, 1 = throttling begins (a simple thermal law: is complete)"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
	}),
	New: func(p Params) Pipeline {
		return &thrifty{options: serverOptions(p), low: p.Num("low"), hot: p.Num("hot"), desk: desk{tokenBytes: p.Num("token_bytes")}}
	},
}

// thrifty looks at the user's device when a request comes (checklist D8): one whose
// battery is low or that is hot is spared. Both places hold the same model. A
// device that cannot tell, or has no battery and no thermal part, does all the work.
type thrifty struct {
	options  serving.Options
	low, hot float64
	desk     desk
	here     local
}

func (p *thrifty) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	if err = p.here.Start(env, site, models); err != nil {
		return err
	}
	p.desk.held = serving.Held{Model: models.Main, Span: models.Main.All()}
	p.desk.srv, err = serveFirst("thrifty", env, site, p.options, p.desk.held)
	return err
}

func (p *thrifty) Handle(req *workloads.Request, log *record.Request) error {
	user := p.here.site.User(req.User)
	if !p.spare(user.Device) {
		return p.here.Handle(req, log)
	}
	log.Sent = p.here.env.Now()
	return p.desk.answer(user, req, log)
}

// spare says whether a device should be spared.
func (p *thrifty) spare(d hardware.Device) bool {
	v, ok := d.(hardware.Vital)
	if !ok {
		return false
	}
	if charge, ok := v.Battery(); ok && charge <= p.low {
		return true
	}
	h := v.Heat()
	return h > 0 && h >= p.hot
}

// Figures are those of the server.
func (p *thrifty) Figures() map[string]float64 { return p.desk.srv.Figures() }

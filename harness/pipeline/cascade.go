package pipeline

import (
	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/workloads"
)

var cascadeEntry = Entry{
	Name: "cascade", Doc: "the small model answers on the device; what it is not sure of, the model answers at the edge",
	Ops: "device: prefill, decode of the small model; edge: prefill, decode", Two: true,
	Params: with(serverParams, []Param{
		{Name: "threshold", Default: 0.9, Min: 0, Max: 2, Doc: "confidence from which the small model's answer stands; 0 = always, above 1 = never"},
		{Name: "score", Names: []string{"mean", "min"}, Doc: "of the tokens' probabilities, the confidence in an answer"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
	}),
	New: func(p Params) Pipeline {
		return &cascade{threshold: p.Num("threshold"), least: p.Name("score") == "min", tokenBytes: p.Num("token_bytes"), options: serverOptions(p)}
	},
}

// cascade asks the small model first and escalates by its confidence in the whole
// answer (checklist I9; FrugalGPT, TMLR'24, with confidence as the scorer). The
// user sees nothing before the decision: an answer that stands comes in one piece.
type cascade struct {
	threshold, tokenBytes float64
	least                 bool
	options               serving.Options

	env   world.Env
	site  *hardware.Site
	small *hardware.Model
	desk  desk
	turns turns
}

func (p *cascade) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.small, p.turns = env, site, models.Small, turns{}
	if err := hardware.Needs("pipeline cascade: device", site.User(0).Device, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	p.desk = desk{held: serving.Held{Model: models.Main, Span: models.Main.All()}, tokenBytes: p.tokenBytes}
	p.desk.srv, err = serveFirst("cascade", env, site, p.options, p.desk.held)
	return err
}

func (p *cascade) Handle(req *workloads.Request, log *record.Request) error {
	user := p.site.User(req.User)
	sure := false
	if p.threshold <= 1 {
		var err error
		if sure, err = p.try(user, req, log); err != nil {
			return err
		}
	}
	if sure {
		return nil
	}
	log.Count(record.Escalated, 1)
	if log.Sent == record.Unset {
		log.Sent = p.env.Now()
	}
	log.Output = log.Output[:0]
	return p.desk.answer(user, req, log)
}

// try has the small model answer; the answer counts if it is sure enough.
func (p *cascade) try(user *hardware.User, req *workloads.Request, log *record.Request) (bool, error) {
	turn := p.turns.of(p.env, user.Device)
	turn.Acquire()
	defer turn.Release()
	log.Sent = p.env.Now()
	op := hardware.Op{Kind: hardware.Prefill, Model: p.small, Layers: p.small.All(),
		Seqs: []hardware.Seq{{ID: draftID(req), New: req.PromptTokens, Tokens: req.Prompt}}}
	n, sum, least := 0, 0.0, 2.0
	err := alone(user.Device, &op, req.OutputTokens, log, func(out hardware.Out, _ hardware.Usage) {
		n++
		sum += out.Confidence
		least = min(least, out.Confidence)
		if out.Token != hardware.NoToken {
			log.Output = append(log.Output, out.Token)
		}
	})
	score := sum / float64(n)
	if p.least {
		score = least
	}
	if err != nil || p.threshold > 0 && !(score >= p.threshold) { // a confidence nobody knows is not enough
		return false, err
	}
	log.Token(log.Reached(), n)
	return true, nil
}

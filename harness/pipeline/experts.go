package pipeline

import (
	"errors"
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/codec"
	"meibench/workloads"
)

var expertsEntry = Entry{
	Name: "experts", Doc: "a mixture of experts: attention and gate at the first edge node, experts there and on nodes around it; modelled",
	Ops: "edge: prefill, decode; nodes: prefill of experts",
	Params: with(serverParams, []Param{
		{Name: "local", Default: -1, Min: -1, Max: 1000, Doc: "experts of each layer that the first edge node holds; -1 = an even share"},
		{Name: "cache", Default: 0, Min: 0, Max: 1000, Doc: "experts of each layer that it can hold besides, the least recently used leave first; weights that moved stay there"},
		{Name: "move", Names: []string{"activation", "best", "weight"}, Doc: "what moves for an expert that is elsewhere: the tokens' states and back, its weights, or whichever are fewer bytes (Fiddler)"},
		{Name: "choice", Names: []string{"uniform", "zipf"}, Doc: "how popular experts are"},
		{Name: "skew", Default: 1, Min: 0, Max: 3, Doc: "choice zipf: exponent"},
		{Name: "drop_ms", Default: 0, Min: 0, Max: 1e6, Doc: "skip a chosen expert whose node takes longer than this for one token, but never a token's quickest (after WDMoE); 0 = never"},
		{Name: "wire", Names: wires[:4], Doc: "codec of the tokens' states between the nodes"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
	}),
	New: func(p Params) Pipeline {
		return &experts{options: serverOptions(p), local: p.Int("local"), cache: p.Int("cache"), move: p.Name("move"), skew: skewOf(p),
			dropAfter: time.Duration(p.Num("drop_ms") * 1e6), wire: p.Name("wire"), tokenBytes: p.Num("token_bytes")}
	},
}

func skewOf(p Params) float64 {
	if p.Name("choice") == "uniform" {
		return 0
	}
	return p.Num("skew")
}

// experts serves a mixture of experts from a base station with helpers (checklist
// I7; WDMoE, arXiv 2405.03131, by idea). The station runs attention and gate and the
// experts that it has; for the others the states of the tokens travel there and
// back, layer by layer, and a layer lasts as long as its slowest expert. As in
// pipeline parallel, the layers of a step are one message and one operation a node
// and way, and the step lasts as long as they would take one by one on idle links
// at their median rates. Which experts a token uses is luck of the request, the
// position and the layer. What skipped experts do to the answers is measured in
// reference/shard. A request's counters have one hit or miss for each expert of
// each layer that a step needs.
type experts struct {
	options      serving.Options
	local, cache int
	move         string
	skew         float64
	dropAfter    time.Duration
	wire         string
	tokenBytes   float64

	env     world.Env
	site    *hardware.Site
	model   *hardware.Model
	core    *hardware.Model // without experts; the whole model if all are at the station
	station *serving.Server
	home    int // its place
	roads   *roads
	codec   codec.Codec
	key     rng.Key
	law     []float64 // popularity of experts by rank, summed up
	helpers []helper
	shelves []shelfOfExperts // by layer
	times   map[timed]time.Duration
	chosen  int64
	skipped int64
}

// helper is a node that holds experts of every layer.
type helper struct {
	place  int
	shape  *hardware.Model // all its experts, each as a layer of its own
	single time.Duration   // of one token there and back
}

// timed is what an expert pass of a helper depends on.
type timed struct{ helper, experts, tokens int }

func (p *experts) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.times = env, site, models.Main, map[timed]time.Duration{}
	if p.model.Experts == 0 {
		return fmt.Errorf("pipeline experts: model %q is dense: choose a mixture of experts such as mixtral-8x7b", p.model.Name)
	}
	if p.codec, err = codec.Find(p.wire); err != nil {
		return err
	}
	if p.roads, err = survey(site); err != nil {
		return fmt.Errorf("pipeline experts: %w", err)
	}
	first, _ := site.First(hardware.EdgeRole)
	for i, name := range p.roads.names {
		if i > 0 && name == first.Name {
			p.home = i
		}
	}
	p.key = rng.NewKey(0, "experts")
	p.law = popularity(p.model.Experts, p.skew)
	p.shelves = make([]shelfOfExperts, p.model.Layers)
	if err := p.settle(); err != nil {
		return fmt.Errorf("pipeline experts: %w", err)
	}
	if err := p.room(); err != nil {
		return fmt.Errorf("pipeline experts: %w", err)
	}
	p.station, err = serveFirst("experts", env, site, p.options, serving.Held{Model: p.core, Span: p.core.All()})
	return err
}

// settle places the experts: the first ones at the station, the others in turn on
// the nodes that it reaches.
func (p *experts) settle() error {
	var places []int
	for i := 1; i < len(p.roads.names); i++ {
		if i != p.home && p.roads.next[p.home][i] >= 0 && p.roads.next[i][p.home] >= 0 {
			places = append(places, i)
		}
	}
	if p.local < 0 {
		p.local = (p.model.Experts + len(places)) / (len(places) + 1)
	}
	p.local = min(p.local, p.model.Experts)
	p.core = p.model
	if p.local == p.model.Experts {
		return nil
	}
	if len(places) == 0 {
		return fmt.Errorf("site %q has no node for experts besides %s: set local to %d or choose a site with more nodes", p.site.Name, p.roads.names[p.home], p.model.Experts)
	}
	core := *p.model
	core.Name, core.Digest, core.FFN, core.Experts, core.ExpertsUsed = p.model.Name+" without experts", "", 0, 0, 0
	p.core = &core
	for i, place := range places {
		dev, name := p.roads.devs[place], p.roads.names[place]
		if spec := dev.Spec(); spec.Time != hardware.Modelled {
			return fmt.Errorf("%s is %s: single experts run on modelled devices only; use mode modelled: %w", name, spec.Time, hardware.ErrUnsupported)
		}
		if _, ok := estimator(dev); !ok {
			return fmt.Errorf("%s cannot tell how long an expert takes: %w", name, hardware.ErrUnsupported)
		}
		n := (p.model.Experts - p.local + len(places) - 1 - i) / len(places)
		shape := *p.model
		shape.Name, shape.Digest, shape.Experts, shape.ExpertsUsed, shape.Heads, shape.KVHeads, shape.Vocab = p.model.Name+" experts", "", 0, 0, 0, 0, 0
		shape.Layers = p.model.Layers * max(n, 1)
		p.helpers = append(p.helpers, helper{place: place, shape: &shape})
		h := &p.helpers[i]
		size := p.stateBytes(1)
		h.single = p.roads.time(p.home, place, size) + p.pass(timed{i, 1, 1}) + p.roads.time(place, p.home, size)
	}
	return nil
}

// room refuses experts that do not fit where they are put.
func (p *experts) room() error {
	need := p.model.WeightBytes(p.model.All())
	if p.core != p.model {
		need = p.core.WeightBytes(p.core.All()) + units.Bytes(p.model.Layers*min(p.local+p.cache, p.model.Experts))*p.expertBytes()
	}
	if limit := p.roads.devs[p.home].Spec().Memory; limit > 0 && need > limit {
		return fmt.Errorf("%s would hold %v of %q, it has %v: %w", p.roads.names[p.home], need, p.model.Name, limit, hardware.ErrMemory)
	}
	for _, h := range p.helpers {
		limit, need := p.roads.devs[h.place].Spec().Memory, h.shape.WeightBytes(h.shape.All())
		if limit > 0 && need > limit {
			return fmt.Errorf("%s would hold %v of experts, it has %v: %w", p.roads.names[h.place], need, limit, hardware.ErrMemory)
		}
	}
	return nil
}

// expertBytes is the size of one expert of one layer, stateBytes that of the
// states of so many tokens on the wire.
func (p *experts) expertBytes() units.Bytes {
	return units.Bytes(float64(3*int64(p.model.Dim)*int64(p.model.FFN)) * p.model.BytesPerWeight)
}

func (p *experts) stateBytes(tokens int) units.Bytes {
	return units.Bytes(p.codec.Bytes(tokens, p.model.Dim))
}

// where is the helper of an expert; -1 = the station's own.
func (p *experts) where(expert int) int {
	if expert < p.local {
		return -1
	}
	return (expert - p.local) % len(p.helpers)
}

// pass is what a helper takes for some experts of a layer with so many tokens each.
func (p *experts) pass(t timed) time.Duration {
	took, ok := p.times[t]
	if !ok {
		h := p.helpers[t.helper]
		e, _ := estimator(p.roads.devs[h.place])
		took = e.Estimate(&hardware.Op{Kind: hardware.Prefill, Model: h.shape, Layers: hardware.Span{Hi: t.experts}, Seqs: []hardware.Seq{{New: t.tokens}}})
		p.times[t] = took
	}
	return took
}

func (p *experts) Handle(req *workloads.Request, log *record.Request) error {
	user := p.site.User(req.User)
	log.Sent = p.env.Now()
	prompt, err := raise(user, req, log)
	if err != nil {
		return err
	}

	seq := hardware.Seq{ID: int64(req.ID), New: req.PromptTokens, Tokens: decodeTokens(prompt.Data)}
	s := p.station.Open(seq.ID, serving.Held{Model: p.core, Span: p.core.All()}, req.PromptTokens+req.OutputTokens)
	defer s.Close()
	down := user.Down.Open()
	for kind, n := hardware.Prefill, 0; ; kind = hardware.Decode {
		out, used, e := s.Step(serving.Step{Kind: kind, Seq: seq})
		if err = e; err != nil {
			break
		}
		ran(log, p.station.Name(), used)
		settle(log, s)
		if err = p.mixture(log, &seq, kind); err != nil {
			break
		}
		down.Write(tokenPayload(out.Token, p.tokenBytes))
		if out.Token != hardware.NoToken {
			log.Output = append(log.Output, out.Token)
		}
		if n++; out.End || n >= req.OutputTokens {
			break
		}
		follow(&seq, out.Token)
	}
	down.Close(err)
	last := p.env.Now()
	got, err := down.Drain()
	for _, d := range got {
		log.Token(d.Usage.End, d.Payload.Tokens)
		sent(log, d, false)
	}
	if len(got) > 0 {
		log.Spent(record.Transfer, "down", last, log.LastToken)
	}
	return err
}

// mixture runs the experts of a step: it lasts as long as the layers one by one,
// and helpers and links are busy with what they have to do. If the station has all
// experts, its operation had them in it, and nothing is left to wait for.
func (p *experts) mixture(log *record.Request, seq *hardware.Seq, kind hardware.Kind) error {
	start := p.env.Now()
	w := p.gate(log, seq, kind)
	errs := make([]error, len(p.helpers))
	var jobs []func()
	for i := range p.helpers {
		if h := &w.helpers[i]; h.out+h.back > 0 {
			jobs = append(jobs, func() { errs[i] = p.ask(log, i, h) })
		}
	}
	together(p.env, jobs)
	if left := start + w.takes - p.env.Now(); left > 0 {
		p.env.Sleep(left)
	}
	log.Spent(record.Transfer, "experts", start, p.env.Now())
	return errors.Join(errs...)
}

// ask sends a helper its states, has it run, and gets the results or the weights.
func (p *experts) ask(log *record.Request, i int, w *errand) error {
	h := p.helpers[i]
	user := p.site.User(0)
	if w.out > 0 {
		if _, err := p.roads.carry(user, log, [2]int{p.home, h.place}, hardware.Payload{Bytes: w.out}, false); err != nil {
			return err
		}
	}
	if w.experts > 0 {
		op := hardware.Op{Kind: hardware.Prefill, Model: h.shape, Layers: hardware.Span{Hi: min(w.experts, h.shape.Layers)},
			Seqs: []hardware.Seq{{ID: int64(log.ID), New: max(1, w.tokens/w.experts)}}}
		res, err := p.roads.devs[h.place].Run(&op)
		if err != nil {
			return err
		}
		note(log, record.EdgePart, res.Usage, 1)
		drop(p.roads.devs[h.place], &op)
	}
	_, err := p.roads.carry(user, log, [2]int{h.place, p.home}, hardware.Payload{Bytes: w.back}, false)
	return err
}

// Figures are the bytes between nodes and the share of chosen experts that were skipped.
func (p *experts) Figures() map[string]float64 {
	f := map[string]float64{"backhaul_bytes": float64(p.roads.moved)}
	if p.chosen > 0 {
		f["expert_skip"] = float64(p.skipped) / float64(p.chosen)
	}
	return f
}

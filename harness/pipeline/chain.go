package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/reference/codec"
	"meibench/workloads"
)

var chainEntry = Entry{
	Name: "chain", Doc: "layers spread over the device and several nodes in a row; survives nodes that die",
	Ops: "device and nodes: prefill, decode on a span of layers",
	Params: with(serverParams, []Param{
		{Name: "plan", Names: planNames(), Doc: "how layers are placed: as many everywhere, or from the nodes' times and memories by EdgeShard's programs (latency, throughput), LinguaLinked's, PipeEdge's or a Petals route"},
		{Name: "nodes", Default: 0, Min: 0, Max: 1000, Doc: "most places that may take part, the device included; 0 = all that have a way to each other"},
		{Name: "schedule", Names: []string{"nobubble", "bubble"}, Doc: "bubble: nobody starts a token before all in flight have ended theirs (EdgeShard)"},
		{Name: "recover", Names: []string{"replan", "reroute", "none"}, Doc: "when a node dies: place all layers anew and compute what is lost again; or give its layers to one node and replay what was sent to it (Petals)"},
		{Name: "room", Default: 512, Min: 1, Max: 1 << 24, Doc: "tokens of KV cache, over all sequences, that a plan leaves room for on each node"},
		{Name: "wire", Names: wires[:4], Doc: "codec of the activations between the nodes"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per token id"},
	}),
	New: func(p Params) Pipeline {
		return &chain{options: serverOptions(p), plan: p.Name("plan"), most: p.Int("nodes"), bubble: p.Name("schedule") == "bubble",
			recover: p.Name("recover"), room: p.Int("room"), wire: p.Name("wire"), tokenBytes: p.Num("token_bytes")}
	},
}

// chain spreads the layers over the user's device, which has the first ones, and
// nodes of the site in a row; the token returns to the device (checklist I5;
// EdgeShard, arXiv 2405.14371). Each place batches what requests ask of it, so
// requests in flight are the micro-batches of a pipeline. When a node dies,
// requests go on over a route without it.
type chain struct {
	options    serving.Options
	plan       string
	most, room int
	bubble     bool
	recover    string
	wire       string
	tokenBytes float64

	env     world.Env
	site    *hardware.Site
	model   *hardware.Model
	roads   *roads
	size    units.Bytes // of one token's activations on the wire
	costs   *costs      // nil until it is known
	route   *route      // nil until planned
	mend    *world.Slots
	dead    map[int]time.Duration // places, and since when
	held    [][]bool              // by place, layers in memory since a failure made places load others; nil before
	servers map[serverKey]*serving.Server
	round   barrier
	meter   meter
	worst   time.Duration // longest recovery
	failed  time.Duration // death that no token has followed yet; -1 = none
}

// stage is a span of layers and where it runs.
type stage struct {
	place int
	span  hardware.Span
}

// route is the stages that requests pass. It is stale once a stage is lost.
type route struct {
	stages []stage
	stale  bool
}

type serverKey struct {
	dev  hardware.Device
	span hardware.Span
}

func (p *chain) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.mend = env, site, models.Main, world.NewSlots(env, 1)
	p.dead, p.servers, p.meter, p.failed = map[int]time.Duration{}, map[serverKey]*serving.Server{}, newMeter(), -1
	p.round = barrier{cond: env.NewCond()}
	wire, err := codec.Find(p.wire)
	if err != nil {
		return fmt.Errorf("pipeline chain: %w", err)
	}
	p.size = units.Bytes(wire.Bytes(1, p.model.Dim))
	if p.roads, err = survey(site); err != nil {
		return fmt.Errorf("pipeline chain: %w", err)
	}
	p.roads.find(p.size)
	for i, d := range p.roads.devs {
		if err := hardware.Needs("pipeline chain: "+p.roads.names[i], d, hardware.Prefill, hardware.Decode); err != nil {
			return err
		}
	}
	if p.plan != "even" {
		if p.costs = p.estimates(); p.costs == nil {
			return nil // the first request probes the devices and plans
		}
	}
	if p.route, err = p.planned(); err == nil {
		err = p.load(p.route)
	}
	return err
}

func (p *chain) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	r, err := p.current()
	if err != nil {
		return err
	}
	p.meter.begin(p.env.Now())
	w := &walk{p: p, user: p.site.User(req.User), log: log, id: int64(req.ID), grow: req.PromptTokens + req.OutputTokens,
		tokens: append([]int32(nil), req.Prompt...), total: req.PromptTokens}
	defer func() {
		w.close()
		if p.bubble && log.OutputTokens > 0 {
			p.round.leave()
		}
		p.meter.end(p.env.Now())
	}()
	w.take(r)
	for {
		out, err := w.pass()
		for err != nil {
			if out, err = w.again(err); err != nil && !errors.Is(err, hardware.ErrDown) {
				return err
			}
		}
		if err := w.home(out); err != nil {
			return err
		}
		if p.bubble && log.OutputTokens == 1 { // not before: a newcomer may wait for memory that the others hold
			p.round.join()
		}
		if out.End || log.OutputTokens >= req.OutputTokens {
			return nil
		}
		if p.bubble {
			p.round.await()
		}
	}
}

// current is the route for a new request. Who finds nodes back that were dead
// plans with them.
func (p *chain) current() (_ *route, err error) {
	p.mend.Acquire()
	defer p.mend.Release()
	back := false
	for place := range p.roads.names { // in order
		if _, dead := p.dead[place]; dead && p.alive(place) {
			delete(p.dead, place)
			back = true
		}
	}
	if p.route != nil && !p.route.stale && !back {
		return p.route, nil
	}
	if p.costs == nil && p.plan != "even" {
		if p.costs, err = p.probes(); err != nil {
			return nil, err
		}
	}
	return p.settled(func() (*route, error) { return p.planned() })
}

// settled makes a plan, again and again if nodes die over it, and has what it
// needs loaded.
func (p *chain) settled(plan func() (*route, error)) (*route, error) {
	for {
		next, err := plan()
		if err != nil {
			return nil, err
		}
		err = p.load(next)
		if err == nil {
			p.route = next
			return next, nil
		}
		if !errors.Is(err, hardware.ErrDown) {
			return nil, err
		}
	}
}

// alive asks a node whether it answers.
func (p *chain) alive(place int) bool {
	_, err := p.roads.devs[place].Run(&hardware.Op{Kind: hardware.Drop, Model: p.model, Layers: p.model.All(), Seqs: []hardware.Seq{{ID: -1}}})
	return !errors.Is(err, hardware.ErrDown)
}

// replace is a route without a place that was met dead, the same for all
// requests that meet it.
func (p *chain) replace(old *route, place int, cause error) (*route, error) {
	p.mend.Acquire()
	defer p.mend.Release()
	if p.route != old && !p.route.stale {
		return p.route, nil
	}
	old.stale = true
	if place == 0 || p.recover == "none" {
		return nil, cause
	}
	p.died(place, cause)
	if p.failed < 0 {
		p.failed = p.dead[place]
	}
	next, err := p.settled(func() (*route, error) { return p.without(old) })
	if err != nil {
		return nil, fmt.Errorf("%w; nothing can take over: %w", cause, err)
	}
	return next, nil
}

// died strikes a place off the map.
func (p *chain) died(place int, cause error) {
	p.dead[place] = p.env.Now()
	if f := (interface{ Since() time.Duration })(nil); errors.As(cause, &f) {
		p.dead[place] = f.Since()
	}
}

// without is a plan after a death.
func (p *chain) without(old *route) (*route, error) {
	if p.recover == "replan" {
		return p.planned()
	}
	next := &route{stages: slices.Clone(old.stages)}
	for i, s := range next.stages {
		if !p.gone(s.place) {
			continue
		}
		place := p.substitute(next, i)
		if place < 0 {
			return nil, fmt.Errorf("no node has memory for layers %d to %d: %w", s.span.Lo, s.span.Hi, hardware.ErrMemory)
		}
		next.stages[i].place = place
	}
	return next, nil
}

// substitute is the place that serves a stage quickest besides what it does
// already, its two transfers included; -1 if none can.
func (p *chain) substitute(r *route, i int) int {
	best, least := -1, never
	before, after := r.stages[i-1].place, 0
	if i+1 < len(r.stages) {
		after = r.stages[i+1].place
	}
	for place := 1; place < len(p.roads.names); place++ {
		if _, dead := p.dead[place]; dead || !p.fits(r, place, r.stages[i].span) {
			continue
		}
		t := p.roads.time(before, place, p.size) + p.roads.time(place, after, p.size) + p.costs.stage(place, r.stages[i].span)
		if t < least {
			best, least = place, t
		}
	}
	return best
}

// fits reports whether a place can hold a span beside its part of a route.
func (p *chain) fits(r *route, place int, span hardware.Span) bool {
	limit := p.roads.devs[place].Spec().Memory
	need := p.need(span)
	for _, s := range r.stages {
		if s.place == place {
			need += p.need(s.span)
		}
	}
	return limit == 0 || need <= limit
}

// Figures are the idle share of the stages while requests were under way, what
// moved between nodes, and the longest recovery.
func (p *chain) Figures() map[string]float64 {
	f := map[string]float64{"bubble_share": p.meter.bubble(), "backhaul_bytes": float64(p.roads.moved)}
	if p.worst > 0 {
		f["recovery"] = p.worst.Seconds()
	}
	return f
}

// barrier lets members go on together.
type barrier struct {
	cond             world.Cond
	members, waiting int
	rounds           int
}

func (b *barrier) join() { b.members++ }

func (b *barrier) leave() {
	b.members--
	b.open()
}

// await blocks until every member awaits.
func (b *barrier) await() {
	b.waiting++
	round := b.rounds
	for b.open(); b.rounds == round; {
		b.cond.Wait()
	}
}

func (b *barrier) open() {
	if b.waiting > 0 && b.waiting >= b.members {
		b.waiting = 0
		b.rounds++
		b.cond.Broadcast()
	}
}

package pipeline

import (
	"errors"
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/serving"
	"meibench/internal/units"
)

// planners place the layers of a chain. The first one needs no times.
var planners = []struct {
	name string
	plan func(*chain, []int) ([]stage, error) // over these places; the first is the device
}{
	{"even", even}, {"latency", latency}, {"lingualinked", linguaLinked}, {"petals", petals}, {"pipeedge", pipeEdge}, {"throughput", throughput},
}

func planNames() (names []string) {
	for _, p := range planners {
		names = append(names, p.name)
	}
	return names
}

// planned is a route over the places that live and have a way to each other.
func (p *chain) planned() (*route, error) {
	places := p.places()
	for _, pl := range planners {
		if pl.name != p.plan {
			continue
		}
		stages, err := pl.plan(p, places)
		if err == nil {
			err = p.check(stages)
		}
		if err != nil {
			return nil, fmt.Errorf("pipeline chain: plan %s: %w", p.plan, err)
		}
		return &route{stages: stages}, nil
	}
	return nil, fmt.Errorf("pipeline chain: unknown plan %q", p.plan)
}

// places lists who may take part: the device, and nodes with ways to it and back.
func (p *chain) places() []int {
	places := []int{0}
	for i := 1; i < len(p.roads.names); i++ {
		reached := p.roads.next[0][i] >= 0 && p.roads.next[i][0] >= 0
		if reached && !p.gone(i) && (p.most == 0 || len(places) < p.most) && len(places) < p.model.Layers {
			places = append(places, i)
		}
	}
	return places
}

// check refuses stages that do not fit their places.
func (p *chain) check(stages []stage) error {
	for _, s := range stages {
		limit, need := p.roads.devs[s.place].Spec().Memory, p.need(s.span)
		if limit > 0 && need > limit {
			return fmt.Errorf("%s would hold layers %d to %d of %q: %v of weights and %v of caches, it has %v: %w", p.roads.names[s.place], s.span.Lo, s.span.Hi,
				p.model.Name, p.model.WeightBytes(s.span), need-p.model.WeightBytes(s.span), limit, hardware.ErrMemory)
		}
	}
	return nil
}

// need is the memory that a plan sets aside for a span.
func (p *chain) need(s hardware.Span) units.Bytes {
	return p.model.WeightBytes(s) + units.Bytes(p.room)*p.model.KVBytesPerToken(s)
}

// even gives every place as many layers as the others, to one.
func even(p *chain, places []int) ([]stage, error) {
	return shards(places, p.model.Layers, func(i int) int { return p.model.Layers * (i + 1) / len(places) }), nil
}

// shards are the stages of places whose i-th ends before layer end(i).
func shards(places []int, layers int, end func(i int) int) []stage {
	var out []stage
	lo := 0
	for i, place := range places {
		if hi := min(end(i), layers); hi > lo {
			out = append(out, stage{place, hardware.Span{Lo: lo, Hi: hi}})
			lo = hi
		}
	}
	return out
}

// costs are what a decode step of one sequence takes: at each place a fixed part
// for a stage of any length, and each layer.
type costs struct {
	fixed []time.Duration
	layer [][]time.Duration
}

// stage is the time of a span at a place; 0 if nobody knows.
func (c *costs) stage(place int, s hardware.Span) (t time.Duration) {
	if c == nil {
		return 0
	}
	t = c.fixed[place]
	for _, l := range c.layer[place][s.Lo:s.Hi] {
		t += l
	}
	return t
}

// typical is the context that stages are timed with.
const typical = 128

// estimates asks the devices; nil if one cannot tell.
func (p *chain) estimates() *costs {
	c, err := p.learn(func(place int, s hardware.Span) (time.Duration, error) {
		e, ok := estimator(p.roads.devs[place])
		if !ok {
			return 0, hardware.ErrUnsupported
		}
		return e.Estimate(&hardware.Op{Kind: hardware.Decode, Model: p.model, Layers: s, Seqs: []hardware.Seq{{Context: typical, New: 1}}}), nil
	})
	if err != nil {
		return nil
	}
	return c
}

// probes times a few short operations on every device, each twice: the first
// time warms up. It takes the world's time, as a deployment's profiling does.
func (p *chain) probes() (*costs, error) {
	return p.learn(func(place int, s hardware.Span) (time.Duration, error) {
		var took time.Duration
		for range 2 {
			op := hardware.Op{Kind: hardware.Prefill, Model: p.model, Layers: s, Seqs: []hardware.Seq{{ID: -1, New: 1}}, Wire: ""}
			if s.Lo == 0 {
				op.Seqs[0].Tokens = []int32{0}
			} else {
				n := p.model.HiddenBytes(1, 4)
				op.Seqs[0].In = hardware.Payload{Bytes: n, Data: make([]byte, n)}
			}
			res, err := p.roads.devs[place].Run(&op)
			if err != nil {
				return 0, err
			}
			took = res.Usage.End - res.Usage.Start
			drop(p.roads.devs[place], &op)
		}
		return took, nil
	})
}

// learn takes the times of four spans apart into the fixed part, a layer in the
// middle, the first one with the embedding and the last one with the head.
func (p *chain) learn(time1 func(place int, s hardware.Span) (time.Duration, error)) (*costs, error) {
	n := p.model.Layers
	spans := [4]hardware.Span{{Lo: 0, Hi: 1}, {Lo: n / 3, Hi: n/3 + 1}, {Lo: n / 3, Hi: n/3 + max(1, n/3)}, {Lo: n - 1, Hi: n}}
	c := &costs{}
	for place := range p.roads.devs {
		var t [4]time.Duration
		for i, s := range spans {
			var err error
			if t[i], err = time1(place, s); err != nil && errors.Is(err, hardware.ErrDown) {
				t[i] = never / time.Duration(4*n) // whoever is down gets nothing
			} else if err != nil {
				return nil, err
			}
		}
		layer := t[1]
		if more := spans[2].Len() - 1; more > 0 {
			layer = max(0, min((t[2]-t[1])/time.Duration(more), t[1]))
		}
		fixed := t[1] - layer
		row := make([]time.Duration, n)
		for l := range row {
			row[l] = layer
		}
		row[0], row[n-1] = max(layer, t[0]-fixed), max(layer, t[3]-fixed)
		c.fixed, c.layer = append(c.fixed, fixed), append(c.layer, row)
	}
	return c, nil
}

// server is that of a stage; on the user's own device, the user's.
func (p *chain) server(user *hardware.User, s stage) (*serving.Server, error) {
	key := serverKey{p.device(user, s.place), s.span}
	if srv, ok := p.servers[key]; ok {
		return srv, nil
	}
	node := hardware.Node{Name: p.roads.names[s.place], Device: key.dev}
	srv, err := serving.New(p.env, node, p.options, serving.Held{Model: p.model, Span: s.span})
	if err == nil {
		p.servers[key] = srv
	}
	return srv, err
}

// device is what computes at a place.
func (p *chain) device(user *hardware.User, place int) hardware.Device {
	if place == 0 {
		return user.Device
	}
	return p.roads.devs[place]
}

// load brings layers that a route needs to nodes that do not have them: from
// their storage, all nodes at once. The first route's are there to begin with. A
// node whose memory cannot hold old and new layers drops the old ones, and with
// them the caches of all who used them. Nodes that die over it are struck off.
func (p *chain) load(next *route) (err error) {
	first := p.held == nil
	if first {
		p.held = make([][]bool, len(p.roads.names))
		for i := range p.held {
			p.held[i] = make([]bool, p.model.Layers)
		}
	}
	var jobs []func()
	for _, s := range next.stages {
		if s.place == 0 || p.has(s) {
			continue
		}
		if first {
			p.hold(s)
			continue
		}
		jobs = append(jobs, func() {
			if e := p.fetch(s); e != nil {
				err = e
			}
		})
	}
	together(p.env, jobs)
	return err
}

func (p *chain) has(s stage) bool {
	for _, have := range p.held[s.place][s.span.Lo:s.span.Hi] {
		if !have {
			return false
		}
	}
	return true
}

func (p *chain) hold(s stage) {
	for l := s.span.Lo; l < s.span.Hi; l++ {
		p.held[s.place][l] = true
	}
}

// fetch loads what a node lacks of a stage.
func (p *chain) fetch(s stage) error {
	dev, have := p.roads.devs[s.place], p.held[s.place]
	if limit := dev.Spec().Memory; limit > 0 {
		all := p.need(s.span)
		for l, h := range have {
			if h && (l < s.span.Lo || l >= s.span.Hi) {
				all += p.need(hardware.Span{Lo: l, Hi: l + 1})
			}
		}
		if all > limit {
			_, _ = dev.Run(&hardware.Op{Kind: hardware.Drop, Model: p.model, Layers: p.model.All()})
			clear(have)
			if p.route != nil {
				p.route.stale = true
			}
		}
	}
	for lo := s.span.Lo; lo < s.span.Hi; lo++ {
		hi := lo
		for hi < s.span.Hi && !have[hi] {
			hi++
		}
		if hi == lo {
			continue
		}
		if dev.Spec().Ops.Has(hardware.Load) {
			if _, err := dev.Run(&hardware.Op{Kind: hardware.Load, Model: p.model, Layers: hardware.Span{Lo: lo, Hi: hi}}); err != nil {
				if errors.Is(err, hardware.ErrDown) {
					p.died(s.place, err)
				}
				return err
			}
		}
		lo = hi
	}
	p.hold(s)
	return nil
}

// together runs jobs at the same time and returns when all are done.
func together(env world.Env, jobs []func()) {
	if len(jobs) == 0 {
		return
	}
	left, done := len(jobs)-1, env.NewCond()
	for _, job := range jobs[1:] {
		env.Go("together", func() {
			job()
			if left--; left == 0 {
				done.Signal()
			}
		})
	}
	jobs[0]()
	for left > 0 {
		done.Wait()
	}
}

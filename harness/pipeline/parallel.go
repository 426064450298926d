package pipeline

import (
	"errors"
	"fmt"
	"math"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/codec"
	"meibench/workloads"
)

var parallelEntry = Entry{
	Name: "parallel", Doc: "every layer spread over the device and nodes of a LAN: by heads and columns, or by positions; modelled",
	Ops: "device and nodes: prefill, decode on a shard; by positions: restore",
	Params: []Param{
		{Name: "nodes", Default: 0, Min: 0, Max: 1000, Doc: "places that take part, the device included; 0 = as many as there are and the heads divide among"},
		{Name: "way", Names: []string{"tensor", "sequence", "hybrid"}, Doc: "tensor: heads and columns, two sums a layer (Megatron-LM); sequence: positions of the prompt, one gathering a layer (Voltage); hybrid: tensor whose sums are scattered and gathered beside the computing (Galaxy)"},
		{Name: "reduce", Names: []string{"star", "ring", "air"}, Doc: "how sums are made: at the place that the others reach quickest, around a ring, or by transmitting at once on one channel (AirComp)"},
		{Name: "medium", Names: []string{"switched", "shared"}, Doc: "whether the links of a star work at the same time or take turns on one channel"},
		{Name: "overlap", Default: 1, Min: 0, Max: 1, Doc: "hybrid: share of the computing time that sending can hide behind (assumed)"},
		{Name: "mse", Default: 0.001, Min: 0, Max: 100, Doc: "reduce air: mean squared error of a sum, over its mean square"},
		{Name: "wire", Names: wires[:3], Doc: "codec of the activations between the nodes"},
	},
	New: func(p Params) Pipeline {
		return &parallel{nodes: p.Int("nodes"), way: p.Name("way"), reduce: p.Name("reduce"), shared: p.Name("medium") == "shared",
			overlap: p.Num("overlap"), mse: p.Num("mse"), wire: p.Name("wire")}
	},
}

// parallel runs each layer on several places at once (checklist I6). The device
// asks, is the first place and makes the tokens. It is modelled on links: what the
// places exchange in a step crosses the links as one message each way, and the
// step then lasts as long as the exchanges of all layers one after the other would
// on an otherwise idle LAN, where they have a closed form. That is exact if every
// place has a link of its own to the first and rates hold still; otherwise the
// longer of the two counts. One request runs at a time. Not counted: the vocabulary's
// best candidates at the end of a step, and keys and values that Voltage computes on
// every place. What noisy sums do to the answers is measured in reference/shard.
type parallel struct {
	nodes        int
	way, reduce  string
	shared       bool
	overlap, mse float64
	wire         string
	env          world.Env
	site         *hardware.Site
	model, shard *hardware.Model
	roads        *roads
	parts        []int // places
	hub          int   // the place where a star's sums are made
	turn         *world.Slots
	codec        codec.Codec
	jobs         []func()
	outs         []hardware.Result
	errs         []error
}

func (p *parallel) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.turn = env, site, models.Main, world.NewSlots(env, 1)
	if p.codec, err = codec.Find(p.wire); err != nil {
		return err
	}
	if p.roads, err = survey(site); err != nil {
		return fmt.Errorf("pipeline parallel: %w", err)
	}
	if err := p.choose(); err != nil {
		return fmt.Errorf("pipeline parallel: %w", err)
	}
	for _, place := range p.parts {
		dev, name := p.roads.devs[place], p.roads.names[place]
		spec := dev.Spec()
		needs := []hardware.Kind{hardware.Prefill, hardware.Decode}
		if p.way == "sequence" && len(p.parts) > 1 {
			needs = append(needs, hardware.Restore)
		}
		if err := hardware.Needs("pipeline parallel: "+name, dev, needs...); err != nil {
			return err
		}
		if len(p.parts) > 1 && spec.Time != hardware.Modelled {
			return fmt.Errorf("pipeline parallel: %s is %s: shards of a model run on modelled devices only; use mode modelled (package reference/shard has them on real kernels): %w",
				name, spec.Time, hardware.ErrUnsupported)
		}
		if w := p.shard.WeightBytes(p.shard.All()); spec.Memory > 0 && w > spec.Memory {
			return fmt.Errorf("pipeline parallel: %s would hold %v of %q, it has %v: %w", name, w, p.shard.Name, spec.Memory, hardware.ErrMemory)
		}
	}
	return nil
}

// choose takes the places and the shape of what each holds.
func (p *parallel) choose() (err error) {
	near := []int{0}
	for i := 1; i < len(p.roads.names); i++ {
		if p.roads.next[0][i] >= 0 && p.roads.next[i][0] >= 0 {
			near = append(near, i)
		}
	}
	n := p.nodes
	if n > len(near) {
		return fmt.Errorf("site %q has %d places with ways to each other, the device included, not %d", p.site.Name, len(near), n)
	}
	if n == 0 {
		for n = len(near); n > 1 && p.way != "sequence"; n-- {
			if _, err := p.model.Shard(n); err == nil {
				break
			}
		}
	}
	p.parts, p.shard = near[:n], p.model
	if p.way != "sequence" && n > 1 {
		p.shard, err = p.model.Shard(n)
	}
	p.hub = p.centre()
	p.jobs, p.outs, p.errs = make([]func(), 0, n), make([]hardware.Result, n), make([]error, n)
	return err
}

// centre is the place that the others reach quickest; the device if it is as good.
func (p *parallel) centre() (hub int) {
	least := never
	for _, place := range p.parts {
		var t time.Duration
		for _, other := range p.parts {
			t += p.roads.time(place, other, p.model.HiddenBytes(1, 4)) + p.roads.time(other, place, p.model.HiddenBytes(1, 4))
		}
		if t < least {
			hub, least = place, t
		}
	}
	return hub
}

// leaves are the places around the hub.
func (p *parallel) leaves() (out []int) {
	for _, place := range p.parts {
		if place != p.hub {
			out = append(out, place)
		}
	}
	return out
}

func (p *parallel) Handle(req *workloads.Request, log *record.Request) error {
	p.turn.Acquire()
	defer p.turn.Release()
	log.Sent = p.env.Now()
	user := p.site.User(req.User)
	seq := hardware.Seq{ID: int64(req.ID), New: req.PromptTokens, Tokens: req.Prompt}
	defer p.close(user, seq)
	for kind := hardware.Prefill; ; kind = hardware.Decode {
		out, err := p.step(user, log, kind, seq)
		if err != nil {
			return err
		}
		emit(log, hardware.Usage{End: log.Reached()}, out.Token)
		if out.End || log.OutputTokens >= req.OutputTokens {
			return nil
		}
		follow(&seq, out.Token)
	}
}

func (p *parallel) device(user *hardware.User, i int) hardware.Device {
	if i == 0 {
		return user.Device
	}
	return p.roads.devs[p.parts[i]]
}

// step makes a token: all places compute, then what they exchanged is paid for. By
// positions, the device decodes alone: it has heard all of the prompt.
func (p *parallel) step(user *hardware.User, log *record.Request, kind hardware.Kind, seq hardware.Seq) (hardware.Out, error) {
	n := len(p.parts)
	if p.way == "sequence" && kind == hardware.Decode {
		n = 1 // one position cannot be shared out
	}
	p.jobs = p.jobs[:0]
	for i := range n {
		mine := seq
		if p.way == "sequence" && n > 1 {
			mine = span(seq, seq.New*i/n, seq.New*(i+1)/n)
		}
		if mine.New == 0 {
			p.outs[i], p.errs[i] = hardware.Result{}, nil
			continue
		}
		p.jobs = append(p.jobs, func() {
			if before := mine.Context - seq.Context; before > 0 {
				if p.errs[i] = p.hear(user, i, span(seq, 0, before)); p.errs[i] != nil {
					return
				}
			}
			op := hardware.Op{Kind: kind, Model: p.shard, Layers: p.shard.All(), Seqs: []hardware.Seq{mine}}
			res, err := p.device(user, i).Run(&op)
			if err == nil {
				res.Seqs = append([]hardware.Out(nil), res.Seqs...)
			}
			p.outs[i], p.errs[i] = res, err
		})
	}
	together(p.env, p.jobs)
	if err := errors.Join(p.errs[:n]...); err != nil {
		return hardware.Out{}, err
	}
	start, end, longest := p.env.Now(), time.Duration(0), time.Duration(0)
	for i, r := range p.outs[:n] {
		if r.Seqs == nil {
			continue // a prompt shorter than the places are many
		}
		u := r.Usage
		start, end, longest = min(start, u.Start), max(end, u.End), max(longest, u.End-u.Start)
		part := record.EdgePart
		if i == 0 {
			part = record.DevicePart
		}
		note(log, part, u, 1)
	}
	log.Spent(record.Compute, "device", start, end)
	last := p.outs[n-1] // of positions, the last place has the token; of shards, every place
	if n > 1 {
		if err := p.exchange(user, log, seq.New, longest); err != nil {
			return hardware.Out{}, err
		}
		if own := seq.New / n; p.way == "sequence" {
			if err := p.hear(user, 0, span(seq, own, seq.New)); err != nil {
				return hardware.Out{}, err
			}
			log.Spent(record.Compute, "device", log.Reached(), p.env.Now())
		}
	}
	return last.Seqs[0], nil
}

// span is the part [lo, hi) of a sequence's new tokens.
func span(s hardware.Seq, lo, hi int) hardware.Seq {
	part := s
	part.Context, part.New = s.Context+lo, hi-lo
	if s.Tokens != nil {
		part.Tokens = s.Tokens[lo:hi]
	}
	return part
}

// hear puts keys and values of positions that others ran into a place's cache.
func (p *parallel) hear(user *hardware.User, i int, of hardware.Seq) error {
	_, err := p.device(user, i).Run(&hardware.Op{Kind: hardware.Restore, Model: p.shard, Layers: p.shard.All(), Seqs: []hardware.Seq{of}})
	return err
}

// traffic is what crosses between two places in a step, in all.
type traffic struct {
	from, to int
	bytes    units.Bytes
}

// exchange sends what a step of so many tokens exchanges and lasts as long as that takes.
func (p *parallel) exchange(user *hardware.User, log *record.Request, tokens int, computing time.Duration) error {
	moves, takes := p.collect(tokens)
	if p.way == "hybrid" {
		takes = max(0, takes-time.Duration(float64(computing)*p.overlap))
	}
	start := p.env.Now()
	var failed error
	var jobs []func()
	for _, m := range moves {
		jobs = append(jobs, func() {
			if _, err := p.roads.carry(user, log, [2]int{m.from, m.to}, hardware.Payload{Bytes: m.bytes}, false); err != nil {
				failed = err
			}
		})
	}
	switch {
	case p.way == "hybrid": // the sending began with the computing
		for _, m := range moves {
			p.count(log, m)
		}
	case p.reduce == "ring":
		together(p.env, jobs)
	default: // all to the hub, then all back
		together(p.env, jobs[:len(jobs)/2])
		together(p.env, jobs[len(jobs)/2:])
	}
	if left := start + takes - p.env.Now(); left > 0 {
		p.env.Sleep(left)
	}
	log.Spent(record.Transfer, "exchange", start, p.env.Now())
	return failed
}

// count books bytes that were hidden behind computing.
func (p *parallel) count(log *record.Request, m traffic) {
	for at := m.from; at != m.to; {
		hop := p.roads.next[at][m.to]
		switch {
		case at == 0:
			log.UpBytes += m.bytes
		case hop == 0:
			log.DownBytes += m.bytes
		default:
			p.roads.moved += m.bytes
		}
		at = hop
	}
}

// collect lists what the places exchange in a step and how long that takes on an
// idle LAN: in each layer two sums of all states, or one gathering of each
// place's share of them.
func (p *parallel) collect(tokens int) (moves []traffic, takes time.Duration) {
	n, rounds := len(p.parts), 2*p.model.Layers
	up := units.Bytes(p.codec.Bytes(tokens, p.model.Dim)) // to the hub, and from it
	down := up
	if p.way == "sequence" {
		rounds = p.model.Layers
		share := units.Bytes(p.codec.Bytes((tokens+n-1)/n, p.model.Dim))
		up, down = share, units.Bytes(n-1)*share
	}
	times := time.Duration(rounds)
	if p.reduce == "ring" {
		hops, piece := 2*(n-1), (up+units.Bytes(n)-1)/units.Bytes(n)
		if p.way == "sequence" {
			hops, piece = n-1, up
		}
		var slowest time.Duration
		for i, from := range p.parts {
			to := p.parts[(i+1)%n]
			moves = append(moves, traffic{from, to, units.Bytes(rounds*hops) * piece})
			slowest = max(slowest, p.roads.time(from, to, piece))
		}
		return moves, times * time.Duration(hops) * slowest
	}
	var in, worstIn, worstOut time.Duration
	for _, leaf := range p.leaves() {
		a, b := p.roads.time(leaf, p.hub, up), p.roads.time(p.hub, leaf, down)
		in, worstIn, worstOut = in+a, max(worstIn, a), max(worstOut, b)
		moves = append(moves, traffic{leaf, p.hub, units.Bytes(rounds) * up})
	}
	for _, leaf := range p.leaves() {
		moves = append(moves, traffic{p.hub, leaf, units.Bytes(rounds) * down})
	}
	switch {
	case p.reduce == "air": // all at once, and one broadcast; of either the slowest link's bytes count
		return []traffic{slowestOf(moves[:n-1], p.roads), slowestOf(moves[n-1:], p.roads)}, times * (worstIn + worstOut)
	case p.shared: // one after the other; the way back is one broadcast
		return moves, times * (in + worstOut)
	}
	return moves, times * (worstIn + worstOut)
}

func slowestOf(moves []traffic, r *roads) traffic {
	worst := moves[0]
	for _, m := range moves[1:] {
		if r.time(m.from, m.to, m.bytes) > r.time(worst.from, worst.to, worst.bytes) {
			worst = m
		}
	}
	return worst
}

// close drops the sequence's caches everywhere.
func (p *parallel) close(user *hardware.User, seq hardware.Seq) {
	for i := range p.parts {
		drop(p.device(user, i), &hardware.Op{Model: p.shard, Layers: p.shard.All(), Seqs: []hardware.Seq{{ID: seq.ID}}})
	}
}

// Figures are the bytes between nodes, and how far sums in the air are off.
func (p *parallel) Figures() map[string]float64 {
	f := map[string]float64{"backhaul_bytes": float64(p.roads.moved)}
	if p.reduce == "air" && len(p.parts) > 1 {
		f["aggregation_error"] = math.Sqrt(p.mse)
	}
	return f
}

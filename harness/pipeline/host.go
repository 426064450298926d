package pipeline

import (
	"fmt"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/reference/placement"
	"meibench/reference/shelf"
	"meibench/workloads"
)

var hostEntry = Entry{
	Name: "host", Doc: "edge nodes that run many models in less memory than these take: each request names one, which is brought to memory from the node's storage, from a neighbour or the cloud",
	Ops: "edge: prefill, decode, load",
	Params: with(wantParams, stockParams, []Param{
		{Name: "memory_mb", Default: 1000, Min: 0.001, Max: 1e9, Doc: "memory for models on each edge node, MB; what the device has beside it is for KV caches"},
		{Name: "evict", Names: memoryPolicies(), Doc: "which model leaves the memory when another needs the room (package reference/shelf); one that is answering stays"},
		{Name: "context_weight", Default: 4, Min: 0, Max: 1e6, Doc: "evict aoc: how much an example that the model has in its context, faded by age, counts beside a request; 0 makes it lfu"},
		{Name: "order", Names: []string{"fifo", "partial", "resident"}, Doc: "who is next: requests in turn; the model with the most requests per second of loading what is not in memory and serving (PartialLoading, arXiv 2503.22982); or those whose model is in memory, then in turn"},
		{Name: "route", Names: []string{"near", "least"}, Doc: "where a request is answered: at the node near the user; or where line, loading and the way there take least by estimate (ServerlessLLM, OSDI'24)"},
		{Name: "resident", Names: []string{"no", "yes"}, Doc: "the blocks that every model has, a backbone, are in memory from the start and stay"},
		{Name: "batch", Default: 8, Min: 1, Max: 4096, Doc: "most sequences in one operation of a node; adapters on one backbone share operations, other models do not"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
		{Name: "context_cost_s", Default: 1, Min: 0, Max: 1e6, Doc: "what a request costs whose model has no examples in its context, in seconds: half with one fresh example, a third with two (assumed)"},
	}),
	New: func(p Params) Pipeline {
		return &host{wants: newWants(p), stock: newStock(p), memory: units.Bytes(p.Num("memory_mb") * 1e6), evict: p.Name("evict"), weight: p.Num("context_weight"),
			order: p.Name("order"), route: p.Name("route"), resident: p.Name("resident") == "yes", batch: p.Int("batch"), tokenBytes: p.Num("token_bytes"),
			contextCost: p.Num("context_cost_s")}
	},
}

// memoryPolicies are those of shelves, lru first.
func memoryPolicies() []string {
	names := []string{"lru"}
	for _, p := range shelf.Policies() {
		if p.Name != "lru" {
			names = append(names, p.Name)
		}
	}
	return names
}

// host serves many models from edge nodes (checklist C1, C3, C8, C9, C10). A node has storage, where models are kept as pipeline
// deliver keeps them (stock), and memory, which holds fewer: a model that is asked for and is not there is loaded, without the
// blocks that others in memory share with it, and throws others out. Requests of a model in memory are batched.
type host struct {
	wants
	stock       stock
	memory      units.Bytes
	evict       string
	weight      float64
	order       string
	route       string
	resident    bool
	batch       int
	tokenBytes  float64
	contextCost float64

	env      world.Env
	site     *hardware.Site
	model    *hardware.Model
	variants []serving.Held // by model of the library: those that share operations are equal
	common   []bool         // blocks that are in memory from the start
	nodes    []*hostNode    // by number; made when first used
	edges    *edges
	switches int     // models brought to memory
	cost     float64 // s, over requests that were answered
	answered int
}

func (p *host) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.nodes = env, site, make([]*hostNode, len(site.Nodes))
	p.switches, p.cost, p.answered = 0, 0, 0
	if err := p.wants.start("host", models); err != nil {
		return err
	}
	p.stock.content = models.Content
	p.stock.reach = func(u *hardware.User) float64 { return p.at(p.stock.near(u)).rate }
	p.vary(models.Main)
	p.edges = &edges{who: "host", env: env, site: site, held: serving.Held{Model: p.model, Span: p.model.All()},
		options: serving.Options{Policy: "continuous", Most: p.batch, Weights: p.memory}}
	if _, err := p.edges.start(hardware.Prefill, hardware.Decode, hardware.Load); err != nil {
		return err
	}
	if err := p.stock.start(env, site, &p.wants); err != nil {
		return fmt.Errorf("pipeline host: %w", err)
	}
	if p.stock.whole && (models.Content != nil || p.resident) {
		return fmt.Errorf("pipeline host: share: whole has sizes only and no backbone: use share: blocks for a library with real bytes or resident: yes")
	}
	if first := site.Nodes[p.edges.first].Device.Spec(); first.Time == hardware.Measured && !p.resident {
		return fmt.Errorf("pipeline host: device %q measures and has its model in memory from the start: say so with resident: yes", first.Name)
	}
	lib := p.stock.lib
	p.common = make([]bool, len(lib.Blocks))
	for b := range p.common {
		p.common[b] = p.resident && len(lib.Users(b)) == len(lib.Models)
	}
	for i, m := range lib.Models {
		if n := lib.Whole(i); n > p.memory {
			return fmt.Errorf("pipeline host: model %q of library %q takes %v, memory_mb allows %v: %w", m.Name, lib.Name, n, p.memory, hardware.ErrMemory)
		}
	}
	return nil
}

// vary makes the shapes of the library's models: adapters on one backbone are one, others are each their own.
func (p *host) vary(main *hardware.Model) {
	lib := p.wants.lib
	byBackbone := map[string]*hardware.Model{}
	p.model = main
	p.variants = make([]serving.Held, len(lib.Models))
	for i, m := range lib.Models {
		key := m.Name
		shape := *main
		if m.Adapter != "" {
			shape.LoRARank, key = AdapterRank, ""
			for _, b := range m.Blocks {
				if lib.Blocks[b].Name != m.Adapter {
					key += fmt.Sprint(b, " ")
				}
			}
		}
		if byBackbone[key] == nil {
			byBackbone[key] = &shape
		}
		p.variants[i] = serving.Held{Model: byBackbone[key], Span: main.All()}
	}
}

func (p *host) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	want, err := p.wants.of(req) // in the order of arrival
	if err != nil {
		return err
	}
	user := p.site.User(req.User)
	prompt, err := raise(user, req, log)
	if err != nil {
		return err
	}

	near := p.stock.near(user)
	n := p.choose(near, want, prompt.Bytes)
	if user.Near != nil {
		log.Counts[record.Place] = int64(n.number) + 1
	}
	srv, err := p.edges.at(n.number)
	if err != nil {
		return err
	}
	down := user.Down.Open()
	if n.number != near {
		if prompt, down, err = p.elsewhere(near, n.number, prompt, down, log); err != nil {
			down.Close(err)
			return err
		}
	}
	g := &guest{need: need{want: want, log: log, node: n.number, next: -1}, deadline: deadline(req), wake: p.env.NewCond()}
	defer func() { g.over = true }()
	if err := n.enter(g); err != nil {
		down.Close(err)
		return err
	}
	defer n.leave(g)
	d := desk{srv: srv, held: p.variants[want], adapter: p.stock.lib.Models[want].Adapter, tokenBytes: p.tokenBytes}
	if err := d.reply(down, prompt, req, log); err != nil {
		return err
	}
	p.answered++
	p.cost += (p.env.Now() - req.ArriveAt).Seconds() + g.loading.Seconds() + p.contextCost/(1+g.context)
	return nil
}

// elsewhere passes a prompt on to another node, whose answer comes back the same way.
func (p *host) elsewhere(near, at int, prompt hardware.Payload, down hardware.Stream, log *record.Request) (hardware.Payload, hardware.Stream, error) {
	names := [2]string{p.site.Nodes[near].Name, p.site.Nodes[at].Name}
	there, err := p.site.Between(names[0], names[1])
	if err != nil {
		return prompt, down, err
	}
	back, err := p.site.Between(names[1], names[0])
	if err != nil {
		return prompt, down, err
	}
	d, err := there.Send(prompt)
	if err != nil {
		return prompt, down, err
	}
	log.Count(record.Elsewhere, 1)
	log.Count(record.BackhaulBytes, int64(d.Usage.Moved))
	log.Spent(record.Transfer, "backhaul", d.Usage.Start, d.Usage.End)
	return d.Payload, newRelay(p.env, back.Open(), down), nil
}

// choose is the node that answers a request.
func (p *host) choose(near, want int, prompt units.Bytes) *hostNode {
	best := p.at(near)
	if p.route == "near" {
		return best
	}
	least, ok := p.estimate(near, near, want, prompt)
	for i, d := range p.stock.depots {
		if d == nil || i == near {
			continue
		}
		if t, there := p.estimate(near, i, want, prompt); there && (!ok || t < least) {
			best, least, ok = p.at(i), t, true
		}
	}
	return best
}

// estimate is when a model would be ready at a node for a request from another, in seconds from now: the way there and back, the
// line, and what must be brought from the quickest place that has it.
func (p *host) estimate(near, at, want int, prompt units.Bytes) (seconds float64, ok bool) {
	n := p.at(at)
	if at != near {
		for _, way := range [2][2]int{{near, at}, {at, near}} {
			l, err := p.site.Between(p.site.Nodes[way[0]].Name, p.site.Nodes[way[1]].Name)
			if err != nil {
				return 0, false
			}
			spec := l.Spec()
			seconds += spec.Delay.Seconds()
			if way[0] == near {
				seconds += float64(prompt) / spec.BytesPerSec
			}
		}
	}
	seconds += float64(n.pace * float64(len(n.line)+n.active))
	var load, fetch units.Bytes
	var missing []int
	for _, b := range n.lacks(want) {
		size := p.stock.lib.Blocks[b].Bytes
		load += size
		if !p.stock.has(at, b) {
			fetch += size
			missing = append(missing, b)
		}
	}
	seconds += float64(load) / n.rate
	if len(missing) == 0 {
		return seconds, true
	}
	_, t, err := placement.Quickest(p.tiers(at, missing), float64(fetch))
	return seconds + t, err == nil
}

// tiers are the places from which a node could get blocks: neighbours that have all of them, and the cloud.
func (p *host) tiers(at int, blocks []int) (tiers []placement.Tier) {
	add := func(from string) {
		if l, err := p.site.Between(from, p.site.Nodes[at].Name); err == nil {
			tiers = append(tiers, placement.Tier{Name: from, Queue: l.Spec().Delay.Seconds(), Rate: l.Spec().BytesPerSec})
		}
	}
	for i, d := range p.stock.depots {
		if d == nil || i == at || !p.stock.cooperate {
			continue
		}
		all := true
		for _, b := range blocks {
			all = all && p.stock.has(i, b)
		}
		if all {
			add(d.name)
		}
	}
	add(p.stock.cloud)
	return tiers
}

// Figures are those of the nodes' storage and servers.
func (p *host) Figures() map[string]float64 {
	f := p.stock.figures()
	for name, v := range p.edges.Figures() {
		if name != "adapter_swaps" { // they are loads
			f[name] = v
		}
	}
	f["switches"] = float64(p.switches)
	if p.answered > 0 {
		f["system_cost"] = p.cost / float64(p.answered)
	}
	return f
}

// relay is a stream that goes on in another: what arrives over one link is handed to the next.
type relay struct {
	hardware.Stream // read from: the last
	first           hardware.Stream
}

func newRelay(env world.Env, first, last hardware.Stream) *relay {
	env.Go("relay", func() {
		for {
			d, ok, err := first.Read()
			if err != nil || !ok {
				last.Close(err)
				return
			}
			last.Write(d.Payload)
		}
	})
	return &relay{last, first}
}

// Write and Close are those of the first link.
func (r *relay) Write(p hardware.Payload) { r.first.Write(p) }

// Close ends the stream when what was written has passed.
func (r *relay) Close(err error) { r.first.Close(err) }

// at is a node, made when first used.
func (p *host) at(number int) *hostNode {
	if n := p.nodes[number]; n != nil {
		return n
	}
	h, err := shelf.New(p.stock.lib, p.memory, p.evict, uint64(number))
	if err != nil {
		panic(err) // of parameters that were checked
	}
	h.Weigh(p.weight)
	n := &hostNode{p: p, number: number, name: p.site.Nodes[number].Name, dev: p.site.Nodes[number].Device, memory: h, wake: p.env.NewCond(), adapters: map[string]bool{}}
	n.rate = n.loadRate()
	p.nodes[number] = n
	p.env.Serve("host "+n.name, n.run)
	return n
}

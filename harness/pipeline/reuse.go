package pipeline

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/reference/codec"
	"meibench/reference/prefix"
	"meibench/reference/recall"
	"meibench/workloads"
)

var reuseEntry = Entry{
	Name: "reuse", Doc: "an edge node that remembers: answers to questions that were alike, and keys and values of what prompts begin with, of one user or of all",
	Ops: "edge: prefill, decode; prefix: save, restore",
	Params: with(serverParams, []Param{
		{Name: "prefix", Names: []string{"lru", "lfu", "fifo", "no"}, Doc: "keys and values of prompts' leading blocks are kept beside the device's memory (package reference/prefix): which go when room is short; no = none are kept"},
		{Name: "block", Default: 16, Min: 1, Max: 1 << 16, Doc: "prefix: tokens of a block; recorded traces have blocks of their own"},
		{Name: "prefix_mb", Default: 1000, Min: 0, Max: 1e9, Doc: "prefix: room on each edge node, MB"},
		{Name: "answers", Names: []string{"no", "exact", "grams", "model"}, Doc: "answers are kept for questions that are alike (package reference/recall): in nothing but case and space; in words and triples of letters; or in what the model's lower layers make of them, which needs real tokens"},
		{Name: "threshold", Default: 0.95, Min: 0, Max: 1, Doc: "answers: least cosine of two questions that are alike"},
		{Name: "entries", Default: 1000, Min: 1, Max: 1e6, Doc: "answers: most that a node keeps; the least recently used goes"},
		{Name: "layers", Default: 2, Min: 1, Max: 1000, Doc: "answers model: layers whose states, mean over the prompt, tell how alike questions are"},
		{Name: "lookup_us", Default: 200, Min: 0, Max: 1e7, Doc: "answers exact and grams: time of a look-up in modelled and emulated runs (assumed); measured runs take what it takes"},
		{Name: "tenants", Names: []string{"all", "user"}, Doc: "who shares what is remembered: everybody at a node, or nobody"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
	}),
	New: func(p Params) Pipeline {
		return &reuse{options: serverOptions(p), prefix: p.Name("prefix"), block: p.Int("block"), room: units.Bytes(p.Num("prefix_mb") * 1e6), answers: p.Name("answers"),
			threshold: p.Num("threshold"), entries: p.Int("entries"), layers: p.Int("layers"), lookup: time.Duration(p.Num("lookup_us") * 1e3), apart: p.Name("tenants") == "user",
			tokenBytes: p.Num("token_bytes")}
	},
}

// reuse serves prompts at the edge and computes as little as it can twice (checklist C4). A question that is like an earlier one gets its
// answer (GPTCache; wrong where the two want different answers, which is counted). Of a prompt that begins like an earlier
// one, of whomever, only the rest is computed: the keys and values of the beginning are copied in (Mooncake, FAST'25). Both
// are kept by node, and by user where nobody may see what others asked.
type reuse struct {
	options    serving.Options
	prefix     string
	block      int
	room       units.Bytes
	answers    string
	threshold  float64
	entries    int
	layers     int
	lookup     time.Duration
	apart      bool
	tokenBytes float64

	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	edges *edges
	nodes map[int]*memory
	talks map[int]int // by session: how often the beginning of a conversation without text has changed
	codec codec.Codec
}

// memory is what a node remembers.
type memory struct {
	blocks  *prefix.Store
	answers *recall.Cache
}

// said is an answer that is remembered.
type said struct {
	tokens []int32 // nil: only their number is known
	n      int
	right  string // what the question's right answer was
}

func (p *reuse) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.nodes, p.talks = env, site, models.Main, map[int]*memory{}, map[int]int{}
	needs := []hardware.Kind{hardware.Prefill, hardware.Decode}
	if p.prefix != "no" {
		needs = append(needs, hardware.Save, hardware.Restore)
	}
	if p.codec, err = codec.Find("f32"); err != nil {
		return err
	}
	if p.answers == "model" && p.layers >= p.model.Layers {
		return fmt.Errorf("pipeline reuse: layers: %d leave no layer of %q above those that compare questions: want at most %d", p.layers, p.model.Name, p.model.Layers-1)
	}
	e := &edges{who: "reuse", env: env, site: site, options: p.options, held: p.held()}
	if p.edges, err = e.start(needs...); err != nil {
		return err
	}
	if t := site.Nodes[p.edges.first].Device.Spec().Time; p.answers == "model" && t == hardware.Modelled {
		return fmt.Errorf("pipeline reuse: answers model compares what a model makes of questions, and device %q computes nothing: use mode measured or emulated, or answers grams", site.Nodes[p.edges.first].Device.Spec().Name)
	}
	return nil
}

func (p *reuse) held() serving.Held { return serving.Held{Model: p.model, Span: p.model.All()} }

// at is a node's memory.
func (p *reuse) at(node int) (*memory, error) {
	m := p.nodes[node]
	if m != nil {
		return m, nil
	}
	m = &memory{}
	var err error
	if p.prefix != "no" {
		if m.blocks, err = prefix.New(prefix.Options{Room: p.room, Policy: p.prefix}); err != nil {
			return nil, err
		}
	}
	if p.answers != "no" {
		o := recall.Options{Threshold: p.threshold, Entries: p.entries}
		switch p.answers {
		case "exact":
			o.Embed, o.Threshold = recall.Exact(32), 1
		case "grams":
			o.Embed = recall.Grams(512)
		}
		if m.answers, err = recall.New(o); err != nil {
			return nil, err
		}
	}
	p.nodes[node] = m
	return m, nil
}

func (p *reuse) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	user := p.site.User(req.User)
	prompt, err := raise(user, req, log)
	if err != nil {
		return err
	}
	node := p.edges.near(user)
	srv, err := p.edges.of(user, log)
	if err != nil {
		return err
	}
	m, err := p.at(node)
	if err != nil {
		return err
	}
	a := &visit{p: p, req: req, log: log, user: user, srv: srv, memory: m, prompt: decodeTokens(prompt.Data)}
	if p.apart {
		a.tenant = fmt.Sprint("user ", req.User)
	}
	if found, err := a.recall(); found || err != nil {
		return err
	}
	return a.answer()
}

// Figures are those of the servers, and the most that was kept.
func (p *reuse) Figures() map[string]float64 {
	f := p.edges.Figures()
	if p.prefix != "no" {
		peak := units.Bytes(0)
		for _, m := range p.nodes {
			peak += m.blocks.Stats().Peak
		}
		f["prefix_store_peak"] = float64(peak)
	}
	return f
}

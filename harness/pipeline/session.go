package pipeline

import (
	"errors"
	"fmt"
	"slices"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/handover"
	"meibench/workloads"
)

var sessionEntry = Entry{
	Name: "session", Doc: "conversations at the edge whose KV caches are kept between turns, moved after their user, or computed again",
	Ops: "edge: prefill, decode, save, restore",
	Params: with(serverParams, []Param{
		{Name: "cache", Names: []string{"keep", "recompute", "swap", "move", "joint"}, Doc: "between turns the cache stays where it is, is dropped, is parked in storage; or it moves with the user: as a whole, or while its head is computed again"},
		{Name: "kept", Default: 16, Min: 1, Max: 1e6, Doc: "conversations whose caches a node keeps at most; the least recently used goes"},
		{Name: "moves", Default: 0, Min: 0, Max: 1, Doc: "share of turns before which the user moved to another edge node"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
	}),
	New: func(p Params) Pipeline {
		return &session{cache: p.Name("cache"), kept: p.Int("kept"), moves: p.Num("moves"), tokenBytes: p.Num("token_bytes"), options: serverOptions(p)}
	},
}

// session serves conversations (checklist D7, I12, I13): a turn's prompt repeats
// the ones before, and their keys and values need not be computed again if they
// are still there. The user's place may change between turns: the cache then
// stays behind and is dropped, is asked for over the backhaul (Llumnix, OSDI'24,
// without overlap), or its tail comes while the target computes its head (joint
// handover, arXiv 2603.28018). Swapped caches cost a copy out and in again
// (LLMS). Only the tokens that the next prompt really repeats are reused.
type session struct {
	cache             string
	kept              int
	moves, tokenBytes float64
	options           serving.Options

	env      world.Env
	site     *hardware.Site
	model    *hardware.Model
	nodes    []*serving.Server
	talks    map[int]*talked
	recent   []*talked // with a cache, least recently used first
	backhaul units.Bytes
	moved    rng.Key
	prefill  float64 // tokens per second, as prefills went
}

// talked is a conversation between two turns.
type talked struct {
	id     int
	node   int // where its cache is
	seq    *serving.Session
	cached int     // tokens
	text   []int32 // of these
	parked hardware.Payload
	busy   bool
	need   int // tokens that the sequence will take memory for when it enters; 0 = it has
}

func (p *session) Start(env world.Env, site *hardware.Site, models Models) error {
	p.env, p.site, p.model = env, site, models.Main
	p.talks, p.moved = map[int]*talked{}, rng.NewKey(1, "moves")
	needs := []hardware.Kind{hardware.Prefill, hardware.Decode}
	if p.cache == "swap" || p.cache == "move" || p.cache == "joint" {
		needs = append(needs, hardware.Save, hardware.Restore)
	}
	for _, n := range site.Nodes {
		if n.Role != hardware.EdgeRole {
			continue
		}
		if err := hardware.Needs("pipeline session: edge", n.Device, needs...); err != nil {
			return err
		}
		srv, err := serving.New(env, n, p.options, p.held())
		if err != nil {
			return err
		}
		p.nodes = append(p.nodes, srv)
	}
	switch {
	case len(p.nodes) == 0:
		_, err := site.First(hardware.EdgeRole)
		return err
	case p.moves > 0 && len(p.nodes) < 2:
		return fmt.Errorf("pipeline session: site %q has one edge node: users cannot move (set moves to 0, or choose a site with more)", site.Name)
	}
	return nil
}

func (p *session) held() serving.Held { return serving.Held{Model: p.model, Span: p.model.All()} }

func (p *session) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	user := p.site.User(req.User)
	if _, err := raise(user, req, log); err != nil {
		return err
	}

	t := p.talk(req)
	reuse, err := p.fetch(t, req, log)
	if err == nil {
		err = p.answer(t, user, req, reuse, log)
	}
	t.busy = false
	if err != nil || p.cache == "recompute" || p.talks[req.Session] != t {
		p.forget(t)
		return err
	}
	if p.cache == "swap" {
		return p.park(t, log)
	}
	p.recent = append(p.recent, t)
	srv := p.nodes[t.node]
	p.trim(t.node, func(here int) bool { return here <= p.kept && !srv.Crowded() }) // who waits for memory comes before who may come back
	return nil
}

// trim drops the least recently used caches of a node until that is enough.
func (p *session) trim(node int, enough func(here int) bool) {
	here := 0
	for _, o := range p.recent {
		if o.node == node {
			here++
		}
	}
	for i := 0; i < len(p.recent) && !enough(here); {
		if o := p.recent[i]; o.node != node {
			i++
		} else {
			p.recent = slices.Delete(p.recent, i, i+1)
			p.forget(o)
			here--
		}
	}
}

// talk is the conversation that a request goes on with. A conversation that
// is at it already gets a twin without a cache.
func (p *session) talk(req *workloads.Request) *talked {
	t := p.talks[req.Session]
	if t == nil || t.busy {
		t = &talked{id: req.ID, node: req.User % len(p.nodes)}
		if p.talks[req.Session] == nil {
			p.talks[req.Session] = t
		}
	}
	t.busy = true
	if i := slices.Index(p.recent, t); i >= 0 {
		p.recent = slices.Delete(p.recent, i, i+1)
	}
	return t
}

// fetch brings what is left of the conversation's cache to where its user is now
// and says how many tokens of the prompt it has.
func (p *session) fetch(t *talked, req *workloads.Request, log *record.Request) (int, error) {
	here := t.node
	luck := p.moved.At(uint64(req.ID))
	if req.Turn > 0 && luck.Float64() < p.moves {
		here = (t.node + 1) % len(p.nodes)
		log.Count(record.Handovers, 1)
	}
	reuse := min(t.reusable(req), req.PromptTokens-1)
	switch {
	case reuse <= 0:
		p.forget(t)
		reuse = 0
	case t.parked.Bytes > 0:
		return reuse, p.unpark(t, req, log)
	case here != t.node && (p.cache == "move" || p.cache == "joint"):
		return reuse, p.carry(t, here, reuse, req, log)
	case here != t.node:
		p.forget(t)
		reuse = 0
	}
	t.node = here
	if t.seq == nil {
		p.open(t, req)
		return 0, nil
	}
	return p.grow(t, reuse, req), nil
}

// grow makes room for a longer conversation; where there is none, even after the
// idle ones have gone, it is computed again when there is.
func (p *session) grow(t *talked, reuse int, req *workloads.Request) int {
	need := req.PromptTokens + req.OutputTokens
	if t.seq.Grow(need) == nil {
		return reuse
	}
	p.trim(t.node, func(int) bool { return false })
	if t.seq.Grow(need) == nil {
		return reuse
	}
	p.forget(t)
	p.open(t, req)
	return 0
}

// reusable is how many leading tokens of the prompt are in the cache.
func (t *talked) reusable(req *workloads.Request) int {
	n := min(t.cached, req.PrefixTokens)
	if t.text == nil || req.Prompt == nil {
		return n
	}
	n = min(t.cached, len(t.text), len(req.Prompt))
	for i := range n {
		if t.text[i] != req.Prompt[i] {
			return i
		}
	}
	return n
}

// open starts a sequence at the conversation's node.
func (p *session) open(t *talked, req *workloads.Request) {
	srv := p.nodes[t.node]
	t.need = req.PromptTokens + req.OutputTokens
	p.trim(t.node, func(here int) bool { return here < p.kept })
	t.seq, t.cached, t.text = srv.Open(int64(req.ID)|1<<42, p.held(), t.need), 0, nil
}

// enter lets idle conversations give way to one whose sequence takes its memory
// with the step that comes next.
func (p *session) enter(t *talked) {
	if t.need > 0 {
		p.trim(t.node, func(int) bool { return p.nodes[t.node].Room(p.held(), t.need) })
		t.need = 0
	}
}

// forget drops a conversation's cache.
func (p *session) forget(t *talked) {
	if t.seq != nil {
		t.seq.Close()
	}
	t.seq, t.cached, t.text, t.parked = nil, 0, nil, hardware.Payload{}
}

// step runs one operation of the conversation's sequence.
func (p *session) step(t *talked, st serving.Step, log *record.Request) (hardware.Out, hardware.Usage, error) {
	p.enter(t)
	out, used, err := t.seq.Step(st)
	if err != nil {
		return out, used, err
	}
	ran(log, p.nodes[t.node].Name(), used)
	settle(log, t.seq)
	return out, used, nil
}

// answer computes what the cache lacks and writes the answer.
func (p *session) answer(t *talked, user *hardware.User, req *workloads.Request, reuse int, log *record.Request) error {
	log.Count(record.ReusedTokens, int64(reuse))
	st := serving.Step{Kind: hardware.Prefill, Seq: hardware.Seq{Context: reuse, New: req.PromptTokens - reuse}}
	if req.Prompt != nil {
		st.Seq.Tokens = req.Prompt[reuse:]
	}
	text := slices.Clone(req.Prompt)
	down := user.Down.Open()
	var failed error
	for made := 1; ; made++ {
		out, used, err := p.step(t, st, log)
		if failed = err; err != nil {
			break
		}
		if made == 1 {
			learn(&p.prefill, float64(st.Seq.New)/(used.End-used.Start).Seconds())
		}
		t.cached = st.Seq.Context + st.Seq.New
		down.Write(tokenPayload(out.Token, p.tokenBytes))
		if out.Token != hardware.NoToken {
			log.Output = append(log.Output, out.Token)
		}
		if out.End || made >= req.OutputTokens {
			break
		}
		follow(&st.Seq, out.Token)
		if out.Token == hardware.NoToken { // a device that knows sizes only
			text = nil
		}
		if text != nil {
			text = append(text, out.Token)
		}
		st.Kind = hardware.Decode
	}
	t.text = text
	down.Close(failed)
	got, err := down.Drain()
	for _, m := range got {
		log.Token(m.Usage.End, m.Payload.Tokens)
		sent(log, m, false)
	}
	if n := len(got); n > 0 {
		log.Spent(record.Transfer, "down", got[n-1].Usage.Start, got[n-1].Usage.End)
	}
	return err
}

// park copies the cache out and drops it: the node's memory is free for others.
func (p *session) park(t *talked, log *record.Request) error {
	cached, text := t.cached, t.text
	out, _, err := p.step(t, serving.Step{Kind: hardware.Save, Seq: hardware.Seq{New: cached}}, log)
	p.forget(t)
	if err == nil {
		t.cached, t.text, t.parked = cached, text, out.Hidden
	}
	return err
}

// unpark takes it in again.
func (p *session) unpark(t *talked, req *workloads.Request, log *record.Request) error {
	load, cached := t.parked, t.cached
	p.open(t, req)
	t.parked = hardware.Payload{}
	_, _, err := p.step(t, serving.Step{Kind: hardware.Restore, Seq: hardware.Seq{New: cached, In: load}}, log)
	return err
}

// carry moves the cache to another node, all of it or what lies behind a head that
// the target computes meanwhile.
func (p *session) carry(t *talked, here, reuse int, req *workloads.Request, log *record.Request) error {
	from, to := p.nodes[t.node], p.nodes[here]
	link, err := p.site.Between(from.Name(), to.Name())
	if err != nil {
		return fmt.Errorf("pipeline session: the user moved: %w", err)
	}
	head := 0
	if p.cache == "joint" && p.prefill > 0 {
		u := handover.User{Tokens: reuse, PrefillTokensPerSec: p.prefill, KVBytesPerToken: int(p.model.KVBytesPerToken(p.model.All()))}
		n, _ := u.Joint(link.Spec().BytesPerSec)
		head = min(int(n), reuse-1)
	}
	tail, _, err := p.step(t, serving.Step{Kind: hardware.Save, Seq: hardware.Seq{Context: head, New: reuse - head}}, log)
	if err != nil {
		return err
	}
	p.forget(t)
	t.node = here
	p.open(t, req)
	done, cond := head == 0, p.env.NewCond()
	var herr error
	if head > 0 { // computed while the tail is under way
		p.env.Go("head", func() {
			st := serving.Step{Kind: hardware.Prefill, Seq: hardware.Seq{New: head}}
			if req.Prompt != nil {
				st.Seq.Tokens = req.Prompt[:head]
			}
			p.enter(t)
			_, _, herr = t.seq.Step(st)
			done = true
			cond.Signal()
		})
	}
	d, err := link.Send(tail.Hidden)
	for !done {
		cond.Wait()
	}
	if err = errors.Join(err, herr); err != nil {
		return err
	}
	p.backhaul += d.Payload.Bytes
	log.Spent(record.Transfer, "backhaul", d.Usage.Start, d.Usage.End)
	_, _, err = p.step(t, serving.Step{Kind: hardware.Restore, Seq: hardware.Seq{Context: head, New: reuse - head, In: d.Payload}}, log)
	return err
}

// Figures is what went over links between nodes.
func (p *session) Figures() map[string]float64 {
	return map[string]float64{"backhaul_bytes": float64(p.backhaul)}
}

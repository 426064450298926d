package pipeline

import (
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/workloads"
)

var followEntry = Entry{
	Name: "follow", Doc: "conversations whose users move from cell to cell, also in the middle of an answer: the session stays and is tunnelled, is computed again, moves, or both",
	Ops: "edge: prefill, decode, save, restore",
	Params: with(serverParams, []Param{
		{Name: "cache", Names: []string{"auto", "stay", "prefill", "move", "mix", "prefetch"}, Doc: "at a hand-over: stay = tokens go over the backhaul; prefill = computed again at the target; move = live copy while decoding goes on; mix = the head is computed while the tail is sent; auto = what delays least by the closed forms; prefetch = move, begun when the radio reports a better cell"},
		{Name: "kept", Default: 64, Min: 1, Max: 1e6, Doc: "conversations whose caches a node keeps at most; the least recently used goes"},
		{Name: "block", Default: 16, Min: 1, Max: 4096, Doc: "tokens of a block of a live copy"},
		{Name: "last", Default: 1, Min: 1, Max: 4096, Doc: "blocks that a live copy may send while the answer stands still"},
		{Name: "stages", Default: 8, Min: 1, Max: 1000, Doc: "stages of a live copy before the rest is sent at once"},
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
	}),
	New: func(p Params) Pipeline {
		return &follower{cache: p.Name("cache"), kept: p.Int("kept"), block: p.Int("block"), last: p.Int("last"), most: p.Int("stages"),
			tokenBytes: p.Num("token_bytes"), options: serverOptions(p)}
	},
}

// follower serves conversations of users whose radio ends at another edge node from
// time to time (checklist X3, I19): between turns, and between two tokens. What
// becomes of the cache is its policy: see package reference/handover for the closed
// forms, Llumnix (OSDI'24) for the live copy, arXiv 2603.28018 for mix.
type follower struct {
	cache             string
	kept              int
	block, last, most int
	tokenBytes        float64
	options           serving.Options

	env     world.Env
	site    *hardware.Site
	model   *hardware.Model
	nodes   *edges
	chats   map[int]*chat
	idle    map[int][]*chat // by node, least recently used first
	ids     int64
	prefill float64 // tokens per second, as prefills went
	pace    time.Duration

	backhaul, wasted units.Bytes
	pingPongs, hits  int
}

// chat is a conversation: between two turns its cache, if it has one, is at home.
type chat struct {
	home   int // node
	seq    *serving.Session
	cached int     // tokens in the cache
	text   []int32 // these and the next; nil: not known
	need   int     // tokens for which memory is taken with the next step; 0 = it has it
	busy   bool
	last   int      // node where the user was when the answer ended
	ahead  *copying // brought to home before the user came
	copy   *copying // under way
	gone   world.Cond
	moving bool // between turns
}

// turn is a request of a conversation.
type turn struct {
	p    *follower
	t    *chat
	user *hardware.User
	req  *workloads.Request
	log  *record.Request
	here int // node where the radio ends
	was  int // the one before, and when it was left
	left time.Duration
	down hardware.Stream
	made int // tokens

	tunnels int // tokens on their way over the backhaul
	done    world.Cond
	failed  error
	breaks  []int // tokens made when something held the answer up
	stalled time.Duration
}

func (p *follower) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model = env, site, models.Main
	p.chats, p.idle = map[int]*chat{}, map[int][]*chat{}
	needs := []hardware.Kind{hardware.Prefill, hardware.Decode}
	if p.cache != "stay" && p.cache != "prefill" {
		needs = append(needs, hardware.Save, hardware.Restore)
	}
	e := &edges{who: "follow", env: env, site: site, options: p.options, held: p.held()}
	p.nodes, err = e.start(needs...)
	return err
}

func (p *follower) held() serving.Held { return serving.Held{Model: p.model, Span: p.model.All()} }

func (p *follower) perToken() units.Bytes { return p.model.KVBytesPerToken(p.model.All()) }

func (p *follower) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	user := p.site.User(req.User)
	if _, err := raise(user, req, log); err != nil {
		return err
	}
	x := &turn{p: p, t: p.chat(req), user: user, req: req, log: log, here: p.nodes.near(user), was: -1, done: p.env.NewCond()}
	reuse, err := x.bring()
	if err == nil {
		err = x.answer(reuse)
	}
	x.end(err)
	return err
}

// chat is the conversation that a request goes on with. One that is at it already gets
// a twin without a cache.
func (p *follower) chat(req *workloads.Request) *chat {
	t := p.chats[req.Session]
	if t != nil {
		for t.moving {
			t.gone.Wait()
		}
	}
	if t == nil || t.busy {
		t = &chat{home: -1, last: -1}
		if p.chats[req.Session] == nil {
			p.chats[req.Session] = t
		}
	}
	t.busy = true
	if i := slices.Index(p.idle[t.home], t); i >= 0 {
		p.idle[t.home] = slices.Delete(p.idle[t.home], i, i+1)
	}
	return t
}

// bring has the cache where the turn will be answered and says how many tokens of
// the prompt it holds.
func (x *turn) bring() (int, error) {
	p, t := x.p, x.t
	reuse := 0
	if t.seq != nil {
		reuse = min(x.reusable(), x.req.PromptTokens-1)
	}
	moved := t.last >= 0 && t.last != x.here
	if moved {
		x.log.Count(record.Handovers, 1)
	}
	if c := t.ahead; c != nil {
		t.ahead = nil
		if moved && t.home == x.here {
			p.hits++
		} else if t.home != x.here {
			p.wasted += c.bytes
		}
	}
	if reuse <= 0 {
		p.forget(t)
		return 0, p.open(t, x.here, x.req)
	}
	if t.home == x.here {
		return x.grow(reuse)
	}
	from := p.env.Now()
	how, head := p.decide(x, t.home, x.here, reuse)
	if how == "stay" {
		if err := x.tunnelled(promptPayload(x.req)); err != nil {
			return 0, err
		}
		return x.grow(reuse)
	}
	err := x.relocate(x.here, reuse, head)
	if d := p.env.Now() - from; d > 0 {
		x.log.Count(record.Stalls, 1)
		x.stalled += d
	}
	return reuse, err
}

// reusable is how many leading tokens of the prompt are in the cache.
func (x *turn) reusable() int {
	n := min(x.t.cached, x.req.PrefixTokens)
	if x.t.text == nil || x.req.Prompt == nil {
		return n
	}
	n = min(x.t.cached, len(x.t.text), len(x.req.Prompt))
	for i := range n {
		if x.t.text[i] != x.req.Prompt[i] {
			return i
		}
	}
	return n
}

// grow makes room for a longer conversation; where there is none, even after the idle
// ones have gone, it is computed again when there is.
func (x *turn) grow(reuse int) (int, error) {
	p, t := x.p, x.t
	need := x.req.PromptTokens + x.req.OutputTokens
	if t.seq.Grow(need) == nil {
		return reuse, nil
	}
	p.trim(t.home, func(int) bool { return false })
	if t.seq.Grow(need) == nil {
		return reuse, nil
	}
	home := t.home
	p.forget(t)
	return 0, p.open(t, home, x.req)
}

// open starts a sequence at a node, which becomes the conversation's home.
func (p *follower) open(t *chat, node int, req *workloads.Request) (err error) {
	t.need = req.PromptTokens + req.OutputTokens
	t.home, t.cached, t.text = node, 0, nil
	t.seq, err = p.session(node, t.need)
	return err
}

func (p *follower) session(node, tokens int) (*serving.Session, error) {
	srv, err := p.nodes.at(node)
	if err != nil {
		return nil, err
	}
	p.ids++
	return srv.Open(p.ids|1<<43, p.held(), tokens), nil
}

// room lets idle conversations of a node give way to one of so many tokens, and
// reports whether it could enter at once.
func (p *follower) room(node, tokens int) bool {
	srv := p.nodes.servers[node]
	p.trim(node, func(int) bool { return srv.Room(p.held(), tokens) })
	return srv.Room(p.held(), tokens)
}

// trim drops the least recently used caches of a node until that is enough.
func (p *follower) trim(node int, enough func(here int) bool) {
	for len(p.idle[node]) > 0 && !enough(len(p.idle[node])) {
		t := p.idle[node][0]
		p.idle[node] = slices.Delete(p.idle[node], 0, 1)
		p.forget(t)
	}
}

// forget drops a conversation's cache.
func (p *follower) forget(t *chat) {
	if t.seq != nil {
		t.seq.Close()
	}
	t.seq, t.cached, t.text, t.ahead = nil, 0, nil, nil
}

// step runs one operation of the conversation's sequence.
func (x *turn) step(st serving.Step) (hardware.Out, hardware.Usage, error) {
	t := x.t
	if t.need > 0 {
		x.p.room(t.home, t.need)
		t.need = 0
	}
	out, used, err := t.seq.Step(st)
	if err != nil {
		return out, used, err
	}
	ran(x.log, x.p.site.Nodes[t.home].Name, used)
	settle(x.log, t.seq)
	return out, used, nil
}

// answer computes what the cache lacks and writes the answer.
func (x *turn) answer(reuse int) error {
	p, t, req := x.p, x.t, x.req
	x.log.Count(record.ReusedTokens, int64(reuse))
	st := serving.Step{Kind: hardware.Prefill, Seq: hardware.Seq{Context: reuse, New: req.PromptTokens - reuse}}
	if req.Prompt != nil {
		st.Seq.Tokens = req.Prompt[reuse:]
	}
	t.text = slices.Clone(req.Prompt)
	x.down = x.user.Down.Open()
	for x.made = 1; ; x.made++ {
		out, used, err := x.step(st)
		if x.failed = err; err != nil {
			break
		}
		if x.made == 1 {
			learn(&p.prefill, float64(st.Seq.New)/(used.End-used.Start).Seconds())
		} else {
			p.pace += (used.End - used.Start - p.pace) / 4
		}
		t.cached = st.Seq.Context + st.Seq.New
		x.emit(out)
		if out.End || x.made >= req.OutputTokens {
			break
		}
		follow(&st.Seq, out.Token)
		if out.Token == hardware.NoToken { // a device that knows sizes only
			t.text = nil
		} else if t.text != nil {
			t.text = append(t.text, out.Token)
		}
		st.Kind = hardware.Decode
		if x.failed = x.look(); x.failed != nil {
			break
		}
	}
	return x.drain()
}

// emit sends a token to the user, over the backhaul if the user is elsewhere.
func (x *turn) emit(out hardware.Out) {
	msg := tokenPayload(out.Token, x.p.tokenBytes)
	if out.Token != hardware.NoToken {
		x.log.Output = append(x.log.Output, out.Token)
	}
	if x.here == x.t.home {
		x.down.Write(msg)
		return
	}
	link, err := x.between(x.t.home, x.here)
	if err != nil {
		x.failed = err
		return
	}
	x.count(msg.Bytes)
	x.tunnels++
	x.p.env.Go("tunnel", func() {
		if d, err := link.Send(msg); err != nil {
			x.failed = err
		} else {
			x.down.Write(d.Payload)
		}
		x.tunnels--
		x.done.Signal()
	})
}

// drain waits until the user has everything and notes what held it up.
func (x *turn) drain() error {
	for x.tunnels > 0 {
		x.done.Wait()
	}
	x.down.Close(x.failed)
	got, err := x.down.Drain()
	for _, m := range got {
		x.log.Token(m.Usage.End, m.Payload.Tokens)
		sent(x.log, m, false)
	}
	if n := len(got); n > 0 {
		x.log.Spent(record.Transfer, "down", got[n-1].Usage.Start, got[n-1].Usage.End)
	}
	x.stalls(got)
	return err
}

// stalls adds up the gaps around hand-overs, beyond the mean of the other gaps. A gap
// that is less than twice as long as the mean holds nobody up.
func (x *turn) stalls(got []hardware.Delivery) {
	gap := func(g int) time.Duration { return got[g+1].Usage.End - got[g].Usage.End }
	near := map[int]bool{}
	for _, made := range x.breaks {
		near[made-2], near[made-1] = true, true
	}
	var sum time.Duration
	n := 0
	for g := range len(got) - 1 {
		if !near[g] {
			sum, n = sum+gap(g), n+1
		}
	}
	if n == 0 {
		return
	}
	mean := sum / time.Duration(n)
	for _, made := range x.breaks {
		held := false
		for g := max(0, made-2); g < min(made, len(got)-1); g++ {
			if near[g] && gap(g) >= 2*mean {
				x.stalled += gap(g) - mean
				held, near[g] = true, false
			}
		}
		if held {
			x.log.Count(record.Stalls, 1)
		}
	}
}

// end puts the conversation aside.
func (x *turn) end(err error) {
	p, t := x.p, x.t
	x.log.Count(record.StallTime, int64(x.stalled))
	if x.user.Near != nil {
		x.log.Counts[record.Place] = int64(x.here) + 1
	}
	t.busy, t.last = false, x.here
	p.abandon(x, t.copy)
	if err != nil || p.chats[x.req.Session] != t {
		p.forget(t)
		return
	}
	if p.cache == "prefetch" {
		p.bringAhead(x)
	}
	if !t.moving {
		p.rest(t)
	}
}

// rest puts a conversation among those that may be dropped: who waits for memory
// comes before who may come back.
func (p *follower) rest(t *chat) {
	p.idle[t.home] = append(p.idle[t.home], t)
	srv := p.nodes.servers[t.home]
	p.trim(t.home, func(here int) bool { return here <= p.kept && !srv.Crowded() })
}

// Figures are those of the servers, and what hand-overs moved.
func (p *follower) Figures() map[string]float64 {
	f := p.nodes.Figures()
	f["backhaul_bytes"], f["ping_pongs"] = float64(p.backhaul), float64(p.pingPongs)
	f["prefetch_hits"], f["prefetch_waste"] = float64(p.hits), float64(p.wasted)
	return f
}

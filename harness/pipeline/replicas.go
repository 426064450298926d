package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/workloads"
)

// replicas are whole models on the nodes of a site: they are started and stopped,
// they die and come back, and they answer. The first edge node is the door: users'
// prompts arrive there, and what other nodes say goes back through it.
type replicas struct {
	options             serving.Options
	tokenBytes          float64
	start, notice, wait time.Duration // of a start besides loading; until a death is known; between two looks whether a node is back

	env   world.Env
	site  *hardware.Site
	held  serving.Held
	roads *roads
	door  int // place of the first edge node
	list  []*replica

	moved   world.Cond    // a replica changed its state
	flown   int           // requests under way
	since   time.Duration // of the integrals below
	any     bool
	served  time.Duration // time in which a replica was on
	watched time.Duration // time since the first request
	onTime  time.Duration // of all replicas together
	most    int
	changes int
	worst   time.Duration // longest recovery
	outs    int64         // tokens of answers that are over, and their number
	answers int64
	prompts int64 // tokens of prompts that came, and their number
	asked   int64
}

// state of a replica.
type state uint8

const (
	off state = iota
	starting
	on
	draining
	dead
)

// replica is a node that can hold the model.
type replica struct {
	node  hardware.Node
	place int
	srv   *serving.Server
	state state
	jobs  int
	left  time.Duration // work of the requests there, had each the node to itself
	used  time.Duration // integral of its slots in use, in requests
	seen  time.Duration
	cold  bool // the model must be loaded
}

var replicaParams = []Param{
	{Name: "start_ms", Default: 1000, Min: 0, Max: 1e9, Doc: "time that a node takes to start serving, besides loading the model (assumed)"},
	{Name: "notice_ms", Default: 100, Min: 0, Max: 1e6, Doc: "time until it is known that a node is dead (assumed)"},
	{Name: "retry_ms", Default: 1000, Min: 1, Max: 1e9, Doc: "time between two looks whether a dead node is back"},
	{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
}

func newReplicas(p Params) *replicas {
	return &replicas{options: serverOptions(p), tokenBytes: p.Num("token_bytes"), start: units.Seconds(p.Num("start_ms") / 1e3),
		notice: units.Seconds(p.Num("notice_ms") / 1e3), wait: units.Seconds(p.Num("retry_ms") / 1e3)}
}

// open finds the nodes that can hold the model and makes a server on each.
func (rs *replicas) open(who string, env world.Env, site *hardware.Site, m *hardware.Model) (err error) {
	rs.env, rs.site, rs.held, rs.moved = env, site, serving.Held{Model: m, Span: m.All()}, env.NewCond()
	if rs.roads, err = survey(site); err != nil {
		return fmt.Errorf("pipeline %s: %w", who, err)
	}
	var small error
	for i, node := range site.Nodes {
		place := i + 1
		if rs.door == 0 && node.Role == hardware.EdgeRole {
			rs.door = place
		}
		if rs.roads.next[0][place] < 0 || rs.roads.next[place][0] < 0 {
			continue
		}
		if err := hardware.Needs("pipeline "+who+": "+node.Name, node.Device, hardware.Prefill, hardware.Decode); err != nil {
			return err
		}
		srv, err := serving.New(env, node, rs.options, rs.held)
		if errors.Is(err, hardware.ErrMemory) {
			small = err
			continue
		}
		if err != nil {
			return err
		}
		rs.list = append(rs.list, &replica{node: node, place: place, srv: srv, cold: true})
	}
	if len(rs.list) == 0 {
		return fmt.Errorf("pipeline %s: no node holds model %q: %w", who, m.Name, cmp.Or(small, hardware.ErrMemory))
	}
	return nil
}

// count is how many replicas are in a state.
func (rs *replicas) count(s state) (n int) {
	for _, r := range rs.list {
		if r.state == s {
			n++
		}
	}
	return n
}

// become changes a replica's state and keeps the integrals true.
func (rs *replicas) become(r *replica, s state) {
	rs.account()
	if (r.state == on) != (s == on) {
		rs.changes++
	}
	r.state = s
	rs.most = max(rs.most, rs.count(on))
	rs.moved.Broadcast()
}

// account adds up until now.
func (rs *replicas) account() {
	now := rs.env.Now()
	if gone := now - rs.since; gone > 0 {
		up := rs.count(on) + rs.count(draining)
		rs.onTime += gone * time.Duration(up+rs.count(starting))
		if rs.any {
			rs.watched += gone
			if rs.count(on) > 0 {
				rs.served += gone
			}
		}
	}
	rs.since = now
}

// have makes a replica serve at once, as one that was there before the run.
func (rs *replicas) have(r *replica) {
	r.cold = false
	rs.become(r, on)
	rs.changes = 0
}

// order starts a replica: the node's own start, then the model from its storage.
func (rs *replicas) order(r *replica) {
	if r.state == draining { // it is still there
		rs.become(r, on)
		return
	}
	rs.become(r, starting)
	rs.env.Serve("start "+r.node.Name, func() {
		rs.env.Sleep(rs.start)
		if r.cold && r.node.Device.Spec().Ops.Has(hardware.Load) {
			op := hardware.Op{Kind: hardware.Load, Model: rs.held.Model, Layers: rs.held.Span}
			if _, err := r.node.Device.Run(&op); err != nil {
				if errors.Is(err, hardware.ErrDown) {
					rs.died(r)
				} else {
					rs.become(r, off)
				}
				return
			}
		}
		r.cold = false
		if r.state == starting {
			rs.become(r, on)
		}
	})
}

// dismiss lets a replica finish what it has, and no more.
func (rs *replicas) dismiss(r *replica) {
	rs.become(r, draining)
	rs.settle(r)
}

// settle switches a replica off that has nothing more to do.
func (rs *replicas) settle(r *replica) {
	if r.state == draining && r.jobs == 0 {
		r.cold = true
		op := hardware.Op{Kind: hardware.Drop, Model: rs.held.Model, Layers: rs.held.Span}
		_, _ = r.node.Device.Run(&op) // it forgets the model
		rs.become(r, off)
	}
}

// patience is how long a dead node is watched: it bounds a run in which it never comes back.
const patience = time.Hour

// died strikes a replica off until its node answers again; then it is off and cold.
func (rs *replicas) died(r *replica) {
	if r.state == dead {
		return
	}
	rs.become(r, dead)
	r.cold = true
	rs.env.Serve("watch "+r.node.Name, func() {
		for end := rs.env.Now() + patience; rs.env.Now() < end; {
			rs.env.Sleep(rs.wait)
			op := hardware.Op{Kind: hardware.Drop, Model: rs.held.Model, Layers: rs.held.Span, Seqs: []hardware.Seq{{ID: -1}}}
			if _, err := r.node.Device.Run(&op); !errors.Is(err, hardware.ErrDown) {
				rs.become(r, off)
				return
			}
		}
	})
}

// hopeless reports that no node will ever serve again.
func (rs *replicas) hopeless() bool {
	return rs.count(dead) == len(rs.list) && rs.env.Now()-rs.since > patience
}

// solo is how long a request takes on a node alone, and gain how much more a full
// batch does at a time: by the device's own word, 0 and 1 where it cannot tell.
func (rs *replicas) solo(r *replica, prompt, output int) (alone time.Duration, gain float64) {
	e, ok := estimator(r.node.Device)
	if !ok {
		return 0, 1
	}
	m, depth := rs.held.Model, prompt+output/2
	op := hardware.Op{Kind: hardware.Prefill, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{New: max(prompt, 1)}}}
	first := e.Estimate(&op)
	op.Kind, op.Seqs[0] = hardware.Decode, hardware.Seq{Context: depth, New: 1}
	step := e.Estimate(&op)
	full := op
	full.Seqs = slices.Repeat(op.Seqs, rs.options.Most)
	alone = first + time.Duration(max(output-1, 0))*step
	batched := float64(first)*float64(rs.options.Most) + float64(time.Duration(max(output-1, 0))*e.Estimate(&full))
	if batched <= 0 {
		return alone, 1
	}
	return alone, max(1, float64(alone)*float64(rs.options.Most)/batched)
}

// typicalOutput is the mean length of answers so far; nobody knows an answer's
// length before. Until one is over it is 1, the least: rules that refuse would never learn.
func (rs *replicas) typicalOutput() int { return max(1, int(rs.outs/max(rs.answers, 1))) }

// typicalPrompt is the mean length of prompts so far.
func (rs *replicas) typicalPrompt() int { return max(1, int(rs.prompts/max(rs.asked, 1))) }

// enter and leave tell of a request at a replica.
func (rs *replicas) enter(r *replica, work time.Duration) {
	rs.use(r)
	r.jobs, r.left = r.jobs+1, r.left+work
}

func (rs *replicas) leave(r *replica, work time.Duration) {
	rs.use(r)
	r.jobs, r.left = r.jobs-1, r.left-work
	rs.settle(r)
}

// use adds up a replica's slots in use.
func (rs *replicas) use(r *replica) {
	now := rs.env.Now()
	r.used += (now - r.seen) * time.Duration(min(r.jobs, rs.options.Most))
	r.seen = now
}

// ask has a replica make what is missing of an answer. The door has the prompt, and
// what was answered so far.
func (rs *replicas) ask(r *replica, req *workloads.Request, log *record.Request, prompt hardware.Payload) error {
	user, have := rs.site.User(req.User), log.OutputTokens
	log.Output = log.Output[:min(have, len(log.Output))]
	if len(log.Output) == have && prompt.Data != nil {
		prompt.Data = slices.Concat(prompt.Data, encodeTokens(log.Output))
	}
	prompt.Bytes += units.Bytes(4 * have)
	if r.place != rs.door {
		got, err := rs.roads.send(user, log, [2]int{rs.door, r.place}, prompt)
		if err != nil {
			return err
		}
		prompt = got
	}
	part := *req
	part.PromptTokens, part.OutputTokens = req.PromptTokens+have, req.OutputTokens-have
	tokens := decodeTokens(prompt.Data)
	if r.place != rs.door {
		return rs.relay(r, tokens, &part, log)
	}
	d := desk{srv: r.srv, held: rs.held, tokenBytes: rs.tokenBytes}
	down := user.Down.Open()
	if trains, ok := down.(hardware.Trains); ok && tokens == nil {
		return d.counted(trains, &part, log)
	}
	return d.told(down, tokens, &part, log)
}

// relay is a desk's stream from another node: tokens go to the door one message
// after the other, those that came meanwhile together, and from there to the user.
func (rs *replicas) relay(r *replica, prompt []int32, req *workloads.Request, log *record.Request) error {
	user := rs.site.User(req.User)
	down, tokens, over := user.Down.Open(), world.NewQueue[hardware.Out](rs.env), false
	var ended error
	j := &serving.Job{ID: int64(req.ID), Held: rs.held, Prompt: req.PromptTokens, Limit: req.OutputTokens, Tokens: prompt, Deadline: deadline(req)}
	j.Emit = func(out hardware.Out, _ hardware.Usage) {
		tokens.Put(out)
		if out.Token != hardware.NoToken && !over {
			log.Output = append(log.Output, out.Token)
		}
	}
	j.Finish = func(err error) {
		r.srv.Free(j)
		ended = err
		tokens.Close()
	}
	rs.env.Go("relay", func() {
		var broken error
		for out, ok := tokens.Get(); ok; out, ok = tokens.Get() {
			load := tokenPayload(out.Token, rs.tokenBytes)
			for more, ok := tokens.TryGet(); ok; more, ok = tokens.TryGet() {
				next := tokenPayload(more.Token, rs.tokenBytes)
				load = hardware.Payload{Bytes: load.Bytes + next.Bytes, Tokens: load.Tokens + next.Tokens, Data: append(load.Data, next.Data...)}
			}
			if broken != nil {
				continue
			}
			if load, broken = rs.roads.carry(user, log, [2]int{r.place, rs.door}, load, false); broken == nil {
				down.Write(load)
			}
		}
		down.Close(cmp.Or(broken, ended))
	})
	r.srv.Put(j)
	got, err := down.Drain()
	over = true
	for _, m := range got {
		log.Token(m.Usage.End, m.Payload.Tokens)
		sent(log, m, false)
	}
	answered(log, r.srv.Name(), j)
	return err
}

// attempt asks a replica and tells what became of it: nil, an end for good, or again:
// the node died, which is known by now.
func (rs *replicas) attempt(r *replica, req *workloads.Request, log *record.Request, prompt hardware.Payload) (again bool, err error) {
	work, _ := rs.solo(r, req.PromptTokens, rs.typicalOutput())
	rs.enter(r, work)
	err = rs.ask(r, req, log, prompt)
	rs.leave(r, work)
	if !errors.Is(err, hardware.ErrDown) {
		if err == nil {
			rs.outs, rs.answers = rs.outs+int64(log.OutputTokens), rs.answers+1
		}
		return false, err
	}
	if r.state != dead {
		rs.env.Sleep(rs.notice)
		rs.died(r)
	}
	log.Spent(record.Wait, "", log.Reached(), rs.env.Now())
	log.Count(record.Retries, 1)
	return true, err
}

// fell is when the node died that an error tells of.
func fell(err error, otherwise time.Duration) time.Duration {
	if f := (interface{ Since() time.Duration })(nil); errors.As(err, &f) {
		return f.Since()
	}
	return otherwise
}

// begin and end tell of a request under way.
func (rs *replicas) begin(req *workloads.Request) {
	rs.account()
	rs.prompts, rs.asked = rs.prompts+int64(req.PromptTokens), rs.asked+1
	rs.any = true
	rs.flown++
}

func (rs *replicas) end() {
	rs.account()
	rs.flown--
}

// recovered notes the first token after a death.
func (rs *replicas) recovered(log *record.Request, chunks int, since time.Duration) {
	if since >= 0 && len(log.Chunks) > chunks {
		rs.worst = max(rs.worst, log.Chunks[chunks].At-since)
	}
}

// figures are those of the fleet, and of its servers together.
func (rs *replicas) figures() map[string]float64 {
	var all serving.Stats
	for _, r := range rs.list {
		s := r.srv.Stats()
		all.Operations, all.Sequences, all.Preempted = all.Operations+s.Operations, all.Sequences+s.Sequences, all.Preempted+s.Preempted
		all.Largest = max(all.Largest, s.Largest)
	}
	span := rs.since
	f := map[string]float64{"batch_mean": float64(all.Sequences) / float64(max(all.Operations, 1)), "batch_max": float64(all.Largest), "preempted": float64(all.Preempted),
		"backhaul_bytes": float64(rs.roads.moved), "node_time": rs.onTime.Seconds(), "replicas_max": float64(rs.most), "replica_changes": float64(rs.changes),
		"availability": 1}
	if span > 0 {
		f["replicas_mean"] = float64(rs.onTime) / float64(span)
	}
	if rs.watched > 0 {
		f["availability"] = float64(rs.served) / float64(rs.watched)
	}
	if rs.worst > 0 {
		f["recovery"] = rs.worst.Seconds()
	}
	return f
}

package pipeline

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/orchestrate"
	"meibench/workloads"
)

var orchestrateEntry = Entry{
	Name: "orchestrate", Doc: "placement, routing and bandwidth are decided together, again and again, from what is observed",
	Ops: "nodes: prefill, decode, load; device: prefill, decode",
	Params: with(serverParams, []Param{
		{Name: "solver", Names: []string{"local", "greedy", "response"}, Doc: "the search: greedy and then moves; greedy by gain per byte; users in turn"},
		{Name: "objective", Names: []string{"mean", "worst", "goodput", "cost"}, Doc: "what is to be least: the mean delay, the worst group's, the share that misses its deadline, the mean delay and 0.1 s for each node that is on"},
		{Name: "bandwidth", Names: []string{"minsum", "equal", "maxmin", "minmax", "proportional"}, Doc: "how the uplink of the cell is shared"},
		{Name: "cell_mbps", Default: 0, Min: 0, Max: 1e6, Doc: "uplink that all users share, in Mbit/s, each shaped to their part; 0 = they do not share one"},
		{Name: "groups", Default: 4, Min: 1, Max: 6, Doc: "groups of users that are decided about, by the remainder of their number"},
		{Name: "data", Names: []string{"anywhere", "edge", "device"}, Doc: "how far users' data may go: also to a cloud, to edge nodes, nowhere"},
		{Name: "period_ms", Default: 2000, Min: 1, Max: 1e9, Doc: "time between two decisions"},
		{Name: "decide_us", Default: 2, Min: 0, Max: 1e6, Doc: "time of a decision per candidate that the search evaluates, in µs (assumed)"},
	}, replicaParams),
	New: func(p Params) Pipeline {
		o := &orchestrator{rs: newReplicas(p), groups: make([]group, p.Int("groups")), cell: p.Num("cell_mbps") * 1e6, rule: p.Name("bandwidth"),
			period: units.Seconds(p.Num("period_ms") / 1e3), each: units.Seconds(p.Num("decide_us") / 1e6)}
		o.solver, _ = orchestrate.FindSolver(p.Name("solver"))
		o.want = map[string]orchestrate.Weights{"mean": {Mean: 1}, "worst": {Worst: 1}, "goodput": {Miss: 1, Mean: 0.01}, "cost": {Mean: 1, Cost: 0.1}}[p.Name("objective")]
		o.want.Node = 1
		o.class = map[string]orchestrate.Class{"anywhere": orchestrate.Anywhere, "edge": orchestrate.EdgeOnly, "device": orchestrate.DeviceOnly}[p.Name("data")]
		return o
	},
}

// orchestrator decides by reference/orchestrate which nodes hold the model, where
// each group of users is served (device, edge, cloud) and how they share a cell, from
// the rates and lengths of the last periods (checklist X4). What is decided is done:
// models are loaded, uplinks are shaped, and a decision takes its time.
type orchestrator struct {
	rs     *replicas
	solver orchestrate.Solver
	want   orchestrate.Weights
	class  orchestrate.Class
	rule   string
	cell   float64 // bit/s; 0 = not shared
	period time.Duration
	each   time.Duration
	groups []group

	env       world.Env
	back      fallback // the device's own part
	decision  orchestrate.Decision
	pace      map[hardware.Device][2]float64 // seconds per prompt token and per output token of devices that had to be probed
	free      map[int]time.Duration          // users, and when their part of the uplink is free
	asleep    bool
	wake      world.Cond
	deciding  bool
	decisions int
	ratio     float64 // summed over decisions that an exhaustive search could check
	checked   int
	took      time.Duration
	strayed   int // requests whose data went too far
}

// group is some of the users, and what is known of them.
type group struct {
	users           map[int]bool
	arrived         int // in this period
	prompt, output  int64
	bytes           int64
	seen            int64
	rate            float64 // per second, smoothed
	deadline        time.Duration
	target, current int // replica, or orchestrate.OnDevice, Refused; current serves until target does
}

func (p *orchestrator) Start(env world.Env, site *hardware.Site, models Models) error {
	p.env, p.wake, p.asleep = env, env.NewCond(), true
	p.pace, p.free = map[hardware.Device][2]float64{}, map[int]time.Duration{}
	p.back = fallback{env: env, model: models.Main, turns: turns{}}
	if err := p.rs.open("orchestrate", env, site, models.Main); err != nil {
		return err
	}
	first := 0 // until something is known: the first that the data may go to
	for first < len(p.rs.list) && !p.may(first) {
		first++
	}
	if first == len(p.rs.list) {
		first = orchestrate.OnDevice
		if err := hardware.Needs(fmt.Sprintf("pipeline orchestrate: data %v: device", [...]string{"anywhere", "edge", "device"}[p.class]), site.User(0).Device, hardware.Prefill, hardware.Decode); err != nil {
			return err
		}
	} else {
		p.rs.have(p.rs.list[first])
	}
	for i := range p.groups {
		p.groups[i] = group{users: map[int]bool{}, target: first, current: first}
	}
	env.Serve("orchestrator", func() {
		for {
			for p.rs.flown == 0 {
				p.asleep = true
				p.wake.Wait()
			}
			p.asleep = false
			p.env.Sleep(p.period)
			p.decide(true)
		}
	})
	return nil
}

// may reports whether users' data may go to a replica.
func (p *orchestrator) may(r int) bool {
	return p.class == orchestrate.Anywhere || p.class == orchestrate.EdgeOnly && p.rs.list[r].node.Role != hardware.CloudRole
}

func (p *orchestrator) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	p.rs.begin(req)
	defer p.rs.end()
	g := p.observe(req)
	defer func() { g.output += int64(log.OutputTokens) }()
	if p.asleep {
		p.asleep = false
		p.wake.Signal()
	}
	user, since := p.rs.site.User(req.User), time.Duration(-1)
	var prompt hardware.Payload
	up := false
	for {
		at := p.where(g)
		for at == nowhere {
			if p.rs.hopeless() {
				return fmt.Errorf("pipeline orchestrate: no place came back in %v: %w", patience, hardware.ErrDown)
			}
			p.rs.moved.Wait()
			at = p.where(g)
		}
		switch at {
		case orchestrate.Refused:
			return refused{}
		case orchestrate.OnDevice:
			chunks := len(log.Chunks)
			err := p.back.here(user, req, log)
			p.rs.recovered(log, chunks, since)
			return err
		}
		if !up {
			if !p.may(at) {
				p.strayed++
			}
			var err error
			if prompt, err = p.upload(user, g, req, log); err != nil {
				return err
			}
			up = true
		}
		chunks := len(log.Chunks)
		again, err := p.rs.attempt(p.rs.list[at], req, log, prompt)
		p.rs.recovered(log, chunks, since)
		if !again {
			return err
		}
		if log.OutputTokens >= req.OutputTokens {
			return nil
		}
		since = fell(err, p.env.Now())
		p.mend()
	}
}

// observe notes a request's sizes.
func (p *orchestrator) observe(req *workloads.Request) *group {
	g := &p.groups[req.User%len(p.groups)]
	g.users[req.User] = true
	g.arrived, g.seen = g.arrived+1, g.seen+1
	g.prompt, g.bytes, g.deadline = g.prompt+int64(req.PromptTokens), g.bytes+int64(promptPayload(req).Bytes), req.Deadline
	return g
}

const nowhere = -3

// where a group is served now: at its target, else where it was, else wherever the
// model is, else nowhere yet.
func (p *orchestrator) where(g *group) int {
	for _, at := range []int{g.target, g.current} {
		if at < 0 || p.rs.list[at].state == on {
			g.current = at
			return at
		}
	}
	for i, r := range p.rs.list {
		if r.state == on && p.may(i) {
			return i
		}
	}
	if p.rs.count(starting) == 0 && p.able() {
		return orchestrate.OnDevice
	}
	return nowhere
}

// able reports whether devices can serve.
func (p *orchestrator) able() bool {
	d := p.rs.site.User(0).Device
	if hardware.Needs("", d, hardware.Prefill, hardware.Decode) != nil {
		return false
	}
	most := d.Spec().Memory
	return most == 0 || p.rs.held.Model.WeightBytes(p.rs.held.Span) < most
}

// upload is replicas' with the user's part of the cell: a transfer takes no less than
// its bytes at that rate, behind the user's own before it.
func (p *orchestrator) upload(user *hardware.User, g *group, req *workloads.Request, log *record.Request) (hardware.Payload, error) {
	end := time.Duration(0)
	if p.cell > 0 {
		start := max(p.env.Now(), p.free[req.User])
		end = start + units.TransferTime(promptPayload(req).Bytes, p.part(g)/8)
		p.free[req.User] = end
		if wait := start - p.env.Now(); wait > 0 {
			p.env.Sleep(wait)
		}
	}
	got, err := raise(user, req, log)
	if now := p.env.Now(); err == nil && now < end {
		p.env.Sleep(end - now)
		log.Spent(record.Transfer, "up", now, end)
	}
	return got, err
}

// part is a user's rate: an even part of the group's, in bit/s.
func (p *orchestrator) part(g *group) float64 {
	share := 1 / float64(len(p.groups))
	for i := range p.groups {
		if &p.groups[i] == g && p.decision.Up != nil && p.decision.Up[i] > 0 {
			share = p.decision.Up[i]
		}
	}
	return p.cell * share / float64(max(len(g.users), 1))
}

// mend reacts to a death: those who were there choose again among what is placed, at
// once; and a new decision is made.
func (p *orchestrator) mend() {
	if p.decision.Route == nil || p.deciding {
		return
	}
	in := p.instance()
	p.apply(orchestrate.Reroute(&in, p.decision).Decision)
	p.env.Serve("decide", func() { p.decide(false) })
}

// decide solves the instance as it is observed, takes the time that this takes, and
// does what was decided.
func (p *orchestrator) decide(period bool) {
	if p.deciding {
		return
	}
	p.deciding = true
	defer func() { p.deciding = false }()
	if period {
		for i := range p.groups {
			g := &p.groups[i]
			now := float64(g.arrived) / p.period.Seconds()
			if g.rate == 0 {
				g.rate = now
			}
			g.rate, g.arrived = (g.rate+now)/2, 0
		}
	}
	began := p.env.Now()
	in := p.instance()
	if err := in.Check(); err != nil {
		panic(err) // the instance is ours
	}
	d := p.solver.Solve(&in)
	if took := time.Duration(d.Tried) * p.each; took > 0 {
		p.env.Sleep(took)
	}
	p.took += p.env.Now() - began
	p.decisions++
	p.check(&in, &d)
	p.apply(d)
}

// checkable is how many routes are few enough to be tried beside every decision.
const checkable = 10_000

// check compares a decision with the optimum of its instance.
func (p *orchestrator) check(in *orchestrate.Instance, d *orchestrate.Decision) {
	routes := 1
	for range in.Users {
		routes *= len(in.Nodes) + 2
	}
	if routes > checkable {
		return
	}
	best, err := orchestrate.Exhaustive(in)
	if score := in.Score(d); err == nil && score > 0 {
		p.ratio += in.Score(&best) / score
		p.checked++
	}
}

// apply starts and stops replicas and sets the routes.
func (p *orchestrator) apply(d orchestrate.Decision) {
	p.decision = d
	for i, c := range d.Route {
		p.groups[i].target = c.Node
	}
	for i, r := range p.rs.list {
		wanted := d.Placed[i][0]
		switch {
		case wanted && (r.state == off || r.state == draining):
			p.rs.order(r)
		case !wanted && r.state == on && !p.leaned(i):
			p.rs.dismiss(r)
		}
	}
}

// leaned reports whether a group is served by a replica until its target is there.
func (p *orchestrator) leaned(r int) bool {
	for i := range p.groups {
		g := &p.groups[i]
		if g.current == r && g.target >= 0 && g.target != r && p.rs.list[g.target].state != on {
			return true
		}
	}
	return false
}

// Figures are those of the fleet and of the decisions.
func (p *orchestrator) Figures() map[string]float64 {
	f := p.rs.figures()
	f["decision_time"], f["policy_violations"] = p.took.Seconds(), float64(p.strayed)
	if p.checked > 0 {
		f["optimum_ratio"] = p.ratio / float64(p.checked)
	}
	return f
}

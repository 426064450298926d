package pipeline

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/orchestrate"
	"meibench/workloads"
)

var balanceEntry = Entry{
	Name: "balance", Doc: "whole models on several nodes: who is asked, who is let in, how many run, and what happens when one dies",
	Ops: "nodes: prefill, decode, load",
	Params: with(serverParams, []Param{
		{Name: "route", Names: []string{"least", "jsq", "random", "roundrobin", "two"}, Doc: "which replica is asked: the one expected to finish first, the shortest queue, any, in turn, the shorter of two"},
		{Name: "admit", Names: []string{"all", "bucket", "queue", "slo"}, Doc: "who is let in: everybody; by a token bucket; if the line is short; if the deadline is predicted to hold"},
		{Name: "bucket_rps", Default: 10, Min: 0, Max: 1e6, Doc: "admit bucket: requests per second"},
		{Name: "bucket_burst", Default: 10, Min: 1, Max: 1e6, Doc: "admit bucket: requests above the rate"},
		{Name: "queue", Default: 32, Min: 1, Max: 1e6, Doc: "admit queue: requests at the replica, those it serves included"},
		{Name: "within_s", Default: 10, Min: 0.001, Max: 1e9, Doc: "admit slo: time within which a request should be done that has no deadline of its own"},
		{Name: "scaler", Names: []string{"fixed", "erlang", "reactive", "target"}, Doc: "how many replicas run: all; what Erlang C needs for a wait; by marks of use; by a target of use"},
		{Name: "least_replicas", Default: 1, Min: 1, Max: 10_000, Doc: "replicas at least, and at the start unless scaler is fixed"},
		{Name: "period_ms", Default: 1000, Min: 1, Max: 1e9, Doc: "time between two decisions of the scaler"},
		{Name: "low", Default: 0.3, Min: 0, Max: 1, Doc: "scaler reactive: share of use below which one goes"},
		{Name: "high", Default: 0.8, Min: 0, Max: 1, Doc: "scaler reactive: share of use above which one comes; scaler target: the target"},
		{Name: "wait_ms", Default: 100, Min: 0.001, Max: 1e9, Doc: "scaler erlang: mean wait aimed at"},
		{Name: "calm", Default: 5, Min: 0, Max: 1e6, Doc: "periods in a row in which fewer replicas must do before one goes"},
	}, replicaParams),
	New: func(p Params) Pipeline {
		b := &balance{rs: newReplicas(p), within: units.Seconds(p.Num("within_s")), period: units.Seconds(p.Num("period_ms") / 1e3)}
		b.pick, _ = orchestrate.FindBalancer(p.Name("route"))
		b.admission = orchestrate.Admission{Rule: p.Name("admit"), Queue: p.Int("queue"), Rate: p.Num("bucket_rps"), Burst: p.Num("bucket_burst")}
		b.scaler = orchestrate.Scaler{Rule: p.Name("scaler"), Min: p.Int("least_replicas"), Low: p.Num("low"), High: p.Num("high"), Target: p.Num("high"),
			Wait: p.Num("wait_ms") / 1e3, Calm: p.Int("calm")}
		return b
	},
}

// balance serves from several nodes that all hold the model. The policies are those
// of reference/orchestrate (checklist X4).
type balance struct {
	rs        *replicas
	period    time.Duration
	within    time.Duration
	pick      orchestrate.Balancer
	admission orchestrate.Admission
	scaler    orchestrate.Scaler

	env     world.Env
	turn    orchestrate.Turn
	key     rng.Key
	wanted  int
	arrived int // since the last decision
	used    time.Duration
	asleep  bool
	wake    world.Cond
	view    []orchestrate.Replica
	open    []*replica
}

func (p *balance) Start(env world.Env, site *hardware.Site, models Models) error {
	p.env, p.key, p.wake, p.asleep = env, rng.NewKey(1, "balance"), env.NewCond(), true
	if err := p.rs.open("balance", env, site, models.Main); err != nil {
		return err
	}
	p.scaler.Max = len(p.rs.list)
	p.scaler.Min = min(p.scaler.Min, p.scaler.Max)
	if err := p.scaler.Check(); err != nil {
		return fmt.Errorf("pipeline balance: %w", err)
	}
	p.wanted = p.scaler.Min
	if p.scaler.Rule == "fixed" {
		p.wanted = p.scaler.Max
	}
	for _, r := range p.rs.list[:p.wanted] {
		p.rs.have(r)
	}
	env.Serve("scaler", p.watch)
	return nil
}

// watch decides once a period while there is something to do, and mends what died.
func (p *balance) watch() {
	for {
		for p.rs.flown == 0 && p.calm() {
			p.asleep = true
			p.wake.Wait()
		}
		p.asleep = false
		p.env.Sleep(p.period)
		p.wanted = p.scaler.Next(p.fleet())
		p.fill()
	}
}

// calm reports that nothing is to be started or stopped: a scaler that sees nothing
// would choose what there is.
func (p *balance) calm() bool {
	have := p.rs.count(on) + p.rs.count(starting)
	return p.rs.count(dead) == 0 && have == p.wanted && (p.scaler.Rule == "fixed" || p.wanted == p.scaler.Min)
}

// fill starts or stops replicas until so many as wanted are on or starting.
func (p *balance) fill() {
	for _, r := range p.rs.list {
		if p.rs.count(on)+p.rs.count(starting) >= p.wanted {
			break
		}
		if r.state == off || r.state == draining {
			p.rs.order(r)
		}
	}
	for i := len(p.rs.list) - 1; i >= 0 && p.rs.count(on)+p.rs.count(starting) > p.wanted; i-- {
		if r := p.rs.list[i]; r.state == on && p.rs.count(on) > 1 {
			p.rs.dismiss(r)
		}
	}
}

// fleet is what the scaler sees of the last period.
func (p *balance) fleet() orchestrate.Fleet {
	f := orchestrate.Fleet{On: p.rs.count(on), Starting: p.rs.count(starting), Arrivals: float64(p.arrived) / p.period.Seconds()}
	used := time.Duration(0)
	for _, r := range p.rs.list {
		p.rs.use(r)
		used += r.used
		if r.state == on || r.state == draining {
			f.Waiting += max(0, r.jobs-p.rs.options.Most)
		}
	}
	slots := time.Duration(max(f.On, 1) * p.rs.options.Most)
	f.Busy = min(1, float64(used-p.used)/float64(slots*p.period))
	p.arrived, p.used = 0, used
	if r := p.first(on); r != nil {
		alone, gain := p.rs.solo(r, p.rs.typicalPrompt(), p.rs.typicalOutput())
		f.Service = alone.Seconds() / gain
	}
	return f
}

func (p *balance) first(s state) *replica {
	for _, r := range p.rs.list {
		if r.state == s {
			return r
		}
	}
	return nil
}

func (p *balance) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	p.rs.begin(req)
	defer p.rs.end()
	if p.asleep {
		p.asleep = false
		p.wake.Signal()
	}
	p.arrived++
	prompt, err := raise(p.rs.site.User(req.User), req, log)
	if err != nil {
		return err
	}
	since := time.Duration(-1)
	for try := uint64(0); ; try++ {
		r, wait := p.choose(req, try)
		for r == nil { // until a replica is there
			if p.rs.hopeless() {
				return fmt.Errorf("pipeline balance: no replica came back in %v: %w", patience, hardware.ErrDown)
			}
			p.fill()
			p.rs.moved.Wait()
			r, wait = p.choose(req, try)
		}
		if try == 0 && !p.admitted(req, r, wait) {
			return refused{}
		}
		chunks := len(log.Chunks)
		again, err := p.rs.attempt(r, req, log, prompt)
		p.rs.recovered(log, chunks, since)
		if !again || log.OutputTokens >= req.OutputTokens {
			if again {
				return nil // the last token had left before the node died
			}
			return err
		}
		since = fell(err, p.env.Now())
		p.fill()
	}
}

// choose picks a replica that is on, and tells how long a request would wait and run there.
func (p *balance) choose(req *workloads.Request, try uint64) (*replica, time.Duration) {
	p.view, p.open = p.view[:0], p.open[:0]
	for _, r := range p.rs.list {
		if r.state != on {
			continue
		}
		alone, gain := p.rs.solo(r, req.PromptTokens, p.rs.typicalOutput())
		way := p.rs.roads.time(p.rs.door, r.place, req.TextBytes+req.SensorBytes) + p.rs.roads.time(r.place, p.rs.door, units.Bytes(p.rs.tokenBytes))
		v := orchestrate.Replica{Jobs: r.jobs, Wait: r.left.Seconds() / gain, Run: (alone + way).Seconds()}
		if w, ok := r.node.Device.(interface{ CostWeight() float64 }); ok {
			v.Cost = w.CostWeight()
		}
		p.view, p.open = append(p.view, v), append(p.open, r)
	}
	if len(p.open) == 0 {
		return nil, 0
	}
	luck := p.key.At(uint64(req.ID)<<8 | try&0xff)
	i := p.pick.Pick(&p.turn, &luck, p.view)
	return p.open[i], units.Seconds(p.view[i].Wait + p.view[i].Run)
}

// admitted asks the rule at the door.
func (p *balance) admitted(req *workloads.Request, r *replica, finish time.Duration) bool {
	ask := orchestrate.Request{Now: p.env.Now().Seconds(), Waiting: r.jobs, Finish: finish.Seconds()}
	by := req.ArriveAt + p.within
	if req.Deadline > 0 {
		by = deadline(req)
	}
	ask.Deadline = max((by - p.env.Now()).Seconds(), 1e-9) // 0 would be none
	return p.admission.Admit(ask)
}

// refused is the end of a request that was not let in.
type refused struct{}

func (refused) Error() string { return "pipeline: the request was not admitted" }

// Rejected says so to the records.
func (refused) Rejected() bool { return true }

// Figures are those of the fleet.
func (p *balance) Figures() map[string]float64 { return p.rs.figures() }

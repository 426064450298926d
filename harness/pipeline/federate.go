package pipeline

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/internal/units"
	federated "meibench/reference/federate"
	"meibench/reference/federate/selection"
	"meibench/reference/update"
	"meibench/workloads"
)

var federateEntry = Entry{
	Name: "federate", Doc: "a request is a round: an edge server sends clients what they tune, they train on data that stays with them, and it puts their updates together",
	Ops: "device: train-step; edge: aggregate",
	Params: with(jobParams, federalParams, []Param{
		{Name: "clients", Default: 10, Min: 1, Max: 1e5, Doc: "clients in all; each is a user of the site"},
		{Name: "sampled", Default: 0, Min: 0, Max: 1e5, Doc: "clients of a round; 0 = all"},
		{Name: "select", Names: selections(), Doc: "who takes part: by luck; by usefulness and speed (oort, arXiv 2010.06081); those who end first; those with the largest loss of twice as many; 1.3 times as many, of whom the first count"},
		{Name: "deadline_s", Default: 0, Min: 0, Max: 1e6, Doc: "updates that come later are left out; 0 = all are waited for"},
		{Name: "gone", Default: 0, Min: 0, Max: 1, Doc: "chance that a client vanishes in a round, with what it was sent (assumed)"},
		{Name: "buffer", Default: 0, Min: 0, Max: 1e5, Doc: "the server goes on when so many updates have come, from whatever round they began in, and clients go on at once (FedBuff, arXiv 2106.06639); 0 = rounds"},
		{Name: "interval", Default: 1, Min: 1, Max: 1e4, Doc: "sites with a cloud behind several edge nodes: rounds between two meetings of edge nodes in the cloud"},
		{Name: "tiers", Names: []string{"two", "three"}, Doc: "clients and one edge server, or clients, edge nodes that aggregate for themselves, and a cloud"},
	}),
	New: func(p Params) Pipeline {
		return &federate{job: p, clients: p.Int("clients"), sampled: p.Int("sampled"), steps: p.Int("steps"), deadline: units.Seconds(p.Num("deadline_s")),
			gone: p.Num("gone"), buffer: p.Int("buffer"), interval: p.Int("interval"), three: p.Name("tiers") == "three"}
	},
}

// federate is federated fine-tuning (checklist T4, T5, T9): McMahan et al. 2017 (arXiv 1602.05629) and what followed. What is averaged, and how,
// is the class's business; here is who does what, what travels and what everybody waits for.
type federate struct {
	job      Params
	clients  int
	sampled  int
	steps    int
	deadline time.Duration
	gone     float64
	buffer   int
	interval int
	three    bool

	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	class Class
	seed  uint64
	picks selection.Policy
	tiers []tier
	cloud hardware.Node

	busy  map[int]*trip // clients that are still at it, by number
	owed  []*trip       // trips that ended after their round
	queue gather        // buffer: of all rounds
	taken int           // buffer: trips of the queue that were put together

	keysUp, keysDown units.Bytes // of secure aggregation, for each client of the round

	idle   time.Duration // summed over clients of rounds: waiting for the slowest
	rounds time.Duration // likewise: how long the rounds took
	lost   int           // updates that came too late, or never
	used   int
}

// tier is an edge node that aggregates, with its clients.
type tier struct {
	node     hardware.Node
	up, down hardware.Link // to the cloud; nil: there is none
}

func (p *federate) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.seed, p.busy = env, site, models.Main, models.Seed, map[int]*trip{}
	p.queue = gather{env: env, cond: env.NewCond()}
	if p.class, err = classOf("federate", models); err != nil {
		return err
	}
	if p.sampled == 0 {
		p.sampled = p.clients
	}
	if p.sampled > p.clients || p.buffer > p.sampled {
		return fmt.Errorf("pipeline federate: %d of %d clients take part and %d are waited for: want each to be at most the one before", p.sampled, p.clients, p.buffer)
	}
	if p.job.Name("secure") == "yes" && (p.buffer > 0 || p.deadline > 0 || p.gone > 0) {
		return fmt.Errorf("pipeline federate: secure aggregation here is among those who stay: leave buffer, deadline_s and gone out")
	}
	if p.job.Name("rule") == "flora" || p.job.Name("rule") == "fedex" {
		if p.buffer > 0 || p.deadline > 0 || p.three {
			return fmt.Errorf("pipeline federate: rule %s changes the base that late clients train on, and edge nodes would differ in: leave buffer, deadline_s and tiers out", p.job.Name("rule"))
		}
	}
	if p.buffer > 0 && slices.Contains(federated.LoRARules, p.job.Name("rule")) {
		return fmt.Errorf("pipeline federate: rule %s puts factors of one version together, a buffer has changes of several: leave buffer out, or choose fedavg", p.job.Name("rule"))
	}
	if p.buffer > 0 && (p.three || p.deadline > 0) {
		return fmt.Errorf("pipeline federate: a buffer has no rounds: leave deadline_s and tiers out")
	}
	if err := hardware.Needs("pipeline federate: device", site.User(0).Device, hardware.TrainStep); err != nil {
		return err
	}
	if err := p.tier(); err != nil {
		return err
	}
	p.picks, err = selection.New(p.job.Name("select"), models.Seed)
	return err
}

// free are the clients that are not at work.
func (p *federate) free() (out []int) {
	for c := range p.clients {
		if p.busy[c] == nil {
			out = append(out, c)
		}
	}
	return out
}

// tier finds who aggregates.
func (p *federate) tier() error {
	for _, n := range p.site.Nodes {
		if n.Role == hardware.EdgeRole {
			p.tiers = append(p.tiers, tier{node: n})
		}
	}
	if len(p.tiers) == 0 {
		return fmt.Errorf("pipeline federate: site %q has no edge node to aggregate", p.site.Name)
	}
	if err := hardware.Needs("pipeline federate: edge", p.tiers[0].node.Device, hardware.Aggregate); err != nil {
		return err
	}
	if !p.three {
		p.tiers = p.tiers[:1]
		return nil
	}
	var err error
	if p.cloud, err = p.site.First(hardware.CloudRole); err != nil {
		return fmt.Errorf("pipeline federate: tiers three: %w", err)
	}
	for i := range p.tiers {
		t := &p.tiers[i]
		if t.up, err = p.site.Between(t.node.Name, p.cloud.Name); err != nil {
			return fmt.Errorf("pipeline federate: tiers three: %w", err)
		}
		if t.down, err = p.site.Between(p.cloud.Name, t.node.Name); err != nil {
			return fmt.Errorf("pipeline federate: tiers three: %w", err)
		}
	}
	return nil
}

// group is the edge node that a client belongs to.
func (p *federate) group(client int) int { return client % len(p.tiers) }

func (p *federate) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	for _, t := range p.owed { // what came too late for its own round was paid for all the same
		t.book(log)
	}
	p.owed = p.owed[:0]
	if p.buffer > 0 {
		return p.flow(req.ID, log)
	}
	return p.round(req.ID, log)
}

// round is one round that everybody begins together.
func (p *federate) round(round int, log *record.Request) error {
	picked := p.picks.Pick(round, p.sampled, p.free())
	if len(picked) == 0 {
		return fmt.Errorf("federate: round %d: all clients are still busy with rounds before", round)
	}
	if err := p.secure(len(picked)); err != nil {
		return err
	}
	g := &gather{env: p.env, cond: p.env.NewCond()}
	for _, client := range picked {
		p.start(g, client, round)
	}
	var end time.Duration
	if p.deadline > 0 {
		end = p.env.Now() + p.deadline
	}
	g.await(min(p.sampled, len(picked)), end)
	came := p.close(g, picked, log)
	if len(came) == 0 {
		for _, t := range g.ended {
			if t.err != nil && !errors.Is(t.err, errVanished) {
				return fmt.Errorf("federate: round %d: no update of %d clients came: client %d: %w", round, len(picked), t.client, t.err)
			}
		}
		return fmt.Errorf("federate: round %d: no update of %d clients came in time", round, len(picked))
	}
	if err := p.combine(round, came, log); err != nil {
		return err
	}
	p.tell(came, log)
	log.Count(record.Absent, int64(len(picked)-len(came)))
	return p.meet(round, log)
}

// secure asks what summing under masks adds.
func (p *federate) secure(n int) (err error) {
	p.keysUp, p.keysDown, err = p.class.Secure(n)
	return err
}

// start sets a client's trip going.
func (p *federate) start(g *gather, client, round int) {
	t := &trip{client: client, began: p.env.Now()}
	p.busy[client] = t
	p.env.Go("client", func() {
		t.err = p.visit(t, round)
		delete(p.busy, client)
		if t.late {
			p.owed = append(p.owed, t)
		}
		g.end(t)
	})
}

// visit takes what is tuned to a client, has it trained there, and brings the update back.
func (p *federate) visit(t *trip, round int) error {
	user := p.site.User(t.client)
	down, up := p.class.Sizes(t.client)
	state := hardware.Payload{Bytes: down}
	if tr := p.class.Trainer(); tr != nil {
		data, err := tr.Train(&hardware.Study{Verb: "open", Client: t.client, Group: p.group(t.client), Round: round})
		if err != nil {
			return err
		}
		state = hardware.Payload{Bytes: units.Bytes(len(data)), Data: data}
	}
	state, err := t.send(user.Down, state, false)
	if err != nil {
		return err
	}
	if u := rng.NewKey(p.seed, "gone", t.client).At(uint64(round)); p.gone > 0 && u.Float64() < p.gone {
		return errVanished
	}
	forward, backward := p.class.Passes()
	seqs, tokens := seqsOf(p.class, t.client, round*p.steps, p.steps)
	op := &hardware.Op{Kind: hardware.TrainStep, Model: p.model, Layers: p.model.All(), Seqs: seqs, Passes: forward + backward,
		Bytes: p.class.Held(p.model.All(), tokens/p.steps)}
	op.Study = &hardware.Study{Verb: "local", Client: t.client, Group: p.group(t.client), Round: round, Step: round * p.steps, Count: p.steps, In: [][]byte{state.Data}, Trainer: p.class.Trainer()}
	reply, err := t.run(user.Device, record.DevicePart, "device", op)
	if err != nil {
		return err
	}
	if op.Study.Trainer == nil {
		reply = hardware.Payload{Bytes: up}
	}
	if p.keysDown > 0 { // keys and shares of the others, before what is masked with them
		if _, err := t.send(user.Up, hardware.Payload{Bytes: p.keysUp}, true); err != nil {
			return err
		}
		if _, err := t.send(user.Down, hardware.Payload{Bytes: p.keysDown}, false); err != nil {
			return err
		}
	}
	if reply, err = t.send(user.Up, reply, true); err != nil {
		return err
	}
	t.reply, t.size = reply.Data, reply.Bytes
	t.sent += reply.Bytes // computed from what stays on the device
	t.round = round
	return nil
}

// close ends a round: it books what the trips took, tells where the time of the last one went, and returns those with an update.
func (p *federate) close(g *gather, picked []int, log *record.Request) (came []*trip) {
	var last *trip
	for _, t := range g.ended {
		t.book(log)
		if t.err != nil {
			p.lost++
			continue
		}
		came = append(came, t)
		last = t
		p.picks.Learn(t.client, selection.Seen{Round: t.round, Loss: p.class.Loss(t.reply), Samples: samplesOf(p.class, t.client), Took: t.ended - t.began})
	}
	for _, client := range picked {
		if t := p.busy[client]; t != nil {
			t.late = true
			p.lost++
		}
	}
	if last != nil {
		last.walk(log)
	}
	now := p.env.Now()
	for _, t := range came {
		p.idle += now - t.ended
		p.rounds += now - t.began
	}
	p.used += len(came)
	log.Spent(record.Wait, "", now, now)
	return came
}

// combine has the updates put together by the servers that they came to.
func (p *federate) combine(round int, came []*trip, log *record.Request) error {
	g := &gather{env: p.env, cond: p.env.NewCond()}
	n := 0
	for i := range p.tiers {
		study := &hardware.Study{Verb: "combine", Group: i, Round: round, Trainer: p.class.Trainer()}
		size := units.Bytes(0)
		for _, t := range came {
			if p.group(t.client) == i {
				study.In, study.Who = append(study.In, t.reply), append(study.Who, t.client)
				size += t.size
			}
		}
		if len(study.Who) == 0 {
			continue
		}
		n++
		t := &trip{client: -1}
		p.env.Go("aggregate", func() {
			_, t.err = t.run(p.tiers[i].node.Device, record.EdgePart, p.tiers[i].node.Name, &hardware.Op{Kind: hardware.Aggregate, Model: p.model, Bytes: size, Study: study})
			g.end(t)
		})
	}
	g.await(n, 0)
	return finish(g, log)
}

// finish books trips that everybody waits for, and tells the time of the last.
func finish(g *gather, log *record.Request) error {
	for _, t := range g.ended {
		if t.err != nil {
			return t.err
		}
		t.book(log)
	}
	if n := len(g.ended); n > 0 {
		g.ended[n-1].walk(log)
	}
	return nil
}

// meet has the edge nodes agree in the cloud, every interval rounds.
func (p *federate) meet(round int, log *record.Request) error {
	if !p.three || (round+1)%p.interval != 0 {
		return nil
	}
	down, up := p.class.Sizes(0)
	states := make([][]byte, len(p.tiers))
	total := units.Bytes(0)
	each := func(do func(i int, t *trip) error) error {
		g := &gather{env: p.env, cond: p.env.NewCond()}
		for i := range p.tiers {
			t := &trip{client: -1}
			p.env.Go("backhaul", func() {
				t.err = do(i, t)
				g.end(t)
			})
		}
		g.await(len(p.tiers), 0)
		return finish(g, log)
	}
	haul := func(i int, t *trip, l hardware.Link, p hardware.Payload) (hardware.Payload, error) {
		got, err := t.send(l, p, true)
		log.Count(record.BackhaulBytes, int64(t.up))
		t.up = 0 // not the users'
		return got, err
	}
	if err := each(func(i int, t *trip) error {
		state := hardware.Payload{Bytes: up}
		if tr := p.class.Trainer(); tr != nil {
			data, err := tr.Train(&hardware.Study{Verb: "state", Group: i, Round: round})
			if err != nil {
				return err
			}
			state = hardware.Payload{Bytes: units.Bytes(len(data)), Data: data}
		}
		got, err := haul(i, t, p.tiers[i].up, state)
		states[i] = got.Data
		total += got.Bytes
		return err
	}); err != nil {
		return err
	}
	t := &trip{client: -1}
	study := &hardware.Study{Verb: "meet", Group: -1, Round: round, In: states, Trainer: p.class.Trainer()}
	got, err := t.run(p.cloud.Device, record.CloudPart, p.cloud.Name, &hardware.Op{Kind: hardware.Aggregate, Model: p.model, Bytes: total, Study: study})
	if err != nil {
		return err
	}
	t.book(log)
	t.walk(log)
	if study.Trainer == nil {
		got = hardware.Payload{Bytes: down}
	}
	return each(func(i int, t *trip) error {
		got, err := haul(i, t, p.tiers[i].down, got)
		if err != nil || study.Trainer == nil {
			return err
		}
		_, err = study.Trainer.Train(&hardware.Study{Verb: "adopt", Group: i, Round: round, In: [][]byte{got.Data}})
		return err
	})
}

// flow goes on when the buffer is full: clients train without waiting for each other.
func (p *federate) flow(round int, log *record.Request) error {
	for _, client := range p.picks.Pick(round, p.sampled-len(p.busy), p.free()) {
		p.start(&p.queue, client, round)
	}
	p.queue.await(p.taken+p.buffer, 0)
	var came []*trip
	for _, t := range p.queue.ended[p.taken:] {
		p.taken++
		t.book(log)
		if t.err != nil {
			p.lost++
			continue
		}
		came = append(came, t)
	}
	if len(came) == 0 {
		return fmt.Errorf("federate: round %d: none of %d clients sent an update", round, p.buffer)
	}
	came[len(came)-1].walk(log)
	p.used += len(came)
	p.tell(came, log)
	return p.combine(round, came, log)
}

// tell notes who took part, and the mean of the losses that they told.
func (p *federate) tell(came []*trip, log *record.Request) {
	log.Count(record.Participants, int64(len(came)))
	loss := 0.0
	for _, t := range came {
		loss += p.class.Loss(t.reply) / float64(len(came))
	}
	log.Count(record.LossMicro, int64(math.Round(1e6*loss)))
}

// Memory is what the choice of clients rests on, and Remember goes on from it: of a server that is started again.
func (p *federate) Memory() []byte { return p.picks.Marshal() }

// Remember is for a pipeline that has started.
func (p *federate) Remember(b []byte) error { return p.picks.Unmarshal(b) }

// Figures say how much of the clients' time was waiting for others, and what was lost.
func (p *federate) Figures() map[string]float64 {
	f := map[string]float64{}
	if p.rounds > 0 {
		f["idle_share"] = p.idle.Seconds() / p.rounds.Seconds()
	}
	if p.used+p.lost > 0 {
		f["lost_updates"] = float64(p.lost) / float64(p.used+p.lost)
	}
	return f
}

// selections are the names of policies, luck first.
func selections() []string {
	names := []string{"random"}
	for _, t := range selection.Table {
		if t[0] != names[0] {
			names = append(names, t[0])
		}
	}
	return names
}

// codeNames are those of codes for updates, the exact one first.
func codeNames() []string {
	names := []string{"f32"}
	for _, c := range update.Table {
		if c.Name() != names[0] {
			names = append(names, c.Name())
		}
	}
	return names
}

func samplesOf(c Class, client int) int {
	_, n := c.Data(client)
	return n
}

// errVanished is a client that a round lost on its way.
var errVanished = errors.New("federate: the client vanished")

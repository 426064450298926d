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
	"meibench/internal/units"
	"meibench/reference/library"
	"meibench/reference/shelf"
	"meibench/workloads"
)

var deliverEntry = Entry{
	Name: "deliver", Doc: "each request asks for a model of a library: edge nodes keep some, the others come from neighbours or the cloud; it is brought to the device, which answers with it",
	Ops: "device: prefill, decode, load",
	Params: with(wantParams, stockParams, []Param{
		{Name: "cast", Names: []string{"unicast", "fast", "grouped", "hybrid", "multicast"}, Doc: "on the air: each user alone; what several users of a cell lack once, at the rate of the worst; or so where that takes less airtime, or in groups with the least airtime, or with the least mean delay (package reference/delivery)"},
		{Name: "window_ms", Default: 100, Min: 0, Max: 1e6, Doc: "multicast: how long requests are collected"},
		{Name: "choices", Default: 1, Min: 1, Max: 100, Doc: "models that are good enough for a request: the one that it names, and those of its family that share most with it (assumed); the node picks such that least goes over the air (Model Broadcasting and Assembling, arXiv 2307.15316, by its abstract)"},
		{Name: "relay_mbps", Default: 0, Min: 0, Max: 1e5, Doc: "direct links between devices, Mbit/s: a device in the same cell that keeps a block (keep_mb) sends it, one block at a time, beside the cell's radio; what is not the block, or breaks off, comes from the node; 0 = there are none. Rate and reach, a cell, are assumed"},
		{Name: "progress", Names: []string{"whole", "layers", "refine"}, Doc: "the device begins when it has the whole model; with each part of the layers; or with the first rung of the model, which later bytes refine"},
		{Name: "pieces", Default: 4, Min: 1, Max: 64, Doc: "progress layers: parts of the layers"},
		{Name: "keep_mb", Default: 0, Min: 0, Max: 1e7, Doc: "storage for models on each device, MB; the least recently used goes; 0 = nothing stays after an answer"},
		{Name: "resident", Names: []string{"no", "yes"}, Doc: "devices have from the start, and keep, the blocks that every model has: a backbone"},
		{Name: "budget_ms", Default: 1000, Min: 0, Max: 1e8, Doc: "time in which a model should arrive"},
		{Name: "ahead", Names: []string{"no", "yes"}, Doc: "what a delivery under way still lacks is fetched by the node to which the user's radio is about to go"},
	}),
	New: func(p Params) Pipeline {
		return &deliver{wants: newWants(p), stock: newStock(p), cast: p.Name("cast"), choices: p.Int("choices"), relayRate: p.Num("relay_mbps") * 1e6 / 8, window: millis(p, "window_ms"), progress: p.Name("progress"), pieces: p.Int("pieces"),
			keep: units.Bytes(p.Num("keep_mb") * 1e6), resident: p.Name("resident") == "yes", budget: millis(p, "budget_ms"), ahead: p.Name("ahead") == "yes"}
	},
}

func millis(p Params, key string) time.Duration { return time.Duration(p.Num(key) * 1e6) }

// deliver brings models to users' devices (checklist C1, C2, C6 to C10, X3). The prompt stays on the device: what goes up is
// the name of a model, what comes down are its blocks that the device lacks, in the order of use. A node near the user
// has them, or gets them from a neighbour or the cloud, and keeps what its policy says (stock).
type deliver struct {
	wants
	stock     stock
	cast      string
	choices   int
	relayRate float64 // bytes per second
	window    time.Duration
	progress  string
	pieces    int
	keep      units.Bytes
	resident  bool
	budget    time.Duration
	ahead     bool

	env      world.Env
	site     *hardware.Site
	model    *hardware.Model
	common   []bool            // blocks that every model has, if they are resident
	airs     []*air            // by node; made when first used
	good     [][]int           // by model: those that will do; nil: the one that is asked for
	choosers map[int]*choosing // by node
	side     sidelink
	tamper   func(from, block int, data []byte) []byte // tests: what a device sends instead
	phones   map[int]*phone
	turns    turns
}

// phone is what a user's device has of the library.
type phone struct {
	shelf *shelf.Shelf
	ready int // the model in memory, -1 = none
}

func (p *deliver) Start(env world.Env, site *hardware.Site, models Models) error {
	p.env, p.site, p.model, p.turns, p.phones = env, site, models.Main, turns{}, map[int]*phone{}
	if err := p.wants.start("deliver", models); err != nil {
		return err
	}
	first := site.User(0)
	if err := hardware.Needs("pipeline deliver: device", first.Device, hardware.Prefill, hardware.Decode, hardware.Load); err != nil {
		return err
	}
	if _, ok := first.Down.(hardware.Caster); !ok && p.cast != "unicast" {
		return fmt.Errorf("pipeline deliver: cast %s needs users in radio cells: site %q has none", p.cast, site.Name)
	}
	p.side = sidelink{rate: p.relayRate, delay: sidelinkDelay, queues: map[int]*world.Slots{}, lines: map[int]int{}}
	if _, ok := first.Down.(hardware.Caster); p.relayRate > 0 && (!ok || p.keep == 0) {
		return fmt.Errorf("pipeline deliver: relay_mbps needs users in cells whose devices keep models: choose a site with cells, and set keep_mb")
	}
	p.airs, p.choosers = make([]*air, len(site.Nodes)), map[int]*choosing{}
	if p.choices > 1 && (p.cast == "unicast" || p.stock.whole) {
		return fmt.Errorf("pipeline deliver: choices: %d saves airtime where models share blocks and several hear one transmission: set cast to multicast, say, and share to blocks", p.choices)
	}
	p.stock.prefetch, p.stock.reach = p.ahead, radioRate
	if err := p.stock.start(env, site, &p.wants); err != nil {
		return fmt.Errorf("pipeline deliver: %w", err)
	}
	if p.choices > 1 {
		p.good = goodEnough(p.lib(), p.choices)
	}
	p.stock.content = models.Content
	if p.stock.whole && models.Content != nil {
		return errors.New("pipeline deliver: share: whole has sizes only: a library with real bytes is shared in blocks")
	}
	p.common = make([]bool, len(p.lib().Blocks))
	for b := range p.common {
		p.common[b] = p.resident && len(p.lib().Users(b)) == len(p.lib().Models)
	}
	if slices.ContainsFunc(p.lib().Models, func(m library.Model) bool { return m.Adapter != "" }) {
		tuned := *p.model
		tuned.LoRARank = AdapterRank
		p.model = &tuned
	}
	return nil
}

// AdapterRank is what adapters of libraries cost to run with: they are taken to be of this rank, on every matrix. It is what LoRA (arXiv
// 2106.09685) takes most often.
const AdapterRank = 8

// radioRate is what a user's radio brings down now.
func radioRate(user *hardware.User) float64 {
	if c, ok := user.Down.(hardware.Caster); ok {
		return c.Rate()
	}
	return user.Down.Spec().BytesPerSec
}

// asking is the size of a request for a model, in bytes: its name and what the device has.
const asking = 256

func (p *deliver) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	want, err := p.wants.of(req) // in the order of arrival
	if err != nil {
		return err
	}
	user := p.site.User(req.User)
	turn := p.turns.of(p.env, user.Device)
	turn.Acquire()
	defer turn.Release()
	x := &order{need: need{want: want, log: log, node: -1, next: -1}, p: p, req: req, user: user, asked: p.env.Now(), wake: p.env.NewCond()}
	if err := x.ask(); err != nil {
		return err
	}
	if err := x.answer(); err != nil {
		x.fail(err)
	}
	x.settle()
	return x.failed
}

// Figures are those of the nodes' caches.
func (p *deliver) Figures() map[string]float64 { return p.stock.figures() }

// phone is a user's device, which keeps models by least recent use.
func (p *deliver) phone(id int) *phone {
	h := p.phones[id]
	if h == nil {
		h = &phone{shelf: p.stock.shelf(p.keep, "lru", 0), ready: -1}
		p.phones[id] = h
	}
	return h
}

// order is a model on its way to a device.
type order struct {
	need // lacks: what the device must be sent
	p    *deliver
	req  *workloads.Request
	user *hardware.User

	asked  time.Duration
	left   int // of what it lacks, not arrived
	came   map[int]came
	failed error
	wake   world.Cond
	moves  int
	stall  time.Duration

	adapted bool // the adapter is loaded
}

// came is when a block was at the edge node near the user, and when its transmission began and ended.
type came struct {
	ready, from, to time.Duration
	away, here      bool // handed to the radio; on the device
	data            []byte
}

// ask sends the name of the model up and sets the delivery of what the device lacks going.
func (x *order) ask() error {
	p := x.p
	up, err := x.user.Up.Send(hardware.Payload{Bytes: asking})
	if err != nil {
		return err
	}
	sent(x.log, up, true)
	x.log.Spent(record.Transfer, "up", up.Usage.Start, up.Usage.End)
	x.log.RawBytesOut += asking
	x.came = map[int]came{}
	x.choose()
	if x.failed != nil {
		return x.failed
	}
	h := p.phone(x.req.User)
	held := units.Bytes(0)
	for _, b := range p.lib().Models[x.want].Blocks {
		if p.common[b] || h.shelf.Has(b) {
			held += p.lib().Blocks[b].Bytes
			x.came[b] = came{here: true}
		} else {
			x.lacks = append(x.lacks, b)
		}
	}
	h.shelf.Ask(x.want)
	x.log.Count(record.HeldBytes, int64(held))
	x.left = len(x.lacks)
	if x.relay(); len(x.lacks) == 0 {
		return nil
	}
	here := p.stock.near(x.user)
	x.node, x.held = here, x.lacks
	if err := p.stock.request(&x.need, here); err != nil {
		return err
	}
	if p.cast == "unicast" {
		lacks := x.lacks
		p.env.Go("unicast", func() { x.fail(x.alone(lacks)) })
	} else {
		p.air(here).join(x)
	}
	return nil
}

func (p *deliver) lib() *library.Library { return p.stock.lib }

// fail notes why the delivery cannot go on.
func (x *order) fail(err error) {
	if err != nil && x.failed == nil {
		x.failed = err
		x.wake.Signal()
	}
}

// handedAhead is how many blocks are handed to a user's radio beyond the one that is arriving: the next follows at once, and
// a user who moves on is not sent many from the node that was left.
const handedAhead = 1

// alone sends blocks to this user, in order.
func (x *order) alone(blocks []int) error {
	s, env := x.user.Down.Open(), x.p.env
	sent, read, wake := 0, 0, env.NewCond()
	var failed error
	env.Go("receive", func() {
		for {
			d, ok, err := s.Read()
			if err != nil || !ok {
				failed = err
				x.fail(err)
				wake.Signal()
				return
			}
			x.got(blocks[read], d, 0)
			read++
			wake.Signal()
		}
	})
	for _, b := range blocks {
		for sent-read > handedAhead && failed == nil {
			wake.Wait()
		}
		err := failed
		if err == nil {
			err = x.bring(b)
		}
		if err != nil {
			s.Close(err)
			return err
		}
		s.Write(x.p.stock.payload(b))
		sent++
	}
	s.Close(nil)
	return nil
}

// bring has a block at the node where the user's radio ends now. A user who has moved since the last block waits for what
// the new node lacks.
func (x *order) bring(b int) error {
	p := x.p
	if x.over {
		return errGivenUp
	}
	here := p.stock.near(x.user)
	if here != x.node {
		x.log.Count(record.Handovers, 1)
		p.stock.follow(&x.need, here, x.lacking())
		x.moves++
	}
	from := p.env.Now()
	ready, err := p.stock.await(here, b)
	if err != nil || x.over {
		return cmp.Or(err, errGivenUp)
	}
	c := x.came[b]
	c.ready, c.away = ready, true
	x.came[b] = c
	if d := p.env.Now() - from; d > 0 && x.moves > 0 { // the first node's wait is no hand-over's
		x.log.Count(record.Stalls, 1)
		x.stall += d
	}
	p.stock.ahead(&x.need, x.user, x.lacking)
	return nil
}

// got notes a block that has arrived, in a transmission for so many others too.
func (x *order) got(b int, d hardware.Delivery, others int) {
	x.partly(d, others)
	x.fail(x.p.stock.verify(b, d.Payload.Data))
	c := x.came[b]
	c.data = d.Payload.Data
	c.from, c.to, c.here = d.Usage.Start, d.Usage.End, true
	x.came[b] = c
	x.left--
	x.wake.Signal()
}

// partly books what came of a block.
func (x *order) partly(d hardware.Delivery, others int) {
	if x.over {
		return
	}
	sent(x.log, d, false)
	if others > 0 {
		x.log.Count(record.CastBytes, int64(d.Usage.Moved))
	}
}

// has reports whether a block is on the device.
func (x *order) has(b int) bool {
	return x.came[b].here
}

// took is how long the first n blocks of the model have taken, when they have all come: at least a nanosecond.
func (x *order) took(n int) time.Duration {
	last := x.asked + 1
	for _, b := range x.p.lib().Models[x.want].Blocks[:n] {
		last = max(last, x.came[b].to)
	}
	return last - x.asked
}

// lacking are the blocks that are not on the device nor on their way there by radio.
func (x *order) lacking() (blocks []int) {
	for _, b := range x.lacks {
		if c := x.came[b]; !c.away && !c.here {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// first is how many blocks the device needs to begin.
func (x *order) first() int {
	m := &x.p.lib().Models[x.want]
	if x.p.progress == "refine" && len(m.Rungs) > 0 {
		return m.Rungs[0].Blocks
	}
	return len(m.Blocks)
}

// complete reports whether the first n blocks of the model are on the device.
func (x *order) complete(n int) bool {
	for _, b := range x.p.lib().Models[x.want].Blocks[:n] {
		if !x.has(b) {
			return false
		}
	}
	return true
}

// await blocks until something is so, or the delivery has failed.
func (x *order) await(so func() bool) error {
	for !so() {
		if x.failed != nil {
			return x.failed
		}
		x.wake.Wait()
	}
	return nil
}

// settle waits for what is still on its way, and books the delivery.
func (x *order) settle() {
	p, log := x.p, x.log
	x.fail(x.await(func() bool { return x.left == 0 }))
	p.stock.end(&x.need)
	log.Count(record.StallTime, int64(x.stall))
	whole := x.took(len(p.lib().Models[x.want].Blocks))
	if x.failed == nil {
		log.Count(record.DeliveryTime, int64(whole))
		log.Count(record.UsableTime, int64(x.took(x.first())))
	}
	switch {
	case p.budget == 0:
	case x.failed == nil && whole <= p.budget:
		log.Count(record.OnTime, 1)
	default:
		log.Count(record.TooLate, 1)
	}
	if x.user.Near != nil {
		log.Counts[record.Place] = int64(p.stock.near(x.user)) + 1
	}
	if h := p.phone(x.req.User); x.failed == nil {
		h.shelf.Put(x.want)
		h.ready = x.want
	}
	x.over = true
}

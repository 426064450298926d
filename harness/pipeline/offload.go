package pipeline

import (
	"fmt"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/workloads"
)

var offloadEntry = Entry{
	Name: "offload", Doc: "prompt and sensor data to an edge server that batches; tokens stream back",
	Ops: "edge: prefill, decode",
	Params: with(serverParams, []Param{
		{Name: "token_bytes", Default: 8, Min: 1, Max: 4096, Doc: "bytes on the wire per output token"},
		{Name: "adapters", Default: 0, Min: 0, Max: 100_000, Doc: "LoRA adapters on the one backbone, each user has one of them; 0 = none"},
		{Name: "rank", Default: 8, Min: 1, Max: 1024, Doc: "rank of the adapters"},
		{Name: "slots", Default: 0, Min: 0, Max: 100_000, Doc: "adapters in the server's memory at most; 0 = all"},
		{Name: "reject", Names: []string{"no", "yes"}, Doc: "policy slo: refuse what can no longer meet its deadline"},
	}),
	New: func(p Params) Pipeline {
		o := serverOptions(p)
		o.Adapters, o.Reject = p.Int("slots"), p.Name("reject") == "yes"
		return &offload{options: o, tokenBytes: p.Num("token_bytes"), adapters: p.Int("adapters"), rank: p.Int("rank")}
	},
}

// offload sends the prompt and its sensor data to an edge server, which runs
// the whole model in batches and streams the tokens back (checklist I1, I2, I3).
type offload struct {
	options    serving.Options
	tokenBytes float64
	adapters   int
	rank       int

	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	edge  *edges
	spare spares
}

func (p *offload) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model = env, site, models.Main
	if p.adapters > 0 {
		m := *models.Main
		m.LoRARank = p.rank
		p.model = &m
	}
	e := &edges{who: "offload", env: env, site: site, options: p.options, held: serving.Held{Model: p.model, Span: p.model.All()}}
	p.edge, err = e.start()
	return err
}

// serveFirst starts a server on the site's first edge node.
func serveFirst(who string, env world.Env, site *hardware.Site, o serving.Options, held ...serving.Held) (*serving.Server, error) {
	node, err := site.First(hardware.EdgeRole)
	if err != nil {
		return nil, err
	}
	if err := hardware.Needs("pipeline "+who+": edge", node.Device, hardware.Prefill, hardware.Decode); err != nil {
		return nil, err
	}
	return serving.New(env, node, o, held...)
}

func (p *offload) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	user := p.site.User(req.User)
	srv, err := p.edge.of(user, log)
	if err != nil {
		return err
	}
	d := desk{spare: &p.spare, srv: srv, held: serving.Held{Model: p.model, Span: p.model.All()}, tokenBytes: p.tokenBytes}
	if p.adapters > 0 {
		d.adapter = adapterOf(req.User, p.adapters)
	}
	return d.answer(user, req, log)
}

// Figures are those of the servers.
func (p *offload) Figures() map[string]float64 { return p.edge.Figures() }

// desk is where a server answers whole requests.
type desk struct {
	srv        *serving.Server
	held       serving.Held
	tokenBytes float64
	adapter    string
	spare      *spares // nil = nothing is used again
}

// spares are what counted answers use one after another.
type spares struct {
	arrivals [][]time.Duration
	jobs     []*serving.Job
}

// answer sends a request's raw data up and streams the answer down.
func (d *desk) answer(user *hardware.User, req *workloads.Request, log *record.Request) error {
	prompt, err := raise(user, req, log)
	if err != nil {
		return err
	}
	return d.reply(user.Down.Open(), prompt, req, log)
}

// reply has a prompt that is at the server answered, over a stream to the user.
func (d *desk) reply(down hardware.Stream, prompt hardware.Payload, req *workloads.Request, log *record.Request) error {
	if trains, ok := down.(hardware.Trains); ok && prompt.Data == nil {
		return d.counted(trains, req, log)
	}
	return d.told(down, decodeTokens(prompt.Data), req, log)
}

// told streams an answer token by token.
func (d *desk) told(down hardware.Stream, tokens []int32, req *workloads.Request, log *record.Request) error {
	over := false
	j := &serving.Job{ID: int64(req.ID), Held: d.held, Prompt: req.PromptTokens, Adapter: d.adapter,
		Tokens: tokens, Limit: req.OutputTokens, Deadline: deadline(req)}
	j.Emit = func(out hardware.Out, _ hardware.Usage) {
		down.Write(tokenPayload(out.Token, d.tokenBytes))
		if out.Token != hardware.NoToken && !over { // a link that broke ends the request before the job
			log.Output = append(log.Output, out.Token)
		}
	}
	j.Finish = func(err error) {
		d.srv.Free(j)
		down.Close(err)
	}
	d.srv.Put(j)

	got, err := down.Drain()
	over = true
	for _, m := range got {
		log.Token(m.Usage.End, m.Payload.Tokens)
		sent(log, m, false)
	}
	answered(log, d.srv.Name(), j)
	return err
}

// counted streams an answer of which the tokens are only counted.
func (d *desk) counted(down hardware.Trains, req *workloads.Request, log *record.Request) error {
	var j *serving.Job
	if s := d.spare; s != nil && len(s.jobs) > 0 {
		n := len(s.jobs) - 1
		j = s.jobs[n]
		down.Lend(s.arrivals[n])
		s.jobs, s.arrivals = s.jobs[:n], s.arrivals[:n]
	} else {
		j = &serving.Job{}
	}
	owed := j.Owed()
	*j = serving.Job{ID: int64(req.ID), Held: d.held, Prompt: req.PromptTokens, Adapter: d.adapter, Limit: req.OutputTokens,
		Deadline: deadline(req), Down: down, Token: tokenPayload(hardware.NoToken, d.tokenBytes)}
	j.Lend(owed)
	over := false
	j.Finish = func(err error) {
		over = true
		d.srv.Free(j)
		down.Close(err)
	}
	d.srv.Put(j)

	arrivals, took, err := down.DrainTrain()
	log.Tokens(arrivals)
	if len(arrivals) > 0 {
		log.DownBytes += took.Moved
		log.Spend(record.RadioPart, took.Energy, uint8(took.Joules))
	}
	answered(log, d.srv.Name(), j)
	if s := d.spare; s != nil && over { // else the link broke, and the server is still at it
		s.jobs, s.arrivals = append(s.jobs, j), append(s.arrivals, arrivals)
	}
	return err
}

// raise sends a request's raw data to the node near its user, and returns them as they arrived.
func raise(user *hardware.User, req *workloads.Request, log *record.Request) (hardware.Payload, error) {
	data := promptPayload(req)
	up, err := user.Up.Send(data)
	if err != nil {
		return data, err
	}
	sent(log, up, true)
	log.Spent(record.Transfer, "up", up.Usage.Start, up.Usage.End)
	log.RawBytesOut += data.Bytes
	return up.Payload, nil
}

// promptPayload is a request's raw data: its text or token ids, and its sensor data.
func promptPayload(req *workloads.Request) hardware.Payload {
	data := hardware.Payload{Bytes: req.TextBytes + req.SensorBytes, Data: encodeTokens(req.Prompt)}
	data.Bytes = max(data.Bytes, units.Bytes(len(data.Data)))
	return data
}

func tokenPayload(token int32, bytes float64) hardware.Payload {
	d := hardware.Payload{Bytes: units.Bytes(bytes), Tokens: 1}
	if token != hardware.NoToken {
		d.Data = encodeTokens([]int32{token})
		d.Bytes = max(d.Bytes, units.Bytes(len(d.Data)))
	}
	return d
}

// deadline is a request's own on the run's clock; 0 = none.
func deadline(req *workloads.Request) time.Duration {
	if req.Deadline == 0 {
		return 0
	}
	return req.ArriveAt + req.Deadline
}

// adapterOf says which adapter a user has: the same at every request, whatever
// the pipeline.
func adapterOf(user, of int) string {
	luck := rng.NewKey(0, "adapter").At(uint64(user))
	return fmt.Sprint("adapter-", int(luck.Float64()*float64(of)))
}

// answered writes down where the request's time at a server went: in line, in
// its prefill, in shared decode steps, and on the way down; and what it cost.
func answered(log *record.Request, node string, j *serving.Job) {
	if j.Admitted() >= 0 {
		if j.Arrived() > 0 {
			log.Spent(record.Transfer, "up", 0, j.Arrived())
		}
		log.Spent(record.Compute, node, j.Admitted(), j.First())
		if j.Last() > j.First() {
			log.Spent(record.Batch, node, j.First(), j.Last())
		}
		if log.LastToken >= j.Last() {
			log.Spent(record.Transfer, "down", j.Last(), log.LastToken)
		}
	}
	log.FLOP += j.FLOP()
	log.Spend(record.EdgePart, j.Energy(), uint8(j.Joules))
}

// encodeTokens and decodeTokens are the wire form of token ids: little-endian
// 32-bit words. Nil stays nil: a modelled run sends sizes only.
func encodeTokens(ids []int32) []byte {
	if ids == nil {
		return nil
	}
	b := make([]byte, 4*len(ids))
	for i, id := range ids {
		b[4*i], b[4*i+1], b[4*i+2], b[4*i+3] = byte(id), byte(id>>8), byte(id>>16), byte(id>>24)
	}
	return b
}

func decodeTokens(b []byte) []int32 {
	if b == nil {
		return nil
	}
	ids := make([]int32, len(b)/4)
	for i := range ids {
		ids[i] = int32(b[4*i]) | int32(b[4*i+1])<<8 | int32(b[4*i+2])<<16 | int32(b[4*i+3])<<24
	}
	return ids
}

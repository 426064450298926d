package pipeline

import (
	"fmt"
	"slices"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/spec"
	"meibench/workloads"
)

var speculateEntry = Entry{
	Name: "speculate", Doc: "a draft on the device, verified by the model at the edge or on the device: the tokens are the model's",
	Ops: "device: prefill, decode of the small model; edge (or device): prefill, verify", Two: true,
	Params: with(serverParams, []Param{
		{Name: "verify", Names: []string{"edge", "device"}, Doc: "where the model runs"},
		{Name: "draft", Names: []string{"small", "self"}, Doc: "the small model, or the model's own lower layers (self-speculation)"},
		{Name: "exit", Default: 0.5, Min: 0, Max: 10_000, Doc: "draft self: layers of the draft; below 1 a share of the depth"},
		{Name: "gamma", Default: 4, Min: 0, Max: 64, Doc: "drafts per round; 0 = chosen under the observed round trip and acceptance"},
		{Name: "width", Default: 1, Min: 1, Max: 16, Doc: "alternatives at each position of a token tree; 1 = a chain"},
		{Name: "proactive", Names: []string{"no", "yes"}, Doc: "go on drafting while the verification is under way"},
		{Name: "temperature", Default: 0, Min: 0, Max: 10, Doc: "of sampling; 0 = greedy. Sampling drafts chains only"},
		{Name: "id_bytes", Default: 4, Min: 1, Max: 64, Doc: "bytes on the wire per drafted token id"},
	}),
	New: func(p Params) Pipeline {
		s := &speculate{local: p.Name("verify") == "device", self: p.Name("draft") == "self", exit: p.Num("exit"), gamma: p.Int("gamma"),
			width: p.Int("width"), proactive: p.Name("proactive") == "yes", idBytes: p.Num("id_bytes"), options: serverOptions(p)}
		if t := p.Num("temperature"); t > 0 {
			s.sample = &hardware.Sample{Temperature: t, Laws: true}
		}
		return s
	},
}

// speculate drafts tokens with a cheap model on the device and has the model
// judge them all in one pass (checklist I10; Leviathan et al., ICML'23; device
// and edge: SLED, arXiv 2506.09397, and DSSD, arXiv 2507.12000, whose wire we
// use: ids and one probability per draft go up, a law comes down only where a
// draft was refused). A tree has alternatives at each position of one path; the
// rest is as in a chain. Proactive drafting is after SpecEdge (arXiv 2505.17052).
type speculate struct {
	local, self, proactive bool
	exit, idBytes          float64
	gamma, width           int
	sample                 *hardware.Sample
	options                serving.Options

	env   world.Env
	site  *hardware.Site
	model *hardware.Model
	draft *hardware.Model
	lower hardware.Span  // of the draft
	early *hardware.Exit // draft self: where it leaves
	edge  *serving.Server
	turns turns
	pace  pace
}

func (p *speculate) Start(env world.Env, site *hardware.Site, models Models) (err error) {
	p.env, p.site, p.model, p.draft, p.turns = env, site, models.Main, models.Small, turns{}
	if p.width > 1 && p.sample != nil {
		return fmt.Errorf("pipeline speculate: width %d with temperature %g: trees are judged greedily only", p.width, p.sample.Temperature)
	}
	if p.self {
		at, err := cutsOf(p.model, p.exit, 0)
		if err != nil {
			return fmt.Errorf("pipeline speculate: %w", err)
		}
		p.draft, p.lower, p.early = p.model, at.below, &hardware.Exit{Layers: []int{at.below.Hi}}
	} else {
		p.lower = p.draft.All()
	}
	dev := site.User(0).Device
	if err := hardware.Needs("pipeline speculate: device", dev, hardware.Prefill, hardware.Decode); err != nil {
		return err
	}
	if p.local {
		return hardware.Needs("pipeline speculate: device", dev, hardware.Verify)
	}
	p.edge, err = serveFirst("speculate", env, site, p.options, serving.Held{Model: p.model, Span: p.model.All()})
	if err != nil {
		return err
	}
	return hardware.Needs("pipeline speculate: edge", p.edge.Device(), hardware.Verify)
}

// draftID numbers a request's draft sequence: models share devices.
func draftID(req *workloads.Request) int64 { return int64(req.ID) | 1<<40 }

func (p *speculate) Handle(req *workloads.Request, log *record.Request) error {
	user := p.site.User(req.User)
	turn := p.turns.of(p.env, user.Device)
	turn.Acquire()
	defer turn.Release()
	log.Sent = p.env.Now()

	r := &round{p: p, user: user, log: log, req: req, known: slices.Clone(req.Prompt), total: req.PromptTokens}
	if p.sample != nil {
		s := *p.sample
		s.Seed = uint64(req.ID)
		r.sample = &s
	}
	if !p.local {
		r.session = p.edge.Open(int64(req.ID), serving.Held{Model: p.model, Span: p.model.All()}, req.PromptTokens+req.OutputTokens+p.most()*p.width+1)
		defer r.session.Close()
	}
	defer r.close()
	end, err := r.begin()
	for err == nil && !end && log.OutputTokens < req.OutputTokens {
		end, err = r.next()
	}
	return err
}

// most is the most drafts of a round.
func (p *speculate) most() int {
	if p.gamma > 0 {
		return p.gamma
	}
	return 16
}

// round is one request's way through rounds of drafting and judging.
type round struct {
	p       *speculate
	user    *hardware.User
	log     *record.Request
	req     *workloads.Request
	session *serving.Session
	sample  *hardware.Sample
	known   []int32 // the text so far; nil if modelled
	total   int     // its length
	held    int     // tokens of it that the draft's cache has
	drafts  []hardware.Out
	ahead   []hardware.Out // drafted beyond the round, while it was being judged
}

// begin prefills both models and gets the first token.
func (r *round) begin() (bool, error) {
	seq := hardware.Seq{ID: int64(r.req.ID), New: r.req.PromptTokens, Tokens: r.req.Prompt}
	out, err := r.judge(hardware.Prefill, seq, promptPayload(r.req), true)
	if err != nil {
		return false, err
	}
	return r.settle(nil, out), nil
}

// next is one round: draft, send, verify, answer.
func (r *round) next() (bool, error) {
	gamma := min(r.gamma(), r.req.OutputTokens-r.log.OutputTokens-1)
	if err := r.propose(gamma); err != nil {
		return false, err
	}
	drafts := r.drafts
	seq, payload := r.pack(drafts)
	kind := hardware.Verify
	if seq.New == 1 {
		kind = hardware.Decode
	}
	r.log.Count(record.Drafted, int64(seq.New-1))
	began := r.p.env.Now()
	out, err := r.judge(kind, seq, payload, false)
	if err != nil {
		return false, err
	}
	r.log.Count(record.Verified, 1)
	r.log.Count(record.Accepted, int64(out.Accepted))
	r.p.pace.judged(len(drafts), out.Accepted, r.p.env.Now()-began)
	return r.settle(drafts, out), nil
}

// propose makes the drafts of a round; those made ahead count.
func (r *round) propose(gamma int) error {
	r.drafts, r.ahead = append(r.drafts[:0], r.ahead...), r.ahead[:0]
	r.drafts = r.drafts[:min(len(r.drafts), max(gamma, 0))]
	r.held = min(r.held, r.total+len(r.drafts)-1) // the draft's cache may have more
	for len(r.drafts) < gamma {
		out, err := r.think(r.drafts)
		if err != nil {
			return err
		}
		r.drafts = append(r.drafts, out)
		if out.End {
			break
		}
	}
	return nil
}

// think makes the draft that follows the text and some drafts.
func (r *round) think(after []hardware.Out) (hardware.Out, error) {
	at := r.total + len(after)
	seq := hardware.Seq{ID: draftID(r.req), Context: r.held, New: at - r.held}
	if r.known != nil {
		seq.Tokens = append([]int32(nil), r.known[min(r.held, r.total):]...)
		for _, d := range after[max(0, r.held-r.total):] {
			seq.Tokens = append(seq.Tokens, d.Token)
		}
	}
	op := hardware.Op{Kind: hardware.Decode, Model: r.p.draft, Layers: r.p.lower, Seqs: []hardware.Seq{seq}, Exit: r.p.early, Sample: r.sample}
	if seq.New > 1 {
		op.Kind = hardware.Prefill
	}
	if r.p.width > 1 {
		op.Top = r.p.width
	}
	res, err := r.user.Device.Run(&op)
	if err != nil {
		return hardware.Out{}, err
	}
	r.held = at
	if op.Kind == hardware.Decode {
		r.p.pace.drafted(res.Usage.End - res.Usage.Start)
	}
	r.log.Spent(record.Compute, "device", res.Usage.Start, res.Usage.End)
	note(r.log, record.DevicePart, res.Usage, 1)
	return res.Seqs[0], nil
}

// pack makes the verification of the drafts: the last known token, then one
// path of drafts with their alternatives beside them.
func (r *round) pack(drafts []hardware.Out) (hardware.Seq, hardware.Payload) {
	seq := hardware.Seq{ID: int64(r.req.ID), Context: r.total - 1, New: 1 + len(drafts)*r.p.width}
	bytes := float64(seq.New-1) * r.p.idBytes
	if r.sample != nil {
		bytes += float64(4 * len(drafts)) // the draft's probability of each
	}
	if r.p.width > 1 && len(drafts) > 0 {
		seq.Tree = []int32{-1}
	}
	if r.known == nil {
		for i := range drafts {
			seq.Tree = grow(seq.Tree, i, r.p.width)
		}
		return seq, hardware.Payload{Bytes: units.Bytes(bytes)}
	}
	seq.Tokens = []int32{r.known[r.total-1]}
	for i, d := range drafts {
		seq.Tokens = append(seq.Tokens, d.Token)
		if r.p.width > 1 {
			seq.Tokens = append(seq.Tokens, d.Top[1:]...)
		}
		seq.Tree = grow(seq.Tree, i, r.p.width)
		if r.sample != nil {
			seq.Q = append(seq.Q, d.Prob)
		}
	}
	p := idsPayload(append(seq.Tokens[1:len(seq.Tokens):len(seq.Tokens)], bitsOf(seq.Q)...), seq.New-1, r.p.idBytes)
	p.Tokens, p.Bytes = 0, max(p.Bytes, units.Bytes(bytes))
	return seq, p
}

// grow adds the parents of one position of a comb: width siblings behind the
// path's node before.
func grow(tree []int32, position, width int) []int32 {
	if tree == nil {
		return nil
	}
	parent := int32(0)
	if position > 0 {
		parent = int32(1 + (position-1)*width)
	}
	for range width {
		tree = append(tree, parent)
	}
	return tree
}

// judge has the model run a prompt or judge drafts, on the device or at the edge.
// While the edge has it, the device drafts: the prompt, or proactively what may
// come next.
func (r *round) judge(kind hardware.Kind, seq hardware.Seq, up hardware.Payload, raw bool) (hardware.Out, error) {
	if r.p.local {
		op := hardware.Op{Kind: kind, Model: r.p.model, Layers: r.p.model.All(), Seqs: []hardware.Seq{seq}, Sample: r.sample}
		res, err := r.user.Device.Run(&op)
		if err != nil {
			return hardware.Out{}, err
		}
		r.log.Spent(record.Compute, "device", res.Usage.Start, res.Usage.End)
		note(r.log, record.DevicePart, res.Usage, 1)
		return res.Seqs[0], nil
	}
	if r.p.proactive && kind == hardware.Verify {
		return r.judgeAhead(seq, up)
	}
	return r.away(kind, seq, up, raw)
}

// away is the round trip to the edge.
func (r *round) away(kind hardware.Kind, seq hardware.Seq, payload hardware.Payload, raw bool) (hardware.Out, error) {
	up, err := r.user.Up.Send(payload)
	if err != nil {
		return hardware.Out{}, err
	}
	sent(r.log, up, true)
	if r.log.Spent(record.Transfer, "up", up.Usage.Start, up.Usage.End); raw {
		r.log.RawBytesOut += payload.Bytes
	} else {
		r.log.DerivedBytesOut += payload.Bytes
	}
	if data := decodeTokens(up.Payload.Data); data != nil && raw {
		seq.Tokens = data
	} else if data != nil { // what the edge has crossed the link, but for the last token, which it made
		seq.Tokens = append(seq.Tokens[:1:1], data[:seq.New-1]...)
		seq.Q = floatsOf(data[seq.New-1:])
	}
	out, used, err := r.session.Step(serving.Step{Kind: kind, Seq: seq, Sample: r.sample})
	if err != nil {
		return out, err
	}
	ran(r.log, r.p.edge.Name(), used)
	settle(r.log, r.session)
	back := units.Bytes(4 + r.p.idBytes) // how many were accepted, and the token that follows
	var law []float32
	if r.sample != nil && kind == hardware.Verify && out.Accepted < seq.New-1 { // refused: the law comes with it
		law, back = out.Law, back+units.Bytes(4*r.p.model.Vocab)
	}
	down, err := r.user.Down.Send(hardware.Payload{Bytes: back, Tokens: out.Accepted + 1, Data: encodeTokens(append([]int32{out.Token}, bitsOf(law)...))})
	if err != nil {
		return out, err
	}
	if data := decodeTokens(down.Payload.Data); data != nil {
		out.Token, out.Law = data[0], floatsOf(data[1:])
	}
	sent(r.log, down, false)
	r.log.Spent(record.Transfer, "down", left(used, down.Usage), down.Usage.End)
	return out, nil
}

// judgeAhead drafts on while the edge judges. What was drafted is of use if all
// drafts are accepted and the token behind them is the first of it.
func (r *round) judgeAhead(seq hardware.Seq, payload hardware.Payload) (out hardware.Out, err error) {
	done, cond := false, r.p.env.NewCond()
	r.p.env.Go("verify", func() {
		out, err = r.away(hardware.Verify, seq, payload, false)
		done = true
		cond.Signal()
	})
	aside := *r // its time lies within the edge's
	aside.log = &record.Request{}
	aside.log.Reset(r.req.ID, r.log.Reached())
	kept := len(r.drafts)
	guess := append([]hardware.Out(nil), r.drafts...)
	for !done && len(guess) < 2*kept+1 && !guess[len(guess)-1].End {
		d, derr := aside.think(guess)
		if derr != nil {
			break // its context is full: wait
		}
		guess = append(guess, d)
	}
	for !done {
		cond.Wait()
	}
	r.held = aside.held
	r.log.FLOP += aside.log.FLOP
	if e := aside.log.Energy[record.DevicePart]; e.Known() {
		r.log.Spend(record.DevicePart, e.Joules, e.Source)
	}
	if err == nil && out.Accepted == kept && len(guess) > kept && r.guessed(&out, &guess[kept]) {
		r.ahead = append(r.ahead[:0], guess[kept+1:]...)
	}
	return out, err
}

// guessed reports whether a draft made ahead is the token that came.
func (r *round) guessed(out, guess *hardware.Out) bool {
	if r.known == nil {
		return out.Guessed
	}
	return out.Token == guess.Token
}

// settle takes what was accepted and the token behind it into the text.
func (r *round) settle(drafts []hardware.Out, out hardware.Out) (end bool) {
	before := r.total
	r.take(drafts, &out)
	if out.Token == hardware.NoToken && out.Law != nil { // refused: the drafter draws from the residual
		luck := rng.NewKey(r.sample.Seed, "resample").At(uint64(r.total))
		out.Token = int32(spec.Resample(out.Law, drafts[out.Accepted].Law, luck.Float64()))
		out.End = out.Token == r.p.model.End
	}
	r.total++
	if out.Token == hardware.NoToken { // a device that knows sizes only, whatever the prompt was
		r.known = nil
	}
	if r.known != nil {
		r.known = append(r.known, out.Token)
	}
	n := min(r.total-before, r.req.OutputTokens-r.log.OutputTokens)
	r.log.Token(r.log.Reached(), n)
	if r.known != nil {
		r.log.Output = append(r.log.Output, r.known[before:before+n]...)
	}
	if len(r.ahead) == 0 && r.held > before {
		r.held = min(r.held, before+r.onPath(drafts, &out))
	}
	return out.End
}

// take appends the accepted drafts to the text.
func (r *round) take(drafts []hardware.Out, out *hardware.Out) {
	r.total += out.Accepted
	if r.known == nil {
		return
	}
	for i := range out.Accepted {
		node := i*r.p.width + 1
		if out.Path != nil {
			node = int(out.Path[i])
		}
		d := &drafts[(node-1)/r.p.width]
		if side := (node - 1) % r.p.width; side > 0 {
			r.known = append(r.known, d.Top[side])
		} else {
			r.known = append(r.known, d.Token)
		}
	}
}

// onPath counts the accepted drafts that the draft's own cache has: those before
// the first alternative.
func (r *round) onPath(drafts []hardware.Out, out *hardware.Out) int {
	for i, node := range out.Path {
		if r.p.width > 1 && (node-1)%int32(r.p.width) != 0 {
			return i
		}
	}
	return min(out.Accepted, len(drafts))
}

func (r *round) close() {
	drop(r.user.Device, &hardware.Op{Model: r.p.draft, Layers: r.p.lower, Seqs: []hardware.Seq{{ID: draftID(r.req)}}})
	if r.p.local {
		drop(r.user.Device, &hardware.Op{Model: r.p.model, Layers: r.p.model.All(), Seqs: []hardware.Seq{{ID: int64(r.req.ID)}}})
	}
}

// gamma is how many drafts the next round has.
func (r *round) gamma() int {
	if r.p.gamma > 0 {
		return r.p.gamma
	}
	return r.p.pace.gamma(r.p.most())
}

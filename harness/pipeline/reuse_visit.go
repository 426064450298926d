package pipeline

import (
	"slices"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/reference/prefix"
	"meibench/reference/recall"
	"meibench/workloads"
)

// visit is a request at a node that remembers.
type visit struct {
	p      *reuse
	req    *workloads.Request
	log    *record.Request
	user   *hardware.User
	srv    *serving.Server
	memory *memory
	prompt []int32 // nil: its length only
	tenant string
	vector []float32 // of the question, from the model
	made   said
}

// recall answers from a question that was alike, if there was one.
func (a *visit) recall() (found bool, err error) {
	p, c := a.p, a.memory.answers
	if c == nil || a.req.Text == "" {
		return false, nil
	}
	start := p.env.Now()
	var got recall.Answer
	if p.answers == "model" {
		if a.vector, err = a.embed(); err != nil {
			return false, err
		}
		got, found = c.FindBy(a.tenant, a.req.Text, a.vector)
	} else {
		if a.srv.Device().Spec().Time != hardware.Measured {
			p.env.Sleep(p.lookup)
		}
		got, found = c.Find(a.tenant, a.req.Text)
		a.log.Spent(record.Compute, a.srv.Name(), start, p.env.Now())
	}
	if !found {
		a.log.Count(record.NotRecalled, 1)
		return false, nil
	}
	was := got.Note.(said)
	a.log.Count(record.Recalled, 1)
	if was.right != a.req.Answer {
		a.log.Count(record.RecalledWrong, 1)
	}
	if limit := a.req.OutputTokens; was.n > limit { // the asker wants no more
		was.n, was.tokens = limit, was.tokens[:min(limit, len(was.tokens))]
	}
	a.log.Output = append(a.log.Output, was.tokens...)
	msg := hardware.Payload{Tokens: was.n, Data: encodeTokens(was.tokens)}
	msg.Bytes = max(units.Bytes(p.tokenBytes*float64(was.n)), units.Bytes(len(msg.Data)))
	d, err := a.user.Down.Send(msg)
	if err != nil {
		return true, err
	}
	a.log.Token(d.Usage.End, was.n)
	sent(a.log, d, false)
	a.log.Spent(record.Transfer, "down", d.Usage.Start, d.Usage.End)
	return true, nil
}

// embed is the question as the model's lower layers have it: the mean of its tokens' states.
func (a *visit) embed() ([]float32, error) {
	p := a.p
	low := serving.Held{Model: p.model, Span: hardware.Span{Hi: p.layers}}
	s := a.srv.Open(int64(a.req.ID)|1<<44, low, len(a.prompt))
	defer s.Close()
	out, used, err := s.Step(serving.Step{Kind: hardware.Prefill, Seq: hardware.Seq{New: len(a.prompt), Tokens: a.prompt}})
	if err != nil {
		return nil, err
	}
	ran(a.log, a.srv.Name(), used)
	settle(a.log, s)
	states, err := p.codec.Decode(nil, out.Hidden.Data, p.model.Dim)
	if err != nil {
		return nil, err
	}
	mean := make([]float32, p.model.Dim)
	for i, v := range states {
		mean[i%p.model.Dim] += v
	}
	return recall.Unit(mean), nil
}

// chain names the full blocks of the prompt's first n tokens.
func (a *visit) chain(n int) ([]prefix.Name, int) {
	p, req := a.p, a.req
	size := p.block
	switch {
	case a.prompt != nil:
		return prefix.Chain(a.tenant, a.prompt[:min(n, len(a.prompt))], size), size
	case len(req.Blocks) > 0:
		c := prefix.Start(a.tenant)
		for _, id := range req.Blocks {
			c.Next(id)
		}
		return c.Names(), req.BlockTokens
	}
	c := prefix.Start(a.tenant)
	t := p.talks[req.Session]
	if req.Turn > 0 && req.PrefixTokens == 0 { // the window slid: another beginning
		t++
	}
	p.talks[req.Session] = t
	for at := size; at <= n; at += size {
		if at <= req.CommonTokens {
			c.Next(0)
		} else {
			c.Next(1, int64(req.Session), int64(t))
		}
	}
	return c.Names(), size
}

// answer computes what nobody has computed before.
func (a *visit) answer() error {
	p, req, log := a.p, a.req, a.log
	s := a.srv.Open(int64(req.ID)|1<<45, p.held(), req.PromptTokens+req.OutputTokens)
	defer s.Close()
	chain, have, size, err := a.restore(s)
	if err != nil {
		return err
	}
	reused := len(have) * size
	seq := hardware.Seq{Context: reused, New: req.PromptTokens - reused}
	if a.prompt != nil {
		seq.Tokens = a.prompt[reused:]
	}
	down := a.user.Down.Open()
	for kind := hardware.Prefill; ; kind = hardware.Decode {
		out, e := a.step(s, serving.Step{Kind: kind, Seq: seq})
		if err = e; err != nil {
			break
		}
		if a.made.n++; out.Token != hardware.NoToken {
			a.made.tokens = append(a.made.tokens, out.Token)
			log.Output = append(log.Output, out.Token)
		}
		down.Write(tokenPayload(out.Token, p.tokenBytes))
		if kind == hardware.Prefill {
			if err = a.save(s, chain, have, size); err != nil {
				break
			}
		}
		if out.End || a.made.n >= req.OutputTokens {
			break
		}
		follow(&seq, out.Token)
	}
	down.Close(err)
	last := p.env.Now()
	got, e := down.Drain()
	for _, d := range got {
		log.Token(d.Usage.End, d.Payload.Tokens)
		sent(log, d, false)
	}
	if len(got) > 0 {
		log.Spent(record.Transfer, "down", min(last, got[len(got)-1].Usage.Start), log.LastToken)
	}
	if err == nil {
		err = e
	}
	if err == nil {
		a.remember()
	}
	return err
}

// step runs one operation of the request's sequence.
func (a *visit) step(s *serving.Session, st serving.Step) (hardware.Out, error) {
	out, used, err := s.Step(st)
	if err == nil {
		ran(a.log, a.srv.Name(), used)
		settle(a.log, s)
	}
	return out, err
}

// restore copies in what is there of the prompt's beginning: all but its last token at most, which makes the first of the answer.
func (a *visit) restore(s *serving.Session) (chain []prefix.Name, have []prefix.Block, size int, err error) {
	store := a.memory.blocks
	if store == nil {
		return nil, nil, 0, nil
	}
	chain, size = a.chain(a.req.PromptTokens)
	have = store.Find(chain)
	a.log.Count(record.CacheHits, int64(len(have)))
	a.log.Count(record.CacheMisses, int64(len(chain)-len(have)))
	have = have[:min(len(have), (a.req.PromptTokens-1)/size)]
	for _, b := range have {
		a.log.Count(record.CacheHitBytes, int64(b.Bytes))
	}
	if len(have) > 0 && a.prompt == nil { // sizes: one copy takes what the blocks' copies take
		_, err = a.step(s, serving.Step{Kind: hardware.Restore, Seq: hardware.Seq{New: len(have) * size}})
	}
	for i := 0; i < len(have) && a.prompt != nil && err == nil; i++ {
		_, err = a.step(s, serving.Step{Kind: hardware.Restore, Seq: hardware.Seq{Context: i * size, New: size, In: have[i].Held.(hardware.Payload)}})
	}
	a.log.Count(record.ReusedTokens, int64(len(have)*size))
	return chain, have, size, err
}

// save copies out what is new of the prompt's full blocks; have are those that were copied in.
func (a *visit) save(s *serving.Session, chain []prefix.Name, have []prefix.Block, size int) (err error) {
	store := a.memory.blocks
	if store == nil {
		return nil
	}
	if a.prompt == nil {
		per, reused := a.p.model.KVBytesPerToken(a.p.model.All()), len(have)*size
		if n := min(len(chain)*size, a.req.PromptTokens) - reused; n > 0 {
			_, err = a.step(s, serving.Step{Kind: hardware.Save, Seq: hardware.Seq{Context: reused, New: n}})
		}
		if err == nil {
			store.Add(chain, func(i int) prefix.Block { // a recorded prompt's last block may be shorter
				return prefix.Block{Bytes: per * units.Bytes(max(1, min(size, a.req.PromptTokens-i*size)))}
			})
		}
		return err
	}
	blocks := slices.Clone(have) // which may have gone from the store since
	for i := len(have); i < len(chain); i++ {
		out, err := a.step(s, serving.Step{Kind: hardware.Save, Seq: hardware.Seq{Context: i * size, New: size}})
		if err != nil {
			return err
		}
		blocks = append(blocks, prefix.Block{Bytes: out.Hidden.Bytes, Held: out.Hidden})
	}
	store.Add(chain, func(i int) prefix.Block { return blocks[i] })
	return nil
}

// remember keeps the answer for questions that are alike.
func (a *visit) remember() {
	c := a.memory.answers
	if c == nil || a.req.Text == "" {
		return
	}
	a.made.right = a.req.Answer
	text := a.req.Answer // of a model that computes nothing: as if it were right
	if a.p.answers == "model" {
		c.AddBy(a.tenant, a.req.Text, text, a.vector, a.made)
	} else {
		c.AddNoted(a.tenant, a.req.Text, text, a.made)
	}
}

package pipeline

import (
	"errors"
	"fmt"
	"math"
	"time"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
	"meibench/reference/handover"
)

// copying is a live copy of a conversation's cache, in stages, to another node.
type copying struct {
	to        int
	seq       *serving.Session // at the target
	sent      int              // tokens that are there or on their way
	stages    int
	bytes     units.Bytes
	committed bool // the user is there
	busy      bool
	err       error
	done      world.Cond
}

// pingPong is how soon a user must be back for a hand-over to have been in vain.
const pingPong = 5 * time.Second

// look asks between two tokens where the user is, and lets copies go on.
func (x *turn) look() error {
	p, t := x.p, x.t
	here := p.nodes.near(x.user)
	if here != x.here {
		if err := x.moved(here); err != nil {
			return err
		}
	} else if p.cache == "prefetch" && t.copy == nil && x.user.Next != nil {
		if next, ok := x.user.Next(); ok && next != t.home {
			if err := x.begin(next); err != nil {
				return err
			}
		}
	}
	return x.advance()
}

// moved answers a hand-over in the middle of an answer.
func (x *turn) moved(here int) error {
	p, t := x.p, x.t
	now := p.env.Now()
	x.log.Count(record.Handovers, 1)
	x.breaks = append(x.breaks, x.made)
	if here == x.was && now-x.left <= pingPong {
		p.pingPongs++
	}
	x.was, x.left, x.here = x.here, now, here
	if c := t.copy; c != nil && c.to == here {
		c.committed = true
		p.hits++
		return nil
	}
	p.abandon(x, t.copy)
	if here == t.home {
		return nil
	}
	how, head := p.decide(x, t.home, here, t.cached)
	switch how {
	case "stay":
		return nil
	case "move", "prefetch":
		if err := x.begin(here); err != nil {
			return err
		}
		if t.copy != nil {
			t.copy.committed = true
		}
		return nil
	}
	return x.relocate(here, t.cached, head)
}

// between is the backhaul from one node to another.
func (x *turn) between(from, to int) (hardware.Link, error) {
	l, err := x.p.site.Between(x.p.site.Nodes[from].Name, x.p.site.Nodes[to].Name)
	if err != nil {
		return nil, fmt.Errorf("pipeline follow: the user moved: %w", err)
	}
	return l, nil
}

// count notes bytes that go over the backhaul.
func (x *turn) count(n units.Bytes) {
	x.p.backhaul += n
	x.log.Count(record.BackhaulBytes, int64(n))
}

// tunnelled sends a prompt from where the user is to the conversation's home.
func (x *turn) tunnelled(msg hardware.Payload) error {
	link, err := x.between(x.here, x.t.home)
	if err != nil {
		return err
	}
	x.count(msg.Bytes)
	d, err := link.Send(msg)
	x.log.Spent(record.Transfer, "backhaul", d.Usage.Start, d.Usage.End)
	return err
}

// decide picks what to do with a cache of so many tokens, and for mix and prefill how
// many of them the target computes. Where the target has no room the session stays.
func (p *follower) decide(x *turn, from, to, tokens int) (how string, head int) {
	how = p.cache
	if how == "stay" {
		return how, 0
	}
	if _, err := p.nodes.at(to); err != nil || !p.room(to, x.req.PromptTokens+x.req.OutputTokens) {
		return "stay", 0
	}
	link, err := x.between(from, to)
	if err != nil {
		return how, 0 // whoever acts on it meets the error
	}
	switch how {
	case "prefill":
		return how, tokens
	case "mix":
		return how, p.split(to, tokens, link)
	case "auto":
		return p.cheapest(x, to, tokens, link)
	}
	return how, 0
}

// split is n* of package handover in whole tokens.
func (p *follower) split(to, tokens int, link hardware.Link) int {
	u := p.user(to, tokens)
	if u.PrefillTokensPerSec <= 0 {
		return 0
	}
	rate := link.Spec().BytesPerSec
	n, _ := u.Joint(rate)
	time := func(head int) time.Duration { // of the slower of both
		a, b := u, u
		a.Tokens, b.Tokens = head, tokens-head
		return max(a.Recompute(), b.Transfer(rate))
	}
	low := min(int(n), tokens)
	if low < tokens && time(low+1) < time(low) {
		return low + 1
	}
	return low
}

// user states the problem in the terms of package handover. The speed of prefill is
// what the target says of this length, or what prefills have shown.
func (p *follower) user(to, tokens int) handover.User {
	u := handover.User{Tokens: tokens, PrefillTokensPerSec: p.prefill, KVBytesPerToken: int(p.perToken())}
	if d := p.estimate(to, hardware.Prefill, 0, tokens); d > 0 {
		u.PrefillTokensPerSec = float64(tokens) / d.Seconds()
	}
	return u
}

// estimate is how long an operation takes on a node that is free; 0 = it cannot tell.
func (p *follower) estimate(node int, kind hardware.Kind, context, tokens int) time.Duration {
	e, ok := estimator(p.site.Nodes[node].Device)
	if !ok || tokens <= 0 {
		return 0
	}
	return e.Estimate(&hardware.Op{Kind: kind, Model: p.model, Layers: p.model.All(), Seqs: []hardware.Seq{{Context: context, New: tokens}}})
}

// cheapest is what delays the present answer least by the closed forms, all links
// and nodes being free: of equals the first in the order stay, prefill, move, mix.
func (p *follower) cheapest(x *turn, to, tokens int, link hardware.Link) (how string, head int) {
	u, from := p.user(to, tokens), x.t.home
	stay := across(link, units.Bytes(p.tokenBytes))
	compute := time.Duration(math.MaxInt64)
	if u.PrefillTokensPerSec > 0 {
		compute = u.Recompute()
	}
	part := func(head int) time.Duration { // the tail is taken out, sent, and put in behind the head
		tail := tokens - head
		send := p.estimate(from, hardware.Save, head, tail) + across(link, units.Bytes(tail)*p.perToken())
		if head > 0 {
			send = max(send, p.estimate(to, hardware.Prefill, 0, head))
		}
		return send + p.estimate(to, hardware.Restore, head, tail)
	}
	move := part(0)
	if x.made == 0 {
		if back, err := x.between(to, from); err == nil {
			stay += across(back, promptPayload(x.req).Bytes)
		}
	} else if live, err := handover.Live(handover.Copy{Tokens: tokens, BlockTokens: p.block, BlockBytes: units.Bytes(p.block) * p.perToken(),
		BytesPerSec: link.Spec().BytesPerSec, TokenTime: max(p.pace, 1), TokensLeft: x.req.OutputTokens - x.made, LastStageMost: p.last, MostStages: p.most,
		FreeAtTarget: math.MaxInt}); err == nil && live.Aborted == "" {
		move = live.Downtime + link.Spec().Delay
	}
	how, best := "stay", stay
	if compute < best {
		how, head, best = "prefill", tokens, compute
	}
	if move < best {
		how, head, best = "move", 0, move
	}
	if n := p.split(to, tokens, link); n > 0 && n < tokens && part(n) < best {
		how, head = "mix", n
	}
	return how, head
}

// relocate moves the first tokens of the cache while the answer stands still: the
// target computes the head and gets the rest over the backhaul, both at once.
func (x *turn) relocate(to, tokens, head int) error {
	p, t := x.p, x.t
	text, from := t.text, t.home
	tail := tokens - head
	var load hardware.Payload
	if tail > 0 {
		out, _, err := x.step(serving.Step{Kind: hardware.Save, Seq: hardware.Seq{Context: head, New: tail}})
		if err != nil {
			return err
		}
		load = out.Hidden
	}
	p.forget(t)
	if err := p.open(t, to, x.req); err != nil {
		return err
	}
	t.text = text
	if head > 0 && tail == 0 {
		return x.compute(head, text)
	}
	done, cond := head == 0, p.env.NewCond()
	var herr error
	if head > 0 { // computed while the tail is under way
		st := headStep(head, text)
		p.room(to, t.need)
		t.need = 0
		p.env.Go("head", func() {
			_, _, herr = t.seq.Step(st)
			done = true
			cond.Signal()
		})
		x.log.Count(record.Recomputed, int64(head))
	}
	link, err := x.between(from, to)
	if err == nil {
		var d hardware.Delivery
		x.count(load.Bytes)
		d, err = link.Send(load)
		load = d.Payload
		x.log.Spent(record.Transfer, "backhaul", d.Usage.Start, d.Usage.End)
	}
	for !done {
		cond.Wait()
	}
	if err = errors.Join(err, herr); err != nil {
		return err
	}
	_, _, err = x.step(serving.Step{Kind: hardware.Restore, Seq: hardware.Seq{Context: head, New: tail, In: load}})
	t.cached = tokens
	return err
}

// headStep is the prefill of the first tokens of a text.
func headStep(head int, text []int32) serving.Step {
	st := serving.Step{Kind: hardware.Prefill, Seq: hardware.Seq{New: head}}
	if text != nil {
		st.Seq.Tokens = text[:head]
	}
	return st
}

// compute has the target prefill everything.
func (x *turn) compute(head int, text []int32) error {
	x.log.Count(record.Recomputed, int64(head))
	_, _, err := x.step(headStep(head, text))
	x.t.cached = head
	return err
}

// begin starts a live copy to a node, if it has room.
func (x *turn) begin(to int) error {
	p, t := x.p, x.t
	if _, err := p.nodes.at(to); err != nil {
		return err
	}
	need := x.req.PromptTokens + x.req.OutputTokens
	if !p.room(to, need) {
		return nil
	}
	seq, err := p.session(to, need)
	t.copy = &copying{to: to, seq: seq, done: p.env.NewCond()}
	return err
}

// advance goes on with a live copy: full blocks while decoding goes on, the rest when
// little is left and the user is there.
func (x *turn) advance() error {
	p, t := x.p, x.t
	c := t.copy
	if c == nil || c.busy {
		return nil
	}
	if c.err != nil {
		err := c.err
		p.abandon(x, c)
		return err
	}
	left := t.cached - c.sent
	if c.committed && (left <= p.last*p.block || c.stages >= p.most) {
		return x.commit(c)
	}
	if full := t.cached/p.block*p.block - c.sent; full > 0 {
		return x.stage(c, full)
	}
	return nil
}

// stage takes blocks out and sends them; the answer goes on meanwhile.
func (x *turn) stage(c *copying, tokens int) error {
	p, t := x.p, x.t
	link, err := x.between(t.home, c.to)
	if err != nil {
		return err
	}
	from := c.sent
	out, _, err := x.step(serving.Step{Kind: hardware.Save, Seq: hardware.Seq{Context: from, New: tokens}})
	if err != nil {
		return err
	}
	load := out.Hidden
	x.count(load.Bytes)
	c.sent, c.stages, c.bytes, c.busy = from+tokens, c.stages+1, c.bytes+load.Bytes, true
	p.env.Go("copy", func() {
		load, err := p.trickle(link, load)
		if err == nil {
			_, _, err = c.seq.Step(serving.Step{Kind: hardware.Restore, Seq: hardware.Seq{Context: from, New: tokens, In: load}})
		}
		c.err, c.busy = err, false
		c.done.Signal()
	})
	return nil
}

// trickle sends a payload block by block, each when the link should be done with the
// one before, so that tokens find a gap and need not wait behind all of it.
func (p *follower) trickle(link hardware.Link, load hardware.Payload) (hardware.Payload, error) {
	size := units.Bytes(p.block) * p.perToken()
	out := hardware.Payload{Bytes: load.Bytes}
	parts := make([]hardware.Payload, (load.Bytes+size-1)/size)
	left, done := len(parts), p.env.NewCond()
	var failed error
	for i := range parts {
		part := hardware.Payload{Bytes: min(size, load.Bytes-units.Bytes(i)*size)}
		if n := len(load.Data); n > 0 {
			part.Data = load.Data[n*i/len(parts) : n*(i+1)/len(parts)]
			part.Bytes = max(part.Bytes, units.Bytes(len(part.Data)))
		}
		p.env.Go("block", func() {
			d, err := link.Send(part)
			parts[i] = d.Payload
			failed = errors.Join(failed, err)
			left--
			done.Signal()
		})
		if i+1 < len(parts) {
			p.env.Sleep(units.TransferTime(part.Bytes, link.Spec().BytesPerSec))
		}
	}
	for left > 0 {
		done.Wait()
	}
	for i := range parts {
		out.Data = append(out.Data, parts[i].Data...)
	}
	return out, failed
}

// commit sends what is left while the answer stands still, and goes on at the target.
func (x *turn) commit(c *copying) error {
	p, t := x.p, x.t
	x.breaks = append(x.breaks, x.made)
	if left := t.cached - c.sent; left > 0 {
		began := p.env.Now()
		if err := x.stage(c, left); err != nil {
			return err
		}
		for c.busy {
			c.done.Wait()
		}
		x.log.Spent(record.Transfer, "backhaul", began, p.env.Now())
		if c.err != nil {
			return c.err
		}
	}
	t.seq.Close()
	settle(x.log, c.seq)
	t.seq, t.home, t.copy, t.need = c.seq, c.to, nil, 0
	return nil
}

// abandon gives a live copy up; what it sent was sent in vain.
func (p *follower) abandon(x *turn, c *copying) {
	if c == nil {
		return
	}
	x.t.copy = nil
	p.wasted += c.bytes
	if !c.busy {
		c.seq.Close()
		return
	}
	p.env.Go("abandoned copy", func() {
		for c.busy {
			c.done.Wait()
		}
		c.seq.Close()
	})
}

// bringAhead moves the cache behind an answer to where the user is, or will be.
func (p *follower) bringAhead(x *turn) {
	t := x.t
	to := x.here
	if x.user.Next != nil {
		if next, ok := x.user.Next(); ok {
			to = next
		}
	}
	tokens := t.cached
	if to == t.home || tokens == 0 {
		return
	}
	if _, err := p.nodes.at(to); err != nil || !p.room(to, tokens) {
		return
	}
	link, err := x.between(t.home, to)
	if err != nil {
		return
	}
	t.moving, t.gone = true, p.env.NewCond()
	p.env.Go("ahead", func() {
		c := &copying{to: to}
		if err := p.carryAhead(t, c, tokens, link); err != nil {
			p.forget(t)
		} else {
			t.ahead = c
		}
		t.moving = false
		t.gone.Broadcast()
		if !t.busy && t.seq != nil {
			p.rest(t)
		}
	})
}

// carryAhead takes the cache out, sends it and puts it in, while nobody waits.
func (p *follower) carryAhead(t *chat, c *copying, tokens int, link hardware.Link) error {
	out, _, err := t.seq.Step(serving.Step{Kind: hardware.Save, Seq: hardware.Seq{New: tokens}})
	if err != nil {
		return err
	}
	load := out.Hidden
	p.backhaul += load.Bytes
	c.bytes = load.Bytes
	d, err := link.Send(load)
	if err != nil {
		return err
	}
	seq, err := p.session(c.to, tokens)
	if err != nil {
		return err
	}
	t.seq.Close()
	t.seq, t.home = seq, c.to
	_, _, err = seq.Step(serving.Step{Kind: hardware.Restore, Seq: hardware.Seq{New: tokens, In: d.Payload}})
	return err
}

package pipeline

import (
	"errors"

	"meibench/hardware"
	"meibench/harness/record"
	"meibench/harness/serving"
	"meibench/internal/units"
)

// walk is one request's way through a chain.
type walk struct {
	p      *chain
	user   *hardware.User
	log    *record.Request
	id     int64
	grow   int
	tokens []int32 // prompt and answer so far; nil if modelled
	total  int     // their number
	route  *route
	legs   []leg
	at     int // leg that runs, or ran last
}

// leg is a stage as a request has it: its session, how many tokens its caches
// hold, and the inputs that were made for it: kept for as long as they may have
// to be sent again.
type leg struct {
	stage
	session *serving.Session
	have    int
	in      hardware.Payload
	from    int // token that in begins with
	to      int // token that in ends before
}

// take makes the request follow a route. A leg that is the same on both keeps
// its caches.
func (w *walk) take(r *route) {
	old := w.legs
	w.route, w.legs = r, make([]leg, len(r.stages))
	for i, s := range r.stages {
		w.legs[i] = leg{stage: s}
		for k := range old {
			if o := &old[k]; o.stage == s && o.session != nil && !w.p.gone(s.place) {
				w.legs[i] = *o
				o.session = nil
			} else if o.span == s.span {
				w.legs[i].in, w.legs[i].from, w.legs[i].to = o.in, o.from, o.to
			}
		}
	}
	for k := range old {
		if old[k].session != nil {
			old[k].session.Close()
		}
	}
}

// gone reports whether a place is dead.
func (p *chain) gone(place int) bool {
	_, dead := p.dead[place]
	return dead
}

// pass brings every stage up to date with the tokens so far; what comes out at
// the end is the next token.
func (w *walk) pass() (out hardware.Out, err error) {
	if w.route.stale && w.p.route != nil && !w.p.route.stale {
		w.take(w.p.route)
	}
	w.rewind()
	for w.at = 0; w.at < len(w.legs); w.at++ {
		l := &w.legs[w.at]
		if l.have == w.total {
			continue
		}
		if out, err = w.step(l); err != nil {
			return out, err
		}
		done := l.have
		l.have = w.total
		if w.at+1 < len(w.legs) {
			w.legs[w.at+1].keep(out.Hidden, [2]int{done, w.total}, w.p.recover == "reroute")
		}
	}
	w.at = len(w.legs) - 1
	return out, nil
}

// rewind makes a leg begin anew whose output the next one lacks and nobody kept.
func (w *walk) rewind() {
	for i := len(w.legs) - 2; i >= 0; i-- {
		l, next := &w.legs[i], &w.legs[i+1]
		if l.have <= next.have || next.from <= next.have && next.to >= l.have {
			continue
		}
		if l.session != nil {
			l.session.Close()
		}
		l.session, l.have = nil, 0
	}
}

// keep adds inputs for a range of tokens. What the caches have already is kept
// only if all is to be.
func (l *leg) keep(p hardware.Payload, of [2]int, all bool) {
	all = all || l.have < of[0]
	switch {
	case all && l.to == of[0] && l.to > l.from:
		l.in = hardware.Payload{Bytes: l.in.Bytes + p.Bytes, Data: append(l.in.Data, p.Data...)}
		l.to = of[1]
	case all && of[0] < l.to && of[1] <= l.to && of[0] >= l.from: // it has them
	default:
		l.in, l.from, l.to = p, of[0], of[1]
	}
}

// input is what was kept for the tokens that the caches lack.
func (l *leg) input() hardware.Payload {
	n, skip := l.to-l.from, l.have-l.from
	p := hardware.Payload{Bytes: l.in.Bytes - l.in.Bytes*units.Bytes(skip)/units.Bytes(max(n, 1))}
	if l.in.Data != nil {
		p.Data = l.in.Data[len(l.in.Data)*skip/max(n, 1):]
	}
	return p
}

// step runs a stage on the tokens that it lacks.
func (w *walk) step(l *leg) (hardware.Out, error) {
	p := w.p
	seq := hardware.Seq{ID: w.id, Context: l.have, New: w.total - l.have}
	if l.span.Lo == 0 {
		if w.tokens != nil {
			seq.Tokens = w.tokens[l.have:w.total]
		}
	} else {
		in, err := p.roads.send(w.user, w.log, [2]int{w.legs[w.at-1].place, l.place}, l.input())
		if err != nil {
			return hardware.Out{}, err
		}
		seq.In = in
		if w.legs[w.at-1].place == 0 {
			w.log.DerivedBytesOut += in.Bytes
		}
	}
	if l.session == nil {
		srv, err := p.server(w.user, l.stage)
		if err != nil {
			return hardware.Out{}, err
		}
		l.session = srv.Open(w.id, serving.Held{Model: p.model, Span: l.span}, w.grow)
	}
	kind := hardware.Decode
	if seq.Context == 0 || seq.New > 1 {
		kind = hardware.Prefill
	}
	out, used, err := l.session.Step(serving.Step{Kind: kind, Seq: seq, Wire: p.wire})
	if err != nil {
		return out, err
	}
	p.meter.ran(p.device(w.user, l.place), used)
	w.account(l, used)
	return out, nil
}

func (w *walk) account(l *leg, used hardware.Usage) {
	if l.place > 0 {
		ran(w.log, w.p.roads.names[l.place], used)
		settle(w.log, l.session)
		return
	}
	w.log.Spent(record.Compute, "device", used.Start, used.End)
	flop, energy, source := l.session.Take()
	w.log.FLOP += flop
	w.log.Spend(record.DevicePart, energy, uint8(source))
	w.log.PeakBytes = max(w.log.PeakBytes, used.Peak)
}

// again goes on without a node that died.
func (w *walk) again(cause error) (hardware.Out, error) {
	if !errors.Is(cause, hardware.ErrDown) {
		return hardware.Out{}, cause
	}
	w.log.Count(record.Retries, 1)
	next, err := w.p.replace(w.route, w.legs[w.at].place, cause)
	if err != nil {
		return hardware.Out{}, lost{err}
	}
	w.take(next)
	return w.pass()
}

// lost is the end of a request that nothing can save: it is not
// hardware.ErrDown, which would be tried again.
type lost struct{ cause error }

func (l lost) Error() string { return l.cause.Error() }

// home brings the token to the user.
func (w *walk) home(out hardware.Out) error {
	p := w.p
	load := tokenPayload(out.Token, p.tokenBytes)
	last := w.legs[len(w.legs)-1].place
	at := w.log.Reached()
	if last != 0 {
		got, err := p.roads.send(w.user, w.log, [2]int{last, 0}, load)
		if err != nil {
			return err
		}
		if got.Data != nil {
			out.Token = decodeTokens(got.Data)[0]
		}
		at = w.log.Reached()
	}
	if p.failed >= 0 {
		p.worst, p.failed = max(p.worst, at-p.failed), -1
	}
	emit(w.log, hardware.Usage{End: at}, out.Token)
	w.total++
	if out.Token == hardware.NoToken {
		w.tokens = nil // a modelled device answers a prompt that is known with tokens that are not
	} else if w.tokens != nil {
		w.tokens = append(w.tokens, out.Token)
	}
	return nil
}

// close frees what the request holds.
func (w *walk) close() {
	for i := range w.legs {
		if s := w.legs[i].session; s != nil {
			s.Close()
		}
	}
}

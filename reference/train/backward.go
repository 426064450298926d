package train

import (
	"meibench/reference/llm"
	"meibench/reference/tensor"
)

// layerBackward turns dx of layer i's output into dx of its input, if that is wanted: else dx means nothing afterwards.
func (t *tape) layerBackward(l *layerTape, grad, p *Params, i int, input bool) {
	s, T := t.shape, len(t.b.Tokens)
	g, w, ge, e := &grad.Model.Blocks[i], &p.Model.Blocks[i], grad.at(i), p.at(i)
	dy := t.halfBack(l, ge, e, 1, T)
	t.linearBack(t.dinner, dy, l.inner, &w.Down, &g.Down, false, T)
	t.lowBack(l, ge, e, siteDown, t.dinner, dy, l.inner)
	tensor.SwiGLUGrad(t.dgate, t.dup, t.dinner, l.gate, l.up)
	t.linearBack(t.dnorm, t.dgate, l.norm2, &w.Gate, &g.Gate, false, T)
	t.linearBack(t.dnorm, t.dup, l.norm2, &w.Up, &g.Up, true, T)
	t.lowBack(l, ge, e, siteGate, t.dnorm, t.dgate, l.norm2)
	t.lowBack(l, ge, e, siteUp, t.dnorm, t.dup, l.norm2)
	tensor.RMSNormGrad(t.dx, g.FFNNorm, t.dnorm, l.mid, w.FFNNorm, l.inv2, T, s.Dim)

	dy = t.halfBack(l, ge, e, 0, T)
	t.linearBack(t.datt, dy, l.att, &w.Out, &g.Out, false, T)
	t.lowBack(l, ge, e, siteOut, t.datt, dy, l.att)
	t.attendBack(l, ge, e)
	t.unfinish(l, g, w, T)
	dnorm := t.dnorm
	if !input && g.AttnNorm == nil {
		dnorm = nil
	}
	t.linearBack(dnorm, t.dq, l.norm1, &w.Q, &g.Q, false, T)
	t.linearBack(dnorm, t.dk, l.norm1, &w.K, &g.K, true, T)
	t.linearBack(dnorm, t.dv, l.norm1, &w.V, &g.V, true, T)
	t.lowBack(l, ge, e, siteQ, dnorm, t.dq, l.norm1)
	t.lowBack(l, ge, e, siteK, dnorm, t.dk, l.norm1)
	t.lowBack(l, ge, e, siteV, dnorm, t.dv, l.norm1)
	if dnorm != nil {
		tensor.RMSNormGrad(t.dx, g.AttnNorm, dnorm, l.x, w.AttnNorm, l.inv1, T, s.Dim)
	}
}

// halfBack is the gradient of what a half of a layer computes, from that of what it adds: they differ where a bottleneck stands behind it.
func (t *tape) halfBack(l *layerTape, ge, e *layerExtra, half, T int) []float32 {
	b := e.bottle[half]
	if b == nil {
		return t.dx
	}
	room(&t.dsub, len(t.dx))
	copy(t.dsub, t.dx)
	b.backward(t.pool, ge.bottle[half], &l.bottle[half], t.dsub, &t.small, T)
	return t.dsub
}

// lowBack adds the gradients of a low-rank change, if there is one.
func (t *tape) lowBack(l *layerTape, ge, e *layerExtra, site int, dx, dy, x []float32) {
	if low := e.low[site]; low != nil {
		low.back(t.pool, ge.low[site], dx, dy, x, l.low[site], &t.small, len(t.b.Tokens))
	}
}

// attendBack turns datt into the gradients of queries, keys and values before their rotation, and adds those of a prefix.
func (t *tape) attendBack(l *layerTape, ge, e *layerExtra) {
	s, p := t.shape, t.pool
	Q, KV := s.QDim(), s.KVDim()
	n := len(e.prefixK) / max(1, KV)
	clear(t.dk)
	clear(t.dv)
	each(t.b.Lens, s.Heads, n, func(at, T, probs int) {
		dq, dk, dv := t.dq[at*Q:(at+T)*Q], t.dk[at*KV:(at+T)*KV], t.dv[at*KV:(at+T)*KV]
		q, k, v, to, tov := l.q[at*Q:(at+T)*Q], l.k[at*KV:(at+T)*KV], l.v[at*KV:(at+T)*KV], dk, dv
		if n > 0 {
			k, v = behind(&t.keys, e.prefixK, k), behind(&t.values, e.prefixV, v)
			room(&t.dkeys, len(k))
			room(&t.dvalues, len(v))
			clear(t.dkeys)
			clear(t.dvalues)
			to, tov = t.dkeys, t.dvalues
		}
		t.attn.backward(p, dq, to, tov, t.datt[at*Q:(at+T)*Q], t.dprobs[:T*(n+T)], l.probs[probs:], q, k, v, T)
		if n > 0 {
			tensor.Add(ge.prefixK, to[:n*KV])
			tensor.Add(ge.prefixV, tov[:n*KV])
			copy(dk, to[n*KV:])
			copy(dv, tov[n*KV:])
		}
		t.rope.Unapply(dq, T, s.Heads, 0)
		t.rope.Unapply(dk, T, s.KVHeads, 0)
	})
}

// unfinish turns the gradients of what finish returns into those of what it got.
func (t *tape) unfinish(l *layerTape, g, w *llm.Block, T int) {
	s := t.shape
	if w.QNorm != nil {
		for _, v := range []struct {
			dy, raw, inv, w, dw []float32
			heads               int
		}{{t.dq, l.rawQ, l.invQ, w.QNorm, g.QNorm, s.Heads}, {t.dk, l.rawK, l.invK, w.KNorm, g.KNorm, s.KVHeads}} {
			room(&t.draw, len(v.dy))
			clear(t.draw)
			tensor.RMSNormGrad(t.draw, v.dw, v.dy, v.raw, v.w, v.inv, T*v.heads, s.HeadDim)
			copy(v.dy, t.draw)
		}
	}
	if w.QB != nil {
		SumRows(g.QB, t.dq, T)
		SumRows(g.KB, t.dk, T)
		SumRows(g.VB, t.dv, T)
	}
}

// activationBytes counts what a forward pass has kept, memory that layers share once.
func (t *tape) activationBytes() (n int) {
	for i := range t.layers {
		l := &t.layers[i]
		n += cap(l.x)
		if t.keep != keepAll && i > 0 {
			continue
		}
		for _, x := range [][]float32{l.norm1, l.inv1, l.q, l.k, l.v, l.probs, l.att, l.mid, l.norm2, l.inv2, l.gate, l.up, l.inner} {
			n += cap(x)
		}
	}
	return 4 * (n + cap(t.again))
}

// exits reports whether a batch scores an exit below the last layer.
func (b *Batch) exits(layers int) bool { return b.Exit > 0 && b.Exit < layers && b.ExitWeight != 0 }

// exitTape scores the hidden states of one early exit at the places with a loss,
// as llm.LastLogits does for a span that ends there: final norm, then head.
type exitTape struct {
	x, norm, dx, dnorm []float32 // (R, C)
	inv                []float32 // (R)
	logits             []float32 // (R, V)
}

// forward leaves logits of the hidden states x (T, C).
func (e *exitTape) forward(t *tape, w *llm.Model, x []float32) {
	C, R := t.shape.Dim, len(t.rows)
	for _, v := range []*[]float32{&e.x, &e.norm, &e.dx, &e.dnorm} {
		room(v, R*C)
	}
	room(&e.inv, R)
	room(&e.logits, R*t.shape.Vocab)
	for r, i := range t.rows {
		copy(e.x[r*C:(r+1)*C], x[i*C:])
	}
	tensor.RMSNorm(e.norm, e.x, w.Norm, e.inv, R, C, t.shape.Eps)
	t.linear(e.logits, e.norm, head(w), nil, nil, R)
}

// loss turns the logits into their weighted gradient.
func (e *exitTape) loss(t *tape, b *Batch, scale float32) {
	V := t.shape.Vocab
	for r, i := range t.rows {
		CrossEntropy(e.logits[r*V:(r+1)*V], b.Targets[i], b.Weights[i]*scale*b.ExitWeight)
	}
}

// backward adds to the gradient, and to t.dx, that of the exit's output.
func (e *exitTape) backward(t *tape, grad, w *llm.Model) {
	C, R := t.shape.Dim, len(t.rows)
	t.linearBack(e.dnorm, e.logits, e.norm, head(w), head(grad), false, R)
	clear(e.dx)
	tensor.RMSNormGrad(e.dx, grad.Norm, e.dnorm, e.x, w.Norm, e.inv, R, C)
	for r, i := range t.rows {
		tensor.Add(t.dx[i*C:(i+1)*C], e.dx[r*C:(r+1)*C])
	}
}

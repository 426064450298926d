package train

import (
	"meibench/reference/llm"
	"meibench/reference/tensor"
)

// Batch is some sequences end to end, each with the tokens it should predict.
type Batch struct {
	Tokens  []int32   // (T) over all sequences
	Targets []int32   // (T): the token that follows
	Weights []float32 // (T): of its loss; 0 leaves the place out
	Lens    []int     // tokens of each sequence

	// Exit > 0 also scores the output of the first Exit layers, through the final
	// norm and head, so that a model can answer early: ExitWeight times its loss
	// is added to the gradient, but not to the loss that is returned.
	Exit       int
	ExitWeight float32
}

// Add appends a sequence of ids that begins with a prompt of the given length.
// Tokens of the answer weigh 1, those of the prompt promptWeight.
func (b *Batch) Add(ids []int32, prompt int, promptWeight float32) {
	n := len(ids) - 1
	b.Tokens, b.Targets = append(b.Tokens, ids[:n]...), append(b.Targets, ids[1:]...)
	for i := range n {
		w := promptWeight
		if i+1 >= prompt {
			w = 1
		}
		b.Weights = append(b.Weights, w)
	}
	b.Lens = append(b.Lens, n)
}

// layerTape is what a layer's forward pass leaves for its backward pass.
type layerTape struct {
	x, norm1, inv1  []float32 // (T, C), (T, C), (T): input of the layer
	q, k, v         []float32 // (T, H·D), (T, G·D): q and k rotated
	probs           []float32 // Σ over sequences of (H, t, t)
	att             []float32 // (T, H·D)
	mid, norm2      []float32 // (T, C): after attention
	inv2            []float32 // (T)
	gate, up, inner []float32 // (T, F)

	rawQ, rawK, invQ, invK []float32 // before the norms of queries and keys, where there are such
}

// tape runs one batch forward and backward on one thread, with its own memory.
type tape struct {
	shape  llm.Config
	attn   attention
	pool   *tensor.Pool
	rope   tensor.Rope
	layers []layerTape

	recompute bool      // layers share the memory of the first, but for x
	shared    bool      // they do so now
	again     []float32 // (T, C): output of a layer that is computed again

	out    []float32 // (T, C): after the last layer
	norm   []float32 // (T, C)
	inv    []float32 // (T)
	rows   []int     // places with a loss
	picked []float32 // (R, C): norm at rows
	logits []float32 // (R, V)
	hits   []bool    // (R)
	exit   exitTape

	dx, dnorm, dpicked []float32 // (T, C), (T, C), (R, C)
	dq, dk, dv, datt   []float32
	dprobs             []float32 // (t, t) of the longest sequence
	dgate, dup, dinner []float32 // (T, F)
	sig                []float32 // (T, F)
	draw               []float32 // as dq
}

func newTape(s llm.Config) *tape {
	t := &tape{shape: s, attn: attention{s.Heads, s.KVHeads, s.HeadDim}, pool: tensor.NewPool(1), layers: make([]layerTape, s.Layers)}
	t.rope = tensor.Rope{D: s.HeadDim, Base: s.RopeBase, Style: tensor.RopeNorm}
	if s.Arch != llm.Llama {
		t.rope.Style = tensor.RopeNeox
	}
	t.rope.Reserve(s.Context)
	return t
}

// room resizes x to n, reusing its memory; contents are undefined.
func room(x *[]float32, n int) {
	if cap(*x) < n {
		*x = make([]float32, n+n/4)
	}
	*x = (*x)[:n]
}

func (t *tape) reserve(b *Batch) {
	s, T := t.shape, len(b.Tokens)
	c, q, kv, f := T*s.Dim, T*s.QDim(), T*s.KVDim(), T*s.FFN
	probs, longest := 0, 0
	for _, n := range b.Lens {
		probs, longest = probs+s.Heads*n*n, max(longest, n)
	}
	if t.shared != t.recompute {
		clear(t.layers)
		t.shared = t.recompute
	}
	for i := range t.layers {
		l := &t.layers[i]
		if t.shared && i > 0 {
			x := l.x
			room(&x, c)
			*l = t.layers[0]
			l.x = x
			continue
		}
		for _, v := range []struct {
			x *[]float32
			n int
		}{{&l.x, c}, {&l.norm1, c}, {&l.inv1, T}, {&l.q, q}, {&l.k, kv}, {&l.v, kv}, {&l.probs, probs}, {&l.att, q},
			{&l.mid, c}, {&l.norm2, c}, {&l.inv2, T}, {&l.gate, f}, {&l.up, f}, {&l.inner, f}} {
			room(v.x, v.n)
		}
	}
	t.rows = t.rows[:0]
	for i, w := range b.Weights {
		if w != 0 {
			t.rows = append(t.rows, i)
		}
	}
	R := len(t.rows)
	if t.recompute {
		room(&t.again, c)
	}
	for _, v := range []struct {
		x *[]float32
		n int
	}{{&t.out, c}, {&t.norm, c}, {&t.inv, T}, {&t.picked, R * s.Dim}, {&t.logits, R * s.Vocab},
		{&t.dx, c}, {&t.dnorm, c}, {&t.dpicked, R * s.Dim}, {&t.dq, q}, {&t.dk, kv}, {&t.dv, kv}, {&t.datt, q},
		{&t.dprobs, longest * longest}, {&t.dgate, f}, {&t.dup, f}, {&t.dinner, f}, {&t.sig, f}} {
		room(v.x, v.n)
	}
}

// forward runs the batch and leaves logits at the places with a loss.
func (t *tape) forward(w *llm.Model, b *Batch) {
	t.reserve(b)
	s, T := t.shape, len(b.Tokens)
	first := t.layers[0].x
	for i, id := range b.Tokens {
		copy(first[i*s.Dim:(i+1)*s.Dim], w.Embed.F32[int(id)*s.Dim:])
	}
	for i := range t.layers {
		next := t.out
		if i+1 < len(t.layers) {
			next = t.layers[i+1].x
		}
		t.layerForward(&t.layers[i], &w.Blocks[i], next, b)
	}
	tensor.RMSNorm(t.norm, t.out, w.Norm, t.inv, T, s.Dim, s.Eps)
	for r, i := range t.rows {
		copy(t.picked[r*s.Dim:(r+1)*s.Dim], t.norm[i*s.Dim:])
	}
	t.pool.MatMul(t.logits, t.picked, head(w).F32, len(t.rows), s.Vocab, s.Dim)
	if b.exits(s.Layers) {
		t.exit.forward(t, w, t.layers[b.Exit].x)
	}
}

func (t *tape) layerForward(l *layerTape, w *llm.Block, next []float32, b *Batch) {
	s, T, p := t.shape, len(b.Tokens), t.pool
	C, Q, KV, F := s.Dim, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim, s.FFN
	tensor.RMSNorm(l.norm1, l.x, w.AttnNorm, l.inv1, T, C, s.Eps)
	p.MatMul(l.q, l.norm1, w.Q.F32, T, Q, C)
	p.MatMul(l.k, l.norm1, w.K.F32, T, KV, C)
	p.MatMul(l.v, l.norm1, w.V.F32, T, KV, C)
	l.finish(w, T, s)
	each(b.Lens, s.Heads, func(at, n, probs int) {
		q, k, v := l.q[at*Q:(at+n)*Q], l.k[at*KV:(at+n)*KV], l.v[at*KV:(at+n)*KV]
		t.rope.Apply(q, n, s.Heads, 0)
		t.rope.Apply(k, n, s.KVHeads, 0)
		t.attn.forward(p, l.att[at*Q:(at+n)*Q], l.probs[probs:], q, k, v, n)
	})
	p.MatMul(l.mid, l.att, w.Out.F32, T, C, Q)
	tensor.Add(l.mid, l.x)
	tensor.RMSNorm(l.norm2, l.mid, w.FFNNorm, l.inv2, T, C, s.Eps)
	p.MatMul(l.gate, l.norm2, w.Gate.F32, T, F, C)
	p.MatMul(l.up, l.norm2, w.Up.F32, T, F, C)
	tensor.SwiGLU(l.inner, l.gate, l.up)
	p.MatMul(next, l.inner, w.Down.F32, T, C, F)
	tensor.Add(next, l.mid)
}

// finish adds biases to queries, keys and values, or normalises queries and keys
// head by head, if the architecture does.
func (l *layerTape) finish(w *llm.Block, T int, s llm.Config) {
	if w.QB != nil {
		tensor.AddRow(l.q, w.QB, T)
		tensor.AddRow(l.k, w.KB, T)
		tensor.AddRow(l.v, w.VB, T)
	}
	if w.QNorm != nil {
		room(&l.rawQ, len(l.q))
		room(&l.rawK, len(l.k))
		room(&l.invQ, T*s.Heads)
		room(&l.invK, T*s.KVHeads)
		copy(l.rawQ, l.q)
		copy(l.rawK, l.k)
		tensor.RMSNorm(l.q, l.rawQ, w.QNorm, l.invQ, T*s.Heads, s.HeadDim, s.Eps)
		tensor.RMSNorm(l.k, l.rawK, w.KNorm, l.invK, T*s.KVHeads, s.HeadDim, s.Eps)
	}
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
			RMSNormGrad(t.draw, v.dw, v.dy, v.raw, v.w, v.inv, T*v.heads, s.HeadDim)
			copy(v.dy, t.draw)
		}
	}
	if w.QB != nil {
		SumRows(g.QB, t.dq, T)
		SumRows(g.KB, t.dk, T)
		SumRows(g.VB, t.dv, T)
	}
}

// each visits the sequences: first token, length, first element of its probs.
func each(lens []int, heads int, visit func(at, n, probs int)) {
	at, probs := 0, 0
	for _, n := range lens {
		visit(at, n, probs)
		at, probs = at+n, probs+heads*n*n
	}
}

// loss replaces the logits by their gradient, scaled by scale, and returns the
// weighted sum of losses.
func (t *tape) loss(b *Batch, scale float32) (sum float64) {
	V := t.shape.Vocab
	t.hits = t.hits[:0]
	for r, i := range t.rows {
		l, hit := CrossEntropy(t.logits[r*V:(r+1)*V], b.Targets[i], b.Weights[i]*scale)
		sum += l
		t.hits = append(t.hits, hit)
	}
	if b.exits(t.shape.Layers) {
		t.exit.loss(t, b, scale)
	}
	return sum
}

// backward adds the gradient of the loss to grad.
func (t *tape) backward(grad, w *llm.Model, b *Batch) {
	s, T := t.shape, len(b.Tokens)
	R := len(t.rows)
	t.pool.MatMulGradW(head(grad).F32, t.logits, t.picked, R, s.Vocab, s.Dim)
	t.pool.MatMulGradX(t.dpicked, t.logits, head(w).F32, R, s.Vocab, s.Dim, false)
	clear(t.dnorm)
	for r, i := range t.rows {
		copy(t.dnorm[i*s.Dim:(i+1)*s.Dim], t.dpicked[r*s.Dim:])
	}
	clear(t.dx)
	RMSNormGrad(t.dx, grad.Norm, t.dnorm, t.out, w.Norm, t.inv, T, s.Dim)
	for i := len(t.layers) - 1; i >= 0; i-- {
		if i+1 == b.Exit && b.exits(s.Layers) {
			t.exit.backward(t, grad, w)
		}
		if t.recompute && i+1 < len(t.layers) {
			t.layerForward(&t.layers[i], &w.Blocks[i], t.again, b)
		}
		t.layerBackward(&t.layers[i], &grad.Blocks[i], &w.Blocks[i], b)
	}
	for i, id := range b.Tokens {
		tensor.Add(grad.Embed.F32[int(id)*s.Dim:int(id+1)*s.Dim], t.dx[i*s.Dim:(i+1)*s.Dim])
	}
}

// layerBackward turns dx of the layer's output into dx of its input.
func (t *tape) layerBackward(l *layerTape, g, w *llm.Block, b *Batch) {
	s, T, p := t.shape, len(b.Tokens), t.pool
	C, Q, KV, F := s.Dim, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim, s.FFN
	p.MatMulGradW(g.Down.F32, t.dx, l.inner, T, C, F)
	p.MatMulGradX(t.dinner, t.dx, w.Down.F32, T, C, F, false)
	SwiGLUGrad(t.dgate, t.dup, t.dinner, l.gate, l.up, t.sig)
	p.MatMulGradW(g.Gate.F32, t.dgate, l.norm2, T, F, C)
	p.MatMulGradW(g.Up.F32, t.dup, l.norm2, T, F, C)
	p.MatMulGradX(t.dnorm, t.dgate, w.Gate.F32, T, F, C, false)
	p.MatMulGradX(t.dnorm, t.dup, w.Up.F32, T, F, C, true)
	RMSNormGrad(t.dx, g.FFNNorm, t.dnorm, l.mid, w.FFNNorm, l.inv2, T, C)

	p.MatMulGradW(g.Out.F32, t.dx, l.att, T, C, Q)
	p.MatMulGradX(t.datt, t.dx, w.Out.F32, T, C, Q, false)
	clear(t.dk)
	clear(t.dv)
	each(b.Lens, s.Heads, func(at, n, probs int) {
		dq, dk, dv := t.dq[at*Q:(at+n)*Q], t.dk[at*KV:(at+n)*KV], t.dv[at*KV:(at+n)*KV]
		t.attn.backward(p, dq, dk, dv, t.datt[at*Q:(at+n)*Q], t.dprobs[:n*n], l.probs[probs:],
			l.q[at*Q:(at+n)*Q], l.k[at*KV:(at+n)*KV], l.v[at*KV:(at+n)*KV], n)
		t.rope.Unapply(dq, n, s.Heads, 0)
		t.rope.Unapply(dk, n, s.KVHeads, 0)
	})
	t.unfinish(l, g, w, T)
	p.MatMulGradW(g.Q.F32, t.dq, l.norm1, T, Q, C)
	p.MatMulGradW(g.K.F32, t.dk, l.norm1, T, KV, C)
	p.MatMulGradW(g.V.F32, t.dv, l.norm1, T, KV, C)
	p.MatMulGradX(t.dnorm, t.dq, w.Q.F32, T, Q, C, false)
	p.MatMulGradX(t.dnorm, t.dk, w.K.F32, T, KV, C, true)
	p.MatMulGradX(t.dnorm, t.dv, w.V.F32, T, KV, C, true)
	RMSNormGrad(t.dx, g.AttnNorm, t.dnorm, l.x, w.AttnNorm, l.inv1, T, C)
}

// activationBytes counts memory that layers share once.
func (t *tape) activationBytes() (n int) {
	for i := range t.layers {
		l := &t.layers[i]
		n += cap(l.x)
		if t.recompute && i > 0 {
			continue
		}
		for _, x := range [][]float32{l.norm1, l.inv1, l.q, l.k, l.v, l.probs, l.att, l.mid, l.norm2, l.inv2, l.gate, l.up, l.inner} {
			n += cap(x)
		}
	}
	return 4 * (n + cap(t.again))
}

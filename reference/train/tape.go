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
	probs           []float32 // Σ over sequences of (H, t, n + t) behind a prefix of n
	att             []float32 // (T, H·D)
	mid, norm2      []float32 // (T, C): after attention
	inv2            []float32 // (T)
	gate, up, inner []float32 // (T, F)

	rawQ, rawK, invQ, invK []float32        // before the norms of queries and keys, where there are such
	low                    [sites][]float32 // (T, rank): see lowRank.add
	bottle                 [2]bottleTape
}

// keeping is how much of a forward pass stays.
type keeping int

const (
	keepAll    keeping = iota // what the backward pass needs
	keepInputs                // the input of each layer: the rest is computed again
	keepNone                  // nothing: there is no backward pass
)

// tape runs batches forward and backward through layers [lo, hi), and the head if it has it, one at a time, on one thread, with its own memory.
type tape struct {
	shape  llm.Config
	lo, hi int
	head   bool // norm and head follow
	attn   attention
	pool   *tensor.Pool
	rope   tensor.Rope
	layers []layerTape // of the span

	keep  keeping
	laid  keeping   // how layers share memory now
	again []float32 // (T, C): output of a layer that is computed again

	b      *Batch // as it is run: behind a prompt it is longer than what was given
	long   Batch
	out    []float32 // (T, C): after the last layer of the span
	norm   []float32 // (T, C)
	inv    []float32 // (T)
	rows   []int     // places with a loss
	picked []float32 // (R, C): norm at rows
	logits []float32 // (R, V)
	mid    []float32 // see lowRank.add, of the head
	hits   []bool    // (R)
	exit   exitTape

	cut  []Batch   // see parts
	ids  []int32   // of the parts that are done
	dids []float32 // gradients of their embeddings

	dx, dnorm, dpicked []float32 // (T, C), (T, C), (R, C)
	dsub               []float32 // (T, C): of a half layer's output, before a bottleneck
	dq, dk, dv, datt   []float32
	dprobs             []float32 // (t, n + t) of the longest sequence
	dgate, dup, dinner []float32 // (T, F)
	draw               []float32 // as dq
	keys, values       []float32 // (n + t, G·D): behind a prefix
	dkeys, dvalues     []float32
	small              []float32 // scratch of low ranks and bottlenecks
	plain              []float32 // (N, K): a quantised matrix, decoded
}

func newTape(s llm.Config, lo, hi int, head bool) *tape {
	t := &tape{shape: s, lo: lo, hi: hi, head: head, attn: attention{s.Heads, s.KVHeads, s.HeadDim}, pool: tensor.NewPool(1), layers: make([]layerTape, hi-lo)}
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

// behindPrompt puts the places of a prompt of n tokens before every sequence: their ids are -1, -2, ...
func (t *tape) behindPrompt(b *Batch, n int) *Batch {
	if n == 0 {
		return b
	}
	l := &t.long
	*l = Batch{Tokens: l.Tokens[:0], Targets: l.Targets[:0], Weights: l.Weights[:0], Lens: l.Lens[:0]}
	at := 0
	for _, length := range b.Lens {
		for i := range n {
			l.Tokens, l.Targets, l.Weights = append(l.Tokens, int32(-1-i)), append(l.Targets, 0), append(l.Weights, 0)
		}
		l.Tokens = append(l.Tokens, b.Tokens[at:at+length]...)
		l.Targets = append(l.Targets, b.Targets[at:at+length]...)
		l.Weights = append(l.Weights, b.Weights[at:at+length]...)
		l.Lens = append(l.Lens, length+n)
		at += length
	}
	return l
}

func (t *tape) reserve(p *Params, b *Batch) {
	s, T := t.shape, len(b.Tokens)
	c, q, kv, f := T*s.Dim, T*s.QDim(), T*s.KVDim(), T*s.FFN
	probs, longest := 0, 0
	n := p.prefix()
	for _, t := range b.Lens {
		probs, longest = probs+s.Heads*t*(n+t), max(longest, t)
	}
	if t.laid != t.keep {
		clear(t.layers)
		t.laid = t.keep
	}
	for i := range t.layers {
		t.reserveLayer(i, T, probs)
	}
	if t.keep != keepAll {
		room(&t.again, c)
	}
	t.rows = t.rows[:0]
	for i, w := range b.Weights {
		if w != 0 && t.head {
			t.rows = append(t.rows, i)
		}
	}
	R := len(t.rows)
	room(&t.out, c)
	if t.head {
		room(&t.norm, c)
		room(&t.inv, T)
		room(&t.picked, R*s.Dim)
		room(&t.logits, R*s.Vocab)
	}
	if t.keep == keepNone {
		return
	}
	for _, v := range []struct {
		x *[]float32
		n int
	}{{&t.dx, c}, {&t.dnorm, c}, {&t.dpicked, R * s.Dim}, {&t.dq, q}, {&t.dk, kv}, {&t.dv, kv}, {&t.datt, q},
		{&t.dprobs, longest * (n + longest)}, {&t.dgate, f}, {&t.dup, f}, {&t.dinner, f}} {
		room(v.x, v.n)
	}
}

// reserveLayer gives a layer memory of its own, or that of the first but for its input.
func (t *tape) reserveLayer(i, T, probs int) {
	s, l := t.shape, &t.layers[i]
	c, q, kv, f := T*s.Dim, T*s.QDim(), T*s.KVDim(), T*s.FFN
	switch {
	case i == 0 || t.keep == keepAll:
		for _, v := range []struct {
			x *[]float32
			n int
		}{{&l.x, c}, {&l.norm1, c}, {&l.inv1, T}, {&l.q, q}, {&l.k, kv}, {&l.v, kv}, {&l.probs, probs}, {&l.att, q},
			{&l.mid, c}, {&l.norm2, c}, {&l.inv2, T}, {&l.gate, f}, {&l.up, f}, {&l.inner, f}} {
			room(v.x, v.n)
		}
	case t.keep == keepInputs:
		x := l.x
		room(&x, c)
		*l = t.layers[0]
		l.x = x
	}
}

// forward runs the batch, of which in (T, C) are the hidden states at a span above the embedding, and leaves hidden
// states in out, or logits at the places with a loss.
func (t *tape) forward(p *Params, b *Batch, in []float32) {
	w := p.Model
	b = t.behindPrompt(b, p.promptLen())
	t.b = b
	t.reserve(p, b)
	s, T := t.shape, len(b.Tokens)
	x := t.out
	if len(t.layers) > 0 {
		x = t.layers[0].x
	}
	if t.lo == 0 {
		t.embed(p, x)
	} else {
		copy(x, in)
	}
	for i := range t.layers {
		l, next := &t.layers[i], t.out
		switch {
		case t.keep == keepNone: // layers share all memory: one's output is the next one's input
			l, next = &t.layers[0], t.again
			l.x = x
			if i+1 == len(t.layers) {
				next = t.out
			}
		case i+1 < len(t.layers):
			next = t.layers[i+1].x
		}
		t.layerForward(l, p, t.lo+i, next)
		if t.keep == keepNone && b.Exit == t.lo+i+1 && b.exits(s.Layers) && t.head && t.lo == 0 {
			t.exit.forward(t, w, next)
		}
		if t.keep == keepNone && i+1 < len(t.layers) {
			x, t.again = next, x
		}
	}
	if !t.head {
		return
	}
	tensor.RMSNorm(t.norm, t.out, w.Norm, t.inv, T, s.Dim, s.Eps)
	for r, i := range t.rows {
		copy(t.picked[r*s.Dim:(r+1)*s.Dim], t.norm[i*s.Dim:])
	}
	t.linear(t.logits, t.picked, head(w), p.lowHead(), &t.mid, len(t.rows))
	if b.exits(s.Layers) && t.lo == 0 && t.keep != keepNone {
		t.exit.forward(t, w, t.layers[b.Exit].x)
	}
}

// embed looks tokens up; those of a prompt have numbers below zero.
func (t *tape) embed(p *Params, x []float32) {
	C := t.shape.Dim
	for i, id := range t.b.Tokens {
		if id < 0 {
			copy(x[i*C:(i+1)*C], p.extra.prompt[int(-1-id)*C:])
			continue
		}
		readRow(x[i*C:(i+1)*C], &p.Model.Embed, int(id))
	}
}

// linear is out = x·Wᵀ, and the low-rank change if there is one.
func (t *tape) linear(out, x []float32, m *llm.Matrix, low *lowRank, mid *[]float32, T int) {
	if m.F32 != nil {
		t.pool.MatMul(out, x, m.F32, T, m.N, m.K)
	} else {
		t.pool.MatMulRows(out, x, m, T, m.N, m.K)
	}
	if low != nil {
		low.add(t.pool, out, x, mid, T)
	}
}

// linearBack adds gradients of a product to g and glow where they are wanted, and writes that of its input to dx, or adds
// it if acc; a dx of nil is not wanted.
func (t *tape) linearBack(dx, dy, x []float32, w, g *llm.Matrix, acc bool, T int) {
	if g.F32 != nil {
		t.pool.MatMulGradW(g.F32, dy, x, T, w.N, w.K)
	}
	if dx != nil {
		t.pool.MatMulGradX(dx, dy, t.floats(w), T, w.N, w.K, acc)
	}
}

// floats is a matrix in float32; a decoded one is valid until the next.
func (t *tape) floats(m *llm.Matrix) []float32 {
	if m.F32 != nil {
		return m.F32
	}
	room(&t.plain, m.N*m.K)
	for n := range m.N {
		m.ReadRow(t.plain[n*m.K:(n+1)*m.K], n, 0)
	}
	return t.plain
}

// layerForward runs layer i, of which l is the memory.
func (t *tape) layerForward(l *layerTape, p *Params, i int, next []float32) {
	s, T, w, e := t.shape, len(t.b.Tokens), &p.Model.Blocks[i], p.at(i)
	C := s.Dim
	tensor.RMSNorm(l.norm1, l.x, w.AttnNorm, l.inv1, T, C, s.Eps)
	t.linear(l.q, l.norm1, &w.Q, e.low[siteQ], &l.low[siteQ], T)
	t.linear(l.k, l.norm1, &w.K, e.low[siteK], &l.low[siteK], T)
	t.linear(l.v, l.norm1, &w.V, e.low[siteV], &l.low[siteV], T)
	l.finish(w, T, s)
	t.attend(l, e)
	t.linear(l.mid, l.att, &w.Out, e.low[siteOut], &l.low[siteOut], T)
	if b := e.bottle[0]; b != nil {
		b.forward(t.pool, &l.bottle[0], l.mid, T)
	}
	tensor.Add(l.mid, l.x)
	tensor.RMSNorm(l.norm2, l.mid, w.FFNNorm, l.inv2, T, C, s.Eps)
	t.linear(l.gate, l.norm2, &w.Gate, e.low[siteGate], &l.low[siteGate], T)
	t.linear(l.up, l.norm2, &w.Up, e.low[siteUp], &l.low[siteUp], T)
	tensor.SwiGLU(l.inner, l.gate, l.up)
	t.linear(next, l.inner, &w.Down, e.low[siteDown], &l.low[siteDown], T)
	if b := e.bottle[1]; b != nil {
		b.forward(t.pool, &l.bottle[1], next, T)
	}
	tensor.Add(next, l.mid)
}

// attend rotates queries and keys and writes what each token attends to: itself, what is before it, and the prefix.
func (t *tape) attend(l *layerTape, e *layerExtra) {
	s, p := t.shape, t.pool
	Q, KV := s.QDim(), s.KVDim()
	n := len(e.prefixK) / max(1, KV)
	each(t.b.Lens, s.Heads, n, func(at, T, probs int) {
		q, k, v := l.q[at*Q:(at+T)*Q], l.k[at*KV:(at+T)*KV], l.v[at*KV:(at+T)*KV]
		t.rope.Apply(q, T, s.Heads, 0)
		t.rope.Apply(k, T, s.KVHeads, 0)
		if n > 0 {
			k, v = behind(&t.keys, e.prefixK, k), behind(&t.values, e.prefixV, v)
		}
		t.attn.forward(p, l.att[at*Q:(at+T)*Q], l.probs[probs:], q, k, v, T)
	})
}

// behind writes two slices one behind the other.
func behind(to *[]float32, a, b []float32) []float32 {
	room(to, len(a)+len(b))
	copy((*to)[copy(*to, a):], b)
	return *to
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

// each visits the sequences: first token, length, first element of its probs behind a prefix of n.
func each(lens []int, heads, n int, visit func(at, T, probs int)) {
	at, probs := 0, 0
	for _, T := range lens {
		visit(at, T, probs)
		at, probs = at+T, probs+heads*T*(n+T)
	}
}

// loss replaces the logits by their gradient, scaled by scale, and adds the
// weighted losses to sum.
func (t *tape) loss(sum float64, scale float32) float64 {
	V, b := t.shape.Vocab, t.b
	t.hits = t.hits[:0]
	for r, i := range t.rows {
		l, hit := CrossEntropy(t.logits[r*V:(r+1)*V], b.Targets[i], b.Weights[i]*scale)
		sum += l
		t.hits = append(t.hits, hit)
	}
	if b.exits(t.shape.Layers) && t.lo == 0 && t.head {
		t.exit.loss(t, b, scale)
	}
	return sum
}

// backward adds the gradient of the loss to grad, or, of a span below the head, that of its output dout, but for those of
// embeddings: see embedBack. It leaves the gradient of the span's input in dx if input is set, or the span begins with them.
func (t *tape) backward(grad, p *Params, dout []float32, input bool) {
	s, T, b := t.shape, len(t.b.Tokens), t.b
	g, w := grad.Model, p.Model
	stop := p.Lowest() // below it nobody needs a gradient
	if input {
		stop = -1
	}
	if t.head {
		R := len(t.rows)
		t.linearBack(t.dpicked, t.logits, t.picked, head(w), head(g), false, R)
		if low := p.lowHead(); low != nil {
			low.back(t.pool, grad.lowHead(), t.dpicked, t.logits, t.picked, t.mid, &t.small, R)
		}
		clear(t.dnorm)
		for r, i := range t.rows {
			copy(t.dnorm[i*s.Dim:(i+1)*s.Dim], t.dpicked[r*s.Dim:])
		}
		clear(t.dx)
		tensor.RMSNormGrad(t.dx, g.Norm, t.dnorm, t.out, w.Norm, t.inv, T, s.Dim)
	} else {
		copy(t.dx, dout)
	}
	for i := len(t.layers) - 1; i >= 0; i-- {
		layer := t.lo + i
		if layer < stop {
			return
		}
		if layer+1 == b.Exit && b.exits(s.Layers) && t.lo == 0 && t.head {
			t.exit.backward(t, g, w)
		}
		if t.keep == keepInputs && i+1 < len(t.layers) {
			t.layerForward(&t.layers[i], p, layer, t.again)
		}
		t.layerBackward(&t.layers[i], grad, p, layer, layer > stop)
	}
}

// embedBack adds the gradients of embeddings and of a prompt, where they are trained, from those of the first layer's input.
func (t *tape) embedBack(grad *Params, ids []int32, dx []float32) {
	C := t.shape.Dim
	embed := grad.Model.Embed.F32
	for i, id := range ids {
		switch d := dx[i*C : (i+1)*C]; {
		case id < 0:
			at := int(-1 - id)
			tensor.Add(grad.extra.prompt[at*C:(at+1)*C], d)
		case embed != nil:
			tensor.Add(embed[int(id)*C:int(id+1)*C], d)
		}
	}
}

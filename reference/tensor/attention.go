package tensor

import (
	"math"

	"meibench/reference/quant"
)

// AttnSeq is one sequence of a call of [Pool.Attention].
type AttnSeq struct {
	Out, Q  []float32 // (T, H, D): new tokens
	KV      *KV       // positions 0..Past+T-1 are in place
	T, Past int

	// What some models add; the zero values are plain attention.
	Window  int     // a token sees this many positions at most, itself included; 0 is all
	Scale   float32 // multiplies the scores; 0 is 1/√D
	Softcap float32 // scores become Softcap·tanh(score/Softcap); 0 is no cap

	// A tree of new tokens, or nil for a chain. Parents[t] < t is the new token that t follows, -1 if that is the last of
	// the past; Depth[t] counts the new tokens before t on its path. Token t lies in the cache at Past+t, stands at
	// position Past+Depth[t] and attends to the past and to its path only, with the bits of that path as a chain.
	Parents, Depth []int32

	Split *AttnSplit // filled in, or nil: not wanted
}

// AttnSplit is what it takes to merge attention over these positions with attention over others.
type AttnSplit struct {
	Top []float32 // (T, H): largest score of each token and head
	Sum []float64 // (T, H): Σ e^(score - largest)
}

// seen is the number of positions that new token t attends to if there is no window, itself included.
func (s *AttnSeq) seen(t int) int {
	if s.Parents != nil {
		return s.Past + int(s.Depth[t]) + 1
	}
	return s.Past + t + 1
}

// scale is the factor of the scores for heads of D channels.
func (s *AttnSeq) scale(D int) float32 {
	if s.Scale != 0 {
		return s.Scale
	}
	return float32(1 / math.Sqrt(float64(D)))
}

// first is the first of seen positions that the last of them attends to.
func (s *AttnSeq) first(seen int) int {
	if s.Window > 0 {
		return max(0, seen-s.Window)
	}
	return 0
}

const (
	attnRows  = 48  // queries that are computed together: a tile several times over, few wasted above the diagonal
	attnBlock = 128 // positions of a step: scores, keys and values stay in the first cache
)

// Attention is causal attention with grouped heads: new token t of a sequence attends to positions 0..Past+t, or to the
// last Window of them.
//
//	out[t, h] = Σ_p softmax_p(cap(scale·q[t, h]·k[p, g]))·v[p, g],  g = h·G/H
//
// heads H, a multiple of the cache's G. Memory does not grow with positions: blocks of 128, counted from position 0, are
// summed with the softmax of what was seen so far (online softmax, Milakov & Gimelshein 2018; Dao et al. 2022). A
// token's bits depend neither on the other tokens of the call nor on threads. Within 1e-5 of the oracle for
// unit-variance inputs in F32. Source: Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 (grouped heads); Beltagy et al.
// 2020 (window); Gemma Team 2024, section 2 (cap).
func (p *Pool) Attention(seqs []AttnSeq, heads int) {
	work := 0
	for i := range seqs {
		s := &seqs[i]
		if heads%s.KV.G != 0 || s.Past+s.T > s.KV.Capacity || len(s.Q) < s.T*heads*s.KV.D || len(s.Out) < s.T*heads*s.KV.D {
			panic("tensor: attention with shapes that disagree")
		}
		work += s.T * (s.Past + s.T) * heads * s.KV.D
	}
	p.attn = attentionJob{p: p, seqs: seqs, H: heads}
	if work < 1<<15 { // too little to pay for waking workers
		p.attn.Part(0, 1)
	} else {
		p.Do(&p.attn)
	}
	p.attn.seqs = nil
}

// attnScratch is what one worker needs.
type attnScratch struct {
	q, out       []float32 // (rows, D), (rows, D rounded up to a tile)
	scores       []float32 // (rows, attnBlock)
	keys, values []float32 // decoded positions of a Q8_0 cache, or those of a path
	top          [attnRows]float32
	sum          [attnRows]float64
}

func (a *attnScratch) reserve(kv *KV, tree bool) {
	wide := (kv.D + kvPanel - 1) / kvPanel * kvPanel
	if len(a.q) < attnRows*kv.D {
		a.q, a.out, a.scores = make([]float32, attnRows*kv.D), make([]float32, attnRows*wide), make([]float32, attnRows*attnBlock)
	}
	if (tree || kv.Type == quant.Q8_0) && (len(a.keys) < attnBlock*kv.D || len(a.values) < attnBlock*kv.padded+kvPanel) {
		a.keys, a.values = make([]float32, attnBlock*kv.D), make([]float32, attnBlock*kv.padded+kvPanel)
	}
}

// attentionJob deals out units (sequence, block of tokens, key/value head) round robin, because later blocks cost more.
type attentionJob struct {
	p    *Pool
	seqs []AttnSeq
	H    int
}

// Part computes one worker's units.
func (j *attentionJob) Part(worker, workers int) {
	unit := 0
	for i := range j.seqs {
		s := &j.seqs[i]
		shared := j.H / s.KV.G // heads that share keys and values
		tokens := max(1, attnRows/shared)
		for t := 0; t < s.T; t += tokens {
			for g := range s.KV.G {
				if unit%workers == worker {
					for h := 0; h < shared; h += attnRows { // more than 48 only in models that nobody has made
						u := attnUnit{j: j, s: s, kern: &j.p.kern, sc: &j.p.scratch[worker].attn, g: g}
						u.head, u.heads = g*shared+h, min(attnRows, shared-h)
						u.run(t, min(t+tokens, s.T))
					}
				}
				unit++
			}
		}
	}
}

// attnUnit is some heads of some tokens: row r is token t0+r/heads, head head+r%heads.
type attnUnit struct {
	j           *attentionJob
	s           *AttnSeq
	kern        *kernel
	sc          *attnScratch
	g           int // key/value head
	head, heads int
	t0, rows    int
	wide        int // row length of sc.out
}

func (u *attnUnit) run(t0, t1 int) {
	s, kv, sc := u.s, u.s.KV, u.sc
	sc.reserve(kv, s.Parents != nil)
	u.t0, u.rows, u.wide = t0, (t1-t0)*u.heads, (kv.D+kvPanel-1)/kvPanel*kvPanel
	scale := s.scale(kv.D)
	for r := range u.rows {
		q := s.Q[u.place(r):]
		for d, v := range q[:kv.D] {
			sc.q[r*kv.D+d] = v * scale
		}
		sc.top[r], sc.sum[r] = float32(math.Inf(-1)), 0
	}
	clear(sc.out[:u.rows*u.wide])
	first, last := s.first(s.seen(t0))/attnBlock*attnBlock, s.Past+t1
	if s.Parents != nil {
		first, last = s.first(s.Past+1)/attnBlock*attnBlock, s.Past/attnBlock*attnBlock
	}
	for b := first; b < last; b += attnBlock {
		n := min(attnBlock, last-b)
		keys, values := u.block(b, n)
		u.step(keys, values, [2]int{b, n}, [2]int{0, u.rows})
	}
	if s.Parents != nil {
		u.branches(last, t0, t1)
	}
	for r := range u.rows {
		if s.Split != nil {
			at := u.place(r) / kv.D
			s.Split.Top[at], s.Split.Sum[at] = sc.top[r], sc.sum[r]
		}
		inv := float32(1 / sc.sum[r])
		out := s.Out[u.place(r):]
		for d, v := range sc.out[r*u.wide : r*u.wide+kv.D] {
			out[d] = v * inv
		}
	}
}

// step takes rows [rows[0], rows[1]) over at[1] positions from position at[0] on.
func (u *attnUnit) step(keys, values view, at, rows [2]int) {
	u.scores(keys, at[1], rows)
	for r := rows[0]; r < rows[1]; r++ {
		u.soften(r, at[0], at[1])
	}
	u.gather(values, at[1], rows)
}

// branches takes the nodes [t0, t1) of a tree over the positions from b on, which is the start of a block: behind the
// last that is common to all of them whole. A node's path is laid out as the chain that it is.
func (u *attnUnit) branches(b, t0, t1 int) {
	s, kv, sc := u.s, u.s.KV, u.sc
	for more := true; more; b += attnBlock {
		more = false
		kv.lay(u.g, b, min(max(s.Past-b, 0), attnBlock), sc.keys, sc.values)
		for t := t0; t < t1; t++ {
			n := min(attnBlock, s.seen(t)-b)
			if n <= 0 {
				continue
			}
			more = more || s.seen(t) > b+attnBlock
			for a := t; a >= 0 && s.seen(a) > b; a = int(s.Parents[a]) {
				if p := s.seen(a) - 1 - b; p < n {
					kv.layOne(u.g, s.Past+a, p, sc.keys, sc.values)
				}
			}
			u.step(view{f32: sc.keys}, view{f32: sc.values}, [2]int{b, n}, [2]int{(t - t0) * u.heads, (t - t0 + 1) * u.heads})
		}
	}
}

// lay copies n positions from b on, the start of a panel, into keys and values laid out as those of a block, in float32.
func (kv *KV) lay(g, b, n int, keys, values []float32) {
	switch kv.Type {
	case quant.F32:
		copy(keys, kv.k32[kv.keyAt(g, b):][:(n+kvPanel-1)/kvPanel*kvPanel*kv.D])
		copy(values, kv.v32[kv.valueAt(g, b):][:n*kv.padded])
	case quant.F16:
		for p := range n {
			kv.layOne(g, b+p, p, keys, values)
		}
	default:
		kv.widen(g, b, n, keys, values)
	}
}

// layOne copies position from to place p of such a block.
func (kv *KV) layOne(g, from, p int, keys, values []float32) {
	key, value := keys[p/kvPanel*kv.D*kvPanel+p%kvPanel:], values[p*kv.padded:][:kv.D]
	if kv.Type == quant.F32 {
		at := kv.keyAt(g, from)
		for d := range kv.D {
			key[d*kvPanel] = kv.k32[at+d*kvPanel]
		}
		copy(value, kv.v32[kv.valueAt(g, from):])
		return
	}
	for d := range kv.D {
		key[d*kvPanel], value[d] = kv.key(g, from, d), kv.value(g, from, d)
	}
}

// place is where row r starts in Q and Out.
func (u *attnUnit) place(r int) int {
	return ((u.t0+r/u.heads)*u.j.H + u.head + r%u.heads) * u.s.KV.D
}

// view is part of a cache, in one of two types.
type view struct {
	f32 []float32
	f16 []uint16
}

// block views n keys and values from position b on, which is the start of a panel.
func (u *attnUnit) block(b, n int) (keys, values view) {
	kv := u.s.KV
	key, value := kv.keyAt(u.g, b), kv.valueAt(u.g, b)
	switch kv.Type {
	case quant.F32:
		return view{f32: kv.k32[key:]}, view{f32: kv.v32[value:]}
	case quant.F16:
		return view{f16: kv.k16[key:]}, view{f16: kv.v16[value:]}
	}
	kv.widen(u.g, b, n, u.sc.keys, u.sc.values)
	return view{f32: u.sc.keys}, view{f32: u.sc.values}
}

// widen decodes n positions of a Q8_0 cache, in the layout of the others.
func (kv *KV) widen(g, b, n int, keys, values []float32) {
	for p := 0; p < n; p += kvPanel {
		at, scales := kv.keyAt(g, b+p), kv.keyScales[kv.keyScaleAt(g, b+p):]
		for d := range kv.D {
			s := scales[d/32*kvPanel:][:kvPanel]
			q, out := kv.k8[at+d*kvPanel:][:kvPanel], keys[(p/kvPanel*kv.D+d)*kvPanel:][:kvPanel]
			for i, v := range q {
				out[i] = float32(v) * s[i]
			}
		}
	}
	for p := range n {
		at, scales := kv.valueAt(g, b+p), kv.valueScales[(g*kv.Capacity+b+p)*kv.groups:]
		for d, v := range kv.v8[at : at+kv.D] {
			values[p*kv.padded+d] = float32(v) * scales[d/32]
		}
	}
}

// scores fills sc.scores with q·k for n positions; what lies beyond is not used.
func (u *attnUnit) scores(keys view, n int, rows [2]int) {
	D := u.s.KV.D
	for p := 0; p < n; p += kvPanel {
		for c := 0; c < kvPanel; c += u.kern.nr {
			u.product(tileArgs{rows: rows, a: u.sc.q, aRow: D, b: keys, at: p*D + c, bRow: kvPanel, k: D, c: u.sc.scores[p+c:], cRow: attnBlock})
		}
	}
}

// gather adds the weighted values of n positions to sc.out.
func (u *attnUnit) gather(values view, n int, rows [2]int) {
	kv := u.s.KV
	for c := 0; c < u.wide && c < kv.padded; c += u.kern.nr {
		u.product(tileArgs{rows: rows, a: u.sc.scores, aRow: attnBlock, b: values, at: c, bRow: kv.padded, k: n, c: u.sc.out[c:], cRow: u.wide, acc: true})
	}
}

// tileArgs are the arguments of a column of tiles.
type tileArgs struct {
	rows    [2]int // of a and c
	a       []float32
	aRow    int
	b       view
	at      int // first element of b
	bRow, k int
	c       []float32
	cRow    int
	acc     bool
}

// product runs tiles over its rows.
func (u *attnUnit) product(t tileArgs) {
	h := 0
	for r := t.rows[0]; r < t.rows[1]; {
		for u.kern.mrs[h] > t.rows[1]-r {
			h++
		}
		mr := u.kern.mrs[h]
		if t.b.f16 != nil {
			u.kern.tile16(mr, t.a[r*t.aRow:], t.aRow, 1, t.b.f16[t.at:], t.bRow, t.k, t.c[r*t.cRow:], t.cRow, t.acc)
		} else {
			u.kern.tile(mr, t.a[r*t.aRow:], t.aRow, 1, t.b.f32[t.at:], t.bRow, t.k, t.c[r*t.cRow:], t.cRow, t.acc)
		}
		r += mr
	}
}

// soften turns row r's scores of positions [b, b+n) into weights relative to the largest score so far, and rescales
// what was summed before if that has grown.
func (u *attnUnit) soften(r, b, n int) {
	s, sc := u.s, u.sc
	seen := s.seen(u.t0 + r/u.heads)
	lo, hi := max(0, s.first(seen)-b), min(n, seen-b)
	w := sc.scores[r*attnBlock : r*attnBlock+n]
	if hi <= lo {
		clear(w)
		return
	}
	clear(w[:lo])
	clear(w[hi:]) // zeros add nothing to a chain
	w = w[lo:hi]
	if s.Softcap > 0 {
		Softcap(w, s.Softcap)
	}
	if top := largest(u.kern.vector, w); top > sc.top[r] {
		if sc.sum[r] > 0 {
			shrink := exp32(sc.top[r] - top)
			sc.sum[r] *= float64(shrink)
			out := sc.out[r*u.wide : (r+1)*u.wide]
			for d := range out {
				out[d] *= shrink
			}
		}
		sc.top[r] = top
	}
	sc.sum[r] += expSum(u.kern.vector, w, w, sc.top[r])
}

// attentionV0 is the oracle for one sequence, in float64. k, v: (Past+T, G, D)
func attentionV0(s AttnSeq, H int, k, v []float32) []float64 {
	G, D := s.KV.G, s.KV.D
	out := make([]float64, s.T*H*D)
	for t := range s.T {
		for h := range H {
			g := h / (H / G)
			w, sum := make([]float64, s.Past+t+1), 0.0
			for p := range w {
				if s.Window > 0 && p <= s.Past+t-s.Window {
					continue
				}
				dot := 0.0
				for d := range D {
					dot += float64(s.Q[(t*H+h)*D+d]) * float64(k[(p*G+g)*D+d])
				}
				scale := 1 / math.Sqrt(float64(D))
				if s.Scale != 0 {
					scale = float64(s.Scale)
				}
				dot *= scale
				if c := float64(s.Softcap); c > 0 {
					dot = c * math.Tanh(dot/c)
				}
				w[p] = math.Exp(dot)
				sum += w[p]
			}
			for p, e := range w {
				for d := range D {
					out[(t*H+h)*D+d] += e / sum * float64(v[(p*G+g)*D+d])
				}
			}
		}
	}
	return out
}

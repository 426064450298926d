package evict

import (
	"fmt"
	"slices"

	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// Cache is a [llm.Store] that forgets by a policy. Layers [lo, hi) of one model, one sequence.
type Cache struct {
	Policy Policy
	Type   quant.Type // F32 or F16
	Lo, Hi int

	config llm.Config
	seen   int
	prompt int        // tokens of the prompt that is under way or was the last, 0 for none
	end    int        // position behind it
	layers [][]*head  // (hi-lo, G)
	work   attendWork // of the layer under way
	most   int        // tokens held by one head, at most so far
	peak   units.Bytes
}

// head is what one key/value head of one layer holds.
type head struct {
	kv     *tensor.KV // one head; keys rotated for where they stand
	pos    []int      // position in the text, ascending
	raw    []float32  // (n, D) keys before rotation, if positions are relative
	scores []float64  // attention so far, if heavy tokens count
	asked  []float32  // (Observe, H/G, D) rotated queries of the observing tokens so far
	kept   int        // places that are never given up: sinks, or what stayed of the prompt
}

// NewCache makes an empty cache for layers [lo, hi) of a model.
func NewCache(c llm.Config, p Policy, t quant.Type, lo, hi int) (*Cache, error) {
	c = c.WithDefaults()
	if err := p.Check(); err != nil {
		return nil, err
	}
	switch {
	case t != quant.F32 && t != quant.F16:
		return nil, fmt.Errorf("make evicting cache of %v: want F32 or F16", t)
	case lo < 0 || hi < lo || hi > c.Layers:
		return nil, fmt.Errorf("make evicting cache: layers [%d, %d), want a span inside [0, %d)", lo, hi, c.Layers)
	case c.Window > 0:
		return nil, fmt.Errorf("make evicting cache: the model has a window of %d positions of its own, so %q would not be what it says", c.Window, p.Name)
	}
	e := &Cache{Policy: p, Type: t, Lo: lo, Hi: hi, config: c, layers: make([][]*head, hi-lo)}
	for l := range e.layers {
		for range c.KVHeads {
			e.layers[l] = append(e.layers[l], &head{})
		}
	}
	return e, nil
}

// Seen is the number of tokens that went in.
func (e *Cache) Seen() int { return e.seen }

// Len is the number of tokens that a head of a layer holds.
func (e *Cache) Len(layer, kvHead int) int { return len(e.layers[layer-e.Lo][kvHead].pos) }

// Positions are the places in the text of the tokens that a head of a layer holds, ascending. Do not change them.
func (e *Cache) Positions(layer, kvHead int) []int { return e.layers[layer-e.Lo][kvHead].pos }

// Most is the largest number of tokens that any head ever held at the end of a call; a prompt that is thinned out at its end
// counts in full.
func (e *Cache) Most() int { return e.most }

// Bytes is the size of keys and values held; Peak is the largest so far.
func (e *Cache) Bytes() units.Bytes {
	n := 0
	for _, layer := range e.layers {
		for _, h := range layer {
			n += len(h.pos)
		}
	}
	return units.Bytes(n * tensor.KVBytes(e.Type, 1, e.config.HeadDim))
}

// Peak is the largest Bytes so far, seen when a layer has its new tokens and before a prompt is thinned out.
func (e *Cache) Peak() units.Bytes { return e.peak }

// Resident is the memory that keys and values occupy, whatever they hold; relative positions need every key twice.
func (e *Cache) Resident() units.Bytes {
	n := 0
	for _, layer := range e.layers {
		for _, h := range layer {
			n += 4 * cap(h.raw)
			if h.kv != nil {
				n += h.kv.Resident()
			}
		}
	}
	return units.Bytes(n)
}

// Prompt declares that the next n tokens are a prompt. Policies that select from prompts need it; others ignore it.
func (e *Cache) Prompt(n int) { e.prompt, e.end = n, e.seen+n }

// Reset forgets everything and keeps the memory.
func (e *Cache) Reset() {
	e.seen, e.prompt, e.end, e.most, e.peak = 0, 0, 0, 0, 0
	for _, layer := range e.layers {
		for _, h := range layer {
			h.pos, h.raw, h.scores, h.asked, h.kept = h.pos[:0], h.raw[:0], h.scores[:0], h.asked[:0], 0
		}
	}
}

// Admit is part of [llm.Store].
func (e *Cache) Admit(c llm.Config, lo, hi, T int) error {
	c = c.WithDefaults()
	own := &e.config
	switch {
	case lo != e.Lo || hi != e.Hi || c.KVHeads != own.KVHeads || c.HeadDim != own.HeadDim || c.Heads != own.Heads:
		return fmt.Errorf("has an evicting cache of layers [%d, %d) and %d heads of %d, want this span and the model's", e.Lo, e.Hi, own.KVHeads, own.HeadDim)
	case e.Policy.Prompt == nil:
		return nil
	case e.seen == 0 && e.prompt == 0:
		return fmt.Errorf("%s selects from a prompt: say how long it is with Prompt(n) before its first token", e.Policy.Name)
	case e.seen > 0 && e.seen+T <= e.end && e.end-e.prompt > 0:
		return fmt.Errorf("%s selects from one prompt: Reset before the next, or step through it", e.Policy.Name)
	case e.seen < e.end && e.seen+T > e.end:
		return fmt.Errorf("%d tokens cross the end of the prompt at %d: give them in two calls", T, e.end)
	}
	return nil
}

// Advance is part of [llm.Store].
func (e *Cache) Advance(T int) { e.seen += T }

// Attend is part of [llm.Store]. Tokens go in one after the other, so the bits do not depend on how they are cut into calls.
func (e *Cache) Attend(a *llm.Attend) {
	heads := e.layers[a.Layer-e.Lo]
	budget := e.Policy.Budget(a.Layer-e.Lo, e.Hi-e.Lo, e.prompt)
	inPrompt := e.Policy.Prompt != nil && a.Past < e.end
	for t := 0; t < a.T; {
		n := len(heads[0].pos)
		T := 1
		if inPrompt {
			T = a.T - t
		} else if n < budget {
			T = min(budget-n, a.T-t) // none is given up before the last of them is in
		} else {
			e.forget(heads, a.Rope)
		}
		e.step(a, heads, t, T)
		t += T
	}
	e.most, e.peak = max(e.most, len(heads[0].pos)), max(e.peak, e.Bytes())
	if inPrompt && a.Past+a.T == e.end {
		e.thin(a, heads)
	}
}

// forget gives up one token of every head.
func (e *Cache) forget(heads []*head, rope *tensor.Rope) {
	for _, h := range heads {
		at, n := h.kept, len(h.pos)
		if e.Policy.Heavy > 0 {
			at = victim(h.scores, h.kept, e.Policy.Recent)
			h.scores = slices.Delete(h.scores, at, at+1)
		}
		h.kv.Drop(at, n)
		h.pos = slices.Delete(h.pos, at, at+1)
		if !e.Policy.Relative {
			continue
		}
		D := h.kv.D
		h.raw = slices.Delete(h.raw, at*D, (at+1)*D)
		moved := n - 1 - at
		k, _ := e.work.pair(moved * D)
		copy(k, h.raw[at*D:])
		rope.Apply(k, moved, 1, at)
		h.kv.PutKeys(at, moved, k)
	}
}

// step takes T tokens from t0 on, for which there is room, and attends.
func (e *Cache) step(a *llm.Attend, heads []*head, t0, T int) {
	w, D, G := &e.work, e.config.HeadDim, len(heads)
	shared := a.Heads / G
	n := len(heads[0].pos)
	at := a.Past + t0 // position that rotates the first of them
	if e.Policy.Relative {
		at = n
	}
	w.seqs = w.seqs[:0]
	w.reserve(T, G, shared*D)
	for g, h := range heads {
		h.reserve(e.Type, D, n+T)
		k, v := w.pair(T * D)
		q := w.q[g]
		for t := range T {
			row := (t0+t)*G + g
			copy(k[t*D:(t+1)*D], a.K[row*D:])
			copy(v[t*D:(t+1)*D], a.V[row*D:])
			copy(q[t*shared*D:(t+1)*shared*D], a.Q[row*shared*D:])
			h.pos = append(h.pos, a.Past+t0+t)
		}
		if e.Policy.Relative {
			h.raw = append(h.raw, k...)
		}
		a.Rope.Apply(k, T, 1, at)
		a.Rope.Apply(q, T, shared, at)
		h.kv.Put(n, T, k, v)
		if e.Policy.Prompt == nil {
			h.kept = min(e.Policy.Sinks, n+T)
		}
		w.seqs = append(w.seqs, tensor.AttnSeq{Out: w.out[g], Q: q, KV: h.kv, T: T, Past: n, Scale: a.Scale, Softcap: a.Softcap})
	}
	a.Pool.Attention(w.seqs, shared)
	for g, h := range heads {
		for t := range T {
			copy(a.Out[((t0+t)*G+g)*shared*D:][:shared*D], w.out[g][t*shared*D:])
		}
		e.watch(a, h, w.seqs[g], at)
	}
}

// watch notes what policies need to know of the queries of a step: accumulated attention, or the queries that will vote.
func (e *Cache) watch(a *llm.Attend, h *head, s tensor.AttnSeq, at int) {
	D := h.kv.D
	shared := len(s.Q) / (s.T * D)
	if e.Policy.Heavy > 0 {
		h.scores = append(h.scores, make([]float64, s.T)...)
		addWeights(h.scores, &e.work, s)
	}
	if p := e.Policy.Prompt; p != nil && a.Past < e.end {
		for t := range s.T {
			if at+t >= e.end-p.Observe {
				h.asked = append(h.asked, s.Q[t*shared*D:(t+1)*shared*D]...)
			}
		}
	}
}

// thin selects what stays of the prompt.
func (e *Cache) thin(a *llm.Attend, heads []*head) {
	p, D := e.Policy.Prompt, e.config.HeadDim
	shared := a.Heads / len(heads)
	for _, h := range heads {
		n := len(h.pos)
		capacity := p.capacity(a.Layer-e.Lo, e.Hi-e.Lo, n)
		if n > capacity && n > p.Observe {
			votes := make([]float64, n)
			addWeights(votes, &e.work, tensor.AttnSeq{Q: h.asked, KV: h.kv, T: len(h.asked) / (shared * D), Past: n - len(h.asked)/(shared*D),
				Scale: a.Scale, Softcap: a.Softcap})
			stay := Select(votes[:n-p.Observe], p.Kernel, p.Max, capacity-p.Observe)
			for i := n - p.Observe; i < n; i++ {
				stay = append(stay, i)
			}
			h.keep(stay, e.Policy.Budget(a.Layer-e.Lo, e.Hi-e.Lo, e.prompt))
		}
		h.kept, h.asked = len(h.pos), nil
	}
}

// keep moves the places named to a cache of their own, of the size that is needed from now on.
func (h *head) keep(stay []int, capacity int) {
	old, pos := h.kv, h.pos
	h.kv, h.pos = newKV(old.Type, old.D, max(capacity, len(stay))), make([]int, 0, capacity)
	k, v := make([]float32, old.D), make([]float32, old.D)
	for to, from := range stay {
		old.Get(from, from+1, k, v)
		h.kv.Put(to, 1, k, v)
		h.pos = append(h.pos, pos[from])
	}
}

// reserve makes room for n tokens.
func (h *head) reserve(t quant.Type, D, n int) {
	if h.kv != nil && h.kv.Capacity >= n {
		return
	}
	bigger := newKV(t, D, max(32, n, 2*len(h.pos)))
	if h.kv != nil {
		bigger.CopyPrefix(h.kv, len(h.pos))
	}
	h.kv = bigger
}

func newKV(t quant.Type, D, n int) *tensor.KV {
	kv, err := tensor.NewKV(t, 1, D, n)
	if err != nil {
		panic(err) // NewCache has checked the type
	}
	return kv
}

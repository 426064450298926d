package llm

import (
	"fmt"

	"meibench/reference/tensor"
)

// Want says what a sequence gets back from Forward.
type Want int

const (
	// Auto is LastLogits if the span ends with the last layer, else Hidden.
	Auto Want = iota
	// Hidden is the hidden states of all new tokens, (T, C), before the final norm.
	Hidden
	// LastLogits is the logits of the last new token, (1, V). After a span that ends early it is the logits of an
	// early exit: final norm and head applied to the hidden state there.
	LastLogits
	// AllLogits is the logits of every new token, (T, V).
	AllLogits
)

// Seq is one sequence of a Forward call.
type Seq struct {
	IDs    []int32   // new tokens, if the span starts at layer 0
	Hidden []float32 // else their hidden states, (T, C)
	Cache  *Cache    // of exactly the span's layers; may be nil if the span is empty
	Want   Want

	// Out is the result. It is memory of the Work, valid until its next Forward.
	Out []float32
}

// Work is the memory and the threads of a goroutine that runs a model. Nothing is allocated per token once the
// largest call has been seen.
type Work struct {
	Model *Model

	pool    *tensor.Pool
	ownPool bool
	rope    tensor.Rope
	job     rowJob
	attn    []tensor.AttnSeq

	// Rows of the call, one per new token of every sequence. The comments give row widths.
	rows                       int
	h, norm, tmp               []float32 // C
	q, att                     []float32 // H·D
	k, v                       []float32 // G·D
	gate, up                   []float32 // F
	logits                     []float32 // V, one row per token that wants them
	pos                        []int     // position of each row in its sequence
	layer                      *Block    // the layer that row functions work on
	normWeight, normIn, normTo []float32 // arguments of the row function normRows
}

// NewWork makes a workspace with the given number of threads. Close it to end them.
func (m *Model) NewWork(threads int) *Work {
	w := m.NewWorkOn(tensor.NewPool(threads))
	w.ownPool = true
	return w
}

// NewWorkOn makes a workspace on a pool that the caller closes. Workspaces of one goroutine may share a pool, as
// those of a draft model and its target do.
func (m *Model) NewWorkOn(p *tensor.Pool) *Work {
	style := tensor.RopeNorm
	if m.Arch == Qwen2 {
		style = tensor.RopeNeox
	}
	return &Work{Model: m, pool: p, rope: tensor.Rope{D: m.HeadDim, Base: m.RopeBase, Style: style, Factors: m.RopeFactors}}
}

// Close ends the threads that NewWork started.
func (w *Work) Close() {
	if w.ownPool {
		w.pool.Close()
	}
}

// Threads is the number of threads.
func (w *Work) Threads() int { return w.pool.Workers() }

// Forward runs layers [lo, hi) for the new tokens of each sequence, appends their keys and values to the caches, and
// leaves each sequence's result in its Out.
//
// A span may be empty: Forward(0, 0) only embeds, Forward(L, L) only applies the head. A result depends on the
// sequence's own tokens only, bit for bit. On error no cache has changed.
func (w *Work) Forward(lo, hi int, seqs []Seq) error {
	if err := w.check(lo, hi, seqs); err != nil {
		return fmt.Errorf("forward layers [%d, %d): %w", lo, hi, err)
	}
	w.reserve(hi, seqs)
	w.input(seqs)
	for l := lo; l < hi; l++ {
		w.block(l, seqs)
	}
	for i := range seqs {
		if seqs[i].Cache != nil {
			seqs[i].Cache.length += seqs[i].tokens(w.Model.Dim)
		}
	}
	w.output(hi, seqs)
	return nil
}

// tokens is the number of new tokens.
func (s *Seq) tokens(dim int) int {
	if s.IDs != nil {
		return len(s.IDs)
	}
	return len(s.Hidden) / dim
}

// past is the number of tokens before them.
func (s *Seq) past() int {
	if s.Cache == nil {
		return 0
	}
	return s.Cache.length
}

// logitRows is the number of tokens whose logits are wanted after layer hi.
func (s *Seq) logitRows(hi int, m *Model) int {
	switch {
	case s.Want == AllLogits:
		return s.tokens(m.Dim)
	case s.Want == LastLogits || s.Want == Auto && hi == m.Layers:
		return 1
	}
	return 0
}

func (w *Work) check(lo, hi int, seqs []Seq) error {
	m := w.Model
	if lo < m.Lo || hi < lo || hi > m.Hi {
		return fmt.Errorf("the model holds layers [%d, %d)", m.Lo, m.Hi)
	}
	for i := range seqs {
		if err := m.checkSeq(lo, hi, &seqs[i]); err != nil {
			return fmt.Errorf("sequence %d: %w", i, err)
		}
		for j := range i {
			if seqs[i].Cache != nil && seqs[i].Cache == seqs[j].Cache {
				return fmt.Errorf("sequences %d and %d share a cache: merge their tokens or copy it", j, i)
			}
		}
	}
	return nil
}

func (m *Model) checkSeq(lo, hi int, s *Seq) error {
	switch {
	case lo == 0 && (len(s.IDs) == 0 || s.Hidden != nil):
		return fmt.Errorf("has %d ids and %d hidden values, want ids only at layer 0", len(s.IDs), len(s.Hidden))
	case lo > 0 && (s.IDs != nil || len(s.Hidden) == 0 || len(s.Hidden)%m.Dim != 0):
		return fmt.Errorf("has %d ids and %d hidden values, want hidden values only above layer 0, a multiple of %d",
			len(s.IDs), len(s.Hidden), m.Dim)
	case s.logitRows(hi, m) > 0 && m.Hi < m.Layers:
		return fmt.Errorf("wants logits, but the model was loaded without its head: load up to layer %d", m.Layers)
	}
	for i, id := range s.IDs {
		if id < 0 || int(id) >= m.Vocab {
			return fmt.Errorf("token %d is id %d, want 0 to %d", i, id, m.Vocab-1)
		}
	}
	c := s.Cache
	switch {
	case c == nil && lo < hi:
		return fmt.Errorf("has no cache: make one with NewCache(%d, %d, capacity)", lo, hi)
	case c != nil && (c.Lo != lo || c.Hi != hi || c.width != m.KVDim()):
		return fmt.Errorf("has a cache of layers [%d, %d) and width %d, want this span and %d", c.Lo, c.Hi, c.width, m.KVDim())
	case c != nil && c.length+s.tokens(m.Dim) > c.capacity:
		return fmt.Errorf("%d new tokens do not fit behind %d in a cache for %d: truncate it or make a larger one",
			s.tokens(m.Dim), c.length, c.capacity)
	}
	return nil
}

// reserve makes room for the call. Caches bound positions, so their capacity is reserved at once.
func (w *Work) reserve(hi int, seqs []Seq) {
	m := w.Model
	w.rows = 0
	positions, logits := 0, 0
	for i := range seqs {
		w.rows += seqs[i].tokens(m.Dim)
		if c := seqs[i].Cache; c != nil {
			positions = max(positions, c.capacity)
		}
		logits += seqs[i].logitRows(hi, m)
	}
	w.rope.Reserve(positions)
	w.pool.ReserveAttention(positions)
	for _, b := range []struct {
		buf   *[]float32
		width int
	}{
		{&w.h, m.Dim}, {&w.norm, m.Dim}, {&w.tmp, m.Dim}, {&w.q, m.QDim()}, {&w.att, m.QDim()},
		{&w.k, m.KVDim()}, {&w.v, m.KVDim()}, {&w.gate, m.FFN}, {&w.up, m.FFN},
	} {
		grow(b.buf, w.rows*b.width)
	}
	grow(&w.logits, logits*m.Vocab)
	if cap(w.pos) < w.rows {
		w.pos = make([]int, w.rows)
	}
	if cap(w.attn) < len(seqs) {
		w.attn = make([]tensor.AttnSeq, len(seqs))
	}
	w.pos, w.attn = w.pos[:w.rows], w.attn[:len(seqs)]
}

func grow(buf *[]float32, n int) {
	if cap(*buf) < n {
		*buf = make([]float32, n)
	}
	*buf = (*buf)[:n]
}

// input fills h with embeddings or with the hidden states given, and pos with positions.
func (w *Work) input(seqs []Seq) {
	C, row := w.Model.Dim, 0
	for i := range seqs {
		s := &seqs[i]
		if s.IDs == nil {
			copy(w.h[row*C:], s.Hidden)
		}
		for t := range s.tokens(C) {
			if s.IDs != nil {
				w.Model.Embed.ReadRow(w.h[row*C:(row+1)*C], int(s.IDs[t]), 0)
			}
			w.pos[row] = s.past() + t
			row++
		}
	}
}

// block runs one layer over h.
func (w *Work) block(l int, seqs []Seq) {
	m, n := w.Model, w.rows
	b := &m.Blocks[l]
	w.layer = b
	w.normalise(w.norm, w.h, b.AttnNorm)
	b.Q.mul(w.pool, w.q, w.norm, n)
	b.K.mul(w.pool, w.k, w.norm, n)
	b.V.mul(w.pool, w.v, w.norm, n)
	w.each(m.QDim(), (*Work).biasAndRotate)
	row := 0
	for i := range seqs {
		s := &seqs[i]
		T, past := s.tokens(m.Dim), s.past()
		k, v := s.Cache.Rows(l, 0, past+T)
		copy(k[past*m.KVDim():], w.k[row*m.KVDim():])
		copy(v[past*m.KVDim():], w.v[row*m.KVDim():])
		w.attn[i] = tensor.AttnSeq{Out: w.att[row*m.QDim():], Q: w.q[row*m.QDim():], K: k, V: v, T: T, Past: past}
		row += T
	}
	w.pool.Attention(w.attn, m.Heads, m.KVHeads, m.HeadDim)
	b.Out.mul(w.pool, w.tmp, w.att, n)
	tensor.Add(w.h, w.tmp)
	w.normalise(w.norm, w.h, b.FFNNorm)
	b.Gate.mul(w.pool, w.gate, w.norm, n)
	b.Up.mul(w.pool, w.up, w.norm, n)
	w.each(m.FFN, (*Work).activate)
	b.Down.mul(w.pool, w.tmp, w.gate, n)
	tensor.Add(w.h, w.tmp)
}

// biasAndRotate finishes queries, keys and values of rows [lo, hi).
func (w *Work) biasAndRotate(lo, hi int) {
	m, b := w.Model, w.layer
	Q, KV := m.QDim(), m.KVDim()
	if b.QB != nil {
		tensor.AddRow(w.q[lo*Q:hi*Q], b.QB, hi-lo)
		tensor.AddRow(w.k[lo*KV:hi*KV], b.KB, hi-lo)
		tensor.AddRow(w.v[lo*KV:hi*KV], b.VB, hi-lo)
	}
	for r := lo; r < hi; r++ {
		w.rope.Apply(w.q[r*Q:(r+1)*Q], 1, m.Heads, w.pos[r])
		w.rope.Apply(w.k[r*KV:(r+1)*KV], 1, m.KVHeads, w.pos[r])
	}
}

// activate writes silu(gate)·up into gate for rows [lo, hi).
func (w *Work) activate(lo, hi int) {
	F := w.Model.FFN
	tensor.SwiGLU(w.gate[lo*F:hi*F], w.gate[lo*F:hi*F], w.up[lo*F:hi*F])
}

func (w *Work) normalise(to, in, weight []float32) {
	w.normTo, w.normIn, w.normWeight = to, in, weight
	w.each(w.Model.Dim, (*Work).normRows)
}

func (w *Work) normRows(lo, hi int) {
	C := w.Model.Dim
	tensor.RMSNorm(w.normTo[lo*C:hi*C], w.normIn[lo*C:hi*C], w.normWeight, nil, hi-lo, C, w.Model.Eps)
}

// each calls f for shares of the rows, on all threads if there is enough to do. f is a method expression, not a
// closure, so that nothing is allocated.
func (w *Work) each(width int, f func(w *Work, lo, hi int)) {
	if w.rows*width < 1<<14 {
		f(w, 0, w.rows)
		return
	}
	w.job = rowJob{w, f}
	w.pool.Do(&w.job)
}

type rowJob struct {
	w *Work
	f func(w *Work, lo, hi int)
}

// Part is one thread's share of the rows.
func (j *rowJob) Part(worker, workers int) {
	if lo, hi := tensor.Share(j.w.rows, worker, workers); lo < hi {
		j.f(j.w, lo, hi)
	}
}

// output hands out hidden states, or gathers the rows that want logits and applies final norm and head to them.
func (w *Work) output(hi int, seqs []Seq) {
	m, C, V := w.Model, w.Model.Dim, w.Model.Vocab
	row, n := 0, 0
	for i := range seqs {
		s := &seqs[i]
		T, want := s.tokens(C), s.logitRows(hi, m)
		s.Out = w.h[row*C : (row+T)*C]
		if want > 0 {
			tensor.RMSNorm(w.norm[n*C:], w.h[(row+T-want)*C:], m.Norm, nil, want, C, m.Eps)
			s.Out = w.logits[n*V : (n+want)*V]
		}
		row, n = row+T, n+want
	}
	if n > 0 {
		m.head().mul(w.pool, w.logits, w.norm, n)
	}
}

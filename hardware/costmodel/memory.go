package costmodel

import (
	"fmt"

	"meibench/hardware"
	"meibench/internal/units"
)

// memory is what a device holds: weights of spans of models, KV caches of
// sequences, and how much of both there was at most.
type memory struct {
	limit units.Bytes // 0 = unlimited
	used  units.Bytes
	peak  units.Bytes
	held  []holding
	kv    map[int64]*cache
	spare []*cache
	parts []*part // of the operation at hand
}

// holding is what a device holds of one model.
type holding struct {
	model *hardware.Model
	spans []hardware.Span // disjoint
	bytes units.Bytes
}

// cache is the KV cache of one sequence, per model and span.
type cache struct{ parts []part }

type part struct {
	model int // index of the holding
	span  hardware.Span
	bytes units.Bytes
}

func newMemory(limit units.Bytes) memory {
	return memory{limit: limit, kv: map[int64]*cache{}}
}

// holding finds the record of a model, making one if it is new.
func (m *memory) holding(model *hardware.Model) int {
	for i := range m.held {
		h := m.held[i].model
		if h == model || h.Name == model.Name && h.Digest == model.Digest {
			return i
		}
	}
	m.held = append(m.held, holding{model: model})
	return len(m.held) - 1
}

// merged is the set of spans with s added, and the bytes of its weights.
func (h *holding) merged(s hardware.Span) ([]hardware.Span, units.Bytes) {
	var out []hardware.Span
	for _, x := range h.spans {
		if x.Hi < s.Lo || s.Hi < x.Lo {
			out = append(out, x)
			continue
		}
		s = hardware.Span{Lo: min(s.Lo, x.Lo), Hi: max(s.Hi, x.Hi)}
	}
	out = append(out, s)
	var n units.Bytes
	for _, x := range out {
		n += h.model.WeightBytes(x)
	}
	return out, n
}

func (h *holding) covers(s hardware.Span) bool {
	for _, x := range h.spans {
		if x.Lo <= s.Lo && s.Hi <= x.Hi {
			return true
		}
	}
	return false
}

// grow books n more bytes or refuses with numbers.
func (m *memory) grow(n units.Bytes, what string, args ...any) error {
	if n > 0 && m.limit > 0 && m.used+n > m.limit {
		return fmt.Errorf("%s needs %v more, %v of %v are in use: %w", fmt.Sprintf(what, args...), n, m.used, m.limit, hardware.ErrMemory)
	}
	m.used += n
	m.peak = max(m.peak, m.used)
	return nil
}

// hold makes the weights of a span resident.
func (m *memory) hold(model *hardware.Model, s hardware.Span) (int, error) {
	i := m.holding(model)
	if m.held[i].covers(s) {
		return i, nil
	}
	spans, n := m.held[i].merged(s)
	if err := m.grow(n-m.held[i].bytes, "weights of %s, layers %d to %d,", model.Name, s.Lo, s.Hi); err != nil {
		return i, err
	}
	m.held[i].spans, m.held[i].bytes = spans, n
	return i, nil
}

// extend sets the cache of every sequence of op to its context plus its new
// tokens: longer, or shorter after rejected drafts. All or nothing.
func (m *memory) extend(op *hardware.Op, more func(*hardware.Seq) int) error {
	i, err := m.hold(op.Model, op.Layers)
	if err != nil {
		return err
	}
	perToken := op.Model.KVBytesPerToken(op.Layers)
	if s := shrunk(op); s < 1 {
		perToken = units.Bytes(float64(perToken) * s)
	}
	var need units.Bytes
	m.parts = m.parts[:0]
	for k := range op.Seqs {
		s := &op.Seqs[k]
		p := m.part(s.ID, i, op.Layers)
		need += units.Bytes(more(s))*perToken - p.bytes
		m.parts = append(m.parts, p)
	}
	if err := m.grow(need, "KV cache of %d sequence(s)", len(op.Seqs)); err != nil {
		return err
	}
	for k, p := range m.parts {
		p.bytes = units.Bytes(more(&op.Seqs[k])) * perToken
	}
	return nil
}

// extendBeside is extend for the sequences of op, and books what its crowd adds.
func (m *memory) extendBeside(op *hardware.Op, crowd units.Bytes) error {
	if err := m.grow(crowd, "KV cache of %d answers", op.Crowd.Seqs); err != nil {
		return err
	}
	err := m.extend(op, grown)
	if err != nil {
		m.used -= crowd
	}
	return err
}

// part finds the cache of a sequence for a span, making an empty one.
func (m *memory) part(id int64, model int, s hardware.Span) *part {
	c, ok := m.kv[id]
	if !ok {
		if n := len(m.spare); n > 0 {
			c, m.spare = m.spare[n-1], m.spare[:n-1]
		} else {
			c = &cache{}
		}
		m.kv[id] = c
	}
	for k := range c.parts {
		if p := &c.parts[k]; p.model == model && p.span == s {
			return p
		}
	}
	c.parts = append(c.parts, part{model: model, span: s})
	return &c.parts[len(c.parts)-1]
}

// drop forgets the caches of the operation's sequences for its span (any span
// if it names none), or, if it has no sequences, all caches and the weights. A nil
// model means every model.
func (m *memory) drop(op *hardware.Op) {
	which := -1
	if op.Model != nil {
		which = m.holding(op.Model)
	}
	for k := range op.Seqs {
		m.forget(op.Seqs[k].ID, which, op.Layers)
	}
	if len(op.Seqs) > 0 {
		return
	}
	for id := range m.kv { // the order does not matter: sums of integers
		m.forget(id, which, hardware.Span{})
	}
	for i := range m.held {
		if which < 0 || which == i {
			m.used -= m.held[i].bytes
			m.held[i].spans, m.held[i].bytes = nil, 0
		}
	}
}

func (m *memory) forget(id int64, model int, span hardware.Span) {
	c, ok := m.kv[id]
	if !ok {
		return
	}
	kept := c.parts[:0]
	for _, p := range c.parts {
		if model >= 0 && p.model != model || span.Len() > 0 && p.span != span {
			kept = append(kept, p)
			continue
		}
		m.used -= p.bytes
	}
	if c.parts = kept; len(kept) == 0 {
		delete(m.kv, id)
		m.spare = append(m.spare, c)
	}
}

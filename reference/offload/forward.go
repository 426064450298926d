package offload

import (
	"errors"
	"fmt"
	"time"

	"meibench/reference/llm"
	"meibench/reference/panel"
)

// Forward runs the whole model for the new tokens of each sequence, as [llm.Work.Forward] does from layer 0 to the last, with
// its bits. Sequences have ids and a Cache of all layers; stores and adapters are refused. Out is memory of the Stream, valid
// until the next call. On error no cache has changed; an error of storage ends the stream.
func (s *Stream) Forward(seqs []llm.Seq) error {
	began, stalled := time.Now(), s.stats.Stall
	if s.failed != nil {
		return fmt.Errorf("stream: an earlier pass failed: %w", s.failed)
	}
	groups, err := s.groups(seqs)
	if err != nil {
		return err // before anything was used up
	}
	if err := s.pass(groups); err != nil {
		s.failed = err
		return err
	}
	at := 0
	for _, g := range groups {
		for i := range g.seqs {
			seqs[at].Out = g.out[i]
			seqs[at].Cache.SetLen(seqs[at].Cache.Len() + len(seqs[at].IDs))
			at++
		}
	}
	s.stats.Passes++
	s.stats.Compute += time.Since(began) - (s.stats.Stall - stalled)
	return nil
}

// group is sequences that pass a layer at once, with their states between layers.
type group struct {
	from   []llm.Seq
	seqs   []llm.Seq
	hidden [][]float32
	embed  []byte // rows of the embedding, one per token
	wants  []int  // rows of logits
	out    [][]float32
}

// groups checks a batch and cuts it, and reads the rows of the embedding that it needs.
func (s *Stream) groups(seqs []llm.Seq) ([]*group, error) {
	m := s.model
	if len(seqs) == 0 {
		return nil, errors.New("stream: no sequences: want at least one")
	}
	for i := range seqs {
		q := &seqs[i]
		switch {
		case q.Store != nil || q.Adapter != nil || q.Cache == nil || q.Hidden != nil || len(q.IDs) == 0:
			return nil, fmt.Errorf("stream: sequence %d: want ids and a cache, and no hidden states, store or adapter", i)
		case q.Cache.Lo != 0 || q.Cache.Hi != m.Layers:
			return nil, fmt.Errorf("stream: sequence %d: has a cache of layers [%d, %d), want all %d", i, q.Cache.Lo, q.Cache.Hi, m.Layers)
		case q.Cache.Len()+len(q.IDs) > q.Cache.Cap():
			return nil, fmt.Errorf("stream: sequence %d: %d new tokens do not fit behind %d in a cache for %d", i, len(q.IDs), q.Cache.Len(), q.Cache.Cap())
		}
		for j := range i {
			if seqs[j].Cache == q.Cache {
				return nil, fmt.Errorf("stream: sequences %d and %d share a cache", j, i)
			}
		}
		for t, id := range q.IDs {
			if id < 0 || int(id) >= m.Vocab {
				return nil, fmt.Errorf("stream: sequence %d: token %d is id %d, want 0 to %d", i, t, id, m.Vocab-1)
			}
		}
		for t, p := range q.Parents {
			if len(q.Parents) != len(q.IDs) || p < -1 || int(p) >= t {
				return nil, fmt.Errorf("stream: sequence %d: token %d of %d follows token %d of %d parents", i, t, len(q.IDs), p, len(q.Parents))
			}
		}
	}
	per := s.options.Group
	if per == 0 {
		per = len(seqs)
	}
	var list []*group
	for lo := 0; lo < len(seqs); lo += per {
		g, err := s.group(seqs[lo:min(lo+per, len(seqs))])
		if err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, nil
}

func (s *Stream) group(seqs []llm.Seq) (*group, error) {
	g := &group{from: seqs, seqs: make([]llm.Seq, len(seqs)), hidden: make([][]float32, len(seqs)), out: make([][]float32, len(seqs))}
	next := int32(0)
	for i := range seqs {
		q := &seqs[i]
		ids := make([]int32, len(q.IDs))
		for t, id := range q.IDs {
			ids[t] = next
			next++
			row, err := s.reader.Read(s.rows, s.embed.Offset+int64(id)*int64(s.rowBytes()), s.rowBytes())
			if err != nil {
				return nil, fmt.Errorf("stream: embedding of token %d: %w", id, err)
			}
			g.embed = append(g.embed, row...)
		}
		g.seqs[i] = llm.Seq{IDs: ids, Want: llm.Hidden, Parents: q.Parents}
		g.hidden[i] = make([]float32, len(ids)*s.model.Dim)
		want := 0
		switch q.Want {
		case llm.AllLogits:
			want = len(ids)
		case llm.Auto, llm.LastLogits:
			want = 1
		}
		g.wants = append(g.wants, want)
	}
	return g, nil
}

// pass visits every unit once; each serves all groups while it is there.
func (s *Stream) pass(groups []*group) error {
	rows := 0
	for _, g := range groups {
		for i := range g.seqs {
			g.out[i] = g.hidden[i]
			rows += g.wants[i]
		}
	}
	if need := rows * s.model.Vocab; cap(s.logits) < need {
		s.logits = make([]float32, need)
	}
	for _, u := range s.units {
		panels, slot, err := s.await(u)
		if err != nil {
			return fmt.Errorf("stream layer %d: %w", u.layer, err)
		}
		if u.layer == s.model.Layers {
			s.turnHead(u)
		}
		if err := u.enter(panels); err != nil {
			return fmt.Errorf("stream layer %d: %w", u.layer, err)
		}
		row := 0
		for _, g := range groups {
			if u.layer < s.model.Layers {
				err = errors.Join(err, s.layer(u.layer, g))
			} else {
				row, err = s.headRows(u, g, row)
			}
			if err != nil {
				return fmt.Errorf("stream layer %d: %w", u.layer, err)
			}
		}
		u.leave()
		if slot != nil {
			s.ring.free <- slot
		}
	}
	return nil
}

// await waits until a unit is there.
func (s *Stream) await(u *unit) (panels []*panel.Matrix, slot []byte, err error) {
	if u.panels != nil {
		return u.panels, nil, nil
	}
	began := time.Now()
	got := <-s.ring.ready
	s.stats.Stall += time.Since(began)
	if got.err != nil {
		return nil, nil, got.err
	}
	if got.u != u {
		panic("offload: the reader and the pass disagree about the order of layers")
	}
	if u.pinned {
		u.panels = got.panels
	}
	return got.panels, got.slot, nil
}

func (s *Stream) layer(l int, g *group) error {
	if l == 0 {
		s.model.Embed.Data = g.embed // ids number its rows
	}
	for i := range g.seqs {
		q := &g.seqs[i]
		q.Cache = g.from[i].Cache.Span(l, l+1)
		if l > 0 {
			q.IDs, q.Hidden = nil, g.hidden[i]
		}
	}
	if err := s.work.Forward(l, l+1, g.seqs); err != nil {
		return err
	}
	for i := range g.seqs {
		copy(g.hidden[i], g.seqs[i].Out)
	}
	if s.experts != nil {
		return s.experts.err()
	}
	return nil
}

// turnHead makes the head one of a vocabulary of some rows.
func (s *Stream) turnHead(u *unit) {
	n := u.hi - u.lo
	s.head.Vocab, s.head.Head = n, llm.Matrix{Type: u.matrices[0].typ, N: n, K: s.model.Dim}
	if s.model.HeadB != nil {
		s.head.HeadB = s.model.HeadB[u.lo:u.hi]
	}
}

// headRows computes some rows of the logits, the group's from row on.
func (s *Stream) headRows(u *unit, g *group, row int) (int, error) {
	L, V, C, n := s.model.Layers, s.model.Vocab, s.model.Dim, u.hi-u.lo
	var seqs []llm.Seq
	for i, want := range g.wants {
		if want > 0 {
			seqs = append(seqs, llm.Seq{Hidden: g.hidden[i][len(g.hidden[i])-want*C:], Want: llm.AllLogits})
		}
	}
	if len(seqs) == 0 {
		return row, nil
	}
	if err := s.last.Forward(L, L, seqs); err != nil {
		return row, err
	}
	k := 0
	for i, want := range g.wants {
		if want == 0 {
			continue
		}
		g.out[i] = s.logits[row*V : (row+want)*V]
		for t := range want {
			copy(g.out[i][t*V+u.lo:t*V+u.hi], seqs[k].Out[t*n:(t+1)*n])
		}
		row, k = row+want, k+1
	}
	return row, nil
}

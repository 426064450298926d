package shard

import (
	"fmt"
	"math"

	"meibench/internal/portable"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/tensor"
)

// Positions is a prefill whose positions are shared out: node i ran tokens [From[i], From[i+1]).
type Positions struct {
	From   []int
	Caches []*llm.Cache // of each node: its own positions and all before them
	Hidden [][]float32  // (tokens of the node, C), behind the last layer
	Sent   units.Bytes  // keys and values that went from node to node, in F32
}

// Prefill runs a prompt on several nodes, each on a run of positions. In each layer a node hands the keys and values of its
// positions to the nodes behind it, which attend to them. Hidden states are those of one node, bit for bit. The nodes take
// turns here; Sent = Σ over layers and nodes of tokens·2·G·D·4·(nodes behind).
func Prefill(w *llm.Work, nodes int, ids []int32) (*Positions, error) {
	m := w.Model
	if nodes < 1 || nodes > len(ids) {
		return nil, fmt.Errorf("sequence-parallel prefill: %d tokens on %d nodes, want at least one token each", len(ids), nodes)
	}
	p := &Positions{Hidden: make([][]float32, nodes)}
	for i := range nodes + 1 {
		p.From = append(p.From, len(ids)*i/nodes)
	}
	for i := range nodes {
		c, err := m.NewCache(0, m.Layers, p.From[i+1])
		if err != nil {
			return nil, fmt.Errorf("sequence-parallel prefill: %w", err)
		}
		p.Caches = append(p.Caches, c)
		seqs := []llm.Seq{{IDs: ids[p.From[i]:p.From[i+1]], Want: llm.Hidden}}
		if err := w.Forward(0, 0, seqs); err != nil {
			return nil, fmt.Errorf("sequence-parallel prefill: %w", err)
		}
		p.Hidden[i] = append(p.Hidden[i], seqs[0].Out...)
	}
	for l := range m.Layers {
		for i := range nodes {
			if err := p.layer(w, l, i, ids); err != nil {
				return nil, fmt.Errorf("sequence-parallel prefill: %w", err)
			}
		}
	}
	for i, c := range p.Caches {
		c.SetLen(p.From[i+1])
	}
	return p, nil
}

// layer runs layer l on node i, whose cache has what stands before, and passes its keys and values on.
func (p *Positions) layer(w *llm.Work, l, i int, ids []int32) error {
	m, from, to := w.Model, p.From[i], p.From[i+1]
	c := p.Caches[i].Span(l, l+1)
	c.SetLen(from)
	seqs := []llm.Seq{{Cache: c, Want: llm.Hidden}}
	if l == 0 {
		seqs[0].IDs = ids[from:to]
	} else {
		seqs[0].Hidden = p.Hidden[i]
	}
	if err := w.Forward(l, l+1, seqs); err != nil {
		return err
	}
	p.Hidden[i] = append(p.Hidden[i][:0], seqs[0].Out...)
	k, v := make([]float32, (to-from)*m.KVDim()), make([]float32, (to-from)*m.KVDim())
	c.Get(l, from, to, k, v)
	for _, behind := range p.Caches[i+1:] {
		behind.Put(l, from, to-from, k, v)
		p.Sent += units.Bytes(4 * (len(k) + len(v)))
	}
	return nil
}

// VoltageBytes is what nodes send in a layer if all of them need the hidden states of all T positions, as Voltage's
// all-gather does: each node's part to each of the others.
func VoltageBytes(nodes, T, dim, size int) units.Bytes {
	return units.Bytes((nodes - 1) * T * dim * size)
}

// Partial is attention of one token's heads over some of the positions.
type Partial struct {
	Out []float32 // (H, D)
	tensor.AttnSplit
}

// Attend is the attention of one token's rotated queries over n positions that one node holds. The node sends H·(D+2)
// numbers, however many positions it has.
//
//	q: (H, D)
func Attend(p *tensor.Pool, q []float32, kv *tensor.KV, n, heads int) Partial {
	part := Partial{make([]float32, len(q)), tensor.AttnSplit{Top: make([]float32, heads), Sum: make([]float64, heads)}}
	p.Attention([]tensor.AttnSeq{{Out: part.Out, Q: q, KV: kv, T: 1, Past: n - 1, Split: &part.AttnSplit}}, heads)
	return part
}

// Merge joins attention over disjoint positions into attention over all of them: each part weighs Sum·e^(Top - largest Top).
// It is exact but for rounding (1e-6 of the largest value), and the same everywhere.
//
//	out: (H, D)
func Merge(out []float32, parts []Partial) {
	heads := len(parts[0].Top)
	D := len(out) / heads
	weights := make([]float64, len(parts))
	for h := range heads {
		top, all := math.Inf(-1), 0.0
		for _, p := range parts {
			top = max(top, float64(p.Top[h]))
		}
		for i, p := range parts {
			weights[i] = float64(p.Sum[h] * portable.Exp(float64(p.Top[h])-top))
			all += weights[i]
		}
		for d := h * D; d < (h+1)*D; d++ {
			sum := 0.0
			for i, p := range parts {
				sum += float64(weights[i] / all * float64(p.Out[d]))
			}
			out[d] = float32(sum)
		}
	}
}

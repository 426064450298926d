// Package shard runs one model on several nodes at once: by heads and columns (tensor parallel), by positions (sequence
// parallel), by experts.
//
// # The one idea: the tree is fixed, the nodes are not
//
// A layer's attention and feed-forward terms are sums over heads and over columns. A [Group] cuts both into a fixed number
// of leaves, computes each leaf's partial sum with the engine's own kernels (llm.Work.Half), and adds the leaves as a
// balanced binary tree. A node holds neighbouring leaves and so a subtree; what crosses the network is the upper part of
// the same tree. Results are therefore equal bit for bit for 1, 2, 4 ... nodes, and differ from the unsharded engine,
// whose sums are one chain, by rounding only.
//
//	g, err := shard.New(model, shard.Options{Leaves: 4, Nodes: 2})
//	c, err := g.NewCache(256)
//	seqs := []shard.Seq{{IDs: prompt, Cache: c}}
//	err = g.Forward(seqs)                // seqs[0].Out: logits of the last token
//
// Everything runs in this process, one node after another; [Group.Traffic] counts what nodes would have sent. Noise of an
// analogue all-reduce (over-the-air computation) can be added to each sum.
//
// [Prefill] gives each node a run of positions and passes keys and values on (bit for bit the unsharded prefill); [Merge]
// joins attention over a cache that lies on several nodes. [Experts] puts the experts of a mixture on nodes and may drop
// those behind bad links.
//
// Sources: Shoeybi et al. 2019 (Megatron-LM: heads and columns, two sums a layer); Ye et al. 2024 (Galaxy); Hu & Li 2024
// (Voltage: positions); Milakov & Gimelshein 2018 (merging softmax); distributed-llama (2^n nodes, at most one per
// key/value head); Zhang et al. 2025 (AirComp all-reduce) and Xue et al. 2024 (WDMoE) by idea only: their rules are
// simplified here and marked assumed.
//
// What it does not do: send anything (links are the harness's), overlap, shards of unequal size, architectures that
// normalise or rotate differently per layer.
package shard

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/llm"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// Options say how a model is cut.
type Options struct {
	Leaves  int // parts of every layer: a power of two that divides heads, key/value heads and columns
	Nodes   int // that share the leaves: a power of two, at most Leaves
	Threads int // of this process; 0 is one

	// Noise is the mean squared error of each element of a sum over nodes, as an analogue all-reduce has; 0 is exact. It is
	// drawn from Seed, and not at all where there is one node.
	Noise float64
	Seed  uint64
}

// Group is a model that is cut into leaves.
type Group struct {
	Options
	Model   *llm.Model
	Syncs   int         // sums over nodes so far
	Traffic units.Bytes // that a star would have sent for them, in F32

	pool   *tensor.Pool
	root   *llm.Work // embedding, norm and head
	leaves []*llm.Work
	parts  [][]float32 // of each leaf, (rows, C)
	hidden []float32   // (rows, C)
	seqs   []llm.Seq
	noise  *rand.Rand
}

// Seq is one sequence of a Group's Forward.
type Seq struct {
	IDs   []int32
	Cache *Cache
	Want  llm.Want  // LastLogits, also as Auto, or AllLogits
	Out   []float32 // valid until the next Forward
}

// Cache is the keys and values of a sequence, each leaf's heads in its own.
type Cache struct{ leaves []*llm.Cache }

// Len is the number of tokens held.
func (c *Cache) Len() int { return c.leaves[0].Len() }

// Truncate forgets all tokens from position n on.
func (c *Cache) Truncate(n int) {
	for _, leaf := range c.leaves {
		leaf.Truncate(n)
	}
}

// New cuts a whole model. Weights keep their format; columns of a leaf must be whole blocks of it. A packed model gives
// packed leaves. Close the group to end its threads.
func New(m *llm.Model, o Options) (*Group, error) {
	if err := o.check(m); err != nil {
		return nil, fmt.Errorf("shard model: %w", err)
	}
	g := &Group{Options: o, Model: m, pool: tensor.NewPool(max(1, o.Threads)), noise: rng.Stream(o.Seed, "shard", "noise")}
	g.root = m.NewWorkOn(g.pool)
	g.parts = make([][]float32, o.Leaves)
	for i := range o.Leaves {
		leaf, err := cut(m, i, o.Leaves)
		if err == nil && m.Packed() {
			err = leaf.Pack(max(1, o.Threads))
		}
		if err != nil {
			g.Close()
			return nil, fmt.Errorf("shard model: leaf %d of %d: %w", i, o.Leaves, err)
		}
		g.leaves = append(g.leaves, leaf.NewWorkOn(g.pool))
	}
	return g, nil
}

func (o Options) check(m *llm.Model) error {
	power := func(n int) bool { return n > 0 && bits.OnesCount(uint(n)) == 1 }
	switch {
	case !m.Plain():
		return fmt.Errorf("only plain llama and qwen2 models can be cut, not this %s", m.Arch)
	case m.Lo != 0 || m.Hi != m.Layers:
		return fmt.Errorf("layers [%d, %d) of %d are loaded, want all", m.Lo, m.Hi, m.Layers)
	case !power(o.Leaves) || !power(o.Nodes) || o.Nodes > o.Leaves:
		return fmt.Errorf("%d leaves on %d nodes, want powers of two and at least one leaf a node", o.Leaves, o.Nodes)
	case m.KVHeads%o.Leaves != 0 || m.FFN%o.Leaves != 0:
		return fmt.Errorf("%d key/value heads and %d columns in %d leaves: want a divisor of both", m.KVHeads, m.FFN, o.Leaves)
	case !(o.Noise >= 0) || math.IsInf(o.Noise, 0):
		return fmt.Errorf("noise of %g, want a mean squared error of 0 or more", o.Noise)
	}
	return nil
}

// cut makes a model of part i of every layer. Its layers are numbered from 1, so that neither embedding nor head belongs
// to its span.
func cut(m *llm.Model, i, of int) (*llm.Model, error) {
	c := m.Config
	c.Heads, c.KVHeads, c.FFN, c.Layers, c.Tied = c.Heads/of, c.KVHeads/of, c.FFN/of, c.Layers+2, false
	leaf := &llm.Model{Config: c, Lo: 1, Hi: m.Layers + 1, Blocks: make([]llm.Block, c.Layers), RopeFactors: m.RopeFactors, RopeLong: m.RopeLong}
	for l := range m.Blocks {
		from, to := &m.Blocks[l], &leaf.Blocks[l+1]
		to.AttnNorm, to.FFNNorm = from.AttnNorm, from.FFNNorm
		to.QB, to.KB, to.VB = part(from.QB, i, of), part(from.KB, i, of), part(from.VB, i, of)
		for _, w := range []struct {
			to   *llm.Matrix
			from *llm.Matrix
			cols bool
		}{
			{&to.Q, &from.Q, false}, {&to.K, &from.K, false}, {&to.V, &from.V, false}, {&to.Out, &from.Out, true},
			{&to.Gate, &from.Gate, false}, {&to.Up, &from.Up, false}, {&to.Down, &from.Down, true},
		} {
			var err error
			if *w.to, err = slice(w.from, i, of, w.cols); err != nil {
				return nil, fmt.Errorf("layer %d: %w", l, err)
			}
		}
	}
	return leaf, nil
}

// part is part i of equal parts.
func part[E any](x []E, i, of int) []E { return x[len(x)*i/of : len(x)*(i+1)/of] }

// slice is part i of a matrix's rows, or of its columns, in the format that it has.
func slice(w *llm.Matrix, i, of int, cols bool) (llm.Matrix, error) {
	if !cols {
		return llm.Matrix{Type: w.Type, N: w.N / of, K: w.K, F32: part(w.F32, i, of), Data: part(w.Data, i, of)}, nil
	}
	out := llm.Matrix{Type: w.Type, N: w.N, K: w.K / of}
	if w.Type != quant.F32 && out.K%w.Type.Block() != 0 {
		return out, fmt.Errorf("%d columns in %d parts are not whole blocks of %v: take fewer leaves or another format", w.K, of, w.Type)
	}
	for n := range w.N {
		if w.F32 != nil {
			out.F32 = append(out.F32, part(w.F32[n*w.K:(n+1)*w.K], i, of)...)
		} else {
			row := len(w.Data) / w.N
			out.Data = append(out.Data, part(w.Data[n*row:(n+1)*row], i, of)...)
		}
	}
	return out, nil
}

// Close ends the threads and gives back packed leaves.
func (g *Group) Close() {
	for _, leaf := range g.leaves {
		leaf.Model.Close()
	}
	g.pool.Close()
}

// NewCache makes a cache for up to capacity tokens.
func (g *Group) NewCache(capacity int) (*Cache, error) {
	c := &Cache{}
	for _, leaf := range g.leaves {
		kv, err := leaf.Model.NewCache(1, g.Model.Layers+1, capacity)
		if err != nil {
			return nil, err
		}
		c.leaves = append(c.leaves, kv)
	}
	return c, nil
}

// NodeBytes is what one node holds of the layers.
func (g *Group) NodeBytes() units.Bytes {
	var n units.Bytes
	for _, leaf := range g.leaves[:g.Leaves/g.Nodes] {
		n += leaf.Model.WeightBytes(1, g.Model.Layers+1)
	}
	return n
}

// Forward runs the new tokens of each sequence through all layers. On error no cache has grown.
func (g *Group) Forward(seqs []Seq) error {
	m := g.Model
	g.seqs = g.seqs[:0]
	for i := range seqs {
		c := seqs[i].Cache
		if c == nil || len(c.leaves) != g.Leaves || c.Len()+len(seqs[i].IDs) > c.leaves[0].Cap() {
			return fmt.Errorf("sharded forward: sequence %d: want a cache of this group with room for %d more tokens", i, len(seqs[i].IDs))
		}
		g.seqs = append(g.seqs, llm.Seq{IDs: seqs[i].IDs})
	}
	if err := g.root.Forward(0, 0, g.seqs); err != nil {
		return fmt.Errorf("sharded forward: %w", err)
	}
	g.hidden = g.hidden[:0]
	for i := range g.seqs {
		g.hidden = append(g.hidden, g.seqs[i].Out...)
	}
	for l := range m.Layers {
		for _, half := range []llm.Half{llm.AttentionHalf, llm.FeedForwardHalf} {
			if err := g.half(l, half, seqs); err != nil {
				return fmt.Errorf("sharded forward: %w", err)
			}
		}
	}
	row := 0
	for i := range seqs {
		n := len(seqs[i].IDs)
		for _, leaf := range seqs[i].Cache.leaves {
			leaf.SetLen(leaf.Len() + n)
		}
		g.seqs[i] = llm.Seq{Hidden: g.hidden[row*m.Dim : (row+n)*m.Dim], Want: seqs[i].Want}
		row += n
	}
	if err := g.root.Forward(m.Layers, m.Layers, g.seqs); err != nil {
		return fmt.Errorf("sharded forward: %w", err)
	}
	for i := range seqs {
		seqs[i].Out = g.seqs[i].Out
	}
	return nil
}

// half runs one half of a layer on every leaf and adds the sum to the hidden states.
func (g *Group) half(l int, half llm.Half, seqs []Seq) error {
	C := g.Model.Dim
	for i, leaf := range g.leaves {
		row := 0
		for s := range seqs {
			n := len(seqs[s].IDs)
			g.seqs[s] = llm.Seq{Hidden: g.hidden[row*C : (row+n)*C]}
			if half == llm.AttentionHalf {
				g.seqs[s].Cache = seqs[s].Cache.leaves[i].Span(l+1, l+2)
			}
			row += n
		}
		if err := leaf.Half(l+1, half, g.seqs); err != nil {
			return err
		}
		g.parts[i] = g.parts[i][:0]
		for s := range seqs {
			g.parts[i] = append(g.parts[i], g.seqs[s].Out...)
		}
	}
	tensor.Add(g.hidden, g.sum())
	return nil
}

// sum adds the parts of all leaves as a balanced tree: those of a node first, then those of neighbouring nodes.
func (g *Group) sum() []float32 {
	Tree(g.parts)
	if g.Nodes == 1 {
		return g.parts[0]
	}
	g.Syncs++
	g.Traffic += SyncBytes(Star, g.Nodes, len(g.parts[0]), 4)
	if g.Noise > 0 {
		deviation := math.Sqrt(g.Noise)
		for i := range g.parts[0] {
			g.parts[0][i] += float32(deviation * rng.Normal(g.noise))
		}
	}
	return g.parts[0]
}

// Tree adds vectors of one length, a power of two of them, into the first: neighbours, then neighbouring pairs, and so on. Any
// cut into equal runs of neighbours, each added up as a Tree first, gives the same bits.
func Tree(parts [][]float32) {
	for apart := 1; apart < len(parts); apart *= 2 {
		for i := 0; i+apart < len(parts); i += 2 * apart {
			tensor.Add(parts[i], parts[i+apart])
		}
	}
}

// Collective is a way to sum vectors over nodes so that all have the sum.
type Collective int

const (
	Star Collective = iota // all send to one node, which sends the sum back to each (distributed-llama)
	Ring                   // reduce-scatter, then all-gather: no node sends much more than two vectors
	Air                    // all send at once and the channel adds; one broadcast brings the sum back
)

// SyncBytes is what all nodes together send to sum vectors of n values of size bytes each, once. Of Air it is what occupies
// the channel: one vector up, whatever the number of nodes, and one down. A layer of a Group takes two such sums of T·C
// values.
func SyncBytes(c Collective, nodes, n, size int) units.Bytes {
	switch {
	case nodes < 2:
		return 0
	case c == Air:
		return units.Bytes(2 * n * size)
	}
	return units.Bytes(2 * (nodes - 1) * n * size)
}

// BusiestBytes is what the node that sends most sends in one such sum.
func BusiestBytes(c Collective, nodes, n, size int) units.Bytes {
	switch {
	case nodes < 2:
		return 0
	case c == Star:
		return units.Bytes((nodes - 1) * n * size)
	case c == Ring: // each of 2(nodes-1) steps sends a piece, at most ⌈n/nodes⌉ values
		return units.Bytes(2 * (nodes - 1) * ((n + nodes - 1) / nodes) * size)
	}
	return units.Bytes(n * size)
}

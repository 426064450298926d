package train

import (
	"fmt"
	"slices"

	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/tensor"
)

// extra is what a method adds to a model that stays as it is.
type extra struct {
	layers []layerExtra
	head   *lowRank
	prompt []float32 // (n, C): stands before the first token
}

// layerExtra is what is added to a layer; what is not there is nil.
type layerExtra struct {
	low              [sites]*lowRank
	bottle           [2]*bottleneck // behind attention, behind the feed-forward network
	prefixK, prefixV []float32      // (n, G·D), not rotated
}

// Sites of the matrices of a layer.
const (
	siteQ = iota
	siteK
	siteV
	siteOut
	siteGate
	siteUp
	siteDown
	sites
)

var siteNames = [sites]string{"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}

// lowRank is a change scale·B·A of a matrix (N, K).
type lowRank struct {
	rank  int
	scale float32
	a, b  []float32 // (rank, K), (N, rank)
}

// bottleneck is h + U·silu(D·h + b) + c.
type bottleneck struct {
	width   int
	down, b []float32 // (m, C), (m)
	up, c   []float32 // (C, m), (C)
}

// slots lists what a method adds, each with where its view goes.
func (e *extra) slots(c llm.Config, m Method) ([]slot, error) {
	switch m.Kind {
	case "prompt":
		return []slot{{Part{Name: "prompt", N: m.Tokens, K: c.Dim}, func(v []float32) { e.prompt = v }}}, nil
	case "lora":
		return e.lowRanks(c, m)
	}
	var out []slot
	for i := m.From; i < c.Layers; i++ {
		l, name := &e.layers[i], fmt.Sprintf("blk.%d.", i)
		if m.Kind == "prefix" {
			out = append(out, slot{Part{Name: name + "prefix_k", N: m.Tokens, K: c.KVDim()}, func(v []float32) { l.prefixK = v }},
				slot{Part{Name: name + "prefix_v", N: m.Tokens, K: c.KVDim()}, func(v []float32) { l.prefixV = v }})
			continue
		}
		for j, place := range []string{"attn", "ffn"} {
			b := &bottleneck{width: m.Width}
			l.bottle[j] = b
			name := name + place + "_adapter."
			out = append(out, slot{Part{Name: name + "down", N: m.Width, K: c.Dim}, func(v []float32) { b.down = v }},
				slot{Part{Name: name + "b", N: 1, K: m.Width}, func(v []float32) { b.b = v }},
				slot{Part{Name: name + "up", N: c.Dim, K: m.Width}, func(v []float32) { b.up = v }},
				slot{Part{Name: name + "c", N: 1, K: c.Dim}, func(v []float32) { b.c = v }})
		}
	}
	return out, nil
}

// lowRanks are the factors of a LoRA.
func (e *extra) lowRanks(c llm.Config, m Method) (out []slot, err error) {
	targets := m.Targets
	if len(targets) == 0 {
		targets = []string{"attn_q", "attn_v"}
	}
	pairs, err := pairsOf(c, m.Rank, targets)
	if err != nil {
		return nil, err
	}
	for _, p := range pairs {
		layer, _, inside := gguf.LayerOf(p.Name)
		if inside && layer < m.From {
			continue
		}
		low := &lowRank{rank: m.Rank, scale: float32(m.alpha() / float64(m.Rank))}
		if inside {
			site := slices.IndexFunc(siteNames[:], func(s string) bool { return p.Name == fmt.Sprintf("blk.%d.%s.weight", layer, s) })
			e.layers[layer].low[site] = low
		} else {
			e.head = low
		}
		out = append(out, slot{Part{Name: p.Name + ".lora_a", N: m.Rank, K: p.K}, func(v []float32) { low.a = v }},
			slot{Part{Name: p.Name + ".lora_b", N: p.N, K: m.Rank}, func(v []float32) { low.b = v }})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("tune a model: no matrix of %v lies in layers from %d on", targets, m.From)
	}
	return out, nil
}

// add adds the change of x (T, K) to out (T, N), and leaves scale·x·Aᵀ in mid for the backward pass.
func (l *lowRank) add(p *tensor.Pool, out, x []float32, mid *[]float32, T int) {
	N, K := len(l.b)/l.rank, len(l.a)/l.rank
	room(mid, T*l.rank)
	p.MatMul(*mid, x, l.a, T, l.rank, K)
	tensor.Scale(*mid, l.scale)
	p.Gemm(tensor.NewMat(out, T, N), tensor.NewMat(*mid, T, l.rank), tensor.NewMat(l.b, N, l.rank).T(), true)
}

// back adds the gradients of the factors to g, and that of x to dx unless it is nil. scratch is made as large as mid.
func (l *lowRank) back(p *tensor.Pool, g *lowRank, dx, dy, x, mid []float32, scratch *[]float32, T int) {
	N, K := len(l.b)/l.rank, len(l.a)/l.rank
	p.MatMulGradW(g.b, dy, mid, T, N, l.rank)
	room(scratch, T*l.rank)
	p.MatMulGradX(*scratch, dy, l.b, T, N, l.rank, false)
	tensor.Scale(*scratch, l.scale)
	p.MatMulGradW(g.a, *scratch, x, T, l.rank, K)
	if dx != nil {
		p.MatMulGradX(dx, *scratch, l.a, T, l.rank, K, true)
	}
}

// bottleTape is what a bottleneck's forward pass leaves.
type bottleTape struct{ in, mid, act []float32 } // (T, C), (T, m), (T, m)

// forward replaces h (T, C) by the output.
func (b *bottleneck) forward(p *tensor.Pool, t *bottleTape, h []float32, T int) {
	C := len(b.c)
	room(&t.in, T*C)
	room(&t.mid, T*b.width)
	room(&t.act, T*b.width)
	copy(t.in, h)
	p.MatMul(t.mid, h, b.down, T, b.width, C)
	tensor.AddRow(t.mid, b.b, T)
	for i, v := range t.mid {
		t.act[i] = tensor.SiLU(v)
	}
	p.Gemm(tensor.NewMat(h, T, C), tensor.NewMat(t.act, T, b.width), tensor.NewMat(b.up, C, b.width).T(), true)
	tensor.AddRow(h, b.c, T)
}

// backward turns dh of the output into that of the input and adds to g. scratch is of (T, m).
func (b *bottleneck) backward(p *tensor.Pool, g *bottleneck, t *bottleTape, dh []float32, scratch *[]float32, T int) {
	C := len(b.c)
	SumRows(g.c, dh, T)
	p.MatMulGradW(g.up, dh, t.act, T, C, b.width)
	room(scratch, T*b.width)
	p.MatMulGradX(*scratch, dh, b.up, T, C, b.width, false)
	for i, v := range t.mid {
		s := sigmoid(v)
		(*scratch)[i] *= s * (1 + v*(1-s))
	}
	SumRows(g.b, *scratch, T)
	p.MatMulGradW(g.down, *scratch, t.in, T, b.width, C)
	p.MatMulGradX(dh, *scratch, b.down, T, b.width, C, true)
}

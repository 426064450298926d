// Package llm is a decoder-only transformer of the llama family, written to be checked first and to be fast second.
//
// # The one idea: a span of layers is a function
//
// A model is embedding, layers 0..L-1, head. [Work.Forward] runs any span [lo, hi) of layers for a batch of sequences,
// each with its new tokens (ids, or hidden states that another machine computed) and the [Cache] of that span. One
// call therefore covers prefill, prefill in chunks, batched decode, and every way to split a model between machines:
//
//	device:  Forward(0, k, ids)     -> hidden states, sent over a link
//	edge:    Forward(k, L, hidden)  -> logits
//
// Results are equal BIT FOR BIT however the work is cut: at any layer, in any chunks, in any batch, on any number of
// threads, because each output element is one chain of additions (see package tensor). The tests demand equality.
//
// # A model
//
// [Open] and [Read] load GGUF files of architectures llama and qwen2, whole or one span; [New] makes random weights;
// [Model.Write] writes a file that other engines load. Weights stay in the format of the file and are decoded as they
// are used; [Model.As] converts. A model in F32 exposes every weight as a float32 slice ([Model.Params]), which is
// what training changes in place. A Model is read-only during Forward, so many goroutines may share one; a [Work] and
// a Cache belong to one goroutine at a time.
//
// What it does not do: other architectures, mixtures of experts, YaRN and linear position scaling, sliding windows.
// Those are refused by name when a file is opened. Tokenizers are package token's.
package llm

import (
	"fmt"
	"math"
	"strings"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// Matrix is the weight of a linear layer, (N, K) row-major: out = x·Wᵀ. Exactly one of F32 and Data is set.
type Matrix struct {
	Type quant.Type
	N, K int
	F32  []float32 // Type is F32: the weights
	Data []byte    // else: encoded rows
}

// ReadRow decodes part of row n, from column k on. See [tensor.RowReader].
func (m *Matrix) ReadRow(dst []float32, n, k int) {
	if m.F32 != nil {
		copy(dst, m.F32[n*m.K+k:])
		return
	}
	(&quant.Matrix{Type: m.Type, N: m.N, K: m.K, Data: m.Data}).ReadRow(dst, n, k)
}

// Bytes is the resident size of the weights.
func (m *Matrix) Bytes() units.Bytes { return units.Bytes(4*len(m.F32) + len(m.Data)) }

// mul computes out = x·Wᵀ. out: (T, N), x: (T, K).
func (m *Matrix) mul(p *tensor.Pool, out, x []float32, T int) {
	if m.F32 != nil {
		p.MatMul(out, x, m.F32, T, m.N, m.K)
	} else {
		p.MatMulRows(out, x, m, T, m.N, m.K)
	}
}

// Block is one transformer layer: x += Wo·attention(norm x), then x += Down·(silu(Gate·norm x) * Up·norm x).
type Block struct {
	AttnNorm   []float32 // (C)
	Q, K, V    Matrix    // (H·D, C), (G·D, C), (G·D, C)
	QB, KB, VB []float32 // biases (H·D), (G·D), (G·D); nil for llama
	Out        Matrix    // (C, H·D)
	FFNNorm    []float32 // (C)
	Gate, Up   Matrix    // (F, C)
	Down       Matrix    // (C, F)
}

// Model is a configuration and the weights of layers [Lo, Hi).
type Model struct {
	Config
	Lo, Hi      int       // the span that is loaded; embedding only with layer 0, norm and head only with layer L-1
	Embed       Matrix    // (V, C)
	Blocks      []Block   // L entries, zero outside the span
	Norm        []float32 // (C)
	Head        Matrix    // (V, C); zero if Tied
	RopeFactors []float32 // (D/2) divisors of the rotation angles, or nil
}

// head is the matrix that turns hidden states into logits.
func (m *Model) head() *Matrix {
	if m.Tied {
		return &m.Embed
	}
	return &m.Head
}

// Weight is one tensor of a model, under its GGUF name: a matrix, or a vector (norms and biases).
type Weight struct {
	Name   string
	Matrix *Matrix
	Vector *[]float32
	N, K   int // shape; a vector has N = 1
}

// Weights lists the tensors that the loaded span has, or must have once it is loaded, in file order.
func (m *Model) Weights() []Weight {
	c := m.Config
	var list []Weight
	matrix := func(name string, w *Matrix, n, k int) { list = append(list, Weight{name + ".weight", w, nil, n, k}) }
	vector := func(name string, w *[]float32, n int) { list = append(list, Weight{name, nil, w, 1, n}) }
	if m.Lo == 0 || (c.Tied && m.Hi == c.Layers) {
		matrix("token_embd", &m.Embed, c.Vocab, c.Dim)
	}
	for i := m.Lo; i < m.Hi; i++ {
		l, blk := &m.Blocks[i], fmt.Sprintf("blk.%d.", i)
		vector(blk+"attn_norm.weight", &l.AttnNorm, c.Dim)
		matrix(blk+"attn_q", &l.Q, c.QDim(), c.Dim)
		matrix(blk+"attn_k", &l.K, c.KVDim(), c.Dim)
		matrix(blk+"attn_v", &l.V, c.KVDim(), c.Dim)
		if c.QKVBias() {
			vector(blk+"attn_q.bias", &l.QB, c.QDim())
			vector(blk+"attn_k.bias", &l.KB, c.KVDim())
			vector(blk+"attn_v.bias", &l.VB, c.KVDim())
		}
		matrix(blk+"attn_output", &l.Out, c.Dim, c.QDim())
		vector(blk+"ffn_norm.weight", &l.FFNNorm, c.Dim)
		matrix(blk+"ffn_gate", &l.Gate, c.FFN, c.Dim)
		matrix(blk+"ffn_up", &l.Up, c.FFN, c.Dim)
		matrix(blk+"ffn_down", &l.Down, c.Dim, c.FFN)
	}
	if m.Hi == c.Layers {
		vector("output_norm.weight", &m.Norm, c.Dim)
		if !c.Tied {
			matrix("output", &m.Head, c.Vocab, c.Dim)
		}
	}
	return list
}

// Param is one tensor of an F32 model: writing to Data changes the model.
type Param struct {
	Name string
	N, K int // shape; vectors have N = 1
	Data []float32
}

// Params lists all weights of an F32 model in file order, for optimisers and federated averaging. It fails if a
// matrix is not F32; convert with As(quant.F32) first.
func (m *Model) Params() ([]Param, error) {
	var list []Param
	for _, w := range m.Weights() {
		p := Param{w.Name, w.N, w.K, nil}
		switch {
		case w.Vector != nil:
			p.Data = *w.Vector
		case w.Matrix.F32 != nil:
			p.Data = w.Matrix.F32
		default:
			return nil, fmt.Errorf("list parameters: %s is %v, want F32: convert the model with As(quant.F32)", w.Name, w.Matrix.Type)
		}
		list = append(list, p)
	}
	return list, nil
}

// WeightBytes is the resident size of layers [lo, hi), plus embedding, norm and head where they are loaded and the
// span touches them.
func (m *Model) WeightBytes(lo, hi int) units.Bytes {
	part := Model{Config: m.Config, Lo: lo, Hi: hi, Embed: m.Embed, Blocks: m.Blocks, Norm: m.Norm, Head: m.Head}
	var n units.Bytes
	for _, w := range part.Weights() {
		if w.Vector != nil {
			n += units.Bytes(4 * len(*w.Vector))
		} else {
			n += w.Matrix.Bytes()
		}
	}
	return n
}

// New makes an F32 model with random weights: normal with deviation 0.02, matrices that add to the residual stream
// scaled by 1/√(2L) (GPT-2's initialisation), norms one, biases zero. Each tensor has its own stream of luck.
func New(c Config, seed uint64) (*Model, error) {
	c = c.WithDefaults()
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("new model: %w", err)
	}
	m := &Model{Config: c, Hi: c.Layers, Blocks: make([]Block, c.Layers)}
	for _, w := range m.Weights() {
		data := make([]float32, w.N*w.K)
		if w.Vector != nil {
			*w.Vector = data
			for i := range data {
				if strings.HasSuffix(w.Name, "norm.weight") {
					data[i] = 1
				}
			}
			continue
		}
		deviation := 0.02
		for i := m.Lo; i < m.Hi; i++ {
			if w.Matrix == &m.Blocks[i].Out || w.Matrix == &m.Blocks[i].Down {
				deviation = 0.02 / math.Sqrt(float64(2*c.Layers))
			}
		}
		r := rng.Stream(seed, "llm.New", w.Name)
		for i := range data {
			data[i] = float32(deviation * rng.Normal(r))
		}
		*w.Matrix = Matrix{Type: quant.F32, N: w.N, K: w.K, F32: data}
	}
	return m, nil
}

// As returns a copy with every matrix in type t; vectors are copied as they are. It fails if rows are not a whole
// number of blocks of t, or if a weight is out of range.
func (m *Model) As(t quant.Type) (*Model, error) {
	out := &Model{Config: m.Config, Lo: m.Lo, Hi: m.Hi, Blocks: make([]Block, len(m.Blocks))}
	out.RopeFactors = append([]float32(nil), m.RopeFactors...)
	from := m.Weights()
	for i, w := range out.Weights() {
		if w.Vector != nil {
			*w.Vector = append([]float32(nil), *from[i].Vector...)
			continue
		}
		converted, err := from[i].Matrix.as(t)
		if err != nil {
			return nil, fmt.Errorf("convert %s to %v: %w", w.Name, t, err)
		}
		*w.Matrix = converted
	}
	return out, nil
}

func (m *Matrix) as(t quant.Type) (Matrix, error) {
	size, err := t.RowBytes(m.K)
	if err != nil {
		return Matrix{}, err
	}
	f32 := make([]float32, m.N*m.K)
	for n := range m.N {
		m.ReadRow(f32[n*m.K:(n+1)*m.K], n, 0)
	}
	if t == quant.F32 {
		return Matrix{Type: t, N: m.N, K: m.K, F32: f32}, nil
	}
	data := make([]byte, m.N*size)
	if err := quant.Encode(t, data, f32); err != nil {
		return Matrix{}, err
	}
	return Matrix{Type: t, N: m.N, K: m.K, Data: data}, nil
}

package hardware

import (
	"fmt"

	"meibench/internal/units"
)

// Model is what hardware needs to know of a decoder-only transformer: its
// shape, from which bytes and operations per span of layers follow.
type Model struct {
	Name    string
	Arch    string // GGUF architecture: llama, qwen2, ...
	Quant   string // weight format: f32, f16, q8_0, q4_0, ...
	Layers  int
	Dim     int // C, width of the residual stream
	Heads   int
	KVHeads int
	HeadDim int
	FFN     int
	Vocab   int
	Tied    bool // head shares the embedding's weights

	BytesPerWeight float64 // of matrices, from Quant's block layout
	KVBytes        float64 // per cached element
	Digest         string  // SHA-256 of the file, or of the profile if there is no file
}

// All is the whole model as one span.
func (m *Model) All() Span { return Span{0, m.Layers} }

// Validate says what is wrong with a shape.
func (m *Model) Validate() error {
	switch {
	case m.Layers <= 0 || m.Dim <= 0 || m.Heads <= 0 || m.KVHeads <= 0 || m.HeadDim <= 0 || m.FFN <= 0 || m.Vocab <= 0:
		return fmt.Errorf("model %q: every dimension must be positive: %+v", m.Name, *m)
	case m.Heads%m.KVHeads != 0:
		return fmt.Errorf("model %q: heads (%d) must be a multiple of kv heads (%d)", m.Name, m.Heads, m.KVHeads)
	case m.BytesPerWeight <= 0 || m.KVBytes <= 0:
		return fmt.Errorf("model %q: bytes per weight and per KV element must be positive", m.Name)
	}
	return nil
}

// layerParams is the number of matrix weights in one layer: Q, K, V, O and the
// three matrices of a gated feed-forward network.
func (m *Model) layerParams() int64 {
	q, kv := int64(m.Heads*m.HeadDim), int64(m.KVHeads*m.HeadDim)
	d, f := int64(m.Dim), int64(m.FFN)
	return d*q + 2*d*kv + q*d + 3*d*f
}

// Params counts the matrix weights held by a span; the embedding belongs to a
// span that starts at 0, the head to one that reaches the top (not twice if
// tied and both are in the span).
func (m *Model) Params(s Span) int64 {
	n := int64(s.Len()) * m.layerParams()
	table := int64(m.Vocab) * int64(m.Dim)
	if s.Lo == 0 {
		n += table
	}
	if s.Hi == m.Layers && !(m.Tied && s.Lo == 0) {
		n += table
	}
	return n
}

// WeightBytes is the memory the weights of a span need.
func (m *Model) WeightBytes(s Span) units.Bytes {
	return units.Bytes(float64(m.Params(s)) * m.BytesPerWeight)
}

// ReadBytes is the weight traffic of one forward pass of a span, whatever the
// number of tokens: every matrix once, of the embedding only the rows looked up.
func (m *Model) ReadBytes(s Span, tokens int) units.Bytes {
	n := float64(int64(s.Len()) * m.layerParams())
	if s.Hi == m.Layers {
		n += float64(m.Vocab * m.Dim)
	}
	if s.Lo == 0 {
		n += float64(tokens * m.Dim)
	}
	return units.Bytes(n * m.BytesPerWeight)
}

// KVBytesPerToken is the cache a span keeps for one token: K and V.
func (m *Model) KVBytesPerToken(s Span) units.Bytes {
	return units.Bytes(2 * float64(s.Len()*m.KVHeads*m.HeadDim) * m.KVBytes)
}

// FLOP counts one forward pass of a span over newTokens tokens on top of
// context cached ones: 2 per weight and token, plus attention (4 per query,
// key and head element; causal). The head runs for heads tokens (1 for a
// prefill that samples once).
func (m *Model) FLOP(s Span, context, newTokens, heads int) units.FLOP {
	n := float64(newTokens)
	f := 2 * float64(m.layerParams()) * float64(s.Len()) * n
	keys := float64(n*float64(context)) + float64(n*(n+1)/2)
	f += float64(4 * float64(s.Len()*m.Heads*m.HeadDim) * keys)
	if s.Hi == m.Layers {
		f += float64(2 * m.Vocab * m.Dim * heads)
	}
	return units.FLOP(f)
}

// HiddenBytes is the size of the activations of n tokens at a cut, with
// bytesPerElem bytes per element (4 for F32 on the wire).
func (m *Model) HiddenBytes(n int, bytesPerElem float64) units.Bytes {
	return units.Bytes(float64(n) * float64(m.Dim) * bytesPerElem)
}

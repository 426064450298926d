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

	Experts     int // per layer; 0 = a dense feed-forward network
	ExpertsUsed int // of these, by one token
	LoRARank    int // of adapters on every matrix of a layer; 0 = none expected

	End int32 // token that ends an answer; of no meaning where only the shape is known

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

// attnParams is the number of matrix weights in one layer's attention (Q, K, V,
// O), ffnParams in one gated feed-forward network or expert.
func (m *Model) attnParams() int64 {
	q, kv, d := int64(m.Heads*m.HeadDim), int64(m.KVHeads*m.HeadDim), int64(m.Dim)
	return d*q + 2*d*kv + q*d
}

func (m *Model) ffnParams() int64 { return 3 * int64(m.Dim) * int64(m.FFN) }

// layerParams is the number of matrix weights in one layer, all experts and
// their gate included; touchedParams those that a pass over so many tokens reads,
// activeParams those that one token is multiplied with.
func (m *Model) layerParams() int64 {
	return m.attnParams() + max(int64(m.Experts), 1)*m.ffnParams() + int64(m.Experts*m.Dim)
}

func (m *Model) activeParams() int64 {
	if m.Experts == 0 {
		return m.layerParams()
	}
	return m.attnParams() + int64(m.ExpertsUsed)*m.ffnParams() + int64(m.Experts*m.Dim)
}

func (m *Model) touchedParams(tokens int) float64 {
	if m.Experts == 0 {
		return float64(m.layerParams())
	}
	return float64(m.attnParams()+int64(m.Experts*m.Dim)) + float64(m.Coverage(tokens)*float64(m.ffnParams()))
}

// Coverage is how many of a layer's experts a pass over so many tokens touches on
// average, if the gate chooses evenly and independently: E(1-(1-k/E)^n).
func (m *Model) Coverage(tokens int) float64 {
	if m.Experts == 0 {
		return 0
	}
	miss, base := 1.0, 1-float64(m.ExpertsUsed)/float64(m.Experts)
	for ; tokens > 0; tokens >>= 1 { // base^tokens by squares: the same bits everywhere
		if tokens&1 == 1 {
			miss *= base
		}
		base *= base
	}
	return float64(m.Experts) * (1 - miss)
}

// adapterParams is the number of weights that LoRA adapters add to one layer:
// rank × (inputs + outputs) of each of the seven matrices (every expert's too).
func (m *Model) adapterParams() int64 {
	q, kv, d, f := int64(m.Heads*m.HeadDim), int64(m.KVHeads*m.HeadDim), int64(m.Dim), int64(m.FFN)
	attn := 2*(d+q) + 2*(d+kv)
	return int64(m.LoRARank) * (attn + max(int64(m.Experts), 1)*3*(d+f))
}

// AdapterBytes is the size of one adapter of LoRARank for a span, in F16.
func (m *Model) AdapterBytes(s Span) units.Bytes {
	return units.Bytes(2 * int64(s.Len()) * m.adapterParams())
}

// AdapterFLOP is what an adapter adds for one token of a span.
func (m *Model) AdapterFLOP(s Span) units.FLOP {
	return units.FLOP(2 * int64(s.Len()) * m.adapterParams())
}

// Shard is the shape of one of n equal parts of the model: heads, feed-forward
// columns and vocabulary divided, width and depth whole (Megatron-LM's tensor
// parallelism). It is an error if the heads do not divide evenly.
func (m *Model) Shard(n int) (*Model, error) {
	if n < 1 || m.KVHeads%n != 0 || m.Heads%n != 0 {
		return nil, fmt.Errorf("model %q: %d heads and %d KV heads cannot be divided among %d nodes", m.Name, m.Heads, m.KVHeads, n)
	}
	part := *m
	if n > 1 {
		part.Name = fmt.Sprintf("%s (1 of %d shards)", m.Name, n)
		part.Digest = ""
	}
	part.Heads, part.KVHeads = m.Heads/n, m.KVHeads/n
	part.FFN, part.Vocab = (m.FFN+n-1)/n, (m.Vocab+n-1)/n
	return &part, nil
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
	n := float64(float64(s.Len()) * m.touchedParams(tokens))
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
	f := 2 * float64(m.activeParams()) * float64(s.Len()) * n
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

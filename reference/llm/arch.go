package llm

import (
	"fmt"
	"strings"

	"meibench/reference/tensor"
)

// The architectures that this package runs, by their GGUF names.
const (
	Gemma    = "gemma"
	Gemma2   = "gemma2"
	Gemma3   = "gemma3"
	Llama    = "llama" // with Experts it is Mixtral
	Phi2     = "phi2"
	Phi3     = "phi3"
	Qwen2    = "qwen2"
	Qwen2MoE = "qwen2moe"
	Qwen3    = "qwen3"
	Qwen3MoE = "qwen3moe"
)

// traits are what an architecture does differently from llama. Everything that depends on an architecture's name is in
// this one table; numbers that vary inside an architecture are in [Config].
type traits struct {
	name string
	rope tensor.RopeStyle // which channels rotate together

	qkvBias    bool // query, key and value have biases
	qkNorm     bool // each head of query and key is normalised before it is rotated
	fused      bool // the file stores Q, K, V as one tensor, and Gate, Up as one
	layerNorm  bool // LayerNorm with bias in place of RMSNorm, and every linear layer has a bias
	parallel   bool // attention and feed-forward read the same normalised state
	postNorms  bool // the outputs of attention and feed-forward are normalised before they are added
	embedScale bool // embeddings are multiplied by √C

	feed ffnKind

	// Layers whose number plus one is a multiple of pattern see all positions, the others Config.Window of them; 0
	// means that all layers have the window, if there is one.
	pattern   int
	window    int     // Config.Window if the file does not say
	localBase float64 // base of the rotation in layers with a window, 0 for that of all layers
	wide      int     // the size with this many layers scales scores by 1/√(C/H) where others do by 1/√D

	experts expertKind
}

// ffnKind is the formula of a feed-forward layer.
type ffnKind int

const (
	gatedSiLU ffnKind = iota // Down·(silu(Gate·x) * Up·x)
	gatedGELU                // Down·(gelu(Gate·x) * Up·x)
	plainGELU                // Down·gelu(Up·x)
)

// expertKind says how a mixture of experts is formed.
type expertKind int

const (
	noExperts     expertKind = iota
	renormalised             // the shares of the chosen experts are scaled to a sum of one
	sharedAndRest            // shares stay as they are; one more expert sees every token, behind a gate of its own
)

// architectures, sorted by name.
//
// Sources: Gemma Team 2024 (gemma, arXiv 2403.08295; gemma2, 2408.00118), 2025 (gemma3, 2503.19786); Touvron et al. 2023
// (llama, 2302.13971); Jiang et al. 2024 (Mixtral, 2401.04088); Javaheripi et al. 2023 (phi2), Abdin et al. 2024 (phi3,
// 2404.14219); Yang et al. 2024 (qwen2 and qwen2moe, 2407.10671), 2025 (qwen3, 2505.09388). Window and pattern defaults
// are those of the published configurations.
var architectures = []traits{
	{name: Gemma, rope: tensor.RopeNeox, embedScale: true, feed: gatedGELU},
	{name: Gemma2, rope: tensor.RopeNeox, embedScale: true, feed: gatedGELU, postNorms: true, pattern: 2, window: 4096, wide: 46},
	{name: Gemma3, rope: tensor.RopeNeox, embedScale: true, feed: gatedGELU, postNorms: true, qkNorm: true, pattern: 6, localBase: 10000, wide: 62},
	{name: Llama, rope: tensor.RopeNorm, experts: renormalised},
	{name: Phi2, rope: tensor.RopeNeox, feed: plainGELU, layerNorm: true, parallel: true, qkvBias: true, fused: true},
	{name: Phi3, rope: tensor.RopeNeox, fused: true},
	{name: Qwen2, rope: tensor.RopeNeox, qkvBias: true},
	{name: Qwen2MoE, rope: tensor.RopeNeox, qkvBias: true, experts: sharedAndRest},
	{name: Qwen3, rope: tensor.RopeNeox, qkNorm: true},
	{name: Qwen3MoE, rope: tensor.RopeNeox, qkNorm: true, experts: renormalised},
}

// Architectures lists the names of the architectures that this package runs.
func Architectures() []string {
	names := make([]string, len(architectures))
	for i, a := range architectures {
		names[i] = a.name
	}
	return names
}

// traits are those of the configuration's architecture, none if it is not supported; for reading only.
func (c Config) traits() *traits {
	for i := range architectures {
		if architectures[i].name == c.Arch {
			return &architectures[i]
		}
	}
	return &traits{}
}

func (c Config) checkArch() error {
	if c.traits().name == "" {
		return fmt.Errorf("architecture %.40q is not supported, want one of %s: convert to one of these or choose another model",
			c.Arch, strings.Join(Architectures(), ", "))
	}
	return nil
}

// Plain reports whether the model is nothing but llama or qwen2: RMSNorm, rotation of all channels, causal attention
// over all positions, one SwiGLU per layer. This is what package train can train.
func (c Config) Plain() bool {
	t := c.traits()
	bare := traits{name: t.name, rope: t.rope, qkvBias: t.qkvBias, experts: t.experts}
	plain := Config{Arch: c.Arch, Layers: c.Layers, Dim: c.Dim, Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, FFN: c.FFN,
		Vocab: c.Vocab, Context: c.Context, Eps: c.Eps, RopeBase: c.RopeBase, RopeDim: c.RopeDim, Tied: c.Tied}
	return *t == bare && c == plain && (c.RopeDim == 0 || c.RopeDim == c.HeadDim)
}

// QKVBias reports whether query, key and value have biases.
func (c Config) QKVBias() bool { return c.traits().qkvBias }

// SwiGLU reports whether every layer has one network Down·(silu(Gate·x) * Up·x).
func (c Config) SwiGLU() bool {
	t := c.traits()
	return t.name != "" && t.feed == gatedSiLU && c.Experts == 0
}

// windowOf is the number of positions that a token sees in a layer; 0 is all.
//
// Note: a window that the file names holds, as in the models' own code. llama.cpp has none for phi3 and llama; beyond
// the window (2047 tokens for Phi-3-mini-4k) logits differ from its.
func (c Config) windowOf(layer int) int {
	if p := c.traits().pattern; p > 0 && (layer+1)%p == 0 {
		return 0
	}
	return c.Window
}

// attentionScale multiplies the scores; 0 stands for 1/√D.
func (c Config) attentionScale() float32 {
	if t := c.traits(); t.wide > 0 && t.wide == c.Layers {
		return float32(invSqrt(c.Dim / c.Heads))
	}
	return 0
}

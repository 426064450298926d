package llm

import (
	"errors"
	"fmt"
	"math"

	"meibench/reference/gguf"
)

// ReadConfig reads a model's shape from metadata.
func ReadConfig(f *gguf.File) (Config, error) {
	k := keys{f: f}
	arch, err := gguf.Value[string](f, "general.architecture")
	if err != nil {
		return Config{}, err
	}
	if err := (Config{Arch: arch}).checkArch(); err != nil {
		return Config{}, err
	}
	k.arch = arch
	c := Config{
		Arch: arch, Layers: k.int("block_count", -1), Dim: k.int("embedding_length", -1), FFN: k.int("feed_forward_length", -1),
		Heads: k.int("attention.head_count", -1), Context: k.int("context_length", -1), RopeBase: k.float("rope.freq_base", 10000),
	}
	t := c.traits()
	c.Eps = float32(k.float(c.epsKey(), -1))
	c.KVHeads = k.int("attention.head_count_kv", c.Heads)
	c.HeadDim = k.int("attention.key_length", c.Dim/max(1, c.Heads))
	c.RopeDim = k.int("rope.dimension_count", c.HeadDim)
	c.Window = k.int("attention.sliding_window", t.window)
	c.AttnSoftcap = float32(k.float("attn_logit_softcapping", 0))
	c.FinalSoftcap = float32(k.float("final_logit_softcapping", 0))
	c.Rope = k.scaling()
	k.experts(&c)
	k.refuse(c)
	if c.Layers > len(f.Tensors) {
		k.fail(fmt.Errorf("key %q is %d, but the file has %d tensors in all", arch+".block_count", c.Layers, len(f.Tensors)))
	}
	embed, err := f.Tensor("token_embd.weight")
	if err != nil {
		return Config{}, err
	}
	if len(embed.Dims) == 2 {
		c.Vocab = embed.Dims[1]
	}
	_, err = f.Tensor("output.weight")
	c.Tied = err != nil
	if k.err != nil {
		return Config{}, k.err
	}
	c = c.WithDefaults()
	return c, c.Check()
}

// epsKey is the name of the norms' epsilon.
func (c Config) epsKey() string {
	if c.traits().layerNorm {
		return "attention.layer_norm_epsilon"
	}
	return "attention.layer_norm_rms_epsilon"
}

// scaling reads how positions are stretched. A file with a factor but no type means linear, one with long divisors means
// LongRoPE; divisors for all lengths (rope_freqs) need no key.
func (k *keys) scaling() RopeScaling {
	factor := k.float("rope.scaling.factor", 0)
	s := RopeScaling{OrigContext: k.int("rope.scaling.original_context_length", 0), Attention: k.float("rope.scaling.attn_factor", 0)}
	otherwise := "none"
	if _, err := k.f.Tensor("rope_factors_long.weight"); err == nil {
		otherwise = ScaleLongRoPE
	} else if factor > 0 {
		otherwise = ScaleLinear
	}
	switch s.Kind = k.text("rope.scaling.type", otherwise); s.Kind {
	case "none":
		s.Kind, s.Attention = "", 0
	case ScaleLongRoPE:
	default:
		s.Factor = factor
	}
	return s
}

// experts reads the sizes of a mixture.
func (k *keys) experts(c *Config) {
	if c.Experts = k.int("expert_count", 0); c.Experts == 0 {
		return
	}
	c.ExpertsUsed = k.int("expert_used_count", -1)
	each := c.FFN
	if c.Arch != Llama { // older files of the others give the sum over the experts that a token uses
		each /= max(1, c.ExpertsUsed)
	}
	c.ExpertFFN = k.int("expert_feed_forward_length", each)
	if c.traits().experts == sharedAndRest {
		c.SharedFFN = k.int("expert_shared_feed_forward_length", c.FFN)
	}
}

// keys reads metadata of one architecture and keeps the first error.
type keys struct {
	f    *gguf.File
	arch string
	err  error
}

func (k *keys) fail(err error) {
	if k.err == nil {
		k.err = err
	}
}

// int reads a size; a negative otherwise means that the key must be there.
func (k *keys) int(name string, otherwise int) int {
	v, err := k.f.Uint(k.arch + "." + name)
	if errors.Is(err, gguf.ErrMissing) && otherwise >= 0 {
		return otherwise
	}
	if err == nil && v > 1<<30 {
		err = fmt.Errorf("key %q is %d, which is not a plausible size", k.arch+"."+name, v)
	}
	if err != nil {
		k.fail(err)
		return 0
	}
	return int(v)
}

func (k *keys) float(name string, otherwise float64) float64 {
	v, err := k.f.Float(k.arch + "." + name)
	if errors.Is(err, gguf.ErrMissing) && otherwise >= 0 {
		return otherwise
	}
	if err != nil {
		k.fail(err)
	}
	return v
}

// refuse fails on options that change what the model computes and that this package does not implement.
func (k *keys) refuse(c Config) {
	if c.RopeDim == 0 {
		k.fail(fmt.Errorf("key %q is 0: a model without rotation is not supported", k.arch+".rope.dimension_count"))
	}
	if n := k.int("expert_shared_count", 0); n > 0 && c.traits().experts != sharedAndRest {
		k.fail(fmt.Errorf("the model has %d shared experts: %s has none here", n, c.Arch))
	}
	if v := k.float("expert_weights_scale", 0); v != 0 && v != 1 {
		k.fail(fmt.Errorf("the model scales the shares of experts by %g: only 1 is supported", v))
	}
	if n := k.int("expert_gating_func", 1); n > 1 {
		k.fail(fmt.Errorf("the model chooses experts by gating function %d: only softmax (1) is supported", n))
	}
	base := c.RopeBase
	if t := c.traits(); t.localBase > 0 {
		base = t.localBase
	}
	if b := k.float("rope.freq_base_swa", base); c.Window > 0 && float32(b) != float32(base) {
		k.fail(fmt.Errorf("layers with a window rotate with base %g: %s has %g here", b, c.Arch, base))
	}
	if p, t := k.int("attention.sliding_window_pattern", c.traits().pattern), c.traits(); c.Window > 0 && p != t.pattern {
		k.fail(fmt.Errorf("every layer that is a multiple of %d sees all positions: %s has %d here", p, c.Arch, t.pattern))
	}
	if n := k.int("attention.value_length", c.HeadDim); n != c.HeadDim {
		k.fail(fmt.Errorf("the model has %d value channels but %d key channels per head: want equal", n, c.HeadDim))
	}
}

func (k *keys) text(name, otherwise string) string {
	v, err := gguf.Value[string](k.f, k.arch+"."+name)
	if errors.Is(err, gguf.ErrMissing) {
		return otherwise
	}
	if err != nil {
		k.fail(err)
	}
	return v
}

// checkFactors refuses divisors that would turn a rotation into nonsense.
func (m *Model) checkFactors() error {
	for _, w := range m.factors() {
		for i, v := range *w.Vector {
			if !(v > 0 && v <= math.MaxFloat32) {
				return fmt.Errorf("load %s: divisor %d is %g, want above 0", w.Name, i, v)
			}
		}
	}
	if m.Rope.Kind == ScaleLongRoPE && (m.RopeFactors == nil || m.RopeLong == nil) {
		return errors.New("positions are scaled by \"longrope\", but rope_factors_short.weight or rope_factors_long.weight is missing")
	}
	return nil
}

// meta is the configuration as GGUF metadata.
func (c Config) meta() []gguf.KV {
	k := func(name string) string { return c.Arch + "." + name }
	meta := []gguf.KV{
		{Key: "general.architecture", Value: c.Arch},
		{Key: k("block_count"), Value: uint32(c.Layers)},
		{Key: k("context_length"), Value: uint32(c.Context)},
		{Key: k("embedding_length"), Value: uint32(c.Dim)},
		{Key: k("feed_forward_length"), Value: uint32(c.FFN)},
		{Key: k("attention.head_count"), Value: uint32(c.Heads)},
		{Key: k("attention.head_count_kv"), Value: uint32(c.KVHeads)},
		{Key: k("attention.key_length"), Value: uint32(c.HeadDim)},
		{Key: k("attention.value_length"), Value: uint32(c.HeadDim)},
		{Key: k(c.epsKey()), Value: c.Eps},
		{Key: k("rope.dimension_count"), Value: uint32(c.RopeDim)},
		{Key: k("rope.freq_base"), Value: float32(c.RopeBase)},
		{Key: k("vocab_size"), Value: uint32(c.Vocab)},
	}
	for _, o := range []struct {
		key   string
		set   bool
		value any
	}{
		{"attention.sliding_window", c.Window > 0, uint32(c.Window)},
		{"attn_logit_softcapping", c.AttnSoftcap > 0, c.AttnSoftcap},
		{"final_logit_softcapping", c.FinalSoftcap > 0, c.FinalSoftcap},
		{"expert_count", c.Experts > 0, uint32(c.Experts)},
		{"expert_used_count", c.Experts > 0, uint32(c.ExpertsUsed)},
		{"expert_feed_forward_length", c.Experts > 0, uint32(c.ExpertFFN)},
		{"expert_shared_feed_forward_length", c.SharedFFN > 0, uint32(c.SharedFFN)},
		{"rope.scaling.type", c.Rope.Kind != "", c.Rope.Kind},
		{"rope.scaling.factor", c.Rope.Factor != 0, float32(c.Rope.Factor)},
		{"rope.scaling.original_context_length", c.Rope.OrigContext > 0, uint32(c.Rope.OrigContext)},
		{"rope.scaling.attn_factor", c.Rope.Attention != 0, float32(c.Rope.Attention)},
	} {
		if o.set {
			meta = append(meta, gguf.KV{Key: k(o.key), Value: o.value})
		}
	}
	return meta
}

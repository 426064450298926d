package convert

import (
	"fmt"
	"slices"
	"strings"

	"meibench/reference/gguf"
	"meibench/reference/quant"
)

// Step is what becomes of one tensor.
type Step struct {
	From  gguf.Tensor
	To    quant.Type
	Bytes int64
	Want  quant.Type // what the recipe asked for; To differs where rows do not fit its blocks
}

// Plan is what becomes of a file.
type Plan struct {
	File   *gguf.File
	Recipe Recipe
	Steps  []Step // in the file's order
}

// Bytes is the size of all converted tensors.
func (p *Plan) Bytes() (n int64) {
	for _, s := range p.Steps {
		n += s.Bytes
	}
	return n
}

// Requantised counts the tensors that were quantised before and are rounded a second time.
func (p *Plan) Requantised() (n int) {
	for _, s := range p.Steps {
		if s.From.Type != s.To && s.From.Type.Block() > 1 {
			n++
		}
	}
	return n
}

// facts are what the rules ask about a model.
type facts struct {
	layers, heads, kvHeads, experts int
	arch                            string
	tied                            bool           // no output matrix: the embedding is one
	valueRank                       map[string]int // number of an attention value tensor among its kind
}

// NewPlan chooses a type for each tensor. A pure plan gives every matrix the recipe's base type, rows permitting. A
// tensor that would have to be decoded but cannot be is an error.
func NewPlan(f *gguf.File, r Recipe, pure bool) (*Plan, error) {
	facts := factsOf(f)
	p := &Plan{File: f, Recipe: r}
	for _, t := range f.Tensors {
		s := Step{From: t, To: t.Type, Want: t.Type}
		if matrix(t) {
			s.Want = r.Base
			if !pure && r.Base.Block() > 1 {
				s.Want = r.choose(t, facts)
			}
			s.To = fallback(s.Want, t.Dims[0])
		}
		if s.To != t.Type && !t.Type.CanDecode() {
			return nil, fmt.Errorf("convert tensor %q: it is %v, which cannot be decoded: want one of %v", t.Name, t.Type, quant.Decodable())
		}
		row, err := s.To.RowBytes(t.Dims[0])
		if err != nil {
			return nil, fmt.Errorf("convert tensor %q: %w", t.Name, err)
		}
		s.Bytes = int64(row) * int64(t.Elements()/t.Dims[0])
		p.Steps = append(p.Steps, s)
	}
	return p, nil
}

// factsOf reads what it can; a model without a key is taken to have none of the thing.
func factsOf(f *gguf.File) facts {
	a := facts{valueRank: map[string]int{}}
	a.arch, _ = gguf.Value[string](f, "general.architecture")
	number := func(key string) int {
		v, err := f.Uint(a.arch + "." + key)
		if err != nil || v > 1<<20 {
			return 0
		}
		return int(v)
	}
	a.layers, a.experts = number("block_count"), number("expert_count")
	a.heads, a.kvHeads = number("attention.head_count"), number("attention.head_count_kv")
	if _, ok := f.Get(a.arch + ".attention.head_count_kv"); !ok {
		a.kvHeads = a.heads
	}
	_, err := f.Tensor("output.weight")
	a.tied = err != nil
	var values []string
	for _, t := range f.Tensors {
		if isValue(t.Name) {
			values = append(values, t.Name)
		}
	}
	layer := func(name string) int { l, _, _ := gguf.LayerOf(name); return l } // 0 of none
	slices.SortStableFunc(values, func(x, y string) int { return layer(x) - layer(y) })
	for i, name := range values {
		a.valueRank[name] = i
	}
	return a
}

// keep are parts of the names of tensors that stay as they are: they are small, or not the weights of a product.
// Source: tensor_allows_quantization of llama-quant.cpp.
var keep = []string{
	"_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
	"position_embd", "token_types", "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight",
	"time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight",
	"time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
	"time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight",
	"time_mix_lerp_fused.weight", "attn_rel_b.weight", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
	".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
}

// matrix reports whether a tensor holds the weights of matrix products.
func matrix(t gguf.Tensor) bool {
	if !strings.HasSuffix(t.Name, "weight") || !slices.ContainsFunc(t.Dims[1:], func(d int) bool { return d > 1 }) {
		return false
	}
	return !slices.ContainsFunc(keep, func(part string) bool { return strings.Contains(t.Name, part) })
}

func isValue(name string) bool {
	return strings.Contains(name, "attn_v.weight") || strings.Contains(name, "attn_qkv.weight") || strings.Contains(name, "attn_kv_b.weight")
}

// choose is the mix of a recipe of blocks.
func (r Recipe) choose(t gguf.Tensor, f facts) quant.Type {
	name := t.Name
	experts := len(t.Dims) > 2 && t.Dims[2] > 1
	embedding := name == "token_embd.weight" || name == "per_layer_token_embd.weight"
	switch {
	case name == "output.weight" || embedding && f.tied:
		if r.Base == quant.Q8_0 || r.Base == quant.MXFP4 || t.Dims[0]%r.Base.Block() != 0 {
			return quant.Q8_0
		}
		return quant.Q6_K
	case r.Base == quant.MXFP4 && !experts:
		return quant.Q8_0
	case isValue(name):
		return r.chooseValue(f.valueRank[name], f)
	case strings.Contains(name, "attn_k.weight") && f.experts == 8 && r.Base != quant.MXFP4:
		return quant.Q8_0
	case strings.Contains(name, "attn_output.weight") && f.experts == 8 && r.of8Experts != quant.F32:
		return r.of8Experts
	case strings.Contains(name, "ffn_down"):
		layer, _, _ := gguf.LayerOf(name)
		return r.down.or(r.Base, layer, f.layers, f)
	}
	return r.Base
}

// chooseValue knows two kinds of model whose values are few for what depends on them.
func (r Recipe) chooseValue(rank int, f facts) quant.Type {
	to := r.values.or(r.Base, rank, len(f.valueRank), f)
	if f.arch == "llama" && f.layers == 80 && f.heads != f.kvHeads && to == quant.Q4_K { // the 70 B models
		to = quant.Q5_K
	}
	if f.experts == 8 && r.Base != quant.MXFP4 {
		to = quant.Q8_0
	}
	return to
}

func (m more) or(base quant.Type, layer, layers int, f facts) quant.Type {
	if m.in != nil && m.in(layer, layers, f) {
		return m.to
	}
	return base
}

// fallback is a type of smaller blocks, with as many bits or more, where a row is no whole number of blocks.
func fallback(t quant.Type, cols int) quant.Type {
	if cols%t.Block() == 0 {
		return t
	}
	small := quant.F16
	switch t {
	case quant.Q4_K:
		small = quant.Q5_0
	case quant.Q5_K:
		small = quant.Q5_1
	case quant.Q6_K:
		small = quant.Q8_0
	}
	if cols%small.Block() != 0 {
		return quant.F16
	}
	return small
}

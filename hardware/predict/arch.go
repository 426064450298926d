package predict

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// family is what is known of the attention and the experts of models whose name
// holds a text.
type family struct {
	text     string  // in the lower-case name with spaces as hyphens
	kvPerTok float64 // B of K and V in f16 per token of context, 0 = by the rule
	routed   float64 // share of experts that a token uses, 0 = dense or by the rule
}

// families are the shapes of released configurations (layers x 2 x KV heads x
// head size x 2 B; experts per token over experts), kind spec. The first match
// counts, so longer names come first.
var families = []family{
	{"gpt-oss-120b", 73728, 4.0 / 128},
	{"gpt-oss-20b", 49152, 4.0 / 32},
	{"30b-a3b", 98304, 8.0 / 128},
	{"30b.a3b", 55296, 4.0 / 64},
	{"llama-2-7b", 524288, 0},
	{"llama-7b", 524288, 0},
	{"llama-2-13b", 819200, 0},
	{"llama-2-70b", 327680, 0},
	{"llama-3-70b", 327680, 0},
	{"llama-3.1-70b", 327680, 0},
	{"llama-3-8b", 131072, 0},
	{"llama-3.1-8b", 131072, 0},
	{"llama-3.2-1b", 32768, 0},
	{"llama-3.2-3b", 114688, 0},
	{"qwen2.5-coder-7b", 57344, 0},
	{"qwen3-8b", 147456, 0},
	{"qwen3-14b", 163840, 0},
	{"qwen3-32b", 262144, 0},
	{"qwen3-4b", 147456, 0},
	{"qwen3-0.6b", 114688, 0},
	{"qwen-3-0.6b", 114688, 0},
	{"bloom-176b", 4014080, 0},
	{"mixtral", 131072, 2.0 / 8},
}

func familyOf(model string) family {
	name := strings.ReplaceAll(strings.ToLower(model), " ", "-")
	for _, f := range families {
		if strings.Contains(name, f.text) {
			return f
		}
	}
	return family{}
}

// kvBytes is what attention reads of one sequence per token of its context, B.
// Without a known shape: grouped-query models grow with the root of their size.
func kvBytes(r *Row) float64 {
	if f := familyOf(r.Model); f.kvPerTok > 0 {
		return f.kvPerTok
	}
	return 131072 * math.Sqrt(r.ParamsB/8)
}

// attentionFLOP is the arithmetic of attention per token and token attended to:
// 4 x layers x width. Without a known shape: 32 layers of 4096 at 8e9
// parameters, growing with the power 2/3 of the size.
func attentionFLOP(r *Row) float64 {
	return 4 * 32 * 4096 * math.Pow(r.ParamsB/8, 2.0/3)
}

var effectiveName = regexp.MustCompile(`(?i)\bE([0-9]+)B`)

// activeB are the parameters read per token, 1e9: the notes' word, or what a
// name such as E2B says of a model with per-layer embeddings.
func activeB(r *Row) float64 {
	if m := effectiveName.FindStringSubmatch(r.Model); m != nil && r.ActiveB == r.ParamsB {
		if v, err := strconv.ParseFloat(m[1], 64); err == nil && v > 0 {
			return min(v, r.ParamsB)
		}
	}
	return r.ActiveB
}

// routedShare is k/E, the share of experts that one token uses.
func routedShare(r *Row) float64 {
	if f := familyOf(r.Model); f.routed > 0 {
		return f.routed
	}
	return min(1.0/16, 0.9*r.ActiveB/r.ParamsB)
}

// coverage are the parameters (1e9) that a step over b tokens reads: the dense
// ones, and the experts that at least one token uses, E(1-(1-k/E)^b) of E
// .
func coverage(r *Row, b float64) float64 {
	active := activeB(r)
	if r.ActiveB >= r.ParamsB || b <= 1 {
		return active
	}
	share := routedShare(r)
	experts := min(max((r.ParamsB-active)/(1-share), 0), r.ParamsB)
	dense := max(r.ParamsB-experts, 0)
	return dense + experts*(1-math.Pow(1-share, b))
}

package convert

import (
	"fmt"
	"strings"

	"meibench/reference/quant"
)

// Recipe is a way to store a model.
type Recipe struct {
	Name     string
	Doc      string     // one line for lists
	Base     quant.Type // of matrices that no rule speaks of
	FileType uint32     // general.file_type; source: enum llama_ftype of llama.h

	// What more sensitive matrices take; the zero value, which is F32, stands for Base.
	values     more // attention values
	down       more // the second matrix of the feed-forward
	of8Experts quant.Type
}

// more says in which layers a kind of matrix takes another type.
type more struct {
	to quant.Type
	in func(layer, layers int, f facts) bool
}

// Table lists the recipes, sorted by name. Sources of the mixes: llama-quantize's defaults (llama-quant.cpp of llama.cpp,
// August 2026). What all recipes of blocks share is in plan.go.
var Table = []Recipe{
	{Name: "bf16", Doc: "16 bits, the upper half of a float32", Base: quant.BF16, FileType: 32},
	{Name: "f16", Doc: "16 bits, IEEE halves", Base: quant.F16, FileType: 1},
	{Name: "f32", Doc: "32 bits: nothing lost that was there", Base: quant.F32, FileType: 0},
	{Name: "iq4_nl", Doc: "4.5 bits, a table of 16 values", Base: quant.IQ4_NL, FileType: 25,
		values: more{quant.Q5_K, grouped}, down: more{quant.Q5_K, firstEighth}, of8Experts: quant.Q5_K},
	{Name: "mxfp4_moe", Doc: "experts as MXFP4, all else Q8_0", Base: quant.MXFP4, FileType: 38},
	{Name: "q4_0", Doc: "4.5 bits, one scale per 32 weights", Base: quant.Q4_0, FileType: 2},
	{Name: "q4_1", Doc: "5 bits, scale and offset per 32 weights", Base: quant.Q4_1, FileType: 3},
	{Name: "q4_k_m", Doc: "about 4.8 bits: Q4_K, with Q6_K where it matters most; the usual choice", Base: quant.Q4_K, FileType: 15,
		values: more{quant.Q6_K, ends}, down: more{quant.Q6_K, ends}, of8Experts: quant.Q5_K},
	{Name: "q4_k_s", Doc: "about 4.6 bits: Q4_K, with Q5_K in the first layers", Base: quant.Q4_K, FileType: 14,
		values: more{quant.Q5_K, firstFour}, down: more{quant.Q5_K, firstEighth}, of8Experts: quant.Q5_K},
	{Name: "q5_0", Doc: "5.5 bits, one scale per 32 weights", Base: quant.Q5_0, FileType: 8},
	{Name: "q5_1", Doc: "6 bits, scale and offset per 32 weights", Base: quant.Q5_1, FileType: 9},
	{Name: "q5_k_m", Doc: "about 5.7 bits: Q5_K, with Q6_K where it matters most", Base: quant.Q5_K, FileType: 17,
		values: more{quant.Q6_K, ends}, down: more{quant.Q6_K, ends}},
	{Name: "q5_k_s", Doc: "about 5.5 bits: Q5_K", Base: quant.Q5_K, FileType: 16},
	{Name: "q6_k", Doc: "6.6 bits: Q6_K", Base: quant.Q6_K, FileType: 18},
	{Name: "q8_0", Doc: "8.5 bits, one scale per 32 weights; hardly to be told from F16", Base: quant.Q8_0, FileType: 7},
}

// ends are the first and the last eighth of the layers, and every third in between.
func ends(layer, layers int, _ facts) bool {
	return layer < layers/8 || layer >= 7*layers/8 || (layer-layers/8)%3 == 2
}

func firstEighth(layer, layers int, _ facts) bool { return layer < layers/8 }

func firstFour(layer, _ int, _ facts) bool { return layer < 4 }

// grouped models share their values among four heads or more, so that values are few and matter more.
func grouped(_, _ int, f facts) bool { return f.kvHeads > 0 && f.heads/f.kvHeads >= 4 }

// Names lists the recipes' names.
func Names() []string {
	names := make([]string, len(Table))
	for i, r := range Table {
		names[i] = r.Name
	}
	return names
}

// Find returns a recipe by its name in either case; q4_k and q5_k stand for q4_k_m and q5_k_m, as in llama-quantize.
func Find(name string) (Recipe, error) {
	want := strings.ToLower(name)
	if want == "q4_k" || want == "q5_k" {
		want += "_m"
	}
	for _, r := range Table {
		if r.Name == want {
			return r, nil
		}
	}
	return Recipe{}, fmt.Errorf("recipe %q: unknown, want one of %s", name, strings.Join(Names(), ", "))
}

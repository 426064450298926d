// Package quant holds the number formats of weights in GGUF files: F32, F16, BF16, Q8_0 and Q4_0.
//
// The one idea: a row of weights is a run of blocks, and a block is decoded on its own. Q8_0 and Q4_0 keep one
// 16-bit scale for 32 weights:
//
//	Q8_0  34 bytes: d (f16), 32 x int8 q;             weight = d·q
//	Q4_0  18 bytes: d (f16), 16 bytes of two nibbles; weight = d·(q-8), low nibbles are weights 0..15, high 16..31
//
// [Decode] is bit exact by definition of the format. [Encode] rounds as ggml's reference quantiser does
// (quantize_row_q8_0_ref and quantize_row_q4_0_ref of ggml-quants.c), so files made here equal files made there.
// [Matrix] decodes rows for package tensor's products.
//
// What it does not do: other formats (their names and sizes are known, so that a file can be listed), and
// quantised activations; products run in float32 on decoded weights.
package quant

import (
	"fmt"
	"math"
	"strings"
)

// Type is a tensor element type, numbered as in GGUF files.
type Type uint32

// The types that this package encodes and decodes.
const (
	F32  Type = 0
	F16  Type = 1
	Q4_0 Type = 2
	Q8_0 Type = 8
	BF16 Type = 30
)

// Supported lists the types that Encode and Decode take.
func Supported() []Type { return []Type{F32, F16, BF16, Q8_0, Q4_0} }

// format is a row of the type table.
type format struct {
	name         string
	block, bytes int // weights per block and bytes per block
}

// formats is the table of every type that GGUF files use, by number; it is never written.
// Source: ggml.h and the block structs of ggml-common.h.
var formats = [...]format{
	0: {"F32", 1, 4}, 1: {"F16", 1, 2}, 2: {"Q4_0", 32, 18}, 3: {"Q4_1", 32, 20}, 6: {"Q5_0", 32, 22}, 7: {"Q5_1", 32, 24},
	8: {"Q8_0", 32, 34}, 9: {"Q8_1", 32, 36}, 10: {"Q2_K", 256, 84}, 11: {"Q3_K", 256, 110}, 12: {"Q4_K", 256, 144},
	13: {"Q5_K", 256, 176}, 14: {"Q6_K", 256, 210}, 15: {"Q8_K", 256, 292}, 16: {"IQ2_XXS", 256, 66}, 17: {"IQ2_XS", 256, 74},
	18: {"IQ3_XXS", 256, 98}, 19: {"IQ1_S", 256, 50}, 20: {"IQ4_NL", 32, 18}, 21: {"IQ3_S", 256, 110}, 22: {"IQ2_S", 256, 82},
	23: {"IQ4_XS", 256, 136}, 24: {"I8", 1, 1}, 25: {"I16", 1, 2}, 26: {"I32", 1, 4}, 27: {"I64", 1, 8}, 28: {"F64", 1, 8},
	29: {"IQ1_M", 256, 56}, 30: {"BF16", 1, 2}, 34: {"TQ1_0", 256, 54}, 35: {"TQ2_0", 256, 66}, 39: {"MXFP4", 32, 17},
}

func formatOf(t Type) (format, bool) {
	if int64(t) >= int64(len(formats)) || formats[t].block == 0 {
		return format{}, false
	}
	return formats[t], true
}

// String is the name that GGUF tools print, such as "Q8_0", or "type 99" for an unknown number.
func (t Type) String() string {
	if f, ok := formatOf(t); ok {
		return f.name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Known reports whether the sizes of the type are known.
func (t Type) Known() bool { _, ok := formatOf(t); return ok }

// CanDecode reports whether the type is one of [Supported].
func (t Type) CanDecode() bool {
	switch t {
	case F32, F16, BF16, Q8_0, Q4_0:
		return true
	}
	return false
}

// Block is the number of weights that share one block; 0 if the type is unknown.
func (t Type) Block() int { f, _ := formatOf(t); return f.block }

// BlockBytes is the size of one block; 0 if the type is unknown.
func (t Type) BlockBytes() int { f, _ := formatOf(t); return f.bytes }

// RowBytes is the size of n weights. It fails if n is not a whole number of blocks, or if the size overflows.
func (t Type) RowBytes(n int) (int, error) {
	f, ok := formatOf(t)
	if !ok {
		return 0, fmt.Errorf("size of %d weights: %v is not a known type", n, t)
	}
	if n < 0 || n%f.block != 0 {
		return 0, fmt.Errorf("size of %d weights: %v packs blocks of %d, want a multiple", n, t, f.block)
	}
	if n/f.block > math.MaxInt/f.bytes {
		return 0, fmt.Errorf("size of %d weights as %v overflows", n, t)
	}
	return n / f.block * f.bytes, nil
}

// Parse finds a supported type by its name, such as "q8_0" or "Q8_0".
func Parse(name string) (Type, error) {
	for _, t := range Supported() {
		if strings.EqualFold(t.String(), name) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("weight type %q: unknown, want one of %v", name, Supported())
}

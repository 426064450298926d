// Package quant holds the number formats of weights in GGUF files and turns them into float32 and back.
//
// The one idea: a row of weights is a run of blocks, and a block is decoded on its own. What a format is stands in one
// row of one table: its name, how many weights share a block, how many bytes that takes, and the functions that decode
// and encode a run of blocks. Four families follow, one file each:
//
//	float.go     F32 F16 BF16                    one number per weight
//	linear.go    Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1   32 weights: a 16-bit scale, for some a 16-bit offset, and integers
//	codebook.go  IQ4_NL IQ4_XS MXFP4             nibbles that index a table of 16 values, times a scale
//	super.go     Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K   256 weights: small integer scales per 16 or 32 of them, and a
//	                                             16-bit scale of these scales
//
// [Decode] is bit exact by definition of the format: it multiplies and adds in float32, in the order of ggml's own
// decoder, every operation rounded and none fused. [Encode] makes the bytes that ggml's reference quantiser makes, but
// for the super-blocks, which it fits with less error (see fit.go). [Matrix] decodes rows for package tensor's
// products, and [Q4KScaleMin], [Q3KScale] and [IQ4XSScale] unpack what a repacker needs to read a block itself.
//
// What it does not do: the other IQ, TQ, NVFP4 and 1-bit formats (their names and sizes are known, so that a file can
// be listed), and quantised activations; products run in float32 on decoded weights.
package quant

import (
	"fmt"
	"math"
	"strings"
)

// Type is a tensor element type, numbered as in GGUF files.
type Type uint32

// The types that this package decodes.
const (
	F32    Type = 0
	F16    Type = 1
	Q4_0   Type = 2
	Q4_1   Type = 3
	Q5_0   Type = 6
	Q5_1   Type = 7
	Q8_0   Type = 8
	Q8_1   Type = 9
	Q2_K   Type = 10
	Q3_K   Type = 11
	Q4_K   Type = 12
	Q5_K   Type = 13
	Q6_K   Type = 14
	Q8_K   Type = 15
	IQ4_NL Type = 20
	IQ4_XS Type = 23
	BF16   Type = 30
	MXFP4  Type = 39
)

// format is a row of the type table. Functions take whole blocks, lengths checked.
type format struct {
	name         string
	block, bytes int // weights per block and bytes per block
	decode       func(dst []float32, src []byte)
	encode       func(dst []byte, src []float32)
	most         float64 // the largest magnitude that encode takes: none of its scales may become infinite
}

// Largest magnitudes that fit. A half holds 65504; a block's scale is its largest weight over the largest integer.
const (
	mostF32   = math.MaxFloat32
	mostF16   = 65504
	mostBF16  = 0x1.fep127
	mostMXFP4 = 0x1.8p127 // 6 at the largest scale whose 6 is finite
)

// formats is the table of every type that GGUF files use, by number; it is never written.
// Source of numbers and sizes: ggml.h and the block structs of ggml-common.h (August 2026).
var formats = [...]format{
	F32:    {"F32", 1, 4, decodeF32, encodeF32, mostF32},
	F16:    {"F16", 1, 2, decodeF16, encodeF16, mostF16},
	BF16:   {"BF16", 1, 2, decodeBF16, encodeBF16, mostBF16},
	Q4_0:   {"Q4_0", 32, 18, decodeQ40, encodeQ40, 8 * mostF16},
	Q4_1:   {"Q4_1", 32, 20, decodeQ41, encodeQ41, mostF16},
	Q5_0:   {"Q5_0", 32, 22, decodeQ50, encodeQ50, 16 * mostF16},
	Q5_1:   {"Q5_1", 32, 24, decodeQ51, encodeQ51, mostF16},
	Q8_0:   {"Q8_0", 32, 34, decodeQ80, encodeQ80, 127 * mostF16},
	Q8_1:   {"Q8_1", 32, 36, decodeQ81, nil, 0},
	Q2_K:   {"Q2_K", 256, 84, decodeQ2K, nil, 0},
	Q3_K:   {"Q3_K", 256, 110, decodeQ3K, nil, 0},
	Q4_K:   {"Q4_K", 256, 144, decodeQ4K, encodeQ4K, 32 * mostF16},
	Q5_K:   {"Q5_K", 256, 176, decodeQ5K, encodeQ5K, 32 * mostF16},
	Q6_K:   {"Q6_K", 256, 210, decodeQ6K, encodeQ6K, 32 * mostF16},
	Q8_K:   {"Q8_K", 256, 292, decodeQ8K, nil, 0},
	IQ4_NL: {"IQ4_NL", 32, 18, decodeIQ4NL, encodeIQ4NL, 100 * mostF16},
	IQ4_XS: {"IQ4_XS", 256, 136, decodeIQ4XS, nil, 0},
	MXFP4:  {"MXFP4", 32, 17, decodeMXFP4, encodeMXFP4, mostMXFP4},

	16: {name: "IQ2_XXS", block: 256, bytes: 66}, 17: {name: "IQ2_XS", block: 256, bytes: 74},
	18: {name: "IQ3_XXS", block: 256, bytes: 98}, 19: {name: "IQ1_S", block: 256, bytes: 50},
	21: {name: "IQ3_S", block: 256, bytes: 110}, 22: {name: "IQ2_S", block: 256, bytes: 82},
	24: {name: "I8", block: 1, bytes: 1}, 25: {name: "I16", block: 1, bytes: 2}, 26: {name: "I32", block: 1, bytes: 4},
	27: {name: "I64", block: 1, bytes: 8}, 28: {name: "F64", block: 1, bytes: 8}, 29: {name: "IQ1_M", block: 256, bytes: 56},
	34: {name: "TQ1_0", block: 256, bytes: 54}, 35: {name: "TQ2_0", block: 256, bytes: 66},
	40: {name: "NVFP4", block: 64, bytes: 36}, 41: {name: "Q1_0", block: 128, bytes: 18}, 42: {name: "Q2_0", block: 64, bytes: 18},
}

// Decodable lists the types that Decode takes, by number.
func Decodable() []Type { return list(Type.CanDecode) }

// Encodable lists the types that Encode takes, by number.
func Encodable() []Type { return list(Type.CanEncode) }

func list(has func(Type) bool) (types []Type) {
	for t := range Type(len(formats)) {
		if has(t) {
			types = append(types, t)
		}
	}
	return types
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

// CanDecode reports whether the type is one of [Decodable].
func (t Type) CanDecode() bool { f, _ := formatOf(t); return f.decode != nil }

// CanEncode reports whether the type is one of [Encodable].
func (t Type) CanEncode() bool { f, _ := formatOf(t); return f.encode != nil }

// Block is the number of weights that share one block; 0 if the type is unknown.
func (t Type) Block() int { f, _ := formatOf(t); return f.block }

// BlockBytes is the size of one block; 0 if the type is unknown.
func (t Type) BlockBytes() int { f, _ := formatOf(t); return f.bytes }

// BitsPerWeight is the size of a weight with its share of the block's scales; 0 if the type is unknown.
func (t Type) BitsPerWeight() float64 {
	f, ok := formatOf(t)
	if !ok {
		return 0
	}
	return 8 * float64(f.bytes) / float64(f.block)
}

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

// Parse finds a decodable type by its name, such as "q8_0" or "Q8_0".
func Parse(name string) (Type, error) {
	for _, t := range Decodable() {
		if strings.EqualFold(t.String(), name) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("weight type %q: unknown, want one of %v", name, Decodable())
}

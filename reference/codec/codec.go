// Package codec turns activations into bytes for a wire and back.
//
// A model that is cut between two machines sends its hidden state at the cut: tokens rows of dim numbers. A codec
// says how many bytes that is and what is lost.
//
//	c, err := codec.Find("int8")
//	wire := c.Encode(nil, hidden, dim)       // len(wire) == c.Bytes(tokens, dim)
//	back, err := c.Decode(nil, wire, dim)    // |back - hidden| <= half a step, element by element
//
// Every row is coded alone, so a row's bytes do not depend on the rows beside it. Encode and Decode append, and
// allocate nothing if dst has room. Bits are the same on every machine.
//
// Numbers that are not finite: f32 carries them bit for bit, f16 as halves (65520 and above become infinity), topk
// keeps them before all others. The integer codecs cannot, and a broken activation must not arrive as a plausible one:
// a row with a NaN or an infinity arrives with NaN in every element.
//
// The package does not frame, checksum or entropy-code, and it does not choose: which codec keeps a model's answers is
// for the benchmark to show.
package codec

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"meibench/reference/quant"
)

// Codec is one way to write rows of float32.
type Codec interface {
	// Name is the codec's name in Table.
	Name() string
	// Bytes is the length of Encode's answer for tokens rows of dim numbers: exact for all codecs but TabQ, whose rows
	// differ in length, and for which it is the largest possible.
	Bytes(tokens, dim int) int
	// Encode appends the wire form of x to dst.
	//
	//	x: (tokens, dim) row-major; panics if dim < 1 or does not divide len(x)
	Encode(dst []byte, x []float32, dim int) []byte
	// Decode appends the numbers to dst. Bytes that Encode cannot have written are an error, which says in which row;
	// dst is then returned as it was.
	Decode(dst []float32, wire []byte, dim int) ([]float32, error)
}

// Table is every codec with its usual parameters, in order of names.
var Table = []Codec{
	F16{}, F32{},
	Affine{Bits: 2}, Affine{Bits: 3}, Affine{Bits: 4},
	Affine{Bits: 4, Clip: Gauss}, Affine{Bits: 4, Clip: Laplace},
	Affine{Bits: 5}, Affine{Bits: 6}, Affine{Bits: 7}, Affine{Bits: 8},
	TabQ{Threshold: 4, Tolerance: 0.02}, TopK{Share: 8},
}

// Find returns the codec of that name in Table.
func Find(name string) (Codec, error) {
	var names []string
	for _, c := range Table {
		if c.Name() == name {
			return c, nil
		}
		names = append(names, c.Name())
	}
	return nil, fmt.Errorf("no codec %q: have %s", name, strings.Join(names, ", "))
}

// F32 sends the numbers as they are, little-endian: 4 dim bytes a row, bit for bit.
type F32 struct{}

// Name is "f32".
func (F32) Name() string { return "f32" }

// Bytes is 4 per number.
func (F32) Bytes(tokens, dim int) int { return 4 * tokens * dim }

// Encode implements Codec.
func (F32) Encode(dst []byte, x []float32, dim int) []byte {
	rows(x, dim)
	for _, v := range x {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
	}
	return dst
}

// Decode implements Codec; every byte string of whole rows is valid.
func (c F32) Decode(dst []float32, wire []byte, dim int) ([]float32, error) {
	if err := wholeRows(c.Bytes(1, dim), wire, dim); err != nil {
		return dst, fmt.Errorf("decode %s: %w", c.Name(), err)
	}
	for ; len(wire) > 0; wire = wire[4:] {
		dst = append(dst, math.Float32frombits(binary.LittleEndian.Uint32(wire)))
	}
	return dst, nil
}

// F16 rounds to IEEE 754 halves, to nearest, ties to even: 2 dim bytes a row.
type F16 struct{}

// Name is "f16".
func (F16) Name() string { return "f16" }

// Bytes is 2 per number.
func (F16) Bytes(tokens, dim int) int { return 2 * tokens * dim }

// Encode implements Codec.
func (F16) Encode(dst []byte, x []float32, dim int) []byte {
	rows(x, dim)
	for _, v := range x {
		dst = binary.LittleEndian.AppendUint16(dst, quant.F32ToF16(v))
	}
	return dst
}

// Decode implements Codec; every byte string of whole rows is valid.
func (c F16) Decode(dst []float32, wire []byte, dim int) ([]float32, error) {
	if err := wholeRows(c.Bytes(1, dim), wire, dim); err != nil {
		return dst, fmt.Errorf("decode %s: %w", c.Name(), err)
	}
	for ; len(wire) > 0; wire = wire[2:] {
		dst = append(dst, quant.F16ToF32(binary.LittleEndian.Uint16(wire)))
	}
	return dst, nil
}

// rows is the number of rows of x.
func rows(x []float32, dim int) int {
	if dim < 1 || len(x)%dim != 0 {
		panic("codec: the numbers are not whole rows of dim")
	}
	return len(x) / dim
}

// wholeRows checks the length of a wire whose rows all take size bytes.
func wholeRows(size int, wire []byte, dim int) error {
	if dim < 1 {
		return fmt.Errorf("dim is %d: want at least 1", dim)
	}
	if len(wire)%size != 0 {
		return fmt.Errorf("%d bytes are not whole rows of %d bytes (dim %d): the message was cut or has another shape", len(wire), size, dim)
	}
	return nil
}

func putFloat(dst []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(v)))
}

func float(wire []byte) float64 {
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(wire)))
}

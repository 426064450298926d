// Package kvwire turns key/value caches into bytes and back: to send them to another machine, or to put an application aside
// and take it up again.
//
//	data, _ := kvwire.Marshal(cache, kvwire.Range{To: cache.Len()}, kvwire.F16, model)
//	err := kvwire.Unmarshal(data, other, model) // other now holds the same tokens
//
// A message is a header, the keys and values of a range of tokens of every layer, and a checksum. F32 is exact for every
// cache, F16 for one of F16; Q8 and the KIVI forms round. Ranges may be sent in any forms, one message each, in the order of
// their tokens: the first ones precisely and the rest in 2 bits, say.
//
// Bytes from outside are not trusted: whatever they are, a cache is changed only by a message of its own model and shape
// whose checksum is right and whose numbers are finite. The checksum finds accidents, not forgers. There is no compression.
package kvwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"meibench/internal/units"
	"meibench/reference/kivi"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// Form is how numbers are written.
type Form uint8

// The forms, most exact first. Those of KIVI group keys by 32 tokens and values by 32 channels.
const (
	F32   Form = iota // 32 bits
	F16               // 16 bits
	Q8                // 8 bits and a float32 scale for 32 channels of a head, as a Q8_0 cache holds them: 9 bits
	KIVI8             // 9 bits in full groups
	KIVI4             // 5 bits
	KIVI2             // 3 bits
)

// Forms lists all forms, most exact first.
func Forms() []Form { return []Form{F32, F16, Q8, KIVI8, KIVI4, KIVI2} }

const group = 32 // elements that share a scale

// String is the name of a form.
func (f Form) String() string {
	switch f {
	case F32:
		return "f32"
	case F16:
		return "f16"
	case Q8:
		return "q8"
	case KIVI8, KIVI4, KIVI2:
		return fmt.Sprintf("kivi%d", f.bits())
	}
	return fmt.Sprintf("form %d", uint8(f))
}

// Parse is the inverse of String.
func Parse(s string) (Form, error) {
	for _, f := range Forms() {
		if f.String() == s {
			return f, nil
		}
	}
	return 0, fmt.Errorf("form of a cache on the wire %.20q: unknown, have %v", s, Forms())
}

func (f Form) bits() int {
	switch f {
	case KIVI8:
		return 8
	case KIVI4:
		return 4
	}
	return 2
}

// Model identifies the weights that keys and values come from, as 32 bytes: the SHA-256 of the file. Keys of other weights
// would be noise.
type Model [32]byte

// Range is the tokens [From, To).
type Range struct{ From, To int }

// Header says what a message holds.
type Header struct {
	Form            Form
	Range           Range
	Lo, Hi          int // layers
	Heads, Channels int // key/value heads, and channels of one
	Model           Model
}

const (
	magic      = "MEIKV\x01"
	headerSize = len(magic) + 1 + 6*4 + 32
	most       = 1 << 24 // tokens; channels of a token are at most 2^20, layers 2^12
)

// castagnoli is the polynomial whose checksum processors compute.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// layerBytes is the size of keys and values of T tokens in a layer, of heads heads of D channels.
func (f Form) layerBytes(heads, D, T int) int {
	W := heads * D
	switch f {
	case F32:
		return 8 * W * T
	case F16:
		return 4 * W * T
	case Q8:
		return 2 * T * heads * (D + 4*((D+group-1)/group))
	}
	values := T * (W/group*kivi.GroupBytes(group, f.bits()) + rest(W, f.bits()))
	keys := W * (T/group*kivi.GroupBytes(group, f.bits()) + rest(T, f.bits()))
	return keys + values
}

// rest is the size of the last, shorter group of n elements.
func rest(n, bits int) int {
	if n%group == 0 {
		return 0
	}
	return kivi.GroupBytes(n%group, bits)
}

// Size is the size of a message, which is known before it is made.
func (h Header) Size() units.Bytes {
	return units.Bytes(headerSize + (h.Hi-h.Lo)*h.Form.layerBytes(h.Heads, h.Channels, h.Range.To-h.Range.From) + 4)
}

// SizeOf is the size of a message of T tokens in layers [lo, hi) of a model.
func SizeOf(c llm.Config, f Form, lo, hi, T int) units.Bytes {
	c = c.WithDefaults()
	return Header{Form: f, Range: Range{To: T}, Lo: lo, Hi: hi, Heads: c.KVHeads, Channels: c.HeadDim}.Size()
}

// Marshal writes a range of a cache's tokens.
func Marshal(c *llm.Cache, r Range, f Form, model Model) ([]byte, error) {
	if r.From < 0 || r.To < r.From || r.To > c.Len() || f > KIVI2 {
		return nil, fmt.Errorf("marshal tokens %d to %d of a cache of %d as %v: want a range inside and one of %v", r.From, r.To, c.Len(), f, Forms())
	}
	h := Header{Form: f, Range: r, Lo: c.Lo, Hi: c.Hi, Model: model}
	h.Heads, h.Channels = c.Shape()
	out := h.append(make([]byte, 0, h.Size()))
	T, W := r.To-r.From, h.Heads*h.Channels
	k, v := make([]float32, T*W), make([]float32, T*W)
	for l := c.Lo; l < c.Hi; l++ {
		c.Get(l, r.From, r.To, k, v)
		out = h.encode(out, k, v)
	}
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli())), nil
}

func (h Header) append(out []byte) []byte {
	out = append(append(out, magic...), byte(h.Form))
	for _, n := range []int{h.Range.From, h.Range.To, h.Lo, h.Hi, h.Heads, h.Channels} {
		out = binary.LittleEndian.AppendUint32(out, uint32(n))
	}
	return append(out, h.Model[:]...)
}

// Read checks a message and returns its header. Nothing is allocated.
func Read(data []byte) (Header, error) {
	var h Header
	if len(data) < headerSize+4 || string(data[:len(magic)]) != magic {
		return h, errors.New("read cache message: it does not begin as one: was it cut, or made by another version?")
	}
	h.Form = Form(data[len(magic)])
	at := data[len(magic)+1:]
	for i, to := range []*int{&h.Range.From, &h.Range.To, &h.Lo, &h.Hi, &h.Heads, &h.Channels} {
		*to = int(binary.LittleEndian.Uint32(at[4*i:]))
	}
	h.Model = Model(at[24:])
	switch {
	case h.Form > KIVI2:
		return h, fmt.Errorf("read cache message: %v: want one of %v", h.Form, Forms())
	case h.Range.To > most || h.Range.From > h.Range.To || h.Hi > 1<<12 || h.Lo > h.Hi || h.Heads < 1 || h.Channels < 1 || h.Heads > 1<<20 || h.Channels > 1<<20 || h.Heads*h.Channels > 1<<20:
		return h, fmt.Errorf("read cache message: tokens %d to %d of layers [%d, %d), %d heads of %d: no such cache",
			h.Range.From, h.Range.To, h.Lo, h.Hi, h.Heads, h.Channels)
	case units.Bytes(len(data)) != h.Size():
		return h, fmt.Errorf("read cache message: %d bytes, want %d for its header: was it cut?", len(data), int64(h.Size()))
	}
	end := len(data) - 4
	if crc32.Checksum(data[:end], castagnoli()) != binary.LittleEndian.Uint32(data[end:]) {
		return h, errors.New("read cache message: the checksum differs: it was damaged on its way, send it again")
	}
	return h, nil
}

// Unmarshal writes the tokens of a message behind those that a cache holds, which must be the ones before them; tokens that it
// holds beyond From are replaced. On error the cache is as before.
func Unmarshal(data []byte, c *llm.Cache, model Model) error {
	h, err := Read(data)
	if err != nil {
		return err
	}
	heads, channels := c.Shape()
	switch {
	case h.Model != model:
		return fmt.Errorf("unmarshal cache: it is of model %x, this is %x: compute the prompt again", h.Model[:4], model[:4])
	case h.Lo != c.Lo || h.Hi != c.Hi || h.Heads != heads || h.Channels != channels:
		return fmt.Errorf("unmarshal cache: layers [%d, %d) with %d heads of %d into [%d, %d) with %d of %d",
			h.Lo, h.Hi, h.Heads, h.Channels, c.Lo, c.Hi, heads, channels)
	case h.Range.From > c.Len() || h.Range.To > c.Cap():
		return fmt.Errorf("unmarshal cache: tokens %d to %d into a cache that holds %d of %d: send what comes before, or make a larger one",
			h.Range.From, h.Range.To, c.Len(), c.Cap())
	}
	T, W := h.Range.To-h.Range.From, heads*channels
	k, v := make([]float32, T*W), make([]float32, T*W)
	size := h.Form.layerBytes(heads, channels, T)
	for _, write := range []bool{false, true} { // all is looked at before anything is changed
		for l := h.Lo; l < h.Hi; l++ {
			h.decode(data[headerSize+(l-h.Lo)*size:][:size], k, v)
			switch {
			case write:
				c.Put(l, h.Range.From, T, k, v)
			case !finite(k) || !finite(v):
				return fmt.Errorf("unmarshal cache: layer %d holds numbers that are not finite", l)
			}
		}
	}
	c.SetLen(h.Range.To)
	return nil
}

func finite(x []float32) bool {
	for _, v := range x {
		if v-v != 0 {
			return false
		}
	}
	return true
}

// encode appends keys and values of a layer.
func (h Header) encode(out []byte, k, v []float32) []byte {
	switch h.Form {
	case F32:
		for _, x := range [][]float32{k, v} {
			for _, e := range x {
				out = binary.LittleEndian.AppendUint32(out, math.Float32bits(e))
			}
		}
	case F16:
		for _, x := range [][]float32{k, v} {
			for _, e := range x {
				out = binary.LittleEndian.AppendUint16(out, quant.F32ToF16(e))
			}
		}
	case Q8:
		h.runs(k, v, func(x []float32) {
			scale, inverse := quant.Scale8(x)
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(scale))
			for _, e := range x {
				out = append(out, byte(int8(max(-127, min(127, math.RoundToEven(float64(float32(e*inverse))))))))
			}
		})
	default:
		bits := h.Form.bits()
		h.groups(k, v, func(x []float32) {
			n := kivi.GroupBytes(len(x), bits)
			out = append(out, make([]byte, n)...)
			kivi.Encode(out[len(out)-n:], x, bits)
		})
	}
	return out
}

// decode fills keys and values of a layer from the bytes of encode.
func (h Header) decode(in []byte, k, v []float32) {
	switch h.Form {
	case F32:
		for _, x := range [][]float32{k, v} {
			for i := range x {
				x[i], in = math.Float32frombits(binary.LittleEndian.Uint32(in)), in[4:]
			}
		}
	case F16:
		for _, x := range [][]float32{k, v} {
			for i := range x {
				x[i], in = quant.F16ToF32(binary.LittleEndian.Uint16(in)), in[2:]
			}
		}
	case Q8:
		h.runs(k, v, func(x []float32) {
			scale := math.Float32frombits(binary.LittleEndian.Uint32(in))
			for i := range x {
				x[i] = float32(int8(in[4+i])) * scale
			}
			in = in[4+len(x):]
		})
	default:
		bits := h.Form.bits()
		h.groups(k, v, func(x []float32) {
			kivi.Decode(x, in, bits)
			in = in[kivi.GroupBytes(len(x), bits):]
		})
	}
}

// runs visits stretches of at most 32 channels of one head of one token, keys first; what visit changes is changed.
func (h Header) runs(k, v []float32, visit func(x []float32)) {
	for _, x := range [][]float32{k, v} {
		for at := 0; at < len(x); at += h.Channels {
			for d := 0; d < h.Channels; d += group {
				visit(x[at+d : at+min(d+group, h.Channels)])
			}
		}
	}
}

// groups visits groups of KIVI: 32 tokens of one channel of the keys, then 32 channels of one token of the values.
func (h Header) groups(k, v []float32, visit func(x []float32)) {
	W := h.Heads * h.Channels
	T, buf := len(k)/W, make([]float32, group)
	for t := 0; t < T; t += group {
		for c := range W {
			x := buf[:min(group, T-t)]
			for i := range x {
				x[i] = k[(t+i)*W+c]
			}
			visit(x)
			for i := range x {
				k[(t+i)*W+c] = x[i]
			}
		}
	}
	for at := 0; at < len(v); at += W {
		for c := 0; c < W; c += group {
			visit(v[at+c : at+min(c+group, W)])
		}
	}
}

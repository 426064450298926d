package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Numbers of the metadata types. Source: docs/gguf.md of ggml.
const (
	typeUint8 = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

// value reads one value of a type.
func (d *decoder) value(typ uint32) any {
	switch typ {
	case typeString:
		return d.str("string", math.MaxUint64)
	case typeArray:
		return d.array(1)
	}
	switch v := d.numbers(typ, 1).(type) {
	case []uint8:
		return v[0]
	case []int8:
		return v[0]
	case []uint16:
		return v[0]
	case []int16:
		return v[0]
	case []uint32:
		return v[0]
	case []int32:
		return v[0]
	case []float32:
		return v[0]
	case []bool:
		return v[0]
	case []uint64:
		return v[0]
	case []int64:
		return v[0]
	case []float64:
		return v[0]
	}
	return nil
}

// array reads element type, length and elements; depth counts this array and those around it.
func (d *decoder) array(depth int) any {
	if depth > maxDepth {
		d.fail("arrays are nested deeper than %d", maxDepth)
		return nil
	}
	typ, n := d.u32(), d.u64()
	switch typ {
	case typeString:
		if !d.room("array of strings", n, 8) {
			return nil
		}
		list := make([]string, 0, n)
		for range n {
			list = append(list, d.str("string", math.MaxUint64))
			if d.err != nil {
				return nil
			}
		}
		return list
	case typeArray:
		if !d.room("array of arrays", n, 4+8) {
			return nil
		}
		list := make([]any, 0, n)
		for range n {
			list = append(list, d.array(depth+1))
			if d.err != nil {
				return nil
			}
		}
		return list
	}
	return d.numbers(typ, n)
}

// numbers reads n values of a fixed-size type as a slice, or nil after an error.
func (d *decoder) numbers(typ uint32, n uint64) any {
	switch typ {
	case typeUint8:
		return fixed(d, n, 1, func(b []byte) uint8 { return b[0] })
	case typeInt8:
		return fixed(d, n, 1, func(b []byte) int8 { return int8(b[0]) })
	case typeUint16:
		return fixed(d, n, 2, binary.LittleEndian.Uint16)
	case typeInt16:
		return fixed(d, n, 2, func(b []byte) int16 { return int16(binary.LittleEndian.Uint16(b)) })
	case typeUint32:
		return fixed(d, n, 4, binary.LittleEndian.Uint32)
	case typeInt32:
		return fixed(d, n, 4, func(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) })
	case typeFloat32:
		return fixed(d, n, 4, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
	case typeBool:
		return fixed(d, n, 1, func(b []byte) bool {
			if b[0] > 1 {
				d.fail("boolean is %d, want 0 or 1", b[0])
			}
			return b[0] == 1
		})
	case typeUint64:
		return fixed(d, n, 8, binary.LittleEndian.Uint64)
	case typeInt64:
		return fixed(d, n, 8, func(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) })
	case typeFloat64:
		return fixed(d, n, 8, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) })
	}
	d.fail("value type %d is unknown, want 0 to %d", typ, typeFloat64)
	return nil
}

// fixed reads n values of size bytes each. It returns nil, not an empty slice, after an error.
func fixed[T any](d *decoder, n uint64, size int64, get func([]byte) T) any {
	if !d.room("array of length", n, size) {
		return nil
	}
	list := make([]T, n)
	for i := range list {
		d.fill(d.buf[:size])
		if d.err != nil {
			return nil
		}
		list[i] = get(d.buf[:size])
	}
	if d.err != nil {
		return nil
	}
	return list
}

// appendValue appends the value, without its type, and returns the type.
func appendValue(b []byte, v any) ([]byte, uint32, error) {
	le := binary.LittleEndian
	switch v := v.(type) {
	case uint8:
		return append(b, v), typeUint8, nil
	case int8:
		return append(b, byte(v)), typeInt8, nil
	case uint16:
		return le.AppendUint16(b, v), typeUint16, nil
	case int16:
		return le.AppendUint16(b, uint16(v)), typeInt16, nil
	case uint32:
		return le.AppendUint32(b, v), typeUint32, nil
	case int32:
		return le.AppendUint32(b, uint32(v)), typeInt32, nil
	case float32:
		return le.AppendUint32(b, math.Float32bits(v)), typeFloat32, nil
	case bool:
		if v {
			return append(b, 1), typeBool, nil
		}
		return append(b, 0), typeBool, nil
	case string:
		return append(le.AppendUint64(b, uint64(len(v))), v...), typeString, nil
	case uint64:
		return le.AppendUint64(b, v), typeUint64, nil
	case int64:
		return le.AppendUint64(b, uint64(v)), typeInt64, nil
	case float64:
		return le.AppendUint64(b, math.Float64bits(v)), typeFloat64, nil
	}
	b, err := appendArray(b, v)
	return b, typeArray, err
}

func appendArray(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case []uint8:
		return appendList(b, typeUint8, v)
	case []int8:
		return appendList(b, typeInt8, v)
	case []uint16:
		return appendList(b, typeUint16, v)
	case []int16:
		return appendList(b, typeInt16, v)
	case []uint32:
		return appendList(b, typeUint32, v)
	case []int32:
		return appendList(b, typeInt32, v)
	case []float32:
		return appendList(b, typeFloat32, v)
	case []bool:
		return appendList(b, typeBool, v)
	case []string:
		return appendList(b, typeString, v)
	case []uint64:
		return appendList(b, typeUint64, v)
	case []int64:
		return appendList(b, typeInt64, v)
	case []float64:
		return appendList(b, typeFloat64, v)
	case []any:
		return appendList(b, typeArray, v)
	}
	return nil, fmt.Errorf("cannot store a %T; see gguf.KV for the types", v)
}

// appendList appends element type, length and elements.
func appendList[T any](b []byte, typ uint32, list []T) ([]byte, error) {
	b = binary.LittleEndian.AppendUint32(b, typ)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(list)))
	for i, e := range list {
		var got uint32
		var err error
		if b, got, err = appendValue(b, e); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		if got != typ {
			return nil, fmt.Errorf("element %d is a %T, want arrays in an array of arrays", i, e)
		}
	}
	return b, nil
}

// LayerOf is the layer of a tensor by its name, and the rest of the name: 7 and "ffn_down.weight" of "blk.7.ffn_down.weight". Not ok are
// names outside layers (token_embd.weight, output_norm.weight) and those whose number is none.
func LayerOf(name string) (layer int, rest string, ok bool) {
	after, ok := strings.CutPrefix(name, "blk.")
	if !ok {
		return 0, "", false
	}
	number, rest, ok := strings.Cut(after, ".")
	layer, err := strconv.Atoi(number)
	if !ok || err != nil || layer < 0 || number != strconv.Itoa(layer) {
		return 0, "", false
	}
	return layer, rest, true
}

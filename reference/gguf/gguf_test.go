package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
)

// everyType has one entry of each metadata type, and nested arrays.
func everyType() []KV {
	return []KV{
		{"general.architecture", "llama"},
		{"a.u8", uint8(200)}, {"a.i8", int8(-7)}, {"a.u16", uint16(65535)}, {"a.i16", int16(-300)},
		{"a.u32", uint32(1 << 31)}, {"a.i32", int32(-5)}, {"a.u64", uint64(1 << 63)}, {"a.i64", int64(math.MinInt64)},
		{"a.f32", float32(0.1)}, {"a.f64", math.Pi}, {"a.yes", true}, {"a.no", false}, {"a.empty", ""},
		{"l.u8", []uint8{1, 2}}, {"l.i8", []int8{-1}}, {"l.u16", []uint16{}}, {"l.i16", []int16{-1, 3}}, {"l.u32", []uint32{9}},
		{"l.i32", []int32{-9, 9}}, {"l.u64", []uint64{4}}, {"l.i64", []int64{-4}}, {"l.f32", []float32{1.5, -2}},
		{"l.f64", []float64{1e300}}, {"l.bool", []bool{true, false, true}}, {"l.str", []string{"<s>", "", "é"}},
		{"n.n", []any{[]int32{1}, []string{"x"}, []any{[]bool{true}, []any{}}}},
	}
}

func twoTensors() []TensorData {
	return []TensorData{
		{Name: "w", Type: quant.Q8_0, Dims: []int{64, 3}, Data: Bytes(bytes.Repeat([]byte{7}, 2*34*3))},
		{Name: "b", Type: quant.F32, Dims: []int{5}, Data: Bytes(bytes.Repeat([]byte{9}, 20))},
	}
}

func encode(t testing.TB, meta []KV, tensors []TensorData) []byte {
	var b bytes.Buffer
	require.NoError(t, Write(&b, meta, tensors))
	return b.Bytes()
}

func read(b []byte) (*File, error) { return Read(bytes.NewReader(b), int64(len(b))) }

func TestRoundTrip(t *testing.T) {
	for _, tc := range []struct {
		name  string
		extra []KV
		align int
	}{
		{"default alignment", nil, 32},
		{"alignment 256", []KV{{"general.alignment", uint32(256)}}, 256},
		{"alignment 1", []KV{{"general.alignment", uint32(1)}}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			meta := append(everyType(), tc.extra...)
			raw := encode(t, meta, twoTensors())
			f, err := read(raw)
			require.NoError(t, err)
			require.Equal(t, meta, f.KV)
			require.Equal(t, tc.align, f.Alignment)
			require.Equal(t, 3, f.Version)
			require.Len(t, f.Tensors, 2)
			w, err := f.Tensor("w")
			require.NoError(t, err)
			require.Equal(t, []int{64, 3}, w.Dims)
			require.Equal(t, 192, w.Elements())
			require.Zero(t, w.Offset%int64(tc.align))
			b, err := f.Tensor("b")
			require.NoError(t, err)
			data := make([]byte, 20)
			require.NoError(t, f.ReadTensor(data, b))
			require.Equal(t, bytes.Repeat([]byte{9}, 20), data)
			require.Error(t, f.ReadTensor(data, w), "wrong buffer size")
		})
	}
}

// TestByHand reads a file assembled from the specification, not by our writer.
func TestByHand(t *testing.T) {
	le := binary.LittleEndian
	str := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	b := []byte("GGUF\x03\x00\x00\x00")
	b = le.AppendUint64(le.AppendUint64(b, 1), 1)            // one tensor, one entry
	b = le.AppendUint32(le.AppendUint32(str(b, "k"), 4), 42) // uint32 is type 4
	b = le.AppendUint32(str(b, "t"), 2)
	b = le.AppendUint64(le.AppendUint64(b, 2), 3) // dims 2, 3
	b = le.AppendUint64(le.AppendUint32(b, 0), 0) // F32 at 0
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	start := len(b)
	for i := range 6 {
		b = le.AppendUint32(b, math.Float32bits(float32(i)))
	}
	f, err := read(b)
	require.NoError(t, err)
	require.Equal(t, []KV{{"k", uint32(42)}}, f.KV)
	require.Equal(t, []Tensor{{Name: "t", Type: quant.F32, Dims: []int{2, 3}, Offset: int64(start), Bytes: 24}}, f.Tensors)

	b[4] = 2
	_, err = read(b)
	require.NoError(t, err, "version 2 has the same layout")
	for n := range b {
		_, err := read(b[:n])
		require.Error(t, err, "cut after %d bytes", n)
	}
}

func TestGetters(t *testing.T) {
	f, err := read(encode(t, everyType(), nil))
	require.NoError(t, err)
	for _, tc := range []struct {
		key  string
		want uint64
	}{{"a.u8", 200}, {"a.u16", 65535}, {"a.u32", 1 << 31}, {"a.u64", 1 << 63}} {
		got, err := f.Uint(tc.key)
		require.NoError(t, err)
		require.Equal(t, tc.want, got)
	}
	_, err = f.Uint("a.i8")
	require.ErrorContains(t, err, "-7 is negative")
	_, err = f.Uint("a.f32")
	require.ErrorContains(t, err, "float32, want an integer")
	_, err = f.Uint("absent")
	require.ErrorIs(t, err, ErrMissing)
	_, err = f.Float("absent")
	require.ErrorIs(t, err, ErrMissing)
	_, err = f.Float("a.u8")
	require.ErrorContains(t, err, "want a float")
	x, err := f.Float("a.f64")
	require.NoError(t, err)
	require.Equal(t, math.Pi, x)
	words, err := Value[[]string](f, "l.str")
	require.NoError(t, err)
	require.Len(t, words, 3)
	_, err = Value[bool](f, "l.str")
	require.ErrorContains(t, err, "[]string, want bool")
	_, err = f.Tensor("absent")
	require.ErrorIs(t, err, ErrMissing)
}

// header makes the start of a file: counts, then whatever follows.
func header(tensors, kvs uint64, rest ...byte) []byte {
	b := binary.LittleEndian.AppendUint64([]byte("GGUF\x03\x00\x00\x00"), tensors)
	return append(binary.LittleEndian.AppendUint64(b, kvs), rest...)
}

func le(size int, v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v)[:size] }

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestHostile(t *testing.T) {
	key := cat(le(8, 1), []byte("k"))
	tensor := func(dims []uint64, typ, offset uint64) []byte {
		b := cat(le(8, 1), []byte("t"), le(4, uint64(len(dims))))
		for _, d := range dims {
			b = append(b, le(8, d)...)
		}
		return cat(b, le(4, typ), le(8, offset), make([]byte, 256))
	}
	array := cat(le(4, 9), le(8, 1)) // array of one array
	pad := make([]byte, 64)
	for _, tc := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "offset 0"},
		{"not gguf", []byte("ggml\x03\x00\x00\x00"), "not a GGUF file"},
		{"version 1", []byte("GGUF\x01\x00\x00\x00"), "version 1"},
		{"big endian", []byte("GGUF\x00\x00\x00\x03"), "big endian"},
		{"too many entries", header(0, 1<<60), "number of metadata entries"},
		{"too many tensors", header(1<<60, 0), "number of tensors"},
		{"endless key", header(0, 1, cat(le(8, math.MaxUint64), pad)...), "at most 65535"},
		{"empty key", header(0, 1, cat(le(8, 0), pad)...), "key is empty"},
		{"endless string", header(0, 1, cat(key, le(4, 8), le(8, 1<<62), pad)...), `"k": string of length`},
		{"endless array", header(0, 1, cat(key, le(4, 9), le(4, 10), le(8, 1<<61), pad)...), "array of length"},
		{"array length that overflows", header(0, 1, cat(key, le(4, 9), le(4, 10), le(8, 1<<61+1), pad)...), "array of length"},
		{"endless list of strings", header(0, 1, cat(key, le(4, 9), le(4, 8), le(8, 1<<40), pad)...), "array of strings"},
		{"deep nesting", header(0, 1, cat(key, le(4, 9), array, array, array, array, array, pad)...), "deeper than 4"},
		{"unknown value type", header(0, 1, cat(key, le(4, 13), pad)...), "value type 13"},
		{"bad boolean", header(0, 1, cat(key, le(4, 7), []byte{2}, pad)...), "boolean is 2"},
		{"same key twice", header(0, 2, cat(key, le(4, 0), []byte{1}, key, le(4, 0), []byte{1}, pad)...), "key appears twice"},
		{"no dimensions", header(1, 0, tensor(nil, 0, 0)...), "0 dimensions"},
		{"five dimensions", header(1, 0, tensor([]uint64{1, 1, 1, 1, 1}, 0, 0)...), "5 dimensions"},
		{"zero dimension", header(1, 0, tensor([]uint64{0}, 0, 0)...), "dimension 0 is 0"},
		{"huge dimension", header(1, 0, tensor([]uint64{1 << 62}, 0, 0)...), "dimension 0"},
		{"product overflows", header(1, 0, tensor([]uint64{1 << 30, 1 << 30, 1 << 30}, 0, 0)...), "larger than the file"},
		{"one large row", header(1, 0, tensor([]uint64{1 << 30}, 0, 0)...), "ends after the file"},
		{"part of a block", header(1, 0, tensor([]uint64{33}, 8, 0)...), "blocks of 32"},
		{"unknown tensor type", header(1, 0, tensor([]uint64{4}, 4, 0)...), "type 4"},
		{"misaligned data", header(1, 0, tensor([]uint64{4}, 0, 8)...), "multiple of the alignment"},
		{"offset after the end", header(1, 0, tensor([]uint64{4}, 0, 1<<20)...), "ends after the file"},
		{"offset that overflows", header(1, 0, tensor([]uint64{8}, 0, math.MaxUint64-31)...), "ends after the file"},
		{"same tensor twice", header(2, 0, cat(tensor([]uint64{4}, 0, 0)[:33], tensor([]uint64{4}, 0, 32))...), "twice"},
		{"overlap", header(2, 0, cat(tensor([]uint64{9}, 0, 0)[:33], le(8, 1), []byte("u"), tensor([]uint64{4}, 0, 32)[9:])...), "overlaps"},
		{"alignment 3", encodeRaw("general.alignment", uint32(3)), "power of two"},
		{"alignment as text", encodeRaw("general.alignment", "32"), "power of two"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := read(tc.file)
			runtime.ReadMemStats(&after)
			require.ErrorContains(t, err, tc.want)
			var syntax *SyntaxError
			require.ErrorAs(t, err, &syntax)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<18), "memory in proportion to the file")
		})
	}
}

// encodeRaw makes a file of one entry without the writer's checks.
func encodeRaw(key string, v any) []byte {
	b, typ, _ := appendValue(nil, v)
	k, _, _ := appendValue(nil, key)
	return header(0, 1, cat(k, le(4, uint64(typ)), b, make([]byte, 64))...)
}

func TestWriteRefuses(t *testing.T) {
	w := twoTensors()[0]
	for _, tc := range []struct {
		name    string
		meta    []KV
		tensors []TensorData
		want    string
	}{
		{"empty key", []KV{{"", uint8(1)}}, nil, "empty"},
		{"same key", []KV{{"k", uint8(1)}, {"k", uint8(1)}}, nil, "twice"},
		{"unknown Go type", []KV{{"k", 1}}, nil, "cannot store a int"},
		{"mixed nesting", []KV{{"k", []any{[]int32{1}, uint8(2)}}}, nil, "element 1"},
		{"bad alignment", []KV{{"general.alignment", uint32(12)}}, nil, "power of two"},
		{"same tensor", nil, []TensorData{w, w}, "unique"},
		{"no dimensions", nil, []TensorData{{Name: "x", Type: quant.F32, Dims: nil, Data: Bytes(nil)}}, "dimensions"},
		{"zero dimension", nil, []TensorData{{Name: "x", Type: quant.F32, Dims: []int{0}, Data: Bytes(nil)}}, "positive"},
		{"part of a block", nil, []TensorData{{Name: "x", Type: quant.Q4_0, Dims: []int{31}, Data: Bytes(nil)}}, "blocks of 32"},
		{"wrong data size", nil, []TensorData{{Name: "x", Type: quant.F32, Dims: []int{2}, Data: Bytes(nil)}}, "has 0 bytes, want 8"},
		{"data fails", nil, []TensorData{{Name: "x", Type: quant.F32, Dims: []int{2}, Data: func() ([]byte, error) { return nil, errors.New("disk on fire") }}}, "disk on fire"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.ErrorContains(t, Write(&bytes.Buffer{}, tc.meta, tc.tensors), tc.want)
		})
	}
}

// FuzzRead: no input panics, and whatever is accepted survives a write and a read.
func FuzzRead(f *testing.F) {
	f.Add(encode(f, everyType(), twoTensors()))
	f.Add(encode(f, nil, nil))
	f.Add(header(1<<60, 1<<60))
	f.Add(encodeRaw("general.alignment", uint32(64)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := read(raw)
		if err != nil {
			return
		}
		var tensors []TensorData
		for _, info := range file.Tensors {
			data := make([]byte, info.Bytes)
			require.NoError(t, file.ReadTensor(data, info))
			tensors = append(tensors, TensorData{Name: info.Name, Type: info.Type, Dims: info.Dims, Data: Bytes(data)})
		}
		once := encode(t, file.KV, tensors)
		again, err := read(once)
		require.NoError(t, err)
		require.Equal(t, once, encode(t, again.KV, tensors), "a second trip changes nothing")
		require.Len(t, again.Tensors, len(file.Tensors))
	})
}

func Example() {
	var b bytes.Buffer
	row := make([]byte, 8)
	err := Write(&b, []KV{{"general.name", "tiny"}}, []TensorData{{Name: "w", Type: quant.F32, Dims: []int{2}, Data: Bytes(row)}})
	if err != nil {
		panic(err)
	}
	f, err := Read(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		panic(err)
	}
	name, _ := Value[string](f, "general.name")
	fmt.Println(name, f.Tensors[0].Name, f.Tensors[0].Dims)
	// Output: tiny w [2]
}

func TestLayerOfTensors(t *testing.T) {
	layer, rest, ok := LayerOf("blk.17.ffn_down.weight")
	require.True(t, ok)
	require.Equal(t, 17, layer)
	require.Equal(t, "ffn_down.weight", rest)
	for _, name := range []string{"", "token_embd.weight", "output_norm.weight", "blk.", "blk.3", "blk.-3.x", "blk.+3.x", "blk.03.x", "blk.x.y", "blk.99999999999999999999.x", "xblk.1.y"} {
		_, _, ok := LayerOf(name)
		require.False(t, ok, name)
	}
}

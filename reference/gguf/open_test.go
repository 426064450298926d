package gguf

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
)

func save(t testing.TB, name string, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, raw, 0o600))
	return path
}

// TestOpen: a view, a copy and a reader of each tensor give the bytes that were written.
func TestOpen(t *testing.T) {
	path := save(t, "m.gguf", encode(t, everyType(), twoTensors()))
	f, err := Open(path)
	require.NoError(t, err)
	require.Equal(t, everyType(), f.KV)
	require.EqualValues(t, 2*34*3+20, f.DataBytes())
	for i, want := range [][]byte{bytes.Repeat([]byte{7}, 2*34*3), bytes.Repeat([]byte{9}, 20)} {
		info := f.Tensors[i]
		if runtime.GOOS == "linux" {
			require.Equal(t, want, f.View(info), "linux maps files")
		}
		data, err := f.Data(info)
		require.NoError(t, err)
		require.Equal(t, want, data)
		f.Release(info)
		data, err = f.Data(info)
		require.NoError(t, err)
		require.Equal(t, want, data, "released data comes back")
		data, err = io.ReadAll(f.Reader(info))
		require.NoError(t, err)
		require.Equal(t, want, data)
	}
	require.NoError(t, f.Close())
	require.NoError(t, f.Close(), "twice is fine")
	require.Nil(t, f.View(f.Tensors[0]))
	f.Release(f.Tensors[0])
	require.Error(t, f.ReadTensor(make([]byte, 20), f.Tensors[1]))
}

func TestTensorsOfOtherFiles(t *testing.T) {
	raw := encode(t, nil, twoTensors())
	f, err := Open(save(t, "m.gguf", raw))
	require.NoError(t, err)
	defer f.Close()
	for _, info := range []Tensor{
		{Name: "beyond", Offset: int64(len(raw)) - 1, Bytes: 2},
		{Name: "far", Offset: 1 << 62, Bytes: 1 << 62},
		{Name: "negative", Offset: -1, Bytes: 1},
		{Name: "other part", Part: 1, Bytes: 1},
	} {
		require.Nil(t, f.View(info), info.Name)
		f.Release(info)
		n, err := io.Copy(io.Discard, f.Reader(info))
		require.NoError(t, err)
		require.Zero(t, n)
		if info.Bytes < 1<<20 {
			require.ErrorContains(t, f.ReadTensor(make([]byte, info.Bytes), info), "not of this file")
		}
	}
}

// TestShortened: a file that loses its end while it is open gives an error, not a signal.
func TestShortened(t *testing.T) {
	path := save(t, "m.gguf", encode(t, nil, twoTensors()))
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Truncate(path, f.Tensors[1].Offset))
	require.Nil(t, f.View(f.Tensors[1]))
	_, err = f.Data(f.Tensors[1])
	require.ErrorContains(t, err, `read tensor "b"`)
	_, err = f.Data(f.Tensors[0])
	require.NoError(t, err, "what is still there can be read")
}

func TestOpenRefuses(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "absent.gguf"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(t.TempDir())
	require.ErrorContains(t, err, "not a regular file")
	_, err = Open(save(t, "empty.gguf", nil))
	require.ErrorContains(t, err, "empty.gguf: gguf: offset 0")
}

// fileRSS is the resident size of file mappings of this process. Source: proc(5), the third field of statm.
func fileRSS(t *testing.T) int {
	text, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	var size, resident, shared int
	_, err = fmt.Sscan(string(text), &size, &resident, &shared)
	require.NoError(t, err)
	return shared * os.Getpagesize()
}

func TestReleaseGivesMemoryBack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only linux has the call and the counter")
	}
	const size = 32 << 20
	f, err := Open(save(t, "m.gguf", encode(t, nil, []TensorData{{Name: "w", Type: quant.F32, Dims: []int{size / 4}, Data: Bytes(make([]byte, size))}})))
	require.NoError(t, err)
	defer f.Close()
	before := fileRSS(t)
	var sum byte
	for _, b := range f.View(f.Tensors[0]) {
		sum += b
	}
	require.Zero(t, sum)
	touched := fileRSS(t)
	require.Greater(t, touched, before+size*9/10)
	f.Release(f.Tensors[0])
	require.Less(t, fileRSS(t), touched-size*9/10)
}

// split makes the files of a model: metadata in the first, one tensor in each.
func split(t *testing.T, dir string, edit func(i int, meta []KV) []KV) string {
	t.Helper()
	const count = 3
	for i := range count {
		meta := []KV{{keySplitNo, uint16(i)}, {keySplitCount, uint16(count)}, {keySplitTensors, int32(count)}}
		if i == 0 {
			meta = append([]KV{{"general.name", "large"}}, meta...)
		}
		if edit != nil {
			meta = edit(i, meta)
		}
		raw := encode(t, meta, []TensorData{{Name: fmt.Sprintf("w%d", i), Type: quant.F32, Dims: []int{1}, Data: Bytes([]byte{byte(i), 0, 0, 0})}})
		require.NoError(t, os.WriteFile(filepath.Join(dir, "m"+splitSuffix(i, count)), raw, 0o600))
	}
	return filepath.Join(dir, "m"+splitSuffix(0, count))
}

func TestSplit(t *testing.T) {
	path := split(t, t.TempDir(), nil)
	require.True(t, strings.HasSuffix(path, "m-00001-of-00003.gguf"), "the name that llama.cpp gives")
	f, err := Open(path)
	require.NoError(t, err)
	require.Len(t, f.Tensors, 3)
	for i := range 3 {
		info, err := f.Tensor(fmt.Sprintf("w%d", i))
		require.NoError(t, err)
		data, err := f.Data(info)
		require.NoError(t, err)
		require.Equal(t, []byte{byte(i), 0, 0, 0}, data)
	}
	require.NoError(t, f.Close())
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = read(raw)
	require.ErrorContains(t, err, "one file of a model in 3 files")
}

func TestSplitRefuses(t *testing.T) {
	set := func(at int, key string, v any) func(int, []KV) []KV {
		return func(i int, meta []KV) []KV {
			for k := range meta {
				if i == at && meta[k].Key == key {
					meta[k].Value = v
				}
			}
			return meta
		}
	}
	for _, tc := range []struct {
		name string
		edit func(int, []KV) []KV
		open string
		want string
	}{
		{"second file", nil, "m-00002-of-00003.gguf", "open the first, which ends in -00001-of-00003.gguf"},
		{"other model", set(1, keySplitCount, uint16(4)), "", "says that it is file 2 of 4, want 2 of 3"},
		{"part twice", set(2, keySplitNo, uint16(1)), "", "says that it is file 2 of 3, want 3 of 3"},
		{"tensor missing", set(0, keySplitTensors, int32(4)), "", "hold 3 tensors, want 4"},
		{"huge count", set(0, keySplitCount, uint32(1<<31)), "", "at most 99999"},
		{"count as text", set(0, keySplitCount, "3"), "", "want an integer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := split(t, t.TempDir(), tc.edit)
			if tc.open != "" {
				path = filepath.Join(filepath.Dir(path), tc.open)
			}
			_, err := Open(path)
			require.ErrorContains(t, err, tc.want)
		})
	}
	path := split(t, t.TempDir(), nil)
	require.NoError(t, os.Remove(filepath.Join(filepath.Dir(path), "m-00003-of-00003.gguf")))
	_, err := Open(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	renamed := filepath.Join(filepath.Dir(path), "m.gguf")
	require.NoError(t, os.Rename(path, renamed))
	_, err = Open(renamed)
	require.ErrorContains(t, err, "must end in -00001-of-00003.gguf")
}

// TestEveryTypeOfTensor: each type, and tensors of up to four dimensions such as the experts of a mixture, survive.
func TestEveryTypeOfTensor(t *testing.T) {
	var tensors []TensorData
	for typ := range quant.Type(64) {
		if !typ.Known() {
			continue
		}
		row, err := typ.RowBytes(256)
		require.NoError(t, err)
		for _, dims := range [][]int{{256}, {256, 3}, {256, 3, 5}, {256, 1, 2, 2}} {
			n := row
			for _, d := range dims[1:] {
				n *= d
			}
			tensors = append(tensors, TensorData{Name: fmt.Sprintf("%v %v", typ, dims), Type: typ, Dims: dims, Data: Bytes(bytes.Repeat([]byte{byte(len(tensors))}, n))})
		}
	}
	f, err := read(encode(t, nil, tensors))
	require.NoError(t, err)
	require.Len(t, f.Tensors, len(tensors))
	for i, info := range f.Tensors {
		require.Equal(t, tensors[i].Dims, info.Dims)
		require.Equal(t, tensors[i].Type, info.Type)
		got, err := f.Data(info)
		require.NoError(t, err)
		want, _ := tensors[i].Data()
		require.Equal(t, want, got)
	}
}

func TestWriteStreams(t *testing.T) {
	stream := func(pieces ...int) []TensorData {
		return []TensorData{{Name: "w", Type: quant.F32, Dims: []int{3}, Stream: func(w io.Writer) error {
			for _, n := range pieces {
				if _, err := w.Write(bytes.Repeat([]byte{5}, n)); err != nil {
					return err
				}
			}
			return nil
		}}}
	}
	whole := []TensorData{{Name: "w", Type: quant.F32, Dims: []int{3}, Data: Bytes(bytes.Repeat([]byte{5}, 12))}}
	require.Equal(t, encode(t, nil, whole), encode(t, nil, stream(5, 7)))
	require.ErrorContains(t, Write(io.Discard, nil, stream(5)), "has 5 bytes, want 12")
	require.ErrorContains(t, Write(io.Discard, nil, stream(5, 8)), "1 bytes more")
}

// TestMemoryFollowsFileSize: what the worst file of a megabyte makes the reader allocate, in all, stays in proportion,
// whatever it claims. The factors are those of Go's own headers: 16 bytes for a string of 8 bytes in the file, 40 for
// an entry and as much for its place in the map.
func TestMemoryFollowsFileSize(t *testing.T) {
	const size = 1 << 20
	fill := func(head []byte, item func(i int) []byte, room int) []byte {
		for i := 0; len(head)+room <= size; i++ {
			head = append(head, item(i)...)
		}
		return append(head, make([]byte, size-len(head))...)
	}
	key := cat(le(8, 1), []byte("k"))
	zeros := func(n int) func(int) []byte { return func(int) []byte { return make([]byte, n) } }
	for _, tc := range []struct {
		name  string
		file  []byte
		times uint64
	}{
		{"a billion entries", fill(header(0, 1_000_000_000), zeros(64), 64), 1},
		{"a billion tensors", fill(header(1_000_000_000, 0), zeros(64), 64), 1},
		{"a billion strings", fill(header(0, 1, cat(key, le(4, 9), le(4, 8), le(8, 1_000_000_000))...), zeros(64), 64), 1},
		{"as many entries as fit", fill(header(0, (size-64)/21), func(i int) []byte {
			return cat(le(8, 8), fmt.Appendf(nil, "%08d", i), le(4, 0), []byte{1})
		}, 21), 32},
		{"as many strings as fit", fill(header(0, 1, cat(key, le(4, 9), le(4, 8), le(8, (size-64)/8))...), zeros(8), 8), 3},
		{"as many arrays as fit", fill(header(0, 1, cat(key, le(4, 9), le(4, 9), le(8, (size-64)/12))...), zeros(12), 12), 8},
		{"one string of all", fill(header(0, 1, cat(key, le(4, 8), le(8, size-64))...), zeros(64), 64), 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _ = read(tc.file) // refused or not
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, tc.times*size)
		})
	}
}

// FuzzOpen: no file, mapped or not, panics, and each tensor's view is the size that the table says.
func FuzzOpen(f *testing.F) {
	f.Add(encode(f, everyType(), twoTensors()))
	f.Add(encode(f, []KV{{keySplitNo, uint16(0)}, {keySplitCount, uint16(2)}}, twoTensors()))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "m-00001-of-00002.gguf")
		require.NoError(t, os.WriteFile(path, raw, 0o600))
		file, err := Open(path)
		if err != nil {
			return
		}
		defer file.Close()
		require.LessOrEqual(t, file.DataBytes(), int64(len(raw)))
		for _, info := range file.Tensors {
			data, err := file.Data(info)
			require.NoError(t, err)
			require.Len(t, data, int(info.Bytes))
		}
	})
}

package scan

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/convert"
	"meibench/reference/gguf"
	"meibench/reference/library"
	"meibench/reference/quant"
)

// sixteen writes a model of sixteen layers in F16 with rows of 256, so that mixes of types are mixes; its norms are F32.
func sixteen(t *testing.T, dir string) string {
	luck := rng.Stream(1, "sixteen")
	add := func(name string, typ quant.Type, dims ...int) gguf.TensorData {
		x := make([]float32, 1)
		for _, d := range dims {
			x = make([]float32, len(x)*d)
		}
		for i := range x {
			x[i] = luck.Float32() - 0.5
		}
		row, err := typ.RowBytes(len(x))
		require.NoError(t, err)
		raw := make([]byte, row)
		require.NoError(t, quant.Encode(typ, raw, x))
		return gguf.TensorData{Name: name, Type: typ, Dims: dims, Data: gguf.Bytes(raw)}
	}
	data := []gguf.TensorData{add("token_embd.weight", quant.F16, 256, 2), add("output_norm.weight", quant.F32, 256), add("output.weight", quant.F16, 256, 2)}
	for i := range 16 {
		at := func(name string) string { return fmt.Sprintf("blk.%d.%s.weight", i, name) }
		data = append(data, add(at("attn_norm"), quant.F32, 256), add(at("attn_q"), quant.F16, 256, 2), add(at("attn_v"), quant.F16, 256, 2), add(at("ffn_down"), quant.F16, 256, 2))
	}
	var b bytes.Buffer
	require.NoError(t, gguf.Write(&b, []gguf.KV{{Key: "general.architecture", Value: "llama"}, {Key: "llama.block_count", Value: uint32(16)}}, data))
	path := filepath.Join(dir, "sixteen.gguf")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

// converted writes a file by recipes.
func converted(t *testing.T, dir, path string, recipes ...string) (out []string) {
	f, err := gguf.Open(path)
	require.NoError(t, err)
	defer f.Close()
	for _, name := range recipes {
		r, err := convert.Find(name)
		require.NoError(t, err)
		p, err := convert.NewPlan(f, r, false)
		require.NoError(t, err)
		var b bytes.Buffer
		require.NoError(t, p.Write(context.Background(), &b, convert.Options{Threads: 1}))
		out = append(out, filepath.Join(dir, name+".gguf"))
		require.NoError(t, os.WriteFile(out[len(out)-1], b.Bytes(), 0o600))
	}
	return out
}

// tensors are a model's bytes without its header, and how many of them some other model has too.
func tensors(l *library.Library, i int) (whole, shared units.Bytes) {
	for _, j := range l.Models[i].Blocks[1:] {
		whole += l.Blocks[j].Bytes
		if len(l.Users(j)) > 1 {
			shared += l.Blocks[j].Bytes
		}
	}
	return whole, shared
}

// A ladder says of every rung what a scan finds once the files are written: the same bytes, shared by the same models.
func TestC1LadderIsWhatQuantizeWrites(t *testing.T) {
	dir := t.TempDir()
	path := sixteen(t, dir)
	recipes := []string{"q4_0", "q4_k_s", "q4_k_m", "q6_k", "q8_0", "f16"}
	ladder, err := Ladder(path, LadderOptions{Recipes: recipes})
	require.NoError(t, err)
	found, err := Files(converted(t, dir, path, recipes...), Options{})
	require.NoError(t, err)
	require.Len(t, ladder.Models, len(recipes))
	for i, name := range recipes {
		want, wantShared := tensors(found, i)
		got, gotShared := tensors(ladder, i)
		require.Equal(t, want, got, name)
		require.Equal(t, wantShared, gotShared, name)
		require.Len(t, ladder.Models[i].Blocks, len(found.Models[i].Blocks), name)
	}
	whole, _ := tensors(ladder, 4)
	require.EqualValues(t, (3*16+2)*2*8*34+17*4*256, whole, "50 matrices of two rows of 8 blocks of 34 bytes, 17 norms of F32")
}

// Two quantisations share only what stays F32.
func TestC1TwoQuantisationsShareTheNorms(t *testing.T) {
	dir := t.TempDir()
	lib, err := Files(converted(t, dir, sixteen(t, dir), "q4_0", "q8_0"), Options{})
	require.NoError(t, err)
	for i := range lib.Models {
		_, shared := tensors(lib, i)
		require.EqualValues(t, 17*4*256, shared)
	}
}

// Fine-tunes keep the lowest layers in each type, and have the rest for themselves.
func TestC2LadderOfFineTunes(t *testing.T) {
	path := sixteen(t, t.TempDir())
	lib, err := Ladder(path, LadderOptions{Recipes: []string{"q8_0", "f16"}, Tunes: 3})
	require.NoError(t, err)
	require.Len(t, lib.Models, 6)
	layer := float64(3*2*8*34 + 4*256) // of q8_0
	for i := 2; i < 6; i += 2 {
		same := 0.0
		for _, j := range lib.Models[i].Blocks {
			if b := lib.Blocks[j]; b.Lo < b.Hi && b.Lo < 10 && len(lib.Users(j)) > 1 {
				same += float64(b.Bytes)
			}
		}
		require.InDelta(t, 10*layer, same, 0.5, "at least ten of sixteen layers")
		for _, j := range lib.Models[i].Blocks {
			if b := lib.Blocks[j]; b.Lo == 15 && b.Bytes != 1024 { // without the norm, which is the fine-tune's own in both types
				require.Len(t, lib.Users(j), 1)
			}
		}
	}
	for want, o := range map[string]LadderOptions{
		"0 recipes, 0 fine-tunes: want": {},
		"-1 fine-tunes":                 {Recipes: []string{"q8_0"}, Tunes: -1},
		"recipe 2 is q8_0 again":        {Recipes: []string{"q8_0", "Q8_0"}},
		"q1":                            {Recipes: []string{"q1"}},
	} {
		_, err := Ladder(path, o)
		require.ErrorContains(t, err, want)
	}
	_, err = Ladder(path+"x", LadderOptions{Recipes: []string{"q8_0"}})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// The first file of a model in several may hold no tensors: then it is header as a whole.
func TestC1ScansOfFilesWhoseFirstHasNoTensors(t *testing.T) {
	dir := t.TempDir()
	var sizes [2]int
	for i := range sizes {
		meta := []gguf.KV{{Key: "general.architecture", Value: "llama"}, {Key: "split.no", Value: uint16(i)}, {Key: "split.count", Value: uint16(2)}, {Key: "split.tensors.count", Value: int32(1)}}
		var data []gguf.TensorData
		if i == 1 {
			data = append(data, gguf.TensorData{Name: "token_embd.weight", Type: quant.F32, Dims: []int{4, 2}, Data: gguf.Bytes(make([]byte, 32))})
		}
		var b bytes.Buffer
		require.NoError(t, gguf.Write(&b, meta, data))
		sizes[i] = b.Len()
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("m-%05d-of-00002.gguf", i+1)), b.Bytes(), 0o600))
	}
	lib, err := Files([]string{filepath.Join(dir, "m-00001-of-00002.gguf")}, Options{})
	require.NoError(t, err)
	require.EqualValues(t, sizes[0]+32, lib.Whole(0))
}

package scan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
	"meibench/reference/gguf"
	"meibench/reference/quant"
)

// file writes a model of three layers whose tensors hold the given bytes, by name; every tensor is (4, 2) in F32.
func file(t *testing.T, dir, name string, meta []gguf.KV, tensors [][2]string) string {
	var data []gguf.TensorData
	for _, x := range tensors {
		data = append(data, gguf.TensorData{Name: x[0], Type: quant.F32, Dims: []int{4, 2}, Data: gguf.Bytes(bytes.Repeat([]byte(x[1]), 32)[:32])})
	}
	var b bytes.Buffer
	require.NoError(t, gguf.Write(&b, append([]gguf.KV{{Key: "general.architecture", Value: "llama"}}, meta...), data))
	path := filepath.Join(dir, name+".gguf")
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

func layers(embed string, of ...string) (out [][2]string) {
	out = append(out, [2]string{"token_embd.weight", embed})
	for l, x := range of {
		for _, name := range []string{"attn", "ffn"} {
			out = append(out, [2]string{"blk." + string(rune('0'+l)) + "." + name, x + name})
		}
	}
	return append(out, [2]string{"output.weight", "out" + of[len(of)-1]})
}

// A fine-tune with frozen bottom layers, one whose embedding is called otherwise, and an adapter: what they share is counted once, in
// the order of use, and bytes are those of the tensors and headers.
func TestC2ScansFindWhatIsShared(t *testing.T) {
	dir := t.TempDir()
	base := file(t, dir, "base", nil, layers("e", "a", "b", "c"))
	tune := file(t, dir, "tune", nil, layers("e", "a", "b", "x"))
	renamed := layers("e", "a", "b", "y")
	renamed[0][0] = "token_embd.v2"
	other := file(t, dir, "other", nil, renamed)
	adapter := file(t, dir, "adapter", []gguf.KV{{Key: "general.type", Value: "adapter"}}, [][2]string{{"blk.0.attn.lora_a", "p"}, {"blk.0.attn.lora_b", "q"}})
	lib, err := Files([]string{base, tune, other}, Options{Name: "three"})
	require.NoError(t, err)
	head := func(path string) units.Bytes {
		f, err := gguf.Open(path)
		require.NoError(t, err)
		defer f.Close()
		return units.Bytes(f.Tensors[0].Offset)
	}
	apart, shared := lib.Sizes()
	require.Equal(t, head(base)+head(tune)+head(other)+3*8*32, apart)
	require.Equal(t, head(base)+head(other)+units.Bytes(5+3*3)*32, shared, "one header twice, embedding and two layers thrice; three tops")
	var names []string
	for _, j := range lib.Models[1].Blocks {
		names = append(names, lib.Blocks[j].Name)
	}
	require.Equal(t, []string{"base header", "base token_embd.weight", "base blk.0.attn to blk.0.ffn", "base blk.1.attn to blk.1.ffn", "tune blk.2.attn to blk.2.ffn", "tune output.weight"}, names)
	require.Equal(t, [2]int{1, 2}, [2]int{lib.Blocks[3].Lo, lib.Blocks[3].Hi})
	require.Equal(t, lib.Models[0].Blocks[1:4], lib.Models[2].Blocks[1:4], "the name does not count")
	sum := sha256.Sum256(append(bytes.Repeat([]byte("battn"), 7)[:32], bytes.Repeat([]byte("bffn"), 8)...))
	require.Equal(t, hex.EncodeToString(sum[:]), lib.Blocks[3].Digest, "of both tensors' bytes")

	with, err := Files([]string{base, adapter}, Options{})
	require.NoError(t, err)
	require.Equal(t, append(append([]int{}, with.Models[0].Blocks...), len(with.Blocks)-1), with.Models[1].Blocks)
	require.Equal(t, with.Blocks[len(with.Blocks)-1].Name, with.Models[1].Adapter)
	require.Equal(t, units.Bytes(64), with.Blocks[len(with.Blocks)-1].Bytes)
	two, err := Files([]string{base, tune, adapter}, Options{Base: "tune"})
	require.NoError(t, err)
	require.Equal(t, "tune", two.Models[2].Family)

	for want, c := range map[string]struct {
		paths []string
		o     Options
	}{
		"say which one they go on":                 {[]string{base, tune, adapter}, Options{}},
		`model "none", which is none of the files`: {[]string{base, adapter}, Options{Base: "none"}},
		"1 adapters and no model that they go on":  {[]string{adapter}, Options{}},
		`another file is called "base" too`:        {[]string{base, base}, Options{}},
		"no files: want one at least":              {nil, Options{}},
		"nothing.gguf: no such file or directory":  {[]string{filepath.Join(dir, "nothing.gguf")}, Options{}},
	} {
		_, err := Files(c.paths, c.o)
		require.ErrorContains(t, err, want)
	}
	cut, err := os.ReadFile(base)
	require.NoError(t, err)
	broken := filepath.Join(dir, "broken.gguf")
	require.NoError(t, os.WriteFile(broken, cut[:len(cut)-40], 0o600))
	_, err = Files([]string{broken}, Options{})
	require.ErrorContains(t, err, "broken.gguf")
}

// Content that one file has twice, such as norms of ones, is a part for each time; a tensor of another type is another.
func TestC2ScansOfRepeatedContent(t *testing.T) {
	dir := t.TempDir()
	a := file(t, dir, "a", nil, layers("e", "n", "n", "n"))
	b := file(t, dir, "b", nil, layers("e", "n", "n", "z"))
	lib, err := Files([]string{a, b}, Options{})
	require.NoError(t, err)
	require.Len(t, lib.Models[0].Blocks, 6)
	require.Equal(t, lib.Models[0].Blocks[:4], lib.Models[1].Blocks[:4])
	_, shared := lib.Sizes()
	apart, _ := lib.Sizes()
	require.Less(t, shared, apart)
	text, err := lib.Text()
	require.NoError(t, err)
	require.Contains(t, string(text), "sha256")
}

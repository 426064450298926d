package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/gguf"
	"meibench/reference/models"
	"meibench/reference/quant"
)

// TestQuantize writes an embedded model as Q8_0, loads it, and asks it something.
func TestQuantize(t *testing.T) {
	dir := t.TempDir()
	raw, err := models.Bytes(models.Table[0].Name)
	require.NoError(t, err)
	in, out := filepath.Join(dir, "in.gguf"), filepath.Join(dir, "out.gguf")
	require.NoError(t, os.WriteFile(in, raw, 0o600))

	code, text, errOut := do(t, "quantize", in, "--type", "q8_0", "--dry-run")
	require.Zero(t, code, errOut)
	require.Contains(t, text, "blk.0.attn_q.weight")
	require.NoFileExists(t, out)

	code, text, errOut = do(t, "quantize", in, out, "--type", "q8_0", "--json")
	require.Zero(t, code, errOut)
	var q quantized
	require.NoError(t, json.Unmarshal([]byte(text), &q))
	require.Less(t, q.BytesAfter, q.BytesBefore)
	f, err := gguf.Open(out)
	require.NoError(t, err)
	require.Equal(t, q.BytesAfter, f.DataBytes())
	embed, err := f.Tensor("token_embd.weight")
	require.NoError(t, err)
	require.Equal(t, quant.Q8_0, embed.Type)
	require.NoError(t, f.Close())
	l, err := models.Load(out)
	require.NoError(t, err)
	w := l.Model.NewWork(1)
	defer w.Close()
	answer, err := l.Answer(w, "me south straight , car east straight , main none , light off , walkers none , dry =>", 8)
	require.NoError(t, err)
	require.NotEmpty(t, answer)

	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2, "no temporary file stays")
}

func TestQuantizeRefuses(t *testing.T) {
	dir := t.TempDir()
	raw, err := models.Bytes(models.Table[0].Name)
	require.NoError(t, err)
	in := filepath.Join(dir, "in.gguf")
	require.NoError(t, os.WriteFile(in, raw, 0o600))
	broken := filepath.Join(dir, "broken.gguf")
	require.NoError(t, os.WriteFile(broken, raw[:len(raw)/2], 0o600))
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no output", []string{in}, 2, "where to?"},
		{"unknown recipe", []string{in, "x.gguf", "--type", "q4_k_n"}, 2, "have bf16, f16"},
		{"absent input", []string{filepath.Join(dir, "absent.gguf"), "x.gguf"}, 2, "no such file"},
		{"truncated input", []string{broken, "x.gguf"}, 2, "truncated"},
		{"onto itself", []string{in, in}, 2, "one file"},
		{"no folder", []string{in, filepath.Join(dir, "no", "x.gguf")}, 3, "no such file"},
		{"no threads", []string{in, "x.gguf", "--threads", "0"}, 2, "at least 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, _, errOut := do(t, append([]string{"quantize", "-q"}, tc.args...)...)
			require.Equal(t, tc.code, code, errOut)
			require.Contains(t, errOut, tc.want)
		})
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2, "no temporary file stays")
	after, err := os.ReadFile(in)
	require.NoError(t, err)
	require.Equal(t, raw, after)
}

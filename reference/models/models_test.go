package models

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/llm"
)

func TestTable(t *testing.T) {
	require.True(t, sort.SliceIsSorted(Table, func(i, j int) bool { return Table[i].Name < Table[j].Name }))
	card, err := os.ReadFile("README.md")
	require.NoError(t, err)
	total := 0
	var vocabulary []string
	for _, e := range Table {
		l, err := Open(e.Name)
		require.NoError(t, err)
		require.Equal(t, e.Name, l.Name)
		require.Equal(t, l.Model.Vocab, l.Tokenizer.Len())
		data, err := Bytes(e.Name)
		require.NoError(t, err)
		if e.Name == Default {
			require.LessOrEqual(t, len(data), 6<<20)
		}
		total += len(data)
		if vocabulary == nil {
			vocabulary = l.Tokenizer.Metadata().Tokens
		}
		require.Equal(t, vocabulary, l.Tokenizer.Metadata().Tokens, "one tokenizer for all")
		var millions float64
		_, err = fmt.Sscanf(e.Size, "%f M", &millions)
		require.NoError(t, err)
		require.InEpsilon(t, millions*1e6, l.Model.TotalParams(), 0.02)
		require.Contains(t, string(card), l.SHA256, "the card describes these bytes")
		params := fmt.Sprintf("%d parameters", l.Model.TotalParams())
		require.Contains(t, string(card), params)
	}
	require.LessOrEqual(t, total, 20<<20)
	_, err = Open("mei-huge")
	require.ErrorContains(t, err, `open model "mei-huge": unknown, have mei-base, mei-nano, mei-small`)
}

// A file on disk and the embedded bytes are the same model; a span of layers
// and damaged bytes work as package llm says.
func TestLoad(t *testing.T) {
	data, err := Bytes(Default)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	l, err := Load(path)
	require.NoError(t, err)
	want, err := Open(Default)
	require.NoError(t, err)
	require.Equal(t, want.SHA256, l.SHA256)
	require.Equal(t, want.Model.Config, l.Model.Config)
	require.True(t, want.Model.Packed() && l.Model.Packed())
	for _, m := range []*Loaded{want, l} { // F16 weights, so packing changes nothing but the speed
		w := m.Model.NewWork(1)
		text, err := m.Answer(w, "please play jazz in the kitchen =>", 16)
		require.NoError(t, err)
		require.Equal(t, "play jazz kitchen", text)
		w.Close()
	}
	require.NoError(t, l.Model.Close())
	part, err := Read(data, llm.ReadOptions{Lo: 1, Hi: 2})
	require.NoError(t, err)
	require.Equal(t, 2, part.Model.Hi)
	_, err = Read(data[:len(data)/2], llm.ReadOptions{})
	require.Error(t, err)
	_, err = load(path, 1000)
	require.ErrorContains(t, err, "the budget is 1000")
	_, err = Load(path + ".none")
	require.ErrorContains(t, err, "load model")
}

func ExampleOpen() {
	l, _ := Open(Default)
	w := l.Model.NewWork(1)
	defer w.Close()
	text, _ := l.Answer(w, "please play jazz in the kitchen =>", 16)
	fmt.Println(text)
	// Output: play jazz kitchen
}

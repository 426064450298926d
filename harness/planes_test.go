package harness

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/convert"
	"meibench/reference/gguf"
	"meibench/reference/models"
)

// TestC7UnusableRungIsNotOffered: of mei-nano in q4_0 the coarse plane (8 blocks) has two bits a weight and answers less than half of
// what the file does, so the first rung offered is the next; of q8_0 the coarse plane stays. All blocks stay in any case.
func TestC7UnusableRungIsNotOffered(t *testing.T) {
	whole, err := models.Open("mei-nano")
	require.NoError(t, err)
	raw, err := models.Bytes("mei-nano")
	require.NoError(t, err)
	for recipe, rungs := range map[string][]int{"q4_0": {14, 15}, "q8_0": {8, 14, 20}} {
		f, err := gguf.Read(bytes.NewReader(raw), int64(len(raw)))
		require.NoError(t, err)
		r, err := convert.Find(recipe)
		require.NoError(t, err)
		p, err := convert.NewPlan(f, r, false)
		require.NoError(t, err)
		var file bytes.Buffer
		require.NoError(t, p.Write(context.Background(), &file, convert.Options{Threads: 1}))
		lib, err := planesOf("nano", file.Bytes(), whole.Tokenizer)
		require.NoError(t, err)
		m := lib.Models[0]
		var blocks []int
		for _, rung := range m.Rungs {
			blocks = append(blocks, rung.Blocks)
		}
		require.Equal(t, rungs, blocks, recipe)
		last := m.Rungs[len(m.Rungs)-1]
		require.Equal(t, len(m.Blocks), last.Blocks)
		require.Positive(t, last.Quality)
		for _, rung := range m.Rungs {
			require.GreaterOrEqual(t, rung.Quality, usable*last.Quality)
		}
	}
}

package coldstart

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/quant"
	"meibench/reference/storage"
)

func base(t *testing.T) string {
	data, err := models.Bytes("mei-base")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "base.gguf")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// TestC5EveryWayIsOneModel: tokens and logits are identical in every way, cold and warm; and where the cache was empty, the
// bytes that were read are those of the file: by our own count for the way that reads it, by the pages that the cache then
// holds, and by what the system fetched, up to a whole page.
func TestC5EveryWayIsOneModel(t *testing.T) {
	path := base(t)
	rows, err := Measure(path, Options{Prompt: []int32{5, 6, 7, 8}, Threads: 2, Partial: 3})
	require.NoError(t, err)
	require.Len(t, rows, 10)
	const page = 4096
	cold := 0
	for _, r := range rows {
		require.True(t, r.Same, "%s %s", r.Way, r.Start)
		require.Len(t, r.Answer, 4)
		require.Greater(t, r.FirstToken, r.Open+r.Load)
		whole := (r.FileBytes + page - 1) / page * page
		if r.Way == Read {
			require.Equal(t, r.FileBytes, r.CountedBytes)
		}
		if r.Way == Stream { // padding between tensors is not read; the index and embedding rows are read by themselves
			require.InDelta(t, r.FileBytes, r.CountedBytes, 0.03*float64(r.FileBytes))
		}
		if r.Start != "cold" || !r.Cold() {
			continue
		}
		cold++
		require.LessOrEqual(t, r.HeldAfter, whole)
		switch r.Way {
		case Read, MapPack, Stream, Map:
			require.Equal(t, whole, r.HeldAfter, r.Way)
			if r.Use.ReadBytes > 0 {
				require.GreaterOrEqual(t, r.Use.ReadBytes, r.FileBytes, r.Way)
				require.Less(t, r.Use.ReadBytes, whole+16*page, r.Way)
			}
		}
	}
	if held, _, err := storage.Resident(path); err == nil && held != storage.Unknown && storage.Evict(path) == nil {
		if left, _, _ := storage.Resident(path); left == 0 {
			require.Equal(t, 5, cold)
		}
	}
}

// TestC5QuantisedWaysAgree: the ways that pack agree bit for bit on quantised weights too; the one that does not pack
// computes without rounded activations, and the row says that it differs.
func TestC5QuantisedWaysAgree(t *testing.T) {
	m, err := llm.New(llm.Config{Arch: llm.Llama, Layers: 3, Dim: 128, Heads: 4, KVHeads: 2, FFN: 256, Vocab: 300, Context: 32}, 3)
	require.NoError(t, err)
	m, err = m.As(quant.Q8_0)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "q8.gguf")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, m.Write(f))
	require.NoError(t, f.Close())
	rows, err := Measure(path, Options{Prompt: []int32{1, 2}})
	require.NoError(t, err)
	for _, r := range rows {
		require.Equal(t, r.Way != Map, r.Same, r.Way)
	}
}

func TestRefusals(t *testing.T) {
	path := base(t)
	_, err := Measure(path, Options{})
	require.ErrorContains(t, err, "want a prompt")
	_, err = Measure(path, Options{Prompt: []int32{1}, Ways: []string{"tape"}})
	require.ErrorContains(t, err, "want one of [map map+pack partial read stream]")
	_, err = Measure(path, Options{Prompt: []int32{1}, Ways: []string{Partial}, Partial: 99})
	require.ErrorContains(t, err, "the model has 8")
	_, err = Measure(filepath.Join(t.TempDir(), "none"), Options{Prompt: []int32{1}})
	require.Error(t, err)
	_, err = Measure(path, Options{Prompt: []int32{-1}})
	require.ErrorContains(t, err, "id -1")
}

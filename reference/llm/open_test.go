package llm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
)

// TestOpen: a mapped and packed model computes what the model that was written computes, packed or not.
func TestOpen(t *testing.T) {
	for _, name := range []string{"llama", "llama experts", "gemma2"} {
		c := packable(configs()[name])
		for _, typ := range []quant.Type{quant.F32, quant.F16, quant.Q8_0, quant.Q4_K} {
			m, err := model(t, c).As(typ)
			require.NoError(t, err)
			var b bytes.Buffer
			require.NoError(t, m.Write(&b))
			path := filepath.Join(t.TempDir(), "model.gguf")
			require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
			ids := tokens(9, m.Vocab)

			plain, err := Open(path, ReadOptions{Unpacked: true})
			require.NoError(t, err)
			require.False(t, plain.Packed())
			require.Equal(t, all(t, work(t, m, 1), ids), all(t, work(t, plain, 1), ids), "%s %v", name, typ)
			require.NoError(t, plain.Close())

			packed, err := Open(path, ReadOptions{Threads: 2})
			require.NoError(t, err)
			require.True(t, packed.Packed())
			require.NoError(t, m.Pack(1))
			require.Equal(t, all(t, work(t, m, 1), ids), all(t, work(t, packed, 1), ids), "%s %v", name, typ)
			require.Equal(t, m.WeightBytes(0, m.Layers), packed.WeightBytes(0, m.Layers))
			require.NoError(t, packed.Close())
			require.NoError(t, packed.Close())
		}
	}
}

// TestOpenStaysSmall: what Go allocates for a packed model does not grow with its weights, which live outside the heap.
func TestOpenStaysSmall(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("weights are mapped on linux only")
	}
	c := packable(configs()["llama"])
	c.Vocab, c.FFN = 20000, 4096
	m, err := New(c, 1)
	require.NoError(t, err)
	m, err = m.As(quant.Q8_0)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "model.gguf")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, m.Write(f))
	require.NoError(t, f.Close())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	opened, err := Open(path, ReadOptions{})
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	require.Greater(t, int64(opened.WeightBytes(0, c.Layers)), int64(15<<20))
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))

	// Nor do pages of the file stay: smaps lists what is resident of each mapping.
	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	_, ours, ok := strings.Cut(string(smaps), path+"\n")
	require.True(t, ok, "the file is not mapped")
	var resident int
	_, ours, _ = strings.Cut(ours, "\nRss:")
	_, err = fmt.Sscanf(ours, "%d kB", &resident)
	require.NoError(t, err)
	require.Less(t, resident, 2<<10) // of 15 MiB and more
	require.NoError(t, opened.Close())
}

// TestCloseUnpacks: a model that was packed in memory computes what it did before, once its panels are given back.
func TestCloseUnpacks(t *testing.T) {
	m, err := model(t, packable(configs()["llama"])).As(quant.Q4_K)
	require.NoError(t, err)
	ids := tokens(9, m.Vocab)
	want := all(t, work(t, m, 1), ids)
	require.NoError(t, m.Pack(1))
	require.NotEqual(t, want, all(t, work(t, m, 1), ids)) // activations are rounded
	require.NoError(t, m.Close())
	require.False(t, m.Packed())
	require.Equal(t, want, all(t, work(t, m, 1), ids))
}

// BenchmarkOpen maps and packs the GGUF file that MEIBENCH_MODEL names.
func BenchmarkOpen(b *testing.B) {
	path := os.Getenv("MEIBENCH_MODEL")
	if path == "" {
		b.Skip("MEIBENCH_MODEL names no file")
	}
	info, err := os.Stat(path)
	require.NoError(b, err)
	b.SetBytes(info.Size())
	for b.Loop() {
		m, err := Open(path, ReadOptions{})
		require.NoError(b, err)
		require.NoError(b, m.Close())
	}
}

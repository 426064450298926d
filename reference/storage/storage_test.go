package storage

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

func file(t *testing.T, n int) (string, []byte) {
	data := make([]byte, n)
	r := rng.Stream(1, t.Name())
	for i := range data {
		data[i] = byte(r.Uint64())
	}
	path := filepath.Join(t.TempDir(), "weights")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path, data
}

// TestReadsAreTheFile: any window of a file, in any mode, is the bytes of the file; payload is what was asked for.
func TestReadsAreTheFile(t *testing.T) {
	path, data := file(t, 3*Align+77)
	for _, mode := range []Mode{Direct, Dropped, Cached} {
		r, err := Open(path, mode)
		require.NoError(t, err)
		require.GreaterOrEqual(t, r.Mode, mode) // never a stronger one than asked for
		b := NewBuffer(len(data))
		var asked int64
		for _, w := range [][2]int{{0, 1}, {0, len(data)}, {Align - 1, 2}, {5, Align}, {3 * Align, 77}, {len(data) - 1, 1}, {9, 0}} {
			got, err := r.Read(b, int64(w[0]), w[1])
			require.NoError(t, err)
			require.True(t, bytes.Equal(data[w[0]:w[0]+w[1]], got), "%v %v", mode, w)
			asked += int64(w[1])
		}
		require.Equal(t, asked, r.Payload())
		require.GreaterOrEqual(t, r.Moved(), asked)
		require.Equal(t, int64(6), r.Reads())
		_, err = r.Read(b, int64(len(data)), 1)
		require.ErrorContains(t, err, "the file has")
		_, err = r.Read(NewBuffer(1), 0, len(data))
		require.ErrorContains(t, err, "the buffer takes")
		all, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, all))
		require.NoError(t, r.Close())
	}
	_, err := Open(path, Mode(9))
	require.ErrorContains(t, err, "want storage.Direct")
	_, err = Open(t.TempDir(), Cached)
	require.ErrorContains(t, err, "regular file")
}

// TestEvictedFileIsReadAgain: after Evict nothing is held, after a read through the cache all is, after one that drops or
// goes around it nothing; and the system counts the bytes of the file as fetched, in whole pages.
func TestEvictedFileIsReadAgain(t *testing.T) {
	path, data := file(t, 64*Align+5)
	require.NotPanics(t, func() { _, _, _ = Resident(path) })
	if err := Evict(path); err != nil {
		t.Skip(err)
	}
	if held, _, err := Resident(path); err != nil || held != 0 {
		t.Skipf("this file system keeps its files in memory: %d bytes held (%v)", held, err)
	}
	for mode, left := range map[Mode]int64{Direct: 0, Dropped: 0, Cached: 65 * Align} {
		require.NoError(t, Evict(path))
		before := Used()
		rate, got, err := Bandwidth(path, mode)
		require.NoError(t, err)
		require.Positive(t, rate)
		if got != mode {
			continue
		}
		held, of, err := Resident(path)
		require.NoError(t, err)
		require.Equal(t, int64(65*Align), of)
		require.Equal(t, left, held, mode.String())
		if read := Used().Minus(before).ReadBytes; read != Unknown && mode == Direct {
			require.GreaterOrEqual(t, read, int64(len(data)))
			require.Less(t, read, int64(len(data)+Align*4))
		}
	}
}

func TestUnknownStaysUnknown(t *testing.T) {
	d := Usage{10, 5, Unknown, 7, 8}.Minus(Usage{4, Unknown, 2, 1, 1})
	require.Equal(t, Usage{6, Unknown, Unknown, 7, 8}, d)
	_, _, err := Resident(filepath.Join(t.TempDir(), "none"))
	require.Error(t, err)
	require.Error(t, Evict(filepath.Join(t.TempDir(), "none")))
}

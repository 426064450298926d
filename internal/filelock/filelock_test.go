package filelock_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/filelock"
)

func TestASecondWriterIsRefusedUntilTheFirstIsGone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no advisory locks here")
	}
	path := filepath.Join(t.TempDir(), "f")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	first, second := open(), open()
	require.NoError(t, filelock.Exclusive(first))
	require.ErrorIs(t, filelock.Exclusive(second), filelock.ErrHeld)
	require.NoError(t, first.Close())
	require.NoError(t, filelock.Exclusive(second))
}

func TestReadersShareAndKeepAWriterOut(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no advisory locks here")
	}
	path := filepath.Join(t.TempDir(), "f")
	var f [3]*os.File
	for i := range f {
		var err error
		f[i], err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f[i].Close() })
	}
	require.NoError(t, filelock.Shared(f[0]))
	require.NoError(t, filelock.Shared(f[1]))
	require.ErrorIs(t, filelock.Exclusive(f[2]), filelock.ErrHeld)
	require.NoError(t, f[0].Close())
	require.NoError(t, f[1].Close())
	require.NoError(t, filelock.Exclusive(f[2]))
}

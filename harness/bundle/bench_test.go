package bundle

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A leaderboard of a thousand entries opens each and derives its claims.
func BenchmarkOpenAndDerive(b *testing.B) {
	dir := b.TempDir()
	run := made(b, filepath.Join(dir, "a"), spec{cells: 3, repeats: 6, requests: 17}) // 306 rows
	folder, file := filepath.Join(dir, "out"), filepath.Join(dir, "x.zip")
	require.NoError(b, Write(folder, []string{run}, Options{Name: "x"}))
	require.NoError(b, Pack(folder, file))
	for _, path := range []string{folder, file} {
		b.Run("from="+map[string]string{folder: "folder", file: "zip"}[path], func(b *testing.B) {
			for b.Loop() {
				x, err := Open(path)
				require.NoError(b, err)
				_, _, err = Derive(x.Runs, x.Manifest)
				require.NoError(b, err)
				require.NoError(b, x.Close())
			}
		})
	}
}

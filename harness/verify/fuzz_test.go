package verify

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/bundle"
	"meibench/harness/plan"
	"meibench/harness/results"
	"meibench/suites"
)

// FuzzFolder changes bytes of one file of an honest run folder, repairs the
// digests as who lies would, and checks it. Whatever stands there, the answer is
// a verdict, and nothing that the checker itself did not think of.
func FuzzFolder(f *testing.F) {
	files := []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile, results.ManifestFile, plan.File, hostFile}
	honest := run(f, modelledSuite, suites.Set{Key: "repeats", Values: []any{1.0}}, suites.Set{Key: "requests", Values: []any{3.0}}, suites.Set{Key: "app", Values: []any{"driving"}})
	for i, name := range files {
		b, err := os.ReadFile(filepath.Join(honest, name))
		require.NoError(f, err)
		for k := range 8 {
			f.Add(byte(i), uint32(k*len(b)/8), []byte{255})
		}
		f.Add(byte(i), uint32(0), []byte{})
	}
	f.Add(byte(5), uint32(200), []byte(`"requests":999999999`))
	c := New(Options{Rerun: None})
	f.Fuzz(func(t *testing.T, file byte, at uint32, with []byte) {
		dir := filepath.Join(t.TempDir(), "run")
		require.NoError(t, os.CopyFS(dir, os.DirFS(honest)))
		name := files[int(file)%len(files)]
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		if len(with) == 0 {
			b = b[:int(at)%len(b)] // cut off
		}
		for i, x := range with[:min(len(with), 64)] {
			b[(int(at)+i)%len(b)] ^= x
		}
		require.NoError(t, os.WriteFile(path, b, 0o644))
		if d, err := results.DigestFile(path); err == nil && name != results.ManifestFile && name != plan.File && name != hostFile {
			manifest(t, dir, func(m *results.Manifest) { m.Files[name] = d })
		}
		v := c.CheckRun(context.Background(), dir)
		require.False(t, slices.ContainsFunc(v.Findings, func(f bundle.Finding) bool { return strings.HasPrefix(f.Text, "cannot be checked") }), "%v", v.Findings)
	})
}

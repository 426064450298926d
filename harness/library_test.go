package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const wardsFile = `
name: wards
blocks:
  - {name: base, bytes: 200000, layers: [0, 4]}
  - {name: heart, bytes: 50000}
models:
  - {name: general, blocks: [base], weight: %s}
  - {name: cardiology, needs: [general], blocks: [heart], adapter: heart, weight: %s}
`

const wardsSuite = `
name: wards
question: does a suite run on a library file?
defaults: {site: this-machine-cloud, app: robotics, scale: task, model: mei-base, pipeline: deliver, mode: modelled, library: %q, requests: 5, users: 2, rate: 5}
matrix:
  want: [weights]
`

// TestC2SuitesRunOnLibraryFiles: with all weight on one model, every request brings that one's bytes; a file that is wrong ends the run
// before it begins, with its name.
func TestC2SuitesRunOnLibraryFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "wards.yaml")
	lab := &Lab{Host: hostSheet(t)}
	for k, tc := range []struct {
		general, cardiology string
		bytes               float64
	}{
		{"1e15", "1", 200_000},
		{"1", "1e15", 250_000}, // what it needs, and its own
	} {
		require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, wardsFile, tc.general, tc.cardiology), 0o600))
		s := parse(t, fmt.Sprintf(wardsSuite, path))
		_, rows := outputs(t, lab, s.Cells[0])
		require.NotEmpty(t, rows)
		for _, r := range rows {
			require.InDelta(t, tc.bytes, float64(r.DownBytes), 1000, "and framing")
		}
		out := filepath.Join(dir, fmt.Sprint(k))
		require.NoError(t, Run(context.Background(), lab, options(t, out, s)))
		require.Contains(t, string(read(t, out, "bench.txt")), "wards")
	}
	wrong := strings.Replace(wardsFile, "needs: [general]", "needs: [cardiology]", 1)
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, wrong, "1", "1"), 0o600))
	_, err := lab.resolve(parse(t, fmt.Sprintf(wardsSuite, path)).Cells[0], false)
	require.ErrorContains(t, err, "models need each other: cardiology needs cardiology")
	require.ErrorContains(t, err, "wards.yaml")
}

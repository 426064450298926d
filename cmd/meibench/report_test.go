package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The suite of maps gives a heat map and a load curve, and a figure can be had again
// as a PDF of another width, with the same bytes each time.
func TestMapsAndFiguresOfOneKind(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	code, _, errOut := do(t, "run", "map", "--set", "requests=8", "--repeat", "1", "--out", out, "-q")
	require.Equal(t, 0, code, errOut)
	for _, name := range []string{"links.svg", "links-2.svg", "load.png"} {
		require.FileExists(t, filepath.Join(out, "figures", name))
	}
	var first []byte
	for range 2 {
		code, text, errOut := do(t, "report", out, "--only", "load", "--width", "8.8cm", "--figures", "pdf", "--out", filepath.Join(out, "paper"))
		require.Equal(t, 0, code, errOut)
		require.Equal(t, filepath.Join(out, "paper", "figures", "load.pdf")+"\n", text)
		b, err := os.ReadFile(filepath.Join(out, "paper", "figures", "load.pdf"))
		require.NoError(t, err)
		require.True(t, first == nil || string(first) == string(b), "same bytes")
		first = b
	}
	require.NoFileExists(t, filepath.Join(out, "paper", "report.html"))
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--figures", "gif"}, "want some of svg, png, pdf"},
		{[]string{"--figures", "pdf"}, "must be svg or png"},
		{[]string{"--width", "8.8cm"}, "for figures of --only"},
		{[]string{"--only", "load", "--width", "1km"}, "want 6cm to 60cm"},
		{[]string{"--only", "lode"}, `no figure is called "lode"; the report has`},
	} {
		code, _, errOut := do(t, append([]string{"report", out}, tc.args...)...)
		require.Equal(t, 2, code)
		require.Contains(t, errOut, tc.want)
	}
}

package main

import (
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/plan"
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
	oneCellAgain(t, out)
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
	code, text, errOut := do(t, "report", out, "--definitions", "vllm,ours", "--out", filepath.Join(t.TempDir(), "by"))
	require.Equal(t, 0, code, errOut)
	require.Contains(t, text, "vllm: from behind the concurrency gate")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--definitions", "vlm"}, `no definition is called "vlm"`},
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

// oneCellAgain runs the command that the page gives for a cell: it selects this cell
// alone, and being modelled it gives the same numbers.
func oneCellAgain(t *testing.T, dir string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	require.NoError(t, err)
	commands := regexp.MustCompile("<code>meibench (run --plan [^<]*)</code>").FindAllStringSubmatch(string(page), -1)
	p, err := plan.Read(dir)
	require.NoError(t, err)
	require.Len(t, commands, len(p.Suites[0].Cells), "every cell has one")
	line := func(dir, name string) string {
		text, err := os.ReadFile(filepath.Join(dir, "summary.csv"))
		require.NoError(t, err)
		for l := range strings.Lines(string(text)) {
			if strings.Contains(l, ","+name+",") {
				return l
			}
		}
		return ""
	}
	command := strings.Fields(html.UnescapeString(commands[len(commands)-5][1]))
	require.Equal(t, []string{"run", "--plan", ".", "--cell"}, command[:4])
	_, name, _ := strings.Cut(command[4], "/")
	t.Chdir(dir)
	code, _, errOut := do(t, append(command, "--out", "one", "-q")...)
	require.Equal(t, 0, code, errOut)
	require.NotEmpty(t, line(".", name))
	require.Equal(t, line(".", name), line("one", name))
	text, err := os.ReadFile("one/summary.csv")
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(text), "\n"), "the head and one cell")
	code, _, errOut = do(t, "run", "--plan", ".", "--cell", "map/nothing", "--out", "two", "-q")
	require.Equal(t, 2, code)
	require.Contains(t, errOut, `no cell "map/nothing"`)
	code, _, errOut = do(t, "run", "map", "--cell", name, "--out", "two", "-q")
	require.Equal(t, 2, code)
	require.Contains(t, errOut, "--cell belongs to --plan")
}

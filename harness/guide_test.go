package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/pipeline"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/suites"
)

// blocks are the fenced blocks of a page in one language, in order.
func blocks(t *testing.T, page, language string) (out []string) {
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	inside, want, block := false, false, ""
	for line := range strings.Lines(string(text)) {
		mark, fence := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "```")
		switch {
		case fence && inside:
			if inside = false; want {
				out = append(out, block)
			}
		case fence:
			inside, want, block = true, mark == language, ""
		default:
			block += line
		}
	}
	return out
}

const guide = "../docs/writing-a-pipeline.md"

// The guide shows the file that is compiled, in 40 to 120 lines, and the line that
// registers it.
func TestGuideShowsTheCodeThatRuns(t *testing.T) {
	code := blocks(t, guide, "go")
	require.Len(t, code, 1)
	file, err := os.ReadFile("pipeline/fallback.go")
	require.NoError(t, err)
	require.Equal(t, string(file), code[0])
	lines := strings.Count(code[0], "\n")
	require.GreaterOrEqual(t, lines, 40)
	require.LessOrEqual(t, lines, 120)
	table, err := os.ReadFile("pipeline/table.go")
	require.NoError(t, err)
	require.Contains(t, blocks(t, guide, ""), "\tfallbackEntry,\n")
	require.Contains(t, string(table), "\tfallbackEntry,\n")
	_, err = pipeline.Find("fallback")
	require.NoError(t, err)
}

// The guide's site and suite run measured, emulated and modelled: the edge node
// fails requests of offload, and fallback answers them as the device alone does.
func TestGuideSuiteRunsInThreeModes(t *testing.T) {
	yaml := blocks(t, guide, "yaml")
	require.Len(t, yaml, 2)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "edge-restarts.yaml"), []byte(yaml[0]), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "fallback.yaml"), []byte(yaml[1]), 0o644))
	t.Chdir(dir)
	s, err := suites.Load("./fallback.yaml")
	require.NoError(t, err)
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, options(t, filepath.Join(dir, "run"), s)))
	set, err := results.Read(filepath.Join(dir, "run"))
	require.NoError(t, err)
	defer set.Close()
	require.Len(t, set.Runs(), 9)
	answers, failed, retries := map[string]string{}, map[string]int{}, map[string]int64{}
	for i, run := range set.Runs() {
		arm := run.Cell.Pipeline + " " + run.Cell.Mode
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			if r.Outcome != record.OK {
				failed[arm]++
			}
			retries[arm] += r.Counts[record.Retries]
			answers[fmt.Sprint(arm, r.ID)] = fmt.Sprint(r.OutputTokens, r.Quality)
		}
	}
	for _, mode := range []string{"measured", "emulated", "modelled"} {
		require.Positive(t, failed["offload "+mode], mode)
		require.Zero(t, failed["fallback "+mode], mode)
		require.Positive(t, retries["fallback "+mode], mode)
		for id := range 16 {
			require.Equal(t, answers[fmt.Sprint("local ", mode, id)], answers[fmt.Sprint("fallback ", mode, id)], "%s, request %d", mode, id)
		}
	}
}

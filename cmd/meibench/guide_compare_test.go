package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The commands of docs/comparing.md work as they stand there, in their order.
func TestCommandsOfTheGuideToComparing(t *testing.T) {
	text, err := os.ReadFile("../../docs/comparing.md")
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	ran, verdicts := 0, ""
	for _, block := range strings.Split(string(text), "```console\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for _, line := range strings.Split(strings.TrimSpace(block), "\n") {
			args, ok := strings.CutPrefix(line, "$ go run ./cmd/meibench ")
			if !ok {
				require.True(t, strings.HasPrefix(line, "$ make compare "), "%s: no test for this line", line)
				continue
			}
			code, out, errOut := do(t, append(strings.Fields(args), "-q")...)
			require.Zero(t, code, "%s: %s", line, errOut)
			if strings.HasPrefix(args, "compare ") {
				verdicts = out
			}
			ran++
		}
	}
	require.Equal(t, 5, ran)
	require.Contains(t, verdicts, "no difference shown (identical)")
}

package verify

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the table of rules in docs/verify.md")

// The table of rules in the documentation is that of the code.
func TestDocsHaveTheRules(t *testing.T) {
	const path = "../../docs/verify.md"
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var b strings.Builder
	b.WriteString("<!-- rules -->\n| rule | severity | what must hold | what is compared |\n|---|---|---|---|\n")
	for _, r := range Rules() {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.ID, r.Severity, cell(r.Title), cell(r.Text))
	}
	b.WriteString("<!-- end of rules -->")
	part := regexp.MustCompile(`(?s)<!-- rules -->.*<!-- end of rules -->`)
	require.True(t, part.Match(text))
	now := part.ReplaceAllLiteralString(string(text), b.String())
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(now), 0o644))
		return
	}
	require.Equal(t, now, string(text), "run go test ./harness/verify -run Docs -update")
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

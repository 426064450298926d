package page_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reports/page"
)

func TestThePolicyAllowsThisScriptAndNoOther(t *testing.T) {
	require.NotEqual(t, page.Policy(page.Script()), page.Policy(page.Script()+" "))
	require.True(t, strings.HasPrefix(page.Policy(""), "default-src 'none'"))
	for _, text := range []string{string(page.Style()), string(page.Script()), page.Report()} {
		require.NotEmpty(t, text)
		require.NotContains(t, text, "://", "a page asks nothing of a network")
		require.NotContains(t, text, "@import")
	}
	require.NotContains(t, page.Script(), "</script", "it would end the element early")
}

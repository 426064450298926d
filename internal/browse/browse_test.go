package browse_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/browse"
)

const page = `<!doctype html><title>t</title><button onclick="this.textContent = 'pressed'">press</button><input>
<select><option>a</option><option>b</option></select><p>one</p><p hidden>two</p><p>three</p>`

func write(t *testing.T, html string) string {
	path := filepath.Join(t.TempDir(), "a page.html")
	require.NoError(t, os.WriteFile(path, []byte(html), 0o644))
	return browse.File(t, path)
}

func TestAReader(t *testing.T) {
	p := browse.Open(t, write(t, page))
	p.Click("button")
	require.Equal(t, "pressed", p.Text("button"))
	p.Type("input", "words")
	p.Type("input", "other")
	p.Choose("select", "b")
	var values []string
	p.Eval("[document.querySelector('input').value, document.querySelector('select').value]", &values)
	require.Equal(t, []string{"other", "b"}, values)
	require.Equal(t, []string{"one", "three"}, p.Texts("p"), "what is hidden is not read")
	dark := false
	p.Prefer("prefers-color-scheme", "dark")
	p.Eval("matchMedia('(prefers-color-scheme: dark)').matches", &dark)
	require.True(t, dark)
	width := 0
	p.Window(320, 600)
	p.Eval("innerWidth", &width)
	require.Equal(t, 320, width)
	require.True(t, strings.HasPrefix(string(p.Screenshot()), "\x89PNG"))
	require.True(t, strings.HasPrefix(string(p.PDF()), "%PDF"))
	require.Empty(t, p.Console())
	require.Empty(t, p.Requests())
}

// What a page must not do is seen, or a test that finds nothing would say nothing.
func TestMisdeedsAreSeen(t *testing.T) {
	p := browse.Open(t, write(t, `<!doctype html><title>t</title><meta http-equiv="Content-Security-Policy" content="style-src 'none'">
<img src="https://example.invalid/x.png"><p style="color: red"></p><script>console.error("a complaint", 3); undefined_function()</script>`))
	require.Equal(t, []string{"https://example.invalid/x.png"}, p.Requests())
	said := strings.Join(p.Console(), "\n")
	for _, want := range []string{"undefined_function", "a complaint", "Content Security Policy"} {
		require.Contains(t, said, want)
	}
}

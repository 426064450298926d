package strictyaml

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type doc struct {
	A int   `yaml:"a"`
	B []int `yaml:"b"`
}

func TestDecode(t *testing.T) {
	var d doc
	require.NoError(t, Decode("f.yaml", []byte("# note\na: 1\nb: [2, 3]\n"), 100, &d))
	require.Equal(t, doc{1, []int{2, 3}}, d)
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", "a: 1\nc: 2\n", "f.yaml:2:1: unknown field"},
		{"duplicate key", "a: 1\na: 2\n", "f.yaml:2:1: "},
		{"alias", "a: &x 1\nb: [*x]\n", "f.yaml:1:"},
		{"two documents", "a: 1\n---\na: 2\n", "2 documents"},
		{"empty", "# nothing\n", "empty"},
		{"too large", "a: 1" + strings.Repeat(" ", 100), "at most 100"},
		{"wrong type", "a: [1]\n", "f.yaml:1:"},
		{"deep", strings.Repeat("[", 40), "nested too deeply"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.ErrorContains(t, Decode("f.yaml", []byte(tc.text), 100, &d), tc.want)
		})
	}
}

// A mebibyte of keys, or of anchors, takes the reader minutes if it gets it.
func TestHostileFilesAreRefusedAtOnce(t *testing.T) {
	began := time.Now()
	for _, text := range []string{strings.Repeat("k: 1\n", 200_000), strings.Repeat("&a ", 300_000), strings.Repeat("- ", 400_000)} {
		var d doc
		require.Error(t, Decode("f.yaml", []byte(text), 1<<20, &d))
	}
	require.Less(t, time.Since(began), 20*time.Second) // minutes without the bound
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("a: 1\nb: [1]\n"))
	f.Add([]byte("a: &x 1\nb: [*x]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var d doc
		_ = Decode("f.yaml", text, 1<<16, &d)
	})
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEval(t *testing.T) {
	code, out, errOut := do(t, "eval", "--n", "10", "--app", "driving", "-q")
	require.Zero(t, code, errOut)
	require.Contains(t, out, "driving")
	require.Contains(t, out, "level 5")

	code, out, _ = do(t, "eval", "--n", "10", "--app", "driving", "--json", "-q")
	require.Zero(t, code)
	var r struct {
		Split        string
		Applications []struct {
			Name string
			Easy struct{ N int }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, "test", r.Split)
	require.Equal(t, 10, r.Applications[0].Easy.N)

	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte(strings.Repeat("see red cup 3 , blue key 5 ; ", 40)), 0o600))
	code, out, errOut = do(t, "eval", "--perplexity", text, "--window", "64", "-q")
	require.Zero(t, code, errOut)
	require.Contains(t, out, "perplexity ")
	require.Contains(t, out, "of 64 every 32")
}

func TestEvalErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no such model", []string{"--model", "gpt-9"}, exitUsage, `no model "gpt-9": meibench ships `},
		{"no such application", []string{"--app", "drivin"}, exitUsage, `did you mean "driving"?`},
		{"no such layer", []string{"--layers", "99"}, exitUsage, "answer from layer 99"},
		{"no server", []string{"--endpoint", "http://127.0.0.1:1"}, exitEnvironment, "is the server running?"},
		{"layers of a server", []string{"--endpoint", "http://127.0.0.1:1", "--layers", "2"}, exitUsage, "--layers needs a model at hand"},
		{"perplexity of a server", []string{"--endpoint", "http://127.0.0.1:1", "--perplexity", "x"}, exitUsage, "needs a model at hand"},
		{"no text", []string{"--perplexity", "/no/such/text"}, exitUsage, "read the text for --perplexity"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, _, errOut := do(t, append([]string{"eval", "-q"}, tc.args...)...)
			require.Equal(t, tc.code, code)
			require.Contains(t, errOut, tc.want)
		})
	}
}

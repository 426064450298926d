package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware/endpoint"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/reference/models"
	"meibench/reference/train"
)

// serving starts meibench serve as a user would and returns its address.
func serving(t *testing.T, args ...string) string {
	return listening(t, append([]string{"serve"}, args...)...)
}

// listening starts a command that serves, on a free port, and returns the address that it says first.
func listening(t *testing.T, command ...string) string {
	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan int, 1)
	var errOut bytes.Buffer
	go func() {
		ended <- execute(ctx, w, &errOut, append(command, "--listen", "127.0.0.1:0"))
		w.Close()
	}()
	url, err := bufio.NewReader(r).ReadString('\n')
	t.Cleanup(func() {
		stop()
		require.Zero(t, <-ended, errOut.String())
	})
	require.NoError(t, err, errOut.String())
	return strings.TrimSpace(url)
}

// What is served is a system under test: run and eval ask it, and the answers are
// graded like those of a pipeline that runs the model itself.
func TestServeRunEval(t *testing.T) {
	url := serving(t, "--model", "mei-small", "--model", "other=mei-nano")
	out := filepath.Join(t.TempDir(), "run")
	code, _, errOut := do(t, "run", "--endpoint", url, "--app", "driving,ar", "--set", "requests=8", "--set", "rate=20", "--out", out, "-q")
	require.Contains(t, []int{0, exitGate}, code, errOut) // a busy machine may spoil a cell
	set, err := results.Read(out)
	require.NoError(t, err)
	defer set.Close()
	require.Equal(t, "mei-small", set.Manifest.Endpoints[0].Model, "the first that is listed")
	require.Equal(t, "meibench", set.Manifest.Endpoints[0].Server)
	require.Len(t, set.Runs(), 2)
	good := 0.0
	for i, run := range set.Runs() {
		require.Equal(t, []string{"endpoint", "measured", "mei-small"}, []string{run.Cell.Pipeline, run.Cell.Mode, run.Cell.Model})
		require.Zero(t, run.Cell.Facts.Mismatched)
		require.Empty(t, run.Cell.Warnings)
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			require.Equal(t, record.OK, r.Outcome, r.Err)
			good += r.Quality
		}
	}
	require.Greater(t, good, 8.0, "most of 16 answers are right, as the model's card says")

	code, local, errOut := do(t, "eval", "--app", "driving", "--n", "20", "--json", "-q")
	require.Zero(t, code, errOut)
	code, served, errOut := do(t, "eval", "--endpoint", url, "--app", "driving", "--n", "20", "--json", "-q")
	require.Zero(t, code, errOut)
	var a, b struct{ Applications any }
	require.NoError(t, json.Unmarshal([]byte(local), &a))
	require.NoError(t, json.Unmarshal([]byte(served), &b))
	require.Equal(t, a, b, "the same scores in place and over HTTP")
}

// An adapter's file is served under its own name, on the model that it fits.
func TestServeAdapter(t *testing.T) {
	m, err := models.Open("mei-nano")
	require.NoError(t, err)
	lora, err := train.NewLoRA(m.Model.Config, 2, 4, 1, "attn_q")
	require.NoError(t, err)
	var file bytes.Buffer
	require.NoError(t, lora.Write(&file, m.Model.Arch))
	path := filepath.Join(t.TempDir(), "a.gguf")
	require.NoError(t, os.WriteFile(path, file.Bytes(), 0o644))
	url := serving(t, "--model", "mei-small", "--model", "mei-nano", "--adapter", "mine="+path)
	c, err := endpoint.New(endpoint.Config{URL: url, Model: "mine"})
	require.NoError(t, err)
	defer c.Close()
	names, _, err := c.Models(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"mei-small", "mei-nano", "mine"}, names)
	_, err = c.Complete(t.Context(), endpoint.Request{Prompt: "the", Limit: 4})
	require.NoError(t, err)
	code, _, errOut := do(t, "serve", "--model", "mei-base", "--adapter", "mine="+path)
	require.Equal(t, 2, code)
	require.Contains(t, errOut, "model mei-base")
}

func TestServeRefuses(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"serve", "--model", "nobody"}, 2, "meibench ships"},
		{[]string{"serve", "--model", "mei-nano", "--model", "mei-nano"}, 2, "given twice"},
		{[]string{"serve", "--adapter", "x"}, 2, "want NAME=FILE.gguf"},
		{[]string{"serve", "--chat-template", "x"}, 2, "is not known"},
		{[]string{"serve", "--api-key-env", "MEIBENCH_NO_SUCH_KEY"}, 2, "is empty"},
		{[]string{"serve", "--listen", "256.0.0.1:1"}, 3, "--listen"},
		{[]string{"serve", "--batch", "0"}, 2, "1 or more"},
		{[]string{"run", "--api", "chat"}, 2, "belong to --endpoint"},
		{[]string{"run", "--endpoint", "http://127.0.0.1:1"}, 3, "is the server running?"},
		{[]string{"run", "--endpoint", "localhost"}, 2, "want an address"},
	} {
		code, _, errOut := do(t, tc.args...)
		require.Equal(t, tc.code, code, errOut)
		require.Contains(t, errOut, tc.want)
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/models"
)

// TestC7DepotServesAndFetches: what is fetched is what is served, the second time from the folder alone, and a prompt is
// answered on the way as the whole model answers it.
func TestC7DepotServesAndFetches(t *testing.T) {
	url := listening(t, "depot", "serve")
	dir := t.TempDir()
	code, out, errOut := do(t, "depot", "ls", "--from", url)
	require.Zero(t, code, errOut)
	require.Contains(t, out, "mei-nano")
	want, err := models.Bytes("mei-nano")
	require.NoError(t, err)
	l, err := models.Open("mei-nano")
	require.NoError(t, err)
	prompt := "me south straight , car east straight , dry ; may me go =>"
	w := l.Model.NewWork(1)
	defer w.Close()
	answer, err := l.Answer(w, prompt, 8)
	require.NoError(t, err)
	for _, http2 := range []string{"--http2=false", "--http2"} {
		file := filepath.Join(dir, "m"+http2+".gguf")
		code, out, errOut = do(t, "depot", "fetch", "mei-nano", "--from", url, "--cache", filepath.Join(dir, "cache"+http2), "--out", file, http2, "--run", prompt, "--n", "8", "--json")
		require.Zero(t, code, errOut)
		var got struct {
			Text  string  `json:"text"`
			First float64 `json:"first_token_s"`
			Whole float64 `json:"fetched_s"`
		}
		require.NoError(t, json.Unmarshal([]byte(out), &got))
		require.Equal(t, answer, got.Text)
		require.Positive(t, got.First)
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, data))
	}
	code, out, errOut = do(t, "depot", "fetch", "mei-nano", "--from", url, "--cache", filepath.Join(dir, "cache--http2"), "--out", filepath.Join(dir, "again.gguf"))
	require.Zero(t, code, errOut)
	require.Contains(t, out, "blocks, SHA-256 "+l.SHA256[:16])
}

func TestDepotRefuses(t *testing.T) {
	url := listening(t, "depot", "serve", "mei-nano", "--rate", "100000000")
	for want, args := range map[string][]string{
		"have mei-nano":        {"depot", "fetch", "mei-huge", "--from", url, "--cache", t.TempDir()},
		"want 0 or more":       {"depot", "fetch", "mei-nano", "--from", url, "--budget", "-1"},
		"is no shipped model":  {"depot", "serve", "nothing.gguf"},
		"--transfers 0":        {"depot", "serve", "--transfers", "0"},
		"connect":              {"depot", "ls", "--from", "http://127.0.0.1:1"},
		"accepts 1 arg(s), re": {"depot", "fetch"},
	} {
		code, _, errOut := do(t, args...)
		require.NotZero(t, code, args)
		require.Contains(t, errOut, want)
	}
}

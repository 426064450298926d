package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/reference/models"
)

// lossy passes packets on to an address but for every n-th, and some twice or late; it returns where to send to.
func lossy(t *testing.T, to string, nth int) string {
	in, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { in.Close() })
	target, err := net.ResolveUDPAddr("udp4", to)
	require.NoError(t, err)
	go func() {
		buf := make([]byte, 2048)
		var late []byte
		for i := 1; ; i++ {
			n, _, err := in.ReadFrom(buf)
			if err != nil {
				return
			}
			switch {
			case i%nth == 0:
			case i%11 == 0:
				late = bytes.Clone(buf[:n])
			default:
				_, _ = in.WriteTo(buf[:n], target)
				if late != nil {
					_, _ = in.WriteTo(late, target)
					_, _ = in.WriteTo(buf[:n], target)
					late = nil
				}
			}
		}
	}()
	return in.LocalAddr().String()
}

// TestC6CarouselBringsModels: a model comes over a way that loses, doubles and reorders packets: by repair symbols alone, or by what came
// and the lacking ranges from a depot; and without one the file does not appear.
func TestC6CarouselBringsModels(t *testing.T) {
	depot := listening(t, "depot", "serve", "mei-nano")
	want, err := models.Bytes("mei-nano")
	require.NoError(t, err)
	dir := t.TempDir()
	run := func(name string, nth int, repair string, receive ...string) (code int, out, errOut string) {
		free, err := net.ListenPacket("udp4", "127.0.0.1:0")
		require.NoError(t, err)
		at := free.LocalAddr().String()
		require.NoError(t, free.Close())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			code, out, errOut = do(t, append([]string{"carousel", "receive", "--listen", at, "--idle", "700ms", "--out", filepath.Join(dir, name), "--json"}, receive...)...)
		}()
		time.Sleep(200 * time.Millisecond)
		sent, _, sentErr := do(t, "carousel", "send", "mei-nano", "--to", lossy(t, at, nth), "--repair", repair, "--rate", "4000000")
		require.Zero(t, sent, sentErr)
		<-ended
		return code, out, errOut
	}
	result := func(out string) (r struct {
		Depot    int64 `json:"depot_bytes"`
		Repaired int   `json:"repaired_symbols"`
	}) {
		require.NoError(t, json.Unmarshal([]byte(out), &r))
		return r
	}
	whole := func(name string) {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), name)
	}
	code, out, errOut := run("repaired.gguf", 10, "0.5", "--sha256", fmt.Sprintf("%x", sha256.Sum256(want)))
	require.Zero(t, code, errOut)
	whole("repaired.gguf")
	require.Positive(t, result(out).Repaired)
	require.Zero(t, result(out).Depot)

	code, out, errOut = run("mended.gguf", 4, "0", "--model", "mei-nano", "--depot", depot)
	require.Zero(t, code, errOut)
	whole("mended.gguf")
	require.Positive(t, result(out).Depot)
	require.Less(t, result(out).Depot, int64(len(want))/2, "a quarter was lost")

	code, _, errOut = run("lacking.gguf", 4, "0", "--sha256", fmt.Sprintf("%x", sha256.Sum256(want)))
	require.Equal(t, exitIncomplete, code)
	require.Contains(t, errOut, "source blocks are lacking")
	require.NoFileExists(t, filepath.Join(dir, "lacking.gguf"))
	for say, args := range map[string][]string{
		"--out is needed":           {"carousel", "receive", "--sha256", "00"},
		"want 64 hexadecimal":       {"carousel", "receive", "--sha256", "00", "--out", "x"},
		"--model needs --depot":     {"carousel", "receive", "--model", "m", "--out", "x"},
		"want --sha256, or --model": {"carousel", "receive", "--out", "x"},
		"is not in the catalogue":   {"carousel", "receive", "--model", "m", "--depot", depot, "--out", "x"},
		"repair 3":                  {"carousel", "send", "mei-nano", "--repair", "3", "--to", "127.0.0.1:9"},
		"no such file":              {"carousel", "send", "nothing"},
		"--to nowhere":              {"carousel", "send", "mei-nano", "--to", "nowhere"},
	} {
		code, _, errOut := do(t, args...)
		require.NotZero(t, code, args)
		require.Contains(t, errOut, say)
	}
}

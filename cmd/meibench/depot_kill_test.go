package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/reference/models"
)

// program starts meibench as a process of its own; it is killed at the end if it still runs.
func program(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer, *bufio.Reader) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), asProgram+"=1")
	errOut := &bytes.Buffer{}
	c.Stderr = errOut
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	t.Cleanup(func() { _ = c.Process.Kill() })
	return c, errOut, bufio.NewReader(out)
}

// node starts depot serve and returns its address.
func node(t *testing.T, args ...string) (*exec.Cmd, string) {
	c, errOut, out := program(t, append([]string{"depot", "serve"}, args...)...)
	address, err := out.ReadString('\n')
	require.NoError(t, err, errOut.String())
	return c, strings.TrimSpace(address)
}

// TestC7KilledClientsGoOn: a client that is killed again and again in the middle of a download ends with the right bytes, and has fetched
// little twice; two that share a folder at the same time, and with the one that died, never spoil it.
func TestC7KilledClientsGoOn(t *testing.T) {
	want, err := models.Bytes("mei-base")
	require.NoError(t, err)
	_, from := node(t, "mei-base", "--listen", "127.0.0.1:0", "--rate", "12000000")
	target, err := url.Parse(from)
	require.NoError(t, err)
	var passed atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.ServeHTTP(&counted{w, &passed}, r)
	}))
	defer between.Close()
	dir := t.TempDir()
	cache := filepath.Join(dir, "cache")
	fetch := func(name string) (*exec.Cmd, *bytes.Buffer) {
		c, errOut, _ := program(t, "depot", "fetch", "mei-base", "--from", between.URL, "--cache", cache, "--out", filepath.Join(dir, name))
		return c, errOut
	}
	kills := 0
	for range 4 {
		c, _ := fetch("killed.gguf")
		began := passed.Load()
		deadline := time.Now().Add(20 * time.Second)
		for passed.Load() < began+1_000_000 && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		if err := c.Process.Kill(); err == nil {
			kills++
		}
		_ = c.Wait()
	}
	require.Equal(t, 4, kills)
	require.NoFileExists(t, filepath.Join(dir, "killed.gguf"), "nothing looks whole that is not")
	a, errA := fetch("a.gguf")
	b, errB := fetch("b.gguf")
	require.NoError(t, a.Wait(), errA.String())
	require.NoError(t, b.Wait(), errB.String())
	for _, name := range []string{"a.gguf", "b.gguf"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), name)
	}
	// What was written to a socket and not to the folder when a client died is lost: some buffers for each kill.
	require.Less(t, passed.Load(), int64(len(want))+int64(kills)*4_000_000)
	t.Logf("%d bytes of %d passed with %d kills", passed.Load(), len(want), kills)
}

// counted counts what passes.
type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// Flush lets bytes go as they come.
func (c *counted) Flush() { c.ResponseWriter.(http.Flusher).Flush() }

// TestC7KilledNodesAreWaitedFor: a node that dies in the middle and is started again is asked for the rest by the same client.
func TestC7KilledNodesAreWaitedFor(t *testing.T) {
	want, err := models.Bytes("mei-base")
	require.NoError(t, err)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	serve := func() *exec.Cmd {
		c, _ := node(t, "mei-base", "--listen", address, "--rate", "8000000")
		return c
	}
	first := serve()
	dir := t.TempDir()
	client, errOut, _ := program(t, "depot", "fetch", "mei-base", "--from", "http://"+address, "--cache", filepath.Join(dir, "cache"), "--out", filepath.Join(dir, "m.gguf"))
	here := func() (n int64) {
		list, _ := os.ReadDir(filepath.Join(dir, "cache"))
		for _, e := range list {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return n
	}
	for deadline := time.Now().Add(20 * time.Second); here() < 2_000_000 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	require.NoError(t, first.Process.Kill())
	_ = first.Wait()
	had := here()
	require.Less(t, had, int64(len(want)), "it died in the middle")
	serve()
	require.NoError(t, client.Wait(), errOut.String())
	got, err := os.ReadFile(filepath.Join(dir, "m.gguf"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}

// TestC8ChainsOfNodesWithCertificates: a device gets a model from an edge node that gets it from another, each hop with certificates;
// without one nobody is served, and a file that is not the one wanted is refused.
func TestC8ChainsOfNodesWithCertificates(t *testing.T) {
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	code, _, errOut := do(t, "agent", "certs", certs)
	require.Zero(t, code, errOut)
	cloud := listening(t, "depot", "serve", "mei-nano", "--certs", certs)
	require.True(t, strings.HasPrefix(cloud, "https://"), cloud)
	edge := listening(t, "depot", "serve", "--from", cloud, "--cache", filepath.Join(dir, "edge"), "--certs", certs)
	out := filepath.Join(dir, "m.gguf")
	code, _, errOut = do(t, "depot", "fetch", "mei-nano", "--from", edge, "--certs", certs, "--cache", filepath.Join(dir, "device"), "--out", out, "--http2")
	require.Zero(t, code, errOut)
	want, err := models.Bytes("mei-nano")
	require.NoError(t, err)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	for say, args := range map[string][]string{
		"certificate": {"depot", "ls", "--from", edge},
		"--certs and --from http://127.0.0.1:1: certificates are shown over https only": {"depot", "ls", "--from", "http://127.0.0.1:1", "--certs", certs},
		"--sha256 wants 00": {"depot", "fetch", "mei-nano", "--from", edge, "--certs", certs, "--cache", filepath.Join(dir, "device"), "--out", out + "2", "--sha256", strings.Repeat("00", 32)},
		"--client-rate -1":  {"depot", "serve", "--client-rate", "-1"},
		"no such file":      {"depot", "serve", "--certs", filepath.Join(dir, "none")},
	} {
		code, _, errOut := do(t, args...)
		require.NotZero(t, code, fmt.Sprint(args))
		require.Contains(t, errOut, say)
	}
}

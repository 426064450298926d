package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/results"
)

// heard is a buffer that one goroutine writes and another reads.
type heard struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.String()
}

// TestAgentCommands: certificates, an agent, and a run over it, as docs/agent.md
// says; an interrupt ends the agent with exit code 0.
func TestAgentCommands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	var out, errs heard
	require.Zero(t, execute(t.Context(), &out, &errs, []string{"agent", "certs", dir}), errs.String())
	require.Equal(t, exitUsage, execute(t.Context(), &out, &errs, []string{"agent", "certs", dir}), "they are not overwritten")

	ctx, interrupt := context.WithCancel(t.Context())
	var said, log heard
	code := make(chan int, 1)
	go func() {
		code <- execute(ctx, &said, &log, []string{"agent", "--certs", dir, "--listen", "127.0.0.1:0", "--model", "mei-nano"})
	}()
	require.Eventually(t, func() bool { return strings.Contains(said.String(), "SHA-256") }, 10*time.Second, 5*time.Millisecond, "%s", &log)
	_, rest, _ := strings.Cut(said.String(), " agent on ")
	address, _, _ := strings.Cut(rest, ",")

	folder := filepath.Join(t.TempDir(), "run")
	args := []string{"run", "-q", "--app", "ar", "--pipeline", "offload", "--mode", "measured", "--model", "mei-nano", "--set", "requests=2", "--repeat", "1",
		"--agent", "edge=" + address, "--agent-certs", dir, "--out", folder, "--no-report"}
	got := execute(t.Context(), &out, &errs, args)
	require.Contains(t, []int{0, exitGate}, got, errs.String()) // a busy machine makes a cell INVALID
	set, err := results.Read(folder)
	require.NoError(t, err)
	defer set.Close()
	require.Len(t, set.Manifest.Agents, 1)
	require.Equal(t, address, set.Manifest.Agents[0].Address)
	require.True(t, set.Manifest.Agents[0].TLS)
	require.Positive(t, set.Manifest.Agents[0].Operations)

	interrupt()
	require.Zero(t, <-code)
	require.Contains(t, log.String(), "the client left")
}

func TestAgentFlags(t *testing.T) {
	for _, tc := range []struct {
		args string
		want string
	}{
		{"agent", "certificate, key and CA are needed"},
		{"agent --insecure --listen 0.0.0.0:0", "insecure is for loopback only"},
		{"agent --insecure --slots 0", "want 1 or more"},
		{"agent --insecure --model llama-3.2-1b:q4_0", "is only a shape"},
		{"agent --certs nowhere", "no such file"},
		{"run --agent edge --agent-insecure", "want NODE=HOST:PORT"},
		{"run --agent edge=127.0.0.1:1", "needs --agent-certs"},
		{"run --agent edge=a:1,edge=b:2 --agent-insecure", "has an agent already"},
		{"run --agent-insecure", "belong to --agent"},
		{"run --mode measured --agent attic=127.0.0.1:1 --agent-insecure --dry-run", "none of them for agents attic"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			var out, errs heard
			require.Equal(t, exitUsage, execute(t.Context(), &out, &errs, strings.Fields(tc.args)))
			require.Contains(t, errs.String(), tc.want)
		})
	}
}

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/bundle"
)

// lastLine is the verdict.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

func TestABundleIsVerified(t *testing.T) {
	t.Chdir(t.TempDir())
	ran(t, "log", "init", "log", "--origin", "board.example")
	ran(t, "plan", "placement", "--app", "driving", "--set", "requests=20", "--repeat", "2", "--out", "p.json")
	ran(t, "plan", "p.json", "--commit", "log")
	ran(t, "run", "-q", "--no-report", "--plan", "p.json", "--log", "log", "--out", "runs/a")
	ran(t, "bundle", "keygen", "alice", "--out", "keys")
	ran(t, "bundle", "runs/a", "--name", "pi5", "--key", "keys/alice.key")

	require.Contains(t, lastLine(ran(t, "verify", "runs/a")), "ACCEPTED runs/a: tier T2 replayed, plan not committed")
	out := ran(t, "verify", "pi5.meibench.zip", "--keys", "keys/alice.pub", "--log", "log")
	require.Contains(t, lastLine(out), "ACCEPTED pi5.meibench.zip: tier T2 replayed, plan committed before the run")
	require.Contains(t, out, "run again: 6 modelled and 0 kernel runs of cells, 120 requests; 0 left")
	require.Contains(t, lastLine(ran(t, "verify", "pi5.meibench.zip", "--rerun", "none")), "tier T1 consistent")
	ran(t, "verify", "pi5.meibench.zip", "--log", "log/log.pub", "--rerun", "sample")

	var v bundle.Verdict
	require.NoError(t, json.Unmarshal([]byte(ran(t, "verify", "pi5.meibench.zip", "--json", "--keys", "keys/alice.pub")), &v))
	require.Equal(t, bundle.Replayed, v.Tier)
	require.Equal(t, []string{"alice"}, v.Signers)

	ran(t, "bundle", "runs/a", "--name", "pi5", "--dir", "--out", "folder")
	require.NoError(t, os.WriteFile(filepath.Join("folder", bundle.ReadmeFile), []byte("edited"), 0o644))
	code, out, errOut := do(t, "verify", "folder")
	require.Equal(t, 1, code)
	require.Contains(t, out, "V002 error README.md")
	require.Equal(t, "REFUSED folder: 1 error(s), 0 warning(s)", lastLine(out))
	require.NotContains(t, errOut, "meibench:", "the verdict has said it")
	code, _, _ = do(t, "verify", "pi5.meibench.zip", "--strict")
	require.Equal(t, 1, code, "the signer is not known")
}

func TestVerifyExplainsAndRefusesNonsense(t *testing.T) {
	t.Chdir(t.TempDir())
	require.Contains(t, ran(t, "verify", "--explain", "v040"), "V040 (error): no answer is faster than its device can compute it")
	require.Contains(t, ran(t, "verify", "--explain", "all"), "V060 error")
	refusedWith(t, 2, "unknown rule", "verify", "--explain", "V999")
	refusedWith(t, 2, "needs a bundle", "verify")
	refusedWith(t, 2, "want none, sample, modelled or all", "verify", "x", "--rerun", "some")
	refusedWith(t, 2, "--keys", "verify", "x", "--keys", "nowhere")
	refusedWith(t, 2, "--log", "verify", "x", "--log", "nowhere")
	refusedWith(t, 2, "model", "verify", "x", "--model", "nowhere.gguf")
	refusedWith(t, 3, "nowhere", "verify", "nowhere")
	require.NoError(t, os.WriteFile("keys", []byte("# none\n"), 0o644))
	refusedWith(t, 2, "no key in it", "verify", "x", "--keys", "keys")
	require.NoError(t, os.WriteFile("junk.meibench.zip", []byte("PK junk"), 0o644))
	code, out, _ := do(t, "verify", "junk.meibench.zip")
	require.Equal(t, 1, code)
	require.Contains(t, out, "V001 error")
}

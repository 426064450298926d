package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/bundle"
	"meibench/harness/results"
)

func TestABundleIsMadeSignedAndRead(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	ran(t, "run", "-q", "--no-report", "placement", "--app", "driving", "--set", "requests=20", "--repeat", "2", "--out", "runs/a")
	require.Contains(t, ran(t, "bundle", "keygen", "alice", "--out", "keys"), "alice+")
	refusedWith(t, 2, "keys are never replaced", "bundle", "keygen", "alice", "--out", "keys")
	refusedWith(t, 2, "key name", "bundle", "keygen", "a b")
	refusedWith(t, 2, "not the .pub", "bundle", "runs/a", "--key", "keys/alice.pub")

	out := ran(t, "bundle", "runs/a", "--name", "pi5", "--key", "keys/alice.key", "--title", "A board")
	require.Contains(t, out, "redacted: ")
	require.Contains(t, out, "division: ")
	require.Contains(t, out, "signed by: alice")
	require.Contains(t, out, "next: meibench verify pi5.meibench.zip")
	b, err := bundle.Open("pi5.meibench.zip")
	require.NoError(t, err)
	require.Contains(t, out, "identity: "+b.H1)
	require.Len(t, b.Manifest.Runs[0].Plan, 64, "run folders have a plan")
	require.Equal(t, b.Manifest.Attempts.Cells, b.Manifest.Attempts.Done)
	set, err := results.Read("runs/a")
	require.NoError(t, err)
	require.Equal(t, set.Manifest.SuiteHash, b.Manifest.Runs[0].SuiteHash)
	require.NoError(t, set.Close())
	require.NoError(t, b.Close())
	refusedWith(t, 2, "is there", "bundle", "runs/a", "--name", "pi5")

	var res bundleResult
	require.NoError(t, json.Unmarshal([]byte(ran(t, "--json", "bundle", "runs/a", "--name", "pi5", "--key", "keys/alice.key", "--title", "A board", "--dir", "--out", "folder")), &res))
	require.Equal(t, b.H1, res.H1, "a folder and a zip are one bundle")
	require.Equal(t, "pi5", res.Name)

	ran(t, "bundle", "keygen", "bob", "--out", "keys")
	require.Contains(t, ran(t, "bundle", "sign", "pi5.meibench.zip", "--key", "keys/bob.key"), b.H1+" has 2 signature(s) now, the last by bob")
	refusedWith(t, 2, "--key is missing", "bundle", "sign", "pi5.meibench.zip")
	require.NoError(t, os.WriteFile(filepath.Join("folder", bundle.ReadmeFile), []byte("edited"), 0o644))
	refusedWith(t, 1, "V002 README.md", "bundle", "sign", "folder", "--key", "keys/bob.key")

	require.Contains(t, ran(t, "bundle", "runs/a", "--checklist"), "# Artifact evaluation")
	code, _, errOut := do(t, "bundle", "runs/a", "--out", "unsigned.meibench.zip")
	require.Zero(t, code)
	require.Contains(t, errOut, "nobody signed it")
}

func TestBundleRefusesWhatIsNoRun(t *testing.T) {
	t.Chdir(t.TempDir())
	refusedWith(t, 2, "is it a folder that meibench run wrote?", "bundle", "nothing")
	refusedWith(t, 2, "requires at least 1 arg", "bundle")
	ran(t, "run", "-q", "--no-report", "placement", "--quick", "--app", "driving", "--set", "requests=20", "--out", "q")
	refusedWith(t, 2, "--open", "bundle", "q")
	require.Contains(t, ran(t, "bundle", "q", "--open", "-q"), "runs/q: a quick run, NOT COMPARABLE")
}

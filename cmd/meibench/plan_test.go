package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"meibench/harness/ledger"
	"meibench/harness/plan"
	"meibench/harness/results"
)

// ran runs a command line that must work and returns what it printed.
func ran(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errOut := do(t, args...)
	require.Zero(t, code, "%v\n%s", args, errOut)
	return out
}

// refusedWith runs a command line that must not.
func refusedWith(t *testing.T, code int, want string, args ...string) {
	t.Helper()
	got, _, errOut := do(t, args...)
	require.Equal(t, code, got, errOut)
	require.Contains(t, errOut, want)
}

func TestAPlanIsFixedCommittedRunAndRepeated(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.Contains(t, ran(t, "log", "init", at("log"), "--origin", "board.example"), "public key: board.example+")
	ran(t, "plan", "placement", "--app", "driving", "--set", "requests=20", "--repeat", "2", "--out", at("p.json"))
	require.Contains(t, ran(t, "plan", at("p.json"), "--commit", at("log")), "which nobody could know before")
	refusedWith(t, 2, "committed before", "plan", at("p.json"), "--commit", at("log"))
	refusedWith(t, 2, "is there", "plan", "placement", "--out", at("p.json"))

	ran(t, "run", "-q", "--no-report", "--plan", at("p.json"), "--log", at("log"), "--out", at("a"))
	set, err := results.Read(at("a"))
	require.NoError(t, err)
	defer set.Close()
	r, err := plan.ReadReceipt(at("a"))
	require.NoError(t, err)
	p, err := plan.Read(at("a"))
	require.NoError(t, err)
	log, err := ledger.Open(at("log"))
	require.NoError(t, err)
	require.NoError(t, r.Check(p, note.VerifierList(log.Verifier())))
	seed, err := r.Seed()
	require.NoError(t, err)
	require.Equal(t, seed, set.Runs()[0].Cell.Seed, "the first repeat has the seed of the log")
	kinds := ""
	for _, e := range log.Entries() {
		kinds += e.Kind + " "
	}
	require.Equal(t, "plan attempt result ", kinds)
	shown := ran(t, "log", "show", at("log"))
	require.Equal(t, 4, strings.Count(shown, "\n"))
	require.Contains(t, shown, "complete")
	require.Contains(t, ran(t, "log", "check", at("log")), "ok: 3 entries")

	ran(t, "run", "-q", "--no-report", "--plan", at("a"), "--out", at("b"))
	for _, f := range []string{results.RequestsFile, results.SpansFile, results.CellsFile, results.BenchFile, plan.File, plan.ReceiptFile} {
		one, err := os.ReadFile(filepath.Join(at("a"), f))
		require.NoError(t, err)
		two, err := os.ReadFile(filepath.Join(at("b"), f))
		require.NoError(t, err)
		require.Equal(t, string(one), string(two), f)
	}

	refusedWith(t, 2, "leave out placement --seed", "run", "placement", "--plan", at("p.json"), "--seed", "7")
	refusedWith(t, 2, "--log belongs to --plan", "run", "--log", at("log"))
	refusedWith(t, 4, "already holds a run", "run", "-q", "--plan", at("p.json"), "--log", at("log"), "--out", at("a"))
	require.Contains(t, ran(t, "log", "show", at("log")), "3 entries", "what never began is no attempt")
}

func TestAPlanThatWasChangedIsRefused(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ran(t, "log", "init", at("log"), "--origin", "board.example")
	ran(t, "plan", "placement", "--app", "driving", "--set", "requests=20", "--out", at("p.json"), "--commit", at("log"))
	text, err := os.ReadFile(at("p.json"))
	require.NoError(t, err)
	for want, change := range map[string][2]string{
		"changed after it was committed": {`"requests":20`, `"requests":10`},
		"unknown field":                  {`"format"`, `"colour":1,"format"`},
	} {
		require.NoError(t, os.WriteFile(at("p.json"), []byte(strings.ReplaceAll(string(text), change[0], change[1])), 0o644))
		refusedWith(t, 2, want, "run", "-q", "--plan", at("p.json"), "--out", at("x"))
	}
	p, err := plan.Read(writeFile(t, at("q.json"), text))
	require.NoError(t, err)
	for name := range p.Models {
		p.Models[name] = strings.Repeat("0", 64)
	}
	require.NoError(t, p.Write(at("q.json")))
	refusedWith(t, 2, "cannot be run here as it was fixed: model", "run", "-q", "--plan", at("q.json"), "--out", at("x"))
	refusedWith(t, 2, "in no log yet", "run", "-q", "--plan", at("q.json"), "--log", at("log"), "--out", at("x"))
}

func writeFile(t *testing.T, path string, text []byte) string {
	require.NoError(t, os.WriteFile(path, text, 0o644))
	return path
}

func TestWitnessesSignCheckpoints(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	ran(t, "log", "init", log, "--origin", "board.example")
	old, err := os.ReadFile(filepath.Join(log, ledger.CheckpointFile))
	require.NoError(t, err)
	kept := writeFile(t, filepath.Join(dir, "kept"), old)
	private, public, err := note.GenerateKey(nil, "witness.example")
	require.NoError(t, err)
	key := writeFile(t, filepath.Join(dir, "w.key"), []byte(private))
	both := ran(t, "log", "sign", kept, "--key", key, "--log-key", filepath.Join(log, ledger.PublicFile))
	v, err := note.NewVerifier(public)
	require.NoError(t, err)
	n, err := note.Open([]byte(both), note.VerifierList(v))
	require.NoError(t, err)
	require.Len(t, n.Sigs, 1)

	ran(t, "plan", "placement", "--app", "driving", "--out", filepath.Join(dir, "p.json"), "--commit", log)
	require.Contains(t, ran(t, "log", "check", log, "--since", kept), "ok: 1 entries, the first 0")
	one := writeFile(t, filepath.Join(dir, "one"), []byte(func() string { b, _ := os.ReadFile(filepath.Join(log, ledger.CheckpointFile)); return string(b) }()))
	ran(t, "log", "check", log, "--since", one)
	require.NoError(t, os.WriteFile(filepath.Join(log, ledger.CheckpointFile), old, 0o644))
	refusedWith(t, 1, "taken back", "log", "check", log, "--since", one)
	refusedWith(t, 2, "--key and --log-key", "log", "sign", kept)
}

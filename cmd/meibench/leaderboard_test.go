package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/ledger"
)

// TestALeaderboardFromPlanToSite follows docs/leaderboards.md: plan, run, bundle,
// add, build; then what must not get onto a board, or stay unnoticed on it.
func TestALeaderboardFromPlanToSite(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	board := at("board")
	ran(t, "leaderboard", "init", board, "--name", "Edge & home", "--origin", "example.org/edge")
	refusedWith(t, 2, "holds a leaderboard", "leaderboard", "init", board, "--name", "x", "--origin", "y")
	ran(t, "plan", "placement", "--app", "driving", "--set", "requests=40", "--repeat", "6", "--out", at("p.json"), "--commit", filepath.Join(board, "log"))
	ran(t, "run", "-q", "--no-report", "--plan", at("p.json"), "--log", filepath.Join(board, "log"), "--out", at("mine"))
	ran(t, "bundle", "keygen", "ann", "--out", dir)
	ran(t, "bundle", at("mine"), "--key", at("ann.key"), "--out", at("mine.zip"))
	refusedWith(t, 1, "put the submitter's public key there", "leaderboard", "add", board, at("mine.zip"), "-q", "--rerun", "none")
	key, err := os.ReadFile(at("ann.pub"))
	require.NoError(t, err)
	writeFile(t, filepath.Join(board, "keys", "ann.pub"), key)
	require.Contains(t, ran(t, "leaderboard", "add", board, at("mine.zip"), "-q"), "is line 3 of the log")
	refusedWith(t, 1, "was accepted before", "leaderboard", "add", board, at("mine.zip"), "-q")

	build := func(name string) string {
		ran(t, "leaderboard", "build", board, "--out", at(name), "-q")
		return at(name)
	}
	site := build("site")
	index := readText(t, site, "index.html")
	require.Contains(t, index, "Edge &amp; home")
	require.Contains(t, index, "T2 replayed")
	entries, err := filepath.Glob(filepath.Join(site, "entries", "*.html"))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	page := readText(t, entries[0], "")
	require.Contains(t, page, "committed before the run; the seed is the log&#39;s; in this log: plan committed once, attempted once, ended once, complete once")
	proof := strings.TrimSuffix(filepath.Base(entries[0]), ".html")
	bundles, err := filepath.Glob(filepath.Join(site, "bundles", "*.zip"))
	require.NoError(t, err)
	proofFile := filepath.Join(site, "proofs", proof+".json")
	require.Contains(t, ran(t, "verify", bundles[0], "-q", "--rerun", "none", "--log", filepath.Join(site, "log", ledger.PublicFile), "--proof", proofFile), "ACCEPTED")

	again := build("again")
	require.NoError(t, filepath.WalkDir(site, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(site, path)
			require.Equal(t, readText(t, path, ""), readText(t, again, rel), rel)
		}
		return err
	}), "equal folders make equal sites")

	ran(t, "run", "-q", "--no-report", "placement", "--app", "driving", "--set", "requests=40", "--repeat", "6", "--out", at("other"))
	ran(t, "bundle", at("other"), "--key", at("ann.key"), "--name", "mine", "--title", "second", "--out", at("other.zip"))
	code, out, _ := do(t, "verify", at("other.zip"), "-q", "--rerun", "none", "--log", filepath.Join(board, "log"), "--proof", proofFile)
	require.Equal(t, 1, code)
	require.Contains(t, out, "V006 error", "the proof of another bundle")
	ran(t, "leaderboard", "add", board, at("other.zip"), "-q", "--rerun", "none")
	h1 := h1Of(t, board, 5)
	ran(t, "leaderboard", "retract", board, h1, "--why", "the fan was broken")
	refusedWith(t, 2, "no bundle", "leaderboard", "retract", board, "h1:x", "--why", "y")
	index = readText(t, build("third"), "index.html")
	require.Contains(t, index, "retracted: the fan was broken")

	spoiled(t, board, key, at)
}

// spoiled shows that a second attempt is seen, and what does not stay unnoticed in
// the folder of a board.
func spoiled(t *testing.T, board string, key []byte, at func(string) string) {
	ran(t, "run", "-q", "--no-report", "--plan", at("p.json"), "--log", filepath.Join(board, "log"), "--out", at("second"))
	ran(t, "bundle", at("second"), "--key", at("ann.key"), "--out", at("second.zip"))
	require.Contains(t, ran(t, "leaderboard", "add", board, at("second.zip"), "-q", "--rerun", "none"), "V007", "the board's own log shows other attempts")
	ran(t, "run", "-q", "--no-report", "--plan", at("p.json"), "--out", at("unlogged"))
	out := ran(t, "verify", at("unlogged"), "-q", "--rerun", "none", "--log", filepath.Join(board, "log"))
	require.Contains(t, out, "plan not committed", "it may be the best of many")
	writeFile(t, filepath.Join(board, "keys", "the-auditor.pub"), key)
	refusedWith(t, 2, "whose name is that of the file", "leaderboard", "build", board, "-q")
	require.NoError(t, os.Remove(filepath.Join(board, "keys", "the-auditor.pub")))

	files, err := filepath.Glob(filepath.Join(board, "verdicts", "*.json"))
	require.NoError(t, err)
	text := readText(t, files[0], "")
	writeFile(t, files[0], []byte(strings.NewReplacer(`"tier":2`, `"tier":5`, `"tier":3`, `"tier":5`).Replace(text))) // which bundle comes first is chance
	refusedWith(t, 1, "no line of the log has this verdict", "leaderboard", "build", board, "--out", at("forged"), "-q")
	writeFile(t, files[0], []byte(text))
	zips, err := filepath.Glob(filepath.Join(board, "bundles", "*.zip"))
	require.NoError(t, err)
	require.NoError(t, os.Rename(zips[0], zips[1]))
	refusedWith(t, 1, "the file was changed", "leaderboard", "build", board, "--out", at("swapped"), "-q")
}

// h1Of is the h1 of a bundle's line in the log.
func h1Of(t *testing.T, board string, line int) string {
	l, err := ledger.Open(filepath.Join(board, "log"))
	require.NoError(t, err)
	require.Equal(t, ledger.Bundle, l.Entries()[line].Kind)
	return l.Entries()[line].Digest
}

func readText(t *testing.T, dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(b)
}

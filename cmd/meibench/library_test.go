package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/models"
)

// TestC2LibraryVerbs: files are scanned into a library that shares what they share, the file is shown, checked, placed, and a suite
// runs on it.
func TestC2LibraryVerbs(t *testing.T) {
	dir := t.TempDir()
	data, err := models.Bytes("mei-nano")
	require.NoError(t, err)
	var files []string
	for _, name := range []string{"one", "two"} {
		files = append(files, filepath.Join(dir, name+".gguf"))
		require.NoError(t, os.WriteFile(files[len(files)-1], data, 0o600))
		data[len(data)-1] ^= 1 // of the last tensor
	}
	out := filepath.Join(dir, "mine.yaml")
	code, text, errOut := do(t, append([]string{"library", "scan", "--out", out, "--name", "mine"}, files...)...)
	require.Zero(t, code, errOut)
	require.Contains(t, text, "mine: 2 models of")
	code, _, errOut = do(t, append([]string{"library", "scan", "--out", out}, files...)...)
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, "is there already")
	code, text, errOut = do(t, "library", "show", out, "--json")
	require.Zero(t, code, errOut)
	s := summaryOf(t, text)
	require.Len(t, s.Most, 2)
	require.Equal(t, 2*s.BytesShared-s.Most[0].Own-s.Most[1].Own, s.BytesApart)
	require.Less(t, s.Most[0].Own, s.Most[0].Bytes/2)
	code, text, errOut = do(t, "library", "check", out)
	require.Zero(t, code, errOut)
	require.Contains(t, text, "nothing wrong")
	code, text, errOut = do(t, "library", "check", out, "--json")
	require.Zero(t, code, errOut)
	require.Equal(t, s.Digest, summaryOf(t, text).Digest)
	code, _, errOut = do(t, "validate", out)
	require.Zero(t, code, errOut)
	code, text, errOut = do(t, append([]string{"library", "scan"}, files...)...)
	require.Zero(t, code, errOut)
	require.Contains(t, text, "name: scanned files")
	require.Contains(t, errOut, "apart,", "what sharing saves is said beside the file")

	room := float64(s.BytesShared) / 1e6 * 1.0001
	code, text, errOut = do(t, "library", "place", out, "--servers", "1", "--room", plain(room), "--json")
	require.Zero(t, code, errOut)
	var rows []placed
	require.NoError(t, json.Unmarshal([]byte(text), &rows))
	found := map[string]placed{}
	for _, r := range rows {
		found[r.Policy] = r
	}
	require.InDelta(t, 1, found["gen"].Hit, 1e-6, "both fit where they share")
	require.Less(t, found["independent"].Hit, 0.9)
	require.Equal(t, s.BytesApart-s.BytesShared, found["gen"].Saved)

	code, _, errOut = do(t, "run", "caching", "--part", "policies", "--set", "library="+out, "--set", "policy=lru", "--set", "room_mb=1", "--set", "requests=20", "--set", "repeats=1", "--out", filepath.Join(dir, "run"), "--quiet")
	require.Zero(t, code, errOut)

	bad := filepath.Join(dir, "bad.yaml")
	require.NoError(t, os.WriteFile(bad, []byte("name: x\nblocks: [{name: a, bytes: 1}]\nmodels: [{name: m, needs: [m], blocks: [a]}]\n"), 0o600))
	for want, args := range map[string][]string{
		"models need each other: m needs m":    {"library", "check", bad},
		"bad.yaml: library \"x\": model \"m\"": {"validate", bad},
		"no such file":                         {"library", "show", filepath.Join(dir, "none.yaml")},
		"unknown kind of library":              {"library", "show", "shelves", "--model", "llama-3.2-1b:q4_0"},
		"too few bits":                         {"library", "show", "ladder", "--model", "llama-3.2-1b:q4_0"},
		`--policy "best": want one of`:         {"library", "place", out, "--policy", "best"},
		"want --out FILE":                      append([]string{"library", "scan", "--json"}, files...),
		"--servers 0":                          {"library", "place", out, "--servers", "0"},
		"mode measured sends real bytes":       {"run", "caching", "--part", "shipped", "--set", "library=" + out, "--out", filepath.Join(dir, "no")},
	} {
		code, _, errOut := do(t, args...)
		require.NotZero(t, code, args)
		require.Contains(t, errOut, want)
	}
}

func summaryOf(t *testing.T, text string) (s librarySummary) {
	require.NoError(t, json.Unmarshal([]byte(text), &s))
	return s
}

// TestC1LibraryLadder: a rung has the bytes that quantize --dry-run prints, and the file can be placed.
func TestC1LibraryLadder(t *testing.T) {
	dir := t.TempDir()
	data, err := models.Bytes("mei-nano")
	require.NoError(t, err)
	in, out := filepath.Join(dir, "nano.gguf"), filepath.Join(dir, "ladder.yaml")
	require.NoError(t, os.WriteFile(in, data, 0o600))
	code, _, errOut := do(t, "library", "ladder", in, "--types", "q4_0,q8_0", "--out", out)
	require.Zero(t, code, errOut)
	code, text, errOut := do(t, "library", "show", out, "--json")
	require.Zero(t, code, errOut)
	s := summaryOf(t, text)
	require.Len(t, s.Most, 2)
	var tensors [2]int64
	for i, name := range []string{"q4_0", "q8_0"} {
		code, text, errOut = do(t, "quantize", in, "--type", name, "--dry-run", "--json", "--quiet")
		require.Zero(t, code, errOut)
		var q quantized
		require.NoError(t, json.Unmarshal([]byte(text), &q))
		tensors[i] = q.BytesAfter
		require.Equal(t, "nano "+name, s.Most[i].Name)
	}
	require.EqualValues(t, tensors[1]-tensors[0], s.Most[1].Bytes-s.Most[0].Bytes, "headers are alike")
	require.Greater(t, int64(s.Most[0].Bytes), tensors[0], "and counted")
	code, text, errOut = do(t, "library", "place", out, "--policy", "gen", "--room", "100")
	require.Zero(t, code, errOut)
	require.Contains(t, text, "100 %")
	code, text, errOut = do(t, "library", "ladder", in, "--types", "q8_0", "--tunes", "3", "--json", "--out", filepath.Join(dir, "tunes.yaml"))
	require.Zero(t, code, errOut)
	require.Equal(t, 3, summaryOf(t, text).Models)
	for want, args := range map[string][]string{
		`recipe "q1"`:          {"--types", "q1"},
		"is q8_0 again":        {"--types", "q8_0,q8_0"},
		"-1 fine-tunes: want":  {"--tunes", "-1"},
		"is there already":     {"--out", out},
		"accepts 1 arg(s), re": {in},
	} {
		code, _, errOut := do(t, append([]string{"library", "ladder", in}, args...)...)
		require.Equal(t, exitUsage, code, args)
		require.Contains(t, errOut, want)
	}
}

// TestC2PlacingApartSavesNothing: a policy that keeps each model for itself uses their sizes, within the room, and one that shares saves.
func TestC2PlacingApartSavesNothing(t *testing.T) {
	code, text, errOut := do(t, "library", "place", "finetunes:30", "--model", "llama-3.2-1b:q4_0", "--servers", "2", "--room", "2000", "--json")
	require.Zero(t, code, errOut)
	var rows []placed
	require.NoError(t, json.Unmarshal([]byte(text), &rows))
	require.Len(t, rows, len(policyNames()))
	for _, r := range rows {
		require.LessOrEqual(t, int64(r.Used), int64(2*2_000_000_000), r.Policy)
		if r.Policy == "independent" || r.Policy == "femtocaching" {
			require.Zero(t, r.Saved, r.Policy)
			require.Greater(t, int64(r.Used), int64(2_000_000_000), "two servers of 2 GB, models of at most 1")
		} else {
			require.Positive(t, r.Saved, r.Policy)
		}
	}
}

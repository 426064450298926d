package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"meibench/harness/bundle"
	"meibench/harness/record"
	"meibench/internal/canon"
)

// key makes a key pair and returns the private key and the public one.
func key(t testing.TB, name string) (*bundle.Key, note.Verifier) {
	private, public, err := bundle.Generate(t.TempDir(), name)
	require.NoError(t, err)
	k, err := bundle.LoadKey(private)
	require.NoError(t, err)
	text, err := os.ReadFile(public)
	require.NoError(t, err)
	list, err := bundle.Verifiers(string(text))
	require.NoError(t, err)
	return k, list[0]
}

// pack makes a bundle of a run folder, signed by a key.
func pack(t testing.TB, run string, k *bundle.Key) string {
	dir := filepath.Join(t.TempDir(), "entry")
	require.NoError(t, bundle.Write(dir, []string{run}, bundle.Options{Name: "entry", Key: k, Open: true}))
	return dir
}

// reseal writes what depends on the other files again, as who lies would: the
// manifest's digests, SHA256SUMS, statement and note.
func reseal(t testing.TB, dir string, k *bundle.Key, edit func(m *bundle.Manifest)) {
	var m bundle.Manifest
	path := filepath.Join(dir, bundle.ManifestFile)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &m))
	digest := func(name string) (int64, string) {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		require.NoError(t, err)
		sum := sha256.Sum256(b)
		return int64(len(b)), hex.EncodeToString(sum[:])
	}
	for i, f := range m.Files {
		m.Files[i].Bytes, m.Files[i].SHA256 = digest(f.Path)
	}
	edit(&m)
	b, err = canon.JSON(m)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(b, '\n'), 0o644))
	old, err := os.ReadFile(filepath.Join(dir, bundle.SumsFile))
	require.NoError(t, err)
	var sums strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(string(old)), "\n") {
		_, name, _ := strings.Cut(line, "  ")
		_, sum := digest(name)
		sums.WriteString(sum + "  " + name + "\n")
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, bundle.SumsFile), []byte(sums.String()), 0o644))
	state(t, dir, sums.String(), &m)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, bundle.NoteFile)))
	require.NoError(t, bundle.Sign(dir, k))
}

// state writes the statement about other sums and another manifest.
func state(t testing.TB, dir, sums string, m *bundle.Manifest) {
	type object = map[string]any
	path := filepath.Join(dir, bundle.StatementFile)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	st := object{}
	require.NoError(t, json.Unmarshal(b, &st))
	sum := sha256.Sum256([]byte(sums))
	digest := hex.EncodeToString(sum[:])
	st["subject"] = []object{{"name": bundle.SumsFile, "digest": object{"sha256": digest}}, {"name": m.Name, "digest": object{"dirHash": digest, "dirHash1": digest}}}
	st["predicate"] = object{"schema": m.Schema, "name": m.Name, "submitter": m.Submitter, "created": m.Created, "mode": m.Mode,
		"division": m.Division, "harness": m.Harness, "attempts": m.Attempts}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	require.NoError(t, enc.Encode(st))
	require.NoError(t, os.WriteFile(path, []byte(out.String()), 0o644))
}

// summary edits summary.json.
func summary(t testing.TB, dir string, edit func(s *bundle.Summary)) {
	var s bundle.Summary
	path := filepath.Join(dir, bundle.SummaryFile)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &s))
	edit(&s)
	b, err = canon.JSON(s)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(b, '\n'), 0o644))
}

func opened(t testing.TB, path string, o Options) bundle.Verdict {
	b, err := bundle.Open(path)
	if err != nil {
		v, ok := Refused(err)
		require.True(t, ok, "%v", err)
		return v
	}
	defer b.Close()
	return New(o).Check(context.Background(), b)
}

func TestBundles(t *testing.T) {
	honest := run(t, modelledSuite)
	mine, public := key(t, "alice")
	dir := pack(t, honest, mine)
	v := opened(t, dir, Options{Keys: []note.Verifier{public}})
	require.Empty(t, errorsOf(v))
	require.Equal(t, bundle.Replayed, v.Tier)
	require.Equal(t, []string{"alice"}, v.Signers)
	require.True(t, strings.HasPrefix(v.Bundle, "h1:"))
	zip := filepath.Join(t.TempDir(), "entry.meibench.zip")
	require.NoError(t, bundle.Pack(dir, zip))
	require.Equal(t, v, opened(t, zip, Options{Keys: []note.Verifier{public}}), "a zip of it is the same thing")
	require.Empty(t, errorsOf(opened(t, dir, Options{})), "an unknown key is a warning")
	refused(t, opened(t, dir, Options{Strict: true}), "V003")
}

func TestAttacksOnBundles(t *testing.T) {
	honest := run(t, modelledSuite)
	mine, public := key(t, "alice")
	same, _ := key(t, "alice")
	other, _ := key(t, "mallory")
	known := Options{Keys: []note.Verifier{public}, Rerun: None}
	nothing := func(*bundle.Manifest) {}
	for _, tc := range []struct {
		name, rule string
		spoil      func(dir string)
	}{
		{"nothing", "", func(dir string) { reseal(t, dir, mine, nothing) }},
		{"a number of the summary", "V032", func(dir string) {
			summary(t, dir, func(s *bundle.Summary) {
				m := s.Claims[0].Metrics["e2e_p50"]
				m.Value *= 0.99
				s.Claims[0].Metrics["e2e_p50"] = m
			})
			reseal(t, dir, mine, nothing)
		}},
		{"a claim left out", "V032", func(dir string) {
			summary(t, dir, func(s *bundle.Summary) { s.Claims = s.Claims[1:] })
			reseal(t, dir, mine, nothing)
		}},
		{"requests of a claim", "V032", func(dir string) {
			summary(t, dir, func(s *bundle.Summary) { s.Claims[0].Good++ })
			reseal(t, dir, mine, nothing)
		}},
		{"attempts", "V014", func(dir string) { reseal(t, dir, mine, func(m *bundle.Manifest) { m.Attempts.Cells-- }) }},
		{"the mode", "V014", func(dir string) { reseal(t, dir, mine, func(m *bundle.Manifest) { m.Mode = "measured" }) }},
		{"a machine's name", "V014", func(dir string) { reseal(t, dir, mine, func(m *bundle.Manifest) { m.Runs[0].System = "laptop" }) }},
		{"an open entry called closed", "V014", func(dir string) {
			reseal(t, dir, mine, func(m *bundle.Manifest) { m.Division, m.Open = bundle.ClosedDivision, nil })
		}},
		{"a plan called committed", "V014", func(dir string) { reseal(t, dir, mine, func(m *bundle.Manifest) { m.Runs[0].Committed = true }) }},
		{"signed by another key of the name", "V005", func(dir string) { reseal(t, dir, same, nothing) }},
		{"signed by somebody else", "V005", func(dir string) { reseal(t, dir, other, nothing) }},
		{"a byte", "V002", func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, bundle.ReadmeFile), []byte("other"), 0o644))
		}},
		{"no DONE", "V001", func(dir string) { require.NoError(t, os.Remove(filepath.Join(dir, bundle.DoneFile))) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := pack(t, honest, mine)
			tc.spoil(dir)
			if v := opened(t, dir, known); tc.rule == "" {
				require.Empty(t, errorsOf(v))
			} else {
				refused(t, v, tc.rule)
			}
		})
	}
}

// A run folder that lies is found in a bundle too, with its path in it.
func TestALieInABundle(t *testing.T) {
	mine, public := key(t, "alice")
	lie := edited(t, run(t, modelledSuite), "modelled", "local", func(r *record.Request) { r.PromptTokens-- })
	v := opened(t, pack(t, lie, mine), Options{Keys: []note.Verifier{public}})
	refused(t, v, "V024")
	require.Equal(t, "runs/forged/requests.arrow", errorsOf(v)[0].File)
	require.Contains(t, errorsOf(v)[0].Row, "request 0")
	require.Equal(t, 48, errorsOf(v)[0].Count, "one line for all")
}

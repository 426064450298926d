package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
)

const origin = "board.example"

func made(t testing.TB, n int) *Log {
	l, err := Create(filepath.Join(t.TempDir(), "log"), origin)
	require.NoError(t, err)
	var es []Entry
	for i := range n {
		es = append(es, Entry{Kind: Plan, Digest: fmt.Sprintf("%064x", i)})
	}
	_, err = l.Append(es...)
	require.NoError(t, err)
	return l
}

func known(l *Log) note.Verifiers { return note.VerifierList(l.Verifier()) }

func TestEveryEntryOfEverySizeIsProved(t *testing.T) {
	l := made(t, 0)
	var heads []Head
	for size := int64(1); size <= 20; size++ {
		_, err := l.Append(Entry{Kind: Attempt, Digest: fmt.Sprint(size)})
		require.NoError(t, err)
		heads = append(heads, l.Head())
		for i := range size {
			r, err := l.Receipt(i)
			require.NoError(t, err)
			head, err := r.Check(known(l))
			require.NoError(t, err)
			require.Equal(t, l.Head(), head)
			_, err = r.CheckPath()
			require.NoError(t, err)
		}
	}
	for _, h := range heads {
		require.NoError(t, l.Extends(h))
	}
	_, err := l.Receipt(20)
	require.ErrorContains(t, err, "entry 20 of 20")
}

func TestAReceiptProvesNothingElse(t *testing.T) {
	l := made(t, 7)
	good, err := l.Receipt(3)
	require.NoError(t, err)
	for name, change := range map[string]func(*Receipt){
		"another digest": func(r *Receipt) { r.Entry.Digest = "ff" },
		"another kind":   func(r *Receipt) { r.Entry.Kind = Bundle },
		"another index":  func(r *Receipt) { r.Index = 4 },
		"a shorter path": func(r *Receipt) { r.Proof = r.Proof[1:] },
		"a changed path": func(r *Receipt) { r.Proof[0][5]++ },
	} {
		r := good
		r.Proof = append(r.Proof[:0:0], good.Proof...)
		change(&r)
		_, err := r.Check(known(l))
		require.ErrorContains(t, err, "is not under the checkpoint", name)
	}
	_, err = good.Check(known(made(t, 1)))
	require.ErrorContains(t, err, "checkpoint", "a key of the same name that did not sign")
	r := good
	r.Checkpoint = strings.Replace(r.Checkpoint, "\n7\n", "\n8\n", 1)
	_, err = r.Check(known(l))
	require.ErrorContains(t, err, "checkpoint")
	_, err = good.Check(note.VerifierList())
	require.ErrorContains(t, err, "not signed by its log's key")
}

func TestOpenFindsWhatWasChanged(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"unknown kind":                   func(s string) string { return strings.Replace(s, `"plan"`, `"plum"`, 1) },
		"do not hash to the root":        func(s string) string { return strings.Replace(s, "0003", "0004", 1) },
		"covers 5 entries, 4 are there":  func(s string) string { return s[:strings.LastIndex(s[:len(s)-1], "\n")+1] },
		"do not hash to the root ":       func(s string) string { i := strings.Index(s, "\n") + 1; return s[i:] + s[:i] },
		"not the canonical form":         func(s string) string { return strings.Replace(s, ",", ", ", 1) },
		"unknown field":                  func(s string) string { return strings.Replace(s, `"kind"`, `"x":1,"kind"`, 1) },
		" covers 5 entries, 4 are there": func(s string) string { return s[:len(s)-1] },
	} {
		l := made(t, 5)
		path := filepath.Join(l.dir, EntriesFile)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, []byte(change(string(b))), 0o644))
		_, err = Open(l.dir)
		require.ErrorContains(t, err, strings.TrimSpace(name))
	}
}

func TestHistoryCannotBeRewrittenUnderAHeldCheckpoint(t *testing.T) {
	l := made(t, 6)
	held := l.Head()
	backup := t.TempDir()
	require.NoError(t, os.CopyFS(backup, os.DirFS(l.dir)))
	_, err := l.Append(Entry{Kind: Plan, Digest: "aa"})
	require.NoError(t, err)
	require.NoError(t, l.Extends(held))
	later := l.Head()

	fork, err := Open(backup)
	require.NoError(t, err)
	require.ErrorContains(t, fork.Extends(later), "taken back")
	_, err = fork.Append(Entry{Kind: Plan, Digest: "bb"}, Entry{Kind: Plan, Digest: "cc"})
	require.NoError(t, err)
	require.ErrorContains(t, fork.Extends(later), "rewritten")
	require.ErrorContains(t, made(t, 9).Extends(Head{Origin: "other.example", Size: 1}), "is of other.example")
}

func TestWhatACrashLeftIsNoPartOfTheLog(t *testing.T) {
	l := made(t, 3)
	path := filepath.Join(l.dir, EntriesFile)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(b, strings.Repeat(`{"digest":"lost","kind":"plan"}`+"\n", 3)+`{"ki`...), 0o644))
	l, err = Open(l.dir)
	require.NoError(t, err)
	require.Len(t, l.Entries(), 3)
	first, err := l.Append(Entry{Kind: Plan, Digest: "dd"})
	require.NoError(t, err)
	require.EqualValues(t, 3, first)
	l, err = Open(l.dir)
	require.NoError(t, err)
	require.Equal(t, "dd", l.Entries()[3].Digest)
	again, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(again), "lost")
}

func TestTwoWritersTakeTurns(t *testing.T) {
	a := made(t, 2)
	b, err := Open(a.dir)
	require.NoError(t, err)
	_, err = a.Append(Entry{Kind: Plan, Digest: "aa"})
	require.NoError(t, err)
	first, err := b.Append(Entry{Kind: Plan, Digest: "bb"})
	require.NoError(t, err)
	require.EqualValues(t, 3, first, "what another process wrote is taken in first")
	_, err = b.Append(Entry{Kind: "wish"})
	require.ErrorContains(t, err, `unknown kind "wish"`)
	require.EqualValues(t, 4, b.Head().Size)
	_, err = b.Append(Entry{Kind: Plan, Text: strings.Repeat("x", maxLine)})
	require.ErrorContains(t, err, "at most 4096 fit")
	_, err = Open(b.dir)
	require.NoError(t, err, "a refused entry leaves the log whole")

	require.NoError(t, os.Remove(filepath.Join(a.dir, PrivateFile)))
	reader, err := Open(a.dir)
	require.NoError(t, err, "anyone may read")
	_, err = reader.Append(Entry{Kind: Plan})
	require.ErrorContains(t, err, "only who keeps the log can append")
}

func TestCosign(t *testing.T) {
	l := made(t, 4)
	private, public, err := note.GenerateKey(nil, "witness.example")
	require.NoError(t, err)
	signer, err := note.NewSigner(private)
	require.NoError(t, err)
	witness, err := note.NewVerifier(public)
	require.NoError(t, err)
	both, err := Cosign(l.Checkpoint(), signer, known(l))
	require.NoError(t, err)
	_, signers, err := open(both, note.VerifierList(l.Verifier(), witness))
	require.NoError(t, err)
	require.ElementsMatch(t, []string{origin, "witness.example"}, signers)
	_, err = CheckHead(both, note.VerifierList(witness))
	require.ErrorContains(t, err, "not signed by its log's key", "a witness alone does not make a checkpoint")
	_, err = Cosign(l.Checkpoint(), signer, note.VerifierList())
	require.Error(t, err, "nobody signs what he cannot check")
}

func TestCreateRefuses(t *testing.T) {
	l := made(t, 1)
	_, err := Create(l.dir, origin)
	require.ErrorContains(t, err, "already holds one")
	for _, bad := range []string{"", "a b", "a\nb", "ä", strings.Repeat("x", 101)} {
		_, err := Create(t.TempDir(), bad)
		require.ErrorContains(t, err, "origin")
	}
	_, err = Open(t.TempDir())
	require.ErrorContains(t, err, "meibench log init")
}

func FuzzParseHead(f *testing.F) {
	f.Add(Head{origin, 7, [32]byte{1}}.Text())
	f.Add("a\n-1\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := ParseHead(text)
		if err == nil {
			again, err := ParseHead(h.Text())
			require.NoError(t, err)
			require.Equal(t, h, again)
			require.True(t, strings.HasPrefix(text, h.Text()[:len(h.Origin)+1]))
		}
	})
}

func BenchmarkAppend10000(b *testing.B) {
	for b.Loop() {
		made(b, 10_000)
	}
}

package plan

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"meibench/harness/ledger"
	"meibench/suites"
)

func made(t *testing.T, set ...suites.Set) *Plan {
	s, err := suites.Load("quickstart", set...)
	require.NoError(t, err)
	p := &Plan{Format: Format, Models: map[string]string{"mei-small": "ab"}, Profiles: map[string]string{}}
	one := Suite{Name: s.Name, Question: s.Question, Hash: s.Hash, Text: string(s.Text)}
	for _, c := range s.Cells {
		one.Cells = append(one.Cells, Cell{c, "contract"})
	}
	p.Suites = []Suite{one}
	return p
}

func newLog(t *testing.T) *ledger.Log {
	l, err := ledger.Create(t.TempDir(), "board.example")
	require.NoError(t, err)
	return l
}

func TestAPlanSurvivesItsFile(t *testing.T) {
	p := made(t)
	dir := t.TempDir()
	require.NoError(t, p.Write(filepath.Join(dir, File)))
	for _, path := range []string{dir, filepath.Join(dir, File)} {
		again, err := Read(path)
		require.NoError(t, err)
		require.Equal(t, p, again)
	}
	s, err := suites.Load("quickstart")
	require.NoError(t, err)
	require.Equal(t, s.Cells, p.Load()[0].Cells)
	require.Equal(t, len(s.Cells), p.Runs())
	a, err := p.Digest()
	require.NoError(t, err)
	b, err := made(t, suites.Set{Key: "requests", Values: []any{7.0}}).Digest()
	require.NoError(t, err)
	require.NotEqual(t, a, b)

	_, err = Read(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
	for text, want := range map[string]string{`{"format":"x/v9","suites":[]}`: "this program reads", `{"colour":1}`: "unknown field", `{`: "EOF", `{"format":"meibench.plan/v1"}`: "no suite"} {
		path := filepath.Join(t.TempDir(), "p.json")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		_, err := Read(path)
		require.ErrorContains(t, err, want)
	}
}

func TestTheSeedIsTheLogs(t *testing.T) {
	p, log := made(t), newLog(t)
	known := note.VerifierList(log.Verifier())
	r, err := Commit(log, p)
	require.NoError(t, err)
	require.NoError(t, r.Check(p, known))
	seed, err := r.Seed()
	require.NoError(t, err)
	require.NotZero(t, seed)
	require.Less(t, seed, uint64(1)<<53)

	again, err := Commit(log, p)
	require.NoError(t, err)
	other, err := again.Seed()
	require.NoError(t, err)
	require.NotEqual(t, seed, other, "another try is another seed, and another entry")
	require.Len(t, log.Entries(), 2)

	later, err := log.Receipt(0)
	require.NoError(t, err)
	shopped := &Receipt{Format: ReceiptFormat, Plan: later}
	require.ErrorContains(t, shopped.Check(p, known), "in which it is the last", "the first commit under a later root would be a free choice")
	require.ErrorContains(t, r.Check(made(t, suites.Set{Key: "requests", Values: []any{7.0}}), known), "not of this plan")
	require.Error(t, r.Check(p, note.VerifierList(newLog(t).Verifier())), "a log of the same name with another key")
}

func TestAttemptsAreProved(t *testing.T) {
	p, log := made(t), newLog(t)
	known := note.VerifierList(log.Verifier())
	r, err := Commit(log, p)
	require.NoError(t, err)
	require.NoError(t, r.Begin(log))
	require.NoError(t, r.End(log, "dd", "complete"))
	require.NoError(t, r.Check(p, known))
	require.Equal(t, []string{ledger.Plan, ledger.Attempt, ledger.Result}, kinds(log))
	dir := t.TempDir()
	require.NoError(t, r.Write(filepath.Join(dir, ReceiptFile)))
	back, err := ReadReceipt(dir)
	require.NoError(t, err)
	require.Equal(t, r, back)

	q := made(t, suites.Set{Key: "requests", Values: []any{7.0}})
	o, err := Commit(log, q)
	require.NoError(t, err)
	o.Attempt = r.Attempt
	require.ErrorContains(t, o.Check(q, known), "not one of this plan")
	require.ErrorContains(t, o.Begin(newLog(t)), "another log")
	again, err := Commit(log, p)
	require.NoError(t, err)
	again.Attempt = r.Attempt
	require.ErrorContains(t, again.Check(p, known), "not one of this plan", "an attempt that came before")

	digest, err := p.Digest()
	require.NoError(t, err)
	at, err := log.Append(ledger.Entry{Kind: ledger.Result, Digest: digest})
	require.NoError(t, err)
	in, err := log.Receipt(at)
	require.NoError(t, err)
	require.ErrorContains(t, (&Receipt{Plan: in}).Check(p, known), "it is of result")
	_, err = ReadReceipt(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}

func kinds(log *ledger.Log) (out []string) {
	for _, e := range log.Entries() {
		out = append(out, e.Kind)
	}
	return out
}

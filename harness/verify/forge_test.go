package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/bundle"
	"meibench/harness/plan"
	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/internal/canon"
)

// rowsOf are copies of the rows of a run.
func rowsOf(t testing.TB, set *results.Set, i int) (out []*record.Request) {
	for r, err := range set.Full(i) {
		require.NoError(t, err)
		c := *r
		c.Chunks, c.Spans = slices.Clone(r.Chunks), slices.Clone(r.Spans)
		out = append(out, &c)
	}
	return out
}

// forge writes a run folder anew with other cells and rows, and repairs all that
// a writer writes: only the lie remains. A cell for which edit returns nil is
// left out.
func forge(t testing.TB, from string, edit func(c *record.Cell, rows []*record.Request) []*record.Request) string {
	set, err := results.Read(from)
	require.NoError(t, err)
	defer set.Close()
	to := filepath.Join(t.TempDir(), "forged")
	m := set.Manifest
	finished := m.Finished
	m.Finished, m.Complete, m.Files = nil, false, nil
	out, err := results.Create(to, m)
	require.NoError(t, err)
	for i, run := range set.Runs() {
		c := run.Cell
		c.Valid, c.Invalid = false, nil
		rows := edit(&c, rowsOf(t, set, i))
		if rows == nil {
			continue
		}
		w, err := out.Begin(c)
		require.NoError(t, err)
		for _, r := range rows {
			require.NoError(t, w.Row(r))
		}
		require.NoError(t, w.End(c))
	}
	require.NoError(t, out.Finish())
	for _, name := range []string{plan.File, plan.ReceiptFile, hostFile} {
		if b, err := os.ReadFile(filepath.Join(from, name)); err == nil {
			require.NoError(t, os.WriteFile(filepath.Join(to, name), b, 0o644))
		}
	}
	manifest(t, to, func(m *results.Manifest) { m.Finished = finished })
	return to
}

// manifest edits run.json.
func manifest(t testing.TB, dir string, edit func(*results.Manifest)) {
	path := filepath.Join(dir, results.ManifestFile)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var m results.Manifest
	require.NoError(t, json.Unmarshal(b, &m))
	edit(&m)
	b, err = canon.JSON(m)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(b, '\n'), 0o644))
}

// patch replaces bytes of a file and repairs its digest.
func patch(t testing.TB, dir, name string, pairs ...[2]string) {
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, p := range pairs {
		require.True(t, bytes.Contains(b, []byte(p[0])), "%q", p[0])
		b = bytes.ReplaceAll(b, []byte(p[0]), []byte(p[1]))
	}
	require.NoError(t, os.WriteFile(path, b, 0o644))
	d, err := results.DigestFile(path)
	require.NoError(t, err)
	manifest(t, dir, func(m *results.Manifest) { m.Files[name] = d })
}

// edited is forge for an edit of rows alone, in cells of a mode and a pipeline.
func edited(t testing.TB, from, mode, pipeline string, edit func(r *record.Request)) string {
	n := 0
	to := forge(t, from, func(c *record.Cell, rows []*record.Request) []*record.Request {
		if c.Mode == mode && c.Pipeline == pipeline {
			for _, r := range rows {
				edit(r)
				require.NoError(t, r.Check(), "the forgery itself must be sound")
				n++
			}
		}
		return rows
	})
	require.Positive(t, n)
	return to
}

// facts repairs what a cell says of itself.
func facts(c *record.Cell, rows []*record.Request) {
	var in, rel extent
	var lag []time.Duration
	for i, r := range rows {
		in.add(r.Intended, i == 0)
		rel.add(r.Released, i == 0)
		lag = append(lag, r.Released-r.Intended)
	}
	c.Facts.Planned, c.Facts.Offered = len(rows), len(rows)
	c.Facts.PlannedSpan, c.Facts.OfferedSpan, c.Horizon = in.hi-in.lo, rel.hi-rel.lo, in.hi
	if c.Mode == "measured" {
		c.Facts.LateP99 = record.Late(lag)
	}
}

// move puts every event of a request elsewhere. Spans that become empty go.
func move(r *record.Request, to func(time.Duration) time.Duration) {
	for _, at := range []*time.Duration{&r.Intended, &r.Released, &r.Sent, &r.FirstByte, &r.FirstChunk, &r.FirstToken, &r.FirstAnswerToken, &r.LastToken, &r.Done} {
		if *at != record.Unset {
			*at = to(*at)
		}
	}
	for i := range r.Chunks {
		r.Chunks[i].At = to(r.Chunks[i].At)
	}
	for i := range r.Spans {
		r.Spans[i].Start, r.Spans[i].End = to(r.Spans[i].Start), to(r.Spans[i].End)
	}
	r.Spans = slices.DeleteFunc(r.Spans, func(s record.Span) bool { return s.Start == s.End })
}

// squeeze makes a request take a share of the time since its release.
func squeeze(r *record.Request, share float64) {
	from := r.Released
	move(r, func(t time.Duration) time.Duration {
		if t <= from {
			return t
		}
		return from + time.Duration(float64(t-from)*share)
	})
}

// verdict checks a folder with what the options say.
func verdict(t testing.TB, dir string, o Options) bundle.Verdict {
	return New(o).CheckRun(context.Background(), dir)
}

// refused asserts that a folder is refused by a rule.
func refused(t testing.TB, v bundle.Verdict, rule string) {
	t.Helper()
	require.Equal(t, bundle.Refused, v.Tier, "%v", v.Findings)
	require.True(t, slices.ContainsFunc(errorsOf(v), func(f bundle.Finding) bool { return f.Rule == rule }), "want %s, have %v", rule, errorsOf(v))
}

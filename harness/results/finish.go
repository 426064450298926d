package results

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"time"

	"meibench/harness/record"
)

// Finish turns the journal into the tables and the benchmark text, and closes
// the run. Either all files of the folder are replaced or the manifest still
// says that the run is not finished, and Open goes on with it. The journal goes
// when every expected run of a cell is there; until then Open may add more.
func (r *Run) Finish() error {
	r.mu.Lock()
	switch {
	case r.closed:
		r.mu.Unlock()
		return ErrClosed
	case r.err != nil:
		r.mu.Unlock()
		return errors.Join(r.err, r.Close())
	case len(r.open) > 0:
		r.mu.Unlock()
		return fmt.Errorf("finish run %s: %d blocks have not ended: End or Abandon them first", r.dir, len(r.open))
	}
	r.mu.Unlock()
	err := r.finalise()
	if err == nil && r.manifest.Complete {
		r.disk.remove(r.j.path)
	}
	return errors.Join(err, r.Close())
}

func (r *Run) finalise() error {
	blocks := r.done()
	m := r.manifest
	m.Files = map[string]Digest{}
	m.Blocks, m.Rows, m.Spans = len(blocks), 0, 0
	m.Complete = len(blocks) >= m.Expected
	extents, values, err := r.writeRows(blocks, &m)
	if err != nil {
		return err
	}
	m.Files[CellsFile], err = writeWhole(r.disk, r.path(CellsFile), func(s *sink) error {
		t, err := newCells(s, blocks, runMetrics())
		if err != nil {
			return err
		}
		for i, b := range blocks {
			if err := t.put(&b.cell, extents[i], values[i]); err != nil {
				return err
			}
		}
		return t.close()
	})
	if err != nil {
		return err
	}
	m.Files[BenchFile], err = writeWhole(r.disk, r.path(BenchFile), func(s *sink) error {
		lines := make([]Line, len(blocks))
		for i, b := range blocks {
			lines[i] = Line{&b.cell, int(extents[i].Rows), values[i]}
		}
		return WriteBench(s, lines)
	})
	if err != nil {
		return err
	}
	for _, name := range []string{RequestsFile, SpansFile, CellsFile, BenchFile} {
		if err := r.disk.rename(r.path(name)+tempSuffix, r.path(name)); err != nil {
			return diskError("replace", r.path(name), err)
		}
	}
	now := time.Now().UTC()
	m.Finished = &now
	if err := m.save(r.disk, r.dir); err != nil {
		return err
	}
	r.mu.Lock()
	r.manifest = m
	r.mu.Unlock()
	return nil
}

func (r *Run) path(name string) string { return filepath.Join(r.dir, name) }

// writeRows writes requests and spans in one pass over the journal.
func (r *Run) writeRows(blocks []*block, m *Manifest) (extents []extent, values [][]record.Value, err error) {
	m.Files[RequestsFile], err = writeWhole(r.disk, r.path(RequestsFile), func(rs *sink) error {
		var inner error
		m.Files[SpansFile], inner = writeWhole(r.disk, r.path(SpansFile), func(ss *sink) error {
			req, err := newRequests(rs, blocks)
			if err != nil {
				return err
			}
			spn, err := newSpans(ss, blocks)
			if err != nil {
				return err
			}
			extents, values, err = fill(r.j.f, blocks, req, spn)
			m.Rows, m.Spans = req.total, spn.total
			return errors.Join(err, req.close(), spn.close())
		})
		return inner
	})
	return extents, values, err
}

func fill(f file, blocks []*block, req *requests, spn *spans) (extents []extent, values [][]record.Value, err error) {
	for i, b := range blocks {
		req.id.set(&b.cell)
		spn.now = int32(i)
		e := extent{FirstRow: req.total, FirstSpan: spn.total}
		sum := record.NewSummary(&b.cell)
		err := merge(f, b, func(r *record.Request) error {
			sum.Add(r)
			if err := req.put(r); err != nil {
				return err
			}
			return spn.put(r)
		})
		if err != nil {
			return nil, nil, err
		}
		e.Rows, e.Spans = req.total-e.FirstRow, spn.total-e.FirstSpan
		extents, values = append(extents, e), append(values, sum.Values())
	}
	return extents, values, nil
}

// Summarise computes the per-run metrics of a cell from its rows, in the order
// of the metrics' table.
func Summarise(c *record.Cell, rows iter.Seq[*record.Request]) []record.Value {
	s := record.NewSummary(c)
	for r := range rows {
		s.Add(r)
	}
	return s.Values()
}

// runMetrics is the per-run part of the table of metrics.
func runMetrics() (out []record.Metric) {
	for _, m := range record.Metrics() {
		if m.Scope == record.PerRun {
			out = append(out, m)
		}
	}
	return out
}

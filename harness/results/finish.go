package results

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
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

// merge calls each with every request of a block in order of ID. Frames are
// sorted runs; one is read when its lowest ID comes up, so memory holds as many
// frames as overlap: one or two where rows came nearly in order.
func merge(f io.ReaderAt, b *block, each func(*record.Request) error) error {
	waiting := slices.Clone(b.frames)
	slices.SortStableFunc(waiting, func(a, b frame) int { return cmp.Compare(a.min, b.min) })
	var open cursors
	var spare []*cursor
	last, any := 0, false
	for len(waiting) > 0 || len(open) > 0 {
		for len(waiting) > 0 && (len(open) == 0 || waiting[0].min <= open[0].row.ID) {
			c := &cursor{}
			if n := len(spare); n > 0 {
				c, spare = spare[n-1], spare[:n-1]
			}
			if err := c.load(f, waiting[0]); err != nil {
				return err
			}
			heap.Push(&open, c)
			waiting = waiting[1:]
		}
		c := open[0]
		if any && c.row.ID <= last {
			return fmt.Errorf("%s: request %d was recorded twice: IDs must be unique within a run of a cell", KeyOf(&b.cell), c.row.ID)
		}
		last, any = c.row.ID, true
		if err := each(&c.row); err != nil {
			return err
		}
		switch more, err := c.next(); {
		case err != nil:
			return err
		case more:
			heap.Fix(&open, 0)
		default:
			spare = append(spare, heap.Pop(&open).(*cursor))
		}
	}
	return nil
}

// cursor reads the rows of a frame one by one.
type cursor struct {
	buf   []byte
	d     decoder
	nodes []string
	left  int
	row   record.Request
}

// load reads a frame and its first row.
func (c *cursor) load(f io.ReaderAt, h frame) error {
	if cap(c.buf) < int(h.len) {
		c.buf = make([]byte, h.len)
	}
	c.buf = c.buf[:h.len]
	if _, err := f.ReadAt(c.buf, h.off); err != nil {
		return fmt.Errorf("read rows from the run's journal at byte %d: %w", h.off, err)
	}
	c.d = decoder{b: c.buf[1:]}
	c.d.uvarint()
	var again frame
	again, c.nodes = rowsHead(&c.d)
	if c.d.bad || again.count != h.count {
		return errFrame
	}
	c.left = h.count
	_, err := c.next()
	return err
}

// next reads the next row; false at the end.
func (c *cursor) next() (bool, error) {
	if c.left == 0 {
		if len(c.d.b) > 0 {
			return false, errFrame
		}
		return false, nil
	}
	c.left--
	c.d.row(&c.row, c.nodes)
	if c.d.bad {
		return false, errFrame
	}
	if err := c.row.Check(); err != nil {
		return false, fmt.Errorf("%w (%w)", err, errFrame)
	}
	return true, nil
}

// cursors is a heap of open frames by the ID of their next row.
type cursors []*cursor

func (h cursors) Len() int           { return len(h) }
func (h cursors) Less(i, j int) bool { return h[i].row.ID < h[j].row.ID }
func (h cursors) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *cursors) Push(x any)        { *h = append(*h, x.(*cursor)) }
func (h *cursors) Pop() any {
	old := *h
	c := old[len(old)-1]
	*h = old[:len(old)-1]
	return c
}

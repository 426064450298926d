package results

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"meibench/harness/record"
)

// A frame is written when it has this many rows or bytes. A frame is what is in
// memory at a time when tables are made, once per overlap of IDs.
const (
	frameRows  = 4096
	frameBytes = 512 << 10
)

// ErrClosed says that a run or a block takes no more rows.
var ErrClosed = errors.New("results: the run or the block is closed")

// Writer takes the rows of one run of one cell.
type Writer struct {
	run *Run
	id  uint64
	key Key

	mu     sync.Mutex // taken before run.mu, never after
	rows   []byte     // encoded, not yet in the journal
	at     []place    // of each row in rows
	sorted bool       // rows are in order of ID
	buf    []byte     // a frame being put together
	total  int        // rows of the block
	nodes  names      // of the frame
	seen   map[string]bool
	used   uint64 // mask of counters
	ended  bool
}

// place is where a row is among the encoded ones.
type place struct{ id, from, to int }

// Begin starts a run of a cell. It refuses one that is already whole in the
// journal or is being written.
func (r *Run) Begin(c record.Cell) (*Writer, error) {
	k := KeyOf(&c)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, ErrClosed
	case r.err != nil:
		return nil, r.err
	case r.taken[k]:
		return nil, fmt.Errorf("begin %s: the run already has it", k)
	}
	id := r.j.next
	if err := r.mark(tagBegin, id, c); err != nil {
		return nil, err
	}
	r.j.next++
	r.taken[k] = true
	r.j.blocks[id] = &block{cell: c}
	w := &Writer{run: r, id: id, key: k, nodes: names{at: map[string]int{}}, seen: map[string]bool{}}
	r.open[id] = w
	return w, nil
}

// mark appends a begin or end frame; r.mu is held.
func (r *Run) mark(tag byte, id uint64, v any) error {
	b := append(make([]byte, headBytes, 1024), tag)
	b = binary.AppendUvarint(b, id)
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write block %d: %w", id, err)
	}
	if len(text) > maxFrame-32 {
		return fmt.Errorf("write block %d: its cell takes %d bytes: too many parameters or warnings", id, len(text))
	}
	if _, err := r.j.append(append(b, text...)); err != nil {
		r.err = err
		return err
	}
	return nil
}

// Row takes in one request, in any order of IDs, and keeps nothing of it. It
// refuses one that breaks an invariant of package record; the other errors are
// those of the disk, and stick.
func (w *Writer) Row(r *record.Request) error {
	if err := r.Check(); err != nil {
		return fmt.Errorf("%s: %w", w.key, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return ErrClosed
	}
	before := len(w.rows)
	w.rows = appendRow(w.rows, r, &w.nodes)
	if len(w.rows)-before > maxFrame/2 {
		w.rows = w.rows[:before]
		return fmt.Errorf("%s: request %d has %d chunks and %d spans: more than a row may hold", w.key, r.ID, len(r.Chunks), len(r.Spans))
	}
	w.sorted = len(w.at) == 0 || w.sorted && w.at[len(w.at)-1].id < r.ID
	w.at = append(w.at, place{r.ID, before, len(w.rows)})
	w.total++
	for c, n := range r.Counts {
		if n != 0 {
			w.used |= 1 << c
		}
	}
	if r.OutputHash != 0 {
		w.used |= hashUsed
	}
	if len(w.at) >= frameRows || len(w.rows) >= frameBytes {
		return w.flushLocked()
	}
	return nil
}

func (w *Writer) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return nil
	}
	return w.flushLocked()
}

// frame puts the buffered rows together, in order of ID.
func (w *Writer) frame() {
	if !w.sorted {
		slices.SortStableFunc(w.at, func(a, b place) int { return cmp.Compare(a.id, b.id) })
	}
	b := append(w.buf[:0], make([]byte, headBytes)...)
	b = append(b, tagRows)
	b = binary.AppendUvarint(b, w.id)
	b = binary.AppendUvarint(b, uint64(len(w.at)))
	b = binary.AppendVarint(b, int64(w.at[0].id))
	b = binary.AppendVarint(b, int64(w.at[len(w.at)-1].id))
	b = binary.AppendUvarint(b, uint64(len(w.nodes.list)))
	for _, n := range w.nodes.list {
		n = clean(n, maxErrBytes)
		b = appendString(b, n)
		w.seen[n] = true
	}
	if w.sorted {
		w.buf = append(b, w.rows...)
		return
	}
	for _, p := range w.at {
		b = append(b, w.rows[p.from:p.to]...)
	}
	w.buf = b
}

// flushLocked appends the buffered rows as one frame; w.mu is held.
func (w *Writer) flushLocked() error {
	if len(w.at) == 0 {
		return nil
	}
	w.frame()
	r := w.run
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	if r.closed {
		return ErrClosed
	}
	off, err := r.j.append(w.buf)
	if err != nil {
		r.err = err
		return err
	}
	blk := r.j.blocks[w.id]
	blk.frames = append(blk.frames, frame{off, uint32(len(w.buf) - headBytes), len(w.at), w.at[0].id, w.at[len(w.at)-1].id})
	blk.rows += len(w.at)
	w.rows, w.at = w.rows[:0], w.at[:0]
	w.nodes.reset()
	return nil
}

// End closes the block. The cell is the one that began, now with its facts: End
// judges it, and sets Valid and adds what it finds to Invalid. When End returns
// nil the block survives the death of the process.
func (w *Writer) End(c record.Cell) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return ErrClosed
	}
	if KeyOf(&c) != w.key {
		return fmt.Errorf("end %s: the block began as %s", KeyOf(&c), w.key)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Figures)) {
		if v := c.Figures[name]; !record.IsFigure(name) || math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("end %s: figure %q = %g: want a finite value of a figure in package record's table", w.key, name, v)
		}
	}
	if err := w.flushLocked(); err != nil {
		return err
	}
	c = judged(c)
	e := ending{c, w.total, slices.Sorted(maps.Keys(w.seen)), w.used}
	r := w.run
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return r.err
	case r.closed:
		return ErrClosed
	}
	if err := r.mark(tagEnd, w.id, e); err != nil {
		return err
	}
	b := r.j.blocks[w.id]
	b.cell, b.nodes, b.used, b.done = c, e.Nodes, e.Used, true
	delete(r.open, w.id)
	w.ended = true
	return nil
}

func judged(c record.Cell) record.Cell {
	if c.Facts.LateP99 == 0 {
		c.Facts.LateP99 = record.Late(slices.Clone(c.Lag))
	}
	c.Lag = nil
	why := slices.Clone(c.Invalid)
	for _, reason := range c.Judge() {
		if !slices.Contains(why, reason) {
			why = append(why, reason)
		}
	}
	c.Invalid, c.Valid = why, len(why) == 0
	return c
}

// Abandon gives the block up: the tables will not have it and it may begin
// again.
func (w *Writer) Abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.run
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	delete(r.open, w.id)
	delete(r.j.blocks, w.id)
	delete(r.taken, w.key)
}

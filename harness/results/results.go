// Package results keeps what runs leave behind: a folder with Arrow tables, a
// manifest and Go benchmark text. It is the only package that imports Arrow.
//
// While a run goes on, rows are appended to a journal that a crash cannot hurt:
// a block per run of a cell, flushed at least every second. Finish sorts the
// journal into tables; equal rows make equal bytes, whatever the order in which
// they came, however often the run was interrupted.
//
//	run, err := results.Create(dir, manifest)   // or Open, to go on with one
//	for _, c := range cells {
//		if run.Done(results.KeyOf(&c)) { continue }
//		w, err := run.Begin(c)
//		... w.Row(&req) for every request, in any order, from any goroutine
//		err = w.End(c)                      // the cell's facts, which Judge reads
//	}
//	err = run.Finish()
//
// After kill -9 at any moment Open finds every block that ended and no part of
// any other: a cell's queues and caches cannot be restarted in the middle, so a
// cell that was cut off runs again.
//
// Read gives the tables back as streams of rows, in bounded memory.
//
// The package does not draw and does not compare: reports and stats do.
package results

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"meibench/harness/record"
	"meibench/internal/filelock"
)

// Key identifies one run of one cell.
type Key struct {
	Suite, Cell string
	Seed        uint64
	Repeat      int
}

// KeyOf is the key of a run of a cell.
func KeyOf(c *record.Cell) Key { return Key{c.Suite, c.Name, c.Seed, c.Repeat} }

// String reads "suite/cell seed 1 repeat 0".
func (k Key) String() string {
	return fmt.Sprintf("%s/%s seed %d repeat %d", k.Suite, k.Cell, k.Seed, k.Repeat)
}

// order sorts blocks as the tables are sorted: by the cell's place in the
// suite, then repeat, then seed; names only settle what the suite left open.
func order(a, b *record.Cell) int {
	return cmp.Or(cmp.Compare(a.Index, b.Index), strings.Compare(a.Suite, b.Suite), strings.Compare(a.Name, b.Name),
		cmp.Compare(a.Repeat, b.Repeat), cmp.Compare(a.Seed, b.Seed))
}

// flushEvery bounds what a crash of the machine can take from a block that is
// going on; blocks that ended are in the file when End returns.
const flushEvery = 500 * time.Millisecond

// Run is a run folder that is being written. Its methods may be called from any
// goroutine.
type Run struct {
	dir  string
	disk disk

	mu       sync.Mutex // guards all below, and the journal
	manifest Manifest
	j        *journal
	open     map[uint64]*Writer
	taken    map[Key]bool // done or open
	err      error        // first failure to write; the run takes no more rows
	closed   bool
	synced   int64 // of the journal, by the flusher
	stop     chan struct{}
	stopped  chan struct{}
}

// Create starts a run in a folder, which it makes. It refuses a folder that
// already holds a run.
func Create(dir string, m Manifest) (*Run, error) { return create(realDisk{}, dir, m) }

func create(d disk, dir string, m Manifest) (*Run, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run folder: %w: choose another --out", err)
	}
	if _, err := os.Stat(filepath.Join(dir, ManifestFile)); err == nil {
		return nil, fmt.Errorf("create run %s: the folder already holds a run: go on with it by --resume, or choose another --out", dir)
	}
	f, err := openJournal(dir, os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	m.Format = Format
	if err := m.save(d, dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return resume(d, dir, m, f)
}

// Open goes on with a run that was interrupted. It repairs the end of the
// journal, which a crash may have torn; the manifest's Warnings then say so. A
// run that is complete has nothing to go on with and is an error.
func Open(dir string) (*Run, error) { return reopen(realDisk{}, dir) }

func reopen(d disk, dir string) (*Run, error) {
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	flags := os.O_CREATE // killed between the manifest and the journal's first byte
	if m.Finished != nil {
		flags = 0
	}
	f, err := openJournal(dir, flags)
	if m.Finished != nil && errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open run %s: %w", dir, ErrComplete)
	}
	if err != nil {
		return nil, err
	}
	if m.Finished != nil { // finished before it was complete: until Finish comes again, the tables are not to be trusted
		m.Finished, m.Complete, m.Files = nil, false, nil
		if err := m.save(d, dir); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return resume(d, dir, m, f)
}

// ErrComplete says that a run has nothing left to do.
var ErrComplete = errors.New("the run is complete: there is nothing to resume; read it with meibench report")

func openJournal(dir string, flags int) (*os.File, error) {
	path := filepath.Join(dir, journalFile)
	f, err := os.OpenFile(path, os.O_RDWR|flags&^os.O_TRUNC, 0o644)
	if err != nil {
		return nil, diskError("open the run's journal", path, err)
	}
	if err := filelock.Exclusive(f); errors.Is(err, filelock.ErrHeld) {
		return nil, errors.Join(fmt.Errorf("open run %s: %w: wait for it, or choose another --out", path, err), f.Close())
	} else if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if flags&os.O_TRUNC != 0 {
		if err := f.Truncate(0); err != nil {
			return nil, errors.Join(diskError("empty the run's journal", path, err), f.Close())
		}
	}
	return f, nil
}

func resume(d disk, dir string, m Manifest, f *os.File) (*Run, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return begin(d, dir, m, &journal{f: f, path: f.Name()}, st.Size())
}

// begin makes a Run of an open journal of a given size.
func begin(d disk, dir string, m Manifest, j *journal, size int64) (*Run, error) {
	torn, err := j.load(size)
	if err != nil {
		return nil, errors.Join(err, j.f.Close())
	}
	r := &Run{dir: dir, disk: d, manifest: m, j: j, open: map[uint64]*Writer{}, taken: map[Key]bool{},
		stop: make(chan struct{}), stopped: make(chan struct{})}
	if torn > 0 {
		r.manifest.Warnings = append(r.manifest.Warnings, fmt.Sprintf("resumed: %d bytes of an unfinished write were cut off the journal", torn))
	}
	for id, b := range j.blocks {
		if !b.done {
			delete(j.blocks, id) // cut off in the middle: it runs again
			continue
		}
		if k := KeyOf(&b.cell); r.taken[k] {
			return nil, errors.Join(fmt.Errorf("open run %s: %s is in the journal twice: %w", dir, k, errFrame), j.f.Close())
		}
		r.taken[KeyOf(&b.cell)] = true
	}
	go r.flusher()
	return r, nil
}

// Dir is the run folder.
func (r *Run) Dir() string { return r.dir }

// Manifest is the run's manifest as it is now.
func (r *Run) Manifest() Manifest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.manifest
}

// Completed lists the runs of cells that are whole in the journal, in table
// order.
func (r *Run) Completed() []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Key
	for _, b := range r.done() {
		out = append(out, KeyOf(&b.cell))
	}
	return out
}

// Done reports whether a run of a cell is whole in the journal.
func (r *Run) Done(k Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.open {
		if w.key == k {
			return false
		}
	}
	return r.taken[k]
}

// done is the list of finished blocks in table order; r.mu is held.
func (r *Run) done() []*block {
	var out []*block
	for _, b := range r.j.blocks {
		if b.done {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *block) int { return order(&a.cell, &b.cell) })
	return out
}

// flusher writes what is buffered twice a second and forces it to the disk.
func (r *Run) flusher() {
	defer close(r.stopped)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
			r.flush()
		}
	}
}

// flush appends every writer's rows and syncs, outside the lock, if anything
// was appended since the last time.
func (r *Run) flush() {
	r.mu.Lock()
	var ws []*Writer
	for _, w := range r.open {
		ws = append(ws, w)
	}
	r.mu.Unlock()
	for _, w := range ws {
		_ = w.flush() // the run remembers
	}
	r.mu.Lock()
	size := r.j.size
	r.mu.Unlock()
	if size == r.synced {
		return
	}
	if err := r.j.f.Sync(); err != nil {
		r.fail(diskError("sync the run's journal", r.j.path, err))
	}
	r.synced = size
}

func (r *Run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil && !r.closed {
		r.err = err
	}
}

// Close stops writing and leaves the folder to be resumed. Blocks that have not
// ended are lost, as they would be in a crash.
func (r *Run) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	err := r.err
	r.mu.Unlock()
	close(r.stop)
	<-r.stopped
	return errors.Join(err, r.j.f.Sync(), r.j.f.Close())
}

package results

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// reader gives the batches of an Arrow file. It keeps the last one, so that
// small runs that share a batch do not read it again and again.
type reader struct {
	f    *ipc.FileReader
	rows int64
	cols map[string]int

	mu   sync.Mutex
	last *batch
	at   int
}

// safely turns a panic of the Arrow library, which it raises on files that lie
// about their layout, into an error.
func safely(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("the file is damaged: %v", p)
	}
}

// bounded refuses buffers larger than the file they are read from: our tables
// are not compressed, so such a length is a lie.
type bounded struct {
	memory.Allocator
	limit int
}

// Allocate panics where the length is a lie; safely catches it.
func (b bounded) Allocate(n int) []byte {
	b.check(n)
	return b.Allocator.Allocate(n)
}

// Reallocate panics where the length is a lie; safely catches it.
func (b bounded) Reallocate(n int, old []byte) []byte {
	b.check(n)
	return b.Allocator.Reallocate(n, old)
}

func (b bounded) check(n int) {
	if n < 0 || n > b.limit+4096 {
		panic(fmt.Sprintf("a buffer of %d bytes in a file of %d", n, b.limit))
	}
}

func newReader(f *os.File, format string) (r *reader, err error) {
	defer safely(&err)
	r = &reader{cols: map[string]int{}, at: -1}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := sane(f, st.Size()); err != nil {
		return nil, err
	}
	if r.f, err = ipc.NewFileReader(f, ipc.WithAllocator(bounded{memory.NewGoAllocator(), int(st.Size())})); err != nil {
		return nil, err
	}
	meta := r.f.Schema().Metadata()
	if i := meta.FindKey("format"); i < 0 || meta.Values()[i] != format {
		return nil, fmt.Errorf("this is no %s table: %w", format, errSchema)
	}
	for i, c := range r.f.Schema().Fields() {
		r.cols[c.Name] = i
	}
	if n := r.f.NumRecords(); n > 0 {
		b, err := r.batch(n - 1)
		if err != nil {
			return nil, err
		}
		r.rows = int64(n-1)*batchRows + b.rec.NumRows()
	}
	return r, nil
}

// batch reads batch i. Memory of old batches is the garbage collector's: the
// allocator is Go's.
func (r *reader) batch(i int) (b *batch, err error) {
	defer safely(&err)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == i {
		return r.last, nil
	}
	rec, err := r.f.RecordAt(i)
	if err != nil {
		return nil, err
	}
	if n := rec.NumRows(); n != batchRows && (n > batchRows || i != r.f.NumRecords()-1) {
		return nil, fmt.Errorf("batch %d has %d rows: %w", i, n, errSchema)
	}
	b = &batch{rec: rec, cols: r.cols}
	b.bind()
	r.last, r.at = b, i
	return b, nil
}

// each calls fn with n rows from the first on, until it returns false.
func (r *reader) each(first, n int64, fn func(b *batch, row int) (bool, error)) (err error) {
	defer safely(&err)
	if first < 0 || n < 0 || first > r.rows || n > r.rows-first {
		return fmt.Errorf("rows %d to %d of %d: %w", first, first+n, r.rows, errSchema)
	}
	for n > 0 {
		b, err := r.batch(int(first / batchRows))
		if err != nil {
			return err
		}
		if b.err != nil {
			return b.err
		}
		from := int(first % batchRows)
		to := int(min(int64(from)+n, b.rec.NumRows()))
		for row := from; row < to; row++ {
			if more, err := fn(b, row); err != nil || !more {
				return err
			}
		}
		first, n = first+int64(to-from), n-int64(to-from)
	}
	return nil
}

// The Arrow library believes the lengths in a file's footer and schema and makes
// slices of them before it looks: one flipped bit can ask for a terabyte, which
// no recover catches. sane walks the FlatBuffers of the footer first and refuses
// a vector that does not fit in it. The record batches need no such walk: their
// buffers come from the bounded allocator, and what else is wrong panics.

var errFooter = errors.New("the file's footer is damaged")

// maxFields bounds the fields of a schema, nested ones included: our tables have
// about a hundred.
const maxFields = 4096

// sane checks the footer of an Arrow file: 4 bytes of its length and the magic
// word close the file.
func sane(f io.ReaderAt, size int64) error {
	const magicBytes = 6 // ARROW1
	var end [4 + magicBytes]byte
	if size < int64(len(end)) {
		return errFooter
	}
	if _, err := f.ReadAt(end[:], size-int64(len(end))); err != nil {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(end[:]))
	if string(end[4:]) != "ARROW1" || n < 8 || n > 16<<20 || n > size-int64(len(end)) {
		return errFooter
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, size-int64(len(end))-n); err != nil {
		return err
	}
	w := walker{b: b}
	footer := w.indirect(0)
	w.vector(w.slot(footer, 2), 24, nil) // dictionaries: structs of 24 bytes
	w.vector(w.slot(footer, 3), 24, nil) // record batches
	w.keyValues(w.slot(footer, 4))
	if schema := w.slot(footer, 1); schema != 0 {
		schema = w.indirect(schema)
		w.vector(w.slot(schema, 1), 4, w.field)
		w.keyValues(w.slot(schema, 2))
		w.vector(w.slot(schema, 3), 8, nil) // features
	}
	if w.bad {
		return errFooter
	}
	return nil
}

// walker follows offsets in a FlatBuffer. Position 0 stands for absent; after
// the first offset out of bounds, bad is set and everything is absent.
type walker struct {
	b      []byte
	fields int
	bad    bool
}

func (w *walker) fail() int { w.bad = true; return 0 }

func (w *walker) u32(p int) int {
	if w.bad || p < 0 || p > len(w.b)-4 {
		return w.fail()
	}
	return int(binary.LittleEndian.Uint32(w.b[p:]))
}

func (w *walker) u16(p int) int {
	if w.bad || p < 0 || p > len(w.b)-2 {
		return w.fail()
	}
	return int(binary.LittleEndian.Uint16(w.b[p:]))
}

func (w *walker) indirect(p int) int { return p + w.u32(p) }

// slot is where a table keeps its field of a number, 0 if it has none.
func (w *walker) slot(table, number int) int {
	vtable := table - int(int32(w.u32(table)))
	if at := 4 + 2*number; at < w.u16(vtable) {
		if off := w.u16(vtable + at); off != 0 && !w.bad {
			return table + off
		}
	}
	return 0
}

// vector checks that a vector of n elements of a size fits, and calls each with
// the position of every element.
func (w *walker) vector(p, size int, each func(p int)) {
	if p == 0 || w.bad {
		return
	}
	p = w.indirect(p)
	n := w.u32(p)
	if w.bad || n > (len(w.b)-p-4)/size {
		w.fail()
		return
	}
	for i := 0; i < n && each != nil && !w.bad; i++ {
		each(p + 4 + i*size)
	}
}

// text checks a string.
func (w *walker) text(p int) { w.vector(p, 1, nil) }

func (w *walker) keyValues(p int) {
	w.vector(p, 4, func(p int) {
		kv := w.indirect(p)
		w.text(w.slot(kv, 0))
		w.text(w.slot(kv, 1))
	})
}

// field checks a field of a schema and its children. Children that share a
// field could make a small file say exponentially many: they are counted.
func (w *walker) field(p int) {
	if w.fields++; w.fields > maxFields {
		w.fail()
		return
	}
	f := w.indirect(p)
	w.text(w.slot(f, 0))
	w.vector(w.slot(f, 5), 4, w.field)
	w.keyValues(w.slot(f, 6))
}

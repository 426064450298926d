package results

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"
	"sync/atomic"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// batchRows is the number of rows of every record batch but the last, so that
// row i of a table is in batch i/batchRows whatever was in the journal.
const batchRows = 8192

// column gathers the values of one field of a batch in a plain slice; array
// wraps that slice without copying. It is good until reset.
type column interface {
	field() arrow.Field
	array(rows int) arrow.Array
	reset()
}

// head is what columns share: the field, and which rows are null.
type head struct {
	name, unit string
	null       []byte // bitmap of valid rows, nil for columns without nulls
	nulls      int
}

func (h *head) describe(t arrow.DataType) arrow.Field {
	f := arrow.Field{Name: h.name, Type: t, Nullable: h.null != nil}
	if h.unit != "" {
		f.Metadata = arrow.NewMetadata([]string{"unit"}, []string{h.unit})
	}
	return f
}

func (h *head) mark(row int, valid bool) {
	if h.null == nil {
		return
	}
	if valid {
		h.null[row/8] |= 1 << (row % 8)
	} else {
		h.nulls++
	}
}

func (h *head) resetNulls() {
	clear(h.null)
	h.nulls = 0
}

// wrap makes an array of buffers; the first is the bitmap.
func (h *head) wrap(t arrow.DataType, rows int, buffers ...[]byte) arrow.Array {
	data := h.data(t, rows, buffers)
	defer data.Release()
	return array.MakeFromData(data)
}

func (h *head) data(t arrow.DataType, rows int, buffers [][]byte) *array.Data {
	bufs := make([]*memory.Buffer, 1, len(buffers)+1)
	if h.nulls > 0 {
		bufs[0] = memory.NewBufferBytes(h.null[:(rows+7)/8])
	}
	for _, b := range buffers {
		bufs = append(bufs, memory.NewBufferBytes(b))
	}
	return array.NewData(t, rows, bufs, nil, h.nulls, 0)
}

func nullable(name, unit string) head {
	return head{name: name, unit: unit, null: make([]byte, batchRows/8)}
}

// nums is a column of numbers of one width.
type nums[T arrow.NumericType] struct {
	head
	v []T
}

func newNums[T arrow.NumericType](h head) *nums[T] { return &nums[T]{h, make([]T, 0, batchRows)} }

func (c *nums[T]) put(v T)                    { c.mark(len(c.v), true); c.v = append(c.v, v) }
func (c *nums[T]) putNull()                   { c.mark(len(c.v), false); c.v = append(c.v, 0) }
func (c *nums[T]) reset()                     { c.v = c.v[:0]; c.resetNulls() }
func (c *nums[T]) kind() arrow.DataType       { return arrow.GetDataType[T]() }
func (c *nums[T]) field() arrow.Field         { return c.describe(c.kind()) }
func (c *nums[T]) array(rows int) arrow.Array { return c.wrap(c.kind(), rows, arrow.GetBytes(c.v)) }

// putReal puts a double that is null where it is NaN; the bytes under a null do
// not depend on which NaN it was.
func putReal(c *nums[float64], v float64) {
	if math.IsNaN(v) {
		c.putNull()
	} else {
		c.put(v)
	}
}

// texts is a column of plain strings.
type texts struct {
	head
	off []int32
	v   []byte
}

func newTexts(name string) *texts {
	return &texts{head: head{name: name}, off: make([]int32, 1, batchRows+1)}
}

func (c *texts) put(s string) {
	c.v = append(c.v, s...)
	c.off = append(c.off, int32(len(c.v)))
}
func (c *texts) reset()             { c.v, c.off = c.v[:0], c.off[:1]; c.resetNulls() }
func (c *texts) field() arrow.Field { return c.describe(arrow.BinaryTypes.String) }
func (c *texts) array(rows int) arrow.Array {
	return c.wrap(arrow.BinaryTypes.String, rows, arrow.GetBytes(c.off), c.v)
}

// words is a dictionary column: its words are fixed before the first batch,
// because an Arrow file allows one dictionary per column. The index is a byte
// where that is enough, else four.
type words struct {
	head
	narrow []int8
	wide   []int32
	dict   arrow.Array
	list   []string
	at     map[string]int32
	last   int32 // most words repeat the one before
}

func newWords(h head, list []string) *words {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(list, nil)
	w := &words{head: h, dict: b.NewArray(), list: list, at: map[string]int32{}}
	for i, s := range list {
		w.at[s] = int32(i)
	}
	return w
}

func (c *words) isNarrow() bool { return len(c.list) <= math.MaxInt8 }

func (c *words) put(i int32) {
	c.mark(len(c.narrow)+len(c.wide), true)
	c.append(i)
}

func (c *words) putNull() {
	c.mark(len(c.narrow)+len(c.wide), false)
	c.append(0)
}

func (c *words) append(i int32) {
	if c.isNarrow() {
		c.narrow = append(c.narrow, int8(i))
	} else {
		c.wide = append(c.wide, i)
	}
}

func (c *words) word(s string) {
	if int(c.last) >= len(c.list) || c.list[c.last] != s {
		c.last = c.at[s]
	}
	c.put(c.last)
}

func (c *words) reset()             { c.narrow, c.wide = c.narrow[:0], c.wide[:0]; c.resetNulls() }
func (c *words) field() arrow.Field { return c.describe(c.kind()) }
func (c *words) kind() *arrow.DictionaryType {
	t := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	if c.isNarrow() {
		t.IndexType = arrow.PrimitiveTypes.Int8
	}
	return t
}
func (c *words) array(rows int) arrow.Array {
	raw := arrow.GetBytes(c.wide)
	if c.isNarrow() {
		raw = arrow.GetBytes(c.narrow)
	}
	idx := c.wrap(c.kind().IndexType, rows, raw)
	defer idx.Release()
	return array.NewDictionaryArray(c.kind(), idx, c.dict)
}

// lists is a column of lists of numbers.
type lists[T arrow.NumericType] struct {
	head
	off []int32
	v   []T
}

func newLists[T arrow.NumericType](name, unit string) *lists[T] {
	return &lists[T]{head: head{name: name, unit: unit}, off: make([]int32, 1, batchRows+1)}
}

func (c *lists[T]) kind() *arrow.ListType { return arrow.ListOfNonNullable(arrow.GetDataType[T]()) }
func (c *lists[T]) end()                  { c.off = append(c.off, int32(len(c.v))) }
func (c *lists[T]) reset()                { c.v, c.off = c.v[:0], c.off[:1]; c.resetNulls() }
func (c *lists[T]) field() arrow.Field    { return c.describe(c.kind()) }
func (c *lists[T]) array(rows int) arrow.Array {
	values := (&head{}).data(arrow.GetDataType[T](), len(c.v), [][]byte{arrow.GetBytes(c.v)})
	defer values.Release()
	bufs := []*memory.Buffer{nil, memory.NewBufferBytes(arrow.GetBytes(c.off))}
	data := array.NewData(c.kind(), rows, bufs, []arrow.ArrayData{values}, 0, 0)
	defer data.Release()
	return array.NewListData(data)
}

// table writes columns to an Arrow file, batch by batch.
type table struct {
	cols   []column
	schema *arrow.Schema
	w      *ipc.FileWriter
	rows   int // in the batch
	total  int64
}

func newTable(out io.WriteSeeker, format string, cols []column) (*table, error) {
	fields := make([]arrow.Field, len(cols))
	for i, c := range cols {
		fields[i] = c.field()
	}
	meta := arrow.NewMetadata([]string{"format"}, []string{format})
	t := &table{cols: cols, schema: arrow.NewSchema(fields, &meta)}
	var err error
	t.w, err = ipc.NewFileWriter(out, ipc.WithSchema(t.schema))
	return t, err
}

// row says that every column has one more value.
func (t *table) row() error {
	t.rows++
	t.total++
	if t.rows == batchRows {
		return t.flush()
	}
	return nil
}

// flush writes what there is as a batch. An empty table still gets one, or its
// dictionaries would be missing from the file.
func (t *table) flush() error {
	arrays := make([]arrow.Array, len(t.cols))
	for i, c := range t.cols {
		arrays[i] = c.array(t.rows)
		defer arrays[i].Release()
	}
	rec := array.NewRecord(t.schema, arrays, int64(t.rows))
	defer rec.Release()
	if err := t.w.Write(rec); err != nil {
		return err
	}
	for _, c := range t.cols {
		c.reset()
	}
	t.rows = 0
	return nil
}

func (t *table) close() error {
	if t.rows > 0 || t.total == 0 {
		if err := t.flush(); err != nil {
			return err
		}
	}
	return t.w.Close()
}

// sink is a buffered, hashed file: a second goroutine hashes and writes what the
// first has gathered. Arrow seeks only to ask where it is.
type sink struct {
	buf    []byte
	pos    int64
	full   chan []byte
	free   chan []byte
	done   chan error
	failed atomic.Bool
	hash   hash.Hash
}

const sinkBytes = 1 << 18

func newSink(w io.Writer) *sink {
	s := &sink{buf: make([]byte, 0, sinkBytes), full: make(chan []byte, 2), free: make(chan []byte, 3), done: make(chan error, 1), hash: sha256.New()}
	s.free <- make([]byte, 0, sinkBytes)
	s.free <- make([]byte, 0, sinkBytes)
	go s.drain(w)
	return s
}

// drain writes buffers until there are no more. After an error it only keeps
// the other side from waiting.
func (s *sink) drain(w io.Writer) {
	var err error
	for b := range s.full {
		if err == nil {
			s.hash.Write(b)
			if _, err = w.Write(b); err != nil {
				s.failed.Store(true)
			}
		}
		s.free <- b[:0]
	}
	s.done <- err
}

var errSink = errors.New("results: an earlier write failed")

func (s *sink) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		k := min(len(p), cap(s.buf)-len(s.buf))
		s.buf, p = append(s.buf, p[:k]...), p[k:]
		if len(s.buf) == cap(s.buf) {
			if s.failed.Load() {
				return 0, errSink // close has the cause
			}
			s.full <- s.buf
			s.buf = <-s.free
		}
	}
	s.pos += int64(n)
	return n, nil
}

// Seek answers only the question where the end is.
func (s *sink) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, errors.New("results: a table is written front to back")
	}
	return s.pos, nil
}

// close writes what is left, ends the goroutine and returns the first error.
// Only then is the hash that of the whole.
func (s *sink) close() error {
	s.full <- s.buf
	close(s.full)
	return <-s.done
}

// distinct is the sorted set of what a function says of each item.
func distinct[T any](items []T, of func(T) string) []string {
	seen := map[string]bool{}
	var out []string
	for _, it := range items {
		if s := of(it); !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

var errSchema = errors.New("the table's columns are not those this program writes: it comes from another version")

func missing(name string) error { return fmt.Errorf("column %q: %w", name, errSchema) }

// Column is a column of a table, as those who describe tables need it.
type Column struct {
	Name, Unit string // Unit may be ""
	Type       string // of a value, in Arrow's words: int64, float64, utf8 ...
	List       bool   // a row has a list of values
	Nullable   bool
}

// Columns lists the columns of a table of the set (RequestsFile, SpansFile or
// CellsFile) in their order.
func (s *Set) Columns(file string) ([]Column, error) {
	r := map[string]*reader{RequestsFile: s.requests, SpansFile: s.spans, CellsFile: s.cells}[file]
	if r == nil {
		return nil, fmt.Errorf("columns of %s: a run has no such table", file)
	}
	var out []Column
	for _, f := range r.f.Schema().Fields() {
		c := Column{Name: f.Name, Nullable: f.Nullable}
		if i := f.Metadata.FindKey("unit"); i >= 0 {
			c.Unit = f.Metadata.Values()[i]
		}
		t := f.Type
		if l, ok := t.(*arrow.ListType); ok {
			t, c.List = l.Elem(), true
		}
		if d, ok := t.(*arrow.DictionaryType); ok {
			t = d.ValueType
		}
		c.Type = t.Name()
		out = append(out, c)
	}
	return out, nil
}

package results

import (
	"fmt"
	"os"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"meibench/harness/record"
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
	if !ordered(rec) {
		return nil, fmt.Errorf("batch %d: %w", i, errOrder)
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

// Fault is something in the tables that no writer of this program leaves there.
type Fault struct {
	File   string
	Row    string // suite/cell seed repeat, and the request; "" = the whole table
	Schema bool   // of the table's columns; else of what stands in them
	Text   string
}

// Audit compares what no reader of rows looks at with what a writer would have
// left: the columns with their types, units and words; the columns that repeat
// of which run of a cell a row is; and that every row belongs to one run. At most
// a fault is returned for each table and run of a cell. The rows themselves are
// the business of Full.
func (s *Set) Audit() (out []Fault, err error) {
	defer safely(&err)
	tables, err := published()
	if err != nil {
		return nil, err
	}
	for i, r := range []*reader{s.requests, s.spans, s.cells} {
		if text := r.unlike(tables[i]); text != "" {
			out = append(out, Fault{File: []string{RequestsFile, SpansFile, CellsFile}[i], Schema: true, Text: text})
		}
	}
	if len(out) > 0 { // the rest would read columns that are not there
		return out, nil
	}
	return s.auditRows()
}

// unlike says how a file's columns differ from those of a table; "" if they do
// not. Columns that a table has only where a run used them may be left out.
func (r *reader) unlike(want []standard) string {
	have := r.f.Schema().Fields()
	for _, c := range want {
		f := c.field
		if len(have) == 0 || have[0].Name != f.Name {
			if optional(f.Name) {
				continue
			}
			if len(have) == 0 {
				return fmt.Sprintf("column %q is missing", f.Name)
			}
			return fmt.Sprintf("column %q stands where %q belongs", have[0].Name, f.Name)
		}
		if text := unlikeField(have[0], f); text != "" {
			return fmt.Sprintf("column %q: %s", f.Name, text)
		}
		have = have[1:]
	}
	if len(have) > 0 {
		return fmt.Sprintf("column %q is not one of this format", have[0].Name)
	}
	return r.unlikeWords(want)
}

func unlikeField(have, want arrow.Field) string {
	types := have.Type.Fingerprint() == want.Type.Fingerprint() && arrow.TypeEqual(have.Type, want.Type)
	if d, ok := have.Type.(*arrow.DictionaryType); ok && want.Type.ID() == arrow.DICTIONARY { // the index is as wide as the words need
		types = arrow.TypeEqual(d.ValueType, arrow.BinaryTypes.String) && !d.Ordered &&
			(d.IndexType.ID() == arrow.INT8 || d.IndexType.ID() == arrow.INT32)
	}
	switch {
	case !types:
		return fmt.Sprintf("type %s, want %s", have.Type, want.Type)
	case have.Nullable != want.Nullable:
		return fmt.Sprintf("nullable is %v, want %v", have.Nullable, want.Nullable)
	case !have.Metadata.Equal(want.Metadata):
		return fmt.Sprintf("metadata %v, want %v", have.Metadata, want.Metadata)
	}
	return ""
}

// unlikeWords looks at the columns whose numbers stand for fixed words: our reader
// takes the number, other readers the word.
func (r *reader) unlikeWords(want []standard) string {
	b, err := r.batch(0)
	if err != nil {
		return err.Error()
	}
	for _, c := range want {
		if c.words == nil {
			continue
		}
		have, ok := b.rec.Column(b.cols[c.field.Name]).(*array.Dictionary)
		if !ok || !array.Equal(have.Dictionary(), c.words) {
			return fmt.Sprintf("column %q: its words are not %v", c.field.Name, c.words)
		}
	}
	return ""
}

// auditRows looks at the columns that say of which run a row is, and at extents.
func (s *Set) auditRows() (out []Fault, err error) {
	at := extent{}
	for i := range s.runs {
		run, key := &s.runs[i], KeyOf(&s.runs[i].Cell).String()
		e := run.at
		if e.FirstRow != at.FirstRow || e.FirstSpan != at.FirstSpan || e.Rows < 0 || e.Spans < 0 {
			out = append(out, Fault{File: CellsFile, Row: key, Text: fmt.Sprintf("its rows begin at %d and its spans at %d, the runs before it end at %d and %d", e.FirstRow, e.FirstSpan, at.FirstRow, at.FirstSpan)})
			return out, nil
		}
		at.FirstRow, at.FirstSpan = e.FirstRow+e.Rows, e.FirstSpan+e.Spans
		faults, err := s.auditRun(i, key)
		if err != nil {
			return out, err
		}
		out = append(out, faults...)
	}
	if at.FirstRow != s.requests.rows || at.FirstSpan != s.spans.rows {
		out = append(out, Fault{File: CellsFile, Text: fmt.Sprintf("its runs have %d requests and %d spans, the tables %d and %d", at.FirstRow, at.FirstSpan, s.requests.rows, s.spans.rows)})
	}
	if m := s.Manifest; m.Rows != s.requests.rows || m.Spans != s.spans.rows || m.Blocks != len(s.runs) {
		out = append(out, Fault{File: ManifestFile, Text: fmt.Sprintf("says %d runs of cells, %d requests, %d spans; the tables have %d, %d, %d", m.Blocks, m.Rows, m.Spans, len(s.runs), s.requests.rows, s.spans.rows)})
	}
	return out, nil
}

// auditRun compares the columns of identity of a run's rows, and its row in the
// table of cells, with the cell.
func (s *Set) auditRun(i int, key string) (out []Fault, err error) {
	c := &s.runs[i].Cell
	of := identities()
	var in *batch // of which the indices below are
	seen := make([]int, len(of))
	same := func(b *batch, row int) string {
		if in != b {
			in = b
			for k := range seen {
				seen[k] = -1
			}
		}
		for k := range of {
			d := col[*array.Dictionary](b, of[k].name)
			if b.err != nil {
				return b.err.Error()
			}
			at := d.GetValueIndex(row)
			if at == seen[k] {
				continue
			}
			if got := d.Dictionary().(*array.String).Value(at); got != of[k].of(c) {
				return fmt.Sprintf("column %s says %q, the run is %q", of[k].name, got, of[k].of(c))
			}
			seen[k] = at
		}
		seed, repeat := col[*array.Uint64](b, "seed"), col[*array.Int32](b, "repeat")
		if b.err == nil && (seed.Value(row) != c.Seed || int(repeat.Value(row)) != c.Repeat) {
			return fmt.Sprintf("says seed %d repeat %d", seed.Value(row), repeat.Value(row))
		}
		return ""
	}
	e := s.runs[i].at
	err = s.requests.each(e.FirstRow, e.Rows, func(b *batch, row int) (bool, error) {
		text := same(b, row)
		if text != "" {
			out = append(out, Fault{File: RequestsFile, Row: fmt.Sprintf("%s request %d", key, b.counts[0].Value(row)), Text: text})
		}
		return text == "", b.err
	})
	if err != nil {
		return nil, err
	}
	err = s.cells.each(int64(i), 1, func(b *batch, row int) (bool, error) {
		text := same(b, row)
		if text == "" {
			text = unlikeCell(b, row, c, e)
		}
		if text != "" {
			out = append(out, Fault{File: CellsFile, Row: key, Text: text})
		}
		return true, b.err
	})
	return out, err
}

// unlikeCell compares the plain columns of a run of a cell with its JSON.
func unlikeCell(b *batch, row int, c *record.Cell, e extent) string {
	ints, texts, err := cellColumns(c, e)
	if err != nil {
		return err.Error()
	}
	for k, name := range cellInts() {
		if got := b.number(name, row); got != ints[k] {
			return fmt.Sprintf("column %s says %d, cell_json %d", name, got, ints[k])
		}
	}
	for k, name := range cellTexts() {
		if _, ok := b.cols[name]; !ok && optional(name) && texts[k] == "" {
			continue
		}
		if got := b.text(name, row); got != texts[k] {
			return fmt.Sprintf("column %s says %.80q, want %.80q", name, got, texts[k])
		}
	}
	return ""
}

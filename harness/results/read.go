package results

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"meibench/harness/record"
	"meibench/internal/units"
)

// Set is a finished run that is being read. Rows come as streams: memory holds a
// batch per stream, however long the run was. Streams may be used side by side.
type Set struct {
	Dir      string
	Manifest Manifest
	runs     []CellRun
	requests *reader
	spans    *reader
	cells    *reader
	files    []*os.File
}

// CellRun is one run of one cell: a row of the table of cells.
type CellRun struct {
	Cell   record.Cell
	Rows   int            // requests
	Values []record.Value // per-run metrics, in the order of the metrics' table; NaN: not known, or not when the folder was written
	at     extent

	younger []string // metrics that the folder does not know
}

// ErrUnfinished says that a run was cut off, or is still going on.
var ErrUnfinished = errors.New("it is not finished")

// Read opens a run folder that Finish has written. A run that was cut off is an
// error that says how to go on.
func Read(dir string) (*Set, error) {
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	if m.Finished == nil {
		return nil, fmt.Errorf("read run %s: %w: go on with it by meibench run --resume --out %s", dir, ErrUnfinished, dir)
	}
	s := &Set{Dir: dir, Manifest: m}
	open := func(name, format string) *reader {
		if err != nil {
			return nil
		}
		var f *os.File
		path := filepath.Join(dir, name)
		if f, err = os.Open(path); err != nil {
			err = diskError("open", path, err)
			return nil
		}
		s.files = append(s.files, f)
		var r *reader
		if r, err = newReader(f, format); err != nil {
			err = fmt.Errorf("read %s: %w", path, err)
		}
		return r
	}
	s.cells = open(CellsFile, CellsFormat)
	s.requests = open(RequestsFile, RequestsFormat)
	s.spans = open(SpansFile, SpansFormat)
	if err == nil {
		if s.runs, err = readCells(s.cells); err != nil {
			err = fmt.Errorf("read %s: %w", filepath.Join(dir, CellsFile), err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes the files.
func (s *Set) Close() (err error) {
	for _, f := range s.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Runs lists the runs of cells, in table order. They are few; the caller may
// change the slice but not what it points to.
func (s *Set) Runs() []CellRun { return append([]CellRun(nil), s.runs...) }

// Rows streams the requests of run i of Runs in order of ID, without spans. The
// request is overwritten by the next. After an error the stream ends.
func (s *Set) Rows(i int) iter.Seq2[*record.Request, error] {
	return func(yield func(*record.Request, error) bool) {
		var r record.Request
		e := s.runs[i].at
		err := s.requests.each(e.FirstRow, e.Rows, func(b *batch, row int) (bool, error) {
			b.request(row, &r)
			r.Brief = s.runs[i].Cell.Brief
			return yield(&r, nil), nil
		})
		if err != nil {
			yield(nil, fmt.Errorf("read %s: %w", filepath.Join(s.Dir, RequestsFile), err))
		}
	}
}

// Spans streams the spans of run i of Runs, in the order of Rows.
func (s *Set) Spans(i int) iter.Seq2[RequestSpan, error] {
	return func(yield func(RequestSpan, error) bool) {
		e := s.runs[i].at
		err := s.spans.each(e.FirstSpan, e.Spans, func(b *batch, row int) (bool, error) {
			id, span, run := b.span(row)
			if run != i {
				return false, fmt.Errorf("span row of run %d where run %d is expected: %w", run, i, errSchema)
			}
			return yield(RequestSpan{id, span}, nil), nil
		})
		if err != nil {
			yield(RequestSpan{}, fmt.Errorf("read %s: %w", filepath.Join(s.Dir, SpansFile), err))
		}
	}
}

// RequestSpan is a span and the request it belongs to.
type RequestSpan struct {
	ID int
	record.Span
}

// Full streams the requests of run i with their spans, as they were recorded.
func (s *Set) Full(i int) iter.Seq2[*record.Request, error] {
	return func(yield func(*record.Request, error) bool) {
		e := s.runs[i].at
		spans := spanCursor{r: s.spans, at: e.FirstSpan, end: e.FirstSpan + e.Spans, run: i}
		for r, err := range s.Rows(i) {
			if err == nil {
				if r.Spans, err = spans.of(r.ID, r.Spans[:0]); err != nil {
					err = fmt.Errorf("read %s: %w", filepath.Join(s.Dir, SpansFile), err)
				}
			}
			if err == nil {
				err = r.Check()
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(r, nil) {
				return
			}
		}
		if spans.at != spans.end {
			yield(nil, fmt.Errorf("read %s: %d spans of no request: %w", filepath.Join(s.Dir, SpansFile), spans.end-spans.at, errSchema))
		}
	}
}

// spanCursor walks the spans of a run beside its requests.
type spanCursor struct {
	r       *reader
	at, end int64
	run     int
	b       *batch
	from    int64 // first row of b
}

// of appends the spans of the request of an ID, which must be asked for in
// order.
func (c *spanCursor) of(id int, out []record.Span) (_ []record.Span, err error) {
	defer safely(&err)
	for ; c.at < c.end; c.at++ {
		if c.b == nil || c.at >= c.from+batchRows {
			if c.at < 0 || c.end > c.r.rows {
				return out, fmt.Errorf("span rows up to %d of %d: %w", c.end, c.r.rows, errSchema)
			}
			if c.b, err = c.r.batch(int(c.at / batchRows)); err != nil {
				return out, err
			}
			if c.b.err != nil {
				return out, c.b.err
			}
			c.from = c.at / batchRows * batchRows
		}
		owner, span, run := c.b.span(int(c.at - c.from))
		if run != c.run {
			return out, fmt.Errorf("span row of run %d where run %d is expected: %w", run, c.run, errSchema)
		}
		if owner != id {
			break
		}
		out = append(out, span)
	}
	return out, nil
}

// Verify recomputes the digests of the folder's files and the per-run metrics
// from the rows, and returns the first difference to what the folder says.
func (s *Set) Verify() error {
	for _, name := range []string{RequestsFile, SpansFile, CellsFile, BenchFile} {
		got, err := DigestFile(filepath.Join(s.Dir, name))
		if err != nil {
			return fmt.Errorf("verify %s: %w", filepath.Join(s.Dir, name), err)
		}
		if want := s.Manifest.Files[name]; got != want {
			return fmt.Errorf("verify %s: it is %d bytes with SHA-256 %s, the manifest says %d and %s: the file was changed after the run", filepath.Join(s.Dir, name), got.Bytes, got.SHA256, want.Bytes, want.SHA256)
		}
	}
	for i := range s.runs {
		run := &s.runs[i]
		sum := record.NewSummary(&run.Cell)
		for r, err := range s.Full(i) {
			if err != nil {
				return err
			}
			sum.Add(r)
		}
		for k, v := range sum.Values() {
			if slices.Contains(run.younger, v.Metric.Name) {
				continue
			}
			if want := run.Values[k].V; v.V != want && (v.V == v.V || want == want) {
				return fmt.Errorf("verify run %s: %s of %s is %g by its rows, the table of cells says %g", s.Dir, v.Metric.Name, KeyOf(&run.Cell), v.V, want)
			}
		}
	}
	return nil
}

func readCells(t *reader) (out []CellRun, err error) {
	metrics := runMetrics()
	err = t.each(0, t.rows, func(b *batch, row int) (bool, error) {
		c := CellRun{at: extent{b.number("first_row", row), b.number("rows", row), b.number("first_span", row), b.number("spans", row)}}
		c.Rows = int(c.at.Rows)
		if b.err != nil {
			return false, b.err
		}
		if err := json.Unmarshal([]byte(b.text("cell_json", row)), &c.Cell); err != nil {
			return false, err
		}
		for _, m := range metrics {
			v := record.Value{Metric: m, V: math.NaN()}
			if _, ok := b.cols[m.Name]; ok { // a metric that is younger than the folder is not known there
				v.V = b.real(m.Name, row)
			} else {
				c.younger = append(c.younger, m.Name)
			}
			c.Values = append(c.Values, v)
		}
		out = append(out, c)
		return true, b.err
	})
	return out, err
}

// batch is one record batch with the columns of requests or spans at hand, by
// their place in the arrays of package codec.
type batch struct {
	rec  arrow.Record
	cols map[string]int
	err  error // a column is missing or of another type

	counts   [7]*array.Int64
	intended *array.Int64
	times    [9]*array.Int64
	sizes    [6]*array.Int64
	joules   [record.NumParts]*array.Float64
	sources  [record.NumParts]*array.Dictionary
	flop     *array.Float64
	quality  *array.Float64
	outcome  *array.Dictionary
	errText  *array.String
	chunkAt  *array.List
	chunkTok *array.List
	atVals   *array.Int64
	tokVals  *array.Int32

	counters [record.NumCounters]*array.Int64 // nil where the run did not use it
	hash     *array.Uint64                    // nil likewise

	run        *array.Int32
	owner      *array.Int64
	kind, node *array.Dictionary
	start, end *array.Int64
}

// col finds a column; where it is missing or of another type it sets b.err and
// returns nil.
func col[T arrow.Array](b *batch, name string) (c T) {
	i, ok := b.cols[name]
	if ok {
		c, ok = b.rec.Column(i).(T)
	}
	if !ok && b.err == nil {
		b.err = missing(name)
	}
	return c
}

func (b *batch) bind() {
	if _, ok := b.cols["intended_ns"]; ok {
		b.bindRequests()
	} else if _, ok := b.cols["start_ns"]; ok {
		b.run, b.owner = col[*array.Int32](b, "run"), col[*array.Int64](b, "id")
		b.kind, b.node = col[*array.Dictionary](b, "kind"), col[*array.Dictionary](b, "node")
		b.start, b.end = col[*array.Int64](b, "start_ns"), col[*array.Int64](b, "end_ns")
	}
}

func (b *batch) bindRequests() {
	for i, name := range countNames() {
		b.counts[i] = col[*array.Int64](b, name)
	}
	b.intended = col[*array.Int64](b, "intended_ns")
	for i, name := range timeNames() {
		b.times[i] = col[*array.Int64](b, name)
	}
	for i, name := range sizeNames() {
		b.sizes[i] = col[*array.Int64](b, name)
	}
	for p := range record.NumParts {
		b.joules[p] = col[*array.Float64](b, "energy_"+p.String())
		b.sources[p] = col[*array.Dictionary](b, "energy_"+p.String()+"_source")
	}
	for c := range record.NumCounters {
		if _, ok := b.cols[c.String()]; ok {
			b.counters[c] = col[*array.Int64](b, c.String())
		}
	}
	if _, ok := b.cols["output_hash"]; ok {
		b.hash = col[*array.Uint64](b, "output_hash")
	}
	b.flop, b.quality = col[*array.Float64](b, "flop"), col[*array.Float64](b, "quality")
	b.outcome, b.errText = col[*array.Dictionary](b, "outcome"), col[*array.String](b, "err")
	b.chunkAt, b.chunkTok = col[*array.List](b, "chunk_at_ns"), col[*array.List](b, "chunk_tokens")
	if b.err != nil {
		return
	}
	var ok, ok2 bool
	b.atVals, ok = b.chunkAt.ListValues().(*array.Int64)
	b.tokVals, ok2 = b.chunkTok.ListValues().(*array.Int32)
	if !ok || !ok2 {
		b.err = missing("chunk_at_ns")
	} else if !slices.Equal(b.chunkAt.Offsets(), b.chunkTok.Offsets()) {
		b.err = fmt.Errorf("chunk_at_ns and chunk_tokens have lists of different lengths: %w", errSchema)
	}
}

// request reads a row into r, keeping the memory of its slices; spans are in
// another table.
func (b *batch) request(row int, r *record.Request) {
	chunks, spans := r.Chunks[:0], r.Spans[:0]
	*r = record.Request{Quality: math.NaN(), Intended: time.Duration(b.intended.Value(row)), Spans: spans}
	for i, c := range counts(r) {
		*c = int(b.counts[i].Value(row))
	}
	for i, t := range times(r) {
		*t = record.Unset
		if b.times[i].IsValid(row) {
			*t = time.Duration(b.times[i].Value(row))
		}
	}
	for i, s := range sizes(r) {
		*s = units.Bytes(b.sizes[i].Value(row))
	}
	for p := range r.Energy {
		r.Energy[p] = b.energy(p, row)
	}
	for c, column := range b.counters {
		if column != nil {
			r.Counts[c] = column.Value(row)
		}
	}
	r.FLOP = units.FLOP(b.flop.Value(row))
	if b.quality.IsValid(row) {
		r.Quality = b.quality.Value(row)
	}
	if b.hash != nil && b.hash.IsValid(row) {
		r.OutputHash = b.hash.Value(row)
	}
	r.Outcome = record.OK + record.Outcome(b.outcome.GetValueIndex(row))
	r.Err = b.errText.Value(row)
	from, to := b.chunkAt.ValueOffsets(row)
	tok, _ := b.chunkTok.ValueOffsets(row)
	for i := from; i < to; i++ {
		chunks = append(chunks, record.Chunk{At: time.Duration(b.atVals.Value(int(i))), Tokens: int(b.tokVals.Value(int(tok + i - from)))})
	}
	r.Chunks = chunks
}

// energy is the inverse of putEnergy.
func (b *batch) energy(p, row int) record.Energy {
	switch {
	case b.sources[p].IsNull(row):
		return record.Energy{}
	case b.joules[p].IsNull(row):
		return record.Energy{Unknown: true}
	}
	return record.Energy{Joules: units.Joules(b.joules[p].Value(row)), Source: uint8(b.sources[p].GetValueIndex(row)) + 1}
}

func (b *batch) span(row int) (id int, s record.Span, run int) {
	node := b.node.Dictionary().(*array.String).Value(b.node.GetValueIndex(row))
	s = record.Span{Kind: record.Compute + record.Kind(b.kind.GetValueIndex(row)), Node: node,
		Start: time.Duration(b.start.Value(row)), End: time.Duration(b.end.Value(row))}
	return int(b.owner.Value(row)), s, int(b.run.Value(row))
}

// number, real and text read a value by name, for tables of few rows.
func (b *batch) number(name string, row int) int64 {
	if c := col[*array.Int64](b, name); c != nil {
		return c.Value(row)
	}
	return 0
}

func (b *batch) real(name string, row int) float64 {
	if c := col[*array.Float64](b, name); c != nil && c.IsValid(row) {
		return c.Value(row)
	}
	return math.NaN()
}

func (b *batch) text(name string, row int) string {
	if c := col[*array.String](b, name); c != nil {
		return c.Value(row)
	}
	return ""
}

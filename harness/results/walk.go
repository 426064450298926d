package results

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
)

// The Arrow library believes the lengths in a file's footer and schema and makes
// slices of them before it looks: one flipped bit can ask for a terabyte, which
// no recover catches. It also reads the same bytes as often as a file says, and
// unpacks what is compressed. So sane walks the FlatBuffers of the footer and of
// every message first: vectors must fit, blocks and buffers must not lie over
// each other, nothing may be compressed. What else is wrong panics, and the
// bounded allocator sees to the rest.

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
	blocks := blocks{f: f, size: size, left: size}
	w.vector(w.slot(footer, 2), blockBytes, func(p int) { blocks.take(&w, p, dictionaryBatch) })
	w.vector(w.slot(footer, 3), blockBytes, func(p int) { blocks.take(&w, p, recordBatch) })
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
	return blocks.err
}

const (
	blockBytes  = 24 // offset, length of the metadata, length of the body
	bufferBytes = 16 // offset, length
	nodeBytes   = 16 // rows, nulls

	dictionaryBatch = 2 // headers of messages
	recordBatch     = 3
)

var (
	errBlock = errors.New("a batch of the file is damaged, compressed, or lies over another")
	errOrder = errors.New("a batch of the file has texts or lists that run backwards")
)

// blocks are the messages of a file. Together they are no longer than the file.
type blocks struct {
	f    io.ReaderAt
	size int64 // of the file
	left int64 // what blocks may still take
	err  error // the first
}

// take checks the message of a block that the footer has at p.
func (b *blocks) take(w *walker, p, kind int) {
	at, meta, body := w.i64(p), int64(w.u32(p+8)), w.i64(p+16)
	if w.bad || b.err != nil {
		return
	}
	b.err = errBlock
	if at < 0 || meta < 16 || meta > 16<<20 || body < 0 || body > b.left-meta || at > b.size-meta-body {
		return
	}
	b.left -= meta + body
	text := make([]byte, meta)
	if _, err := b.f.ReadAt(text, at); err != nil {
		return
	}
	prefix := 4 // of files from before Arrow 0.15
	switch binary.LittleEndian.Uint32(text) {
	case 0:
		prefix = 0
	case 1<<32 - 1:
		prefix = 8
	}
	m := walker{b: text[prefix:]}
	if m.message(kind, body); !m.bad {
		b.err = nil
	}
}

// message checks a message that must be of a kind.
func (w *walker) message(kind int, body int64) {
	root := w.indirect(0)
	if t := w.slot(root, 1); t == 0 || w.bad || int(w.b[t]) != kind {
		w.fail()
		return
	}
	w.keyValues(w.slot(root, 4))
	batch := w.slot(root, 2)
	if batch == 0 {
		w.fail()
		return
	}
	batch = w.indirect(batch)
	if kind == dictionaryBatch {
		if w.slot(batch, 2) != 0 { // more words for a dictionary: a file has each once
			w.fail()
			return
		}
		batch = w.slot(batch, 1)
		if batch == 0 {
			w.fail()
			return
		}
		batch = w.indirect(batch)
	}
	if w.slot(batch, 3) != 0 { // compression
		w.fail()
		return
	}
	w.vector(w.slot(batch, 1), nodeBytes, nil)
	left := body
	w.vector(w.slot(batch, 2), bufferBytes, func(p int) {
		at, n := w.i64(p), w.i64(p+8)
		if at < 0 || n < 0 || n > left || at > body-n {
			w.fail()
			return
		}
		left -= n
	})
	w.vector(w.slot(batch, 4), 8, nil)
}

// ordered refuses offsets of texts and lists that run backwards, so that a small
// file cannot hold the same values many times.
func ordered(rec arrow.Record) bool {
	for _, c := range rec.Columns() {
		if d, ok := c.(*array.Dictionary); ok {
			c = d.Dictionary()
		}
		switch c := c.(type) {
		case *array.List:
			if !slices.IsSorted(c.Offsets()) {
				return false
			}
		case *array.String:
			for i := range c.Len() {
				if c.ValueOffset(i) > c.ValueOffset(i+1) {
					return false
				}
			}
		}
	}
	return true
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

func (w *walker) i64(p int) int64 {
	if w.bad || p < 0 || p > len(w.b)-8 {
		w.fail()
		return 0
	}
	return int64(binary.LittleEndian.Uint64(w.b[p:]))
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

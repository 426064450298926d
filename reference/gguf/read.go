package gguf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"meibench/reference/quant"
)

// Read reads header, metadata and tensor table from a file of size bytes, and checks that all tensor data lies
// inside it. Malformed input is a [*SyntaxError]. One file of a model that is split over several is refused, for the
// others can only be found by name: see [Open].
func Read(r io.ReaderAt, size int64) (*File, error) {
	f, err := readIndex(r, size)
	if err != nil {
		return nil, err
	}
	if n, err := f.splitCount(); err != nil || n > 1 {
		return nil, fmt.Errorf("gguf: read one file of a model in %d files: open the first by its path instead (%w)", n, errors.Join(err, errors.ErrUnsupported))
	}
	return f, nil
}

func readIndex(r io.ReaderAt, size int64) (*File, error) {
	d := &decoder{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<16), size: size}
	f := &File{parts: []part{{r: r, size: size}}, keys: map[string]int{}, tensors: map[string]int{}}
	d.run(f)
	if d.err != nil {
		return nil, d.err
	}
	return f, nil
}

// decoder reads forward. After the first error every read returns zero, so callers check d.err where they loop or
// are about to rely on a value.
type decoder struct {
	r    io.Reader
	off  int64 // bytes consumed
	size int64 // of the file
	key  string
	err  error
	buf  [8]byte

	short [256]byte
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = &SyntaxError{d.off, d.key, fmt.Sprintf(format, args...)}
	}
}

func (d *decoder) left() int64 { return d.size - d.off }

// room reports whether n items of at least each bytes can still follow, without overflow, and fails if not.
func (d *decoder) room(what string, n uint64, each int64) bool {
	if d.err == nil && n > uint64(d.left())/uint64(each) {
		d.fail("%s %d needs at least %d bytes each, but %d bytes are left: the file is truncated or corrupt, fetch it again",
			what, n, each, d.left())
	}
	return d.err == nil
}

// bytes reads exactly n bytes; room was checked.
func (d *decoder) bytes(n uint64) []byte {
	b := make([]byte, n)
	d.fill(b)
	return b
}

func (d *decoder) fill(b []byte) {
	if d.err != nil {
		return
	}
	if int64(len(b)) > d.left() {
		d.fail("%d bytes wanted, %d left: the file is truncated, fetch it again", len(b), d.left())
		return
	}
	n, err := io.ReadFull(d.r, b)
	d.off += int64(n)
	if err != nil {
		d.err = fmt.Errorf("gguf: offset %d: %w", d.off, err)
	}
}

func (d *decoder) u32() uint32 {
	d.fill(d.buf[:4])
	if d.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint32(d.buf[:])
}

func (d *decoder) u64() uint64 {
	d.fill(d.buf[:8])
	if d.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(d.buf[:])
}

func (d *decoder) str(what string, most uint64) string {
	n := d.u64()
	if n > most {
		d.fail("%s of %d bytes, at most %d are allowed", what, n, most)
	}
	if d.err == nil && n > uint64(d.left()) {
		d.room(what+" of length", n, 1)
	}
	if d.err != nil {
		return ""
	}
	if n > uint64(len(d.short)) {
		return string(d.bytes(n))
	}
	d.fill(d.short[:n]) // most strings are tokens: one allocation each
	return string(d.short[:n])
}

func (d *decoder) run(f *File) {
	var head [4]byte
	d.fill(head[:])
	if d.err == nil && string(head[:]) != magic {
		d.fail("starts with %q, not %q: this is not a GGUF file; convert the model first", head[:], magic)
	}
	v := d.u32()
	if d.err == nil && (v < 2 || v > 3) {
		hint := "convert the model with a current tool"
		if w := bits.ReverseBytes32(v); w >= 1 && w <= 3 {
			hint = "it is big endian; convert it to little endian"
		}
		d.fail("version %d, want 2 or 3: %s", v, hint)
	}
	f.Version = int(v)
	tensors, kvs := d.u64(), d.u64()
	d.metadata(f, kvs)
	d.alignment(f)
	relative := d.table(f, tensors)
	d.place(f, relative)
}

// metadata reads n entries: key, type, value.
func (d *decoder) metadata(f *File, n uint64) {
	if !d.room("number of metadata entries", n, 8+1+4+1) {
		return
	}
	for i := range n {
		d.key = fmt.Sprintf("metadata entry %d", i)
		key := d.str("key", maxKeyBytes)
		if d.err == nil && key == "" {
			d.fail("key is empty")
		}
		d.key = key
		v := d.value(d.u32())
		if _, dup := f.keys[key]; d.err == nil && dup {
			d.fail("key appears twice: remove one")
		}
		if d.err != nil {
			return
		}
		f.keys[key] = len(f.KV)
		f.KV = append(f.KV, KV{key, v})
	}
	d.key = ""
}

func (d *decoder) alignment(f *File) {
	f.Alignment = defaultAlignment
	v, ok := f.Get("general.alignment")
	if d.err != nil || !ok {
		return
	}
	a, isU32 := v.(uint32)
	if !isU32 || a == 0 || a&(a-1) != 0 || a > maxAlignment {
		d.key = "general.alignment"
		d.fail("%v (%T), want a uint32 power of two up to %d", v, v, maxAlignment)
		return
	}
	f.Alignment = int(a)
}

// table reads n tensor infos and returns their offsets relative to the data section.
func (d *decoder) table(f *File, n uint64) (relative []uint64) {
	if !d.room("number of tensors", n, 8+1+4+8+4+8) {
		return nil
	}
	for i := range n {
		d.key = fmt.Sprintf("tensor %d", i)
		name := d.str("tensor name", maxNameBytes)
		if d.err == nil && name == "" {
			d.fail("tensor name is empty")
		}
		d.key = name
		t := Tensor{Name: name, Dims: d.dims()}
		t.Type = quant.Type(d.u32())
		offset := d.u64()
		if _, dup := f.tensors[name]; d.err == nil && dup {
			d.fail("tensor name appears twice")
		}
		d.size64(&t)
		if d.err != nil {
			return nil
		}
		f.tensors[name] = len(f.Tensors)
		f.Tensors = append(f.Tensors, t)
		relative = append(relative, offset)
	}
	d.key = ""
	return relative
}

func (d *decoder) dims() []int {
	n := d.u32()
	if d.err == nil && (n == 0 || n > maxDims) {
		d.fail("%d dimensions, want 1 to %d", n, maxDims)
	}
	if d.err != nil {
		return nil
	}
	dims := make([]int, n)
	for i := range dims {
		v := d.u64()
		if d.err == nil && (v == 0 || v > math.MaxInt32) {
			d.fail("dimension %d is %d, want 1 to %d", i, v, math.MaxInt32)
		}
		dims[i] = int(v)
	}
	return dims
}

// size64 computes the byte size of a tensor, checking every product.
func (d *decoder) size64(t *Tensor) {
	if d.err != nil {
		return
	}
	if !t.Type.Known() {
		d.fail("element %v is unknown; requantise the file, for example to Q8_0", t.Type)
		return
	}
	row, err := t.Type.RowBytes(t.Dims[0])
	if err != nil {
		d.fail("row: %v", err)
		return
	}
	total := uint64(row)
	for _, n := range t.Dims[1:] {
		hi, lo := bits.Mul64(total, uint64(n))
		if hi != 0 || lo > uint64(d.size) {
			d.fail("%v %v is larger than the file of %d bytes: the file is truncated or corrupt, fetch it again", t.Type, t.Dims, d.size)
			return
		}
		total = lo
	}
	t.Bytes = int64(min(total, math.MaxInt64))
}

// place turns relative offsets into absolute ones and checks that data is aligned, inside the file and disjoint.
func (d *decoder) place(f *File, relative []uint64) {
	if d.err != nil {
		return
	}
	pad := int64(f.Alignment)
	start := (d.off + pad - 1) / pad * pad
	for i := range f.Tensors {
		t := &f.Tensors[i]
		d.key = t.Name
		end, carry := bits.Add64(relative[i], uint64(t.Bytes), 0)
		switch {
		case relative[i]%uint64(pad) != 0:
			d.fail("data offset %d is not a multiple of the alignment %d", relative[i], pad)
		case carry != 0 || start > d.size || end > uint64(d.size-start):
			d.fail("data of %d bytes at offset %d ends after the file of %d bytes: the file is truncated, fetch it again",
				t.Bytes, relative[i], d.size)
		}
		if d.err != nil {
			return
		}
		t.Offset = start + int64(relative[i])
	}
	byOffset := slices.Clone(f.Tensors)
	slices.SortFunc(byOffset, func(a, b Tensor) int { return int(min(1, max(-1, a.Offset-b.Offset))) })
	for i := range len(byOffset) - 1 {
		if a, b := byOffset[i], byOffset[i+1]; a.Offset+a.Bytes > b.Offset {
			d.key = b.Name
			d.fail("data overlaps that of %q", a.Name)
			return
		}
	}
}

package gguf

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// part is one file of a model: the whole of it, but for models split over several files.
type part struct {
	r      io.ReaderAt
	size   int64
	file   *os.File // nil if the caller owns r
	mapped []byte   // the file's pages, nil where mapping is not available
}

// Open reads the index of a GGUF file and maps its data read-only, so that no weight is read before it is used and
// [File.View] hands it out without a copy. Where the system cannot map, everything works through reads. The first file
// of a split model (NAME-00001-of-00003.gguf) opens them all.
//
// Close the file when no view is used any more. While it is open nobody may shorten the file on disk: a page that has
// gone ends the process with SIGBUS (replacing the file by another, as package managers and meibench do, is safe).
// View looks at the size first, which leaves only a file that shrinks between View and use.
func Open(path string) (*File, error) {
	f, err := openOne(path)
	if err != nil {
		return nil, err
	}
	if err := f.openRest(path); err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

// openOne opens one file and reads its index.
func openOne(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file; copy it to one")
	}
	var f *File
	if err == nil {
		f, err = readIndex(file, info.Size())
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	p := &f.parts[0]
	p.file = file
	if p.size <= math.MaxInt {
		p.mapped, _ = mapFile(file, int(p.size)) // reads stand in for a mapping that fails
	}
	return f, nil
}

// Close ends all views and closes what Open opened. A file from [Read] has nothing to close.
func (f *File) Close() error {
	var all []error
	for i := range f.parts {
		p := &f.parts[i]
		if p.mapped != nil {
			all = append(all, unmapFile(p.mapped))
			p.mapped = nil
		}
		if p.file != nil {
			all = append(all, p.file.Close())
			p.file = nil
		}
	}
	if err := errors.Join(all...); err != nil {
		return fmt.Errorf("gguf: close: %w", err)
	}
	return nil
}

// DataBytes is the size of all tensors, known before any is read: what loading the model as it is stored will take. A
// caller with a memory budget compares it first.
func (f *File) DataBytes() (n int64) {
	for _, t := range f.Tensors {
		n += t.Bytes
	}
	return n
}

// View returns the encoded data of a tensor of this file without a copy, or nil if it is not mapped or the file has been
// shortened. The bytes are read-only (writing to them ends the process) and gone after Close.
func (f *File) View(t Tensor) []byte {
	p, ok := f.partOf(t)
	if !ok || p.mapped == nil {
		return nil
	}
	if info, err := p.file.Stat(); err != nil || info.Size() < t.Offset+t.Bytes {
		return nil
	}
	return p.mapped[t.Offset : t.Offset+t.Bytes : t.Offset+t.Bytes]
}

// Data returns the encoded data of a tensor: a view of it if there is one, else a copy.
func (f *File) Data(t Tensor) ([]byte, error) {
	if b := f.View(t); b != nil {
		return b, nil
	}
	b := make([]byte, t.Bytes)
	return b, f.ReadTensor(b, t)
}

// Release tells the system that a tensor's pages are not needed for now, so that they stop counting as memory of this
// process; a later use reads them again. It is a hint for data that was repacked, and does nothing where the system has
// no such call or the file is not mapped.
func (f *File) Release(t Tensor) {
	p, ok := f.partOf(t)
	if !ok || p.mapped == nil {
		return
	}
	page := int64(os.Getpagesize())
	from := t.Offset / page * page
	to := min((t.Offset+t.Bytes+page-1)/page*page, int64(len(p.mapped)))
	dropPages(p.mapped[from:to])
}

// Reader reads a tensor's encoded data piece by piece.
func (f *File) Reader(t Tensor) *io.SectionReader {
	p, ok := f.partOf(t)
	if !ok {
		return io.NewSectionReader(nowhere{}, 0, 0)
	}
	return io.NewSectionReader(p.r, t.Offset, t.Bytes)
}

// ReadTensor reads the encoded data of a tensor of this file into dst, of exactly t.Bytes bytes.
func (f *File) ReadTensor(dst []byte, t Tensor) error {
	if int64(len(dst)) != t.Bytes {
		return fmt.Errorf("gguf: read tensor %q: %d bytes wanted, buffer has %d", t.Name, t.Bytes, len(dst))
	}
	p, ok := f.partOf(t)
	if !ok {
		return fmt.Errorf("gguf: read tensor %q: it is not of this file", t.Name)
	}
	if n, err := p.r.ReadAt(dst, t.Offset); n < len(dst) {
		return fmt.Errorf("gguf: read tensor %q: %d bytes at offset %d: %w", t.Name, t.Bytes, t.Offset, err)
	}
	return nil
}

// partOf finds the part that holds a tensor, if its data lies inside.
func (f *File) partOf(t Tensor) (*part, bool) {
	if t.Part < 0 || t.Part >= len(f.parts) || t.Offset < 0 || t.Bytes < 0 {
		return nil, false
	}
	p := &f.parts[t.Part]
	return p, t.Offset <= p.size && t.Bytes <= p.size-t.Offset
}

// nowhere is what a tensor of another file is read from.
type nowhere struct{}

func (nowhere) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

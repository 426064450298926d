// Package storage reads weights from a file so that what was read is known: past the page cache, counted, and beside what
// the system says of it.
//
//	_ = storage.Evict(path)                     // drop the file from the page cache
//	in, of, err := storage.Resident(path)       // how many of its bytes the cache still holds: ask, do not assume
//	r, err := storage.Open(path, storage.Direct)
//	buf := storage.NewBuffer(1 << 20)
//	b, err := r.Read(buf, offset, n)            // a view of buf
//	fmt.Println(r.Mode, r.Payload(), r.Moved()) // bytes asked for, and bytes that moved for them
//	use := storage.Used()                       // read_bytes, page faults, memory of this process
//
// The one idea is that a figure about storage is worth what is known of the caches above it. A [Reader] therefore says which
// way it really took, and what a system cannot tell is -1, never 0.
//
// What it does not do: empty caches below this machine. A virtual disk may be cached by its host, and a drive has
// memory of its own: what is measured as storage here is whatever answers below this machine's page cache.
package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
	"unsafe"
)

// Mode is how a file is read.
type Mode int

const (
	// Direct reads around the page cache (O_DIRECT), in whole pages.
	Direct Mode = iota
	// Dropped reads through the page cache and gives the pages back at once (POSIX_FADV_DONTNEED).
	Dropped
	// Cached reads through the page cache, which may hold the file already and will keep it.
	Cached
)

// String names a mode as reports do.
func (m Mode) String() string {
	return [...]string{"direct", "dropped after use", "page cache"}[m]
}

// Align is what offsets, sizes and addresses of direct reads are multiples of.
const Align = 4096

// Unknown is what the system does not tell.
const Unknown = -1

// Buffer is memory at an address that direct reads can use.
type Buffer struct{ data []byte }

// NewBuffer makes a buffer that takes reads of n bytes from any offset.
func NewBuffer(n int) *Buffer {
	raw := make([]byte, n+3*Align)
	skip := 0
	if odd := int(uintptr(unsafe.Pointer(unsafe.SliceData(raw))) % Align); odd > 0 {
		skip = Align - odd
	}
	size := (n+Align-1)/Align*Align + Align
	return &Buffer{raw[skip : skip+size : skip+size]}
}

// Size is the memory that the buffer takes.
func (b *Buffer) Size() int { return len(b.data) }

// Reader reads one file. It may be used by several goroutines, each with its own Buffer.
type Reader struct {
	Mode Mode // the way that is taken: what was asked for, or the next one that the system has
	Size int64

	file           *os.File
	payload, moved atomic.Int64
	reads          atomic.Int64
	nanos          atomic.Int64
}

// Open opens a file for reads in the mode given, or the next weaker one where the system or the file system has none: ask
// Mode what it became.
func Open(path string, want Mode) (*Reader, error) {
	if want < Direct || want > Cached {
		return nil, fmt.Errorf("open %s for reads: mode %d: want storage.Direct, Dropped or Cached", path, int(want))
	}
	r := &Reader{Mode: want}
	var err error
	if want == Direct {
		if r.file, err = openDirect(path); err == nil {
			if _, err = r.file.ReadAt(NewBuffer(Align).data[:Align], 0); errors.Is(err, io.EOF) {
				err = nil
			}
			if err != nil {
				r.file.Close()
			}
		}
		if err != nil {
			r.Mode = Dropped
		}
	}
	if r.Mode == Dropped && !canDrop {
		r.Mode = Cached
	}
	if r.Mode != Direct {
		if r.file, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("open for reads: %w", err)
		}
	}
	info, err := r.file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file; copy it to one")
	}
	if err != nil {
		r.file.Close()
		return nil, fmt.Errorf("open %s for reads: %w", path, err)
	}
	r.Size = info.Size()
	return r, nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }

// Read reads n bytes from an offset and returns them as a view of the buffer, good until its next use.
func (r *Reader) Read(b *Buffer, off int64, n int) ([]byte, error) {
	if off < 0 || n < 0 || off > r.Size-int64(n) {
		return nil, fmt.Errorf("read %d bytes at offset %d of %s: the file has %d", n, off, r.file.Name(), r.Size)
	}
	if n == 0 {
		return nil, nil
	}
	from, to := off, off+int64(n)
	if r.Mode == Direct {
		from, to = off/Align*Align, (to+Align-1)/Align*Align
	}
	if to-from > int64(len(b.data)) {
		return nil, fmt.Errorf("read %d bytes at offset %d of %s: the buffer takes %d", n, off, r.file.Name(), len(b.data)-Align)
	}
	began := time.Now()
	got, err := r.file.ReadAt(b.data[:to-from], from)
	if from+int64(got) < off+int64(n) {
		return nil, fmt.Errorf("read %d bytes at offset %d of %s: %w", n, off, r.file.Name(), err)
	}
	if r.Mode == Dropped {
		drop(r.file, from/Align*Align, (to+Align-1)/Align*Align-from/Align*Align)
	}
	r.nanos.Add(int64(time.Since(began)))
	r.payload.Add(int64(n))
	r.moved.Add(int64(got))
	r.reads.Add(1)
	return b.data[off-from:][:n], nil
}

// ReadAt is [io.ReaderAt] with a buffer of its own per call, for indexes and other small things.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	const most = 1 << 20
	b := NewBuffer(min(len(p), most))
	for done := 0; done < len(p); {
		n := int(min(int64(min(len(p)-done, most)), r.Size-off-int64(done)))
		if n <= 0 {
			return done, io.EOF
		}
		got, err := r.Read(b, off+int64(done), n)
		if err != nil {
			return done, err
		}
		done += copy(p[done:], got)
	}
	return len(p), nil
}

// Payload is the number of bytes asked for so far.
func (r *Reader) Payload() int64 { return r.payload.Load() }

// Moved is the number of bytes that reads returned for them: whole pages in mode Direct.
func (r *Reader) Moved() int64 { return r.moved.Load() }

// Reads is the number of reads.
func (r *Reader) Reads() int64 { return r.reads.Load() }

// Time is the time spent in reads, summed over goroutines.
func (r *Reader) Time() time.Duration { return time.Duration(r.nanos.Load()) }

// Bandwidth reads the whole file in order, 1 MiB at a time, and returns bytes per second and the mode that was had. In mode
// Cached it is the speed of the page cache.
func Bandwidth(path string, want Mode) (perSec float64, got Mode, err error) {
	r, err := Open(path, want)
	if err != nil {
		return 0, want, err
	}
	defer r.Close()
	const chunk = 1 << 20
	b := NewBuffer(chunk)
	began := time.Now()
	for off := int64(0); off < r.Size; off += chunk {
		if _, err := r.Read(b, off, int(min(chunk, r.Size-off))); err != nil {
			return 0, r.Mode, fmt.Errorf("measure storage: %w", err)
		}
	}
	return float64(r.Size) / max(time.Since(began).Seconds(), 1e-9), r.Mode, nil
}

// Usage is what the system says of this process. Fields that it does not tell are Unknown.
type Usage struct {
	ReadBytes    int64 // fetched from storage so far (read_bytes of /proc/self/io)
	Minor, Major int64 // page faults so far; a major one waited for storage
	Resident     int64 // bytes in memory now
	Peak         int64 // most bytes in memory since [ResetPeak], or the start of the process
}

// Minus is what was added since an earlier reading; Resident and Peak stay as they are.
func (u Usage) Minus(before Usage) Usage {
	sub := func(a, b int64) int64 {
		if a == Unknown || b == Unknown {
			return Unknown
		}
		return a - b
	}
	return Usage{sub(u.ReadBytes, before.ReadBytes), sub(u.Minor, before.Minor), sub(u.Major, before.Major), u.Resident, u.Peak}
}

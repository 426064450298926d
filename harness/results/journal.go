package results

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"meibench/harness/record"
)

// The journal is a magic word and then frames, each
//
//	length  uint32  bytes of the payload, > 0
//	crc     uint32  CRC-32C of the payload
//	payload         a tag, the number of a block, and what the tag says
//
// A block is one run of one cell: a begin frame with the cell, rows frames, an
// end frame with the cell as it became. Blocks may interleave. Frames are only
// appended, so a crash can do no worse than leave a torn one at the end.
const (
	magic     = "meibjrn1"
	tagBegin  = 'B'
	tagRows   = 'R'
	tagEnd    = 'E'
	headBytes = 8
	maxFrame  = 64 << 20
	maxNodes  = 1 << 16 // names in one frame
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// file is what the journal and the tables need of an *os.File.
type file interface {
	io.ReaderAt
	io.Writer
	io.Seeker
	Sync() error
	Truncate(size int64) error
	Close() error
}

// frame says where rows are and which, so that finishing can merge them by ID
// without reading them all at once.
type frame struct {
	off      int64 // of the payload
	len      uint32
	count    int
	min, max int // request IDs
}

// block is one run of one cell in the journal.
type block struct {
	cell   record.Cell
	frames []frame
	rows   int
	nodes  []string // every span's node, sorted; known when done
	used   uint64   // mask of the counters that are not zero throughout, and hashUsed; known when done
	done   bool

	from func(each func(*record.Request) error) error // gives the rows of a block that is in no journal
}

// ending is what an end frame says.
type ending struct {
	Cell  record.Cell
	Rows  int
	Nodes []string
	Used  uint64 // mask of counters
}

// journal is an open journal file and the index of what it holds.
type journal struct {
	f      file
	path   string
	size   int64 // of what is known to be whole
	blocks map[uint64]*block
	next   uint64
}

func seal(payload []byte) (head [headBytes]byte) {
	binary.LittleEndian.PutUint32(head[:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(payload, castagnoli))
	return head
}

// append writes one frame in one call and returns where its payload went. buf
// starts with headBytes of room. A failed write is cut off again; if that fails
// too, the next reader does it.
func (j *journal) append(buf []byte) (off int64, err error) {
	head := seal(buf[headBytes:])
	copy(buf, head[:])
	n, err := j.f.Write(buf)
	if err == nil && n < len(buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		if j.f.Truncate(j.size) == nil {
			_, _ = j.f.Seek(j.size, io.SeekStart)
		}
		return 0, diskError("write the run's journal", j.path, err)
	}
	off = j.size + headBytes
	j.size += int64(len(buf))
	return off, nil
}

// start writes the magic word to an empty journal.
func (j *journal) start() error {
	if _, err := j.f.Write([]byte(magic)); err != nil {
		return diskError("start the run's journal", j.path, err)
	}
	j.size = int64(len(magic))
	return nil
}

// load reads the journal of a file of a given size and leaves it ready for
// appending: what a crash tore off at the end is cut. It returns the number of
// bytes that were cut.
func (j *journal) load(total int64) (torn int64, err error) {
	j.blocks = map[uint64]*block{}
	word := make([]byte, min(int64(len(magic)), total))
	if _, err := j.f.ReadAt(word, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, diskError("read the run's journal", j.path, err)
	}
	if string(word) != magic[:len(word)] {
		return 0, fmt.Errorf("read the run's journal %s: it starts with %q, not %q: the file is no journal of this version", j.path, word, magic)
	}
	if total >= int64(len(magic)) {
		if err := j.scan(total); err != nil {
			return 0, err
		}
	}
	if torn = total - j.size; torn > 0 {
		if err := j.f.Truncate(j.size); err != nil {
			return 0, diskError("cut the torn end of the run's journal", j.path, err)
		}
	}
	if _, err := j.f.Seek(j.size, io.SeekStart); err != nil {
		return 0, diskError("read the run's journal", j.path, err)
	}
	if j.size == 0 {
		return torn, j.start()
	}
	return torn, nil
}

// scan indexes frames until the first that is not whole. If a whole frame
// follows that one, it was not torn but damaged, and cutting it off would lose
// what was complete: that is an error.
func (j *journal) scan(total int64) error {
	r := bufio.NewReaderSize(io.NewSectionReader(j.f, 0, total), 1<<18)
	pos := int64(len(magic))
	if _, err := r.Discard(len(magic)); err != nil {
		return diskError("read the run's journal", j.path, err)
	}
	var buf []byte
	for {
		j.size = pos
		var payload []byte
		var err error
		if payload, buf, err = readFrame(r, total-pos, buf); err != nil {
			if err == errTorn {
				return nil
			}
			if errors.Is(err, errDamaged) && !followed(r, total-pos-headBytes-int64(len(buf)), buf) {
				return nil
			}
			return fmt.Errorf("read the run's journal %s at byte %d: %w", j.path, pos, err)
		}
		if err := j.index(pos+headBytes, payload); err != nil {
			return fmt.Errorf("read the run's journal %s at byte %d: %w", j.path, pos, err)
		}
		pos += headBytes + int64(len(payload))
	}
}

var (
	errTorn    = errors.New("torn")
	errDamaged = errors.New("checksum is wrong though whole frames follow: the file was damaged, not torn. Restore it from a copy, or start the run anew")
)

// readFrame reads the next frame of at most left bytes into buf.
func readFrame(r io.Reader, left int64, buf []byte) (payload, grown []byte, err error) {
	var head [headBytes]byte
	if left < headBytes {
		return nil, buf[:0], errTorn
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, buf[:0], err
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n == 0 || n > maxFrame || n > left-headBytes {
		return nil, buf[:0], errTorn
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, buf, err
	}
	if crc32.Checksum(buf, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, buf, errDamaged
	}
	return buf, buf, nil
}

// followed reports whether a whole frame comes next.
func followed(r io.Reader, left int64, buf []byte) bool {
	_, _, err := readFrame(r, left, buf)
	return err == nil
}

// index takes one frame into account.
func (j *journal) index(off int64, payload []byte) error {
	d := decoder{b: payload[1:]}
	id := d.uvarint()
	b := j.blocks[id]
	switch tag := payload[0]; {
	case d.bad:
		return errFrame
	case tag == tagBegin:
		if b != nil {
			return fmt.Errorf("block %d begins twice: %w", id, errFrame)
		}
		b = &block{}
		if err := json.Unmarshal(d.b, &b.cell); err != nil {
			return fmt.Errorf("block %d: %w", id, err)
		}
		j.blocks[id] = b
		j.next = max(j.next, id+1)
	case b == nil || b.done:
		return fmt.Errorf("block %d is not open: %w", id, errFrame)
	case tag == tagRows:
		h, _ := rowsHead(&d)
		if d.bad || h.count == 0 {
			return errFrame
		}
		h.off, h.len = off, uint32(len(payload))
		b.frames = append(b.frames, h)
		b.rows += h.count
	case tag == tagEnd:
		var e ending
		if err := json.Unmarshal(d.b, &e); err != nil {
			return fmt.Errorf("block %d: %w", id, err)
		}
		if e.Rows != b.rows {
			return fmt.Errorf("block %d ends with %d rows, its frames hold %d: %w", id, e.Rows, b.rows, errFrame)
		}
		b.cell, b.nodes, b.used, b.done = e.Cell, e.Nodes, e.Used, true
	default:
		return fmt.Errorf("tag %q: %w", tag, errFrame)
	}
	return nil
}

// rowsHead reads what precedes the rows of a frame, after the block's number.
func rowsHead(d *decoder) (h frame, nodes []string) {
	h.count = int(d.uvarint())
	h.min, h.max = int(d.varint()), int(d.varint())
	n := d.count(1)
	if n > maxNodes {
		d.fail()
	}
	for range min(n, maxNodes) {
		nodes = append(nodes, d.text())
	}
	if h.count < 0 || h.count > len(d.b) || h.min > h.max {
		d.fail()
	}
	return h, nodes
}

// diskError says what was attempted where, and what to do about it.
func diskError(what, path string, err error) error {
	fix := "what was recorded so far is intact: once the cause is gone, go on with --resume"
	switch {
	case errors.Is(err, errNoSpace):
		fix = "free space on that volume, then go on with --resume: what was recorded so far is intact"
	case errors.Is(err, os.ErrPermission) || errors.Is(err, errReadOnly):
		fix = "the folder must be writable: change its permissions, or choose another with --out"
	}
	return fmt.Errorf("%s %s: %w (%s)", what, path, err, fix)
}

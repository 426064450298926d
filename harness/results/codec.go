package results

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"meibench/harness/record"
	"meibench/internal/units"
)

// The fields of a request that the journal and the tables treat alike, by
// address, so that writing and reading cannot disagree about their order.

func times(r *record.Request) [9]*time.Duration {
	return [...]*time.Duration{&r.Released, &r.Sent, &r.FirstByte, &r.FirstChunk, &r.FirstToken, &r.FirstAnswerToken, &r.LastToken, &r.Done, &r.Deadline}
}

func counts(r *record.Request) [7]*int {
	return [...]*int{&r.ID, &r.User, &r.Session, &r.Turn, &r.PromptTokens, &r.AskedTokens, &r.OutputTokens}
}

func sizes(r *record.Request) [6]*units.Bytes {
	return [...]*units.Bytes{&r.SensorBytes, &r.UpBytes, &r.DownBytes, &r.RawBytesOut, &r.DerivedBytesOut, &r.PeakBytes}
}

// hashUsed marks a block with rows that know the hash of their answer, above the
// mask of counters.
const hashUsed = 1 << 63

// maxErrBytes cuts the text of a request's error: a server that answers each
// request with a page of HTML must not fill the disk with it.
const maxErrBytes = 1024

func clean(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// names numbers the strings of a frame in order of their first use.
type names struct {
	list []string
	at   map[string]int
	last int // index of the last one asked for: spans repeat nodes
}

func (n *names) index(s string) int {
	if n.last < len(n.list) && n.list[n.last] == s {
		return n.last
	}
	i, ok := n.at[s]
	if !ok {
		i = len(n.list)
		n.list = append(n.list, s)
		n.at[s] = i
	}
	n.last = i
	return i
}

func (n *names) reset() {
	n.list, n.last = n.list[:0], 0
	clear(n.at)
}

// appendRow writes a request. Times are differences to the one before, so most
// take two to five bytes; absent events cost one bit.
func appendRow(b []byte, r *record.Request, nodes *names) []byte {
	for _, c := range counts(r) {
		b = binary.AppendVarint(b, int64(*c))
	}
	b = binary.AppendVarint(b, int64(r.Intended))
	mask, at := uint16(0), times(r)
	for i, t := range at {
		if *t != record.Unset {
			mask |= 1 << i
		}
	}
	if !math.IsNaN(r.Quality) {
		mask |= 1 << len(at)
	}
	if r.OutputHash != 0 {
		mask |= 1 << (len(at) + 1)
	}
	if r.Brief {
		mask |= 1 << (len(at) + 2)
	}
	b = binary.LittleEndian.AppendUint16(b, mask)
	prev := r.Intended
	for _, t := range at {
		if *t != record.Unset {
			b = binary.AppendVarint(b, int64(*t-prev))
			prev = *t
		}
	}
	for _, s := range sizes(r) {
		b = binary.AppendVarint(b, int64(*s))
	}
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(r.FLOP)))
	if !math.IsNaN(r.Quality) {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(r.Quality))
	}
	if r.OutputHash != 0 {
		b = binary.LittleEndian.AppendUint64(b, r.OutputHash)
	}
	b = append(b, byte(r.Outcome))
	b = appendString(b, clean(r.Err, maxErrBytes))
	b = appendEnergy(b, &r.Energy)
	b = appendCounts(b, &r.Counts)
	return appendParts(b, r, nodes)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

const unknownBit = 0x80

func appendEnergy(b []byte, e *[record.NumParts]record.Energy) []byte {
	for i := range e {
		tag := e[i].Source &^ unknownBit
		if e[i].Unknown {
			tag |= unknownBit
		}
		b = append(b, tag)
		if tag != 0 {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(e[i].Joules)))
		}
	}
	return b
}

// appendCounts writes the counters that are not zero, behind a mask of which.
func appendCounts(b []byte, counts *[record.NumCounters]int64) []byte {
	mask := uint64(0)
	for c, n := range counts {
		if n != 0 {
			mask |= 1 << c
		}
	}
	b = binary.AppendUvarint(b, mask)
	for _, n := range counts {
		if n != 0 {
			b = binary.AppendVarint(b, n)
		}
	}
	return b
}

func appendParts(b []byte, r *record.Request, nodes *names) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.Chunks)))
	prev := r.Intended
	for _, c := range r.Chunks {
		b = binary.AppendVarint(b, int64(c.At-prev))
		b = binary.AppendVarint(b, int64(c.Tokens))
		prev = c.At
	}
	b = binary.AppendUvarint(b, uint64(len(r.Spans)))
	prev = r.Intended
	for i := range r.Spans {
		s := &r.Spans[i]
		b = append(b, byte(s.Kind))
		b = binary.AppendUvarint(b, uint64(nodes.index(s.Node)))
		b = binary.AppendVarint(b, int64(s.Start-prev))
		b = binary.AppendVarint(b, int64(s.End-s.Start))
		prev = s.End
	}
	return b
}

var errFrame = errors.New("frame is not what its checksum promised: written by another version of meibench?")

// decoder reads from a frame. After the first thing that does not fit, bad is
// set and everything reads as zero. It never allocates more than a small
// multiple of the frame's own size.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count is a number of items that take at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return make([]byte, min(n, 8))
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) float() float64 { return math.Float64frombits(binary.LittleEndian.Uint64(d.take(8))) }

func (d *decoder) text() string {
	n := d.count(1)
	return string(d.take(n))
}

// row reads a request into r, keeping the memory of r's slices. Node names are
// those of the frame.
func (d *decoder) row(r *record.Request, nodes []string) {
	chunks, spans := r.Chunks[:0], r.Spans[:0]
	*r = record.Request{Quality: math.NaN()}
	for _, c := range counts(r) {
		*c = int(d.varint())
	}
	r.Intended = time.Duration(d.varint())
	mask, at := binary.LittleEndian.Uint16(d.take(2)), times(r)
	prev := r.Intended
	for i, t := range at {
		*t = record.Unset
		if mask&(1<<i) != 0 {
			*t = prev + time.Duration(d.varint())
			prev = *t
		}
	}
	r.Brief = mask&(1<<(len(at)+2)) != 0
	for _, s := range sizes(r) {
		*s = units.Bytes(d.varint())
	}
	r.FLOP = units.FLOP(d.float())
	if mask&(1<<len(at)) != 0 {
		r.Quality = d.float()
	}
	if mask&(1<<(len(at)+1)) != 0 {
		r.OutputHash = binary.LittleEndian.Uint64(d.take(8))
	}
	r.Outcome = record.Outcome(d.take(1)[0])
	if n := d.count(1); n > 0 {
		r.Err = string(d.take(n))
	}
	for i := range r.Energy {
		if tag := d.take(1)[0]; tag != 0 {
			r.Energy[i] = record.Energy{Joules: units.Joules(d.float()), Source: tag &^ unknownBit, Unknown: tag&unknownBit != 0}
		}
	}
	if mask := d.uvarint(); mask != 0 {
		if mask >= 1<<record.NumCounters {
			d.fail()
		}
		for c := range r.Counts {
			if mask&(1<<c) != 0 {
				r.Counts[c] = d.varint()
			}
		}
	}
	r.Chunks, r.Spans = d.chunks(chunks, r.Intended), d.spans(spans, r.Intended, nodes)
}

func (d *decoder) chunks(out []record.Chunk, prev time.Duration) []record.Chunk {
	for range d.count(2) {
		prev += time.Duration(d.varint())
		out = append(out, record.Chunk{At: prev, Tokens: int(d.varint())})
	}
	return out
}

func (d *decoder) spans(out []record.Span, prev time.Duration, nodes []string) []record.Span {
	for range d.count(4) {
		kind, node := record.Kind(d.take(1)[0]), d.uvarint()
		if node >= uint64(len(nodes)) {
			d.fail()
			return out
		}
		start := prev + time.Duration(d.varint())
		prev = start + time.Duration(d.varint())
		out = append(out, record.Span{Kind: kind, Node: nodes[node], Start: start, End: prev})
	}
	return out
}

// merge calls each with every request of a block in order of ID. Frames are
// sorted runs; one is read when its lowest ID comes up, so memory holds as many
// frames as overlap: one or two where rows came nearly in order.
func merge(f io.ReaderAt, b *block, each func(*record.Request) error) error {
	waiting := slices.Clone(b.frames)
	slices.SortStableFunc(waiting, func(a, b frame) int { return cmp.Compare(a.min, b.min) })
	var open cursors
	var spare []*cursor
	last, any := 0, false
	for len(waiting) > 0 || len(open) > 0 {
		for len(waiting) > 0 && (len(open) == 0 || waiting[0].min <= open[0].row.ID) {
			c := &cursor{}
			if n := len(spare); n > 0 {
				c, spare = spare[n-1], spare[:n-1]
			}
			if err := c.load(f, waiting[0]); err != nil {
				return err
			}
			heap.Push(&open, c)
			waiting = waiting[1:]
		}
		c := open[0]
		if any && c.row.ID <= last {
			return fmt.Errorf("%s: request %d was recorded twice: IDs must be unique within a run of a cell", KeyOf(&b.cell), c.row.ID)
		}
		last, any = c.row.ID, true
		if err := each(&c.row); err != nil {
			return err
		}
		switch more, err := c.next(); {
		case err != nil:
			return err
		case more:
			heap.Fix(&open, 0)
		default:
			spare = append(spare, heap.Pop(&open).(*cursor))
		}
	}
	return nil
}

// cursor reads the rows of a frame one by one.
type cursor struct {
	buf   []byte
	d     decoder
	nodes []string
	left  int
	row   record.Request
}

// load reads a frame and its first row.
func (c *cursor) load(f io.ReaderAt, h frame) error {
	if cap(c.buf) < int(h.len) {
		c.buf = make([]byte, h.len)
	}
	c.buf = c.buf[:h.len]
	if _, err := f.ReadAt(c.buf, h.off); err != nil {
		return fmt.Errorf("read rows from the run's journal at byte %d: %w", h.off, err)
	}
	c.d = decoder{b: c.buf[1:]}
	c.d.uvarint()
	var again frame
	again, c.nodes = rowsHead(&c.d)
	if c.d.bad || again.count != h.count {
		return errFrame
	}
	c.left = h.count
	_, err := c.next()
	return err
}

// next reads the next row; false at the end.
func (c *cursor) next() (bool, error) {
	if c.left == 0 {
		if len(c.d.b) > 0 {
			return false, errFrame
		}
		return false, nil
	}
	c.left--
	c.d.row(&c.row, c.nodes)
	if c.d.bad {
		return false, errFrame
	}
	if err := c.row.Check(); err != nil {
		return false, fmt.Errorf("%w (%w)", err, errFrame)
	}
	return true, nil
}

// cursors is a heap of open frames by the ID of their next row.
type cursors []*cursor

func (h cursors) Len() int           { return len(h) }
func (h cursors) Less(i, j int) bool { return h[i].row.ID < h[j].row.ID }
func (h cursors) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *cursors) Push(x any)        { *h = append(*h, x.(*cursor)) }
func (h *cursors) Pop() any {
	old := *h
	c := old[len(old)-1]
	*h = old[:len(old)-1]
	return c
}

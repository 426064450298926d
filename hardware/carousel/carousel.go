// Package carousel sends an object to many receivers at once, over UDP multicast, with repair symbols.
//
//	sum := sha256.Sum256(data)
//	go carousel.Receive(ctx, conn, sum, carousel.Limits{})       // each receiver, on its own socket of the group
//	sent, err := carousel.Send(ctx, out, group, data, carousel.Options{Repair: 0.25})
//
// As in FLUTE (RFC 6726) over a block erasure code (RFC 5510): the object is cut into source blocks of symbols, every source
// block gets repair symbols by Reed-Solomon (klauspost/reedsolomon), and any so many symbols of a block as it had at first give it
// back, whichever came. Nobody acknowledges. The rounds of the carousel serve who came late.
//
// A packet names its object by SHA-256 and carries a checksum, so that what was damaged or belongs elsewhere is dropped; the object is
// used only when its own SHA-256 is right. That tells accidents and strangers from the object; it does not tell who sent it. What a
// receiver still lacks when the carousel ends it must get otherwise: Missing says which ranges.
package carousel

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net"
	"time"

	"github.com/klauspost/reedsolomon"
)

// Symbol sizes: a packet is a header and a symbol, and fits an Ethernet frame.
const (
	symbol  = 1400
	source  = 64 // symbols of a source block at most
	header  = 4 + 16 + 8 + 4 + 1 + 1 + 1 + 4
	magic   = 0x6d656931 // "mei1"
	mostObj = 1 << 32
)

// Options say how an object is sent.
type Options struct {
	Repair float64       // repair symbols for each source symbol, 0 to 2
	Rounds int           // times that everything is sent; 1 if 0
	Rate   float64       // bytes per second; 0 = as quickly as the socket takes
	Pause  time.Duration // between rounds
}

// Sent is what went out.
type Sent struct {
	Packets int
	Bytes   int64 // with headers of the packets
}

// layout is how an object is cut.
type layout struct {
	bytes  int64
	blocks int
}

func layoutOf(n int64) layout {
	each := int64(symbol * source)
	return layout{n, int((n + each - 1) / each)}
}

// symbols of source block b.
func (l layout) symbols(b int) int {
	left := l.bytes - int64(b)*symbol*source
	return int(min(source, (left+symbol-1)/symbol))
}

// Send sends an object to an address over a socket.
func Send(ctx context.Context, conn net.PacketConn, to net.Addr, data []byte, o Options) (s Sent, err error) {
	if len(data) == 0 || len(data) > mostObj || !(o.Repair >= 0 && o.Repair <= 2) || o.Rounds < 0 || o.Rate < 0 {
		return s, fmt.Errorf("send by carousel: %d bytes, repair %g, %d rounds, rate %g: want bytes, a repair share of 0 to 2, and no negative rounds or rate", len(data), o.Repair, o.Rounds, o.Rate)
	}
	sum := sha256.Sum256(data)
	l := layoutOf(int64(len(data)))
	began := time.Now()
	packet := make([]byte, header+symbol)
	for round := range max(1, o.Rounds) {
		if round > 0 && o.Pause > 0 {
			time.Sleep(o.Pause)
		}
		for b := range l.blocks {
			k := l.symbols(b)
			r := int(math.Ceil(o.Repair * float64(k)))
			shards, err := encode(data, l, b, r)
			if err != nil {
				return s, err
			}
			for i, x := range shards {
				if err := ctx.Err(); err != nil {
					return s, err
				}
				head(packet, sum[:16], uint64(len(data)), [4]int{b, k, r, i})
				copy(packet[header:], x)
				binary.BigEndian.PutUint32(packet[header-4:], check(packet))
				if _, err := conn.WriteTo(packet, to); err != nil {
					return s, fmt.Errorf("send by carousel: %w", err)
				}
				s.Packets++
				s.Bytes += int64(len(packet))
				if o.Rate > 0 {
					time.Sleep(time.Duration(float64(s.Bytes)/o.Rate*1e9) - time.Since(began))
				}
			}
		}
	}
	return s, nil
}

// encode cuts a source block into symbols, the last padded with zeros, and adds repair symbols.
func encode(data []byte, l layout, b, repair int) ([][]byte, error) {
	k := l.symbols(b)
	shards := make([][]byte, k+repair)
	for i := range shards {
		shards[i] = make([]byte, symbol)
		if at := (b*source + i) * symbol; i < k {
			copy(shards[i], data[at:min(len(data), at+symbol)])
		}
	}
	if repair == 0 {
		return shards, nil
	}
	enc, err := reedsolomon.New(k, repair)
	if err != nil {
		return nil, fmt.Errorf("repair symbols of block %d: %w", b, err)
	}
	return shards, enc.Encode(shards)
}

// head writes a header: object, its length, source block, symbols of it, repair symbols, number of this one.
func head(p, object []byte, n uint64, at [4]int) {
	binary.BigEndian.PutUint32(p, magic)
	copy(p[4:], object)
	binary.BigEndian.PutUint64(p[20:], n)
	binary.BigEndian.PutUint32(p[28:], uint32(at[0]))
	p[32], p[33], p[34] = byte(at[1]), byte(at[2]), byte(at[3])
}

// check is the checksum of a packet without its own place.
func check(p []byte) uint32 {
	return crc32.Update(crc32.Checksum(p[:header-4], table), table, p[header:])
}

var table = crc32.MakeTable(crc32.Castagnoli)

// packet is one that was understood.
type packet struct {
	bytes        int64
	block        int
	k, r, number int
	data         []byte
}

// errForeign says that a packet is damaged, or of another object.
var errForeign = errors.New("not a packet of this object")

// parse reads a packet of an object.
func parse(p []byte, object []byte) (packet, error) {
	if len(p) != header+symbol || binary.BigEndian.Uint32(p) != magic || string(p[4:20]) != string(object) || binary.BigEndian.Uint32(p[header-4:]) != check(p) {
		return packet{}, errForeign
	}
	n := binary.BigEndian.Uint64(p[20:])
	if n == 0 || n > mostObj {
		return packet{}, errForeign
	}
	l := layoutOf(int64(n))
	x := packet{bytes: int64(n), block: int(binary.BigEndian.Uint32(p[28:])), k: int(p[32]), r: int(p[33]), number: int(p[34]), data: p[header:]}
	if x.block >= l.blocks || x.k != l.symbols(x.block) || x.number >= x.k+x.r || x.k+x.r > 256 {
		return packet{}, errForeign
	}
	return x, nil
}

// Limits bound what a receiver takes.
type Limits struct {
	Bytes int64         // largest object; 64 MiB if 0
	Idle  time.Duration // give up after so long without a packet; 2 s if 0
	Drop  func(n int) bool
}

// Received is what came of an object.
type Received struct {
	Data     []byte // nil unless whole and right
	Partial  []byte // if the carousel ended before it was whole: what came in its place, zero where Missing says
	Packets  int    // of this object, used or not
	Dropped  int    // by Limits.Drop
	Foreign  int    // damaged, or of another object
	Repaired int    // symbols that were worked out
	Missing  [][2]int64
}

// Receive takes an object with this SHA-256 from a socket, until it is whole, the context ends, or nothing comes any more. Then
// Missing has the ranges [from, to) that are lacking, and the error says so.
func Receive(ctx context.Context, conn net.PacketConn, sum [32]byte, lim Limits) (*Received, error) {
	r := &receiver{sum: sum, lim: lim}
	if r.lim.Bytes == 0 {
		r.lim.Bytes = 64 << 20
	}
	if r.lim.Idle == 0 {
		r.lim.Idle = 2 * time.Second
	}
	buf := make([]byte, header+symbol+1)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return r.end(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(r.lim.Idle)); err != nil {
			return r.end(err)
		}
		got, _, err := conn.ReadFrom(buf)
		if err != nil {
			return r.end(err)
		}
		if lim.Drop != nil && lim.Drop(n) {
			r.out.Dropped++
			continue
		}
		whole, err := r.take(buf[:got])
		if whole || err != nil {
			return &r.out, err
		}
	}
}

// receiver puts an object together.
type receiver struct {
	sum  [32]byte
	lim  Limits
	out  Received
	l    layout
	data []byte
	have []map[int][]byte // by source block: symbols; nil when it is whole
	done []bool
	left int
}

// take uses one packet, and says whether the object is whole.
func (r *receiver) take(p []byte) (bool, error) {
	x, err := parse(p, r.sum[:16])
	if err != nil || r.data != nil && x.bytes != r.l.bytes {
		r.out.Foreign++
		return false, nil
	}
	if r.data == nil {
		if x.bytes > r.lim.Bytes {
			return false, fmt.Errorf("receive by carousel: an object of %d bytes, at most %d are taken", x.bytes, r.lim.Bytes)
		}
		r.l = layoutOf(x.bytes)
		r.data, r.have, r.done, r.left = make([]byte, x.bytes), make([]map[int][]byte, r.l.blocks), make([]bool, r.l.blocks), r.l.blocks
	}
	r.out.Packets++
	if r.done[x.block] {
		return false, nil
	}
	if r.have[x.block] == nil {
		r.have[x.block] = map[int][]byte{}
	}
	if r.have[x.block][x.number] == nil {
		r.have[x.block][x.number] = append([]byte(nil), x.data...)
	}
	if len(r.have[x.block]) < x.k {
		return false, nil
	}
	if err := r.finish(x); err != nil {
		return false, err
	}
	if r.left > 0 {
		return false, nil
	}
	if sha256.Sum256(r.data) != r.sum {
		return false, errors.New("receive by carousel: every symbol came and the SHA-256 is not that of the object: refused")
	}
	r.out.Data = r.data
	return true, nil
}

// finish works out a source block that has enough symbols.
func (r *receiver) finish(x packet) error {
	shards := make([][]byte, x.k+x.r)
	for i, s := range r.have[x.block] {
		if i < len(shards) {
			shards[i] = s
		}
	}
	lacking := 0
	for _, s := range shards[:x.k] {
		if s == nil {
			lacking++
		}
	}
	if lacking > 0 {
		enc, err := reedsolomon.New(x.k, x.r)
		if err != nil {
			return err
		}
		if err := enc.ReconstructData(shards); err != nil {
			return fmt.Errorf("source block %d: %w", x.block, err)
		}
	}
	for i, s := range shards[:x.k] {
		if at := (x.block*source + i) * symbol; at < len(r.data) {
			copy(r.data[at:], s)
		}
	}
	r.out.Repaired += lacking
	r.have[x.block], r.done[x.block] = nil, true
	r.left--
	return nil
}

// end is what a receiver has when no more comes.
func (r *receiver) end(why error) (*Received, error) {
	if r.data == nil {
		return &r.out, fmt.Errorf("receive by carousel: nothing came of the object: %w", why)
	}
	r.out.Partial = r.data
	for b := range r.done {
		for i := 0; !r.done[b] && i < r.l.symbols(b); i++ { // symbols that came stand for themselves
			from := (int64(b)*source + int64(i)) * symbol
			to := min(r.l.bytes, from+symbol)
			if s := r.have[b][i]; s != nil {
				copy(r.data[from:to], s)
			} else if n := len(r.out.Missing); n > 0 && r.out.Missing[n-1][1] == from {
				r.out.Missing[n-1][1] = to
			} else {
				r.out.Missing = append(r.out.Missing, [2]int64{from, to})
			}
		}
	}
	return &r.out, fmt.Errorf("receive by carousel: %d of %d source blocks are lacking, get the missing ranges otherwise: %w", r.left, r.l.blocks, why)
}

package endpoint

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"meibench/internal/units"
)

// framing is how a reply's body ends.
type framing uint8

const (
	empty   framing = iota
	sized           // Content-Length
	chunked         // Transfer-Encoding: chunked
	toEnd           // when the connection closes
)

// conn is a connection that carries one request at a time: HTTP/1.1 as far as
// an answer needs it. One Read of the socket per arrival, then a stamp.
type conn struct {
	reply
	pool *pool
	nc   net.Conn
	sock *socket // reads and writes nc
	ev   events
	out  []byte
	buf  []byte
	r, w int

	q        *query
	stop     func() bool // ends the watch on the query's context
	stamp    time.Duration
	got      int64
	limit    time.Duration // of the whole exchange, on the query's clock
	deadline time.Duration // the one that is set; 0 = none
	patience time.Duration // how long a read may wait
	cut      bool          // the deadline is the limit's

	form    framing
	left    int64 // bytes of the body, or of its present chunk, still to come
	inChunk bool  // chunked: at least one chunk was begun
	over    bool  // the body has ended
	keep    bool  // the connection may be used again
	header  int   // bytes of head and trailer so far
}

// begin prepares for an exchange.
func (n *conn) begin(q *query, stop func() bool) {
	n.q, n.stop = q, stop
	n.reply = reply{source: n}
	n.r, n.w, n.got, n.header = 0, 0, 0, 0
	n.form, n.left, n.inChunk, n.over, n.keep = empty, 0, false, false, true
	n.deadline, n.cut = 0, false
}

// alive looks, without waiting, whether the server has closed an idle
// connection or sent what nobody asked for. A request on such a connection would
// fail through no fault of the answer's.
func (n *conn) alive() bool {
	n.nc.SetDeadline(time.Time{})
	return n.sock.quiet(n.buf[:1])
}

// send writes the request in one piece.
func (n *conn) send() error {
	cfg := &n.pool.c.cfg
	n.out = n.pool.appendHead(n.out[:0], n.q)
	n.out = append(n.out, n.q.body...)
	n.start = n.q.now()
	n.stamp = n.start
	n.limit = n.start + cfg.Total
	n.patience = cfg.FirstByte
	if err := n.await(); err != nil {
		return err
	}
	n.sent = units.Bytes(len(n.out))
	// A server may refuse, and close, before it has read all: what it says
	// counts, so a failed write is looked into by reading.
	if _, err := n.sock.Write(n.out); err != nil {
		if n.fill() == nil {
			return nil
		}
		return n.failure(err, "send the request")
	}
	return nil
}

// await sets the deadline of the next read or write. A deadline that is at most
// an eighth of the patience early is left as it is: to move it costs more than a
// short read.
func (n *conn) await() error {
	want := n.stamp + n.patience
	n.cut = want >= n.limit
	want = min(want, n.limit)
	if n.deadline == 0 || n.deadline > want || want-n.deadline > n.patience/8 {
		n.deadline = want
		if err := n.nc.SetDeadline(time.Now().Add(want - n.stamp)); err != nil {
			return n.failure(err, "set a deadline")
		}
	}
	if n.q.ctx.Err() != nil { // after the deadline is set: nobody resets it behind the watch
		return n.failure(nil, "wait")
	}
	return nil
}

// fill reads from the socket once and stamps.
func (n *conn) fill() error {
	if n.r == n.w {
		n.r, n.w = 0, 0
	} else if n.w == len(n.buf) {
		n.w = copy(n.buf, n.buf[n.r:n.w])
		n.r = 0
	}
	if err := n.await(); err != nil {
		return err
	}
	k, err := n.sock.Read(n.buf[n.w:])
	if k > 0 {
		n.stamp = n.q.now()
		n.w += k
		n.got += int64(k)
		return nil
	}
	if err == nil || err == io.EOF {
		return io.EOF
	}
	doing := "wait for the first byte"
	if n.got > 0 {
		doing = fmt.Sprintf("read on after %d bytes", n.got)
	}
	return n.failure(err, doing)
}

// line reads a line of the head, of a chunk's size or of a trailer.
func (n *conn) line(what string) ([]byte, error) {
	from := 0
	for {
		if k := bytes.IndexByte(n.buf[n.r+from:n.w], '\n'); k >= 0 {
			line := n.buf[n.r : n.r+from+k]
			n.r += from + k + 1
			n.header += len(line) + 1
			if n.header > MaxHeader {
				return nil, fmt.Errorf("%w: %s of more than %d bytes", ErrTooLarge, what, MaxHeader)
			}
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		from = n.w - n.r
		if n.r == 0 && n.w == len(n.buf) {
			if len(n.buf) >= MaxHeader {
				return nil, fmt.Errorf("%w: a line of the %s of more than %d bytes", ErrTooLarge, what, MaxHeader)
			}
			n.buf = append(n.buf, make([]byte, len(n.buf))...)
		}
		if err := n.fill(); err == io.EOF {
			return nil, n.failure(io.EOF, "read the "+what)
		} else if err != nil {
			return nil, err
		}
	}
}

// readHead reads status line and fields, past interim replies.
func (n *conn) readHead() error {
	for range 5 {
		if err := n.readStatus(); err != nil {
			return err
		}
		if err := n.readFields(); err != nil {
			return err
		}
		if n.status/100 != 1 {
			n.patience = n.pool.c.cfg.Idle
			return nil
		}
	}
	return fmt.Errorf("%w: one interim reply after the other", ErrHTTP)
}

func (n *conn) readStatus() error {
	line, err := n.line("status line")
	if err != nil {
		return err
	}
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1."))
	if !ok || len(rest) < 5 || rest[1] != ' ' || len(rest) > 5 && rest[5] != ' ' {
		return fmt.Errorf("%w: status line %q", ErrHTTP, excerpt(line))
	}
	if n.status, err = strconv.Atoi(string(rest[2:5])); err != nil || n.status < 100 {
		return fmt.Errorf("%w: status line %q", ErrHTTP, excerpt(line))
	}
	n.keep = rest[0] == '1'
	return nil
}

func (n *conn) readFields() error {
	length, coding := "", ""
	for {
		line, err := n.line("header")
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") {
			return fmt.Errorf("%w: header line %q", ErrHTTP, excerpt(line))
		}
		value = bytes.TrimSpace(value)
		switch { // by length first: most fields are none of these
		case len(name) == 12 && is(name, "content-type"):
			n.contentType = n.known(value)
		case len(name) == 14 && is(name, "content-length"):
			if length != "" && length != string(value) {
				return fmt.Errorf("%w: two lengths, %s and %s", ErrHTTP, excerpt([]byte(length)), excerpt(value))
			}
			length = string(value)
		case len(name) == 16 && is(name, "content-encoding"):
			n.encoding = string(value)
		case len(name) == 17 && is(name, "transfer-encoding"):
			coding += n.known(value)
		case len(name) == 10 && is(name, "connection"):
			n.keep = n.keep && !is(value, "close")
		case len(name) == 11 && is(name, "retry-after"):
			n.retryAfter = string(value)
		case len(name) == 6 && is(name, "server"):
			n.server = excerpt(value)
		}
	}
	return n.frame(length, coding)
}

// known is a string for a value without making one, for the commonest.
func (n *conn) known(value []byte) string {
	switch string(value) {
	case "chunked":
		return "chunked"
	case "text/event-stream":
		return "text/event-stream"
	case "text/event-stream; charset=utf-8":
		return "text/event-stream"
	}
	return string(value)
}

func is(name []byte, lower string) bool { return strings.EqualFold(string(name), lower) }

// frame decides how the body ends (RFC 9112, section 6.3).
func (n *conn) frame(length, coding string) error {
	switch {
	case n.status/100 == 1 || n.status == 204 || n.status == 304:
		n.form, n.over = empty, n.status/100 != 1
	case coding != "":
		if !strings.EqualFold(coding, "chunked") {
			return fmt.Errorf("%w: transfer encoding %q", ErrHTTP, excerpt([]byte(coding)))
		}
		n.form, n.left = chunked, 0
		n.keep = n.keep && length == ""
	case length != "":
		size, err := strconv.ParseUint(length, 10, 62)
		if err != nil {
			return fmt.Errorf("%w: content length %q", ErrHTTP, excerpt([]byte(length)))
		}
		n.form, n.left = sized, int64(size)
		n.over = size == 0
	default:
		n.form, n.left, n.keep = toEnd, math.MaxInt64, false
	}
	return nil
}

// Read gives the body without its framing.
func (n *conn) Read(p []byte) (int, error) {
	if n.form == chunked && n.left == 0 && !n.over {
		if err := n.nextChunk(); err != nil {
			return 0, err
		}
	}
	if n.over {
		return 0, io.EOF
	}
	if n.r == n.w {
		if err := n.fill(); err == io.EOF {
			if n.form == toEnd {
				n.over = true
				return 0, io.EOF
			}
			return 0, n.failure(io.EOF, fmt.Sprintf("read on after %d bytes", n.got))
		} else if err != nil {
			return 0, err
		}
	}
	k := copy(p, n.buf[n.r:n.r+int(min(int64(n.w-n.r), n.left))])
	n.r += k
	n.left -= int64(k)
	n.over = n.form == sized && n.left == 0
	return k, nil
}

// nextChunk reads the line before a chunk, and after the last the trailer.
func (n *conn) nextChunk() error {
	n.header = 0
	if n.inChunk {
		if line, err := n.line("end of a chunk"); err != nil {
			return err
		} else if len(line) > 0 {
			return fmt.Errorf("%w: a chunk is longer than it says, it goes on with %q", ErrHTTP, excerpt(line))
		}
	}
	line, err := n.line("size of a chunk")
	if err != nil {
		return err
	}
	digits, _, _ := bytes.Cut(line, []byte(";"))
	size, err := hexSize(bytes.TrimRight(digits, " \t"))
	if err != nil {
		return err
	}
	n.left, n.inChunk = size, true
	for size == 0 {
		line, err := n.line("trailer")
		if err != nil {
			return err
		}
		if len(line) == 0 {
			n.over = true
			return nil
		}
	}
	return nil
}

func hexSize(b []byte) (size int64, err error) {
	ok := len(b) > 0 && len(b) <= 12
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			ok = false
		}
		size = size<<4 | int64(c&15)
	}
	if !ok {
		return 0, fmt.Errorf("%w: size of a chunk %q", ErrHTTP, excerpt(b))
	}
	return size, nil
}

func (n *conn) last() time.Duration { return n.stamp }
func (n *conn) events() *events     { return &n.ev }

// done ends the exchange. What follows the last event (the end of the chunked
// encoding, mostly) is read so that the connection can be used again; a server
// that does not come to an end soon loses it.
func (n *conn) done(reuse bool) (received units.Bytes) {
	const soon = 250 * time.Millisecond
	if reuse && n.keep && !n.over {
		at := n.stamp // draining moves no stamp that counts
		n.patience, n.limit = soon, n.stamp+soon
		n.deadline = 0
		var rest [512]byte
		for range 4 {
			if _, err := n.Read(rest[:]); err != nil {
				break
			}
		}
		n.stamp = at
	}
	watched := n.stop()
	n.q = nil
	received = units.Bytes(n.got)
	if !watched || !reuse || !n.keep || !n.over || n.r != n.w {
		n.nc.Close()
		return received
	}
	n.pool.put(n)
	return received
}

package endpoint

import (
	"bytes"
	"fmt"
	"io"
)

// events cuts a byte stream into server-sent events (HTML Living Standard,
// section 9.2.6). Lines end with LF, CR LF or CR; an event that the end of the
// stream cuts off is not one.
type events struct {
	src    io.Reader
	buf    []byte
	r, w   int // unread bytes are buf[r:w]
	seen   int // bytes of the unfinished line that hold no line end
	skipLF bool
	begun  bool   // the byte order mark is behind us
	joined []byte // data of the event
	total  int    // bytes read
	err    error  // what ended the stream, after what is buffered
}

func (e *events) reset(src io.Reader) {
	if e.buf == nil {
		e.buf = make([]byte, 4<<10)
	}
	*e = events{src: src, buf: e.buf, joined: e.joined[:0]}
}

// next returns the data of the next event that has any; io.EOF at the end. The
// slice is valid until the next call.
func (e *events) next() ([]byte, error) {
	e.joined = e.joined[:0]
	for lines := 0; ; {
		line, err := e.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if len(e.joined) > 0 {
				return e.joined, nil
			}
			lines = 0
			continue
		}
		value, ok := field(line)
		if !ok {
			continue
		}
		if len(value)+len(e.joined) >= MaxEvent {
			return nil, fmt.Errorf("%w: an event of more than %d bytes", ErrTooLarge, MaxEvent)
		}
		if lines++; lines > 1 {
			e.joined = append(e.joined, '\n')
		}
		// A copy: the end of the event may be in a later read, which moves the buffer.
		e.joined = append(e.joined, value...)
	}
}

// field returns the value of a data field; all others say nothing to us.
func field(line []byte) (value []byte, ok bool) {
	value, ok = bytes.CutPrefix(line, []byte("data"))
	switch {
	case !ok:
		return nil, false
	case len(value) == 0:
		return value, true
	case value[0] != ':':
		return nil, false
	}
	value = value[1:]
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	return value, true
}

// line returns the next line without its end.
func (e *events) line() ([]byte, error) {
	for {
		if !e.begun && (e.w-e.r >= 3 || e.err != nil) {
			e.begun = true
			if bytes.HasPrefix(e.buf[e.r:e.w], []byte("\xEF\xBB\xBF")) {
				e.r, e.seen = e.r+3, 0
			}
		}
		if e.skipLF && e.r < e.w {
			e.skipLF = false
			if e.buf[e.r] == '\n' {
				e.r, e.seen = e.r+1, 0
			}
		}
		if e.begun {
			if n := lineEnd(e.buf[e.r+e.seen : e.w]); n >= 0 {
				end := e.r + e.seen + n
				line := e.buf[e.r:end]
				e.skipLF = e.buf[end] == '\r'
				e.r, e.seen = end+1, 0
				return line, nil
			}
			e.seen = e.w - e.r
		}
		if e.err != nil {
			return nil, e.err
		}
		if err := e.fill(); err != nil {
			return nil, err
		}
	}
}

// lineEnd is the place of the first LF or CR, or -1.
func lineEnd(b []byte) int {
	n := bytes.IndexByte(b, '\n')
	if n >= 0 {
		b = b[:n]
	}
	if cr := bytes.IndexByte(b, '\r'); cr >= 0 {
		return cr
	}
	return n
}

// fill reads once. What ends the stream is kept until the buffer is used up.
func (e *events) fill() error {
	switch {
	case e.r == e.w:
		e.r, e.w = 0, 0
	case e.w == len(e.buf) && e.r > 0:
		e.w = copy(e.buf, e.buf[e.r:e.w])
		e.r = 0
	case e.w == len(e.buf):
		if len(e.buf) > MaxEvent {
			return fmt.Errorf("%w: a line of more than %d bytes", ErrTooLarge, MaxEvent)
		}
		e.buf = append(e.buf, make([]byte, len(e.buf))...)
	}
	n, err := e.src.Read(e.buf[e.w:])
	e.w += n
	if e.total += n; e.total > MaxBody {
		return fmt.Errorf("%w: a stream of more than %d bytes", ErrTooLarge, MaxBody)
	}
	e.err = err
	return nil
}

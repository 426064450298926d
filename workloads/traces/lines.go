package traces

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// ParseError says where a file is not what its format says, and what to do.
type ParseError struct {
	File         string
	Line, Column int    // from 1; column in bytes
	Problem, Fix string // Fix may be empty
	Text         string // the offending part of the line
}

// Error is file:line:column: problem: fix, then the offending text.
func (e *ParseError) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Problem)
	if e.Fix != "" {
		s += ": " + e.Fix
	}
	if e.Text != "" {
		s += "\n\t" + strconv.Quote(e.Text)
	}
	return s
}

// Bounds of what is read.
const (
	maxLine      = 1 << 20         // bytes of a line: 130,000 prefix blocks
	maxToken     = 1 << 30         // tokens, images
	defaultRows  = 20_000_000      // the largest public trace has 10.3 million
	defaultBytes = int64(8) << 30  // uncompressed
	bombGrace    = int64(64) << 20 // below this, no ratio is suspicious
	bombRatio    = 200             // text compresses to a tenth, numbers to a fifth
)

// lines reads a file line by line and knows where it is.
type lines struct {
	file   string
	r      *bufio.Reader
	number int // of the current line, from 1
	text   []byte
	buf    []byte
	left   int64 // uncompressed bytes still allowed
	max    int64
}

// newLines starts reading; gzip is recognised by its magic number.
func newLines(r io.Reader, file string, maxBytes int64) (*lines, error) {
	if maxBytes == 0 {
		maxBytes = defaultBytes
	}
	packed := &counting{r: r}
	br := bufio.NewReaderSize(packed, 64<<10)
	if magic, _ := br.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("%s: read gzip header: %w: fetch the file again", file, err)
		}
		br = bufio.NewReaderSize(&guard{z: z, packed: packed, file: file}, 64<<10)
	}
	return &lines{file: file, r: br, left: maxBytes, max: maxBytes}, nil
}

// each calls read at every line that is not blank.
func (l *lines) each(read func() error) error {
	for {
		more, err := l.next()
		if err != nil || !more {
			return err
		}
		if len(bytes.TrimSpace(l.text)) == 0 {
			continue
		}
		if err := read(); err != nil {
			return err
		}
	}
}

// next moves to the next line, without its line ending; false at the end.
func (l *lines) next() (bool, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		l.left -= int64(len(part))
		if l.left < 0 {
			return false, fmt.Errorf("%s: more than %d bytes uncompressed: raise Options.MaxBytes if that is meant", l.file, l.max)
		}
		l.buf = append(l.buf, part...)
		if len(l.buf) > maxLine {
			l.number++
			return false, l.fail(1, fmt.Sprintf("line is longer than %d bytes", maxLine), "is this a text file of one request a line?")
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil && err != io.EOF {
			return false, fmt.Errorf("%s: after line %d: %w", l.file, l.number, err)
		}
		if err == io.EOF && len(l.buf) == 0 {
			return false, nil
		}
		l.number++
		l.text = bytes.TrimSuffix(bytes.TrimSuffix(l.buf, []byte("\n")), []byte("\r"))
		if !utf8.Valid(l.text) {
			return false, l.fail(1, "line is not UTF-8 text", "is this file compressed or binary? gzip is read, zip, zstd and parquet are not")
		}
		return true, nil
	}
}

// fail is an error at a column of the current line.
func (l *lines) fail(column int, problem, fix string) *ParseError {
	from := min(max(column-1, 0), len(l.text))
	to := min(from+60, len(l.text))
	return &ParseError{File: l.file, Line: l.number, Column: column, Problem: problem, Fix: fix, Text: string(l.text[from:to])}
}

// cell is a field of a CSV line. The formats read here quote nothing.
type cell struct {
	text   string
	column int
}

// cells cuts the line at commas into exactly the named fields.
func (l *lines) cells(into []cell, names []string) ([]cell, error) {
	into = into[:0]
	text, column := string(l.text), 1
	for {
		part, rest, more := strings.Cut(text, ",")
		if strings.Contains(part, `"`) {
			return nil, l.fail(column, "quoted field", "this format has no quotes; remove them")
		}
		into = append(into, cell{part, column})
		if !more {
			break
		}
		column += len(part) + 1
		text = rest
	}
	if len(into) != len(names) {
		return nil, l.fail(1, fmt.Sprintf("%d fields, want %d", len(into), len(names)), "fields are "+strings.Join(names, ","))
	}
	return into, nil
}

// count reads a whole number from 0 to maxToken.
func (l *lines) count(c cell, name string) (int32, error) {
	n, err := strconv.ParseInt(c.text, 10, 64)
	switch {
	case err != nil:
		return 0, l.fail(c.column, fmt.Sprintf("%s: want a whole number, got %q", name, clip(c.text)), "")
	case n < 0:
		return 0, l.fail(c.column, fmt.Sprintf("%s: want >= 0, got %d", name, n), "remove or repair the line")
	case n > maxToken:
		return 0, l.fail(c.column, fmt.Sprintf("%s: want at most %d, got %d", name, maxToken, n), "remove or repair the line")
	}
	return int32(n), nil
}

// number reads a finite number >= 0.
func (l *lines) float(c cell, name string) (float64, error) {
	x, err := strconv.ParseFloat(c.text, 64)
	if err != nil || !(x >= 0) || x > 1e300 {
		return 0, l.fail(c.column, fmt.Sprintf("%s: want a finite number >= 0, got %q", name, clip(c.text)), "")
	}
	return x, nil
}

// time reads a decimal number of units, exactly, as nanoseconds.
func (l *lines) time(c cell, name string, unit time.Duration) (time.Duration, error) {
	d, ok := decimal(c.text, unit)
	if !ok || d > maxTime {
		return 0, l.fail(c.column, fmt.Sprintf("%s: want a number of %s from 0 to a century, got %q", name, unitName(unit), clip(c.text)), "")
	}
	return d, nil
}

func unitName(unit time.Duration) string {
	if unit == time.Millisecond {
		return "milliseconds"
	}
	return "seconds"
}

// decimal reads digits with an optional fraction, exactly; text with an
// exponent goes through a float.
func decimal(s string, unit time.Duration) (time.Duration, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	if strings.ContainsAny(s, "eE") {
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || !(x >= 0) || x*unit.Seconds() > maxTime.Seconds() {
			return 0, false
		}
		return time.Duration(x * float64(unit)), true
	}
	if whole == "" || len(whole) > 15 {
		return 0, false
	}
	n, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || n > uint64(maxTime/unit) {
		return 0, false
	}
	d, step := time.Duration(n)*unit, unit
	for _, c := range frac {
		if c < '0' || c > '9' {
			return 0, false
		}
		step /= 10
		d += time.Duration(c-'0') * step
	}
	return d, len(s) == len(whole) || frac != ""
}

// clip shortens text for an error.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// counting counts the bytes read from a file.
type counting struct {
	r io.Reader
	n int64
}

// Read reads and counts.
func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// guard refuses gzip files that grow beyond reason.
type guard struct {
	z      *gzip.Reader
	packed *counting
	out    int64
	file   string
}

// Read unpacks.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.z.Read(p)
	g.out += int64(n)
	if g.out > bombGrace && g.out > bombRatio*g.packed.n {
		return 0, fmt.Errorf("%s: unpacks to more than %d times its size: not a trace; unpack it yourself if it is", g.file, bombRatio)
	}
	return n, err
}

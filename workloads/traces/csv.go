package traces

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Headers of the CSV formats.
const (
	azureText    = "TIMESTAMP,ContextTokens,GeneratedTokens"
	azureImages  = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens"
	canonicalCSV = "t_s,prompt_tokens,output_tokens,images,user,session,turn,type,blocks"
)

func isAzure(first string) bool     { return first == azureText || first == azureImages }
func isBurstGPT(first string) bool  { return strings.HasPrefix(first, "Timestamp,") }
func isCanonical(first string) bool { return strings.HasPrefix(first, canonicalMark) }

// azure reads the Azure LLM inference traces.
type azure struct {
	names []string
	cells []cell
	start time.Time
}

func (p *azure) row(l *lines, _ *Trace, r *Row) (bool, error) {
	if p.names == nil {
		if head := string(l.text); !isAzure(head) {
			return false, l.fail(1, "not the header of an Azure trace", "want "+azureText+" or "+azureImages)
		}
		p.names = strings.Split(string(l.text), ",")
		return false, nil
	}
	cells, err := l.cells(p.cells, p.names)
	if err != nil {
		return false, err
	}
	p.cells = cells
	at, err := p.stamp(l, cells[0])
	if err != nil {
		return false, err
	}
	if p.start.IsZero() {
		p.start = at
	}
	// Times before the first row are negative here and refused, or sorted, later.
	if gap := at.Sub(p.start); gap > -maxTime && gap < maxTime {
		r.At = gap
	} else {
		return false, l.fail(1, "more than a century from the first request", "repair the time")
	}
	if len(cells) == 4 {
		if r.Images, err = l.count(cells[1], "NumImages"); err != nil {
			return false, err
		}
	}
	if r.Prompt, err = l.count(cells[len(cells)-2], "ContextTokens"); err != nil {
		return false, err
	}
	r.Output, err = l.count(cells[len(cells)-1], "GeneratedTokens")
	return err == nil, err
}

// stamp reads 2023-11-16 18:17:03.9799600, with or without a zone.
func (p *azure) stamp(l *lines, c cell) (time.Time, error) {
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00", time.RFC3339} {
		if at, err := time.Parse(layout, c.text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, l.fail(c.column, fmt.Sprintf("TIMESTAMP: want a time like 2023-11-16 18:17:03.9799600, got %q", clip(c.text)), "")
}

// burstGPT reads the BurstGPT traces. Columns are found by name: releases
// differ.
type burstGPT struct {
	names                                    []string
	cells                                    []cell
	at, session, model, prompt, output, kind int
	sessions                                 numbering
	turns                                    []int32
}

func newBurstGPT() *burstGPT { return &burstGPT{sessions: numbering{}} }

// burstColumns are the columns that BurstGPT has had.
var burstColumns = [...]string{"Elapsed time", "Log Type", "Model", "Request tokens", "Response tokens", "Session ID", "Timestamp", "Total tokens"}

func (p *burstGPT) header(l *lines) error {
	column := 1
	for _, name := range strings.Split(string(l.text), ",") {
		if !slices.Contains(burstColumns[:], name) || slices.Contains(p.names, name) {
			return l.fail(column, fmt.Sprintf("unknown or repeated column %q", clip(name)), "columns of BurstGPT are "+strings.Join(burstColumns[:], ", "))
		}
		p.names = append(p.names, name)
		column += len(name) + 1
	}
	find := func(name string) int { return slices.Index(p.names, name) }
	p.at, p.session, p.model, p.kind = find("Timestamp"), find("Session ID"), find("Model"), find("Log Type")
	p.prompt, p.output = find("Request tokens"), find("Response tokens")
	if p.at < 0 || p.prompt < 0 || p.output < 0 {
		return l.fail(1, "header lacks a column", "want Timestamp, Request tokens and Response tokens")
	}
	return nil
}

func (p *burstGPT) row(l *lines, t *Trace, r *Row) (bool, error) {
	if p.names == nil {
		return false, p.header(l)
	}
	cells, err := l.cells(p.cells, p.names)
	if err != nil {
		return false, err
	}
	p.cells = cells
	if r.At, err = l.time(cells[p.at], "Timestamp", time.Second); err != nil {
		return false, err
	}
	if r.Prompt, err = l.count(cells[p.prompt], "Request tokens"); err != nil {
		return false, err
	}
	if r.Output, err = l.count(cells[p.output], "Response tokens"); err != nil {
		return false, err
	}
	if r.Output > 0 && p.session >= 0 && cells[p.session].text != "" { // an API call has none
		r.Session = p.sessions.of(cells[p.session].text)
		if int(r.Session) == len(p.turns) {
			p.turns = append(p.turns, 0)
		}
		r.Turn = p.turns[r.Session]
		p.turns[r.Session]++
	}
	kind := p.kind
	if kind < 0 {
		kind = p.model
	}
	if kind >= 0 && cells[kind].text != "" {
		r.Type, err = t.typeOf(l, cells[kind])
	}
	return err == nil, err
}

// canonicalMark begins the first line of our own form; JSON follows.
const canonicalMark = "# meibench-trace "

// preamble is the first line of our own form.
type preamble struct {
	Version     int      `json:"version"`
	Name        string   `json:"name"`
	Format      string   `json:"format"` // as imported
	BlockTokens int      `json:"block_tokens,omitempty"`
	Factor      float64  `json:"factor"`
	Skipped     int      `json:"skipped,omitempty"`
	Notes       []string `json:"notes,omitempty"`
}

// WriteCSV writes the trace in one form, whatever it was read from: a line of
// JSON about the trace, a header, a line for each request with its time in
// seconds to the nanosecond. Reading it back gives an equal trace.
func (t *Trace) WriteCSV(w io.Writer) error {
	head, err := json.Marshal(preamble{1, t.Name, t.Format, t.BlockTokens, t.Factor, t.Skipped, t.Notes})
	if err != nil {
		return fmt.Errorf("write trace %q: %w", t.Name, err)
	}
	out := &stickyWriter{w: w}
	out.write(append(append([]byte(canonicalMark), head...), "\n"+canonicalCSV+"\n"...))
	var b []byte
	for i, r := range t.Rows {
		b = fmt.Appendf(b[:0], "%d.%09d,%d,%d,%d,%d,%d,%d,", r.At/time.Second, r.At%time.Second, r.Prompt, r.Output, r.Images, r.User, r.Session, r.Turn)
		if r.Type >= 0 {
			b = append(b, t.Types[r.Type]...)
		}
		b = append(b, ',')
		for k, id := range t.Blocks(i) {
			if k > 0 {
				b = append(b, ' ')
			}
			b = strconv.AppendInt(b, id, 10)
		}
		out.write(append(b, '\n'))
	}
	return out.flush(t.Name)
}

// stickyWriter gathers writes and remembers the first error.
type stickyWriter struct {
	w   io.Writer
	buf []byte
	err error
}

func (s *stickyWriter) write(p []byte) {
	if s.buf = append(s.buf, p...); len(s.buf) > 1<<16 && s.err == nil {
		_, s.err = s.w.Write(s.buf)
		s.buf = s.buf[:0]
	}
}

func (s *stickyWriter) flush(name string) error {
	if s.err == nil {
		_, s.err = s.w.Write(s.buf)
	}
	if s.err != nil {
		return fmt.Errorf("write trace %q: %w", name, s.err)
	}
	return nil
}

// canonical reads what WriteCSV writes.
type canonical struct {
	names []string
	cells []cell
	seen  bool
}

func (p *canonical) row(l *lines, t *Trace, r *Row) (bool, error) {
	switch {
	case !p.seen:
		p.seen = true
		return false, p.preamble(l, t)
	case p.names == nil:
		if string(l.text) != canonicalCSV {
			return false, l.fail(1, "not the header of a meibench trace", "want "+canonicalCSV)
		}
		p.names = strings.Split(canonicalCSV, ",")
		return false, nil
	}
	cells, err := l.cells(p.cells, p.names)
	if err != nil {
		return false, err
	}
	p.cells = cells
	if r.At, err = l.time(cells[0], "t_s", time.Second); err != nil {
		return false, err
	}
	for i, to := range []*int32{&r.Prompt, &r.Output, &r.Images, &r.User, &r.Session, &r.Turn} {
		c := cells[i+1]
		if c.text == "-1" && (to == &r.User || to == &r.Session) {
			continue
		}
		if *to, err = l.count(c, p.names[i+1]); err != nil {
			return false, err
		}
	}
	if c := cells[7]; c.text != "" {
		if r.Type, err = t.typeOf(l, c); err != nil {
			return false, err
		}
	}
	return true, p.blocks(l, t, cells[8])
}

func (p *canonical) blocks(l *lines, t *Trace, c cell) error {
	for rest, column := c.text, c.column; rest != ""; {
		id, more, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil {
			return l.fail(column, fmt.Sprintf("blocks: want whole numbers with one space between them, got %q", clip(id)), "")
		}
		t.arena = append(t.arena, n)
		column += len(id) + 1
		rest = more
	}
	return nil
}

func (p *canonical) preamble(l *lines, t *Trace) error {
	text, ok := strings.CutPrefix(string(l.text), canonicalMark)
	if !ok {
		return l.fail(1, "not a meibench trace", "its first line starts with "+canonicalMark)
	}
	var head preamble
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&head); err != nil {
		return l.fail(len(canonicalMark)+1, "first line: "+err.Error(), "want JSON with version, name, format and factor")
	}
	switch {
	case head.Version != 1:
		return l.fail(len(canonicalMark)+1, fmt.Sprintf("version %d of the form", head.Version), "this program reads version 1")
	case !(head.Factor > 0) || head.BlockTokens < 0 || head.Skipped < 0:
		return l.fail(len(canonicalMark)+1, "factor, block_tokens or skipped out of range", "want factor > 0 and the others >= 0")
	}
	t.Name, t.Format, t.BlockTokens, t.Factor = head.Name, head.Format, head.BlockTokens, head.Factor
	t.Skipped, t.Notes = head.Skipped, head.Notes
	return nil
}

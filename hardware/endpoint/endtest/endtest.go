// Package endtest is a server with known delays: a system under test of which
// everything is known, to test clients with. It speaks OpenAI's streaming
// protocol by a script, byte for byte, and can do on purpose what servers do by
// accident (Faults).
//
//	s, err := endtest.Start(endtest.Script{First: 250 * time.Millisecond,
//		Gaps: []time.Duration{100 * time.Millisecond, 50 * time.Millisecond}})
//	defer s.Close()
//	// ask s.URL; what came when must be what the script says
//
// Delays count from the moment the whole request was read. Served tells when
// each chunk was really written: a server's timer is late too, and a client must
// not be blamed for it.
//
// It is no model and no load generator's target of speed, except Script.Canned,
// which writes an answer at once, to measure what a client costs.
package endtest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Script is what the server does with every request.
type Script struct {
	First time.Duration   // from the request to the first chunk with text
	Gaps  []time.Duration // then from chunk to chunk; there is one chunk more than gaps
	Text  string          // of a chunk; "" = " x"
	Role  bool            // a chunk with a role only comes first, at once
	Usage int             // output tokens in the usage at the end; 0 = one per chunk, negative = no usage
	Model string          // that GET /v1/models lists; "" = "scripted"
	Fault string          // by its name in Faults; "" = none
	// Canned writes the whole answer in Canned writes, without any delay.
	Canned int
}

// Served is when what happened to one request, by the wall clock.
type Served struct {
	Read   time.Time   // the whole request had been read
	Wrote  []time.Time // each chunk with text was about to be written
	Body   string      // of the request
	Header string      // of the request, with the request line
}

// Server is a running server.
type Server struct {
	URL string

	script Script
	fault  fault
	canned [][]byte
	ln     net.Listener
	mu     sync.Mutex
	conns  map[net.Conn]bool
	served []Served
	dials  int
	wait   sync.WaitGroup
	quit   chan struct{}
}

// Start listens on a free port of the loopback.
func Start(s Script) (*Server, error) {
	f, err := find(s.Fault)
	if err != nil {
		return nil, err
	}
	if s.Text == "" {
		s.Text = " x"
	}
	if s.Model == "" {
		s.Model = "scripted"
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a scripted server: %w", err)
	}
	v := &Server{URL: "http://" + ln.Addr().String(), script: s, fault: f, ln: ln, conns: map[net.Conn]bool{}, quit: make(chan struct{})}
	if s.Canned > 0 {
		v.canned = v.can()
	}
	v.wait.Go(v.accept)
	return v, nil
}

// Close ends the server and all its connections.
func (v *Server) Close() {
	close(v.quit)
	v.ln.Close()
	v.mu.Lock()
	for c := range v.conns {
		c.Close()
	}
	v.mu.Unlock()
	v.wait.Wait()
}

// Served lists the completions served so far (none of a Canned server).
func (v *Server) Served() []Served {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]Served(nil), v.served...)
}

// Dials is the number of connections accepted so far.
func (v *Server) Dials() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.dials
}

func (v *Server) accept() {
	for {
		c, err := v.ln.Accept()
		if err != nil {
			return
		}
		v.mu.Lock()
		v.conns[c] = true
		v.dials++
		v.mu.Unlock()
		v.wait.Go(func() {
			v.serve(c)
			c.Close()
			v.mu.Lock()
			delete(v.conns, c)
			v.mu.Unlock()
		})
	}
}

// serve answers requests on a connection until one of the two ends it.
func (v *Server) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		head, body, err := readRequest(r)
		if err != nil {
			return
		}
		if v.canned != nil {
			for _, piece := range v.canned {
				if _, err := c.Write(piece); err != nil {
					return
				}
			}
			continue
		}
		if strings.HasPrefix(head, "GET ") {
			list := fmt.Sprintf(`{"object":"list","data":[{"id":%q,"object":"model"}]}`, v.script.Model)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nServer: endtest\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(list), list)
			continue
		}
		a := &act{v: v, c: c, chat: strings.Contains(head, "/chat/"), Served: Served{Read: time.Now(), Body: body, Header: head}}
		ok := v.fault.play(a)
		v.mu.Lock()
		v.served = append(v.served, a.Served)
		v.mu.Unlock()
		if !ok || a.err != nil {
			return
		}
	}
}

// readRequest reads a request with a length.
func readRequest(r *bufio.Reader) (head, body string, err error) {
	var b strings.Builder
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return "", "", err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
		b.Write(line)
		if k, v, ok := bytes.Cut(line, []byte(":")); ok && len(k) == 14 && strings.EqualFold(string(k), "content-length") {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return "", "", err
			}
		}
	}
	data := make([]byte, length)
	for n := 0; n < length; {
		k, err := r.Read(data[n:])
		if err != nil {
			return "", "", err
		}
		n += k
	}
	return b.String(), string(data), nil
}

// act is the answering of one request.
type act struct {
	Served
	v    *Server
	c    net.Conn
	chat bool
	err  error
}

const streamHead = "HTTP/1.1 200 OK\r\nServer: endtest\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

// raw writes bytes as they are.
func (a *act) raw(s string) {
	if a.err == nil {
		_, a.err = a.c.Write([]byte(s))
	}
}

// event writes an event in the chunked encoding.
func (a *act) event(data string) { a.piece("data: " + data + "\n\n") }

func (a *act) piece(s string) { a.raw(fmt.Sprintf("%x\r\n%s\r\n", len(s), s)) }

// text writes a chunk of the answer and notes when.
func (a *act) text(s string) {
	a.Wrote = append(a.Wrote, time.Now())
	a.event(a.choice(s, "null"))
}

// choice is the JSON of a chunk.
func (a *act) choice(text, finish string) string {
	if a.chat {
		return fmt.Sprintf(`{"id":"c-1","object":"chat.completion.chunk","created":1700000000,"model":%q,"choices":[{"index":0,"delta":{"content":%q},"logprobs":null,"finish_reason":%s}]}`,
			a.v.script.Model, text, finish)
	}
	return fmt.Sprintf(`{"id":"c-1","object":"text_completion","created":1700000000,"model":%q,"choices":[{"index":0,"text":%q,"logprobs":null,"finish_reason":%s}]}`,
		a.v.script.Model, text, finish)
}

// answer writes the head and the scripted chunks; tick is called before each.
func (a *act) answer(tick func(i int) bool) bool {
	s := &a.v.script
	a.raw(streamHead)
	if s.Role {
		a.event(`{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`)
	}
	at := a.Read.Add(s.First)
	for i := 0; i <= len(s.Gaps); i++ {
		if i > 0 {
			at = at.Add(s.Gaps[i-1])
		}
		if !a.until(at) || !tick(i) {
			return false
		}
		a.text(s.Text)
	}
	return true
}

// finish writes the end: a finish mark, the usage, [DONE].
func (a *act) finish() {
	s := &a.v.script
	a.event(a.choice("", `"length"`))
	tokens := s.Usage
	if tokens == 0 {
		tokens = len(s.Gaps) + 1
	}
	if tokens > 0 {
		a.event(fmt.Sprintf(`{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}}`, tokens, 7+tokens))
	}
	a.event("[DONE]")
	a.raw("0\r\n\r\n")
}

// until waits, punctually: the last part is spun.
func (a *act) until(at time.Time) bool {
	const spin = 300 * time.Microsecond
	if d := time.Until(at) - spin; d > 0 {
		select {
		case <-time.After(d):
		case <-a.v.quit:
			return false
		}
	}
	for time.Now().Before(at) {
	}
	return true
}

// forever waits until the server closes or the client goes.
func (a *act) forever() bool {
	gone := make(chan struct{})
	go func() { var b [1]byte; _, _ = a.c.Read(b[:]); close(gone) }()
	select {
	case <-a.v.quit:
	case <-gone:
	}
	return false
}

// can is the whole answer, cut into writes of about equal numbers of events.
func (v *Server) can() [][]byte {
	a := &act{v: v, chat: true}
	pieces := []string{streamHead}
	add := func(data string) { pieces = append(pieces, fmt.Sprintf("%x\r\ndata: %s\n\n\r\n", len(data)+8, data)) }
	for range len(v.script.Gaps) + 1 {
		add(a.choice(v.script.Text, "null"))
	}
	n := len(v.script.Gaps) + 1
	add(a.choice("", `"length"`))
	add(fmt.Sprintf(`{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}}`, n, 7+n))
	add("[DONE]")
	pieces[len(pieces)-1] += "0\r\n\r\n"
	out := make([][]byte, min(v.script.Canned, len(pieces)))
	for i, p := range pieces {
		k := i * len(out) / len(pieces)
		out[k] = append(out[k], p...)
	}
	return out
}

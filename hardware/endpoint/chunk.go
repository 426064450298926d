package endpoint

import (
	"fmt"
	"unicode/utf8"
)

// delta is what one event of a stream says. Texts are appended to the answer's
// buffers; here are only their lengths.
type delta struct {
	choices bool // it has one
	text    int  // bytes of text
	thought int  // bytes of reasoning
	finish  string
	own     int // tokens of this chunk by token ids or logprobs; -1 = not said
	prompt  int // usage: prompt tokens; -1 = not said
	total   int // usage: output tokens so far; -1 = not said
	fault   string
}

// texts collects the answer.
type texts struct{ text, thought []byte }

func (t *texts) cut(text, thought int) { t.text, t.thought = t.text[:text], t.thought[:thought] }

// read reads the JSON of an event: by a scan of the bytes, which knows the usual
// form, or by encoding/json for all that is unusual. FuzzChunk holds the two to
// the same result.
func (t *texts) read(data []byte) (delta, error) {
	if !utf8.Valid(data) {
		return delta{}, fmt.Errorf("%w: an event is not UTF-8: %s", ErrReply, excerpt(data))
	}
	text, thought := len(t.text), len(t.thought)
	if d, ok := t.scan(data); ok {
		return d, nil
	}
	t.cut(text, thought)
	return t.slow(data)
}

// scan is the quick way; ok is false where it is not sure.
func (t *texts) scan(data []byte) (d delta, ok bool) {
	s := scanner{b: data}
	d = delta{own: -1, prompt: -1, total: -1}
	seen := [3]bool{}
	once := func(i int) bool { was := seen[i]; seen[i] = true; return !was }
	ok = s.object(func(key []byte) bool {
		switch string(key) {
		case "choices":
			return once(0) && s.array(func(i int) bool { d.choices = true; return i == 0 && t.choice(&s, &d) })
		case "usage":
			return once(1) && (s.null() || s.usage(&d))
		case "error":
			return once(2) && s.null()
		}
		return s.skip(0)
	})
	s.space()
	return d, ok && s.i == len(s.b)
}

// choice scans one entry of choices.
func (t *texts) choice(s *scanner, d *delta) bool {
	seen := [6]bool{}
	once := func(i int) bool { was := seen[i]; seen[i] = true; return !was }
	return s.object(func(key []byte) bool {
		switch string(key) {
		case "index":
			n, ok := s.count()
			return once(0) && ok && n == 0
		case "delta":
			return once(1) && !seen[2] && t.delta(s, d)
		case "text":
			return once(2) && !seen[1] && s.text(&t.text, &d.text)
		case "finish_reason":
			var name []byte
			n := 0
			ok := once(3) && s.text(&name, &n)
			d.finish = string(name)
			return ok
		case "logprobs", "token_ids":
			return once(4) && s.null()
		case "message":
			return false
		}
		return s.skip(0)
	})
}

func (t *texts) delta(s *scanner, d *delta) bool {
	seen := [2]bool{}
	once := func(i int) bool { was := seen[i]; seen[i] = true; return !was }
	return s.object(func(key []byte) bool {
		switch string(key) {
		case "content":
			return once(0) && s.text(&t.text, &d.text)
		case "reasoning_content", "reasoning":
			return once(1) && s.text(&t.thought, &d.thought)
		}
		return s.skip(0)
	})
}

func (s *scanner) usage(d *delta) bool {
	seen := [2]bool{}
	once := func(i int) bool { was := seen[i]; seen[i] = true; return !was }
	return s.object(func(key []byte) (ok bool) {
		switch string(key) {
		case "prompt_tokens":
			d.prompt, ok = s.count()
			return ok && once(0)
		case "completion_tokens":
			d.total, ok = s.count()
			return ok && once(1)
		}
		return s.skip(0)
	})
}

// scanner walks over JSON. Its methods return false for what is not JSON and
// for what is too unusual to be read quickly; they never accept what
// encoding/json would refuse.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r') {
		s.i++
	}
}

// take consumes c, after white space.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// word consumes a literal.
func (s *scanner) word(w string) bool {
	s.space()
	if len(s.b)-s.i >= len(w) && string(s.b[s.i:s.i+len(w)]) == w {
		s.i += len(w)
		return true
	}
	return false
}

func (s *scanner) null() bool { return s.word("null") }

// object calls visit at the value of each key.
func (s *scanner) object(visit func(key []byte) bool) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		key, escaped, ok := s.raw()
		if !ok || escaped || !s.take(':') || !visit(key) {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// array calls visit at each element.
func (s *scanner) array(visit func(i int) bool) bool {
	if !s.take('[') {
		return false
	}
	if s.take(']') {
		return true
	}
	for i := 0; ; i++ {
		if !visit(i) {
			return false
		}
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// raw consumes a string and returns what is between its quotes.
func (s *scanner) raw() (text []byte, escaped, ok bool) {
	if !s.take('"') {
		return nil, false, false
	}
	from := s.i
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[from : s.i-1], escaped, true
		case c == '\\':
			escaped = true
			s.i++
		case c < ' ':
			return nil, false, false
		}
	}
	return nil, false, false
}

// text appends a string, or nothing for null; n counts its bytes.
func (s *scanner) text(to *[]byte, n *int) bool {
	if s.null() {
		return true
	}
	raw, escaped, ok := s.raw()
	if !ok {
		return false
	}
	before := len(*to)
	if !escaped {
		*to = append(*to, raw...)
	} else if *to, ok = unescape(*to, raw); !ok {
		return false
	}
	*n = len(*to) - before
	return true
}

// unescape appends raw without its escapes. Surrogates are left to encoding/json.
func unescape(to, raw []byte) ([]byte, bool) {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			to = append(to, raw[i])
			continue
		}
		i++ // raw never ends with a single backslash
		switch raw[i] {
		case '"', '\\', '/':
			to = append(to, raw[i])
		case 'n':
			to = append(to, '\n')
		case 't':
			to = append(to, '\t')
		case 'r':
			to = append(to, '\r')
		case 'b':
			to = append(to, '\b')
		case 'f':
			to = append(to, '\f')
		case 'u':
			r, ok := hex4(raw[i+1:])
			if !ok || r >= 0xD800 && r < 0xE000 {
				return to, false
			}
			to = utf8.AppendRune(to, r)
			i += 4
		default:
			return to, false
		}
	}
	return to, true
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// count consumes a whole number below a thousand million.
func (s *scanner) count() (n int, ok bool) {
	s.space()
	from := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		n = n*10 + int(s.b[s.i]-'0')
		if s.i++; s.i-from > 9 {
			return 0, false
		}
	}
	if s.i == from || s.b[from] == '0' && s.i > from+1 {
		return 0, false
	}
	// 1.5 and 1e3 are left to encoding/json
	return n, s.i == len(s.b) || s.b[s.i] != '.' && s.b[s.i] != 'e' && s.b[s.i] != 'E'
}

// skip consumes any value.
func (s *scanner) skip(depth int) bool {
	const deepest = 32
	if s.space(); s.i == len(s.b) || depth > deepest {
		return false
	}
	switch s.b[s.i] {
	case '{':
		return s.object(func([]byte) bool { return s.skip(depth + 1) })
	case '[':
		return s.array(func(int) bool { return s.skip(depth + 1) })
	case '"':
		raw, escaped, ok := s.raw()
		return ok && (!escaped || escapesFine(raw))
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.null()
	}
	return s.number()
}

// escapesFine checks the escapes of a string that is not wanted.
func escapesFine(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++
		switch raw[i] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			if _, ok := hex4(raw[i+1:]); !ok {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// number consumes a number by the grammar of RFC 8259.
func (s *scanner) number() bool {
	digits := func() bool {
		from := s.i
		for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
			s.i++
		}
		return s.i > from
	}
	at := func(set string) bool {
		for k := range len(set) {
			if s.i < len(s.b) && s.b[s.i] == set[k] {
				s.i++
				return true
			}
		}
		return false
	}
	at("-")
	if !at("0") && !digits() {
		return false
	}
	if at(".") && !digits() {
		return false
	}
	if at("eE") {
		at("+-")
		return digits()
	}
	return true
}

package endpoint

import (
	"fmt"
	"io"
	"mime"
	"strings"

	"meibench/hardware"
)

// stream reads a streamed answer, one chunk per event with a choice.
func (a *Answer) stream(rep *reply, r *Request) error {
	if err := rep.wants("text/event-stream"); err != nil {
		return err
	}
	e := rep.events()
	e.reset(rep)
	t := texts{text: make([]byte, 0, 256)}
	defer func() { a.Text, a.Thought = string(t.text), string(t.thought) }()
	total, runs := 0, false // the running usage, where chunks carry it
	for {
		data, err := e.next()
		if err == io.EOF {
			return fmt.Errorf("%w: it ended after %d chunks without [DONE]", ErrStream, len(a.Chunks))
		}
		if err != nil {
			return fmt.Errorf("after %d chunks: %w", len(a.Chunks), err)
		}
		if string(data) == "[DONE]" {
			return nil
		}
		d, err := t.read(data)
		switch {
		case err != nil:
			return fmt.Errorf("chunk %d: %w", len(a.Chunks), err)
		case d.fault != "":
			return fmt.Errorf("chunk %d: %w: %s", len(a.Chunks), ErrServer, d.fault)
		case len(t.text)+len(t.thought) > MaxAnswer:
			return fmt.Errorf("%w: an answer of more than %d bytes", ErrTooLarge, MaxAnswer)
		case len(a.Chunks) == MaxChunks:
			return fmt.Errorf("%w: an answer in more than %d chunks", ErrTooLarge, MaxChunks)
		}
		if d.prompt >= 0 {
			a.Prompt = d.prompt
		}
		if d.total >= 0 {
			runs = runs || d.choices
			if d.choices && d.own < 0 {
				d.own = max(0, d.total-total)
			}
			total, a.Claimed = d.total, d.total
		}
		if d.choices {
			a.add(rep, d)
		}
	}
}

// unsaid marks a chunk with text of which nothing is known but that.
const unsaid = -1

// add notes a chunk. Its tokens are what the server says of it, or unsaid, or
// none where there is no text.
func (a *Answer) add(rep *reply, d delta) {
	n := d.own
	if n < 0 && d.text+d.thought == 0 {
		n = 0
	}
	if n < 0 {
		n = unsaid
	}
	if d.finish != "" {
		a.Finish = d.finish
	}
	if len(a.Thought) == 0 && d.text == 0 && len(a.Chunks) == a.Thinking {
		a.Thinking++ // no text so far
	}
	a.Chunks = append(a.Chunks, hardware.Chunk{At: rep.last(), Tokens: n})
}

// whole reads an answer that comes in one piece.
func (a *Answer) whole(rep *reply, api API) error {
	if err := rep.wants(""); err != nil {
		return err
	}
	data, err := rep.all(MaxEvent)
	if err != nil {
		return err
	}
	t := texts{}
	d, err := t.read(data)
	switch {
	case err != nil:
		return fmt.Errorf("the reply is not the JSON that was expected: %w", err)
	case d.fault != "":
		return fmt.Errorf("%w: %s", ErrServer, d.fault)
	case !d.choices:
		return fmt.Errorf("%w: the reply has no choices: %s", ErrReply, excerpt(data))
	case !t.has(data, api):
		return fmt.Errorf("%w: the reply has no choices[0].%s: is this the %s protocol?", ErrReply, map[API]string{Chat: "message.content", Completions: "text"}[api], api)
	}
	a.Text, a.Thought = string(t.text), string(t.thought)
	a.Prompt, a.Claimed = d.prompt, d.total
	if d.own < 0 {
		d.own = d.total
	}
	a.add(rep, d)
	return nil
}

// has reports whether a reply holds a text where the protocol wants it.
func (t *texts) has(data []byte, api API) bool {
	s := scanner{b: data}
	found := false
	mark := func() { found = found || s.i < len(s.b) && !s.null() }
	s.object(func(key []byte) bool {
		if string(key) != "choices" {
			return s.skip(0)
		}
		return s.array(func(int) bool {
			return s.object(func(key []byte) bool {
				if api == Completions && string(key) == "text" {
					mark()
				}
				if api == Chat && string(key) == "message" {
					found = true // content may be null where there is reasoning only
				}
				return found || s.skip(0)
			}) || found
		})
	})
	return found
}

// count settles how many tokens each chunk has. Where the server said it of
// every chunk with text, that stands. Else the usage at the end is spread over
// these chunks: of U tokens over K chunks, chunk i (from 0) gets
// floor((i+1)·U/K) - floor(i·U/K), which is one each where U = K. Without a usage
// it is one each.
func (a *Answer) count(limit int) error {
	texts, sum, said := 0, 0, true
	for _, c := range a.Chunks {
		if c.Tokens == unsaid {
			said = false
			texts++
			continue
		}
		sum += c.Tokens
		if c.Tokens > 0 {
			texts++
		}
	}
	doubt := &CountError{Chunks: texts, Counted: -1, Claimed: a.Claimed, Limit: limit}
	switch {
	case said:
		if doubt.Counted = sum; sum != a.Claimed && a.Claimed >= 0 {
			a.Doubt = doubt
		}
	case a.Claimed < 0:
		a.spread(texts, texts)
		a.Doubt = doubt
	default:
		a.spread(a.Claimed, texts)
		if a.Claimed < texts {
			a.Doubt = doubt
		}
	}
	a.Tokens = 0
	for _, c := range a.Chunks {
		a.Tokens += c.Tokens
	}
	if limit > 0 && a.Tokens > limit {
		return doubt
	}
	return nil
}

// settle makes what came before a failure fit for a record: no chunk without a
// number of tokens, and no more tokens than were asked for.
func (a *Answer) settle(limit int) {
	a.Tokens = 0
	for i := range a.Chunks {
		c := &a.Chunks[i]
		if c.Tokens == unsaid {
			c.Tokens = 1
		}
		if limit > 0 {
			c.Tokens = min(c.Tokens, limit-a.Tokens)
		}
		a.Tokens += c.Tokens
	}
}

// spread gives the chunks with text U tokens.
func (a *Answer) spread(U, K int) {
	i := 0
	for j := range a.Chunks {
		c := &a.Chunks[j]
		if c.Tokens != unsaid && c.Tokens <= 0 {
			continue
		}
		c.Tokens = (i+1)*U/K - i*U/K
		i++
	}
}

// wants checks the media type of a reply; "" is JSON, or nothing said.
func (r *reply) wants(media string) error {
	if r.contentType == media {
		return nil
	}
	got, _, err := mime.ParseMediaType(r.contentType)
	if err != nil {
		got = strings.TrimSpace(r.contentType)
	}
	ok := got == media
	if media == "" {
		media = "application/json"
		ok = !strings.HasPrefix(got, "text/html") && got != "text/event-stream"
	}
	if ok {
		return nil
	}
	body, _ := r.all(4 << 10)
	return fmt.Errorf("%w: content type %q, want %s: %s", ErrReply, got, media, excerpt(body))
}

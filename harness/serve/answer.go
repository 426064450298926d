package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"meibench/reference/token"
)

// answer serves one completion of either protocol.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, chat bool) {
	a, no := s.decode(w, r)
	if no != nil {
		refuse(w, no)
		return
	}
	v, ok := s.served[a.Model]
	if !ok {
		refuse(w, &refusal{status: http.StatusNotFound, kind: "invalid_request_error", param: "model", code: "model_not_found",
			message: fmt.Sprintf("no model %.80q here: have %s", a.Model, strings.Join(s.names, ", "))})
		return
	}
	stops, no := a.stops()
	if no != nil {
		refuse(w, no)
		return
	}
	number := s.count.Add(1)
	j, no := s.job(a, v, chat, number)
	if no != nil {
		refuse(w, no)
		return
	}
	ctx, leave := context.WithCancel(r.Context())
	defer leave() // a stop string, or a client that is gone: the engine lets go at the next step
	j.ctx = ctx
	if !v.submit(j) {
		refuse(w, &refusal{status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "queue_full", after: 1,
			message: fmt.Sprintf("%d requests wait for %q already: ask again later", cap(v.queue), a.Model)})
		return
	}
	t := &teller{w: w, chat: chat, ask: a, job: j, stops: stops, text: v.Tokenizer.NewStream(), ends: v.Tokenizer.Ends,
		id: fmt.Sprintf("%s-%d", map[bool]string{false: "cmpl", true: "chatcmpl"}[chat], number), created: time.Now().Unix()}
	if a.Stream {
		t.stream(ctx)
	} else {
		t.whole(ctx)
	}
}

// teller turns the tokens of a sequence into a reply.
type teller struct {
	w       http.ResponseWriter
	chat    bool
	ask     *ask
	job     *job
	stops   []string
	text    *token.Stream
	ends    func(int32) bool
	id      string
	created int64

	held   string  // text that may become a stop string
	ids    []int32 // tokens since the last chunk
	n      int     // tokens made
	finish string  // set when the answer is over
}

// next waits for a token and returns the text that is certain now. It is over
// when finish is set.
func (t *teller) next(ctx context.Context) (text string, err error) {
	select {
	case m, ok := <-t.job.out:
		if !ok { // the engine let go of a client that is gone
			return "", context.Cause(ctx)
		}
		if m.err != nil {
			return "", m.err
		}
		return t.take(m.id), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (t *teller) take(id int32) string {
	t.n++
	t.ids = append(t.ids, id)
	if t.ends(id) {
		t.finish = "stop"
		return t.release(t.text.Flush(), true)
	}
	text := t.text.Next(id)
	last := t.n == t.job.limit
	if last {
		text += t.text.Flush()
	}
	out := t.release(text, last)
	if t.finish == "" && last {
		t.finish = "length"
	}
	return out
}

// release adds text and returns what can no longer be part of a stop string, all
// of it at the end. A stop string ends the answer and is not part of it.
func (t *teller) release(text string, all bool) string {
	t.held += text
	first := -1
	for _, s := range t.stops {
		if i := strings.Index(t.held, s); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	if first >= 0 {
		t.finish = "stop"
		return t.held[:first]
	}
	keep := 0
	if !all {
		for _, s := range t.stops {
			for n := min(len(s)-1, len(t.held)); n > keep; n-- {
				if strings.HasSuffix(t.held, s[:n]) {
					keep = n
				}
			}
		}
	}
	out := t.held[:len(t.held)-keep]
	t.held = t.held[len(t.held)-keep:]
	return out
}

type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

func (t *teller) usage() *usage {
	return &usage{len(t.job.prompt), t.n, len(t.job.prompt) + t.n}
}

// words is a role and a text, of a whole message or of a chunk.
type words struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

type choice struct {
	Index    int     `json:"index"`
	Text     *string `json:"text,omitempty"`    // completions
	Message  *words  `json:"message,omitempty"` // chat
	Delta    *words  `json:"delta,omitempty"`   // chat, streamed
	Logprobs *int    `json:"logprobs"`          // always null
	Finish   *string `json:"finish_reason"`
	TokenIDs []int32 `json:"token_ids,omitempty"`
}

type body struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	Usage   *usage   `json:"usage,omitempty"`
}

func (t *teller) body(object string, choices ...choice) *body {
	return &body{ID: t.id, Object: object, Created: t.created, Model: t.ask.Model, Choices: append([]choice{}, choices...)}
}

// whole replies with the answer in one piece.
func (t *teller) whole(ctx context.Context) {
	answer := ""
	for t.finish == "" {
		text, err := t.next(ctx)
		if err != nil {
			t.failed(ctx, err, false)
			return
		}
		answer += text
	}
	c := choice{Finish: &t.finish}
	object := "text_completion"
	if t.chat {
		object, c.Message = "chat.completion", &words{"assistant", &answer}
	} else {
		c.Text = &answer
	}
	if t.ask.TokenIDs {
		c.TokenIDs = t.ids
	}
	b := t.body(object, c)
	b.Usage = t.usage()
	reply(t.w, http.StatusOK, b)
}

// stream replies as the answer comes: an event per piece of text, then the
// finish mark, then the usage if it was asked for, then [DONE].
func (t *teller) stream(ctx context.Context) {
	h := t.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	object := "text_completion"
	if t.chat {
		object = "chat.completion.chunk"
	}
	defer func() { _ = http.NewResponseController(t.w).SetWriteDeadline(time.Time{}) }() // the connection lives on
	began := false
	for t.finish == "" {
		text, err := t.next(ctx)
		if err != nil {
			t.failed(ctx, err, began)
			return
		}
		if t.chat && !began {
			empty := ""
			t.event(t.body(object, choice{Delta: &words{"assistant", &empty}}))
		}
		began = true
		if text == "" {
			continue
		}
		c := choice{Text: &text}
		if t.chat {
			c = choice{Delta: &words{Content: &text}}
		}
		if t.ask.TokenIDs && t.finish != "stop" {
			c.TokenIDs, t.ids = t.ids, nil
		}
		t.event(t.body(object, c))
	}
	empty := ""
	c := choice{Text: &empty, Finish: &t.finish}
	if t.chat {
		c = choice{Delta: &words{}, Finish: &t.finish}
	}
	if t.ask.TokenIDs {
		c.TokenIDs = t.ids
	}
	t.event(t.body(object, c))
	if t.ask.StreamOptions.IncludeUsage {
		b := t.body(object)
		b.Usage = t.usage()
		t.event(b)
	}
	t.write("data: [DONE]\n\n")
}

// failed tells a client that is still there what went wrong.
func (t *teller) failed(ctx context.Context, err error, began bool) {
	if ctx.Err() != nil {
		return // nobody is there
	}
	no := &refusal{status: http.StatusInternalServerError, kind: "server_error", message: err.Error()}
	if err == errClosed {
		no.status = http.StatusServiceUnavailable
	}
	if !began {
		refuse(t.w, no)
		return
	}
	t.event(map[string]any{"error": no.object()})
}

func (t *teller) event(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own types come here
	}
	t.write("data: " + string(b) + "\n\n")
}

// write writes and flushes. A client that does not read for long is cut off.
func (t *teller) write(s string) {
	const patience = 30 * time.Second
	c := http.NewResponseController(t.w)
	_ = c.SetWriteDeadline(time.Now().Add(patience)) // not every transport has one
	_, _ = t.w.Write([]byte(s))                      // the request's context ends with the connection
	_ = c.Flush()
}

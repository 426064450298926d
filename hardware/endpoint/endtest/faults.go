package endtest

import (
	"compress/gzip"
	"fmt"
	"net"
	"strings"
)

// fault is a way to go wrong. play returns whether the connection goes on.
type fault struct {
	Name string
	Doc  string
	play func(a *act) bool
}

// Faults lists the names that Script.Fault may have, with what each does, in order.
func Faults() (names, docs []string) {
	for _, f := range faults {
		names, docs = append(names, f.Name), append(docs, f.Doc)
	}
	return names, docs
}

func find(name string) (fault, error) {
	if name == "" {
		return fault{play: func(a *act) bool {
			ok := a.answer(func(int) bool { return true })
			if ok {
				a.finish()
			}
			return ok
		}}, nil
	}
	for _, f := range faults {
		if f.Name == name {
			return f, nil
		}
	}
	names, _ := Faults()
	return fault{}, fmt.Errorf("fault %q: have %s", name, strings.Join(names, ", "))
}

// midway lets the fault happen after the first half of the chunks.
func midway(do func(a *act)) func(a *act) bool {
	return func(a *act) bool {
		half := (len(a.v.script.Gaps) + 1) / 2
		a.answer(func(i int) bool { return i < half })
		do(a)
		return false
	}
}

// status answers with a status and a body.
func status(line, fields, body string) func(a *act) bool {
	return func(a *act) bool {
		a.raw(fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", line, fields, len(body), body))
		return true
	}
}

// ending answers with all chunks and an end of its own.
func ending(end func(a *act)) func(a *act) bool {
	return func(a *act) bool {
		ok := a.answer(func(int) bool { return true })
		end(a)
		return ok
	}
}

const jsonType = "Content-Type: application/json\r\n"

// tokens ends with a usage of its own.
func tokens(completion string) func(a *act) bool {
	return ending(func(a *act) {
		a.event(`{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":` + completion + `}}`)
		a.event("[DONE]")
		a.raw("0\r\n\r\n")
	})
}

func reset(a *act) {
	if t, ok := a.c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	a.c.Close()
}

// flood writes s for ever, or until the client goes.
func flood(head, s string) func(a *act) bool {
	return func(a *act) bool {
		a.raw(head)
		for a.err == nil {
			select {
			case <-a.v.quit:
				return false
			default:
				a.raw(s)
			}
		}
		return false
	}
}

// faults in order of their names.
var faults = []fault{
	{"429", "too many requests, with a JSON error and Retry-After: 7", status("429 Too Many Requests", jsonType+"Retry-After: 7\r\n", `{"error":{"message":"slow down","type":"rate_limit_error"}}`)},
	{"429-plain", "too many requests, no body", status("429 Too Many Requests", "", "")},
	{"500", "a server error with a JSON error", status("500 Internal Server Error", jsonType, `{"error":{"message":"out of memory","type":"server_error"}}`)},
	{"500-html", "a server error with a page", status("502 Bad Gateway", "Content-Type: text/html\r\n", "<html><body>bad gateway</body></html>")},
	{"chunk-long", "chunked encoding: a chunk is longer than it says", midway(func(a *act) { a.raw("3\r\ndata: {}\n\n\r\n"); a.forever() })},
	{"chunk-size", "chunked encoding: a size that is no number", midway(func(a *act) { a.raw("zz\r\n"); a.forever() })},
	{"close", "closes in mid-answer", midway(func(*act) {})},
	{"close-at-once", "closes without a word", func(*act) bool { return false }},
	{"content-type", "events under another content type", func(a *act) bool {
		return status("200 OK", "Content-Type: text/plain\r\n", "data: {}\n\ndata: [DONE]\n\n")(a)
	}},
	{"endless-comments", "comments for ever", flood(streamHead, "6\r\n: hi\n\n\r\n")},
	{"endless-events", "empty chunks for ever", flood(streamHead, strings.Repeat("2e\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{}}]}  \n\n\r\n", 64))},
	{"endless-header", "header fields for ever", flood("HTTP/1.1 200 OK\r\n", strings.Repeat("X-Padding: abcdefghijklmnopqrstuvwxyz\r\n", 64))},
	{"endless-line", "a header line without an end", flood("HTTP/1.1 200 OK\r\nX-Padding: ", strings.Repeat("x", 4096))},
	{"error-event", "an error object in mid-stream", midway(func(a *act) {
		a.event(`{"error":{"message":"the engine died","type":"server_error"}}`)
		a.event("[DONE]")
		a.raw("0\r\n\r\n")
	})},
	{"gzip", "a compressed stream, though it was not asked for", func(a *act) bool {
		var b strings.Builder
		z := gzip.NewWriter(&b)
		fmt.Fprint(z, "data: [DONE]\n\n")
		z.Close()
		return status("200 OK", "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n", b.String())(a)
	}},
	{"half-event", "ends cleanly in the middle of an event", midway(func(a *act) { a.piece(`data: {"choices":[{"index":0,`); a.raw("0\r\n\r\n") })},
	{"html", "a page in place of events", status("200 OK", "Content-Type: text/html\r\n", "<html><title>Sign in</title></html>")},
	{"huge-chunk", "one event of 10 MB", midway(func(a *act) { a.event(a.choice(strings.Repeat("x", 10<<20), "null")) })},
	{"huge-header-number", "a content length beyond all bounds", func(a *act) bool {
		a.raw("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99999999999999999999\r\n\r\n")
		return a.forever()
	}},
	{"invalid-utf8", "bytes that are not UTF-8", midway(func(a *act) { a.event("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\xfe\"}}]}") })},
	{"less-tokens", "a usage of one token, whatever was sent", tokens("1")},
	{"more-tokens", "a usage of a million tokens", tokens("1000000")},
	{"negative-tokens", "a usage of -3 tokens", tokens("-3")},
	{"no-done", "ends cleanly without [DONE]", ending(func(a *act) { a.event(a.choice("", `"stop"`)); a.raw("0\r\n\r\n") })},
	{"no-usage", "no usage, though it was asked for", ending(func(a *act) { a.event("[DONE]"); a.raw("0\r\n\r\n") })},
	{"not-http", "another protocol", func(a *act) bool { a.raw("SSH-2.0-OpenSSH_9.6\r\n"); return a.forever() }},
	{"not-json", "an event that is not JSON", midway(func(a *act) { a.event("{oops"); a.event("[DONE]") })},
	{"redirect", "sends elsewhere", status("307 Temporary Redirect", "Location: http://127.0.0.1:1/\r\n", "")},
	{"reset", "resets the connection in mid-answer", midway(reset)},
	{"stall", "falls silent in mid-answer", midway(func(a *act) { a.forever() })},
	{"stall-at-once", "never answers", func(a *act) bool { return a.forever() }},
	{"text-tokens", "a usage that is a word", tokens(`"many"`)},
	{"two-lengths", "two different content lengths", status("200 OK", "Content-Type: text/event-stream\r\nContent-Length: 5\r\n", "data: [DONE]\n\n")},
	{"wrong-types", "content that is a number", midway(func(a *act) { a.event(`{"choices":[{"index":0,"delta":{"content":5},"text":5}]}`) })},
}

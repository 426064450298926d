package endpoint

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// What can go wrong with a server; every error of this package wraps one of
// these, a *StatusError, a *CountError, or the context's.
var (
	ErrConnect  = errors.New("no connection (is the server running?)")
	ErrTimeout  = error(limitPassed{})                             // one of Config's limits on time passed
	ErrBroken   = errors.New("connection broken")                  // reset or closed in mid-answer
	ErrHTTP     = errors.New("not valid HTTP")                     // status line, header, chunked encoding
	ErrReply    = errors.New("not the reply that was asked for")   // content type, encoding, JSON, UTF-8
	ErrStream   = errors.New("the event stream is broken")         // no [DONE], no event
	ErrTooLarge = errors.New("larger than any answer needs to be") // see MaxEvent and the like
	ErrServer   = errors.New("the server reports an error")        // in the middle of a stream
)

// limitPassed says of itself what net.Error would, so that records can tell a limit
// that passed from other failures.
type limitPassed struct{}

func (limitPassed) Error() string { return "timeout" }
func (limitPassed) Timeout() bool { return true }

// StatusError is a refusal with an HTTP status.
type StatusError struct {
	Status     int
	Message    string        // the error object's message, or the beginning of the body
	Type       string        // the error object's type
	RetryAfter time.Duration // 0 = not said
}

// Error is "429 Too Many Requests: message".
func (e *StatusError) Error() string {
	s := fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Type != "" {
		s += " (" + e.Type + ")"
	}
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (retry after %v)", e.RetryAfter)
	}
	return s
}

// Rejected reports whether the server had no room for the request, by 429 or 503.
// Such a request may be asked again, and is a rejected row, not a failed one.
func (e *StatusError) Rejected() bool { return e.Status == 429 || e.Status == 503 }

// CountError says that token counts do not add up. Over the limit it makes the
// request fail; else it is the Doubt of an answer.
type CountError struct {
	Chunks  int // chunks with text
	Counted int // tokens by what was said of each chunk; -1 = nothing was said
	Claimed int // tokens by the usage at the end; -1 = none came
	Limit   int // tokens asked for; 0 = no limit
}

// Error says which counts disagree.
func (e *CountError) Error() string {
	switch {
	case e.Limit > 0 && max(e.Claimed, e.Counted) > e.Limit:
		return fmt.Sprintf("the server gave %d tokens, %d were asked for", max(e.Claimed, e.Counted), e.Limit)
	case e.Claimed < 0 && e.Limit > 0 && e.Chunks > e.Limit:
		return fmt.Sprintf("%d chunks with text without any count of tokens, %d tokens were asked for", e.Chunks, e.Limit)
	case e.Claimed < 0:
		return fmt.Sprintf("no usage came though it was asked for: %d chunks with text are taken for as many tokens", e.Chunks)
	case e.Counted >= 0:
		return fmt.Sprintf("the chunks say %d tokens, the usage %d", e.Counted, e.Claimed)
	}
	return fmt.Sprintf("%d chunks with text, but the usage says %d tokens", e.Chunks, e.Claimed)
}

// Mismatch reports whether two counts contradict each other; a count that is
// missing contradicts nothing.
func (e *CountError) Mismatch() bool { return e.Claimed >= 0 }

// excerpt is the beginning of what a server said, fit for a message on one line.
func excerpt(b []byte) string {
	const most = 300
	s := string(b[:min(len(b), 4*most)])
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if len(s) > most {
		cut := most
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + " ..."
	}
	return s
}

package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"meibench/internal/units"
)

// query is one HTTP request.
type query struct {
	ctx          context.Context
	method, path string // path after /v1
	body         []byte
	stream       bool
	now          func() time.Duration
}

// reply is an HTTP reply whose head has been read. Its Read gives the body.
type reply struct {
	source
	status      int
	contentType string
	encoding    string
	server      string
	retryAfter  string
	start       time.Duration // just before the request was written
	sent        units.Bytes
}

// source is a transport's side of a reply.
type source interface {
	io.Reader
	last() time.Duration // when the last bytes came
	events() *events     // scratch of the connection
	// done ends the reply, reuse if the body was read to its last event, and returns what was received. Afterwards the
	// connection, and with it the reply, may be somebody else's.
	done(reuse bool) units.Bytes
}

// check refuses what is not an answer.
func (r *reply) check() error {
	if r.status != http.StatusOK {
		return r.refusal()
	}
	if e := strings.ToLower(r.encoding); e != "" && e != "identity" {
		return fmt.Errorf("%w: content encoding %q, though identity was asked for", ErrReply, r.encoding)
	}
	return nil
}

// refusal reads what a server says beside a status that is not 200.
func (r *reply) refusal() error {
	e := &StatusError{Status: r.status}
	if s, err := strconv.Atoi(strings.TrimSpace(r.retryAfter)); err == nil && s >= 0 {
		e.RetryAfter = min(time.Duration(s), 1<<30) * time.Second
	} else if at, err := http.ParseTime(r.retryAfter); err == nil {
		e.RetryAfter = max(0, time.Until(at)).Round(time.Second)
	}
	if r.encoding != "" {
		e.Message = "its text is in " + excerpt([]byte(r.encoding))
		return e
	}
	body, err := r.all(MaxHeader)
	var object struct {
		Error any `json:"error"`
	}
	if jerr := json.Unmarshal(body, &object); jerr == nil && object.Error != nil {
		e.Message = faultOf(object.Error)
		if m, ok := object.Error.(map[string]any); ok {
			e.Type, _ = m["type"].(string)
			e.Type = excerpt([]byte(e.Type))
		}
		return e
	}
	if e.Message = excerpt(body); err != nil && e.Message == "" && !errors.Is(err, ErrTooLarge) {
		e.Message = "and then: " + err.Error()
	}
	return e
}

// all reads the body, up to most bytes.
func (r *reply) all(most int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if len(data) > most {
		return data[:most], fmt.Errorf("%w: a reply of more than %d bytes", ErrTooLarge, most)
	}
	return data, err
}

// json reads a body that is one JSON value.
func (r *reply) json(to any) error {
	data, err := r.all(MaxEvent)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("%w: the reply is not the JSON that was expected: %v: %s", ErrReply, err, excerpt(data))
	}
	return nil
}

// shape is the body of a client's requests with holes for what changes.
type shape struct {
	open, close string // around the prompt
	limitField  string
	plain       string // the other fields, of a request that is not streamed
	stream      string
	temperature bool // ours to send
	seed        bool
}

func newShape(cfg Config) (shape, error) {
	s := shape{open: `{"prompt":`, limitField: `,` + quoted(cfg.LimitField) + `:`}
	if cfg.API == Chat {
		s.open, s.close = `{"messages":[{"role":"user","content":`, `}]`
	}
	fields := map[string]any{"model": cfg.Model}
	if len(cfg.Stop) > 0 {
		fields["stop"] = cfg.Stop
	}
	for key, v := range cfg.Extra {
		switch key {
		case "prompt", "messages", "stream", "n", cfg.LimitField:
			return s, fmt.Errorf("extra field %q: that one is filled in for each request", key)
		}
		fields[key] = v
	}
	_, has := cfg.Extra["temperature"]
	s.temperature = !has
	_, has = cfg.Extra["seed"]
	s.seed = !has
	var err error
	if s.plain, err = tail(fields); err != nil {
		return s, err
	}
	fields["stream"] = true
	if _, has := fields["stream_options"]; !has {
		fields["stream_options"] = map[string]any{"include_usage": true}
	}
	s.stream, err = tail(fields)
	return s, err
}

// tail is fields as the end of an object.
func tail(fields map[string]any) (string, error) {
	text := ""
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		v, err := json.Marshal(fields[key])
		if err != nil {
			return "", fmt.Errorf("extra field %q: %w", key, err)
		}
		text += "," + quoted(key) + ":" + string(v)
	}
	return text + "}", nil
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

// body appends the request's JSON to b.
func (s *shape) body(b []byte, r *Request) []byte {
	if b == nil {
		b = make([]byte, 0, len(s.open)+len(r.Prompt)+len(s.stream)+128)
	}
	b = append(b, s.open...)
	b = appendQuoted(b, r.Prompt)
	b = append(b, s.close...)
	if r.Limit > 0 {
		b = append(b, s.limitField...)
		b = strconv.AppendInt(b, int64(r.Limit), 10)
	}
	if s.temperature {
		b = append(b, `,"temperature":`...)
		b = strconv.AppendFloat(b, r.Temp, 'g', -1, 64)
	}
	if r.Seed != nil && s.seed {
		b = append(b, `,"seed":`...)
		b = strconv.AppendUint(b, *r.Seed, 10)
	}
	if r.Stream {
		return append(b, s.stream...)
	}
	return append(b, s.plain...)
}

// appendQuoted appends s as a JSON string.
func appendQuoted(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x80 {
			return append(b, quoted(s)...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"

	"meibench/internal/units"
)

// newTransport is net/http's client, for https and proxies.
func newTransport(cfg Config) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: cfg.Connect}).DialContext,
		TLSHandshakeTimeout:    cfg.Connect,
		ResponseHeaderTimeout:  cfg.FirstByte,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           cfg.Flight,
		MaxIdleConnsPerHost:    cfg.Flight,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: MaxHeader,
	}
}

// stdSource is a reply of net/http.
type stdSource struct {
	q      *query
	body   io.ReadCloser
	idle   time.Duration
	timer  *time.Timer // ends a read that waits too long
	cancel context.CancelCauseFunc
	ctx    context.Context
	free   context.CancelFunc // of the limit on the whole exchange
	ev     events
	stamp  time.Duration
	got    int64
}

// askStd sends a query through net/http. Redirects are not followed.
func (c *Client) askStd(q *query) (*reply, error) {
	limited, free := context.WithTimeoutCause(q.ctx, c.cfg.Total, fmt.Errorf("%w: not over after %v in all", ErrTimeout, c.cfg.Total))
	ctx, cancel := context.WithCancelCause(limited)
	s := &stdSource{q: q, idle: c.cfg.Idle, cancel: cancel, ctx: ctx, free: free}
	rep := &reply{source: s, start: q.now()}
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { rep.start = q.now() }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), q.method, c.base.String()+q.path, bytes.NewReader(q.body))
	if err != nil {
		s.done(false)
		return nil, err
	}
	req.GetBody = nil // or net/http would ask again by itself
	req.Header.Set("User-Agent", "meibench")
	req.Header.Set("Accept-Encoding", "identity")
	if q.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if q.stream {
		req.Header.Set("Accept", "text/event-stream")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	got, err := c.std.RoundTrip(req)
	s.stamp = q.now()
	if err != nil {
		defer s.done(false)
		return nil, s.failure(err, "wait for the first byte")
	}
	s.body = got.Body
	s.timer = time.AfterFunc(s.idle, func() { cancel(fmt.Errorf("%w: nothing came for %v", ErrTimeout, s.idle)) })
	rep.status, rep.sent = got.StatusCode, units.Bytes(len(q.body))
	rep.contentType, rep.encoding = got.Header.Get("Content-Type"), got.Header.Get("Content-Encoding")
	rep.server, rep.retryAfter = excerpt([]byte(got.Header.Get("Server"))), got.Header.Get("Retry-After")
	return rep, nil
}

// failure sorts net/http's errors into ours.
func (s *stdSource) failure(err error, doing string) error {
	var op *net.OpError
	var timeout net.Error
	switch {
	case s.q.ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, context.Cause(s.q.ctx))
	case s.ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, context.Cause(s.ctx))
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("%w: %w", ErrConnect, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %s: %v", ErrTimeout, doing, err)
	}
	return fmt.Errorf("%w: %s: %v", ErrBroken, doing, err)
}

// Read reads the body and stamps.
func (s *stdSource) Read(p []byte) (int, error) {
	s.timer.Reset(s.idle)
	k, err := s.body.Read(p)
	if k > 0 {
		s.stamp = s.q.now()
		s.got += int64(k)
	}
	if err != nil && err != io.EOF {
		err = s.failure(err, fmt.Sprintf("read on after %d bytes", s.got))
	}
	return k, err
}

func (s *stdSource) last() time.Duration { return s.stamp }
func (s *stdSource) events() *events     { return &s.ev }

// done ends the exchange; what little follows the last event is read so that
// the connection can be used again.
func (s *stdSource) done(reuse bool) units.Bytes {
	if s.body != nil {
		if at := s.stamp; reuse {
			const soon = 250 * time.Millisecond
			s.idle = soon
			_, _ = io.CopyN(io.Discard, s, 512)
			s.stamp = at
		}
		s.body.Close()
		s.timer.Stop()
	}
	s.cancel(nil)
	received := units.Bytes(s.got)
	s.free()
	return received
}

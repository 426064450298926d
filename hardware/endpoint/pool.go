package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// pool keeps warm connections to one server, the last one used on top.
type pool struct {
	c    *Client
	addr string
	mu   sync.Mutex
	idle []*conn
}

func newPool(c *Client) *pool {
	addr := c.base.Host
	if c.base.Port() == "" {
		addr = net.JoinHostPort(c.base.Hostname(), "80")
	}
	return &pool{c: c, addr: addr}
}

// ask sends a query and reads the head of the reply.
func (p *pool) ask(q *query) (*reply, error) {
	n, err := p.get(q)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(q.ctx, func() { n.nc.SetDeadline(time.Unix(1, 0)) })
	n.begin(q, stop)
	if err = n.send(); err == nil {
		err = n.readHead()
	}
	if err != nil {
		n.done(false)
		return nil, err
	}
	return &n.reply, nil
}

// get takes a warm connection that the server has not closed, or makes one.
func (p *pool) get(q *query) (*conn, error) {
	for {
		p.mu.Lock()
		var n *conn
		if k := len(p.idle); k > 0 {
			n, p.idle = p.idle[k-1], p.idle[:k-1]
		}
		p.mu.Unlock()
		if n == nil {
			break
		}
		if n.alive() {
			return n, nil
		}
		n.nc.Close()
	}
	ctx, cancel := context.WithTimeout(q.ctx, p.c.cfg.Connect)
	defer cancel()
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		if q.ctx.Err() != nil {
			return nil, fmt.Errorf("connect: %w", context.Cause(q.ctx))
		}
		return nil, fmt.Errorf("%w: %w", ErrConnect, err)
	}
	sock, err := newSocket(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("%w: %v", ErrConnect, err)
	}
	n := &conn{pool: p, nc: nc, sock: sock, buf: make([]byte, 8<<10)}
	n.reply.source = n
	return n, nil
}

func (p *pool) put(n *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) < p.c.cfg.Flight {
		p.idle = append(p.idle, n)
		return
	}
	n.nc.Close()
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.idle {
		n.nc.Close()
	}
	p.idle = nil
}

// appendHead writes the request line and the fields.
func (p *pool) appendHead(b []byte, q *query) []byte {
	b = append(append(append(b, q.method...), ' '), p.c.base.EscapedPath()...)
	b = append(append(append(b, q.path...), " HTTP/1.1\r\nHost: "...), p.c.base.Host...)
	b = append(b, "\r\nUser-Agent: meibench\r\nAccept-Encoding: identity\r\nAccept: "...)
	if q.stream {
		b = append(b, "text/event-stream"...)
	} else {
		b = append(b, "application/json"...)
	}
	if p.c.key != "" {
		b = append(append(b, "\r\nAuthorization: Bearer "...), p.c.key...)
	}
	if q.body != nil {
		b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(q.body)), 10)
	}
	return append(b, "\r\n\r\n"...)
}

// failure says what a failed read or write was: the end of the run, a timeout
// with the phase it struck in, or a connection that broke.
func (n *conn) failure(err error, doing string) error {
	var net net.Error
	switch {
	case n.q.ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, context.Cause(n.q.ctx))
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &net) && net.Timeout():
		if n.cut {
			return fmt.Errorf("%w: %s: not over after %v in all", ErrTimeout, doing, n.pool.c.cfg.Total)
		}
		return fmt.Errorf("%w: %s: nothing came for %v", ErrTimeout, doing, n.patience)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: %s: the server closed it", ErrBroken, doing)
	}
	return fmt.Errorf("%w: %s: %v", ErrBroken, doing, err)
}

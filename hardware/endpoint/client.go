// Package endpoint makes a server that speaks OpenAI's protocol a system under
// test: a [Client] that asks for completions and stamps every chunk of the
// answer, and a hardware.Device over it that offers Generate. vLLM, llama.cpp's
// server, Ollama and `meibench serve` are such servers.
//
//	c, err := endpoint.New(endpoint.Config{URL: "http://localhost:8080", Model: "m"})
//	a, err := c.Complete(ctx, endpoint.Request{Prompt: "me south straight =>", Limit: 16, Stream: true})
//	fmt.Println(a.Text, a.Chunks[0].At-a.Start)
//
// Time is stamped when bytes have been read off the socket, before anything is
// parsed; events that one read completes share its stamp. Start is taken just
// before the request is written, on a connection that is open: connecting is
// not the answer's time.
//
// Tokens are what the server says of each chunk (token ids, logprobs or running
// usage). Where it says nothing, a chunk with text is one token, and the usage at
// the end corrects the sum; see [Answer] and CountError.
//
// Nothing is asked twice unless Config.Retries says so. Redirects are not
// followed. Whatever the server sends, memory is bounded and every call ends by
// Config.Total: a broken answer is an error with its cause.
//
// For http:// the package has an HTTP/1.1 client of its own: one read per
// arrival and no goroutine per connection. A client on net/http was measured at
// 100 to 120 µs of CPU per request of 16 chunks, this one at about half (the
// benchmarks of this package measure both). https:// and proxies are net/http's.
//
// What it does not do: tools, images, several choices per request, HTTP/2
// without TLS.
package endpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"meibench/hardware"
	"meibench/internal/units"
)

// API is which of the two protocols is spoken.
type API string

// The protocols.
const (
	Completions API = "completions" // POST /v1/completions: a prompt as it is
	Chat        API = "chat"        // POST /v1/chat/completions: a user's message, through the model's chat template
)

// Config describes a server. The zero value of a field stands for its default.
type Config struct {
	URL        string         // http or https, with or without /v1; never with a password in it
	Model      string         // as the server calls it
	API        API            // default Completions
	KeyEnv     string         // environment variable that holds the bearer key; "" = no key
	Stop       []string       // stop strings
	Extra      map[string]any // more fields of the request's body; they win over ours
	LimitField string         // what the limit on tokens is called; default max_tokens
	Flight     int            // most idle connections kept, and operations in flight of a Device; default 256
	Retries    int            // times that a refused request (429, 503, no connection) is asked again; default none

	Connect   time.Duration // to have a connection; default 5 s
	FirstByte time.Duration // from the request to the first byte; default 2 min
	Idle      time.Duration // between two arrivals; default 30 s
	Total     time.Duration // for all of it; default 10 min

	Now func() time.Duration // the clock of stamps; default: since New
}

// Limits that a server cannot make us exceed.
const (
	MaxEvent  = 1 << 20  // bytes of one event, and of a reply that is not streamed
	MaxAnswer = 8 << 20  // bytes of text
	MaxBody   = 64 << 20 // bytes of one streamed reply
	MaxChunks = 1 << 17  // chunks of one answer
	MaxHeader = 64 << 10 // bytes of all header fields
)

// Request is one question.
type Request struct {
	Prompt string
	Limit  int     // most tokens to answer with; 0 = the server's default
	Seed   *uint64 // nil = none is sent
	Stream bool
	Temp   float64
	Now    func() time.Duration // the clock of stamps; nil = the client's
}

// Answer is what came.
type Answer struct {
	Text    string
	Thought string // reasoning that the server sent apart from the text
	Finish  string // stop, length, ...
	// Chunks are the arrivals with a choice in them; one without text has no
	// tokens, unless the server says otherwise.
	Chunks   []hardware.Chunk
	Thinking int // leading chunks before the first text
	Prompt   int // prompt tokens by the server's usage; -1 = it did not say
	Tokens   int // output tokens, the sum over Chunks
	Claimed  int // output tokens by the server's usage; -1 = it did not say
	// Doubt is what is questionable though the answer is whole: a *CountError.
	Doubt error

	Start, End     time.Duration // request about to be written; last event read
	Sent, Received units.Bytes   // with HTTP's framing, without TLS's
	Server         string        // the Server header
	Retries        int           // refused tries before this one
}

// Client asks one server. It is safe for concurrent use.
type Client struct {
	cfg   Config
	base  *url.URL // up to and with /v1
	key   string
	lean  *pool // nil for https and proxies
	std   *http.Transport
	shape shape
}

// New checks a configuration. It connects to nothing.
func New(cfg Config) (*Client, error) {
	base, err := Base(cfg.URL)
	if err != nil {
		return nil, err
	}
	cfg.API = cmp.Or(cfg.API, Completions)
	cfg.LimitField = cmp.Or(cfg.LimitField, "max_tokens")
	cfg.Flight = cmp.Or(max(cfg.Flight, 0), 256)
	cfg.Connect = cmp.Or(cfg.Connect, 5*time.Second)
	cfg.FirstByte = cmp.Or(cfg.FirstByte, 2*time.Minute)
	cfg.Idle = cmp.Or(cfg.Idle, 30*time.Second)
	cfg.Total = cmp.Or(cfg.Total, 10*time.Minute)
	switch {
	case cfg.API != Completions && cfg.API != Chat:
		return nil, fmt.Errorf("endpoint %s: api %q: want %s or %s", base, cfg.API, Completions, Chat)
	case min(cfg.Connect, cfg.FirstByte, cfg.Idle, cfg.Total) < 0:
		return nil, fmt.Errorf("endpoint %s: a timeout is negative", base)
	case cfg.Retries < 0 || cfg.Retries > 10:
		return nil, fmt.Errorf("endpoint %s: %d retries: want 0 to 10", base, cfg.Retries)
	}
	c := &Client{cfg: cfg, base: base}
	if cfg.KeyEnv != "" {
		if c.key = os.Getenv(cfg.KeyEnv); c.key == "" {
			return nil, fmt.Errorf("endpoint %s: the environment variable %s, which should hold the key, is empty", base, cfg.KeyEnv)
		}
		if strings.ContainsFunc(c.key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("endpoint %s: the key in %s holds characters that no header may", base, cfg.KeyEnv)
		}
	}
	if c.cfg.Now == nil {
		began := time.Now()
		c.cfg.Now = func() time.Duration { return time.Since(began) }
	}
	if c.shape, err = newShape(cfg); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", base, err)
	}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: base})
	if base.Scheme == "http" && proxy == nil && err == nil {
		c.lean = newPool(c)
	} else {
		c.std = newTransport(cfg)
	}
	return c, nil
}

// Base checks the address of a server and brings it to the form with /v1.
func Base(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		if err == nil && u.User != nil {
			address = u.Redacted()
		}
		return nil, fmt.Errorf("endpoint %q: want an address such as http://localhost:8080", address)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("endpoint %s://%s: leave password, query and fragment out of the address; a key comes from an environment variable", u.Scheme, u.Host)
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/v1") + "/v1"
	u.RawPath = ""
	return u, nil
}

// Model is the server's name of the model that is asked.
func (c *Client) Model() string { return c.cfg.Model }

// URL is the address up to and with /v1.
func (c *Client) URL() string { return c.base.String() }

// Close closes idle connections. The client can still be used.
func (c *Client) Close() {
	if c.lean != nil {
		c.lean.close()
	} else {
		c.std.CloseIdleConnections()
	}
}

// Complete asks and returns the whole answer. After an error the answer, if it
// is not nil, holds what came before it.
func (c *Client) Complete(ctx context.Context, r Request) (*Answer, error) {
	for try := 0; ; try++ {
		a, err := c.once(ctx, &r)
		if a != nil {
			a.Retries = try
		}
		wait, again := retryable(err, try)
		if !again || try >= c.cfg.Retries || ctx.Err() != nil {
			return a, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return a, err
		}
	}
}

// retryable says whether and when a refused request may be asked again.
func retryable(err error, try int) (time.Duration, bool) {
	const most = 30 * time.Second
	var refused *StatusError
	wait := min(most, 100*time.Millisecond<<min(try, 10))
	switch {
	case errors.As(err, &refused):
		return min(most, max(wait, refused.RetryAfter)), refused.Rejected()
	case errors.Is(err, ErrConnect):
		return wait, true
	}
	return 0, false
}

// once is one try.
func (c *Client) once(ctx context.Context, r *Request) (*Answer, error) {
	path := "/completions"
	if c.cfg.API == Chat {
		path = "/chat/completions"
	}
	q := &query{ctx: ctx, method: "POST", path: path, stream: r.Stream, now: r.Now}
	q.body = c.shape.body(q.body, r)
	rep, err := c.ask(q)
	if err != nil {
		return nil, err
	}
	a := &Answer{Prompt: -1, Claimed: -1, Start: rep.start, Server: rep.server}
	if err = rep.check(); err == nil {
		if r.Stream {
			err = a.stream(rep, r)
		} else {
			err = a.whole(rep, c.cfg.API)
		}
	}
	if err == nil {
		err = a.count(r.Limit)
	}
	a.Sent, a.End = rep.sent, rep.last()
	if a.Received = rep.done(err == nil); err != nil {
		a.settle(r.Limit)
		return a, fmt.Errorf("%s: %w", c.base, err)
	}
	return a, nil
}

// ask sends a query by whichever transport the address needs.
func (c *Client) ask(q *query) (*reply, error) {
	if q.now == nil {
		q.now = c.cfg.Now
	}
	var rep *reply
	var err error
	if c.lean != nil {
		rep, err = c.lean.ask(q)
	} else {
		rep, err = c.askStd(q)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.base, err)
	}
	return rep, nil
}

// Models lists what the server calls its models, and its Server header.
func (c *Client) Models(ctx context.Context) (names []string, server string, err error) {
	rep, err := c.ask(&query{ctx: ctx, method: "GET", path: "/models"})
	if err != nil {
		return nil, "", err
	}
	server = rep.server // before the connection is somebody else's
	var list struct{ Data []struct{ ID string } }
	if err = rep.check(); err == nil {
		err = rep.json(&list)
	}
	rep.done(err == nil)
	if err != nil {
		return nil, server, fmt.Errorf("%s: GET /models: %w", c.base, err)
	}
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names, server, nil
}

// FirstModel asks a server for the model that it lists first.
func FirstModel(ctx context.Context, cfg Config) (string, error) {
	c, err := New(cfg)
	if err != nil {
		return "", err
	}
	defer c.Close()
	names, _, err := c.Models(ctx)
	if err != nil {
		return "", fmt.Errorf("ask %s which models it has: %w", c.URL(), err)
	}
	if len(names) == 0 {
		return "", fmt.Errorf("ask %s which models it has: none; name the model to ask", c.URL())
	}
	return names[0], nil
}

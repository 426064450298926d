package depot

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"
)

// NodeConfig says how much a node gives. The zero value is usable.
type NodeConfig struct {
	Transfers int           // blocks under way at once, 64 if 0; more get 503 with Retry-After
	Rate      int64         // bytes a second of all transfers together; 0 for no limit
	PerClient int64         // bytes a second of one address; 0 for no limit
	Stall     time.Duration // a reader that takes nothing for so long is cut off; 30 s if 0
}

// Node is an edge node: an http.Handler that serves /health, /v1/catalogue and /v1/blocks/DIGEST, the last with ranges.
// ETag is the digest in quotes, Repr-Digest that of RFC 9530. It holds no bytes in memory but those of one write a transfer.
type Node struct {
	cfg   NodeConfig
	slots chan struct{}
	mux   *http.ServeMux

	mu     sync.Mutex
	cat    Catalogue
	places map[string]place
	far    *mirror              // nil: the node has all that it serves
	next   time.Time            // when the rate lets the next byte go
	nexts  map[string]time.Time // the same, by address
}

type place struct {
	r     io.ReaderAt
	block Block
}

// NewNode makes an empty node.
func NewNode(cfg NodeConfig) *Node {
	if cfg.Transfers < 1 {
		cfg.Transfers = 64
	}
	if cfg.Stall <= 0 {
		cfg.Stall = 30 * time.Second
	}
	n := &Node{cfg: cfg, slots: make(chan struct{}, cfg.Transfers), mux: http.NewServeMux(), places: map[string]place{}, nexts: map[string]time.Time{}}
	n.mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	n.mux.HandleFunc("GET /v1/catalogue", n.catalogue)
	n.mux.HandleFunc("GET /v1/blocks/{digest}", n.block)
	return n
}

// Add cuts a GGUF file and serves it. The reader must stay open and its bytes as they are.
func (n *Node) Add(name string, r io.ReaderAt, size int64) (*Model, error) {
	m, err := Cut(name, r, size)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.cat.Find(name); err == nil {
		return nil, fmt.Errorf("model %s is served already: give the file another name", name)
	}
	n.cat.Models = append(n.cat.Models, *m)
	for _, b := range m.Blocks {
		n.places[b.Digest] = place{r, b}
	}
	return m, nil
}

// ServeHTTP implements http.Handler.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) { n.mux.ServeHTTP(w, r) }

func (n *Node) catalogue(w http.ResponseWriter, _ *http.Request) {
	n.mu.Lock()
	data, err := json.Marshal(&n.cat)
	n.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // a reader that has gone is no error of ours
}

func (n *Node) block(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	p, ok := n.places[r.PathValue("digest")]
	far := n.far
	n.mu.Unlock()
	if !ok && far != nil {
		p.block, ok = far.blocks[r.PathValue("digest")]
	}
	if !ok {
		http.Error(w, "no such block: see /v1/catalogue", http.StatusNotFound)
		return
	}
	select {
	case n.slots <- struct{}{}:
		defer func() { <-n.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many transfers: try again", http.StatusServiceUnavailable)
		return
	}
	if p.r == nil {
		f, err := far.open(r.Context(), p.block)
		if err != nil {
			http.Error(w, fmt.Sprintf("the node has it not, and could not get it: %v", err), http.StatusBadGateway)
			return
		}
		defer f.Close()
		p.r, p.block.Offset = f, 0
	}
	sum, _ := hex.DecodeString(p.block.Digest) // checked by Model.Check
	field := "sha-256=:" + base64.StdEncoding.EncodeToString(sum) + ":"
	h := w.Header()
	h.Set("ETag", `"`+p.block.Digest+`"`)
	h.Set("Repr-Digest", field)
	if r.Header.Get("Range") == "" {
		h.Set("Content-Digest", field)
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	out := &paced{ResponseWriter: w, node: n, ctl: http.NewResponseController(w), r: r}
	http.ServeContent(out, r, "", time.Time{}, io.NewSectionReader(p.r, p.block.Offset, p.block.Bytes))
}

// paced writes no faster than the node's rate, and gives up on readers that stall.
type paced struct {
	http.ResponseWriter
	node *Node
	ctl  *http.ResponseController
	r    *http.Request
}

func (p *paced) Write(b []byte) (int, error) {
	if wait := p.node.turn(p.r.RemoteAddr, len(b)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-p.r.Context().Done():
			return 0, p.r.Context().Err()
		}
	}
	_ = p.ctl.SetWriteDeadline(time.Now().Add(p.node.cfg.Stall)) // recorders in tests have none
	return p.ResponseWriter.Write(b)
}

// turn is how long bytes to an address must wait.
func (n *Node) turn(to string, bytes int) time.Duration {
	if n.cfg.Rate <= 0 && n.cfg.PerClient <= 0 {
		return 0
	}
	if host, _, err := net.SplitHostPort(to); err == nil {
		to = host
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	wait := paceTo(&n.next, now, bytes, n.cfg.Rate)
	if n.cfg.PerClient > 0 {
		if len(n.nexts) > 10_000 {
			maps.DeleteFunc(n.nexts, func(_ string, t time.Time) bool { return t.Before(now) })
		}
		next := n.nexts[to]
		wait = max(wait, paceTo(&next, now, bytes, n.cfg.PerClient))
		n.nexts[to] = next
	}
	return wait
}

// paceTo is how long bytes wait behind those before them at a rate; 0 = none.
func paceTo(next *time.Time, now time.Time, bytes int, rate int64) time.Duration {
	if rate <= 0 {
		return 0
	}
	if next.Before(now) {
		*next = now
	}
	wait := next.Sub(now)
	*next = next.Add(time.Duration(float64(bytes) / float64(rate) * 1e9))
	return wait
}

// NewServer serves a node over HTTP/1.1 and HTTP/2, the latter with and without TLS, with large frames.
func NewServer(n *Node) *http.Server {
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	return &http.Server{Handler: n, Protocols: &p, ReadHeaderTimeout: 10 * time.Second, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 256}}
}

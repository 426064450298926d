package depot

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Client fetches models from nodes. Its fields are set before use; it may be used by several goroutines.
type Client struct {
	Sources []string     // addresses of nodes, the first that answers rightly serves; at least one
	Store   *Store       // where blocks are kept
	HTTP    *http.Client // nil for http.DefaultClient; see [NewHTTP]
	Streams int          // blocks at once, 4 if 0
	Tries   int          // rounds over all sources before a block is given up, 5 if 0
}

// ErrRefused is wrapped when bytes are not those that were asked for.
var ErrRefused = errors.New("refused")

// errSpoilt says that a continued part was wrong as a whole, and is empty now.
var errSpoilt = fmt.Errorf("%w: continued a part that another source or a crash left", ErrRefused)

// errLater says that a source is busy, and when to come back.
type errLater struct {
	status string
	after  time.Duration
}

func (e errLater) Error() string {
	return fmt.Sprintf("answered %s, again after %v", e.status, e.after)
}

// Of how often and for how long a source that is busy is waited for.
const (
	mostWaits = 100
	mostAfter = 10 * time.Second
)

// NewHTTP is a client of HTTP/1.1, or of HTTP/2 alone, without TLS where the address says http; conf is for where it says https, nil for
// that of the system.
func NewHTTP(two bool, conf *tls.Config) *http.Client {
	var p http.Protocols
	p.SetHTTP1(!two)
	p.SetHTTP2(two)
	p.SetUnencryptedHTTP2(two)
	return &http.Client{Transport: &http.Transport{Protocols: &p, TLSClientConfig: conf, DisableCompression: true, MaxIdleConnsPerHost: 16, ResponseHeaderTimeout: 30 * time.Second,
		HTTP2: &http.HTTP2Config{MaxReadFrameSize: 1 << 20, MaxReceiveBufferPerConnection: 64 << 20, MaxReceiveBufferPerStream: 16 << 20}}}
}

func (c *Client) http() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return http.DefaultClient
}

// Catalogue asks the sources in turn for what they serve.
func (c *Client) Catalogue(ctx context.Context) (*Catalogue, error) {
	var all error
	for _, src := range c.Sources {
		data, err := c.get(ctx, src+"/v1/catalogue")
		if err == nil {
			var cat *Catalogue
			if cat, err = ParseCatalogue(data); err == nil {
				return cat, nil
			}
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", src, err))
	}
	if all == nil {
		all = errors.New("no source given: want the address of a node")
	}
	return nil, all
}

func (c *Client) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http().Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %s", resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, MostCatalogue+1))
}

// Block returns a verified block from the store, fetched first if need be. The caller closes it.
func (c *Client) Block(ctx context.Context, b Block) (*os.File, error) {
	if !hexDigest.MatchString(b.Digest) || b.Bytes < 1 || b.Bytes > MostBlock {
		return nil, fmt.Errorf("block %q of %d bytes: want 64 hexadecimal digits and 1 to %d bytes", b.Digest, b.Bytes, MostBlock)
	}
	for {
		f, err := c.Store.Open(b)
		if !errors.Is(err, os.ErrNotExist) {
			return f, err
		}
		part, err := c.Store.part(ctx, b)
		if err != nil {
			return nil, err
		}
		if part == nil {
			continue
		}
		err = c.download(ctx, b, part)
		if err == nil {
			f, err = c.Store.settled(b, part)
		}
		part.Close()
		if err != nil {
			return nil, fmt.Errorf("block %s: %w", b.Digest, err)
		}
		if f != nil {
			return f, nil
		}
	}
}

// download tries all sources until the part is the block, and gives it its name.
func (c *Client) download(ctx context.Context, b Block, part *os.File) (err error) {
	if _, e := os.Stat(c.Store.path(b)); e == nil {
		return os.Remove(part.Name()) // another was quicker
	}
	if err := c.Store.room(b.Bytes); err != nil {
		return err
	}
	tries := c.Tries
	if tries < 1 {
		tries = 5
	}
	err = errors.New("no source given: want the address of a node")
	for i, waits := 0, 0; i < tries*len(c.Sources); i++ {
		if i > 0 && i%len(c.Sources) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond << min(i/len(c.Sources), 6)):
			}
		}
		src := c.Sources[i%len(c.Sources)]
		if err = c.more(ctx, src, b, part); errors.Is(err, errSpoilt) {
			err = c.more(ctx, src, b, part) // what was there before this source was asked may be the spoilt half
		}
		if err == nil {
			return os.Rename(part.Name(), c.Store.path(b))
		}
		err = fmt.Errorf("%s: %w", src, err)
		if ctx.Err() != nil {
			return err // the part stays, for the next time
		}
		if later := (errLater{}); errors.As(err, &later) && waits < mostWaits && len(c.Sources) == 1 { // it is there, and has said when
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(later.after):
			}
			waits++
			i--
		}
	}
	return err
}

// more asks a source for what the part lacks. What is there is hashed first: a crash may have left anything.
func (c *Client) more(ctx context.Context, src string, b Block, part *os.File) error {
	sum := sha256.New()
	if _, err := part.Seek(0, io.SeekStart); err != nil {
		return err
	}
	have, err := io.Copy(sum, part)
	if err != nil {
		return err
	}
	if have >= b.Bytes {
		if err := settle(b, part, have, sum.Sum(nil)); err != nil {
			return fmt.Errorf("%w: %w", errSpoilt, err)
		}
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, "GET", src+"/v1/blocks/"+b.Digest, nil)
	if err != nil {
		return err
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		req.Header.Set("If-Range", `"`+b.Digest+`"`)
	}
	resp, err := c.http().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent && have > 0:
		if r := resp.Header.Get("Content-Range"); !strings.HasPrefix(r, fmt.Sprintf("bytes %d-", have)) {
			return fmt.Errorf("%w: asked for bytes from %d, was sent %q", ErrRefused, have, r)
		}
	case resp.StatusCode == http.StatusOK:
		if _, err = part.Seek(0, io.SeekStart); err == nil {
			err = part.Truncate(0)
		}
		if err != nil {
			return err
		}
		have = 0
		sum.Reset()
	case resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests:
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || after < 0 {
			return fmt.Errorf("answered %s", resp.Status)
		}
		return errLater{resp.Status, min(time.Duration(after)*time.Second, mostAfter)}
	default:
		return fmt.Errorf("answered %s", resp.Status)
	}
	n, err := io.CopyBuffer(io.MultiWriter(part, sum), io.LimitReader(resp.Body, b.Bytes-have+1), make([]byte, 256<<10))
	if have += n; have < b.Bytes {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%w: sent %d of %d bytes: %w", ErrRefused, have, b.Bytes, err)
	}
	err = settle(b, part, have, sum.Sum(nil))
	if err != nil && resp.StatusCode == http.StatusPartialContent {
		err = fmt.Errorf("%w: %w", errSpoilt, err)
	}
	return err
}

// settle accepts a whole part, or empties it and says why.
func settle(b Block, part *os.File, have int64, sum []byte) error {
	if got := hex.EncodeToString(sum); have != b.Bytes || got != b.Digest {
		return errors.Join(fmt.Errorf("%w: %d bytes or more with SHA-256 %s, expected %d bytes with %s", ErrRefused, have, got, b.Bytes, b.Digest), part.Truncate(0))
	}
	return nil
}

// Fetch builds the file of a model at path, which appears when its SHA-256 is right. Arrived, if not nil, is told about each
// block once its bytes are in the growing file (which it may read, not write): calls come one at a time, in any order, and must not wait.
func (c *Client) Fetch(ctx context.Context, m *Model, path string, arrived func(i int, file *os.File)) error {
	return c.fetch(ctx, m, path, arrived, func() {})
}

// fetch calls whole when the file has its name, before it is closed.
func (c *Client) fetch(ctx context.Context, m *Model, path string, arrived func(int, *os.File), whole func()) error {
	if err := m.Check(); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(path), m.Name+".*.part")
	if err != nil {
		return fmt.Errorf("fetch %s: %w", m.Name, err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if err = out.Truncate(m.Bytes); err == nil {
		err = c.all(ctx, m, out, arrived)
	}
	if err == nil {
		sum := sha256.New()
		if _, err = io.Copy(sum, io.NewSectionReader(out, 0, m.Bytes)); err == nil && hex.EncodeToString(sum.Sum(nil)) != m.SHA256 {
			err = fmt.Errorf("%w: the file has SHA-256 %x, expected %s: the catalogue lies about the model", ErrRefused, sum.Sum(nil), m.SHA256)
		}
	}
	if err == nil {
		err = os.Rename(out.Name(), path)
	}
	if err == nil {
		whole()
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", m.Name, err)
	}
	return nil
}

// all writes every block to its place, several at once, started in order of use.
func (c *Client) all(ctx context.Context, m *Model, out *os.File, arrived func(int, *os.File)) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	streams := c.Streams
	if streams < 1 {
		streams = 4
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := 0
	for range min(streams, len(m.Blocks)) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(m.Blocks) || ctx.Err() != nil {
					return
				}
				if err := c.place(ctx, m.Blocks[i], out); err != nil {
					stop(fmt.Errorf("block %d: %w", i, err))
					return
				}
				if arrived != nil {
					mu.Lock()
					arrived(i, out)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (c *Client) place(ctx context.Context, b Block, out *os.File) error {
	f, err := c.Block(ctx, b)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.NewOffsetWriter(out, b.Offset), io.NewSectionReader(f, 0, b.Bytes))
	return err
}

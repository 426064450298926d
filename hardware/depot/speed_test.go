package depot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkDelivery says in MB/s how quick two streams are on loopback, beside SHA-256 alone:
//
//	go test ./hardware/depot -run '^$' -bench Delivery -benchtime 3s
func BenchmarkDelivery(b *testing.B) {
	data := make([]byte, 32<<20)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	sum := sha256.Sum256(data)
	block := Block{Digest: hex.EncodeToString(sum[:]), Bytes: int64(len(data))}
	n := NewNode(NodeConfig{})
	n.places[block.Digest] = place{bytes.NewReader(data), block}
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(n)
	s.Start()
	defer s.Close()
	two := func(b *testing.B, f func() error) {
		b.SetBytes(2 * int64(len(data)))
		for b.Loop() {
			var wg sync.WaitGroup
			var failed [2]error
			for i := range failed {
				wg.Go(func() { failed[i] = f() })
			}
			wg.Wait()
			for _, err := range failed {
				require.NoError(b, err)
			}
		}
	}
	b.Run("sha256 alone", func(b *testing.B) { two(b, func() error { sha256.Sum256(data); return nil }) })
	for _, p := range []struct {
		name string
		two  bool
	}{{"HTTP1", false}, {"HTTP2", true}} {
		c := NewHTTP(p.two, nil)
		b.Run(p.name+" no digest", func(b *testing.B) { two(b, func() error { return get(c, s.URL, block, nil) }) })
		b.Run(p.name+" digest", func(b *testing.B) { two(b, func() error { return get(c, s.URL, block, sha256.New()) }) })
		b.Run(p.name+" digest, stored", func(b *testing.B) {
			two(b, func() error {
				dir, err := os.MkdirTemp(b.TempDir(), "")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				f, err := (&Client{Sources: []string{s.URL}, HTTP: c, Store: &Store{dir: dir}}).Block(b.Context(), block)
				if err == nil {
					err = f.Close()
				}
				return err
			})
		})
	}
}

// get reads a block as a client without a disk would, and checks it if there is a sum.
func get(c *http.Client, url string, block Block, sum hash.Hash) error {
	resp, err := c.Get(url + "/v1/blocks/" + block.Digest)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if sum == nil {
		sum = none{sum}
	}
	if _, err = io.CopyBuffer(sum, resp.Body, make([]byte, 256<<10)); err != nil {
		return err
	}
	if got := sum.Sum(nil); got != nil && hex.EncodeToString(got) != block.Digest {
		return ErrRefused
	}
	return nil
}

// none is a hash that does nothing.
type none struct{ hash.Hash }

func (none) Write(b []byte) (int, error) { return len(b), nil }
func (none) Sum([]byte) []byte           { return nil }

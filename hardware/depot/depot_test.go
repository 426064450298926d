package depot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/reference/models"
)

func nano(t testing.TB) []byte {
	data, err := models.Bytes("mei-nano")
	require.NoError(t, err)
	return data
}

// serve starts a node with mei-nano behind a real socket; wrap may change what it answers.
func serve(t testing.TB, cfg NodeConfig, wrap func(http.Handler) http.Handler) (string, *Model) {
	n := NewNode(cfg)
	data := nano(t)
	m, err := n.Add("mei-nano", bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(n)
	if wrap != nil {
		s.Config.Handler = wrap(n)
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, m
}

func client(t testing.TB, urls ...string) *Client {
	s, err := OpenStore(t.TempDir(), 0)
	require.NoError(t, err)
	return &Client{Sources: urls, Store: s, Tries: 1}
}

func TestFetchGivesTheFile(t *testing.T) {
	for _, two := range []bool{false, true} {
		var proto atomic.Value
		url, m := serve(t, NodeConfig{}, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proto.Store(r.Proto); h.ServeHTTP(w, r) })
		})
		c := client(t, url)
		c.HTTP = NewHTTP(two, nil)
		cat, err := c.Catalogue(t.Context())
		require.NoError(t, err)
		require.Equal(t, *m, cat.Models[0])
		path, n := filepath.Join(t.TempDir(), "m.gguf"), 0
		require.NoError(t, c.Fetch(t.Context(), &cat.Models[0], path, func(i int, f *os.File) {
			n++
			b := make([]byte, m.Blocks[i].Bytes)
			_, err := f.ReadAt(b, m.Blocks[i].Offset)
			require.NoError(t, err)
			require.Equal(t, m.Blocks[i].Digest, fmt.Sprintf("%x", sha256.Sum256(b)))
		}))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(nano(t), got))
		require.Equal(t, len(m.Blocks), n)
		require.Equal(t, map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[two], proto.Load())
	}
}

func TestBlocksFollowLayers(t *testing.T) {
	_, m := serve(t, NodeConfig{}, nil)
	layers := map[int]bool{}
	for _, b := range m.Blocks {
		layers[b.Layer] = true
	}
	require.GreaterOrEqual(t, len(layers), 6, "five layers and what comes before them")
	require.Zero(t, m.Blocks[0].Offset, "the header comes first")
}

func TestRangesAndFields(t *testing.T) {
	url, m := serve(t, NodeConfig{}, nil)
	b := m.Blocks[1]
	want := nano(t)[b.Offset : b.Offset+b.Bytes]
	for _, tc := range []struct {
		rang, ifRange string
		status        int
		body          []byte
	}{
		{"", "", 200, want},
		{"bytes=10-19", "", 206, want[10:20]},
		{"bytes=10-", `"` + b.Digest + `"`, 206, want[10:]},
		{"bytes=10-", `"another"`, 200, want},
		{"bytes=999999999-", "", 416, nil},
	} {
		req, err := http.NewRequest("GET", url+"/v1/blocks/"+b.Digest, nil)
		require.NoError(t, err)
		if tc.rang != "" {
			req.Header.Set("Range", tc.rang)
		}
		if tc.ifRange != "" {
			req.Header.Set("If-Range", tc.ifRange)
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, tc.status, resp.StatusCode, tc)
		if tc.body != nil {
			require.True(t, bytes.Equal(tc.body, body), tc)
			require.Equal(t, `"`+b.Digest+`"`, resp.Header.Get("ETag"))
			require.True(t, strings.HasPrefix(resp.Header.Get("Repr-Digest"), "sha-256=:"))
		}
	}
}

// What is not what its digest says is refused, with the block's name, and nothing of it stays.
func TestTamperedBlocksAreRefused(t *testing.T) {
	_, m := serve(t, NodeConfig{}, nil)
	data := nano(t)
	good := func(i int) []byte { b := m.Blocks[i]; return bytes.Clone(data[b.Offset : b.Offset+b.Bytes]) }
	flipped := good(1)
	flipped[len(flipped)/2] ^= 1
	for name, sent := range map[string][]byte{
		"tampered": flipped, "truncated": good(1)[:100], "another block": good(2), "too long": append(good(1), 0), "empty": {},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(sent) }))
		c := client(t, s.URL)
		_, err := c.Block(t.Context(), m.Blocks[1])
		s.Close()
		require.ErrorIs(t, err, ErrRefused, name)
		require.ErrorContains(t, err, m.Blocks[1].Digest, name)
		_, err = c.Store.Open(m.Blocks[1])
		require.ErrorIs(t, err, os.ErrNotExist, name)
	}
}

func TestAnotherSourceHelps(t *testing.T) {
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "rubbish") }))
	defer bad.Close()
	url, m := serve(t, NodeConfig{}, nil)
	f, err := client(t, bad.URL, url).Block(t.Context(), m.Blocks[0])
	require.NoError(t, err)
	f.Close()
}

// A lying catalogue: blocks that are right in themselves and not the model's.
func TestLyingCatalogue(t *testing.T) {
	url, m := serve(t, NodeConfig{}, nil)
	lie := *m
	lie.SHA256 = hex.EncodeToString(make([]byte, 32))
	path := filepath.Join(t.TempDir(), "m")
	require.ErrorIs(t, client(t, url).Fetch(t.Context(), &lie, path, nil), ErrRefused)
	require.NoFileExists(t, path)
}

// A part that a crash left is continued from its end, and a spoilt one is thrown away.
func TestResume(t *testing.T) {
	var ranges []string
	url, m := serve(t, NodeConfig{}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ranges = append(ranges, r.Header.Get("Range"))
			h.ServeHTTP(w, r)
		})
	})
	b := m.Blocks[1]
	for _, spoilt := range []bool{false, true} {
		ranges = nil
		c := client(t, url)
		c.Tries = 2
		half := bytes.Clone(nano(t)[b.Offset : b.Offset+b.Bytes/2])
		if spoilt {
			half[7] ^= 1
		}
		require.NoError(t, os.WriteFile(c.Store.path(b)+".part", half, 0o644))
		f, err := c.Block(t.Context(), b)
		require.NoError(t, err)
		f.Close()
		want := []string{fmt.Sprintf("bytes=%d-", b.Bytes/2)}
		if spoilt {
			want = append(want, "")
		}
		require.Equal(t, want, ranges)
	}
}

func TestSpoiltCacheIsFetchedAgain(t *testing.T) {
	url, m := serve(t, NodeConfig{}, nil)
	c, b := client(t, url), m.Blocks[0]
	require.NoError(t, os.WriteFile(c.Store.path(b), make([]byte, b.Bytes), 0o644))
	f, err := c.Block(t.Context(), b)
	require.NoError(t, err)
	f.Close()
}

// Two clients of one folder ask for a block at the same moment: one downloads.
func TestTwoClientsFetchOnce(t *testing.T) {
	var n atomic.Int64
	url, m := serve(t, NodeConfig{}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			time.Sleep(50 * time.Millisecond)
			h.ServeHTTP(w, r)
		})
	})
	a := client(t, url)
	ended := make(chan error, 4)
	for range 4 {
		s, err := OpenStore(a.Store.dir, 0)
		require.NoError(t, err)
		go func() {
			f, err := (&Client{Sources: a.Sources, Store: s}).Block(context.Background(), m.Blocks[1])
			if err == nil {
				f.Close()
			}
			ended <- err
		}()
	}
	for range 4 {
		require.NoError(t, <-ended)
	}
	require.EqualValues(t, 1, n.Load())
}

func TestBudgetEvicts(t *testing.T) {
	url, m := serve(t, NodeConfig{}, nil)
	c := client(t, url)
	a, b := m.Blocks[1], m.Blocks[2]
	c.Store.budget = max(a.Bytes, b.Bytes)
	f, err := c.Block(t.Context(), a)
	require.NoError(t, err)
	_, err = c.Block(t.Context(), b)
	require.ErrorContains(t, err, "raise the budget", "the first is in use")
	f.Close()
	g, err := c.Block(t.Context(), b)
	require.NoError(t, err)
	defer g.Close()
	require.NoFileExists(t, c.Store.path(a))
}

func TestFullNodeSaysWhenToComeBack(t *testing.T) {
	n := NewNode(NodeConfig{Transfers: 1})
	data := nano(t)
	m, err := n.Add("mei-nano", bytes.NewReader(data), int64(len(data)))
	require.NoError(t, err)
	n.slots <- struct{}{}
	w := httptest.NewRecorder()
	n.ServeHTTP(w, httptest.NewRequest("GET", "/v1/blocks/"+m.Blocks[0].Digest, nil))
	require.Equal(t, 503, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
}

func TestBadCatalogues(t *testing.T) {
	_, m := serve(t, NodeConfig{}, nil)
	for name, change := range map[string]func(*Model){
		"gap":     func(m *Model) { m.Blocks = m.Blocks[1:] },
		"size":    func(m *Model) { m.Bytes++ },
		"digest":  func(m *Model) { m.Blocks[0].Digest = "../../etc" },
		"name":    func(m *Model) { m.Name = "../x" },
		"zero":    func(m *Model) { m.Blocks[0].Bytes = 0 },
		"overlap": func(m *Model) { m.Blocks = append(m.Blocks, m.Blocks[len(m.Blocks)-1]) },
		"shifted": func(m *Model) { m.Blocks[2].Offset++ },
		"order":   func(m *Model) { m.Blocks[0], m.Blocks[len(m.Blocks)-1] = m.Blocks[len(m.Blocks)-1], m.Blocks[0] },
	} {
		bad := *m
		bad.Blocks = append([]Block(nil), m.Blocks...)
		change(&bad)
		data, err := json.Marshal(Catalogue{[]Model{bad}})
		require.NoError(t, err)
		_, err = ParseCatalogue(data)
		require.Error(t, err, name)
	}
}

// Layers run as they come, and the answer is that of the model loaded whole.
func TestEarlyTokensAreThoseOfAPlainLoad(t *testing.T) {
	whole, err := models.Open("mei-nano")
	require.NoError(t, err)
	prompt := "me south straight , car east straight , dry ; may me go =>"
	w := whole.Model.NewWork(1)
	defer w.Close()
	want, err := whole.Answer(w, prompt, 12)
	require.NoError(t, err)
	url, m := serve(t, NodeConfig{Rate: 20 << 20}, nil)
	path := filepath.Join(t.TempDir(), "m.gguf")
	got, err := client(t, url).FetchRun(t.Context(), m, path, prompt, 12)
	require.NoError(t, err)
	require.Equal(t, want, got.Text)
	require.Positive(t, got.First)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(nano(t), data))
	_, err = client(t, "http://127.0.0.1:1").FetchRun(t.Context(), m, path+"2", prompt, 12)
	require.Error(t, err, "no node: an error, not a wait")
}

// A model that has come whole before its first layer is asked for has its name by then, and the growing file has none.
func TestEarlyReadsAFileThatHasItsNameAlready(t *testing.T) {
	url, m := serve(t, NodeConfig{}, nil)
	a := &arrivals{have: make([]bool, len(m.Blocks)), at: make([]time.Duration, len(m.Blocks))}
	a.cond = sync.NewCond(&a.mu)
	path := filepath.Join(t.TempDir(), "m.gguf")
	err := client(t, url).fetch(t.Context(), m, path, func(i int, f *os.File) { a.have[i], a.file = true, f }, func() {
		var out Early
		require.NoError(t, a.answer(m, "me south straight , car east straight , dry ; may me go =>", 4, &out, time.Now()))
		require.NotEmpty(t, out.IDs)
	})
	require.NoError(t, err)
}

func FuzzCatalogue(f *testing.F) {
	f.Add([]byte(`{"models":[]}`))
	f.Add([]byte(`{"models":[{"name":"a","blocks":[{"offset":9223372036854775807,"bytes":1}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseCatalogue(data); err == nil {
			for _, m := range c.Models {
				require.NoError(t, m.Check())
			}
		}
	})
}

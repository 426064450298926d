package depot

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// counting counts requests for blocks.
func counting(n *atomic.Int64, delay time.Duration) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/catalogue" {
				n.Add(1)
				time.Sleep(delay)
			}
			h.ServeHTTP(w, r)
		})
	}
}

// edge is a node that has nothing itself and mirrors another.
func edge(t *testing.T, cfg NodeConfig, budget int64, from string) (string, *Node) {
	n := NewNode(cfg)
	s, err := OpenStore(t.TempDir(), budget)
	require.NoError(t, err)
	_, err = n.Mirror(t.Context(), &Client{Sources: []string{from}, Store: s, Tries: 1})
	require.NoError(t, err)
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = NewServer(n)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL, n
}

func fetched(t *testing.T, c *Client, m *Model) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, c.Fetch(t.Context(), m, path, nil))
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(nano(t), got))
}

// A node between a device and the cloud gets every block once, for all who ask at the same time, and again what its budget gave up.
func TestC8NodesFetchFromNodes(t *testing.T) {
	var asked atomic.Int64
	cloud, m := serve(t, NodeConfig{}, counting(&asked, 20*time.Millisecond))
	url, _ := edge(t, NodeConfig{}, 0, cloud)
	ended := make(chan error, 3)
	for range 3 {
		c := client(t, url)
		path := filepath.Join(t.TempDir(), "m.gguf")
		go func() { ended <- c.Fetch(context.Background(), m, path, nil) }()
	}
	for range 3 {
		require.NoError(t, <-ended)
	}
	require.EqualValues(t, len(m.Blocks), asked.Load(), "each block once for all")
	fetched(t, client(t, url), m)
	require.EqualValues(t, len(m.Blocks), asked.Load(), "and it stays")
	last, _ := edge(t, NodeConfig{}, 0, url)
	fetched(t, client(t, last), m)
	require.EqualValues(t, len(m.Blocks), asked.Load(), "a node behind a node")

	largest := int64(0)
	for _, b := range m.Blocks {
		largest = max(largest, b.Bytes)
	}
	small, _ := edge(t, NodeConfig{}, largest, cloud)
	c := client(t, small)
	c.Streams, c.Tries = 1, 3
	fetched(t, c, m)
	c = client(t, small)
	c.Streams, c.Tries = 1, 3
	fetched(t, c, m)
	require.Greater(t, asked.Load(), int64(2*len(m.Blocks)), "what was given up comes again")
}

// Bytes that are not those of a block stop at the node: who asks is told, and asks another.
func TestX6NodesPassNothingTamperedOn(t *testing.T) {
	cloud, m := serve(t, NodeConfig{}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/catalogue" {
				h.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			body := rec.Body.Bytes()
			body[len(body)/2] ^= 1
			_, _ = w.Write(body)
		})
	})
	url, n := edge(t, NodeConfig{}, 0, cloud)
	resp, err := http.Get(url + "/v1/blocks/" + m.Blocks[1].Digest)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusBadGateway, resp.StatusCode)
	require.Contains(t, string(text), "refused")
	honest, _ := serve(t, NodeConfig{}, nil)
	fetched(t, client(t, url, honest), m)
	_, err = n.Mirror(t.Context(), client(t, honest))
	require.ErrorContains(t, err, "has one already")
	_, err = NewNode(NodeConfig{}).Mirror(t.Context(), client(t, "http://127.0.0.1:1"))
	require.ErrorContains(t, err, "mirror")
}

// A rate is each client's own, and the total is everybody's: by the clock of the pacing alone.
func TestRatesAreByClientAndTogether(t *testing.T) {
	n := NewNode(NodeConfig{PerClient: 1000, Rate: 1500})
	require.Zero(t, n.turn("10.0.0.1:1", 1000))
	require.InDelta(t, 1, n.turn("10.0.0.1:2", 1000).Seconds(), 0.05, "the same address, another port")
	require.InDelta(t, 4.0/3, n.turn("10.0.0.2:1", 1000).Seconds(), 0.05, "a client of its own, behind 2,000 bytes of all")
	free := NewNode(NodeConfig{PerClient: 1000})
	require.Zero(t, free.turn("10.0.0.1:1", 5000))
	require.Zero(t, free.turn("10.0.0.2:1", 5000))
	require.Zero(t, NewNode(NodeConfig{}).turn("10.0.0.2:1", 5000))
}

// A node that is full says when to come back, and the client comes back then, however often its tries allow.
func TestClientsComeBackWhenTold(t *testing.T) {
	var busy atomic.Int64
	busy.Store(3)
	url, m := serve(t, NodeConfig{}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/catalogue" && busy.Add(-1) >= 0 {
				w.Header().Set("Retry-After", "0")
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	c := client(t, url) // one try
	f, err := c.Block(t.Context(), m.Blocks[1])
	require.NoError(t, err)
	f.Close()
	require.Negative(t, busy.Load())
	stuck, m := serve(t, NodeConfig{}, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) })
	})
	_, err = client(t, stuck).Block(t.Context(), m.Blocks[1])
	require.ErrorContains(t, err, "503", "without a time it is an error like others")
}

// While the last layers are on their way the prompt passes the first ones: shown by the order of what happened. The first token comes
// after the longer of loading and computing, and before their sum.
func TestC7ComputingOverlapsWithLoading(t *testing.T) {
	url, m := serve(t, NodeConfig{Rate: 2 << 20}, nil)
	c := client(t, url)
	c.Streams = 1
	out, err := c.FetchRun(t.Context(), m, filepath.Join(t.TempDir(), "m.gguf"), "me south straight , car east straight , dry ; may me go =>", 4)
	require.NoError(t, err)
	last := len(out.Layers) - 1
	require.Positive(t, last)
	require.Less(t, out.Layers[0].Done, out.Layers[last].Came, "the first layer was done before the last had come")
	var compute time.Duration
	for i, l := range out.Layers {
		require.LessOrEqual(t, l.Came, l.Began)
		require.Less(t, l.Began, l.Done)
		if i > 0 {
			require.LessOrEqual(t, out.Layers[i-1].Done, l.Began)
			require.LessOrEqual(t, out.Layers[i-1].Came, l.Came)
		}
		compute += l.Done - l.Began
	}
	load := out.Layers[last].Came
	require.GreaterOrEqual(t, out.First, max(load, compute))
	idle := out.Layers[0].Began - out.Layers[0].Came
	for i := 1; i <= last; i++ {
		idle += out.Layers[i].Began - max(out.Layers[i].Came, out.Layers[i-1].Done)
	}
	require.LessOrEqual(t, out.First, load+compute+idle+(out.First-out.Layers[last].Done))
}

// What is lacking of a file is fetched and nothing else; what came otherwise is checked too, and a wrong byte in a touched block, or anywhere,
// is refused.
func TestC8GapsAreMended(t *testing.T) {
	url, m := serve(t, NodeConfig{}, nil)
	c := client(t, "http://127.0.0.1:1", url)
	want := nano(t)
	gaps := [][2]int64{{0, 10}, {m.Blocks[1].Offset + 5, m.Blocks[1].Offset + m.Blocks[1].Bytes + 7}, {int64(len(want)) - 3, int64(len(want))}}
	broken := func() []byte {
		data := bytes.Clone(want)
		for _, g := range gaps {
			clear(data[g[0]:g[1]])
		}
		return data
	}
	data := broken()
	n, err := c.Mend(t.Context(), m, data, gaps)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, data))
	require.Equal(t, 10+m.Blocks[1].Bytes+2+3, n)
	data = broken()
	data[m.Blocks[1].Offset+1] ^= 1 // beside a gap
	_, err = c.Mend(t.Context(), m, data, gaps)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "block at byte")
	data = broken()
	last := m.Blocks[3]
	data[last.Offset+1] ^= 1 // in a block without gaps
	_, err = c.Mend(t.Context(), m, data, gaps)
	require.ErrorIs(t, err, ErrRefused)
	_, err = c.Mend(t.Context(), m, data[1:], nil)
	require.ErrorContains(t, err, "bytes, the file has")
	liar, m := serve(t, NodeConfig{}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			h.ServeHTTP(w, r)
		})
	})
	_, err = client(t, liar).Mend(t.Context(), m, broken(), gaps)
	require.ErrorContains(t, err, "answered 200")
}

package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/endpoint/endtest"
	"meibench/hardware/hwtest"
	"meibench/hardware/world"
)

func scripted(t testing.TB, s endtest.Script) *endtest.Server {
	v, err := endtest.Start(s)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

func client(t testing.TB, cfg Config) *Client {
	c, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// gaps is n equal gaps.
func gaps(n int, d time.Duration) []time.Duration {
	g := make([]time.Duration, n)
	for i := range g {
		g[i] = d
	}
	return g
}

// within is the tolerance of line I14: 1 ms or 1 %, whichever is more.
func within(want, got time.Duration) error {
	tol := max(time.Millisecond, want/100)
	if d := got - want; d > tol || d < -tol {
		return fmt.Errorf("measured %v, scripted %v: more than %v apart", got, want, tol)
	}
	return nil
}

// The exact target of I14: what is measured of a server with known delays is
// what the script says. The machine may be late once; it may not be late always.
func TestI14MeasuresAScriptedServer(t *testing.T) {
	ms := time.Millisecond
	script := endtest.Script{First: 120 * ms, Gaps: []time.Duration{40 * ms, 10 * ms, 40 * ms, 10 * ms, 0, 3 * ms}, Role: true}
	for _, tc := range []struct {
		name string
		std  bool
	}{{"lean", false}, {"net/http", true}} {
		t.Run(tc.name, func(t *testing.T) {
			v := scripted(t, script)
			c := client(t, Config{URL: v.URL, Model: "scripted", API: Chat})
			if tc.std {
				c.lean, c.std = nil, newTransport(c.cfg)
			}
			var err error
			for range 6 {
				var a *Answer
				a, err = c.Complete(t.Context(), Request{Prompt: "p", Limit: 16, Stream: true})
				require.NoError(t, err)
				if err = sameTimes(script, a); err == nil {
					return
				}
			}
			require.NoError(t, err)
		})
	}
}

// sameTimes compares an answer with its script: the role comes at once and has
// no token, then the first token, then the gaps.
func sameTimes(s endtest.Script, a *Answer) error {
	with := a.Chunks[1 : len(a.Chunks)-1] // but for role and finish mark
	if a.Chunks[0].Tokens != 0 || a.Chunks[len(a.Chunks)-1].Tokens != 0 || len(with) != len(s.Gaps)+1 || a.Thinking != 1 {
		return fmt.Errorf("chunks %v, %d of them before the first text", a.Chunks, a.Thinking)
	}
	errs := []error{within(0, a.Chunks[0].At-a.Start), within(s.First, with[0].At-a.Start)}
	for i, gap := range s.Gaps {
		errs = append(errs, within(gap, with[i+1].At-with[i].At))
	}
	return errors.Join(errs...)
}

// causes is the error that each fault must give; "-" is an answer that is in doubt.
var causes = map[string]struct {
	is   error
	says string
}{
	"429":                {nil, "429 Too Many Requests: slow down (rate_limit_error) (retry after 7s)"},
	"429-plain":          {nil, "429 Too Many Requests"},
	"500":                {nil, "500 Internal Server Error: out of memory (server_error)"},
	"500-html":           {nil, "502 Bad Gateway: <html><body>bad gateway"},
	"chunk-long":         {ErrHTTP, `a chunk is longer than it says`},
	"chunk-size":         {ErrHTTP, `size of a chunk "zz"`},
	"close":              {ErrBroken, "the server closed it"},
	"close-at-once":      {ErrBroken, "the server closed it"},
	"content-type":       {ErrReply, `content type "text/plain", want text/event-stream: data: {} data: [DONE]`},
	"endless-comments":   {nil, ""}, // a limit of bytes or of time, whichever comes first
	"endless-events":     {ErrTooLarge, "chunks"},
	"endless-header":     {ErrTooLarge, "header of more than 65536 bytes"},
	"endless-line":       {ErrTooLarge, "a line of the header of more than 65536 bytes"},
	"error-event":        {ErrServer, "chunk 2: the server reports an error: the engine died"},
	"gzip":               {ErrReply, `content encoding "gzip"`},
	"half-event":         {ErrStream, "after 2 chunks without [DONE]"},
	"html":               {ErrReply, `content type "text/html", want text/event-stream: <html><title>Sign in`},
	"huge-chunk":         {ErrTooLarge, "after 2 chunks"},
	"huge-header-number": {ErrHTTP, "content length"},
	"invalid-utf8":       {ErrReply, "chunk 2: not the reply that was asked for: an event is not UTF-8"},
	"less-tokens":        {nil, "-"},
	"more-tokens":        {nil, "the server gave 1000000 tokens, 16 were asked for"},
	"negative-tokens":    {ErrReply, "completion_tokens is not a number of tokens"},
	"no-done":            {ErrStream, "after 5 chunks without [DONE]"},
	"no-usage":           {nil, "-"},
	"not-http":           {ErrHTTP, "status line"},
	"not-json":           {ErrReply, "chunk 2: not the reply that was asked for: an event is not a JSON object"},
	"redirect":           {nil, "307 Temporary Redirect"},
	"reset":              {ErrBroken, "read on after"},
	"stall":              {ErrTimeout, "nothing came for 200ms"},
	"stall-at-once":      {ErrTimeout, "wait for the first byte: nothing came for 300ms"},
	"text-tokens":        {ErrReply, "completion_tokens is not a number of tokens"},
	"two-lengths":        {ErrHTTP, "two lengths"},
	"wrong-types":        {ErrReply, "is not a string"},
}

// Every fault gives an error with its cause, soon, and in bounded memory.
func TestI14FaultsAreErrors(t *testing.T) {
	want := causes
	names, _ := endtest.Faults()
	require.Len(t, want, len(names), "a fault without an expectation, or the other way round")
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			v := scripted(t, endtest.Script{Gaps: gaps(3, 0), Fault: name})
			cfg := Config{URL: v.URL, Model: "scripted", API: Chat, Total: 5 * time.Second}
			if strings.HasPrefix(name, "stall") {
				cfg.FirstByte, cfg.Idle = 300*time.Millisecond, 200*time.Millisecond
			}
			if name == "endless-comments" {
				cfg.Total = time.Second
			}
			c := client(t, cfg)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			a, err := c.Complete(t.Context(), Request{Prompt: "p", Limit: 16, Stream: true})
			runtime.ReadMemStats(&after)
			require.Less(t, time.Since(began), 8*time.Second)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(96<<20), "memory")
			w := want[name]
			if w.says == "-" {
				require.NoError(t, err)
				require.Error(t, a.Doubt)
				return
			}
			require.ErrorContains(t, err, w.says)
			require.ErrorContains(t, err, v.URL, "says where")
			if w.is != nil {
				require.ErrorIs(t, err, w.is)
			}
			if a != nil { // what came before it is there
				for _, c := range a.Chunks {
					require.GreaterOrEqual(t, c.Tokens, 0)
				}
				require.LessOrEqual(t, a.Tokens, 16)
			}
		})
	}
}

// net/http's path has its own errors for the same causes.
func TestFaultsThroughNetHTTP(t *testing.T) {
	for name, is := range map[string]error{"stall": ErrTimeout, "stall-at-once": ErrTimeout, "reset": ErrBroken, "close": ErrBroken, "close-at-once": ErrBroken,
		"huge-chunk": ErrTooLarge, "endless-header": ErrBroken, "chunk-size": ErrBroken, "gzip": ErrReply, "no-done": ErrStream} {
		t.Run(name, func(t *testing.T) {
			v := scripted(t, endtest.Script{Gaps: gaps(3, 0), Fault: name})
			cfg := Config{URL: v.URL, API: Chat, Total: 20 * time.Second}
			if strings.HasPrefix(name, "stall") {
				cfg.FirstByte, cfg.Idle = 300*time.Millisecond, 200*time.Millisecond
			}
			c := client(t, cfg)
			c.lean, c.std = nil, newTransport(c.cfg)
			_, err := c.Complete(t.Context(), Request{Prompt: "p", Limit: 16, Stream: true})
			require.ErrorIs(t, err, is)
		})
	}
}

func TestTokenCounts(t *testing.T) {
	event := func(text string, rest string) string {
		return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"text\":%q%s}]}\n\n", text, rest)
	}
	usage := func(n int) string {
		return fmt.Sprintf("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":%d}}\n\n", n)
	}
	running := func(text string, n int) string {
		return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"text\":%q}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":%d}}\n\n", text, n)
	}
	for _, tc := range []struct {
		name   string
		stream string
		want   []int
		doubt  string
		err    string
	}{
		{"one each", event("a", "") + event("b", "") + usage(2), []int{1, 1}, "", ""},
		{"empty ones have none", event("", "") + event("a", "") + event("", `,"finish_reason":"stop"`) + usage(1), []int{0, 1, 0}, "", ""},
		{"5 tokens over 3 chunks", event("a", "") + event("b", "") + event("c", "") + usage(5), []int{1, 2, 2}, "", ""}, // floors of 5/3, 10/3, 15/3: 1, 3, 5
		{"end token on the last", event("a", "") + event("b", "") + event("c", "") + usage(4), []int{1, 1, 2}, "", ""},
		{"fewer tokens than chunks", event("a", "") + event("b", "") + event("c", "") + usage(2), []int{0, 1, 1}, "3 chunks with text, but the usage says 2 tokens", ""},
		{"no usage", event("a", "") + event("b", ""), []int{1, 1}, "no usage came", ""},
		{"token ids", event("a", `,"token_ids":[1,2,3]`) + event("b", `,"token_ids":[4]`) + usage(4), []int{3, 1}, "", ""},
		{"logprobs", event("a", `,"logprobs":{"tokens":["x","y"]}`) + event("b", `,"logprobs":{"tokens":["z"]}`) + usage(3), []int{2, 1}, "", ""},
		{"running usage", running("a", 2) + running("b", 3) + running("", 3) + running("c", 8), []int{2, 1, 0, 5}, "", ""},
		{"ids contradict the usage", event("a", `,"token_ids":[1,2,3]`) + usage(2), []int{3}, "the chunks say 3 tokens, the usage 2", ""},
		{"more than asked", event("a", "") + usage(9), nil, "", "the server gave 9 tokens, 8 were asked for"},
		{"more chunks than asked", strings.Repeat(event("a", ""), 9), nil, "", "9 chunks with text without any count of tokens, 8 tokens were asked for"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, "text/event-stream", tc.stream+"data: [DONE]\n\n")
			a, err := client(t, Config{URL: s.URL}).Complete(t.Context(), Request{Prompt: "p", Limit: 8, Stream: true})
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				require.LessOrEqual(t, a.Tokens, 8, "what is handed on is never more than was asked for")
				return
			}
			require.NoError(t, err)
			var got []int
			for _, c := range a.Chunks {
				got = append(got, c.Tokens)
			}
			require.Equal(t, tc.want, got)
			if tc.doubt == "" {
				require.NoError(t, a.Doubt)
			} else {
				require.ErrorContains(t, a.Doubt, tc.doubt)
			}
		})
	}
}

func serve(t testing.TB, contentType, body string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestRequestBody(t *testing.T) {
	t.Setenv("MEIBENCH_TEST_KEY", "s3cret-key")
	for _, tc := range []struct {
		name string
		cfg  Config
		req  Request
		want string
	}{
		{"completions", Config{Model: "m", Stop: []string{"\n"}}, Request{Prompt: "a \"b\"\nä", Limit: 5, Stream: true, Seed: new(uint64)},
			`{"prompt":"a \"b\"\nä","max_tokens":5,"temperature":0,"seed":0,"model":"m","stop":["\n"],"stream":true,"stream_options":{"include_usage":true}}`},
		{"chat", Config{Model: "m", API: Chat, LimitField: "max_completion_tokens", Extra: map[string]any{"temperature": 0.5, "top_k": 3}}, Request{Prompt: "x", Limit: 5},
			`{"messages":[{"role":"user","content":"x"}],"max_completion_tokens":5,"model":"m","temperature":0.5,"top_k":3}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := scripted(t, endtest.Script{})
			tc.cfg.URL, tc.cfg.KeyEnv = v.URL+"/base/v1/", "MEIBENCH_TEST_KEY"
			_, _ = client(t, tc.cfg).Complete(t.Context(), tc.req)
			require.Eventually(t, func() bool { return len(v.Served()) > 0 }, 5*time.Second, time.Millisecond)
			got := v.Served()[0]
			require.JSONEq(t, tc.want, got.Body)
			require.Contains(t, got.Header, "/base/v1/"+map[API]string{Chat: "chat/"}[tc.cfg.API]+"completions HTTP/1.1")
			require.Contains(t, got.Header, "Authorization: Bearer s3cret-key\r\n")
		})
	}
	_, err := New(Config{URL: "http://h", Extra: map[string]any{"stream": true}})
	require.ErrorContains(t, err, `extra field "stream"`)
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{"http://h:1": "http://h:1/v1", "https://h/v1/": "https://h/v1", "http://h/a/v1": "http://h/a/v1"} {
		u, err := Base(address)
		require.NoError(t, err)
		require.Equal(t, want, u.String())
	}
	for _, address := range []string{"h:1", "ftp://h", "", "http://u:secret@h", "http://h?key=secret", "http://h#x"} {
		_, err := New(Config{URL: address})
		require.Error(t, err, address)
		require.NotContains(t, err.Error(), "secret")
	}
	_, err := New(Config{URL: "http://h", KeyEnv: "MEIBENCH_NO_SUCH_KEY"})
	require.ErrorContains(t, err, "MEIBENCH_NO_SUCH_KEY")
}

// One connection serves one request after another; one that the server closed
// meanwhile is not used.
func TestKeepAlive(t *testing.T) {
	v := scripted(t, endtest.Script{Gaps: gaps(3, 0)})
	c := client(t, Config{URL: v.URL, API: Chat})
	for range 5 {
		_, err := c.Complete(t.Context(), Request{Prompt: "p", Stream: true})
		require.NoError(t, err)
	}
	require.Equal(t, 1, v.Dials())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: [DONE]\n\n")
	}))
	defer s.Close()
	c = client(t, Config{URL: s.URL})
	for range 3 {
		_, err := c.Complete(t.Context(), Request{Prompt: "p", Stream: true})
		require.NoError(t, err)
		s.CloseClientConnections()
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRetriesOnlyWhenAsked(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < 3 {
			w.WriteHeader(503)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: [DONE]\n\n")
	}))
	defer s.Close()
	_, err := client(t, Config{URL: s.URL}).Complete(t.Context(), Request{Prompt: "p", Stream: true})
	var status *StatusError
	require.ErrorAs(t, err, &status)
	require.Equal(t, 1, asked)
	asked = 0
	a, err := client(t, Config{URL: s.URL, Retries: 2}).Complete(t.Context(), Request{Prompt: "p", Stream: true})
	require.NoError(t, err)
	require.Equal(t, 2, a.Retries)
	bad := scripted(t, endtest.Script{Fault: "500"})
	_, err = client(t, Config{URL: bad.URL, Retries: 2}).Complete(t.Context(), Request{Prompt: "p", Stream: true})
	require.Error(t, err)
	require.Len(t, bad.Served(), 1, "a request that the server failed at may have had an effect")
}

// The end of a run ends a request that waits.
func TestCancellation(t *testing.T) {
	v := scripted(t, endtest.Script{Gaps: gaps(3, 0), Fault: "stall"})
	for _, std := range []bool{false, true} {
		c := client(t, Config{URL: v.URL, API: Chat})
		if std {
			c.lean, c.std = nil, newTransport(c.cfg)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		a, err := c.Complete(ctx, Request{Prompt: "p", Stream: true})
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(began), time.Second)
		require.Len(t, a.Chunks, 2, "what came before is kept")
	}
	v = scripted(t, endtest.Script{First: 200 * time.Millisecond})
	c := client(t, Config{URL: v.URL, API: Chat})
	_, err := c.Complete(t.Context(), Request{Prompt: "p", Stream: true})
	require.NoError(t, err)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	_, err = c.Complete(over, Request{Prompt: "p", Stream: true}) // on a warm connection
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(began), 150*time.Millisecond)
}

func TestWhole(t *testing.T) {
	s := serve(t, "application/json", `{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`)
	a, err := client(t, Config{URL: s.URL, API: Chat}).Complete(t.Context(), Request{Prompt: "p", Limit: 4})
	require.NoError(t, err)
	require.Equal(t, "hi", a.Text)
	require.Equal(t, []int{3, 2, 2, 1}, []int{a.Prompt, a.Tokens, a.Claimed, len(a.Chunks)})
	_, err = client(t, Config{URL: s.URL}).Complete(t.Context(), Request{Prompt: "p", Limit: 4})
	require.ErrorContains(t, err, "no choices[0].text")
}

func TestHTTPS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"text\":%q}],\"usage\":{\"completion_tokens\":1}}\n\ndata: [DONE]\n\n", body["prompt"])
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	c := client(t, Config{URL: s.URL})
	_, err := c.Complete(t.Context(), Request{Prompt: "p", Limit: 4, Stream: true})
	require.ErrorContains(t, err, "certificate", "an unknown certificate is refused")
	c.std.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig
	a, err := c.Complete(t.Context(), Request{Prompt: "p", Limit: 4, Stream: true})
	require.NoError(t, err)
	require.Equal(t, "p", a.Text)
	require.NoError(t, a.Doubt)
}

func TestConformance(t *testing.T) {
	v := scripted(t, endtest.Script{First: time.Millisecond, Gaps: gaps(3, time.Millisecond)})
	c := client(t, Config{URL: v.URL, API: Chat, Flight: 2})
	model := &hardware.Model{Name: "m", Layers: 2}
	hwtest.Device(t, func(env world.Env) hardware.Device {
		d, err := NewDevice(env, "server", c)
		require.NoError(t, err)
		return d
	}, hwtest.DeviceOptions{Model: model, Text: "p", Measured: true})
	_, err := NewDevice(world.NewSim(t.Context()), "server", c)
	require.ErrorContains(t, err, "mode measured")
}

// Two sequences in one operation, a slot that is waited for, and a failure that
// keeps what came before it.
func TestDevice(t *testing.T) {
	v := scripted(t, endtest.Script{First: 20 * time.Millisecond, Gaps: gaps(3, time.Millisecond)})
	w := world.NewReal(t.Context())
	d, err := NewDevice(w, "server", client(t, Config{URL: v.URL, API: Chat, Flight: 1}))
	require.NoError(t, err)
	op := &hardware.Op{Kind: hardware.Generate, Seqs: []hardware.Seq{{ID: 1, Text: "a", Limit: 8}, {ID: 2, Text: "b", Limit: 8}}}
	var usages []hardware.Usage
	var texts []string
	var errs []error
	for range 2 {
		w.Go("ask", func() { // no require in here: it would end the goroutine and leave the world waiting
			res, err := d.Run(op)
			errs, usages = append(errs, err), append(usages, res.Usage)
			for _, out := range res.Seqs {
				texts = append(texts, out.Text)
			}
		})
	}
	require.NoError(t, w.Run())
	require.Equal(t, []error{nil, nil}, errs)
	require.Equal(t, []string{" x x x x", " x x x x", " x x x x", " x x x x"}, texts)
	require.GreaterOrEqual(t, usages[1].Start, usages[0].End, "one slot")
	v = scripted(t, endtest.Script{Gaps: gaps(3, 0), Fault: "reset"})
	w = world.NewReal(t.Context())
	d, err = NewDevice(w, "server", client(t, Config{URL: v.URL, API: Chat}))
	require.NoError(t, err)
	var res hardware.Result
	w.Go("ask", func() {
		res, err = d.Run(&hardware.Op{Kind: hardware.Generate, Seqs: []hardware.Seq{{ID: 1, Text: "a", Limit: 1}}})
	})
	require.NoError(t, w.Run())
	require.ErrorIs(t, err, ErrBroken)
	require.Len(t, res.Seqs[0].Chunks, 2)
	require.Equal(t, 1, res.Seqs[0].Chunks[0].Tokens+res.Seqs[0].Chunks[1].Tokens, "never more than asked for")
}

// childEnv makes the test binary a server: Canned writes per answer.
const childEnv = "MEIBENCH_ENDPOINT_CHILD"

// child is the server's process of the benchmarks: what it costs is not counted.
func child() bool {
	var writes int
	if n, _ := fmt.Sscan(os.Getenv(childEnv), &writes); n != 1 {
		return false
	}
	v, err := endtest.Start(endtest.Script{Gaps: make([]time.Duration, 15), Canned: writes})
	if err != nil {
		fmt.Println("error", err)
		return true
	}
	fmt.Println(v.URL)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent goes
	v.Close()
	return true
}

func TestMain(m *testing.M) {
	if child() {
		return
	}
	os.Exit(m.Run())
}

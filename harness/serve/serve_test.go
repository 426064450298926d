package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/endpoint"
	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/token"
	"meibench/workloads/tasks"
)

func nano(t testing.TB) *models.Loaded {
	m, err := models.Open("mei-nano")
	require.NoError(t, err)
	return m
}

// start serves a configuration on a free port.
func start(t testing.TB, cfg Config) (*Server, string) {
	if cfg.Models == nil {
		cfg.Models = []Model{{Name: "nano", Loaded: nano(t)}}
	}
	s, err := New(cfg)
	require.NoError(t, err)
	h := httptest.NewServer(s)
	t.Cleanup(func() { h.CloseClientConnections(); h.Close(); s.Close() })
	return s, h.URL
}

// alone is what the engine answers to a prompt when it runs nothing else.
func alone(t testing.TB, m *models.Loaded, a *llm.Adapter, prompt string, limit int) (ids []int32) {
	w := m.Model.NewWork(1)
	defer w.Close()
	c, err := m.Model.NewCache(0, m.Model.Layers, m.Model.Context)
	require.NoError(t, err)
	next := m.Tokenizer.EncodePrompt(prompt)
	for len(ids) < limit {
		seqs := []llm.Seq{{IDs: next, Cache: c, Adapter: a}}
		require.NoError(t, w.Forward(0, m.Model.Layers, seqs))
		id := llm.Greedy(seqs[0].Out)
		ids, next = append(ids, id), []int32{id}
		if m.Tokenizer.Ends(id) {
			break
		}
	}
	return ids
}

// spelled is the text of ids as a stream of pieces, up to the end of text.
func spelled(tok *token.Tokenizer, ids []int32) string {
	text := ""
	for _, id := range ids {
		text += tok.Piece(id)
	}
	return text
}

func prompts(n int) (list []string) {
	for i := range n {
		task := tasks.Table[i%len(tasks.Table)]
		list = append(list, task.Draw(uint64(i), tasks.Test, tasks.Easy, 1)[0].Prompt)
	}
	return list
}

func post(t testing.TB, url, body string) (int, map[string]any, http.Header) {
	r, err := http.Post(url, "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer r.Body.Close()
	var v map[string]any
	data, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &v), string(data))
	return r.StatusCode, v, r.Header
}

// The exact target: what is served greedily in a crowd, in chunks, whole and
// streamed, is token for token what the engine answers alone.
func TestI14ServedEqualsAlone(t *testing.T) {
	m := nano(t)
	_, url := start(t, Config{Models: []Model{{Name: "nano", Loaded: m}}, Batch: 3, Chunk: 7})
	var wait sync.WaitGroup
	for i, p := range prompts(15) {
		wait.Go(func() {
			want := alone(t, m, nil, p, 24)
			c, err := endpoint.New(endpoint.Config{URL: url, Model: "nano", Extra: map[string]any{"return_token_ids": true}})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			a, err := c.Complete(t.Context(), endpoint.Request{Prompt: p, Limit: 24, Stream: i%3 != 0})
			if err != nil || a.Doubt != nil {
				t.Errorf("prompt %d: %v, %v", i, err, a)
				return
			}
			if text := spelled(m.Tokenizer, want); a.Text != text || a.Tokens != len(want) || a.Claimed != len(want) || a.Prompt != len(m.Tokenizer.EncodePrompt(p)) {
				t.Errorf("prompt %d: %q (%d tokens, %d claimed), alone %q (%d)", i, a.Text, a.Tokens, a.Claimed, text, len(want))
			}
		})
	}
	wait.Wait()
}

// Sequences with different adapters share a step, and each answers as alone.
func TestI14AdaptersShareABatch(t *testing.T) {
	m := nano(t)
	cfg := Config{Models: []Model{{Name: "nano", Loaded: m}}, Batch: 8, Chunk: 11}
	deltas := map[string]*llm.Adapter{"nano": nil}
	for i := range 3 {
		luck := rng.Stream(uint64(i), "adapter")
		draw := func(n int) []float32 {
			x := make([]float32, n)
			for k := range x {
				x[k] = float32(0.2 * rng.Normal(luck))
			}
			return x
		}
		q, name := &m.Model.Blocks[0].Q, fmt.Sprint("lora-", i)
		d, err := m.Model.NewAdapter(4, []llm.Pair{{Name: "blk.0.attn_q.weight", Rank: 2, N: q.N, K: q.K, A: draw(2 * q.K), B: draw(2 * q.N)}})
		require.NoError(t, err)
		cfg.Adapters = append(cfg.Adapters, Adapter{Name: name, Base: "nano", Delta: d})
		deltas[name] = d
	}
	s, url := start(t, cfg)
	require.Equal(t, []string{"nano", "lora-0", "lora-1", "lora-2"}, s.Names())
	p := prompts(1)[0]
	texts := map[string]bool{}
	var wait sync.WaitGroup
	var mu sync.Mutex
	for range 3 {
		for name, d := range deltas {
			wait.Go(func() {
				c, err := endpoint.New(endpoint.Config{URL: url, Model: name, API: endpoint.Chat})
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				a, err := c.Complete(t.Context(), endpoint.Request{Prompt: p, Limit: 24, Stream: true})
				if want := spelled(m.Tokenizer, alone(t, m, d, p, 24)); err != nil || a.Text != want {
					t.Errorf("%s: %v, %+v, alone %q", name, err, a, want)
					return
				}
				mu.Lock()
				texts[a.Text] = true
				mu.Unlock()
			})
		}
	}
	wait.Wait()
	require.Greater(t, len(texts), 1, "adapters change answers")
	_, err := New(Config{Models: cfg.Models, Adapters: []Adapter{{Name: "a", Base: "lora-0"}}})
	require.ErrorContains(t, err, `there is no model "lora-0"`)
}

// By ids, so that equal texts of different tokens do not pass.
func TestTokenIDs(t *testing.T) {
	m := nano(t)
	_, url := start(t, Config{Models: []Model{{Name: "nano", Loaded: m}}})
	p := prompts(1)[0]
	_, v, _ := post(t, url+"/v1/completions", fmt.Sprintf(`{"model":"nano","prompt":%q,"max_tokens":24,"temperature":0,"return_token_ids":true}`, p))
	var got []int32
	for _, id := range v["choices"].([]any)[0].(map[string]any)["token_ids"].([]any) {
		got = append(got, int32(id.(float64)))
	}
	require.Equal(t, alone(t, m, nil, p, 24), got)
}

func TestChatPlainIsTheContents(t *testing.T) {
	m := nano(t)
	s, url := start(t, Config{Models: []Model{{Name: "nano", Loaded: m}, {Name: "ml", Loaded: m, Template: "chatml"}}})
	require.Equal(t, []string{"plain", "chatml"}, []string{s.Chat("nano"), s.Chat("ml")})
	p := prompts(3)[2]
	for _, content := range []string{fmt.Sprintf("%q", p), fmt.Sprintf(`[{"type":"text","text":%q}]`, p)} {
		_, v, _ := post(t, url+"/v1/chat/completions", fmt.Sprintf(`{"model":"nano","messages":[{"role":"user","content":%s}],"max_completion_tokens":24,"temperature":0}`, content))
		c := v["choices"].([]any)[0].(map[string]any)
		require.Equal(t, map[string]any{"role": "assistant", "content": spelled(m.Tokenizer, alone(t, m, nil, p, 24))}, c["message"])
		require.Equal(t, "stop", c["finish_reason"])
	}
	status, _, _ := post(t, url+"/v1/chat/completions", `{"model":"ml","messages":[{"role":"user","content":"a"}],"max_tokens":4}`)
	require.Equal(t, 200, status)
}

func TestStopStrings(t *testing.T) {
	m := nano(t)
	_, url := start(t, Config{Models: []Model{{Name: "nano", Loaded: m}}})
	p := prompts(1)[0]
	whole := spelled(m.Tokenizer, alone(t, m, nil, p, 24))
	require.Greater(t, len(whole), 5)
	stop := whole[2:5] // may lie across tokens
	want := whole[:strings.Index(whole, stop)]
	for _, stream := range []bool{false, true} {
		c, err := endpoint.New(endpoint.Config{URL: url, Model: "nano", Stop: []string{"never", stop}})
		require.NoError(t, err)
		a, err := c.Complete(t.Context(), endpoint.Request{Prompt: p, Limit: 24, Stream: stream})
		require.NoError(t, err)
		require.Equal(t, want, a.Text)
		require.Equal(t, "stop", a.Finish)
		c.Close()
	}
}

// Text that may become a stop string is held back, and let go if it does not.
func TestRelease(t *testing.T) {
	tl := &teller{stops: []string{"abc", "cd"}}
	var got []string
	for _, s := range []string{"xa", "b", "a", "bx", "c"} {
		got = append(got, tl.release(s, false))
	}
	got = append(got, tl.release("e", true))
	require.Equal(t, []string{"x", "", "ab", "abx", "", "ce"}, got)
	require.Empty(t, tl.finish)
	require.Equal(t, "1", tl.release("1abcd", false), "the first of two")
	require.Equal(t, "stop", tl.finish)
}

func TestSampling(t *testing.T) {
	_, url := start(t, Config{})
	one := func(more string) string {
		_, v, _ := post(t, url+"/v1/completions", `{"model":"nano","prompt":"the","max_tokens":20,`+more+`}`)
		return v["choices"].([]any)[0].(map[string]any)["text"].(string)
	}
	require.Equal(t, one(`"temperature":2,"seed":5`), one(`"temperature":2,"seed":5`), "a seed repeats")
	require.NotEqual(t, one(`"temperature":2,"seed":5`), one(`"temperature":2,"seed":6`))
	require.NotEqual(t, one(`"temperature":2`), one(`"temperature":2`), "without a seed each request has luck of its own")
	require.Equal(t, one(`"temperature":0`), one(`"temperature":2,"top_p":1e-9`), "a nucleus of one token is greedy")
	require.Equal(t, one(`"temperature":0`), one(`"temperature":2,"top_k":1`))
}

func TestRefusals(t *testing.T) {
	_, url := start(t, Config{MaxBody: 4096})
	for _, tc := range []struct {
		path, body string
		status     int
		param      any
		says       string
	}{
		{"completions", `{"model":"x","prompt":"a"}`, 404, "model", `no model "x" here: have nano`},
		{"completions", `{"model":"nano"}`, 400, "prompt", "want one text"},
		{"completions", `{"model":"nano","prompt":["a","b"]}`, 400, "prompt", "want one text"},
		{"completions", `{"model":"nano","prompt":[1,99999]}`, 400, "prompt", "token 99999"},
		{"completions", `{"model":"nano","prompt":"a","max_tokens":100000}`, 400, "prompt", "the context is"},
		{"completions", `{"model":"nano","prompt":"a","max_tokens":0}`, 400, "max_tokens", "1 or more"},
		{"completions", `{"model":"nano","prompt":"a","n":2}`, 400, "n", "one answer"},
		{"completions", `{"model":"nano","prompt":"a","temperature":3}`, 400, "temperature", "0 to 2"},
		{"completions", `{"model":"nano","prompt":"a","temperature":"hot"}`, 400, "temperature", "want float64, got string"},
		{"completions", `{"model":"nano","prompt":"a","logprobs":3}`, 400, "logprobs", "not offered"},
		{"completions", `{"model":"nano","prompt":"a","stop":[""]}`, 400, "stop", "0 bytes"},
		{"completions", `{"model":`, 400, nil, "not JSON"},
		{"completions", `{"prompt":"` + strings.Repeat("x", 5000) + `"}`, 413, nil, "more than 4096 bytes"},
		{"chat/completions", `{"model":"nano","messages":[]}`, 400, "messages", "at least one"},
		{"chat/completions", `{"model":"nano","messages":[{"role":"robot","content":"a"}]}`, 400, "messages", `messages[0].role "robot"`},
		{"chat/completions", `{"model":"nano","messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, 400, "messages", "parts of type text"},
		{"embeddings", `{}`, 404, nil, "no POST /v1/embeddings here"},
	} {
		t.Run(tc.says, func(t *testing.T) {
			status, v, _ := post(t, url+"/v1/"+tc.path, tc.body)
			require.Equal(t, tc.status, status)
			e := v["error"].(map[string]any)
			require.Contains(t, e["message"], tc.says)
			require.Equal(t, "invalid_request_error", e["type"])
			require.Equal(t, tc.param, e["param"])
		})
	}
}

func TestWrongMethods(t *testing.T) {
	_, url := start(t, Config{})
	for path, method := range map[string]string{"/v1/models": "GET", "/health": "GET", "/v1/completions": "POST", "/v1/chat/completions": "POST"} {
		req, err := http.NewRequest(http.MethodPut, url+path, nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode, path)
		require.Equal(t, method, resp.Header.Get("Allow"))
	}
}

func TestKey(t *testing.T) {
	_, url := start(t, Config{Key: "k"})
	status, v, _ := post(t, url+"/v1/completions", `{"model":"nano","prompt":"a"}`)
	require.Equal(t, 401, status)
	require.NotContains(t, fmt.Sprint(v), "Bearer k")
	t.Setenv("MEIBENCH_TEST_KEY", "k")
	c, err := endpoint.New(endpoint.Config{URL: url, KeyEnv: "MEIBENCH_TEST_KEY"})
	require.NoError(t, err)
	names, server, err := c.Models(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"nano"}, names)
	require.Equal(t, "meibench", server)
}

// slow is a request that takes as long as the context allows: it never ends by
// itself, because all tokens but the end of text are as likely at this temperature.
func slow(ctx context.Context, url string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/completions", strings.NewReader(`{"model":"nano","prompt":"a","max_tokens":100,"stream":true,"temperature":2,"seed":1}`))
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(r)
}

// stepped is a server whose engine makes a step when the test says so, so that
// what happens meanwhile is not a matter of speed. Between steps the engine's
// fields are the test's.
func stepped(t *testing.T, cfg Config) (e *engine, url string, step func()) {
	turn, made := make(chan struct{}), make(chan struct{})
	s, err := New(Config{Models: []Model{{Name: "nano", Loaded: nano(t)}}, Batch: cfg.Batch, Queue: cfg.Queue})
	require.NoError(t, err)
	s.Close() // its engine; another loop takes its place
	e = newEngine(&s.cfg, s.cfg.Models[0].Loaded)
	s.served["nano"].engine, s.engines[0] = e, e
	e.done.Go(func() {
		defer e.work.Close()
		for range turn {
			if e.admit() {
				e.plan()
				e.forward()
			}
			made <- struct{}{}
		}
	})
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		h.CloseClientConnections()
		close(turn)
		e.done.Wait()
		h.Close()
	})
	return e, h.URL, func() { turn <- struct{}{}; <-made }
}

// A client that hangs up leaves the batch at the next step.
func TestHangUp(t *testing.T) {
	e, url, step := stepped(t, Config{Batch: 4, Queue: 4})
	ctx, hangUp := context.WithCancel(t.Context())
	got := make(chan *http.Response, 1)
	go func() {
		r, err := slow(ctx, url)
		if err == nil {
			got <- r
		}
		close(got)
	}()
	step() // waits for the request, then makes a token
	r := <-got
	require.NotNil(t, r)
	step()
	require.EqualValues(t, 1, e.active.Load())
	j := e.jobs[0]
	hangUp()
	require.Eventually(t, func() bool { return j.ctx.Err() != nil }, 5*time.Second, time.Millisecond, "the server notices")
	go func() { // a second one, or the engine would wait for work
		if r, err := slow(t.Context(), url); err == nil {
			r.Body.Close()
		}
	}()
	require.Eventually(t, func() bool { return len(e.queue) == 1 }, 5*time.Second, time.Millisecond)
	step()
	require.Equal(t, 2, j.n, "no token after it hung up")
	require.Len(t, e.jobs, 1)
	require.NotSame(t, j, e.jobs[0])
}

func TestQueueFull(t *testing.T) {
	e, url, step := stepped(t, Config{Batch: 1, Queue: 2})
	for range 3 {
		go func() {
			if r, err := slow(t.Context(), url); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		}()
	}
	step() // one in the batch, two in line
	require.Eventually(t, func() bool { return len(e.queue) == 2 }, 5*time.Second, time.Millisecond)
	status, v, h := post(t, url+"/v1/completions", `{"model":"nano","prompt":"a"}`)
	require.Equal(t, 429, status)
	require.Equal(t, "1", h.Get("Retry-After"))
	require.Equal(t, "queue_full", v["error"].(map[string]any)["code"])
}

// The end of the context lets requests end, and refuses new connections.
func TestGracefulEnd(t *testing.T) {
	s, err := New(Config{Models: []Model{{Name: "nano", Loaded: nano(t)}}})
	require.NoError(t, err)
	defer s.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	srv := &http.Server{}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, srv, func() error { return srv.Serve(ln) }, 10*time.Second) }()
	url := "http://" + ln.Addr().String()
	r, err := slow(t.Context(), url)
	require.NoError(t, err)
	stop()
	data, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.True(t, bytes.HasSuffix(data, []byte("data: [DONE]\n\n")), "the answer under way is whole")
	require.NoError(t, <-ended)
	_, err = http.Get(url + "/health")
	require.Error(t, err)
}

func TestHealth(t *testing.T) {
	_, url := start(t, Config{})
	r, err := http.Get(url + "/health")
	require.NoError(t, err)
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.JSONEq(t, `{"status":"ok","models":["nano"],"active":0,"queued":0}`, string(data))
}

package eval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/token"
	"meibench/workloads/tasks"
)

// oracle knows the answers to a share of the questions: all whose prompt has a
// length that is not a multiple of three.
type oracle map[string]string

func newOracle(seed uint64, split tasks.Split) oracle {
	o := oracle{}
	for _, t := range tasks.Table {
		for id := range 20000 {
			if in := t.Generate(seed, id); in.Split == split {
				o[in.Prompt] = in.Answer
			}
		}
	}
	return o
}

func (o oracle) knows(prompt string) bool { return len(prompt)%3 != 0 }

func (o oracle) Answer(_ context.Context, prompts []string, _ int, done func(int)) ([]string, error) {
	out := make([]string, len(prompts))
	for i, p := range prompts {
		if out[i] = "zebra"; o.knows(p) {
			out[i] = o[p]
		}
		done(i + 1)
	}
	return out, nil
}

// The report counts exactly the questions that the oracle knows, in each part.
func TestTasks(t *testing.T) {
	o := newOracle(5, tasks.Test)
	asked := 0
	r, err := Tasks(t.Context(), o, Options{N: 60, Seed: 5, Progress: func(app string, done, of int) {
		require.Equal(t, 120, of)
		asked++
	}})
	require.NoError(t, err)
	require.Equal(t, 5*120, asked)
	require.Len(t, r.Applications, len(tasks.Table))
	for i, a := range r.Applications {
		task := tasks.Table[i]
		require.Equal(t, task.Name, a.Name)
		known := map[int]int{}
		n := map[int]int{}
		for _, d := range []tasks.Difficulty{tasks.Easy, tasks.Hard} {
			for _, in := range task.Draw(5, tasks.Test, d, 60) {
				n[in.Level]++
				if o.knows(in.Prompt) {
					known[in.Level]++
				}
			}
		}
		require.Equal(t, 60, a.Easy.N)
		require.Equal(t, 60, a.Hard.N)
		easy, hard := known[1]+known[2], known[3]+known[4]+known[5]
		require.InDelta(t, float64(easy)/60, a.Easy.Exact.Value, 1e-12)
		require.InDelta(t, float64(hard)/60, a.Hard.Exact.Value, 1e-12)
		require.InDelta(t, float64(easy+hard)/120, a.Exact.Value, 1e-12)
		for level := 1; level <= tasks.Levels; level++ {
			s := a.Levels[level-1]
			require.Equal(t, n[level], s.N)
			require.InDelta(t, float64(known[level])/float64(n[level]), s.Exact.Value, 1e-12)
			require.LessOrEqual(t, s.Exact.Lo, s.Exact.Value)
			require.GreaterOrEqual(t, s.Exact.Hi, s.Exact.Value)
		}
	}
}

// Two answers in three right: mean 2/3, deviation √(2·(1/3)² + (2/3)²)/√2 = 0.5774, over √3
// 0.3333, times 1.96, and no higher than a credit can be.
func TestMean(t *testing.T) {
	m := mean([]float64{1, 0, 1})
	require.InDelta(t, 2.0/3, m.Value, 1e-12)
	require.InDelta(t, 2.0/3-1.959964/3, m.Lo, 1e-6)
	require.Equal(t, 1.0, m.Hi)
	require.Equal(t, 0.0, mean([]float64{0, 1, 0}).Lo)
	require.InDelta(t, 0.5+1.959964*math.Sqrt(0.04/3/4), mean([]float64{0.4, 0.6, 0.4, 0.6}).Hi, 1e-6) // deviation √(0.04/3), over √4
}

func TestScore(t *testing.T) {
	in := func(prompt, answer string) tasks.Instance {
		return tasks.Instance{Task: "ar", Prompt: prompt, Answer: answer, Level: 1}
	}
	all := []graded{{in("a", "x"), Grade{true, 1}}, {in("a", "x"), Grade{false, 0.5}}, {in("b", "y"), Grade{}}}
	s := score(all, func(tasks.Instance) bool { return true })
	require.Equal(t, 3, s.N)
	require.Equal(t, 2, s.Distinct)
	require.InDelta(t, 1.0/3, s.Exact.Value, 1e-12)
	require.InDelta(t, 0.5, s.Credit.Value, 1e-12)
	require.InDelta(t, 2.0/3, s.Constant, 1e-12, "two of three answers are x")
	none := score(all, func(tasks.Instance) bool { return false })
	require.Zero(t, none.N)
	_, err := json.Marshal(none)
	require.NoError(t, err, "no questions, no NaN")
}

func TestOptions(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"split", Options{Split: "exam"}, `split "exam": want train, validation or test`},
		{"count", Options{N: -1}, "-1 questions: want at least 1"},
		{"application", Options{Apps: []string{"poetry"}}, `look up task "poetry": unknown`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Tasks(t.Context(), oracle{}, tc.o)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// tiny is a model with random weights over the bytes and what a few words merge to.
func tiny(t *testing.T) *models.Loaded {
	meta, err := token.Train(func(yield func(string) bool) { yield("the cat sat on the mat") }, 262, "gpt-2")
	require.NoError(t, err)
	tok, err := token.New(meta)
	require.NoError(t, err)
	m, err := llm.New(llm.Config{Arch: llm.Llama, Vocab: tok.Len(), Dim: 16, Layers: 3, Heads: 2, KVHeads: 1, FFN: 16, Context: 64, Tied: true}, 3)
	require.NoError(t, err)
	return &models.Loaded{Name: "tiny", Model: m, Tokenizer: tok}
}

// Batches and threads change nothing: each answer is that of the prompt alone,
// generated token by token from the whole text so far.
func TestLocal(t *testing.T) {
	m := tiny(t)
	var prompts []string
	for i := range 40 {
		prompts = append(prompts, strings.Repeat("cat ", 1+i%7)+fmt.Sprint(i))
	}
	for _, layers := range []int{0, 2} {
		for _, threads := range []int{1, 3} {
			l := NewLocal(m, threads)
			l.Layers = layers
			last := 0
			got, err := l.Answer(t.Context(), prompts, 12, func(n int) { last = max(last, n) })
			require.NoError(t, err)
			require.Equal(t, len(prompts), last)
			for i, p := range prompts {
				require.Equal(t, alone(t, m, layers, p, 12), got[i], "layers %d, %d threads, prompt %d", layers, threads, i)
			}
		}
	}
	l := NewLocal(m, 1)
	_, err := l.Answer(t.Context(), []string{strings.Repeat("x", 70)}, 4, nil)
	require.ErrorContains(t, err, "the model's context 64")
	l.Layers = 4
	_, err = l.Answer(t.Context(), prompts, 4, nil)
	require.ErrorContains(t, err, "answer from layer 4: the model has layers 1 to 3")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	l.Layers = 0
	_, err = l.Answer(ctx, prompts, 4, nil)
	require.ErrorIs(t, err, context.Canceled)
}

// alone decodes one prompt without a cache that lives on: the text so far is
// read again for every token.
func alone(t *testing.T, m *models.Loaded, layers int, prompt string, most int) string {
	if layers == 0 {
		layers = m.Model.Layers
	}
	ids := m.Tokenizer.EncodePrompt(prompt)
	n := len(ids)
	w := m.Model.NewWork(1)
	defer w.Close()
	for len(ids)-n < most {
		c, err := m.Model.NewCache(0, layers, len(ids))
		require.NoError(t, err)
		s := []llm.Seq{{IDs: ids, Cache: c, Want: llm.LastLogits}}
		require.NoError(t, w.Forward(0, layers, s))
		id := llm.Greedy(s[0].Out)
		if m.Tokenizer.Ends(id) {
			break
		}
		ids = append(ids, id)
	}
	return m.Tokenizer.Decode(ids[n:])
}

// A server that speaks the completions protocol and knows some answers.
func server(t *testing.T, o oracle) *httptest.Server {
	var mu sync.Mutex
	asked := 0
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"mei","object":"model"}]}`)
	})
	mux.HandleFunc("POST /v1/completions", func(w http.ResponseWriter, r *http.Request) {
		var c struct {
			Model, Prompt string
			MaxTokens     int `json:"max_tokens"`
			Temperature   float64
			Stop          []string
		}
		require.NoError(t, json.NewDecoder(r.Body).Decode(&c))
		require.Equal(t, "mei", c.Model)
		require.Zero(t, c.Temperature)
		require.Equal(t, []string{"\n"}, c.Stop)
		require.Equal(t, AnswerMost, c.MaxTokens)
		mu.Lock()
		asked++
		mu.Unlock()
		out, _ := o.Answer(r.Context(), []string{c.Prompt}, c.MaxTokens, func(int) {})
		require.NoError(t, json.NewEncoder(w).Encode(map[string]any{"choices": []map[string]any{{"text": " " + out[0], "finish_reason": "stop"}}}))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// The same questions by HTTP and in place give the same report.
func TestEndpoint(t *testing.T) {
	o := newOracle(5, tasks.Test)
	opts := Options{Apps: []string{"driving"}, N: 30, Seed: 5}
	want, err := Tasks(t.Context(), o, opts)
	require.NoError(t, err)
	s := server(t, o)
	for _, address := range []string{s.URL, s.URL + "/", s.URL + "/v1", s.URL + "/v1/"} {
		got, err := Tasks(t.Context(), &Endpoint{URL: address}, opts)
		require.NoError(t, err)
		require.Equal(t, want.Applications, got.Applications)
	}
}

func TestEndpointErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		url  string
		h    http.HandlerFunc
		want string
	}{
		{"no address", "localhost:8080", nil, `endpoint "localhost:8080": want an address such as http://localhost:8080`},
		{"nobody there", "http://127.0.0.1:1", nil, "is the server running?"},
		{"refusal", "", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "model is loading", http.StatusServiceUnavailable)
		}, "503 Service Unavailable: model is loading"},
		{"not JSON", "", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, `content type "text/html", want application/json: <html>`},
		{"another protocol", "", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"choices":[{"message":{}}]}`) }, "no choices[0].text"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			address := tc.url
			if tc.h != nil {
				s := httptest.NewServer(tc.h)
				defer s.Close()
				address = s.URL
			}
			_, err := (&Endpoint{URL: address, Model: "m"}).Answer(t.Context(), []string{"a", "b"}, 4, nil)
			require.ErrorContains(t, err, tc.want)
		})
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"data":[]}`) }))
	defer s.Close()
	_, err := (&Endpoint{URL: s.URL}).Answer(t.Context(), []string{"a"}, 4, nil)
	require.ErrorContains(t, err, "none; name the model to ask")
}

// Perplexity against the definition: every scored token's likelihood from a
// forward pass over exactly the tokens its window shows it.
func TestText(t *testing.T) {
	m := tiny(t)
	text := strings.Repeat("the cat sat on the mat and the dog sat on the cat. ", 3)
	ids := m.Tokenizer.EncodePrompt(text)
	for _, tc := range []struct{ window, stride int }{{16, 8}, {16, 4}, {64, 32}, {10, 9}} {
		p, err := Text(t.Context(), m, text, TextOptions{Window: tc.window, Stride: tc.stride, Threads: 2, Seed: 1})
		require.NoError(t, err)
		nll := 0.0
		for i := 1; i < len(ids); i++ {
			start := 0 // of the first window that reaches token i
			for start+tc.window <= i {
				start += tc.stride
			}
			nll += naiveSurprise(t, m.Model, ids[start:i], ids[i])
		}
		require.Equal(t, len(ids), p.Tokens)
		require.Equal(t, len(ids)-1, p.Scored, "each token but the first, once")
		require.InDelta(t, nll/float64(len(ids)-1), p.NLL, 1e-5)
		require.InDelta(t, math.Exp(p.NLL), p.Value.Value, 1e-9)
		require.LessOrEqual(t, p.Value.Lo, p.Value.Value)
		require.GreaterOrEqual(t, p.Value.Hi, p.Value.Value)
	}
	// With 262 tokens and weights near zero a model knows nothing: close to 262.
	p, err := Text(t.Context(), m, text, TextOptions{})
	require.NoError(t, err)
	require.Equal(t, 64, p.Window, "the model's context is below 512")
	require.InDelta(t, 262, p.Value.Value, 15)
}

func naiveSurprise(t *testing.T, m *llm.Model, context []int32, next int32) float64 {
	w := m.NewWork(1)
	defer w.Close()
	c, err := m.NewCache(0, m.Layers, len(context))
	require.NoError(t, err)
	s := []llm.Seq{{IDs: context, Cache: c}}
	require.NoError(t, w.Forward(0, m.Layers, s))
	sum := 0.0
	for _, v := range s[0].Out {
		sum += math.Exp(float64(v))
	}
	return math.Log(sum) - float64(s[0].Out[next])
}

func TestTextErrors(t *testing.T) {
	m := tiny(t)
	for _, tc := range []struct {
		text string
		o    TextOptions
		want string
	}{
		{"a text", TextOptions{Window: 65}, "want 2 to the model's context of 64"},
		{"a text", TextOptions{Window: 8, Stride: 8}, "a stride below the window"},
		{"", TextOptions{}, "want at least 2"},
	} {
		_, err := Text(t.Context(), m, tc.text, tc.o)
		require.ErrorContains(t, err, tc.want)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, err := Text(ctx, m, "the cat sat", TextOptions{})
	require.True(t, errors.Is(err, context.Canceled))
}

// 7 tokens in windows of 4 every 2 begin at 0, 2 and 4: the last reaches the end.
func TestWindowStarts(t *testing.T) {
	require.Equal(t, []int{0, 2, 4}, windowStarts(7, 4, 2))
	require.Equal(t, []int{0}, windowStarts(4, 4, 2))
	require.Equal(t, []int{0, 2}, windowStarts(5, 4, 2))
}

// An oracle gets everything right that it knows.
func ExampleTasks() {
	r, _ := Tasks(context.Background(), newOracle(1, tasks.Test), Options{Apps: []string{"ar"}, N: 100, Seed: 1})
	a := r.Applications[0]
	fmt.Println(a.Name, a.Easy.N, a.Easy.Exact.Value > 0.5, a.Easy.Exact.Value < 0.8)
	// Output: ar 100 true true
}

package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Endpoint is a server that speaks OpenAI's completions protocol: llama.cpp's
// server, vLLM, Ollama and others.
//
// It is asked with temperature 0 and told to stop at a line's end, because the
// answers of all tasks are one line: a model that goes on to the next line is
// not wrong for it.
type Endpoint struct {
	URL    string // with or without /v1
	Model  string // as the server calls it; "" for the first that it lists
	Flight int    // requests under way at once; 0 stands for 4
	Client *http.Client
}

// answerWithin bounds one request: a server that needs longer for a line of text
// is not going to answer.
const answerWithin = 2 * time.Minute

// Answer asks for each prompt; the first failure ends it.
func (e *Endpoint) Answer(ctx context.Context, prompts []string, most int, done func(int)) ([]string, error) {
	base, err := e.base()
	if err != nil {
		return nil, err
	}
	model, err := e.model(ctx, base)
	if err != nil {
		return nil, err
	}
	flight := e.Flight
	if flight == 0 {
		flight = 4
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	outputs := make([]string, len(prompts))
	var next, finished atomic.Int64
	var wait sync.WaitGroup
	var turn sync.Mutex
	for range flight {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(prompts) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				text, err := e.complete(ctx, base, model, prompts[i], most)
				if err != nil {
					stop(fmt.Errorf("ask %s for answer %d: %w", base, i, err))
					return
				}
				outputs[i] = text
				n := finished.Add(1)
				if done != nil {
					turn.Lock()
					done(int(n))
					turn.Unlock()
				}
			}
		})
	}
	wait.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return outputs, nil
}

// base is the address up to and with /v1.
func (e *Endpoint) base() (string, error) {
	u, err := url.Parse(e.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("endpoint %q: want an address such as http://localhost:8080", e.URL)
	}
	return strings.TrimSuffix(strings.TrimSuffix(e.URL, "/"), "/v1") + "/v1", nil
}

func (e *Endpoint) model(ctx context.Context, base string) (string, error) {
	if e.Model != "" {
		return e.Model, nil
	}
	var list struct{ Data []struct{ ID string } }
	if err := e.call(ctx, http.MethodGet, base+"/models", nil, &list); err != nil {
		return "", fmt.Errorf("ask %s which models it has: %w", base, err)
	}
	if len(list.Data) == 0 {
		return "", fmt.Errorf("ask %s which models it has: none; name one with --model", base)
	}
	return list.Data[0].ID, nil
}

// completion is a request of the protocol.
type completion struct {
	Model       string   `json:"model"`
	Prompt      string   `json:"prompt"`
	MaxTokens   int      `json:"max_tokens"`
	Temperature float64  `json:"temperature"`
	Stop        []string `json:"stop"`
}

func (e *Endpoint) complete(ctx context.Context, base, model, prompt string, most int) (string, error) {
	ctx, stop := context.WithTimeout(ctx, answerWithin)
	defer stop()
	var answer struct{ Choices []struct{ Text *string } }
	if err := e.call(ctx, http.MethodPost, base+"/completions", completion{model, prompt, most, 0, []string{"\n"}}, &answer); err != nil {
		return "", err
	}
	if len(answer.Choices) == 0 || answer.Choices[0].Text == nil {
		return "", errors.New("the reply has no choices[0].text: is this the completions protocol?")
	}
	return *answer.Choices[0].Text, nil
}

const replyMost = 1 << 20 // bytes; a line of text is far below

func (e *Endpoint) call(ctx context.Context, method, address string, send, receive any) error {
	var body io.Reader
	if send != nil {
		data, err := json.Marshal(send)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	client := e.Client
	if client == nil {
		client = http.DefaultClient
	}
	reply, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("%w (is the server running?)", err)
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(io.LimitReader(reply.Body, replyMost))
	if err != nil {
		return err
	}
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, address, reply.Status, strings.TrimSpace(string(data[:min(len(data), 300)])))
	}
	if err := json.Unmarshal(data, receive); err != nil {
		return fmt.Errorf("%s %s: the reply is not the JSON that was expected: %w", method, address, err)
	}
	return nil
}

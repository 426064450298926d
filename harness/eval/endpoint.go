package eval

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"meibench/hardware/endpoint"
)

// Endpoint is a server that speaks OpenAI's completions protocol: llama.cpp's
// server, vLLM, Ollama, `meibench serve` and others.
//
// It is asked with temperature 0 and told to stop at a line's end, because the
// answers of all tasks are one line: a model that goes on to the next line is
// not wrong for it.
type Endpoint struct {
	URL    string // with or without /v1
	Model  string // as the server calls it; "" for the first that it lists
	Flight int    // requests under way at once; 0 stands for 4
	KeyEnv string // environment variable that holds the bearer key; "" = no key
}

// answerWithin bounds one request: a server that needs longer for a line of text
// is not going to answer.
const answerWithin = 2 * time.Minute

// Answer asks for each prompt; the first failure ends it.
func (e *Endpoint) Answer(ctx context.Context, prompts []string, most int, done func(int)) ([]string, error) {
	client, err := e.client(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
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
				answer, err := client.Complete(ctx, endpoint.Request{Prompt: prompts[i], Limit: most})
				if tooMany := (*endpoint.CountError)(nil); err != nil && !errors.As(err, &tooMany) {
					stop(fmt.Errorf("ask for answer %d: %w", i, err))
					return
				}
				outputs[i] = answer.Text
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

// client is one for the model that is asked, which the server is asked for if it
// has no name here.
func (e *Endpoint) client(ctx context.Context) (*endpoint.Client, error) {
	cfg := endpoint.Config{URL: e.URL, Model: e.Model, KeyEnv: e.KeyEnv, Stop: []string{"\n"}, FirstByte: answerWithin, Total: answerWithin}
	if cfg.Model == "" {
		name, err := endpoint.FirstModel(ctx, cfg)
		if err != nil {
			return nil, err
		}
		cfg.Model = name
	}
	return endpoint.New(cfg)
}

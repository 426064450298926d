package serve

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"meibench/hardware/endpoint"
	"meibench/reference/models"
)

// BenchmarkServe is streamed answers over HTTP, client and server in one process:
// tokens per second at a number of clients.
func BenchmarkServe(b *testing.B) {
	m, err := models.Open("mei-small")
	if err != nil {
		b.Fatal(err)
	}
	_, url := start(b, Config{Models: []Model{{Name: "m", Loaded: m}}})
	list := prompts(20)
	for _, clients := range []int{1, 8} {
		b.Run(fmt.Sprintf("model=mei-small/clients=%d", clients), func(b *testing.B) {
			c, err := endpoint.New(endpoint.Config{URL: url, Model: "m"})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			var next, tokens atomic.Int64
			var wait sync.WaitGroup
			for range clients {
				wait.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						a, err := c.Complete(context.Background(), endpoint.Request{Prompt: list[int(i)%len(list)], Limit: 24, Stream: true})
						if err != nil {
							b.Error(err)
							return
						}
						tokens.Add(int64(a.Tokens))
					}
				})
			}
			wait.Wait()
			b.ReportMetric(float64(tokens.Load())/b.Elapsed().Seconds(), "tok/sec")
		})
	}
}

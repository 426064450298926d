package harness

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/suites"
)

const servingSuite = `
name: serving
question: how many requests a CPU-second does a server of the modelled world serve?
defaults: {site: phone-5g-edge, model: "llama-3.1-8b:bf16", scale: field, app: ./testdata/chat512.yaml, users: 1000, rate: 10, pipeline: offload, mode: modelled}
params: {offload: {policy: chunked, batch: 256, chunk: 512, kv: paged}}
`

// BenchmarkServing512 is the case that other simulators publish: 512 tokens in,
// 512 out, 10 requests a second, an 8 B model on one H100; users behind 5G links.
func BenchmarkServing512(b *testing.B) {
	s, err := suites.Parse("serving.yaml", []byte(servingSuite))
	require.NoError(b, err)
	site, err := profiles.Site("phone-5g-edge")
	require.NoError(b, err)
	for i := range site.Nodes {
		if site.Nodes[i].Name == "edge" {
			site.Nodes[i].Device = "h100-sxm-80"
		}
	}
	lab := &Lab{Sites: map[string]*profiles.SiteSheet{"phone-5g-edge": site}}
	c := s.Cells[0]
	c.Requests = b.N
	b.ReportAllocs()
	var tokens int
	cell := rehearse(b, lab, c, func(log *record.Request) { tokens += log.OutputTokens })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric(float64(cell.Events)/float64(b.N), "events/request")
	b.ReportMetric(float64(tokens)/float64(b.N), "tokens/request")
}

// BenchmarkUsers is the cost of a request when more and more people ask, each with
// equipment of their own; the load on each server is the same.
func BenchmarkUsers(b *testing.B) {
	for _, users := range []int{100, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("users=%d/", users), func(b *testing.B) {
			s, err := suites.Parse("users.yaml", []byte(usersSuite))
			require.NoError(b, err)
			c := s.Cells[0]
			c.Users, c.Requests = users, b.N
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			cell := rehearse(b, &Lab{}, c, func(*record.Request) {})
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			b.ReportMetric(float64(cell.Events)/float64(b.N), "events/request")
			b.ReportMetric(float64(after.HeapSys), "heap-B")
		})
	}
}

const usersSuite = `
name: users
question: does a request cost more when more people ask?
defaults: {site: phone-5g-edge, model: "qwen2.5-0.5b:q4_0", scale: field, app: assistant, rate: 2, pipeline: offload, mode: modelled}
`

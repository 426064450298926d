package harness

import (
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

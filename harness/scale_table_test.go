package harness

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/suites"
)

// BenchmarkServing512Tables is BenchmarkServing512 through the whole run, tables on disk included.
func BenchmarkServing512Tables(b *testing.B) {
	s, err := suites.Parse("serving.yaml", []byte(servingSuite))
	require.NoError(b, err)
	s.Cells[0].Requests = b.N
	site, err := profiles.Site("phone-5g-edge")
	require.NoError(b, err)
	for i := range site.Nodes {
		if site.Nodes[i].Name == "edge" {
			site.Nodes[i].Device = "h100-sxm-80"
		}
	}
	lab := &Lab{Sites: map[string]*profiles.SiteSheet{"phone-5g-edge": site}}
	o := Options{Suites: []*suites.Suite{s}, Out: b.TempDir() + "/run", Progress: silent{}, Now: time.Now}
	require.NoError(b, Run(context.Background(), lab, o))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

package harness

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/suites"
)

// BenchmarkCityDay is the suite city, so many of its requests, tables left out.
func BenchmarkCityDay(b *testing.B) {
	s, err := suites.Load("city")
	require.NoError(b, err)
	c := s.Cells[0]
	c.Requests = b.N
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tokens := 0
	cell := rehearse(b, &Lab{}, c, func(r *record.Request) { tokens += r.OutputTokens })
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
	b.ReportMetric(float64(cell.Events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(tokens)/float64(b.N), "tokens/request")
	b.ReportMetric(float64(after.HeapSys), "heap-B")
}

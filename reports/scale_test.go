package reports

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkLoad reads the run folder that MEIBENCH_RUN names, for example one of
// scripts/manyrows.
func BenchmarkLoad(b *testing.B) {
	dir := os.Getenv("MEIBENCH_RUN")
	if dir == "" {
		b.Skip("MEIBENCH_RUN names no run folder")
	}
	rows := 0
	for b.Loop() {
		d, err := Load(dir)
		require.NoError(b, err)
		rows = 0
		for _, g := range d.Groups {
			rows += g.N
		}
		Build(d)
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

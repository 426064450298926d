package verify

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/bundle"
	"meibench/internal/vitals"
	"meibench/suites"
)

// BenchmarkStatic is what a bundle of 300 rows costs without running anything
// again, opening it included: the site checks a thousand of them.
func BenchmarkStatic(b *testing.B) {
	for name, text := range map[string]string{"modelled": modelledSuite, "measured": measuredSuite} {
		b.Run("bundle="+name, func(b *testing.B) {
			requests := 25.0 // of 12 runs of cells
			if name == "measured" {
				requests = 50 // of 6
			}
			mine, _ := key(b, "alice")
			dir := pack(b, run(b, text, suites.Set{Key: "requests", Values: []any{requests}}), mine)
			c := New(Options{Rerun: None})
			b.ReportAllocs()
			n, from := 0, vitals.Watch()
			for b.Loop() {
				n++
				x, err := bundle.Open(dir)
				require.NoError(b, err)
				v := c.Check(context.Background(), x)
				require.NotEqual(b, bundle.Refused, v.Tier)
				require.NoError(b, x.Close())
			}
			b.ReportMetric(from.Until().CPU.Seconds()/float64(n), "cpu-sec/op")
		})
	}
}

package results

import (
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
)

// BenchmarkWrite is the table of requests alone: rows in memory to Arrow bytes.
func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			pool, blocks := pool(), []*block{{cell: cell(0, 0)}}
			b.ReportAllocs()
			for b.Loop() {
				out := newSink(io.Discard)
				t, err := newRequests(out, blocks)
				require.NoError(b, err)
				t.id.set(&blocks[0].cell)
				for i := range n {
					if err := t.put(pool[i%len(pool)]); err != nil {
						b.Fatal(err)
					}
				}
				require.NoError(b, t.close())
				require.NoError(b, out.close())
				b.ReportMetric(float64(out.pos)/float64(n), "B/row")
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkRun is the whole way: checked, journalled, merged, summarised, and
// written to all files of a folder with two to six spans a row.
func BenchmarkRun(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			pool := pool()
			for b.Loop() {
				record1(b, b.TempDir(), n, pool)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkRead streams all rows of a folder.
func BenchmarkRead(b *testing.B) {
	const n = 200_000
	dir := b.TempDir()
	record1(b, dir, n, pool())
	for name, full := range map[string]bool{"rows": false, "full": true} {
		b.Run("what="+name, func(b *testing.B) {
			for b.Loop() {
				set, err := Read(dir)
				require.NoError(b, err)
				rows, seen := set.Rows(0), 0
				if full {
					rows = set.Full(0)
				}
				for _, err := range rows {
					if err != nil {
						b.Fatal(err)
					}
					seen++
				}
				require.Equal(b, n, seen)
				require.NoError(b, set.Close())
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func pool() []*record.Request {
	out := make([]*record.Request, 1000)
	for i := range out {
		out[i] = request(1, i)
	}
	return out
}

func record1(b *testing.B, dir string, n int, pool []*record.Request) {
	m := manifest()
	m.Expected = 1
	run, err := Create(dir, m)
	require.NoError(b, err)
	w, err := run.Begin(cell(0, 0))
	require.NoError(b, err)
	for i := range n {
		r := *pool[i%len(pool)]
		r.ID = i
		if err := w.Row(&r); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, w.End(cell(0, 0)))
	require.NoError(b, run.Finish())
}

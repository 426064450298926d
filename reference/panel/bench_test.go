package panel

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
	"meibench/reference/tensor"
)

// BenchmarkProducts multiplies T tokens by (5632, 2048) matrices that are read in turn from 256 MB, more than any cache
// holds. B/s counts packed weights, FLOP/s (of integers for quantised types) a multiply-add as two.
func BenchmarkProducts(b *testing.B) {
	const n, k, memory = 5632, 2048, 256 << 20
	for _, typ := range []quant.Type{quant.Q8_0, quant.Q4_0, quant.Q5_0, quant.Q4_K, quant.Q5_K, quant.Q6_K, quant.Q3_K, quant.F16, quant.BF16, quant.F32} {
		src := randomRows(b, typ, n, k)
		arena := NewArena()
		var ms []*Matrix
		for range memory/PackedBytes(typ, n, k) + 1 {
			m, err := Pack(typ, n, k, src, arena)
			require.NoError(b, err)
			ms = append(ms, m)
		}
		for _, T := range []int{1, 2, 4, 516} {
			x, out := randomActivations(T, k), make([]float32, T*n)
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("type=%v/tokens=%d/threads=%d/kernel=%s", typ, T, threads, tensor.Kernel()), func(b *testing.B) {
					p := newProducts(b, tensor.Kernel(), threads)
					b.SetBytes(int64(ms[0].Bytes()))
					for i := 0; b.Loop(); i++ {
						p.Set(x, T, k)
						p.Add(ms[i%len(ms)], out)
						p.Run()
					}
					b.ReportMetric(2*float64(T)*n*k*float64(b.N)/b.Elapsed().Seconds(), "FLOP/s")
				})
			}
		}
	}
}

// BenchmarkProductsInCache is the same for one token and a matrix that stays in the second-level cache: what the
// instructions allow when memory does not wait.
func BenchmarkProductsInCache(b *testing.B) {
	const n, k = 256, 1024
	for _, typ := range []quant.Type{quant.Q8_0, quant.Q4_0, quant.Q5_0, quant.Q4_K, quant.Q5_K, quant.Q6_K, quant.Q3_K, quant.F16, quant.BF16, quant.F32} {
		b.Run(fmt.Sprintf("type=%v/tokens=1/threads=1/kernel=%s", typ, tensor.Kernel()), func(b *testing.B) {
			m, err := Pack(typ, n, k, randomRows(b, typ, n, k), nil)
			require.NoError(b, err)
			x, out := randomActivations(1, k), make([]float32, n)
			p := newProducts(b, tensor.Kernel(), 1)
			b.SetBytes(int64(m.Bytes()))
			for b.Loop() {
				p.Set(x, 1, k)
				p.Add(m, out)
				p.Run()
			}
			b.ReportMetric(2*n*k*float64(b.N)/b.Elapsed().Seconds(), "FLOP/s")
		})
	}
}

// BenchmarkRound8 rounds one token's activations into a tile.
func BenchmarkRound8(b *testing.B) {
	const k = 2048
	x := randomActivations(1, k)
	for _, T := range []int{1, 6} {
		b.Run(fmt.Sprintf("columns=%d/tile=%d", k, T), func(b *testing.B) {
			dst, set := make([]byte, k/32*tokenBytes*T), kernelsOf(tensor.Kernel())
			b.SetBytes(4 * k)
			for b.Loop() {
				set.round8(x, dst, 0, T)
			}
		})
	}
}

package probe

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
)

func TestParseLayer(t *testing.T) {
	for _, n := range Layers {
		l, err := ParseLayer(n.Name)
		require.NoError(t, err)
		require.NoError(t, l.check())
		require.NotEmpty(t, n.Source)
		back, err := ParseLayer(l.String())
		require.NoError(t, err)
		require.Equal(t, n.Layer, back)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"an unknown name", "gpt-5", "one of llama-3.1-8b, llama-3.2-1b, qwen2.5-0.5b, smollm2-135m, tinyllama, or sizes such as C=2048"},
		{"an unknown letter", "C=64,F=128,H=4,G=2,X=16", "one of"},
		{"a letter twice", "C=64,C=64,F=128,H=4,G=2", "one of"},
		{"a letter missing", "C=64,F=128,H=4,G=2", "each size from 1"},
		{"too large", "C=64,F=128,H=4,G=2,D=1000000", "each size from 1"},
		{"heads that cannot be grouped", "C=64,F=128,H=4,G=3,D=16", "multiple of G"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseLayer(tc.text)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// smallPlan is measured in a moment.
func smallPlan() KernelPlan {
	return KernelPlan{Layer: Layer{C: 64, F: 128, H: 4, G: 2, D: 16}, Types: []quant.Type{quant.Q8_0, quant.F32}, Tokens: []int{1, 4},
		Threads: []int{1, 2}, Depths: []int{8}, Cache: quant.F16, Limits: limits(), Memory: 1 << 16, Target: time.Microsecond}
}

func TestKernelsOfALayer(t *testing.T) {
	steps := 0
	p := smallPlan()
	p.Progress = func(i, n int, _ string) {
		require.Equal(t, steps, i)
		require.Equal(t, 2*4+1+2, n)
		steps++
	}
	list, err := MeasureLayer(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, 11, steps)
	ops := map[string]int{}
	for _, k := range list {
		ops[k.Op]++
		require.Positive(t, k.Time, k.Op)
		require.Positive(t, k.Share, k.Op)
		require.NotEmpty(t, k.Bound, k.Op)
		require.NotEmpty(t, k.Samples, k.Op)
	}
	require.Equal(t, map[string]int{
		"matmul.qkv": 8, "matmul.out": 8, "matmul.gate_up": 8, "matmul.down": 8, // two types, tokens, threads
		"attention": 4,                                                 // a depth and a prompt on two threads
		"rmsnorm":   3, "swiglu": 3, "rope": 3, "softmax": 3, "exp": 3, // one row is one thread's
		"round8": 2}, ops) // too few to share

	find := func(op, format string, tokens, threads int) Kernel {
		for _, k := range list {
			if k.Op == op && k.Format == format && k.Tokens == tokens && k.Threads == threads {
				return k
			}
		}
		t.Fatalf("no %s of %s for %d tokens", op, format, tokens)
		return Kernel{}
	}
	// 64 + 32 + 32 rows of 64: 2·4·128·64 operations. 16 rows of 32 columns take 16 float16 scales and 512 quants, 544
	// bytes; 8·2 of these are 8704, of which 8 copies go beyond 65536. Activations: 4·4·(64 + 128).
	k := find("matmul.qkv", "Q8_0", 4, 2)
	require.True(t, k.Integer)
	require.Equal(t, []float64{65536, 8704 + 3072, 8 * 8704}, []float64{k.FLOP, k.Bytes, k.Set})
	require.Equal(t, "T=4 N=128 K=64", k.Shape)
	// 2·4·256·64 operations
	k = find("matmul.gate_up", "F32", 4, 1)
	require.False(t, k.Integer)
	require.Equal(t, 131072.0, k.FLOP)
	// 9 positions: 4·9·64 operations, 9·2·2·32 bytes of the cache and 2·4·64 of queries and outputs
	k = find("attention", "F16", 1, 1)
	require.Equal(t, []float64{2304, 1152 + 512}, []float64{k.FLOP, k.Bytes})
	require.Greater(t, k.Set, 65536.0)
	// 1 + 2 + 3 + 4 pairs, on a cache that is used again
	k = find("attention", "F16", 4, 1)
	require.Equal(t, []float64{2560, 0}, []float64{k.FLOP, k.Set})
	// 4·64 floats in, two blocks of 32 + 7·4 bytes out, four times
	k = find("round8", "", 4, 1)
	require.Equal(t, 4*256.0+4*2*60, k.Bytes)
}

func TestPlansThatCannotBeMeasured(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*KernelPlan)
		want  string
	}{
		{"rows that are not whole blocks", func(p *KernelPlan) { p.Types = []quant.Type{quant.Q4_K} }, "Q4_K"},
		{"no tokens", func(p *KernelPlan) { p.Tokens = nil }, "tokens []: want numbers from 1"},
		{"no thread", func(p *KernelPlan) { p.Threads = []int{0} }, "threads [0]"},
		{"a negative depth", func(p *KernelPlan) { p.Depths = []int{-1} }, "depths [-1]: want numbers from 0"},
		{"a cache of another type", func(p *KernelPlan) { p.Cache = quant.Q4_0 }, "want one of"},
		{"a shape without channels", func(p *KernelPlan) { p.Layer.C = 0 }, "each size from 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := smallPlan()
			tc.spoil(&p)
			_, err := MeasureLayer(t.Context(), p)
			require.ErrorContains(t, err, tc.want)
		})
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, err := MeasureLayer(ctx, smallPlan())
	require.ErrorIs(t, err, context.Canceled)
}

func TestShareUsesThePeakOfTheKernelsInUse(t *testing.T) {
	l := limits()
	l.Figures = append(l.Figures, Figure{Name: PeakInt8, Detail: "AVX2 VPMADDUBSW", Threads: 1, Value: 200e9},
		Figure{Name: PeakInt8, Detail: "AVX512-VNNI", Threads: 1, Value: 400e9})
	for _, tc := range []struct {
		name, tier string
		w          Work
		share      float64
		bound      string
	}{
		{"integers on vnni", "vnni", Work{Int: 4e9}, 0.5, "int8 AVX512-VNNI"},                          // 10 of 20 ms
		{"integers on avx512", "avx512", Work{Int: 2e9}, 0.5, "int8 AVX2 VPMADDUBSW"},                  // as on avx2
		{"floats on vnni", "vnni", Work{Float: 1e9}, 0.5, "F32 AVX-512"},                               // at 100e9
		{"floats on avx2", "avx2", Work{Float: 0.8e9}, 0.5, "F32 AVX2"},                                // at 80e9
		{"both, one after the other", "vnni", Work{Int: 3.2e9, Float: 0.2e9}, 0.5, "int8 AVX512-VNNI"}, // 8 + 2 ms
		{"a tier without a loop of its own", "generic", Work{Int: 4e9}, 0.5, "int8 AVX512-VNNI"},
		{"bytes of many copies", "vnni", Work{Bytes: 4e5, Set: 1e9}, 0.001, "DRAM"}, // 20 µs of 20 ms at 20e9; of 1e9 bytes in use
	} {
		t.Run(tc.name, func(t *testing.T) {
			l.Tier = tc.tier
			share, bound := l.Share(tc.w, 1, 20*time.Millisecond)
			require.InDelta(t, tc.share, share, 1e-12)
			require.Equal(t, tc.bound, bound)
		})
	}
}

func TestWorkOfAnEngineTest(t *testing.T) {
	m := tiny(t).Weights
	// Three layers of 1024 (q) + 2·512 (k, v) + 1024 (out) + 3·2048 weights: 2·4·3·9216 operations of four tokens, and
	// 2·61·32 of one row of logits. Four tokens behind two see 3 + 4 + 5 + 6 positions: 3·4·32·18.
	const products, attention = 221184 + 3904, 6912
	// 4·3·9216 of matrices, 4·61·32 of the head, 7 norms of 4·32, 6 positions of 3·2·2·16 in the cache
	const bytes = 110592 + 7808 + 896 + 1152
	w := EngineWork(m, EngineTest{Prompt: 4, Depth: 2, Cache: quant.F16})
	require.Equal(t, Work{Float: products + attention, Bytes: bytes, Set: 110592 + 7808 + 1152}, w)

	q, err := m.As(quant.Q8_0)
	require.NoError(t, err)
	require.NoError(t, q.Pack(1))
	w = EngineWork(q, EngineTest{Prompt: 4, Depth: 2, Cache: quant.F16})
	require.EqualValues(t, products, w.Int)
	require.EqualValues(t, attention, w.Float)

	one, two := EngineWork(q, EngineTest{Gen: 1, Depth: 7, Cache: quant.F16}), EngineWork(q, EngineTest{Gen: 1, Depth: 8, Cache: quant.F16})
	both := EngineWork(q, EngineTest{Gen: 2, Depth: 7, Cache: quant.F16})
	require.Equal(t, one.Bytes+two.Bytes, both.Bytes)
	require.Equal(t, one.Float+two.Float, both.Float)
	long := EngineWork(q, EngineTest{Prompt: 1024, Cache: quant.F16})
	half := EngineWork(q, EngineTest{Prompt: 512, Cache: quant.F16})
	rest := EngineWork(q, EngineTest{Prompt: 512, Depth: 512, Cache: quant.F16})
	require.Equal(t, half.Bytes+rest.Bytes, long.Bytes, "a prompt runs in batches of 512")
}

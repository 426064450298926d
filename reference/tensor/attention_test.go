package tensor

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/quant"
)

// fill makes a cache of the given type with random positions and says what it holds.
func fill(t testing.TB, typ quant.Type, G, D, positions int) (kv *KV, k, v []float32) {
	kv, err := NewKV(typ, G, D, positions+5)
	require.NoError(t, err)
	k, v = random(2, positions*G*D), random(3, positions*G*D)
	half := positions / 2 // in two pieces
	kv.Put(0, half, k, v)
	kv.Put(half, positions-half, k[half*G*D:], v[half*G*D:])
	kv.Get(0, positions, k, v) // what the rounding left
	return kv, k, v
}

// shapes of attention: within a block, across blocks of 128, odd channels, more heads than rows of a tile.
var shapes = []struct{ T, past, H, G, D int }{
	{1, 0, 1, 1, 4}, {1, 77, 4, 2, 16}, {5, 3, 4, 4, 8}, {100, 0, 2, 1, 32}, {50, 61, 6, 3, 20}, {1, 300, 14, 2, 64},
	{70, 250, 3, 1, 48}, {3, 127, 60, 1, 8}, {2, 126, 8, 4, 80},
}

func TestAttention(t *testing.T) {
	for _, s := range shapes {
		for _, typ := range KVTypes() {
			kv, k, v := fill(t, typ, s.G, s.D, s.past+s.T)
			seq := AttnSeq{Q: random(1, s.T*s.H*s.D), KV: kv, Out: make([]float32, s.T*s.H*s.D), T: s.T, Past: s.past}
			want := attentionV0(seq, s.H, k, v)
			for _, kernel := range Kernels() {
				t.Run(fmt.Sprintf("%+v/%v/%s", s, typ, kernel), func(t *testing.T) {
					p := poolOn(t, kernel, 1)
					p.Attention([]AttnSeq{seq}, s.H)
					require.InDeltaSlice(t, want, seq.Out, 1e-5)

					// The last token alone, beside another sequence, on three workers: the same bits.
					last, width := s.T-1, s.H*s.D
					one := AttnSeq{Q: seq.Q[last*width:], KV: kv, Out: make([]float32, width), T: 1, Past: s.past + last}
					other := seq
					other.Out = make([]float32, len(seq.Out))
					poolOn(t, kernel, 3).Attention([]AttnSeq{other, one}, s.H)
					require.Equal(t, seq.Out[last*width:], one.Out)
					require.Equal(t, seq.Out, other.Out)
				})
			}
		}
	}
}

// TestAttentionVariants: window, scale and cap against the oracle, and equal bits for the last token alone.
func TestAttentionVariants(t *testing.T) {
	const T, past, H, G, D = 160, 117, 4, 2, 12
	kv, k, v := fill(t, quant.F32, G, D, past+T)
	base := AttnSeq{Q: random(1, T*H*D), KV: kv, T: T, Past: past}
	plain := attentionV0(base, H, k, v)
	for _, variant := range []AttnSeq{{Window: 1}, {Window: 5}, {Window: 150}, {Scale: 1.5}, {Softcap: 0.7}, {Window: 119, Scale: 0.4, Softcap: 3}} {
		t.Run(fmt.Sprintf("window=%d,scale=%g,cap=%g", variant.Window, variant.Scale, variant.Softcap), func(t *testing.T) {
			seq := base
			seq.Window, seq.Scale, seq.Softcap = variant.Window, variant.Scale, variant.Softcap
			want := attentionV0(seq, H, k, v)
			require.NotEqual(t, plain, want)
			for _, kernel := range Kernels() {
				seq.Out = make([]float32, T*H*D)
				poolOn(t, kernel, 2).Attention([]AttnSeq{seq}, H)
				require.InDeltaSlice(t, want, seq.Out, 1e-5)
				one := seq
				one.Q, one.Out, one.T, one.Past = seq.Q[(T-1)*H*D:], make([]float32, H*D), 1, past+T-1
				poolOn(t, kernel, 1).Attention([]AttnSeq{one}, H)
				require.Equal(t, seq.Out[(T-1)*H*D:], one.Out)
			}
		})
	}
	// A window as long as the text is no window; a window of one copies the token's own value.
	seq := base
	seq.Window, seq.Out = past+T, make([]float32, T*H*D)
	require.Equal(t, plain, attentionV0(seq, H, k, v))
	seq.Window = 1
	poolOn(t, Kernels()[0], 1).Attention([]AttnSeq{seq}, H)
	require.Equal(t, v[past*G*D:past*G*D+D], seq.Out[:D])
}

// TestAttentionIgnoresStale: what a longer text left behind in the cache does not count, even if it is not a number.
func TestAttentionIgnoresStale(t *testing.T) {
	const H, G, D, n = 2, 1, 16, 40
	for _, typ := range KVTypes() {
		kv, k, v := fill(t, typ, G, D, n)
		seq := AttnSeq{Q: random(1, H*D), KV: kv, Out: make([]float32, H*D), T: 1, Past: 29}
		want := attentionV0(seq, H, k, v)
		nan := make([]float32, G*D)
		for i := range nan {
			nan[i] = float32(math.NaN())
		}
		for p := 30; p < n; p++ {
			kv.Put(p, 1, nan, nan)
		}
		for _, kernel := range Kernels() {
			poolOn(t, kernel, 1).Attention([]AttnSeq{seq}, H)
			require.InDeltaSlice(t, want, seq.Out, 1e-5)
		}
	}
}

func TestKV(t *testing.T) {
	for _, typ := range KVTypes() {
		for _, D := range []int{4, 16, 33, 64} {
			const G, n = 3, 70
			kv, err := NewKV(typ, G, D, n)
			require.NoError(t, err)
			k, v := random(1, n*G*D), random(2, n*G*D)
			kv.Put(0, n, k, v)
			gotK, gotV := make([]float32, len(k)), make([]float32, len(v))
			kv.Get(0, n, gotK, gotV)
			// Half a unit of the last place of float16, or of 1/127 of the largest of a block (random is below 4 here).
			tolerance := map[quant.Type]float64{quant.F32: 0, quant.F16: 4 * 0x1p-12, quant.Q8_0: 5.0 / 254}[typ]
			require.InDeltaSlice(t, k, gotK, tolerance)
			require.InDeltaSlice(t, v, gotV, tolerance)
			require.Equal(t, 4*(len(kv.k32)+len(kv.v32)+len(kv.keyScales)+len(kv.valueScales))+2*(len(kv.k16)+len(kv.v16))+len(kv.k8)+len(kv.v8), kv.Resident())
			require.GreaterOrEqual(t, kv.Resident(), n*KVBytes(typ, G, D))

			other, err := NewKV(typ, G, D, 50)
			require.NoError(t, err)
			other.CopyPrefix(kv, 41)
			copyK, copyV := make([]float32, 41*G*D), make([]float32, 41*G*D)
			other.Get(0, 41, copyK, copyV)
			require.Equal(t, gotK[:len(copyK)], copyK)
			require.Equal(t, gotV[:len(copyV)], copyV)
			require.Panics(t, func() { other.CopyPrefix(kv, 51) })
			require.Panics(t, func() { other.Put(49, 2, k, v) })
		}
	}
	_, err := NewKV(quant.Q4_0, 1, 4, 1)
	require.ErrorContains(t, err, "Q4_0")
}

func BenchmarkAttention(b *testing.B) {
	for _, s := range []struct{ T, past, H, G, D int }{{1, 512, 32, 4, 64}, {1, 4096, 32, 4, 64}, {256, 0, 32, 4, 64}, {512, 0, 14, 2, 64}} {
		for _, typ := range KVTypes() {
			kv, _, _ := fill(b, typ, s.G, s.D, s.past+s.T)
			seq := []AttnSeq{{Q: random(1, s.T*s.H*s.D), KV: kv, Out: make([]float32, s.T*s.H*s.D), T: s.T, Past: s.past}}
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("tokens=%d/past=%d/heads=%d/kv=%d/type=%v/threads=%d/kernel=%s", s.T, s.past, s.H, s.G, typ, threads, Kernel()), func(b *testing.B) {
					p := poolOn(b, Kernel(), threads)
					for b.Loop() {
						p.Attention(seq, s.H)
					}
					seen := s.T*s.past + s.T*(s.T+1)/2
					b.ReportMetric(float64(4*seen*s.H*s.D)*float64(b.N)/b.Elapsed().Seconds(), "FLOP/s")
					b.SetBytes(int64((s.past+s.T)*KVBytes(typ, s.G, s.D) + 8*s.T*s.H*s.D)) // the cache once, queries and outputs
				})
			}
		}
	}
}

// TestHalves: the vector conversion rounds as package quant does, everywhere between two halves and at the corners.
func TestHalves(t *testing.T) {
	var src []float32
	for h := range 0x7c00 {
		lo, hi := quant.F16ToF32(uint16(h)), quant.F16ToF32(uint16(h+1))
		if h == 0x7bff {
			hi = 65536
		}
		mid := lo + (hi-lo)/2
		src = append(src, lo, -lo, mid, -mid, math.Nextafter32(mid, 0), math.Nextafter32(mid, hi))
	}
	src = append(src, float32(math.Inf(1)), float32(math.Inf(-1)), 1e-9, -1e-9, 1e30)
	got := make([]uint16, len(src))
	halves(got, src)
	for i, v := range src {
		require.Equal(t, quant.F32ToF16(v), got[i], "%g", v)
	}
}

package kivi

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/evict"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

var _ evict.Memory = (*Cache)(nil)

func noise(r *rand.Rand, n int, by float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * by)
	}
	return x
}

// TestI12KIVIErrorWithinHalfScale: of every element, in every number of bits, whatever the size of the numbers.
func TestI12KIVIErrorWithinHalfScale(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for _, bits := range []int{2, 4, 8} {
		for range 400 {
			x := noise(r, 1+r.IntN(40), math.Exp(r.NormFloat64()*1.5))
			if r.IntN(3) == 0 {
				x[r.IntN(len(x))] *= 30
			}
			offset := float32(r.NormFloat64() * 5)
			for i := range x {
				x[i] += offset
			}
			code, got := make([]byte, GroupBytes(len(x), bits)), make([]float32, len(x))
			Encode(code, x, bits)
			Decode(got, code, bits)
			half := float64(Scale(code)) / 2
			lo, hi := x[0], x[0]
			for i := range x {
				lo, hi = min(lo, x[i]), max(hi, x[i])
				require.LessOrEqual(t, math.Abs(float64(got[i])-float64(x[i])), half+math.Abs(float64(x[i]))*0x1p-23, "%d bits", bits)
			}
			levels := float64(int(1)<<bits - 1) // outwards rounding costs a float16 step of zero and of scale
			require.LessOrEqual(t, 2*half, (float64(hi-lo)+math.Abs(float64(lo))*0x1p-9+1e-6)/levels*(1+0x1p-9)+1e-7)
		}
	}
}

// TestI12KIVICodesByHand: 2 bits from 0 to 3 are the numbers themselves, lowest bits first.
func TestI12KIVICodesByHand(t *testing.T) {
	code := make([]byte, GroupBytes(5, 2))
	Encode(code, []float32{3, 0, 1, 2, 3}, 2)
	require.Equal(t, []byte{0x00, 0x3c, 0, 0, 3 | 1<<4 | 2<<6, 3}, code) // scale 1, zero 0
	got := make([]float32, 5)
	Decode(got, code, 2)
	require.Equal(t, []float32{3, 0, 1, 2, 3}, got)
	Encode(code, []float32{7, 7, 7, 7, 7}, 2)
	Decode(got, code, 2)
	require.Equal(t, []float32{7, 7, 7, 7, 7}, got, "one value needs no scale")
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), 1e6} {
		Encode(code, []float32{1, bad, 1, 1, 1}, 2)
		Decode(got, code, 2)
		require.True(t, math.IsNaN(float64(got[0])), "%v", bad)
	}
}

// TestI14OutlierRatios: with one channel 30 times as large as the others, rounding per channel leaves these more accurate than
// rounding per token. The published figures do not say how wide a row is; 64 channels, two groups, meet them.
func TestI14OutlierRatios(t *testing.T) {
	for _, tc := range []struct {
		bits int
		want float64
	}{{2, 3.6}, {4, 6.0}} {
		require.InEpsilon(t, tc.want, OutlierRatio(tc.bits, 64), 0.1)
	}
	require.Greater(t, OutlierRatio(2, 32), OutlierRatio(2, 128), "the outlier spoils only its own group")
}

func TestI12KIVIBits(t *testing.T) {
	require.Equal(t, 3.0, Default(2).BitsPerElement())
	require.Equal(t, 5.0, Default(4).BitsPerElement())
	m := toy(t)
	c, err := NewCache(m.Config, Default(2), 0, m.Layers)
	require.NoError(t, err)
	r := evict.NewOn(m, c, 1)
	defer r.Close()
	_, err = r.Prefill(text(256))
	require.NoError(t, err)
	// Of 256 tokens all keys and 128 values are rounded: (256+128)·64 elements a layer at 3 bits; 128·64 values in float32.
	require.EqualValues(t, m.Layers*((256+128)*64*3/8+128*64*4), r.Bytes())
	require.Equal(t, r.Bytes(), c.Peak()) // the last layer is the moment when most is held
}

func toy(t testing.TB) *llm.Model {
	m, err := llm.New(llm.Config{Arch: llm.Llama, Layers: 2, Dim: 64, Heads: 4, KVHeads: 2, HeadDim: 32, FFN: 40, Vocab: 50, Context: 300}, 7)
	require.NoError(t, err)
	params, err := m.Params()
	require.NoError(t, err)
	for _, p := range params {
		for i := range p.Data {
			if p.N > 1 {
				p.Data[i] *= 8
			}
		}
	}
	return m
}

func text(n int) []int32 {
	r := rand.New(rand.NewPCG(1, 9))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(50))
	}
	return ids
}

// spy notes keys, values and results, and computes attention over decoded positions in float64.
type spy struct {
	*Cache
	t    *testing.T
	k, v []float32 // of layer 1, as they came
}

func (s *spy) Attend(a *llm.Attend) {
	W := s.config.KVDim()
	k, v := make([]float32, (a.Past+a.T)*W), make([]float32, (a.Past+a.T)*W)
	s.Get(a.Layer, 0, a.Past, k, v)
	s.Cache.Attend(a) // rotates a.Q and a.K
	copy(k[a.Past*W:], a.K)
	copy(v[a.Past*W:], a.V)
	if a.Layer == 1 {
		s.k, s.v = append(s.k, a.K...), append(s.v, a.V...)
	}
	D := s.config.HeadDim
	for h := range a.Heads {
		t, g := a.T-1, h/2
		q := a.Q[(t*a.Heads+h)*D:][:D]
		w, sum, top := make([]float64, a.Past+a.T), 0.0, math.Inf(-1)
		for p := range w {
			for d := range D {
				w[p] += float64(q[d]) * float64(k[p*W+g*D+d]) / math.Sqrt(float64(D))
			}
			top = max(top, w[p])
		}
		for p := range w {
			w[p] = math.Exp(w[p] - top)
			sum += w[p]
		}
		for d := range D {
			out := 0.0
			for p := range w {
				out += w[p] / sum * float64(v[p*W+g*D+d])
			}
			require.InDelta(s.t, out, a.Out[(t*a.Heads+h)*D+d], 2e-4)
		}
	}
}

// TestI12KIVIDecodeEqualsDequantiseThenAttend: and the last tokens are exact, the older ones within half a scale, in the
// numbers that the rule says.
func TestI12KIVIDecodeEqualsDequantiseThenAttend(t *testing.T) {
	m := toy(t)
	for _, bits := range []int{2, 4, 8} {
		p := Params{Bits: bits, Group: 16, Residual: 32}
		c, err := NewCache(m.Config, p, 0, m.Layers)
		require.NoError(t, err)
		s := &spy{Cache: c, t: t}
		r := evict.NewOn(m, s, 1)
		ids := text(110)
		_, err = r.Prefill(ids[:50])
		require.NoError(t, err)
		for _, id := range ids[50:] {
			_, err = r.Step(id)
			require.NoError(t, err)
		}
		keys, values := c.Exact()
		require.Equal(t, []int{96, 78}, []int{keys, values})
		W := m.KVDim()
		k, v := make([]float32, 110*W), make([]float32, 110*W)
		c.Get(1, 0, 110, k, v)
		require.Equal(t, s.k[keys*W:], k[keys*W:])
		require.Equal(t, s.v[values*W:], v[values*W:])
		require.Equal(t, p.RoundPerChannel(s.k[:keys*W], W), k[:keys*W])
		require.Equal(t, p.RoundPerToken(s.v[:values*W], W), v[:values*W])
		require.NotEqual(t, s.k[:keys*W], k[:keys*W])
		part, rest := make([]float32, 60*W), make([]float32, 60*W)
		c.Get(1, 41, 101, part, rest)
		require.Equal(t, k[41*W:101*W], part)
		require.Equal(t, v[41*W:101*W], rest)
		r.Close()
	}
}

// TestI12KIVIResidualIsExact: as long as nothing is rounded, logits are those of a plain cache, bit for bit.
func TestI12KIVIResidualIsExact(t *testing.T) {
	m, ids := toy(t), text(100)
	c, err := NewCache(m.Config, Default(2), 0, m.Layers)
	require.NoError(t, err)
	r := evict.NewOn(m, c, 1)
	defer r.Close()
	plain, err := evict.New(m, evict.Full(300), evict.Options{Type: quant.F32})
	require.NoError(t, err)
	defer plain.Close()
	for range 2 {
		for _, id := range ids {
			want, err := plain.Step(id)
			require.NoError(t, err)
			got, err := r.Step(id)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
		r.Reset()
		plain.Reset()
	}
	_, err = r.Prefill(text(301))
	require.ErrorContains(t, err, "context of 300")
}

func TestParamsAreChecked(t *testing.T) {
	for _, tc := range []struct {
		p    Params
		want string
	}{{Params{3, 32, 128}, "3 bits"}, {Params{2, 12, 24}, "groups of 12"}, {Params{2, 32, 100}, "100 last tokens"}, {Params{2, 32, 0}, "0 last"}} {
		require.ErrorContains(t, tc.p.Check(), tc.want)
		_, err := NewCache(toy(t).Config, tc.p, 0, 1)
		require.Error(t, err)
	}
	_, err := NewCache(toy(t).Config, Default(4), 1, 5)
	require.ErrorContains(t, err, "[1, 5)")
}

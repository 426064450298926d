package train

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/tensor"
)

var tinyTrain = llm.Config{Arch: llm.Llama, Vocab: 11, Dim: 12, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 4, FFN: 10, Context: 16, RopeBase: 100, Eps: 1e-5, Tied: true}

// normals are normal with unit deviation.
func normals(name string, n int) []float32 {
	x := make([]float32, n)
	r := rng.Stream(1, "test", name)
	for i := range x {
		x[i] = float32(rng.Normal(r))
	}
	return x
}

// checkGrad compares got with the central difference of f at x, in float64.
// The step 1e-4 leaves a truncation error of about 1e-8 for functions of unit
// scale; f itself must be float64 for the difference to mean anything.
func checkGrad(t *testing.T, name string, x, got []float32, f func(x []float64) float64) {
	t.Helper()
	wide := make([]float64, len(x))
	for i, v := range x {
		wide[i] = float64(v)
	}
	for i := range wide {
		const h = 1e-4
		was := wide[i]
		wide[i] = was + h
		up := f(wide)
		wide[i] = was - h
		down := f(wide)
		wide[i] = was
		want := (up - down) / (2 * h)
		require.InDelta(t, want, float64(got[i]), 2e-5+1e-4*math.Abs(want), "%s[%d]", name, i)
	}
}

// The loss of an op test is Σ out·pick for a fixed random pick, so that the
// gradient that flows in is pick.

func TestRMSNormGrad(t *testing.T) {
	const T, C = 3, 5
	x, w, pick := normals("x", T*C), normals("w", C), normals("pick", T*C)
	out, inv := make([]float32, T*C), make([]float32, T)
	tensor.RMSNorm(out, x, w, inv, T, C, 1e-5)
	dx, dw := make([]float32, T*C), make([]float32, C)
	tensor.RMSNormGrad(dx, dw, pick, x, w, inv, T, C)
	loss := func(x, w []float64) (sum float64) {
		for i, v := range naiveNorm(x, w, C, 1e-5) {
			sum += v * float64(pick[i])
		}
		return sum
	}
	checkGrad(t, "dx", x, dx, func(x []float64) float64 { return loss(x, widen(w)) })
	checkGrad(t, "dw", w, dw, func(w []float64) float64 { return loss(widen(x), w) })
}

func TestSwiGLUGrad(t *testing.T) {
	const n = 40
	gate, up, pick := normals("gate", n), normals("up", n), normals("pick", n)
	gate[0], gate[1] = 30, -30 // saturated on both sides
	dgate, dup := make([]float32, n), make([]float32, n)
	tensor.SwiGLUGrad(dgate, dup, pick, gate, up)
	loss := func(gate, up []float64) (sum float64) {
		for i := range gate {
			sum += silu(gate[i]) * up[i] * float64(pick[i])
		}
		return sum
	}
	checkGrad(t, "dgate", gate, dgate, func(g []float64) float64 { return loss(g, widen(up)) })
	checkGrad(t, "dup", up, dup, func(u []float64) float64 { return loss(widen(gate), u) })
}

func TestCrossEntropy(t *testing.T) {
	x := normals("logits", 9)
	x[4] = 5
	got := append([]float32{}, x...)
	loss, hit := CrossEntropy(got, 4, 0.5)
	f := func(x []float64) float64 { return 0.5 * (logSumExp(x) - x[4]) }
	require.True(t, hit)
	require.InDelta(t, f(widen(x)), loss, 1e-6)
	checkGrad(t, "dlogits", x, got, f)
	_, hit = CrossEntropy([]float32{1, 1}, 1, 1)
	require.False(t, hit, "the first of equals wins")
}

func TestAttentionGrad(t *testing.T) {
	a, T := attention{heads: 4, kvHeads: 2, headD: 4}, 5
	p := tensor.NewPool(1)
	q, k, v, pick := normals("q", T*16), normals("k", T*8), normals("v", T*8), normals("pick", T*16)
	out, probs := make([]float32, T*16), make([]float32, 4*T*T)
	a.forward(p, out, probs, q, k, v, T)
	dq, dk, dv := make([]float32, T*16), make([]float32, T*8), make([]float32, T*8)
	a.backward(p, dq, dk, dv, pick, make([]float32, T*T), probs, q, k, v, T)
	want := naiveAttention(a, widen(q), widen(k), widen(v), T)
	for i := range want {
		require.InDelta(t, want[i], out[i], 1e-5)
	}
	loss := func(q, k, v []float64) (sum float64) {
		for i, o := range naiveAttention(a, q, k, v, T) {
			sum += o * float64(pick[i])
		}
		return sum
	}
	checkGrad(t, "dq", q, dq, func(q []float64) float64 { return loss(q, widen(k), widen(v)) })
	checkGrad(t, "dk", k, dk, func(k []float64) float64 { return loss(widen(q), k, widen(v)) })
	checkGrad(t, "dv", v, dv, func(v []float64) float64 { return loss(widen(q), widen(k), v) })
}

// tinyBatches are three sequences in two batches, with masked, weighted and
// scored places.
func tinyBatches() []Batch {
	var a, b Batch
	a.Add([]int32{0, 3, 4, 5, 1}, 3, 0.25)
	a.Add([]int32{0, 9, 9, 1}, 2, 0)
	b.Add([]int32{0, 10, 2, 7, 8, 3, 1}, 4, 0)
	return []Batch{a, b}
}

// The whole model: loss against a naive float64 model, and every parameter's
// gradient against that model's central difference.
func TestModelGradient(t *testing.T) {
	for _, arch := range []string{llm.Llama, llm.Qwen2, llm.Qwen3} {
		c := tinyTrain
		c.Arch, c.Tied = arch, arch != llm.Qwen2
		w, err := New(c)
		require.NoError(t, err)
		w.Init(3)
		for _, p := range w.Model.Weights() { // biases and norms with something to say
			if p.Vector != nil {
				for i, v := range normals(p.Name, p.K) {
					(*p.Vector)[i] += 0.3 * v
				}
			}
		}
		l, err := NewLearner(w, 2)
		require.NoError(t, err)
		loss, grad := l.Gradient(tinyBatches())
		require.InDelta(t, naiveLoss(c, widen(w.Flat), tinyBatches()), loss, 1e-6)
		checkGrad(t, "weights", w.Flat, grad.Flat, func(flat []float64) float64 { return naiveLoss(c, flat, tinyBatches()) })
	}
}

// With an early exit: its loss flows into the gradient, not into the loss.
func TestExitGradient(t *testing.T) {
	w, err := New(tinyTrain)
	require.NoError(t, err)
	w.Init(3)
	l, err := NewLearner(w, 1)
	require.NoError(t, err)
	plain, _ := l.Gradient(tinyBatches())
	batches := tinyBatches()
	for i := range batches {
		batches[i].Exit, batches[i].ExitWeight = 1, 0.5
	}
	loss, grad := l.Gradient(batches)
	require.Equal(t, plain, loss)
	checkGrad(t, "weights", w.Flat, grad.Flat, func(flat []float64) float64 { return naiveLoss(tinyTrain, flat, batches) })
}

func TestThreadsDoNotChangeBits(t *testing.T) {
	var want []float32
	for threads := 1; threads <= 5; threads++ {
		w, err := New(tinyTrain)
		require.NoError(t, err)
		w.Init(3)
		l, err := NewLearner(w, threads)
		require.NoError(t, err)
		opt := NewAdamW(w)
		var batches []Batch
		for range 3 {
			batches = append(batches, tinyBatches()...)
		}
		for step := range 4 {
			_, grad := l.Gradient(batches)
			opt.Step(w, grad, Cosine(step, 2, 4, 1e-2, 1e-3))
		}
		if want == nil {
			want = w.Flat
		}
		require.Equal(t, want, w.Flat, "%d threads", threads)
	}
}

// Recomputing activations changes memory, not bits: 6 layers keep 6 inputs and
// one set of the rest instead of six.
// TestParts: a batch that is cut into parts has the gradient and the loss of one that is not, as a piece runs it, bit for bit.
func TestParts(t *testing.T) {
	for _, m := range []Method{{Kind: "full"}, {Kind: "prompt", Tokens: 2}, {Kind: "lora", Rank: 2}} {
		for _, tied := range []bool{true, false} {
			for _, exit := range []int{0, 1} {
				c := tinyTrain
				c.Tied = tied
				base, err := llm.New(c, 1)
				require.NoError(t, err)
				p, err := Tune(base, m, 1)
				require.NoError(t, err)
				var b Batch
				b.Exit, b.ExitWeight = exit, 0.5
				for i := range 12 {
					ids := make([]int32, 5+i%7)
					for j := range ids {
						ids[j] = int32((i*i + 3*j) % c.Vocab)
					}
					b.Add(ids, 2, 0.25)
				}
				l, err := NewLearner(p, 1)
				require.NoError(t, err)
				loss, grad := l.Gradient([]Batch{b})
				require.Equal(t, exit == 0, len(l.tapes[0].cut) > 1)
				whole, err := NewPiece(p, 0, c.Layers, true)
				require.NoError(t, err)
				_, err = whole.Forward(&b, nil)
				require.NoError(t, err)
				want, _ := whole.Loss(float32(1 / Weight([]Batch{b})))
				whole.Backward(nil, false)
				require.Equal(t, want, loss)
				require.Equal(t, whole.Grad.Flat, grad.Flat, "%s, tied %v, exit %d", m.Kind, tied, exit)
			}
		}
	}
}

func TestRecompute(t *testing.T) {
	c := tinyTrain
	c.Layers = 6
	gradient := func(recompute ...bool) ([]float32, int) {
		w, err := New(c)
		require.NoError(t, err)
		w.Init(3)
		l, err := NewLearner(w, 1)
		require.NoError(t, err)
		var grad *Params
		for _, l.Recompute = range recompute {
			batches := tinyBatches()
			batches[0].Exit, batches[0].ExitWeight = 2, 0.5
			_, grad = l.Gradient(batches)
		}
		return grad.Flat, l.ActivationBytes()
	}
	want, whole := gradient(false)
	got, part := gradient(true)
	require.Equal(t, want, got)
	require.Less(t, 3*part, whole)
	got, _ = gradient(true, false, true, false)
	require.Equal(t, want, got, "the mode may change between steps")
}

// Two calls add up to the bits of one.
func TestAccumulate(t *testing.T) {
	w, err := New(tinyTrain)
	require.NoError(t, err)
	w.Init(3)
	l, err := NewLearner(w, 2)
	require.NoError(t, err)
	var batches []Batch
	for range 4 {
		batches = append(batches, tinyBatches()...)
	}
	loss, grad := l.Gradient(batches)
	want := append([]float32{}, grad.Flat...)
	l.Reset()
	got := l.Accumulate(batches[:3], Weight(batches))
	got += l.Accumulate(batches[3:], Weight(batches))
	require.InDelta(t, loss, got, 1e-12)
	require.Equal(t, want, l.Sum().Flat)
}

// A model this small can learn three sequences by heart.
func TestLearns(t *testing.T) {
	w, err := New(tinyTrain)
	require.NoError(t, err)
	w.Init(1)
	l, err := NewLearner(w, 1)
	require.NoError(t, err)
	opt := NewAdamW(w)
	batches := tinyBatches()
	batches[0].Weights[0], batches[0].Weights[1] = 0, 0 // the prompts of two sequences differ from their first token on
	before, _ := l.Evaluate(batches)
	for step := range 150 {
		_, grad := l.Gradient(batches)
		opt.Step(w, grad, Cosine(step, 10, 150, 1e-2, 1e-3))
	}
	after, exact := l.Evaluate(batches)
	require.Greater(t, before, 2.0, "ln 11 = 2.4 for a model that knows nothing")
	require.Less(t, after, 0.05)
	require.Equal(t, [][]bool{{true, true}, {true}}, exact)
}

// One step by hand: g = 3 in each of 2 matrix weights and 1 norm weight, norm
// √27 = 5.196 > clip 1, so g = 0.57735. After bias correction m = g and v = g²,
// so the step is rate·g/(g+eps) = rate; decay takes rate·0.1 of the matrix.
func TestAdamW(t *testing.T) {
	w, err := New(llm.Config{Arch: llm.Llama, Vocab: 1, Dim: 1, Layers: 1, Heads: 1, KVHeads: 1, HeadDim: 2, FFN: 1, Context: 1, RopeBase: 10, Eps: 1e-5, Tied: true})
	require.NoError(t, err)
	g, err := New(w.Model.Config)
	require.NoError(t, err)
	w.Model.Embed.F32[0], w.Model.Norm[0], w.Model.Blocks[0].Up.F32[0] = 2, 2, 0
	g.Model.Embed.F32[0], g.Model.Norm[0], g.Model.Blocks[0].Up.F32[0] = 3, 3, 3
	norm := NewAdamW(w).Step(w, g, 0.1)
	require.InDelta(t, math.Sqrt(27), norm, 1e-9)
	require.InDelta(t, 2-0.1-0.1*0.1*2, w.Model.Embed.F32[0], 1e-6)
	require.InDelta(t, 2-0.1, w.Model.Norm[0], 1e-6)
	require.InDelta(t, -0.1, w.Model.Blocks[0].Up.F32[0], 1e-6)
}

func TestCosine(t *testing.T) {
	require.InDelta(t, 0.1, Cosine(0, 10, 110, 1, 0.2), 1e-12)
	require.InDelta(t, 1, Cosine(10, 10, 110, 1, 0.2), 1e-12)
	require.InDelta(t, 0.6, Cosine(60, 10, 110, 1, 0.2), 1e-12, "half way: the mean of peak and floor")
	require.InDelta(t, 0.2, Cosine(500, 10, 110, 1, 0.2), 1e-12)
}

func TestTrainable(t *testing.T) {
	for _, tied := range []bool{true, false} {
		c := tinyTrain
		c.Tied = tied
		m, err := llm.New(c, 1)
		require.NoError(t, err)
		p, err := From(m)
		require.NoError(t, err)
		at := 0
		params, err := m.Params()
		require.NoError(t, err)
		for _, want := range params {
			require.Equal(t, want.Data, p.Flat[at:at+len(want.Data)], want.Name)
			at += len(want.Data)
		}
		require.Equal(t, len(p.Flat), at)
		p.Flat[0] = 7
		require.Equal(t, float32(7), p.Model.Embed.F32[0], "tensors are views")
		require.NotEqual(t, float32(7), m.Embed.F32[0], "of a copy")
	}
	bad := tinyTrain
	bad.Arch = llm.Gemma
	_, err := New(bad)
	require.ErrorContains(t, err, `architecture "gemma" has no backward pass here`)
}

// Shapes of the model family, on lessons of 60 tokens of which a third count.
// flop/s counts the products of forward and backward pass, six per weight of the
// layers and token, without attention and head: a lower bound.
func BenchmarkStep(b *testing.B) {
	for _, bc := range []struct {
		model            string
		dim, layers, ffn int
	}{{"nano", 64, 5, 192}, {"small", 256, 3, 512}, {"base", 256, 8, 512}} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("model=%s/threads=%d", bc.model, threads), func(b *testing.B) {
				c := llm.Config{Arch: llm.Llama, Vocab: 1024, Dim: bc.dim, Layers: bc.layers, Heads: bc.dim / 16, KVHeads: bc.dim / 32,
					HeadDim: 16, FFN: bc.ffn, Context: 256, Tied: true}
				w, err := New(c)
				require.NoError(b, err)
				w.Init(1)
				l, err := NewLearner(w, threads)
				require.NoError(b, err)
				opt := NewMuon(w, threads)
				batches, tokens := benchBatches(c.Vocab)
				for b.Loop() {
					_, grad := l.Gradient(batches)
					opt.Step(w, grad, 1e-4)
				}
				steps := float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(steps*float64(tokens), "tokens/s")
				b.ReportMetric(steps*float64(tokens)*6*float64(len(w.Flat)-c.Vocab*c.Dim), "flop/s")
			})
		}
	}
}

func benchBatches(vocab int) (batches []Batch, tokens int) {
	batches = make([]Batch, 6)
	r := rng.Stream(1, "bench")
	for i := range batches {
		for range 8 {
			ids := make([]int32, 61)
			for j := range ids {
				ids[j] = int32(r.IntN(vocab))
			}
			batches[i].Add(ids, 40, 0)
			tokens += 60
		}
	}
	return batches, tokens
}

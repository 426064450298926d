package train

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/reference/llm"
	"meibench/reference/tensor"
)

// BenchmarkOfPeak says which share of the float32 product's speed a step of training reaches, both by turns in one run: the peak is that of
// the products of a layer's forward pass, on as many threads, each on rows of its own. of-peak counts the products of the step (weights of
// layers, head at the places with a loss, attention), which norms, activations, softmax and the optimiser hold up.
func BenchmarkOfPeak(b *testing.B) {
	for _, bc := range []struct {
		model            string
		dim, layers, ffn int
		method           Method
	}{
		{"nano", 64, 5, 192, Method{Kind: "full"}}, {"small", 256, 3, 512, Method{Kind: "full"}}, {"base", 256, 8, 512, Method{Kind: "full"}},
		{"small", 256, 3, 512, Method{Kind: "lora", Rank: 8, Targets: []string{"attn_q", "attn_v", "ffn_down"}}}, {"base", 256, 8, 512, Method{Kind: "lora", Rank: 8}},
	} {
		for _, threads := range []int{1, 2} {
			b.Run("model="+bc.model+"/method="+bc.method.Kind+"/threads="+string(rune('0'+threads)), func(b *testing.B) {
				c := llm.Config{Arch: llm.Llama, Vocab: 1024, Dim: bc.dim, Layers: bc.layers, Heads: bc.dim / 16, KVHeads: bc.dim / 32,
					HeadDim: 16, FFN: bc.ffn, Context: 256, Tied: true}
				base, err := llm.New(c, 1)
				require.NoError(b, err)
				p, err := Tune(base, bc.method, 1)
				require.NoError(b, err)
				l, err := NewLearner(p, threads)
				require.NoError(b, err)
				opt := NewAdamW(p)
				batches, _ := benchBatches(c.Vocab)
				if threads == 2 {
					batches = append(batches, batches[:2]...) // as many on each
				}
				var steps, products time.Duration
				var done, flops float64
				for b.Loop() {
					start := time.Now()
					_, grad := l.Gradient(batches)
					opt.Step(p, grad, 1e-4)
					steps += time.Since(start)
					done += stepFLOPs(p, batches)
					start = time.Now()
					flops += layerProducts(c, threads, len(batches[0].Tokens))
					products += time.Since(start)
				}
				peak := flops / products.Seconds()
				b.ReportMetric(peak, "peak-flop/s")
				b.ReportMetric(done/steps.Seconds(), "step-flop/s")
				b.ReportMetric(done/steps.Seconds()/peak, "of-peak")
			})
		}
	}
}

// stepFLOPs counts the products of forward and backward passes, as they are worked out: beside a frozen base not those of weights.
// Attention counts whole, of which tiles beyond the diagonal are left out: with 60 tokens that is two fifths of it, and so a twentieth of all in
// mei-nano.
func stepFLOPs(p *Params, batches []Batch) (n float64) {
	c := p.Model.Config
	perToken := 2 * float64(c.Params(0, c.Layers))
	head := 2 * float64(c.Vocab*c.Dim)
	passes := 3.0
	if p.Method.Kind == "lora" {
		passes = 2
	}
	for _, b := range batches {
		R := 0.0
		for _, w := range b.Weights {
			if w != 0 {
				R++
			}
		}
		n += passes * (perToken*float64(len(b.Tokens)) + head*R)
		for _, t := range b.Lens {
			n += 3 * float64(c.Layers*2*2*t*t*c.QDim())
		}
		if p.Method.Kind == "lora" {
			n += 6 * float64(len(p.Flat)) * float64(len(b.Tokens))
		}
	}
	return n
}

// layerProducts runs the products of a layer some times on each thread and counts them.
func layerProducts(c llm.Config, threads, T int) float64 {
	shapes := [][2]int{{c.QDim(), c.Dim}, {c.KVDim(), c.Dim}, {c.KVDim(), c.Dim}, {c.Dim, c.QDim()}, {c.FFN, c.Dim}, {c.FFN, c.Dim}, {c.Dim, c.FFN}}
	const times = 20
	var wait sync.WaitGroup
	for range threads {
		wait.Go(func() {
			pool := tensor.NewPool(1)
			w, x, out := make([]float32, c.FFN*c.Dim), make([]float32, T*c.FFN), make([]float32, T*c.FFN)
			for range times {
				for _, s := range shapes {
					pool.MatMul(out[:T*s[0]], x[:T*s[1]], w[:s[0]*s[1]], T, s[0], s[1])
				}
			}
		})
	}
	wait.Wait()
	n := 0.0
	for _, s := range shapes {
		n += 2 * float64(T*s[0]*s[1])
	}
	return n * times * float64(threads)
}

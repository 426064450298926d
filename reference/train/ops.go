package train

import (
	"math"
	"slices"

	"meibench/reference/tensor"
)

// SumRows is the gradient of a bias, added to what is there: dbias += Σ_t dy.
//
//	dbias: (C), dy: (T, C)
func SumRows(dbias, dy []float32, T int) {
	for t := range T {
		tensor.Add(dbias, dy[t*len(dbias):(t+1)*len(dbias)])
	}
}

// CrossEntropy turns logits into the gradient of the weighted loss
// Σ weight·(−ln softmax(logits)[target]) and returns that loss, and whether the
// target has the largest logit (the first of equals).
//
//	logits: (V), overwritten by weight·(softmax − onehot)
func CrossEntropy(logits []float32, target int32, weight float32) (loss float64, hit bool) {
	hit = logits[target] == tensor.Largest(logits) && !slices.Contains(logits[:target], logits[target])
	tensor.Softmax(logits, logits)
	p := max(float64(logits[target]), math.SmallestNonzeroFloat32)
	logits[target]--
	tensor.Scale(logits, weight)
	return -float64(weight) * math.Log(p), hit
}

// attention is causal self-attention over one sequence that keeps its weights
// for the backward pass. Views: q, out (T, H, D); k, v (T, G, D).
type attention struct {
	heads, kvHeads, headD int
}

func (a attention) head(x []float32, h, heads, T int) tensor.Mat {
	return tensor.Mat{Data: x[h*a.headD:], Rows: T, Cols: a.headD, RowStride: heads * a.headD, ColStride: 1}
}

// forward writes out and the attention weights of every head. Keys and values may be more than T: the first of S stand before
// every token.
//
//	probs: (H, T, S), zero above the diagonal
func (a attention) forward(p *tensor.Pool, out, probs, q, k, v []float32, T int) {
	scale := float32(1 / math.Sqrt(float64(a.headD)))
	S := len(k) / (a.kvHeads * a.headD)
	for h := range a.heads {
		g := h * a.kvHeads / a.heads
		s := tensor.NewMat(probs[h*T*S:(h+1)*T*S], T, S)
		p.GemmCausal(s, a.head(q, h, a.heads, T), a.head(k, g, a.kvHeads, S).T(), false, tensor.LowerC, S-T)
		tensor.CausalSoftmax(s.Data, T, S, scale)
		p.GemmCausal(a.head(out, h, a.heads, T), s, a.head(v, g, a.kvHeads, S), false, tensor.LowerA, S-T)
	}
}

// backward writes dq and adds to dk and dv (heads of a group share them).
//
//	dprobs: scratch of (T, S)
func (a attention) backward(p *tensor.Pool, dq, dk, dv, dout, dprobs, probs, q, k, v []float32, T int) {
	scale := float32(1 / math.Sqrt(float64(a.headD)))
	S := len(k) / (a.kvHeads * a.headD)
	ds, past := tensor.NewMat(dprobs, T, S), S-T
	for h := range a.heads {
		g := h * a.kvHeads / a.heads
		s := tensor.NewMat(probs[h*T*S:(h+1)*T*S], T, S)
		do := a.head(dout, h, a.heads, T)
		p.GemmCausal(a.head(dv, g, a.kvHeads, S), s.T(), do, true, tensor.UpperA, past)
		p.GemmCausal(ds, do, a.head(v, g, a.kvHeads, S).T(), false, tensor.LowerC, past)
		tensor.CausalSoftmaxGrad(dprobs, s.Data, T, S, scale)
		p.GemmCausal(a.head(dq, h, a.heads, T), ds, a.head(k, g, a.kvHeads, S), false, tensor.LowerA, past)
		p.GemmCausal(a.head(dk, g, a.kvHeads, S), ds.T(), a.head(q, h, a.heads, T), true, tensor.UpperA, past)
	}
}

// sigmoid is 1/(1 + exp(-x)).
func sigmoid(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) }

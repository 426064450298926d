package train

import (
	"math"

	"meibench/reference/tensor"
)

// RMSNormGrad adds the gradients of RMSNorm to dx and dw.
//
//	dx, dy, x: (T, C); dw, w: (C); invRMS: (T), as RMSNorm stored it
//
// With r = 1/rms(x): dx = r·(w·dy) − x·r³/C·Σ(w·dy·x), dw = Σ_t dy·x·r.
func RMSNormGrad(dx, dw, dy, x, w, invRMS []float32, T, C int) {
	w, dw = w[:C], dw[:C]
	for t := range T {
		xt, dyt, dxt := x[t*C:t*C+C], dy[t*C:t*C+C], dx[t*C:t*C+C]
		r := invRMS[t]
		var dot float64
		for c, d := range dyt {
			dot += float64(w[c] * d * xt[c])
		}
		k := float32(dot/float64(C)) * r * r * r
		for c, d := range dyt {
			dw[c] += d * xt[c] * r
			dxt[c] += r*w[c]*d - k*xt[c]
		}
	}
}

// SumRows is the gradient of a bias, added to what is there: dbias += Σ_t dy.
//
//	dbias: (C), dy: (T, C)
func SumRows(dbias, dy []float32, T int) {
	for t := range T {
		tensor.Add(dbias, dy[t*len(dbias):(t+1)*len(dbias)])
	}
}

// SwiGLUGrad writes the gradients of silu(gate)·up into dgate and dup.
//
//	all: (n); sig is scratch of n
//
// With s = sigmoid(g): dup = d·g·s, dgate = d·up·s·(1 + g·(1−s)).
func SwiGLUGrad(dgate, dup, dout, gate, up, sig []float32) {
	n := len(dout)
	dgate, dup, gate, up, sig = dgate[:n], dup[:n], gate[:n], up[:n], sig[:n]
	for i, g := range gate {
		sig[i] = -g
	}
	tensor.Exp(sig, sig)
	for i, d := range dout {
		g, s := gate[i], 1/(1+sig[i])
		dup[i] = d * g * s
		dgate[i] = d * up[i] * s * (1 + g*(1-s))
	}
}

// CrossEntropy turns logits into the gradient of the weighted loss
// Σ weight·(−ln softmax(logits)[target]) and returns that loss, and whether the
// target has the largest logit (the first of equals).
//
//	logits: (V), overwritten by weight·(softmax − onehot)
func CrossEntropy(logits []float32, target int32, weight float32) (loss float64, hit bool) {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	tensor.Softmax(logits, logits)
	p := max(float64(logits[target]), math.SmallestNonzeroFloat32)
	logits[target]--
	for i := range logits {
		logits[i] *= weight
	}
	return -float64(weight) * math.Log(p), best == int(target)
}

// attention is causal self-attention over one sequence that keeps its weights
// for the backward pass. Views: q, out (T, H, D); k, v (T, G, D).
type attention struct {
	heads, kvHeads, headD int
}

func (a attention) head(x []float32, h, heads, T int) tensor.Mat {
	return tensor.Mat{Data: x[h*a.headD:], Rows: T, Cols: a.headD, RowStride: heads * a.headD, ColStride: 1}
}

// forward writes out and the attention weights of every head.
//
//	probs: (H, T, T), zero above the diagonal
func (a attention) forward(p *tensor.Pool, out, probs, q, k, v []float32, T int) {
	scale := float32(1 / math.Sqrt(float64(a.headD)))
	for h := range a.heads {
		g := h * a.kvHeads / a.heads
		ph := probs[h*T*T : (h+1)*T*T]
		s := tensor.NewMat(ph, T, T)
		p.Gemm(s, a.head(q, h, a.heads, T), a.head(k, g, a.kvHeads, T).T(), false)
		for t := range T {
			row := ph[t*T : (t+1)*T]
			seen := row[:t+1]
			for i := range seen {
				seen[i] *= scale
			}
			tensor.Softmax(seen, seen)
			clear(row[t+1:])
		}
		p.Gemm(a.head(out, h, a.heads, T), s, a.head(v, g, a.kvHeads, T), false)
	}
}

// backward writes dq and adds to dk and dv (heads of a group share them).
//
//	dprobs: scratch of (T, T)
func (a attention) backward(p *tensor.Pool, dq, dk, dv, dout, dprobs, probs, q, k, v []float32, T int) {
	scale := float32(1 / math.Sqrt(float64(a.headD)))
	ds := tensor.NewMat(dprobs, T, T)
	for h := range a.heads {
		g := h * a.kvHeads / a.heads
		s := tensor.NewMat(probs[h*T*T:(h+1)*T*T], T, T)
		do := a.head(dout, h, a.heads, T)
		p.Gemm(a.head(dv, g, a.kvHeads, T), s.T(), do, true)
		p.Gemm(ds, do, a.head(v, g, a.kvHeads, T).T(), false)
		for t := range T {
			d, w := dprobs[t*T:(t+1)*T], s.Data[t*T:t*T+t+1]
			var dot float64
			for i, x := range w {
				dot += float64(x * d[i])
			}
			mean := float32(dot)
			for i, x := range w {
				d[i] = x * (d[i] - mean) * scale
			}
			clear(d[t+1:])
		}
		p.Gemm(a.head(dq, h, a.heads, T), ds, a.head(k, g, a.kvHeads, T), false)
		p.Gemm(a.head(dk, g, a.kvHeads, T), ds.T(), a.head(q, h, a.heads, T), true)
	}
}

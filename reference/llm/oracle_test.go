package llm

import "math"

// oracle computes the logits of every token from the definition: float64 throughout, no cache, no batch, no shared code
// but the decoding of weights. x[t] is the hidden state of token t.
type oracle struct{ m *Model }

func (o oracle) row(w *Matrix, n int) []float64 {
	r := make([]float32, w.K)
	w.ReadRow(r, n, 0)
	out := make([]float64, w.K)
	for i, v := range r {
		out[i] = float64(v)
	}
	return out
}

func (o oracle) linear(w *Matrix, bias []float32, x []float64) []float64 {
	y := make([]float64, w.N)
	for n := range y {
		for k, v := range o.row(w, n) {
			y[n] += v * x[k]
		}
		if bias != nil {
			y[n] += float64(bias[n])
		}
	}
	return y
}

func (o oracle) norm(x []float64, w []float32) []float64 {
	var s float64
	for _, v := range x {
		s += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(s/float64(len(x))+float64(o.m.Eps)) * float64(w[i])
	}
	return y
}

// rotate turns complex pairs of every head; the pairs are neighbours for llama and halves for qwen2.
func (o oracle) rotate(x []float64, pos int) {
	D := o.m.HeadDim
	for h := 0; h < len(x); h += D {
		for i := range D / 2 {
			a, b := h+2*i, h+2*i+1
			if o.m.Arch == Qwen2 {
				a, b = h+i, h+i+D/2
			}
			angle := float64(pos) * math.Pow(o.m.RopeBase, -float64(2*i)/float64(D))
			if o.m.RopeFactors != nil {
				angle /= float64(o.m.RopeFactors[i])
			}
			z := complex(x[a], x[b]) * complex(math.Cos(angle), math.Sin(angle))
			x[a], x[b] = real(z), imag(z)
		}
	}
}

func (o oracle) attend(q []float64, keys, values [][]float64) []float64 {
	D, perGroup := o.m.HeadDim, o.m.Heads/o.m.KVHeads
	out := make([]float64, len(q))
	for h := range o.m.Heads {
		g := h / perGroup * D
		weights, sum := make([]float64, len(keys)), 0.0
		for p := range keys {
			dot := 0.0
			for d := range D {
				dot += q[h*D+d] * keys[p][g+d]
			}
			weights[p] = math.Exp(dot / math.Sqrt(float64(D)))
			sum += weights[p]
		}
		for p := range keys {
			for d := range D {
				out[h*D+d] += weights[p] / sum * values[p][g+d]
			}
		}
	}
	return out
}

// logits returns, per token, the logits after the first upTo layers.
func (o oracle) logits(ids []int32, upTo int) [][]float64 {
	var x [][]float64
	for _, id := range ids {
		x = append(x, o.row(&o.m.Embed, int(id)))
	}
	for l := range upTo {
		b := &o.m.Blocks[l]
		var keys, values [][]float64
		for t := range x {
			n := o.norm(x[t], b.AttnNorm)
			q, k := o.linear(&b.Q, b.QB, n), o.linear(&b.K, b.KB, n)
			o.rotate(q, t)
			o.rotate(k, t)
			keys, values = append(keys, k), append(values, o.linear(&b.V, b.VB, n))
			for i, v := range o.linear(&b.Out, nil, o.attend(q, keys, values)) {
				x[t][i] += v
			}
			n = o.norm(x[t], b.FFNNorm)
			gate, up := o.linear(&b.Gate, nil, n), o.linear(&b.Up, nil, n)
			for i, g := range gate {
				up[i] *= g / (1 + math.Exp(-g))
			}
			for i, v := range o.linear(&b.Down, nil, up) {
				x[t][i] += v
			}
		}
	}
	head := &o.m.Head
	if o.m.Tied {
		head = &o.m.Embed
	}
	var out [][]float64
	for t := range x {
		out = append(out, o.linear(head, nil, o.norm(x[t], o.m.Norm)))
	}
	return out
}

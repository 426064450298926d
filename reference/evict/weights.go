package evict

import (
	"math"

	"meibench/internal/portable"
	"meibench/reference/tensor"
)

// attendWork is scratch memory, shared by all heads.
type attendWork struct {
	k, v    []float32
	q, out  [][]float32 // per key/value head
	seqs    []tensor.AttnSeq
	weights []float64
}

// pair is room for n elements of keys and of values.
func (w *attendWork) pair(n int) (k, v []float32) {
	if cap(w.k) < n {
		w.k, w.v = make([]float32, n), make([]float32, n)
	}
	return w.k[:n], w.v[:n]
}

// reserve makes room for T rows of queries and results of G heads.
func (w *attendWork) reserve(T, G, width int) {
	for len(w.q) < G {
		w.q, w.out = append(w.q, nil), append(w.out, nil)
	}
	for g := range G {
		if cap(w.q[g]) < T*width {
			w.q[g], w.out[g] = make([]float32, T*width), make([]float32, T*width)
		}
		w.q[g], w.out[g] = w.q[g][:T*width], w.out[g][:T*width]
	}
}

// addWeights adds the attention weights of the queries of s, which see what came before them in a cache of one head, to
// scores, one per place. In float64, where products of float32 are exact, and with a portable exponential: what is kept
// depends on it.
func addWeights(scores []float64, w *attendWork, s tensor.AttnSeq) {
	D := s.KV.D
	shared := len(s.Q) / (s.T * D)
	n := s.Past + s.T
	k, v := w.pair(n * D)
	s.KV.Get(0, n, k, v)
	scale := float64(s.Scale)
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(D))
	}
	if cap(w.weights) < n {
		w.weights = make([]float64, n)
	}
	for r := range s.T * shared {
		q, seen := s.Q[r*D:(r+1)*D], s.Past+r/shared+1
		e, top := w.weights[:seen], math.Inf(-1)
		for p := range e {
			dot := 0.0
			for d, x := range k[p*D : (p+1)*D] {
				dot += float64(x) * float64(q[d])
			}
			dot *= scale
			if c := float64(s.Softcap); c > 0 {
				dot = c * tanh(dot/c)
			}
			e[p], top = dot, max(top, dot)
		}
		sum := 0.0
		for p, x := range e {
			e[p] = portable.Exp(x - top)
			sum += e[p]
		}
		for p, x := range e {
			scores[p] += x / sum
		}
	}
}

// tanh by the portable exponential.
func tanh(x float64) float64 {
	e := portable.Exp(-2 * math.Abs(x))
	return math.Copysign((1-e)/(1+e), x)
}

// Partial is the attention of one query over some of the positions, not yet divided by its sum: what a node that holds a
// part of a sequence sends.
type Partial struct {
	Out      []float64 // (D) sum of e^(score-Top)·value
	Top, Sum float64   // largest score, and sum of e^(score-Top); no positions are -Inf and 0
}

// AttendPart computes a Partial in float64.
//
//	q: (D); k, v: (P, D)
func AttendPart(q, k, v []float64, scale float64) Partial {
	D := len(q)
	p := Partial{Out: make([]float64, D), Top: math.Inf(-1)}
	for i := 0; i < len(k); i += D {
		dot := 0.0
		for d, x := range q {
			dot += float64(x * k[i+d])
		}
		one := Partial{Out: v[i : i+D], Top: dot * scale, Sum: 1}
		p = Merge(p, one)
	}
	return p
}

// Merge joins the attention of two disjoint sets of positions by the rescaling of online softmax (Milakov and Gimelshein
// 2018). The order matters to rounding only: within 1e-12 of attention over all positions.
func Merge(a, b Partial) Partial {
	top := max(a.Top, b.Top)
	if math.IsInf(top, -1) {
		return a
	}
	fa, fb := portable.Exp(a.Top-top), portable.Exp(b.Top-top)
	out := Partial{Out: make([]float64, len(a.Out)), Top: top, Sum: float64(a.Sum*fa) + float64(b.Sum*fb)}
	for d := range out.Out {
		out.Out[d] = float64(a.Out[d]*fa) + float64(b.Out[d]*fb)
	}
	return out
}

// Result divides by the sum. It is NaN where there were no positions.
func (p Partial) Result() []float64 {
	out := make([]float64, len(p.Out))
	for d, x := range p.Out {
		out[d] = x / p.Sum
	}
	return out
}

package train

import (
	"math"

	"meibench/reference/tensor"
)

// AdamW is Adam with decoupled weight decay (Loshchilov & Hutter 2019, alg. 2).
// Decay applies to matrices, not to norms.
type AdamW struct {
	Beta1, Beta2, Eps float64
	Decay             float64
	Clip              float64   // largest norm of the gradient; 0 is no limit
	M, V              []float32 // moments, in the order of the parameters
	Steps             int       // taken so far
}

// NewAdamW returns the usual settings for small transformers: 0.9, 0.98, 1e-8,
// decay 0.1, clip 1.
func NewAdamW(p *Params) *AdamW { return newAdamW(len(p.Flat)) }

func newAdamW(n int) *AdamW {
	return &AdamW{Beta1: 0.9, Beta2: 0.98, Eps: 1e-8, Decay: 0.1, Clip: 1, M: make([]float32, n), V: make([]float32, n)}
}

// Step moves p against grad at the given learning rate and returns the norm of
// the gradient before clipping.
func (o *AdamW) Step(p, grad *Params, rate float64) (norm float64) {
	return o.step(p.Flat, grad.Flat, p.parts(func(Part) bool { return true }), rate)
}

// part is a range of parameters that are moved alike.
type part struct {
	lo, hi int
	decays bool
}

// parts lists the tensors that are to be moved.
func (p *Params) parts(mine func(Part) bool) (list []part) {
	at := 0
	for _, w := range p.list {
		end := at + len(w.Data)
		if mine(w) {
			list = append(list, part{at, end, w.Decays})
		}
		at = end
	}
	return list
}

// step moves some parts of flat; clipping looks at the whole gradient.
func (o *AdamW) step(flat, grad []float32, parts []part, rate float64) (norm float64) {
	for _, g := range grad {
		norm += float64(g) * float64(g)
	}
	norm = math.Sqrt(norm)
	o.Steps++
	k := tensor.AdamStep{
		Clip: 1, Beta1: float32(o.Beta1), Beta2: float32(o.Beta2), Eps: float32(o.Eps),
		Rate:   float32(rate / (1 - math.Pow(o.Beta1, float64(o.Steps)))),
		Unbias: float32(1 / (1 - math.Pow(o.Beta2, float64(o.Steps)))),
	}
	if o.Clip > 0 && norm > o.Clip {
		k.Clip = float32(o.Clip / norm)
	}
	for _, p := range parts {
		k.Keep = 1
		if p.decays {
			k.Keep = float32(1 - rate*o.Decay)
		}
		k.Apply(flat[p.lo:p.hi], grad[p.lo:p.hi], o.M[p.lo:p.hi], o.V[p.lo:p.hi])
	}
	return norm
}

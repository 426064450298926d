package tensor

import "math"

// eights is the part of n elements that assembly takes: none where there is no assembly.
func eights(v *vector, n int) int {
	if v == nil {
		return 0
	}
	return n &^ 7
}

// Add adds x to out, element by element. Panics if x is longer than out.
func Add(out, x []float32) { add(chosen().kernel.vector, out[:len(x)], x) }

func add(v *vector, out, x []float32) {
	n := eights(v, len(x))
	if n > 0 {
		v.add(out, x[:n])
	}
	for i := n; i < len(x); i++ {
		out[i] += x[i]
	}
}

// AddScaled adds scale·x to out, element by element. Products are rounded before they are added. Panics if x is longer.
func AddScaled(out, x []float32, scale float32) {
	out = out[:len(x)]
	for i, v := range x {
		out[i] += float32(v * scale)
	}
}

// Scale multiplies every element by c.
func Scale(x []float32, c float32) { scale(chosen().kernel.vector, x, c) }

func scale(v *vector, x []float32, c float32) {
	n := eights(v, len(x))
	if n > 0 {
		v.scale(x[:n], c)
	}
	for i := n; i < len(x); i++ {
		x[i] *= c
	}
}

// AddRow adds one row to each of T rows: a bias.
//
//	out: (T, C), row: (C)
func AddRow(out, row []float32, T int) {
	for t := range T {
		Add(out[t*len(row):(t+1)*len(row)], row)
	}
}

// SiLU is x·sigmoid(x), within 4 ulp. Source: Elfwing et al. 2017.
func SiLU(x float32) float32 { return x / (1 + exp32(-x)) }

// SwiGLU writes silu(gate)·up into out, element by element; out may be either. Source: Shazeer 2020, eq. 6.
//
//	out, gate, up: (T, F)
func SwiGLU(out, gate, up []float32) {
	swiGLU(chosen().kernel.vector, out[:len(gate)], gate, up[:len(gate)])
}

func swiGLU(v *vector, out, gate, up []float32) {
	n := 0
	if v != nil && len(gate) >= 8 {
		n = len(gate) &^ 7
		v.swiglu(out, gate[:n], up)
	}
	for i := n; i < len(gate); i++ {
		out[i] = SiLU(gate[i]) * up[i]
	}
}

// SwiGLUGrad writes the gradients of silu(gate)·up into dgate and dup.
//
//	all: (n); none may be another
//
// With s = sigmoid(g): dup = d·g·s, dgate = d·up·s·(1 + g·(1-s)).
func SwiGLUGrad(dgate, dup, dout, gate, up []float32) {
	n := len(dout)
	swiGLUGrad(chosen().kernel.vector, dgate[:n], dup[:n], dout, gate[:n], up[:n])
}

func swiGLUGrad(v *vector, dgate, dup, dout, gate, up []float32) {
	n := eights(v, len(dout))
	if n > 0 {
		v.swigluGrad(dgate[:n], dup, dout, gate, up)
	}
	for i := n; i < len(dout); i++ {
		d, g := dout[i], gate[i]
		s := 1 / (1 + exp32(-g))
		dup[i] = d * g * s
		dgate[i] = d * up[i] * s * (1 + float32(g*(1-s)))
	}
}

// AdamStep is a step of AdamW (Loshchilov & Hutter 2019, alg. 2) on many parameters: Clip scales gradients, Rate and Unbias hold the
// corrections of moments that began at zero, Keep is what decay leaves.
type AdamStep struct{ Clip, Beta1, Beta2, Rate, Unbias, Eps, Keep float32 }

// Apply moves parameters w and their moments.
//
//	all: (n)
//
// With g = grad·Clip: m = β1·m + (1-β1)·g, v = β2·v + (1-β2)·g·g, w = Keep·w - Rate·m/(√(v·Unbias) + Eps).
func (s *AdamStep) Apply(w, grad, m, v []float32) {
	s.apply(chosen().kernel.vector, w, grad[:len(w)], m[:len(w)], v[:len(w)])
}

func (s *AdamStep) apply(vec *vector, w, grad, m, v []float32) {
	n := eights(vec, len(w))
	if n > 0 {
		vec.adam(w[:n], grad, m, v, s)
	}
	for i := n; i < len(w); i++ {
		g := grad[i] * s.Clip
		m[i] = float32(s.Beta1*m[i]) + float32((1-s.Beta1)*g)
		v[i] = float32(s.Beta2*v[i]) + float32((1-s.Beta2)*g*g)
		root := float32(math.Sqrt(float64(v[i] * s.Unbias)))
		w[i] = float32(s.Keep*w[i]) - s.Rate*m[i]/(root+s.Eps)
	}
}

// GELU is x·Φ(x) in its tanh form, x·(1 + tanh u)/2 with u = √(2/π)·(x + 0.044715·x³), computed as x·sigmoid(2u) so that
// nothing cancels: within 8 ulp of that form. Source: Hendrycks & Gimpel 2016, section 2.
func GELU(x float32) float32 {
	const k = 2 * 0.7978845608028654 // 2·√(2/π)
	return x / (1 + exp32(-k*x*(1+0.044715*x*x)))
}

// GeGLU writes gelu(gate)·up into out, element by element; out may be either. A nil up stands for ones. Source: Shazeer
// 2020, eq. 5.
//
//	out, gate, up: (T, F)
func GeGLU(out, gate, up []float32) {
	for i, g := range gate {
		out[i] = GELU(g)
		if up != nil {
			out[i] *= up[i]
		}
	}
}

// Softcap replaces x by c·tanh(x/c), which keeps it inside (-c, c); c > 0. Absolute error below 2e-7·c.
func Softcap(x []float32, c float32) {
	for i, v := range x {
		e := exp32(-2 * abs32(v) / c)
		y := c * (1 - e) / (1 + e)
		if v < 0 {
			y = -y
		}
		x[i] = y
	}
}

func abs32(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// geluV0 is the oracle in float64.
func geluV0(x float32) float64 {
	v := float64(x)
	return v / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
}

// siluV0 is the oracle in float64.
func siluV0(x float32) float64 { return float64(x) / (1 + math.Exp(-float64(x))) }

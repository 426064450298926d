package tensor

import "math"

// Add adds x to out, element by element. Panics if x is longer than out.
func Add(out, x []float32) {
	out = out[:len(x)]
	for i, v := range x {
		out[i] += v
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
func Scale(x []float32, c float32) {
	for i := range x {
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

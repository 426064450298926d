package tensor

import "math"

// Add adds x to out, element by element. Panics if x is longer than out.
func Add(out, x []float32) {
	out = out[:len(x)]
	for i, v := range x {
		out[i] += v
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

// siluV0 is the oracle in float64.
func siluV0(x float32) float64 { return float64(x) / (1 + math.Exp(-float64(x))) }

package tensor

import "math"

// RMSNorm writes x / rms(x) * w into out, row by row; out may be x.
//
//	out, x: (T, C); w: (C); eps > 0, added under the root; invRMS: (T) receives 1/rms(x), or is nil
//
// Sums in float64, stores float32: within 2 ulp of the oracle. Panics if lengths disagree.
// Source: Zhang & Sennrich 2019, eq. 4 (the eps is llama's).
func RMSNorm(out, x, w, invRMS []float32, T, C int, eps float32) {
	for t := range T {
		xt, ot := x[t*C:t*C+C], out[t*C:t*C+C]
		var s float64
		for _, v := range xt {
			s += float64(v) * float64(v)
		}
		inv := float32(1 / math.Sqrt(s/float64(C)+float64(eps)))
		if invRMS != nil {
			invRMS[t] = inv
		}
		for c, v := range xt {
			ot[c] = v * inv * w[c]
		}
	}
}

// LayerNorm writes (x - mean) / √(variance + eps) * w + b into out, row by row; out may be x.
//
//	out, x: (T, C); w, b: (C); eps > 0
//
// Sums in float64, stores float32. Panics if lengths disagree. Source: Ba et al. 2016, eq. 4.
func LayerNorm(out, x, w, b []float32, T, C int, eps float32) {
	for t := range T {
		xt, ot := x[t*C:t*C+C], out[t*C:t*C+C]
		var mean, variance float64
		for _, v := range xt {
			mean += float64(v)
		}
		mean /= float64(C)
		for _, v := range xt {
			variance += (float64(v) - mean) * (float64(v) - mean)
		}
		inv := 1 / math.Sqrt(variance/float64(C)+float64(eps))
		for c, v := range xt {
			ot[c] = float32((float64(v)-mean)*inv*float64(w[c]) + float64(b[c]))
		}
	}
}

// rmsNormV0 is the oracle, all in float64.
func rmsNormV0(x, w []float32, T, C int, eps float32) []float64 {
	out := make([]float64, T*C)
	for t := range T {
		var s float64
		for c := range C {
			s += math.Pow(float64(x[t*C+c]), 2)
		}
		for c := range C {
			out[t*C+c] = float64(x[t*C+c]) / math.Sqrt(s/float64(C)+float64(eps)) * float64(w[c])
		}
	}
	return out
}

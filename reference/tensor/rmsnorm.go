package tensor

import "math"

// RMSNorm writes x / rms(x) * w into out, row by row; out may be x.
//
//	out, x: (T, C); w: (C); eps > 0, added under the root; invRMS: (T) receives 1/rms(x), or is nil
//
// Sums in float64, stores float32: within 2 ulp of the oracle. Panics if lengths disagree.
// Source: Zhang & Sennrich 2019, eq. 4 (the eps is llama's).
func RMSNorm(out, x, w, invRMS []float32, T, C int, eps float32) {
	w = w[:C]
	for t := 0; t < T; t += 4 {
		sums := squares(x[t*C:min(t+4, T)*C], C)
		for r := range min(4, T-t) {
			inv := float32(1 / math.Sqrt(sums[r]/float64(C)+float64(eps)))
			if invRMS != nil {
				invRMS[t+r] = inv
			}
			xt, ot := x[(t+r)*C:(t+r+1)*C:(t+r+1)*C], out[(t+r)*C:(t+r+1)*C]
			ot, xt = ot[:len(w)], xt[:len(w)]
			for c, v := range xt {
				ot[c] = v * inv * w[c]
			}
		}
	}
}

// squares sums the squares of up to four rows of C, each in order. Four chains side by side take little longer than one,
// which waits for every addition.
func squares(x []float32, C int) (sums [4]float64) {
	if len(x) < 4*C {
		for r := range len(x) / C {
			for _, v := range x[r*C : (r+1)*C] {
				sums[r] += float64(v) * float64(v)
			}
		}
		return sums
	}
	a, b, c, d := x[:C], x[C:2*C], x[2*C:3*C], x[3*C:4*C]
	b, c, d = b[:len(a)], c[:len(a)], d[:len(a)]
	var s0, s1, s2, s3 float64
	for i, v := range a {
		s0 += float64(v) * float64(v)
		s1 += float64(b[i]) * float64(b[i])
		s2 += float64(c[i]) * float64(c[i])
		s3 += float64(d[i]) * float64(d[i])
	}
	return [4]float64{s0, s1, s2, s3}
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

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
	v := chosen().kernel.vector
	for t := 0; t < T; t += 4 {
		sums := squares(x[t*C:min(t+4, T)*C], C)
		for r := range min(4, T-t) {
			inv := float32(1 / math.Sqrt(sums[r]/float64(C)+float64(eps)))
			if invRMS != nil {
				invRMS[t+r] = inv
			}
			normScale(v, out[(t+r)*C:(t+r+1)*C], x[(t+r)*C:(t+r+1)*C], w, inv)
		}
	}
}

// normScale writes x·inv·w into a row.
func normScale(v *vector, out, x, w []float32, inv float32) {
	n := eights(v, len(x))
	if n > 0 {
		v.normScale(out, x[:n], w, inv)
	}
	out, w = out[:len(x)], w[:len(x)]
	for c := n; c < len(x); c++ {
		out[c] = x[c] * inv * w[c]
	}
}

// RMSNormGrad adds the gradients of RMSNorm to dx and dw.
//
//	dx, dy, x: (T, C); dw, w: (C), dw nil if it is not wanted; invRMS: (T), as RMSNorm stored it
//
// With r = 1/rms(x): dx = r·(w·dy) - x·r³/C·Σ(w·dy·x), dw = Σ_t dy·x·r. The sum runs in float64, in order.
func RMSNormGrad(dx, dw, dy, x, w, invRMS []float32, T, C int) {
	rmsNormGrad(chosen().kernel.vector, dx, dw, dy, x, w[:C], invRMS[:T])
}

func rmsNormGrad(v *vector, dx, dw, dy, x, w, invRMS []float32) {
	C := len(w)
	n := eights(v, C)
	for t := 0; t < len(invRMS); t += 4 {
		dots := products(dy[t*C:min(t+4, len(invRMS))*C], x[t*C:], w)
		for i := t; i < min(t+4, len(invRMS)); i++ {
			dxt, dyt, xt, r := dx[i*C:i*C+C], dy[i*C:i*C+C], x[i*C:i*C+C], invRMS[i]
			k := float32(dots[i-t]/float64(C)) * r * r * r
			if n > 0 {
				v.normGrad(dxt[:n], dyt, xt, w, r, k)
			}
			for c := n; c < C; c++ {
				dxt[c] += float32(r*w[c]*dyt[c]) - float32(k*xt[c])
			}
			if dw == nil {
				continue
			}
			if n > 0 {
				v.normGradW(dw[:n], dyt, xt, r)
			}
			for c := n; c < C; c++ {
				dw[c] += float32(dyt[c] * xt[c] * r)
			}
		}
	}
}

// products sums w·dy·x over up to four rows, each in order; see squares.
func products(dy, x, w []float32) (sums [4]float64) {
	C := len(w)
	if len(dy) < 4*C {
		for r := range len(dy) / C {
			for c, d := range dy[r*C : (r+1)*C] {
				sums[r] += float64(float32(w[c]*d) * x[r*C+c])
			}
		}
		return sums
	}
	d0, d1, d2, d3 := dy[:C], dy[C:2*C], dy[2*C:3*C], dy[3*C:4*C]
	x0, x1, x2, x3 := x[:C], x[C:2*C], x[2*C:3*C], x[3*C:4*C]
	d0, d1, d2, d3 = d0[:len(w)], d1[:len(w)], d2[:len(w)], d3[:len(w)]
	x0, x1, x2, x3 = x0[:len(w)], x1[:len(w)], x2[:len(w)], x3[:len(w)]
	var s0, s1, s2, s3 float64
	for c, v := range w {
		s0 += float64(v * d0[c] * x0[c])
		s1 += float64(v * d1[c] * x1[c])
		s2 += float64(v * d2[c] * x2[c])
		s3 += float64(v * d3[c] * x3[c])
	}
	return [4]float64{s0, s1, s2, s3}
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

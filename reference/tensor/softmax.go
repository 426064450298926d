package tensor

import "math"

// Softmax writes exp(x - max x) / Σ exp(x - max x) into out; out may be x.
//
//	out, x: (V), at least one element
//
// The sum runs in float64 in index order. Relative error up to (4 + |x - max x|)·2^-23: the difference is rounded
// once before it is exponentiated.
func Softmax(out, x []float32) {
	top := x[0]
	for _, v := range x[1:] {
		top = max(top, v)
	}
	var s float64
	for i, v := range x {
		e := exp32(v - top)
		out[i] = e
		s += float64(e)
	}
	inv := float32(1 / s)
	for i := range x {
		out[i] *= inv
	}
}

// Exp writes e^x into out, element by element; out may be x. Within 2 ulp on [-87, 88], 0 below.
func Exp(out, x []float32) {
	for i, v := range x {
		out[i] = exp32(v)
	}
}

// exp32 is e^x by x = n·ln 2 + r and a polynomial of degree 7 in r (Cephes expf, Moshier 1992).
// Products are rounded before they are added, so that every architecture gets the same bits.
// Note: float32(math.Exp(float64(x))) took twice as long on amd64.
func exp32(x float32) float32 {
	const (
		log2e = 1.44269504088896341
		ln2Hi = 0.693359375
		ln2Lo = -2.12194440e-4
		round = 3 << 22 // adding and subtracting 1.5·2^23 rounds to the nearest integer
	)
	if x < -87 {
		return 0
	}
	if x > 88.3 {
		return float32(math.Inf(1))
	}
	n := float32(x*log2e) + round
	n -= round
	r := x - float32(n*ln2Hi)
	r -= float32(n * ln2Lo)
	p := float32(1.9875691500e-4)
	p = float32(p*r) + 1.3981999507e-3
	p = float32(p*r) + 8.3334519073e-3
	p = float32(p*r) + 4.1665795894e-2
	p = float32(p*r) + 1.6666665459e-1
	p = float32(p*r) + 5.0000001201e-1
	p = float32(p*float32(r*r)) + r + 1
	return float32(p * math.Float32frombits(uint32(int32(n)+127)<<23))
}

// softmaxV0 is the oracle, all in float64.
func softmaxV0(x []float32) []float64 {
	top := math.Inf(-1)
	for _, v := range x {
		top = max(top, float64(v))
	}
	out, s := make([]float64, len(x)), 0.0
	for i, v := range x {
		out[i] = math.Exp(float64(v) - top)
		s += out[i]
	}
	for i := range out {
		out[i] /= s
	}
	return out
}

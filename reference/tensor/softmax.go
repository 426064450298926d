package tensor

import "math"

// Softmax writes exp(x - max x) / Σ exp(x - max x) into out; out may be x.
//
//	out, x: (V), at least one element
//
// The sum runs in float64, in eight lanes by index modulo 8, so every kernel gets the same bits. Relative error up to
// (4 + |x - max x|)·2^-23: the difference is rounded once before it is exponentiated.
func Softmax(out, x []float32) { softmax(chosen().kernel.vector, out, x) }

func softmax(v *vector, out, x []float32) {
	out = out[:len(x)]
	scale(v, out, float32(1/expSum(v, out, x, largest(v, x))))
}

// CausalSoftmax turns scores into weights, row by row: softmax of scale·score over what a token sees, zero elsewhere.
//
//	x: (T, S); row t sees the first S - T + t + 1
func CausalSoftmax(x []float32, T, S int, factor float32) {
	causalSoftmax(chosen().kernel.vector, x, T, S, factor)
}

// causalSoftmax goes over some rows three times, because what is next to each other then does not wait for each other: the largest,
// the sum and its inverse hang on one another. Rows are padded with numbers whose exponential is nothing, if they have room.
func causalSoftmax(v *vector, x []float32, T, S int, factor float32) {
	const rows = 8
	var tops, sums [rows]float32
	for t := 0; t < T; t += rows {
		n := min(rows, T-t)
		for r := range n {
			row, seen := x[(t+r)*S:(t+r+1)*S], S-T+t+r+1
			scale(v, row[:seen], factor)
			tops[r] = largest(v, row[:seen])
			for i := seen; i < padded(seen, S); i++ {
				row[i] = float32(math.Inf(-1))
			}
		}
		for r := range n {
			row := x[(t+r)*S:][:padded(S-T+t+r+1, S)]
			sums[r] = float32(1 / expSum(v, row, row, tops[r]))
		}
		for r := range n {
			row, seen := x[(t+r)*S:(t+r+1)*S], S-T+t+r+1
			scale(v, row[:padded(seen, S)], sums[r])
			clear(row[seen:])
		}
	}
}

// padded is seen rounded up to eights, if that is at most S.
func padded(seen, S int) int {
	if n := (seen + 7) &^ 7; n <= S {
		return n
	}
	return seen
}

// CausalSoftmaxGrad turns the gradients d of weights w into those of the scores, before scale: w·(d - Σ w·d)·scale over what a
// token sees, zero elsewhere. The sum runs in float64, in order.
//
//	d, w: (T, S); row t sees the first S - T + t + 1
func CausalSoftmaxGrad(d, w []float32, T, S int, factor float32) {
	causalSoftmaxGrad(chosen().kernel.vector, d, w, T, S, factor)
}

func causalSoftmaxGrad(v *vector, d, w []float32, T, S int, factor float32) {
	for t := 0; t < T; t += 4 {
		rows := min(4, T-t)
		dots := causalDots(d[t*S:(t+rows)*S], w[t*S:(t+rows)*S], S, S-T+t+1)
		for r := range rows {
			seen := S - T + t + r + 1
			dr, wr := d[(t+r)*S:(t+r+1)*S], w[(t+r)*S:(t+r+1)*S]
			mean, n := float32(dots[r]), eights(v, seen)
			if n > 0 {
				v.softmaxGrad(dr[:n], wr, mean, factor)
			}
			for i := n; i < seen; i++ {
				dr[i] = wr[i] * (dr[i] - mean) * factor
			}
			clear(dr[seen:])
		}
	}
}

// causalDots sums w·d over up to four rows of S, of which row r sees seen + r, each in order; see squares.
func causalDots(d, w []float32, S, seen int) (sums [4]float64) {
	if len(d) < 4*S {
		for r := range len(d) / S {
			for i, x := range w[r*S : r*S+seen+r] {
				sums[r] += float64(x * d[r*S+i])
			}
		}
		return sums
	}
	d0, d1, d2, d3 := d[:seen], d[S:S+seen+1], d[2*S:2*S+seen+2], d[3*S:3*S+seen+3]
	w0, w1, w2, w3 := w[:seen], w[S:S+seen+1], w[2*S:2*S+seen+2], w[3*S:3*S+seen+3]
	var s0, s1, s2, s3 float64
	for i := range min(len(d0), len(d1), len(d2), len(d3), len(w0), len(w1), len(w2), len(w3)) {
		s0 += float64(w0[i] * d0[i])
		s1 += float64(w1[i] * d1[i])
		s2 += float64(w2[i] * d2[i])
		s3 += float64(w3[i] * d3[i])
	}
	s1 += float64(w1[seen] * d1[seen])
	for i := range 2 {
		s2 += float64(w2[seen+i] * d2[seen+i])
	}
	for i := range 3 {
		s3 += float64(w3[seen+i] * d3[seen+i])
	}
	return [4]float64{s0, s1, s2, s3}
}

// Largest is the largest of at least one element.
func Largest(x []float32) float32 { return largest(chosen().kernel.vector, x) }

// largest is max x; which NaN it meets does not matter, the sum becomes NaN anyway.
func largest(v *vector, x []float32) float32 {
	top, n := x[0], 0
	if v != nil && len(x) >= 8 {
		n = len(x) &^ 7
		top = v.top(x[:n])
	}
	for _, e := range x[n:] {
		if e > top {
			top = e
		}
	}
	return top
}

// expSum writes exp(x - shift) into out and returns its sum.
func expSum(v *vector, out, x []float32, shift float32) float64 {
	var lanes [8]float64
	n := 0
	if v != nil && len(x) > 0 {
		n = len(x)
		lanes = v.expShift(out, x, shift)
	}
	for i := n; i < len(x); i++ {
		e := exp32(x[i] - shift)
		out[i] = e
		lanes[i%8] += float64(e)
	}
	return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

// Exp writes e^x into out, element by element, and returns the sum; out may be x.
// Within 2 ulp on [-87, 88.3]; 0 below, +Inf above. The sum is that of [Softmax].
func Exp(out, x []float32) float64 { return expSum(chosen().kernel.vector, out[:len(x)], x, 0) }

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

package invert

import (
	"fmt"
	"math"
)

// Ridge is a linear inverter: the score of each token is a weighted sum of the state and a constant.
type Ridge struct {
	C, Vocab int
	weights  []float64 // (C+1, V)
}

// Fit learns an inverter from states and their tokens by ridge regression on one-hot targets: it minimises
// Σ|score - target|² + λ·|weights|², where λ is lambda times the mean squared size of a channel. Tokens that do not occur in
// the pairs are never guessed right. Takes n·C² + C³ + C²·V operations. Source: Hoerl & Kennard 1970.
//
//	hidden: (n, C), tokens: (n)
func Fit(hidden []float32, tokens []int32, vocab int, lambda float64) (*Ridge, error) {
	n := len(tokens)
	if n == 0 || len(hidden) == 0 || len(hidden)%n != 0 || !(lambda > 0) {
		return nil, fmt.Errorf("fit inverter: %d values for %d tokens, λ %g: want whole states and a positive λ", len(hidden), n, lambda)
	}
	r := &Ridge{C: len(hidden) / n, Vocab: vocab}
	D := r.C + 1
	gram, x := make([]float64, D*D), make([]float64, D)
	r.weights = make([]float64, D*vocab)
	x[r.C] = 1
	for t, id := range tokens {
		if id < 0 || int(id) >= vocab {
			return nil, fmt.Errorf("fit inverter: token %d is id %d, want 0 to %d", t, id, vocab-1)
		}
		for i, v := range hidden[t*r.C : (t+1)*r.C] {
			x[i] = float64(v)
		}
		for i, a := range x {
			row := gram[i*D : i*D+i+1]
			for j := range row {
				row[j] += float64(a * x[j])
			}
			r.weights[i*vocab+int(id)] += a
		}
	}
	trace := 0.0
	for i := range r.C {
		trace += gram[i*D+i]
	}
	for i := range D {
		gram[i*D+i] += lambda * trace / float64(r.C)
	}
	if !cholesky(gram, D) {
		return nil, fmt.Errorf("fit inverter: the states are not finite, or all zero")
	}
	solve(gram, D, r.weights, vocab)
	return r, nil
}

// Guess is the token of the largest score for each state.
//
//	hidden: (T, C)
func (r *Ridge) Guess(hidden []float32) []int32 {
	var list []int32
	scores := make([]float64, r.Vocab)
	for ; len(hidden) >= r.C; hidden = hidden[r.C:] {
		copy(scores, r.weights[r.C*r.Vocab:])
		for i, x := range hidden[:r.C] {
			for id, w := range r.weights[i*r.Vocab : (i+1)*r.Vocab] {
				scores[id] += float64(float64(x) * w)
			}
		}
		best := 0
		for id, s := range scores {
			if s > scores[best] {
				best = id
			}
		}
		list = append(list, int32(best))
	}
	return list
}

// cholesky turns the lower half of a symmetric matrix (n, n) into its factor L, a = L·Lᵀ; false if it is not positive.
func cholesky(a []float64, n int) bool {
	for i := range n {
		for j := range i + 1 {
			sum := a[i*n+j]
			for k := range j {
				sum -= float64(a[i*n+k] * a[j*n+k])
			}
			if i != j {
				a[i*n+j] = sum / a[j*n+j]
				continue
			}
			if !(sum > 0) || math.IsInf(sum, 0) {
				return false
			}
			a[i*n+i] = math.Sqrt(sum)
		}
	}
	return true
}

// solve replaces b (n, m) by the solution of L·Lᵀ·x = b.
func solve(l []float64, n int, b []float64, m int) {
	for i := range n {
		for k := range i {
			axpy(b[i*m:(i+1)*m], b[k*m:(k+1)*m], -l[i*n+k])
		}
		scale(b[i*m:(i+1)*m], 1/l[i*n+i])
	}
	for i := n - 1; i >= 0; i-- {
		for k := i + 1; k < n; k++ {
			axpy(b[i*m:(i+1)*m], b[k*m:(k+1)*m], -l[k*n+i])
		}
		scale(b[i*m:(i+1)*m], 1/l[i*n+i])
	}
}

func axpy(to, x []float64, a float64) {
	for i, v := range x {
		to[i] += float64(a * v)
	}
}

func scale(x []float64, a float64) {
	for i := range x {
		x[i] *= a
	}
}

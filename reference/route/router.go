package route

import (
	"cmp"
	"math"
	"slices"

	"meibench/internal/portable"
)

// Router scores a question by a logistic regression on its features.
type Router struct {
	Weights []float64 // (features)
	Bias    float64
}

// Score is the probability of a label of 1.
func (r Router) Score(x []float64) float64 { return logistic(r.Bias + dot(r.Weights, x)) }

func logistic(z float64) float64 { return 1 / (1 + portable.Exp(-z)) }

func dot(a, b []float64) (s float64) {
	for i, v := range a {
		s += float64(v * b[i])
	}
	return s
}

// Fit trains a router by Newton's method with step halving until the gradient is gone: the weights of least
// Σ cross entropy + l2/2 |weights|², l2 over 0; the bias is free. Equal bits on every machine. Steps: some 10 times n d² + d³.
//
//	x: (n, d); y: (n), 0 to 1, so shares serve as labels too; l2 > 0
func Fit(x [][]float64, y []float64, l2 float64) Router {
	if len(x) == 0 || len(x) != len(y) || !(l2 > 0) {
		panic("route: a fit needs rows, a label for each, and l2 over 0")
	}
	d := len(x[0])
	w := make([]float64, d+1) // the bias last
	rows := make([][]float64, len(x))
	for i, row := range x {
		rows[i] = append(slices.Clone(row), 1)
	}
	now := loss(rows, y, w, l2)
	for range 100 {
		gradient, hessian := slopes(rows, y, w, l2)
		step := solve(hessian, gradient)
		var size float64
		for _, v := range step {
			size = max(size, math.Abs(v))
		}
		scale, next := 1.0, slices.Clone(w)
		for range 40 {
			for i := range w {
				next[i] = w[i] - float64(scale*step[i])
			}
			if v := loss(rows, y, next, l2); v <= now {
				now = v
				copy(w, next)
				break
			}
			scale /= 2
		}
		if size < 1e-10 {
			break
		}
	}
	return Router{w[:d], w[d]}
}

func loss(x [][]float64, y, w []float64, l2 float64) float64 {
	d := len(w) - 1
	sum := float64(l2 / 2 * dot(w[:d], w[:d]))
	for i, row := range x {
		z := dot(w, row) // log(1 + e^z) - y z, without overflow
		sum += max(z, 0) + portable.Log1p(portable.Exp(-math.Abs(z))) - float64(y[i]*z)
	}
	return sum
}

func slopes(x [][]float64, y, w []float64, l2 float64) (gradient []float64, hessian [][]float64) {
	n := len(w)
	gradient, hessian = make([]float64, n), make([][]float64, n)
	for j := range hessian {
		hessian[j] = make([]float64, n)
		if j < n-1 {
			gradient[j] = float64(l2 * w[j])
			hessian[j][j] = l2
		}
	}
	hessian[n-1][n-1] = 1e-9 // the bias alone may be undetermined
	for i, row := range x {
		p := logistic(dot(w, row))
		curve := float64(p * (1 - p))
		for j, v := range row {
			gradient[j] += float64((p - y[i]) * v)
			cv := float64(curve * v)
			for k, u := range row {
				hessian[j][k] += float64(cv * u)
			}
		}
	}
	return gradient, hessian
}

// solve is Gauss's elimination with pivots; it overwrites both.
func solve(a [][]float64, b []float64) []float64 {
	n := len(b)
	for c := range n {
		pivot := c
		for r := c + 1; r < n; r++ {
			if math.Abs(a[r][c]) > math.Abs(a[pivot][c]) {
				pivot = r
			}
		}
		a[c], a[pivot] = a[pivot], a[c]
		b[c], b[pivot] = b[pivot], b[c]
		for r := c + 1; r < n; r++ {
			f := a[r][c] / a[c][c]
			for k := c; k < n; k++ {
				a[r][k] -= float64(f * a[c][k])
			}
			b[r] -= float64(f * b[c])
		}
	}
	for c := n - 1; c >= 0; c-- {
		b[c] = (b[c] - dot(a[c][c+1:], b[c+1:])) / a[c][c]
	}
	return b
}

// NGrams are features of a question's tokens: runs of 1 to n ids, hashed to dims places with a sign, over the root of how many there
// are. Different runs may meet in a place; the sign makes that fair in the mean (Weinberger et al. 2009).
func NGrams(ids []int32, n, dims int) []float64 {
	out, count := make([]float64, dims), 0
	for at := range ids {
		hash := uint64(0xcbf29ce484222325)
		for _, id := range ids[at:min(at+n, len(ids))] {
			hash = (hash ^ uint64(uint32(id)) + 1) * 0x9e3779b97f4a7c15
			hash ^= hash >> 29
			place := hash * 0xbf58476d1ce4e5b9
			out[place>>32%uint64(dims)] += 1 - 2*float64(place>>31&1)
			count++
		}
	}
	for i := range out {
		out[i] /= math.Sqrt(float64(max(1, count)))
	}
	return out
}

// AUC is the probability that a question of label 1 scores above one of label 0, ties counting half; NaN if a label is missing.
func AUC(scores []float64, labels []bool) float64 {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(scores[a], scores[b]) })
	var wins, yes, no float64
	for i := 0; i < len(order); {
		j, ties, negatives := i, 0.0, 0.0
		for ; j < len(order) && scores[order[j]] == scores[order[i]]; j++ {
			if labels[order[j]] {
				ties++
			} else {
				negatives++
			}
		}
		wins += float64(ties * (no + negatives/2))
		yes, no, i = yes+ties, no+negatives, j
	}
	return wins / (yes * no)
}

// Threshold is the score from which on questions go to the strong model so that a share of these scores does, as near as ties
// allow: RouteLLM's calibration by quantile. Share 0 gives +Inf.
func Threshold(scores []float64, share float64) float64 {
	k := int(math.RoundToEven(float64(share * float64(len(scores)))))
	if k == 0 {
		return math.Inf(1)
	}
	sorted := slices.Sorted(slices.Values(scores))
	return sorted[len(sorted)-k]
}

// Labels of Hybrid LLM (ICLR 2024): is the small model good enough? gaps[i] has samples of the small answer's quality less the
// large one's for question i; the label is the share of samples of at least -t. With one sample and t = 0 it is the
// deterministic label, with several and t = 0 the probabilistic one.
func Labels(gaps [][]float64, t float64) []float64 {
	out := make([]float64, len(gaps))
	for i, samples := range gaps {
		for _, h := range samples {
			if h >= -t {
				out[i]++
			}
		}
		out[i] /= float64(len(samples))
	}
	return out
}

// Slack is Hybrid LLM's t*, at least 0, at which labels differ most: the largest mean distance between two questions' labels, the least t
// among equals. It tries every t at which a label changes.
func Slack(gaps [][]float64) (t float64) {
	candidates := []float64{0}
	for _, samples := range gaps {
		for _, h := range samples {
			if h < 0 {
				candidates = append(candidates, -h)
			}
		}
	}
	slices.Sort(candidates)
	widest := -1.0
	for _, c := range slices.Compact(candidates) {
		if s := spread(Labels(gaps, c)); s > widest {
			widest, t = s, c
		}
	}
	return t
}

// spread is the mean distance of all pairs, n² of them.
func spread(y []float64) (s float64) {
	slices.Sort(y)
	n := float64(len(y))
	for i, v := range y {
		s += float64(v * (2*float64(i) - n + 1))
	}
	return 2 * s / float64(n*n)
}

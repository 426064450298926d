package llm

import (
	"math"

	"meibench/reference/tensor"
)

// mixture is the memory of a layer with experts. One row per token; the comments give row widths.
type mixture struct {
	router []float32 // Experts: probabilities
	chosen []int32   // ExpertsUsed: experts of the token, likeliest first
	share  []float32 // ExpertsUsed: what each contributes
	gate   []float32 // 1: gate of the shared expert

	// The tokens of one expert, gathered.
	from []int32   // row that each comes from
	part []float32 // its share there
	x, y []float32 // C: what goes in and what comes out
}

func (x *mixture) reserve(c Config, rows int) {
	if c.Experts == 0 {
		return
	}
	grow(&x.router, rows*c.Experts)
	grow(&x.share, rows*c.ExpertsUsed)
	grow(&x.gate, rows)
	grow(&x.part, rows)
	grow(&x.x, rows*c.Dim)
	grow(&x.y, rows*c.Dim)
	if cap(x.chosen) < rows*c.ExpertsUsed {
		x.chosen, x.from = make([]int32, rows*c.ExpertsUsed), make([]int32, rows)
	}
	x.chosen = x.chosen[:rows*c.ExpertsUsed]
}

// widestFFN is the largest width of a feed-forward network in a layer.
func (c Config) widestFFN() int {
	if c.Experts > 0 {
		return max(c.ExpertFFN, c.SharedFFN)
	}
	return c.FFN
}

// mixture sends each row of norm through the experts that the router chooses and leaves the sum in tmp.
//
// Experts run one after the other, each on all of its tokens at once. A token's sum is over its experts in ascending
// order, from zero, whichever other tokens are in the call: its bits depend on itself only.
func (w *Work) mixture() {
	m, b, x, C := w.Model, w.layer, &w.mix, w.Model.Dim
	w.multiply(w.norm, w.rows, product{&b.Router, x.router})
	w.each(w.rows, m.Experts*4, (*Work).choose)
	if used := m.ExpertsUsed; w.Route != nil {
		for r := range w.rows {
			w.Route(w.index, r, x.chosen[r*used:(r+1)*used], x.share[r*used:(r+1)*used])
		}
	}
	clear(w.tmp)
	for e := range b.Experts {
		n := w.gather(int32(e))
		if n == 0 {
			continue
		}
		if w.Remote == nil || !w.Remote(w.index, e, x.y[:n*C], x.x[:n*C], n) {
			w.feedForward(&b.Experts[e], x.y, x.x, n)
		}
		for i := range n {
			to := w.tmp[int(x.from[i])*C:][:C]
			tensor.AddScaled(to, x.y[i*C:(i+1)*C], x.part[i])
		}
	}
	if m.SharedFFN > 0 {
		w.multiply(w.norm, w.rows, product{&b.SharedGate, x.gate})
		w.feedForward(&b.Shared, x.y, w.norm, w.rows)
		for r := range w.rows {
			open := float32(1 / (1 + math.Exp(-float64(x.gate[r]))))
			tensor.AddScaled(w.tmp[r*C:(r+1)*C], x.y[r*C:(r+1)*C], open)
		}
	}
}

// Expert runs one expert of layer l on T rows: what a node that holds the expert does for another's Work.Remote, with the
// bits that it would have there.
//
//	out, x: (T, C)
func (w *Work) Expert(l, expert int, out, x []float32, T int) {
	m := w.Model
	grow(&w.gate, T*m.widestFFN())
	grow(&w.up, T*m.widestFFN())
	w.adapted = w.adapted[:0]
	w.enter(l)
	w.feedForward(&w.layer.Experts[expert], out, x, T)
}

// gather copies the rows of norm that chose expert e, in order, and returns their number.
func (w *Work) gather(e int32) int {
	m, x, C, n := w.Model, &w.mix, w.Model.Dim, 0
	for i, chosen := range x.chosen {
		if chosen != e {
			continue
		}
		r := i / m.ExpertsUsed
		x.from[n], x.part[n] = int32(r), x.share[i]
		copy(x.x[n*C:(n+1)*C], w.norm[r*C:(r+1)*C])
		n++
	}
	return n
}

// choose takes, for rows [lo, hi), the ExpertsUsed experts of highest probability, the lower number among equals.
func (w *Work) choose(lo, hi int) {
	m, x := w.Model, &w.mix
	E, used := m.Experts, m.ExpertsUsed
	for r := lo; r < hi; r++ {
		probs := x.router[r*E : (r+1)*E]
		chosen, share := x.chosen[r*used:(r+1)*used], x.share[r*used:(r+1)*used]
		tensor.Softmax(probs, probs)
		var sum float32
		for i := range chosen {
			best := -1
			for e, p := range probs {
				if p >= 0 && (best < 0 || p > probs[best]) {
					best = e
				}
			}
			if best < 0 { // every probability left is NaN: the result is NaN whoever computes it
				best = i
			}
			chosen[i], share[i] = int32(best), probs[best]
			sum += share[i]
			probs[best] = -1
		}
		if w.traits.experts == renormalised {
			for i := range share {
				share[i] /= sum
			}
		}
	}
}

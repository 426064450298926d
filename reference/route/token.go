package route

import (
	"math"

	"meibench/internal/portable"
	"meibench/reference/spec"
)

// Rules for one token at a time: who writes it. Laws are (V) probabilities of a small and a large model.

// FallsBack is BiLD's first rule (arXiv 2302.07863): the small model hands over when its likeliest token has less than limit, 0 to 1.
func FallsBack(small []float64, limit float64) bool { return most(small) < limit }

func most(x []float64) (m float64) {
	for _, v := range x {
		m = max(m, v)
	}
	return m
}

// Distance is how much the large model is against a token: its negative log probability in nats, +Inf for 0.
func Distance(large []float64, token int) float64 { return -portable.Log(large[token]) }

// RollsBack is BiLD's second rule: the first token of the small model's text whose Distance is over limit, or len(text). What
// follows is discarded and the large model writes that token. It does not keep the large model's law.
//
//	large: (n, V), the large model's law at each position; text: (n)
func RollsBack(large [][]float64, text []int, limit float64) int {
	for i, x := range text {
		if Distance(large[i], x) > limit {
			return i
		}
	}
	return len(text)
}

// Uncertainty is U-HLM's measure (arXiv 2412.12687): the share of draws at other temperatures that differ from the drafted token. How
// the paper perturbs is not checked; the temperatures are the caller's. It takes one number of u per temperature.
//
//	logits: (V); temperatures over 0
func Uncertainty(logits []float64, draft int, temperatures []float64, u func() float64) float64 {
	law, differ := make([]float64, len(logits)), 0
	highest := math.Inf(-1)
	for _, v := range logits {
		highest = max(highest, v)
	}
	for _, t := range temperatures {
		for i, v := range logits {
			law[i] = portable.Exp((v - highest) / t)
		}
		if spec.Draw(law, u()) != draft {
			differ++
		}
	}
	return float64(differ) / float64(len(temperatures))
}

// Skips says whether a draft stays without asking the large model: if its uncertainty is under limit. A limit of 0 asks about all, +Inf
// about none.
func Skips(uncertainty, limit float64) bool { return uncertainty < limit }

// HybridLaw is the law of a token that is drafted from small, kept if skip says so, and judged by the lossless rule if not; and risk,
// the probability that a draft is kept that the large model would have rejected. The law's total variation distance from large is at
// most risk.
//
//	large, small: (V); skip: (V), for each draft
func HybridLaw(large, small []float64, skip []bool) (law []float64, risk float64) {
	law = make([]float64, len(large))
	rest := spec.Residual(make([]float64, len(large)), large, small)
	var rejected float64
	for x, q := range small {
		lost := max(0, q-large[x]) // q (1 - min(1, p/q))
		if skip[x] {
			law[x] = q
			risk += lost
		} else {
			law[x] = q - lost
			rejected += lost
		}
	}
	for x, r := range rest {
		law[x] += float64(rejected * r)
	}
	return law, risk
}

// Line is a least squares fit y = Slope x + Intercept and the share of variance that it explains.
type Line struct{ Slope, Intercept, R2 float64 }

// FitLine fits rejection against uncertainty, as U-HLM does. R2 is NaN if all y are equal, and Slope too if all x are.
func FitLine(x, y []float64) Line {
	n := float64(len(x))
	var mx, my float64
	for i := range x {
		mx, my = mx+x[i]/n, my+y[i]/n
	}
	var xx, xy, yy float64
	for i := range x {
		dx, dy := x[i]-mx, y[i]-my
		xx, xy, yy = xx+float64(dx*dx), xy+float64(dx*dy), yy+float64(dy*dy)
	}
	slope := xy / xx
	return Line{slope, my - float64(slope*mx), float64(xy*xy) / float64(xx*yy)}
}

// Limit is the uncertainty at which the fitted rejection is risk: drafts under it may be kept. Not under 0; +Inf if the line does not rise
// and never reaches risk.
func (l Line) Limit(risk float64) float64 {
	switch {
	case l.Slope > 0:
		return max(0, (risk-l.Intercept)/l.Slope)
	case l.Intercept <= risk && l.Slope <= 0:
		return math.Inf(1)
	}
	return 0
}

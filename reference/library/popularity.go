package library

import (
	"fmt"
	"math"
	"slices"

	"meibench/internal/portable"
	"meibench/internal/rng"
)

// Popularity is how often models are asked for: a Zipf-Mandelbrot law over ranks, with users who tend to ask for what
// they asked for last, and ranks that change over time.
//
// For users of a public service of generative models, the data of GenTD26 (cluster-trace-v2026-GenAI) give s = 1.43, or s =
// 2.47 with q = 3.37 which fits the head better, and P(same model as before) = 0.718.
type Popularity struct {
	S      float64 // exponent, >= 0; 0 = all models alike
	Q      float64 // shift of ranks, >= 0
	Sticky float64 // probability, in [0, 1), that a request repeats the user's last model
	Drift  float64 // share of the models, in [0, 1], whose ranks are drawn anew each epoch
}

// Check says what is wrong with a law.
func (p Popularity) Check() error {
	for _, v := range []struct {
		name   string
		v, max float64
	}{{"s", p.S, 10}, {"q", p.Q, 1e6}, {"sticky", p.Sticky, math.Nextafter(1, 0)}, {"drift", p.Drift, 1}} {
		if math.IsNaN(v.v) || v.v < 0 || v.v > v.max {
			return fmt.Errorf("popularity: %s = %g: want 0 to %g", v.name, v.v, v.max)
		}
	}
	return nil
}

// Weights are the probabilities of ranks 1 to n, descending, with sum 1: (rank + Q)^-S over their sum.
func (p Popularity) Weights(n int) []float64 {
	w := make([]float64, n)
	sum := 0.0
	for i := range w {
		w[i] = portable.Exp(-p.S * portable.Log(float64(i+1)+p.Q))
		sum += w[i]
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}

// Demand draws models for requests. Who asks when for what depends on the seed, the user and the number of the request
// alone, so that every policy meets the same requests.
type Demand struct {
	law   Popularity
	sums  []float64 // of the weights
	key   rng.Key
	turns [][]int // by epoch: model of each rank
	shift rng.Key
	last  map[int]int
}

// NewDemand is the demand for n models. Ranks are dealt to models by the seed.
func NewDemand(p Popularity, n int, seed uint64) (*Demand, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, fmt.Errorf("popularity: %d models: want at least one", n)
	}
	d := newDemand(p, p.Weights(n), seed)
	luck, first := rng.Stream(seed, "ranks"), d.turns[0]
	luck.Shuffle(n, func(i, j int) { first[i], first[j] = first[j], first[i] })
	return d, nil
}

// DemandOf is the demand for models whose weights are known; of the law, what users stick to and what drifts counts.
func DemandOf(p Popularity, weights []float64, seed uint64) (*Demand, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	sum := 0.0
	for i, w := range weights {
		if !(w > 0) || math.IsInf(w, 0) {
			return nil, fmt.Errorf("popularity: weight %g of model %d: want a finite number above 0", w, i)
		}
		sum += w
	}
	if len(weights) == 0 || math.IsInf(sum, 0) {
		return nil, fmt.Errorf("popularity: %d weights, sum %g: want at least one and a finite sum", len(weights), sum)
	}
	shares := make([]float64, len(weights))
	for i, w := range weights {
		shares[i] = w / sum
	}
	return newDemand(p, shares, seed), nil
}

// newDemand is one whose ranks are the models in their order.
func newDemand(p Popularity, shares []float64, seed uint64) *Demand {
	d := &Demand{law: p, sums: shares, key: rng.NewKey(seed, "demand"), shift: rng.NewKey(seed, "drift"), last: map[int]int{}}
	first := make([]int, len(shares))
	for i := range shares {
		first[i] = i
		if i > 0 {
			d.sums[i] += d.sums[i-1]
		}
	}
	d.turns = [][]int{first}
	return d
}

// Ranked is the model of each rank in an epoch, from 0. The slice is the demand's own.
func (d *Demand) Ranked(epoch int) []int {
	for len(d.turns) <= epoch {
		e := len(d.turns)
		next := slices.Clone(d.turns[e-1])
		n := len(next)
		moved := int(math.Round(d.law.Drift * float64(n)))
		for k := range moved {
			luck := d.shift.At(uint64(e)<<32 | uint64(k))
			i, j := int(luck.Float64()*float64(n)), int(luck.Float64()*float64(n))
			next[i], next[j] = next[j], next[i]
		}
		d.turns = append(d.turns, next)
	}
	return d.turns[epoch]
}

// Probabilities are those of the models in an epoch, by model.
func (d *Demand) Probabilities(epoch int) []float64 {
	ranked := d.Ranked(epoch)
	p := make([]float64, len(ranked))
	before := 0.0
	for r, i := range ranked {
		p[i] = d.sums[r] - before
		before = d.sums[r]
	}
	return p
}

// Draw is the model that request number n wants, by a user in an epoch. Requests are drawn in order: a sticky user's
// last request counts.
func (d *Demand) Draw(n, user, epoch int) int {
	luck := d.key.At(uint64(n))
	u, v := luck.Float64(), luck.Float64()
	if last, ok := d.last[user]; ok && v < d.law.Sticky {
		return last
	}
	at, _ := slices.BinarySearch(d.sums, u)
	i := d.Ranked(epoch)[min(at, len(d.sums)-1)]
	d.last[user] = i
	return i
}

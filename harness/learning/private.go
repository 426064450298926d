package learning

import (
	"fmt"
	"math"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/privacy"
	"meibench/reference/train"
)

// rate is the chance of a question to be in a step under differential privacy.
func (j *Job) rate() float64 { return min(1, float64(j.Batch)/float64(max(1, j.Samples))) }

// private is a step's gradient under differential privacy: that of each question is cut to a length, their sum gets normal noise, and both are
// divided by how many questions a step has in the mean (DP-SGD, Abadi et al. 2016, arXiv 1607.00133, alg. 1). Questions are drawn as the account
// has it, each with the same chance in every step. The loss is the mean over those drawn, 0 if there are none.
func (s *School) private(b *bench, l *lesson, batch *train.Batch, step int) (loss float64, grad *train.Params) {
	sum, at := make([]float32, len(b.params.Flat)), 0
	for _, n := range batch.Lens {
		one := train.Batch{Tokens: batch.Tokens[at : at+n], Targets: batch.Targets[at : at+n], Weights: batch.Weights[at : at+n], Lens: []int{n}}
		at += n
		var part float64
		part, grad = b.learner.Gradient([]train.Batch{one})
		loss += part / float64(len(batch.Lens))
		norm := 0.0
		for _, g := range grad.Flat {
			norm += float64(g) * float64(g)
		}
		scale := float32(min(1, s.job.Clip/max(math.Sqrt(norm), 1e-30)))
		for i, g := range grad.Flat {
			sum[i] += float32(scale * g)
		}
	}
	if grad == nil { // nobody was drawn
		grad = b.params.Like()
	}
	noise := rng.Stream(s.job.Seed, "learning", "noise", l.client, step)
	each := 1 / (s.job.rate() * float64(s.job.Samples))
	for i, v := range sum {
		if s.job.Noise > 0 {
			v += float32(s.job.Noise * s.job.Clip * rng.Normal(noise))
		}
		grad.Flat[i] = float32(float64(v) * each)
	}
	return loss, grad
}

// weigher is what an update weighs at most under secure aggregation, where clients weigh their own: its share of the largest client's questions.
const weigher = 1.0

// secureRange is the largest number of an update that is summed under masks; what is beyond it is cut.
const secureRange = 4.0

// group is who sums under masks: more than half must stay.
func (s *School) group(n, dim, round int) privacy.Group {
	return privacy.Group{Clients: n, Threshold: n/2 + 1, Dim: dim, Range: secureRange, Seed: rng.Stream(s.job.Seed, "learning", "secure", round).Uint64()}
}

// masked is the weighted mean of changes of which the server sees the sum alone: every client sends its change times its weight, and the
// weight behind it, as integers under masks that cancel (package privacy). Rounding to integers is below a millionth of the range.
func (s *School) masked(round int, global []float32, weights []float64, xs [][]float32) ([]float32, error) {
	if len(xs) < 2 {
		return nil, fmt.Errorf("a sum of %d update hides nothing: secure aggregation needs two", len(xs))
	}
	most := 0.0
	for _, w := range weights {
		most = max(most, w)
	}
	updates := make([][]float32, len(xs))
	for i, x := range xs {
		w := weights[i] / most * weigher
		u := make([]float32, len(x)+1)
		for j, v := range x {
			d := min(max(float64(v)-float64(global[j]), -secureRange), secureRange)
			u[j] = float32(d * w)
		}
		u[len(x)] = float32(w)
		updates[i] = u
	}
	g := s.group(len(xs), len(global)+1, round)
	sum, _, _, err := privacy.Aggregate(g, updates, nil)
	if err != nil {
		return nil, err
	}
	total := g.Float(sum)
	mean := make([]float32, len(global))
	for j := range mean {
		mean[j] = global[j] + float32(total[j]/total[len(global)])
	}
	return mean, nil
}

// Secure is what secure aggregation among n clients adds to what each sends and gets: keys, shares of secrets, and what is asked for at the end. The
// masked update itself is as large as a plain one.
func (s *School) Secure(n int) (up, down units.Bytes, err error) {
	if !s.job.Secure || n < 2 {
		return 0, 0, nil
	}
	updates := make([][]float32, n)
	for i := range updates {
		updates[i] = []float32{0}
	}
	_, _, cost, err := privacy.Aggregate(s.group(n, 1, 0), updates, nil)
	if err != nil {
		return 0, 0, err
	}
	return units.Bytes(math.Ceil(mean(cost.Up))) - 4, units.Bytes(math.Ceil(mean(cost.Down))), nil
}

func mean(xs []int) float64 {
	sum := 0
	for _, x := range xs {
		sum += x
	}
	return float64(sum) / float64(len(xs))
}

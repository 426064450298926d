package fitting

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sort"
	"time"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
)

// Sample is one timed operation: Prefill, Decode or Verify of a known model on
// some span of its layers.
type Sample struct {
	Op   hardware.Op
	Time time.Duration
}

// Residual compares a sample with the fitted law.
type Residual struct {
	Predicted time.Duration
	Relative  float64 // (predicted - measured) / measured
}

// FitOps fits the affine cost law of one model from timings. Prefill and Verify
// samples give the prefill coefficients, Decode samples the decode ones; a kind
// without samples keeps zero coefficients and Law falls back to its formula.
//
// The fit minimises relative error under the constraint that no coefficient is
// negative, because a negative cost predicts nonsense outside the samples. It is
// robust: samples that fit badly weigh less (weights 1/sqrt(max(|e|, 0.02)),
// iterated), so that one interrupted timing does not bend the law.
//
// To tell the coefficients apart, samples must vary what they multiply: number
// of tokens, context, batch, and, for the split of layers and head, the span. What
// the samples do not tell apart is put where it is exact for their own shape.
// Residuals are in the order of samples. The caller names Kernel, Source and Kind.
func FitOps(samples []Sample) (profiles.Fit, []Residual, error) {
	if len(samples) == 0 {
		return profiles.Fit{}, nil, errors.New("fit: no samples: time some operations first")
	}
	m := samples[0].Op.Model
	fit := profiles.Fit{Kind: profiles.Measured, Samples: len(samples)}
	var groups [2][]int // prefill and verify, decode
	for i := range samples {
		s := &samples[i]
		if err := s.check(m); err != nil {
			return profiles.Fit{}, nil, fmt.Errorf("fit: sample %d: %w", i, err)
		}
		g := 0
		if s.Op.Kind == hardware.Decode {
			g = 1
		}
		groups[g] = append(groups[g], i)
	}
	fit.Model, fit.Digest = m.Name, m.Digest
	residuals := make([]Residual, len(samples))
	for g, out := range []*profiles.Coefficients{&fit.Prefill, &fit.Decode} {
		if len(groups[g]) == 0 {
			continue
		}
		c := fitGroup(samples, groups[g], residuals)
		r := c.row()
		*out = r.Coefficients()
	}
	errs := make([]float64, len(residuals))
	for i, r := range residuals {
		errs[i] = math.Abs(r.Relative)
	}
	sort.Float64s(errs)
	fit.MedianError, fit.P90Error = errs[(len(errs)-1)/2], errs[(len(errs)-1)*9/10]
	return fit, residuals, nil
}

func (s *Sample) check(m *hardware.Model) error {
	switch {
	case s.Op.Kind != hardware.Prefill && s.Op.Kind != hardware.Decode && s.Op.Kind != hardware.Verify:
		return fmt.Errorf("kind %s: only prefill, decode and verify are fitted", s.Op.Kind)
	case s.Op.Model == nil || s.Op.Model != m && (s.Op.Model.Name != m.Name || s.Op.Model.Digest != m.Digest):
		return errors.New("all samples of a fit must be of one model")
	case s.Time <= 0:
		return fmt.Errorf("time must be positive, got %v", s.Time)
	}
	return costmodel.Check(&s.Op)
}

// fitGroup fits the samples of one group and writes their residuals.
func fitGroup(samples []Sample, group []int, residuals []Residual) vec {
	rows := make([]vec, len(group))
	secs := make([]float64, len(group))
	for k, i := range group {
		rows[k], secs[k] = extend(costmodel.RowOf(&samples[i].Op)), samples[i].Time.Seconds()
	}
	c := robust(rows, secs)
	for k, i := range group {
		p := rows[k].dot(&c)
		residuals[i] = Residual{Predicted: time.Duration(math.Round(p * 1e9)), Relative: p/secs[k] - 1}
	}
	return c
}

// terms is the number of coefficients that may be fitted at once: those of a row,
// and what a trace of operations tells besides (see FitTrace).
const terms = len(costmodel.Row{}) + 2

// vec holds features or coefficients. The last two are tokens beyond the knee and
// the cold of the device.
type vec [terms]float64

func extend(r costmodel.Row) (v vec) {
	copy(v[:], r[:])
	return v
}

func (v *vec) row() (r costmodel.Row) {
	copy(r[:], v[:])
	return r
}

func (v *vec) dot(c *vec) float64 {
	s := 0.0
	for j := range v {
		s += float64(v[j] * c[j])
	}
	return s
}

// robust repeats least squares with weights that fall with the misfit.
func robust(rows []vec, secs []float64) (c vec) {
	weights := make([]float64, len(rows))
	for k := range weights {
		weights[k] = 1
	}
	for range 20 {
		was := c
		c = leastSquares(rows, secs, weights)
		if c == was {
			return c
		}
		for k := range rows {
			weights[k] = 1 / math.Sqrt(max(math.Abs(rows[k].dot(&c)/secs[k]-1), 0.02))
		}
	}
	return c
}

// leastSquares minimises Σ weight × (row·c/sec - 1)² over c >= 0, exactly: with
// so few coefficients all sets of positive ones can be tried. Among sets that
// fit equally well the smaller one wins, and of those the earlier.
//
// Note: coordinate descent was tried and needs thousands of rounds when, say,
// all samples have the whole depth and Pass and Layer cannot be told apart.
func leastSquares(rows []vec, secs, weights []float64) vec {
	var gram [terms]vec
	var rhs, scale vec
	total := 0.0
	for k := range rows {
		for j := range terms {
			scale[j] = max(scale[j], rows[k][j]/secs[k])
		}
	}
	for k := range rows {
		var x vec
		for j := range terms {
			if scale[j] > 0 {
				x[j] = rows[k][j] / secs[k] / scale[j]
			}
		}
		for i := range terms {
			for j := range terms {
				gram[i][j] += weights[k] * x[i] * x[j]
			}
			rhs[i] += weights[k] * x[i]
		}
		total += weights[k]
	}
	var best vec
	bestCost := total // of c = 0
	for size := 1; size <= terms; size++ {
		for set := 1; set < 1<<terms; set++ {
			if bits.OnesCount(uint(set)) != size {
				continue
			}
			c, ok := solve(&gram, &rhs, set)
			if !ok {
				continue
			}
			cost := total
			for j := range terms {
				cost -= c[j] * rhs[j] // at the optimum of the set: total - c·rhs
			}
			if cost < bestCost-1e-12*total {
				best, bestCost = c, cost
			}
		}
	}
	for j := range best {
		if scale[j] > 0 {
			best[j] /= scale[j]
		}
	}
	return best
}

// solve finds the unconstrained optimum over the coefficients in set by Gauss
// elimination; ok is false if set is singular or has a coefficient that is not
// positive.
func solve(gram *[terms]vec, rhs *vec, set int) (c vec, ok bool) {
	var idx [terms]int
	n := 0
	for j := range terms {
		if set&(1<<j) != 0 {
			idx[n] = j
			n++
		}
	}
	var a [terms][terms + 1]float64
	for i := range n {
		for j := range n {
			a[i][j] = gram[idx[i]][idx[j]]
		}
		a[i][n] = rhs[idx[i]]
	}
	for i := range n {
		if a[i][i] <= 1e-10*gram[idx[i]][idx[i]] || a[i][i] == 0 {
			return c, false // positive semidefinite: the diagonal is the pivot
		}
		for r := i + 1; r < n; r++ {
			f := a[r][i] / a[i][i]
			for j := i; j <= n; j++ {
				a[r][j] -= f * a[i][j]
			}
		}
	}
	for i := n - 1; i >= 0; i-- {
		x := a[i][n]
		for j := i + 1; j < n; j++ {
			x -= a[i][j] * c[idx[j]]
		}
		if x /= a[i][i]; x <= 0 {
			return vec{}, false
		}
		c[idx[i]] = x
	}
	return c, true
}

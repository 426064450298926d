package predict

import (
	"math"
	"sort"
)

// term is one effect on the logarithm of a time: value times a coefficient that
// is drawn from N(0, sd^2) before any row is seen. A term of a device (own)
// occurs in rows of that device only.
type term struct {
	name  string
	value float64
	sd    float64
	own   bool
	grows growth
}

// growth says what a term's value follows when a model becomes larger.
type growth int

const (
	fixed       growth = iota // nothing
	withTime                  // the logarithm of the time of reference
	withWeights               // the logarithm of the weights
)

func (t term) with(g growth) term {
	t.grows = g
	return t
}

// observation is a logarithm to explain by terms.
type observation struct {
	y     float64
	terms []term
	w     float64 // weight of the row before its residual is known
}

// effects is a fitted mixed model: one coefficient a name.
type effects struct {
	index map[string]int
	coef  []float64
}

// of sums the effects of terms; names that no row had count nothing.
func (e *effects) of(terms []term) float64 {
	sum := 0.0
	for _, t := range terms {
		if i, ok := e.index[t.name]; ok {
			sum += float64(e.coef[i] * t.value)
		}
	}
	return sum
}

// Constants of the robust fit.
const (
	noise     = 0.15 // sd of the logarithm of a row around the law of its device
	rounds    = 4    // re-weightings; more change no figure of accuracy by more than half a point
	leastLoss = 0.05 // residuals below this weigh alike
)

// fitEffects fits a hierarchical model by iteratively re-weighted ridge
// regression: close to least absolute deviations for the rows, quadratic for
// the coefficients, so that an effect with little evidence stays near 0
// (partial pooling). Robinson 1991 calls the coefficients BLUPs. Rows above the
// law weigh slow times as much as rows below.
func fitEffects(obs []observation, slow float64) *effects {
	e, sd, own := indexTerms(obs)
	p := len(sd)
	e.coef = make([]float64, p)
	cells := make([][]int, len(obs))
	w := make([]float64, len(obs))
	for i, o := range obs {
		w[i] = o.w
		for _, t := range o.terms {
			cells[i] = append(cells[i], e.index[t.name])
		}
	}
	a := make([]float64, p*p)
	b := make([]float64, p)
	for range rounds {
		clear(a)
		clear(b)
		for k := range sd {
			a[k*p+k] = noise * noise / (sd[k] * sd[k])
		}
		for i, o := range obs {
			for m, k := range cells[i] {
				v := w[i] * o.terms[m].value
				b[k] += v * o.y
				for n, l := range cells[i] {
					a[k*p+l] += v * o.terms[n].value
				}
			}
		}
		solve(a, b, own)
		copy(e.coef, b)
		for i, o := range obs {
			r := o.y - e.of(o.terms)
			w[i] = o.w * min(1, noise/max(math.Abs(r), leastLoss))
			if r > 0 {
				w[i] *= slow
			}
		}
	}
	return e
}

// indexTerms numbers the names, those of single devices first (own of them),
// in an order that does not depend on the order of rows.
func indexTerms(obs []observation) (e *effects, sd []float64, own int) {
	seen := map[string]term{}
	for _, o := range obs {
		for _, t := range o.terms {
			seen[t.name] = t
		}
	}
	names := make([]string, 0, len(seen))
	for n, t := range seen {
		names = append(names, n)
		if t.own {
			own++
		}
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := seen[names[i]], seen[names[j]]
		if a.own != b.own {
			return a.own
		}
		return a.name < b.name
	})
	e = &effects{index: map[string]int{}}
	for i, n := range names {
		e.index[n] = i
		sd = append(sd, seen[n].sd)
	}
	return e, sd, own
}

// solve replaces b by the solution of a x = b. The matrix a is symmetric and
// positive definite, row by row, and is destroyed. Columns are eliminated from
// left to right, over their nonzero rows only: the first own columns belong to
// single devices and touch few others.
func solve(a, b []float64, own int) {
	n := len(b)
	var rows []int
	for k := range n {
		pivot := a[k*n+k]
		rows = rows[:0]
		for i := k + 1; i < n; i++ {
			if a[k*n+i] != 0 {
				rows = append(rows, i)
			}
		}
		for _, i := range rows {
			f := a[k*n+i] / pivot
			b[i] -= float64(f * b[k])
			to := a[i*n:]
			from := a[k*n:]
			if k < own {
				for _, j := range rows {
					if j >= i {
						to[j] -= float64(f * from[j])
					}
				}
				continue
			}
			for j := i; j < n; j++ {
				to[j] -= float64(f * from[j])
			}
		}
	}
	for k := n - 1; k >= 0; k-- {
		s := b[k]
		for j := k + 1; j < n; j++ {
			s -= float64(a[k*n+j] * b[j])
		}
		b[k] = s / a[k*n+k]
	}
}

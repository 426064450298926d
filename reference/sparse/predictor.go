package sparse

import (
	"fmt"

	"gonum.org/v1/gonum/mat"

	"meibench/internal/units"
)

// Predictor guesses from a layer's input which neurons will matter: scores are (x·A)·B + bias, one small pair per layer.
type Predictor struct {
	Rank   int
	C, F   int
	layers []lowRank
}

// lowRank is a (C, Rank), b (Rank, F), bias (F).
type lowRank struct{ a, b, bias []float32 }

// ridge is added to the diagonal of the inputs' second moments, as a share of its mean: inputs of few samples are nearly
// dependent.
const ridge = 1e-3

// Fit makes a predictor of the share of neurons that matter most, by ridge regression of reduced rank on 0 and 1, in closed
// form: of all matrices of that rank it has the least squared error, with the ridge, over the samples (Izenman 1975). Luck has
// no part in it; the last bits of the coefficients may differ between kinds of processors.
func Fit(s *Samples, keep float64, rank int) (*Predictor, error) {
	if err := checkShare(keep); err != nil {
		return nil, fmt.Errorf("fit predictor: %w", err)
	}
	if rank < 1 || rank > min(s.Dim, s.FFN) {
		return nil, fmt.Errorf("fit predictor of rank %d: want 1 to %d", rank, min(s.Dim, s.FFN))
	}
	p := &Predictor{Rank: rank, C: s.Dim, F: s.FFN, layers: make([]lowRank, len(s.layers))}
	for l := range p.layers {
		if err := p.fit(s, l, Count(keep, s.FFN)); err != nil {
			return nil, fmt.Errorf("fit predictor: layer %d: %w", l, err)
		}
	}
	return p, nil
}

// fit solves one layer. With S = XᵀX + ridge = L·Lᵀ and M = L⁻¹·XᵀY, the best matrix of rank r is L⁻ᵀ·U·Uᵀ·M, U being the r first
// eigenvectors of M·Mᵀ.
func (p *Predictor) fit(s *Samples, l, active int) error {
	x, y, xMean, yMean := s.centred(l, active)
	var S mat.SymDense
	S.SymOuterK(1, x.T())
	trace := 0.0
	for i := range p.C {
		trace += S.At(i, i)
	}
	if !(trace > 0) {
		return fmt.Errorf("%d samples whose inputs do not vary: want a text of several tokens", s.Tokens)
	}
	for i := range p.C {
		S.SetSym(i, i, S.At(i, i)+float64(ridge*trace)/float64(p.C))
	}
	var chol mat.Cholesky
	if !chol.Factorize(&S) {
		return fmt.Errorf("the second moments of %d samples are not positive: want finite inputs", s.Tokens)
	}
	var L mat.TriDense
	chol.LTo(&L)
	var M, a, b mat.Dense
	M.Mul(x.T(), y)
	if err := M.Solve(&L, &M); err != nil {
		return err
	}
	var outer mat.SymDense
	outer.SymOuterK(1, &M)
	var eigen mat.EigenSym
	if !eigen.Factorize(&outer, true) {
		return fmt.Errorf("eigenvectors of %d samples did not converge", s.Tokens)
	}
	var vectors mat.Dense
	eigen.VectorsTo(&vectors) // in ascending order of eigenvalues
	U := vectors.Slice(0, p.C, p.C-p.Rank, p.C)
	if err := a.Solve(L.T(), U); err != nil {
		return err
	}
	b.Mul(U.T(), &M)
	layer := lowRank{make([]float32, p.C*p.Rank), make([]float32, p.Rank*p.F), make([]float32, p.F)}
	fill(layer.a, &a)
	fill(layer.b, &b)
	guess := make([]float64, p.F)
	p.scores(&layer, xMean, guess)
	for i, v := range yMean {
		layer.bias[i] = float32(v - guess[i])
	}
	p.layers[l] = layer
	return nil
}

func fill(to []float32, from *mat.Dense) {
	rows, cols := from.Dims()
	for i := range rows {
		for j := range cols {
			to[i*cols+j] = float32(from.At(i, j))
		}
	}
}

// centred are inputs and targets of a layer less their means.
func (s *Samples) centred(l, active int) (x, y *mat.Dense, xMean []float32, yMean []float64) {
	C, F, in := s.Dim, s.FFN, &s.layers[l]
	x, y = mat.NewDense(s.Tokens, C, nil), mat.NewDense(s.Tokens, F, nil)
	sum := make([]float64, C)
	yMean, xMean = make([]float64, F), make([]float32, C)
	on := make([]bool, F)
	var order []int32
	for t := range s.Tokens {
		order = largest(order, in.act[t*F:(t+1)*F], active, on)
		for i, yes := range on {
			if yes {
				y.Set(t, i, 1)
				yMean[i] += 1 / float64(s.Tokens)
			}
		}
		for i, v := range in.x[t*C : (t+1)*C] {
			x.Set(t, i, float64(v))
			sum[i] += float64(v)
		}
	}
	for i := range sum {
		xMean[i] = float32(sum[i] / float64(s.Tokens))
	}
	for t := range s.Tokens {
		for i, v := range xMean {
			x.Set(t, i, x.At(t, i)-float64(v))
		}
		for i, v := range yMean {
			y.Set(t, i, y.At(t, i)-v)
		}
	}
	return x, y, xMean, yMean
}

// Bytes is the size of the predictor in memory.
func (p *Predictor) Bytes() units.Bytes {
	return units.Bytes(4 * len(p.layers) * (p.C*p.Rank + p.Rank*p.F + p.F))
}

// Rule keeps the share of neurons with the highest scores; it looks at the input only.
func (p *Predictor) Rule(keep float64) Rule {
	scores := make([]float64, p.F)
	var order []int32
	return func(layer int, x, _, _ []float32, on []bool) {
		n := Count(keep, p.F)
		if n < p.F {
			p.scores(&p.layers[layer], x, scores)
		}
		order = largest(order, scores, n, on)
	}
}

// scores are sums of products in float64, rounded one by one: the same on every machine.
func (p *Predictor) scores(l *lowRank, x []float32, out []float64) {
	for i, v := range l.bias {
		out[i] = float64(v)
	}
	low := make([]float64, p.Rank)
	for i, v := range x {
		for k, a := range l.a[i*p.Rank : (i+1)*p.Rank] {
			low[k] += float64(float64(v) * float64(a))
		}
	}
	for k, v := range low {
		for i, b := range l.b[k*p.F : (k+1)*p.F] {
			out[i] += float64(v * float64(b))
		}
	}
}

package tensor

// MatMul computes out = x·Wᵀ, a linear layer without bias.
//
//	out: (T, N), x: (T, K), w: (N, K), all row-major
//
// Row t of out depends on row t of x and on w only. Accuracy: see [Pool.Gemm].
func (p *Pool) MatMul(out, x, w []float32, T, N, K int) {
	p.Gemm(NewMat(out, T, N), NewMat(x, T, K), NewMat(w, N, K).T(), false)
}

// MatMulRows is MatMul for weights that are decoded to float32 on the way in; equal bits to MatMul on the decoded w.
//
//	out: (T, N), x: (T, K), w: (N, K)
func (p *Pool) MatMulRows(out, x []float32, w RowReader, T, N, K int) {
	p.runGemm(gemmJob{c: NewMat(out, T, N), a: NewMat(x, T, K), b: operand{rows: w, k: K, n: N}})
}

// MatVec is MatMul for one token; equal bits to MatMul on that row.
//
//	out: (N), x: (K), w: (N, K)
func (p *Pool) MatVec(out, x, w []float32, N, K int) { p.MatMul(out, x, w, 1, N, K) }

// MatMulGradX is the gradient of a linear layer by its input: dx = dy·W, or dx += dy·W if acc.
//
//	dx: (T, K), dy: (T, N), w: (N, K)
func (p *Pool) MatMulGradX(dx, dy, w []float32, T, N, K int, acc bool) {
	p.Gemm(NewMat(dx, T, K), NewMat(dy, T, N), NewMat(w, N, K), acc)
}

// MatMulGradW is the gradient of a linear layer by its weights, added to what is there: dw += dyᵀ·x.
//
//	dw: (N, K), dy: (T, N), x: (T, K); the chain of an element runs over t
func (p *Pool) MatMulGradW(dw, dy, x []float32, T, N, K int) {
	p.Gemm(NewMat(dw, N, K), NewMat(dy, T, N).T(), NewMat(x, T, K), true)
}

// gemmV0 is the oracle: sums in float64, no blocking, no packing. sumAbs receives Σ|a·b| for the error bound.
func gemmV0(c, a, b Mat, acc bool) (want, sumAbs []float64) {
	for i := range c.Rows {
		for n := range c.Cols {
			var s, abs float64
			if acc {
				s = float64(c.Data[i*c.RowStride+n])
				abs = max(s, -s)
			}
			for k := range a.Cols {
				v := float64(a.Data[i*a.RowStride+k*a.ColStride]) * float64(b.Data[k*b.RowStride+n*b.ColStride])
				s += v
				abs += max(v, -v)
			}
			want, sumAbs = append(want, s), append(sumAbs, abs)
		}
	}
	return want, sumAbs
}

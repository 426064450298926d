package train

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/tensor"
)

// After orthogonalising, rows (or columns, if there are fewer) have lengths near
// one and are nearly at right angles: X·Xᵀ ≈ 1. The iteration promises singular
// values between 0.7 and 1.2, so entries of X·Xᵀ within 0.45 and 1.5 on the
// diagonal and, for random matrices, near zero beside it.
func TestOrthogonalise(t *testing.T) {
	for _, shape := range [][2]int{{8, 24}, {24, 8}, {16, 16}} {
		N, K := shape[0], shape[1]
		h := hand{step: normals("muon", N*K)}
		h.orthogonalise(N, K)
		x := tensor.NewMat(h.step, N, K)
		if N > K {
			x = x.T()
		}
		for i := range x.Rows {
			for j := range x.Rows {
				dot := 0.0
				for k := range x.Cols {
					dot += float64(x.Data[i*x.RowStride+k*x.ColStride] * x.Data[j*x.RowStride+k*x.ColStride])
				}
				if i == j {
					require.InDelta(t, 1, dot, 0.5, "%v row %d", shape, i)
				} else {
					require.InDelta(t, 0, dot, 0.4, "%v rows %d, %d", shape, i, j)
				}
			}
		}
	}
}

// One step by hand on a 1×1 matrix: momentum 0.05·g, step ±1 whatever g, so the
// weight moves by rate·0.2 against the gradient after decay by rate·0.1. A tied
// embedding and a norm move as AdamW moves them.
func TestMuonStep(t *testing.T) {
	c := tinyTrain
	c.Vocab, c.Dim, c.Layers, c.Heads, c.KVHeads, c.HeadDim, c.FFN = 1, 1, 1, 1, 1, 2, 1
	w, err := New(c)
	require.NoError(t, err)
	g, err := New(c)
	require.NoError(t, err)
	w.Model.Blocks[0].Gate.F32[0], g.Model.Blocks[0].Gate.F32[0] = 2, 3
	w.Model.Norm[0], g.Model.Norm[0] = 2, 3
	NewMuon(w, 2).Step(w, g, 0.1)
	// The iteration brings 1 to between 0.7 and 1.2: (0.68, 1.22) with rounding.
	moved := 2*(1-0.1*0.1) - w.Model.Blocks[0].Gate.F32[0]
	require.InDelta(t, 0.1*0.2, moved, 0.1*0.2*0.32)
	require.InDelta(t, 2-0.1, w.Model.Norm[0], 1e-6, "AdamW's first step is the rate")
}

func TestMuonThreadsDoNotChangeBits(t *testing.T) {
	var want []float32
	for threads := 1; threads <= 4; threads++ {
		w, err := New(tinyTrain)
		require.NoError(t, err)
		w.Init(3)
		l, err := NewLearner(w, threads)
		require.NoError(t, err)
		opt := NewMuon(w, threads)
		before := lossOf(t, w)
		for range 5 {
			_, grad := l.Gradient(tinyBatches())
			opt.Step(w, grad, 1e-2)
		}
		require.Less(t, lossOf(t, w), before)
		if want == nil {
			want = w.Flat
		}
		require.Equal(t, want, w.Flat, "%d threads", threads)
	}
}

package train

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// With nothing added by the new layers, the deeper model is the shallower one:
// its loss has the same bits. 2 layers become layers 0 and 2 of 5 (0·5/2, 1·5/2).
func TestGrow(t *testing.T) {
	from, err := New(tinyTrain)
	require.NoError(t, err)
	from.Init(3)
	c := tinyTrain
	c.Layers = 5
	p, err := New(c)
	require.NoError(t, err)
	p.Init(4)
	require.NoError(t, p.Grow(from))
	require.Equal(t, from.Model.Blocks[1].Q.F32, p.Model.Blocks[2].Q.F32)
	for _, i := range []int{1, 3, 4} {
		clear(p.Model.Blocks[i].Out.F32)
		clear(p.Model.Blocks[i].Down.F32)
	}
	require.Equal(t, lossOf(t, from), lossOf(t, p))

	c.Dim = 16
	wide, err := New(c)
	require.NoError(t, err)
	require.ErrorContains(t, wide.Grow(from), "they differ in more than depth")
	require.Error(t, from.Grow(p), "a model does not grow shallower")
	require.ErrorContains(t, p.Spread(p.Flat, from, from.Flat[1:]), "values for")
}

func lossOf(t *testing.T, p *Params) float64 {
	l, err := NewLearner(p, 1)
	require.NoError(t, err)
	loss, _ := l.Evaluate(tinyBatches())
	return loss
}

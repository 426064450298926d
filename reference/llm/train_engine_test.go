package llm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Training and inference are two programs for one function: logits of the
// tape equal those of Forward bit for bit.
func TestTapeEqualsForward(t *testing.T) {
	p, err := NewTrainable(tinyTrain)
	require.NoError(t, err)
	p.Init(5)
	tp := newTape(tinyTrain)
	var b Batch
	ids := []int32{0, 3, 4, 5, 1, 7}
	b.Add(ids, 1, 1)
	b.Add([]int32{2, 2, 2}, 1, 1)
	tp.forward(p.Model, &b)

	w := p.Model.NewWork(1)
	defer w.Close()
	cache, err := tinyTrain.NewCache(0, tinyTrain.Layers, 8)
	require.NoError(t, err)
	seqs := []Seq{{IDs: ids[:5], Cache: cache, Want: AllLogits}}
	require.NoError(t, w.Forward(0, tinyTrain.Layers, seqs))
	require.Equal(t, seqs[0].Out, tp.logits[:5*tinyTrain.Vocab])
}

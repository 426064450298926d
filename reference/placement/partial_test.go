package placement

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/library"
)

// backbones is a library in which each model is one of two backbones and something of its own.
func backbones(seed uint64, models int) *library.Library {
	luck := rng.Stream(seed, "backbones")
	l := &library.Library{Name: "backbones", Blocks: []library.Block{{Name: "a", Bytes: units.Bytes(20 + luck.IntN(80))}, {Name: "b", Bytes: units.Bytes(20 + luck.IntN(80))}}}
	used := [2]bool{}
	for i := range models {
		k := luck.IntN(2)
		used[k] = true
		l.Blocks = append(l.Blocks, library.Block{Name: fmt.Sprint("own ", i), Bytes: units.Bytes(1 + luck.IntN(30))})
		l.Models = append(l.Models, library.Model{Name: fmt.Sprint("m", i), Blocks: []int{k, 2 + i}})
	}
	if !used[0] || !used[1] || l.Check() != nil {
		return backbones(seed+1000, models)
	}
	return l
}

func batch(seed uint64, models int) *Batch {
	luck := rng.Stream(seed, "batch")
	b := &Batch{Lib: backbones(seed, models), Rate: 100, Serve: 0.05 + float64(0.2*rng.Float64(luck)), Due: 0.5 + float64(3*rng.Float64(luck)), Sharing: true}
	for range b.Lib.Models {
		b.Tasks = append(b.Tasks, 1+luck.IntN(3))
	}
	return b
}

// Dynamic programming does as many tasks as the best of all orders, with sharing and without; sharing never hurts; greedy never
// claims more than can be done.
func TestC10BackbonesAgainstEveryOrder(t *testing.T) {
	better := 0
	for seed := range uint64(300) {
		b := batch(seed, 2+int(seed%4))
		require.NoError(t, b.Check())
		want, err := b.Most()
		require.NoError(t, err)
		got, err := b.ByBackbone()
		require.NoError(t, err)
		require.Equal(t, want, got, "seed %d", seed)
		order, greedy := b.Greedy()
		require.LessOrEqual(t, greedy, want)
		require.LessOrEqual(t, len(order), len(b.Tasks))
		apart := *b
		apart.Sharing = false
		alone, err := apart.ByBackbone()
		require.NoError(t, err)
		ordinary, err := apart.Most()
		require.NoError(t, err)
		require.Equal(t, ordinary, alone, "seed %d: nothing shared", seed)
		require.GreaterOrEqual(t, got, alone)
		if got > alone {
			better++
		}
	}
	require.Greater(t, better, 50)
}

func TestC10ImpossibleBatches(t *testing.T) {
	for want, spoil := range map[string]func(*Batch){
		"want a positive rate": func(b *Batch) { b.Rate = 0 },
		"service":              func(b *Batch) { b.Serve = -1 },
		"fewer than no":        func(b *Batch) { b.Tasks[0] = -1 },
		"tasks of 1 models":    func(b *Batch) { b.Tasks = b.Tasks[:1] },
	} {
		b := batch(1, 3)
		spoil(b)
		require.ErrorContains(t, b.Check(), want)
	}
	b := batch(1, 3)
	b.Lib = &library.Library{Name: "chain", Blocks: []library.Block{{Name: "x", Bytes: 1}, {Name: "y", Bytes: 1}},
		Models: []library.Model{{Name: "m0", Blocks: []int{0}}, {Name: "m1", Blocks: []int{0, 1}}, {Name: "m2", Blocks: []int{1}}}}
	require.NoError(t, b.Lib.Check())
	_, err := b.ByBackbone()
	require.ErrorContains(t, err, "use Greedy")
	b.Tasks = make([]int, 9)
	_, err = b.Most()
	require.ErrorContains(t, err, "at most 8")
}

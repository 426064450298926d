package library

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/units"
)

// llama is Llama-2-7B in F16 with adapters of rank 8 on q and v.
func llama() Shape {
	return Shape{Name: "llama-2-7b", Layers: 32, Embed: 2 * 32000 * 4096, Head: 2 * 32000 * 4096,
		Layer: 2 * (4*4096*4096 + 3*4096*11008), Adapter: 2 * 4_194_304, Coarse: 0.5}
}

// The survey's arithmetic: twenty adapted models apart take 269.5 GB and shared 13.6 GB, 19.8 times less (norms left out here).
func TestC2TwentyAdaptersOnLlama2(t *testing.T) {
	l, err := Build("adapters:20", llama())
	require.NoError(t, err)
	require.Len(t, l.Models, 20)
	apart, shared := l.Sizes()
	require.InDelta(t, 269.7, float64(apart)/1e9, 0.3)
	require.InDelta(t, 13.64, float64(shared)/1e9, 0.02)
	require.InDelta(t, 19.8, float64(apart)/float64(shared), 0.05)
}

func TestC2KindsOfLibraries(t *testing.T) {
	s := llama()
	for _, kind := range Kinds() {
		shape := s
		if kind[0] == "experts" {
			shape.Experts, shape.Expert = 8, 40_000_000
		}
		for _, name := range []string{kind[0], kind[0] + ":7", kind[0] + ":1"} {
			l, err := Build(name, shape)
			require.NoError(t, err, name)
			again, err := Build(name, shape)
			require.NoError(t, err)
			require.Equal(t, len(again.Blocks), len(l.Blocks))
			apart, shared := l.Sizes()
			if len(l.Models) > 1 {
				require.Greater(t, apart, shared, name)
			}
			for i := range l.Models {
				depth := 0
				for _, j := range l.Models[i].Blocks {
					if b := l.Blocks[j]; b.Lo < b.Hi {
						require.LessOrEqual(t, b.Lo, depth, "%s, %s: layers come in order", name, l.Models[i].Name)
						depth = max(depth, b.Hi)
					}
				}
				require.Equal(t, shape.Layers, depth, "%s, %s", name, l.Models[i].Name)
			}
		}
	}
	seven, err := Build("ladder:7", s)
	require.NoError(t, err)
	require.Len(t, seven.Models, 7)
	coarse, full := seven.Whole(0), seven.Whole(1)
	require.InDelta(t, s.Coarse*float64(full), float64(coarse), 100)
	four := s
	four.Coarse = 0
	for _, kind := range []string{"ladder", "mixed"} {
		_, err = Build(kind, four)
		require.ErrorContains(t, err, "too few bits", kind)
	}
	require.Equal(t, full, seven.Union([]int{0, 1}), "the full model is the coarse one and more")
	require.True(t, math.IsNaN(seven.Models[1].Rungs[0].Quality))
}

func TestC2FineTunesShareTheBottom(t *testing.T) {
	l, err := Build("finetunes", llama())
	require.NoError(t, err)
	backbone := l.Whole(0)
	for i := range l.Models {
		require.InDelta(t, float64(backbone), float64(l.Whole(i)), 1e6, "all are as large as the backbone")
		if i == 0 {
			continue
		}
		common := l.Whole(0) + l.Whole(i) - l.Union([]int{0, i})
		share := float64(common-2*32000*4096) / float64(units.Bytes(32)*llama().Layer)
		require.True(t, share > 0.5 && share < 0.95, "model %d shares %g of its layers with the first", i, share)
	}
}

func TestBuildRefuses(t *testing.T) {
	for kind, want := range map[string]string{"": "unknown kind", "tapes": "have adapters, experts", "adapters:0": "1 to 10000", "adapters:x": "1 to 10000", "experts": "has no experts"} {
		_, err := Build(kind, llama())
		require.ErrorContains(t, err, want)
	}
	s := llama()
	s.Adapter = 0
	_, err := Build("adapters", s)
	require.ErrorContains(t, err, "has no adapters")
	s.Layer = 0
	_, err = Build("finetunes", s)
	require.ErrorContains(t, err, "impossible sizes")
}

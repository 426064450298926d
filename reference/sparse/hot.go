package sparse

import (
	"cmp"
	"fmt"
	"slices"
)

// Hot chooses n neurons over all layers, so that as much as possible is served by them: counts are how often each neuron was
// active, cost what a miss costs in each layer (seconds, say; nil for one everywhere). Neurons of a model are equal in size,
// so the placement of PowerInfer (Song et al. 2023, section 6.3, an integer programme) is the n largest products, the
// lower layer and index among equals; a test compares it with all subsets.
//
//	counts, hot: (L, F)
func Hot(counts [][]int, cost []float64, n int) (hot [][]bool, err error) {
	type neuron struct {
		layer, index int
		value        float64
	}
	if cost != nil && len(cost) != len(counts) {
		return nil, fmt.Errorf("choose hot neurons: costs of %d layers for %d: want one each", len(cost), len(counts))
	}
	var all []neuron
	for l, row := range counts {
		hot = append(hot, make([]bool, len(row)))
		for i, c := range row {
			v := float64(c)
			if cost != nil {
				v *= cost[l]
			}
			all = append(all, neuron{l, i, v})
		}
	}
	if n < 0 || n > len(all) {
		return nil, fmt.Errorf("choose %d hot neurons: want 0 to %d", n, len(all))
	}
	slices.SortStableFunc(all, func(a, b neuron) int { return cmp.Compare(b.value, a.value) })
	for _, c := range all[:n] {
		hot[c.layer][c.index] = true
	}
	return hot, nil
}

// Covered is the share of activations, by counts, that fall on hot neurons.
func Covered(counts [][]int, hot [][]bool) float64 {
	part, all := 0, 0
	for l, row := range counts {
		for i, c := range row {
			all += c
			if hot[l][i] {
				part += c
			}
		}
	}
	return share(part, all)
}

package sparse

import (
	"fmt"
	"slices"

	"meibench/reference/llm"
)

// Agreement is the share of positions of texts, up to so many, at which a model with a tally's rule has the next token of the
// model without. The tally counts them.
func Agreement(m *llm.Model, t *Tally, texts [][]int32, most int) (float64, error) {
	if err := checkModel(m.Config); err != nil {
		return 0, fmt.Errorf("compare a rule with the dense model: %w", err)
	}
	w := m.NewWork(1)
	defer w.Close()
	same, all := 0, 0
	for i, ids := range texts {
		n := min(len(ids), most-all, m.Context)
		if n <= 0 {
			break
		}
		var next [2][]int32
		for turn := range next {
			w.Neurons = nil
			if turn == 1 {
				t.Attach(w)
			}
			c, err := m.NewCache(0, m.Layers, n)
			if err != nil {
				return 0, fmt.Errorf("compare a rule with the dense model: %w", err)
			}
			seqs := []llm.Seq{{IDs: ids[:n], Cache: c, Want: llm.AllLogits}}
			if err := w.Forward(0, m.Layers, seqs); err != nil {
				return 0, fmt.Errorf("compare a rule with the dense model: text %d: %w", i, err)
			}
			for row := range slices.Chunk(seqs[0].Out, m.Vocab) {
				next[turn] = append(next[turn], llm.Greedy(row))
			}
		}
		for k, id := range next[0] {
			all++
			if id == next[1][k] {
				same++
			}
		}
	}
	return share(same, all), nil
}

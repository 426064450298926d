package sparse

import (
	"fmt"
	"slices"

	"meibench/reference/llm"
	"meibench/reference/tensor"
)

// Samples are what the networks of a model saw and did on some tokens of a calibration text.
type Samples struct {
	Tokens int
	Dim    int // C
	FFN    int // F
	layers []sampled
}

// sampled is one layer's: x (Tokens, C), open |silu(gate)| and act |silu(gate)·up| (Tokens, F).
type sampled struct{ x, open, act []float32 }

// Sample runs texts of tokens through a model until so many tokens were seen. Texts longer than the model's context are cut.
func Sample(m *llm.Model, texts [][]int32, most int) (*Samples, error) {
	if err := checkModel(m.Config); err != nil {
		return nil, fmt.Errorf("sample neurons: %w", err)
	}
	s := &Samples{Dim: m.Dim, FFN: m.FFN, layers: make([]sampled, m.Layers)}
	w := m.NewWork(1)
	defer w.Close()
	var act []float32
	w.Neurons = func(layer int, x, gate, up []float32, _ int) {
		l := &s.layers[layer]
		l.x = append(l.x, x...)
		for _, g := range gate {
			l.open = append(l.open, abs(tensor.SiLU(g)))
		}
		act = activation(act, gate, up)
		l.act = append(l.act, act...)
	}
	for i, ids := range texts {
		n := min(len(ids), most-s.Tokens, m.Context)
		if n <= 0 {
			continue
		}
		c, err := m.NewCache(0, m.Layers, n)
		if err != nil {
			return nil, fmt.Errorf("sample neurons: %w", err)
		}
		if err := w.Forward(0, m.Layers, []llm.Seq{{IDs: ids[:n], Cache: c, Want: llm.Hidden}}); err != nil {
			return nil, fmt.Errorf("sample neurons: text %d: %w", i, err)
		}
		s.Tokens += n
	}
	if s.Tokens < 2 {
		return nil, fmt.Errorf("sample neurons: %d tokens in %d texts: want 2 at least", s.Tokens, len(texts))
	}
	return s, nil
}

// Threshold is the bound of |silu(gate)| in each layer above which a share of the samples' neurons is.
func (s *Samples) Threshold(keep float64) ([]float32, error) {
	if err := checkShare(keep); err != nil {
		return nil, err
	}
	bounds := make([]float32, len(s.layers))
	for l := range bounds {
		all := slices.Clone(s.layers[l].open)
		slices.Sort(all)
		if n := Count(keep, len(all)); n < len(all) {
			bounds[l] = all[len(all)-n-1]
		} else {
			bounds[l] = -1
		}
	}
	return bounds, nil
}

// Counts is how many of the sampled tokens each neuron was among the share that mattered most for, by layer: (L, F).
func (s *Samples) Counts(keep float64) ([][]int, error) {
	if err := checkShare(keep); err != nil {
		return nil, err
	}
	counts, on := make([][]int, len(s.layers)), make([]bool, s.FFN)
	var order []int32
	for l := range counts {
		counts[l] = make([]int, s.FFN)
		for t := range s.Tokens {
			order = largest(order, s.layers[l].act[t*s.FFN:(t+1)*s.FFN], Count(keep, s.FFN), on)
			for i, yes := range on {
				if yes {
					counts[l][i]++
				}
			}
		}
	}
	return counts, nil
}

// Judge puts a rule that looks at inputs only to the samples and compares it with the share that mattered most: the share of
// neurons kept, of those that mattered how many were kept, and of the kept how many mattered.
func (s *Samples) Judge(rule Rule, matter float64) (kept, recall, precision float64) {
	t := Tally{}
	on, real := make([]bool, s.FFN), make([]bool, s.FFN)
	var order []int32
	for l := range s.layers {
		for i := range s.Tokens {
			rule(l, s.layers[l].x[i*s.Dim:(i+1)*s.Dim], nil, nil, on)
			order = largest(order, s.layers[l].act[i*s.FFN:(i+1)*s.FFN], Count(matter, s.FFN), real)
			t.count(on, real)
		}
	}
	return t.Kept(), t.Recall(), t.Precision()
}

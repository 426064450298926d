package refine

import (
	"fmt"
	"math"
	"slices"

	"meibench/reference/llm"
)

// Likeness is how much the next tokens of a model are like those of another.
type Likeness struct {
	Tokens int     // positions that were compared
	Same   float64 // share of them, in [0, 1], at which both have the same most likely token
	KL     float64 // mean Kullback-Leibler divergence from the whole model's law, nats; e^KL - 1 is the rise of perplexity on its own text
	Equal  bool    // whether all logits are equal, bit for bit
}

// Compare runs two models of one vocabulary over texts of tokens.
func Compare(whole, rung *llm.Model, texts [][]int32) (Likeness, error) {
	if whole.Vocab != rung.Vocab {
		return Likeness{}, fmt.Errorf("refine: compare models with %d and %d tokens: want one vocabulary", whole.Vocab, rung.Vocab)
	}
	out := Likeness{Equal: true}
	a, b := whole.NewWork(1), rung.NewWork(1)
	defer a.Close()
	defer b.Close()
	same := 0
	for i, ids := range texts {
		p, err := logits(a, ids)
		if err != nil {
			return out, fmt.Errorf("refine: compare, text %d: %w", i, err)
		}
		q, err := logits(b, ids)
		if err != nil {
			return out, fmt.Errorf("refine: compare, text %d: %w", i, err)
		}
		out.Equal = out.Equal && slices.Equal(p, q)
		for V := whole.Vocab; len(p) > 0; p, q = p[V:], q[V:] {
			out.Tokens++
			if llm.Greedy(p[:V]) == llm.Greedy(q[:V]) {
				same++
			}
			out.KL += divergence(p[:V], q[:V])
		}
	}
	out.KL /= float64(max(1, out.Tokens))
	out.Same = float64(same) / float64(max(1, out.Tokens))
	return out, nil
}

// logits of all tokens of a text, (T, V); memory of the work.
func logits(w *llm.Work, ids []int32) ([]float32, error) {
	c, err := w.Model.NewCache(0, w.Model.Layers, len(ids))
	if err != nil {
		return nil, err
	}
	seqs := []llm.Seq{{IDs: ids, Cache: c, Want: llm.AllLogits}}
	err = w.Forward(0, w.Model.Layers, seqs)
	return seqs[0].Out, err
}

// divergence is that of law q from law p, both by logits, in nats.
func divergence(p, q []float32) (kl float64) {
	topP, topQ := float64(slices.Max(p)), float64(slices.Max(q))
	sumP, sumQ := 0.0, 0.0
	for i := range p {
		sumP += math.Exp(float64(p[i]) - topP)
		sumQ += math.Exp(float64(q[i]) - topQ)
	}
	for i := range p {
		logP, logQ := float64(p[i])-topP-math.Log(sumP), float64(q[i])-topQ-math.Log(sumQ)
		kl += math.Exp(logP) * (logP - logQ)
	}
	return kl
}

package main

import (
	"fmt"
	"iter"

	"meibench/reference/llm"
	"meibench/reference/token"
	"meibench/workloads/tasks"
)

// recipe is everything that decides the bytes of a model.
type recipe struct {
	Name         string
	Seed         uint64 // of parameters and of the training stream
	Shape        llm.Config
	Steps        int
	Sequences    int     // per step
	WarmUp       int     // steps
	Peak, Floor  float64 // learning rates
	Decay        float64
	PromptWeight float32 // of the loss on prompt tokens
	Mix          []int   // shares of tasks.Table in a step, repeated in order
	Hard         int     // every nth instance is drawn again until it is hard; 0 never
}

const (
	vocabulary    = 1024
	vocabularyPre = "gpt-2"
	vocabularySet = 4000 // instances per task that the vocabulary is trained on
	batchSize     = 8    // sequences that are computed together
)

// recipes, sorted by name.
var recipes = []recipe{
	{
		Name: "mei-nano", Seed: 1, Steps: 14000, Sequences: 64, WarmUp: 200, Peak: 3e-3, Floor: 3e-5, Decay: 0.1, PromptWeight: 0,
		Mix: []int{0, 1, 2, 3, 4},
		Shape: llm.Config{Arch: llm.Llama, Vocab: vocabulary, Dim: 128, Layers: 4, Heads: 8, KVHeads: 4, HeadDim: 16, FFN: 352,
			Context: 256, RopeBase: 10000, Eps: 1e-5, Tied: true},
	},
}

func lookup(name string) (recipe, error) {
	names := ""
	for _, r := range recipes {
		if r.Name == name {
			return r, nil
		}
		names += " " + r.Name
	}
	return recipe{}, fmt.Errorf("look up recipe %q: unknown, have%s", name, names)
}

// vocabularyTexts are prompts and answers of the train split.
func vocabularyTexts(seed uint64) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, t := range tasks.Table {
			for id := range vocabularySet {
				in := t.Generate(seed, id)
				if in.Split == tasks.Train && !(yield(in.Prompt) && yield(in.Answer)) {
					return
				}
			}
		}
	}
}

// sequence is an instance as ids: begin of text, prompt, answer, end of text.
func sequence(tok *token.Tokenizer, in tasks.Instance) (ids []int32, prompt int) {
	ids = tok.EncodePrompt(in.Prompt)
	prompt = len(ids)
	ids = append(ids, tok.Encode(in.Answer)...)
	return append(ids, tok.EOS()), prompt
}

// stream yields the batches of each step from the given one on. What a step
// trains on depends on the seed and the step only, so a resumed run sees what
// an unbroken one would have seen.
func (r recipe) stream(tok *token.Tokenizer, from int) iter.Seq[[]llm.Batch] {
	return func(yield func([]llm.Batch) bool) {
		for step := from; step < r.Steps; step++ {
			batches := make([]llm.Batch, (r.Sequences+batchSize-1)/batchSize)
			for i := range r.Sequences {
				ids, prompt := sequence(tok, r.instance(step*r.Sequences+i))
				batches[i/batchSize].Add(ids, prompt, r.PromptWeight)
			}
			if !yield(batches) {
				return
			}
		}
	}
}

// instance is the nth of the training stream: the first of sixteen candidates
// that may be trained on.
func (r recipe) instance(n int) tasks.Instance {
	t := tasks.Table[r.Mix[n%len(r.Mix)]]
	for try := 0; ; try++ {
		in := t.Generate(r.Seed, n*64+try)
		wantHard := r.Hard > 0 && n/len(r.Mix)%r.Hard == 0
		if in.Split == tasks.Train && (!wantHard || in.Difficulty == tasks.Hard || try > 32) {
			return in
		}
	}
}

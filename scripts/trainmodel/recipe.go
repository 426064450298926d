package main

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"meibench/internal/rng"
	"meibench/reference/llm"
	"meibench/reference/token"
	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// recipe is everything that decides the bytes of a model.
type recipe struct {
	Name        string
	Seed        uint64 // of parameters and of the training stream
	Shape       llm.Config
	Steps       int
	Sequences   int     // per step
	WarmUp      int     // steps
	Hold        int     // step from which the rate falls from Peak to Floor
	Peak, Floor float64 // learning rates
	Decay       float64
	Mix         []int // shares of tasks.Table in a step, repeated in order
	Drill       int   // every nth sequence of a step is a drill, see drill; 0 never
	DrillSteps  int   // until this step, all are
}

// rate is the learning rate of a step: warm-up, then constant, then half a
// cosine. Until Hold it does not depend on Steps, so a run can be made longer
// or shorter on its way.
func (r recipe) rate(step int) float64 {
	if step < max(r.WarmUp, r.Hold) {
		return train.Cosine(min(step, r.WarmUp), r.WarmUp, r.Steps, r.Peak, r.Floor)
	}
	return train.Cosine(step-r.Hold, 0, r.Steps-r.Hold, r.Peak, r.Floor)
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
		Name: "mei-nano", Seed: 1, Steps: 17000, Sequences: 64, WarmUp: 200, Hold: 12500, Peak: 1.5e-3, Floor: 3e-5, Decay: 0.1,
		Mix: []int{0, 1, 2, 3, 4}, Drill: 8, DrillSteps: 500,
		Shape: llm.Config{Arch: llm.Llama, Vocab: vocabulary, Dim: 128, Layers: 4, Heads: 8, KVHeads: 4, HeadDim: 16, FFN: 352,
			Context: 256, RopeBase: 100, Eps: 1e-5, Tied: true},
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
func (r recipe) stream(tok *token.Tokenizer, from int) iter.Seq[[]train.Batch] {
	return func(yield func([]train.Batch) bool) {
		for step := from; step < r.Steps; step++ {
			batches := make([]train.Batch, (r.Sequences+batchSize-1)/batchSize)
			for i := range r.Sequences {
				n := step*r.Sequences + i
				ids, prompt := sequence(tok, r.instance(n))
				if r.Drill > 0 && (step < r.DrillSteps || i%r.Drill == 0) {
					ids, prompt = r.drill(tok, n)
				}
				b := &batches[i/batchSize]
				b.Add(ids, prompt, 0)
				share(b.Weights[len(b.Weights)-(len(ids)-prompt):])
			}
			if !yield(batches) {
				return
			}
		}
	}
}

// share divides one instance's weight over the tokens of its answer, so that
// the long answers of healthcare do not count for more than one word of ar: what
// is reported is exact match, which counts answers. It was not seen to help ar
// by itself; see the model card for what was tried.
func share(weights []float32) {
	for i := range weights {
		weights[i] = 1 / float32(len(weights))
	}
}

// drill is the nth scene (of ar or robotics in turn) and then its parts in
// another order, which is what the loss counts: after "blue key" comes the cell
// of the blue key. Every other drill also turns the words of a part around, so
// that the cell asks for the key. It gives many lessons in looking up per
// sequence, where a question gives one.
func (r recipe) drill(tok *token.Tokenizer, n int) (ids []int32, prompt int) {
	name := []string{"ar", "robotics"}[n/max(1, r.Drill)%2]
	t, err := tasks.Lookup(name)
	if err != nil {
		panic(err)
	}
	var in tasks.Instance
	for try := 0; in.Split != tasks.Train; try++ {
		in = t.Generate(r.Seed, n*64+try)
	}
	scene, _, _ := strings.Cut(in.Prompt, " ;")
	parts := strings.Split(strings.TrimPrefix(scene, "see "), " , ")
	rng.Stream(r.Seed, "drill", n).Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	if n/max(1, r.Drill)/2%2 == 1 {
		for i, p := range parts {
			words := strings.Fields(p)
			slices.Reverse(words)
			parts[i] = strings.Join(words, " ")
		}
	}
	ids = tok.EncodePrompt(scene + " ;")
	return append(ids, tok.Encode(" "+strings.Join(parts, " , "))...), len(ids)
}

// instance is the nth of the training stream: the first of its 64 candidates
// that may be trained on.
func (r recipe) instance(n int) tasks.Instance {
	t := tasks.Table[r.Mix[n%len(r.Mix)]]
	for try := 0; ; try++ {
		in := t.Generate(r.Seed, n*64+try)
		if in.Split == tasks.Train {
			return in
		}
	}
}

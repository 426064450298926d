package main

import (
	"fmt"
	"iter"
	"math"
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
	From        string // the shallower recipe whose parameters this one begins with, or none
	FromStep    int    // at this step of it; steps go on counting from there
	Keep        int    // step at which the run keeps a checkpoint for others to begin with
	Steps       int
	Sequences   int     // per step
	WarmUp      int     // steps
	Hold        int     // step from which the rate falls from Peak to Floor
	Peak, Floor float64 // learning rates
	Decay       float64
	Mix         []int // shares of tasks.Table in a step, repeated in order
	Late        []int // shares from step LateFrom on, if that is not 0
	LateFrom    int
	Drill       int     // every nth sequence of a step is a drill, see drill; 0 never
	DrillSteps  int     // until this step, all are
	ExitWeight  float64 // of the loss at one layer below the last, which batches take in turn
	ExitFrom    int     // first step with such a loss: looking up is learned sooner without
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
	vocabularySet = 3000 // instances per task that the vocabulary is trained on
	batchSize     = 8    // sequences that are computed together
)

// mix gives ar and driving, which are learned last, a double share.
var mix = []int{0, 1, 2, 3, 4, 0, 2}

// drivingMix is for mei-base, which begins where driving is what is left to
// learn; lastMix for its end, when driving and healthcare are.
var (
	drivingMix = []int{2, 0, 2, 1, 2, 3, 0, 4, 2, 4}
	lastMix    = []int{2, 3, 0, 2, 3, 1, 2, 3, 0, 2, 3, 4}
)

// recipes, sorted by name: one recipe in three sizes. mei-base begins as
// mei-small was before its rate fell, with new layers between.
var recipes = []recipe{
	{
		Name: "mei-base", Seed: 1, Steps: 3900, Sequences: 48, WarmUp: 100, Hold: 2600, Peak: 2e-3, Floor: 2e-5, Decay: 0.1,
		Mix: drivingMix, Late: lastMix, LateFrom: 2300, Drill: 8, DrillSteps: 300, ExitWeight: 0.3, ExitFrom: 1200, Shape: shape(256, 8, 512), From: "mei-small", FromStep: 1500,
	},
	{
		Name: "mei-nano", Seed: 1, Steps: 4500, Sequences: 48, WarmUp: 100, Hold: 3000, Peak: 3e-3, Floor: 3e-5, Decay: 0.1,
		Mix: mix, Drill: 8, DrillSteps: 600, ExitWeight: 0.3, ExitFrom: 1500, Shape: shape(64, 5, 192),
	},
	{
		Name: "mei-small", Seed: 1, Steps: 3000, Sequences: 48, WarmUp: 100, Hold: 2000, Peak: 2e-3, Floor: 2e-5, Decay: 0.1,
		Mix: mix, Drill: 8, DrillSteps: 300, ExitWeight: 0.3, ExitFrom: 1200, Shape: shape(256, 3, 512), Keep: 1500,
	},
}

// shape is a model of the family: heads of 16, two of which share keys and values.
func shape(dim, layers, ffn int) llm.Config {
	return llm.Config{Arch: llm.Llama, Vocab: vocabulary, Dim: dim, Layers: layers, Heads: dim / 16, KVHeads: dim / 32, HeadDim: 16, FFN: ffn,
		Context: 256, RopeBase: 100, Eps: 1e-5, Tied: true}
}

// order lists all recipes, each behind the one it begins with.
func order() (names []string) {
	for len(names) < len(recipes) {
		for _, r := range recipes {
			if !slices.Contains(names, r.Name) && (r.From == "" || slices.Contains(names, r.From)) {
				names = append(names, r.Name)
			}
		}
	}
	return names
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

// stream yields the batches of each step from the given one on. What a step
// trains on depends on the seed and the step only, so a resumed run sees what
// an unbroken one would have seen.
func (r recipe) stream(tok *token.Tokenizer, from int) iter.Seq[[]train.Batch] {
	return func(yield func([]train.Batch) bool) {
		for step := from; step < r.Steps; step++ {
			batches := make([]train.Batch, (r.Sequences+batchSize-1)/batchSize)
			for i := range r.Sequences {
				n := step*r.Sequences + i
				b := &batches[i/batchSize]
				if r.Drill > 0 && (step < r.DrillSteps || i%r.Drill == 0) {
					r.drill(b, tok, n)
				} else {
					addLesson(b, tok, r.lesson(n))
				}
			}
			for i := range batches {
				if step < r.ExitFrom {
					break
				}
				batches[i].Exit, batches[i].ExitWeight = 1+(step*len(batches)+i)%max(1, r.Shape.Layers-1), float32(r.ExitWeight)
			}
			if !yield(batches) {
				return
			}
		}
	}
}

// addLesson adds one sequence: a scene with its first question and answer, then
// further questions on the same scene, each behind the end of the text before.
func addLesson(b *train.Batch, tok *token.Tokenizer, lesson []tasks.Instance) {
	var ids []int32
	var answers [][2]int
	for i, in := range lesson {
		if i == 0 {
			ids = tok.EncodePrompt(in.Prompt)
		} else {
			_, question, _ := strings.Cut(in.Prompt, " ; ")
			ids = append(ids, tok.Encode(" ; "+question)...)
		}
		from := len(ids)
		ids = append(append(ids, tok.Encode(in.Answer)...), tok.EOS())
		answers = append(answers, [2]int{from, len(ids)})
	}
	at := len(b.Weights)
	b.Add(ids, len(ids), 0)
	for _, a := range answers {
		w := b.Weights[at+a[0]-1 : at+a[1]-1] // the token before predicts
		for i := range w {
			w[i] = 1
		}
		weigh(w)
	}
}

// weigh gives an answer of n tokens the weight √n, so that one word of ar and
// the twenty of an assistant's answer are lessons of similar worth: what is
// reported is exact match, which counts answers, but each token must be right.
func weigh(weights []float32) {
	for i := range weights {
		weights[i] = float32(1 / math.Sqrt(float64(len(weights))))
	}
}

// drill adds the nth scene of ar's or of robotics' words, in turn, in which each
// thing and place stands once, and then its parts in another order, which is what
// the loss counts: after "key" comes the cell of the key. Every other drill also
// turns the words of a part around, so that the cell asks for the key. It gives
// many lessons in looking up per sequence, where a question gives one.
func (r recipe) drill(b *train.Batch, tok *token.Tokenizer, n int) {
	luck := rng.Stream(r.Seed, "drill", n)
	names, places, opening := drillShapes, drillCells, "see "
	if n/max(1, r.Drill)%2 == 1 {
		names, places, opening = drillItems, drillSquares, ""
	}
	name, place := luck.Perm(len(names)), luck.Perm(len(places))
	parts := make([]string, 3+luck.IntN(6))
	for i := range parts {
		parts[i] = names[name[i]] + " " + places[place[i]]
		if opening != "" {
			parts[i] = drillColors[luck.IntN(len(drillColors))] + " " + parts[i]
		}
	}
	ids := tok.EncodePrompt(opening + strings.Join(parts, " , ") + " ;")
	prompt := len(ids)
	luck.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	if luck.IntN(2) == 1 {
		for i, p := range parts {
			words := strings.Fields(p)
			slices.Reverse(words)
			parts[i] = strings.Join(words, " ")
		}
	}
	b.Add(append(ids, tok.Encode(" "+strings.Join(parts, " , "))...), prompt, 0)
	weigh(b.Weights[len(b.Weights)-(b.Lens[len(b.Lens)-1]+1-prompt):])
}

// Words of the scenes of ar and robotics.
var (
	drillColors  = strings.Fields("red blue green white black yellow")
	drillShapes  = strings.Fields("cup box ball book lamp key plate phone")
	drillCells   = strings.Fields("1 2 3 4 5 6 7 8 9")
	drillItems   = strings.Fields("robot shelf cup ball book tool can bag")
	drillSquares = strings.Fields("11 12 13 14 15 21 22 23 24 25 31 32 33 34 35 41 42 43 44 45 51 52 53 54 55")
)

// questions is the most that one sequence asks about its scene.
const questions = 4

// lesson is the nth of the training stream: the first of its 64 candidates
// that may be trained on.
func (r recipe) lesson(n int) []tasks.Instance {
	mix := r.Mix
	if r.LateFrom > 0 && n >= r.LateFrom*r.Sequences {
		mix = r.Late
	}
	t := tasks.Table[mix[n%len(mix)]]
	for try := 0; ; try++ {
		asked := t.Lesson(r.Seed, n*64+try, questions)
		if asked[0].Split == tasks.Train {
			return asked
		}
	}
}

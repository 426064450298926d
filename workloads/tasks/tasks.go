// Package tasks makes questions with known answers, one generator per
// application, so that the quality of an edge model is measured and not assumed.
//
// The one idea: an instance is a pure function of (seed, id), and the split it
// belongs to is a pure function of what it asks. Whoever trains on the train
// split, with any seed, can never have met a test question.
//
//	t, _ := tasks.Lookup("healthcare")
//	in := t.Generate(1, 0)
//	quality := t.Score(in, model(in.Prompt))
//
// Each application measures one ability and nothing wider:
//
//   - ar: looking up, counting and relating objects of a scene. The list of
//     object words stands for an encoded image; no vision is tested.
//   - assistant: intent and slots of a spoken command, with corrections, order
//     and references in the hard split. Ten intents, a closed vocabulary.
//   - driving: who goes first at a junction under right-hand traffic. A
//     decision table, not perception, and not legal advice.
//   - healthcare: the NEWS2 score of a set of vital signs. Table look-up and a
//     sum; it says nothing about diagnosis and must not be used for care.
//   - robotics: a short plan on a five by five grid. Geometry without sensors,
//     dynamics or failures.
//
// Prompts are lower-case ASCII and end in "=>"; the answer follows at once. The
// text is regular on purpose: models under a million parameters can learn it,
// so differences between quantisers, caches or splits show up as differences
// in exact match. A good score here says nothing about open language.
package tasks

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"

	"meibench/internal/rng"
)

// Difficulty names one of the two levels every application has.
type Difficulty string

// Split says whether an instance may be trained on.
type Split string

// The two levels and the two splits. Easy is meant to be learnable by a model
// of under a million parameters; Hard needs several steps at once.
const (
	Easy  Difficulty = "easy"
	Hard  Difficulty = "hard"
	Train Split      = "train"
	Test  Split      = "test"
)

// testOf256 is the share of contents held out: 32/256 = one in eight.
const testOf256 = 32

// Instance is one question with its reference answer.
type Instance struct {
	Task       string // name of the application
	ID         int    // as given to Generate
	Prompt     string // what the model reads; ends in "=>"
	Answer     string // what it should write next, then end of text
	Difficulty Difficulty
	Split      Split // by a hash of the content, whatever the seed
}

// Task is one application: a name, what it measures, a generator and a score.
type Task struct {
	Name string
	Doc  string // one line for lists
	// Generate returns instance id of the seed's endless sequence; about half
	// are hard and one in eight is in the test split.
	Generate func(seed uint64, id int) Instance
	// Score grades an output in [0, 1]: 1 for the reference answer and only for
	// it, up to white space. Less than 1 may be partial credit; the headline of
	// every table is the share of exact matches (see Exact).
	Score func(in Instance, output string) float64
}

// Table lists the applications, sorted by name.
var Table = []Task{
	{"ar", "questions about a small scene of objects", generateAR, scoreFields},
	{"assistant", "intent and slots of a spoken command", generateAssistant, scoreFields},
	{"driving", "right of way at a junction", generateDriving, scoreExact},
	{"healthcare", "NEWS2 score from vital signs", generateHealthcare, scoreFields},
	{"robotics", "short plans on a small grid", generateRobotics, scorePlan},
}

// Lookup returns the task of that name, or an error that lists the names.
func Lookup(name string) (Task, error) {
	names := make([]string, len(Table))
	for i, t := range Table {
		if t.Name == name {
			return t, nil
		}
		names[i] = t.Name
	}
	return Task{}, fmt.Errorf("look up task %q: unknown, have %s", name, strings.Join(names, ", "))
}

// Draw returns the first n instances of a split and difficulty, in id order.
func (t Task) Draw(seed uint64, split Split, d Difficulty, n int) []Instance {
	var out []Instance
	for id := 0; len(out) < n; id++ {
		if in := t.Generate(seed, id); in.Split == split && in.Difficulty == d {
			out = append(out, in)
		}
	}
	return out
}

// Exact reports whether output is the reference answer, up to white space.
func Exact(in Instance, output string) bool {
	return strings.Join(strings.Fields(output), " ") == in.Answer
}

// draft is what a generator makes: text, answer, and the content that decides
// the split. Wording and distractions stay out of the content, so a paraphrase
// of a test question is a test question.
type draft struct{ prompt, answer, content string }

// generate draws a difficulty and hands the instance's own stream to make.
func generate(task string, seed uint64, id int, make func(r *rand.Rand, d Difficulty) draft) Instance {
	r := rng.Stream(seed, "tasks", task, id)
	d := Easy
	if r.IntN(2) == 1 {
		d = Hard
	}
	m := make(r, d)
	return Instance{Task: task, ID: id, Prompt: m.prompt + " =>", Answer: m.answer, Difficulty: d, Split: splitOf(task, m.content)}
}

func splitOf(task, content string) Split {
	if h := sha256.Sum256([]byte(task + "\x00" + content)); h[0] < testOf256 {
		return Test
	}
	return Train
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func scoreExact(in Instance, output string) float64 {
	if Exact(in, output) {
		return 1
	}
	return 0
}

// scoreFields gives the share of words that are right in place, over the longer
// of the two texts.
func scoreFields(in Instance, output string) float64 {
	want, got := strings.Fields(in.Answer), strings.Fields(output)
	right := 0
	for i := range min(len(want), len(got)) {
		if want[i] == got[i] {
			right++
		}
	}
	return float64(right) / float64(max(len(want), len(got)))
}

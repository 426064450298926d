package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/llm"
	"meibench/reference/token"
	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// small is a recipe that trains in a moment.
var small = recipe{
	Name: "small", Seed: 4, Steps: 6, Sequences: 10, WarmUp: 2, Peak: 1e-3, Floor: 1e-4, Mix: []int{0, 1, 2, 3, 4}, ExitWeight: 0.3,
	Shape: llm.Config{Arch: llm.Llama, Dim: 16, Layers: 2, Heads: 2, KVHeads: 1, FFN: 16, Context: 256, Tied: true},
}

func TestRecipes(t *testing.T) {
	require.True(t, slices.IsSortedFunc(recipes, func(a, b recipe) int { return strings.Compare(a.Name, b.Name) }))
	require.Equal(t, []string{"mei-nano", "mei-small", "mei-base"}, order(), "base begins as small")
	_, err := lookup("mei-huge")
	require.ErrorContains(t, err, "mei-nano")
	for _, r := range recipes {
		require.NoError(t, r.Shape.WithDefaults().Check())
		for n := range 100 {
			for _, in := range r.lesson(n) {
				require.Equal(t, tasks.Train, in.Split)
			}
		}
	}
}

// Every lesson fits the context; the loss counts each answer with its end of
// text, and nothing else.
func TestLessons(t *testing.T) {
	m, err := token.Train(vocabularyTexts(1), vocabulary, vocabularyPre)
	require.NoError(t, err)
	tok, err := token.New(m)
	require.NoError(t, err)
	require.Equal(t, vocabulary, tok.Len())
	for _, task := range tasks.Table {
		sum := 0
		for id := range 200 {
			var b train.Batch
			asked := task.Lesson(9, id, questions)
			addLesson(&b, tok, asked)
			require.Equal(t, tok.BOS(), b.Tokens[0])
			require.LessOrEqual(t, b.Lens[0], 255)
			var counted []int32
			total := 0.0
			for i, w := range b.Weights {
				if w > 0 {
					counted = append(counted, b.Targets[i])
					total += float64(w)
				}
			}
			var want []int32
			weight := 0.0
			for _, in := range asked {
				answer := append(tok.Encode(in.Answer), tok.EOS())
				want = append(want, answer...)
				weight += math.Sqrt(float64(len(answer)))
			}
			require.Equal(t, want, counted)
			require.InDelta(t, weight, total, 1e-4)
			sum += b.Lens[0]
		}
		t.Logf("%s: %d tokens a lesson", task.Name, sum/200)
	}
}

// A drill's loss counts the parts behind the scene, which are those of the scene.
func TestDrill(t *testing.T) {
	m, err := token.Train(vocabularyTexts(1), vocabulary, vocabularyPre)
	require.NoError(t, err)
	tok, err := token.New(m)
	require.NoError(t, err)
	r := recipes[0]
	for n := range 40 {
		var b train.Batch
		r.drill(&b, tok, n*r.Drill)
		text := tok.Decode(append(append([]int32{}, b.Tokens[1:]...), b.Targets[len(b.Targets)-1]))
		scene, parts, found := strings.Cut(text, " ; ")
		require.True(t, found)
		want, got := strings.Fields(strings.TrimPrefix(scene, "see ")), strings.Fields(parts)
		slices.Sort(want)
		slices.Sort(got)
		require.Equal(t, want, got)
		counted := 0
		for _, w := range b.Weights {
			if w > 0 {
				counted++
			}
		}
		require.Equal(t, len(tok.Encode(" "+parts)), counted)
	}
}

// Warm-up over 10 steps to 1, constant until 20, half a cosine down to 0.2 at 40:
// at 30 the mean of both.
func TestRate(t *testing.T) {
	r := recipe{Steps: 40, WarmUp: 10, Hold: 20, Peak: 1, Floor: 0.2}
	for step, want := range map[int]float64{0: 0.1, 9: 1, 10: 1, 19: 1, 20: 1, 30: 0.6, 40: 0.2} {
		require.InDelta(t, want, r.rate(step), 1e-12, "step %d", step)
	}
	longer := r
	longer.Steps, longer.Hold = 80, 60
	require.True(t, continues(r, longer, 20))
	require.False(t, continues(r, longer, 21))
}

// A run that was stopped and resumed ends with the bits of an unbroken one, on
// any number of threads.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	unbroken := trainSmall(t, options{checkpoint: filepath.Join(dir, "a"), threads: 1})
	trainSmall(t, options{checkpoint: filepath.Join(dir, "b"), threads: 2, steps: 2})
	require.Equal(t, unbroken, trainSmall(t, options{checkpoint: filepath.Join(dir, "b"), threads: 3}))
	other := small
	other.Peak, other.Shape.Vocab = 1, 258
	_, err := resume(other, options{checkpoint: filepath.Join(dir, "a")})
	require.ErrorContains(t, err, "another recipe")
}

// A deeper model begins with what a shallower run kept, and resumes like any other.
func TestBegin(t *testing.T) {
	dir := t.TempDir()
	shallow, deep := small, small
	shallow.Keep = 3
	deep.Name, deep.From, deep.FromStep, deep.Shape.Layers = "deep", "small", 3, 4
	deep.Shape.Vocab = 258
	_, err := resume(deep, options{checkpoint: filepath.Join(dir, "c")})
	require.ErrorContains(t, err, "train small first")
	trainRecipe(t, shallow, options{checkpoint: filepath.Join(dir, "a"), threads: 1})
	unbroken := trainRecipe(t, deep, options{checkpoint: filepath.Join(dir, "b"), threads: 1})
	trainRecipe(t, deep, options{checkpoint: filepath.Join(dir, "c"), threads: 2, steps: 4})
	require.Equal(t, unbroken, trainRecipe(t, deep, options{checkpoint: filepath.Join(dir, "c"), threads: 1}))
	deep.FromStep = 2
	require.NoError(t, os.Rename(filepath.Join(dir, "small-3.ckpt"), filepath.Join(dir, "small-2.ckpt")))
	_, err = resume(deep, options{checkpoint: filepath.Join(dir, "d")})
	require.ErrorContains(t, err, "holds step 3 of small")
}

func trainSmall(t *testing.T, o options) []float32 { return trainRecipe(t, small, o) }

func trainRecipe(t *testing.T, r recipe, o options) []float32 {
	m, err := token.Train(func(yield func(string) bool) { yield("a b c") }, 258, vocabularyPre)
	require.NoError(t, err)
	tok, err := token.New(m)
	require.NoError(t, err)
	r.Shape.Vocab = tok.Len()
	s, err := resume(r, o)
	require.NoError(t, err)
	l, err := train.NewLearner(s.params, o.threads)
	require.NoError(t, err)
	o.every = 1e18
	require.NoError(t, steps(r, o, s, l, tok))
	return s.params.Flat
}

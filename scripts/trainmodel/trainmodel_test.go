package main

import (
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
	Name: "small", Seed: 4, Steps: 6, Sequences: 10, WarmUp: 2, Peak: 1e-3, Floor: 1e-4, Mix: []int{0, 1, 2, 3, 4},
	Shape: llm.Config{Arch: llm.Llama, Dim: 16, Layers: 1, Heads: 2, KVHeads: 1, FFN: 16, Context: 256, Tied: true},
}

// 81 of 100: z = 1.96, centre (0.81 + 0.0192)/1.0384 = 0.7985, half width
// 1.96/1.0384·√(0.001539 + 0.000096) = 0.0763.
func TestWilson(t *testing.T) {
	low, high := score{right: 81, n: 100}.wilson()
	require.InDelta(t, 0.7222, low, 5e-4)
	require.InDelta(t, 0.8749, high, 5e-4)
	low, _ = score{right: 0, n: 10}.wilson()
	require.InDelta(t, 0, low, 1e-12)
}

func TestRecipes(t *testing.T) {
	require.True(t, slices.IsSortedFunc(recipes, func(a, b recipe) int { return strings.Compare(a.Name, b.Name) }))
	_, err := lookup("mei-huge")
	require.ErrorContains(t, err, "mei-nano")
	for _, r := range recipes {
		require.NoError(t, r.Shape.Check())
		for n := range 300 {
			in := r.instance(n)
			require.Equal(t, tasks.Train, in.Split)
		}
	}
}

// Every instance fits the context, and the answer is what follows the prompt.
func TestSequences(t *testing.T) {
	m, err := token.Train(vocabularyTexts(1), vocabulary, vocabularyPre)
	require.NoError(t, err)
	tok, err := token.New(m)
	require.NoError(t, err)
	require.Equal(t, vocabulary, tok.Len())
	for _, task := range tasks.Table {
		sum := 0
		for id := range 400 {
			in := task.Generate(9, id)
			ids, prompt := sequence(tok, in)
			require.Equal(t, tok.BOS(), ids[0])
			require.Equal(t, tok.EOS(), ids[len(ids)-1])
			require.Equal(t, in.Answer, tok.Decode(ids[prompt:]))
			require.LessOrEqual(t, len(ids), 96)
			require.LessOrEqual(t, len(ids)-prompt, answerMax)
			sum += len(ids)
		}
		t.Logf("%s: %d tokens on average", task.Name, sum/400)
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

func trainSmall(t *testing.T, o options) []float32 {
	m, err := token.Train(func(yield func(string) bool) { yield("a b c") }, 258, vocabularyPre)
	require.NoError(t, err)
	tok, err := token.New(m)
	require.NoError(t, err)
	r := small
	r.Shape.Vocab = tok.Len()
	s, err := resume(r, o)
	require.NoError(t, err)
	l, err := train.NewLearner(s.params, o.threads)
	require.NoError(t, err)
	o.every = 1e18
	require.NoError(t, steps(r, o, s, l, tok))
	return s.params.Flat
}

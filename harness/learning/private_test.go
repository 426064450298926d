package learning

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// T12: a sum under masks is that of the updates, but for the rounding to integers, and costs each client bytes that grow with their number.
func TestT12_SecureSum(t *testing.T) {
	j := plain()
	open := school(t, j)
	rounds(t, open, 1, 2, []int{0, 1, 2})
	j.Secure = true
	masked := school(t, j)
	rounds(t, masked, 1, 2, []int{0, 1, 2})
	require.InDeltaSlice(t, open.server(0).global, masked.server(0).global, 1e-6)
	require.NotEqual(t, open.server(0).global, masked.server(0).global)
	up3, down3, err := masked.Secure(3)
	require.NoError(t, err)
	up9, down9, err := masked.Secure(9)
	require.NoError(t, err)
	require.Greater(t, up9, up3)
	require.Greater(t, down9, down3)
	j.Robust = "krum"
	m, tok := nano()
	_, err = New(j, m, tok, Options{})
	require.ErrorContains(t, err, "look at single updates")
}

// T12: without noise a question can be read from the gradient of a whole layer, with noise it cannot; LoRA's few rows do not show it.
func TestT12_Inversion(t *testing.T) {
	f1 := func(m train.Method, noise float64) float64 {
		j := plain()
		j.Method, j.Rate = m, 0.001
		if noise > 0 {
			j.Clip, j.Noise = 1, noise
		}
		s := school(t, j)
		rounds(t, s, 1, 1, []int{0, 1, 2})
		require.NoError(t, s.rule.load(s.scorer, s.server(0)))
		f1, err := s.Inversion()
		require.NoError(t, err)
		return f1
	}
	require.Greater(t, f1(train.Method{Kind: "full"}, 0), 0.8)
	require.Less(t, f1(train.Method{Kind: "full"}, 1), 0.1)
	require.Less(t, f1(train.Method{Kind: "lora", Rank: 4}, 0), 0.2)
}

// T12: cut and noisy steps still learn, epsilon falls with the noise, and the account is that of the steps taken.
func TestT12_PrivateSteps(t *testing.T) {
	last := math.Inf(1)
	for _, noise := range []float64{0.5, 1, 2} {
		j := plain()
		j.Samples, j.Clip, j.Noise, j.Optimizer, j.Rate = 40, 1, noise, "adamw", 0.003
		s := school(t, j)
		_, err := s.Score(tasks.Validation, 20)
		require.NoError(t, err)
		rounds(t, s, 2, 2, []int{0, 1, 2})
		f, err := s.Figures(2, 2, 1e-5)
		require.NoError(t, err)
		require.Less(t, f["epsilon"], last)
		last = f["epsilon"]
	}
}

// T12: under differential privacy every question has the same chance in every step, which is what the account counts; a step that draws none adds noise
// alone, and the mean is over as many as a step has on average.
func TestT12_QuestionsAreDrawnOneByOne(t *testing.T) {
	j := plain()
	j.Samples, j.Batch, j.Clip, j.Noise = 40, 4, 1, 1
	s := school(t, j)
	const steps = 400
	drawn, empty, first := 0, 0, 0
	for step := range steps {
		b := s.data.batch(1, step)
		drawn += len(b.Lens)
		if len(b.Lens) == 0 {
			empty++
		}
		if len(b.Lens) > 0 && b.Lens[0] == len(s.data.of(1)[0].ids)-1 && slices.Equal(b.Tokens[:b.Lens[0]], s.data.of(1)[0].ids[:b.Lens[0]]) {
			first++
		}
	}
	require.InDelta(t, 4, float64(drawn)/steps, 0.4, "standard error 0.095")
	require.InDelta(t, math.Pow(0.9, 40), float64(empty)/steps, 0.03)
	require.InDelta(t, 0.1, float64(first)/steps, 0.06)

	j.Samples, j.Batch = 1000, 1 // 37 % of steps draw nobody
	s = school(t, j)
	for step := range 100 {
		if b := s.data.batch(0, step); len(b.Lens) == 0 {
			bench := s.scorer
			loss, grad := s.private(bench, &lesson{client: 0}, b, step)
			require.Zero(t, loss)
			norm := 0.0
			for _, g := range grad.Flat {
				norm += float64(g) * float64(g)
			}
			require.InDelta(t, 1, math.Sqrt(norm/float64(len(grad.Flat))), 0.1, "noise over clip over one question in the mean")
			return
		}
	}
	t.Fatal("every step drew somebody")
}

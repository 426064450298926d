package route

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/reference/spec"
)

// At the optimum the gradient of the loss is 0; differences of the loss say so without our derivative.
func TestI9FitIsTheMinimum(t *testing.T) {
	r := rng.Stream(1, "router fit")
	truth := []float64{2, -1, 0.5, 0}
	var x [][]float64
	var y []float64
	for range 400 {
		row := []float64{rng.Normal(r), rng.Normal(r), rng.Normal(r), rng.Normal(r)}
		label := 0.0
		if r.Float64() < logistic(dot(truth, row)-0.7) {
			label = 1
		}
		x, y = append(x, row), append(y, label)
	}
	router := Fit(x, y, 0.5)
	at := func(j int, by float64) (sum float64) {
		w := append(slices.Clone(router.Weights), router.Bias)
		w[j] += by
		for i, row := range x {
			p := 1 / (1 + math.Exp(-(w[4] + dot(w[:4], row))))
			sum -= y[i]*math.Log(p) + (1-y[i])*math.Log(1-p)
		}
		return sum + 0.25*dot(w[:4], w[:4])
	}
	for j := range 5 {
		require.InDelta(t, 0, (at(j, 1e-4)-at(j, -1e-4))/2e-4, 1e-5)
		require.Greater(t, at(j, 0.01), at(j, 0))
		require.Greater(t, at(j, -0.01), at(j, 0))
	}
	for j, w := range truth {
		require.InDelta(t, w, router.Weights[j], 0.5)
	}
	scores, labels := make([]float64, len(x)), make([]bool, len(x))
	for i, row := range x {
		scores[i], labels[i] = router.Score(row), y[i] == 1
	}
	require.Greater(t, AUC(scores, labels), 0.85)
}

// Data that a line separates, all labels equal, columns that repeat: the fit is finite all the same.
func TestI9FitOfAwkwardData(t *testing.T) {
	for name, y := range map[string][]float64{"separable": {0, 0, 1, 1}, "one class": {1, 1, 1, 1}, "shares": {.2, .4, .6, .8}} {
		router := Fit([][]float64{{-2, -2}, {-1, -1}, {100, 100}, {200, 200}}, y, 1e-3)
		for _, w := range append(router.Weights, router.Bias) {
			require.False(t, math.IsNaN(w) || math.IsInf(w, 0), name)
		}
		require.GreaterOrEqual(t, router.Score([]float64{150, 150}), router.Score([]float64{-3, -3}), name)
	}
	require.Panics(t, func() { Fit(nil, nil, 1) })
}

// A router learns from tokens: questions with token 7 need the strong model.
func TestI9NGramsTellQuestionsApart(t *testing.T) {
	r := rng.Stream(2, "router tokens")
	make1 := func() (x []float64, label float64) {
		ids := make([]int32, 12)
		for i := range ids {
			if ids[i] = int32(r.IntN(30)); ids[i] == 7 {
				label = 1
			}
		}
		return NGrams(ids, 1, 64), label
	}
	var x [][]float64
	var y []float64
	for range 500 {
		row, label := make1()
		x, y = append(x, row), append(y, label)
	}
	router := Fit(x, y, 0.1)
	var scores []float64
	var labels []bool
	for range 300 {
		row, label := make1()
		scores, labels = append(scores, router.Score(row)), append(labels, label == 1)
	}
	require.Greater(t, AUC(scores, labels), 0.95)
	require.Equal(t, NGrams([]int32{1, 2, 3}, 2, 32), NGrams([]int32{1, 2, 3}, 2, 32))
	require.NotEqual(t, NGrams([]int32{1, 2, 3}, 2, 32), NGrams([]int32{3, 2, 1}, 2, 32), "order counts from pairs on")
	require.InDeltaSlice(t, NGrams([]int32{1, 2, 3}, 1, 32), NGrams([]int32{3, 2, 1}, 1, 32), 1e-12)
	require.Equal(t, make([]float64, 8), NGrams(nil, 2, 8))
}

func TestI9AUCEqualsAllPairs(t *testing.T) {
	r := rng.Stream(3, "router auc")
	for range 100 {
		var scores []float64
		var labels []bool
		for range 30 {
			scores, labels = append(scores, float64(r.IntN(8))), append(labels, r.IntN(3) == 0)
		}
		var wins, pairs float64
		for i := range scores {
			for j := range scores {
				if labels[i] && !labels[j] {
					pairs++
					if scores[i] > scores[j] {
						wins++
					} else if scores[i] == scores[j] {
						wins += 0.5
					}
				}
			}
		}
		require.InDelta(t, wins/pairs, AUC(scores, labels), 1e-12)
	}
	require.True(t, math.IsNaN(AUC([]float64{1, 2}, []bool{true, true})))
}

func TestI9HybridLabels(t *testing.T) {
	gaps := [][]float64{{-3, -1}, {-1, 1}, {-2, -2}, {0, -4}}
	require.Equal(t, []float64{0, 0, 0, 1}, Labels([][]float64{{-3}, {-1}, {-2}, {0}}, 0), "deterministic")
	require.Equal(t, []float64{0, .5, 0, .5}, Labels(gaps, 0), "probabilistic")
	require.Equal(t, []float64{.5, 1, 0, .5}, Labels(gaps, 1), "transformed")
	r := rng.Stream(4, "router slack")
	for range 30 {
		many := make([][]float64, 12)
		for i := range many {
			for range 10 {
				many[i] = append(many[i], rng.Normal(r)-2*r.Float64())
			}
		}
		spreadOf := func(t float64) (s float64) {
			y := Labels(many, t)
			for _, a := range y {
				for _, b := range y {
					s += math.Abs(a - b)
				}
			}
			return s / 144
		}
		best := spreadOf(Slack(many))
		for t0 := 0.0; t0 < 6; t0 += 0.01 {
			require.LessOrEqual(t, spreadOf(t0), best+1e-12)
		}
	}
}

func TestI9TokenRules(t *testing.T) {
	require.True(t, FallsBack([]float64{.4, .3, .3}, .5))
	require.False(t, FallsBack([]float64{.6, .4}, .5))
	require.False(t, FallsBack([]float64{.4, .6}, 0), "limit 0: the small model alone")
	large := [][]float64{{.9, .1}, {.05, .95}, {.01, .99}}
	require.Equal(t, 2, RollsBack(large, []int{0, 1, 0}, 4), "-ln 0.01 is 4.6")
	require.Equal(t, 3, RollsBack(large, []int{0, 1, 0}, 5))
	require.Equal(t, 0, RollsBack(large, []int{0, 1, 0}, 0.01), "a strict limit takes every token back")
	require.True(t, math.IsInf(Distance([]float64{0, 1}, 0), 1))
}

func someLaws(seed uint64, n int) (a, b []float64) {
	r := rng.Stream(seed, "token laws")
	draw := func() []float64 {
		law, sum := make([]float64, n), 0.0
		for i := range law {
			law[i] = rng.Exp(r)
			sum += law[i]
		}
		for i := range law {
			law[i] /= sum
		}
		return law
	}
	return draw(), draw()
}

// I20: nothing skipped is the large model's law, all skipped the small one's, and the distance is at most the risk.
func TestI9HybridLawAndItsRisk(t *testing.T) {
	for seed := range uint64(300) {
		large, small := someLaws(seed, 8)
		skip := make([]bool, 8)
		law, risk := HybridLaw(large, small, skip)
		require.InDeltaSlice(t, large, law, 1e-12)
		require.Zero(t, risk)
		last := 0.0
		for x := range skip { // one more draft skipped each time
			skip[x] = true
			law, risk = HybridLaw(large, small, skip)
			var tv float64
			for i := range law {
				tv += math.Abs(law[i]-large[i]) / 2
			}
			require.LessOrEqual(t, tv, risk+1e-12)
			require.GreaterOrEqual(t, risk, last)
			require.LessOrEqual(t, risk-last, small[x]*(1-min(1, large[x]/small[x]))+1e-12, "at most the draft's own rejection")
			last = risk
		}
		require.InDeltaSlice(t, small, law, 1e-12)
		require.InDelta(t, 1-spec.Overlap(large, small), risk, 1e-12)
	}
}

func TestI9UncertaintyAndItsLimit(t *testing.T) {
	logits := []float64{4, 2, 1, 0}
	temperatures := slices.Repeat([]float64{1.5}, 20_000)
	draw := rng.Stream(5, "uncertainty").Float64
	var sum float64
	for _, v := range logits {
		sum += math.Exp(v / 1.5)
	}
	require.InDelta(t, 1-math.Exp(4/1.5)/sum, Uncertainty(logits, 0, temperatures, draw), 0.015)
	require.Equal(t, 0.0, Uncertainty([]float64{0, 1000}, 1, []float64{.5, 1, 2}, draw))
	require.Equal(t, 1.0, Uncertainty([]float64{0, 1000}, 0, []float64{.5, 1, 2}, draw))
	last := -1
	for _, limit := range []float64{0, .1, .3, .5, .9, math.Inf(1)} {
		skipped := 0
		for _, u := range []float64{0, .05, .2, .2, .4, .6, 1} {
			if Skips(u, limit) {
				skipped++
			}
		}
		require.Greater(t, skipped, last, "the share skipped rises with the limit")
		require.True(t, limit > 0 || skipped == 0)
		last = skipped
	}
	require.Equal(t, 7, last)
}

func TestI9LineOfRejection(t *testing.T) {
	line := FitLine([]float64{0, 1, 2, 3}, []float64{1, 3, 5, 7})
	require.InDeltaSlice(t, []float64{2, 1, 1}, []float64{line.Slope, line.Intercept, line.R2}, 1e-12)
	line = FitLine([]float64{0, 1, 2}, []float64{0, 1, 0}) // flat: explains nothing
	require.InDeltaSlice(t, []float64{0, 1. / 3, 0}, []float64{line.Slope, line.Intercept, line.R2}, 1e-12)
	require.InDelta(t, 0.4, Line{0.5, 0.1, 1}.Limit(0.3), 1e-12)
	require.Zero(t, Line{0.5, 0.4, 1}.Limit(0.3))
	require.True(t, math.IsInf(Line{0, 0.1, 1}.Limit(0.3), 1))
	require.Zero(t, Line{0, 0.4, 1}.Limit(0.3))
}

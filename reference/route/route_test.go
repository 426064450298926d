package route

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// The counts that RouteLLM's published per-question results have, after contaminated prompts are taken out.
func mmlu() Counts { return Counts{14037, 9558, 11312, 2496} }
func gsm8k() Counts {
	return Counts{1307, 833, 1121, 382}
}

// E1: of right and wrong answers, the oracle's gain over the weak model is the share it sends.
func TestI9OracleGainIsTheShareSent(t *testing.T) {
	r := rng.Stream(1, "route oracle")
	for range 100 {
		outcomes := make([]Outcome, 1+r.IntN(50))
		for i := range outcomes {
			outcomes[i] = Outcome{float64(r.IntN(2)), float64(r.IntN(2)), 0}
		}
		share, quality := Oracle(outcomes)
		require.InDelta(t, share, quality-Curve(outcomes)[0].Quality, 1e-12)
	}
	for _, row := range []struct{ oracle, edge, edgeShare float64 }{ // percent, as KubeEdge-Ianvs prints them
		{84.22, 71.84, 87.62}, {82.75, 60.30, 77.55}, {82.22, 58.35, 76.12}, {54.55, 27.27, 72.73},
	} {
		require.InDelta(t, 100-row.edgeShare, row.oracle-row.edge, 0.0151)
	}
}

func TestI9CountsRebuildRouteLLM(t *testing.T) {
	for _, tc := range []struct {
		name                         string
		counts                       Counts
		weak, strong, share, ceiling float64 // percent, as published or recomputed to two digits
	}{
		{"MMLU", mmlu(), 68.09, 80.59, 17.78, 85.87},
		{"GSM8K", gsm8k(), 63.73, 85.77, 29.23, 92.96},
	} {
		outcomes := tc.counts.Outcomes()
		require.Len(t, outcomes, tc.counts.Questions)
		curve := Curve(outcomes)
		share, ceiling := Oracle(outcomes)
		for i, want := range []float64{tc.weak, tc.strong, tc.share, tc.ceiling} {
			got := 100 * []float64{curve[0].Quality, curve[len(curve)-1].Quality, share, ceiling}[i]
			require.InDelta(t, want, got, 0.005, "%s %d", tc.name, i)
		}
		require.Equal(t, float64(tc.counts.OnlyStrong), math.RoundToEven(share*float64(tc.counts.Questions)))
	}
	require.Panics(t, func() { Counts{10, 5, 5, 6}.Outcomes() })
}

// E2: thresholds at the ends are the models alone; a router that knows nothing has APGR 0.5 and CPT(y) = y.
func TestI9EndsAndRandomRouter(t *testing.T) {
	outcomes := mmlu().Outcomes()
	curve := Curve(outcomes)
	require.Len(t, curve, 2)
	require.InDelta(t, 0.5, curve.APGR(), 1e-12)
	for _, y := range []float64{0, 0.2, 0.5, 0.8, 1} {
		require.InDelta(t, y, curve.CPT(y), 1e-12)
	}
	r := rng.Stream(2, "route random")
	var mean, squares, at float64
	const trials = 60
	for range trials {
		for i := range outcomes {
			outcomes[i].Score = r.Float64()
		}
		c := Curve(outcomes)
		require.Equal(t, Point{0, 9558. / 14037}, c[0])
		require.InDelta(t, 11312./14037, c[len(c)-1].Quality, 1e-12)
		a := c.APGR()
		mean, squares, at = mean+a/trials, squares+a*a/trials, at+c.CPT(0.5)/trials
	}
	require.InDelta(t, 0.5, mean, 4*math.Sqrt((squares-mean*mean)/trials))
	require.InDelta(t, 0.5, at, 0.03)
}

func TestI9OracleCurveHasItsKinkAtTheShare(t *testing.T) {
	c := OracleCurve(gsm8k().Outcomes())
	share, ceiling := Oracle(gsm8k().Outcomes())
	require.Len(t, c, 4) // start, kink, end of the flat part, end
	require.Equal(t, 0.0, c[0].Share)
	require.InDelta(t, share, c[1].Share, 1e-12)
	require.InDelta(t, ceiling, c[1].Quality, 1e-12)
	require.InDelta(t, ceiling, c[2].Quality, 1e-12)
	require.InDelta(t, ceiling-0.1, c.At(share-0.1), 1e-12, "below the kink each call gains one answer")
	require.InDelta(t, ceiling, c.At((share+c[2].Share)/2), 1e-12)
	require.InDelta(t, 1121./1307, c.At(1), 1e-12)
}

// By hand: four questions, the strong model helps with the first and the third of the router's order.
func TestI9CurveByHand(t *testing.T) {
	c := Curve([]Outcome{{0, 1, .9}, {1, 1, .7}, {0, 1, .5}, {1, 1, .1}})
	require.Equal(t, Quality{{0, .5}, {.25, .75}, {.5, .75}, {.75, 1}, {1, 1}}, c)
	require.InDelta(t, .25*(.25+.5+.75+1), c.APGR(), 1e-12)
	require.InDelta(t, .125, c.CPT(.25), 1e-12)
	require.InDelta(t, .5+.25*.6, c.CPT(.8), 1e-12)
	require.Equal(t, 0.0, c.CPT(0))
	require.Equal(t, Quality{{0, .5}, {1, 1}}, Curve([]Outcome{{0, 1, .5}, {1, 1, .5}}), "ties go together")
}

func TestI9AIQ(t *testing.T) {
	points := []Priced{{1, .2}, {2, .1}, {3, .8}, {2, .4}, {5, .6}} // (2, .4) lies under the hull, (2, .1) and (5, .6) never pay
	require.Equal(t, []Priced{{1, .2}, {3, .8}}, Hull(points))
	require.InDelta(t, (2*.5+2*.8)/4, AIQ(points), 1e-12)
	require.Equal(t, .7, AIQ([]Priced{{2, .3}, {2, .7}}))
	r := rng.Stream(3, "route hull")
	for range 100 {
		var many []Priced
		for range 12 {
			many = append(many, Priced{r.Float64(), r.Float64()})
		}
		hull := Hull(many)
		for _, p := range many { // nothing lies over the hull, or over what follows it
			best := hull[len(hull)-1].Quality
			for i := 1; i < len(hull); i++ {
				if a, b := hull[i-1], hull[i]; p.Cost >= a.Cost && p.Cost <= b.Cost {
					best = a.Quality + (b.Quality-a.Quality)*(p.Cost-a.Cost)/(b.Cost-a.Cost)
				}
			}
			require.LessOrEqual(t, p.Quality, best+1e-12)
		}
		for i := 2; i < len(hull); i++ {
			slope := func(i int) float64 { return (hull[i].Quality - hull[i-1].Quality) / (hull[i].Cost - hull[i-1].Cost) }
			require.Less(t, slope(i), slope(i-1))
		}
	}
}

func someAnswers(seed uint64, n int) Answers {
	r, a := rng.Stream(seed, "route answers"), Answers{}
	for range n {
		hard := r.Float64()
		var quality, score, cost []float64
		for s := range 3 {
			right := 0.0
			if hard < 0.5+0.2*float64(s) {
				right = 1
			}
			quality = append(quality, right)
			score = append(score, math.Round(10*(0.6*right+0.4*r.Float64()))/10)
			cost = append(cost, math.Pow(10, float64(s)))
		}
		a.Quality, a.Score, a.Cost = append(a.Quality, quality), append(a.Score, score), append(a.Cost, cost)
	}
	return a
}

func TestI9CascadeAtItsEnds(t *testing.T) {
	a := someAnswers(1, 200)
	alone := func(s int) (quality, cost float64) {
		for q := range a.Quality {
			quality, cost = quality+a.Quality[q][s]/200, cost+a.Cost[q][s]/200
		}
		return quality, cost
	}
	quality, cost, last := Cascade{[]int{0, 2}, []float64{math.Inf(-1)}}.Mean(a)
	wantQuality, wantCost := alone(0)
	require.InDeltaSlice(t, []float64{wantQuality, wantCost, 0}, []float64{quality, cost, last}, 1e-9)
	quality, cost, last = Cascade{[]int{0, 2}, []float64{math.Inf(1)}}.Mean(a)
	wantQuality, wantCost = alone(2)
	require.InDeltaSlice(t, []float64{wantQuality, wantCost + 1, 1}, []float64{quality, cost, last}, 1e-9)
	asked := 0
	require.Equal(t, 1, Cascade{[]int{2, 0, 1}, []float64{.5, .5}}.Stop(func(i int) float64 { asked++; return float64(i) }))
	require.Equal(t, 2, asked, "scores are asked for only as far as needed")
}

func TestI9OptimiseEqualsExhaustiveSearch(t *testing.T) {
	a := someAnswers(2, 60)
	var scores []float64
	for s := range 12 {
		scores = append(scores, float64(s)/10)
	}
	for _, budget := range []float64{0.5, 1, 3, 10, 20, 60, 111} {
		best, ok := Optimise(a, budget, Limits{Thresholds: 100})
		want := -1.0
		for _, order := range [][]int{{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 0}, {1, 2}, {2, 0}, {2, 1},
			{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
			for code := range 144 {
				c := Cascade{order, []float64{scores[code%12], scores[code/12]}[:len(order)-1]}
				if quality, cost, _ := c.Mean(a); cost <= budget {
					want = max(want, quality)
				}
			}
		}
		require.Equal(t, want >= 0, ok, budget)
		if ok {
			quality, cost, _ := best.Mean(a)
			require.Equal(t, want, quality, budget)
			require.LessOrEqual(t, cost, budget)
		}
	}
	mixed, ok := Optimise(a, 20, Limits{})
	require.True(t, ok)
	one, ok := Optimise(a, 20, Limits{Services: 1})
	require.True(t, ok)
	require.Len(t, one.Order, 1)
	together, _, _ := mixed.Mean(a)
	alone, _, _ := one.Mean(a)
	require.Greater(t, together, alone, "for the same money a cascade is right more often than any one service")
}

func Example() {
	outcomes := []Outcome{{0, 1, 0.9}, {1, 1, 0.7}, {0, 1, 0.5}, {1, 1, 0.1}} // weak, strong, the router's score
	curve := Curve(outcomes)
	share, best := Oracle(outcomes)
	fmt.Printf("APGR %.3f, half of the gap at %.0f %% of calls; an oracle: %.0f %% right at %.0f %%\n",
		curve.APGR(), 100*curve.CPT(0.5), 100*best, 100*share)
	// Output: APGR 0.625, half of the gap at 25 % of calls; an oracle: 100 % right at 50 %
}

func TestI9Threshold(t *testing.T) {
	scores := []float64{.4, .1, .3, .2}
	require.Equal(t, .3, Threshold(scores, .5))
	require.Equal(t, .1, Threshold(scores, 1))
	require.True(t, math.IsInf(Threshold(scores, 0), 1))
	r := rng.Stream(4, "route quantile")
	many := make([]float64, 1000)
	for i := range many {
		many[i] = r.Float64()
	}
	for _, share := range []float64{.1, .37, .5, .999} {
		limit, sent := Threshold(many, share), 0
		for _, s := range many {
			if s >= limit {
				sent++
			}
		}
		require.Equal(t, int(math.Round(share*1000)), sent)
	}
	require.True(t, slices.Equal(scores, []float64{.4, .1, .3, .2}), "the scores stay in order")
}

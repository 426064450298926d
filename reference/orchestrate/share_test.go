package orchestrate

import (
	"math"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// someFlows draws flows that load the resource to at most 90 %.
func someFlows(r *rng.Luck) []Flow {
	flows := make([]Flow, 2+int(r.Float64()*5))
	total := 0.0
	for i := range flows {
		flows[i] = Flow{Seconds: 0.01 + r.Float64(), Rate: r.Float64(), Weight: 0.1 + r.Float64(), Other: 2 * r.Float64(), Gain: 0.1 + 5*r.Float64()}
		total += flows[i].Load()
	}
	aim := 0.9 * r.Float64()
	for i := range flows {
		flows[i].Rate *= aim / total
	}
	return flows
}

// minimum finds the best shares numerically: from even spare shares, any two flows exchange what helps, ever finer.
func minimum(flows []Flow, cost func(x []float64) float64) float64 {
	x := make([]float64, len(flows))
	for i, f := range flows {
		x[i] = f.Load() + (1-load(flows))/float64(len(flows))
	}
	best := cost(x)
	for step := 0.25; step > 1e-9; {
		moved := false
		for i := range x {
			for j := range x {
				if i == j || x[i] <= step {
					continue
				}
				x[i], x[j] = x[i]-step, x[j]+step
				if c := cost(x); c < best {
					best, moved = c, true
				} else {
					x[i], x[j] = x[i]+step, x[j]-step
				}
			}
		}
		if !moved {
			step /= 2
		}
	}
	return best
}

func sumOf(flows []Flow) func([]float64) float64 {
	return func(x []float64) (sum float64) {
		for i, f := range flows {
			sum += f.Weight * f.Delay(x[i])
		}
		return sum
	}
}

func worstOf(flows []Flow) func([]float64) float64 {
	return func(x []float64) (worst float64) {
		for i, f := range flows {
			worst = max(worst, f.Other+f.Delay(x[i]))
		}
		return worst
	}
}

// TestX2ClosedFormsEqualNumericalOptima: the square-root law and equal finish times against a numerical search.
func TestX2ClosedFormsEqualNumericalOptima(t *testing.T) {
	key := rng.NewKey(1, "shares")
	for n := range 60 {
		luck := key.At(uint64(n))
		flows := someFlows(&luck)
		sum := sumOf(flows)(MinSum(flows))
		require.InEpsilon(t, minimum(flows, sumOf(flows)), sum, 1e-5, "case %d", n)
		roots := 0.0
		for _, f := range flows {
			roots += math.Sqrt(f.Weight * f.Seconds)
		}
		require.InEpsilon(t, roots*roots/(1-load(flows)), sum, 1e-9, "the value in closed form")
		x := MinMax(flows)
		worst := worstOf(flows)(x)
		for i, f := range flows {
			require.InEpsilon(t, worst, f.Other+f.Delay(x[i]), 1e-6, "finish times are equal")
		}
		// Pairwise exchange can stall on a maximum of several: a smooth bound of it does not.
		require.LessOrEqual(t, worst, minimum(flows, worstOf(flows))*(1+1e-6))
		for _, rule := range Shares {
			x := rule.Divide(flows)
			total := 0.0
			for _, v := range x {
				require.GreaterOrEqual(t, v, 0.0)
				total += v
			}
			require.InDelta(t, 1, total, 1e-9, rule.Name)
			require.GreaterOrEqual(t, sumOf(flows)(x), sum*(1-1e-9), "%s beats the optimum of sums", rule.Name)
			require.GreaterOrEqual(t, worstOf(flows)(x), worst*(1-1e-6), "%s beats the optimum of the worst", rule.Name)
		}
	}
}

// TestX2OneTransferEach is algorithms.md T8: without arrivals, finish times are equal at T = sum of seconds.
func TestX2OneTransferEach(t *testing.T) {
	flows := []Flow{{Seconds: 1, Weight: 1, Gain: 2}, {Seconds: 4, Weight: 1, Gain: 0.5}, {}}
	require.InDeltaSlice(t, []float64{0.2, 0.8, 0}, MinMax(flows), 1e-12)
	require.InDelta(t, 5, flows[0].Delay(MinMax(flows)[0]), 1e-9)
	require.InDeltaSlice(t, []float64{1.0 / 3, 2.0 / 3, 0}, MinSum(flows), 1e-12) // roots 1 and 2
	require.InDeltaSlice(t, []float64{0.5, 0.5, 0}, Equal(flows), 1e-12)
	require.InDeltaSlice(t, []float64{0.2, 0.8, 0}, MaxMin(flows), 1e-12) // 2 x 0.2 = 0.5 x 0.8
	require.InDeltaSlice(t, []float64{0.2, 0.8, 0}, Proportional(flows), 1e-12)
	require.InDeltaSlice(t, []float64{0.5, 0.5}, MaxMin([]Flow{{Seconds: 1}, {Seconds: 2}}), 1e-12, "no gains: all alike")
	require.Zero(t, flows[2].Delay(0), "no work takes no time")
	// Proportional to load: 0.1 and 0.3 of load.
	require.InDeltaSlice(t, []float64{0.25, 0.75}, Proportional([]Flow{{Seconds: 0.1, Rate: 1}, {Seconds: 0.1, Rate: 3}}), 1e-12)
}

// TestX2EqualSharesMaximiseTheSumOfLogRates: proportional fairness against the numerical optimum.
func TestX2EqualSharesMaximiseTheSumOfLogRates(t *testing.T) {
	key := rng.NewKey(2, "log rates")
	for n := range 20 {
		luck := key.At(uint64(n))
		flows := someFlows(&luck)
		for i := range flows {
			flows[i].Rate = 0
		}
		logs := func(x []float64) (sum float64) {
			for i, f := range flows {
				sum -= math.Log(f.Gain * max(x[i], 1e-300))
			}
			return sum
		}
		require.InDelta(t, minimum(flows, logs), logs(Equal(flows)), 1e-6)
		rates := make([]float64, len(flows))
		for i, x := range MaxMin(flows) {
			rates[i] = x * flows[i].Gain
		}
		require.InDelta(t, 1, Jain(rates), 1e-12)
	}
	require.InDelta(t, 0.25, Jain([]float64{0, 3, 0, 0}), 1e-12)
	require.Equal(t, 1.0, Jain(nil))
}

func TestX2OverloadAndNothing(t *testing.T) {
	over := []Flow{{Seconds: 1, Rate: 0.7, Weight: 1}, {Seconds: 1, Rate: 0.4, Weight: 1}}
	require.True(t, sort.SliceIsSorted(Shares, func(i, j int) bool { return Shares[i].Name < Shares[j].Name }))
	for _, rule := range Shares {
		require.Nil(t, rule.Divide(over), rule.Name)
		require.Equal(t, []float64{0, 0}, rule.Divide(make([]Flow, 2)), rule.Name)
		found, ok := FindShare(rule.Name)
		require.True(t, ok)
		require.Equal(t, rule.Doc, found.Doc)
	}
	_, ok := FindShare("none")
	require.False(t, ok)
	require.True(t, math.IsInf(over[0].Delay(0.7), 1))
}

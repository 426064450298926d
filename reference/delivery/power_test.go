package delivery

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/library"
)

func TestC6LambertInvertsItsDefinition(t *testing.T) {
	for _, w := range []float64{-0.9999, -0.9, -0.5, -0.1, -1e-6, 0, 1e-9, 0.01, 0.3, 0.7, 1, 2, 5, 20, 100} {
		require.InDelta(t, w, lambert(w*math.Exp(w)), 1e-7*math.Max(1, math.Abs(w)), "%g", w)
	}
	require.Equal(t, -1.0, lambert(-1/math.E-1e-18))
}

// The closed form against a search by golden section over the logarithm of the power.
func TestC6PowerIsWhatASearchFinds(t *testing.T) {
	luck := rng.Stream(7, "power")
	for range 200 {
		gain, price := math.Exp(14*luck.Float64()-4), math.Exp(14*luck.Float64()-7)
		c := Cast{Bytes: 1_000_000, Gain: gain}
		cost := func(logp float64) float64 {
			p := math.Exp(logp)
			return c.seconds(p, 20e6) * (1 + price*p)
		}
		low, high := -40.0, 40.0
		for range 200 {
			a, b := high-(high-low)*0.6180339887498949, low+(high-low)*0.6180339887498949
			if cost(a) < cost(b) {
				high = b
			} else {
				low = a
			}
		}
		require.InEpsilon(t, math.Exp(low), Power(gain, price), 1e-5, "gain %g, price %g", gain, price)
	}
	require.True(t, math.IsInf(Power(3, 0), 1))
}

// Two transmissions: no other way to share the energy is quicker; the budget is spent, or all send at most.
func TestC6PowersSpendTheEnergyBest(t *testing.T) {
	luck := rng.Stream(8, "powers")
	capped, spent := 0, 0
	for range 60 {
		cs := []Cast{{1_000_000, math.Exp(8 * luck.Float64())}, {units.Bytes(100_000 + luck.IntN(5_000_000)), math.Exp(8 * luck.Float64())}}
		least := 0.0
		for _, c := range cs {
			least += 8 * float64(c.Bytes) * math.Ln2 / (20e6 * c.Gain)
		}
		most, budget := units.Watts(20), units.Joules(least*(1.05+math.Exp(6*luck.Float64())))
		ps, seconds, err := Powers(cs, 20e6, most, budget)
		require.NoError(t, err)
		energy, total := 0.0, 0.0
		for i, c := range cs {
			require.LessOrEqual(t, ps[i], most)
			total += c.seconds(float64(ps[i]), 20e6)
			energy += float64(ps[i]) * c.seconds(float64(ps[i]), 20e6)
		}
		require.InEpsilon(t, total, seconds, 1e-12)
		require.LessOrEqual(t, energy, float64(budget)*(1+1e-12))
		if ps[0] == most && ps[1] == most {
			capped++
		} else {
			spent++
			require.InEpsilon(t, float64(budget), energy, 1e-6)
		}
		for k := 1; k < 400; k++ { // power of one by a grid, of the other by what energy is left
			p := float64(most) * math.Exp(-float64(k)/40)
			left := float64(budget) - p*cs[0].seconds(p, 20e6)
			low, high := 1e-12, float64(most)
			if left <= low*cs[1].seconds(low, 20e6) {
				continue
			}
			for range 100 {
				if mid := math.Sqrt(low * high); mid*cs[1].seconds(mid, 20e6) > left {
					high = mid
				} else {
					low = mid
				}
			}
			require.GreaterOrEqual(t, cs[0].seconds(p, 20e6)+cs[1].seconds(low, 20e6), seconds*(1-1e-6))
		}
	}
	require.Positive(t, capped)
	require.Greater(t, spent, 20)
	_, _, err := Powers([]Cast{{1_000_000, 1}}, 20e6, 1, 0.27)
	require.ErrorContains(t, err, "at any power")
	_, _, err = Powers([]Cast{{1, math.NaN()}}, 1, 1, 1)
	require.ErrorContains(t, err, "gain NaN")
	_, _, err = Powers(nil, 0, 1, 1)
	require.ErrorContains(t, err, "positive")
}

// The tree against every choice; the greedy one is never better; and the airtime is that of the plan.
func TestC6PickIsTheLeastOfAllChoices(t *testing.T) {
	luck := rng.Stream(9, "pick")
	worse := 0
	for range 150 {
		l, _ := drawn(t, luck, 0)
		var ws []Wish
		choices := 1
		for u := range 1 + luck.IntN(4) {
			ws = append(ws, Wish{User: u, Rate: 1000 * math.Exp(3*luck.Float64()), Models: luck.Perm(len(l.Models))[:1+luck.IntN(4)]})
			choices *= len(ws[u].Models)
		}
		least := math.Inf(1)
		for n := range choices {
			models, left := make([]int, len(ws)), n
			for u, w := range ws {
				models[u] = w.Models[left%len(w.Models)]
				left /= len(w.Models)
			}
			least = min(least, airtime(t, l, ws, models))
		}
		p, sum := &picker{l: l, ws: ws, worst: make([]float64, len(l.Blocks)), chosen: make([]int, len(ws))}, 0.0
		for i, w := range ws { // what each adds is the difference of the whole
			sum += p.adds(w, w.Models[0])
			p.take(i, w.Models[0])
			require.InEpsilon(t, p.seconds(), sum, 1e-9)
		}
		models, seconds, err := Pick(l, ws, true)
		require.NoError(t, err)
		require.InEpsilon(t, least, seconds, 1e-9)
		require.InEpsilon(t, seconds, airtime(t, l, ws, models), 1e-6)
		for u, m := range models {
			require.True(t, slices.Contains(ws[u].Models, m))
		}
		_, greedy, err := Pick(l, ws, false)
		require.NoError(t, err)
		require.GreaterOrEqual(t, greedy, seconds*(1-1e-12))
		if greedy > seconds*(1+1e-9) {
			worse++
		}
	}
	require.Positive(t, worse, "the greedy choice is not always best")
}

func airtime(t *testing.T, l *library.Library, ws []Wish, models []int) float64 {
	return make1(t, l, Requests(l, ws, models, nil), Options{Scheme: "multicast"}).Airtime.Seconds()
}

func TestPickRefusesNonsense(t *testing.T) {
	l := family(t, 2, 10, 1)
	for want, w := range map[string]Wish{"rate 0": {Models: []int{0}}, "no model is good": {Rate: 1}, "does not exist": {Rate: 1, Models: []int{2}}} {
		_, _, err := Pick(l, []Wish{w}, true)
		require.ErrorContains(t, err, want)
	}
	held := Requests(l, []Wish{{Rate: 1, User: 5}}, []int{1}, func(user, j int) bool { return user == 5 && j == 0 })
	require.Equal(t, []int{2}, held[0].Blocks)
}

// C10: 138 MB at 1.1 Gbit/s take 1.00 s.
func TestC10BudgetsOf3GPP(t *testing.T) {
	for _, b := range Budgets() {
		took := units.TransferTime(b.Bytes, b.Rate)
		require.InDelta(t, 1, took.Seconds(), 0.005, b.Name)
		require.True(t, b.Met(b.Bytes, took), b.Name)
		require.False(t, b.Met(b.Bytes, took+20*time.Millisecond))
		require.False(t, b.Met(b.Bytes-1, took), "less than the model")
		require.InDelta(t, 2.0/3, b.Share([]time.Duration{took, took / 2, 2 * took}), 1e-12)
		require.Zero(t, b.Share(nil))
	}
}

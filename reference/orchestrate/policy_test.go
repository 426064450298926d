package orchestrate

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// pool simulates n servers of rate 1 fed at a load by a balancer, and returns the mean sojourn.
func pool(t *testing.T, policy string, n int, load float64, jobs int) float64 {
	b, ok := FindBalancer(policy)
	require.True(t, ok)
	r, key := rng.Stream(4, "pool", policy), rng.NewKey(4, "pick", policy)
	ends := make([][]float64, n) // of the jobs at each server, in order
	rs := make([]Replica, n)
	var turn Turn
	now, sum := 0.0, 0.0
	for k := range jobs {
		now += rng.Exp(r) / (load * float64(n))
		for i := range ends {
			for len(ends[i]) > 0 && ends[i][0] <= now {
				ends[i] = ends[i][1:]
			}
			rs[i] = Replica{Jobs: len(ends[i]), Run: 1}
			if q := len(ends[i]); q > 0 {
				rs[i].Wait = ends[i][q-1] - now
			}
		}
		luck := key.At(uint64(k))
		i := b.Pick(&turn, &luck, rs)
		end := now + rs[i].Wait + rng.Exp(r)
		ends[i] = append(ends[i], end)
		sum += end - now
	}
	return sum / float64(jobs)
}

// TestX4BalancersAgainstTheory: chance alone is M/M/1, two choices are Mitzenmacher's limit, least work left is one line for all (M/M/c).
func TestX4BalancersAgainstTheory(t *testing.T) {
	const n, load = 60, 0.8
	got := map[string]float64{}
	for _, b := range Balancers {
		got[b.Name] = pool(t, b.Name, n, load, 120_000)
	}
	require.InEpsilon(t, MM1(load, 1).Sojourn, got["random"], 0.08)
	require.InEpsilon(t, TwoChoices(load), got["two"], 0.03)
	require.InEpsilon(t, MMC(load*n, 1, n).Sojourn, got["least"], 0.02)
	require.Less(t, got["least"], got["jsq"]+1e-9)
	require.Less(t, got["jsq"], got["two"])
	require.Less(t, got["two"], got["roundrobin"])
	require.Less(t, got["roundrobin"], got["random"])
	require.InDelta(t, 1+0.25+1.0/64+1.0/16384, TwoChoices(0.5), 1e-8) // 2^-2, 2^-6, 2^-14, 2^-30
	require.True(t, math.IsInf(TwoChoices(1), 1))
	require.True(t, sort.SliceIsSorted(Balancers, func(i, j int) bool { return Balancers[i].Name < Balancers[j].Name }))
	luck := rng.NewKey(1, "x").At(1)
	for _, b := range Balancers {
		require.Zero(t, b.Pick(&Turn{}, &luck, make([]Replica, 1)), b.Name)
	}
	for k := range uint64(50) { // of two, both are seen
		luck := rng.NewKey(1, "both").At(k)
		require.Equal(t, 1, two(nil, &luck, []Replica{{Jobs: 1}, {Jobs: 0}}))
	}
	require.Equal(t, 1, least(nil, nil, []Replica{{Wait: 1, Run: 1, Cost: 0.5}, {Wait: 1, Run: 1.4}}), "a place may cost")
}

// TestX4TheBestThreshold: Naor's threshold is the best of all, and value iteration over all policies finds no better one.
func TestX4TheBestThreshold(t *testing.T) {
	key := rng.NewKey(1, "naor")
	seen := map[int]bool{}
	for n := range 25 {
		luck := key.At(uint64(n))
		lambda, mu := 0.2+2*luck.Float64(), 0.5+luck.Float64()
		reward, cost := 1+9*luck.Float64(), 0.1+luck.Float64()
		best := Naor(lambda, mu, reward, cost)
		seen[best] = true
		for k := range 80 {
			require.LessOrEqual(t, Gain(lambda, mu, reward, cost, k), Gain(lambda, mu, reward, cost, best)+1e-12)
		}
		require.LessOrEqual(t, best, int(reward*mu/cost), "society wants fewer than join by themselves")
		require.InDelta(t, Gain(lambda, mu, reward, cost, best), iterate(lambda, mu, reward, cost), 1e-4, "no policy gains more")
	}
	require.Greater(t, len(seen), 4)
	// By hand: rho = 1, threshold 2: p = 1/3 each, L = 1.
	require.InDelta(t, 6*(2.0/3)-1, Gain(1, 1, 6, 1, 2), 1e-12)
}

// iterate is the largest gain per second of any stationary policy of admission, by relative value iteration on the uniformised chain.
func iterate(lambda, mu, reward, cost float64) (gain float64) {
	const states = 120
	rate := lambda + mu
	v := make([]float64, states+1)
	for range 40_000 {
		next := make([]float64, states+1)
		for k := range v {
			stay := v[k]
			if k < states {
				stay = max(stay, v[k+1]+reward)
			}
			next[k] = (-cost*float64(k) + lambda*stay + mu*v[max(k-1, 0)]) / rate
		}
		g := (next[0] - v[0]) * rate
		base := next[0]
		for k := range next {
			next[k] -= base
		}
		v = next
		if math.Abs(g-gain) < 1e-13 {
			return g
		}
		gain = g
	}
	return gain
}

// TestX4MostInTime: Moore and Hodgson's set is as large as the largest of all subsets.
func TestX4MostInTime(t *testing.T) {
	key := rng.NewKey(2, "deadlines")
	for n := range 300 {
		luck := key.At(uint64(n))
		ws := make([]Work, 1+int(luck.Float64()*9))
		for i := range ws {
			ws[i] = Work{float64(1 + int(luck.Float64()*9)), float64(1 + int(luck.Float64()*30))}
		}
		got := MostInTime(ws)
		require.True(t, inTime(ws, got))
		best := 0
		for set := range 1 << len(ws) {
			var idx []int
			for i := range ws {
				if set>>i&1 == 1 {
					idx = append(idx, i)
				}
			}
			slices.SortStableFunc(idx, func(a, b int) int { return int(ws[a].Deadline - ws[b].Deadline) })
			if inTime(ws, idx) {
				best = max(best, len(idx))
			}
		}
		require.Equal(t, best, len(got), "%v", ws)
	}
}

func inTime(ws []Work, order []int) bool {
	now := 0.0
	for _, i := range order {
		if now += ws[i].Service; now > ws[i].Deadline {
			return false
		}
	}
	return true
}

func TestX4AdmissionRules(t *testing.T) {
	bucket := Admission{Rule: "bucket", Rate: 2, Burst: 3}
	var in []float64
	for i := range 40 { // 10 per second for 4 s: the burst, then 2 per second
		now := float64(i) / 10
		if bucket.Admit(Request{Now: now}) {
			in = append(in, now)
		}
	}
	require.Equal(t, 3+7, len(in), "%v", in) // tokens: 3 at 0, and 2 x 3.9 s
	for k := range in {                      // in any window, at most burst + rate x length
		for j := k; j < len(in); j++ {
			require.LessOrEqual(t, float64(j-k+1), 3+2*(in[j]-in[k])+1e-9)
		}
	}
	idle := Admission{Rule: "bucket", Rate: 2, Burst: 3}
	let := 0
	for i := range 10 { // after a long silence no more than the burst
		if idle.Admit(Request{Now: 100 * float64(min(i, 1))}) {
			let++
		}
	}
	require.Equal(t, 1+3, let)
	queue := Admission{Rule: "queue", Queue: 2}
	require.True(t, queue.Admit(Request{Waiting: 1}))
	require.False(t, queue.Admit(Request{Waiting: 2}))
	slo := Admission{Rule: "slo"}
	require.True(t, slo.Admit(Request{Finish: 2, Deadline: 2}))
	require.False(t, slo.Admit(Request{Finish: 2.01, Deadline: 2}))
	require.True(t, slo.Admit(Request{Finish: 1e9}), "no deadline")
	slo.Slack = 1.5
	require.False(t, slo.Admit(Request{Finish: 1.5, Deadline: 2}))
	require.True(t, (&Admission{}).Admit(Request{Waiting: 1e6, Finish: 1e6, Deadline: 1}))
	require.True(t, slices.IsSortedFunc(Admissions, func(a, b struct{ Name, Doc string }) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	}))
}

// TestX4ScalersAgainstTheBestSchedule: no scaler is cheaper than the best schedule with hindsight; on days that rise and fall, predicting is close to it,
// and every scaler is cheaper than the largest fleet where replicas cost.
func TestX4ScalersAgainstTheBestSchedule(t *testing.T) {
	key := rng.NewKey(3, "season")
	mean := map[string]float64{}
	const seasons = 16
	for n := range seasons {
		luck := key.At(uint64(n))
		s := Season{Max: 3, Start: 1, Replica: 1, Late: 2 + 4*luck.Float64()}
		peak := 4 + int(luck.Float64()*3)
		for i := range 9 {
			s.Demand = append(s.Demand, 0.3+2.2*max(0, 1-math.Abs(float64(i-peak))/3)+0.4*luck.Float64())
		}
		_, best, err := s.Best()
		require.NoError(t, err)
		for _, sc := range []Scaler{
			{Rule: "erlang", Min: 1, Max: 3, Wait: 0.2, Calm: 1}, {Rule: "fixed", Min: 3, Max: 3},
			{Rule: "reactive", Min: 1, Max: 3, Low: 0.3, High: 0.8, Calm: 1}, {Rule: "target", Min: 1, Max: 3, Target: 0.7, Calm: 1},
		} {
			require.NoError(t, sc.Check())
			cost := s.Cost(s.Play(sc))
			require.GreaterOrEqual(t, cost, best-1e-9, "%s, season %d", sc.Rule, n)
			mean[sc.Rule] += best / cost / seasons
		}
	}
	t.Log("cost of the best schedule over that of the rule, mean:", mean)
	require.Greater(t, mean["erlang"], 0.6)
	for _, rule := range []string{"erlang", "reactive", "target"} {
		require.Greater(t, mean[rule], 0.45, rule)
	}
}

// TestX4SeasonsByHand: a replica ordered in a period works from the next one on if the start takes one.
func TestX4SeasonsByHand(t *testing.T) {
	s := Season{Demand: []float64{0, 1, 1}, Max: 1, Start: 1, Replica: 3, Late: 2}
	require.Equal(t, 9.0, s.Cost([]int{1, 1, 1}))         // ready for the first work
	require.Equal(t, 6.0+2+2, s.Cost([]int{0, 1, 1}))     // one unit waits from then on
	require.Equal(t, 0.0+2+4, s.Cost([]int{0, 0, 0}))     // nothing is ever done
	require.Equal(t, 3.0+2+3+2+2, s.Cost([]int{1, 0, 1})) // stopping forgets the start
	orders, cost, err := s.Best()
	require.NoError(t, err)
	require.Equal(t, 6.0, cost)
	require.Equal(t, []int{0, 0, 0}, orders)
	_, _, err = (&Season{Demand: make([]float64, 30), Max: 3}).Best()
	require.ErrorContains(t, err, "use fewer")
}

func TestX4ScalerRules(t *testing.T) {
	re := Scaler{Rule: "reactive", Min: 1, Max: 4, Low: 0.3, High: 0.8, Calm: 2}
	require.Equal(t, 3, re.Next(Fleet{On: 2, Busy: 0.9}))
	require.Equal(t, 3, re.Next(Fleet{On: 2, Starting: 1, Busy: 0.5}), "between the marks nothing happens")
	require.Equal(t, 3, re.Next(Fleet{On: 3, Busy: 0.1}))
	require.Equal(t, 3, re.Next(Fleet{On: 3, Busy: 0.1}), "not before it has been calm for two periods")
	require.Equal(t, 2, re.Next(Fleet{On: 3, Busy: 0.1}))
	require.Equal(t, 4, re.Next(Fleet{On: 4, Busy: 1}), "not above the most")
	ta := Scaler{Rule: "target", Min: 1, Max: 9, Target: 0.5}
	require.Equal(t, 4, ta.Next(Fleet{On: 2, Busy: 1}))
	require.Equal(t, 3, ta.Next(Fleet{On: 2, Busy: 0.75}))
	require.Equal(t, 5, ta.Next(Fleet{On: 4, Busy: 0.5, Waiting: 9}), "a line asks for one more")
	er := Scaler{Rule: "erlang", Min: 1, Max: 50, Wait: 0.05}
	n, err := Servers(10, 1, 0.05)
	require.NoError(t, err)
	require.Equal(t, n, er.Next(Fleet{Arrivals: 10, Service: 1}))
	n, err = Servers(16, 1, 0.05)
	require.NoError(t, err)
	require.Equal(t, n, er.Next(Fleet{Arrivals: 13, Service: 1}), "it rises by 3 again")
	require.Equal(t, 50, er.Next(Fleet{Arrivals: 100, Service: 1}))
	require.Equal(t, 7, (&Scaler{Min: 1, Max: 7}).Next(Fleet{}))
	for want, s := range map[string]Scaler{"1 <= min": {Max: 1}, "low < high": {Rule: "reactive", Min: 1, Max: 1, Low: 1, High: 1}, "unknown rule": {Rule: "x", Min: 1, Max: 1}, "a target": {Rule: "target", Target: 2, Min: 1, Max: 1}} {
		require.ErrorContains(t, s.Check(), want)
	}
}

// TestX4RecoveryAgainstTheOptimumWithout: after a node's death, what can be done at once is feasible; with loading it reaches the optimum
// of the instance without the node.
func TestX4RecoveryAgainstTheOptimumWithout(t *testing.T) {
	reroute, replace, cases := 0.0, 0.0, 0
	for n := range 40 {
		in := someInstance(uint64(n))
		d := Local(in, Greedy(in))
		at := slices.IndexFunc(d.Route, func(c Choice) bool { return c.Node >= 0 })
		if at < 0 {
			continue
		}
		in.Nodes[d.Route[at].Node].Down = true
		best, err := Exhaustive(in)
		require.NoError(t, err)
		quick, full := Reroute(in, d), Replace(in, d)
		require.Empty(t, quick.Loads)
		for _, r := range []Recover{quick, full} {
			_, faults := in.Judge(&r.Decision)
			require.Empty(t, faults)
			for u, c := range r.Decision.Route {
				require.False(t, c.Node >= 0 && in.Nodes[c.Node].Down, "user %d is left behind", u)
			}
		}
		for _, l := range full.Loads {
			require.False(t, d.Placed[l.Node][l.Model])
			require.True(t, full.Decision.Placed[l.Node][l.Model])
		}
		optimum := in.Score(&best)
		require.LessOrEqual(t, in.Score(&full.Decision), in.Score(&quick.Decision)*(1+1e-9))
		reroute, replace, cases = reroute+optimum/in.Score(&quick.Decision), replace+optimum/in.Score(&full.Decision), cases+1
	}
	t.Log("optimum without the node over reroute and replace, mean:", reroute/float64(cases), replace/float64(cases), "of", cases)
	require.Greater(t, cases, 20)
	require.GreaterOrEqual(t, replace/float64(cases), 0.9999)
	require.Greater(t, replace, reroute)
}

func TestX4Availability(t *testing.T) {
	require.InDelta(t, 0.9, Availability(9, 1), 1e-15)
	require.InDelta(t, 0.99, AnyOf(1, 2, 0.9), 1e-15)
	require.InDelta(t, 0.81, AnyOf(2, 2, 0.9), 1e-15)
	require.InDelta(t, 0.972, AnyOf(2, 3, 0.9), 1e-15) // 3 x 0.081 + 0.729
	for n := 1; n < 8; n++ {                           // all subsets
		for k := range n + 1 {
			sum := 0.0
			for set := range 1 << n {
				p, up := 1.0, 0
				for i := range n {
					if set>>i&1 == 1 {
						p, up = p*0.7, up+1
					} else {
						p *= 0.3
					}
				}
				if up >= k {
					sum += p
				}
			}
			require.InDelta(t, sum, AnyOf(k, n, 0.7), 1e-12, fmt.Sprint(k, n))
		}
	}
}

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

// someInstance draws a small instance: 2 cells, 2 edge nodes and a cloud, 2 models, 4 users.
func someInstance(n uint64) *Instance {
	key := rng.NewKey(9, "instance")
	r := key.At(n)
	u := func(low, high float64) float64 { return low + float64((high-low)*r.Float64()) }
	in := &Instance{Refusal: 20, Want: Weights{Mean: 1, Watts: u(0, 0.02), Cost: u(0, 0.5), Carbon: u(0, 5), Node: 0.1},
		Cells:  []Cell{{"a", 1e6, 2e6}, {"b", 2e6, 2e6}},
		Models: []Model{{"small", 1e9, 2, 1, 0.6}, {"large", 4e9, 8, 4, 0.9}}}
	for i := range 3 {
		n := Node{Name: fmt.Sprint("n", i), PromptRate: u(2e3, 2e4), OutputRate: u(100, 800), Memory: u(0.9e9, 6e9), IdleWatts: u(1, 10), BusyWatts: u(10, 60),
			Price: u(0, 1), CarbonPerJoule: u(1e-5, 2e-4), Weight: u(0, 3), Away: []float64{u(0, 0.05), u(0, 0.05)}, Batch: r.Float64() < 0.5, Gain: u(1, 6)}
		if i == 2 {
			n.Cloud, n.PromptRate, n.OutputRate, n.Memory, n.Away = true, 1e5, 4e3, 1e11, []float64{0.2, 0.2}
		}
		in.Nodes = append(in.Nodes, n)
	}
	for i := range 4 {
		in.Users = append(in.Users, User{Name: fmt.Sprint("u", i), Cell: i % 2, Rate: u(0.05, 0.8), UpBits: u(1e4, 5e5), DownBits: u(1e3, 5e4), UpEff: u(0.3, 4), DownEff: u(0.5, 6),
			Access: 0.02, Prompt: u(50, 500), Output: u(10, 120), Deadline: u(0.5, 4), Quality: []float64{0, 0.5, 0.8}[int(r.Float64()*3)],
			Class: Class(r.Float64() * 2.3), Device: Node{PromptRate: u(200, 1000), OutputRate: u(10, 60), Memory: u(0, 5e9), IdleWatts: 0.1, BusyWatts: 4, CarbonPerJoule: 1e-4}, JoulesPerBit: 1e-7})
	}
	return in
}

// TestX4SearchesAgainstTheOptimum: over random instances every search is feasible, never better than the exhaustive one, and local search is
// within 1 % of it in the mean.
func TestX4SearchesAgainstTheOptimum(t *testing.T) {
	const instances = 60
	ratio, worst := map[string]float64{}, map[string]float64{}
	used := map[int]int{}
	for n := range instances {
		in := someInstance(uint64(n))
		in.Bandwidth = []string{"", "minsum", "equal", "minmax", "proportional"}[n%5]
		require.NoError(t, in.Check())
		best, err := Exhaustive(in)
		require.NoError(t, err)
		optimum := in.Score(&best)
		require.False(t, math.IsInf(optimum, 1), "the optimum is feasible")
		for _, c := range best.Route {
			used[c.Node]++
		}
		for _, s := range Solvers {
			d := s.Solve(in)
			_, faults := in.Judge(&d)
			require.Empty(t, faults, "%s, instance %d", s.Name, n)
			got := optimum / in.Score(&d)
			require.LessOrEqual(t, got, 1+1e-9, "%s beats the exhaustive search on instance %d", s.Name, n)
			require.Positive(t, d.Tried)
			ratio[s.Name] += got / instances
			if w, seen := worst[s.Name]; !seen || got < w {
				worst[s.Name] = got
			}
		}
	}
	t.Log("optimum over objective reached, mean:", ratio, "worst:", worst)
	require.Len(t, used, 5, "optima use every kind of place: %v", used)
	require.GreaterOrEqual(t, ratio["greedy"], 0.90)
	require.GreaterOrEqual(t, ratio["response"], 0.90)
	require.GreaterOrEqual(t, ratio["local"], 0.99)
	require.GreaterOrEqual(t, worst["local"], 0.95)
	require.Greater(t, ratio["local"], ratio["greedy"])
	require.True(t, sort.SliceIsSorted(Solvers, func(i, j int) bool { return Solvers[i].Name < Solvers[j].Name }))
}

// TestX4SharesInsideAreOptimal: given a route, the mean delay with minsum is that of the best shares found numerically, all resources at once.
func TestX4SharesInsideAreOptimal(t *testing.T) {
	r := rng.Stream(1, "perturb")
	for n := range 20 {
		in := someInstance(uint64(n))
		d := Local(in, Greedy(in))
		mean := in.figures(&d).Mean
		for range 300 { // convex: a minimum against small exchanges is one against all
			e := d
			e.Up, e.Down, e.Compute = slices.Clone(d.Up), slices.Clone(d.Down), slices.Clone(d.Compute)
			x := [][]float64{e.Up, e.Down, e.Compute}[r.IntN(3)]
			a, b := r.IntN(len(x)), r.IntN(len(x))
			by := x[a] * 0.3 * r.Float64()
			x[a], x[b] = x[a]-by, x[b]+by
			if _, faults := in.Judge(&e); len(faults) > 0 {
				continue
			}
			require.GreaterOrEqual(t, in.figures(&e).Mean, mean*(1-1e-12), "instance %d", n)
		}
	}
}

// TestX4AlternationForTheWorst: shares by minmax in turn are near the numerical optimum of the worst delay.
func TestX4AlternationForTheWorst(t *testing.T) {
	sum, count := 0.0, 0.0
	for n := range 12 {
		in := someInstance(uint64(n))
		in.Want, in.Bandwidth, in.Compute = Weights{Worst: 1}, "minmax", "minmax"
		for i := range in.Nodes {
			in.Nodes[i].Batch = false
		}
		for i := range in.Users { // everybody is sent somewhere
			in.Users[i].Device.Memory, in.Users[i].Class, in.Users[i].Quality = 0, Anywhere, 0
			in.Users[i].Rate /= 8
		}
		d := Local(in, Response(in))
		require.Zero(t, in.figures(&d).Refused)
		got, best := in.figures(&d).Worst, numericWorst(in, d)
		require.LessOrEqual(t, best, got*(1+1e-9))
		sum, count = sum+best/got, count+1
	}
	t.Log("numerical optimum of the worst delay over alternation, mean:", sum/count)
	require.GreaterOrEqual(t, sum/count, 0.95)
}

// numericWorst improves all shares by random exchanges.
func numericWorst(in *Instance, d Decision) float64 {
	r := rng.Stream(2, "worst")
	best := in.figures(&d).Worst
	for k := range 6000 {
		e := d
		e.Up, e.Down, e.Compute = slices.Clone(d.Up), slices.Clone(d.Down), slices.Clone(d.Compute)
		step := 0.5 / float64(1+k/300)
		for range 1 + r.IntN(3) {
			x := [][]float64{e.Up, e.Down, e.Compute}[r.IntN(3)]
			a, b := r.IntN(len(x)), r.IntN(len(x))
			by := x[a] * step * r.Float64()
			x[a], x[b] = x[a]-by, x[b]+by
		}
		if f, faults := in.Judge(&e); len(faults) == 0 && f.Worst <= best {
			d, best = e, f.Worst
		}
	}
	return best
}

// TestX4FiguresByHand: one user at one node, one on the device, one refused.
func TestX4FiguresByHand(t *testing.T) {
	in := &Instance{Refusal: 10, Want: Weights{Mean: 1, Worst: 2, Miss: 4, Watts: 8, Carbon: 16, Cost: 32, Node: 64}, Cells: []Cell{{"c", 1e6, 0}},
		Models: []Model{{Name: "m", Bytes: 100, PromptWork: 1, OutputWork: 10, Quality: 0.5}},
		Nodes:  []Node{{Name: "n", PromptRate: 1000, OutputRate: 1000, Memory: 100, IdleWatts: 10, BusyWatts: 30, Price: 3, CarbonPerJoule: 0.5, Weight: 7, Away: []float64{0.25}}}}
	u := User{Name: "near", Rate: 1, UpBits: 1e5, UpEff: 1, Prompt: 100, Output: 10, Deadline: 1, Access: 0.125, JoulesPerBit: 1e-5,
		Device: Node{PromptRate: 400, OutputRate: 400, Memory: 100, IdleWatts: 0, BusyWatts: 2}}
	in.Users = []User{u, u, u}
	in.Users[1].Name, in.Users[1].Rate, in.Users[2].Name = "self", 0.5, "none"
	require.NoError(t, in.Check())
	d := Decision{Placed: [][]bool{{true}}, Route: []Choice{{0, 0}, {OnDevice, 0}, {Refused, 0}}}
	require.True(t, in.Allot(&d))
	f, faults := in.Judge(&d)
	require.Empty(t, faults)
	// up: 0.1 s at load 0.1; node: 0.2 s at load 0.2; device: 0.5 s at load 0.25
	near, self := 0.125+0.25+0.1/0.9+0.2/0.8, 0.5/0.75
	require.InDeltaSlice(t, []float64{near, self, 10}, f.Delay, 1e-12)
	require.InDelta(t, (near+0.5*self+10)/2.5, f.Mean, 1e-12)
	require.Equal(t, 10.0, f.Worst)
	require.InDelta(t, 1.5/2.5, f.Goodput, 1e-12)
	require.InDelta(t, 0.4, f.Refused, 1e-12)
	require.InDelta(t, 10+0.2*20+0.25*2+1, f.Watts, 1e-12) // node, device, radio
	require.InDelta(t, 14*0.5, f.CarbonRate, 1e-12)
	require.Equal(t, 3.0, f.CostRate)
	require.InDelta(t, 7/2.5, f.NodeWeight, 1e-12)
	require.InDelta(t, 0.5, f.Quality, 1e-12)
	require.InDelta(t, f.Mean+2*f.Worst+4*0.4+8*f.Watts+16*f.CarbonRate+32*f.CostRate+64*f.NodeWeight, in.Score(&d), 1e-9)

	in.Users[1].People, in.Users[1].Rate, in.Users[1].Device.IdleWatts = 4, 2, 1 // the same load on four devices
	g := in.figures(&d)
	require.InDelta(t, self, g.Delay[1], 1e-12)
	require.InDelta(t, 10+0.2*20+4*(1+0.25*1)+1, g.Watts, 1e-12)

	in.Nodes[0].Batch, in.Nodes[0].Gain = true, 2 // load 0.1
	require.InDelta(t, 0.125+0.25+0.1/0.9+0.2/0.9, in.figures(&d).Delay[0], 1e-12)
}

// TestX4WhatIsViolatedIsNamed: each fault alone.
func TestX4WhatIsViolatedIsNamed(t *testing.T) {
	for _, tc := range []struct {
		want   string
		change func(in *Instance, d *Decision)
	}{
		{`user "u0" at node "n0": model "m" is not placed there`, func(_ *Instance, d *Decision) { d.Placed[0][0] = false }},
		{`user "u0" at node "n0": the node is down`, func(in *Instance, _ *Decision) { in.Nodes[0].Down = true }},
		{`user "u0" at node "n0": the data may not go there`, func(in *Instance, _ *Decision) { in.Users[0].Class = DeviceOnly }},
		{`user "u0" at node "n0": the data may not go there`, func(in *Instance, _ *Decision) { in.Users[0].Class, in.Nodes[0].Cloud = EdgeOnly, true }},
		{`user "u0" at node "n0": the model is not good enough`, func(in *Instance, _ *Decision) { in.Users[0].Quality = 2 }},
		{`node "n0": models take 10 bytes, it has 9`, func(in *Instance, _ *Decision) { in.Nodes[0].Memory = 9 }},
		{`overloaded`, func(in *Instance, _ *Decision) { in.Users[0].Rate = 11 }},
		{`cell "c" up: shares`, func(_ *Instance, d *Decision) { d.Up[0] = 1.01 }},
		{`node "n0": shares`, func(_ *Instance, d *Decision) { d.Compute[0] = 1.5 }},
		{`there is no such node or model`, func(_ *Instance, d *Decision) { d.Route[0] = Choice{-3, 0} }},
	} {
		in := &Instance{Refusal: 1, Cells: []Cell{{"c", 1, 1}}, Nodes: []Node{{Name: "n0", PromptRate: 10, OutputRate: 10, Memory: 10}}, Models: []Model{{"m", 10, 1, 1, 1}},
			Users: []User{{Name: "u0", Rate: 0.1, UpBits: 1, DownBits: 1, UpEff: 1, DownEff: 1, Prompt: 1}}}
		d := Decision{Placed: [][]bool{{true}}, Route: []Choice{{0, 0}}}
		require.True(t, in.Allot(&d))
		_, faults := in.Judge(&d)
		require.Empty(t, faults)
		tc.change(in, &d)
		if d.Route[0].Node >= Refused {
			_, faults = in.Judge(&d)
			require.Contains(t, fmt.Sprint(faults), tc.want)
			require.True(t, math.IsInf(in.Score(&d), 1))
		} else {
			require.Equal(t, tc.want, in.Allowed(0, d.Route[0]))
		}
	}
}

func TestX4BadInstancesAreRefused(t *testing.T) {
	for want, change := range map[string]func(in *Instance){
		"refusal":             func(in *Instance) { in.Refusal = 0 },
		"rate: want > 0":      func(in *Instance) { in.Users[1].Rate = 0 },
		"cell 7 of 2":         func(in *Instance) { in.Users[1].Cell = 7 },
		"spectral efficiency": func(in *Instance) { in.Users[0].UpEff = 0 },
		"sizes and times":     func(in *Instance) { in.Users[0].Prompt = math.NaN() },
		"unknown rule":        func(in *Instance) { in.Compute = "fair" },
		"away: want a time":   func(in *Instance) { in.Nodes[1].Away = []float64{1} },
		"away: want >= 0":     func(in *Instance) { in.Nodes[1].Away = []float64{1, -1} },
		"rates, memory":       func(in *Instance) { in.Nodes[0].Memory = -1 },
		"device: rates":       func(in *Instance) { in.Users[0].Device.OutputRate = -1 },
		"models[0]":           func(in *Instance) { in.Models[0].Bytes = -1 },
	} {
		in := someInstance(1)
		change(in)
		require.ErrorContains(t, in.Check(), want)
	}
	in := someInstance(1)
	for range 8 {
		in.Users = append(in.Users, in.Users[:1]...)
	}
	in.Users[0].Class, in.Users[0].Quality = Anywhere, 0
	for i := range in.Users {
		in.Users[i].Class, in.Users[i].Quality = Anywhere, 0
	}
	_, err := Exhaustive(in)
	require.ErrorContains(t, err, "more than 2000000 routes")
	_, ok := FindSolver("magic")
	require.False(t, ok)
	s, ok := FindSolver("local")
	require.True(t, ok)
	require.Contains(t, s.Doc, "greedy")
}

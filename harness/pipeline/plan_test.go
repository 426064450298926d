package pipeline

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/workloads"
)

// mixed is a lane of two nodes of other speeds than the device's, the links between
// them of other delays.
func mixed(seed int) *lane {
	l := newLane(2, nil)
	k := time.Duration(seed)
	l.device.step, l.nodes[0].step, l.nodes[1].step = ms(40), ms(4)*(2+5*k%7), ms(4)*(2+3*k%8)
	l.up.delay, l.down.delay = ms(1)*(1+k%5), ms(3)*(k%8)
	for i, j := range l.site.Joins {
		j.Link.(*toyLink).delay = ms(1) * (1 + (k+time.Duration(i))%6)
	}
	return l
}

// perToken is the time between tokens of one request over a lane.
func perToken(t *testing.T, l *lane, p *chain) time.Duration {
	l.reqs = []workloads.Request{{PromptTokens: 2, OutputTokens: 11}}
	l.pipe = p
	l.run(t)
	return (l.logs[0].LastToken - l.logs[0].FirstToken) / 10
}

func (l *lane) chain(t *testing.T, plan string) *chain {
	require.NoError(t, l.use("chain", map[string]any{"plan": plan}))
	return l.pipe.(*chain)
}

// routes lists every way to place the toy model's layers on three places, the
// first one on the device; contiguous: no place twice.
func routes(contiguous bool) (all [][]stage) {
	for n := range 27 {
		where := []int{0, n % 3, n / 3 % 3, n / 9}
		var r []stage
		seen := map[int]bool{}
		again := false
		for i, place := range where {
			if k := len(r); k > 0 && r[k-1].place == place {
				r[k-1].span.Hi++
				continue
			}
			again = again || seen[place]
			seen[place] = true
			r = append(r, stage{place, hardware.Span{Lo: i, Hi: i + 1}})
		}
		if !again || !contiguous {
			all = append(all, r)
		}
	}
	return all
}

// The plans that minimise latency are as quick, run on the toys, as the quickest of
// all placements, each of which is run.
func TestI5LatencyPlansEqualExhaustivePlacement(t *testing.T) {
	for seed := range 24 {
		for _, tc := range []struct {
			plan       string
			contiguous bool
		}{{"latency", false}, {"lingualinked", true}} {
			l := mixed(seed)
			got := perToken(t, l, l.chain(t, tc.plan))
			least := time.Hour
			for _, stages := range routes(tc.contiguous) {
				l := mixed(seed)
				p := l.chain(t, "even")
				p.route = &route{stages: stages}
				least = min(least, perToken(t, l, p))
			}
			require.Equal(t, least, got, "%s %d", tc.plan, seed)
		}
	}
}

// The plans for throughput have the quickest slowest stage of all contiguous ones.
func TestI5ThroughputPlansEqualExhaustivePlacement(t *testing.T) {
	for seed := range 24 {
		l := mixed(seed)
		p := l.chain(t, "throughput")
		slow := func(stages []stage) (worst time.Duration) {
			for i, s := range stages {
				worst = max(worst, p.costs.stage(s.place, s.span))
				if i > 0 {
					worst = max(worst, p.roads.time(stages[i-1].place, s.place, p.model.HiddenBytes(1, 4)))
				}
			}
			return worst
		}
		least := time.Hour
		for _, stages := range routes(true) {
			last := stages[len(stages)-1] // the token's way home is part of the last layer, as for the plan
			home := p.roads.time(last.place, 0, 8)
			least = min(least, max(slow(stages), p.costs.stage(last.place, last.span)+home))
		}
		last := p.route.stages[len(p.route.stages)-1]
		got := max(slow(p.route.stages), p.costs.stage(last.place, last.span)+p.roads.time(last.place, 0, 8))
		require.InDelta(t, float64(least), float64(got), 10, "seed %d: %v", seed, p.route.stages)
	}
}

// modelled is a scene of devices by their profiles, the first one the user's.
func modelled(t *testing.T, names ...string) *scene {
	env := world.NewSim(nil)
	s := newScene(env)
	dev := func(name string) hardware.Device {
		sheet, err := profiles.Device(name)
		require.NoError(t, err)
		return costmodel.New(env, sheet, costmodel.Options{})
	}
	s.up.rate, s.down.rate = 1e8, 1e8
	user := dev(names[0])
	s.site = &hardware.Site{Name: "modelled", NewUser: func(id int) *hardware.User {
		return &hardware.User{ID: id, Device: user, Up: s.up, Down: s.down}
	}}
	for i, name := range names[1:] {
		s.site.Nodes = append(s.site.Nodes, hardware.Node{Name: fmt.Sprint(name, i), Role: hardware.EdgeRole, Device: dev(name)})
		for _, other := range s.site.Nodes[:i] {
			for _, ends := range [][2]string{{fmt.Sprint(name, i), other.Name}, {other.Name, fmt.Sprint(name, i)}} {
				s.site.Joins = append(s.site.Joins, hardware.Join{From: ends[0], To: ends[1], Link: &toyLink{env: env, rate: 1e8, delay: ms(0.2)}})
			}
		}
	}
	return s
}

// What a plan expects a token to take is what the chain then takes: the parts that
// estimates are split into add up.
func TestI5PlansExpectWhatHappens(t *testing.T) {
	model, err := profiles.Model("llama-3.2-3b:q8_0")
	require.NoError(t, err)
	for _, pl := range planners {
		t.Run(pl.name, func(t *testing.T) {
			s := modelled(t, "jetson-orin-nano-super", "jetson-agx-orin-64", "jetson-orin-nx-16", "jetson-agx-orin-64")
			e, err := Find("chain")
			require.NoError(t, err)
			set, err := e.Resolve(map[string]any{"plan": pl.name})
			require.NoError(t, err)
			s.pipe = e.New(set)
			require.NoError(t, s.pipe.Start(s.env, s.site, Models{Main: model}))
			p := s.pipe.(*chain)
			c := p.estimates()
			var want time.Duration
			at := 0
			for _, st := range p.route.stages {
				want += c.stage(st.place, st.span) + p.roads.time(at, st.place, p.model.HiddenBytes(1, 4))
				at = st.place
			}
			want += p.roads.time(at, 0, 8)
			s.reqs = []workloads.Request{{PromptTokens: typical - 5, OutputTokens: 11}}
			s.run(t)
			got := (s.logs[0].LastToken - s.logs[0].FirstToken) / 10
			require.InEpsilon(t, want.Seconds(), got.Seconds(), 0.001)
			require.True(t, slices.ContainsFunc(p.route.stages, func(s stage) bool { return s.place > 0 }))
		})
	}
}

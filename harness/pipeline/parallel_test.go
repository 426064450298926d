package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/shard"
	"meibench/workloads"
)

// lan is a scene of modelled boards, each with links of its own to the first, all alike.
func lan(t *testing.T, boards int, rate float64, delay time.Duration) *scene {
	names := make([]string, boards)
	for i := range names {
		names[i] = "jetson-orin-nx-16"
	}
	s := modelled(t, names...)
	s.up.rate, s.down.rate, s.up.delay, s.down.delay = rate, rate, delay, delay
	for _, j := range s.site.Joins {
		l := j.Link.(*toyLink)
		l.rate, l.delay = rate, delay
	}
	return s
}

// serve runs requests of a model through a pipeline on a scene.
func (s *scene) serve(t *testing.T, name string, set map[string]any, model *hardware.Model, reqs ...workloads.Request) []*record.Request {
	e, err := Find(name)
	require.NoError(t, err)
	params, err := e.Resolve(set)
	require.NoError(t, err)
	s.pipe, s.reqs = e.New(params), reqs
	require.NoError(t, s.pipe.Start(s.env, s.site, Models{Main: model}))
	s.run(t)
	for _, l := range s.logs {
		require.Equal(t, record.OK, l.Outcome, l.Err)
	}
	return s.logs
}

func llama3b(t *testing.T) *hardware.Model {
	m, err := profiles.Model("llama-3.2-3b:q8_0")
	require.NoError(t, err)
	return m
}

var short = workloads.Request{PromptTokens: 64, OutputTokens: 6}

func TestI6OnePlaceIsLocal(t *testing.T) {
	for _, way := range []string{"tensor", "sequence", "hybrid"} {
		local := lan(t, 2, 1e8, ms(1)).serve(t, "local", nil, llama3b(t), short)[0]
		alone := lan(t, 2, 1e8, ms(1)).serve(t, "parallel", map[string]any{"nodes": 1.0, "way": way}, llama3b(t), short)[0]
		require.Equal(t, fmt.Sprintf("%+v", *local), fmt.Sprintf("%+v", *alone), way)
	}
}

// The closed form is what sending every layer's messages one after the other takes.
func TestI6ClosedFormEqualsLayerByLayer(t *testing.T) {
	for _, way := range []string{"tensor", "sequence"} {
		for _, reduce := range []string{"star", "ring"} {
			for _, tokens := range []int{1, 7, 64} {
				t.Run(fmt.Sprint(way, reduce, tokens), func(t *testing.T) {
					s := star(t)
					model := llama3b(t)
					set := map[string]any{"nodes": 2.0, "way": way, "reduce": reduce}
					s.serve(t, "parallel", set, model)
					p := s.pipe.(*parallel)
					var closed, layered time.Duration
					s = star(t)
					s.env.Go("closed", func() {
						p.env = s.env
						p.roads, _ = survey(s.site)
						require.NoError(t, p.exchange(s.site.User(0), &record.Request{}, tokens, 0))
						closed = s.env.Now()
						layers(t, s, p, tokens)
						layered = s.env.Now() - closed
					})
					require.NoError(t, s.env.Run())
					require.Equal(t, layered, closed)
				})
			}
		}
	}
}

// Four places around a hub of their own: an exchange of all layers lasts as long as
// its rounds sent one by one.
func TestI6StarOfFourEqualsLayerByLayer(t *testing.T) {
	s := lan(t, 4, 1e7, ms(1))
	for i, j := range s.site.Joins {
		j.Link.(*toyLink).rate, j.Link.(*toyLink).delay = 1e7*(1+0.1*float64(i%3)), ms(1)+ms(0.1)*time.Duration(i%4)
	}
	s.env.Go("closed", func() {
		model := llama3b(t)
		e, _ := Find("parallel")
		set, _ := e.Resolve(map[string]any{"nodes": 4.0})
		p := e.New(set).(*parallel)
		require.NoError(t, p.Start(s.env, s.site, Models{Main: model}))
		require.Equal(t, 1, p.hub, "the user's radio ends there, the others are joined to it")
		require.NoError(t, p.exchange(s.site.User(0), &record.Request{}, 5, 0))
		closed, log := s.env.Now(), &record.Request{}
		hop := func(from, to int) func() {
			return func() {
				_, err := p.roads.carry(s.site.User(0), log, [2]int{from, to}, hardware.Payload{Bytes: units.Bytes(4 * 5 * model.Dim)}, false)
				require.NoError(t, err)
			}
		}
		for range 2 * model.Layers {
			together(s.env, []func(){hop(0, 1), hop(2, 1), hop(3, 1)})
			together(s.env, []func(){hop(1, 0), hop(1, 2), hop(1, 3)})
		}
		require.Equal(t, s.env.Now()-closed, closed)
	})
	require.NoError(t, s.env.Run())
}

// star is two boards with links of unlike rates and delays both ways.
func star(t *testing.T) *scene {
	s := lan(t, 2, 1e7, ms(1))
	s.down.rate, s.down.delay = 3e6, ms(0.3)
	return s
}

// layers sends what two places exchange in a step as it happens: message by message.
func layers(t *testing.T, s *scene, p *parallel, tokens int) {
	bytes := units.Bytes(4 * tokens * p.model.Dim)
	rounds := 2 * p.model.Layers
	if p.way == "sequence" {
		rounds, bytes = p.model.Layers, units.Bytes(4*((tokens+1)/2)*p.model.Dim)
	}
	both := func(n units.Bytes) {
		together(s.env, []func(){
			func() { _, _ = s.up.Send(hardware.Payload{Bytes: n}) },
			func() { _, _ = s.down.Send(hardware.Payload{Bytes: n}) },
		})
	}
	for range rounds {
		switch {
		case p.reduce == "ring" && p.way == "sequence":
			both(bytes)
		case p.reduce == "ring":
			both(bytes / 2)
			both(bytes / 2)
		default:
			_, err := s.down.Send(hardware.Payload{Bytes: bytes})
			require.NoError(t, err)
			_, err = s.up.Send(hardware.Payload{Bytes: bytes})
			require.NoError(t, err)
		}
	}
}

// The bytes of a step are those that the sharded kernels count.
func TestI6BytesPerLayer(t *testing.T) {
	model := llama3b(t)
	for _, nodes := range []int{2, 4, 8} {
		sum := func(set map[string]any, tokens int) (n int64) {
			set["nodes"] = float64(nodes)
			s := lan(t, 8, 1e8, ms(1))
			s.serve(t, "parallel", set, model)
			moves, _ := s.pipe.(*parallel).collect(tokens)
			for _, m := range moves {
				n += int64(m.bytes)
			}
			return n
		}
		for reduce, c := range map[string]shard.Collective{"star": shard.Star, "ring": shard.Ring, "air": shard.Air} {
			want := int64(2*model.Layers) * int64(shard.SyncBytes(c, nodes, 64*model.Dim, 4))
			require.Equal(t, want, sum(map[string]any{"reduce": reduce}, 64), "%s %d", reduce, nodes)
			require.Equal(t, want/2, sum(map[string]any{"reduce": reduce, "wire": "f16"}, 64), "%s %d", reduce, nodes)
		}
		want := int64(model.Layers) * int64(shard.VoltageBytes(nodes, 64, model.Dim, 4))
		require.Equal(t, want, sum(map[string]any{"way": "sequence", "reduce": "ring"}, 64), nodes)
	}
}

// What crossed the user's links and the joins is what the formula says.
func TestI6RequestsPayTheirBytes(t *testing.T) {
	model, s := llama3b(t), lan(t, 2, 1e8, ms(1))
	log := s.serve(t, "parallel", map[string]any{"nodes": 2.0}, model, short)[0]
	per := units.Bytes(2*model.Layers) * units.Bytes(4*model.Dim)
	require.Equal(t, per*(64+5), log.UpBytes)
	require.Equal(t, per*(64+5), log.DownBytes)
}

func TestI6LatencyAgainstTheLinks(t *testing.T) {
	tpot := func(boards int, rate float64, delay time.Duration, set map[string]any) time.Duration {
		l := lan(t, boards, rate, delay).serve(t, "parallel", set, llama3b(t), short)[0]
		return (l.LastToken - l.FirstToken) / 5
	}
	for _, way := range []string{"tensor", "hybrid"} {
		for _, reduce := range []string{"star", "ring", "air"} {
			before := time.Hour
			for _, rate := range []float64{1e6, 1e7, 1e8, 1e9} {
				now := tpot(4, rate, ms(0.1), map[string]any{"way": way, "reduce": reduce})
				require.Less(t, now, before, "%s %s: more bandwidth, less time", way, reduce)
				before = now
			}
			require.Greater(t, tpot(4, 1e9, ms(1), map[string]any{"way": way, "reduce": reduce}), before, "more delay, more time")
		}
	}
	alone := tpot(4, 1e9, 0, map[string]any{"nodes": 1.0})
	require.Less(t, tpot(4, 1e12, 0, nil), alone, "with free links, shards are quicker")
	require.Greater(t, tpot(4, 1e6, ms(5), nil), alone, "with bad ones, they are not")
	// On one channel, three transmissions one after the other against one of all: 3 + 1 messages against 1 + 1.
	slow := func(set map[string]any) float64 {
		return float64(tpot(4, 1e5, 0, set) - tpot(4, 1e15, 0, set))
	}
	require.InEpsilon(t, 2, slow(map[string]any{"medium": "shared"})/slow(map[string]any{"reduce": "air"}), 0.001)
}

func TestI6SumsInTheAirAreOff(t *testing.T) {
	s := lan(t, 2, 1e8, 0)
	s.serve(t, "parallel", map[string]any{"reduce": "air", "mse": 0.04}, llama3b(t), short)
	require.InDelta(t, 0.2, s.pipe.(Figurer).Figures()["aggregation_error"], 1e-12)
	s = lan(t, 2, 1e8, 0)
	s.serve(t, "parallel", map[string]any{"mse": 0.04}, llama3b(t), short)
	require.NotContains(t, s.pipe.(Figurer).Figures(), "aggregation_error")
}

func TestI6AnswersAreTheModels(t *testing.T) {
	wide := *toyModel
	wide.Heads, wide.KVHeads = 4, 4
	for _, way := range []string{"tensor", "sequence", "hybrid"} {
		l := newLane(3, nil)
		load(l.scene)
		for i := range l.reqs {
			l.reqs[i].Prompt = prompt(i, l.reqs[i].PromptTokens)
		}
		logs := l.serve(t, "parallel", map[string]any{"nodes": 4.0, "way": way}, &wide, l.reqs...)
		for i, log := range logs {
			require.Equal(t, toyAnswer(toyModel, l.reqs[i].Prompt, l.reqs[i].OutputTokens), log.Output)
		}
		for _, d := range l.nodes {
			require.Empty(t, d.live)
			require.Positive(t, d.ops)
		}
	}
}

func TestI6WhatCannotBeIsRefused(t *testing.T) {
	try := func(s *scene, set map[string]any, m *hardware.Model) error {
		e, err := Find("parallel")
		require.NoError(t, err)
		params, err := e.Resolve(set)
		require.NoError(t, err)
		return e.New(params).Start(s.env, s.site, Models{Main: m})
	}
	require.ErrorContains(t, try(lan(t, 3, 1e8, 0), map[string]any{"nodes": 3.0}, llama3b(t)), "cannot be divided among 3 nodes")
	require.ErrorContains(t, try(lan(t, 3, 1e8, 0), map[string]any{"nodes": 4.0}, llama3b(t)), "has 3 places")
	big, err := profiles.Model("llama-3.1-70b:q4_0")
	require.NoError(t, err)
	err = try(lan(t, 2, 1e8, 0), map[string]any{"nodes": 2.0}, big)
	require.ErrorIs(t, err, hardware.ErrMemory)
	require.ErrorContains(t, err, "device would hold 18")
	s := newScene(world.NewSim(nil))
	s.device.real = true
	wide := *toyModel
	wide.KVHeads = 2
	err = try(s, map[string]any{"nodes": 2.0}, &wide)
	require.ErrorContains(t, err, "device is measured: shards of a model run on modelled devices only")
}

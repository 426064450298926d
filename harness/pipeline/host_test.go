package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/reference/library"
)

// hosting is a site of two edge nodes, which load 1 MB/s, and a cloud.
func hosting(t *testing.T, set map[string]any) *streets {
	s, err := streetsWith(world.NewSim(nil), "host", set)
	require.NoError(t, err)
	s.edge.storage = 1e6
	return s
}

func sum(s *streets, c record.Counter) (n int64) {
	for _, l := range s.logs {
		n += l.Counts[c]
	}
	return n
}

func allOK(t *testing.T, s *streets) {
	for _, l := range s.logs {
		require.Equal(t, record.OK, l.Outcome, l.Err)
	}
}

// Every time by hand: the prompt of 16 bytes goes up; the cloud sends a model of 210 kB over 1 MB/s and 10 ms; the node loads it at
// 1 MB/s; the next request finds it in memory; another model on the same backbone brings its adapter alone.
func TestC3HostByHand(t *testing.T) {
	s := hosting(t, nil)
	s.want(0, 0, 1).ask(0, 0).ask(1000, 0).ask(2000, 0).run(t)
	allOK(t, s)
	up := s.logs[1].Spans[0].End - ms(1000)
	require.Less(t, up, ms(6))
	answer := s.logs[1].FirstToken - ms(1000) - up
	require.Equal(t, up+ms(210+10)+ms(210)+answer, s.logs[0].FirstToken)
	require.Equal(t, up+ms(10+10)+ms(10)+answer, s.logs[2].FirstToken-ms(2000))
	for i, want := range [][4]int64{{0, 210_000, 210_000, int64(ms(210))}, {1, 0, 0, 0}, {0, 10_000, 10_000, int64(ms(10))}} {
		c := s.logs[i].Counts
		require.Equal(t, want, [4]int64{c[record.MemoryHits], c[record.BackhaulBytes], c[record.LoadBytes], c[record.LoadTime]}, "request %d", i)
	}
	require.Equal(t, [3]int64{0, 1000, 0}, [3]int64{s.logs[0].Counts[record.FreshContext], s.logs[1].Counts[record.FreshContext], s.logs[2].Counts[record.FreshContext]}, "one example, as fresh as can be")
	f := s.pipe.(*host).Figures()
	require.EqualValues(t, 2, f["switches"])
	require.EqualValues(t, 220_000, f["storage_bytes"])
	require.Equal(t, []string{"load 210000", "load 10000"}, s.edge.moves)
	require.InDelta(t, 0.21, float64(s.logs[0].Energy[record.EdgePart].Joules-s.logs[1].Energy[record.EdgePart].Joules), 1e-9, "the load's, for who asked for it")
	cost := 0.0
	for i, l := range s.logs {
		cost += (l.LastToken - l.Intended).Seconds() + time.Duration(l.Counts[record.LoadTime]).Seconds() + []float64{1, 0.5, 1}[i]
	}
	require.InDelta(t, cost/3, f["system_cost"], 1e-9)
}

// Memory for one model and a little more holds two that share a backbone; as wholes they throw each other out.
func TestC2MemorySharesBackbones(t *testing.T) {
	run := func(share string) *streets {
		s := hosting(t, map[string]any{"share": share, "memory_mb": 0.271})
		s.want(0, 1, 0, 1)
		for i := range 4 {
			s.ask(float64(1000*i), 0)
		}
		s.run(t)
		allOK(t, s)
		return s
	}
	blocks, whole := run("blocks"), run("whole")
	require.EqualValues(t, 220_000, sum(blocks, record.LoadBytes))
	require.EqualValues(t, 2, sum(blocks, record.MemoryHits), "one backbone and both adapters")
	require.EqualValues(t, 4*210_000, sum(whole, record.LoadBytes))
	require.EqualValues(t, 4, sum(whole, record.MemoryMisses))
}

// warm is a site whose first node has models 0 to 2 in storage, and 2 in memory, at 5 s; then come requests for others.
func warm(t *testing.T, set map[string]any, models ...int) *streets {
	s := hosting(t, set)
	s.want(append([]int{0, 1, 2}, models...)...)
	for i := range 3 {
		s.ask(float64(1000*i), 0)
	}
	return s
}

// Requests for two models come in turn while the first is being loaded. First come, first served switches at each; by requests
// per second of loading and serving each model comes once; and so do those in memory first, the first of which began.
func TestC10PartialLoadingSwitchesLess(t *testing.T) {
	run := func(order string) *streets {
		s := warm(t, map[string]any{"share": "whole", "memory_mb": 0.271, "order": order}, 0, 1, 0, 1, 0, 1, 0, 1)
		for i := range 8 {
			s.ask(float64(5000+i), 0)
		}
		s.run(t)
		allOK(t, s)
		return s
	}
	fifo, partial, resident := run("fifo"), run("partial"), run("resident")
	require.EqualValues(t, 3+8, fifo.pipe.(*host).Figures()["switches"])
	require.EqualValues(t, 3+2, partial.pipe.(*host).Figures()["switches"])
	require.EqualValues(t, 3+2, resident.pipe.(*host).Figures()["switches"])
	last := func(s *streets) (at time.Duration) {
		for _, l := range s.logs {
			at = max(at, l.Done)
		}
		return at
	}
	require.Less(t, last(partial)-ms(5000), (last(fifo)-ms(5000))/2)
}

// The model with more requests in line goes first by rate, and requests that are too late for it count for nobody.
func TestC10PartialCountsWhoCanBeInTime(t *testing.T) {
	run := func(deadline time.Duration) *streets {
		s := warm(t, map[string]any{"share": "whole", "memory_mb": 0.271, "order": "partial"}, 2, 0, 1, 1)
		for i := range 4 { // while 2 answers, one request for 0 and two for 1
			s.ask(float64(5000+i), 0)
		}
		s.reqs[3].OutputTokens = 100
		s.reqs[5].Deadline, s.reqs[6].Deadline = deadline, deadline
		s.run(t)
		allOK(t, s)
		return s
	}
	free, late := run(0), run(ms(1))
	require.Less(t, free.logs[5].Done, free.logs[4].Done, "two before one")
	require.Less(t, late.logs[4].Done, late.logs[5].Done, "they are late anyway")
}

// A model that is answering stays: who needs its room waits until the answer is whole.
func TestC3ModelsInUseStay(t *testing.T) {
	run := func(order string) []*record.Request {
		s := warm(t, map[string]any{"share": "whole", "memory_mb": 0.271, "order": order}, 0, 1, 0)
		s.ask(5000, 0).ask(5010, 0).ask(5300, 0) // the third comes while the first is being answered
		s.reqs[3].OutputTokens = 500
		s.run(t)
		allOK(t, s)
		return s.logs[3:]
	}
	turn := run("fifo")
	require.Greater(t, turn[1].FirstToken, turn[0].LastToken+ms(200), "loaded after the long answer")
	require.Greater(t, turn[2].FirstToken, turn[1].FirstToken, "in turn, though its model was there when it came")
	over := run("resident")
	require.Less(t, over[2].FirstToken, over[0].LastToken, "its model is there")
	require.Greater(t, over[1].FirstToken, over[0].LastToken)
}

// A neighbour that has the model in memory answers where loading takes long and the way is short; its answer is the same.
func TestC8LeastGoesWhereTheModelIs(t *testing.T) {
	run := func(route string) *streets {
		s := hosting(t, map[string]any{"route": route})
		s.want(0).ask(0, 0).ask(2000, 1)
		s.at[1] = 1
		for i := range s.reqs {
			s.reqs[i].Prompt = []int32{3, 1, 4, 1}
		}
		s.run(t)
		allOK(t, s)
		return s
	}
	near, least := run("near"), run("least")
	require.Zero(t, sum(near, record.Elsewhere))
	require.EqualValues(t, 1, least.logs[1].Counts[record.Elsewhere])
	require.Less(t, least.logs[1].FirstToken, near.logs[1].FirstToken)
	require.EqualValues(t, 1, least.logs[1].Counts[record.MemoryHits])
	require.EqualValues(t, 1, least.logs[1].Counts[record.Place])
	require.EqualValues(t, 2, near.logs[1].Counts[record.Place])
	want := toyAnswer(toyModel, []int32{3, 1, 4, 1}, 2)
	for _, s := range []*streets{near, least} {
		for _, l := range s.logs {
			require.Equal(t, want, l.Output)
		}
	}
}

// Without weight on context, least Age-of-Context is LFU in memory too.
func TestC3WithoutContextWeightIsLFU(t *testing.T) {
	run := func(set map[string]any) (logs string) {
		set["share"], set["memory_mb"], set["order"] = "whole", 0.65, "fifo"
		s := hosting(t, set)
		for i := range 60 {
			s.ask(float64(500*i), 0)
		}
		s.want(0, 0, 0, 1, 2, 3, 1, 0, 4, 4, 2, 1, 3).run(t)
		allOK(t, s)
		for _, l := range s.logs {
			logs += fmt.Sprintf("%+v\n", *l)
		}
		return logs
	}
	lfu := run(map[string]any{"evict": "lfu"})
	require.True(t, lfu == run(map[string]any{"evict": "aoc", "context_weight": 0.0}))
	require.False(t, lfu == run(map[string]any{"evict": "aoc", "context_weight": 50.0}))
}

// What the device or the cloud refuses ends the requests that wait for it, and no others.
func TestC3HostFailures(t *testing.T) {
	s := hosting(t, nil)
	s.want(0, 0, 1).ask(0, 0).ask(1000, 0).ask(2000, 0)
	s.env.Go("break", func() {
		s.env.Sleep(ms(1900))
		s.edge.fail = errors.New("edge died")
	})
	s.run(t)
	require.Equal(t, record.OK, s.logs[1].Outcome)
	require.Contains(t, s.logs[2].Err, "edge died")

	_, err := streetsWith(world.NewSim(nil), "host", map[string]any{"memory_mb": 0.2})
	require.ErrorIs(t, err, hardware.ErrMemory)
	require.ErrorContains(t, err, `model "with 0" of library "toy" takes 205 KiB`)
	_, err = streetsWith(world.NewSim(nil), "host", map[string]any{"policy": "gen", "share": "whole", "resident": "yes"})
	require.ErrorContains(t, err, "use share: blocks")
}

// own is a site whose pipeline has a library of its own.
func own(t *testing.T, set map[string]any, lib *library.Library) *streets {
	s := hosting(t, nil)
	require.NoError(t, lib.Check())
	e, err := Find("host")
	require.NoError(t, err)
	p, err := e.Resolve(set)
	require.NoError(t, err)
	s.pipe = e.New(p)
	require.NoError(t, s.pipe.Start(s.env, s.site, Models{Main: toyModel, Library: lib, Seed: 3}))
	return s
}

// Adapters are loaded beside what else a model lacks, once, and dropped when they leave memory; the server does not load them again.
func TestC3AdaptersComeAndGo(t *testing.T) {
	lib := toyLibrary()
	lib.Blocks[2].Bytes, lib.Blocks[3].Bytes = 100_000, 100_000
	lib.Models, lib.Blocks = lib.Models[:3], lib.Blocks[:5]
	for i := range lib.Models {
		lib.Models[i].Adapter = lib.Blocks[2+i].Name
	}
	s := own(t, map[string]any{"memory_mb": 0.31}, lib)
	s.want(0, 2, 0, 1, 0)
	for i := range 5 {
		s.ask(float64(2000*i), 0)
	}
	s.run(t)
	allOK(t, s)
	require.Equal(t, []string{"load adapter 0", "load 200000", "load adapter 2", "drop adapter 0", "load adapter 1", "drop adapter 2", "drop adapter 1", "load adapter 0"}[:4], s.edge.moves[:4])
	here := map[string]bool{}
	for _, m := range s.edge.moves {
		switch kind, name, _ := strings.Cut(m, " "); {
		case kind == "drop":
			require.True(t, here[name], "%s was not there: %v", name, s.edge.moves)
			delete(here, name)
		case strings.HasPrefix(name, "adapter"):
			require.False(t, here[name], "%s twice: %v", name, s.edge.moves)
			here[name] = true
		}
	}
	require.LessOrEqual(t, len(here), 2)
}

// Blocks that a model shares with one in memory when a request comes may be gone when its turn comes: they are fetched then.
func TestC3WhatLeftMeanwhileComesAgain(t *testing.T) {
	lib := &library.Library{Name: "two", Blocks: []library.Block{{Name: "a", Bytes: 100_000, Hi: 4}, {Name: "x", Bytes: 10_000}, {Name: "y", Bytes: 10_000}, {Name: "c", Bytes: 150_000, Hi: 4}},
		Models: []library.Model{{Name: "A", Blocks: []int{0, 1}}, {Name: "B", Blocks: []int{0, 2}}, {Name: "C", Blocks: []int{3}}}}
	s := own(t, map[string]any{"memory_mb": 0.16, "room_mb": 0.0}, lib)
	s.want(0, 2, 1).ask(0, 0).ask(1000, 0).ask(1150, 0).run(t)
	allOK(t, s)
	require.Equal(t, []string{"load 110000", "load 150000", "load 110000"}, s.edge.moves)
	require.EqualValues(t, 120_000, s.logs[2].Counts[record.BackhaulBytes], "what was lacking, and then all: the storage keeps nothing")
	require.EqualValues(t, 110_000, s.logs[2].Counts[record.LoadBytes])
}

// A line at the near node sends a request to one without, if both have the model; a node that learns how slow its storage is says so.
func TestC8LeastAvoidsLines(t *testing.T) {
	s := hosting(t, map[string]any{"route": "least"})
	s.want(0).ask(0, 0).ask(0, 1).ask(5000, 0).ask(5001, 0).ask(5002, 0)
	s.at[1] = 1
	for i := range s.reqs {
		s.reqs[i].OutputTokens = 100
	}
	p := s.pipe.(*host)
	s.run(t)
	allOK(t, s)
	require.Zero(t, s.logs[2].Counts[record.Elsewhere])
	require.EqualValues(t, 2, s.logs[3].Counts[record.Elsewhere]+s.logs[4].Counts[record.Elsewhere])

	slow := hosting(t, nil)
	slow.want(0).ask(0, 0)
	slow.pipe.(*host).at(0).rate = 1e9
	slow.run(t)
	require.InDelta(t, 0.75e9+0.25e6, slow.pipe.(*host).at(0).rate, 1, "a quarter of the way to the megabyte a second that it saw")

	blocks := p.stock.lib.Models[0].Blocks
	names := func() (out []string) {
		for _, tier := range p.tiers(1, blocks) {
			out = append(out, tier.Name)
		}
		return out
	}
	require.Equal(t, []string{"edge-1", "cloud"}, names())
	require.Equal(t, []string{"cloud"}, func() []string { blocks = []int{7}; return names() }(), "nobody else has it")
	blocks = p.stock.lib.Models[0].Blocks
	p.stock.cooperate = false
	require.Equal(t, []string{"cloud"}, names())
}

// What memory for weights leaves of the device's is for KV caches.
func TestC3WeightsLeaveRoomForCaches(t *testing.T) {
	per := toyModel.KVBytesPerToken(toyModel.All())
	build := func(beside units.Bytes) (*streets, error) {
		s := hosting(t, nil)
		s.edge.memory = 300_000 + beside
		return s, s.use("host", map[string]any{"memory_mb": 0.3})
	}
	s, err := build(10 * per)
	require.NoError(t, err)
	s.want(0).ask(0, 0).ask(2000, 0)
	s.reqs[1].OutputTokens = 20
	s.run(t)
	require.Equal(t, record.OK, s.logs[0].Outcome, s.logs[0].Err)
	require.Contains(t, s.logs[1].Err, "can never fit")
	_, err = build(0)
	require.ErrorContains(t, err, "leave nothing of the device's")
	require.ErrorIs(t, err, hardware.ErrMemory)
}

package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/library"
)

// What a new plan brings is there at once, or comes over the links and counts when it is there: then it takes bytes of the way, and who asks
// at once waits or misses.
func TestC9PlansTravel(t *testing.T) {
	run := func(moves string) *streets {
		s, err := newStreets(world.NewSim(nil), map[string]any{"policy": "popular", "room_mb": 0.215, "replan": "yes", "epoch_s": 1.0, "drift": 1.0, "moves": moves, "share": "whole"})
		require.NoError(t, err)
		for i := range 40 {
			s.ask(float64(130*i), i%2)
		}
		s.run(t)
		return s
	}
	free, real := run("free"), run("real")
	churn := func(s *streets) (n float64) { return s.pipe.(*deliver).Figures()["churn_bytes"] }
	require.Positive(t, churn(free))
	require.Equal(t, churn(free), churn(real), "the same plans")
	moved := func(s *streets) float64 { return s.pipe.(*deliver).Figures()["backhaul_bytes"] }
	requests := func(s *streets) (n float64) {
		for _, l := range s.logs {
			n += float64(l.Counts[record.BackhaulBytes])
		}
		return n
	}
	require.InDelta(t, requests(free), moved(free), 1, "requests alone moved something")
	require.Greater(t, moved(real), requests(real), "plans did too")
	hits := func(s *streets) (n int64) {
		for _, l := range s.logs {
			require.Equal(t, record.OK, l.Outcome, l.Err)
			n += l.Counts[record.CacheHits]
		}
		return n
	}
	require.LessOrEqual(t, hits(real), hits(free))
	for _, d := range real.pipe.(*deliver).stock.depots[:2] {
		require.Empty(t, d.transit, "everything has come")
	}
}

// Blocks that several servers have come from all of them at once, so that the last comes as early as any division allows; with one source
// it is as from the nearest.
func TestC8QuickestSourcesShareTheWork(t *testing.T) {
	blocks := 6
	lib := &library.Library{Name: "large"}
	m := library.Model{Name: "m"}
	for i := range blocks {
		lib.Blocks = append(lib.Blocks, library.Block{Name: fmt.Sprint("b", i), Bytes: 100_000})
		m.Blocks = append(m.Blocks, i)
	}
	lib.Models = []library.Model{m}
	require.NoError(t, lib.Check())
	run := func(sources string, rate float64, warm bool) time.Duration {
		s, err := newStreets(world.NewSim(nil), nil)
		require.NoError(t, err)
		s.ports["edge-1edge-2"].rate = rate
		e, err := Find("deliver")
		require.NoError(t, err)
		p, err := e.Resolve(map[string]any{"sources": sources})
		require.NoError(t, err)
		s.pipe = e.New(p)
		require.NoError(t, s.pipe.Start(s.env, s.site, Models{Main: toyModel, Library: lib, Seed: 3}))
		s.want(0)
		if warm {
			s.ask(0, 0) // edge-1 has it then
		}
		s.ask(5000, 1)
		s.at[1] = 1
		s.site.User(1)
		s.radios[1].rate = 1e12
		s.run(t)
		last := s.logs[len(s.logs)-1]
		require.EqualValues(t, 600_000, last.Counts[record.BackhaulBytes])
		return down(last)
	}
	for _, rate := range []float64{0.25e6, 0.5e6, 1e6, 2e6, 10e6} { // of the neighbour; the cloud has 1 MB/s
		best := math.Inf(1)
		for n := range blocks + 1 { // so many from the neighbour
			best = min(best, max(float64(n)*0.1e6/rate, float64(blocks-n)*0.1e6/1e6))
		}
		nearest, quickest := run("nearest", rate, true), run("quickest", rate, true)
		require.LessOrEqual(t, quickest, nearest)
		took := quickest - ms(5.256) - ms(10) - ms(5) // the way up, the delay of either link, and the radio's
		require.GreaterOrEqual(t, took.Seconds(), best, "no division is quicker")
		require.InDelta(t, best, took.Seconds(), 1e-5, "and this one is as quick as the best")
	}
	require.Equal(t, run("nearest", 1e6, false), run("quickest", 1e6, false))
}

// Who is content with either of two models gets the one that others get: one transmission. Alone, or with one choice, it is as asked.
func TestC6WhatIsCommonIsChosen(t *testing.T) {
	run := func(choices float64, wants ...int) *streets {
		s, err := newStreets(world.NewSim(nil), map[string]any{"cast": "multicast", "window_ms": 20.0, "choices": choices})
		require.NoError(t, err)
		s.want(wants...)
		for i := range wants {
			s.ask(float64(i), i)
		}
		s.run(t)
		for _, l := range s.logs {
			require.Equal(t, record.OK, l.Outcome, l.Err)
		}
		return s
	}
	sent := func(s *streets) (n units.Bytes) {
		for _, r := range s.radios {
			n += r.bulk
		}
		return n
	}
	require.EqualValues(t, 220_000, sent(run(1, 0, 1)))
	require.EqualValues(t, 210_000, sent(run(2, 0, 1)))
	require.EqualValues(t, 210_000, sent(run(6, 0, 1, 2, 3)), "one model for all")
	require.EqualValues(t, 230_000, sent(run(1, 0, 1, 2)))
	one, alone := run(1, 3), run(6, 3)
	require.Equal(t, down(one.logs[0])+ms(20), down(alone.logs[0]), "one user: as without choice, but that nothing is fetched before it is made")
	good := goodEnough(toyLibrary(), 3)
	require.Equal(t, []int{5, 0, 1}, good[5])
	require.Equal(t, []int{2, 0, 1}, good[2])
	_, err := newStreets(world.NewSim(nil), map[string]any{"choices": 2.0})
	require.ErrorContains(t, err, "set cast to multicast")
	_, err = newStreets(world.NewSim(nil), map[string]any{"choices": 2.0, "cast": "multicast", "share": "whole"})
	require.ErrorContains(t, err, "share to blocks")
}

// A device near by that keeps blocks sends them: the node is asked for the rest alone. By hand: the backbone's two blocks come one after
// the other over 8 MB/s and 5 ms, beside the adapter that comes from the cloud by radio.
func TestC8DevicesRelay(t *testing.T) {
	run := func(set map[string]any, prepare func(s *streets)) *streets {
		set["keep_mb"] = 1.0
		if set["relay_mbps"] == nil {
			set["relay_mbps"] = 64.0
		}
		s, err := newStreets(world.NewSim(nil), set)
		require.NoError(t, err)
		s.want(0, 1).ask(0, 0).ask(2000, 1)
		prepare(s)
		s.run(t)
		for _, l := range s.logs {
			require.Equal(t, record.OK, l.Outcome, l.Err)
			require.EqualValues(t, 210_000, int64(l.DownBytes)+l.Counts[record.RelayedBytes], "every byte came one way")
		}
		return s
	}
	near := run(map[string]any{}, func(*streets) {})
	require.EqualValues(t, 200_000, near.logs[1].Counts[record.RelayedBytes])
	require.EqualValues(t, 10_000, near.logs[1].Counts[record.CacheMissBytes])
	require.Equal(t, ms(5.256+25+5), down(near.logs[1]))
	apart := run(map[string]any{}, func(s *streets) { s.cells[1] = 7 })
	require.Zero(t, apart.logs[1].Counts[record.RelayedBytes], "in another cell")
	leaves := run(map[string]any{"relay_mbps": 0.8}, func(s *streets) {
		s.env.Go("leave", func() {
			s.env.Sleep(ms(2500))
			s.cells[0] = 7
		})
	})
	require.Zero(t, leaves.logs[1].Counts[record.RelayedBytes], "the first block was half over, and comes from the node with the other")
	require.EqualValues(t, 210_000, leaves.logs[1].DownBytes)
	for say, set := range map[string]map[string]any{"set keep_mb": {"relay_mbps": 1.0}} {
		_, err := newStreets(world.NewSim(nil), set)
		require.ErrorContains(t, err, say)
	}
}

// X6: what a device sends that is not the block is refused, and comes from the node.
func TestX6RelayedBlocksAreChecked(t *testing.T) {
	s, err := newStreets(world.NewSim(nil), map[string]any{"keep_mb": 1.0, "relay_mbps": 64.0})
	require.NoError(t, err)
	p := s.pipe.(*deliver)
	content := make([][]byte, len(p.lib().Blocks))
	for i := range content {
		content[i] = bytes.Repeat([]byte{byte(i + 1)}, int(p.lib().Blocks[i].Bytes))
		sum := sha256.Sum256(content[i])
		p.lib().Blocks[i].Digest = hex.EncodeToString(sum[:])
	}
	p.stock.content = func(b int) []byte { return content[b] }
	tampered := 0
	p.tamper = func(_, b int, data []byte) []byte {
		if b != 0 {
			return data
		}
		tampered++
		data = bytes.Clone(data)
		data[5] ^= 1
		return data
	}
	s.want(0, 1).ask(0, 0).ask(2000, 1).run(t)
	require.Equal(t, 1, tampered)
	require.Equal(t, record.OK, s.logs[1].Outcome, s.logs[1].Err)
	require.EqualValues(t, 100_000, s.logs[1].Counts[record.RelayedBytes])
	require.EqualValues(t, 110_000, s.logs[1].DownBytes)
}

// Whatever people ask, move and keep: each byte of a model that a device had not comes by radio or from another device, once.
func TestC8RelaysConserveBytes(t *testing.T) {
	for seed := range uint64(6) {
		luck := rng.Stream(seed, "relays")
		s, err := newStreets(world.NewSim(nil), map[string]any{"keep_mb": 0.25, "relay_mbps": 1 + 20*rng.Float64(luck), "room_mb": 0.3})
		require.NoError(t, err)
		for i := range 60 {
			s.ask(float64(100*i), luck.IntN(8))
		}
		s.env.Go("walk", func() {
			for range 60 {
				s.env.Sleep(ms(100))
				s.cells[luck.IntN(8)] = luck.IntN(2)
			}
		})
		s.run(t)
		relayed := int64(0)
		for i, l := range s.logs {
			require.Equal(t, record.OK, l.Outcome, l.Err)
			lacked := int64(s.pipe.(*deliver).lib().Whole(s.pipe.(*deliver).wants.draw(i, s.reqs[i].User, 0))) - l.Counts[record.HeldBytes]
			require.Equal(t, lacked, int64(l.DownBytes)+l.Counts[record.RelayedBytes], "request %d, seed %d", i, seed)
			relayed += l.Counts[record.RelayedBytes]
		}
		require.Positive(t, relayed)
	}
}

package pipeline

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/workloads"
)

func remembering(t *testing.T, set map[string]any, reqs ...workloads.Request) *scene {
	s := newScene(world.NewSim(nil))
	require.NoError(t, s.use("reuse", set))
	for i := range reqs {
		reqs[i].ArriveAt = ms(float64(1000 * i))
		if reqs[i].Prompt != nil {
			reqs[i].PromptTokens = len(reqs[i].Prompt)
		}
		if reqs[i].OutputTokens == 0 {
			reqs[i].OutputTokens = 3
		}
	}
	s.reqs = reqs
	s.run(t)
	for i, l := range s.logs {
		require.Equal(t, record.OK, l.Outcome, l.Err)
		if p := s.reqs[i].Prompt; p != nil && l.Counts[record.Recalled] == 0 {
			require.Equal(t, toyAnswer(toyModel, p, s.reqs[i].OutputTokens), l.Output, "request %d", i)
		}
	}
	return s
}

func reused(s *scene) (n []int64) {
	for _, l := range s.logs {
		n = append(n, l.Counts[record.ReusedTokens])
	}
	return n
}

// Prompts of several users that begin alike: full blocks are copied in, never the last token, and the answers are the model's.
func TestC4PrefixesAreShared(t *testing.T) {
	ask := func(user int, tokens ...int32) workloads.Request {
		return workloads.Request{User: user, Prompt: tokens}
	}
	asks := func() []workloads.Request {
		return []workloads.Request{ask(0, 1, 2, 3, 4, 5, 6, 7, 8), ask(1, 1, 2, 3, 4, 9, 6, 7, 8), ask(2, 1, 2, 3, 4, 5, 6, 7, 8), ask(0, 1, 2, 3, 4, 5), ask(1, 2, 2, 3, 4)}
	}
	all := remembering(t, map[string]any{"block": 2.0}, asks()...)
	require.Equal(t, []int64{0, 4, 6, 4, 0}, reused(all))
	per := int64(toyModel.KVBytesPerToken(toyModel.All()))
	require.EqualValues(t, 6, all.logs[2].Counts[record.CacheHitBytes]/per)
	require.EqualValues(t, 4, all.logs[2].Counts[record.CacheHits], "the last block is there too, but its last token must be run")
	require.EqualValues(t, 2, all.logs[1].Counts[record.CacheMisses])
	f := all.pipe.(*reuse).Figures()
	require.EqualValues(t, 8*2*per, f["prefix_store_peak"], "four blocks, two others of the second prompt, two of the last")

	user := remembering(t, map[string]any{"block": 2.0, "tenants": "user"}, asks()...)
	require.Equal(t, []int64{0, 0, 0, 4, 0}, reused(user), "a user's own only")
	require.Equal(t, []int64{0, 0, 0, 0, 0}, reused(remembering(t, map[string]any{"prefix": "no"}, asks()...)))
	none := remembering(t, map[string]any{"block": 2.0, "prefix_mb": 0.0}, asks()...)
	require.Equal(t, []int64{0, 0, 0, 0, 0}, reused(none))
	first := func(s *scene, i int) float64 { return (s.logs[i].FirstToken - s.logs[i].Intended).Seconds() }
	without := remembering(t, map[string]any{"prefix": "no"}, asks()...)
	require.InDelta(t, first(without, 0), first(all, 0), 1e-12, "what is saved is saved behind the first token")
	long := remembering(t, map[string]any{"block": 6.0}, asks()...)
	require.InDelta(t, first(without, 2)-6*0.0005+0.00125, first(long, 2), 1e-9, "six tokens less to compute, one copy more")
}

// Without text, what prompts share are the system prompt of the application and the conversation so far; a window that slid is a new one.
func TestC4WhatLengthsShare(t *testing.T) {
	turn := func(session, turn, prompt, before int) workloads.Request {
		return workloads.Request{Session: session, Turn: turn, PromptTokens: prompt, PrefixTokens: before, CommonTokens: 64}
	}
	s := remembering(t, nil, turn(0, 0, 100, 0), turn(1, 0, 90, 0), turn(0, 1, 200, 103), turn(1, 1, 190, 93), turn(0, 2, 150, 0), turn(0, 3, 300, 153))
	require.Equal(t, []int64{0, 64, 96, 80, 64, 144}, reused(s))
}

// A recorded trace tells its blocks itself: with room for all, every block that came before is found.
func TestC4RecordedBlocks(t *testing.T) {
	row := func(tokens int, ids ...int64) workloads.Request {
		return workloads.Request{PromptTokens: tokens, Blocks: ids, BlockTokens: 512}
	}
	s := remembering(t, nil, row(1200, 1, 2, 3), row(1500, 1, 2, 4), row(1024, 1, 2), row(600, 9, 2))
	hits := []int64{}
	for _, l := range s.logs {
		hits = append(hits, l.Counts[record.CacheHits])
	}
	require.Equal(t, []int64{0, 2, 2, 0}, hits, "a block behind another beginning is another")
	require.Equal(t, []int64{0, 1024, 512, 0}, reused(s))
	per := units.Bytes(toyModel.KVBytesPerToken(toyModel.All()))
	require.EqualValues(t, per*(1200+476+600), s.pipe.(*reuse).Figures()["prefix_store_peak"], "the last block of a prompt is as long as it is")
}

// A question that was asked before is answered without the model, rightly or wrongly; users who share nothing ask for themselves.
func TestC4AnswersAreRecalled(t *testing.T) {
	ask := func(user int, text, right string) workloads.Request {
		return workloads.Request{User: user, Text: text, Answer: right, Prompt: []int32{int32(len(text)), 5}}
	}
	asks := func() []workloads.Request {
		return []workloads.Request{ask(0, "lights on in the hall", "a"), ask(1, "Lights on in the hall", "a"), ask(1, "lights on in the hall now", "a"), ask(0, "lights off in the hall", "b")}
	}
	run := func(set map[string]any) (recalled, wrong []int64) {
		s := remembering(t, set, asks()...)
		for i, l := range s.logs {
			recalled, wrong = append(recalled, l.Counts[record.Recalled]), append(wrong, l.Counts[record.RecalledWrong])
			if l.Counts[record.Recalled] > 0 {
				require.Equal(t, s.logs[0].Output, l.Output, "request %d has the first one's answer", i)
				require.Equal(t, len(l.Output), l.OutputTokens)
			}
			require.EqualValues(t, 1, l.Counts[record.Recalled]+l.Counts[record.NotRecalled])
		}
		return recalled, wrong
	}
	look := remembering(t, map[string]any{"answers": "exact", "lookup_us": 700.0}, asks()...)
	require.Equal(t, record.Span{Kind: record.Compute, Node: "edge", Start: look.logs[1].Spans[0].End, End: look.logs[1].Spans[0].End + ms(0.7)}, look.logs[1].Spans[1])
	exact, none := run(map[string]any{"answers": "exact"})
	require.Equal(t, []int64{0, 1, 0, 0}, exact)
	require.Equal(t, []int64{0, 0, 0, 0}, none)
	alike, wrong := run(map[string]any{"answers": "grams", "threshold": 0.6})
	require.Equal(t, []int64{0, 1, 1, 1}, alike)
	require.Equal(t, []int64{0, 0, 0, 1}, wrong, "on and off are alike, and not the same")
	short := asks()
	short[1].OutputTokens = 1
	s1 := remembering(t, map[string]any{"answers": "exact"}, short...)
	require.Equal(t, s1.logs[0].Output[:1], s1.logs[1].Output, "no more than was asked for")
	apart, _ := run(map[string]any{"answers": "exact", "tenants": "user"})
	require.Equal(t, []int64{0, 0, 0, 0}, apart)
	s := newScene(world.NewSim(nil))
	require.ErrorContains(t, s.use("reuse", map[string]any{"answers": "model"}), "computes nothing: use mode measured or emulated")
	s.edge.real = true
	require.ErrorContains(t, s.use("reuse", map[string]any{"answers": "model", "layers": 4.0}), "want at most 3")
}

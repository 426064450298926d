package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/workloads"
)

// cell is a station and helpers at given distances, all modelled.
func cell(t *testing.T, delays ...time.Duration) *scene {
	names := []string{"snapdragon-8-gen-3", "h100-sxm-80"}
	for range delays {
		names = append(names, "jetson-agx-orin-64")
	}
	s := modelled(t, names...)
	for _, j := range s.site.Joins {
		for i, d := range delays {
			far := fmt.Sprint("jetson-agx-orin-64", i+1)
			if j.From == far || j.To == far {
				j.Link.(*toyLink).delay = max(d, j.Link.(*toyLink).delay) // between two helpers, the longer
			}
		}
	}
	return s
}

func mixtral(t *testing.T) *hardware.Model {
	m, err := profiles.Model("mixtral-8x7b:q4_0")
	require.NoError(t, err)
	return m
}

var asked = []workloads.Request{{PromptTokens: 40, OutputTokens: 12, TextBytes: 200}, {ArriveAt: 20 * time.Second, PromptTokens: 1, OutputTokens: 30, TextBytes: 9}}

func TestI7AllExpertsAtTheStationIsOffload(t *testing.T) {
	times := func(name string, set map[string]any) (out []string) {
		for _, l := range cell(t, ms(1)).serve(t, name, set, mixtral(t), asked...) {
			out = append(out, fmt.Sprint(l.FirstToken, l.LastToken, l.Done, l.Chunks, l.UpBytes, l.DownBytes, l.FLOP))
		}
		return out
	}
	require.Equal(t, times("offload", nil), times("experts", map[string]any{"local": 8.0}))
}

// The station's core and its share for all experts add up to the whole model's step.
func TestI7CoreAndExpertsAddUp(t *testing.T) {
	s := cell(t, ms(1))
	s.serve(t, "experts", map[string]any{"local": 4.0}, mixtral(t))
	p := s.pipe.(*experts)
	e, _ := estimator(p.roads.devs[p.home])
	seq := hardware.Seq{Context: 100, New: 1}
	at := func(m *hardware.Model) time.Duration {
		return e.Estimate(&hardware.Op{Kind: hardware.Decode, Model: m, Layers: m.All(), Seqs: []hardware.Seq{seq}})
	}
	own := p.ownTime(&seq, hardware.Decode)
	require.Equal(t, at(p.model), at(p.core)+own)
	require.Greater(t, own, at(p.core)/2, "experts are most of a mixture")
	w := mixedWork{helpers: make([]errand, 1)}
	var takes time.Duration
	for l := range p.model.Layers { // two experts, both the station's
		takes += p.layer(&record.Request{}, &w, l, []int{1, 0, 1, 0, 0, 0, 0, 0}, float64(own)/float64(2*p.model.Layers))
	}
	require.InDelta(t, float64(own), float64(takes), float64(p.model.Layers))
}

// A layer lasts as long as its slowest expert: by hand, two helpers, one far away.
func TestI7ALayerWaitsForItsSlowestExpert(t *testing.T) {
	s := cell(t, ms(7), ms(1))
	s.serve(t, "experts", map[string]any{"local": 4.0}, mixtral(t))
	p := s.pipe.(*experts)
	w := mixedWork{helpers: make([]errand, 2)}
	state := time.Duration(4 * 4096 * 10) // F32 at 1e8 B/s
	run := p.pass(timed{0, 1, 1})
	near, far := 2*(ms(1)+state)+run, 2*(ms(7)+state)+run
	for _, tc := range []struct {
		tokens []int
		want   time.Duration
	}{
		{[]int{1, 1, 0, 0, 0, 0, 0, 0}, 2 * ms(3)},
		{[]int{1, 0, 0, 0, 0, 1, 0, 0}, max(ms(3), near)},
		{[]int{1, 0, 0, 0, 1, 0, 0, 0}, far},
		{[]int{0, 0, 0, 0, 1, 1, 0, 0}, far},
		{[]int{0, 0, 0, 0, 0, 1, 0, 1}, 2*(ms(1)+2*state) + p.pass(timed{1, 2, 1})}, // both on the near one
	} {
		require.Equal(t, tc.want, p.layer(&record.Request{}, &w, 0, tc.tokens, float64(ms(3))), "%v", tc.tokens)
	}
}

// A run takes what its layers take, one after the other.
func TestI7StepsLastAsLongAsTheirLayers(t *testing.T) {
	s := cell(t, ms(1), ms(3))
	l := s.serve(t, "experts", nil, mixtral(t), asked[1])[0]
	p := s.pipe.(*experts)
	e, _ := estimator(p.roads.devs[p.home])
	var want time.Duration
	for n := 1; n < 30; n++ {
		seq := hardware.Seq{Context: n, New: 1}
		want += e.Estimate(&hardware.Op{Kind: hardware.Decode, Model: p.core, Layers: p.core.All(), Seqs: []hardware.Seq{seq}})
		want += p.gate(&record.Request{}, &seq, hardware.Decode).takes
	}
	require.Equal(t, want, l.LastToken-l.FirstToken)
}

func TestI7BytesAreMissesTimesTheirSize(t *testing.T) {
	model := mixtral(t)
	one := workloads.Request{PromptTokens: 1, OutputTokens: 20}
	for _, tc := range []struct {
		move string
		unit units.Bytes
		both int64 // ways
	}{
		{"activation", 2 * 4 * 4096, 1},
		{"weight", units.Bytes(3 * 4096 * 14336 * 0.5625), 1},
		{"best", 2 * 4 * 4096, 1}, // of few tokens, the states are smaller
	} {
		s := cell(t, ms(1))
		log := s.serve(t, "experts", map[string]any{"local": 4.0, "move": tc.move}, model, one)[0]
		misses := log.Counts[record.CacheMisses]
		require.Positive(t, misses)
		require.Equal(t, int64(20*32*2), misses+log.Counts[record.CacheHits], "each token needs two experts in each layer")
		require.Equal(t, misses*int64(tc.unit), log.Counts[record.CacheMissBytes], tc.move)
		require.Equal(t, float64(misses*int64(tc.unit)), s.pipe.(Figurer).Figures()["backhaul_bytes"], tc.move)
	}
}

// Fiddler's choice: by bytes alone, weights pay from 3·d·f·b / (2·4·d) tokens on.
func TestI7BestMovesWhatIsSmaller(t *testing.T) {
	s := cell(t, ms(1))
	s.serve(t, "experts", map[string]any{"local": 4.0, "move": "best"}, mixtral(t))
	p := s.pipe.(*experts)
	break1 := int(p.expertBytes() / p.stateBytes(2)) // tokens
	require.Equal(t, int(3*14336*0.5625/8), break1)
	for _, tc := range []struct {
		tokens int
		bytes  units.Bytes
	}{{break1, p.stateBytes(2 * break1)}, {break1 + 1, p.expertBytes()}, {10 * break1, p.expertBytes()}} {
		log := &record.Request{}
		p.layer(log, &mixedWork{helpers: make([]errand, 1)}, 0, []int{0, 0, 0, 0, 0, tc.tokens, 0, 0}, 0)
		require.Equal(t, int64(tc.bytes), log.Counts[record.CacheMissBytes], "%d tokens", tc.tokens)
	}
}

// With even and independent choice a cache of c of E experts is hit c/E of the
// time, and never less often if it is larger.
func TestI7HitsOfTheCache(t *testing.T) {
	rate := func(cache float64, choice string) float64 {
		s := cell(t, ms(1))
		log := s.serve(t, "experts", map[string]any{"local": 0.0, "cache": cache, "move": "weight", "choice": choice}, mixtral(t),
			workloads.Request{PromptTokens: 1, OutputTokens: 150})[0]
		hits, misses := log.Counts[record.CacheHits], log.Counts[record.CacheMisses]
		return float64(hits) / float64(hits+misses)
	}
	before := 0.0
	for _, cache := range []float64{2, 4, 6} {
		even, skewed := rate(cache, "uniform"), rate(cache, "zipf")
		require.InDelta(t, cache/8, even, 0.02, "9600 draws: three standard deviations are 0.015")
		require.Greater(t, skewed, even+0.01, "popular experts stay")
		require.GreaterOrEqual(t, even, before)
		before = even
	}
}

func TestI7SlowExpertsAreSkipped(t *testing.T) {
	run := func(drop float64) (tpot time.Duration, skip float64, misses int64) {
		s := cell(t, ms(1), ms(20))
		l := s.serve(t, "experts", map[string]any{"local": 4.0, "drop_ms": drop}, mixtral(t), workloads.Request{PromptTokens: 1, OutputTokens: 40})[0]
		return (l.LastToken - l.FirstToken) / 39, s.pipe.(Figurer).Figures()["expert_skip"], l.Counts[record.CacheMisses]
	}
	all, none, most := run(0)
	require.Zero(t, none)
	some, skip, fewer := run(20)
	require.Less(t, some, all)
	require.Less(t, fewer, most)
	// An expert of the far helper (2 of 8) is skipped unless the other one is as far:
	// of 56 ordered pairs, 2·2·6 have one far expert. Skipped: 24 of 112 choices.
	require.InDelta(t, 24.0/112, skip, 0.03)
}

func TestI7SlowerLinksNeverHelp(t *testing.T) {
	before := time.Duration(0)
	for _, d := range []float64{0.1, 1, 5, 25} {
		l := cell(t, ms(d), ms(d)).serve(t, "experts", nil, mixtral(t), asked[1])[0]
		require.Greater(t, l.LastToken, before)
		before = l.LastToken
	}
}

func TestI7AnswersAreTheModels(t *testing.T) {
	l := newLane(3, nil)
	load(l.scene)
	for i := range l.reqs {
		l.reqs[i].Prompt = prompt(i, l.reqs[i].PromptTokens)
	}
	logs := l.serve(t, "experts", map[string]any{"local": 1.0}, toyMixture, l.reqs...)
	for i, log := range logs {
		require.Equal(t, toyAnswer(toyModel, l.reqs[i].Prompt, l.reqs[i].OutputTokens), log.Output)
	}
	for _, d := range l.nodes {
		require.Empty(t, d.live)
		require.Positive(t, d.ops)
	}
}

func TestI7WhatCannotBeIsRefused(t *testing.T) {
	try := func(s *scene, set map[string]any, m *hardware.Model) error {
		e, err := Find("experts")
		require.NoError(t, err)
		params, err := e.Resolve(set)
		require.NoError(t, err)
		return e.New(params).Start(s.env, s.site, Models{Main: m})
	}
	require.ErrorContains(t, try(cell(t, ms(1)), nil, llama3b(t)), "is dense: choose a mixture of experts")
	require.ErrorContains(t, try(cell(t), map[string]any{"local": 2.0}, mixtral(t)), "has no node for experts")
	wide, err := profiles.Model("mixtral-8x7b:f16")
	require.NoError(t, err)
	err = try(cell(t, ms(1)), map[string]any{"local": 8.0}, wide)
	require.ErrorIs(t, err, hardware.ErrMemory)
	err = try(cell(t, ms(1)), map[string]any{"local": 0.0}, wide)
	require.ErrorContains(t, err, "of experts, it has")
}

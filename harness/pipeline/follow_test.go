package pipeline

import (
	"fmt"
	"maps"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/handover"
	"meibench/workloads"
)

// journey is three edge nodes in a row, joined each to each, and users who move
// on at given times.
type journey struct {
	rate  float64       // of the backhaul
	delay time.Duration // of the backhaul
	token time.Duration // of prefill
	at    []time.Duration
	way   []int         // node before each of at, and after the last
	soon  time.Duration // the radio tells so long before
	reqs  []workloads.Request
}

// play runs the requests under a policy.
func (j *journey) play(t *testing.T, env world.Runner, set map[string]any) *scene {
	s := newScene(env)
	s.edge.token = j.token
	toys := []*toyDevice{s.edge}
	for i := 1; i < 3; i++ {
		d := newToy(env, fmt.Sprint("edge", i), j.token, ms(1), ms(1)/4)
		toys = append(toys, d)
		s.site.Nodes = append(s.site.Nodes, hardware.Node{Name: d.name, Role: hardware.EdgeRole, Device: d})
	}
	for _, a := range toys {
		for _, b := range toys {
			if a != b {
				s.site.Joins = append(s.site.Joins, hardware.Join{From: a.name, To: b.name, Link: &toyLink{env: env, name: "backhaul", rate: j.rate, delay: j.delay}})
			}
		}
	}
	where := func(at time.Duration) int {
		k := 0
		for k < len(j.at) && at >= j.at[k] {
			k++
		}
		return j.way[k]
	}
	s.site.NewUser = func(id int) *hardware.User {
		return &hardware.User{ID: id, Up: s.up, Down: s.down, Near: func() int { return where(env.Now()) },
			Next: func() (int, bool) { n := where(env.Now() + j.soon); return n, n != where(env.Now()) }}
	}
	require.NoError(t, s.use("follow", set))
	s.reqs = append([]workloads.Request(nil), j.reqs...)
	s.run(t)
	for i, l := range s.logs {
		require.Equal(t, record.OK, l.Outcome, l.Err)
		if s.reqs[i].Prompt != nil {
			require.Equal(t, toyAnswer(toyModel, s.reqs[i].Prompt, s.reqs[i].OutputTokens), l.Output)
		}
	}
	for _, d := range toys {
		require.Empty(t, d.live, "caches left at %s", d.name)
	}
	return s
}

// long is a prompt whose toy answer is at least so long.
func long(tokens, answer int) []int32 {
	for id := 0; ; id++ {
		if p := prompt(id, tokens); len(toyAnswer(toyModel, p, answer)) == answer {
			return p
		}
	}
}

func ask(text []int32, output int) workloads.Request {
	return workloads.Request{PromptTokens: len(text), OutputTokens: output, Prompt: text}
}

var allCaches = []string{"auto", "stay", "prefill", "move", "mix", "prefetch"}

var toyPerToken = float64(toyModel.KVBytesPerToken(toyModel.All()))

// TestX3AnswersSurviveHandovers: under every policy, with hand-overs between turns and in the middle of answers, there and
// back, the tokens are those of a user who never moved; and both worlds agree.
func TestX3AnswersSurviveHandovers(t *testing.T) {
	j := &journey{rate: 2e6, delay: ms(1), token: ms(1) / 2, soon: ms(4), at: []time.Duration{ms(30), ms(36), ms(42), ms(50), ms(268), ms(460), ms(700)}, way: []int{0, 1, 0, 1, 2, 1, 2, 0}}
	text := long(40, 24)
	answer := toyAnswer(toyModel, text, 24)
	for turn := range 4 {
		r := ask(append([]int32(nil), text...), 24)
		r.Turn, r.ArriveAt = turn, time.Duration(turn)*ms(250)
		if turn > 0 {
			r.PrefixTokens = len(text) - 7
		}
		j.reqs = append(j.reqs, r)
		text = append(append(text, answer...), prompt(turn, 7)...)
		answer = toyAnswer(toyModel, text, 24)
	}
	for _, cache := range allCaches {
		set := map[string]any{"cache": cache, "block": 4.0}
		s := j.play(t, world.NewSim(nil), set)
		var moves, stalls int64
		for _, l := range s.logs {
			moves += l.Counts[record.Handovers]
			stalls += l.Counts[record.StallTime]
			require.Positive(t, l.Counts[record.Place])
		}
		require.GreaterOrEqual(t, moves, int64(3), cache)
		if cache == "prefill" {
			require.Positive(t, stalls, cache)
		}
		if cache != "prefill" { // which stands still while its user goes there and back
			require.Positive(t, s.pipe.(Figurer).Figures()["ping_pongs"], cache)
		}
		synctest.Test(t, func(t *testing.T) {
			real := j.play(t, world.NewReal(nil), set)
			for i := range s.logs {
				require.Equal(t, fmt.Sprintf("%+v", *s.logs[i]), fmt.Sprintf("%+v", *real.logs[i]), "%s, request %d", cache, i)
			}
		})
	}
}

// middle is one answer with one hand-over to node 1 after so many tokens of it or before a second turn.
func middle(rate float64, delay, token time.Duration, tokens, output int) *journey {
	text := prompt(3, tokens)
	r := workloads.Request{PromptTokens: len(text), OutputTokens: output} // sizes only: no early end
	start := time.Duration(tokens)*token + ms(5.04)
	return &journey{rate: rate, delay: delay, token: token, at: []time.Duration{start + ms(1.25)*time.Duration(output)/3}, way: []int{0, 1}, reqs: []workloads.Request{r}}
}

// TestX3BytesAreTheCaches: what moves is every token's keys and values, once; nothing moves where everything is computed again.
func TestX3BytesAreTheCaches(t *testing.T) {
	for _, output := range []int{60, 200} {
		j := middle(1e6, ms(1), ms(1)/4, 100, output)
		stay := j.play(t, world.NewSim(nil), map[string]any{"cache": "stay"}).logs[0]
		move := j.play(t, world.NewSim(nil), map[string]any{"cache": "move"})
		again := j.play(t, world.NewSim(nil), map[string]any{"cache": "prefill"}).logs[0]
		l := move.logs[0]
		require.EqualValues(t, 1, l.Counts[record.Handovers])
		require.Zero(t, l.Counts[record.Recomputed])
		bytes := float64(l.Counts[record.BackhaulBytes])
		p := move.pipe.(*follower)
		require.EqualValues(t, bytes, p.backhaul)
		require.Equal(t, 1, p.chats[0].home)
		require.Zero(t, p.wasted)
		var cache units.Bytes
		for _, join := range move.site.Joins {
			cache += join.Link.(*toyLink).bulk
		}
		require.Equal(t, units.Bytes(100+move.edge.decodes)*units.Bytes(toyPerToken), cache, "every token that the source has had, once")
		require.Zero(t, math.Mod(bytes-float64(cache), 8), "the rest are tokens on their way to the user")
		require.Zero(t, again.Counts[record.BackhaulBytes])
		require.Greater(t, again.Counts[record.Recomputed], int64(100))
		require.Zero(t, stay.Counts[record.Recomputed])
		require.Zero(t, math.Mod(float64(stay.Counts[record.BackhaulBytes]), 8))
	}
}

// TestX3LiveCopyHoldsUpLess: the copy in stages stands still for the last stage only; to compute everything again, or to
// send it at once, takes the whole time.
func TestX3LiveCopyHoldsUpLess(t *testing.T) {
	j := middle(1e6, ms(1), ms(1)/4, 400, 120)
	stall := func(cache string) float64 {
		l := j.play(t, world.NewSim(nil), map[string]any{"cache": cache}).logs[0]
		return float64(l.Counts[record.StallTime]) / 1e6
	}
	perBlock := 16 * toyPerToken / 1e6 * 1e3
	require.InDelta(t, 0.25*440, stall("prefill"), 3, "440 tokens at a quarter of a millisecond")
	require.LessOrEqual(t, stall("move"), perBlock+2*(1+1.25)+2, "a block, its way, and two operations")
	require.Positive(t, stall("move"))
	require.LessOrEqual(t, stall("stay"), 1.5)
	require.Less(t, stall("mix"), stall("prefill"))
	soon := *j
	soon.soon = ms(60)
	j = &soon
	require.LessOrEqual(t, stall("prefetch"), perBlock+2*(1+1.25)+2)
}

// TestX3MixIsTheClosedForm: with links and prefill that cost linearly, the session stands still for T* of the joint hand-over,
// which lies between half of the smaller pure time and all of it.
func TestX3MixIsTheClosedForm(t *testing.T) {
	for _, rate := range []float64{2e4, 6.4e4, 2e5, 1e6} {
		j := twoTurns(rate, 0, ms(1), 300)
		wait := func(cache string) time.Duration {
			return time.Duration(j.play(t, world.NewSim(nil), map[string]any{"cache": cache}).logs[1].Counts[record.StallTime])
		}
		u := handover.User{Tokens: 310, PrefillTokensPerSec: 1000, KVBytesPerToken: int(toyPerToken)}
		_, want := u.Joint(rate)
		still := 2 * ms(1.25) // a copy out and a copy in, each an operation of the toy device
		require.InDelta(t, want*1e3+float64(still)/1e6, float64(wait("mix"))/1e6, 1.3, "rate %g", rate)
		require.InDelta(t, u.Transfer(rate).Seconds()*1e3+2.5, float64(wait("move"))/1e6, 0.2)
		require.InDelta(t, 310, float64(wait("prefill"))/1e6, 0.2)
		smaller := min(wait("move")-still, wait("prefill"))
		require.LessOrEqual(t, wait("mix")-still, smaller+ms(1.3))
		require.GreaterOrEqual(t, wait("mix"), smaller/2)
	}
}

// twoTurns is a conversation whose user goes to another node between the turns.
func twoTurns(rate float64, delay, token time.Duration, tokens int) *journey {
	first := workloads.Request{PromptTokens: tokens, OutputTokens: 11}
	second := workloads.Request{Turn: 1, PromptTokens: tokens + 20, PrefixTokens: tokens + 10, OutputTokens: 10, ArriveAt: 100 * time.Second}
	return &journey{rate: rate, delay: delay, token: token, at: []time.Duration{60 * time.Second}, way: []int{0, 1}, reqs: []workloads.Request{first, second}}
}

// TestX3AutoIsNeverWorse: where nobody else is, auto ends the turn no later than the best of the pure policies, and which of
// prefill and move is better changes where S k / R = S / v.
func TestX3AutoIsNeverWorse(t *testing.T) {
	luck := rng.Stream(4, "auto")
	pick := map[string]int{}
	for range 40 {
		rate, delay := math.Exp(9+5*rng.Float64(luck)), ms(math.Exp(8*rng.Float64(luck)-2))
		j := twoTurns(rate, delay, ms(math.Exp(6*rng.Float64(luck)-3)), 100+luck.IntN(300))
		if luck.IntN(2) == 0 {
			j = middle(rate, delay, j.token, 100+luck.IntN(300), 20+luck.IntN(100))
		}
		e2e := func(cache string) time.Duration {
			logs := j.play(t, world.NewSim(nil), map[string]any{"cache": cache}).logs
			return logs[len(logs)-1].Done - logs[len(logs)-1].Intended
		}
		best, name := time.Duration(math.MaxInt64), ""
		for _, cache := range []string{"stay", "prefill", "move", "mix"} {
			if d := e2e(cache); d < best {
				best, name = d, cache
			}
		}
		pick[name]++
		require.LessOrEqual(t, e2e("auto"), best+ms(1.3), "%s at %g B/s, %v, %v a token", name, rate, delay, j.token)
	}
	require.GreaterOrEqual(t, len(pick), 3, "%v", pick)
	cross := toyPerToken * 1000 // bytes per second at which a token is sent as fast as computed, at 1 ms each
	for _, tc := range []struct {
		rate float64
		move bool
	}{{cross * 1.05, true}, {cross * 0.95, false}} {
		j := twoTurns(tc.rate, 0, ms(1), 300)
		wait := func(cache string) time.Duration {
			return time.Duration(j.play(t, world.NewSim(nil), map[string]any{"cache": cache}).logs[1].Counts[record.StallTime])
		}
		require.Equal(t, tc.move, wait("move")-ms(2.5) < wait("prefill"), "%g", tc.rate)
	}
}

// TestX3PrefetchHitsAndWastes: a copy that begins before the user goes is a hit, one to where the user does not go is waste.
func TestX3PrefetchHitsAndWastes(t *testing.T) {
	j := middle(1e6, ms(1), ms(1)/4, 400, 200)
	j.soon = ms(40)
	hit := j.play(t, world.NewSim(nil), map[string]any{"cache": "prefetch"}).pipe.(*follower)
	require.Equal(t, 1, hit.hits)
	require.Zero(t, hit.wasted)
	idle := twoTurns(1e5, ms(1), ms(1), 200) // told of the next cell when the first answer ends, there at the second turn
	idle.soon = 70 * time.Second
	between := idle.play(t, world.NewSim(nil), map[string]any{"cache": "prefetch"})
	require.Equal(t, 1, between.pipe.(*follower).hits)
	require.Zero(t, between.logs[1].Counts[record.StallTime])
	require.EqualValues(t, 210, between.logs[1].Counts[record.ReusedTokens])
	s := &journey{rate: j.rate, delay: j.delay, token: j.token, way: []int{0}, reqs: j.reqs}
	env := world.NewSim(nil)
	x := s.playNext(t, env, 2)
	require.Zero(t, x.hits)
	require.Equal(t, x.backhaul, x.wasted)
	require.Positive(t, x.wasted)
}

// playNext is a user who stays while the radio keeps telling of another node.
func (j *journey) playNext(t *testing.T, env world.Runner, next int) *follower {
	j.soon = 0
	k := *j
	s := newScene(env)
	d := newToy(env, "edge1", k.token, ms(1), ms(1)/4)
	e := newToy(env, "edge2", k.token, ms(1), ms(1)/4)
	for _, x := range []*toyDevice{d, e} {
		s.site.Nodes = append(s.site.Nodes, hardware.Node{Name: x.name, Role: hardware.EdgeRole, Device: x})
	}
	s.site.Meet = func(from, to string) (hardware.Link, bool) {
		return &toyLink{env: env, name: "backhaul", rate: k.rate, delay: k.delay}, true
	}
	s.site.NewUser = func(id int) *hardware.User {
		return &hardware.User{ID: id, Up: s.up, Down: s.down, Near: func() int { return 0 }, Next: func() (int, bool) { return next, env.Now() < ms(230) }}
	}
	require.NoError(t, s.use("follow", map[string]any{"cache": "prefetch"}))
	s.reqs = k.reqs
	s.run(t)
	require.Equal(t, record.OK, s.logs[0].Outcome, s.logs[0].Err)
	require.Empty(t, e.live)
	return s.pipe.(*follower)
}

// TestX3FullTargetKeepsTheSession: where the target has no room the session stays, and nobody waits for ever.
func TestX3FullTargetKeepsTheSession(t *testing.T) {
	for _, cache := range allCaches {
		env := world.NewSim(nil)
		s := newScene(env)
		d := newToy(env, "edge1", ms(1), ms(1), ms(1)/4)
		for _, x := range []*toyDevice{s.edge, d} {
			x.memory = toyModel.WeightBytes(toyModel.All()) + 160*units.Bytes(toyPerToken)
		}
		s.site.Nodes = append(s.site.Nodes, hardware.Node{Name: d.name, Role: hardware.EdgeRole, Device: d})
		links := map[string]*toyLink{}
		s.site.Meet = func(from, to string) (hardware.Link, bool) {
			if links[from+to] == nil {
				links[from+to] = &toyLink{env: env, name: "backhaul", rate: 1e5, delay: ms(1)}
			}
			return links[from+to], true
		}
		s.site.NewUser = func(id int) *hardware.User { // two users who change places, again and again
			return &hardware.User{ID: id, Up: s.up, Down: s.down, Near: func() int { return (id + int(env.Now()/ms(90))) % 2 }}
		}
		require.NoError(t, s.use("follow", map[string]any{"cache": cache}))
		for i := range 12 {
			text := prompt(i%4, 60)
			s.reqs = append(s.reqs, workloads.Request{User: i % 4, Session: i % 4, Turn: i / 4, ArriveAt: time.Duration(i) * ms(40), PromptTokens: 60, PrefixTokens: 50, OutputTokens: 30, Prompt: text})
		}
		s.run(t)
		for i, l := range s.logs {
			require.Equal(t, record.OK, l.Outcome, "%s: %s", cache, l.Err)
			require.Equal(t, toyAnswer(toyModel, s.reqs[i].Prompt, 30), l.Output, cache)
		}
		require.Empty(t, d.live)
	}
}

// TestOffloadServesWhereTheUserIs: each request is answered by the node of its user's cell, whose server starts then.
func TestOffloadServesWhereTheUserIs(t *testing.T) {
	env := world.NewSim(nil)
	s := newScene(env)
	d := newToy(env, "edge1", ms(1), ms(1), ms(1)/4)
	s.site.Nodes = append(s.site.Nodes, hardware.Node{Name: d.name, Role: hardware.EdgeRole, Device: d})
	plain := s.site.NewUser
	s.site.NewUser = func(id int) *hardware.User {
		u := plain(id)
		u.Near = func() int { return id % 2 }
		return u
	}
	require.NoError(t, s.use("offload", maps.Clone(map[string]any{})))
	require.Nil(t, s.pipe.(*offload).edge.servers[1])
	for i := range 6 {
		s.reqs = append(s.reqs, workloads.Request{User: i, ArriveAt: time.Duration(i) * ms(10), PromptTokens: 8, OutputTokens: 3, Prompt: prompt(i, 8)})
	}
	s.run(t)
	for i, l := range s.logs {
		require.EqualValues(t, i%2+1, l.Counts[record.Place])
		require.Equal(t, toyAnswer(toyModel, s.reqs[i].Prompt, 3), l.Output)
	}
	require.Positive(t, d.ops)
	require.Positive(t, s.edge.ops)
}

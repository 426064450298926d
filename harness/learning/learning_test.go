package learning

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/reference/token"
	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// plain is a small job: three clients, LoRA of rank 2, two steps of two questions a round.
func plain() Job {
	return Job{Method: train.Method{Kind: "lora", Rank: 2, Alpha: 4}, Apps: []string{"healthcare-ward"}, Levels: 1, Clients: 3, Samples: 6, Batch: 2,
		Optimizer: "sgd", Rate: 0.5, Rule: "fedavg", Server: 1, Robust: "mean", Code: "f32", Attack: "none", Step: 0.01, Probes: 2, Seed: 7}
}

var nano = func() (*llm.Model, *token.Tokenizer) {
	l, err := models.Open("mei-nano")
	if err != nil {
		panic(err)
	}
	return l.Model, l.Tokenizer
}

func school(t *testing.T, j Job) *School {
	t.Helper()
	m, tok := nano()
	s, err := New(j, m, tok, Options{Hands: 1, Threads: 1})
	require.NoError(t, err)
	return s
}

func do(t *testing.T, s *School, st hardware.Study) []byte {
	t.Helper()
	reply, err := s.Train(&st)
	require.NoError(t, err)
	return reply
}

// rounds runs some rounds of all clients, in an order that may differ from that of their numbers.
func rounds(t *testing.T, s *School, n, steps int, order []int) {
	t.Helper()
	for round := range n {
		st := hardware.Study{Verb: "combine", Round: round}
		for _, client := range order {
			down := do(t, s, hardware.Study{Verb: "open", Client: client, Round: round})
			up := do(t, s, hardware.Study{Verb: "local", Client: client, Round: round, Step: round * steps, Count: steps, In: [][]byte{down}})
			st.In, st.Who = append(st.In, up), append(st.Who, client)
		}
		do(t, s, st)
	}
}

// T4: one client is centralised training, bit for bit: six steps of SGD on its questions, in three rounds or by hand.
func TestT4_OneClientIsCentralised(t *testing.T) {
	for _, m := range []train.Method{{Kind: "lora", Rank: 2, Alpha: 4}, {Kind: "full"}, {Kind: "bias"}} {
		j := plain()
		j.Method, j.Clients = m, 1
		s := school(t, j)
		rounds(t, s, 3, 2, []int{0})

		base, tok := nano()
		whole, err := train.From(base)
		require.NoError(t, err)
		p, err := train.Tune(whole.Model, m, j.Seed)
		require.NoError(t, err)
		l, err := train.NewLearner(p, 1)
		require.NoError(t, err)
		d, err := newData(&j, tok)
		require.NoError(t, err)
		for step := range 6 {
			_, grad := l.Gradient([]train.Batch{*d.batch(0, step)})
			for i, g := range grad.Flat {
				p.Flat[i] -= float32(float32(j.Rate) * g)
			}
		}
		require.Equal(t, p.Flat, s.server(0).global, m.Kind)
	}
}

// T4: one step of the whole batch by every client is one step on all data: the mean of gradients, for clients of equal weight in tokens.
func TestT4_OneStepIsOneCentralStep(t *testing.T) {
	j := plain()
	j.Batch = j.Samples
	s := school(t, j)
	var all []train.Batch
	for c := range j.Clients {
		all = append(all, *s.data.batch(c, 0))
	}
	start := slices.Clone(s.server(0).global)
	rounds(t, s, 1, 1, []int{0, 1, 2})
	want := slices.Clone(start)
	l := s.scorer.learner
	for c := range all {
		copy(s.scorer.params.Flat, start)
		_, grad := l.Gradient(all[c : c+1])
		for i, g := range grad.Flat {
			want[i] -= float32(j.Rate) * g / float32(j.Clients)
		}
	}
	require.InDeltaSlice(t, want, s.server(0).global, 1e-6)
}

// T4: the order of clients does not matter, nor how many work at a time; mu of 0 is FedAvg, and so is SCAFFOLD's first round.
func TestT4_SameBits(t *testing.T) {
	s := school(t, plain())
	rounds(t, s, 1, 2, []int{0, 1, 2})
	first := slices.Clone(s.server(0).global)
	rounds2 := func(j Job, o Options) *School {
		m, tok := nano()
		s, err := New(j, m, tok, o)
		require.NoError(t, err)
		rounds(t, s, 1, 2, []int{2, 0, 1})
		return s
	}
	require.Equal(t, first, rounds2(plain(), Options{Hands: 2, Threads: 2}).server(0).global)
	j := plain()
	j.Rule = "scaffold"
	require.Equal(t, first, rounds2(j, Options{}).server(0).global)
	j = plain()
	j.Mu = 1
	require.NotEqual(t, first, rounds2(j, Options{}).server(0).global)
	j = plain()
	j.Code = "f32+z"
	require.Equal(t, first, rounds2(j, Options{}).server(0).global, "an exact code")
}

// T9: edge nodes that meet after every round are one server.
func TestT9_IntervalOneIsTwoTiers(t *testing.T) {
	j := plain()
	j.Clients = 4
	two := school(t, j)
	rounds(t, two, 2, 1, []int{0, 1, 2, 3})
	three := school(t, j)
	for round := range 2 {
		var states [][]byte
		for group := range 2 {
			st := hardware.Study{Verb: "combine", Round: round, Group: group}
			for client := group; client < 4; client += 2 {
				down := do(t, three, hardware.Study{Verb: "open", Client: client, Group: group, Round: round})
				up := do(t, three, hardware.Study{Verb: "local", Client: client, Group: group, Round: round, Step: round, Count: 1, In: [][]byte{down}})
				st.In, st.Who = append(st.In, up), append(st.Who, client)
			}
			do(t, three, st)
			states = append(states, do(t, three, hardware.Study{Verb: "state", Group: group, Round: round}))
		}
		agreed := do(t, three, hardware.Study{Verb: "meet", Group: -1, Round: round, In: states})
		for group := range 2 {
			do(t, three, hardware.Study{Verb: "adopt", Group: group, Round: round, In: [][]byte{agreed}})
		}
	}
	require.InDeltaSlice(t, two.server(0).global, three.server(-1).global, 1e-6)
	require.Equal(t, three.server(-1).global, three.server(1).global)
}

// splitRounds runs rounds of split training.
func splitRounds(t *testing.T, s *School, n, steps int, clients []int) {
	for round := range n {
		for step := range steps {
			for _, c := range clients {
				at := hardware.Study{Client: c, Round: round, Step: round*steps + step}
				say := func(verb string, in ...[]byte) []byte {
					st := at
					st.Verb, st.In = verb, in
					return do(t, s, st)
				}
				if m := say("front"); !s.splits.cut.Tail {
					say("back", say("middle", m))
				} else {
					say("back", say("bodyback", say("tail", say("body", m))))
				}
			}
		}
		st := hardware.Study{Verb: "halves", Round: round}
		for _, c := range clients {
			st.In, st.Who = append(st.In, do(t, s, hardware.Study{Verb: "give", Client: c, Round: round})), append(st.Who, c)
		}
		agreed := do(t, s, st)
		for c := range s.job.Clients {
			do(t, s, hardware.Study{Verb: "take", Client: c, Round: round, In: [][]byte{agreed}})
		}
	}
}

// T6: SplitFed with a server side for each client is FedAvg on the joined model, bit for bit, wherever it is cut and wherever labels are.
func TestT6_SplitFedIsFedAvg(t *testing.T) {
	for _, m := range []train.Method{{Kind: "lora", Rank: 2, Alpha: 4}, {Kind: "layers"}} {
		j := plain()
		j.Method = m
		fed := school(t, j)
		rounds(t, fed, 2, 2, []int{0, 1, 2})
		for _, c := range []Cut{{Lo: 1, Hi: 5}, {Lo: 4, Hi: 5}, {Lo: 2, Hi: 5, Tail: true}, {Lo: 1, Hi: 3, Tail: true}} {
			s := school(t, j)
			require.NoError(t, s.Split(c))
			splitRounds(t, s, 2, 2, []int{0, 1, 2})
			require.Equal(t, fed.server(0).global, s.server(0).global, "%+v", c)
		}
	}
}

// T6: one server side for all is, with one client, the same as one for each; with three it is not.
func TestT6_OneServerSide(t *testing.T) {
	j := plain()
	run := func(c Cut, clients []int) []float32 {
		s := school(t, j)
		require.NoError(t, s.Split(c))
		splitRounds(t, s, 2, 2, clients)
		return s.server(0).global
	}
	require.Equal(t, run(Cut{Lo: 2, Hi: 5}, []int{1}), run(Cut{Lo: 2, Hi: 5, Shared: true}, []int{1}))
	require.NotEqual(t, run(Cut{Lo: 2, Hi: 5}, []int{0, 1, 2}), run(Cut{Lo: 2, Hi: 5, Shared: true}, []int{0, 1, 2}))
}

// T7: activations in fewer bits change what is learned a little, and are smaller.
func TestT7_CutLayerCodes(t *testing.T) {
	j := plain()
	exact := school(t, j)
	require.NoError(t, exact.Split(Cut{Lo: 2, Hi: 5}))
	splitRounds(t, exact, 1, 2, []int{0, 1, 2})
	size := len(do(t, exact, hardware.Study{Verb: "front"}))
	for _, wire := range []string{"int8", "f16"} {
		j.Wire = wire
		s := school(t, j)
		require.NoError(t, s.Split(Cut{Lo: 2, Hi: 5}))
		splitRounds(t, s, 1, 2, []int{0, 1, 2})
		off, moved := 0.0, 0.0
		for i, v := range exact.server(0).global {
			off += math.Abs(float64(v - s.server(0).global[i]))
			moved += math.Abs(float64(v - exact.scorer.first[i]))
		}
		require.Positive(t, off)
		require.Less(t, off/moved, 0.1, wire)
		require.Less(t, len(do(t, s, hardware.Study{Verb: "front"})), size*6/10)
	}
}

// T4, LoRA rules on what clients really learned: those that are exact are, the others tell what they miss; and each learns.
func TestT4_LoRARules(t *testing.T) {
	for _, rule := range loraRules {
		j := plain()
		j.Rule, j.Optimizer, j.Rate = rule, "adamw", 0.01
		s := school(t, j)
		before, err := s.Score(tasks.Validation, 30)
		require.NoError(t, err)
		rounds(t, s, 4, 3, []int{0, 1, 2})
		after, err := s.Score(tasks.Validation, 30)
		require.NoError(t, err)
		require.Less(t, after.Loss, before.Loss, rule)
		errors := s.server(0).errors
		if rule == "fedsa" { // nobody has all factors
			require.Empty(t, errors)
			continue
		}
		require.Len(t, errors, 4)
		exact := slices.Contains([]string{"fedex", "ffa", "flora"}, rule)
		require.Equal(t, exact, slices.Max(errors) < 1e-6, "%s misses %v", rule, errors)
		if rule == "ffa" {
			for i := range s.scorer.params.Parts() {
				if a := s.scorer.params.Parts()[i]; i%2 == 0 {
					require.Equal(t, a.Data, slices.Clone(a.Data))
				}
			}
			require.Equal(t, s.scorer.first[:2*64], s.server(0).global[:2*64], "A stays")
		}
	}
	j := plain()
	j.Rule, j.Spread, j.Method.Rank, j.Clients = "flexlora", true, 4, 4
	s := school(t, j)
	rounds(t, s, 2, 2, []int{0, 1, 2, 3})
	require.Equal(t, []int{4, 2, 1, 1}, []int{s.rankOf(0), s.rankOf(1), s.rankOf(2), s.rankOf(3)})
}

// A client on another machine, with a base of its own, learns the same from what it is sent, also where the rule changes the base.
func TestT4_ChangesOfTheBaseTravel(t *testing.T) {
	for _, rule := range []string{"flora", "fedex", "fedavg"} {
		j := plain()
		j.Rule = rule
		server, away := school(t, j), school(t, j)
		for round := range 3 {
			st := hardware.Study{Verb: "combine", Round: round}
			for client := range 3 {
				down := do(t, server, hardware.Study{Verb: "open", Client: client, Round: round})
				study := hardware.Study{Verb: "local", Client: client, Round: round, Step: round, Count: 1, In: [][]byte{down}}
				up := do(t, away, study)
				require.Equal(t, do(t, server, study), up, "%s, round %d", rule, round)
				st.In, st.Who = append(st.In, up), append(st.Who, client)
			}
			do(t, server, st)
		}
	}
}

// T3, T5: without gradients the loss falls too; FedKSeed sends scalars, and whoever has the sums has the weights.
func TestT5_SeedsOnly(t *testing.T) {
	j := plain()
	j.Rule, j.Optimizer, j.Rate, j.Step = "fedkseed", "fwd", 0.002, 0.01
	s, away := school(t, j), school(t, j)
	before, err := s.Score(tasks.Validation, 30)
	require.NoError(t, err)
	rounds(t, s, 6, 5, []int{0, 1, 2})
	after, err := s.Score(tasks.Validation, 30)
	require.NoError(t, err)
	require.Less(t, after.Loss, before.Loss)
	down := do(t, s, hardware.Study{Verb: "open", Client: 1, Round: 6})
	require.Less(t, len(down), 18_000, "arXiv 2312.06353: below 18 kB")
	m, err := decode(down)
	require.NoError(t, err)
	require.NoError(t, away.rule.begin(away.scorer, 1, m.Parts))
	require.Equal(t, s.Tuned().Flat, away.scorer.params.Flat)
	up := do(t, s, hardware.Study{Verb: "local", Client: 1, Round: 6, Count: 5, In: [][]byte{down}})
	require.Less(t, len(up), headBytes+4+8*5*2+1)
}

// T11, X6: what comes from bad clients is refused by name, or outvoted.
func TestX6_BadClients(t *testing.T) {
	for attack, why := range map[string]string{"nan": "finite", "size": ""} {
		j := plain()
		j.Clients, j.Bad, j.Attack, j.Seed = 8, 0.3, attack, 3
		s := school(t, j)
		rounds(t, s, 1, 1, []int{0, 1, 2, 3, 4, 5, 6, 7})
		all, bad := s.Refused()
		require.Equal(t, all, bad)
		require.Positive(t, bad)
		require.Contains(t, fmt.Sprint(s.lastRefusal()), why)
		for _, v := range s.server(0).global {
			require.False(t, math.IsNaN(float64(v)))
		}
	}
	losses := map[string]float64{}
	for _, robust := range []string{"mean", "median", "krum", "multikrum", "trimmed", "clip"} {
		j := plain()
		j.Clients, j.Bad, j.Attack, j.Seed, j.Robust, j.Optimizer, j.Rate = 8, 0.3, "flip", 3, robust, "adamw", 0.005
		s := school(t, j)
		rounds(t, s, 3, 2, []int{0, 1, 2, 3, 4, 5, 6, 7})
		score, err := s.Score(tasks.Validation, 30)
		require.NoError(t, err)
		losses[robust] = score.Loss
	}
	for robust, loss := range losses {
		if robust != "mean" {
			require.Less(t, loss, losses["mean"], "%s: %v", robust, losses)
		}
	}
}

func TestServersBelieveNobody(t *testing.T) {
	s := school(t, plain())
	down := do(t, s, hardware.Study{Verb: "open", Client: 1})
	up := do(t, s, hardware.Study{Verb: "local", Client: 1, Count: 1, In: [][]byte{down}})
	for why, spoil := range map[string]func(m *message){
		"says that it is client 2":           func(m *message) { m.Client = 2 },
		"it registered 6":                    func(m *message) { m.Samples = 1 << 20 },
		"a message of 0 parts has no part 0": func(m *message) { m.Parts = nil },
	} {
		m, err := decode(up)
		require.NoError(t, err)
		spoil(m)
		_, err = s.Train(&hardware.Study{Verb: "combine", In: [][]byte{m.encode()}, Who: []int{1}})
		require.ErrorContains(t, err, why)
	}
	_, err := s.Train(&hardware.Study{Verb: "local", Client: 3})
	require.ErrorContains(t, err, "number 3 of 3")
	_, err = s.Train(&hardware.Study{Verb: "sing"})
	require.ErrorContains(t, err, `nobody knows how to "sing"`)
	_, err = s.Train(&hardware.Study{Verb: "local", Client: 1, Count: 1, In: [][]byte{up[:30]}})
	require.ErrorContains(t, err, "bytes")
}

func TestJobsThatAreRefused(t *testing.T) {
	m, tok := nano()
	for why, spoil := range map[string]func(j *Job){
		"rank 99, want 1 to 64":                   func(j *Job) { j.Method.Rank = 99 },
		"clients 0, want 1":                       func(j *Job) { j.Clients = 0 },
		"batches of 7 of the 6 questions":         func(j *Job) { j.Batch = 7 },
		`unknown rule "fedup"`:                    func(j *Job) { j.Rule = "fedup" },
		"rule flora puts LoRA adapters":           func(j *Job) { j.Rule, j.Method = "flora", train.Method{Kind: "bias"} },
		"rule fedkseed sends steps":               func(j *Job) { j.Rule = "fedkseed" },
		"noise is in units of clip":               func(j *Job) { j.Noise = 1 },
		`unknown, have`:                           func(j *Job) { j.Apps = []string{"cooking"} },
		"a base in q4_0 stays as it is":           func(j *Job) { j.Base, j.Method = "q4_0", train.Method{Kind: "full"} },
		"robust krum vectors: choose rule fedavg": func(j *Job) { j.Rule, j.Robust = "fedit", "krum" },
	} {
		j := plain()
		spoil(&j)
		_, err := New(j, m, tok, Options{})
		require.ErrorContains(t, err, why)
	}
	s := school(t, plain())
	for _, c := range []Cut{{Lo: 0, Hi: 5}, {Lo: 5, Hi: 5}, {Lo: 2, Hi: 4}, {Lo: 2, Hi: 2, Tail: true}} {
		require.Error(t, s.Split(c), c)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add((&message{Round: 1, Client: 2, Samples: 3, Loss: 4, Parts: [][]byte{{1, 2}, {}}}).encode())
	f.Add([]byte{wireVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decode(b); err == nil {
			require.Equal(t, b, m.encode())
		}
	})
}

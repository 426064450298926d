package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/fault"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/reference/partition"
	"meibench/workloads"
)

// lane is a scene with several edge nodes, joined each to each.
type lane struct {
	*scene
	nodes []*toyDevice
}

// newLane makes nodes that are as quick as the device; from the given moments on
// for two seconds the nodes of their numbers are down.
func newLane(n int, down map[int][]time.Duration) *lane {
	return newLaneIn(world.NewSim(nil), n, down)
}

func newLaneIn(env world.Runner, n int, down map[int][]time.Duration) *lane {
	l := &lane{scene: newScene(env)}
	l.site.Nodes = nil
	for i := range n {
		d := newToy(l.env, fmt.Sprint("n", i+1), ms(2), ms(4), 0)
		l.nodes = append(l.nodes, d)
		var dev hardware.Device = d
		if at := down[i+1]; at != nil {
			var ws []fault.Window
			for _, t := range at {
				ws = append(ws, fault.Window{From: t, To: t + 2*time.Second})
			}
			dev = fault.New(l.env, d.name, d, ws)
		}
		l.site.Nodes = append(l.site.Nodes, hardware.Node{Name: d.name, Role: hardware.EdgeRole, Device: dev})
		for _, other := range l.nodes[:i] {
			for _, ends := range [][2]string{{d.name, other.name}, {other.name, d.name}} {
				l.site.Joins = append(l.site.Joins, hardware.Join{From: ends[0], To: ends[1], Link: &toyLink{env: l.env, name: ends[0] + ends[1], rate: 1e8, delay: ms(1)}})
			}
		}
	}
	return l
}

// check runs the lane and compares every answer with the model's own.
func (l *lane) check(t *testing.T) {
	for i := range l.reqs {
		l.reqs[i].Prompt = prompt(i, l.reqs[i].PromptTokens)
	}
	l.run(t)
	for i, log := range l.logs {
		require.Equal(t, record.OK, log.Outcome, log.Err)
		require.Equal(t, toyAnswer(toyModel, l.reqs[i].Prompt, l.reqs[i].OutputTokens), log.Output, "request %d", i)
	}
	for _, d := range l.nodes {
		require.Empty(t, d.live, "KV caches left on %s", d.name)
	}
}

func (l *lane) counted(c record.Counter) (n int64) {
	for _, log := range l.logs {
		n += log.Counts[c]
	}
	return n
}

// What the checklist asks of a chain: a node dies in mid-run, and the answers
// stay the model's.
func TestI5KillNode(t *testing.T) {
	for _, rec := range []string{"replan", "reroute"} {
		for _, schedule := range []string{"nobubble", "bubble"} {
			for victim := 1; victim <= 3; victim++ {
				t.Run(fmt.Sprint(rec, schedule, victim), func(t *testing.T) {
					l := newLane(3, map[int][]time.Duration{victim: {ms(1000), ms(5003)}})
					require.NoError(t, l.use("chain", map[string]any{"recover": rec, "schedule": schedule}))
					load(l.scene)
					l.check(t)
					require.Positive(t, l.counted(record.Retries))
					f := l.pipe.(Figurer).Figures()
					require.Positive(t, f["recovery"])
					require.Less(t, f["recovery"], 2.0, "nobody waits until the node is back")
				})
			}
		}
	}
}

// Two of three nodes die one after the other, then both are back.
func TestI5KillTwoNodes(t *testing.T) {
	for _, rec := range []string{"replan", "reroute"} {
		l := newLane(3, map[int][]time.Duration{1: {ms(1500)}, 3: {ms(2000)}})
		require.NoError(t, l.use("chain", map[string]any{"recover": rec}))
		load(l.scene)
		l.check(t)
		before := l.nodes[0].ops
		require.Greater(t, before, 0)
	}
}

func TestI5NobodyLeftToTakeOver(t *testing.T) {
	for _, tc := range []struct {
		name, recover, want string
	}{
		{"asked not to recover", "none", `node "n1" died at 30ms: `},
		{"replan: no room", "replan", "nothing can take over: pipeline chain: plan even: n3 would hold layers 2 to 4"},
		{"reroute: no room", "reroute", "nothing can take over: no node has memory for layers 1 to 2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLane(3, map[int][]time.Duration{1: {ms(30)}})
			p := &chain{model: toyModel, room: 512}
			l.nodes[1].memory, l.nodes[2].memory = p.need(hardware.Span{Lo: 2, Hi: 3}), p.need(hardware.Span{Lo: 3, Hi: 4})
			require.NoError(t, l.use("chain", map[string]any{"recover": tc.recover}))
			l.reqs = []workloads.Request{{PromptTokens: 5, OutputTokens: 8}}
			l.run(t)
			require.Equal(t, record.Failed, l.logs[0].Outcome)
			require.Contains(t, l.logs[0].Err, tc.want)
		})
	}
}

// A chain over the device alone is what the device does alone.
func TestI5OnePlaceIsLocal(t *testing.T) {
	times := func(name string, set map[string]any) (out []time.Duration) {
		s := newScene(world.NewSim(nil))
		require.NoError(t, s.use(name, set))
		s.reqs = []workloads.Request{{PromptTokens: 7, OutputTokens: 5}, {ArriveAt: ms(500), PromptTokens: 3, OutputTokens: 9}}
		s.run(t)
		for _, l := range s.logs {
			out = append(out, l.FirstToken, l.LastToken, l.Done)
		}
		return out
	}
	require.Equal(t, times("local", nil), times("chain", map[string]any{"nodes": 1.0}))
}

// One request at a time keeps one stage of n busy: the idle share is 1 - 1/n,
// whatever the schedule, if sending takes no time. With as many in flight as
// stages, all stages are busy, but for the filling.
func TestI5BubbleShare(t *testing.T) {
	share := func(requests int, batch float64, schedule string) float64 {
		l := newLane(3, nil)
		l.up.delay, l.down.delay = 0, 0
		l.up.rate, l.down.rate = 1e18, 1e18
		for _, j := range l.site.Joins {
			j.Link.(*toyLink).delay, j.Link.(*toyLink).rate = 0, 1e18
		}
		require.NoError(t, l.use("chain", map[string]any{"schedule": schedule, "batch": batch}))
		for range requests {
			l.reqs = append(l.reqs, workloads.Request{PromptTokens: 2, OutputTokens: 400})
		}
		l.run(t)
		return l.pipe.(Figurer).Figures()["bubble_share"]
	}
	require.InDelta(t, 0.75, share(1, 1, "nobubble"), 1e-6)
	require.InDelta(t, 0.75, share(1, 1, "bubble"), 1e-6)
	require.Less(t, share(4, 1, "nobubble"), 0.01)
	// Bubble: m requests over four stages take m + 3 slots a token, of which each stage works m.
	equal := []float64{1, 1, 1, 1}
	for _, m := range []int{2, 4, 7} {
		require.InDelta(t, partition.BubbleShare(equal, m), share(m, 1, "bubble"), 0.01, "%d", m)
		if m <= 4 { // of more, servers with room for one sequence let newcomers wait until others end
			require.InDelta(t, partition.NoBubbleShare(equal, m), share(m, 1, "nobubble"), 0.01, "%d", m)
		}
	}
}

func TestI5PlansThatDoNotFitNameTheNode(t *testing.T) {
	l := newLane(3, nil)
	l.nodes[1].memory = 1
	err := l.use("chain", nil)
	require.ErrorIs(t, err, hardware.ErrMemory)
	require.ErrorContains(t, err, `plan even: n2 would hold layers 2 to 3 of "toy": `)
	require.ErrorContains(t, err, "of weights and")
	require.ErrorContains(t, err, "it has 1 B")
}

// Two stages whose nodes die do not both go to a node that has room for one.
func TestI5RerouteCountsWhatItGaveAlready(t *testing.T) {
	l := newLane(4, map[int][]time.Duration{1: {ms(30)}, 2: {ms(30)}})
	p := &chain{model: toyModel, room: 512}
	two := p.need(hardware.Span{Lo: 1, Hi: 2}) + p.need(hardware.Span{Lo: 2, Hi: 3})
	l.nodes[2].memory = two
	require.NoError(t, l.use("chain", map[string]any{"recover": "reroute", "nodes": 4.0}))
	c := l.pipe.(*chain)
	c.dead = map[int]time.Duration{1: 0, 2: 0}
	next, err := c.without(&route{stages: []stage{{0, hardware.Span{Hi: 1}}, {1, hardware.Span{Lo: 1, Hi: 2}}, {2, hardware.Span{Lo: 2, Hi: 3}}, {4, hardware.Span{Lo: 3, Hi: 4}}}})
	require.NoError(t, err)
	require.Equal(t, []int{3, 3}, []int{next.stages[1].place, next.stages[2].place}, "n3 lies nearest and holds two")
	l.nodes[2].memory = two - 1
	next, err = c.without(&route{stages: []stage{{0, hardware.Span{Hi: 1}}, {1, hardware.Span{Lo: 1, Hi: 2}}, {2, hardware.Span{Lo: 2, Hi: 3}}, {4, hardware.Span{Lo: 3, Hi: 4}}}})
	require.NoError(t, err)
	require.Equal(t, []int{3, 4}, []int{next.stages[1].place, next.stages[2].place})
}

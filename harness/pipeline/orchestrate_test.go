package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
)

// people makes the requests of a lane those of twelve users.
func people(l *lane) {
	busy(l)
	for i := range l.reqs {
		l.reqs[i].User = i % 12
	}
}

// TestX4OrchestratorKeepsAnswers: whatever is decided, and when nodes die, answers are the model's, decisions are near the optimum of
// their instances, and nothing goes where it may not.
func TestX4OrchestratorKeepsAnswers(t *testing.T) {
	for _, set := range []map[string]any{
		{}, {"solver": "greedy"}, {"solver": "response", "objective": "worst"}, {"objective": "goodput", "groups": 3.0}, {"objective": "cost"},
		{"cell_mbps": 0.2, "bandwidth": "minmax"}, {"data": "edge"}, {"decide_us": 1000.0},
	} {
		t.Run(fmt.Sprint(set), func(t *testing.T) {
			l := newLane(3, map[int][]time.Duration{1: {ms(3000), ms(8000)}, 3: {ms(5500)}})
			l.device.token, l.device.step = ms(40), ms(80)
			set["period_ms"], set["start_ms"], set["batch"] = 500.0, 50.0, 2.0
			require.NoError(t, l.use("orchestrate", set))
			people(l)
			for i := range l.reqs {
				l.reqs[i].Prompt = prompt(i, l.reqs[i].PromptTokens)
			}
			l.run(t)
			refused := 0
			for i, log := range l.logs { // in the crest, or while nodes are down, some cannot be served in the long run
				if log.Outcome == record.Rejected {
					refused++
					continue
				}
				require.Equal(t, record.OK, log.Outcome, log.Err)
				require.Equal(t, toyAnswer(toyModel, l.reqs[i].Prompt, l.reqs[i].OutputTokens), log.Output, "request %d", i)
			}
			require.Less(t, refused, len(l.logs)/4)
			for _, d := range l.nodes {
				require.Empty(t, d.live, "KV caches left on %s", d.name)
			}
			f := l.figures()
			require.GreaterOrEqual(t, f["optimum_ratio"], 0.95, "%v", f)
			require.LessOrEqual(t, f["optimum_ratio"], 1+1e-9)
			require.Zero(t, f["policy_violations"])
			require.Positive(t, f["decision_time"])
			require.Positive(t, l.counted(record.Retries))
		})
	}
}

// TestX4OrchestratorUsesWhatThereIs: with a slow device everything is at nodes, with a fast one nothing is; data that may not leave does not; and a
// place that costs is not chosen.
func TestX4OrchestratorUsesWhatThereIs(t *testing.T) {
	run := func(set map[string]any, change func(l *lane)) (*lane, map[string]float64) {
		l := newLane(2, nil)
		set["period_ms"], set["start_ms"] = 500.0, 50.0
		change(l)
		require.NoError(t, l.use("orchestrate", set))
		people(l)
		l.check(t)
		return l, l.figures()
	}
	ops := func(l *lane) (device, nodes int) {
		for _, n := range l.nodes {
			nodes += n.ops
		}
		return l.device.ops, nodes
	}
	slow, f := run(map[string]any{}, func(l *lane) { l.device.token, l.device.step = ms(200), ms(400) })
	device, nodes := ops(slow)
	require.Zero(t, device)
	require.Positive(t, nodes)
	require.Greater(t, f["replicas_max"], 1.0, "one node is too few in the crest")
	quick, f := run(map[string]any{}, func(l *lane) { l.device.token, l.device.step = ms(0.1), ms(0.2) })
	device, nodes = ops(quick)
	require.Greater(t, device, 10*nodes, "but before the first decision")
	require.Less(t, f["replicas_mean"], 0.5, "nodes that nobody uses are off")
	kept, f := run(map[string]any{"data": "device"}, func(*lane) {})
	_, nodes = ops(kept)
	require.Zero(t, nodes)
	require.Zero(t, f["node_time"])
	for _, log := range kept.logs {
		require.Zero(t, log.RawBytesOut)
	}
	dear, _ := run(map[string]any{}, func(l *lane) {
		l.device.token, l.device.step = ms(200), ms(400)
		l.site.Nodes[1].Device = costly{l.site.Nodes[1].Device}
	})
	require.Less(t, dear.nodes[1].ops*5, dear.nodes[0].ops, "a reading of heat or carbon moves work away")
	even, _ := run(map[string]any{}, func(l *lane) { l.device.token, l.device.step = ms(200), ms(400) })
	require.Greater(t, even.nodes[1].ops*5, even.nodes[0].ops)
}

// costly is a node that somebody says is costly to use.
type costly struct{ hardware.Device }

func (costly) CostWeight() float64 { return 3 }

// Inner lets others ask the device inside for times.
func (c costly) Inner() hardware.Device { return c.Device }

// TestX2ShapedUplinks: over any time, the users of a cell send no more than its capacity together, and each transfer takes at least its
// bytes at the user's part.
func TestX2ShapedUplinks(t *testing.T) {
	const mbps = 0.16 // 20 kB/s; busy offers up to 17 kB/s
	for _, rule := range []string{"equal", "minmax", "minsum"} {
		l := newLane(2, nil)
		l.device.token, l.device.step = ms(200), ms(400)
		require.NoError(t, l.use("orchestrate", map[string]any{"cell_mbps": mbps, "bandwidth": rule, "period_ms": 500.0, "objective": "mean"}))
		people(l)
		l.run(t)
		bytes, end, quickest := 0.0, time.Duration(0), time.Hour
		for _, log := range l.logs {
			require.Equal(t, record.OK, log.Outcome, log.Err)
			bytes += float64(log.UpBytes)
			for _, s := range log.Spans {
				if s.Node == "up" && s.Kind == record.Transfer {
					end = max(end, s.End)
					quickest = min(quickest, s.End-s.Start)
					require.Greater(t, log.FirstToken, s.End, "nobody answers what has not arrived")
				}
			}
		}
		require.LessOrEqual(t, bytes, mbps*1e6/8*end.Seconds(), rule)
		require.GreaterOrEqual(t, quickest, ms(9.99), "no user has the whole cell: 200 B at 20 kB/s, %s", rule)
	}
}

func TestX4OrchestratorInBothWorlds(t *testing.T) {
	run := func(env world.Runner) (rows []string) {
		l := newLaneIn(env, 3, map[int][]time.Duration{1: {ms(3000.007)}})
		l.device.token, l.device.step = ms(40), ms(80)
		for i, d := range l.nodes {
			d.skew = true
			d.step += time.Duration(i)
		}
		l.device.skew = true
		require.NoError(t, l.use("orchestrate", map[string]any{"period_ms": 501.003, "start_ms": 49.001, "cell_mbps": 0.5}))
		people(l)
		l.run(t)
		for _, log := range l.logs {
			rows = append(rows, fmt.Sprintf("%+v", *log))
		}
		return append(rows, fmt.Sprint(l.figures()))
	}
	bothWorlds(t, run)
}

package pipeline

import (
	"container/heap"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/rng"
	"meibench/internal/units"
	"meibench/reference/orchestrate"
	"meibench/workloads"
)

// line is a stream of requests for a toy device on which a prompt token takes a microsecond: PromptTokens is the service time.
type line struct {
	arrive, service []time.Duration
}

const mean = 100 * time.Millisecond // of services

// poisson draws arrivals at a load of one server, and services from a law of mean 1.
func poisson(name string, n int, load float64, law func(r rng.Source) float64) (l line) {
	r, at := rng.Stream(17, "queueing", name), 0.0
	for range n {
		at += float64(mean) / load * rng.Exp(r)
		l.arrive = append(l.arrive, time.Duration(at))
		l.service = append(l.service, max(1, time.Duration(law(r)*float64(mean/time.Microsecond)))*time.Microsecond)
	}
	return l
}

// one is the same size for everybody, twoSizes is short or long: mean 1, second moment 2.
func one(rng.Source) float64 { return 1 }

func twoSizes(r rng.Source) float64 {
	if rng.Float64(r) < 0.8 {
		return 0.5
	}
	return 3
}

// direct asks a node and does nothing else; the node's slots are the servers.
type direct struct {
	env world.Env
	dev hardware.Device
}

func (p *direct) Start(env world.Env, site *hardware.Site, _ Models) error {
	p.env, p.dev = env, site.Nodes[0].Device
	return nil
}

func (p *direct) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	op := hardware.Op{Kind: hardware.Prefill, Model: toyModel, Layers: toyModel.All(), Seqs: []hardware.Seq{{ID: int64(req.ID), New: req.PromptTokens}}}
	return alone(p.dev, &op, 1, log, func(out hardware.Out, u hardware.Usage) { emit(log, u, out.Token) })
}

// through runs the line through a pipeline in the modelled world and returns how long each request was in the system.
func (l line) through(t *testing.T, set func(s *scene) error) (sojourn []time.Duration) {
	s := newScene(world.NewSim(nil))
	s.up.rate, s.down.rate = math.Inf(1), math.Inf(1)
	s.up.delay, s.down.delay = 0, 0
	s.device.token, s.edge.token = time.Microsecond, time.Microsecond
	require.NoError(t, set(s))
	for i, at := range l.arrive {
		s.reqs = append(s.reqs, workloads.Request{ArriveAt: at, PromptTokens: int(l.service[i] / time.Microsecond), OutputTokens: 1})
	}
	s.run(t)
	for _, log := range s.logs {
		require.Equal(t, record.OK, log.Outcome, log.Err)
		sojourn = append(sojourn, log.Done-log.Intended)
	}
	return sojourn
}

// lindley is the first-come, first-served queue with c servers in integer nanoseconds: whoever comes takes the server that is free first
// (Lindley 1952; Kiefer and Wolfowitz 1955).
func (l line) lindley(c int) (sojourn []time.Duration) {
	free := make(times, c)
	for i, at := range l.arrive {
		end := max(at, free[0]) + l.service[i]
		free[0] = end
		heap.Fix(&free, 0)
		sojourn = append(sojourn, end-at)
	}
	return sojourn
}

type times []time.Duration

func (t times) Len() int           { return len(t) }
func (t times) Less(i, j int) bool { return t[i] < t[j] }
func (t times) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *times) Push(x any)        { *t = append(*t, x.(time.Duration)) }
func (t *times) Pop() any          { panic("nobody leaves") }

// average is in units of the mean service time.
func average(ts []time.Duration) float64 {
	sum := 0.0
	for _, t := range ts {
		sum += float64(t) / float64(mean)
	}
	return sum / float64(len(ts))
}

// TestX4QueuesInTheWorld: pipelines in the modelled world are the queues that they should be, to the nanosecond; and their mean
// is that of the closed forms, within what 30,000 requests allow.
func TestX4QueuesInTheWorld(t *testing.T) {
	local := func(s *scene) error { return s.use("local", nil) }
	offload := func(s *scene) error { return s.use("offload", map[string]any{"batch": 1.0}) }
	pool := func(c int) func(s *scene) error {
		return func(s *scene) error {
			s.edge.turn = world.NewSlots(s.env, c)
			p := &direct{}
			s.pipe = p
			return p.Start(s.env, s.site, Models{})
		}
	}
	for _, tc := range []struct {
		name    string
		load    float64
		law     func(rng.Source) float64
		set     func(*scene) error
		servers int
		want    orchestrate.Queue
	}{
		{"M/M/1 on the device", 0.6, rng.Exp, local, 1, orchestrate.MM1(0.6, 1)},
		{"M/M/1 at the edge", 0.6, rng.Exp, offload, 1, orchestrate.MM1(0.6, 1)},
		{"M/D/1 on the device", 0.7, one, local, 1, orchestrate.MD1(0.7, 1)},
		{"M/D/1 at the edge", 0.7, one, offload, 1, orchestrate.MD1(0.7, 1)},
		{"M/G/1 at the edge", 0.6, twoSizes, offload, 1, orchestrate.MG1(0.6, 1, 2)},
		{"M/M/3", 2.1, rng.Exp, pool(3), 3, orchestrate.MMC(2.1, 1, 3)},
		{"M/M/8", 6.4, rng.Exp, pool(8), 8, orchestrate.MMC(6.4, 1, 8)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := poisson(tc.name, 30_000, tc.load, tc.law)
			got := l.through(t, tc.set)
			for i, want := range l.lindley(tc.servers) {
				require.Equal(t, want, got[i], "request %d", i)
			}
			require.InEpsilon(t, tc.want.Sojourn, average(got), 0.04)
		})
	}
}

// TestX4ProcessorSharing: a server that decodes everybody in one batch, each step as long as there are sequences in it, shares itself evenly:
// the mean time is S/(1-rho) whatever the law of answers (M/G/1-PS), and grows with the answer's length alone.
func TestX4ProcessorSharing(t *testing.T) {
	const tokens, load = 40, 0.6
	for name, law := range map[string]func(rng.Source) float64{"fixed": one, "mixed": twoSizes} {
		s := newScene(world.NewSim(nil))
		s.up.rate, s.down.rate, s.up.delay, s.down.delay = math.Inf(1), math.Inf(1), 0, 0
		s.edge.token, s.edge.step, s.edge.seq = 1, 0, mean/tokens
		require.NoError(t, s.use("offload", map[string]any{"batch": 4096.0}))
		r, at := rng.Stream(5, "sharing", name), 0.0
		for range 12_000 {
			at += float64(mean) / load * rng.Exp(r)
			s.reqs = append(s.reqs, workloads.Request{ArriveAt: time.Duration(at), PromptTokens: 1, OutputTokens: 1 + int(math.Round(law(r)*tokens))})
		}
		s.run(t)
		var all, short, long []time.Duration
		for i, log := range s.logs {
			all = append(all, log.Done-log.Intended)
			if s.reqs[i].OutputTokens <= tokens/2+1 {
				short = append(short, log.Done-log.Intended)
			} else {
				long = append(long, log.Done-log.Intended)
			}
		}
		want := orchestrate.PS(load, 1).Sojourn
		require.InEpsilon(t, want, average(all), 0.06, name) // a step is 1/40 of a service
		if name == "mixed" {                                 // everybody is slowed down alike
			require.InEpsilon(t, want*0.5, average(short), 0.08)
			require.InEpsilon(t, want*3, average(long), 0.08)
		}
	}
}

// TestLinksWithoutEndsAreNoLinks: over links of infinite rate and no delay an edge server is as quick as the same machine in the user's
// hand, to the nanosecond, whatever the pipeline does with them; and a dead uplink leaves exactly the device's own times.
func TestLinksWithoutEndsAreNoLinks(t *testing.T) {
	type stamps struct{ first, last, done time.Duration }
	run := func(name string, set map[string]any, change func(s *scene)) (out []stamps) {
		s := newScene(world.NewSim(nil))
		s.edge.token, s.edge.step, s.edge.seq = s.device.token, s.device.step, s.device.seq
		change(s)
		require.NoError(t, s.use(name, set))
		load(s)
		s.run(t)
		for _, log := range s.logs {
			require.Equal(t, record.OK, log.Outcome, log.Err)
			out = append(out, stamps{log.FirstToken, log.LastToken, log.Done})
		}
		return out
	}
	free := func(s *scene) {
		s.up.rate, s.down.rate, s.up.delay, s.down.delay = math.Inf(1), math.Inf(1), 0, 0
	}
	dead := func(s *scene) { s.up.rate, s.up.fail = 0, hardware.ErrLinkDown }
	same := func(want, got []stamps, what string) {
		t.Helper()
		require.Equal(t, len(want), len(got))
		for i := range want {
			require.Equal(t, want[i], got[i], "request %d, %s", i, what)
		}
	}
	alone := run("local", nil, func(*scene) {})
	same(alone, run("offload", map[string]any{"batch": 1.0}, free), "server-only")
	same(alone, run("fallback", map[string]any{"batch": 1.0}, free), "server-only")
	same(alone, run("fallback", nil, dead), "device-only")
	same(alone, run("fallback", map[string]any{"retry_ms": 0.0}, dead), "device-only, though each request tries")
	small := func(s *scene) { s.device.token, s.device.step = s.device.token/2, s.device.step/2 }
	same(run("local", nil, small), run("route", map[string]any{"share": 0.0}, dead), "the small model has half the layers; nothing is sent up")
	require.False(t, slices.Equal(alone, run("offload", map[string]any{"batch": 1.0}, func(s *scene) { free(s); s.down.delay = 1 })), "one nanosecond is seen")
	require.True(t, slices.IsSortedFunc(alone, func(a, b stamps) int { return int(a.done - b.done) }), "first come, first served")
	require.Zero(t, units.TransferTime(1e9, math.Inf(1)))
}

package harness

import (
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/pipeline"
	"meibench/harness/record"
	"meibench/workloads"
)

// null answers at once: what is left is the cost of the generator itself.
type null struct{ env world.Env }

func (p *null) Start(world.Env, *hardware.Site, pipeline.Models) error { return nil }

func (p *null) Handle(req *workloads.Request, log *record.Request) error {
	log.Sent = p.env.Now()
	log.Token(log.Sent, req.OutputTokens)
	return nil
}

// every yields n requests, one each gap.
func every(gap time.Duration, n int) iter.Seq[workloads.Request] {
	return func(yield func(workloads.Request) bool) {
		for i := range n {
			if !yield(workloads.Request{ID: i, ArriveAt: time.Duration(i) * gap, PromptTokens: 10, OutputTokens: 1}) {
				return
			}
		}
	}
}

// fixed serves each request alone for a fixed time.
type fixed struct {
	null
	turn *world.Slots
	time time.Duration
}

func (p *fixed) Handle(req *workloads.Request, log *record.Request) error {
	p.turn.Acquire()
	defer p.turn.Release()
	start := p.env.Now()
	p.env.Sleep(p.time)
	log.Spent(record.Compute, "server", start, p.env.Now())
	log.Token(p.env.Now(), req.OutputTokens)
	return nil
}

// A backlog must show in the latency of every request behind it: the server
// takes 3 ms, a request comes each 2 ms, so request i waits i ms in line.
func TestLatencyCountsFromTheIntendedTime(t *testing.T) {
	for _, name := range []string{"sim", "real"} {
		t.Run("world="+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var env world.Runner = world.NewSim(nil)
				if name == "real" {
					env = timerOnly{world.NewReal(nil)} // a fake clock stands still while one spins
				}
				var e2e, queue []time.Duration
				d := newDriver(env, &fixed{null{env}, world.NewSlots(env, 1), 3 * time.Millisecond}, func(_ *workloads.Request, log *record.Request) {
					require.NoError(t, log.Check())
					e2e = append(e2e, log.Done-log.Intended)
					q := time.Duration(0)
					for _, s := range log.Spans {
						if s.Kind == record.Queue {
							q += s.End - s.Start
						}
					}
					queue = append(queue, q)
				})
				d.offer(every(2*time.Millisecond, 50))
				require.NoError(t, env.Run())
				for i := range e2e {
					require.Equal(t, time.Duration(i)*time.Millisecond, queue[i])
					require.Equal(t, time.Duration(i+3)*time.Millisecond, e2e[i])
				}
				require.Equal(t, 50, d.offered)
				require.Equal(t, 50, d.finished)
			})
		})
	}
}

// timerOnly hides SleepUntil.
type timerOnly struct{ world.Runner }

// Two users, each 3 ms of service and 1 ms of thought, six requests in all.
func TestClosedLoopAsksAgainAfterTheAnswer(t *testing.T) {
	env := world.NewSim(nil)
	var at []time.Duration
	d := newDriver(env, &fixed{null{env}, world.NewSlots(env, 2), 3 * time.Millisecond}, func(_ *workloads.Request, log *record.Request) {
		require.NoError(t, log.Check())
		at = append(at, log.Intended)
	})
	d.follow = func(r workloads.Request, done time.Duration) []workloads.Request {
		if r.ID >= 4 {
			return nil
		}
		r.ID += 2
		r.ArriveAt = done + time.Millisecond
		return []workloads.Request{r}
	}
	d.offer(every(0, 2))
	require.NoError(t, env.Run())
	ms := time.Millisecond
	require.Equal(t, []time.Duration{0, 0, 4 * ms, 4 * ms, 8 * ms, 8 * ms}, at)
	require.Equal(t, 6, d.offered)
}

func TestIssuePathDoesNotAllocate(t *testing.T) {
	const n = 20_000
	got := testing.AllocsPerRun(1, func() { issue(world.NewReal(nil), n) })
	require.Less(t, got/n, 0.02, "allocations per request in steady state") // warm-up amortised
}

func issue(env world.Runner, n int) {
	d := newDriver(env, &null{env}, func(*workloads.Request, *record.Request) {})
	d.offer(every(0, n))
	if err := env.Run(); err != nil || d.finished != n {
		panic("issue path lost requests")
	}
}

// BenchmarkIssue is the generator with a null device: CPU per request offered.
func BenchmarkIssue(b *testing.B) {
	for _, tc := range []struct {
		name string
		env  func() world.Runner
	}{
		{"world=real", func() world.Runner { return world.NewReal(nil) }},
		{"world=sim", func() world.Runner { return world.NewSim(nil) }},
	} {
		b.Run(tc.name+"/device=null", func(b *testing.B) {
			b.ReportAllocs()
			issue(tc.env(), b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}

// TestX4LittlesLawIsExact: the driver's two sums are equal, and a record that ends at another time than its request is found.
func TestX4LittlesLawIsExact(t *testing.T) {
	for _, late := range []time.Duration{0, 1} {
		env, w := world.NewSim(nil), time.Duration(0)
		d := newDriver(env, &fixed{null{env}, world.NewSlots(env, 2), 7 * time.Millisecond}, func(_ *workloads.Request, log *record.Request) {
			w += log.Done - log.Released
		})
		d.offer(every(3*time.Millisecond, 200))
		env.Go("one that says too much", func() {
			env.Sleep(time.Second)
			f := d.flight(&workloads.Request{ID: 200, ArriveAt: env.Now()})
			f.begin()
			d.census.step(env.Now(), -1)
			d.census.stays += uint64(late)
		})
		require.NoError(t, env.Run())
		require.Equal(t, uint64(w+late), d.census.stays)
		if late == 0 {
			require.NoError(t, d.census.check())
			require.Equal(t, uint64(w), d.census.area)
			continue
		}
		require.ErrorContains(t, d.census.check(), "Little's law is broken")
	}
}

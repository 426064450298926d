package serving

import (
	"fmt"
	"math/bits"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/rng"
	"meibench/internal/units"
)

var model = &hardware.Model{Name: "toy", Arch: "llama", Quant: "f32", Layers: 2, Dim: 8, Heads: 2, KVHeads: 1,
	HeadDim: 4, FFN: 16, Vocab: 32, BytesPerWeight: 4, KVBytes: 4, LoRARank: 2}

var held = Held{model, hardware.Span{Hi: 2}}

// counter is a device that takes 1 ms a token and keeps books: what it is asked
// must agree with what it holds.
type counter struct {
	env    world.Env
	memory units.Bytes
	cached map[int64]int
	loaded map[string]bool
	most   int // adapters at once
	shapes []string
	tokens int
}

func (d *counter) Spec() hardware.DeviceSpec {
	return hardware.DeviceSpec{Name: "edge", Slots: 1, Memory: d.memory, Ops: hardware.Set(hardware.Prefill, hardware.Decode, hardware.Drop, hardware.Load)}
}

func (d *counter) Run(op *hardware.Op) (hardware.Result, error) {
	switch op.Kind {
	case hardware.Drop:
		for _, s := range op.Seqs {
			if s.Adapter != "" {
				delete(d.loaded, s.Adapter)
			} else {
				delete(d.cached, s.ID)
			}
		}
		return hardware.Result{}, nil
	case hardware.Load:
		d.loaded[op.Seqs[0].Adapter] = true
		d.most = max(d.most, len(d.loaded))
		d.env.Sleep(5 * time.Millisecond)
		return hardware.Result{}, nil
	}
	n, outs := 0, make([]hardware.Out, len(op.Seqs))
	for i, s := range op.Seqs {
		if d.cached[s.ID] != s.Context {
			return hardware.Result{}, fmt.Errorf("sequence %d has %d, not %d", s.ID, d.cached[s.ID], s.Context)
		}
		if s.Adapter != "" && !d.loaded[s.Adapter] {
			return hardware.Result{}, fmt.Errorf("adapter %s is not there", s.Adapter)
		}
		d.cached[s.ID] += s.New
		n += s.New
		outs[i].Token = hardware.NoToken
	}
	d.tokens += n
	d.shapes = append(d.shapes[:min(len(d.shapes), 1000)], fmt.Sprintf("%v %d×%d", op.Kind, len(op.Seqs), n))
	start := d.env.Now()
	d.env.Sleep(time.Duration(n) * time.Millisecond)
	return hardware.Result{Seqs: outs, Usage: hardware.Usage{Start: start, End: d.env.Now(), FLOP: 1}}, nil
}

// shop is a server, its device and what came of its jobs.
type shop struct {
	env    *world.Sim
	dev    *counter
	srv    *Server
	tokens map[int64]int
	ends   map[int64]time.Duration
	errs   map[int64]error
}

func open(t *testing.T, o Options, room int) *shop {
	env := world.NewSim(nil)
	s := &shop{env: env, dev: &counter{env: env, cached: map[int64]int{}, loaded: map[string]bool{}},
		tokens: map[int64]int{}, ends: map[int64]time.Duration{}, errs: map[int64]error{}}
	if room > 0 {
		s.dev.memory = model.WeightBytes(held.Span) + units.Bytes(room)*held.perToken()
	}
	var err error
	s.srv, err = New(env, hardware.Node{Name: "edge", Device: s.dev}, o, held)
	require.NoError(t, err)
	return s
}

// ask puts a job at a time.
func (s *shop) ask(at time.Duration, j *Job) {
	j.Held = held
	j.Emit = func(hardware.Out, hardware.Usage) { s.tokens[j.ID]++ }
	done, cond := false, s.env.NewCond()
	j.Finish = func(err error) {
		s.ends[j.ID], s.errs[j.ID] = s.env.Now(), err
		s.srv.Free(j)
		done = true
		cond.Signal()
	}
	s.env.Go(fmt.Sprint("job ", j.ID), func() {
		s.env.Sleep(at)
		s.srv.Put(j)
		for !done {
			cond.Wait()
		}
	})
}

const ms = time.Millisecond

func TestI2ShapesOfPolicies(t *testing.T) {
	for _, tc := range []struct {
		name string
		opt  Options
		want []string
	}{
		{"continuous", Options{Most: 4}, []string{"prefill 1×6", "decode 1×1", "prefill 1×3", "decode 2×2"}},
		{"static", Options{Policy: "static", Most: 4}, []string{"prefill 1×6", "decode 1×1", "decode 1×1", "prefill 1×3", "decode 1×1"}},
		{"chunked", Options{Policy: "chunked", Most: 4, Chunk: 4}, []string{"prefill 1×4", "prefill 2×4", "prefill 2×2", "decode 2×2"}},
		{"one at a time", Options{Most: 1}, []string{"prefill 1×6", "decode 1×1", "decode 1×1", "prefill 1×3", "decode 1×1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t, tc.opt, 0)
			s.ask(0, &Job{ID: 1, Prompt: 6, Limit: 3})
			s.ask(ms, &Job{ID: 2, Prompt: 3, Limit: 2})
			require.NoError(t, s.env.Run())
			require.Equal(t, map[int64]int{1: 3, 2: 2}, s.tokens)
			require.Equal(t, tc.want, s.dev.shapes)
		})
	}
}

// TestI2WorkIsConserved: under every policy each request gets what it asked for,
// the device processes prompts and answers once and what preemption cost again,
// and all memory comes back.
func TestI2WorkIsConserved(t *testing.T) {
	preempted := 0
	defer func() { require.Greater(t, preempted, 50, "pages run out here") }()
	for _, p := range Policies {
		for _, paged := range []bool{false, true} {
			for seed := range uint64(8) {
				t.Run(fmt.Sprint(p.Name, " paged=", paged, " seed=", seed), func(t *testing.T) {
					s := open(t, Options{Policy: p.Name, Most: 5, Chunk: 7, Paged: paged, Block: 4, Adapters: 2}, 90)
					r := rng.Stream(seed, "jobs")
					want, work := map[int64]int{}, 0
					for id := range int64(60) {
						j := &Job{ID: id, Prompt: 1 + r.IntN(30), Limit: 1 + r.IntN(20), Adapter: []string{"", "a", "b", "c"}[r.IntN(4)]}
						want[id] = j.Limit
						work += j.Prompt + j.Limit - 1
						s.ask(time.Duration(r.IntN(2000))*ms, j)
					}
					require.NoError(t, s.env.Run())
					for id, err := range s.errs {
						require.NoError(t, err, "job %d", id)
					}
					require.Equal(t, want, s.tokens)
					st := s.srv.Stats()
					require.Equal(t, work+st.Redone, s.dev.tokens)
					require.Equal(t, s.dev.tokens, st.Tokens)
					require.Equal(t, st.Taken, st.Freed)
					require.Equal(t, s.srv.view.Total, s.srv.view.Free)
					require.Empty(t, s.dev.cached)
					require.LessOrEqual(t, s.dev.most, 2, "adapters in memory")
					if preempted += st.Preempted; !paged {
						require.Zero(t, st.Preempted)
					}
				})
			}
		}
	}
}

// TestI2LittlesLaw: the mean number in the server is the rate times the mean stay.
func TestI2LittlesLaw(t *testing.T) {
	s := open(t, Options{Most: 3}, 0)
	r := rng.Stream(4, "arrivals")
	at, area, last, inside := time.Duration(0), 0.0, time.Duration(0), 0
	move := func(d int) {
		area += float64(inside) * (s.env.Now() - last).Seconds()
		inside, last = inside+d, s.env.Now()
	}
	var stay time.Duration
	for id := range int64(500) {
		at += time.Duration(20e6 * rng.Exp(r))
		j := &Job{ID: id, Prompt: 1 + r.IntN(8), Limit: 1 + r.IntN(4)}
		came := at
		s.ask(at, j)
		finish := j.Finish
		j.Finish = func(err error) {
			finish(err)
			stay += s.env.Now() - came
			move(-1)
		}
		s.env.Go("came", func() { s.env.Sleep(came); move(1) })
	}
	require.NoError(t, s.env.Run())
	require.InEpsilon(t, stay.Seconds(), area, 1e-9)
	require.Equal(t, 500, len(s.ends))
}

// TestI2SelectIsTheLargestSet compares the search with all subsets of up to ten
// waiting requests.
func TestI2SelectIsTheLargestSet(t *testing.T) {
	late, short := 0, 0
	for seed := range uint64(300) {
		r := rng.Stream(seed, "waiting")
		v := View{Most: 1 + r.IntN(8), Bounded: true, Total: 1 << 20, Free: units.Bytes(200+r.IntN(2000)) * held.perToken() / 16, Now: 5 * ms,
			Pace: Pace{Token: ms, Step: 3 * ms, Extra: ms}}
		for range 1 + r.IntN(10) {
			v.Waiting = append(v.Waiting, &Job{Held: held, Todo: 1 + r.IntN(40), Left: 1 + r.IntN(20), Grow: 1 + r.IntN(60), Deadline: time.Duration(1+r.IntN(200)) * ms})
		}
		best := 0
		for set := range 1 << len(v.Waiting) {
			var which []int
			for i := range v.Waiting {
				if set>>i&1 == 1 {
					which = append(which, i)
				}
			}
			if Feasible(&v, which) {
				best = max(best, bits.OnesCount(uint(set)))
			}
		}
		got := Select(&v, nil)
		if best == 0 {
			late++
			require.LessOrEqual(t, len(got), 1, "who cannot be in time is served alone")
			continue
		}
		require.True(t, Feasible(&v, got))
		require.Len(t, got, best, "seed %d", seed)
		if best < min(v.Most, len(v.Waiting)) {
			short++
		}
	}
	require.Greater(t, late, 5)
	require.Greater(t, short, 50, "where a choice had to be made")
}

func TestI2HopelessRequestsAreRefused(t *testing.T) {
	s := open(t, Options{Policy: "slo", Most: 2, Reject: true}, 0)
	s.ask(0, &Job{ID: 1, Prompt: 10, Limit: 5}) // the server learns its pace
	s.ask(50*ms, &Job{ID: 2, Prompt: 50, Limit: 5, Deadline: 60 * ms})
	s.ask(50*ms, &Job{ID: 3, Prompt: 5, Limit: 2, Deadline: 90 * ms})
	require.NoError(t, s.env.Run())
	require.ErrorIs(t, s.errs[2], ErrHopeless)
	require.NoError(t, s.errs[3])
	require.Less(t, s.ends[3], 90*ms)
}

func TestI3AdaptersComeAndGo(t *testing.T) {
	s := open(t, Options{Most: 8, Adapters: 1}, 0)
	for id, a := range []string{"a", "b", "a", "b"} {
		s.ask(0, &Job{ID: int64(id), Prompt: 2, Limit: 3, Adapter: a})
	}
	require.NoError(t, s.env.Run())
	for id := range int64(4) {
		require.NoError(t, s.errs[id])
	}
	require.Equal(t, 1, s.dev.most)
	require.Equal(t, 6, s.srv.Stats().Swaps, "one for each of two adapters in each of three steps")
}

func TestSessionsShareOperations(t *testing.T) {
	s := open(t, Options{Most: 4}, 100)
	for id := range int64(2) {
		s.env.Go("session", func() {
			x := s.srv.Open(id, held, 10)
			defer x.Close()
			_, _, err := x.Step(Step{Kind: hardware.Prefill, Seq: hardware.Seq{New: 4}})
			require.NoError(t, err)
			_, _, err = x.Step(Step{Kind: hardware.Decode, Seq: hardware.Seq{Context: 4, New: 1}})
			require.NoError(t, err)
		})
	}
	require.NoError(t, s.env.Run())
	require.Equal(t, []string{"prefill 2×8", "decode 2×2"}, s.dev.shapes)
	require.Equal(t, s.srv.Stats().Taken, s.srv.Stats().Freed)
	_, err := New(s.env, hardware.Node{Name: "x", Device: s.dev}, Options{Policy: "fifo"}, held)
	require.ErrorContains(t, err, "unknown policy \"fifo\" (have chunked, continuous, slo, static)")
}

// TestI2StayIsMD1s: one server, equal jobs, Poisson arrivals: the mean stay is
// D + R·D²/(2(1-R·D)), Pollaczek and Khinchine's, to 1 %.
func TestI2StayIsMD1s(t *testing.T) {
	for _, load := range []float64{0.3, 0.6} {
		s := open(t, Options{Most: 1}, 0)
		r := rng.Stream(9, "poisson")
		const jobs, service = 150_000, 0.004
		at, stay := time.Duration(0), time.Duration(0)
		s.env.Go("arrivals", func() {
			for id := range int64(jobs) {
				at += time.Duration(service / load * 1e9 * rng.Exp(r))
				s.env.Sleep(max(0, at-s.env.Now()))
				j := &Job{ID: id, Prompt: 3, Limit: 2, Held: held, Emit: func(hardware.Out, hardware.Usage) {}} // 3 ms and 1 ms
				came := s.env.Now()
				done, cond := false, s.env.NewCond()
				j.Finish = func(error) { stay += s.env.Now() - came; s.srv.Free(j); done = true; cond.Signal() }
				s.srv.Put(j)
				if id == jobs-1 {
					for !done {
						cond.Wait()
					}
				}
			}
		})
		require.NoError(t, s.env.Run())
		rate := load / service
		want := service + rate*service*service/(2*(1-load))
		require.InEpsilon(t, want, stay.Seconds()/jobs, 0.01, "load %g", load)
	}
}

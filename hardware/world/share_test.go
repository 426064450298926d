package world

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// kinds of share that must agree where their rate stays as it is.
var shareKinds = map[string]func(Env) *Share{
	"fixed":      NewShare,
	"adjustable": func(e Env) *Share { return NewAdjustableShare(e, 1) },
	"gain of 1":  func(e Env) *Share { return NewGainShare(e, func(int) float64 { return 1 }) },
}

// By hand. A (3 s of work) is alone for 1 s. B (1 s) joins at 1 s: both at half
// speed, so B is done at 3 s and A has 1 s left: done at 4 s.
func TestX2ShareByHand(t *testing.T) {
	for name, build := range shareKinds {
		t.Run(name, func(t *testing.T) {
			both(t, nil, func(t *testing.T, r Runner) {
				s := build(r)
				done := map[string]time.Duration{}
				use := func(name string, at time.Duration, work float64) {
					r.Go(name, func() { r.Sleep(at); s.Use(work, 1); done[name] = r.Now() })
				}
				use("a", 0, 3)
				use("b", time.Second, 1)
				use("c", 10*time.Second, 0.5)
				require.NoError(t, r.Run())
				require.Equal(t, map[string]time.Duration{"a": 4 * time.Second, "b": 3 * time.Second, "c": 10500 * time.Millisecond}, done)
				require.Equal(t, 4500*time.Millisecond, s.Busy(), "work is conserved")
			})
		})
	}
}

// Weights 1 and 2: B has two thirds. A 2 s, B 2 s: B is done after 3 s, when A
// has had 1 s; A alone needs 1 s more.
func TestX2ShareWeights(t *testing.T) {
	both(t, nil, func(t *testing.T, r Runner) {
		s := NewShare(r)
		var a, b time.Duration
		r.Go("a", func() { s.Use(2, 1); a = r.Now() })
		r.Go("b", func() { s.Use(2, 2); b = r.Now(); require.Equal(t, 1.0, s.Load()); require.Equal(t, 1, s.Flows()) })
		require.NoError(t, r.Run())
		require.Equal(t, 3*time.Second, b)
		require.Equal(t, 4*time.Second, a)
	})
}

// Rate 1 for 1 s, 0 for 1 s, 4 from then on: 3 s of work end at 2.5 s. Two flows
// of 2 s under the same rates: 1 of their 4 s is done at 2 s, the rest takes 0.75 s.
func TestX2ShareChangesItsRate(t *testing.T) {
	for n, want := range map[int]time.Duration{1: 2250 * time.Millisecond, 2: 2750 * time.Millisecond} {
		both(t, nil, func(t *testing.T, r Runner) {
			s := NewAdjustableShare(r, 1)
			var ends []time.Duration
			for range n {
				r.Go("flow", func() { s.Use(2, 1); ends = append(ends, r.Now()) })
			}
			r.Go("weather", func() {
				r.Sleep(time.Second)
				s.SetRate(0)
				r.Sleep(time.Second)
				s.SetRate(4)
			})
			require.NoError(t, r.Run())
			for _, e := range ends {
				require.Equal(t, want, e)
			}
			require.Len(t, ends, n)
		})
	}
}

// A gain of 1.5 for two: two flows of 3 s end after 4 s instead of 6.
func TestX2ShareGain(t *testing.T) {
	both(t, nil, func(t *testing.T, r Runner) {
		s := NewGainShare(r, func(n int) float64 { return []float64{1, 1, 1.5}[n] })
		for range 2 {
			r.Go("flow", func() { s.Use(3, 1); require.Equal(t, 4*time.Second, r.Now()) })
		}
		require.NoError(t, r.Run())
		require.Panics(t, func() { s.Use(1, 2) })
	})
}

// Taken time delays who is in service and lets nobody in between; the resource
// is never more than busy.
func TestX2ShareTake(t *testing.T) {
	for name, build := range shareKinds {
		t.Run(name, func(t *testing.T) {
			both(t, nil, func(t *testing.T, r Runner) {
				s := build(r)
				r.Go("bulk", func() { s.Use(2, 1); require.Equal(t, 2500*time.Millisecond, r.Now()) })
				r.Go("tokens", func() {
					r.Sleep(time.Second)
					from, to := s.Take(0.2)
					require.Equal(t, []time.Duration{time.Second, 1200 * time.Millisecond}, []time.Duration{from, to})
					from, to = s.Take(0.3)
					require.Equal(t, []time.Duration{1200 * time.Millisecond, 1500 * time.Millisecond}, []time.Duration{from, to})
					r.Sleep(4 * time.Second)
					s.Take(1)
					r.Sleep(2 * time.Second)
					require.Equal(t, 3500*time.Millisecond, s.Busy())
				})
				require.NoError(t, r.Run())
			})
		})
	}
}

func TestX2ShareRecent(t *testing.T) {
	r := NewSim(nil)
	s := NewShare(r)
	r.Go("p", func() {
		require.Zero(t, s.Recent())
		s.Use(1, 1)
		require.InDelta(t, 1-0.36787944, s.Recent(), 1e-8) // 1 - 1/e
		r.Sleep(time.Second)
		require.InDelta(t, 0.36787944*(1-0.36787944), s.Recent(), 1e-8)
		r.Sleep(time.Hour)
		s.Take(1)
		r.Sleep(2 * time.Second)
		require.InDelta(t, 0.36787944*(1-0.36787944), s.Recent(), 1e-8)
	})
	require.NoError(t, r.Run())
}

// crowd is an M/G/1-PS queue; it returns the sojourn times.
func crowd(r Runner, s *Share, n int, rho float64, work func(rng.Source) float64) []time.Duration {
	out := make([]time.Duration, n)
	key, gaps := rng.NewKey(5, "work"), rng.Stream(5, "gaps")
	r.Go("arrivals", func() {
		for id := range n {
			r.Sleep(time.Duration(1e9 * rng.Exp(gaps) / rho))
			r.Go("flow", func() {
				from, l := r.Now(), key.At(uint64(id))
				s.Use(work(&l), 1)
				out[id] = r.Now() - from
			})
		}
	})
	if err := r.Run(); err != nil {
		panic(err)
	}
	return out
}

// works of mean 1 s.
var works = map[string]func(rng.Source) float64{
	"deterministic": func(rng.Source) float64 { return 1 },
	"exponential":   func(l rng.Source) float64 { return rng.Exp(l) },
	"two kinds": func(l rng.Source) float64 { // squared coefficient of variation 8.2
		if rng.Float64(l) < 0.9 {
			return rng.Exp(l) / 3
		}
		return 7 * rng.Exp(l)
	},
}

// M/G/1-PS: the mean sojourn is E[S]/(1-ρ) whatever the law of the work
// (Kleinrock 1967; insensitivity: Sakata, Noguchi, Oizumi 1971).
func TestX2ProcessorSharingIsInsensitive(t *testing.T) {
	const n, rho = 60_000, 0.6
	for name, work := range works {
		t.Run(name, func(t *testing.T) {
			r := NewSim(nil)
			s := NewShare(r)
			sum := 0.0
			for _, d := range crowd(r, s, n, rho, work) {
				sum += d.Seconds()
			}
			require.InEpsilon(t, 1/(1-rho), sum/n, 0.06)
			l, total := rng.NewKey(5, "work"), 0.0
			for id := range n {
				luck := l.At(uint64(id))
				total += work(&luck)
			}
			require.InDelta(t, total, s.Busy().Seconds(), n*1e-9, "work is conserved to a nanosecond a flow")
			require.Less(t, float64(r.Events())/n, 5.0, "start, arrival, and about two events a flow")
		})
	}
}

// Alike shares agree in both worlds to the nanosecond, but an adjustable one may
// end flows of one instant a nanosecond apart from a fixed one.
func TestX2SharesAgreeInBothWorlds(t *testing.T) {
	for kind, build := range shareKinds {
		for name, work := range works {
			r := NewSim(nil)
			want := crowd(r, build(r), 300, 0.8, work)
			synctest.Test(t, func(t *testing.T) {
				r := NewReal(nil)
				require.Equal(t, want, crowd(r, build(r), 300, 0.8, work), "%s %s", kind, name)
			})
			f := NewSim(nil)
			for i, d := range crowd(f, NewShare(f), 300, 0.8, work) {
				require.InDelta(t, float64(d), float64(want[i]), 300, "%s %s %d", kind, name, i)
			}
		}
	}
}

func TestX2ShareRefuses(t *testing.T) {
	s := NewShare(NewSim(nil))
	for _, bad := range []func(){
		func() { s.Use(-1, 1) }, func() { s.Use(1, 0) }, func() { s.SetRate(2) }, func() { s.Take(-1) },
		func() { NewAdjustableShare(NewSim(nil), -1) },
	} {
		require.Panics(t, bad)
	}
}

func BenchmarkShare(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			r := NewSim(nil)
			s := NewShare(r)
			left := b.N
			for i := range n {
				r.Go("flow", func() {
					for ; left > 0; left-- {
						s.Use(1e-3*float64(1+i%7), 1)
					}
				})
			}
			b.ResetTimer()
			_ = r.Run()
			b.ReportMetric(float64(r.Events())/float64(b.N), "events/op")
		})
	}
}

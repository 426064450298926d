package world

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// both runs a test in the modelled world and, under a fake clock, in the real one.
func both(t *testing.T, ctx context.Context, test func(t *testing.T, r Runner)) {
	t.Run("world=sim", func(t *testing.T) { test(t, NewSim(ctx)) })
	t.Run("world=real", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, NewReal(ctx)) })
	})
}

func TestOrderAtOneInstant(t *testing.T) {
	both(t, nil, func(t *testing.T, r Runner) {
		var got []string
		say := func(s string) { got = append(got, s) }
		c := r.NewCond()
		for i := range 3 {
			r.Go(fmt.Sprint("waiter ", i), func() { c.Wait(); say(fmt.Sprint("woke ", i)) })
		}
		r.Go("boss", func() {
			r.Sleep(time.Millisecond)
			c.Signal()
			c.Broadcast()
			r.Go("late", func() { say("late") })
			say("boss first")
			r.Sleep(0)
			say("boss last")
		})
		require.NoError(t, r.Run())
		require.Equal(t, []string{"boss first", "woke 0", "woke 1", "woke 2", "late", "boss last"}, got)
		require.Equal(t, time.Millisecond, r.Now())
	})
}

func TestServeDoesNotHoldTheRun(t *testing.T) {
	both(t, nil, func(t *testing.T, r Runner) {
		q := NewQueue[int](r)
		sum, unwound := 0, false
		r.Serve("server", func() {
			defer func() { unwound = true }()
			for {
				x, ok := q.Get()
				if !ok {
					return
				}
				sum += x
			}
		})
		r.Go("client", func() {
			for i := range 10 {
				q.Put(i)
			}
			r.Sleep(time.Second)
		})
		require.NoError(t, r.Run())
		require.Equal(t, 45, sum)
		require.True(t, unwound, "a parked server is unwound when the run ends")
	})
}

func TestDeadlockNamesTheParked(t *testing.T) {
	both(t, nil, func(t *testing.T, r Runner) {
		c := r.NewCond()
		r.Serve("server", func() { c.Wait() })
		r.Go("req 1", func() { r.Sleep(2 * time.Second); c.Wait() })
		r.Go("req 2", func() { c.Wait() })
		r.Go("fine", func() { r.Sleep(3 * time.Second) })
		var dead *Deadlock
		require.ErrorAs(t, r.Run(), &dead)
		require.Equal(t, &Deadlock{3 * time.Second, []string{"req 1", "req 2"}}, dead)
	})
}

func TestCrashSurfacesWithItsValue(t *testing.T) {
	both(t, nil, func(t *testing.T, r Runner) {
		boom := errors.New("boom")
		r.Go("bystander", func() { r.Sleep(time.Hour) })
		r.Go("culprit", func() { r.Sleep(1); panic(boom) })
		defer func() {
			crash, ok := recover().(*Crash)
			require.True(t, ok)
			require.Equal(t, "culprit", crash.Process)
			require.ErrorIs(t, crash, boom)
			require.Contains(t, string(crash.Stack), "world_test.go")
		}()
		_ = r.Run()
		t.Fatal("Run must panic")
	})
}

func TestCancelUnwindsEverybody(t *testing.T) {
	stop := errors.New("enough")
	for _, name := range []string{"sim", "real"} {
		t.Run("world="+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				var r Runner = NewSim(ctx)
				if name == "real" {
					r = NewReal(ctx)
				}
				left := 0
				c := r.NewCond()
				r.Go("sleeper", func() { defer func() { left++ }(); r.Sleep(1000 * time.Hour) })
				r.Go("waiter", func() { defer func() { left++ }(); c.Wait() })
				r.Serve("server", func() { defer func() { left++ }(); c.Wait() })
				r.Go("canceller", func() {
					defer func() { left++ }()
					r.Sleep(time.Second)
					cancel(stop)
					for {
						r.Sleep(time.Nanosecond)
					}
				})
				require.ErrorIs(t, r.Run(), stop)
				require.Equal(t, 4, left)
			})
		})
	}
}

func TestOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewReal(nil)
		var order []string
		r.Go("worker", func() {
			var work string // real work touches only what its process owns
			r.Outside(func() { time.Sleep(time.Second); work = "work" })
			order = append(order, work, "back")
		})
		r.Go("other", func() { order = append(order, "other") })
		require.NoError(t, r.Run())
		require.Equal(t, []string{"other", "work", "back"}, order)
	})
	s := NewSim(nil)
	s.Go("p", func() { s.Outside(func() {}) })
	require.PanicsWithError(t, "", func() {
		defer func() {
			crash := recover().(*Crash)
			require.Equal(t, "world: real work in the modelled world", crash.Value)
			panic(errors.New(""))
		}()
		_ = s.Run()
	})
}

func TestSlotsAreFair(t *testing.T) {
	both(t, nil, func(t *testing.T, r Runner) {
		s := NewSlots(r, 2)
		var got []string
		for i := range 5 {
			r.Go(fmt.Sprint(i), func() {
				s.Acquire()
				got = append(got, fmt.Sprint(i, "@", r.Now()))
				r.Sleep(time.Second)
				s.Release()
			})
		}
		require.NoError(t, r.Run())
		require.Equal(t, []string{"0@0s", "1@0s", "2@1s", "3@1s", "4@2s"}, got)
	})
}

// toy is an M/G/2 queue with feedback: enough structure to catch an order bug.
func toy(r Runner, n int) []time.Duration {
	out := make([]time.Duration, n)
	q, slots := NewQueue[int](r), NewSlots(r, 2)
	key := rng.NewKey(3, "toy")
	done := r.NewCond()
	served := make([]bool, n)
	r.Serve("server", func() {
		for {
			id, _ := q.Get()
			l := key.At(uint64(id))
			r.Sleep(time.Duration(1e6 * rng.Exp(&l)))
			served[id] = true
			done.Broadcast()
		}
	})
	gaps := rng.Stream(3, "gaps")
	r.Go("arrivals", func() {
		for id := range n {
			r.Sleep(time.Duration(1.3e6 * rng.Exp(gaps)))
			r.Go("req", func() {
				slots.Acquire()
				q.Put(id)
				for !served[id] {
					done.Wait()
				}
				slots.Release()
				out[id] = r.Now()
			})
		}
	})
	if err := r.Run(); err != nil {
		panic(err)
	}
	return out
}

func TestWorldsAgreeToTheNanosecond(t *testing.T) {
	want := toy(NewSim(nil), 300)
	for range 5 {
		synctest.Test(t, func(t *testing.T) { require.Equal(t, want, toy(NewReal(nil), 300)) })
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	require.Equal(t, want, toy(NewSim(nil), 300))
}

func TestNoGoroutineOutlivesARun(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		r := NewReal(nil)
		r.Serve("server", func() { r.NewCond().Wait() })
		for range 5 {
			r.Go("p", func() { r.Sleep(time.Microsecond) })
		}
		require.NoError(t, r.Run())
		s := NewSim(nil)
		s.Serve("server", func() { s.NewCond().Wait() })
		s.Go("p", func() { s.Sleep(1) })
		require.NoError(t, s.Run())
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, 2*time.Second, time.Millisecond)
}

func TestSleepUntilIsPunctual(t *testing.T) {
	r := NewReal(nil)
	var early bool
	r.Go("pacer", func() {
		for i := 1; i <= 20; i++ {
			early = early || r.SleepUntil(time.Duration(i)*300*time.Microsecond) < 0
		}
	})
	require.NoError(t, r.Run())
	require.False(t, early, "never before its time")
}

func TestQueueCloses(t *testing.T) {
	both(t, nil, func(t *testing.T, r Runner) {
		q := NewQueue[int](r)
		var got []int
		r.Go("reader", func() {
			for x, ok := q.Get(); ok; x, ok = q.Get() {
				got = append(got, x)
			}
		})
		r.Go("writer", func() {
			for i := range 9 {
				q.Put(i)
			}
			require.Equal(t, 9, q.Len())
			q.Close()
			require.Panics(t, func() { q.Put(1) })
		})
		require.NoError(t, r.Run())
		require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8}, got)
		_, ok := q.TryGet()
		require.False(t, ok)
	})
}

func BenchmarkSleep(b *testing.B) {
	for _, n := range []int{1, 64, 1000, 100_000} {
		b.Run(fmt.Sprintf("world=sim/procs=%d/", n), func(b *testing.B) {
			s := NewSim(nil)
			left := b.N
			for i := range n {
				s.Go("p", func() {
					for ; left > 0; left-- {
						s.Sleep(time.Duration(1000 + i%37))
					}
				})
			}
			b.ResetTimer()
			_ = s.Run()
			b.ReportMetric(float64(s.Events())/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkTimer is the bare event: taken off a heap of so many, handled, put back.
func BenchmarkTimer(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprintf("world=sim/pending=%d/", n), func(b *testing.B) {
			s := NewSim(nil)
			luck := rng.NewKey(1, "timers").At(0)
			left := b.N
			over := s.NewCond()
			s.Go("run", func() {
				for left > 0 {
					over.Wait()
				}
			})
			for range n {
				var t *Timer
				t = s.NewTimer(func() {
					if left--; left == 0 {
						over.Signal()
					}
					t.Set(s.Now() + time.Duration(luck.Uint64()>>44))
				})
				t.Set(time.Duration(luck.Uint64() >> 44))
			}
			b.ResetTimer()
			_ = s.Run()
			b.ReportMetric(float64(s.Events())/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func TestTimersAndAlarms(t *testing.T) {
	s := NewSim(nil)
	var story []string
	tell := func(what string) { story = append(story, fmt.Sprint(what, " ", s.Now().Microseconds())) }
	alarm := s.NewAlarm()
	var again, never *Timer
	never = s.NewTimer(func() { tell("never") })
	again = s.NewTimer(func() {
		tell("again")
		if s.Now() < 3*time.Microsecond {
			again.Set(s.Now() + 2*time.Microsecond)
		}
	})
	s.Go("sleeper", func() {
		alarm.Forward(0) // nobody sleeps by it
		tell(fmt.Sprint("at ", alarm.Sleep(10*time.Microsecond).Microseconds()))
		s.Sleep(20 * time.Microsecond) // the alarm that was overtaken does not wake it
		tell("up")
		tell(fmt.Sprint("at ", alarm.Sleep(40*time.Microsecond).Microseconds()))
	})
	s.Go("other", func() {
		never.Set(2 * time.Microsecond)
		again.Set(9 * time.Microsecond)
		again.Set(time.Microsecond)
		s.Sleep(time.Microsecond)
		never.Stop()
		alarm.Forward(12 * time.Microsecond) // later: no change
		alarm.Forward(4 * time.Microsecond)
		alarm.Forward(5 * time.Microsecond)
	})
	require.NoError(t, s.Run())
	require.Equal(t, []string{"again 1", "again 3", "at 4 4", "up 24", "at 40 40"}, story)
}

func BenchmarkGo(b *testing.B) {
	for _, name := range []string{"sim", "real"} {
		b.Run("world="+name, func(b *testing.B) {
			b.ReportAllocs()
			var r Runner = NewSim(nil)
			if name == "real" {
				r = NewReal(nil)
			}
			n := 0
			fn := func() { n++ }
			r.Go("arrivals", func() {
				for range b.N {
					r.Go("req", fn)
					r.Sleep(0)
				}
			})
			b.ResetTimer()
			_ = r.Run()
		})
	}
}

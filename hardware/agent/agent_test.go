package agent

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/hwtest"
	"meibench/hardware/world"
)

func TestAgentConforms(t *testing.T) {
	m := tiny(t)
	conforms := func(addr string) func(t *testing.T) {
		return func(t *testing.T) {
			hwtest.Device(t, func(env world.Env) hardware.Device {
				d, err := Dial(env.(*world.Real), config(addr, m.Spec))
				require.NoError(t, err)
				return d
			}, hwtest.DeviceOptions{Model: m.Spec, Prompt: words, Measured: true})
		}
	}
	t.Run("in process", conforms(serve(t, kernels(t, m, 0), ServerConfig{Models: []*hardware.Model{m.Spec}}).addr))
	addr, _ := child(t)
	t.Run("in another process", conforms(addr))
}

func TestRealLinkConforms(t *testing.T) {
	hwtest.Link(t, func(env world.Env) hardware.Link { return NewLink(env.(*world.Real), "real") }, hwtest.LinkOptions{Measured: true})
}

// TestAgentSaysWhatTheKernelSays: the tokens of an agent are those of its device
// at home.
func TestAgentSaysWhatTheKernelSays(t *testing.T) {
	m := tiny(t)
	talk := func(t require.TestingT, d hardware.Device) (said []int32) {
		op := prefill(m.Spec, 1, 9)
		for range 12 {
			res, err := d.Run(op)
			require.NoError(t, err)
			said = append(said, res.Seqs[0].Token)
			decode(op, res.Seqs[0].Token)
		}
		return said
	}
	var home, away []int32
	env := world.NewReal(t.Context())
	d := kernels(t, m, 0)(env)
	within(t, env, func(t require.TestingT) { home = talk(t, d) })
	h := serve(t, kernels(t, m, 0), ServerConfig{Models: []*hardware.Model{m.Spec}})
	with(t, config(h.addr, m.Spec), func(t require.TestingT, _ *world.Real, d *Device) { away = talk(t, d) })
	require.Equal(t, home, away)
	require.Len(t, away, 12)
}

// TestAgentMapsAShiftedClock: the agent's clock is an hour ahead and 100 ppm fast;
// the offset is found within half the round trip, and stamps lie inside the call.
func TestAgentMapsAShiftedClock(t *testing.T) {
	m := tiny(t).Spec
	skew := func(t time.Duration) time.Duration { return t + time.Hour + t/10_000 }
	h := serve(t, func(env *world.Real) hardware.Device {
		return newFake(env, func(*hardware.Op) { time.Sleep(3 * time.Millisecond) })
	}, ServerConfig{Models: []*hardware.Model{m}}, func(s *Server) { s.skew = skew })
	with(t, config(h.addr, m), func(t require.TestingT, env *world.Real, d *Device) {
		for range 10 {
			before := env.Now()
			res, err := d.Run(prefill(m, 1, 3))
			require.NoError(t, err)
			u := res.Usage
			require.LessOrEqual(t, before, u.Arrived)
			require.LessOrEqual(t, u.Arrived, u.Start)
			require.GreaterOrEqual(t, u.End-u.Start, 2900*time.Microsecond)
			require.LessOrEqual(t, u.End, env.Now())
		}
		p := d.Peer()
		// both clocks read together, to within the time that the two readings take
		a := h.srv.now()
		now := env.Now()
		b := h.srv.now()
		truth := a + (b-a)/2 - now
		require.LessOrEqual(t, (p.Clock.Offset - truth).Abs(), p.Clock.Uncertainty+(b-a))
		require.Less(t, p.Clock.RTT, 50*time.Millisecond)
		require.GreaterOrEqual(t, p.Clock.Samples, calibration)
	})
}

// TestAgentOneRoundTripPerHop: over a link of 2 × 20 ms a decode step takes its
// computation and one round trip, prefill with its activations too.
func TestAgentOneRoundTripPerHop(t *testing.T) {
	const delay, work = 20 * time.Millisecond, 5 * time.Millisecond
	m := tiny(t).Spec
	h := serve(t, func(env *world.Real) hardware.Device {
		return newFake(env, func(*hardware.Op) { time.Sleep(work) })
	}, ServerConfig{Models: []*hardware.Model{m}})
	p := newProxy(t, h.addr, delay, delay)
	with(t, config(p.addr, m), func(t require.TestingT, env *world.Real, d *Device) {
		best, up, arrived := time.Hour, time.Hour, time.Hour // the best of some: the machine is shared
		for i := range 8 {
			op := prefill(m, 1, 1)
			if i%2 == 1 { // 1 MB of activations: more than HTTP/2's default window of 64 KiB
				op.Layers.Lo, op.Seqs[0].In = 1, hardware.Payload{Bytes: 1 << 20, Data: make([]byte, 1<<20)}
			}
			before := env.Now()
			res, err := d.Run(op)
			require.NoError(t, err)
			best = min(best, env.Now()-before)
			if i%2 == 1 {
				up = min(up, env.Now()-before)
			}
			arrived = min(arrived, res.Usage.Arrived-before)
		}
		require.InDelta(t, float64(delay), float64(arrived), float64(10*time.Millisecond), "half of it on the way there")
		require.GreaterOrEqual(t, best, 2*delay+work)
		require.Less(t, best, 3*delay, "one round trip, not two")
		require.Less(t, up, 4*delay, "activations go in the same round trip")
	})
}

// TestAgentKilled: kill -9 of the agent fails the operation that runs and those
// after it, with the cause, and the run goes on.
func TestAgentKilled(t *testing.T) {
	m := tiny(t).Spec
	addr, cmd := child(t)
	with(t, config(addr, m), func(t require.TestingT, env *world.Real, d *Device) {
		op := prefill(m, 1, 5)
		res, err := d.Run(op)
		require.NoError(t, err)
		decode(op, res.Seqs[0].Token)
		require.NoError(t, cmd.Process.Kill())
		before := env.Now()
		for err == nil {
			res, err = d.Run(op)
			if err == nil {
				decode(op, res.Seqs[0].Token)
			}
		}
		require.ErrorIs(t, err, hardware.ErrDown)
		require.Contains(t, err.Error(), addr)
		require.Less(t, env.Now()-before, time.Second)
		env.Sleep(firstBackOff) // then the next operation tries again, and finds nobody
		before = env.Now()
		_, err = d.Run(prefill(m, 2, 5))
		require.ErrorIs(t, err, hardware.ErrDown)
		require.Contains(t, err.Error(), "refused")
		_, err = d.Run(prefill(m, 2, 5))
		require.ErrorIs(t, err, hardware.ErrDown, "and at once while it waits")
		require.Less(t, env.Now()-before, time.Second)
		_, err = d.Run(&hardware.Op{Kind: hardware.Drop, Model: m, Layers: m.All(), Seqs: []hardware.Seq{{ID: 1}}})
		require.NoError(t, err, "what is gone is dropped")
		require.GreaterOrEqual(t, d.Peer().Failures, 3)
	})
}

// TestAgentComesBack: a connection that was cut is made again by the next operation.
func TestAgentComesBack(t *testing.T) {
	m := tiny(t)
	h := serve(t, kernels(t, m, 0), ServerConfig{Models: []*hardware.Model{m.Spec}})
	p := newProxy(t, h.addr, 0, 0)
	with(t, config(p.addr, m.Spec), func(t require.TestingT, env *world.Real, d *Device) {
		_, err := d.Run(prefill(m.Spec, 1, 5))
		require.NoError(t, err)
		p.cut()
		op := prefill(m.Spec, 1, 5)
		op.Kind, op.Seqs[0] = hardware.Decode, hardware.Seq{ID: 1, Context: 5, New: 1, Tokens: words(1)}
		for err == nil { // the old connection may take one more
			_, err = d.Run(op)
			op.Seqs[0].Context++
		}
		require.Error(t, err, "its sequence ended with the session")
		for range 50 {
			if _, err = d.Run(prefill(m.Spec, 2, 5)); err == nil {
				break
			}
			require.ErrorIs(t, err, hardware.ErrDown)
			env.Sleep(20 * time.Millisecond)
		}
		require.NoError(t, err)
		require.Equal(t, 1, d.Peer().Reconnects)
	})
}

// TestAgentStalled: a link that swallows everything fails the operation within
// Stall; an operation that is only slow does not stall, but has its own limit.
func TestAgentStalled(t *testing.T) {
	m := tiny(t).Spec
	hold := make(chan struct{})
	h := serve(t, func(env *world.Real) hardware.Device {
		return newFake(env, func(op *hardware.Op) {
			if op.Seqs[0].New == 9 {
				<-hold
			}
		})
	}, ServerConfig{Models: []*hardware.Model{m}})
	defer close(hold)
	p := newProxy(t, h.addr, 0, 0)
	cfg := config(p.addr, m)
	cfg.Stall = 1300 * time.Millisecond // longer than a beat
	cfg.Timeout = 1600 * time.Millisecond
	with(t, cfg, func(t require.TestingT, env *world.Real, d *Device) {
		before := env.Now()
		_, err := d.Run(prefill(m, 1, 9))
		require.ErrorIs(t, err, hardware.ErrDown)
		require.Contains(t, err.Error(), "no result within 1.6s")
		require.InDelta(t, float64(cfg.Timeout), float64(env.Now()-before), float64(300*time.Millisecond))
		_, err = d.Run(prefill(m, 2, 3))
		require.NoError(t, err, "the link is fine, the next operation runs")
		p.stall()
		d.cfg.Timeout = time.Minute
		before = env.Now()
		_, err = d.Run(prefill(m, 2, 3))
		require.ErrorIs(t, err, hardware.ErrDown)
		require.Contains(t, err.Error(), "nothing heard")
		require.Less(t, env.Now()-before, 2*cfg.Stall)
	})
}

// TestAgentForgetsDeadClients: the sequences of a client that is gone are dropped,
// and those of others stay; numbers of two clients do not meet.
func TestAgentForgetsDeadClients(t *testing.T) {
	m := tiny(t).Spec
	var f *fake
	h := serve(t, func(env *world.Real) hardware.Device { f = newFake(env, nil); return f }, ServerConfig{Models: []*hardware.Model{m}})
	with(t, config(h.addr, m), func(t require.TestingT, env *world.Real, a *Device) {
		b, err := Dial(env, config(h.addr, m))
		require.NoError(t, err)
		for id := range int64(3) {
			for _, d := range []*Device{a, b} {
				_, err := d.Run(prefill(m, id, 3))
				require.NoError(t, err)
			}
		}
		require.Equal(t, 6, f.holds(), "sequence 1 of one client is not sequence 1 of the other")
		b.Close()
		require.Eventually(t, func() bool { return f.holds() == 3 }, 2*time.Second, time.Millisecond)
		op := prefill(m, 1, 3)
		op.Kind = hardware.Drop
		_, err = a.Run(op)
		require.NoError(t, err)
		_, err = a.Run(prefill(m, 0, 3)) // in order after the drop
		require.NoError(t, err)
		require.Equal(t, 2, f.holds())
	})
	require.Eventually(t, func() bool { return f.holds() == 0 }, 2*time.Second, time.Millisecond)
}

// TestAgentMemoryOfDeadClientServesOthers: with real caches and a memory that one
// client's sequence fills, another client can work once the first has gone.
func TestAgentMemoryOfDeadClientServesOthers(t *testing.T) {
	m := tiny(t)
	weights := m.Weights.WeightBytes(m.Weights.Lo, m.Weights.Hi)
	h := serve(t, kernels(t, m, weights+200_000), ServerConfig{Models: []*hardware.Model{m.Spec}})
	fillUp := func(d *Device) (n int64, err error) {
		for ; err == nil; n++ {
			_, err = d.Run(prefill(m.Spec, n, 60))
		}
		return n - 1, err
	}
	var first, second int64
	with(t, config(h.addr, m.Spec), func(t require.TestingT, _ *world.Real, d *Device) {
		var err error
		first, err = fillUp(d)
		require.ErrorIs(t, err, hardware.ErrMemory, "the agent's error is still that error")
		require.Positive(t, first)
	})
	require.Eventually(t, func() bool {
		with(t, config(h.addr, m.Spec), func(t require.TestingT, _ *world.Real, d *Device) { second, _ = fillUp(d) })
		return second == first
	}, 3*time.Second, 10*time.Millisecond)
}

// TestAgentCancels: the end of a run ends what it waits for; what has not begun
// at the agent never does.
func TestAgentCancels(t *testing.T) {
	m := tiny(t).Spec
	hold := make(chan struct{})
	var f *fake
	h := serve(t, func(env *world.Real) hardware.Device {
		f = newFake(env, func(*hardware.Op) { <-hold })
		return f
	}, ServerConfig{Models: []*hardware.Model{m}})
	ctx, cancel := context.WithCancel(t.Context())
	env := world.NewReal(ctx)
	d, err := Dial(env, config(h.addr, m))
	require.NoError(t, err)
	for range 3 { // one sequence: the second and third wait at the agent
		env.Go("user", func() { _, _ = d.Run(prefill(m, 1, 3)) })
	}
	time.AfterFunc(200*time.Millisecond, cancel)
	began := time.Now()
	require.ErrorIs(t, env.Run(), context.Canceled)
	require.Less(t, time.Since(began), time.Second)
	time.Sleep(100 * time.Millisecond) // the agent learns of it
	close(hold)
	require.Eventually(t, func() bool { return f.count(hardware.Drop) == 1 }, 2*time.Second, time.Millisecond)
	require.Equal(t, 1, f.count(hardware.Prefill), "those in line were never started")
	require.Zero(t, f.holds())
}

func TestAgentRefuses(t *testing.T) {
	m := tiny(t)
	h := serve(t, kernels(t, m, 0), ServerConfig{Models: []*hardware.Model{m.Spec}, Limits: Limits{Held: 2, Seqs: 3, Tokens: 50, Message: 4096}})
	other := *m.Spec
	other.Digest = "77" + m.Spec.Digest[2:]
	none := *m.Spec
	none.Digest = ""
	for _, tc := range []struct {
		name string
		edit func(*Config)
		want string
		down bool
	}{
		{"another model", func(c *Config) { c.Models = []*hardware.Model{&other} }, `does not hold model "tiny" with SHA-256 775a5a5a5a5a`, false},
		{"no digest", func(c *Config) { c.Models = []*hardware.Model{&none} }, "has no digest", false},
		{"nobody there", func(c *Config) { c.Address = "127.0.0.1:1" }, "refused", true},
		{"no port", func(c *Config) { c.Address = "127.0.0.1" }, "want HOST:PORT", false},
		{"insecure over a network", func(c *Config) { c.Address = "10.1.2.3:7117" }, "is not on this machine", false},
		{"no certificates", func(c *Config) { c.Credentials = Credentials{} }, "certificate, key and CA are needed", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := config(h.addr, m.Spec)
			tc.edit(&cfg)
			env := world.NewReal(t.Context())
			_, err := Dial(env, cfg)
			require.ErrorContains(t, err, tc.want)
			require.Equal(t, tc.down, errors.Is(err, hardware.ErrDown))
			cfg.Known = &Known{Spec: hardware.DeviceSpec{Slots: 1}}
			_, err = Dial(env, cfg)
			require.Equal(t, tc.down, err == nil, "only an agent that is down may be known")
		})
	}
	with(t, config(h.addr, m.Spec), func(t require.TestingT, _ *world.Real, d *Device) {
		_, err := d.Run(prefill(&other, 1, 3))
		require.ErrorContains(t, err, "was not asked for")
		_, err = d.Run(prefill(m.Spec, 1, 51))
		require.ErrorContains(t, err, "takes 0 to 50 in all")
		op := prefill(m.Spec, 1, 3)
		op.Seqs = append(op.Seqs, op.Seqs[0])
		_, err = d.Run(op)
		require.ErrorContains(t, err, "twice")
		op.Seqs[0].In = hardware.Payload{Bytes: 5000, Data: make([]byte, 5000)}
		_, err = d.Run(op)
		require.ErrorContains(t, err, "the agent takes 4096")
		for id := range int64(2) {
			_, err = d.Run(prefill(m.Spec, id, 3))
			require.NoError(t, err)
		}
		_, err = d.Run(prefill(m.Spec, 2, 3))
		require.ErrorContains(t, err, "drop some")
		_, err = d.Run(&hardware.Op{Kind: hardware.Drop, Model: m.Spec, Layers: m.Spec.All()})
		require.NoError(t, err, "a drop is not waited for")
		require.Zero(t, d.Peer().Failures, "none of this means that the agent is down")
	})
}

// TestAgentSurvivesGarbage: strangers' bytes, a client of another version, and
// messages that no client sends cost their own connection only.
func TestAgentSurvivesGarbage(t *testing.T) {
	m := tiny(t).Spec
	h := serve(t, func(env *world.Real) hardware.Device {
		return newFake(env, func(op *hardware.Op) {
			if op.Seqs[0].New == 13 {
				panic("bad luck")
			}
		})
	}, ServerConfig{Models: []*hardware.Model{m}})
	for _, bytes := range []string{"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\xff\xff\xff\xff\xff\xff", "\x16\x03\x01\x00\x05hello"} {
		c, err := net.Dial("tcp", h.addr)
		require.NoError(t, err)
		_, err = c.Write([]byte(bytes))
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	env := world.NewReal(t.Context())
	d, err := Dial(env, config(h.addr, m))
	require.NoError(t, err)
	for _, f := range []*frame{{head: []byte{99}}, {head: nil}, {head: []byte{isOp, 1}}, {head: []byte{isPing}}, {head: []byte{isCancel}}, hello{}.encode()} {
		s, err := d.connect()
		require.NoError(t, err)
		require.NoError(t, s.send(f))
		<-s.dead
		require.Error(t, s.cause)
	}
	within(t, env, func(t require.TestingT) {
		_, err := d.Run(prefill(m, 1, 13))
		require.ErrorContains(t, err, "panicked: bad luck")
		_, err = d.Run(prefill(m, 1, 3))
		require.NoError(t, err, "the agent lives")
	})
}

// TestAgentLeavesNothingBehind: sessions and worlds end with all their goroutines.
func TestAgentLeavesNothingBehind(t *testing.T) {
	m := tiny(t).Spec
	before := runtime.NumGoroutine()
	h := serve(t, func(env *world.Real) hardware.Device { return newFake(env, nil) }, ServerConfig{Models: []*hardware.Model{m}})
	for range 5 {
		with(t, config(h.addr, m), func(t require.TestingT, _ *world.Real, d *Device) {
			_, err := d.Run(prefill(m, 1, 3))
			require.NoError(t, err)
		})
	}
	h.stop()
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, 3*time.Second, 5*time.Millisecond)
}

// slowConn is a connection whose writes arrive, and return later.
type slowConn struct {
	net.Conn
	arrived func()
	err     error
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.arrived()
	if c.err != nil {
		return 1, c.err
	}
	return len(b), nil
}

// TestAgentCountsBeforeAnswers: bytes are counted by the time that they can have
// been answered, and not those that a broken connection did not take.
func TestAgentCountsBeforeAnswers(t *testing.T) {
	var m meter
	seen := int64(-1)
	c := &counted{Conn: &slowConn{arrived: func() { seen = m.sent.Load() }}, m: &m}
	_, err := c.Write(make([]byte, 10))
	require.NoError(t, err)
	require.EqualValues(t, 10, seen)
	c.Conn.(*slowConn).err = io.ErrClosedPipe
	_, err = c.Write(make([]byte, 10))
	require.Error(t, err)
	require.EqualValues(t, 11, m.sent.Load())
}

// TestAgentCountsBytes: the wire carries payloads, and framing on top; each is told.
func TestAgentCountsBytes(t *testing.T) {
	m := tiny(t).Spec
	h := serve(t, func(env *world.Real) hardware.Device { return newFake(env, nil) }, ServerConfig{Models: []*hardware.Model{m}})
	with(t, config(h.addr, m), func(t require.TestingT, _ *world.Real, d *Device) {
		const n, ops = 10_000, 20
		for range ops {
			op := prefill(m, 1, 1)
			op.Seqs[0].In = hardware.Payload{Bytes: n, Data: make([]byte, n)}
			_, err := d.Run(op) // the fake sends the activations back
			require.NoError(t, err)
		}
		tr := d.Peer().Traffic
		require.EqualValues(t, ops*(n+4), tr.PayloadSent)
		require.EqualValues(t, ops*(n+4), tr.PayloadRecv)
		require.Greater(t, tr.Sent, tr.PayloadSent)
		require.Positive(t, tr.Setup)
		per := float64(tr.Framing()) / ops
		require.Greater(t, per, 40.0, "two heads of messages")
		require.Less(t, per, 600.0)
		sent, received := h.srv.Traffic()
		for range 200 { // a write is counted when it returns, which may be after its bytes arrived
			if math.Abs(float64(tr.Sent-received)) < 1000 && math.Abs(float64(tr.Received-sent)) < 1000 {
				break
			}
			time.Sleep(10 * time.Millisecond)
			sent, received = h.srv.Traffic()
		}
		require.InDelta(t, float64(tr.Sent), float64(received), 1000)
		require.InDelta(t, float64(tr.Received), float64(sent), 1000)
	})
}

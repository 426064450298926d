package hwtest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// LinkOptions describe the link under test.
type LinkOptions struct {
	Measured bool // it moves real bytes: real world only, times vary
}

// wiring makes the link under test.
type wiring = func(env world.Env) hardware.Link

// Link checks that a link keeps the promises of hardware.Link and hardware.Stream.
func Link(t *testing.T, build wiring, o LinkOptions) {
	for _, tc := range []struct {
		name string
		test func(t *testing.T, r world.Runner, l hardware.Link)
	}{
		{"describes itself", describesLink},
		{"delivers what was sent, stamped inside the call", deliversSends},
		{"is first come, first served", keepsOrder},
		{"refuses more data than bytes", refusesOverfull},
		{"streams arrive whole and in order", streamsInOrder},
		{"streams can be read, then drained", readsThenDrains},
		{"streams end with the writer's error", endsWithError},
		{"an empty stream just ends", emptyStream},
		{"streams and sends share the link", sharesLink},
	} {
		t.Run(tc.name, func(t *testing.T) {
			each(t, o.Measured, func(t *testing.T, r world.Runner) { tc.test(t, r, build(r)) })
		})
	}
	if !o.Measured {
		t.Run("repeats itself", func(t *testing.T) { repeatsLink(t, build) })
	}
}

func describesLink(t *testing.T, _ world.Runner, l hardware.Link) {
	s := l.Spec()
	require.NotEmpty(t, s.Name)
	require.Positive(t, s.BytesPerSec)
	require.GreaterOrEqual(t, s.Delay, time.Duration(0))
	require.NotZero(t, s.Time)
}

// payload is n bytes that spell out i.
func payload(i, n int) hardware.Payload {
	data := make([]byte, n)
	for k := range data {
		data[k] = byte(i + 31*k)
	}
	return hardware.Payload{Bytes: units.Bytes(n), Tokens: i, Data: data}
}

func deliversSends(t *testing.T, r world.Runner, l hardware.Link) {
	run(t, r, func(t require.TestingT) {
		for i, n := range []int{1, 0, 1500, 40_000} {
			p := payload(i, n)
			before := r.Now()
			d, err := l.Send(p)
			require.NoError(t, err)
			stamped(t, d.Usage, before, r.Now())
			require.Equal(t, p.Bytes, d.Payload.Bytes)
			require.Equal(t, p.Tokens, d.Payload.Tokens)
			require.Equal(t, len(p.Data), len(d.Payload.Data))
			if n > 0 {
				require.Equal(t, p.Data, d.Payload.Data)
			}
			require.GreaterOrEqual(t, d.Usage.Moved, p.Bytes, "bytes on the wire include the payload")
		}
		d, err := l.Send(hardware.Payload{Bytes: 2000})
		require.NoError(t, err)
		require.Nil(t, d.Payload.Data, "no data in, no data out")
		require.Equal(t, units.Bytes(2000), d.Payload.Bytes)
	})
}

func keepsOrder(t *testing.T, r world.Runner, l hardware.Link) {
	var order []int
	var ends []time.Duration
	for i := range 8 {
		start(t, r, fmt.Sprint("user ", i), func(t require.TestingT) {
			d, err := l.Send(hardware.Payload{Bytes: units.Bytes(20_000 / (i + 1)), Tokens: i})
			require.NoError(t, err)
			order = append(order, d.Payload.Tokens)
			ends = append(ends, d.Usage.End)
		})
	}
	finish(t, r)
	require.Len(t, order, 8)
	seen := map[int]time.Duration{}
	for i, who := range order {
		seen[who] = ends[i]
	}
	for i := 1; i < 8; i++ {
		require.GreaterOrEqual(t, seen[i], seen[i-1], "a small message overtook a big one")
	}
}

func refusesOverfull(t *testing.T, r world.Runner, l hardware.Link) {
	run(t, r, func(t require.TestingT) {
		_, err := l.Send(hardware.Payload{Bytes: 1, Data: make([]byte, 2)})
		require.Error(t, err)
	})
}

// pour writes n messages with pauses between them and closes the stream.
func pour(r world.Runner, s hardware.Stream, n int, end error) {
	for i := range n {
		s.Write(payload(i, 10+i))
		r.Sleep(time.Duration(i%3) * 100 * time.Microsecond)
	}
	s.Close(end)
}

// whole checks that deliveries first, first+1, ... came complete and in order.
func whole(t require.TestingT, got []hardware.Delivery, first int) {
	last := time.Duration(0)
	for k, d := range got {
		want := payload(first+k, 10+first+k)
		require.Equal(t, want.Tokens, d.Payload.Tokens)
		require.Equal(t, want.Data, d.Payload.Data)
		require.GreaterOrEqual(t, d.Usage.End, last, "arrived out of order")
		require.GreaterOrEqual(t, d.Usage.End, d.Usage.Start)
		last = d.Usage.End
	}
}

func streamsInOrder(t *testing.T, r world.Runner, l hardware.Link) {
	s := l.Open()
	var got []hardware.Delivery
	start(t, r, "server", func(t require.TestingT) { pour(r, s, 20, nil) })
	start(t, r, "user", func(t require.TestingT) {
		for {
			d, ok, err := s.Read()
			if !ok {
				require.NoError(t, err)
				break
			}
			require.LessOrEqual(t, d.Usage.End, r.Now(), "read before it arrived")
			got = append(got, d)
		}
		_, ok, err := s.Read()
		require.False(t, ok, "the end stays the end")
		require.NoError(t, err)
	})
	finish(t, r)
	require.Len(t, got, 20)
	whole(t, got, 0)
}

func readsThenDrains(t *testing.T, r world.Runner, l hardware.Link) {
	s := l.Open()
	var got []hardware.Delivery
	start(t, r, "server", func(t require.TestingT) { pour(r, s, 12, nil) })
	start(t, r, "user", func(t require.TestingT) {
		for range 2 {
			d, ok, err := s.Read()
			require.True(t, ok)
			require.NoError(t, err)
			got = append(got, d)
		}
		rest, err := s.Drain()
		require.NoError(t, err)
		require.Len(t, rest, 10)
		require.LessOrEqual(t, rest[9].Usage.End, r.Now(), "drained before it arrived")
		got = append(got, rest...)
		again, err := s.Drain()
		require.NoError(t, err)
		require.Empty(t, again)
	})
	finish(t, r)
	whole(t, got, 0)
}

func endsWithError(t *testing.T, r world.Runner, l hardware.Link) {
	boom := errors.New("server died")
	a, b := l.Open(), l.Open()
	start(t, r, "server", func(t require.TestingT) { pour(r, a, 3, boom); pour(r, b, 2, boom) })
	start(t, r, "user", func(t require.TestingT) {
		got, err := a.Drain()
		require.ErrorIs(t, err, boom)
		require.Len(t, got, 3, "what was written before the error arrives")
		for range 2 {
			_, ok, err := b.Read()
			require.True(t, ok)
			require.NoError(t, err)
		}
		_, ok, err := b.Read()
		require.False(t, ok)
		require.ErrorIs(t, err, boom)
	})
	finish(t, r)
}

func emptyStream(t *testing.T, r world.Runner, l hardware.Link) {
	a, b := l.Open(), l.Open()
	start(t, r, "server", func(t require.TestingT) { r.Sleep(time.Millisecond); a.Close(nil); b.Close(nil) })
	start(t, r, "user", func(t require.TestingT) {
		got, err := a.Drain()
		require.NoError(t, err)
		require.Empty(t, got)
		_, ok, err := b.Read()
		require.False(t, ok)
		require.NoError(t, err)
	})
	finish(t, r)
}

func sharesLink(t *testing.T, r world.Runner, l hardware.Link) {
	var bytes units.Bytes
	count := func(got []hardware.Delivery) {
		for _, d := range got {
			bytes += d.Payload.Bytes
		}
	}
	for i := range 3 {
		s := l.Open()
		start(t, r, "server", func(t require.TestingT) {
			for range 5 {
				s.Write(hardware.Payload{Bytes: 1000})
				r.Sleep(50 * time.Microsecond)
			}
			s.Close(nil)
		})
		start(t, r, "user", func(t require.TestingT) {
			got, err := s.Drain()
			require.NoError(t, err)
			require.Len(t, got, 5)
			count(got)
		})
		start(t, r, "sender", func(t require.TestingT) {
			d, err := l.Send(hardware.Payload{Bytes: 500, Tokens: i})
			require.NoError(t, err)
			count([]hardware.Delivery{d})
		})
	}
	finish(t, r)
	require.Equal(t, units.Bytes(3*(5*1000+500)), bytes, "bytes sent = bytes received")
}

func repeatsLink(t *testing.T, build wiring) {
	var runs [2][]hardware.Usage
	for i := range runs {
		r := world.NewSim(t.Context())
		l := build(r)
		run(t, r, func(t require.TestingT) {
			for k := range 10 {
				d, err := l.Send(hardware.Payload{Bytes: units.Bytes(1000 * k)})
				require.NoError(t, err)
				runs[i] = append(runs[i], d.Usage)
				r.Sleep(time.Duration(k) * time.Second)
			}
		})
	}
	require.Equal(t, runs[0], runs[1])
}

package netem

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// pipe is a FIFO link of constant rate and delay.
type pipe struct {
	rate  float64 // bytes per second
	delay time.Duration
	free  time.Duration
}

func (p *pipe) Next(now time.Duration, n units.Bytes) (hardware.Transit, error) {
	start := max(now, p.free)
	p.free = start + units.TransferTime(n, p.rate)
	return hardware.Transit{Start: start, Sent: p.free, Arrive: p.free + p.delay}, nil
}

func TestSendCarriesTheBytesInTime(t *testing.T) {
	env := world.NewReal(nil)
	l, err := New(env, hardware.LinkSpec{Name: "up"}, &pipe{rate: 10e6, delay: 20 * time.Millisecond})
	require.NoError(t, err)
	data := make([]byte, 100_000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	var got hardware.Delivery
	env.Go("user", func() { got, err = l.Send(hardware.Payload{Bytes: 200_000, Data: data}) })
	require.NoError(t, env.Run())
	require.NoError(t, err)
	require.Equal(t, data, got.Payload.Data)
	require.Equal(t, units.Bytes(200_016), got.Usage.Moved, "framing is visible")
	took := got.Usage.End - got.Usage.Start
	// 200,016 B at 10 MB/s = 20.0016 ms, plus 20 ms on the way: never earlier
	require.GreaterOrEqual(t, took, 40_001_600*time.Nanosecond)
}

func TestStreamsKeepOrderAndPipelineTheDelay(t *testing.T) {
	env := world.NewReal(nil)
	l, err := New(env, hardware.LinkSpec{Name: "down"}, &pipe{rate: 1e9, delay: 50 * time.Millisecond})
	require.NoError(t, err)
	s := l.Open()
	var got []hardware.Delivery
	env.Go("server", func() {
		for i := range 10 {
			s.Write(hardware.Payload{Bytes: 8, Tokens: i + 1, Data: []byte{byte(i)}})
			env.Sleep(time.Millisecond)
		}
		s.Close(nil)
	})
	env.Go("user", func() { got, err = s.Drain() })
	require.NoError(t, env.Run())
	require.NoError(t, err)
	require.Len(t, got, 10)
	for i, d := range got {
		require.Equal(t, []byte{byte(i)}, d.Payload.Data)
		require.Equal(t, i+1, d.Payload.Tokens)
		require.GreaterOrEqual(t, d.Usage.End-d.Usage.Start, 50*time.Millisecond)
	}
	// ten messages of 50 ms each, one behind the other, would take 500 ms
	require.Less(t, got[9].Usage.End, 400*time.Millisecond)
}

func TestStreamEndsWithItsError(t *testing.T) {
	env := world.NewReal(nil)
	l, err := New(env, hardware.LinkSpec{Name: "down"}, &pipe{rate: 1e9})
	require.NoError(t, err)
	boom := errors.New("server died")
	s, empty := l.Open(), l.Open()
	env.Go("user", func() {
		s.Write(hardware.Payload{Bytes: 4})
		s.Close(boom)
		got, err := s.Drain()
		require.Len(t, got, 1)
		require.ErrorIs(t, err, boom)
		empty.Close(nil)
		_, ok, err := empty.Read()
		require.False(t, ok)
		require.NoError(t, err)
		_, err = l.Send(hardware.Payload{Bytes: 1, Data: make([]byte, 2)})
		require.Error(t, err, "more data than bytes")
	})
	require.NoError(t, env.Run())
}

func TestBrokenConnectionFailsWhatIsOnItsWay(t *testing.T) {
	env := world.NewReal(nil)
	l, err := New(env, hardware.LinkSpec{Name: "up"}, &pipe{rate: 1e3})
	require.NoError(t, err)
	env.Go("user", func() {
		_, err := l.Send(hardware.Payload{Bytes: 1_000_000})
		require.ErrorIs(t, err, hardware.ErrLinkDown)
		_, err = l.Send(hardware.Payload{Bytes: 1})
		require.ErrorIs(t, err, hardware.ErrLinkDown)
	})
	env.Go("saboteur", func() { env.Sleep(5 * time.Millisecond); _ = l.in.Close() })
	require.NoError(t, env.Run())
}

package agent

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
)

// BenchmarkRoundTrip is a decode step of a device that takes no time, over
// loopback, with the activations of one token (dim × 4 bytes) on the way there,
// beside a bare TCP ping-pong of the same bytes.
func BenchmarkRoundTrip(b *testing.B) {
	m := tiny(b).Spec
	dir := b.TempDir()
	require.NoError(b, WriteCerts(dir, nil, time.Now(), time.Hour))
	for _, n := range []int{0, 3584, 1 << 20} { // a token id; one token at dim 896; 292 tokens
		b.Run(fmt.Sprintf("via=tcp/bytes=%d", n), func(b *testing.B) { pingPong(b, n) })
		for _, tc := range []struct {
			name           string
			client, server Credentials
		}{
			{"grpc", Credentials{Insecure: true}, Credentials{Insecure: true}},
			{"grpc+tls", InDir(dir), serverCert(dir)},
		} {
			b.Run(fmt.Sprintf("via=%s/bytes=%d", tc.name, n), func(b *testing.B) {
				h := serve(b, func(env *world.Real) hardware.Device { return newFake(env, nil) },
					ServerConfig{Models: []*hardware.Model{m}, Credentials: tc.server})
				cfg := config(h.addr, m)
				cfg.Credentials = tc.client
				with(b, cfg, func(t require.TestingT, _ *world.Real, d *Device) { steps(b, t, d, n) })
			})
		}
	}
}

// steps runs decode steps that carry n bytes there and a token back.
func steps(b *testing.B, t require.TestingT, d *Device, n int) {
	op := prefill(d.cfg.Models[0], 1, 1)
	op.Kind = hardware.Decode
	if n > 0 {
		op.Seqs[0].In = hardware.Payload{Bytes: 1 << 30, Data: make([]byte, n)}
		op.Seqs[0].Tokens = nil
	}
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		_, err := d.Run(op)
		require.NoError(t, err)
	}
}

// pingPong sends n bytes there and four back, as plainly as can be.
func pingPong(b *testing.B, n int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	n = max(n, 4)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		buf := make([]byte, n)
		for {
			if _, err := io.ReadFull(c, buf); err != nil {
				return
			}
			if _, err := c.Write(buf[:4]); err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(b, err)
	defer c.Close()
	buf := make([]byte, n)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		_, err := c.Write(buf)
		require.NoError(b, err)
		_, err = io.ReadFull(c, buf[:4])
		require.NoError(b, err)
	}
}

package carousel

import (
	"context"
	"crypto/sha256"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"

	"meibench/internal/rng"
)

func object(n int) []byte {
	luck := rng.Stream(1, "object")
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(luck.IntN(256))
	}
	return out
}

// group joins receivers to a multicast group on loopback, or says why that cannot be had here.
func group(t *testing.T, n int) (send net.PacketConn, to *net.UDPAddr, receivers []net.PacketConn) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip("no interface lo: ", err)
	}
	to = &net.UDPAddr{IP: net.IPv4(239, 77, 1, 1), Port: 20000 + time.Now().Nanosecond()/1000%20000}
	for range n {
		c, err := net.ListenMulticastUDP("udp4", lo, to)
		if err != nil {
			t.Skip("no multicast here: ", err)
		}
		require.NoError(t, c.SetReadBuffer(8<<20))
		t.Cleanup(func() { c.Close() })
		receivers = append(receivers, c)
	}
	out, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { out.Close() })
	p := ipv4.NewPacketConn(out)
	if err := p.SetMulticastInterface(lo); err != nil {
		t.Skip("no multicast over lo: ", err)
	}
	require.NoError(t, p.SetMulticastLoopback(true))
	if _, err := out.WriteTo([]byte("probe"), to); err != nil {
		t.Skip("multicast cannot be sent: ", err)
	}
	return out, to, receivers
}

// One transmission serves three receivers that each lose a tenth of the packets, others than each other; one that loses more than
// the repair symbols make up for says what it lacks.
func TestC6MulticastWithLossOverLoopback(t *testing.T) {
	data := object(700_001)
	sum := sha256.Sum256(data)
	conn, to, receivers := group(t, 4)
	var wg sync.WaitGroup
	got, errs := make([]*Received, 4), make([]error, 4)
	for i, c := range receivers {
		loss := 0.1
		if i == 3 {
			loss = 0.45
		}
		key := rng.NewKey(5, "loss", i)
		wg.Go(func() {
			got[i], errs[i] = Receive(t.Context(), c, sum, Limits{Idle: 700 * time.Millisecond, Drop: func(n int) bool {
				luck := key.At(uint64(n))
				return luck.Float64() < loss
			}})
		})
	}
	time.Sleep(50 * time.Millisecond)
	sent, err := Send(t.Context(), conn, to, data, Options{Repair: 0.4, Rate: 40e6})
	require.NoError(t, err)
	wg.Wait()
	for i := range 3 {
		require.NoError(t, errs[i])
		require.Equal(t, data, got[i].Data)
		require.Positive(t, got[i].Repaired)
	}
	t.Logf("%d bytes once for three receivers, %.2f of the object; unicast without loss would send 3", sent.Bytes, float64(sent.Bytes)/float64(len(data)))
	require.Less(t, float64(sent.Bytes), 1.5*float64(len(data)))
	require.ErrorContains(t, errs[3], "are lacking")
	require.Nil(t, got[3].Data)
	require.NotEmpty(t, got[3].Missing)
	lacks := make([]bool, len(got[3].Partial))
	for _, r := range got[3].Missing {
		for i := r[0]; i < r[1]; i++ {
			lacks[i] = true
		}
	}
	for i, b := range got[3].Partial {
		if !lacks[i] && b != data[i] {
			require.Failf(t, "partial", "byte %d is not missing and wrong", i)
		}
	}
	for _, r := range got[3].Missing {
		require.True(t, 0 <= r[0] && r[0] < r[1] && r[1] <= int64(len(data)))
	}
}

// packets are those of an object.
func packets(t testing.TB, data []byte, repair float64) (out [][]byte) {
	c := &catcher{}
	_, err := Send(context.Background(), c, nil, data, Options{Repair: repair})
	require.NoError(t, err)
	return c.got
}

// catcher is a socket that keeps what is sent.
type catcher struct {
	net.PacketConn
	got [][]byte
}

func (c *catcher) WriteTo(p []byte, _ net.Addr) (int, error) {
	c.got = append(c.got, append([]byte(nil), p...))
	return len(p), nil
}

// Any k of a block's symbols give it back, in any order and however often; damaged, foreign and short packets are dropped.
func TestC6AnySymbolsInAnyOrder(t *testing.T) {
	data := object(200_000)
	all := packets(t, data, 0.5)
	for seed := range uint64(20) {
		luck := rng.Stream(seed, "order")
		r := &receiver{sum: sha256.Sum256(data), lim: Limits{Bytes: 1 << 30}}
		whole := false
		for _, i := range luck.Perm(len(all)) {
			p := append([]byte(nil), all[i]...)
			if luck.IntN(5) == 0 { // a flipped bit first, then the packet
				bad := append([]byte(nil), p...)
				bad[luck.IntN(len(bad))] ^= 1 << luck.IntN(8)
				ok, err := r.take(bad)
				require.NoError(t, err)
				require.False(t, ok)
			}
			ok, err := r.take(p)
			require.NoError(t, err)
			if whole = ok; ok {
				break
			}
		}
		require.True(t, whole)
		require.Equal(t, data, r.out.Data)
		require.Positive(t, r.out.Foreign)
	}
	r := &receiver{sum: sha256.Sum256(object(5)), lim: Limits{Bytes: 1 << 30}}
	for _, p := range [][]byte{all[0], all[0][:10], nil} {
		ok, err := r.take(p)
		require.NoError(t, err)
		require.False(t, ok)
	}
	require.Equal(t, 3, r.out.Foreign)
	r = &receiver{sum: sha256.Sum256(data), lim: Limits{Bytes: 100}}
	_, err := r.take(all[0])
	require.ErrorContains(t, err, "at most 100")
	_, err = Send(t.Context(), &catcher{}, nil, nil, Options{})
	require.ErrorContains(t, err, "want bytes")
	_, err = Send(t.Context(), &catcher{}, nil, data, Options{Repair: 3})
	require.Error(t, err)
}

// A sender that makes packets with good checksums and other bytes is found out by the object's digest.
func TestX6ForgedSymbolsAreRefused(t *testing.T) {
	data := object(10_000)
	other := append([]byte(nil), data...)
	other[5000] ^= 1
	sum, forged := sha256.Sum256(data), packets(t, other, 0)
	r := &receiver{sum: sum, lim: Limits{Bytes: 1 << 20}}
	var err error
	for _, p := range forged {
		copy(p[4:], sum[:16])
		c := check(p)
		p[header-4], p[header-3], p[header-2], p[header-1] = byte(c>>24), byte(c>>16), byte(c>>8), byte(c)
		if _, err = r.take(p); err != nil {
			break
		}
	}
	require.ErrorContains(t, err, "refused")
}

func FuzzPacket(f *testing.F) {
	data := object(3000)
	for _, p := range packets(f, data, 0.5) {
		f.Add(p)
	}
	sum := sha256.Sum256(data)
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) == header+symbol { // let the rest of the parser be reached
			copy(p[4:], sum[:16])
			c := check(p)
			p[header-4], p[header-3], p[header-2], p[header-1] = byte(c>>24), byte(c>>16), byte(c>>8), byte(c)
		}
		r := &receiver{sum: sum, lim: Limits{Bytes: 1 << 20}}
		if ok, err := r.take(p); err == nil {
			require.False(t, ok, "one packet is never all of three")
		}
	})
}

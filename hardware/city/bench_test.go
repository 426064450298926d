package city

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/radio"
	"meibench/hardware/world"
	"meibench/internal/rng"
)

// town is a network of about cells cells with moving users.
func town(t testing.TB, env world.Env, cells, users int) (*Network, []*Access) {
	c := Default(1)
	side := 2
	for side*side*3 < cells {
		side += 2
	}
	var err error
	c.Layout, err = radio.HexGrid((cells/3+side-1)/side, side, 200)
	require.NoError(t, err)
	net := build(t, env, c)
	luck := rng.Stream(2, "users")
	all := make([]*Access, users)
	for i := range all {
		x, y := net.Place(rng.Float64(luck), rng.Float64(luck))
		all[i] = net.Access(i, walk{x, y, 10 * (rng.Float64(luck) - 0.5)}, nil)
	}
	return net, all
}

// load has users send requests at 0.1 a second each for as many as n: 2 kB up,
// 60 ms of work, 50 tokens of 24 B down, 16 ms apart.
func load(t testing.TB, r *world.Sim, users []*Access, n int) {
	luck := rng.Stream(3, "requests")
	gap := 10e9 / float64(len(users))
	r.Go("arrivals", func() {
		for range n {
			r.Sleep(time.Duration(gap * rng.Exp(luck)))
			a := users[luck.IntN(len(users))]
			r.Go("request", func() {
				_, err := a.Up().Send(hardware.Payload{Bytes: 2000})
				require.NoError(t, err)
				r.Sleep(60 * time.Millisecond)
				s := a.Down().Open()
				for range 50 {
					s.Write(hardware.Payload{Bytes: 24, Tokens: 1})
					r.Sleep(16 * time.Millisecond)
				}
				s.Close(nil)
				_, err = s.Drain()
				require.NoError(t, err)
			})
		}
	})
	require.NoError(t, r.Run())
}

// go test -run xxx -bench City ./hardware/city
func BenchmarkCity(b *testing.B) {
	for _, size := range []struct{ cells, users int }{{21, 100}, {21, 1000}, {300, 10_000}, {1000, 100_000}} {
		b.Run(fmt.Sprintf("cells=%d/users=%d", size.cells, size.users), func(b *testing.B) {
			r := world.NewSim(nil)
			_, users := town(b, r, size.cells, size.users)
			b.ResetTimer()
			load(b, r, users, b.N)
			b.ReportMetric(float64(r.Events())/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(r.Events())/float64(b.N), "events/op")
		})
	}
}

func BenchmarkLook(b *testing.B) {
	r := world.NewSim(nil)
	_, users := town(b, r, 300, 1)
	i := 0
	for b.Loop() {
		i++
		users[0].look(time.Duration(i) * time.Second)
	}
}

func BenchmarkRates(b *testing.B) {
	r := world.NewSim(nil)
	_, users := town(b, r, 300, 1)
	r.Go("p", func() {
		for b.Loop() {
			users[0].Rates(0)
		}
	})
	require.NoError(b, r.Run())
}

// A user who does nothing takes less than a kilobyte; one that was active, less
// than two.
func TestX11MemoryOfUsers(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 20_000
	r := world.NewSim(nil)
	net := build(t, r, Default(1))
	before := heap()
	for i := range n {
		net.Access(i, Spot{float64(i % 400), 10}, nil)
	}
	idle := float64(heap()-before) / n
	for _, a := range net.users {
		a.look(0)
	}
	active := float64(heap()-before) / n
	t.Logf("%.0f bytes idle, %.0f active", idle, active)
	require.Less(t, idle, 600.0)
	require.Less(t, active, 1600.0)
	runtime.KeepAlive(net)
}

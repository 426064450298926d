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
	"meibench/internal/vitals"
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

// load has users send n requests, together so many a second: 2 kB up, 60 ms of
// work, 50 tokens of 24 B down, 16 ms apart, one by one or in a train.
func load(t testing.TB, r *world.Sim, users []*Access, how traffic, n int) {
	rate, trains := how.rate, how.trains
	luck := rng.Stream(3, "requests")
	gap := 1e9 / rate
	r.Go("arrivals", func() {
		for range n {
			r.Sleep(time.Duration(gap * rng.Exp(luck)))
			a := users[luck.IntN(len(users))]
			r.Go("request", func() {
				_, err := a.Up().Send(hardware.Payload{Bytes: 2000})
				require.NoError(t, err)
				r.Sleep(60 * time.Millisecond)
				s := a.Down().Open().(hardware.Trains)
				token := hardware.Payload{Bytes: 24, Tokens: 1}
				if !trains {
					for range 50 {
						s.Write(token)
						r.Sleep(16 * time.Millisecond)
					}
					s.Close(nil)
					_, err = s.Drain()
					require.NoError(t, err)
					return
				}
				var at [50]time.Duration
				for k := range at {
					at[k] = r.Now() + time.Duration(k)*16*time.Millisecond
				}
				r.Sleep(800 * time.Millisecond)
				s.Train(token, at[:])
				s.Close(nil)
				_, _, err = s.DrainTrain()
				require.NoError(t, err)
			})
		}
	})
	require.NoError(t, r.Run())
}

type traffic struct {
	rate   float64 // requests a second
	trains bool
}

// go test -run xxx -bench City ./hardware/city
func BenchmarkCity(b *testing.B) {
	for _, size := range []struct {
		cells, users int
		traffic
	}{
		{21, 100, traffic{116, false}}, {21, 1000, traffic{116, false}}, {1000, 100_000, traffic{116, false}},
		{21, 100, traffic{116, true}}, {21, 1000, traffic{116, true}}, {1000, 100_000, traffic{116, true}}, {1000, 100_000, traffic{10_000, true}},
	} {
		b.Run(fmt.Sprintf("cells=%d/users=%d/rate=%g/trains=%t", size.cells, size.users, size.rate, size.trains), func(b *testing.B) {
			r := world.NewSim(nil)
			_, users := town(b, r, size.cells, size.users)
			b.ResetTimer()
			watch := vitals.Watch()
			load(b, r, users, size.traffic, b.N)
			cpu := watch.Until().CPU.Seconds()
			b.ReportMetric(float64(r.Events())/cpu, "events/cpu-s")
			b.ReportMetric(cpu*1e6/float64(b.N), "cpu-us/op")
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

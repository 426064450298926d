package city

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/hwtest"
	"meibench/hardware/radio"
	"meibench/hardware/world"
)

// home is one access point at 5.2 GHz.
func home() Config {
	c := alone()
	wifi := radio.WiFi6
	c.Scenario, c.WiFi, c.Frequency, c.Bandwidth, c.Power = radio.InHMixed, &wifi, 5.2e9, 80e6, 20
	return c
}

func TestX1WiFiConforms(t *testing.T) {
	hwtest.Link(t, func(env world.Env) hardware.Link { return build(t, env, home()).Access(1, Spot{3, 0}, nil).Up() }, hwtest.LinkOptions{})
}

// Five stations next to the access point, three sending and two receiving, move
// together what Bianchi's model says of five: they begin and end as one.
func TestX1WiFiContends(t *testing.T) {
	const size = 40_000_000
	r := world.NewSim(nil)
	net := build(t, r, home())
	var ends []time.Duration
	for i := range 5 {
		a := net.Access(i, Spot{1.5, 0}, nil)
		l := a.Up()
		if i >= 3 {
			l = a.Down()
		}
		r.Go("station", func() {
			d, err := l.Send(hardware.Payload{Bytes: size})
			require.NoError(t, err)
			ends = append(ends, d.Usage.End)
		})
	}
	require.NoError(t, r.Run())
	rate := 5 * 8 * float64(size) / ends[4].Seconds()
	// The best MCS loses little here but not nothing: its goodput is within 1 % of its efficiency.
	require.InEpsilon(t, radio.WiFi6.Throughput(5), rate, 0.01)
	require.Less(t, rate, 0.99*radio.WiFi6.Throughput(1), "contention costs")
	require.InEpsilon(t, ends[4].Seconds(), ends[0].Seconds(), 1e-3)
	c := home()
	c.WiFi.Rate = 0
	require.ErrorContains(t, c.Check(), "want one sector")
}

func TestX1WiFiSlowsWithDistance(t *testing.T) {
	r := world.NewSim(nil)
	net := build(t, r, home())
	run(t, r, func() {
		_, near := net.Access(0, Spot{2, 0}, nil).Rates(0)
		up, far := net.Access(1, Spot{45, 0}, nil).Rates(0)
		require.Less(t, far, near/2)
		require.Positive(t, up)
	})
}

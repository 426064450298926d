package costmodel

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/profiles"
	"meibench/internal/rng"
	"meibench/internal/units"
)

// TestTrainsEqualMessages: many messages in one call pass the link when they would
// one by one, over changes of rate, interruptions, outages and sleeping radios, and
// the radio pays the same for them.
func TestTrainsEqualMessages(t *testing.T) {
	for n, name := range append(profiles.Links(), "lte-bus-nyc-2020", "ble-1m") {
		p, err := profiles.Link(name)
		require.NoError(t, err)
		for k, gap := range []time.Duration{time.Millisecond, 8 * time.Millisecond, 130 * time.Millisecond, 800 * time.Millisecond, 15 * time.Second} {
			ch := NewChannel(p, Down, 0)
			state := func() *LinkState {
				return NewLinkState(ch, LinkOptions{Seed: uint64(n), Name: "x", Radio: NewRadio(p.Radio)})
			}
			one, many := state(), state()
			luck := rng.NewKey(1, "train", n).At(uint64(k))
			var at []time.Duration
			for now, i := time.Duration(0), 0; i < 3000; i++ {
				now += time.Duration(float64(gap) * rng.Exp(&luck))
				at = append(at, now)
			}
			size := units.Bytes(24 + 1000*(k%2))
			var want []time.Duration
			var joules units.Joules
			for _, now := range at {
				tr, err := one.Next(now, size)
				require.NoError(t, err)
				want, joules = append(want, tr.Arrive), joules+tr.Energy
			}
			var got []time.Duration
			var c cost
			for i := 0; i < len(at); {
				to := min(len(at), i+1+int(luck.Uint64()%200))
				got, err = many.train(at[i:to], size, got, &c)
				require.NoError(t, err)
				i = to
			}
			require.Equal(t, want, got, fmt.Sprint(name, " ", gap))
			paid := float64(ch.perByte*float64(size))*float64(len(at)) + float64(many.opt.Radio.price(c.fresh, c.tail))
			require.InDelta(t, float64(joules), paid, 1e-9*(1+float64(joules)))
		}
	}
}

package costmodel

import (
	"fmt"
	"math"
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
			paid := float64(ch.perByte*float64(size))*float64(len(at)) + float64(many.opt.Radio.Price(c.fresh, c.tail))
			require.InDelta(t, float64(joules), paid, 1e-9*(1+float64(joules)))
		}
	}
}

// TestLossLuckIsUniform: the draws of hundredths of a second, though made from
// the largest of a second, are uniform and independent.
func TestLossLuckIsUniform(t *testing.T) {
	p, err := profiles.Link("ble-1m")
	require.NoError(t, err)
	s := NewLinkState(NewChannel(p, Up, 0), LinkOptions{Seed: 4, Name: "x"})
	const n = 200_000
	var sum, square, next, far, last float64
	var of [100]float64
	high := 0
	for i := range n {
		now := time.Duration(i) * lossSlot
		s.delay(now, 100)
		u := s.lossOf(now)
		require.Equal(t, u, s.lossOf(now))
		sum, square, next = sum+u, square+u*u, next+(u-0.5)*(last-0.5)
		if i >= 100 {
			far += (u - 0.5) * (of[i%100] - 0.5)
		}
		if of[i%100], last = u, u; u > 0.99 {
			high++
		}
	}
	require.InDelta(t, 0.5, sum/n, 4*math.Sqrt(1.0/12/n))
	require.InDelta(t, 1.0/3, square/n, 4*math.Sqrt(4.0/45/n))
	require.InDelta(t, 0, next/n, 4.0/12/math.Sqrt(n))
	require.InDelta(t, 0, far/n, 4.0/12/math.Sqrt(n))
	require.InDelta(t, 0.01*n, high, 4*math.Sqrt(0.01*n))
}

package city

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// casters are the links down of users at places.
func casters(n *Network, tracks ...Track) (cs []hardware.Caster) {
	for i, tr := range tracks {
		cs = append(cs, n.Access(i, tr, nil).Down().(hardware.Caster))
	}
	return cs
}

// One receiver: a transmission is a message, to the nanosecond and the joule.
func TestC6CastToOneIsSend(t *testing.T) {
	c := alone()
	c.Radio = modem()
	p := hardware.Payload{Bytes: 20_000_000}
	r := world.NewSim(nil)
	var sent, cast hardware.Delivery
	run(t, r, func() {
		var err error
		sent, err = casters(build(t, r, c), Spot{50, 0})[0].Send(p)
		require.NoError(t, err)
	})
	r = world.NewSim(nil)
	run(t, r, func() {
		ds, lacks, err := casters(build(t, r, c), Spot{50, 0})[0].Cast(p, nil)
		require.NoError(t, err)
		require.Equal(t, []units.Bytes{0}, lacks)
		cast = ds[0]
	})
	require.Equal(t, sent, cast)
}

// All in one transmission: as long as the farthest would need alone, and one airtime instead of three.
func TestC6CastRunsAtTheWorstRate(t *testing.T) {
	c := alone()
	c.Radio = modem()
	p := hardware.Payload{Bytes: 20_000_000}
	near, far := Spot{20, 0}, Spot{400, 0}
	r := world.NewSim(nil)
	n := build(t, r, c)
	var alone hardware.Delivery
	run(t, r, func() {
		var err error
		alone, err = casters(n, far)[0].Send(p)
		require.NoError(t, err)
	})
	airtime := n.total.airtime[down]
	r = world.NewSim(nil)
	n = build(t, r, c)
	run(t, r, func() {
		cs := casters(n, near, far, near)
		require.Greater(t, cs[0].Rate(), 2*cs[1].Rate())
		ds, lacks, err := cs[0].Cast(p, cs[1:])
		require.NoError(t, err)
		require.Equal(t, []units.Bytes{0, 0, 0}, lacks)
		for _, d := range ds {
			require.InDelta(t, float64(alone.Usage.End), float64(d.Usage.End), 1e6+float64(2*harqTrip))
			require.InEpsilon(t, float64(alone.Usage.Energy), float64(d.Usage.Energy), 0.01, "every receiver listens for as long")
			require.Equal(t, p.Bytes+costmodel.FrameBytes, d.Usage.Moved)
		}
	})
	require.InEpsilon(t, airtime, n.total.airtime[down], 1e-6)
	require.Equal(t, 3*(p.Bytes+costmodel.FrameBytes), n.total.bytes[down])
}

// walker turns up elsewhere at a time.
type jumper struct {
	a, b Spot
	when time.Duration
}

func (j jumper) At(t time.Duration) (x, y float64) {
	if t < j.when {
		return j.a.At(t)
	}
	return j.b.At(t)
}

// Who leaves the cell lacks the rest, and who was never in it lacks all; the others do not notice.
func TestC6WhoLeavesLacksTheRest(t *testing.T) {
	c := Default(1)
	c.NoChance = true
	p := hardware.Payload{Bytes: 200_000_000}
	r := world.NewSim(nil)
	n := build(t, r, c)
	site, other := n.c.Layout.Sites[0], n.c.Layout.Sites[1]
	here := Spot{site.X + 30, site.Y + 3}
	cs := casters(n, here, jumper{here, Spot{other.X + 30, other.Y + 3}, 600 * time.Millisecond}, Spot{other.X + 30, other.Y + 3})
	run(t, r, func() {
		require.Equal(t, cs[0].Cell(), cs[1].Cell())
		require.NotEqual(t, cs[0].Cell(), cs[2].Cell())
		ds, lacks, err := cs[0].Cast(p, cs[1:])
		require.NoError(t, err)
		require.Zero(t, lacks[0])
		require.Positive(t, lacks[1])
		require.Less(t, lacks[1], p.Bytes)
		require.Equal(t, p.Bytes, lacks[2])
		require.Equal(t, p.Bytes-lacks[1], ds[1].Payload.Bytes)
		d, err := cs[1].Send(hardware.Payload{Bytes: lacks[1]})
		require.NoError(t, err)
		require.NotZero(t, d.Usage.End)
	})
	require.Error(t, func() error { _, _, err := cs[0].Cast(p, []hardware.Caster{cs[0]}); return err }())
	up := n.Access(9, here, nil).Up().(hardware.Caster)
	_, _, err := up.Cast(p, nil)
	require.ErrorContains(t, err, "only a base")
}

// Two transmissions that share receivers, begun at once in opposite orders, wait for each other and end.
func TestC6CastsDoNotDeadlock(t *testing.T) {
	r := world.NewSim(nil)
	cs := casters(build(t, r, alone()), Spot{20, 0}, Spot{30, 0})
	for i := range 2 {
		r.Go("cast", func() {
			_, _, err := cs[i].Cast(hardware.Payload{Bytes: 1e6}, []hardware.Caster{cs[1-i]})
			require.NoError(t, err)
		})
	}
	require.NoError(t, r.Run())
}

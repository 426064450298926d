package city

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/internal/units"
)

// owing owes a train's messages until somebody asks.
type owing struct {
	s   hardware.Trains
	p   hardware.Payload
	due []time.Duration
}

func (o *owing) Due() (time.Duration, bool) {
	if len(o.due) == 0 {
		return 0, false
	}
	return o.due[0], true
}

func (o *owing) Pay(by time.Duration, all bool) {
	n := 0
	for n < len(o.due) && o.due[n] <= by && (all || n == 0) {
		n++
	}
	o.s.Train(o.p, o.due[:n])
	o.due = o.due[n:]
}

// answer is how 80 tokens, 17 ms apart, came to a user who walks.
type answer struct {
	arrivals []time.Duration
	energy   float64
	moved    units.Bytes
	other    time.Duration // arrival of a message of somebody else in between
	busy     time.Duration
	up       time.Duration // arrival of a message of the same user the other way, meanwhile
	upEnergy float64
}

// drain reads an answer whole, message by message or as a train.
func (out *answer) drain(t *testing.T, s hardware.Trains, train bool) {
	if train {
		s.Lend(make([]time.Duration, 0, 80))
		got, took, err := s.DrainTrain()
		require.NoError(t, err)
		require.Equal(t, hardware.Modelled, took.Joules)
		out.arrivals, out.energy, out.moved = got, float64(took.Energy), took.Moved
		return
	}
	got, err := s.Drain()
	require.NoError(t, err)
	for _, d := range got {
		out.arrivals = append(out.arrivals, d.Usage.End)
		out.energy += float64(d.Usage.Energy)
		out.moved += d.Usage.Moved
	}
}

// tokens plays an answer: one by one, owed (handed over at the end, or when
// another message wants to pass), or whole (at the end, and nothing else passes).
func tokens(t *testing.T, how string) (out answer) {
	c := Default(9)
	c.Radio = modem()
	r := world.NewSim(nil)
	net := build(t, r, c)
	a := net.Access(1, walk{20, 30, 12}, nil)
	s := a.Down().Open().(hardware.Trains)
	r.Go("server", func() {
		owed := &owing{s: s, p: hardware.Payload{Bytes: 24, Tokens: 1}}
		for k := range 80 {
			owed.due = append(owed.due, time.Duration(k+1)*17*time.Millisecond)
		}
		if how == "owed" {
			s.Late(owed)
		}
		for _, x := range slices.Clone(owed.due) {
			r.Sleep(x - r.Now())
			if how == "one by one" {
				s.Write(owed.p)
			}
		}
		if how != "one by one" {
			owed.Pay(r.Now(), true)
		}
		s.Close(nil)
	})
	r.Go("other", func() {
		r.Sleep(500 * time.Millisecond)
		if how == "whole" {
			return
		}
		o := a.Down().Open()
		o.Write(hardware.Payload{Bytes: 10})
		o.Close(nil)
		d, err := o.Drain()
		require.NoError(t, err)
		out.other = d[0].Usage.End
	})
	r.Go("asks again", func() {
		r.Sleep(900 * time.Millisecond)
		if how == "whole" {
			return
		}
		d, err := a.Up().Send(hardware.Payload{Bytes: 200_000})
		require.NoError(t, err)
		out.up, out.upEnergy = d.Usage.End, float64(d.Usage.Energy)
	})
	r.Go("user", func() { out.drain(t, s, how != "one by one") })
	require.NoError(t, r.Run())
	out.busy = net.cells[a.Cell(r.Now())].share[down].Busy()
	return out
}

// The tokens of an answer arrive when they would one by one, and cost the same,
// whether they are handed over at the end, in between, or when somebody else
// wants to use the link.
func TestX1TrainsArriveLikeMessages(t *testing.T) {
	want, owed, whole := tokens(t, "one by one"), tokens(t, "owed"), tokens(t, "whole")
	require.Len(t, want.arrivals, 80)
	require.Equal(t, want.arrivals, owed.arrivals)
	require.Equal(t, want.other, owed.other)
	require.Equal(t, want.up, owed.up)
	require.InDelta(t, want.upEnergy, owed.upEnergy, 1e-9, "both directions share one radio")
	require.InDelta(t, want.energy, owed.energy, 1e-9)
	require.Equal(t, want.moved, owed.moved)
	require.Len(t, whole.arrivals, 80)
	require.Equal(t, want.arrivals[:20], whole.arrivals[:20])
	require.InDelta(t, float64(want.busy), float64(owed.busy), 100)
	require.Positive(t, want.busy)
}

package mobility

import (
	"math"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

const ms = time.Millisecond

// plain is A3 without a filter: what happens can be read off the levels.
func plain() A3 {
	a := DefaultA3()
	a.Offset, a.Hysteresis, a.TimeToTrigger, a.Filter, a.Prepare, a.Interruption = 2, 1, 200*ms, 0, 100*ms, 80*ms
	return a
}

func levels(db ...float64) []Reading {
	var out []Reading
	for i, v := range db {
		out = append(out, Reading{i, v})
	}
	return out
}

// TestX3A3ByHand: cell 1 must be more than 3 dB better for 200 ms; less than 1 dB better ends it, anything between goes on.
func TestX3A3ByHand(t *testing.T) {
	a := plain()
	var c Connection
	steps := []struct {
		at    time.Duration
		other float64 // cell 0 has -80
		want  Event
	}{
		{0, -90, Camped},
		{100 * ms, -77, Nothing},   // exactly offset + hysteresis: not more
		{200 * ms, -76.9, Nothing}, // enters
		{300 * ms, -78.5, Nothing}, // 1.5 dB: neither enters nor leaves
		{350 * ms, -79.1, Nothing}, // 0.9 dB: leaves
		{400 * ms, -76.9, Nothing}, // enters again
		{500 * ms, -78.5, Nothing}, // does not leave
		{599 * ms, -76.9, Nothing}, // 199 ms
		{600 * ms, -76.9, Reported},
		{650 * ms, -76.9, Nothing},
		{700 * ms, -90, Executed}, // the command is on its way, whatever is heard
		{710 * ms, -90, Nothing},
	}
	for _, s := range steps {
		require.Equal(t, s.want, c.Measure(&a, s.at, levels(-80, s.other), 10), "%v", s.at)
		if s.want == Reported {
			require.Equal(t, []any{true, 1, 700 * ms, 0}, []any{c.Pending, c.Target, c.Due, c.Serving})
		}
	}
	require.Equal(t, 1, c.Serving)
	require.Equal(t, 780*ms, c.Until)
	require.Equal(t, 80*ms, c.Interrupted)
	require.EqualValues(t, 1, c.Handovers)
	require.Zero(t, c.PingPongs)
}

// TestX3PingPong: back within the time counts, back later does not.
func TestX3PingPong(t *testing.T) {
	for _, tc := range []struct {
		stay time.Duration
		want uint16
	}{{4900 * ms, 1}, {5100 * ms, 0}} {
		a := plain()
		a.TimeToTrigger, a.Prepare, a.PingPong = 0, 0, 5*time.Second
		var c Connection
		c.Measure(&a, 0, levels(-80, -90), 10)
		require.Equal(t, Executed, c.Measure(&a, 100*ms, levels(-80, -70), 10))
		require.Equal(t, Nothing, c.Measure(&a, 150*ms, levels(-60, -70), 10), "still interrupted")
		require.Equal(t, Executed, c.Measure(&a, 100*ms+tc.stay, levels(-60, -70), 10))
		require.Equal(t, tc.want, c.PingPongs)
		require.EqualValues(t, 2, c.Handovers)
	}
}

// TestX3RadioLinkFailure: a second below the threshold without a break, then two seconds without data on the best cell.
func TestX3RadioLinkFailure(t *testing.T) {
	a := plain()
	a.Offset = 15 // never handed over
	var c Connection
	c.Measure(&a, 0, levels(-80, -90), 10)
	sinr := func(at time.Duration, db float64) Event { return c.Measure(&a, at, levels(-95, -90), db) }
	require.Equal(t, Nothing, sinr(100*ms, -9))
	require.Equal(t, Nothing, sinr(1000*ms, -9))
	require.Equal(t, Nothing, sinr(1050*ms, -8), "good again")
	require.Equal(t, Nothing, sinr(1100*ms, -9))
	require.Equal(t, Nothing, sinr(2099*ms, -9))
	require.Equal(t, Failed, sinr(2100*ms, -9))
	require.Equal(t, []any{1, uint16(1), 4100 * ms, 2 * time.Second}, []any{c.Serving, c.Failures, c.Until, c.Interrupted})
	require.Equal(t, Nothing, sinr(4000*ms, -20), "not while it is re-established")
	require.Zero(t, c.Handovers)
}

// TestX3LayerThreeFilter: k = 4 halves the distance every 200 ms, whatever the period of the readings.
func TestX3LayerThreeFilter(t *testing.T) {
	a := plain()
	a.Filter = 4
	require.InEpsilon(t, 0.5, a.weight(200*ms), 1e-12)
	require.InEpsilon(t, 0.75, a.weight(400*ms), 1e-12)
	require.InEpsilon(t, 1-math.Sqrt(0.5), a.weight(100*ms), 1e-12)
	var fast, slow Connection
	fast.Measure(&a, 0, levels(-80, -100), 10)
	slow.Measure(&a, 0, levels(-80, -100), 10)
	for i := 1; i <= 8; i++ {
		fast.Measure(&a, time.Duration(i)*50*ms, levels(-80, -84), 10)
	}
	slow.Measure(&a, 400*ms, levels(-80, -84), 10)
	x, _ := fast.level(1)
	y, _ := slow.level(1)
	require.InDelta(t, -84-16*0.25, x, 1e-9)
	require.InDelta(t, x, y, 1e-9)
}

// TestX3IdleCamps: after a pause the best cell serves, and no hand-over is counted; a serving cell that is heard no more
// is left.
func TestX3IdleCamps(t *testing.T) {
	a := plain()
	var c Connection
	require.Equal(t, Camped, c.Measure(&a, 0, levels(-80, -90), 10))
	require.Equal(t, Camped, c.Measure(&a, 11*time.Second, levels(-80, -70), 10))
	require.Equal(t, 1, c.Serving)
	require.Zero(t, c.Handovers)
	at := 11 * time.Second
	only := []Reading{{5, -120}}
	require.Equal(t, Nothing, c.Measure(&a, at+100*ms, only, 10))
	cell, since, ok := c.Candidate()
	require.Equal(t, []any{5, at + 100*ms, true}, []any{cell, since, ok})
	require.Equal(t, Reported, c.Measure(&a, at+300*ms, only, 10))
	require.Less(t, unsafe.Sizeof(c), uintptr(320))
}

// TestX3ManyNeighbours: of more than eight cells the strongest are kept, and the serving one always.
func TestX3ManyNeighbours(t *testing.T) {
	a := plain()
	var c Connection
	all := levels(-60, -99, -98, -97, -96, -95, -94, -93, -92, -91, -90)
	c.Measure(&a, 0, all, 10)
	require.Equal(t, 0, c.Serving)
	all[0].DBm = -100
	c.Measure(&a, 100*ms, all, 10)
	_, ok := c.level(0)
	require.True(t, ok)
	require.Equal(t, 10, c.best(0).Cell)
}

func TestA3Refuses(t *testing.T) {
	require.NoError(t, DefaultA3().Check())
	for want, change := range map[string]func(a *A3){
		"hysteresis of -1": func(a *A3) { a.Hysteresis = -1 },
		"offset of NaN":    func(a *A3) { a.Offset = math.NaN() },
		"time to trigger":  func(a *A3) { a.TimeToTrigger = -1 },
		"filter":           func(a *A3) { a.Filter = 20 },
		"sample":           func(a *A3) { a.Sample = 0 },
		"failure below":    func(a *A3) { a.FailBelow = math.Inf(-1) },
		"re-establishment": func(a *A3) { a.Reestablish = 2 * time.Hour },
	} {
		a := DefaultA3()
		change(&a)
		require.ErrorContains(t, a.Check(), want)
	}
}

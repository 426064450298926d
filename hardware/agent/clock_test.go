package agent

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/internal/rng"
)

// trips feeds a clock with round trips through a network whose delays are drawn
// per direction, to an agent whose clock is ahead and drifts.
func trips(c *clock, n int, ahead time.Duration, ppm float64) (last time.Duration) {
	r := rng.Stream(3, "trips")
	agent := func(t time.Duration) time.Duration { return t + ahead + time.Duration(float64(t)*ppm/1e6) }
	now := time.Second
	for range n {
		up := 2*time.Millisecond + time.Duration(r.ExpFloat64()*float64(3*time.Millisecond))
		down := 5*time.Millisecond + time.Duration(r.ExpFloat64()*float64(3*time.Millisecond))
		work := time.Duration(r.IntN(int(time.Millisecond)))
		c.add(now, agent(now+up), agent(now+up+work), now+up+work+down)
		last = now + up + work + down
		now += 200 * time.Millisecond
	}
	return last
}

// TestClockOffsetWithinHalfRTT: whatever the asymmetry, the error is at most half
// the round trip that is trusted, which is close to the shortest possible (7 ms).
func TestClockOffsetWithinHalfRTT(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour, -3 * time.Second} {
		var c clock
		at := trips(&c, 100, ahead, 0)
		o := c.report(at)
		require.Less(t, o.MinRTT, 8*time.Millisecond)
		require.LessOrEqual(t, (o.Offset - ahead).Abs(), o.RTT/2)
		require.LessOrEqual(t, (o.Offset - ahead).Abs(), o.Uncertainty)
		require.Equal(t, 100, o.Samples)
	}
}

// TestClockTrustsTheQuickest: of two samples at one time the quicker counts,
// wherever it stands.
func TestClockTrustsTheQuickest(t *testing.T) {
	var c clock
	c.add(0, 130, 130, 60) // 60 long, offset 100
	c.add(10, 115, 115, 20)
	c.add(20, 200, 200, 80)
	require.Equal(t, time.Duration(100), c.offset(15)) // 115 - (10+20)/2
	require.Equal(t, time.Duration(100), c.offset(60), "not the youngest")
	c.add(30, 1000, 900, 40) // left before it arrived
	c.add(30, 100, 200, 40)  // took longer there than in all
	require.Equal(t, 3, c.report(40).Samples)
}

// TestClockFollowsDrift: 50 ppm over 60 s are 3 ms, which the offset follows within
// its uncertainty and the drift shows within its own.
func TestClockFollowsDrift(t *testing.T) {
	var c clock
	at := trips(&c, 300, time.Minute, 50)
	o := c.report(at)
	truth := time.Minute + time.Duration(float64(at)*50/1e6)
	require.LessOrEqual(t, (o.Offset - truth).Abs(), o.Uncertainty)
	require.LessOrEqual(t, math.Abs(o.Drift-50), o.DriftUnsure)
	require.Less(t, o.DriftUnsure, 300.0)
	require.NotZero(t, o.Drift)
}

func TestMapperPullsStampsIntoTheCall(t *testing.T) {
	m := mapper{offset: 1000, lo: 100, hi: 200}
	require.Equal(t, time.Duration(150), m.stamp(1150))
	require.Zero(t, m.clamped)
	require.Equal(t, time.Duration(100), m.stamp(1090))
	require.Equal(t, time.Duration(200), m.stamp(1207))
	require.Equal(t, 2, m.clamped)
	require.Equal(t, time.Duration(10), m.farthestPull)
}

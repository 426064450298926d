package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/world"
	"meibench/workloads"
)

// steady runs equal requests, far apart, over links of a rate and returns their
// latencies.
func steady(t *testing.T, set map[string]any, rate float64, n int) (took []time.Duration) {
	s := newScene(world.NewSim(nil))
	s.up.rate, s.down.rate = rate, rate
	require.NoError(t, s.use("split", set))
	for i := range n {
		s.reqs = append(s.reqs, workloads.Request{ArriveAt: time.Duration(i) * 10 * time.Second, PromptTokens: 400, OutputTokens: 2})
	}
	s.run(t)
	for _, l := range s.logs {
		took = append(took, l.Done-l.Intended)
	}
	return took
}

// TestI8StaticChannelFindsTheFixedOptimum: on a link that does not change every
// chooser ends at the cut that is best among the fixed ones, the device alone
// included.
func TestI8StaticChannelFindsTheFixedOptimum(t *testing.T) {
	for _, rate := range []float64{1e4, 1e5, 1e6} {
		best := steady(t, map[string]any{"cut": 1.0}, rate, 1)[0]
		for _, cut := range []float64{2, 3} {
			best = min(best, steady(t, map[string]any{"cut": cut}, rate, 1)[0])
		}
		s := newScene(world.NewSim(nil))
		require.NoError(t, s.use("local", nil))
		s.reqs = []workloads.Request{{PromptTokens: 400, OutputTokens: 2}}
		s.run(t)
		best = min(best, s.logs[0].Done)
		for _, how := range []string{"hysteresis", "path"} {
			took := steady(t, map[string]any{"adapt": how, "cut": 2.0}, rate, 20)
			require.Equal(t, best, min(took[18], took[19]), "%s at %g B/s", how, rate) // where the device alone is best, every sixth looks at the link
		}
		right := 0 // a bandit goes on trying the others now and then
		for _, took := range steady(t, map[string]any{"adapt": "bandit", "cut": 2.0}, rate, 200)[100:] {
			if took == best {
				right++
			}
		}
		require.Greater(t, right, 75, "bandit at %g B/s", rate)
	}
}

// TestI8ChangingLinkIsFollowed: where the best cut changes with the rate, those
// who look at the link do better than the best fixed cut.
func TestI8ChangingLinkIsFollowed(t *testing.T) {
	total := func(name string, set map[string]any) (sum time.Duration) {
		s := newScene(world.NewSim(nil))
		require.NoError(t, s.use(name, set))
		for i := range 120 {
			at := time.Duration(i) * 10 * time.Second
			s.reqs = append(s.reqs, workloads.Request{ArriveAt: at, PromptTokens: 400, OutputTokens: 2})
			if i%20 == 0 {
				rate := []float64{1e4, 1e6}[i/20%2]
				s.env.Go("weather", func() { s.env.Sleep(at); s.up.rate, s.down.rate = rate, rate })
			}
		}
		s.run(t)
		for _, l := range s.logs {
			sum += l.Done - l.Intended
		}
		return sum
	}
	fixed := total("local", nil)
	for _, cut := range []float64{1, 2, 3} {
		fixed = min(fixed, total("split", map[string]any{"cut": cut}))
	}
	require.Less(t, total("split", map[string]any{"adapt": "path", "cut": 2.0}), fixed)
	require.Less(t, total("split", map[string]any{"adapt": "hysteresis", "cut": 2.0}), fixed)
}

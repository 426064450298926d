package pipeline

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/fault"
	"meibench/hardware/world"
	"meibench/harness/record"
)

// The edge dies while answers are under way, and comes back: every answer is the
// model's, some of them the work of both, and the caches are freed.
func TestFallbackGoesOnWhereTheAnswerStopped(t *testing.T) {
	var blips []fault.Window
	for at := ms(50); at < 10*time.Second; at += ms(100) {
		blips = append(blips, fault.Window{From: at, To: at + ms(5)})
	}
	for _, tc := range []struct {
		name    string
		windows []fault.Window
		mixed   bool // an answer is the work of both
	}{
		{"never", nil, false},
		{"from the first moment", []fault.Window{{From: 0, To: time.Hour}}, false},
		{"ten times a second", blips, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(world.NewSim(nil))
			s.site.Nodes[0].Device = fault.New(s.env, "edge", s.edge, tc.windows)
			require.NoError(t, s.use("fallback", map[string]any{"retry_ms": 20.0, "notice_ms": 5.0}))
			load(s)
			for i := range s.reqs {
				s.reqs[i].Prompt = prompt(i, s.reqs[i].PromptTokens)
			}
			s.run(t)
			var retries int64
			mixed := 0
			for i, l := range s.logs {
				require.Equal(t, record.OK, l.Outcome, l.Err)
				require.Equal(t, toyAnswer(toyModel, s.reqs[i].Prompt, s.reqs[i].OutputTokens), l.Output, "request %d", i)
				retries += l.Counts[record.Retries]
				if l.Counts[record.Retries] > 0 && l.DownBytes > 0 {
					mixed++
				}
			}
			require.Equal(t, tc.windows != nil, retries > 0)
			require.Equal(t, tc.mixed, mixed > 0)
			if tc.name == "from the first moment" {
				require.Zero(t, s.edge.ops)
				require.Less(t, retries, int64(len(s.logs)), "within retry_ms nobody asks the edge")
			}
		})
	}
}

// A failure that the device would not mend is the request's.
func TestFallbackHidesNoOtherFailure(t *testing.T) {
	for _, tc := range []struct {
		cause error
		want  record.Outcome
	}{{hardware.ErrLinkDown, record.OK}, {fmt.Errorf("a broken model"), record.Failed}} {
		s := newScene(world.NewSim(nil))
		require.NoError(t, s.use("fallback", nil))
		s.up.fail = tc.cause
		load(s)
		s.run(t)
		for _, l := range s.logs {
			require.Equal(t, tc.want, l.Outcome)
		}
	}
}

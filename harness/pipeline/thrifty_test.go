package pipeline

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/workloads"
)

// vital is a device that says how it is.
type vital struct {
	hardware.Device
	charge float64
	plug   bool // no battery
	heat   float64
}

func (v vital) Battery() (float64, bool) { return v.charge, !v.plug }
func (v vital) Heat() float64            { return v.heat }

// TestD8ThriftyTurnsExactlyAtItsThresholds, and never for a device without a battery, a
// thermal part, or a word about itself.
func TestD8ThriftyTurnsExactlyAtItsThresholds(t *testing.T) {
	for name, tc := range map[string]struct {
		v    vital
		dumb bool
		away bool
	}{
		"full":              {v: vital{charge: 1}},
		"just above":        {v: vital{charge: 0.3000001}},
		"at the threshold":  {v: vital{charge: 0.3}, away: true},
		"empty":             {v: vital{}, away: true},
		"no battery":        {v: vital{plug: true}},
		"just not hot":      {v: vital{charge: 1, heat: 0.8999999}},
		"hot":               {v: vital{charge: 1, heat: 0.9}, away: true},
		"hot, no battery":   {v: vital{plug: true, heat: 2}, away: true},
		"cannot tell":       {v: vital{heat: 2}, dumb: true},
		"empty, cannot say": {dumb: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(world.NewSim(nil))
			if toy := s.device; !tc.dumb {
				tc.v.Device = toy
				s.site.NewUser = func(id int) *hardware.User { return &hardware.User{ID: id, Device: tc.v, Up: s.up, Down: s.down} }
			}
			require.NoError(t, s.use("thrifty", map[string]any{"low": 0.3, "hot": 0.9}))
			s.reqs = []workloads.Request{{PromptTokens: 4, OutputTokens: 3, Prompt: []int32{1, 2, 3, 4}}}
			s.run(t)
			l := s.logs[0]
			require.Equal(t, record.OK, l.Outcome, l.Err)
			require.Equal(t, toyAnswer(toyModel, s.reqs[0].Prompt, 3), l.Output)
			require.Equal(t, tc.away, s.edge.ops > 0)
			require.Equal(t, !tc.away, s.device.ops > 0)
			require.Equal(t, tc.away, l.UpBytes > 0)
		})
	}
}

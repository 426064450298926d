package netem

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/hwtest"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
)

func TestLinksConform(t *testing.T) {
	sheet, err := profiles.Link("nr-midband-eu-2023")
	require.NoError(t, err)
	for _, tc := range []struct {
		name  string
		shape func() (hardware.LinkSpec, Shaper)
	}{
		{"constant rate and delay", func() (hardware.LinkSpec, Shaper) {
			return hardware.LinkSpec{Name: "pipe", BytesPerSec: 20e6, Delay: 2 * time.Millisecond}, &pipe{rate: 20e6, delay: 2 * time.Millisecond}
		}},
		{"the state of a profile", func() (hardware.LinkSpec, Shaper) {
			state := costmodel.NewLinkState(costmodel.NewChannel(sheet, costmodel.Up, 0), costmodel.LinkOptions{Seed: 3})
			return state.Spec(), state
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			hwtest.Link(t, func(env world.Env) hardware.Link {
				spec, shape := tc.shape()
				l, err := New(env.(*world.Real), spec, shape)
				require.NoError(t, err)
				return l
			}, hwtest.LinkOptions{Measured: true})
		})
	}
}

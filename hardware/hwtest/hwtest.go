// Package hwtest is the conformance suite that every Device and every Link
// passes, modelled, emulated or measured: what a pipeline relies on without
// asking.
//
//	func TestConformance(t *testing.T) {
//		hwtest.Device(t, func(env world.Env) hardware.Device { return mine(env) },
//			hwtest.DeviceOptions{Model: model})
//		hwtest.Link(t, func(env world.Env) hardware.Link { return wire(env) }, hwtest.LinkOptions{})
//	}
//
// Modelled parts are run in both worlds, the real one under a fake clock; parts
// that do real work (Measured) in the real world only. A modelled part must also
// give the same stamps every time.
//
// The suite asks for nothing about speed. It is not a test of numbers: those are
// derived by hand in the tests of each implementation.
package hwtest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
)

// each runs a test in the worlds a part can live in.
func each(t *testing.T, measured bool, test func(t *testing.T, r world.Runner)) {
	t.Helper()
	if measured {
		test(t, world.NewReal(t.Context()))
		return
	}
	t.Run("world=sim", func(t *testing.T) { test(t, world.NewSim(t.Context())) })
	t.Run("world=real", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, world.NewReal(t.Context())) })
	})
}

// run starts one process and waits for the world to end.
func run(t *testing.T, r world.Runner, fn func()) {
	t.Helper()
	r.Go("test", fn)
	require.NoError(t, r.Run())
}

// stamped checks what every usage promises: it lies inside the call that made
// it, does not run backwards, and spends no negative energy.
func stamped(t *testing.T, u hardware.Usage, before, after time.Duration) {
	t.Helper()
	require.GreaterOrEqual(t, u.Start, before, "started before it was called")
	require.GreaterOrEqual(t, u.End, u.Start, "ended before it started")
	require.LessOrEqual(t, u.End, after, "ended after the call returned")
	require.GreaterOrEqual(t, float64(u.Energy), 0.0, "negative energy")
	require.GreaterOrEqual(t, int64(u.Moved), int64(0))
	require.GreaterOrEqual(t, float64(u.FLOP), 0.0)
	require.NotZero(t, u.Time, "must say where its time comes from")
	if u.Joules == 0 {
		require.Zero(t, u.Energy, "energy without a source")
	}
}

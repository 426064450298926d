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

// inside is a test as processes see it. require's FailNow ends a goroutine,
// which in a world would take the turn with it; here it panics, and finish ends
// the test.
type inside struct{ *testing.T }

// failed is the panic of a process whose test failed.
type failed struct{}

// FailNow ends the process.
func (inside) FailNow() { panic(failed{}) }

// start adds a process that may use require.
func start(t *testing.T, r world.Runner, name string, fn func(t require.TestingT)) {
	r.Go(name, func() { fn(inside{t}) })
}

// finish runs the world and ends the test if a process failed.
func finish(t *testing.T, r world.Runner) {
	t.Helper()
	defer func() {
		v := recover()
		if crash, ok := v.(*world.Crash); ok && crash.Value == (failed{}) {
			t.FailNow()
		}
		if v != nil {
			panic(v)
		}
	}()
	require.NoError(t, r.Run())
}

// run starts one process and waits for the world to end.
func run(t *testing.T, r world.Runner, fn func(t require.TestingT)) {
	t.Helper()
	start(t, r, "test", fn)
	finish(t, r)
}

// stamped checks what every usage promises: it lies inside the call that made
// it, does not run backwards, and spends no negative energy.
func stamped(t require.TestingT, u hardware.Usage, before, after time.Duration) {
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

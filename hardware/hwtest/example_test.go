package hwtest_test

import (
	"testing"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/hwtest"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
)

// A test of an implementation of one's own hands the suite a way to make it.
func Example() {
	test := func(t *testing.T) {
		sheet, err := profiles.Device("nvidia-l4")
		if err != nil {
			t.Fatal(err)
		}
		model, err := profiles.Model("smollm2-135m:q8_0")
		if err != nil {
			t.Fatal(err)
		}
		hwtest.Device(t, func(env world.Env) hardware.Device {
			return costmodel.New(env, sheet, costmodel.Options{})
		}, hwtest.DeviceOptions{Model: model})
	}
	_ = test
	// Output:
}

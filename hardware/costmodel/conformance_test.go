package costmodel_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/costmodel"
	"meibench/hardware/hwtest"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
)

func TestDevicesConform(t *testing.T) {
	model, err := profiles.Model("smollm2-135m:q8_0")
	require.NoError(t, err)
	for _, name := range profiles.Devices() {
		t.Run(name, func(t *testing.T) {
			sheet, err := profiles.Device(name)
			require.NoError(t, err)
			hwtest.Device(t, func(env world.Env) hardware.Device {
				return costmodel.New(env, sheet, costmodel.Options{Seed: 1})
			}, hwtest.DeviceOptions{Model: model})
		})
	}
	t.Run("few operations, many slots", func(t *testing.T) {
		sheet, err := profiles.Device("nvidia-l4")
		require.NoError(t, err)
		sheet.Slots.Value = 4
		hwtest.Device(t, func(env world.Env) hardware.Device {
			return costmodel.New(env, sheet, costmodel.Options{Ops: hardware.Set(hardware.Prefill, hardware.Decode)})
		}, hwtest.DeviceOptions{Model: model})
	})
}

func TestLinksConform(t *testing.T) {
	for _, name := range profiles.Links() {
		t.Run(name, func(t *testing.T) {
			sheet, err := profiles.Link(name)
			require.NoError(t, err)
			hwtest.Link(t, func(env world.Env) hardware.Link {
				return costmodel.NewLink(env, sheet, costmodel.Up, costmodel.LinkOptions{Seed: 7, Name: "test"})
			}, hwtest.LinkOptions{})
		})
	}
}

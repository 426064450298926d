package harness

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/harness/record"
)

// worn is a device with a battery that may have throttled.
type worn struct {
	hardware.Device
	at      time.Duration
	drained float64
}

func (w worn) Throttled() (time.Duration, bool) { return w.at, w.at > 0 }
func (w worn) Drained() (float64, bool)         { return w.drained, w.drained > 0 }

// TestD8WhatRequestsTakeFromBatteries: 50 requests that take 0.02 and 0.03 of two
// batteries take 0.1 of one per hundred: a charge lasts for 1000.
func TestD8WhatRequestsTakeFromBatteries(t *testing.T) {
	tr := &trial{cell: &record.Cell{}, seen: 50}
	tr.vitals([]hardware.Device{worn{at: 90 * time.Second, drained: 0.02}, worn{at: 30 * time.Second, drained: 0.03}, worn{}})
	require.InDelta(t, 30, tr.cell.Figures["throttle_time"], 1e-12)
	require.InDelta(t, 0.1, tr.cell.Figures["battery_share_100"], 1e-12)
	require.InDelta(t, 1000, tr.cell.Figures["requests_per_charge"], 1e-9)
	none := &trial{cell: &record.Cell{}, seen: 50}
	none.vitals([]hardware.Device{worn{}})
	require.Empty(t, none.cell.Figures)
}

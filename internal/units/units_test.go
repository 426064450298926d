package units

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSecondsRoundsUp(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   float64
		want time.Duration
	}{
		{"zero", 0, 0},
		{"exact", 0.25, 250 * time.Millisecond},
		{"a third rounds up", 1.0 / 3, 333333334},
		{"smallest positive is one nanosecond", 1e-15, 1},
		{"beyond the clock saturates", 1e30, math.MaxInt64},
	} {
		t.Run(tc.name, func(t *testing.T) { require.Equal(t, tc.want, Seconds(tc.in)) })
	}
	require.Panics(t, func() { Seconds(-1) })
	require.Panics(t, func() { Seconds(math.NaN()) })
}

func TestTransferTimeAndEnergy(t *testing.T) {
	// 1500 B at 10 Mbit/s = 12000 bit / 1e7 bit/s = 1.2 ms
	require.Equal(t, 1200*time.Microsecond, TransferTime(1500, 10*Mega/8))
	// 4.5 W for 2 s = 9 J
	require.InDelta(t, 9.0, float64(Energy(4.5, 2*time.Second)), 1e-12)
}

func TestBytesString(t *testing.T) {
	require.Equal(t, "17 B", Bytes(17).String())
	require.Equal(t, "1.5 KiB", Bytes(1536).String())
	require.Equal(t, "24 GiB", (24 * GiB).String())
}

package profiles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// calibratedYAML is a device with what a calibration writes.
func calibratedYAML(t testing.TB) string {
	t.Helper()
	d, err := Device("raspberry-pi-5")
	require.NoError(t, err)
	d.Law.Tier = TierCalibrated
	d.Law.Interval = &Interval{Decode: Bounds{0.8, 1.3}, Prefill: Bounds{0.7, 1.5}, Source: "this test"}
	d.Host = &Handling{After: 1e-3, Idle: 1e-4, Busy: 2e-5, Resume: 3e-5, Start: 5e-5, Source: "this test", Kind: Measured}
	d.Fitted = []Fit{{Model: "m", Kernel: "k", Source: "this test", Kind: Measured, Decode: Coefficients{Pass: 1e-3, Knee: 6, More: 1e-6},
		Wake: Wake{After: 1e-3, Decode: 1e-4, Prefill: 2e-4, Fade: 0.5}, Gap: 4e-6,
		Spread:   &Spread{Slot: 0.02, Slots: []float64{0.875, 1, 1.25}, Ops: []float64{0.75, 1.5}},
		Interval: &Interval{Decode: Bounds{0.9, 1.1}, Prefill: Bounds{0.95, 1.05}, Source: "this test"},
		Errors:   []Miss{{Metric: "e2e", Requests: 9, Mean: 0.01, P99: 0.2, Covered: 0.8125}}, Seen: map[string]string{"ops": "ab"}}}
	text, err := d.YAML()
	require.NoError(t, err)
	return string(text)
}

func loadText(t testing.TB, text string) (*DeviceSheet, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "d.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return LoadDevice(path)
}

// TestCalibratedProfilesComeBack: a file that calibrate wrote reads as it was, and its
// digest tells it from one that was changed.
func TestCalibratedProfilesComeBack(t *testing.T) {
	text := calibratedYAML(t)
	d, err := loadText(t, text)
	require.NoError(t, err)
	again, err := d.YAML()
	require.NoError(t, err)
	require.Equal(t, text, string(again))
	require.Equal(t, Bounds{0.9, 1.1}, d.Fitted[0].Interval.Decode)
	other, err := loadText(t, strings.Replace(text, "0.875", "0.5", 1))
	require.NoError(t, err)
	require.NotEqual(t, d.Digest(), other.Digest())
}

func TestCalibratedProfilesAreChecked(t *testing.T) {
	text := calibratedYAML(t)
	for _, tc := range []struct{ was, is, want string }{
		{"lo: 0.9", "lo: 1.2", "lo 1.2 is above hi 1.1"},
		{"lo: 0.8", "lo: 1.4", "lo 1.4 is above hi 1.3"},
		{"lo: 0.95", "lo: 0", "must be greater than 0"},
		{"0.875", "2", "quantiles must not fall: 1 after 2"},
		{"ops: [0.75, 1.5]", "ops: [1.5]", "1 quantiles: want 2 to 1024"},
		{"ops: [0.75, 1.5]", "ops: [-1, 1.5]", "must not be negative"},
		{"slot: 0.02", "slot: 1e-9", "a stretch of 1e-09 s is too short"},
		{"fade: 0.5", "fade: 1.5", "is a share and must lie in 0..1"},
		{"gap: 4e-06", "gap: -1", "must not be negative"},
		{"covered: 0.8125", "covered: 8", "is a share"},
		{"tier: calibrated", "tier: guessed", `tier "guessed": want prior, microbenchmark or calibrated`},
		{"knee: 6", "knees: 6", "unknown field"},
	} {
		require.Contains(t, text, tc.was)
		_, err := loadText(t, strings.Replace(text, tc.was, tc.is, 1))
		require.ErrorContains(t, err, tc.want, tc.is)
	}
}

// FuzzCalibratedProfile: whatever is read can be written, and what was written is read
// as the same.
func FuzzCalibratedProfile(f *testing.F) {
	f.Add(calibratedYAML(f))
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<16 {
			return
		}
		d, err := loadText(t, text)
		if err != nil {
			return
		}
		out, err := d.YAML()
		require.NoError(t, err)
		again, err := loadText(t, string(out))
		require.NoError(t, err)
		require.Equal(t, d.Digest(), again.Digest())
	})
}

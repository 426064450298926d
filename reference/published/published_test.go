package published

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTargetsOfCachesAreMet: these are arithmetic, so a miss is an error of ours.
func TestTargetsOfCachesAreMet(t *testing.T) {
	for _, target := range caches() {
		ours := target.Ours()
		require.True(t, target.Meets(ours), "%s: %s: published %g, ours %g", target.ID, target.Quantity, target.Value, ours)
		require.False(t, target.Meets(ours*(1+3*target.Tolerance)), target.ID)
	}
}

func TestListIsSound(t *testing.T) {
	require.NoError(t, Check(All()))
	good := caches()[0]
	for name, change := range map[string]func(*Target){
		"twice":     func(*Target) {},
		"source":    func(t *Target) { t.ID, t.Source = "x", "" },
		"tag":       func(t *Target) { t.ID, t.Evidence = "x", "sure" },
		"tolerance": func(t *Target) { t.ID, t.Tolerance = "x", 0 },
		"ours":      func(t *Target) { t.ID, t.Ours = "x", nil },
	} {
		bad := good
		change(&bad)
		require.Error(t, Check([]Target{good, bad}), name)
	}
}

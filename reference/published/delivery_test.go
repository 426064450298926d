package published

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestC10TimesOfDownloadsAreMet: these are arithmetic, so a miss is an error of ours.
func TestC10TimesOfDownloadsAreMet(t *testing.T) {
	all := deliveries()
	require.Len(t, all, 5)
	for _, target := range all {
		ours := target.Ours()
		require.True(t, target.Meets(ours), "%s: published %g, ours %g", target.ID, target.Value, ours)
		require.False(t, target.Meets(ours*(1+3*target.Tolerance)), target.ID)
	}
}

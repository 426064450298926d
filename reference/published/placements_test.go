package published

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTargetsOfPlacementsAreMet: a miss is a result, and would be listed here.
func TestTargetsOfPlacementsAreMet(t *testing.T) {
	for _, target := range placements() {
		ours := target.Ours()
		t.Logf("%s: published %.4g, ours %.4g", target.ID, target.Value, ours)
		require.True(t, target.Meets(ours), "%s: %s: published %g, ours %g", target.ID, target.Quantity, target.Value, ours)
		require.False(t, target.Meets(ours*(1+3*target.Tolerance)), target.ID)
	}
	require.GreaterOrEqual(t, gainOf("gen", 500_000_000), 1.25, "25 % more where the library is 47 times the room")
}

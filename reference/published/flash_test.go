package published

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestD5LadderOfFlashIsMet: arithmetic on the paper's own bytes, so a miss is an error of ours.
func TestD5LadderOfFlashIsMet(t *testing.T) {
	all := ladders()
	require.Len(t, all, 5)
	for _, target := range all {
		ours := target.Ours()
		require.True(t, target.Meets(ours), "%s: %s: published %g, ours %g", target.ID, target.Quantity, target.Value, ours)
		require.False(t, target.Meets(ours*1.06), target.ID)
		require.Equal(t, Summary, target.Evidence)
	}
}

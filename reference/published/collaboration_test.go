package published

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Figures of authors' own data must come out. Of weaker evidence these are missed; a fourth would be news, and so would a third.
func TestTargetsOfCollaborationAreMetButForThree(t *testing.T) {
	var missed []string
	for _, target := range collaboration() {
		ours := target.Ours()
		require.Equal(t, ours, target.Ours(), "%s is the same each time", target.ID)
		t.Logf("%-34s published %8.5g, ours %8.5g, %+.1f %%", target.ID, target.Value, ours, 100*(ours/target.Value-1))
		if target.Meets(ours) {
			require.False(t, target.Meets(ours*(1+3*target.Tolerance)), target.ID)
			continue
		}
		missed = append(missed, target.ID)
		require.NotEqual(t, Code, target.Evidence, target.ID)
		require.Contains(t, target.Note, "missed", target.ID)
	}
	slices.Sort(missed)
	require.Equal(t, []string{"I11 specinfer width 5", "I7 edgeshard llama-2-7b gain", "I7 edgeshard memory"}, missed)
}

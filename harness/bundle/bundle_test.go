package bundle_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/bundle"
)

func TestTiersAreNamedInOrder(t *testing.T) {
	require.Equal(t, "refused", bundle.Tier(0).String())
	require.Equal(t, "audited", bundle.Audited.String())
	require.Less(t, bundle.Consistent, bundle.Replayed)
}

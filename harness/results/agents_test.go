package results

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAgentsAddUp: what is counted of an agent is the sum over the cells, what is
// known of it is what was seen last, and another node is another agent.
func TestAgentsAddUp(t *testing.T) {
	dir := t.TempDir()
	run, err := Create(dir, Manifest{Expected: 1})
	require.NoError(t, err)
	defer run.Close()
	first := Agent{Site: "s", Node: "edge", Address: "a:1", Offset: 5, FarthestClamp: 9, Models: map[string]string{"m": "d"}}
	second := first
	second.Offset, second.FarthestClamp = 7, 3
	counts := []string{"Samples", "Clamped", "Operations", "Failures", "Reconnects", "Sent", "Received", "Payload", "Setup", "Framing"}
	for i, name := range counts {
		reflect.ValueOf(&first).Elem().FieldByName(name).SetInt(int64(i + 1))
		reflect.ValueOf(&second).Elem().FieldByName(name).SetInt(int64(100 * (i + 1)))
	}
	other := Agent{Site: "s", Node: "cloud", Address: "a:1"}
	require.NoError(t, run.SetAgents([]Agent{first, other}))
	require.NoError(t, run.SetAgents([]Agent{second}))
	m, err := readManifest(dir)
	require.NoError(t, err)
	require.Len(t, m.Agents, 2)
	require.Equal(t, other.Node, m.Agents[1].Node)
	got := m.Agents[0]
	require.Equal(t, int64(7), got.Offset)
	require.Equal(t, int64(9), got.FarthestClamp)
	for i, name := range counts {
		require.Equal(t, int64(101*(i+1)), reflect.ValueOf(got).FieldByName(name).Int(), name)
	}
}

package profiles

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestImpossibleGeometryIsRefused: what cannot be is an error with file and line.
func TestImpossibleGeometryIsRefused(t *testing.T) {
	text, err := builtin.ReadFile("sites/walkers-4-cells.yaml")
	require.NoError(t, err)
	load := func(old, new string) error {
		changed := strings.Replace(string(text), old, new, 1)
		require.NotEqual(t, string(text), changed)
		file := filepath.Join(t.TempDir(), "walkers-4-cells.yaml")
		require.NoError(t, os.WriteFile(file, []byte(changed), 0o600))
		_, err := LoadSite(file)
		return err
	}
	for _, tc := range [][3]string{
		{"rows: 2", "rows: 3", "even number of 2 or more"},
		{"columns: 2", "columns: 0", "at least 1"},
		{"distance: 200", "distance: 0", "between sites: want above 0"},
		{"sectors: 1", "sectors: 2", "want 1 or 3"},
		{"edge: edge", "edge: cloud", "is not an edge node"},
		{"backhaul: ethernet-1g", "backhaul: \"\"", "backhaul"},
		{"links: []", "links: [{from: phone, to: edge, link: wifi6-home}]", "remove its link"},
		{"sectors: 1", "sectors: 1\n  every: -1", "at least 1"},
		{"sectors: 1", "speed: 1", "unknown field"},
	} {
		err := load(tc[0], tc[1])
		require.ErrorContains(t, err, tc[2], tc[1])
		require.Regexp(t, `walkers-4-cells.yaml:\d+:\d+`, err.Error())
	}
	s, err := Site("walkers-4-cells")
	require.NoError(t, err)
	require.Equal(t, []string{"edge-1", "edge-2", "edge-3", "edge-4"}, s.Copies(s.Nodes[1]))
	require.Equal(t, []string{"phone"}, s.Copies(s.Nodes[0]))
	s.Cells.Every = 3
	require.Equal(t, 2, s.Cells.Edges())
}

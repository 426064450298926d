package spell

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNearest(t *testing.T) {
	have := []string{"ar", "assistant", "jetson-orin-nx-16", "robotics"}
	for name, want := range map[string]string{
		"asistant": "assistant", "robotic": "robotics", "orin-nx": "jetson-orin-nx-16", "AR": "ar", "quantum": "", "": "ar",
	} {
		require.Equal(t, want, Nearest(name, have), "%q", name)
	}
	require.Equal(t, 3, distance("kitten", "sitting")) // the textbook's pair
	require.Equal(t, 4, distance("", "four"))
}

package field

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/profiles"
	"meibench/hardware/world"
	"meibench/harness/record"
)

func sheet(t *testing.T) *profiles.SiteSheet {
	s, err := profiles.Site("drivers-4-cells")
	require.NoError(t, err)
	return s
}

// TestX3UsersMeetTheNodeOfTheirCell: a user on the move is near the edge node of the cell that serves, hand-overs
// interrupt, and the figures count them.
func TestX3UsersMeetTheNodeOfTheirCell(t *testing.T) {
	s := sheet(t)
	plan, err := New(s, profiles.Link)
	require.NoError(t, err)
	run := func() (moves int, next int, figures map[string]float64, log string) {
		env := world.NewSim(nil)
		f, err := plan.Build(env, 3, 5)
		require.NoError(t, err)
		for id := range 20 {
			u := f.User(id, 0)
			env.Go("user", func() {
				last := -1
				for range 60 {
					d, err := u.Up.Send(hardware.Payload{Bytes: 5000})
					require.NoError(t, err)
					node := u.Near()
					require.True(t, node >= 5 && node < 9, "node %d", node)
					if last >= 0 && node != last {
						moves++
					}
					if n, ok := u.Next(); ok {
						require.True(t, n >= 5 && n < 9)
						next++
					}
					last = node
					log += fmt.Sprint(d.Usage.End, node, " ")
					env.Sleep(500 * time.Millisecond)
				}
			})
		}
		require.NoError(t, env.Run())
		return moves, next, f.Figures(), log
	}
	moves, next, figures, log := run()
	require.Greater(t, moves, 5)
	require.Positive(t, next)
	require.GreaterOrEqual(t, figures["interruption"], 0.0999*float64(moves), "100 ms each")
	for name := range figures {
		require.True(t, record.IsFigure(name), name)
	}
	require.Contains(t, figures, "ping_pongs")
	_, _, _, again := run()
	require.Equal(t, log, again)
}

// TestPortsAreShared: all that leaves an edge node leaves by one port; other names are nobody's.
func TestPortsAreShared(t *testing.T) {
	plan, err := New(sheet(t), profiles.Link)
	require.NoError(t, err)
	env := world.NewSim(nil)
	f, err := plan.Build(env, 3, 0)
	require.NoError(t, err)
	a, ok := f.Meet("edge-1", "edge-2")
	require.True(t, ok)
	b, ok := f.Meet("edge-1", "edge-4")
	require.True(t, ok)
	require.Same(t, a, b)
	c, _ := f.Meet("edge-2", "edge-1")
	require.NotSame(t, a, c)
	for _, pair := range [][2]string{{"edge-1", "edge-1"}, {"edge-0", "edge-1"}, {"edge-1", "edge-5"}, {"edge", "edge-1"}, {"cloud", "edge-1"}} {
		_, ok := f.Meet(pair[0], pair[1])
		require.False(t, ok, "%v", pair)
	}
}

func TestImpossibleCellsAreRefused(t *testing.T) {
	track := filepath.Join(t.TempDir(), "back.csv")
	require.NoError(t, os.WriteFile(track, []byte("t,x,y\n5,0,0\n4,0,0\n"), 0o600))
	low := -1.0
	for want, change := range map[string]func(n *profiles.Cells){
		"unknown scenario":          func(n *profiles.Cells) { n.Scenario = "moon" },
		"slow down for ever":        func(n *profiles.Cells) { n.Move.Slowest = 0 },
		"has no dwell: remove it":   func(n *profiles.Cells) { n.Move.Dwell = 5 },
		"unknown model of movement": func(n *profiles.Cells) { n.Move.Model = "teleport" },
		"0 blocks along a side":     func(n *profiles.Cells) { n.Move.Blocks = 0 },
		"no such file":              func(n *profiles.Cells) { n.Move = profiles.Move{Model: "trace", File: track + ".none"} },
		"time goes back":            func(n *profiles.Cells) { n.Move = profiles.Move{Model: "trace", File: track} },
		"at least two":              func(n *profiles.Cells) { n.Move = profiles.Move{Model: "hotspot", Spots: 1, Dwell: 5} },
		"backhaul":                  func(n *profiles.Cells) { n.Backhaul = "string-and-cans" },
		"radio":                     func(n *profiles.Cells) { n.Radio = "string-and-cans" },
		"even number of rows":       func(n *profiles.Cells) { n.Rows = 3 },
		"down_share":                func(n *profiles.Cells) { n.DownShare = 2 },
		"power":                     func(n *profiles.Cells) { n.Power = 100 },
		"trigger of -1 s":           func(n *profiles.Cells) { n.Hand = &profiles.Hand{Trigger: &low} },
	} {
		s := sheet(t)
		change(s.Cells)
		_, err := New(s, profiles.Link)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "drivers-4-cells")
	}
}

// TestC8EdgeNodesReachTheCloud: each edge node has a link of its own to a cloud node and back, beside its port to the others.
func TestC8EdgeNodesReachTheCloud(t *testing.T) {
	s, err := profiles.Site("downloads-10-cells")
	require.NoError(t, err)
	plan, err := New(s, profiles.Link)
	require.NoError(t, err)
	env := world.NewSim(nil)
	f, err := plan.Build(env, 3, 0)
	require.NoError(t, err)
	at := func(from, to string) hardware.Link {
		l, ok := f.Meet(from, to)
		require.True(t, ok, "%s to %s", from, to)
		return l
	}
	require.Same(t, at("cloud", "edge-2"), at("cloud", "edge-2"))
	require.NotSame(t, at("cloud", "edge-2"), at("cloud", "edge-3"))
	require.NotSame(t, at("cloud", "edge-2"), at("edge-2", "cloud"))
	require.Same(t, at("edge-2", "edge-3"), at("edge-2", "edge-4"), "one port")
	for _, pair := range [][2]string{{"cloud", "cloud"}, {"cloud", "edge-11"}, {"phone", "edge-1"}, {"edge-1", "edge-1"}} {
		_, ok := f.Meet(pair[0], pair[1])
		require.False(t, ok, "%v", pair)
	}
	core, err := profiles.Link(s.Cells.Core)
	require.NoError(t, err)
	env.Go("model", func() {
		d, err := at("cloud", "edge-2").Send(hardware.Payload{Bytes: 125_000_000})
		require.NoError(t, err)
		rate := 125e6 / (d.Usage.End - d.Usage.Start).Seconds()
		require.True(t, rate > core.Down.Rate.P5.Value && rate < core.Down.Rate.P95.Value, "%g B/s", rate)
	})
	require.NoError(t, env.Run())
}

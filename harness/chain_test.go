package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
)

// A node of a chain dies while requests are under way: on kernels and sockets, on
// kernels in virtual time, and modelled, every request ends well, with as many
// tokens and the same quality as on one device.
func TestChainSurvivesADeathInThreeModes(t *testing.T) {
	const site = `
name: dying
summary: "device and three nodes on this host; one of them dies"
apps: [assistant]
nodes:
  - {name: device, role: device, device: host, per_user: true}
  - {name: first, role: edge, device: host}
  - {name: second, role: edge, device: host, fails: [{at: 0.1, for: 600}]}
  - {name: third, role: edge, device: host}
links:
  - {from: device, to: first, link: ethernet-1g}
  - {from: first, to: second, link: ethernet-1g}
  - {from: second, to: third, link: ethernet-1g}
`
	const suite = `
name: dying
question: do answers survive a node?
defaults: {site: %q, app: assistant, model: mei-nano, scale: task, requests: 8, rate: 20}
matrix:
  pipeline: [%s]
  mode: [measured, emulated, modelled]
%s`
	path := filepath.Join(t.TempDir(), "dying.yaml")
	require.NoError(t, os.WriteFile(path, []byte(site), 0o644))
	want := map[string]string{}
	for _, tc := range []struct{ pipeline, more string }{{"local", ""}, {"chain", "  recover: [replan, reroute]\n"}} {
		dir := t.TempDir()
		s := parse(t, fmt.Sprintf(suite, path, tc.pipeline, tc.more))
		require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, options(t, dir, s)))
		set, err := results.Read(dir)
		require.NoError(t, err)
		defer set.Close()
		for i, run := range set.Runs() {
			var retries int64
			for r, err := range set.Rows(i) {
				require.NoError(t, err)
				require.Equal(t, record.OK, r.Outcome, "%s: %s", run.Cell.Name, r.Err)
				retries += r.Counts[record.Retries]
				key, got := fmt.Sprint(run.Cell.Mode, r.ID), fmt.Sprint(r.OutputTokens, r.Quality)
				if tc.pipeline == "local" {
					want[key] = got
				}
				require.Equal(t, want[key], got, run.Cell.Name)
			}
			if tc.pipeline == "chain" {
				require.Positive(t, retries, run.Cell.Name)
				require.Positive(t, run.Cell.Figures["recovery"], run.Cell.Name)
			}
		}
	}
}

package harness

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/harness/results"
)

// Of clients with unlike devices, policies that know speeds choose the quick ones, and a deadline leaves the slow ones out (checklist T4): rounds
// are shorter than with luck. Seconds are the cost model's; what is learned is real and not looked at here.
func TestT4UnlikeDevicesAreChosenBySpeed(t *testing.T) {
	s := parse(t, `
name: choice
question: who takes part?
defaults: {app: healthcare, model: mei-nano, site: mixed-5g-edge, scale: task, scenario: single-stream, mode: modelled, pipeline: federate, requests: 10}
parts:
  - {name: select, matrix: {select: [random, oort, fedcs, over]}, params: {federate: {sampled: 4}}}
  - {name: waiting, matrix: {deadline_s: [0, 0.05]}}
params: {federate: {clients: 15, steps: 10, batch: 4, samples: 8, levels: 1, every: 1000, score: 1}}
`)
	o := options(t, t.TempDir(), s)
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, o))
	set, err := results.Read(o.Out)
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()
	took, lost := map[string]float64{}, map[string]float64{}
	for _, r := range set.Runs() {
		for _, v := range r.Values {
			switch v.Metric.Name {
			case "makespan":
				took[r.Cell.Name] = v.V
			case "lost_updates":
				lost[r.Cell.Name] = v.V
			}
		}
	}
	luck := took["part=select/select=random"]
	for _, policy := range []string{"fedcs", "over"} {
		require.Less(t, took["part=select/select="+policy], 0.8*luck, policy)
	}
	require.Less(t, took["part=select/select=oort"], luck, "it tries everybody first")
	require.Less(t, took["part=waiting/deadline_s=0.05"], 0.8*took["part=waiting/deadline_s=0"])
	require.Zero(t, lost["part=waiting/deadline_s=0"])
	require.InDelta(t, 0.2, lost["part=waiting/deadline_s=0.05"], 0.15, "one of five devices is a Raspberry Pi")
}

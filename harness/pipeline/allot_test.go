package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/internal/units"
	"meibench/workloads"
)

// allottedRounds runs rounds of the toy class.
func allottedRounds(t *testing.T, rounds int, set map[string]any) (*scene, map[string]float64) {
	s := newScene(world.NewSim(nil))
	require.NoError(t, s.use("allot", set))
	for range rounds {
		s.reqs = append(s.reqs, workloads.Request{PromptTokens: 1, OutputTokens: 1})
	}
	s.run(t)
	return s, s.pipe.(Figurer).Figures()
}

// A round of one client lasts as long as the model says, and the time in which the server aggregates.
func TestT8AllotKeepsItsWord(t *testing.T) {
	s, f := allottedRounds(t, 1, map[string]any{"clients": 1.0, "policy": "fixed", "energy_weight": 0.0, "steps": 3.0})
	l := s.logs[0]
	require.Equal(t, record.OK, l.Outcome, l.Err)
	aggregate := time.Duration(0)
	for _, sp := range l.Spans {
		if sp.Kind == record.Compute && sp.Node == "edge" {
			aggregate = sp.End - sp.Start // the last one
		}
	}
	want := f["round_cost"] / 1.5 // rank 8 of value 4: 1 + 4/8 rounds
	require.InDelta(t, want, (l.Done - l.Sent - aggregate).Seconds(), 1e-6)
	// Three steps of 5, 6 and 7 up to a cut at 1 of 4 layers: client 0 has sequences of 3 and of 2 + step%3 tokens, 100 B each; then a
	// quarter of the update of 2000 B.
	require.Equal(t, units.Bytes(100*(5+6+7)+500), l.UpBytes)
	require.Equal(t, l.UpBytes, l.DerivedBytesOut)
	require.Positive(t, l.Energy[record.RadioPart].Joules)
	require.Less(t, f["round_error"], 1e-6)
	require.Equal(t, 1.0, f["cut_mean"])
	require.Equal(t, 8.0, f["rank_mean"])
}

// What chooses more costs less, by the model; the optimum is that of the exhaustive search.
func TestT8AllotPolicies(t *testing.T) {
	cost, ratio := map[string]float64{}, map[string]float64{}
	for _, policy := range allocPolicies() {
		_, f := allottedRounds(t, 4, map[string]any{"policy": policy, "bandwidth_mhz": 0.1, "energy_weight": 1.0, "radius_m": 500.0})
		cost[policy], ratio[policy] = f["round_cost"], f["optimum_ratio"]
	}
	require.LessOrEqual(t, cost["radio"], min(cost["fixed"], cost["bandwidth"]))
	require.Less(t, cost["joint"], cost["radio"])
	require.LessOrEqual(t, cost["joint"], cost["exhaustive"]*(1+1e-9))
	require.Equal(t, 1.0, ratio["exhaustive"])
	require.Greater(t, ratio["joint"], 1-1e-9)
	require.Less(t, ratio["fixed"], 0.95)
	_, f := allottedRounds(t, 2, map[string]any{"clients": 5.0})
	require.NotContains(t, f, "optimum_ratio")
	_, wide := allottedRounds(t, 4, map[string]any{"bandwidth_mhz": 1.0, "energy_weight": 1.0, "radius_m": 500.0})
	require.Less(t, wide["round_cost"], cost["joint"])
}

func TestAllotRefuses(t *testing.T) {
	for _, tc := range []struct {
		set  map[string]any
		want string
	}{
		{map[string]any{"method": "bias"}, "use method lora"},
		{map[string]any{"policy": "exhaustive", "clients": 4.0}, "use joint"},
		{map[string]any{"cut": 4.0}, "at least one of 4 layers for the server"},
	} {
		require.ErrorContains(t, newScene(world.NewSim(nil)).use("allot", tc.set), tc.want)
	}
	s, f := allottedRounds(t, 1, map[string]any{"deadline_s": 1e-3})
	require.Contains(t, s.logs[0].Err, "of deadline_s 0.001")
	require.Nil(t, f)
	require.Zero(t, s.device.ops, "what cannot end in time is not begun")
	s = newScene(world.NewSim(nil))
	s.device.memory = 1
	require.ErrorContains(t, s.use("allot", nil), "fit the memories")
}

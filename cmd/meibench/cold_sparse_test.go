package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/flash"
)

// TestD5ColdSparse: every way with one rule has one answer; less is read by a rule than without, still less with a window; the
// dense row is the model as it is, and what the oracle keeps is what it is judged by.
func TestD5ColdSparse(t *testing.T) {
	code, out, errOut := do(t, "cold", "mei-nano", "--sparse", "0.25", "--ram", "0.1,0.5", "--n", "12", "--questions", "1", "--rank", "16", "--on", "snapdragon-8-gen-3", "--as", "llama-2-7b:f16", "--json")
	require.Zero(t, code, errOut)
	var got struct{ Sparse sparseReport }
	require.NoError(t, json.Unmarshal([]byte(out), &got), out)
	r := got.Sparse
	require.Len(t, r.Rules, 4)
	by := map[string]ruleRow{}
	for _, q := range r.Rules {
		by[q.Rule] = q
		require.NotNil(t, q.Exact, q.Rule)
	}
	require.Equal(t, 1.0, by["dense"].Same)
	require.Equal(t, 1.0, by["dense"].Kept)
	require.Equal(t, 1.0, by["oracle"].Recall)
	require.Equal(t, 1.0, by["oracle"].Precision)
	for _, name := range []string{"threshold", "predictor"} {
		require.InDelta(t, 0.25, by[name].Kept, 0.03)
		require.Greater(t, by[name].Recall, 0.35, name)
		require.Less(t, by[name].Recall, 1.0, name)
	}
	require.Positive(t, r.Predictor)
	require.EqualValues(t, 5*192*3*64*2, r.Neurons)
	ways := map[string]flash.Row{}
	for _, x := range r.Ways {
		ways[x.Way] = x
		require.True(t, x.Same || x.Refused != "", x.Way)
	}
	require.Len(t, ways, 10)
	require.Contains(t, ways["10 % mostly hot"].Refused, "want that at least")
	require.Contains(t, ways["10 % as a window"].Refused, "larger budget")
	require.Empty(t, ways["50 % mostly hot"].Refused+ways["50 % as a window"].Refused)
	require.EqualValues(t, r.Neurons, ways["all read"].PerToken)
	require.Zero(t, ways["all kept"].PerToken)
	require.Less(t, ways["predictor"].PerToken, ways["all read"].PerToken)
	require.Less(t, ways["+ window"].PerToken, ways["predictor"].PerToken)
	require.Less(t, ways["+ bundles"].Reads, ways["+ window"].Reads)
	require.Len(t, r.Modelled, 6)
	// 32 layers of 11008 neurons of 3·4096 weights of two bytes, at the profile's 1.5 GB/s.
	const neurons = 32 * 11008 * 3 * 4096 * 2
	require.EqualValues(t, neurons, r.Modelled[1].PerToken)
	require.InDelta(t, neurons/1.5e9+32*10e-6, r.Modelled[1].ReadSec, 1e-6)
	require.InDelta(t, 0.25*neurons, r.Modelled[2].PerToken, 1)
	require.InDelta(t, r.Modelled[1].PerToken*ways["+ bundles"].PerToken/float64(r.Neurons), r.Modelled[3].PerToken, 1)
	require.Len(t, r.Hot, 2)
	require.Greater(t, r.Hot[1].HeldOut, r.Hot[0].HeldOut)
	require.Greater(t, r.Hot[1].Covered, 0.5)
	for want, args := range map[string][]string{"want shares": {"cold", "--sparse", "1.5"}, "want 1 or more": {"cold", "--sparse", "0.5", "--window", "0"}, "want both names": {"cold", "--sparse", "0.5", "--on", "rtx-4090"}, "with --sparse, and": {"cold", "--on", "rtx-4090", "--as", "llama-2-7b"}, "want 1 to 64": {"cold", "mei-nano", "--sparse", "0.5", "--rank", "65"},
		"none of the others can be": {"cold", "--sparse", "0.5", "--experts"}} {
		code, _, errOut := do(t, args...)
		require.NotZero(t, code)
		require.Contains(t, errOut, want)
	}
}

// TestD6ColdExperts: logits are the same for every cache of experts, larger ones hit more, and it is said that weights are drawn.
func TestD6ColdExperts(t *testing.T) {
	code, out, errOut := do(t, "cold", "--experts", "--ram", "0.25,0.75", "--n", "30", "--json")
	require.Zero(t, code, errOut)
	var got struct {
		Note    string
		Experts []expertRow
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got), out)
	require.Contains(t, got.Note, "weights are drawn")
	require.Len(t, got.Experts, 1+2*7)
	hits := map[int]float64{}
	for _, r := range got.Experts {
		require.True(t, r.Same, "%+v", r)
		require.Equal(t, 8, r.Of)
		if r.Policy == "lru" && r.Ahead == "" {
			hits[r.Cached] = r.Hits
		}
		if r.Ahead == "truth" {
			require.InDelta(t, 1, r.Right, 1e-12, "%+v", r)
			require.Greater(t, r.Hits, hits[r.Cached])
		}
		require.Equal(t, r.Ahead != "", r.Right > 0, "%+v", r)
	}
	require.Less(t, hits[2], hits[6])
	require.LessOrEqual(t, hits[6], hits[8])
	code, _, errOut = do(t, "cold", "mei-nano", "--experts")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, "has no experts")
}

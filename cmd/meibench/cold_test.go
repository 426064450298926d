package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestC5ColdStart: a small model starts in every way with one answer, and less memory reads more.
func TestC5ColdStart(t *testing.T) {
	code, out, errOut := do(t, "cold", "--ram", "0.6,1", "--n", "4", "--json")
	require.Zero(t, code, errOut)
	var got struct {
		Starts []struct {
			Way, Start string
			Same       bool
			FirstToken int64
		} `json:"starts"`
		Budgets []budgetRow `json:"budgets"`
		Speed   float64     `json:"storage_bytes_per_s"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got), out)
	require.Len(t, got.Starts, 10)
	for _, r := range got.Starts {
		require.True(t, r.Same, "%s, %s", r.Way, r.Start)
		require.Positive(t, r.FirstToken)
	}
	require.Positive(t, got.Speed)
	require.Len(t, got.Budgets, 2)
	less, all := got.Budgets[0], got.Budgets[1]
	require.Empty(t, less.Refused+all.Refused)
	require.True(t, less.Same && all.Same)
	require.Greater(t, less.PerToken, all.PerToken)
	require.Zero(t, all.PerToken)
	require.Less(t, less.Held, all.Held)
	for want, args := range map[string][]string{"want shares": {"cold", "--ram", "1.5"}, "want 2 or more": {"cold", "--n", "1"}, "no shipped model": {"cold", "nothing.gguf"}} {
		code, _, errOut := do(t, args...)
		require.Equal(t, exitUsage, code)
		require.Contains(t, errOut, want)
	}
}

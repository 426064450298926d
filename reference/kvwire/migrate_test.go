package kvwire

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/reference/handover"
	"meibench/reference/llm"
	"meibench/reference/quant"
)

// tokens decodes greedily behind what a cache holds, the next token being id.
func tokens(t testing.TB, m *llm.Model, c *llm.Cache, id int32, n int) []int32 {
	var out []int32
	for range n {
		id = llm.Greedy(next(t, m, c, []int32{id}))
		out = append(out, id)
	}
	return out
}

// TestI19TokensAfterLiveMigration: a cache that is copied block by block while the source decodes goes on at the target with
// the tokens that it would have made without; bytes are those of the blocks.
func TestI19TokensAfterLiveMigration(t *testing.T) {
	m := toy(t)
	prompt := text(40, 11)
	stay := filled(t, m, quant.F32, prompt)
	want := tokens(t, m, stay, 5, 45)
	plan, err := handover.Live(handover.Copy{Tokens: 40, BlockTokens: 4, BlockBytes: 4000, BytesPerSec: 1e6, TokenTime: 4 * time.Millisecond,
		TokensLeft: 50, LastStageMost: 1, MostStages: 8, FreeAtTarget: 30})
	require.NoError(t, err)
	require.Empty(t, plan.Aborted)
	require.Greater(t, len(plan.Stages), 2)
	require.Greater(t, plan.Made, 8)

	source := filled(t, m, quant.F32, prompt)
	target, err := m.NewCache(0, m.Layers, 100)
	require.NoError(t, err)
	got, id, sent := []int32(nil), int32(5), 0
	clock := time.Duration(0)
	for i, s := range plan.Stages {
		to := min(4*(sent+s.Blocks), source.Len())
		data, err := Marshal(source, Range{4 * sent, to}, F32, Model{})
		require.NoError(t, err)
		if clock += s.Duration; i < len(plan.Stages)-1 {
			for len(got) < int(clock/(4*time.Millisecond)) {
				got = append(got, tokens(t, m, source, id, 1)...)
				id = got[len(got)-1]
			}
		}
		require.NoError(t, Unmarshal(data, target, Model{}))
		sent += s.Blocks
	}
	require.Equal(t, plan.Made, len(got))
	require.Equal(t, source.Len(), target.Len())
	require.EqualValues(t, 4000*((target.Len()+3)/4), plan.Bytes)
	require.Equal(t, want, append(got, tokens(t, m, target, id, 45-len(got))...))
}

// TestI19TokensAfterJointHandover: the target computes the first tokens, and the keys and values of the others arrive: the
// same tokens follow, wherever the cut is.
func TestI19TokensAfterJointHandover(t *testing.T) {
	m := toy(t)
	prompt := text(40, 12)
	source := filled(t, m, quant.F32, prompt)
	rest, err := handover.Share([]handover.User{{Tokens: 40, PrefillTokensPerSec: 900, KVBytesPerToken: 960}}, 1e6)
	require.NoError(t, err)
	require.Greater(t, rest.Prefill[0], 5)
	require.Less(t, rest.Prefill[0], 35)
	for _, n := range []int{1, rest.Prefill[0], 39, 40} {
		data, err := Marshal(source, Range{n, 40}, F32, Model{})
		require.NoError(t, err)
		target := filled(t, m, quant.F32, prompt[:n])
		require.NoError(t, Unmarshal(data, target, Model{}))
		alone := filled(t, m, quant.F32, prompt)
		require.Equal(t, tokens(t, m, alone, 3, 20), tokens(t, m, target, 3, 20), "cut at %d", n)
	}
}

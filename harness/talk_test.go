package harness

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"meibench/harness/record"
	"meibench/harness/results"
	"meibench/reference/llm"
	"meibench/workloads"
)

// I13 (E): the prefix of a later turn is exact, so a cache that holds the turn
// before and its reference answer gives the logits of the whole prompt, bit for
// bit. One token of the prefix changed gives others.
func TestI13ReuseGivesTheSameLogits(t *testing.T) {
	m, err := (&Lab{}).Model("mei-nano")
	require.NoError(t, err)
	w, err := workloads.New(workloads.Spec{App: "ar", Scenario: workloads.MultiTurn, Scale: workloads.Task, Users: 2, Requests: 60, Context: m.Weights.Context},
		workloads.Deps{Tokenizer: m.Tok})
	require.NoError(t, err)
	work := m.Weights.NewWork(1)
	defer work.Close()
	logits := func(c *llm.Cache, ids []int32) []float32 {
		seqs := []llm.Seq{{IDs: ids, Cache: c, Want: llm.LastLogits}}
		require.NoError(t, work.Forward(0, m.Weights.Layers, seqs))
		return append([]float32(nil), seqs[0].Out...)
	}
	cache := func() *llm.Cache {
		c, err := m.Weights.NewCache(0, m.Weights.Layers, m.Weights.Context)
		require.NoError(t, err)
		return c
	}
	d, turns := w.Drive(3), 0
	for first := range w.Requests(3) {
		for r := first; turns < 12; {
			next := d.Completed(r, r.ArriveAt+time.Second)
			if len(next) == 0 {
				break
			}
			n := next[0]
			if n.PrefixTokens == 0 { // the window was emptied
				r = n
				continue
			}
			turns++
			kept := cache()
			logits(kept, r.Prompt)
			for _, id := range n.Prompt[len(r.Prompt):n.PrefixTokens] { // the answer, as it is decoded
				logits(kept, []int32{id})
			}
			require.Equal(t, n.PrefixTokens, kept.Len())
			want := logits(cache(), n.Prompt)
			require.Equal(t, want, logits(kept, n.Prompt[n.PrefixTokens:]), "turn %d", n.Turn)

			other := append([]int32(nil), n.Prompt...)
			other[n.PrefixTokens-2]++
			require.NotEqual(t, want, logits(cache(), other), "the test would see a prefix that is off")
			r = n
		}
	}
	require.Equal(t, 12, turns)
}

const talkSuite = `
name: talk
question: do turns that repeat the conversation spare their prefill?
defaults: {site: this-machine, model: mei-nano, scale: task, scenario: multi-turn, app: ar, pipeline: session, requests: 24, users: 2, rate: 20, mode: emulated}
matrix:
  cache: [keep, recompute]
`

// Conversations of real text through kernels: what the cache kept is not computed
// again, and the answers are those of a run that computes everything.
func TestConversationsReuseTheirPrefix(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Run(context.Background(), &Lab{Host: hostSheet(t)}, options(t, dir, parse(t, talkSuite))))
	set, err := results.Read(dir)
	require.NoError(t, err)
	defer set.Close()
	type seen struct {
		tokens  int
		quality float64
		reused  int64
	}
	var by [2]map[int]seen
	for i := range set.Runs() {
		by[i] = map[int]seen{}
		for r, err := range set.Rows(i) {
			require.NoError(t, err)
			require.Equal(t, record.OK, r.Outcome, r.Err)
			require.False(t, math.IsNaN(r.Quality), "later turns are graded too")
			by[i][r.ID] = seen{r.OutputTokens, r.Quality, r.Counts[record.ReusedTokens]}
		}
	}
	reused := int64(0)
	require.Len(t, by[0], 24)
	for id, keep := range by[0] {
		again := by[1][id]
		require.Equal(t, []any{again.tokens, again.quality}, []any{keep.tokens, keep.quality}, "request %d", id)
		require.Zero(t, again.reused)
		reused += keep.reused
	}
	require.Positive(t, reused)
}

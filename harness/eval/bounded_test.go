package eval

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/evict"
	"meibench/reference/kivi"
	"meibench/reference/models"
	"meibench/reference/quant"
)

func loaded(t *testing.T, name string) *models.Loaded {
	m, err := models.Open(name)
	require.NoError(t, err)
	return m
}

// TestI12FullBudgetAnswersAlike: a memory that need not forget answers what the plain engine answers, by every policy; one of
// eight tokens does not.
func TestI12FullBudgetAnswersAlike(t *testing.T) {
	m := loaded(t, "mei-small")
	needles, err := Needles(2027, 24)
	require.NoError(t, err)
	prompts := make([]string, len(needles))
	for i, n := range needles {
		prompts[i] = n.Prompt
	}
	want, err := NewLocal(m, 1).Answer(t.Context(), prompts, AnswerMost, nil)
	require.NoError(t, err)
	makers := map[string]func() (evict.Memory, error){
		"kivi": func() (evict.Memory, error) { return kivi.NewCache(m.Model.Config, kivi.Default(2), 0, m.Model.Layers) },
	}
	for _, e := range evict.Table {
		makers[e.Name] = func() (evict.Memory, error) {
			return evict.NewCache(m.Model.Config, e.New(400), quant.F32, 0, m.Model.Layers)
		}
	}
	for name, make := range makers {
		b := &Bounded{Model: m, Make: make}
		got, err := b.Answer(t.Context(), prompts, AnswerMost, func(int) {})
		require.NoError(t, err)
		require.Equal(t, want, got, name)
		require.Positive(t, b.Peak)
	}
	rows, err := MeasureRecall(t.Context(), m, []string{"full", "window"}, []int{400}, Options{Seed: 2027, N: 24})
	require.NoError(t, err)
	short, err := MeasureRecall(t.Context(), m, []string{"window", "streamingllm"}, []int{8}, Options{Seed: 2027, N: 24})
	require.NoError(t, err)
	require.Equal(t, rows[0].All, rows[1].All)
	require.Equal(t, 24, rows[0].Parts[0].N+rows[0].Parts[1].N+rows[0].Parts[2].N)
	require.Greater(t, rows[0].All.Exact.Value, 0.5)
	for _, r := range short {
		require.Less(t, r.All.Exact.Value, rows[0].All.Exact.Value/2, r.Policy)
		require.EqualValues(t, 8*m.Model.KVBytesPerToken(0, m.Model.Layers), r.Peak)
	}
	_, err = MeasureRecall(t.Context(), m, []string{"lru"}, []int{8}, Options{N: 1})
	require.ErrorContains(t, err, "lru")
}

// TestNeedlesLieWhereTheySay: the object asked for is at its depth, and its answer is there.
func TestNeedlesLieWhereTheySay(t *testing.T) {
	needles, err := Needles(3, 60)
	require.NoError(t, err)
	seen := map[float64]int{}
	for _, n := range needles {
		scene, _, _ := strings.Cut(strings.TrimPrefix(n.Prompt, "see "), " ; ")
		objects := strings.Split(scene, " , ")
		require.Equal(t, n.Answer, objects[int(n.Depth*float64(len(objects)-1)+0.5)])
		seen[n.Depth]++
	}
	require.Greater(t, len(seen), 5, "all depths")
}

// TestI12SinksAreMeasured: a stream longer than the cache, whose perplexities agree with a count by hand of what is scored. What
// they are is reported, not asserted: models trained on short lessons need not have sinks.
func TestI12SinksAreMeasured(t *testing.T) {
	m := loaded(t, "mei-nano")
	s := NewStream(m.Tokenizer, 7, 200)
	require.Len(t, s.Answer, len(s.IDs))
	ends, scored := 0, 0
	for i, id := range s.IDs {
		if id == m.Tokenizer.EOS() {
			require.True(t, s.Answer[i])
			ends++
		}
		if i > 40 && s.Answer[i] {
			scored++
		}
	}
	require.Greater(t, ends, 3)
	got, err := MeasureSinks(m, 40, 200, 7)
	require.NoError(t, err)
	require.Equal(t, scored, got.Scored)
	require.Equal(t, len(s.IDs), got.Tokens)
	for _, p := range []float64{got.Window, got.Streaming, got.Recompute} {
		require.Greater(t, p, 1.0)
		require.Less(t, p, 1e4)
	}
	_, err = MeasureSinks(m, 4, 100, 7)
	require.ErrorContains(t, err, "0 recent")
}

package harness

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/reference/gguf"
	"meibench/reference/llm"
	"meibench/reference/models"
	"meibench/workloads/tasks"
)

// TestC2AdaptersTeach: on hard questions of their application, which neither has seen, base and adapter are right more often than
// the base alone.
func TestC2AdaptersTeach(t *testing.T) {
	base, err := models.Open(models.AdapterBase)
	require.NoError(t, err)
	w := base.Model.NewWork(1)
	defer w.Close()
	right := [2]int{}
	for _, task := range tasks.Table {
		if task.Name != "robotics" && task.Name != "healthcare" {
			continue
		}
		data, err := models.Adapter(task.Name)
		require.NoError(t, err)
		f, err := gguf.Read(bytes.NewReader(data), int64(len(data)))
		require.NoError(t, err)
		a, err := base.Model.ReadAdapter(f)
		require.NoError(t, err)
		for _, in := range task.DrawLevel(77, tasks.Test, 5, 40) {
			for k, adapter := range []*llm.Adapter{nil, a} {
				if (answerer{base, w}).answer(t, adapter, in.Prompt) == in.Answer {
					right[k]++
				}
			}
		}
	}
	t.Logf("of 80: %d alone, %d with the adapter", right[0], right[1])
	require.Greater(t, right[1], right[0]+5)
}

// answerer answers greedily with a model, with or without an adapter.
type answerer struct {
	*models.Loaded
	work *llm.Work
}

func (l answerer) answer(t *testing.T, a *llm.Adapter, prompt string) string {
	c, err := l.Model.NewCache(0, l.Model.Layers, l.Model.Context)
	require.NoError(t, err)
	ids := l.Tokenizer.EncodePrompt(prompt)
	var out []int32
	for len(out) < 40 {
		s := []llm.Seq{{IDs: ids, Cache: c, Adapter: a, Want: llm.LastLogits}}
		require.NoError(t, l.work.Forward(0, l.Model.Layers, s))
		next := llm.Greedy(s[0].Out)
		if next == l.Tokenizer.EOS() {
			break
		}
		out = append(out, next)
		ids = []int32{next}
	}
	return l.Tokenizer.Decode(out)
}

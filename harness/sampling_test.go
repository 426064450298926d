package harness

import (
	"fmt"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"meibench/hardware"
	"meibench/hardware/world"
	"meibench/harness/record"
	"meibench/reference/llm"
	"meibench/suites"
	"meibench/workloads"
)

// TestI10SampledTextHasTheModelsLaw: drafts on the device, judged at the edge,
// resampled on the device: three tokens of text have the joint law of the large
// model, by a chi-square test over 8000 answers; the draft's own law fails it.
func TestI10SampledTextHasTheModelsLaw(t *testing.T) {
	lab := &Lab{Host: hostSheet(t)}
	set, err := lab.resolve(suites.Cell{App: "robotics", Scale: "task", Requests: 1, Users: 1, Pipeline: "speculate", Site: "this-machine", Model: "mei-small", Small: "mei-nano",
		Mode: "emulated", Params: map[string]any{"temperature": 1.6, "gamma": 2.0}}, false)
	require.NoError(t, err)
	prompt := set.model.Tok.EncodePrompt("a")
	const answers, length = 8000, 3
	counts := map[string]int{}
	env := world.NewSim(t.Context())
	b := &builder{lab: lab, set: set, env: env, seed: 1, shared: map[string]hardware.Device{}}
	defer b.close()
	site, err := b.site()
	require.NoError(t, err)
	pipe := set.pipe.New(set.params)
	require.NoError(t, pipe.Start(env, site, set.models(1, nil)))
	resampled := int64(0)
	env.Go("user", func() {
		var log record.Request
		for id := range answers {
			log.Reset(id, env.Now())
			err := pipe.Handle(&workloads.Request{ID: id, PromptTokens: len(prompt), Prompt: prompt, OutputTokens: length}, &log)
			if err != nil {
				t.Error(err)
				return
			}
			counts[fmt.Sprint(log.Output)]++
			resampled += log.Counts[record.Drafted] - log.Counts[record.Accepted]
		}
	})
	require.NoError(t, env.Run())
	require.Greater(t, resampled, int64(500), "drafts were refused")
	require.Less(t, chiSquare(counts, jointLaw(t, set.model, prompt, length), answers), 55.0, "20 bins: p is about 2e-5")
	require.Greater(t, chiSquare(counts, jointLaw(t, set.small, prompt, length), answers), 110.0)
}

// jointLaw is the probability of each text of some length, above a thousandth.
func jointLaw(t *testing.T, m *Model, prompt []int32, length int) map[string]float64 {
	w := m.Weights.NewWork(1)
	defer w.Close()
	s := llm.Sampler{Temperature: 1.6}
	law := map[string]float64{}
	var walk func(text []int32, p float64)
	walk = func(text []int32, p float64) {
		if len(text) == len(prompt)+length || len(text) > len(prompt) && text[len(text)-1] == m.Tok.EOS() {
			law[fmt.Sprint(text[len(prompt):])] = p
			return
		}
		c, err := m.Weights.NewCache(0, m.Weights.Layers, 64)
		require.NoError(t, err)
		seqs := []llm.Seq{{IDs: text, Cache: c}}
		require.NoError(t, w.Forward(0, m.Weights.Layers, seqs))
		probs := make([]float32, m.Weights.Vocab)
		s.Probs(probs, seqs[0].Out)
		for id, q := range probs {
			if joint := p * float64(q); joint > 1e-3 {
				walk(append(text[:len(text):len(text)], int32(id)), joint)
			}
		}
	}
	walk(prompt, 1)
	return law
}

// chiSquare compares counts with the 19 likeliest texts and all the others.
func chiSquare(counts map[string]int, law map[string]float64, n int) (x float64) {
	var texts []string
	for text := range law {
		texts = append(texts, text)
	}
	sort.Slice(texts, func(i, j int) bool {
		return law[texts[i]] > law[texts[j]] || law[texts[i]] == law[texts[j]] && texts[i] < texts[j]
	})
	rest, seen := 1.0, n
	for _, text := range texts[:min(19, len(texts))] {
		want := law[text] * float64(n)
		d := float64(counts[text]) - want
		x += d * d / want
		rest -= law[text]
		seen -= counts[text]
	}
	d := float64(seen) - rest*float64(n)
	return x + d*d/(rest*float64(n))
}

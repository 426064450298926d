package learning

import (
	"fmt"
	"slices"

	"meibench/reference/privacy"
	"meibench/reference/tensor"
	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// Figures are what a job of so many rounds, of so many steps each, has to tell beside its score, by the names of package record. delta is that of
// epsilon.
func (s *School) Figures(rounds, steps int, delta float64) (map[string]float64, error) {
	f := map[string]float64{}
	var groups []int
	for g := range s.servers {
		groups = append(groups, g)
	}
	slices.Sort(groups)
	sum, n := 0.0, 0
	for _, g := range groups {
		for _, e := range s.servers[g].errors {
			sum, n = sum+e, n+1
		}
	}
	if n > 0 {
		f["aggregation_error"] = sum / float64(n)
	}
	if all, _ := s.Refused(); all > 0 {
		f["refused_updates"] = float64(all)
	}
	if s.job.Noise > 0 {
		eps, _, err := privacy.Epsilon(s.job.rate(), s.job.Noise, rounds*steps, delta)
		if err != nil {
			return nil, fmt.Errorf("account for the privacy of %d steps: %w", rounds*steps, err)
		}
		f["epsilon"] = eps
	}
	member, err := s.Membership()
	if err != nil {
		return nil, err
	}
	f["membership_advantage"] = member.Advantage
	recovered, err := s.Inversion()
	if err != nil {
		return nil, err
	}
	if recovered >= 0 {
		f["attack_success"] = recovered
	}
	return f, nil
}

// attacked is how many questions an attack on what was trained looks at.
const attacked = 64

// Membership guesses which questions were trained on, from their losses (Yeom et al. 2018): as many of the first clients' as of the held-out ones.
func (s *School) Membership() (privacy.Attack, error) {
	var members, others []float64
	for id := 0; id < s.job.Clients && len(members) < attacked; id++ {
		for _, e := range s.data.of(id) {
			if len(members) < attacked {
				members = append(members, s.lossOf(e))
			}
		}
	}
	for id := 0; len(others) < len(members); id++ {
		app := id % len(s.data.apps)
		in := s.data.apps[app].Generate(scoreSeed+1, id)
		if in.Split == tasks.Test && (s.job.Levels == 0 || in.Level <= s.job.Levels) {
			others = append(others, s.lossOf(s.data.example(in, app)))
		}
	}
	return privacy.Membership(members, others)
}

// lossOf is the loss of one question under what the scorer has.
func (s *School) lossOf(e example) float64 {
	var b train.Batch
	b.Add(e.ids, e.prompt, 0)
	loss, _ := s.scorer.learner.Evaluate([]train.Batch{b})
	return loss
}

// Inversion reads tokens of a question from the gradient that its client would send after one step on it: which tokens' normed embeddings lie in
// the span of the gradient of the first layer's queries (DAGER's check, Petrov et al. 2024). It returns the F1 over the first questions, each alone,
// with the noise of the job; -1 where the method has no such gradient.
func (s *School) Inversion() (float64, error) {
	name, rows := s.exposed()
	if name == "" {
		return -1, nil
	}
	l := &lesson{state: &client{}}
	m := s.scorer.params.Model
	C, V := m.Dim, m.Vocab
	candidates := make([]float32, V*C)
	embed := make([]float32, V*C)
	for i := range V {
		m.Embed.ReadRow(embed[i*C:(i+1)*C], i, 0)
	}
	tensor.RMSNorm(candidates, embed, m.Blocks[0].AttnNorm, nil, V, C, m.Eps)
	sum := 0.0
	const questions = 8
	for i, e := range s.data.of(0)[:min(questions, len(s.data.of(0)))] {
		var b train.Batch
		b.Add(e.ids, e.prompt, 0)
		_, grad := s.gradient(s.scorer, l, &b, i)
		span, err := privacy.NewSpan(partOf(grad, name), rows, C)
		if err != nil {
			return 0, err
		}
		if span.Full() { // every token fits: nothing is told
			continue
		}
		found, err := span.Inside(candidates, spanTolerance)
		if err != nil {
			return 0, err
		}
		sum += privacy.Score(found, b.Tokens).F1
	}
	return sum / float64(min(questions, len(s.data.of(0)))), nil
}

// spanTolerance is how far from the span an embedding may be, over its length: float32 gradients of models of this size leave about 1e-4.
const spanTolerance = 1e-2

// exposed is the first layer's gradient whose rows are sums of normed embeddings.
func (s *School) exposed() (name string, rows int) {
	for _, p := range s.scorer.params.Parts() {
		if p.Name == "blk.0.attn_q.weight" || p.Name == "blk.0.attn_q.weight.lora_a" {
			return p.Name, p.N
		}
	}
	return "", 0
}

// partOf is one tensor of a gradient.
func partOf(grad *train.Params, name string) []float32 {
	for _, p := range grad.Parts() {
		if p.Name == name {
			return p.Data
		}
	}
	return nil
}

package main

import (
	"fmt"
	"io"
	"math"

	"meibench/reference/token"
	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// Test instances are drawn from two seeds, neither of them a training seed. Runs
// are watched, and recipes were chosen, on watchSeed; scores are reported on
// reportSeed, whose instances nobody looked at before the model was done.
const (
	watchSeed  = 2026
	reportSeed = 2027
)

// score is exact match on one task and difficulty of the test split.
type score struct {
	task       string
	difficulty tasks.Difficulty
	right, n   int
	credit     float64 // sum of Task.Score, of which exact matches are 1
	constant   int     // instances that share the most frequent answer: what knowing nothing scores
	distinct   int     // different prompts
}

func (s *score) add(credit float64, exact bool) {
	s.n++
	s.credit += credit
	if exact {
		s.right++
	}
}

func (s score) share() float64 { return float64(s.right) / float64(s.n) }

// wilson is the 95 % score interval of a proportion (Wilson 1927), z = 1.96.
func (s score) wilson() (low, high float64) {
	const z = 1.959964
	n, p := float64(s.n), s.share()
	mid, half := (p+z*z/(2*n))/(1+z*z/n), z/(1+z*z/n)*math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return mid - half, mid + half
}

// cases lists what is measured, in the order of the report.
func cases(seed uint64, n int, visit func(t tasks.Task, d tasks.Difficulty, in []tasks.Instance)) {
	for _, t := range tasks.Table {
		for _, d := range []tasks.Difficulty{tasks.Easy, tasks.Hard} {
			visit(t, d, t.Draw(seed, tasks.Test, d, n))
		}
	}
}

// newScore counts what is known of the instances before any model answers.
func newScore(t tasks.Task, d tasks.Difficulty, instances []tasks.Instance) score {
	s := score{task: t.Name, difficulty: d}
	answers, prompts := map[string]int{}, map[string]bool{}
	for _, in := range instances {
		answers[in.Answer]++
		s.constant = max(s.constant, answers[in.Answer])
		prompts[in.Prompt] = true
	}
	s.distinct = len(prompts)
	return s
}

// measure counts exact matches of greedy decoding, by forcing the reference.
func measure(l *train.Learner, tok *token.Tokenizer, n int) (scores []score) {
	cases(watchSeed, n, func(t tasks.Task, d tasks.Difficulty, instances []tasks.Instance) {
		batches := make([]train.Batch, (len(instances)+batchSize-1)/batchSize)
		for i, in := range instances {
			ids, prompt := sequence(tok, in)
			batches[i/batchSize].Add(ids, prompt, 0)
		}
		s := newScore(t, d, instances)
		_, exact := l.Evaluate(batches)
		for _, b := range exact {
			for _, hit := range b {
				s.add(0, hit)
			}
		}
		scores = append(scores, s)
	})
	return scores
}

// report prints scores as the table of a model card.
func report(w io.Writer, scores []score) {
	fmt.Fprintln(w, "| application | split | n (distinct) | exact match | 95 % interval (Wilson) | mean score | best constant answer |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	for _, s := range scores {
		low, high := s.wilson()
		fmt.Fprintf(w, "| %s | %s | %d (%d) | %.1f %% | %.1f to %.1f %% | %.3f | %.1f %% |\n", s.task, s.difficulty, s.n, s.distinct, 100*s.share(), 100*low, 100*high, s.credit/float64(s.n),
			100*float64(s.constant)/float64(s.n))
	}
}

func brief(w io.Writer, scores []score) {
	for _, s := range scores {
		fmt.Fprintf(w, " %s/%s %.0f", s.task, s.difficulty, 100*s.share())
	}
	fmt.Fprintln(w)
}

package main

import (
	"fmt"
	"io"

	"meibench/reference/token"
	"meibench/reference/train"
	"meibench/workloads/tasks"
)

// Runs are watched, and recipes are chosen, on the validation split; what a
// model card reports comes from the test split, by `meibench eval`.
const watchSeed = 2026

// score is exact match on one task and level.
type score struct {
	task     string
	level    int
	right, n int
}

func (s score) share() float64 { return float64(s.right) / float64(s.n) }

// measure counts exact matches of greedy decoding on n instances of each task
// and level, by forcing the reference.
func measure(l *train.Learner, tok *token.Tokenizer, n int) (scores []score) {
	for _, t := range tasks.Table {
		for level := 1; level <= tasks.Levels; level++ {
			batches := make([]train.Batch, (n+batchSize-1)/batchSize)
			for i, in := range t.DrawLevel(watchSeed, tasks.Validation, level, n) {
				addLesson(&batches[i/batchSize], tok, []tasks.Instance{in})
			}
			s := score{task: t.Name, level: level}
			_, exact := l.Evaluate(batches)
			for _, b := range exact {
				for _, hit := range b {
					s.n++
					if hit {
						s.right++
					}
				}
			}
			scores = append(scores, s)
		}
	}
	return scores
}

// brief prints one line: the exact match of each task from level 1 up, in percent.
func brief(w io.Writer, scores []score) {
	for _, s := range scores {
		if s.level == 1 {
			fmt.Fprintf(w, "  %s", s.task)
		}
		fmt.Fprintf(w, " %.0f", 100*s.share())
	}
	fmt.Fprintln(w)
}

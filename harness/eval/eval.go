// Package eval says how good a model is: exact match and partial credit on the
// generated tasks, and perplexity on a given text, each with an interval.
//
// The one idea: a [Subject] answers prompts, whatever it is. A model of this
// machine ([NewLocal]) decodes many prompts at once; an OpenAI-compatible server
// ([Endpoint]) is asked over HTTP; a run asks its pipeline and grades with the
// same [Grade], so that the quality column of a suite and the table of `meibench
// eval` cannot differ in what they count.
//
//	m, _ := models.Open("mei-nano")
//	report, _ := eval.Tasks(ctx, eval.NewLocal(m, 2), eval.Options{N: 200, Seed: 1})
//	fmt.Println(report.Applications[0].Exact.Value)
//
// Questions come from the test split, which no model of this project was trained
// on and no recipe was chosen on; another split must be asked for by name.
// Intervals are 95 % and treat instances as independent draws: they speak about
// new questions of the same generator, and about nothing else.
package eval

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"meibench/harness/stats"
	"meibench/reference/token"
	"meibench/workloads/tasks"
)

// Subject answers prompts greedily, in any order of work, with at most so many
// tokens each. done, if not nil, is called with the number answered so far.
type Subject interface {
	Answer(ctx context.Context, prompts []string, most int, done func(int)) ([]string, error)
}

// AnswerMost is the number of tokens that an answer may have: above the longest
// reference, which is under 48 tokens.
const AnswerMost = 64

// Grade is what an answer is worth.
type Grade struct {
	Exact  bool    // it is the reference, up to white space
	Credit float64 // in [0, 1], 1 if exact; see the task's page for what earns part of it
}

// Judge grades the output of a model for an instance of a task.
func Judge(in tasks.Instance, output string) (Grade, error) {
	t, err := tasks.Lookup(in.Task)
	if err != nil {
		return Grade{}, fmt.Errorf("grade an answer: %w", err)
	}
	return Grade{tasks.Exact(in, output), t.Score(in, output)}, nil
}

// Output is the answer in generated ids: what stands before the end of text.
func Output(tok *token.Tokenizer, ids []int32) string {
	if i := slices.IndexFunc(ids, tok.Ends); i >= 0 {
		ids = ids[:i]
	}
	return tok.Decode(ids)
}

// Options says what is asked. The zero value of a field stands for its default.
type Options struct {
	Apps  []string    // of tasks.Table; default all
	Split tasks.Split // default tasks.Test
	N     int         // questions per application and difficulty; default 500
	Seed  uint64      // of the generators

	// Progress, if not nil, is told how many of how many questions are answered.
	Progress func(app string, done, of int)
}

func (o *Options) complete() error {
	if o.Split == "" {
		o.Split = tasks.Test
	}
	if !slices.Contains([]tasks.Split{tasks.Train, tasks.Validation, tasks.Test}, o.Split) {
		return fmt.Errorf("split %q: want train, validation or test", o.Split)
	}
	if len(o.Apps) == 0 {
		for _, t := range tasks.Table {
			o.Apps = append(o.Apps, t.Name)
		}
	}
	if o.N == 0 {
		o.N = 500
	}
	if o.N < 1 {
		return fmt.Errorf("%d questions: want at least 1", o.N)
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	return nil
}

// Score is what a group of answers came to.
type Score struct {
	N        int      `json:"n"`
	Distinct int      `json:"distinct"`                   // different prompts among them
	Exact    Interval `json:"exact_match"`                // Wilson 1927
	Credit   Interval `json:"credit"`                     // mean, normal approximation
	Constant float64  `json:"best_constant_answer_share"` // exact match of the commonest answer, given to all
}

// Application is the score of one application, in all and by part.
type Application struct {
	Name string `json:"name"`
	Score
	Easy   Score   `json:"easy"`
	Hard   Score   `json:"hard"`
	Levels []Score `json:"levels"` // 1 to tasks.Levels
}

// Report is the result of Tasks.
type Report struct {
	Split        tasks.Split   `json:"split"`
	Seed         uint64        `json:"seed"`
	Applications []Application `json:"applications"`
	Took         time.Duration `json:"took_ns"`
}

// Tasks asks a subject the questions of each application and grades them.
func Tasks(ctx context.Context, s Subject, o Options) (*Report, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("evaluate on tasks: %w", err)
	}
	began := time.Now()
	r := &Report{Split: o.Split, Seed: o.Seed}
	for _, name := range o.Apps {
		a, err := application(ctx, s, name, o)
		if err != nil {
			return nil, fmt.Errorf("evaluate on %s: %w", name, err)
		}
		r.Applications = append(r.Applications, *a)
	}
	r.Took = time.Since(began)
	return r, nil
}

// graded is a question with what its answer was worth.
type graded struct {
	in tasks.Instance
	Grade
}

func application(ctx context.Context, s Subject, name string, o Options) (*Application, error) {
	t, err := tasks.Lookup(name)
	if err != nil {
		return nil, err
	}
	asked := append(t.Draw(o.Seed, o.Split, tasks.Easy, o.N), t.Draw(o.Seed, o.Split, tasks.Hard, o.N)...)
	prompts := make([]string, len(asked))
	for i, in := range asked {
		prompts[i] = in.Prompt
	}
	outputs, err := s.Answer(ctx, prompts, AnswerMost, func(done int) { o.Progress(name, done, len(asked)) })
	if err != nil {
		return nil, err
	}
	all := make([]graded, len(asked))
	for i, in := range asked {
		g, err := Judge(in, outputs[i])
		if err != nil {
			return nil, err
		}
		all[i] = graded{in, g}
	}
	return summarise(name, all), nil
}

func summarise(name string, all []graded) *Application {
	a := &Application{Name: name, Score: score(all, func(tasks.Instance) bool { return true })}
	a.Easy = score(all, func(in tasks.Instance) bool { return in.Difficulty == tasks.Easy })
	a.Hard = score(all, func(in tasks.Instance) bool { return in.Difficulty == tasks.Hard })
	for level := 1; level <= tasks.Levels; level++ {
		a.Levels = append(a.Levels, score(all, func(in tasks.Instance) bool { return in.Level == level }))
	}
	return a
}

// score sums up the answers to the instances that belong to a group.
func score(all []graded, belongs func(tasks.Instance) bool) (s Score) {
	answers, prompts := map[string]int{}, map[string]bool{}
	exact, constant := 0, 0
	var credits []float64
	for _, g := range all {
		if !belongs(g.in) {
			continue
		}
		s.N++
		prompts[g.in.Prompt] = true
		answers[g.in.Answer]++
		constant = max(constant, answers[g.in.Answer])
		if g.Exact {
			exact++
		}
		credits = append(credits, g.Credit)
	}
	s.Distinct = len(prompts)
	s.Exact, s.Credit = wilson(exact, s.N), mean(credits)
	s.Constant = float64(constant) / float64(max(1, s.N))
	return s
}

const confidence = 0.95

// Interval is an estimate and its 95 % interval.
type Interval struct {
	Value float64 `json:"value"`
	Lo    float64 `json:"lo"`
	Hi    float64 `json:"hi"`
}

// wilson is the interval of a proportion.
func wilson(k, n int) Interval {
	w := stats.Wilson(k, n, confidence)
	if n == 0 {
		w.Center = 0 // an unmarshalable NaN elsewhere; N says that nothing was asked
	}
	return Interval{w.Center, w.Lo, w.Hi}
}

// mean is that of independent values between 0 and 1, by normal approximation.
func mean(xs []float64) Interval {
	n := float64(max(1, len(xs)))
	sum, squares := 0.0, 0.0
	for _, x := range xs {
		sum += x
	}
	for _, x := range xs {
		squares += (x - sum/n) * (x - sum/n)
	}
	half := stats.Normal((1+confidence)/2) * math.Sqrt(squares/max(1, n-1)/n)
	return Interval{sum / n, max(0, sum/n-half), min(1, sum/n+half)}
}

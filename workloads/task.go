package workloads

import (
	"fmt"
	"sort"

	"meibench/internal/portable"
	"meibench/internal/rng"
	"meibench/internal/sourced"
	"meibench/internal/units"
	"meibench/workloads/tasks"
)

// TaskSource makes task text. Instance must be a pure function.
type TaskSource interface {
	// Instance returns question id of a seed: the task that scores the answer,
	// what to ask and the reference answer.
	Instance(seed uint64, id int) (task, prompt, answer string)
}

// Tokenizer turns text into token ids. One that also has
// EncodePrompt(string) []int32 is asked for prompts that way, so that it can
// put what its model expects before a text.
type Tokenizer interface {
	Encode(text string) []int32
}

// Tasks returns the text of an application from package workloads/tasks: only
// questions of the test split, which no model of the project was trained on.
// Difficulty is easy, hard or empty for both.
func Tasks(task, difficulty string) (TaskSource, error) {
	switch tasks.Difficulty(difficulty) {
	case "", tasks.Easy, tasks.Hard:
	default:
		return nil, sourced.Within("difficulty", fmt.Errorf("want easy, hard or nothing, got %q", difficulty))
	}
	t, err := tasks.Lookup(task)
	if err != nil {
		return nil, err
	}
	return testSplit{t, tasks.Difficulty(difficulty)}, nil
}

type testSplit struct {
	task       tasks.Task
	difficulty tasks.Difficulty
}

// candidates is how many instances belong to one request. One in eight is in
// the test split and about half of a difficulty: finding none in 1024 has a
// probability under 1e-28.
const candidates = 1024

// Instance returns the first of the request's candidates that fits.
func (t testSplit) Instance(seed uint64, id int) (task, prompt, answer string) {
	in := t.task.Generate(seed, id*candidates+t.candidate(seed, id))
	return in.Task, in.Prompt, in.Answer
}

// Reworded is the question in words that luck picks, and its answer.
func (t testSplit) Reworded(seed uint64, id int, luck uint64) (prompt, answer string) {
	in := t.task.Reworded(seed, id*candidates+t.candidate(seed, id), luck)
	return in.Prompt, in.Answer
}

// rewording is a source of tasks that can say a question in several ways.
type rewording interface {
	Reworded(seed uint64, id int, luck uint64) (prompt, answer string)
}

// poolZipf is how much more the popular questions of a pool are asked: assumed, as for models of a library.
const poolZipf = 0.8

// pool is what people ask: questions by popularity.
type pool struct{ sums []float64 }

func newPool(n int) *pool {
	p := &pool{sums: make([]float64, n)}
	sum := 0.0
	for k := range n {
		sum += portable.Pow(float64(k+1), -poolZipf)
		p.sums[k] = sum
	}
	return p
}

// draw is the question that a request asks.
func (p *pool) draw(seed uint64, request int) int {
	luck := rng.NewKey(seed, "pool").At(uint64(request))
	return sort.SearchFloat64s(p.sums, luck.Float64()*p.sums[len(p.sums)-1])
}

// completeTasks checks what task requests need.
func (w *Workload) completeTasks() error {
	if w.spec.Scale != Task {
		if w.spec.Difficulty != "" {
			return sourced.Within("difficulty", fmt.Errorf("only task requests have one; this workload's scale is field"))
		}
		return nil
	}
	if w.token == nil {
		return sourced.Within("scale", fmt.Errorf("task requests need the model's tokenizer: pass Deps.Tokenizer"))
	}
	if w.tasks == nil {
		source, err := Tasks(w.app.Task, w.spec.Difficulty)
		if err != nil {
			return sourced.Within("task", err)
		}
		w.tasks = source
	}
	if w.spec.Pool > 0 {
		w.pool = newPool(w.spec.Pool)
	}
	return nil
}

// write replaces the lengths of a request by those of its task text. Sensor
// bytes stay: the text stands for what the sensor saw.
func (w *Workload) write(r *Request, seed uint64) {
	id := r.ID
	if w.pool != nil {
		id = w.pool.draw(seed, r.ID)
	}
	task, text, answer := w.tasks.Instance(seed, id)
	if again, ok := w.tasks.(rewording); ok && w.pool != nil {
		text, answer = again.Reworded(seed, id, uint64(r.ID))
	}
	r.Task, r.Answer = task, answer
	w.ask(r, text)
}

// ask makes a text the whole prompt of a request that has its answer.
func (w *Workload) ask(r *Request, text string) {
	r.Text = text
	if p, ok := w.token.(interface{ EncodePrompt(string) []int32 }); ok {
		r.Prompt = p.EncodePrompt(text)
	} else {
		r.Prompt = w.token.Encode(text)
	}
	r.PromptTokens, r.VisionTokens, r.PrefixTokens = len(r.Prompt), 0, 0
	r.OutputTokens = len(w.token.Encode(r.Answer)) + 1 // and the end of text
	r.TextBytes = units.Bytes(len(text))
}

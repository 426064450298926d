package workloads

import (
	"fmt"

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
	return nil
}

// write replaces the lengths of a request by those of its task text. Sensor
// bytes stay: the text stands for what the sensor saw.
func (w *Workload) write(r *Request, seed uint64) {
	task, text, answer := w.tasks.Instance(seed, r.ID)
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

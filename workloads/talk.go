package workloads

import (
	"strings"

	"meibench/internal/units"
	"meibench/workloads/tasks"
)

// Conversation is a TaskSource whose questions go on: sessions of the scenario
// multi-turn ask it for their later turns. Turn must be a pure function.
type Conversation interface {
	TaskSource
	// Turn returns turn >= 1 of the session that question id opened: the whole
	// question as it is asked alone, and what is said of it to somebody who has
	// heard all the turns before.
	Turn(seed uint64, id, turn int) (task, alone, more, answer string)
}

// Turn goes on with the scene of the session's first question as long as it has
// another question (" ; where is the key =>", as lessons of training text go on),
// and then takes up a scene of its own, with the number id + turn.
func (t testSplit) Turn(seed uint64, id, turn int) (task, alone, more, answer string) {
	k := t.candidate(seed, id)
	if lesson := t.task.Lesson(seed, id*candidates+k, turn+1); turn < len(lesson) {
		in := lesson[turn]
		if _, question, ok := strings.Cut(in.Prompt, " ; "); ok {
			return in.Task, in.Prompt, " ; " + question, in.Answer
		}
	}
	task, alone, answer = t.Instance(seed, id+turn)
	return task, alone, alone, answer
}

// candidate is the number of the first candidate of a request that fits.
func (t testSplit) candidate(seed uint64, id int) int {
	for k := range candidates {
		in := t.task.Generate(seed, id*candidates+k)
		if in.Split == tasks.Test && (t.difficulty == "" || in.Difficulty == t.difficulty) {
			return k
		}
	}
	panic("workloads: task " + t.task.Name + " has no test question among the candidates")
}

// converse puts the conversation so far before a turn: the tokens of the turn
// before, as they were, its reference answer, and the end of text where the
// tokenizer has one. So the prompt's first PrefixTokens tokens repeat the session
// exactly, and a cache that kept them gives the same logits. A model that
// answered otherwise has other tokens in its cache: what is reused is for whoever
// serves to compare. Where the context is too short for all of it the window is
// emptied, and the turn stands alone with no prefix.
func (w *Workload) converse(next, last *Request, seed uint64) {
	source, ok := w.tasks.(Conversation)
	if !ok {
		return // questions that know nothing of each other
	}
	task, alone, more, answer := source.Turn(seed, next.ID-next.Turn, next.Turn)
	next.Task, next.Answer = task, answer
	w.ask(next, alone)
	reply, said := w.token.Encode(last.Answer), w.token.Encode(more)
	prompt := make([]int32, 0, len(last.Prompt)+len(reply)+1+len(said))
	prompt = append(append(prompt, last.Prompt...), reply...)
	if t, ok := w.token.(interface{ EOS() int32 }); ok && t.EOS() >= 0 {
		prompt = append(prompt, t.EOS())
	}
	prefix := len(prompt)
	prompt = append(prompt, said...)
	if c := w.spec.Context; c > 0 && len(prompt)+next.OutputTokens > c {
		return
	}
	next.Prompt, next.PromptTokens, next.PrefixTokens = prompt, len(prompt), prefix
	next.Text = last.Text + " " + last.Answer + joint(more) + more
	next.TextBytes = units.Bytes(len(next.Text))
}

// joint is what stands before what is said: a question brings its own " ; ".
func joint(more string) string {
	if strings.HasPrefix(more, " ") {
		return ""
	}
	return "\n"
}
